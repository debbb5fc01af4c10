//! Results as plain data: what `analysis.json` holds, and the figures made of it.

mod numbers;

use ironlens_report::{Array, Figure, ReportError, Section, Series, bar, imshow, line};
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
    },
    /// Curves.
    Lines {
        /// Above it.
        title: String,
        /// Name of the horizontal axis, whose values are 0, 1, ..
        x: String,
        /// Name of the vertical axis.
        y: String,
        /// Names and values.
        #[serde(with = "numbers::by_name")]
        curves: Vec<(String, Vec<f64>)>,
    },
}

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
        }
    }

    /// A bar for each label.
    ///
    /// # Panics
    /// If there are not as many values as labels.
    #[track_caller]
    pub fn bars(title: impl Into<String>, value: &str, labels: Vec<String>, values: Vec<f64>) -> Picture {
        assert_eq!(labels.len(), values.len(), "bars: {} labels for {} values", labels.len(), values.len());
        Picture::Bars { title: title.into(), value: value.into(), labels, values }
    }

    /// Curves with names over 0, 1, ..
    pub fn lines(title: impl Into<String>, axes: [&str; 2], curves: Vec<(String, Vec<f64>)>) -> Picture {
        let [x, y] = axes.map(String::from);
        Picture::Lines { title: title.into(), x, y, curves }
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
        if let Picture::Heatmap { signed, .. } = &mut self {
            *signed = false;
        }
        self
    }

    fn figure(&self) -> Result<Figure, ReportError> {
        Ok(match self {
            Picture::Heatmap { title, axes, rows, columns, facets, shape, values, signed } => {
                let mut figure = imshow(Array::new(shape.clone(), values)?).title(title).y(&axes[0]).x(&axes[1]);
                if *signed {
                    figure = figure.midpoint(0.0);
                }
                if !rows.is_empty() {
                    figure = figure.y_labels(rows.clone());
                }
                if !columns.is_empty() {
                    figure = figure.x_labels(columns.clone());
                }
                if facets.is_empty() { figure } else { figure.facets(facets.clone()) }
            }
            Picture::Bars { title, value, labels, values } => bar(labels.clone(), values).title(title).y(value),
            Picture::Lines { title, x, y, curves } => {
                let series: Vec<Series> = curves.iter().map(|(name, y)| Series::new(name.clone(), y)).collect();
                line(series).title(title).x(x).y(y)
            }
        })
    }
}

impl Analysis {
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
