//! Small models with weights that are nowhere special.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::sync::Arc;

use ironlens_tensor::{Device, IndexTensor, Rng};
use ironlens_tokenizer::{HookedTokenizer, SpecialToken, SpecialTokens, Tokenize, TokenizerError};
use ironlens_transformer::{ActFn, Config, HookedTransformer};

/// The size that the tests share.
pub fn base() -> Config {
    Config {
        d_model: 24,
        d_head: 6,
        n_heads: 4,
        n_layers: 3,
        n_ctx: 10,
        d_vocab: 17,
        act_fn: ActFn::Gelu,
        ..Config::default()
    }
}

/// A model with random biases and norm weights, too.
pub fn model(cfg: Config) -> HookedTransformer {
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap();
    let names: Vec<(String, Vec<usize>)> =
        model.registry().params().map(|(n, s)| (n.to_string(), s.to_vec())).collect();
    for (i, (name, shape)) in names.into_iter().enumerate() {
        let last = name.rsplit('.').next().unwrap();
        if last.starts_with('b') || last.starts_with("_b") || last == "w" {
            let noise = Rng::new(9, i as u64).normal(&shape, if last == "w" { 1.0 } else { 0.0 }, 0.3, &Device::Cpu);
            model.params_mut().set(&name, &noise).unwrap();
        }
    }
    model
}

/// Clean and corrupted tokens, `[2, pos]`, that differ at two positions.
pub fn tokens(pos: usize) -> [IndexTensor; 2] {
    let ids: Vec<u32> = (0..2 * pos as u32).map(|i| (i * 7 + 3) % 17).collect();
    let mut other = ids.clone();
    other[2] = (other[2] + 5) % 17;
    other[pos + 4] = (other[pos + 4] + 3) % 17;
    [IndexTensor::new(ids, &[2, pos]), IndexTensor::new(other, &[2, pos])]
}

/// The words that [`reader`] knows, by id. The first begins and ends texts, and fills shorter ones.
pub const WORDS: [&str; 17] = [
    "<|endoftext|>",
    "a",
    "b",
    "c",
    " a",
    " b",
    " c",
    " and",
    " to",
    ".",
    "Ann",
    "Bob",
    " Ann",
    " Bob",
    "d",
    " d",
    " gave",
];

/// [`model`] with a tokenizer of [`WORDS`], which takes the longest that fits.
pub fn reader(cfg: Config) -> HookedTransformer {
    let text = WORDS[0].to_string();
    let special = SpecialTokens { eos: Some(SpecialToken { text, id: Some(0) }), ..SpecialTokens::default() };
    let mut model = model(cfg);
    model.set_tokenizer(HookedTokenizer::of(Arc::new(Words(special))).unwrap()).unwrap();
    model
}

#[derive(Debug)]
struct Words(SpecialTokens);

impl Tokenize for Words {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>, TokenizerError> {
        let (mut ids, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let fitting = (0..WORDS.len()).filter(|id| rest.starts_with(WORDS[*id]));
            let longest = fitting.max_by_key(|id| WORDS[*id].len());
            let id = longest.ok_or_else(|| TokenizerError::Argument(format!("no word begins {rest:?}")))?;
            ids.push(id as u32);
            rest = &rest[WORDS[id].len()..];
        }
        Ok(ids)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TokenizerError> {
        Ok(ids.iter().filter(|id| !skip_special || **id != 0).map(|id| WORDS[*id as usize]).collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        WORDS.iter().position(|word| *word == token).map(|id| id as u32)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        WORDS.get(id as usize).map(|word| word.to_string())
    }

    fn vocab_size(&self) -> usize {
        WORDS.len()
    }

    fn special_tokens(&self) -> &SpecialTokens {
        &self.0
    }
}
