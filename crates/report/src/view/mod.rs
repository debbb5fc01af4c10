//! Views of attention and of tokens with numbers: what CircuitsVis shows, for a browser without a network.

mod attention;
pub(crate) mod tokens;

use std::path::Path;

use maud::{Markup, html};

pub use attention::{attention_heads, attention_layers, attention_pattern, attention_patterns};
pub use tokens::{
    Sample, colored_tokens, colored_tokens_multi, text_neuron_activations, token_log_probs, topk_samples, topk_tokens,
};

use crate::document::heading;
use crate::figure::{evcxr, visible};
use crate::{Array, Page, ReportError, files};

/// Something to look at tokens or attention with: made by [`attention_heads`], [`colored_tokens`] and their like,
/// then written with [`View::save`] or put into a [`Page`].
///
/// What does not fit together is an error when it is written. Tokens are shown as text, whatever they hold.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) title: String,
    pub(crate) caption: String,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// `[layer]` of `[head, dest, src]`.
    Attention {
        tokens: Vec<String>,
        layers: Vec<Array>,
        names: Vec<Vec<String>>,
    },
    Tokens(tokens::TokenView),
    /// What cannot be shown, told when the view is written.
    Wrong {
        expected: String,
        got: String,
    },
}

impl View {
    pub(crate) fn new(title: &str, kind: Kind) -> View {
        View { title: title.into(), caption: String::new(), kind }
    }

    pub(crate) fn wrong(title: &str, expected: impl Into<String>, got: impl Into<String>) -> View {
        View::new(title, Kind::Wrong { expected: expected.into(), got: got.into() })
    }

    /// The line above the view.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> View {
        self.title = title.into();
        self
    }

    /// A sentence below it.
    #[must_use]
    pub fn caption(mut self, caption: impl Into<String>) -> View {
        self.caption = caption.into();
        self
    }

    /// Writes the view as `.html`, which opens without a network; attention also as `.png` or `.svg`, every head
    /// beside the others.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data that do not fit together, [`ReportError::Format`] for another extension,
    /// [`ReportError::Option`] for a picture of text, [`ReportError::File`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
        match (extension.as_str(), &self.kind) {
            ("html" | "htm", _) => files::write_atomic(path, self.to_html()?.as_bytes()),
            ("png" | "svg", Kind::Attention { tokens, layers, names }) => {
                self.check()?;
                attention::figure(&self.title, tokens, layers, names)?.save(path)
            }
            ("png" | "svg", _) => {
                self.check()?;
                Err(ReportError::Option {
                    what: format!("the view `{}`", visible(&self.title)),
                    option: "save",
                    reason: "text is no picture; save it as .html, and print that".into(),
                })
            }
            _ => Err(ReportError::Format { path: path.into() }),
        }
    }

    /// The page as [`View::save`] writes it.
    ///
    /// # Errors
    /// [`ReportError::Shape`] for data that do not fit together.
    pub fn to_html(&self) -> Result<String, ReportError> {
        Page::stack([self.clone()]).to_html()
    }

    /// Shows the view in a notebook with the evcxr kernel, which calls this by itself.
    pub fn evcxr_display(&self) {
        println!("{}", evcxr::view_blocks(self));
    }

    /// Do the parts fit together?
    fn check(&self) -> Result<(), ReportError> {
        let wrong = |expected: String, got: String| {
            Err(ReportError::Shape { what: format!("the view `{}`", visible(&self.title)), expected, got })
        };
        match &self.kind {
            Kind::Wrong { expected, got } => wrong(expected.clone(), got.clone()),
            Kind::Attention { tokens, layers, names } => match attention::problem(tokens, layers, names) {
                Some((expected, got)) => wrong(expected, got),
                None => Ok(()),
            },
            Kind::Tokens(_) => Ok(()),
        }
    }

    /// The view in a page; `linked` if it is alone there, so that the address may hold its state.
    pub(crate) fn markup(&self, id: &str, level: u8, linked: bool) -> Result<Markup, ReportError> {
        self.check()?;
        let body = match &self.kind {
            Kind::Attention { tokens, layers, names } => attention::markup(id, tokens, layers, names, linked)?,
            Kind::Tokens(view) => view.markup(id),
            Kind::Wrong { .. } => html! {},
        };
        Ok(html! {
            section.view aria-labelledby={ (id) "-title" } {
                (heading(level, &format!("{id}-title"), "chart-title", &visible(&self.title)))
                (body)
                @if !self.caption.is_empty() { p.hint { (visible(&self.caption)) } }
            }
        })
    }

    pub(crate) fn is_attention(&self) -> bool {
        matches!(self.kind, Kind::Attention { .. })
    }
}
