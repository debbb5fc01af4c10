//! How much memory a configuration asks for, known before anything is built.

use ironlens_tensor::{DType, Device};

use super::Config;
use super::error::ConfigError;

/// Taken for a memory whose size is not known: more than a person's machine or one GPU has.
const UNKNOWN: u64 = 1 << 40;

/// What a block costs besides its weights: names, hook points, bookkeeping.
const BLOCK: u64 = 16 << 10;

/// Bytes of an `f32`.
const FLOAT: u64 = 4;

/// The product, or the largest number if that cannot be counted.
pub(crate) fn product(sizes: &[usize]) -> u64 {
    sizes.iter().fold(1, |product: u64, &size| product.saturating_mul(size as u64))
}

fn sum(terms: impl IntoIterator<Item = u64>) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}

impl Config {
    /// Bytes of the weights in `f32`, and of what names them. Settings that are not given count as their
    /// defaults; what cannot be counted is the largest number. Training takes four times as much (weights,
    /// gradients, two moments), and activations.
    pub fn weight_bytes(&self) -> u64 {
        let (d, e, h, kv) = (self.d_model, self.d_head, self.n_heads(), self.n_key_value_heads());
        let d_vocab_out = if self.d_vocab_out == 0 { self.d_vocab } else { self.d_vocab_out };
        let positions = if self.has_pos_embed() { product(&[self.n_ctx, d]) } else { 0 };
        let attention = sum([product(&[d, e, h, 2]), product(&[d, e, kv, 2]), product(&[e, h]), product(&[e, kv, 2])]);
        let matrices = 2 + usize::from(self.gated_mlp);
        let mlp = |neurons: usize| sum([product(&[d, neurons, matrices]), product(&[2, neurons])]);
        // Every expert has a row of the router's, and names.
        let expert = sum([mlp(self.d_mlp()), product(&[2, d]), BLOCK / FLOAT / 4]);
        let experts = sum([expert.saturating_mul(self.num_experts as u64), mlp(self.d_shared_expert)]);
        let mlp = if self.num_experts == 0 { mlp(self.d_mlp()) } else { experts.max(mlp(self.d_mlp_dense)) };
        let block = sum([attention, mlp, product(&[d, 10])]).saturating_mul(FLOAT).saturating_add(BLOCK);
        let embeddings = sum([product(&[self.d_vocab, d]), positions, product(&[d, d_vocab_out])]);
        embeddings.saturating_mul(FLOAT).saturating_add(block.saturating_mul(self.n_layers as u64))
    }

    /// Bytes that a training step on `[batch, pos]` tokens holds at least, weights aside: activations that
    /// the way back needs, and the logits with their gradient. What cannot be counted is the largest number.
    pub fn step_bytes(&self, batch: usize, pos: usize) -> u64 {
        // A layer keeps the stream before and after attention, queries and their mix of values, and the
        // MLP's product before and after its function; grouped keys and values may be small.
        let heads = product(&[2, self.n_heads(), self.d_head]);
        let layer = sum([product(&[2, self.d_model]), heads, product(&[2, self.d_mlp()])]);
        let row = sum([layer.saturating_mul(self.n_layers as u64), product(&[2, self.d_vocab_out])]);
        product(&[batch, pos]).saturating_mul(FLOAT).saturating_mul(row)
    }

    /// Bytes that a forward pass on `[batch, pos]` tokens holds at least, weights aside: the stream, and the
    /// widest product. What cannot be counted is the largest number.
    pub fn pass_bytes(&self, batch: usize, pos: usize) -> u64 {
        let row = self.d_model.saturating_add(self.d_vocab_out.max(self.d_mlp()));
        product(&[batch, pos, row]).saturating_mul(FLOAT)
    }

    /// Checks that the weights fit into the memory behind `device`, as far as it is known.
    ///
    /// # Errors
    /// If they do not; the error names the setting that is farthest beyond what models have.
    pub fn check_memory(&self, device: &Device) -> Result<(), ConfigError> {
        self.check_memory_as(DType::F32, device)
    }

    /// The same, of weights whose matrices, almost all of them, are stored in `storage`.
    ///
    /// # Errors
    /// As there.
    pub fn check_memory_as(&self, storage: DType, device: &Device) -> Result<(), ConfigError> {
        let available = device.memory_bytes().unwrap_or(UNKNOWN);
        self.check_bytes(self.stored_bytes(storage), available)
    }

    /// About as many bytes as the weights take with matrices in `storage`.
    fn stored_bytes(&self, storage: DType) -> u64 {
        match self.weight_bytes() {
            u64::MAX => u64::MAX,
            bytes => (bytes / FLOAT).saturating_mul(storage.size() as u64),
        }
    }

