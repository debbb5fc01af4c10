//! Text as figures show it: short, visible, and harmless.

use std::borrow::Cow;

/// The most characters of a title, name or label: more could not be read, and measuring them
/// would take longer than drawing the figure.
const LONGEST_TEXT: usize = 200;

/// The text, or its beginning and an ellipsis.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST_TEXT) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// Text without control characters, which XML and titles cannot hold.
pub(crate) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c }).collect()
}

/// A title or name: visible, and short enough to be drawn.
pub(crate) fn clean(text: &str) -> String {
    visible(&shortened(text))
}

/// A token so that it can be seen: blanks, line ends and unprintable characters are drawn. A joiner between
/// the parts of one emoji stays as it is. `js/core.js` does the same.
pub(crate) fn token_text(text: &str) -> String {
    let mut out = String::new();
    let text = shortened(text);
    let mut chars = text.chars().peekable();
    let mut before = None;
    while let Some(c) = chars.next() {
        match c {
            ' ' => out.push('·'),
            '\n' => out.push('⏎'),
            '\t' => out.push('→'),
            '\u{200d}' if before.is_some_and(is_pictograph) && chars.peek().copied().is_some_and(is_pictograph) => {
                out.push(c);
            }
            c if c.is_control() || is_invisible(c) => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
        before = Some(c);
    }
    if out.is_empty() { "∅".into() } else { out }
}

/// Characters that may be joined to one picture: emoji and what changes their look.
fn is_pictograph(c: char) -> bool {
    matches!(c, '\u{2600}'..='\u{27bf}' | '\u{fe0f}' | '\u{1f000}'..='\u{1faff}')
}

/// Characters that would reorder or hide their neighbours.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::token_text;

    #[test]
    fn tokens_can_be_seen() {
        assert_eq!(token_text(" a\n\t\u{202e}"), "·a⏎→\\x202e");
        assert_eq!(token_text(""), "∅");
        assert_eq!(token_text("👩\u{200d}👩"), "👩\u{200d}👩", "one picture");
        assert_eq!(token_text("a\u{200d}b"), "a\\x200db");
    }
}
