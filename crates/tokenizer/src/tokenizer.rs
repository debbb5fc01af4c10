//! A tokenizer read from files: its pipeline, its special tokens and its chat templates.

use std::fs;
use std::path::{Path, PathBuf};

use ironlens_files::{FileError, write_atomically};
use serde_json::{Value, json};
use tokenizers::AddedToken;

use crate::chat::ChatMessage;
use crate::engine::Engine;
use crate::error::{Result, TokenizerError};
use crate::gguf::GgufVocabulary;
use crate::patterns::of_tiktoken;
use crate::pipeline::{ByteLevelBpe, Merge, template};
use crate::sentencepiece::SentencePiece;
use crate::settings::{Class, Settings, read_bytes, read_text, special};
use crate::tiktoken::{self, TiktokenOptions, looks_like_ranks};
use crate::tokenize::{Parts, SpecialToken, SpecialTokens, Tokenize};
use crate::wordpiece;

/// Text to ids and back as Hugging Face's tokenizer of the same files does it.
///
/// What TransformerLens makes of one (BOS, padding, single tokens) is [`HookedTokenizer`](crate::HookedTokenizer).
#[derive(Clone, Debug)]
pub struct Tokenizer {
    engine: Engine,
    pub(crate) settings: Settings,
    special: SpecialTokens,
}

