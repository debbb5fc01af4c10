//! Figures: data and options, independent of how they are written.

pub(crate) mod evcxr;
mod options;
mod picture;
mod plotly_json;
mod scene;
mod series;
mod text;
mod ticks;

use std::path::Path;

pub(crate) use plotly_json::{height as chart_height, precision};
pub(crate) use scene::Scene;
pub use series::{Number, Points, Series, ToPoints, ToSeries};
pub(crate) use text::{token_text, visible};

use crate::{Array, Colorscale, Page, ReportError};

/// A matrix as coloured cells, row 0 at the top: `plotly.express.imshow`. They are square unless
/// [`Figure::stretched`].
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

/// Points at two coordinates: `plotly.express.scatter`.
///
/// Takes two slices, `(&x, &y)`, or named [`Points`] with colours, sizes and names.
pub fn scatter(points: impl ToPoints) -> Figure {
    Figure::new(Kind::Scatter(points.to_points()))
}

/// How often values lie where: `plotly.express.histogram`. Several [`Series`] lie over each other, with
/// the same bins.
///
/// Values that are not finite are left out, and a note says how many.
pub fn histogram(samples: impl ToSeries) -> Figure {
    Figure::new(Kind::Histogram(samples.to_series()))
}

/// The spread of samples as boxes, one for each [`Series`]: `plotly.express.box`.
///
/// A box spans the quartiles with a line at the median; whiskers reach the last value within 1.5 times its
/// height, and values beyond are points. Quartiles lie between values as numpy's `quantile` has them.
pub fn boxes(samples: impl ToSeries) -> Figure {
    Figure::new(Kind::Boxes(samples.to_series()))
}

/// A bar for each label; several [`Series`] stand side by side in each group.
///
/// The number of values must equal the number of labels when the figure is written.
pub fn bar<S: Into<String>>(labels: impl IntoIterator<Item = S>, values: impl ToSeries) -> Figure {
    Figure::new(Kind::Bars { labels: labels.into_iter().map(Into::into).collect(), series: values.to_series() })
}

/// Several figures of any kinds in one, side by side, each with its title above it.
///
/// [`Figure::columns`] says how many stand beside each other (2 unless told).
///
/// ```
/// use ironlens_report::{Array, histogram, imshow, panels};
/// let values = [0.1_f32, 0.4, 0.2, 0.9];
/// let both = panels([imshow(Array::new([2, 2], &values)?).title("scores"), histogram(&values).title("their spread")]);
/// assert!(both.to_svg()?.contains("their spread"));
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
pub fn panels(figures: impl IntoIterator<Item = Figure>) -> Figure {
    Figure::new(Kind::Panels(figures.into_iter().collect()))
}

/// Figures of one kind, shown one at a time with a slider and a button that plays them: `animation_frame` of
/// `plotly.express`.
///
/// All have the axes and colours of the whole, unless a figure has a [`Figure::range`] of its own. A picture
/// shows up to six of them side by side.
pub fn frames<S: Into<String>>(frames: impl IntoIterator<Item = (S, Figure)>) -> Figure {
    Figure::new(Kind::Frames(frames.into_iter().map(|(name, figure)| (name.into(), figure)).collect()))
}

/// Traces and a layout of your own, as `plotly.js` takes them: JSON text, such as the `plotly` crate's traces
/// give with `to_json`.
///
/// `traces` is an array, `layout` an object; the traces that the embedded library knows are scatter, bar, box,
/// heatmap, histogram, histogram2d, histogram2dcontour, contour, violin, image, pie and scatterternary. Only a
/// browser can draw it: as PNG or SVG it is [`ReportError::Draw`].
///
/// ```
/// use ironlens_report::plotly;
/// let violin = plotly(r#"[{ "type": "violin", "y": [1, 2, 2, 5] }]"#, r#"{ "yaxis": { "title": { "text": "loss" } } }"#);
/// assert!(violin.title("by violin").to_html()?.contains("violin"));
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
pub fn plotly(traces: impl Into<String>, layout: impl Into<String>) -> Figure {
    Figure::new(Kind::Own { traces: traces.into(), layout: layout.into() })
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Heatmap(Array),
    Lines(Vec<Series>),
    Scatter(Vec<Points>),
    Histogram(Vec<Series>),
    Boxes(Vec<Series>),
    Bars { labels: Vec<String>, series: Vec<Series> },
    Panels(Vec<Figure>),
    Frames(Vec<(String, Figure)>),
    Own { traces: String, layout: String },
}

