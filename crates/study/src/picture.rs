//! Results as plain data: what `analysis.json` holds, and the figures made of it.

mod numbers;

use ironlens_report::{Array, Figure, HeadFact, ReportError, Section, Series, bar, imshow, line};
use ironlens_tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Results of analyses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Analysis {
    /// Steps that the analysed model was trained for, if a run tells.
    pub step: Option<u64>,
    /// One per kind of analysis.
    pub sections: Vec<Part>,
}

/// One kind of analysis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// Its heading.
    pub title: String,
    /// What was done, in words.
    pub prose: String,
    /// What was found.
    pub pictures: Vec<Picture>,
}

/// Numbers, and how they are shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Picture {
    /// A matrix, or several of one size.
    Heatmap {
        /// Above it.
        title: String,
        /// Names of the two axes, vertical first.
        axes: [String; 2],
        /// Labels along the vertical axis; numbers if empty.
        rows: Vec<String>,
        /// Labels along the horizontal axis; numbers if empty.
        columns: Vec<String>,
        /// Names of the matrices, if there are several.
        facets: Vec<String>,
        /// `[row, column]` or `[facet, row, column]`.
        shape: Vec<usize>,
        /// Row by row.
        #[serde(with = "numbers")]
        values: Vec<f32>,
        /// Whether 0 is the middle of the colours.
        signed: bool,
        /// What the values are.
        #[serde(default)]
        value: String,
        /// The ends of the colours; those of the values if there are none.
        #[serde(default)]
        range: Option<[f64; 2]>,
        /// The standard error of each value, where it is known: what is less than two of them from 0 is grey.
        #[serde(default, with = "numbers")]
        noise: Vec<f32>,
        /// Whether columns behind their row mean nothing: they are hidden.
        #[serde(default)]
        causal: bool,
    },
    /// A bar per label.
    Bars {
        /// Above it.
        title: String,
        /// What is measured.
        value: String,
        /// Names of the bars.
        labels: Vec<String>,
        /// Their lengths.
        #[serde(with = "numbers")]
        values: Vec<f64>,
        /// The standard errors of their lengths, where they are known.
        #[serde(default, with = "numbers")]
        errors: Vec<f64>,
    },
    /// Curves.
    Lines {
        /// Above it.
        title: String,
        /// Name of the horizontal axis, whose values are 0, 1, ..
        x: String,
        /// Name of the vertical axis.
        y: String,
        /// Whether it goes by powers of ten.
        #[serde(default)]
        log: bool,
        /// Names and values.
        #[serde(with = "numbers::by_name")]
        curves: Vec<(String, Vec<f64>)>,
    },
}

/// The axes of pictures of every head.
const HEADS: [&str; 2] = ["layer", "head"];

/// How wide a picture is that has its place in a page alone, in pixels.
const WIDE: u32 = 1060;

impl Picture {
    /// A heatmap of a tensor, signed.
    pub fn heatmap(title: impl Into<String>, axes: [&str; 2], values: &Tensor) -> Picture {
        Picture::Heatmap {
            title: title.into(),
            axes: axes.map(String::from),
            rows: vec![],
            columns: vec![],
            facets: vec![],
            shape: values.shape().to_vec(),
            values: values.to_vec(),
            signed: true,
            value: String::new(),
            range: None,
            noise: vec![],
            causal: false,
        }
    }

    /// A heatmap of a value for every head, `[layer, head]`. The page has it on the card of each head, too.
    pub fn heads(title: impl Into<String>, values: &Tensor) -> Picture {
        Picture::heatmap(title, HEADS, values)
    }

    /// A bar for each label.
    ///
    /// # Panics
    /// If there are not as many values as labels.
    #[track_caller]
    pub fn bars(title: impl Into<String>, value: &str, labels: Vec<String>, values: Vec<f64>) -> Picture {
        assert_eq!(labels.len(), values.len(), "bars: {} labels for {} values", labels.len(), values.len());
        Picture::Bars { title: title.into(), value: value.into(), labels, values, errors: vec![] }
    }