impl Tokenizer {
    /// Reads a model's folder: `tokenizer.json`, or else `vocab.json` with `merges.txt` (byte-level BPE), or else
    /// `vocab.txt` (BERT's WordPiece), or else `tokenizer.model` (SentencePiece's, or ranks as Llama 3 has them under that name) or `spiece.model`, or else
    /// a `*.tiktoken` file.
    ///
    /// Beside it are read, if they are there, `tokenizer_config.json`, `special_tokens_map.json`, `config.json` (for
    /// the kind of model) and the files of chat templates. As transformers does, tokens that they name and the
    /// vocabulary lacks get ids behind it, and the classes of Llama, Gemma, Cohere and GPT-NeoX put BOS and EOS
    /// around texts as `add_bos_token` and `add_eos_token` say, whatever `tokenizer.json` has; where `add_prefix_space`
    /// is true or false, Llama's reads `tokenizer.model` first.
    ///
    /// # Errors
    /// If there is none of these, or one is broken; the error names the file.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Tokenizer> {
        let folder = folder.as_ref();
        let mut settings = Settings::read(folder)?;
        let path = |name: &str| folder.join(name);
        if settings.makes_anew()
            && let Some(bytes) = read_bytes(&path("tokenizer.model"))?
            && !looks_like_ranks(&bytes)
        {
            return Tokenizer::of_sentencepiece(&bytes, settings).map_err(|e| e.of_file(&path("tokenizer.model")));
        }
        if let Some(json) = read_bytes(&path("tokenizer.json"))? {
            let mut engine = Engine::from_json(&json).map_err(|e| e.of_file(&path("tokenizer.json")))?;
            if settings.class == Class::Bert {
                engine.adjust_bert_normalizer(&wordpiece::Cleaning::of(&settings));
            }
            return Tokenizer::set_up(engine, settings, true);
        }
        if let (Some(vocab), Some(merges)) = (read_bytes(&path("vocab.json"))?, read_text(&path("merges.txt"))?) {
            settings.assume(Class::Gpt2);
            let vocab = read_vocab(&vocab).map_err(|e| e.of_file(&path("vocab.json")))?;
            let merges = read_merges(&merges).map_err(|e| e.of_file(&path("merges.txt")))?;
            let engine = of_vocab_and_merges(vocab, merges, &settings).map_err(|e| e.of_file(&path("merges.txt")))?;
            let mut tokenizer = Tokenizer::set_up(engine, settings, true)?;
            // In this form alone, GPT-2's class obeys the flag: OPT's folders are such.
            if tokenizer.settings.class == Class::Gpt2 && tokenizer.settings.flag("add_bos_token") == Some(true) {
                tokenizer.put_around(true, false)?;
            }
            return Ok(tokenizer);
        }
        if let Some(vocab) = read_text(&path("vocab.txt"))? {
            settings.assume(Class::Bert);
            // The class that reads this form cleans up what it decodes, unless it is told not to.
            settings.raw.entry(wordpiece::CLEAN_UP).or_insert(json!(true));
            let engine = wordpiece::build(&vocab, &settings).map_err(|e| e.of_file(&path("vocab.txt")))?;
            return Tokenizer::set_up(engine, settings, true);
        }
        for name in ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"] {
            let Some(bytes) = read_bytes(&path(name))? else { continue };
            if looks_like_ranks(&bytes) {
                return Tokenizer::of_ranks(&path(name), &bytes, &TiktokenOptions::default(), settings);
            }
            return Tokenizer::of_sentencepiece(&bytes, settings).map_err(|e| e.of_file(&path(name)));
        }
        if let Some(file) = tiktoken_file(folder)? {
            let bytes = read_bytes(&file)?.unwrap_or_default();
            return Tokenizer::of_ranks(&file, &bytes, &TiktokenOptions::default(), settings);
        }
        Err(TokenizerError::NoTokenizer { folder: folder.to_path_buf() })
    }

    /// Reads the text of a `tokenizer.json`, alone: it names no special token by role.
    ///
    /// # Errors
    /// If it is not JSON, not a tokenizer's, or cut short.
    pub fn from_json(json: &[u8]) -> Result<Tokenizer> {
        Tokenizer::set_up(Engine::from_json(json)?, Settings::default(), false)
    }

    /// Reads a SentencePiece model (BPE or Unigram) alone; BOS is put before texts if the model has one.
    ///
    /// # Errors
    /// If it cannot be read, or is no such model.
    pub fn from_sentencepiece_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        let bytes = existing(path)?;
        Tokenizer::from_sentencepiece_bytes(&bytes).map_err(|e| e.of_file(path))
    }

    /// As [`from_sentencepiece_file`](Self::from_sentencepiece_file), from the file's bytes.
    ///
    /// # Errors
    /// If the bytes are no such model.
    pub fn from_sentencepiece_bytes(bytes: &[u8]) -> Result<Tokenizer> {
        Tokenizer::of_sentencepiece(bytes, Settings::default())
    }

    /// Reads a file of ranks as tiktoken has them; what it does not say is in `options`.
    ///
    /// # Errors
    /// If it cannot be read, or a line is not a token in base64 and its rank.
    pub fn from_tiktoken_file(path: impl AsRef<Path>, options: &TiktokenOptions) -> Result<Tokenizer> {
        let path = path.as_ref();
        let mut settings = Settings::default();
        let has = |name: &str| options.special.iter().any(|(text, _)| text == name).then(|| special(name));
        settings.bos = has("<|begin_of_text|>").or_else(|| has("<|startoftext|>"));
        settings.eos = has("<|end_of_text|>").or_else(|| has("<|endoftext|>"));
        Tokenizer::of_ranks(path, &existing(path)?, options, settings)
    }

    /// Makes the tokenizer of a GGUF file's metadata. BOS and EOS are put around texts if the file says so.
    ///
    /// # Errors
    /// If its lists have different lengths, or its kind or its cuts are not known.
    pub fn from_gguf_parts(vocabulary: GgufVocabulary) -> Result<Tokenizer> {
        let mut engine = vocabulary.engine()?;
        let token = |role: &str, id: Option<u32>| -> Result<Option<AddedToken>> {
            let Some(id) = id else { return Ok(None) };
            match vocabulary.tokens.get(id as usize) {
                Some(text) => Ok(Some(special(text))),
                None => Err(TokenizerError::vocabulary(format!(
                    "tokenizer.ggml.{role}_token_id is {id}, and there are {} tokens",
                    vocabulary.tokens.len()
                ))),
            }
        };
        let mut settings = Settings {
            bos: token("bos", vocabulary.bos_id)?,
            eos: token("eos", vocabulary.eos_id)?,
            pad: token("padding", vocabulary.pad_id)?,
            unk: token("unknown", vocabulary.unk_id)?,
            ends: vocabulary.end_ids(),
            ..Settings::default()
        };
        let default = vocabulary.chat_template.clone().map(|source| ("default".to_owned(), source));
        settings.chat_templates = default.into_iter().chain(vocabulary.named_chat_templates.clone()).collect();
        let around = |wanted: bool, token: &Option<AddedToken>, id| {
            let text = token.as_ref().filter(|_| wanted)?.content.clone();
            Some((text, id?))
        };
        let bos = around(vocabulary.adds_bos(), &settings.bos, vocabulary.bos_id);
        let eos = around(vocabulary.add_eos.unwrap_or(false), &settings.eos, vocabulary.eos_id);
        engine.set_template(template(bos.as_ref(), eos.as_ref()))?;
        Tokenizer::set_up(engine, settings, false)
    }

    fn of_sentencepiece(bytes: &[u8], mut settings: Settings) -> Result<Tokenizer> {
        let model = SentencePiece::parse(bytes)?;
        let engine = model.build(&settings)?;
        let roles = model.roles().map(|role| role.map(special));
        settings.fill(roles);
        // A model alone is read as Llama's class reads one: with BOS before texts.
        if settings.class == Class::Other && settings.raw.is_empty() && settings.bos.is_some() {
            settings.class = Class::Llama;
        }
        Tokenizer::set_up(engine, settings, true)
    }

    fn of_ranks(path: &Path, bytes: &[u8], options: &TiktokenOptions, settings: Settings) -> Result<Tokenizer> {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let mut special: Vec<(String, u32)> = options.special.iter().cloned().chain(settings.added_ids()).collect();
        if special.is_empty() && settings.class == Class::Qwen {
            special = tiktoken::special_of_qwen(bytes).map_err(|error| error.of_file(path))?;
        }
        let engine = tiktoken::build(bytes, options.expression(stem), &special).map_err(|error| error.of_file(path))?;
        Tokenizer::set_up(engine, settings, false)
    }

    /// What transformers does to a pipeline once it knows the settings; `own_template` lets the class put BOS and
    /// EOS around texts.
    fn set_up(mut engine: Engine, settings: Settings, own_template: bool) -> Result<Tokenizer> {
        let missing = missing_tokens(&engine, &settings);
        if !missing.is_empty() {
            engine.add_tokens(&missing)?;
        }
        if settings.class != Class::Other || !settings.raw.is_empty() {
            engine.set_add_prefix_space(settings.flag("add_prefix_space").unwrap_or(false));
        }
        let mut tokenizer = Tokenizer { special: SpecialTokens::default(), engine, settings };
        tokenizer.special = tokenizer.roles();
        if let Some(default) = tokenizer.settings.class.own_template().filter(|_| own_template) {
            let add_bos = tokenizer.settings.flag("add_bos_token").unwrap_or(default);
            let add_eos = tokenizer.settings.flag("add_eos_token").unwrap_or(false);
            tokenizer.put_around(add_bos, add_eos)?;
        }
        Ok(tokenizer)
    }

    fn put_around(&mut self, add_bos: bool, add_eos: bool) -> Result<()> {
        let around = |wanted: bool, flag: &str, token: &Option<SpecialToken>| match (wanted, token) {
            (false, _) => Ok(None),
            (true, Some(SpecialToken { text, id: Some(id) })) => Ok(Some((text.clone(), *id))),
            (true, _) => Err(TokenizerError::vocabulary(format!("{flag} is true and there is no such token"))),
        };
        let bos = around(add_bos, "add_bos_token", &self.special.bos)?;
        let eos = around(add_eos, "add_eos_token", &self.special.eos)?;
        self.engine.set_template(template(bos.as_ref(), eos.as_ref()))
    }

    fn roles(&self) -> SpecialTokens {
        let role = |token: &Option<AddedToken>| {
            let text = token.as_ref()?.content.clone();
            Some(SpecialToken { id: self.engine.token_to_id(&text), text })
        };
        let Settings { bos, eos, pad, unk, cls, sep, mask, ends, .. } = &self.settings;
        let ends = ends.iter().copied().filter(|id| self.engine.id_to_token(*id).is_some()).collect();
        let [bos, eos, pad, unk, cls, sep, mask] = [bos, eos, pad, unk, cls, sep, mask].map(role);
        SpecialTokens { bos, eos, pad, unk, cls, sep, mask, ends }
    }

    /// This tokenizer loaded as with `add_bos_token=True`, as TransformerLens does: those classes of transformers
    /// that obey that flag then put BOS before every text.
    ///
    /// # Errors
    /// If the class does and there is no BOS token.
    pub fn with_bos(mut self) -> Result<Tokenizer> {
        if self.settings.class.own_template().is_some() {
            self.settings.raw.insert("add_bos_token".to_owned(), json!(true));
            self.put_around(true, self.settings.flag("add_eos_token").unwrap_or(false))?;
        }
        Ok(self)
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and what ends a generated text into a folder, which is made if there is none;
    /// [`from_folder`](Self::from_folder) reads the same tokenizer there, and so does transformers.
    ///
    /// # Errors
    /// If the disk refuses, or two tokens have one id.
    pub fn save_into(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let pipeline = self.engine.to_json()?;
        fs::create_dir_all(folder).map_err(FileError::io(folder, "making the folder"))?;
        write_atomically(folder.join("tokenizer.json"), pipeline.as_bytes())?;
        let mut config = self.settings.to_json();
        // A folder's pipeline does as its configuration says, not as `tokenizer.json` has it.
        if self.engine.add_prefix_space() == Some(true) {
            config["add_prefix_space"] = json!(true);
        }
        write_atomically(folder.join("tokenizer_config.json"), format!("{config:#}\n").as_bytes())?;
        if !self.settings.ends.is_empty() {
            let generation = format!("{:#}\n", json!({ "eos_token_id": self.settings.ends }));
            write_atomically(folder.join("generation_config.json"), generation.as_bytes())?;
        }
        Ok(())
    }

    /// At how many ids texts are cut, if the files say so: `max_seq_length` of sentence-transformers, or
    /// `model_max_length`.
    pub fn max_length(&self) -> Option<usize> {
        self.settings.max_length
    }

    /// Names and sources of the chat templates.
    pub fn chat_templates(&self) -> &[(String, String)] {
        &self.settings.chat_templates
    }
}

