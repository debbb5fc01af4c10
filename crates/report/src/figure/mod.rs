//! Figures: data and options, independent of how they are written.

mod evcxr;
mod html;
mod picture;
mod plotly_json;
mod scene;
mod ticks;

use std::path::Path;

pub(crate) use scene::Scene;

use crate::{Array, Colorscale, ReportError, files};

/// A matrix as coloured square cells, row 0 at the top: `plotly.express.imshow`.
///
/// A 3-D array `[n, rows, columns]` is drawn as `n` small matrices with one
/// colour bar; name them with [`Figure::facets`]. Other shapes are an error when
/// the figure is written.
///
/// Without options, a white-to-blue map spans from 0 (or from the smallest
/// value, if some are negative) to the largest value. With
/// [`Figure::midpoint`], a red-blue map is symmetric about it. Cells that are not
/// finite are marked.
pub fn imshow(array: impl Into<Array>) -> Figure {
    Figure::new(Kind::Heatmap(array.into()))
}

/// One or more curves: `plotly.express.line`.
///
/// Takes plain values (`&[f32]`, `&Vec<f64>`, …), drawn against 0, 1, 2, …, or
/// named [`Series`]. Values that are not finite leave a gap.
pub fn line(values: impl ToSeries) -> Figure {
    Figure::new(Kind::Lines(values.to_series()))
}

/// A bar for each label; several [`Series`] stand side by side in each group.
///
/// The number of values must equal the number of labels when the figure is written.
pub fn bar<S: Into<String>>(labels: impl IntoIterator<Item = S>, values: impl ToSeries) -> Figure {
    Figure::new(Kind::Bars { labels: labels.into_iter().map(Into::into).collect(), series: values.to_series() })
}

/// Named values of a curve, and where on the horizontal axis they lie.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Shown in the legend; empty for a single unnamed curve.
    pub name: String,
    /// Positions; empty for 0, 1, 2, …
    pub x: Vec<f64>,
    /// Values.
    pub y: Vec<f64>,
}

impl Series {
    /// A named curve over 0, 1, 2, …
    pub fn new<T: Number>(name: impl Into<String>, y: &[T]) -> Self {
        Self { name: name.into(), x: Vec::new(), y: y.iter().map(|v| v.to_f64()).collect() }
    }

    /// Sets the positions on the horizontal axis, one for each value.
    pub fn x<T: Number>(mut self, x: &[T]) -> Self {
        self.x = x.iter().map(|v| v.to_f64()).collect();
        self
    }
}

/// A number a figure can show.
pub trait Number: Copy {
    /// The same number in double precision, with no digits that were not there.
    fn to_f64(self) -> f64;
}

impl Number for f64 {
    fn to_f64(self) -> f64 {
        self
    }
}
impl Number for f32 {
    fn to_f64(self) -> f64 {
        // 0.1f32 becomes 0.1, not 0.10000000149011612: what hover labels and files show.
        self.to_string().parse().unwrap_or(f64::from(self))
    }
}
impl Number for usize {
    fn to_f64(self) -> f64 {
        self as f64
    }
}
impl Number for u64 {
    fn to_f64(self) -> f64 {
        self as f64
    }
}
impl Number for u32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}
impl Number for i32 {
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
}

/// What [`line()`] and [`bar`] can draw.
pub trait ToSeries {
    /// The curves.
    fn to_series(self) -> Vec<Series>;
}

impl<T: Number> ToSeries for &[T] {
    fn to_series(self) -> Vec<Series> {
        vec![Series::new("", self)]
    }
}
impl<T: Number> ToSeries for &Vec<T> {
    fn to_series(self) -> Vec<Series> {
        self.as_slice().to_series()
    }
}
impl<T: Number, const N: usize> ToSeries for &[T; N] {
    fn to_series(self) -> Vec<Series> {
        self.as_slice().to_series()
    }
}
impl ToSeries for Series {
    fn to_series(self) -> Vec<Series> {
        vec![self]
    }
}
impl ToSeries for Vec<Series> {
    fn to_series(self) -> Vec<Series> {
        self
    }
}
impl<const N: usize> ToSeries for [Series; N] {
    fn to_series(self) -> Vec<Series> {
        self.into()
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Heatmap(Array),
    Lines(Vec<Series>),
    Bars { labels: Vec<String>, series: Vec<Series> },
}

/// A figure: made by [`imshow`], [`line()`] or [`bar`], refined by chaining, then
/// written with [`Figure::save`] or put into a [`Report`](crate::Report).
///
/// No option is ignored: one that means nothing for a kind of figure (a colour map
/// for a curve) is [`ReportError::Option`] when the figure is written. Titles, names
/// and labels of more than 200 characters end in an ellipsis.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub(crate) kind: Kind,
    pub(crate) title: String,
    pub(crate) caption: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) value: Option<String>,
    pub(crate) log_y: bool,
    pub(crate) range: Option<(f64, f64)>,
    pub(crate) midpoint: Option<f64>,
    pub(crate) colorscale: Option<Colorscale>,
    pub(crate) x_labels: Vec<String>,
    pub(crate) y_labels: Vec<String>,
    pub(crate) facets: Vec<String>,
    pub(crate) columns: Option<usize>,
    pub(crate) rules: Vec<(f64, String)>,
    pub(crate) below: Vec<Figure>,
    pub(crate) size: Option<(u32, u32)>,
}