/// A figure: made by [`imshow`], [`line()`], [`scatter`], [`histogram`], [`boxes`], [`bar`], [`panels`],
/// [`frames`] or [`plotly`], refined by chaining, then written with [`Figure::save`] or put into a
/// [`Report`](crate::Report) or a [`Page`].
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
    pub(crate) log_x: bool,
    pub(crate) log_y: bool,
    pub(crate) range: Option<(f64, f64)>,
    pub(crate) midpoint: Option<f64>,
    pub(crate) colorscale: Option<Colorscale>,
    pub(crate) own_scales: bool,
    pub(crate) stretched: bool,
    pub(crate) x_labels: Vec<String>,
    pub(crate) y_labels: Vec<String>,
    pub(crate) x_tokens: Vec<String>,
    pub(crate) y_tokens: Vec<String>,
    pub(crate) facets: Vec<String>,
    pub(crate) columns: Option<usize>,
    pub(crate) text_auto: bool,
    pub(crate) causal: bool,
    pub(crate) mask: Option<Vec<bool>>,
    pub(crate) noise: Option<Array>,
    pub(crate) bins: Option<usize>,
    pub(crate) density: bool,
    pub(crate) diagonal: bool,
    pub(crate) rules: Vec<(f64, String)>,
    pub(crate) upright_rules: Vec<(f64, String)>,
    pub(crate) below: Vec<Figure>,
    pub(crate) size: Option<(u32, u32)>,
}

/// The most pixels of a figure that stands beside others in a report.
const NARROW: u32 = 620;

/// What a file's name says of how a figure is written.
enum Format {
    Html,
    Png,
    Svg,
}

impl Format {
    fn of(path: &Path) -> Result<Format, ReportError> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        match extension.to_ascii_lowercase().as_str() {
            "html" | "htm" => Ok(Format::Html),
            "png" => Ok(Format::Png),
            "svg" => Ok(Format::Svg),
            _ => Err(ReportError::Format { path: path.into() }),
        }
    }
}