    /// As [`Config::check_memory`], for a memory of `available` bytes, of which `needed` are asked for.
    fn check_bytes(&self, needed: u64, available: u64) -> Result<(), ConfigError> {
        if needed <= available {
            return Ok(());
        }
        // Beside each setting, what the largest models have. What follows from another is not to blame.
        let positions = if self.has_pos_embed() { self.n_ctx } else { 0 };
        let own = |size: usize, derived: usize| if size == derived { 0 } else { size };
        let settings = [
            ("n_layers", self.n_layers, 1 << 7),
            ("d_model", self.d_model, 1 << 14),
            ("d_vocab", self.d_vocab, 1 << 18),
            ("n_ctx", positions, 1 << 17),
            ("d_head", self.d_head, 1 << 8),
            ("n_heads", own(self.n_heads, self.d_model / self.d_head.max(1)), 1 << 7),
            ("n_key_value_heads", self.n_key_value_heads, 1 << 7),
            ("num_experts", self.num_experts, 1 << 8),
            ("d_mlp", own(self.d_mlp, self.d_model.saturating_mul(4)), 1 << 16),
            ("d_vocab_out", own(self.d_vocab_out, self.d_vocab), 1 << 18),
        ];
        let share = |&(_, size, usual): &(&str, usize, usize)| size as f64 / usual as f64;
        let mut farthest = settings[0];
        for setting in settings {
            if share(&setting) > share(&farthest) {
                farthest = setting;
            }
        }
        Err(ConfigError::Memory {
            field: farthest.0.into(),
            value: farthest.1,
            needed: amount(needed),
            available: amount(available),
        })
    }
}

/// Bytes as people write them.
fn amount(bytes: u64) -> String {
    if bytes == u64::MAX {
        return "more bytes than can be counted".into();
    }
    let units = ["bytes", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", if value < 10.0 && unit > 0 { format!("{value:.1}") } else { format!("{value:.0}") }, units[unit])
}

/// Bytes of this machine's memory, or of what a container may take of it; 1 TiB if that is not known, as on Windows.
pub fn machine_memory() -> u64 {
    Device::Cpu.memory_bytes().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use ironlens_nn::Registry;

    use super::super::{AttentionDir, PositionalEmbeddingType};
    use super::*;

    /// The notebook's model, of which the MLP's width follows from the model's.
    fn notebook() -> Config {
        Config { d_mlp: Config::default().d_mlp, ..super::super::tests::notebook() }
    }

    /// Bytes of all parameters of a model that is described, not made.
    fn counted(cfg: &Config) -> u64 {
        let mut registry = Registry::new("HookedTransformer");
        let _ = crate::net::Net::new(&mut registry.root(), &cfg.resolved().unwrap());
        registry.params().map(|(_, shape)| product(shape) * FLOAT).sum()
    }

    #[test]
    fn estimates_are_those_of_the_parameters() {
        let rotary = PositionalEmbeddingType::Rotary;
        for cfg in [
            notebook(),
            Config { attn_only: true, n_layers: 12, d_vocab_out: 7, ..notebook() },
            Config { gated_mlp: true, n_key_value_heads: 3, positional_embedding_type: rotary, ..notebook() },
            Config { attention_dir: AttentionDir::Bidirectional, n_heads: 5, d_mlp: 1000, ..notebook() },
        ] {
            let (estimate, right) = (cfg.weight_bytes() as f64, counted(&cfg) as f64);
            assert!(estimate >= right && estimate < 1.03 * right, "{estimate} for {right}: {cfg:?}");
            assert_eq!(cfg.resolved().unwrap().weight_bytes(), cfg.weight_bytes());
            assert_eq!(cfg.stored_bytes(DType::Bf16), cfg.weight_bytes() / 4 * 2);
        }
    }

    #[test]
    fn sizes_beyond_memory_are_refused_with_their_name() {
        let machine = 64 << 30;
        let refused = |cfg: Config, field: &str| {
            if let Ok(resolved) = cfg.resolved() {
                let error = resolved.check_bytes(resolved.weight_bytes(), machine).unwrap_err();
                assert_eq!(error.field(), Some(field), "{error}");
            }
            let error = cfg.check_bytes(cfg.weight_bytes(), machine).unwrap_err();
            assert_eq!(error.field(), Some(field), "{error}");
            assert!(error.to_string().contains("69 GB"), "{error}");
        };
        refused(Config { n_layers: 1_000_000_000, ..notebook() }, "n_layers");
        refused(Config { n_layers: usize::MAX, ..notebook() }, "n_layers");
        // Also in half of the bytes, where they cannot be counted.
        assert_eq!(Config { n_layers: usize::MAX, ..notebook() }.stored_bytes(DType::Bf16), u64::MAX);
        refused(Config { d_model: 1_000_000_000, ..notebook() }, "d_model");
        refused(Config { d_model: usize::MAX, n_heads: usize::MAX, ..notebook() }, "n_heads");
        refused(Config { n_ctx: 1_000_000_000, ..notebook() }, "n_ctx");
        refused(Config { d_vocab: 1_000_000_000, ..notebook() }, "d_vocab");
        refused(Config { d_head: 1_000_000_000, n_heads: 12, ..notebook() }, "d_head");
        refused(Config { n_heads: 1_000_000_000, ..notebook() }, "n_heads");
        refused(Config { d_mlp: 1_000_000_000, ..notebook() }, "d_mlp");
        refused(Config { d_vocab_out: 1_000_000_000, ..notebook() }, "d_vocab_out");
        notebook().check_bytes(notebook().weight_bytes(), machine).unwrap();
        // A long context costs a rotary model no weights.
        let rotary = PositionalEmbeddingType::Rotary;
        let long = Config { n_ctx: 1 << 30, positional_embedding_type: rotary, ..notebook() };
        long.check_bytes(long.weight_bytes(), machine).unwrap();
    }
}