impl Tokenize for Tokenizer {
    fn chat_text(&self, messages: &[(&str, &str)], add_generation_prompt: bool) -> Result<String> {
        let messages: Vec<ChatMessage> =
            messages.iter().map(|&(role, content)| ChatMessage::new(role, content)).collect();
        self.apply_chat_template(&messages, add_generation_prompt)
    }

    fn save_into(&self, folder: &Path) -> Result<bool> {
        Tokenizer::save_into(self, folder).map(|()| true)
    }

    fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        self.engine.encode(text, add_special)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let text = self.decode_uncleaned(ids, skip_special)?;
        let cleans = self.settings.flag(wordpiece::CLEAN_UP) == Some(true);
        Ok(if cleans { wordpiece::clean_up(&text) } else { text })
    }

    fn decode_uncleaned(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.engine.decode(ids, skip_special)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.engine.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.engine.id_to_token(id)
    }

    fn vocab_size(&self) -> usize {
        self.engine.vocab_size()
    }

    fn divided_vocab_size(&self) -> usize {
        self.engine.divided_vocab_size()
    }

    fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    fn encode_parts(&self, first: &str, second: Option<&str>, max_length: Option<usize>) -> Result<Parts> {
        self.engine.encode_parts(first, second, max_length)
    }
}

/// The tokens that the settings name and the pipeline does not find in texts, or finds with other flags.
fn missing_tokens(engine: &Engine, settings: &Settings) -> Vec<AddedToken> {
    let (added, special) = (engine.added(), settings.special());
    let mut missing = settings.added_tokens();
    missing.retain(|token| added.get(token.content.as_str()) != Some(&token));
    for token in &special {
        if !added.contains_key(token.content.as_str()) && missing.iter().all(|other| other.content != token.content) {
            missing.push(token.clone());
        }
    }
    for token in &mut missing {
        token.special |= special.iter().any(|other| other.content == token.content);
    }
    missing
}