    /// Curves with names over 0, 1, ..
    pub fn lines(title: impl Into<String>, axes: [&str; 2], curves: Vec<(String, Vec<f64>)>) -> Picture {
        let [x, y] = axes.map(String::from);
        Picture::Lines { title: title.into(), x, y, log: false, curves }
    }

    /// Curves over powers of ten.
    #[must_use]
    pub fn logarithmic(mut self) -> Picture {
        if let Picture::Lines { log, .. } = &mut self {
            *log = true;
        }
        self
    }

    /// Its labels along both axes.
    #[must_use]
    pub fn labels(mut self, new_rows: Vec<String>, new_columns: Vec<String>) -> Picture {
        if let Picture::Heatmap { rows, columns, .. } = &mut self {
            (*rows, *columns) = (new_rows, new_columns);
        }
        self
    }

    /// Names of its matrices.
    #[must_use]
    pub fn facets(mut self, names: Vec<String>) -> Picture {
        if let Picture::Heatmap { facets, .. } = &mut self {
            *facets = names;
        }
        self
    }

    /// From 0 up, without a middle.
    #[must_use]
    pub fn unsigned(mut self) -> Picture {
        if let Picture::Heatmap { signed, range, .. } = &mut self {
            *signed = false;
            if let Some([low, _]) = range {
                *low = 0.0;
            }
        }
        self
    }

    /// What the values of a heatmap are, such as "share restored".
    #[must_use]
    pub fn value(mut self, name: &str) -> Picture {
        if let Picture::Heatmap { value, .. } = &mut self {
            *value = name.into();
        }
        self
    }

    /// The ends of a heatmap's colours, so that several pictures can be compared.
    #[must_use]
    pub fn range(mut self, low: f64, high: f64) -> Picture {
        if let Picture::Heatmap { range, .. } = &mut self {
            *range = Some([low, high]);
        }
        self
    }

    /// The standard error of each value of a heatmap.
    ///
    /// # Panics
    /// If there are not as many as values.
    #[must_use]
    #[track_caller]
    pub fn noise(mut self, errors: &Tensor) -> Picture {
        if let Picture::Heatmap { noise, values, .. } = &mut self {
            *noise = errors.to_vec();
            assert_eq!(noise.len(), values.len(), "noise: {} errors for {} values", noise.len(), values.len());
        }
        self
    }

    /// The standard error of each bar.
    ///
    /// # Panics
    /// If there are not as many as bars.
    #[must_use]
    #[track_caller]
    pub fn errors(mut self, of_bars: Vec<f64>) -> Picture {
        if let Picture::Bars { errors, values, .. } = &mut self {
            assert_eq!(of_bars.len(), values.len(), "errors: {} for {} bars", of_bars.len(), values.len());
            *errors = of_bars;
        }
        self
    }

    /// Hides the columns of a heatmap that lie behind their row, which a causal model cannot see.
    #[must_use]
    pub fn causal(mut self) -> Picture {
        if let Picture::Heatmap { causal, .. } = &mut self {
            *causal = true;
        }
        self
    }

    /// As what is known of every head: of a picture made with [`Picture::heads`].
    fn of_heads(&self) -> Option<HeadFact> {
        let Picture::Heatmap { title, axes, shape, values, noise, value, .. } = self else { return None };
        let [layers, heads] = *shape.as_slice() else { return None };
        if axes.each_ref().map(String::as_str) != HEADS || layers * heads != values.len() || heads == 0 {
            return None;
        }
        let rows = |of: &[f32]| of.chunks(heads).map(<[f32]>::to_vec).collect();
        let told = value.is_empty() || title.ends_with(value.as_str());
        let name = if told { title.clone() } else { format!("{title}, {value}") };
        Some(HeadFact { name, values: rows(values), noise: rows(noise) })
    }

