//! What TransformerLens 2.18 makes of configurations that Hugging Face reads otherwise.

use ironlens_transformer::config::{ActFn, AttnType, Config};

/// Changes a family's configuration to what TransformerLens computes.
pub(crate) fn change(family: &str, cfg: &mut Config) {
    match family {
        // Keys of the rotation and of biases are not read from a folder.
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
