//! What TransformerLens 2.18 makes of configurations that Hugging Face reads otherwise.

use ironlens_transformer::config::{ActFn, AttnType, Config};

/// Changes a family's configuration to what TransformerLens computes.
pub(crate) fn change(family: &str, cfg: &mut Config) {
    match family {
        // It knows the published models by name, and with them their rotation; of CodeLlama's the base alone is unusual.
        "Llama" if cfg.d_vocab == 128_256 || (cfg.rotary_base == 1e6 && (cfg.d_model, cfg.n_layers) == (4096, 32)) => {
            cfg.n_ctx = if cfg.use_NTK_by_parts_rope { cfg.n_ctx.min(2048) } else { cfg.n_ctx };
        }
        // TinyStories' models are told from the published ones by their few layers.
        "GPT-Neo" if cfg.d_vocab == 50_257 && cfg.n_layers <= 8 => cfg.n_ctx = cfg.n_ctx.min(512),
        // Of others, keys of the rotation and of biases are not read.
        "Llama" => {
            cfg.rotary_base = 10000.0;
            cfg.use_NTK_by_parts_rope = false;
            cfg.rope_scaling = None;
            cfg.gate_bias = false;
        }
        // It knows one activation function of Gemma's.
        "Gemma" => cfg.act_fn = ActFn::GeluNew,
        // Always side by side.
        "GPT-NeoX" => {
            cfg.parallel_attn_mlp = true;
            cfg.rotary_base = 10000.0;
        }
        // It knows the published models by name; in them, the layers with a window are the others.
        "Gemma 2" if [2304, 3584, 4608].contains(&cfg.d_model) => {
            for kind in &mut cfg.attn_types {
                *kind = if *kind == AttnType::Local { AttnType::Global } else { AttnType::Local };
            }
        }
        "Gemma 3" if [2560, 3840, 5376].contains(&cfg.d_model) => {
            cfg.rope_scaling = None;
            cfg.attn_scale = (cfg.d_head as f64).sqrt();
        }
        "gpt-oss" => {
            cfg.attn_sinks = false;
            cfg.use_local_attn = false;
            cfg.window_size = 0;
            cfg.attn_types.clear();
            cfg.rope_scaling = None;
        }
        "Phi 3" => {
            cfg.use_local_attn = false;
            cfg.window_size = 0;
            cfg.attn_types.clear();
            cfg.rope_scaling = None;
            cfg.rotary_dim = cfg.d_head;
        }
        // It reads no activation function.
        "BERT" => cfg.act_fn = ActFn::Gelu,
        // The slopes' formula holds for powers of two only.
        "BLOOM" => cfg.alibi_slopes.clear(),
        _ => {}
    }
    // Models whose masks would be large are cut.
    if matches!(family, "Mistral" | "Qwen 2" | "Qwen 3" | "BLOOM") {
        cfg.n_ctx = cfg.n_ctx.min(2048);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_models_are_known_by_their_sizes() {
        let changed = |family: &str, mut cfg: Config| {
            change(family, &mut cfg);
            (cfg.rotary_base, cfg.use_NTK_by_parts_rope, cfg.n_ctx)
        };
        let llama = Config { rotary_base: 5e5, use_NTK_by_parts_rope: true, n_ctx: 131_072, ..Config::default() };
        assert_eq!(changed("Llama", Config { d_vocab: 128_256, ..llama.clone() }), (5e5, true, 2048));
        assert_eq!(changed("Llama", Config { d_vocab: 49_152, ..llama.clone() }), (1e4, false, 131_072));
        let code = Config { d_model: 4096, n_layers: 32, n_ctx: 16_384, rotary_base: 1e6, ..Config::default() };
        assert_eq!(changed("Llama", code), (1e6, false, 16_384));
        let stories = |n_layers| Config { d_vocab: 50_257, n_layers, n_ctx: 2048, ..Config::default() };
        assert_eq!(changed("GPT-Neo", stories(4)).2, 512);
        assert_eq!(changed("GPT-Neo", stories(12)).2, 2048);
    }
}
