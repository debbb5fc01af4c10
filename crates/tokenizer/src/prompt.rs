//! What is asked of a tokenizer and what it answers: texts, prompts, options, batches of ids.

/// Where shorter rows of a batch are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaddingSide {
    /// After the text.
    #[default]
    Right,
    /// Before it.
    Left,
}

/// Which occurrence of a token is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Occurrence {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
}

/// How texts become ids; `default()` is what TransformerLens does without arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenOptions {
    /// BOS before every text; the tokenizer's own default if `None`.
    pub prepend_bos: Option<bool>,
    /// Where shorter rows are filled; the tokenizer's own default if `None`.
    pub padding_side: Option<PaddingSide>,
    /// Texts longer than the context are cut at its length.
    pub truncate: bool,
}

impl Default for TokenOptions {
    fn default() -> TokenOptions {
        TokenOptions { prepend_bos: None, padding_side: None, truncate: true }
    }
}

impl TokenOptions {
    /// The defaults with or without BOS.
    pub fn prepend_bos(prepend: bool) -> TokenOptions {
        TokenOptions { prepend_bos: Some(prepend), ..TokenOptions::default() }
    }

    /// The defaults, but that no text is cut: one that is longer than the context is refused where a model reads it.
    pub fn whole() -> TokenOptions {
        TokenOptions { truncate: false, ..TokenOptions::default() }
    }
}

/// A batch of ids, `[rows, columns]` in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Ids, filled with the padding token.
    pub ids: Vec<u32>,
    /// 1 where a model shall attend, 0 at padding.
    pub attention_mask: Vec<u8>,
    /// How many texts.
    pub rows: usize,
    /// Length of the longest.
    pub columns: usize,
}

impl Tokens {
    /// The ids of one text, with padding.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[u32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.ids[row * self.columns..][..self.columns]
    }

    /// The mask of one text.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn mask(&self, row: usize) -> &[u8] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        &self.attention_mask[row * self.columns..][..self.columns]
    }
}

/// One text or several: what [`HookedTokenizer::to_tokens`](crate::HookedTokenizer::to_tokens) takes.
pub trait Texts {
    /// The texts.
    fn texts(&self) -> Vec<&str>;
}

impl Texts for str {
    fn texts(&self) -> Vec<&str> {
        vec![self]
    }
}

impl Texts for String {
    fn texts(&self) -> Vec<&str> {
        vec![self]
    }
}

impl<S: AsRef<str>> Texts for [S] {
    fn texts(&self) -> Vec<&str> {
        self.iter().map(AsRef::as_ref).collect()
    }
}

impl<S: AsRef<str>, const N: usize> Texts for [S; N] {
    fn texts(&self) -> Vec<&str> {
        self.as_slice().texts()
    }
}

impl<S: AsRef<str>> Texts for Vec<S> {
    fn texts(&self) -> Vec<&str> {
        self.as_slice().texts()
    }
}

impl<T: Texts + ?Sized> Texts for &T {
    fn texts(&self) -> Vec<&str> {
        (**self).texts()
    }
}

/// A prompt as text, or as ids that were made before.
#[derive(Clone, Copy, Debug)]
pub enum Prompt<'p> {
    /// Text.
    Text(&'p str),
    /// Ids, which stay as they are.
    Ids(&'p [u32]),
}

impl<'p> From<&'p str> for Prompt<'p> {
    fn from(text: &'p str) -> Prompt<'p> {
        Prompt::Text(text)
    }
}

impl<'p> From<&'p String> for Prompt<'p> {
    fn from(text: &'p String) -> Prompt<'p> {
        Prompt::Text(text)
    }
}

impl<'p> From<&'p [u32]> for Prompt<'p> {
    fn from(ids: &'p [u32]) -> Prompt<'p> {
        Prompt::Ids(ids)
    }
}

impl<'p> From<&'p Vec<u32>> for Prompt<'p> {
    fn from(ids: &'p Vec<u32>) -> Prompt<'p> {
        Prompt::Ids(ids)
    }
}

/// A token as text, or as its id.
#[derive(Clone, Copy, Debug)]
pub enum Single<'t> {
    /// Text that is one token.
    Text(&'t str),
    /// An id.
    Id(u32),
}

impl<'t> From<&'t str> for Single<'t> {
    fn from(text: &'t str) -> Single<'t> {
        Single::Text(text)
    }
}

impl From<u32> for Single<'_> {
    fn from(id: u32) -> Self {
        Single::Id(id)
    }
}
