//! The figure in a notebook.

use base64::Engine as _;
use maud::html;

use super::Figure;

/// What the kernel reads from the standard output: one block for each format; a
/// front end shows the richest that it knows.
///
/// The page lies over the picture in a frame of its own: a viewer that strips
/// frames (a code host, a static export) still shows the picture.
pub(crate) fn blocks(figure: &Figure) -> String {
    let (page, png) = match (figure.to_html(), figure.to_png()) {
        (Ok(page), Ok(png)) => (page, png),
        (Err(error), _) | (_, Err(error)) => {
            return block("text/plain", &format!("figure not shown: {error}"));
        }
    };
    let png = base64::engine::general_purpose::STANDARD.encode(png);
    let title = if figure.title.is_empty() { "figure" } else { &figure.title };
    let (width, height) = figure.scene().map_or((860, 500), |s| s.size);
    let html = html! {
        div style={ "position:relative;max-width:" (width) "px" } {
            img alt=(title) width=(width) style="max-width:100%;display:block" src={ "data:image/png;base64," (png) };
            iframe title=(title) sandbox="allow-scripts allow-downloads" srcdoc=(page)
                style={ "position:absolute;inset:0;width:100%;height:max(100%," (height + 90) "px);border:0;background:Canvas" } {}
        }
    };
    let text = format!("{title} ({width} x {height})");
    [block("text/html", &html.into_string()), block("image/png", &png), block("text/plain", &text)].join("\n")
}

fn block(mime: &str, content: &str) -> String {
    format!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT")
}

#[cfg(test)]
mod tests {
    use crate::line;

    #[test]
    fn one_block_of_each_format() {
        let out = super::blocks(&line(&[1.0, 2.0]).title("a <b>"));
        for mime in ["text/html", "image/png", "text/plain"] {
            assert_eq!(out.matches(&format!("EVCXR_BEGIN_CONTENT {mime}\n")).count(), 1);
        }
        let (img, frame) = (out.find("<img"), out.find("<iframe"));
        assert!(img.is_some() && img < frame);
        let html = out.split("EVCXR_END_CONTENT").next().unwrap_or_default();
        assert!(html.contains("sandbox=\"allow-scripts") && !html.contains("<b>"));
    }

    #[test]
    fn errors_are_shown_not_raised() {
        let out = super::blocks(&crate::imshow(crate::Array::default()));
        assert!(out.contains("figure not shown"), "{out}");
    }
}
