//! The files beside `tokenizer.json`: which token has which role, which class reads it, chat templates.
//!
//! The rules are those of transformers 4.57: `tokenizer_config.json` first, `special_tokens_map.json` in folders
//! from before `added_tokens_decoder`, then the defaults of the tokenizer's class.

use std::fs;
use std::io::Read;
use std::path::Path;

use ironlens_files::{FileError, open_ordinary};
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;

use crate::error::{Result, TokenizerError};

/// What is said about a tokenizer beside its vocabulary.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// `tokenizer_config.json`, as it was read; what is kept below replaces its entries when it is written.
    pub raw: Map<String, Value>,
    /// What reads it, without "Fast".
    pub class: Class,
    pub bos: Option<AddedToken>,
    pub eos: Option<AddedToken>,
    pub pad: Option<AddedToken>,
    pub unk: Option<AddedToken>,
    /// Ids that end what is generated, by `generation_config.json`, or else by `config.json`.
    pub ends: Vec<u32>,
    pub cls: Option<AddedToken>,
    pub sep: Option<AddedToken>,
    pub mask: Option<AddedToken>,
    /// At how many ids texts are cut.
    pub max_length: Option<usize>,
    /// Name and source.
    pub chat_templates: Vec<(String, String)>,
    /// What `added_tokens.json` has, which folders from before `added_tokens_decoder` keep them in.
    pub older: Vec<(u32, AddedToken)>,
}

/// One id or several.
fn end_ids(value: &Value) -> Option<Vec<u32>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(ids) => Some(ids.iter().filter_map(id).collect()),
        one => id(one).map(|id| vec![id]),
    }
}

/// Classes of transformers that set a tokenizer up in a way of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Class {
    #[default]
    Other,
    Llama,
    Gemma,
    Cohere,
    GptNeoX,
    Gpt2,
    Qwen,
    Qwen2,
    Bloom,
    T5,
    Bert,
}

impl Class {
    /// By the name of the class, or of the kind of model that a `config.json` names.
    fn of(name: &str) -> Option<Class> {
        let name = name.strip_suffix("Fast").unwrap_or(name);
        Some(match name.strip_suffix("Tokenizer").unwrap_or(name) {
            "Llama" | "CodeLlama" | "llama" | "mistral" | "mixtral" | "ministral" | "phi3" => Class::Llama,
            "Gemma" | "gemma" | "gemma2" | "gemma3" | "gemma3_text" => Class::Gemma,
            "Cohere" | "cohere" | "cohere2" => Class::Cohere,
            "GPTNeoX" | "gpt_neox" | "stablelm" | "olmo" | "olmo2" | "olmoe" => Class::GptNeoX,
            "GPT2" | "CodeGen" | "gpt2" | "gpt_neo" | "gptj" | "opt" | "codegen" | "phi" | "gpt_bigcode"
            | "starcoder2" | "granite" | "olmo3" => Class::Gpt2,
            "QWen" | "qwen" => Class::Qwen,
            "Qwen2" | "qwen2" | "qwen3" | "qwen2_moe" | "qwen3_moe" => Class::Qwen2,
            "Bloom" | "bloom" => Class::Bloom,
            "T5" | "t5" => Class::T5,
            "Bert" | "bert" => Class::Bert,
            _ => return None,
        })
    }

    /// Whether the class puts BOS and EOS around texts as its own flags say, whatever `tokenizer.json` has, and
    /// whether it adds BOS if it is not told.
    pub(crate) fn own_template(self) -> Option<bool> {
        match self {
            Class::Llama | Class::Gemma | Class::Cohere => Some(true),
            Class::GptNeoX => Some(false),
            _ => None,
        }
    }

