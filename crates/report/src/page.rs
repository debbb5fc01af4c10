//! A page of several figures, which share one copy of the chart library.

use std::path::Path;

use maud::{Markup, html};

use crate::document::{Document, chart};
use crate::figure::visible;
use crate::{Figure, ReportError, View, files};

/// Figures and paragraphs one below the other in one file, which holds the chart library once.
///
/// ```
/// use ironlens_report::{Page, histogram, line};
///
/// # let dir = tempfile::tempdir()?;
/// let losses = [5.99_f32, 0.51, 1.3e-4, 1.1e-8];
/// Page::new("A run")
///     .text("The loss falls by eight orders of magnitude.")
///     .with(line(&losses).title("Loss").log_y())
///     .with(histogram(&losses).title("How often"))
///     .save(dir.path().join("run.html"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Page {
    title: String,
    items: Vec<Item>,
}

/// What a [`Page`] can hold.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Item {
    /// A paragraph.
    Text(String),
    /// A figure.
    Figure(Box<Figure>),
    /// A view of attention or tokens.
    View(Box<View>),
}

impl From<Figure> for Item {
    fn from(figure: Figure) -> Item {
        Item::Figure(Box::new(figure))
    }
}

impl From<View> for Item {
    fn from(view: View) -> Item {
        Item::View(Box::new(view))
    }
}

impl Page {
    /// An empty page with a title.
    pub fn new(title: impl Into<String>) -> Page {
        Page { title: title.into(), items: Vec::new() }
    }

    /// Figures below each other, without a title of their own.
    pub fn stack<I: Into<Item>>(items: impl IntoIterator<Item = I>) -> Page {
        Page { title: String::new(), items: items.into_iter().map(Into::into).collect() }
    }

    /// Adds a figure or view.
    #[must_use]
    pub fn with(mut self, item: impl Into<Item>) -> Page {
        self.items.push(item.into());
        self
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Page {
        self.items.push(Item::Text(text.into()));
        self
    }

    /// The page: no network, same bytes for the same data.
    ///
    /// # Errors
    /// Those of [`Figure::to_html`].
    pub fn to_html(&self) -> Result<String, ReportError> {
        // The title of a lone figure is that of its page.
        let level = if self.title.is_empty() && self.items.len() == 1 { 1 } else { 2 };
        let mut body: Vec<Markup> = Vec::new();
        let (mut charts, mut explorer, mut tokens) = (false, false, false);
        let views = self.items.iter().filter(|i| matches!(i, Item::View(v) if v.is_attention())).count();
        for (i, item) in self.items.iter().enumerate() {
            let id = if self.items.len() == 1 { "figure".to_string() } else { format!("figure-{}", i + 1) };
            body.push(match item {
                Item::Text(text) => html! { @for part in text.split("\n\n") { p { (visible(part)) } } },
                Item::Figure(figure) => {
                    charts = true;
                    chart(&id, figure, level)?
                }
                Item::View(view) => {
                    explorer |= view.is_attention();
                    tokens |= !view.is_attention();
                    view.markup(&id, level, views == 1)?
                }
            });
        }
        let named = self.items.iter().find_map(|item| match item {
            Item::Figure(figure) if !figure.title.is_empty() => Some(figure.title.as_str()),
            Item::View(view) => Some(view.title.as_str()),
            _ => None,
        });
        let title = if self.title.is_empty() { named.unwrap_or("Figure") } else { &self.title };
        let body = html! {
            main.single {
                @if !self.title.is_empty() { h1 { (visible(&self.title)) } }
                @else if level == 2 { h1.sr-only { "Figures" } }
                @for part in &body { (part) }
            }
        };
        Ok(Document { title: &visible(title), body, charts, explorer, tokens }.render())
    }

    /// Writes the page to a `.html` file, whole or not at all.
    ///
    /// # Errors
    /// Those of [`Page::to_html`]; [`ReportError::Format`] for another extension, [`ReportError::File`] if the
    /// file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        if !extension.eq_ignore_ascii_case("html") && !extension.eq_ignore_ascii_case("htm") {
            return Err(ReportError::Format { path: path.into() });
        }
        files::write_atomic(path, self.to_html()?.as_bytes())
    }
}
