//! Filling in a configuration's defaults, and refusing those that describe no model.

use super::error::invalid;
use super::{
    ActFn, AttentionDir, Config, ConfigError, InitMode, NormalizationType, PositionalEmbeddingType, QkNormType,
    RopeScaling,
};

/// Far above any use, and far below where weights of f32 end.
const MAX_INITIALIZER_RANGE: f64 = 1e30;

impl Config {
    /// Fills in every default and checks that the fields fit together. Resolving a resolved configuration changes
    /// nothing.
    ///
    /// # Errors
    /// Whatever TransformerLens refuses, in the constructor or later with an obscure message in the forward pass,
    /// and what it would carry out to no purpose. The error names the field, its value, what was expected and the
    /// way out.
    pub fn resolved(&self) -> Result<Config, ConfigError> {
        let mut cfg = self.clone();
        cfg.resolve_sizes()?;
        cfg.resolve_attention()?;
        cfg.resolve_positions()?;
        cfg.check_mlp_and_norms()?;
        cfg.check_experts()?;
        cfg.check_beyond()?;
        cfg.resolve_numbers()?;
        Ok(cfg)
    }

    fn resolve_sizes(&mut self) -> Result<(), ConfigError> {
        for (field, size, what) in [
            ("d_model", self.d_model, "the residual stream's width"),
            ("d_head", self.d_head, "the width of a head"),
            ("n_layers", self.n_layers, "the number of blocks"),
            ("n_ctx", self.n_ctx, "the longest sequence"),
            ("d_vocab", self.d_vocab, "the number of tokens"),
        ] {
            if size == 0 {
                return Err(invalid(field, "0 (not given)", "at least 1", format!("give {what}")));
            }
        }
        if self.n_heads == 0 && !self.d_model.is_multiple_of(self.d_head) {
            let expected = format!("a divisor of d_model = {} while n_heads is not given", self.d_model);
            return Err(invalid("d_head", self.d_head, expected, "give n_heads, or another d_head"));
        }
        self.n_heads = self.n_heads();
        if self.d_vocab_out == 0 {
            self.d_vocab_out = self.d_vocab;
        }
        if !self.attn_only {
            self.d_mlp = self.d_mlp();
        }
        // Bytes of the largest parameters must be countable, or sizes computed from them would wrap.
        let sizes = [
            ("d_model", self.d_model),
            ("d_head", self.d_head),
            ("n_heads", self.n_heads),
            ("d_mlp", self.d_mlp),
            ("d_shared_expert", self.d_shared_expert),
            ("d_mlp_dense", self.d_mlp_dense),
            ("d_vocab", self.d_vocab),
            ("d_vocab_out", self.d_vocab_out),
            ("n_ctx", self.n_ctx),
        ];
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| *size > 1 << 30) {
            return Err(invalid(field, size, "at most 2^30", "check the number of zeros"));
        }
        Ok(())
    }

    fn resolve_attention(&mut self) -> Result<(), ConfigError> {
        let grouped = self.is_grouped_query();
        if grouped && !self.n_heads.is_multiple_of(self.n_key_value_heads) {
            return Err(invalid(
                "n_key_value_heads",
                self.n_key_value_heads,
                format!("a divisor of n_heads = {}", self.n_heads),
                "every key and value head serves as many heads; leave it out for one per head",
            ));
        }
        if self.use_attn_in && grouped {
            return Err(invalid(
                "use_attn_in",
                true,
                format!("false with grouped queries (n_key_value_heads = {})", self.n_key_value_heads),
                "use use_split_qkv_input, whose keys and values have inputs of their own",
            ));
        }
        let shortformer = self.positional_embedding_type == PositionalEmbeddingType::Shortformer;
        if self.use_split_qkv_input && shortformer && self.n_hooked_key_value_heads() != self.n_heads {
            return Err(invalid(
                "use_split_qkv_input",
                true,
                "false with shortformer positions and grouped queries",
                "set ungroup_grouped_query_attention, so that there is a key for each head's position",
            ));
        }
        if self.use_local_attn {
            if self.window_size == 0 {
                let expected = "at least 1 with use_local_attn";
                return Err(invalid(
                    "window_size",
                    "0 (not given)",
                    expected,
                    "give the number of positions a local layer sees",
                ));
            }
            if self.attn_types.len() != self.n_layers {
                return Err(invalid(
                    "attn_types",
                    format!("a list of {}", self.attn_types.len()),
                    format!("one entry for each of the {} layers with use_local_attn", self.n_layers),
                    "say \"global\" or \"local\" for each layer",
                ));
            }
            if self.attention_dir == AttentionDir::Bidirectional {
                return Err(invalid(
                    "use_local_attn",
                    true,
                    "false with bidirectional attention",
                    "the window is part of the causal mask, and without one TransformerLens ignores it; set it to false",
                ));
            }
        }
        Ok(())
    }

    fn resolve_positions(&mut self) -> Result<(), ConfigError> {
        if self.positional_embedding_type != PositionalEmbeddingType::Rotary {
            return Ok(());
        }
        let given = self.rotary_dim != 0;
        self.rotary_dim = self.rotary_dim();
        if self.rotary_dim > self.d_head || !self.rotary_dim.is_multiple_of(2) {
            return Err(invalid(
                "rotary_dim",
                format!("{}{}", self.rotary_dim, if given { "" } else { " (d_head)" }),
                format!("an even number up to d_head = {}", self.d_head),
                "rotations turn pairs of a head's dimensions; give an even rotary_dim",
            ));
        }
        positive("rotary_base", self.rotary_base)?;
        if let Some(base) = self.rotary_base_local {
            positive("rotary_base_local", base)?;
        }
        if self.use_NTK_by_parts_rope {
            positive("NTK_by_parts_factor", self.NTK_by_parts_factor)?;
            positive("NTK_by_parts_low_freq_factor", self.NTK_by_parts_low_freq_factor)?;
            positive("NTK_original_ctx_len", self.NTK_original_ctx_len as f64)?;
            let (low, high) = (self.NTK_by_parts_low_freq_factor, self.NTK_by_parts_high_freq_factor);
            if !(high.is_finite() && high > low) {
                return Err(invalid(
                    "NTK_by_parts_high_freq_factor",
                    high,
                    format!("above NTK_by_parts_low_freq_factor = {low}"),
                    "wavelengths between the two are blended; Llama 3.1 has 1 and 4",
                ));
            }
        }
        Ok(())
    }

    fn check_mlp_and_norms(&self) -> Result<(), ConfigError> {
        if self.attn_only {
            if self.use_hook_mlp_in {
                let hint = "an attention-only model has no MLP; set it to false";
                return Err(invalid("use_hook_mlp_in", true, "false with attn_only", hint));
            }
            if self.parallel_attn_mlp {
                let hint = "an attention-only model has no MLP to run beside attention; set it to false";
                return Err(invalid("parallel_attn_mlp", true, "false with attn_only", hint));
            }
        } else if self.act_fn == ActFn::Unset {
            let hint = "choose one, or set attn_only for a model without MLPs";
            return Err(invalid("act_fn", "not given", "an activation function", hint));
        } else if let ActFn::Own(own) = self.act_fn
            && own.name().parse::<ActFn>().is_ok()
        {
            let hint = "that is TransformerLens's name of another function; call yours something else";
            return Err(invalid("act_fn", own.name(), "a name that is not taken", hint));
        } else if self.gated_mlp && self.is_layer_norm_activation() {
            return Err(invalid(
                "gated_mlp",
                true,
                "false with act_fn = solu_ln",
                "TransformerLens leaves the gated product, W_in and b_in out of such a model; set it to false",
            ));
        }
        if self.use_normalization_before_and_after && self.normalization_type.centers() {
            return Err(invalid(
                "use_normalization_before_and_after",
                true,
                format!("false with normalization_type = {}", self.normalization_type),
                "norms after attention and MLP are RMS norms; set normalization_type to \"RMS\"",
            ));
        }
        if self.post_embedding_ln || self.normalization_type != NormalizationType::None || self.use_qk_norm {
            not_negative("eps", self.eps)?;
        }
        Ok(())
    }

    fn check_experts(&self) -> Result<(), ConfigError> {
        let none = self.num_experts == 0;
        if none != (self.experts_per_token == 0) || self.experts_per_token > self.num_experts {
            let expected = match none {
                true => "0 (not given) without num_experts".into(),
                false => format!("from 1 to num_experts = {}", self.num_experts),
            };
            let hint = "give num_experts and experts_per_token together";
            return Err(invalid("experts_per_token", self.experts_per_token, expected, hint));
        }
        if self.num_experts > 1 << 16 {
            return Err(invalid("num_experts", self.num_experts, "at most 2^16", "check the number of zeros"));
        }
        for (field, given) in [
            ("d_shared_expert", self.d_shared_expert != 0),
            ("dense_layers", !self.dense_layers.is_empty()),
            ("d_mlp_dense", self.d_mlp_dense != 0),
            ("gpt_oss_experts", self.gpt_oss_experts),
        ] {
            if none && given {
                let hint = "it says more about experts; give num_experts, or leave it out";
                return Err(invalid(field, "given", "not given without num_experts", hint));
            }
        }
        if !none && !self.gated_mlp {
            let hint = "experts are gated MLPs; set it to true";
            return Err(invalid("gated_mlp", false, "true with num_experts", hint));
        }
        if !none && self.attn_only {
            let hint = "an attention-only model has no MLP for experts to replace; set it to false";
            return Err(invalid("attn_only", true, "false with num_experts", hint));
        }
        Ok(())
    }

    /// The fields that TransformerLens does not have.
    fn check_beyond(&self) -> Result<(), ConfigError> {
        for (field, layers) in [("dense_layers", &self.dense_layers), ("no_rope_layers", &self.no_rope_layers)] {
            if let Some(layer) = layers.iter().find(|l| **l >= self.n_layers) {
                let expected = format!("layers below n_layers = {}", self.n_layers);
                return Err(invalid(field, layer, expected, "layers are numbered from 0"));
            }
        }
        if self.gate_bias && !self.gated_mlp {
            let hint = "only a gated MLP has a gate; set it to false";
            return Err(invalid("gate_bias", true, "false without gated_mlp", hint));
        }
        if self.gate_bias && (0..self.n_layers).all(|layer| self.has_experts(layer)) {
            let hint = "it is of a gated MLP, and every layer has experts; leave it out, or give dense_layers";
            return Err(invalid("gate_bias", true, "false where every layer has experts", hint));
        }
        if self.use_normalization_after_only {
            if self.use_normalization_before_and_after {
                let hint = "set one of the two";
                let expected = "false with use_normalization_before_and_after";
                return Err(invalid("use_normalization_after_only", true, expected, hint));
            }
            if self.normalization_type.centers() {
                let expected = format!("false with normalization_type = {}", self.normalization_type);
                let hint = "norms after attention and MLP are RMS norms; set normalization_type to \"RMS\"";
                return Err(invalid("use_normalization_after_only", true, expected, hint));
            }
        }
        if self.qk_norm_type != QkNormType::Rms && !self.use_qk_norm {
            let hint = "set use_qk_norm, or leave it out";
            return Err(invalid("qk_norm_type", self.qk_norm_type, "rms without use_qk_norm", hint));
        }
        if let Some(at) = self.clip_qkv {
            positive("clip_qkv", at)?;
        }
        if !self.alibi_slopes.is_empty() {
            if self.positional_embedding_type != PositionalEmbeddingType::Alibi {
                let expected = "not given without positional_embedding_type = alibi";
                return Err(invalid("alibi_slopes", "given", expected, "leave it out"));
            }
            if self.alibi_slopes.len() != self.n_heads {
                let given = format!("a list of {}", self.alibi_slopes.len());
                let expected = format!("one for each of the {} heads", self.n_heads);
                return Err(invalid("alibi_slopes", given, expected, "leave it out for the usual slopes"));
            }
            if let Some(slope) = self.alibi_slopes.iter().find(|s| !s.is_finite()) {
                return Err(invalid("alibi_slopes", slope, "finite numbers", "leave it out for the usual slopes"));
            }
        }
        if self.alibi_bf16 && self.positional_embedding_type != PositionalEmbeddingType::Alibi {
            let expected = "false without positional_embedding_type = alibi";
            return Err(invalid("alibi_bf16", true, expected, "leave it out"));
        }
        self.check_rope_scaling()
    }

    fn check_rope_scaling(&self) -> Result<(), ConfigError> {
        let Some(scaling) = &self.rope_scaling else { return Ok(()) };
        if self.positional_embedding_type != PositionalEmbeddingType::Rotary {
            let hint = "nothing is rotated; leave it out";
            return Err(invalid("rope_scaling", "given", "not given without rotary positions", hint));
        }
        if self.use_NTK_by_parts_rope {
            let hint = "wavelengths are stretched in one way; leave one of the two out";
            return Err(invalid("rope_scaling", "given", "not given with use_NTK_by_parts_rope", hint));
        }
        let sizes = |n: usize| positive("rope_scaling.original_max_position_embeddings", n as f64);
        match scaling {
            RopeScaling::Linear { factor } => positive("rope_scaling.factor", *factor),
            RopeScaling::Llama3 { factor, low, high, context } => {
                positive("rope_scaling.factor", *factor)?;
                positive("rope_scaling.low_freq_factor", *low)?;
                if !(high.is_finite() && high > low) {
                    let expected = format!("above low_freq_factor = {low}");
                    let hint = "wavelengths between the two are blended; Llama 3.1 has 1 and 4";
                    return Err(invalid("rope_scaling.high_freq_factor", high, expected, hint));
                }
                sizes(*context)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, context, attention_factor, .. } => {
                positive("rope_scaling.factor", *factor)?;
                positive("rope_scaling.beta_fast", *beta_fast)?;
                positive("rope_scaling.beta_slow", *beta_slow)?;
                positive("rope_scaling.attention_factor", *attention_factor)?;
                if self.rotary_base == 1.0 {
                    let hint = "every dimension turns equally fast there";
                    return Err(invalid("rotary_base", 1.0, "another base with YaRN", hint));
                }
                sizes(*context)
            }
            RopeScaling::LongRope { short, long, context, attention_factor } => {
                for (field, factors) in [("rope_scaling.short_factor", short), ("rope_scaling.long_factor", long)] {
                    if factors.len() != self.rotary_dim / 2 {
                        let expected = format!("rotary_dim / 2 = {} numbers", self.rotary_dim / 2);
                        let hint = "there is one for each pair of rotated dimensions";
                        return Err(invalid(field, format!("{} numbers", factors.len()), expected, hint));
                    }
                    factors.iter().try_for_each(|f| positive(field, *f))?;
                }
                positive("rope_scaling.attention_factor", *attention_factor)?;
                sizes(*context)
            }
        }
    }

    fn resolve_numbers(&mut self) -> Result<(), ConfigError> {
        // Also those that nothing reads: a file would give them back as null.
        for (field, number) in [
            ("eps", self.eps),
            ("attn_scale", self.attn_scale),
            ("initializer_range", self.initializer_range),
            ("rotary_base", self.rotary_base),
            ("rotary_base_local", self.rotary_base_local.unwrap_or(0.0)),
            ("NTK_by_parts_low_freq_factor", self.NTK_by_parts_low_freq_factor),
            ("NTK_by_parts_high_freq_factor", self.NTK_by_parts_high_freq_factor),
            ("NTK_by_parts_factor", self.NTK_by_parts_factor),
        ] {
            if !number.is_finite() {
                return Err(invalid(field, number, "a finite number", "leave it out for its default"));
            }
        }
        if self.use_attn_scale {
            if self.attn_scale == -1.0 {
                self.attn_scale = (self.d_head as f64).sqrt();
            }
            positive("attn_scale", self.attn_scale)?;
        }
        if self.initializer_range < 0.0 {
            self.initializer_range = match self.init_mode {
                InitMode::Gpt2 => 0.8 / (self.d_model as f64).sqrt(),
                InitMode::XavierUniform
                | InitMode::XavierNormal
                | InitMode::KaimingUniform
                | InitMode::KaimingNormal
                | InitMode::MuP => 1.0,
            };
        }
        not_negative("initializer_range", self.initializer_range)?;
        // Weights are drawn as f32, some deviations from 0.
        if self.initializer_range > MAX_INITIALIZER_RANGE {
            return Err(invalid(
                "initializer_range",
                self.initializer_range,
                format!("at most {MAX_INITIALIZER_RANGE:e}, or weights would be infinite"),
                "leave it out for its default",
            ));
        }
        for (field, cap) in [
            ("attn_scores_soft_cap", self.attn_scores_soft_cap),
            ("output_logits_soft_cap", self.output_logits_soft_cap),
        ] {
            if !cap.is_finite() {
                return Err(invalid(field, cap, "a finite number", "give -1.0 to leave it off"));
            }
        }
        Ok(())
    }
}