    /// The tokens with a role where the configuration says nothing, in the order of [`ROLES`].
    fn defaults(self) -> [Option<&'static str>; ROLES.len()] {
        const TEXT: Option<&str> = Some("<|endoftext|>");
        let [bos, eos, pad, unk] = match self {
            Class::Other => [None; 4],
            Class::Llama => [Some("<s>"), Some("</s>"), None, Some("<unk>")],
            Class::Gemma => [Some("<bos>"), Some("<eos>"), Some("<pad>"), Some("<unk>")],
            Class::Cohere => [Some("<BOS_TOKEN>"), Some("<|END_OF_TURN_TOKEN|>"), None, Some("<UNK>")],
            Class::GptNeoX | Class::Gpt2 => [TEXT, TEXT, None, TEXT],
            Class::Qwen => [None, TEXT, None, None],
            Class::Qwen2 => [None, TEXT, TEXT, TEXT],
            Class::Bloom => [Some("<s>"), Some("</s>"), Some("<pad>"), Some("<unk>")],
            Class::T5 => [None, Some("</s>"), Some("<pad>"), Some("<unk>")],
            Class::Bert => [None, None, Some("[PAD]"), Some("[UNK]")],
        };
        let [cls, sep, mask] = match self {
            Class::Bert => [Some("[CLS]"), Some("[SEP]"), Some("[MASK]")],
            _ => [None; 3],
        };
        [bos, eos, pad, unk, cls, sep, mask]
    }
}

/// The names of roles.
pub(crate) const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];

/// The lists of tokens that are special without a role, the second also as an object of names.
const ADDITIONAL: &str = "additional_special_tokens";
const EXTRA: &str = "extra_special_tokens";

impl Settings {
    /// Reads what a folder has of them. A folder with none is one of a tokenizer without special tokens.
    pub(crate) fn read(folder: &Path) -> Result<Settings> {
        let raw = read_object(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let map = read_object(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let model = read_object(&folder.join("config.json"))?.unwrap_or_default();
        let named = |object: &Map<String, Value>, key| object.get(key)?.as_str().map(str::to_owned);
        let class = match named(&raw, "tokenizer_class").or_else(|| named(&model, "tokenizer_class")) {
            Some(name) => Class::of(&name),
            None => named(&model, "model_type").and_then(|name| Class::of(&name)),
        };
        let mut settings = Settings { class: class.unwrap_or_default(), raw, ..Settings::default() };
        settings.take_roles(&map);
        settings.take_additional(&map);
        let generation = read_object(&folder.join("generation_config.json"))?.unwrap_or_default();
        settings.ends = [&generation, &model]
            .into_iter()
            .find_map(|object| end_ids(object.get("eos_token_id")?))
            .unwrap_or_default();
        let sentences = read_object(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
        let length = |object: &Map<String, Value>, key| usize::try_from(object.get(key)?.as_u64()?).ok();
        settings.max_length =
            length(&sentences, "max_seq_length").or_else(|| length(&settings.raw, "model_max_length"));
        settings.chat_templates = settings.templates(folder)?;
        if let Some(added) = read_object(&folder.join("added_tokens.json"))? {
            settings.take_added(&added);
        }
        Ok(settings)
    }

    /// Those with a role are special, and the others found in texts as a normalizer leaves these.
    fn take_added(&mut self, added: &Map<String, Value>) {
        let special = self.special();
        let made = |(text, id): (&String, &Value)| {
            let is_special = special.iter().any(|token| token.content == *text);
            Some((u32::try_from(id.as_u64()?).ok()?, AddedToken::from(text, is_special).normalized(!is_special)))
        };
        self.older = added.iter().filter_map(made).collect();
        self.older.sort_by_key(|(id, _)| *id);
    }

    /// Folders from before `added_tokens_decoder` name further special tokens in the map, too.
    fn take_additional(&mut self, map: &Map<String, Value>) {
        let Some(Value::Array(more)) = map.get(ADDITIONAL) else { return };
        if self.raw.contains_key("added_tokens_decoder") {
            return;
        }
        let mut all = self.raw.get(ADDITIONAL).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value| token(value).map(|token| token.content);
        for value in more {
            if all.iter().any(|known| text(known) == text(value)) {
                continue;
            }
            let mut value = value.clone();
            if let Value::Object(object) = &mut value {
                object.insert("special".to_owned(), json!(true));
            }
            all.push(value);
        }
        self.raw.insert(ADDITIONAL.to_owned(), Value::Array(all));
    }

    fn take_roles(&mut self, map: &Map<String, Value>) {
        // Folders from before `added_tokens_decoder` believe the map first.
        let sources = if self.raw.contains_key("added_tokens_decoder") { [&self.raw, map] } else { [map, &self.raw] };
        let mut roles = self.class.defaults().map(|token| token.map(special));
        for (role, name) in roles.iter_mut().zip(ROLES) {
            if let Some(value) = sources.iter().find_map(|source| source.get(name)) {
                *role = token(value);
            }
        }
        [self.bos, self.eos, self.pad, self.unk, self.cls, self.sep, self.mask] = roles;
    }

    /// Templates of the configuration, and of files, which are believed first.
    fn templates(&self, folder: &Path) -> Result<Vec<(String, String)>> {
        let mut templates = match self.raw.get("chat_template") {
            Some(Value::String(source)) => vec![("default".to_owned(), source.clone())],
            Some(Value::Array(named)) => named
                .iter()
                .filter_map(|t| Some((t.get("name")?.as_str()?.to_owned(), t.get("template")?.as_str()?.to_owned())))
                .collect(),
            _ => Vec::new(),
        };
        let mut put = |name: &str, source: String| {
            templates.retain(|(known, _)| known != name);
            templates.push((name.to_owned(), source));
        };
        if let Some(Value::String(source)) =
            read_object(&folder.join("chat_template.json"))?.and_then(|mut object| object.remove("chat_template"))
        {
            put("default", source);
        }
        if let Some(source) = read_text(&folder.join("chat_template.jinja"))? {
            put("default", source);
        }
        if let Ok(entries) = fs::read_dir(folder.join("additional_chat_templates")) {
            let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "jinja")) {
                if let (Some(name), Some(source)) = (path.file_stem().and_then(|n| n.to_str()), read_text(path)?) {
                    put(name, source);
                }
            }
        }
        Ok(templates)
    }

    /// Takes a class, and its roles, where the files name none.
    pub(crate) fn assume(&mut self, class: Class) {
        if self.class == Class::Other && !self.raw.contains_key("tokenizer_class") {
            self.class = class;
            self.fill(class.defaults().map(|token| token.map(special)));
        }
    }

    /// Gives tokens, the first in the order of [`ROLES`], to roles that no token has, unless the configuration says
    /// that none shall have them.
    pub(crate) fn fill(&mut self, tokens: impl IntoIterator<Item = Option<AddedToken>>) {
        let roles =
            [&mut self.bos, &mut self.eos, &mut self.pad, &mut self.unk, &mut self.cls, &mut self.sep, &mut self.mask];
        for ((role, token), name) in roles.into_iter().zip(tokens).zip(ROLES) {
            if role.is_none() && !self.raw.contains_key(name) {
                *role = token;
            }
        }
    }

    /// A flag of the configuration.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        self.raw.get(name)?.as_bool()
    }