impl Figure {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            title: String::new(),
            caption: String::new(),
            x: String::new(),
            y: String::new(),
            value: None,
            log_y: false,
            range: None,
            midpoint: None,
            colorscale: None,
            x_labels: Vec::new(),
            y_labels: Vec::new(),
            facets: Vec::new(),
            columns: None,
            rules: Vec::new(),
            below: Vec::new(),
            size: None,
        }
    }

    /// The line above the figure.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// A sentence below the figure in a page: what is to be seen, over which data.
    pub fn caption(mut self, caption: impl Into<String>) -> Self {
        self.caption = caption.into();
        self
    }

    /// The name of the horizontal axis.
    pub fn x(mut self, name: impl Into<String>) -> Self {
        self.x = name.into();
        self
    }

    /// The name of the vertical axis.
    pub fn y(mut self, name: impl Into<String>) -> Self {
        self.y = name.into();
        self
    }

    /// The name of what the colours of a heatmap mean ("value" unless told).
    pub fn value(mut self, name: impl Into<String>) -> Self {
        self.value = Some(name.into());
        self
    }

    /// A logarithmic vertical axis of lines or bars, with a tick at each power of ten.
    ///
    /// Values and rules that are zero or negative cannot be shown on it: they are left
    /// out, and a note says how many.
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// The values at the two ends of the colour map or of the vertical axis, in either
    /// order: finite, not equal, and above 0 on a logarithmic axis.
    ///
    /// Values outside get the end's colour, or leave the picture.
    pub fn range(mut self, min: f64, max: f64) -> Self {
        self.range = Some((min, max));
        self
    }

    /// The value of a heatmap that gets the middle colour; the range becomes symmetric
    /// about it.
    pub fn midpoint(mut self, midpoint: f64) -> Self {
        self.midpoint = Some(midpoint);
        self
    }

    /// The colour map of a heatmap.
    pub fn colorscale(mut self, map: Colorscale) -> Self {
        self.colorscale = Some(map);
        self
    }

    /// Names of a heatmap's columns, such as source tokens, or of the positions of
    /// curves: one for each value of the longest, whose [`Series`] then have no
    /// positions of their own. Bars have their labels from [`bar`].
    pub fn x_labels<S: Into<String>>(mut self, labels: impl IntoIterator<Item = S>) -> Self {
        self.x_labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Names of a heatmap's rows, such as destination tokens.
    pub fn y_labels<S: Into<String>>(mut self, labels: impl IntoIterator<Item = S>) -> Self {
        self.y_labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Names of the small matrices of a heatmap's 3-D array.
    pub fn facets<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.facets = names.into_iter().map(Into::into).collect();
        self
    }

    /// How many small matrices of a heatmap stand side by side at most: 1 or more, 4
    /// unless told.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = Some(columns);
        self
    }

    /// A horizontal rule across lines or bars with a name, such as the loss of guessing.
    pub fn rule(mut self, y: f64, name: impl Into<String>) -> Self {
        self.rules.push((y, name.into()));
        self
    }

    /// Puts another line figure below this one, on the same horizontal axis, with its
    /// own vertical one. Title, caption and size are those of the first.
    pub fn below(mut self, other: Figure) -> Self {
        self.below.push(other);
        self
    }

    /// Width and height in pixels at scale 1, from 160 x 120 to 8000 x 8000.
    pub fn size(mut self, width: u32, height: u32) -> Self {
        self.size = Some((width, height));
        self
    }

    /// Writes the figure; the extension says how: `.html` (interactive, works
    /// without a network), `.png` (at twice the size) or `.svg`.
    ///
    /// Missing folders are created, and the file appears whole or not at all.
    ///
    /// # Errors
    /// [`ReportError::Format`] for another extension, [`ReportError::Shape`] for
    /// data and [`ReportError::Option`] for an option that this kind of figure cannot
    /// show, [`ReportError::File`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let bytes = match extension.to_ascii_lowercase().as_str() {
            "html" | "htm" => self.to_html()?.into_bytes(),
            "png" => self.to_png()?,
            "svg" => self.to_svg()?.into_bytes(),
            _ => return Err(ReportError::Format { path: path.into() }),
        };
        files::write_atomic(path, &bytes)
    }

    /// The whole page as [`Figure::save`] writes it to `.html`.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data and [`ReportError::Option`] for an option that
    /// this kind of figure cannot show.
    pub fn to_html(&self) -> Result<String, ReportError> {
        html::page(self)
    }

    /// The picture as the bytes of a PNG file, at twice the size.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data and [`ReportError::Option`] for an option that
    /// this kind of figure cannot show, [`ReportError::Draw`] if it could not be drawn.
    pub fn to_png(&self) -> Result<Vec<u8>, ReportError> {
        picture::png(&self.scene()?, 2)
    }

    pub(crate) fn to_png_small(&self) -> Result<Vec<u8>, ReportError> {
        picture::png(&self.scene()?, 1)
    }

    /// The picture as the text of an SVG file.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data and [`ReportError::Option`] for an option that
    /// this kind of figure cannot show, [`ReportError::Draw`] if it could not be drawn.
    pub fn to_svg(&self) -> Result<String, ReportError> {
        picture::svg(&self.scene()?)
    }

    /// The data, layout and options as `plotly.js` takes them, as JSON text.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data and [`ReportError::Option`] for an option that
    /// this kind of figure cannot show.
    pub fn to_plotly_json(&self) -> Result<String, ReportError> {
        Ok(plotly_json::json(&self.scene()?))
    }

    /// Shows the figure in a Jupyter notebook with the evcxr kernel.
    ///
    /// The kernel calls this by itself for a cell whose last expression is a
    /// figure. A figure that cannot be drawn shows its error.
    pub fn evcxr_display(&self) {
        println!("{}", evcxr::blocks(self));
    }

    pub(crate) fn scene(&self) -> Result<Scene, ReportError> {
        scene::prepare(self)
    }
}
