//! Chats as one text, by the template that comes with a model.
//!
//! Templates are written for Jinja2 in Python, as transformers sets it up (`chat_template_utils.py`): blocks take
//! the line break after them and the blanks before them, `tojson` writes JSON as Python does, and
//! `raise_exception`, `strftime_now` and Python's methods of strings, lists and dictionaries exist.

use std::io;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};
use serde::{Deserialize, Serialize};
use serde_json::ser::{CharEscape, Formatter, Serializer};

use crate::engine::guarded;
use crate::error::{Result, TokenizerError};
use crate::python;
use crate::settings::ROLES;
use crate::tokenize::{SpecialTokens, Tokenize};
use crate::tokenizer::Tokenizer;

/// Instructions that a template may take: far beyond any chat, and reached in seconds by one that never ends.
const FUEL: u64 = 10_000_000;

/// What somebody said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// Who: "system", "user" or "assistant".
    pub role: String,
    /// What.
    pub content: String,
}

impl ChatMessage {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> ChatMessage {
        ChatMessage { role: role.into(), content: content.into() }
    }
}

/// What a template is given beside the messages.
#[derive(Clone, Debug, Default)]
pub struct ChatOptions {
    /// The beginning of an answer follows the messages.
    add_generation_prompt: bool,
    /// Which template, if there are several; if `None`, "tool_use" where there is such a one and tools are given, or
    /// else "default".
    template: Option<String>,
    variables: Vec<(String, Value)>,
}

impl ChatOptions {
    /// With the beginning of an answer after the messages, or without.
    pub fn new(add_generation_prompt: bool) -> ChatOptions {
        ChatOptions { add_generation_prompt, ..ChatOptions::default() }
    }

    /// With the template of that name, instead of "default", or of "tool_use" where tools are given.
    pub fn with_template(mut self, name: impl Into<String>) -> ChatOptions {
        self.template = Some(name.into());
        self
    }

    /// With a further variable (`tools`, `documents`, `enable_thinking`).
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Serialize) -> ChatOptions {
        self.variables.push((name.into(), Value::from_serialize(value)));
        self
    }

    /// With a further variable that is written as JSON. Unlike values of `serde_json`, it keeps the order of its
    /// keys, which templates print.
    ///
    /// # Errors
    /// If the text is not JSON.
    pub fn with_json(mut self, name: impl Into<String>, json: &str) -> Result<ChatOptions> {
        let name = name.into();
        let value = serde_json::from_str(json)
            .map_err(|e| TokenizerError::Argument(format!("the variable {name} of the chat is not JSON: {e}")))?;
        self.variables.push((name, value));
        Ok(self)
    }
}

impl Tokenizer {
    /// The text that a model's chat template makes of messages: [`ChatMessage`]s, or anything that is written as JSON
    /// with such keys.
    ///
    /// It names special tokens itself: tokenize it without adding any.
    ///
    /// # Errors
    /// If there is no template, or it does not compile, fails, or refuses the messages.
    pub fn apply_chat_template(&self, messages: &[impl Serialize], add_generation_prompt: bool) -> Result<String> {
        self.apply_chat_template_with(messages, &ChatOptions::new(add_generation_prompt))
    }

    /// As [`apply_chat_template`](Self::apply_chat_template), with a named template or further variables.
    ///
    /// # Errors
    /// As there.
    pub fn apply_chat_template_with(&self, messages: &[impl Serialize], options: &ChatOptions) -> Result<String> {
        let templates = self.chat_templates();
        let named = |wanted: &str| templates.iter().find(|(known, _)| known == wanted);
        let tools = options.variables.iter().any(|(name, value)| name == "tools" && !value.is_none());
        let name = match &options.template {
            Some(name) => name,
            None if tools && named("tool_use").is_some() => "tool_use",
            None => "default",
        };
        let Some((_, source)) = named(name) else {
            let known = templates.iter().map(|(name, _)| name.clone()).collect();
            return Err(TokenizerError::NoChatTemplate { name: name.to_owned(), known });
        };
        let SpecialTokens { bos, eos, pad, unk, cls, sep, mask, .. } = self.special_tokens();
        let roles = [bos, eos, pad, unk, cls, sep, mask].map(Option::as_ref);
        let roles = ROLES.into_iter().zip(roles).filter_map(|(name, role)| Some((name, role?.text.clone().into())));
        let additional: Vec<String> = self.settings.additional().into_iter().map(|token| token.content).collect();
        let additional = (!additional.is_empty()).then(|| ("additional_special_tokens", additional.into()));
        let named = self.settings.named();
        let named = named.iter().map(|(name, token)| (name.as_str(), token.content.clone().into()));
        let variables = [
            ("messages", Value::from_serialize(messages)),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
            ("add_generation_prompt", options.add_generation_prompt.into()),
        ];
        let variables = variables.into_iter().chain(roles).chain(additional).chain(named);
        let further = options.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        let context: Value = variables.chain(further).collect();
        guarded("the chat template", || render(source, context)).map_err(|error| match error {
            TokenizerError::Engine { reason, .. } => TokenizerError::ChatTemplate(reason),
            other => other,
        })
    }
}

