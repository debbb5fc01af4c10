//! What the constructors of figures take: numbers, curves and points.

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

pub(crate) fn doubles<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.to_f64()).collect()
}

/// Named values of a curve, and where on the horizontal axis they lie.
///
/// The same type gives bars their heights, and histograms and boxes their samples.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Series {
    /// Shown in the legend; empty for a single unnamed curve.
    pub name: String,
    /// Positions; empty for 0, 1, 2, …
    pub x: Vec<f64>,
    /// Values.
    pub y: Vec<f64>,
    /// Lower and upper ends of a band around a curve; empty for none.
    pub band: (Vec<f64>, Vec<f64>),
    /// Whether the points of a curve have markers; unless told, curves of up to 40 points do.
    pub markers: Option<bool>,
}

impl Series {
    /// A named curve over 0, 1, 2, …
    pub fn new<T: Number>(name: impl Into<String>, y: &[T]) -> Self {
        Self { name: name.into(), y: doubles(y), ..Self::default() }
    }

    /// Sets the positions on the horizontal axis, one for each value.
    pub fn x<T: Number>(mut self, x: &[T]) -> Self {
        self.x = doubles(x);
        self
    }

    /// A band around the curve, or a thin line at each bar: the lower and the upper end at each value.
    pub fn band<T: Number>(mut self, low: &[T], high: &[T]) -> Self {
        self.band = (doubles(low), doubles(high));
        self
    }

    /// A band from `value - spread` to `value + spread`, such as a standard deviation.
    pub fn spread<T: Number>(mut self, spread: &[T]) -> Self {
        let spread = doubles(spread);
        // Another number of spreads than values is found, and told, when the figure is written.
        let end = |sign: f64| {
            let values = self.y.iter().copied().chain(std::iter::repeat(f64::NAN));
            spread.iter().zip(values).map(|(s, y)| y + sign * s).collect()
        };
        self.band = (end(-1.0), end(1.0));
        self
    }

    /// Whether the points have markers.
    pub fn markers(mut self, shown: bool) -> Self {
        self.markers = Some(shown);
        self
    }
}

/// What [`line()`](crate::line()), [`bar`](crate::bar), [`histogram`](crate::histogram) and
/// [`boxes`](crate::boxes) can draw.
#[diagnostic::on_unimplemented(
    message = "a figure draws `&[f64]`, `&Vec<f32>` and their like, or `Series`, not `{Self}`",
    note = "of a tensor, `&x.to_vec()`"
)]
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

/// A named cloud of points, and what else each of them shows.
///
/// ```
/// use ironlens_report::{Points, scatter};
/// let heads = Points::new("layer 0", &[0.1, 0.9], &[0.0, 1.5]).names(["L0H0", "L0H1"]).color(&[0.2, 0.8]);
/// let svg = scatter(heads).x("previous-token score").y("rise of the loss").value("entropy").to_svg()?;
/// assert!(svg.contains("rise of the loss"));
/// # Ok::<(), ironlens_report::ReportError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Points {
    /// Shown in the legend; empty for a single unnamed cloud.
    pub name: String,
    /// Positions on the horizontal axis.
    pub x: Vec<f64>,
    /// Positions on the vertical axis.
    pub y: Vec<f64>,
    /// A value for each point, shown by the colour map; empty for one colour.
    pub color: Vec<f64>,
    /// A value for each point, shown by the area of its mark; empty for one size.
    pub size: Vec<f64>,
    /// A name for each point, shown when it is pointed at; may be empty.
    pub names: Vec<String>,
}

impl Points {
    /// Points at `x` and `y`.
    pub fn new<T: Number, U: Number>(name: impl Into<String>, x: &[T], y: &[U]) -> Self {
        Self { name: name.into(), x: doubles(x), y: doubles(y), ..Self::default() }
    }

    /// A value for each point, shown by its colour.
    pub fn color<T: Number>(mut self, values: &[T]) -> Self {
        self.color = doubles(values);
        self
    }

    /// A value of 0 or more for each point, shown by the area of its mark.
    pub fn size<T: Number>(mut self, values: &[T]) -> Self {
        self.size = doubles(values);
        self
    }

    /// A name for each point.
    pub fn names<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }
}

/// What [`scatter`](crate::scatter) can draw.
pub trait ToPoints {
    /// The clouds.
    fn to_points(self) -> Vec<Points>;
}

impl<T: Number, U: Number> ToPoints for (&[T], &[U]) {
    fn to_points(self) -> Vec<Points> {
        vec![Points::new("", self.0, self.1)]
    }
}
impl<T: Number, U: Number> ToPoints for (&Vec<T>, &Vec<U>) {
    fn to_points(self) -> Vec<Points> {
        vec![Points::new("", self.0, self.1)]
    }
}
impl<T: Number, U: Number, const N: usize, const M: usize> ToPoints for (&[T; N], &[U; M]) {
    fn to_points(self) -> Vec<Points> {
        vec![Points::new("", self.0, self.1)]
    }
}
impl ToPoints for Points {
    fn to_points(self) -> Vec<Points> {
        vec![self]
    }
}
impl ToPoints for Vec<Points> {
    fn to_points(self) -> Vec<Points> {
        self
    }
}
impl<const N: usize> ToPoints for [Points; N] {
    fn to_points(self) -> Vec<Points> {
        self.into()
    }
}