    /// Whether Llama's class puts a space before texts: it does unless it is told, and null tells it not to.
    pub(crate) fn adds_space(&self) -> bool {
        self.raw.get("add_prefix_space").is_none_or(|value| value.as_bool().unwrap_or(false))
    }

    /// Whether Llama's class makes its pipeline anew of `tokenizer.model`, whatever `tokenizer.json` has: where it is
    /// told of the space before texts. CodeLlama's does not.
    pub(crate) fn makes_anew(&self) -> bool {
        let name = self.raw.get("tokenizer_class").and_then(Value::as_str);
        let told = self.class == Class::Llama && self.flag("add_prefix_space").is_some();
        told && name.is_none_or(|name| !name.starts_with("CodeLlama"))
    }

    /// The tokens that the configuration wants found in texts, by id.
    pub(crate) fn added_tokens(&self) -> Vec<AddedToken> {
        self.added().into_iter().map(|(_, token)| token).collect()
    }

    /// Texts and ids of these.
    pub(crate) fn added_ids(&self) -> Vec<(String, u32)> {
        self.added().into_iter().map(|(id, token)| (token.content, id)).collect()
    }

    fn added(&self) -> Vec<(u32, AddedToken)> {
        let Some(Value::Object(decoder)) = self.raw.get("added_tokens_decoder") else { return self.older.clone() };
        let mut tokens: Vec<(u32, AddedToken)> =
            decoder.iter().filter_map(|(id, value)| Some((id.parse().ok()?, token(value)?))).collect();
        tokens.sort_by_key(|(id, _)| *id);
        tokens
    }

