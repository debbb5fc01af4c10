//! BERT: an encoder with norms after, and the heads that its checkpoints were made with.

use super::{Family, Read, act_fn};
use crate::conversion::Conversion;
use crate::hf::{HfConfig, mistaken};
use ironlens_tensor::Tensor;
use ironlens_transformer::Heads;
use ironlens_transformer::config::{AttentionDir, Config};

pub(super) const FAMILY: Family = Family {
    name: "BERT",
    architectures: &["BertForMaskedLM", "BertForPreTraining", "BertForNextSentencePrediction", "BertModel"],
    prefix: "bert.",
    config,
    tensors,
    names: &[],
    defaults: r#"{"vocab_size": 30522, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 512, "layer_norm_eps": 1e-12}"#,
};

fn config(hf: &HfConfig) -> Read<Config> {
    let kind = hf.text_if_given("position_embedding_type")?.unwrap_or("absolute");
    if kind != "absolute" {
        return Err(mistaken(
            "position_embedding_type",
            &format!("{kind:?}"),
            "\"absolute\", as in every BERT known here",
        ));
    }
    let types = hf.size_if_given("type_vocab_size")?.unwrap_or(2);
    if types != 2 {
        return Err(mistaken("type_vocab_size", &types.to_string(), "2: a text and another after it"));
    }
    if hf.flag("is_decoder", false)? {
        return Err(mistaken("is_decoder", "true", "false: BERT is read as an encoder"));
    }
    let (d_model, n_heads) = (hf.size("hidden_size")?, hf.count("num_attention_heads")?);
    if n_heads == 0 {
        return Err(mistaken("num_attention_heads", "0", "at least 1"));
    }
    Ok(Config {
        d_model,
        n_heads,
        d_head: d_model / n_heads,
        n_layers: hf.count("num_hidden_layers")?,
        d_mlp: hf.size("intermediate_size")?,
        n_ctx: hf.size("max_position_embeddings")?,
        d_vocab: hf.size("vocab_size")?,
        eps: hf.number_if_given("layer_norm_eps")?.unwrap_or(1e-12),
        act_fn: act_fn(hf, "hidden_act", "gelu")?,
        attention_dir: AttentionDir::Bidirectional,
        init_weights: false,
        ..Config::default()
    })
}

/// The heads that a class has, and those that tensors of these names are of: published files have all, whichever
/// class they name.
pub(crate) fn heads<'n>(hf: &HfConfig, names: impl Iterator<Item = &'n str>) -> Heads {
    let classes = hf.architectures();
    let is = |class: &str| classes.contains(&class);
    let (all, next) = (is("BertForPreTraining"), is("BertForNextSentencePrediction"));
    let mut heads =
        Heads { masked_language: all || is("BertForMaskedLM"), pooler: all || next, next_sentence: all || next };
    for name in names {
        let name = name.strip_prefix(FAMILY.prefix).unwrap_or(name);
        heads.masked_language |= name.starts_with("cls.predictions.");
        heads.pooler |= name.starts_with("pooler.");
        heads.next_sentence |= name.starts_with("cls.seq_relationship.");
    }
    // What says whether a text follows reads the pooler.
    heads.pooler |= heads.next_sentence;
    heads
}

/// The name of a tensor in newer files: the first ones have those of TensorFlow.
pub(crate) fn newer_name(name: &str) -> String {
    let of_norm = |old: &str, new: &str| name.strip_suffix(old).map(|start| format!("{start}{new}"));
    of_norm("LayerNorm.gamma", "LayerNorm.weight")
        .or_else(|| of_norm("LayerNorm.beta", "LayerNorm.bias"))
        .unwrap_or_else(|| name.to_string())
}

fn tensors(c: &mut Conversion<'_>) -> Read<()> {
    let m = c.cfg.d_model;
    let embeddings = |name: &str| format!("bert.embeddings.{name}");
    words(c, &embeddings("word_embeddings.weight"))?;
    c.positions_into("embed.pos_embed.W_pos", &embeddings("position_embeddings.weight"), 0)?;
    c.copy("embed.token_type_embed.W_token_type", &embeddings("token_type_embeddings.weight"), &[2, m])?;
    c.stream_norm("embed.ln", &embeddings("LayerNorm"))?;
    for l in 0..c.cfg.n_layers {
        let at = |name: &str| format!("bert.encoder.layer.{l}.{name}");
        c.attention_in(l, [&at("attention.self.query"), &at("attention.self.key"), &at("attention.self.value")])?;
        c.attention_out(l, &at("attention.output.dense"), 1.0)?;
        c.stream_norm(&format!("blocks.{l}.ln1"), &at("attention.output.LayerNorm"))?;
        c.mlp(l, &at("intermediate.dense"), &at("output.dense"), None)?;
        c.stream_norm(&format!("blocks.{l}.ln2"), &at("output.LayerNorm"))?;
    }
    if c.wants("pooler.W") {
        c.linear(("pooler.W", "pooler.b"), "bert.pooler.dense", [m, m])?;
    }
    if c.wants("nsp_head.W") {
        c.linear(("nsp_head.W", "nsp_head.b"), "cls.seq_relationship", [m, 2])?;
    }
    if c.wants("mlm_head.W") {
        c.linear(("mlm_head.W", "mlm_head.b"), "cls.predictions.transform.dense", [m, m])?;
        c.stream_norm("mlm_head.ln", "cls.predictions.transform.LayerNorm")?;
    }
    Ok(())
}

/// The embedding of words and, where words are guessed, the unembedding, which is the same unless there is another.
fn words(c: &mut Conversion<'_>, embed: &str) -> Read<()> {
    const HEAD: &str = "cls.predictions.decoder.weight";
    let (v, v_out) = (c.cfg.d_vocab, c.cfg.d_vocab_out);
    let (same, turned) = (|rows: Tensor| rows, |rows: Tensor| rows.t());
    if !c.wants("unembed.W_U") {
        return c.by_rows(embed, v, &[("embed.embed.W_E", 0, &same)]);
    }
    if c.hf.flag("tie_word_embeddings", true)? || !c.has(HEAD) {
        c.ignore(HEAD);
        c.by_rows(embed, v, &[("embed.embed.W_E", 0, &same), ("unembed.W_U", 1, &turned)])?;
    } else {
        c.by_rows(embed, v, &[("embed.embed.W_E", 0, &same)])?;
        c.by_rows(HEAD, v_out, &[("unembed.W_U", 1, &turned)])?;
    }
    // One bias under two names, of which files have the first or both.
    let [bias, again] = ["cls.predictions.bias", "cls.predictions.decoder.bias"];
    let from = if c.has(bias) { bias } else { again };
    c.ignore(again);
    c.copy_if_there("unembed.b_U", from, &[v_out])
}
