//! What Jinja2's templates see of Python and minijinja has not: further methods of strings, and how values are printed.

use std::fmt::Write;

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

/// A method that a value does not have by itself.
///
/// # Errors
/// If Python has none of the name either, or it is not called so.
pub(crate) fn method(state: &State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, args) };
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "partition" | "rpartition" => {
            let (at,): (&str,) = from_args(args)?;
            if at.is_empty() {
                return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
            }
            let parts = match (name, text.split_once(at), text.rsplit_once(at)) {
                ("partition", Some((before, after)), _) | ("rpartition", _, Some((before, after))) => {
                    [before, at, after]
                }
                ("partition", ..) => [text, "", ""],
                _ => ["", "", text],
            };
            Ok(parts.into_iter().collect())
        }
        "rsplit" => {
            let (at, most): (Option<&str>, Option<i64>) = from_args(args)?;
            // No number, as a negative one, is all of them.
            let parts = most.and_then(|n| usize::try_from(n).ok()).map_or(usize::MAX, |n| n.saturating_add(1));
            Ok(rsplit(text, at, parts)?.into_iter().collect())
        }
        "index" => {
            let (wanted,): (&str,) = from_args(args)?;
            let place =
                text.find(wanted).ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "substring not found"))?;
            Ok(text[..place].chars().count().into())
        }
        "ljust" | "rjust" => {
            let (width, fill): (usize, Option<&str>) = from_args(args)?;
            let missing = width.min(MAX_WIDTH).saturating_sub(text.chars().count());
            let blanks = fill.unwrap_or(" ").repeat(missing);
            Ok(if name == "ljust" { format!("{text}{blanks}") } else { format!("{blanks}{text}") }.into())
        }
        _ => unknown_method_callback(state, value, name, args),
    }
}

/// Characters that a text is filled up to at most: a template could otherwise ask for more than any memory holds.
const MAX_WIDTH: usize = 1 << 16;

/// At most so many parts, from the end; at blanks without `at`.
fn rsplit<'t>(text: &'t str, at: Option<&str>, parts: usize) -> Result<Vec<&'t str>, Error> {
    let mut found: Vec<&str> = match at {
        Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "empty separator")),
        Some(at) => text.rsplitn(parts, at).collect(),
        None => {
            let (mut found, mut rest) = (Vec::new(), text.trim());
            while !rest.is_empty() {
                match rest.rfind(char::is_whitespace).filter(|_| found.len() + 1 < parts) {
                    Some(blank) => {
                        let last = rest[blank..].trim_start();
                        found.push(last);
                        rest = rest[..blank].trim_end();
                    }
                    None => {
                        found.push(rest);
                        break;
                    }
                }
            }
            found
        }
    };
    found.reverse();
    Ok(found)
}

/// The text of a value, as Python's `str` has it.
///
/// # Errors
/// If the value cannot be walked through.
pub(crate) fn str(value: &Value) -> Result<String, Error> {
    let mut text = String::new();
    match (value.as_str(), value.is_undefined()) {
        (Some(plain), _) => text.push_str(plain),
        (None, true) => {}
        (None, false) => repr(value, &mut text)?,
    }
    Ok(text)
}

/// How many items or characters a value has, as Jinja2 counts them: what is undefined has none.
///
/// # Errors
/// If the value cannot be counted.
pub(crate) fn length(value: &Value) -> Result<usize, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(0),
        ValueKind::Iterable => Ok(value.try_iter()?.count()),
        kind => {
            let wrong = || format!("a value of type {kind} has no length");
            value.len().ok_or_else(|| Error::new(ErrorKind::InvalidOperation, wrong()))
        }
    }
}

/// Writes a value as Python's `repr` does.
///
/// # Errors
/// If the value cannot be walked through.
pub(crate) fn repr(value: &Value, out: &mut String) -> Result<(), Error> {
    let wrong = |_| Error::new(ErrorKind::WriteFailure, "a value could not be printed");
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => quote(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                repr(&item, out)?;
            }
            out.push(']');
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i == 0 { "" } else { ", " });
                repr(&key, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, out)?;
            }
            out.push('}');
        }
        _ => write!(out, "{value}").map_err(wrong)?,
    }
    Ok(())
}

/// In single quotes, or in double ones where these spare a backslash.
fn quote(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    /// A template's text, of `t` and `m`.
    fn render(source: &str) -> String {
        let mut environment = minijinja::Environment::new();
        environment.set_unknown_method_callback(method);
        environment.set_formatter(|out, _, value| {
            let mut text = String::new();
            match value.as_str() {
                Some(plain) => text.push_str(plain),
                None => repr(value, &mut text)?,
            }
            out.write_str(&text).map_err(Error::from)
        });
        let m = vec![context! { role => "user", content => "it's\n\"so\"" }];
        environment.render_str(source, context! { t => "a, b,, c", m }).expect(source)
    }

    /// What Python 3.12 prints.
    #[test]
    fn strings_have_python_s_methods() {
        for (source, expected) in [
            ("{{ t.rsplit(',', 1) }}", "['a, b,', ' c']"),
            ("{{ t.rsplit(',') }}", "['a', ' b', '', ' c']"),
            ("{{ '  x  y z '.rsplit(none, 1) }}", "['x  y', 'z']"),
            ("{{ '  x  y z '.rsplit() }}", "['x', 'y', 'z']"),
            ("{{ t.partition(', ')[2] }}", "b,, c"),
            ("{{ t.rpartition(',')[0] }}", "a, b,"),
            ("{{ t.rpartition(';')[2] }}", "a, b,, c"),
            ("{{ t.removeprefix('a, ') }}|{{ t.removesuffix('x') }}", "b,, c|a, b,, c"),
            ("{{ t.index('b') }}", "3"),
            ("{{ 'é'.ljust(3, '.') }}|{{ 'é'.rjust(2) }}", "é..| é"),
        ] {
            assert_eq!(render(source), expected, "{source}");
        }
    }

    #[test]
    fn values_are_printed_as_python_prints_them() {
        assert_eq!(render("{{ [1, 2.5, true, none, 'x'] }}"), "[1, 2.5, True, None, 'x']");
        assert_eq!(render("{{ ['it\\'s'] }}"), "[\"it's\"]");
        let both = "[{'role': 'user', 'content': 'it\\'s\\n\"so\"'}]";
        assert_eq!(render("{{ m }}"), both);
    }
}