    /// The tokens with a role, and those that are special without one.
    pub(crate) fn special(&self) -> Vec<AddedToken> {
        let named = self.named().into_iter().map(|(_, token)| token);
        self.roles().into_iter().flatten().cloned().chain(self.additional()).chain(named).collect()
    }

    /// The tokens that are special without a role or a name.
    pub(crate) fn additional(&self) -> Vec<AddedToken> {
        let lists = [ADDITIONAL, EXTRA].into_iter().filter_map(|key| self.raw.get(key)?.as_array());
        lists.flatten().filter_map(token).collect()
    }

    /// Those that a model has names of its own for, such as `image_token`.
    pub(crate) fn named(&self) -> Vec<(String, AddedToken)> {
        let names = self.raw.get(EXTRA).and_then(Value::as_object);
        names.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), token(value)?))).collect()
    }

    /// The tokens with a role, in the order of [`ROLES`].
    fn roles(&self) -> [&Option<AddedToken>; ROLES.len()] {
        [&self.bos, &self.eos, &self.pad, &self.unk, &self.cls, &self.sep, &self.mask]
    }

    /// `tokenizer_config.json` that says all this again.
    pub(crate) fn to_json(&self) -> Value {
        let mut object = self.raw.clone();
        object.entry("tokenizer_class").or_insert_with(|| json!(self.class.saved_name()));
        for (name, role) in ROLES.into_iter().zip(self.roles()) {
            // Roles that only encoders have are told where there are any.
            if role.is_some() || self.raw.contains_key(name) || ROLES[..4].contains(&name) {
                object.insert(name.to_owned(), role.as_ref().map_or(Value::Null, |token| json!(token.content)));
            }
        }
        if let Some(length) = self.max_length {
            object.insert("model_max_length".to_owned(), json!(length));
        }
        match self.chat_templates.as_slice() {
            [] => {}
            [(name, source)] if name == "default" => {
                object.insert("chat_template".to_owned(), json!(source));
            }
            several => {
                let named = several.iter().map(|(name, source)| json!({ "name": name, "template": source }));
                object.insert("chat_template".to_owned(), named.collect());
            }
        }
        Value::Object(object)
    }
}

impl Class {
    fn saved_name(self) -> &'static str {
        match self {
            Class::Other | Class::Qwen => "PreTrainedTokenizerFast",
            Class::Llama => "LlamaTokenizerFast",
            Class::Gemma => "GemmaTokenizerFast",
            Class::Cohere => "CohereTokenizerFast",
            Class::GptNeoX => "GPTNeoXTokenizerFast",
            Class::Gpt2 => "GPT2TokenizerFast",
            Class::Qwen2 => "Qwen2TokenizerFast",
            Class::Bloom => "BloomTokenizerFast",
            Class::T5 => "T5TokenizerFast",
            Class::Bert => "BertTokenizerFast",
        }
    }
}

/// A token that is matched in texts as it stands.
pub(crate) fn special(text: &str) -> AddedToken {
    AddedToken::from(text, true)
}

/// A token as the configuration spells it: its text, or an object with flags.
fn token(value: &Value) -> Option<AddedToken> {
    let flag = |name, default| value.get(name).and_then(Value::as_bool).unwrap_or(default);
    match value {
        Value::String(text) => Some(special(text)),
        Value::Object(object) => {
            let special = flag("special", true);
            Some(
                AddedToken::from(object.get("content")?.as_str()?, special)
                    .single_word(flag("single_word", false))
                    .lstrip(flag("lstrip", false))
                    .rstrip(flag("rstrip", false))
                    .normalized(flag("normalized", !special)),
            )
        }
        _ => None,
    }
}

/// The text of a file; `None` if there is no such file.
///
/// # Errors
/// If it cannot be read, or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|e| TokenizerError::format(path, format!("it is not UTF-8 text: {e}")))
}

/// The bytes of a file; `None` if there is no such file.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    if !path.try_exists().map_err(FileError::io(path, "reading"))? {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    let read = open_ordinary(path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.map_err(FileError::io(path, "reading"))?;
    Ok(Some(bytes))
}

/// The object in a JSON file; `None` if there is no such file.
fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(Some(object)),
        Ok(_) => Err(TokenizerError::format(path, "it is JSON, but not an object")),
        Err(error) => Err(TokenizerError::format(path, format!("it is not JSON: {error}"))),
    }
}