fn positive(field: &str, value: f64) -> Result<(), ConfigError> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => Err(invalid(field, value, "a finite number above 0", "leave it out for its default")),
    }
}

fn not_negative(field: &str, value: f64) -> Result<(), ConfigError> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(invalid(field, value, "a finite number, 0 or above", "leave it out for its default")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::AttnType;
    use super::*;

    /// The smallest description there can be.
    fn small() -> Config {
        Config { d_model: 32, d_head: 8, n_layers: 2, n_ctx: 16, d_vocab: 29, act_fn: ActFn::Relu, ..Config::default() }
    }

    #[test]
    fn defaults_are_transformerlens_defaults() {
        let cfg = small().resolved().unwrap();
        assert_eq!((cfg.n_heads, cfg.d_mlp, cfg.d_vocab_out, cfg.rotary_dim), (4, 128, 29, 0));
        assert_eq!((cfg.attn_scale, cfg.initializer_range), (8f64.sqrt(), 0.8 / 32f64.sqrt()));
        assert_eq!(cfg.resolved().unwrap(), cfg);

        let cfg = Config { init_mode: InitMode::XavierUniform, use_attn_scale: false, ..small() }.resolved().unwrap();
        assert_eq!((cfg.attn_scale, cfg.initializer_range), (-1.0, 1.0));

        let cfg = Config { attn_only: true, act_fn: ActFn::Unset, ..small() }.resolved().unwrap();
        assert_eq!((cfg.d_mlp, cfg.act_fn), (0, ActFn::Unset));

        let rotary = PositionalEmbeddingType::Rotary;
        let cfg = Config { positional_embedding_type: rotary, n_heads: 3, ..small() }.resolved().unwrap();
        assert_eq!((cfg.rotary_dim, cfg.n_heads), (8, 3));
    }

    /// Checks that a configuration is refused for this field, in a message that has these words.
    #[track_caller]
    fn refused(cfg: Config, field: &str, words: &[&str]) {
        let error = cfg.resolved().expect_err("must be refused");
        assert_eq!(error.field(), Some(field), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{error} does not say {word:?}");
        }
    }

    #[test]
    fn sizes_must_be_given_and_fit() {
        refused(Config::default(), "d_model", &["not given"]);
        refused(Config { n_layers: 0, ..small() }, "n_layers", &["0", "at least 1"]);
        refused(Config { d_vocab: 0, ..small() }, "d_vocab", &["number of tokens"]);
        refused(Config { d_model: 33, ..small() }, "d_head", &["d_model = 33", "n_heads"]);
        assert!(Config { d_model: 33, n_heads: 4, ..small() }.resolved().is_ok());
        refused(Config { n_ctx: usize::MAX, ..small() }, "n_ctx", &["2^30"]);
        refused(Config { d_model: usize::MAX - 7, d_head: 1, ..small() }, "d_model", &["2^30"]);
    }

    #[test]
    fn attention_fields_must_fit() {
        refused(Config { n_key_value_heads: 3, ..small() }, "n_key_value_heads", &["divisor of n_heads = 4"]);
        refused(Config { n_key_value_heads: 8, ..small() }, "n_key_value_heads", &["8"]);
        let grouped = Config { n_key_value_heads: 2, ..small() };
        refused(Config { use_attn_in: true, ..grouped.clone() }, "use_attn_in", &["use_split_qkv_input"]);
        let shortformer = PositionalEmbeddingType::Shortformer;
        let split = Config { use_split_qkv_input: true, positional_embedding_type: shortformer, ..grouped };
        refused(split.clone(), "use_split_qkv_input", &["ungroup"]);
        assert!(Config { ungroup_grouped_query_attention: true, ..split }.resolved().is_ok());

        let local = Config { use_local_attn: true, attn_types: vec![AttnType::Local; 2], ..small() };
        refused(local.clone(), "window_size", &["use_local_attn"]);
        let local = Config { window_size: 4, ..local };
        assert!(local.resolved().is_ok());
        refused(Config { n_layers: 3, ..local.clone() }, "attn_types", &["list of 2", "3 layers"]);
        refused(Config { attention_dir: AttentionDir::Bidirectional, ..local }, "use_local_attn", &["bidirectional"]);
    }

    #[test]
    fn rotations_must_fit_the_head() {
        let rotary = Config { positional_embedding_type: PositionalEmbeddingType::Rotary, ..small() };
        assert!(Config { rotary_dim: 4, ..rotary.clone() }.resolved().is_ok());
        refused(Config { rotary_dim: 3, ..rotary.clone() }, "rotary_dim", &["3", "even"]);
        refused(Config { rotary_dim: 10, ..rotary.clone() }, "rotary_dim", &["d_head = 8"]);
        refused(Config { d_head: 1, ..rotary.clone() }, "rotary_dim", &["1 (d_head)"]);
        refused(Config { rotary_base: 0.0, ..rotary.clone() }, "rotary_base", &["above 0"]);
        let stretched = Config { use_NTK_by_parts_rope: true, NTK_by_parts_high_freq_factor: 1.0, ..rotary };
        refused(stretched, "NTK_by_parts_high_freq_factor", &["above NTK_by_parts_low_freq_factor"]);
        // Elsewhere the field means nothing.
        assert!(Config { rotary_dim: 3, ..small() }.resolved().is_ok());
    }

    #[test]
    fn mlp_and_norms_must_fit() {
        refused(Config { act_fn: ActFn::Unset, ..small() }, "act_fn", &["attn_only"]);
        refused(Config { attn_only: true, use_hook_mlp_in: true, ..small() }, "use_hook_mlp_in", &["attn_only"]);
        refused(Config { attn_only: true, parallel_attn_mlp: true, ..small() }, "parallel_attn_mlp", &["attn_only"]);
        refused(Config { gated_mlp: true, act_fn: ActFn::SoluLn, ..small() }, "gated_mlp", &["solu_ln"]);
        let both = Config { use_normalization_before_and_after: true, ..small() };
        refused(both.clone(), "use_normalization_before_and_after", &["LN", "RMS"]);
        assert!(Config { normalization_type: NormalizationType::RMS, ..both }.resolved().is_ok());
    }

    #[test]
    fn experts_must_fit() {
        let experts = Config { num_experts: 4, experts_per_token: 2, gated_mlp: true, ..small() };
        assert!(experts.resolved().is_ok());
        let alone = Config { experts_per_token: 0, ..experts.clone() };
        refused(alone, "experts_per_token", &["is 0", "from 1 to num_experts = 4"]);
        refused(Config { experts_per_token: 5, ..experts.clone() }, "experts_per_token", &["is 5", "from 1 to", "4"]);
        refused(Config { num_experts: 0, ..experts.clone() }, "experts_per_token", &["is 2", "without num_experts"]);
        refused(Config { num_experts: 1 << 40, ..experts.clone() }, "num_experts", &["1099511627776", "2^16"]);
        refused(Config { gated_mlp: false, ..experts.clone() }, "gated_mlp", &["false", "true with num_experts"]);
        refused(Config { attn_only: true, ..experts.clone() }, "attn_only", &["true", "false with num_experts"]);
        let beyond = Config { dense_layers: vec![0, 2], ..experts.clone() };
        refused(beyond, "dense_layers", &["is 2", "below n_layers = 2"]);
        for (cfg, field) in [
            (Config { d_shared_expert: 8, ..small() }, "d_shared_expert"),
            (Config { dense_layers: vec![1], ..small() }, "dense_layers"),
            (Config { d_mlp_dense: 8, ..small() }, "d_mlp_dense"),
            (Config { gpt_oss_experts: true, ..small() }, "gpt_oss_experts"),
        ] {
            refused(cfg, field, &["is given", "not given without num_experts"]);
        }
        refused(Config { d_shared_expert: 1 << 40, ..experts.clone() }, "d_shared_expert", &["1099511627776", "2^30"]);
        let biased = Config { gate_bias: true, ..experts.clone() };
        refused(biased.clone(), "gate_bias", &["is true", "every layer has experts"]);
        assert!(Config { dense_layers: vec![1], ..biased }.resolved().is_ok());
        let dense = Config { dense_layers: vec![0], d_mlp_dense: usize::MAX, ..experts };
        refused(dense, "d_mlp_dense", &["2^30"]);
    }

    #[test]
    fn parts_beyond_transformerlens_must_fit() {
        refused(Config { gate_bias: true, ..small() }, "gate_bias", &["is true", "false without gated_mlp"]);
        let after = Config { use_normalization_after_only: true, ..small() };
        refused(after.clone(), "use_normalization_after_only", &["is true", "normalization_type = LN", "RMS"]);
        let rms = Config { normalization_type: NormalizationType::RMS, ..after };
        assert!(rms.resolved().is_ok());
        let both = Config { use_normalization_before_and_after: true, ..rms };
        refused(both, "use_normalization_after_only", &["is true", "false with use_normalization_before_and_after"]);
        for kind in [QkNormType::RmsOfAllHeads, QkNormType::LayerNormPerHead] {
            let cfg = Config { qk_norm_type: kind, ..small() };
            refused(cfg.clone(), "qk_norm_type", &[kind.name().unwrap(), "rms without use_qk_norm"]);
            assert!(Config { use_qk_norm: true, ..cfg }.resolved().is_ok());
        }
        for at in [0.0, -2.5, f64::NAN, f64::INFINITY] {
            refused(Config { clip_qkv: Some(at), ..small() }, "clip_qkv", &[&at.to_string(), "above 0"]);
        }
        let slopes = |slopes: &[f64]| Config { alibi_slopes: slopes.to_vec(), ..small() };
        refused(slopes(&[0.5; 4]), "alibi_slopes", &["given", "positional_embedding_type = alibi"]);
        let alibi = |s: &[f64]| Config { positional_embedding_type: PositionalEmbeddingType::Alibi, ..slopes(s) };
        refused(alibi(&[0.5; 3]), "alibi_slopes", &["a list of 3", "one for each of the 4 heads"]);
        refused(alibi(&[0.5, 0.5, f64::NAN, 0.5]), "alibi_slopes", &["NaN", "finite"]);
        assert!(alibi(&[0.5; 4]).resolved().is_ok());
        let rounded = Config { alibi_bf16: true, ..small() };
        refused(rounded, "alibi_bf16", &["is true", "false without positional_embedding_type = alibi"]);
        assert!(Config { alibi_bf16: true, ..alibi(&[]) }.resolved().is_ok());
        refused(Config { no_rope_layers: vec![1, 2], ..small() }, "no_rope_layers", &["is 2", "below n_layers = 2"]);
    }

    #[test]
    fn stretched_rotations_must_fit() {
        let rotary = Config { positional_embedding_type: PositionalEmbeddingType::Rotary, ..small() };
        let stretched = |scaling: RopeScaling| Config { rope_scaling: Some(scaling), ..rotary.clone() };
        let linear = |factor| stretched(RopeScaling::Linear { factor });
        let refused_number = |cfg, field, given: f64| {
            refused(cfg, &format!("rope_scaling.{field}"), &[&format!("is {given}"), "a finite number above 0"]);
        };
        assert!(linear(2.0).resolved().is_ok());
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            refused_number(linear(factor), "factor", factor);
        }
        let standard = Config { positional_embedding_type: PositionalEmbeddingType::Standard, ..linear(2.0) };
        refused(standard, "rope_scaling", &["given", "without rotary positions"]);
        let twice = Config { use_NTK_by_parts_rope: true, ..linear(2.0) };
        refused(twice, "rope_scaling", &["given", "use_NTK_by_parts_rope"]);

        let llama = |factor, low, high, context| stretched(RopeScaling::Llama3 { factor, low, high, context });
        assert!(llama(8.0, 1.0, 4.0, 64).resolved().is_ok());
        refused_number(llama(0.0, 1.0, 4.0, 64), "factor", 0.0);
        refused_number(llama(8.0, -1.0, 4.0, 64), "low_freq_factor", -1.0);
        for high in [1.0, 0.5, f64::NAN, f64::INFINITY] {
            let words = [&format!("is {high}")[..], "above low_freq_factor = 1"];
            refused(llama(8.0, 1.0, high, 64), "rope_scaling.high_freq_factor", &words);
        }
        refused_number(llama(8.0, 1.0, 4.0, 0), "original_max_position_embeddings", 0.0);

        let yarn = |numbers: [f64; 4], context| {
            let [factor, beta_fast, beta_slow, attention_factor] = numbers;
            stretched(RopeScaling::Yarn { factor, beta_fast, beta_slow, context, truncate: true, attention_factor })
        };
        let good = [4.0, 32.0, 1.0, 1.1];
        assert!(yarn(good, 64).resolved().is_ok());
        for (i, field) in ["factor", "beta_fast", "beta_slow", "attention_factor"].into_iter().enumerate() {
            for bad in [0.0, -3.0, f64::NAN] {
                let mut numbers = good;
                numbers[i] = bad;
                refused_number(yarn(numbers, 64), field, bad);
            }
        }
        refused_number(yarn(good, 0), "original_max_position_embeddings", 0.0);
        refused(Config { rotary_base: 1.0, ..yarn(good, 64) }, "rotary_base", &["is 1", "another base with YaRN"]);

        let long = |short: &[f64], long: &[f64], context, attention_factor| {
            let (short, long) = (short.to_vec(), long.to_vec());
            stretched(RopeScaling::LongRope { short, long, context, attention_factor })
        };
        assert!(long(&[1.0; 4], &[2.0; 4], 64, 1.2).resolved().is_ok());
        let words = ["3 numbers", "rotary_dim / 2 = 4 numbers"];
        refused(long(&[1.0; 3], &[2.0; 4], 64, 1.2), "rope_scaling.short_factor", &words);
        refused(long(&[1.0; 4], &[2.0; 3], 64, 1.2), "rope_scaling.long_factor", &words);
        refused_number(long(&[1.0, 0.0, 1.0, 1.0], &[2.0; 4], 64, 1.2), "short_factor", 0.0);
        refused_number(long(&[1.0; 4], &[2.0, 2.0, 2.0, -2.0], 64, 1.2), "long_factor", -2.0);
        refused_number(long(&[1.0; 4], &[2.0; 4], 64, f64::NAN), "attention_factor", f64::NAN);
        refused_number(long(&[1.0; 4], &[2.0; 4], 0, 1.2), "original_max_position_embeddings", 0.0);
    }

    #[test]
    fn numbers_must_be_numbers() {
        refused(Config { eps: f64::NAN, ..small() }, "eps", &["NaN"]);
        refused(Config { attn_scale: 0.0, ..small() }, "attn_scale", &["above 0"]);
        refused(Config { initializer_range: f64::INFINITY, ..small() }, "initializer_range", &["inf"]);
        refused(Config { initializer_range: 1e308, ..small() }, "initializer_range", &["1e30", "infinite"]);
        assert!(Config { initializer_range: 1e30, ..small() }.resolved().is_ok());
        refused(Config { output_logits_soft_cap: f64::NAN, ..small() }, "output_logits_soft_cap", &["-1.0"]);
        // Also where nothing reads them.
        refused(Config { rotary_base: f64::NAN, ..small() }, "rotary_base", &["NaN"]);
        refused(Config { NTK_by_parts_factor: f64::INFINITY, ..small() }, "NTK_by_parts_factor", &["inf"]);
    }
}