impl Figure {
    /// Whether its width leaves room beside it.
    pub(crate) fn is_narrow(&self) -> bool {
        self.scene().is_ok_and(|scene| scene.size.0 <= NARROW)
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            title: String::new(),
            caption: String::new(),
            x: String::new(),
            y: String::new(),
            value: None,
            log_x: false,
            log_y: false,
            range: None,
            midpoint: None,
            colorscale: None,
            own_scales: false,
            stretched: false,
            x_labels: Vec::new(),
            y_labels: Vec::new(),
            x_tokens: Vec::new(),
            y_tokens: Vec::new(),
            facets: Vec::new(),
            columns: None,
            text_auto: false,
            causal: false,
            mask: None,
            noise: None,
            bins: None,
            density: false,
            diagonal: false,
            rules: Vec::new(),
            upright_rules: Vec::new(),
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

    /// The name of what the colours of a heatmap or of points mean ("value" unless told).
    pub fn value(mut self, name: impl Into<String>) -> Self {
        self.value = Some(name.into());
        self
    }

    /// A logarithmic horizontal axis of lines or points.
    ///
    /// Positions that are zero or negative are left out, and a note says how many.
    pub fn log_x(mut self) -> Self {
        self.log_x = true;
        self
    }

    /// A logarithmic vertical axis of lines, points, bars, histograms or boxes, with a tick at each power of ten.
    ///
    /// Values and rules that are zero or negative cannot be shown on it: they are left
    /// out, and a note says how many.
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// The values at the two ends of a heatmap's colour map or of the vertical axis, in either
    /// order: finite, not equal, and above 0 on a logarithmic axis.
    ///
    /// Values outside get the end's colour, or leave the picture.
    pub fn range(mut self, min: f64, max: f64) -> Self {
        self.range = Some((min, max));
        self
    }

    /// The value of a heatmap or of points' colours that gets the middle colour; the range becomes symmetric
    /// about it.
    pub fn midpoint(mut self, midpoint: f64) -> Self {
        self.midpoint = Some(midpoint);
        self
    }

    /// The colour map of a heatmap or of points.
    pub fn colorscale(mut self, map: Colorscale) -> Self {
        self.colorscale = Some(map);
        self
    }

    /// Gives each small matrix of a heatmap the colours of its own values, with a bar beside it. Unless told,
    /// all share one.
    pub fn own_scales(mut self) -> Self {
        self.own_scales = true;
        self
    }

    /// Lets the cells of a heatmap fill its area, as high and as wide as there is room: `aspect="auto"` of
    /// `plotly.express.imshow`. For matrices whose rows and columns are of different kinds.
    pub fn stretched(mut self) -> Self {
        self.stretched = true;
        self
    }

    /// Names of a heatmap's columns or of the positions of
    /// curves: one for each value of the longest, whose [`Series`] then have no
    /// positions of their own. Bars have their labels from [`bar`].
    pub fn x_labels<S: Into<String>>(mut self, labels: impl IntoIterator<Item = S>) -> Self {
        self.x_labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Names of a heatmap's rows.
    pub fn y_labels<S: Into<String>>(mut self, labels: impl IntoIterator<Item = S>) -> Self {
        self.y_labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// Tokens as names, like [`Figure::x_labels`]: blanks, line ends and unprintable characters are drawn.
    pub fn x_tokens<S: Into<String>>(mut self, tokens: impl IntoIterator<Item = S>) -> Self {
        self.x_tokens = tokens.into_iter().map(Into::into).collect();
        self
    }

    /// Tokens as names of a heatmap's rows, such as destinations.
    pub fn y_tokens<S: Into<String>>(mut self, tokens: impl IntoIterator<Item = S>) -> Self {
        self.y_tokens = tokens.into_iter().map(Into::into).collect();
        self
    }

    /// Names of the small matrices of a heatmap's 3-D array.
    pub fn facets<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.facets = names.into_iter().map(Into::into).collect();
        self
    }

    /// How many small matrices of a heatmap, or [`panels`], stand side by side at most: 1 or more, 4 (2)
    /// unless told.
    pub fn columns(mut self, columns: usize) -> Self {
        self.columns = Some(columns);
        self
    }

    /// Prints each value of a heatmap into its cell: `text_auto` of `plotly.express.imshow`.
    ///
    /// For up to 2,500 cells; more could not be read.
    pub fn text_auto(mut self) -> Self {
        self.text_auto = true;
        self
    }

    /// Hides the cells of a heatmap whose column lies behind their row: what a causal head cannot see.
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// Hides the cells of a heatmap where `hidden` is true: one for each cell, or for each of a small matrix.
    /// They are hatched, and not part of the range.
    pub fn mask(mut self, hidden: impl IntoIterator<Item = bool>) -> Self {
        self.mask = Some(hidden.into_iter().collect());
        self
    }

    /// The standard error of each value of a heatmap, in an array of the same shape. Cells less than two of
    /// them from the midpoint (0 unless told) are grey: they may be noise.
    pub fn noise(mut self, standard_errors: impl Into<Array>) -> Self {
        self.noise = Some(standard_errors.into());
        self
    }

    /// How many bins a histogram has, 1 to 1,000 (about the square root of the number of values unless told).
    pub fn bins(mut self, bins: usize) -> Self {
        self.bins = Some(bins);
        self
    }

    /// Bars of a histogram with a total area of 1 for each series, instead of counts.
    pub fn density(mut self) -> Self {
        self.density = true;
        self
    }

    /// The line x = y behind points or curves.
    pub fn diagonal(mut self) -> Self {
        self.diagonal = true;
        self
    }

    /// A horizontal rule across lines, points, bars, histograms or boxes with a name, such as the loss of guessing.
    pub fn rule(mut self, y: f64, name: impl Into<String>) -> Self {
        self.rules.push((y, name.into()));
        self
    }

    /// A vertical rule across lines, points or histograms with a name, such as the step at which something began.
    pub fn vrule(mut self, x: f64, name: impl Into<String>) -> Self {
        self.upright_rules.push((x, name.into()));
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
        let bytes = match Format::of(path)? {
            Format::Html => self.to_html()?.into_bytes(),
            Format::Png => self.to_png()?,
            Format::Svg => self.to_svg()?.into_bytes(),
        };
        crate::files::write_atomic(path, &bytes)
    }

    /// Whether [`Figure::save`] knows a format by this name: for who would know before the work that a figure is of.
    ///
    /// ```
    /// # use ironlens_report::Figure;
    /// assert!(Figure::check_name("loss.svg").is_ok());
    /// assert!(Figure::check_name("loss.pdf").unwrap_err().to_string().contains(".html"));
    /// ```
    ///
    /// # Errors
    /// [`ReportError::Format`] for an extension that says no format.
    pub fn check_name(path: impl AsRef<Path>) -> Result<(), ReportError> {
        Format::of(path.as_ref()).map(|_| ())
    }

    /// The whole page as [`Figure::save`] writes it to `.html`.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data and [`ReportError::Option`] for an option that
    /// this kind of figure cannot show.
    pub fn to_html(&self) -> Result<String, ReportError> {
        Page::stack([self.clone()]).to_html()
    }

    /// The picture as the bytes of a PNG file, at twice the size.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data and [`ReportError::Option`] for an option that
    /// this kind of figure cannot show, [`ReportError::Draw`] if it could not be drawn.
    pub fn to_png(&self) -> Result<Vec<u8>, ReportError> {
        picture::png(&self.scene()?, 2)
    }

    /// The picture for a page, at its size; none of what only a browser can draw.
    pub(crate) fn to_png_small(&self) -> Result<Option<Vec<u8>>, ReportError> {
        match self.scene()? {
            Scene { body: scene::Body::Own(..), .. } => Ok(None),
            scene => picture::png_indexed(&scene).map(Some),
        }
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
    /// figure. A figure that cannot be drawn shows its error. The first figure that a process
    /// shows brings the chart library, the others take it from the notebook.
    pub fn evcxr_display(&self) {
        println!("{}", evcxr::blocks(self, evcxr::first_in_this_process()));
    }

    pub(crate) fn scene(&self) -> Result<Scene, ReportError> {
        scene::prepare(self)
    }
}