fn render(source: &str, context: Value) -> Result<String, Reason> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python::method);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None | ValueKind::Bool | ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            out.write_str(&python::str(value)?).map_err(Error::from)
        }
        _ => minijinja::escape_formatter(out, state, value),
    });
    environment.add_filter("wordcount", |text: String| text.split_whitespace().count());
    environment.add_test("sequence", |value: &Value| {
        // Parts of lists and sums of them are iterable here, and lists in Python.
        matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable | ValueKind::Map | ValueKind::String)
    });
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_filter("length", python::length);
    environment.add_filter("count", python::length);
    environment.add_filter("tojson", to_json);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", |format: String| {
        jiff::fmt::strtime::format(&format, &jiff::ZonedDateTime::now())
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now({format:?}): {e}")))
    });
    // Jinja2 reads every line break as one.
    let source = without_generation_marks(&source.replace("\r\n", "\n").replace('\r', "\n"));
    let template = environment.template_from_str(&source).map_err(Reason)?;
    template.render(context).map_err(Reason)
}

/// An error of the template engine, with its causes and the line.
struct Reason(Error);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// A template without `{% generation %}` and its end, which mark the assistant's words for training and print
/// nothing: they become blocks that always hold.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // Behind the `{%`: in `{%}` none ends.
        let Some(length) = rest[start + 2..].find("%}") else { break };
        let tag = &rest[start..start + length + 4];
        let inside = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        out.push_str(&rest[..start]);
        match inside {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[start + tag.len()..];
    }
    out.push_str(rest);
    out
}

/// Python's `json.dumps(value, ensure_ascii, indent, separators, sort_keys)`, as transformers offers it.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let wrong = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<Value> = options.get("indent")?;
    let indent = match indent.filter(|indent| !indent.is_none()) {
        None => None,
        Some(indent) => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(
                usize::try_from(indent).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))?.min(64),
            ),
        }),
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    let [comma, colon] = match separators {
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
        Some(two) => two.try_into().map_err(|_| Error::new(ErrorKind::InvalidOperation, "separators are two texts"))?,
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let style = PythonStyle { indent, comma, colon, ascii, depth: 0, filled: false };
    let mut out = Serializer::with_formatter(Vec::new(), style);
    match sorted {
        // The map of `serde_json` has its keys in order.
        true => serde_json::to_value(value).map_err(wrong)?.serialize(&mut out).map_err(wrong)?,
        false => value.serialize(&mut out).map_err(wrong)?,
    }
    String::from_utf8(out.into_inner())
        .map(Value::from_safe_string)
        .map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))
}

/// JSON with Python's spaces.
struct PythonStyle {
    indent: Option<String>,
    comma: String,
    colon: String,
    /// Other characters are written as `\u` and four digits.
    ascii: bool,
    depth: usize,
    /// The innermost list or object has an element.
    filled: bool,
}

impl PythonStyle {
    fn line<W: io::Write + ?Sized>(&self, out: &mut W) -> io::Result<()> {
        let Some(indent) = &self.indent else { return Ok(()) };
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(indent.as_bytes()))
    }

    fn open<W: io::Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.filled = false;
        out.write_all(bracket)
    }

    fn close<W: io::Write + ?Sized>(&mut self, out: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.filled {
            self.line(out)?;
        }
        self.filled = true;
        out.write_all(bracket)
    }

    fn element<W: io::Write + ?Sized>(&self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(self.comma.as_bytes())?;
        }
        self.line(out)
    }
}

impl Formatter for PythonStyle {
    fn begin_array<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"[")
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"]")
    }

    fn begin_array_value<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.element(out, first)
    }

    fn end_array_value<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn begin_object<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.open(out, b"{")
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        self.close(out, b"}")
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.element(out, first)
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(self.colon.as_bytes())
    }

    fn end_object_value<W: io::Write + ?Sized>(&mut self, _: &mut W) -> io::Result<()> {
        self.filled = true;
        Ok(())
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii {
            return out.write_all(fragment.as_bytes());
        }
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => out.write_all(&[byte])?,
                _ => write!(out, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: io::Write + ?Sized>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => out.write_all(b"\\\\"),
            CharEscape::Solidus => out.write_all(b"/"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04x}"),
        }
    }
}
