//! A figure as a page of its own.

use maud::html;

use super::Figure;
use crate::ReportError;
use crate::page::{self, Page};

pub(crate) fn page(figure: &Figure) -> Result<String, ReportError> {
    let scene = figure.scene()?;
    let body = html! {
        main.single { (page::chart("figure", figure)?) }
    };
    let title = if scene.title.is_empty() { "Figure" } else { &scene.title };
    Ok(Page { title, body, charts: true, explorer: false }.render())
}
