//! The fields of a [`Config`](super::Config) that are a choice among names.
//!
//! In TransformerLens each is a string; here each is an enum that knows its string, so that a typo is caught by
//! the compiler, or, in a file, by an error that lists the choices.

use ironlens_autograd::Var;
use ironlens_nn::OwnActivation;

use super::error::{ConfigError, invalid, nearest};

/// Declares an enum together with the strings that TransformerLens writes for its variants.
/// A variant marked `= null` is Python's `None` in a file; one that holds a value is called by its `name`, which no
/// file can give.
macro_rules! choices {
    (
        $(#[$meta:meta])*
        pub enum $name:ident for $field:literal {
            $( $(#[$vmeta:meta])* $variant:ident = $text:tt, )+
            $( + $(#[$ometa:meta])* $own:ident($named:ty), )?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
        pub enum $name {
            $( $(#[$vmeta])* $variant, )+
            $( $(#[$ometa])* $own($named), )?
        }

        impl $name {
            /// Every variant that has a name of its own, in the order they are documented.
            pub const ALL: &[$name] = &[ $( $name::$variant, )+ ];

            /// TransformerLens's name of this variant; `None` where TransformerLens has Python's `None`.
            pub fn name(self) -> Option<&'static str> {
                match self {
                    $( $name::$variant => choices!(@text $text), )+
                    $( $name::$own(own) => Some(own.name()), )?
                }
            }

            /// The names a file may give, as a list for an error message.
            pub(super) fn listed() -> String {
                let names: Vec<_> = Self::ALL.iter().map(|v| v.name().unwrap_or("null")).collect();
                format!("one of {}", names.join(", "))
            }
        }

        impl std::fmt::Display for $name {
            /// Writes TransformerLens's name, or `None`.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name().unwrap_or("None"))
            }
        }

        impl std::str::FromStr for $name {
            type Err = ConfigError;

            /// Reads TransformerLens's name. The error lists the names and says which is nearest.
            fn from_str(text: &str) -> Result<Self, ConfigError> {
                if let Some(found) = Self::ALL.iter().find(|v| v.name() == Some(text)) {
                    return Ok(*found);
                }
                let names = Self::ALL.iter().filter_map(|v| v.name());
                Err(invalid($field, format!("{text:?}"), Self::listed(), match nearest(text, names) {
                    Some(name) => format!("did you mean {name:?}?"),
                    None => "choose one of these names".into(),
                }))
            }
        }
    };
    (@text null) => { None };
    (@text $text:literal) => { Some($text) };
}

choices! {
    /// The MLP's activation function (`act_fn`).
    pub enum ActFn for "act_fn" {
        /// Not chosen. Only an attention-only model may leave it so.
        #[default]
        Unset = null,
        /// max(x, 0).
        Relu = "relu",
        /// x Φ(x) with the exact error function.
        Gelu = "gelu",
        /// GPT-2's: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
        GeluNew = "gelu_new",
        /// BLOOM's: x/2 (1 + tanh(0.7978845608 x (1 + 0.044715 x²))), the same function in another order of operations.
        GeluFast = "gelu_fast",
        /// Gemma's: PyTorch's own tanh approximation, again the same function.
        GeluPytorchTanh = "gelu_pytorch_tanh",
        /// x / (1 + exp(-x)).
        Silu = "silu",
        /// max(x, 0)² (Nemotron).
        Relu2 = "relu2",
        /// xIELU, with parameters of its own for each layer (Apertus).
        Xielu = "xielu",
        /// x softmax(x), the softmax taken over the neurons of one position.
        Solu = "solu",
        /// SoLU followed by a layer norm over the neurons (`mlp.ln`).
        SoluLn = "solu_ln",
        + /// A function of your own, see [`ActFn::own`].
        Own(OwnActivation),
    }
}

impl ActFn {
    /// A function of your own, called `name`: it gives a value of the shape that it is given, and is
    /// differentiated like the operations that it is made of. A file keeps its name alone, so a
    /// configuration with it is read by no one: give it in code again.
    ///
    /// ```
    /// # use ironlens_tensor::{Device, IndexTensor};
    /// # use ironlens_transformer::{ActFn, Config, HookedTransformer};
    /// let act_fn = ActFn::own("sine", |x| x.sin());
    /// let cfg = Config { d_model: 8, d_head: 4, n_layers: 1, n_ctx: 4, d_vocab: 5, act_fn, ..Config::default() };
    /// let model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
    /// let (_, cache) = model.run_with_cache(&IndexTensor::from([[0, 1, 2]]))?;
    /// assert_eq!(cache[("post", 0)].to_vec(), cache[("pre", 0)].sin().to_vec());
    /// # Ok::<(), ironlens_transformer::ModelError>(())
    /// ```
    pub fn own(name: &'static str, function: fn(&Var) -> Var) -> ActFn {
        ActFn::Own(OwnActivation::new(name, function))
    }

    /// Whether the MLP has a layer norm of its own after the activation function (names ending in `_ln`).
    pub fn is_layer_norm(self) -> bool {
        self == ActFn::SoluLn
    }
}

choices! {
    /// The norm before attention, before the MLP and before the unembedding (`normalization_type`).
    pub enum NormalizationType for "normalization_type" {
        /// No norm at all.
        None = null,
        /// LayerNorm with weights and biases.
        #[default]
        LN = "LN",
        /// LayerNorm without weights and biases: what is left of [`LN`](Self::LN) once they are folded into the next layer.
        LNPre = "LNPre",
        /// RMSNorm (no centring, no bias) with weights.
        RMS = "RMS",
        /// RMSNorm without weights.
        RMSPre = "RMSPre",
    }
}

impl NormalizationType {
    /// Whether it subtracts the mean ([`LN`](Self::LN), [`LNPre`](Self::LNPre)).
    pub fn centers(self) -> bool {
        match self {
            NormalizationType::LN | NormalizationType::LNPre => true,
            NormalizationType::None | NormalizationType::RMS | NormalizationType::RMSPre => false,
        }
    }

    /// Whether it has weights to learn ([`LN`](Self::LN), [`RMS`](Self::RMS)).
    pub fn has_weights(self) -> bool {
        match self {
            NormalizationType::LN | NormalizationType::RMS => true,
            NormalizationType::None | NormalizationType::LNPre | NormalizationType::RMSPre => false,
        }
    }
}

choices! {
    /// How the model knows positions (`positional_embedding_type`).
    pub enum PositionalEmbeddingType for "positional_embedding_type" {
        /// GPT-2's: a learned vector per position, added to the residual stream.
        #[default]
        Standard = "standard",
        /// Queries and keys are rotated by an angle proportional to the position; there is no `W_pos`.
        Rotary = "rotary",
        /// A learned vector per position, added to what queries and keys read but not to the residual stream.
        Shortformer = "shortformer",
        /// A per-head slope times the distance is subtracted from the scores. `W_pos` exists, and nothing reads it.
        Alibi = "alibi",
    }
}

choices! {
    /// Which way attention looks (`attention_dir`).
    pub enum AttentionDir for "attention_dir" {
        /// A position sees itself and those before it.
        #[default]
        Causal = "causal",
        /// Every position sees every position.
        Bidirectional = "bidirectional",
    }
}

choices! {
    /// What a norm of queries and keys normalises (`qk_norm_type`).
    pub enum QkNormType for "qk_norm_type" {
        /// Each vector by its root mean square, with one weight for all heads (Gemma 3, Qwen 3).
        #[default]
        Rms = "rms",
        /// The vectors of all heads together, by their root mean square (OLMo 2).
        RmsOfAllHeads = "rms_of_all_heads",
        /// Each vector by a layer norm without bias, with a weight for each head (Command R, StableLM 2).
        LayerNormPerHead = "layer_norm_per_head",
    }
}

choices! {
    /// How far one layer's attention reaches back (an entry of `attn_types`).
    pub enum AttnType for "attn_types" {
        /// To the first position.
        #[default]
        Global = "global",
        /// To the last `window_size` positions, the current one among them.
        Local = "local",
    }
}

choices! {
    /// How parameters whose name contains `W_` are drawn (`init_mode`); biases start at 0 and norm weights at 1.
    ///
    /// With [`initializer_range`](super::Config::initializer_range) as *g*: a matrix `[in, out]` has fan-in *in* and
    /// fan-out *out*, a per-head one `[heads, in, out]` has fan-in *in* and fan-out *heads* × *out*.
    pub enum InitMode for "init_mode" {
        /// Normal with standard deviation *g*.
        #[default]
        Gpt2 = "gpt2",
        /// Uniform within ± *g* √(6 / (fan-in + fan-out)).
        XavierUniform = "xavier_uniform",
        /// Normal with standard deviation *g* √(2 / (fan-in + fan-out)).
        XavierNormal = "xavier_normal",
        /// Uniform within ± *g* √2 √(3 / fan-in).
        KaimingUniform = "kaiming_uniform",
        /// Normal with standard deviation *g* √2 / √fan-in.
        KaimingNormal = "kaiming_normal",
        /// Normal with standard deviation 1 where the parameter's name contains `embed`, else 1 / √fan-in.
        /// (TransformerLens means 1 / fan-in for the unembedding, whose name contains `embed` too.)
        MuP = "muP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for v in ActFn::ALL {
            match v.name() {
                Some(name) => assert_eq!(name.parse::<ActFn>().unwrap(), *v),
                None => assert_eq!(v.to_string(), "None"),
            }
        }
        assert_eq!("muP".parse::<InitMode>().unwrap(), InitMode::MuP);
        assert_eq!("RMSPre".parse::<NormalizationType>().unwrap(), NormalizationType::RMSPre);
    }

    #[test]
    fn a_typo_names_the_choices_and_the_nearest() {
        let message = "gelo".parse::<ActFn>().unwrap_err().to_string();
        assert!(message.contains("act_fn"), "{message}");
        assert!(message.contains("gelu_pytorch_tanh"), "{message}");
        assert!(message.contains("did you mean \"gelu\"?"), "{message}");
    }
}