    /// The size of a heatmap whose cells need not be square: of every head small, so that several stand side by side; by
    /// position as wide as the page if it needs that, two matrices in a row. Others are what the figure makes of them.
    fn size(&self) -> Option<(u32, u32)> {
        let Picture::Heatmap { axes, rows, columns, shape, .. } = self else { return None };
        let axes = axes.each_ref().map(String::as_str);
        // Many rows are low, a few not higher than a line of text needs twice.
        let high = |rows: usize| (12 * rows).max((26 * rows).min(220)).max(72) as u32;
        match *shape.as_slice() {
            [layers, heads] if axes == HEADS => Some((if heads <= 16 { 350 } else { WIDE }, high(layers) + 84)),
            [.., n, positions] if axes[1] == "position" && n * positions > 0 => {
                let count = if shape.len() == 3 { shape[0] } else { 1 };
                let across = abreast(count, positions);
                let longest = rows.iter().map(|r| r.chars().count()).max().unwrap_or(0).min(24) * 7;
                let foot = columns.iter().map(|c| c.chars().count()).max().unwrap_or(0).min(16) * 6;
                // A narrow one leaves room beside it for others.
                let own = (across * positions * 22 + longest + 180) as u32;
                let width = if 2 * own <= WIDE { 350.max(own) } else { WIDE };
                Some((width, count.div_ceil(across) as u32 * (high(n) + 30) + 66 + foot as u32))
            }
            _ => None,
        }
    }

    fn figure(&self) -> Result<Figure, ReportError> {
        Ok(match self {
            Picture::Heatmap {
                title,
                axes,
                rows,
                columns,
                facets,
                shape,
                values,
                signed,
                value,
                range,
                noise,
                causal,
            } => {
                let mut figure = imshow(Array::new(shape.clone(), values)?).title(title).y(&axes[0]).x(&axes[1]);
                if *signed {
                    figure = figure.midpoint(0.0);
                }
                if !value.is_empty() {
                    figure = figure.value(value);
                }
                if let Some([low, high]) = range {
                    figure = figure.range(*low, *high);
                }
                if !noise.is_empty() {
                    figure = figure.noise(Array::new(shape.clone(), noise)?);
                }
                if *causal {
                    figure = figure.causal();
                }
                if let Some((width, height)) = self.size() {
                    figure = figure.size(width, height).stretched();
                    if let [count, _, positions] = *shape.as_slice() {
                        figure = figure.columns(abreast(count, positions));
                    }
                }
                if !rows.is_empty() {
                    figure = figure.y_labels(rows.clone());
                }
                if !columns.is_empty() {
                    figure = figure.x_labels(columns.clone());
                }
                if facets.is_empty() { figure } else { figure.facets(facets.clone()) }
            }
            Picture::Bars { title, value, labels, values, errors } => {
                let mut series = Series::new("", values);
                if !errors.is_empty() {
                    series = series.spread(errors);
                }
                let width = if labels.len() <= 24 { 520 } else { WIDE };
                bar(labels.clone(), series).title(title).y(value).size(width, 280)
            }
            Picture::Lines { title, x, y, log, curves } => {
                let series: Vec<Series> = curves.iter().map(|(name, y)| Series::new(name.clone(), y)).collect();
                let figure = line(series).title(title).x(x).y(y);
                if *log { figure.log_y() } else { figure }
            }
        })
    }
}

/// How many of some matrices of so many columns stand side by side: as many as leave a cell eight pixels, two to four.
fn abreast(matrices: usize, columns: usize) -> usize {
    matrices.min((860 / (8 * columns.max(1))).clamp(2, 4)).max(1)
}

impl Analysis {
    /// What is known of every head, for their cards.
    pub(crate) fn head_facts(&self) -> Vec<HeadFact> {
        self.sections.iter().flat_map(|part| part.pictures.iter().filter_map(Picture::of_heads)).collect()
    }

    /// As sections of a report.
    ///
    /// # Errors
    /// If values do not fill a shape, as in a file that was edited.
    pub fn to_sections(&self) -> Result<Vec<Section>, ReportError> {
        self.sections
            .iter()
            .map(|part| {
                let figures = part.pictures.iter().map(Picture::figure).collect::<Result<_, _>>()?;
                Ok(Section { title: part.title.clone(), prose: part.prose.clone(), figures })
            })
            .collect()
    }
}