/// The bytes of a file that must be there.
fn existing(path: &Path) -> Result<Vec<u8>> {
    read_bytes(path)?.ok_or_else(|| FileError::io(path, "reading")(std::io::ErrorKind::NotFound.into()).into())
}

/// The first `*.tiktoken` file of a folder, by name.
fn tiktoken_file(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(FileError::io(folder, "listing"))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.extension().is_some_and(|e| e == "tiktoken")).min())
}

/// `vocab.json`: an object of tokens and their ids.
fn read_vocab(bytes: &[u8]) -> Result<Vec<(String, u32)>> {
    let object: Value =
        serde_json::from_slice(bytes).map_err(|e| TokenizerError::vocabulary(format!("it is not JSON: {e}")))?;
    let Value::Object(object) = object else {
        return Err(TokenizerError::vocabulary("it is not an object of tokens and ids"));
    };
    let entry = |(token, id): (String, Value)| match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) => Ok((token, id)),
        None => Err(TokenizerError::vocabulary(format!("the id of {token:?} is {id}"))),
    };
    object.into_iter().map(entry).collect()
}

/// `merges.txt`: two tokens a line, after a line `#version`.
fn read_merges(text: &str) -> Result<Vec<Merge>> {
    let mut merges = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => {
                merges.push((left.to_owned(), right.to_owned()));
            }
            _ => return Err(TokenizerError::vocabulary(format!("line {number} is not two tokens with a space"))),
        }
    }
    Ok(merges)
}

fn of_vocab_and_merges(vocab: Vec<(String, u32)>, merges: Vec<Merge>, settings: &Settings) -> Result<Engine> {
    let qwen = settings.class == Class::Qwen2;
    let cut = of_tiktoken(if qwen { "qwen" } else { "gpt2" }).unwrap_or_default();
    let add_prefix_space = settings.flag("add_prefix_space").unwrap_or(false);
    ByteLevelBpe { vocab, merges, cuts: vec![cut.to_owned()], add_prefix_space, compose: qwen, ..Default::default() }
        .build()
}
