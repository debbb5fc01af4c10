//! From the tensors of a checkpoint to the weights of a model, one at a time.
//!
//! Shapes: N heads, K key and value heads, h the width of a head, m that of the stream, f neurons, V tokens.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use ironlens_files::{FileError, TensorFile};
use ironlens_lens::ProcessingByParts;
use ironlens_tensor::{Device, Tensor, release_if_large};
use ironlens_transformer::{Config, HookedModel, is_buffer};

use crate::arriving::{Arrived, Arriving, ReadColumns, UNEMBEDDING};
use crate::error::PretrainedError;
use crate::hf::HfConfig;
use crate::load::LoadOptions;

/// Where tensors are read, by the names that Hugging Face gives them.
pub(crate) trait Source {
    /// Names and shapes.
    fn shapes(&self) -> BTreeMap<String, Vec<usize>>;
    /// The elements of tensor `name`, in row-major order.
    fn read(&self, name: &str) -> Result<Vec<f32>, FileError>;
    /// Those of some of its rows, of `width` elements each.
    fn read_rows(&self, name: &str, rows: Range<usize>, width: usize) -> Result<Vec<f32>, FileError>;
}

impl<F: TensorFile> Source for F {
    fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        self.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect()
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, FileError> {
        self.read_f32(name)
    }

    fn read_rows(&self, name: &str, rows: Range<usize>, width: usize) -> Result<Vec<f32>, FileError> {
        let mut out = vec![0.0; rows.len() * width];
        self.read_rows_into(name, rows, &mut out)?;
        Ok(out)
    }
}

/// Elements of an embedding that are read at once: other copies of it would be a good part of a small model.
const CHUNK: usize = 1 << 19;

/// A weight, the axis along which rows of a tensor lie in it, and what is made of them.
pub(crate) type Target<'t> = (&'static str, usize, &'t dyn Fn(Tensor) -> Tensor);

/// A checkpoint on its way into a model. Problems are gathered, so that all are told.
pub(crate) struct Conversion<'a> {
    /// The checkpoint's own configuration.
    pub hf: &'a HfConfig,
    /// The model's.
    pub cfg: Config,
    /// Added to the weights of norms (Gemma, Nemotron).
    pub norm_offset: f64,
    /// Whether Gemma's norms have their 1 already, as in GGUF files.
    pub offset_inside: bool,
    /// Whether matrices are stored `[in, out]`, as by GPT-2's `Conv1D`, rather than `[out, in]`.
    pub conv1d: bool,
    source: &'a dyn Source,
    shapes: BTreeMap<String, Vec<usize>>,
    /// What the names of a base model begin with, where a model with a head has it.
    prefix: &'static str,
    /// The model's.
    weights: Arriving<'a>,
    used: BTreeSet<String>,
    written: BTreeSet<String>,
    pub problems: Vec<String>,
}

impl<'a> Conversion<'a> {
    pub fn new(
        hf: &'a HfConfig,
        source: &'a dyn Source,
        prefix: &'static str,
        model: &'a mut impl HookedModel,
        parts: Option<ProcessingByParts>,
    ) -> Conversion<'a> {
        Conversion {
            hf,
            cfg: model.config().clone(),
            norm_offset: 0.0,
            offset_inside: false,
            conv1d: false,
            shapes: source.shapes(),
            source,
            prefix,
            weights: Arriving::new(model.params_mut(), parts),
            used: BTreeSet::new(),
            written: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// The name that tensor `name` has in this checkpoint: base models leave their prefix out, and models that
    /// read pictures too put one before it.
    fn find(&self, name: &str) -> Option<String> {
        let inner = name.strip_prefix(self.prefix).filter(|inner| !inner.is_empty());
        let spellings = [
            Some(name.to_string()),
            inner.map(String::from),
            inner.map(|inner| format!("{}language_model.{inner}", self.prefix)),
            Some(format!("language_model.{name}")),
        ];
        spellings.into_iter().flatten().find(|name| self.shapes.contains_key(name))
    }

    /// Whether the checkpoint has tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The name in the checkpoint of tensor `name`, which is then no extra one; `None`, and a problem, if it is not
    /// there or of another shape.
    fn found(&mut self, name: &str, shape: &[usize]) -> Option<String> {
        let Some(found) = self.find(name) else {
            self.problems.push(format!("`{name}` {shape:?} is missing"));
            return None;
        };
        self.used.insert(found.clone());
        let given = &self.shapes[&found];
        // Some scalars are kept as vectors of one.
        let scalars = given.iter().chain(shape).all(|&n| n == 1);
        if given != shape && !scalars {
            self.problems.push(format!("`{found}` has shape {given:?}, expected {shape:?}"));
            return None;
        }
        Some(found)
    }

    /// Whether values are finite; a problem if not. `offset` elements of the tensor are before them.
    fn all_finite(&mut self, name: &str, values: &[f32], offset: usize) -> bool {
        let problem = not_finite(name, values, offset);
        let all = problem.is_none();
        self.problems.extend(problem);
        all
    }

    /// Tensor `name`, on the CPU; `None`, and a problem, if it is not there, of another shape or not finite.
    pub fn read(&mut self, name: &str, shape: &[usize]) -> Result<Option<Tensor>, PretrainedError> {
        let Some(found) = self.found(name, shape) else { return Ok(None) };
        let values = self.source.read(&found)?;
        if !self.all_finite(&found, &values, 0) {
            return Ok(None);
        }
        Ok(Some(Tensor::from_vec(values, shape, &Device::Cpu)))
    }

    /// Matrix `name` as `[out, in]`.
    fn matrix(&mut self, name: &str, [outer, inner]: [usize; 2]) -> Result<Option<Tensor>, PretrainedError> {
        match self.conv1d {
            true => Ok(self.read(name, &[inner, outer])?.map(|w| w.t())),
            false => self.read(name, &[outer, inner]),
        }
    }

    /// Whether the model has weight `name`.
    pub fn wants(&self, name: &str) -> bool {
        self.weights.has(name)
    }

    /// Takes note that tensor `name` is known, and not needed.
    pub fn ignore(&mut self, name: &str) {
        self.used.extend(self.find(name));
    }

    /// Sets weight `name` of the model, if there is a value.
    pub fn write(&mut self, name: &str, value: Option<Tensor>) -> Result<(), PretrainedError> {
        if let Some(value) = value {
            self.weights.set(name, &value)?;
            self.written.insert(name.into());
            let elements = value.numel();
            drop(value);
            release_if_large(elements);
        }
        Ok(())
    }

    /// Copies a tensor as it is.
    pub fn copy(&mut self, to: &str, from: &str, shape: &[usize]) -> Result<(), PretrainedError> {
        let value = self.read(from, shape)?;
        self.write(to, value)
    }

    /// Copies a tensor if it is there; what is not keeps its zeros or ones.
    pub fn copy_if_there(&mut self, to: &str, from: &str, shape: &[usize]) -> Result<(), PretrainedError> {
        if self.has(from) { self.copy(to, from, shape) } else { Ok(()) }
    }

    /// The embedding of tokens `[V, m]`, times `scale`, and the unembedding: `head`, or else the embedding
    /// as it was read, divided by `logits_scale`. Of two that are tied a file may have either. The final norm was
    /// written before.
    pub fn embeddings(
        &mut self,
        embed: &str,
        head: &str,
        scale: f64,
        logits_scale: f64,
    ) -> Result<(), PretrainedError> {
        let tied = self.hf.flag("tie_word_embeddings", false)? || !self.has(head);
        let scaled = |t: Tensor, by: f64| if by == 1.0 { t } else { t.affine(by, 0.0) };
        let embedding = move |rows: Tensor| scaled(rows, scale);
        let unembedding = move |rows: Tensor| scaled(rows, 1.0 / logits_scale).t();
        let (v, v_out) = (self.cfg.d_vocab, self.cfg.d_vocab_out);
        if let Some(bias) = head.strip_suffix(".weight").map(|h| format!("{h}.bias")) {
            self.copy_if_there("unembed.b_U", &bias, &[v_out])?;
        }
        let both = if self.has(embed) || !self.has(head) { embed } else { head };
        if tied {
            self.ignore(head);
        }
        let (embed, head) = if tied { (both, both) } else { (embed, head) };
        if tied && !self.weights.processes() {
            return self.by_rows(both, v, &[("embed.W_E", 0, &embedding), (UNEMBEDDING, 1, &unembedding)]);
        }
        self.by_rows(embed, v, &[("embed.W_E", 0, &embedding)])?;
        match self.weights.processes() {
            true => self.unembedding(head, v_out, &unembedding),
            false => self.by_rows(head, v_out, &[(UNEMBEDDING, 1, &unembedding)]),
        }
    }

    /// Reads a tensor `[V, m]`, some rows at a time, of which `make` makes columns of the unembedding that is processed
    /// as it is read.
    fn unembedding(&mut self, name: &str, rows: usize, make: &dyn Fn(Tensor) -> Tensor) -> Result<(), PretrainedError> {
        let m = self.cfg.d_model;
        let Some(found) = self.found(name, &[rows, m]) else { return Ok(()) };
        let mut columns = RowsAsColumns { source: self.source, name: &found, m, make };
        match self.weights.set_unembedding(&mut columns) {
            Ok(()) => {
                self.written.insert(UNEMBEDDING.into());
                Ok(())
            }
            Err(Unread::NotFinite(problem)) => {
                self.problems.push(problem);
                Ok(())
            }
            Err(Unread::Error(error)) => Err(error),
        }
    }

    /// Reads a tensor `[rows, m]` some rows at a time. Of each target: the weight, the axis of it along which
    /// the rows lie, and what is made of them.
    pub fn by_rows(&mut self, name: &str, rows: usize, targets: &[Target<'_>]) -> Result<(), PretrainedError> {
        let m = self.cfg.d_model;
        let Some(found) = self.found(name, &[rows, m]) else { return Ok(()) };
        let step = (CHUNK / m).max(1);
        for start in (0..rows).step_by(step) {
            let count = step.min(rows - start);
            let values = self.source.read_rows(&found, start..start + count, m)?;
            if !self.all_finite(&found, &values, start * m) {
                return Ok(());
            }
            let part = Tensor::from_vec(values, &[count, m], &Device::Cpu);
            for (to, axis, make) in targets {
                self.weights.set_rows(to, *axis, start, &make(part.clone()))?;
            }
            // The next part brings memory of its own.
            drop(part);
            release_if_large(count * m);
        }
        self.written.extend(targets.iter().map(|(to, _, _)| to.to_string()));
        Ok(())
    }

    /// The embedding of positions, without `offset` rows before the first.
    pub fn positions(&mut self, from: &str, offset: usize) -> Result<(), PretrainedError> {
        self.positions_into("pos_embed.W_pos", from, offset)
    }

    /// The same, under another name.
    pub fn positions_into(&mut self, to: &str, from: &str, offset: usize) -> Result<(), PretrainedError> {
        let name = self.find(from);
        let rows = name.and_then(|n| self.shapes[&n].first().copied()).unwrap_or(self.cfg.n_ctx + offset);
        let n = self.cfg.n_ctx;
        if rows < n + offset {
            let text = format!("`{from}` has {rows} rows, expected {n} (n_ctx), after {offset} that are not read");
            self.problems.push(text);
            return Ok(());
        }
        let w = self.read(from, &[rows, self.cfg.d_model])?;
        self.write(to, w.map(|w| w.narrow(0, offset, n)))
    }

    /// The weights of a norm: `from.weight` and, in a layer norm, `from.bias`.
    pub fn norm(&mut self, to: &str, from: &str, width: usize) -> Result<(), PretrainedError> {
        let w = self.read(&format!("{from}.weight"), &[width])?;
        let offset = self.norm_offset;
        self.write(&format!("{to}.w"), w.map(|w| if offset == 0.0 { w } else { w.affine(1.0, offset) }))?;
        self.copy_if_there(&format!("{to}.b"), &format!("{from}.bias"), &[width])
    }

    /// A norm of the stream.
    pub fn stream_norm(&mut self, to: &str, from: &str) -> Result<(), PretrainedError> {
        self.norm(to, from, self.cfg.d_model)
    }

    /// A matrix `[out, in]` of PyTorch's `Linear`, transposed, and its bias if it has one.
    pub fn linear(
        &mut self,
        (w, b): (&str, &str),
        from: &str,
        [inner, outer]: [usize; 2],
    ) -> Result<(), PretrainedError> {
        let value = self.matrix(&format!("{from}.weight"), [outer, inner])?;
        self.write(w, value.map(|t| t.t()))?;
        self.copy_if_there(b, &format!("{from}.bias"), &[outer])
    }

    /// Names of the parameters of queries, keys and values of a layer: matrices, then biases.
    fn qkv(&self, layer: usize) -> [(String, String); 3] {
        let kv = if self.cfg.is_grouped_query() { "_" } else { "" };
        [("Q", ""), ("K", kv), ("V", kv)]
            .map(|(x, u)| (format!("blocks.{layer}.attn.{u}W_{x}"), format!("blocks.{layer}.attn.{u}b_{x}")))
    }

    /// How many heads queries, keys and values have.
    fn heads(&self) -> [usize; 3] {
        let kv = self.cfg.n_key_value_heads();
        [self.cfg.n_heads, kv, kv]
    }

    /// Queries, keys and values from a matrix `[n * h, m]` and maybe a bias `[n * h]` each.
    pub fn attention_in(&mut self, layer: usize, from: [&str; 3]) -> Result<(), PretrainedError> {
        for ((names, heads), from) in self.qkv(layer).into_iter().zip(self.heads()).zip(from) {
            self.heads_in_turn(&[(names, heads)], from)?;
        }
        Ok(())
    }

    /// Queries from a matrix `[N * h, m]`, keys and values from another, `[2 * K * h, m]`, and their biases if they
    /// have such.
    pub fn attention_in_two(&mut self, layer: usize, queries: &str, rest: &str) -> Result<(), PretrainedError> {
        let ([q, k, v], [n, kv, _]) = (self.qkv(layer), self.heads());
        self.heads_in_turn(&[(q, n)], queries)?;
        self.heads_in_turn(&[(k, kv), (v, kv)], rest)
    }

    /// Parameters (of the names of a matrix and a bias, and a number of heads) whose rows lie one after the other.
    fn heads_in_turn(&mut self, parts: &[((String, String), usize)], from: &str) -> Result<(), PretrainedError> {
        let (m, h) = (self.cfg.d_model, self.cfg.d_head);
        let rows = parts.iter().map(|(_, n)| n * h).sum();
        let w = self.matrix(&format!("{from}.weight"), [rows, m])?;
        let bias = format!("{from}.bias");
        let b = if self.has(&bias) { self.read(&bias, &[rows])? } else { None };
        let mut first = 0;
        for ((to_w, to_b), n) in parts {
            let own = |t: &Tensor| t.narrow(0, first, n * h);
            self.write(to_w, w.as_ref().map(|w| heads_in(&own(w), *n)))?;
            self.write(to_b, b.as_ref().map(|b| own(b).reshape(&[*n, h])))?;
            first += n * h;
        }
        Ok(())
    }

    /// Queries, keys and values from one matrix `[rows, m]` and maybe one bias `[rows]`. `split` gives of a
    /// tensor `[rows, ..]` the rows of queries, keys and values, `[n * h, ..]` each.
    pub fn attention_in_one(
        &mut self,
        layer: usize,
        from: &str,
        split: impl Fn(&Tensor) -> [Tensor; 3],
    ) -> Result<(), PretrainedError> {
        let (m, h) = (self.cfg.d_model, self.cfg.d_head);
        let rows = self.heads().iter().sum::<usize>() * h;
        let (names, heads) = (self.qkv(layer), self.heads());
        if let Some(w) = self.matrix(&format!("{from}.weight"), [rows, m])? {
            for (((name, _), part), n) in names.iter().zip(split(&w)).zip(heads) {
                self.write(name, Some(heads_in(&part, n)))?;
            }
        }
        let bias = format!("{from}.bias");
        if !self.has(&bias) {
            return Ok(());
        }
        if let Some(b) = self.read(&bias, &[rows])? {
            for (((_, name), part), n) in names.iter().zip(split(&b)).zip(heads) {
                self.write(name, Some(part.reshape(&[n, h])))?;
            }
        }
        Ok(())
    }

    /// Splits of rows `[N * h | K * h | K * h]`.
    pub fn in_turn(&self) -> impl Fn(&Tensor) -> [Tensor; 3] + use<> {
        let [q, k, v] = self.heads().map(|n| n * self.cfg.d_head);
        move |t| [t.narrow(0, 0, q), t.narrow(0, q, k), t.narrow(0, q + k, v)]
    }

    /// The matrix `[m, N * h]` and maybe the bias `[m]` of what heads write, times `scale`.
    pub fn attention_out(&mut self, layer: usize, from: &str, scale: f64) -> Result<(), PretrainedError> {
        let (m, n, h) = (self.cfg.d_model, self.cfg.n_heads, self.cfg.d_head);
        let scaled = |t: Tensor| if scale == 1.0 { t } else { t.affine(scale, 0.0) };
        let w = self.matrix(&format!("{from}.weight"), [m, n * h])?;
        let w = w.map(|w| scaled(w).reshape(&[m, n, h]).permute(&[1, 2, 0]));
        self.write(&format!("blocks.{layer}.attn.W_O"), w)?;
        let bias = format!("{from}.bias");
        if !self.has(&bias) {
            return Ok(());
        }
        let b = self.read(&bias, &[m])?;
        self.write(&format!("blocks.{layer}.attn.b_O"), b.map(scaled))
    }

    /// An MLP of `Linear`s: in, out and, in a gated one, the gate. Biases of gate and input are read where the model
    /// adds them before the product; elsewhere they have no place.
    pub fn mlp(&mut self, layer: usize, up: &str, down: &str, gate: Option<&str>) -> Result<(), PretrainedError> {
        let (m, f) = (self.cfg.d_model, self.cfg.d_mlp_of(layer));
        let at = |name: &str| format!("blocks.{layer}.mlp.{name}");
        for (w, b, from) in [("W_in", "b_in", Some(up)), ("W_gate", "b_gate", gate)] {
            let Some(from) = from else { continue };
            if gate.is_none() || self.cfg.gate_bias {
                self.linear((&at(w), &at(b)), from, [m, f])?;
            } else {
                let value = self.matrix(&format!("{from}.weight"), [f, m])?;
                self.write(&at(w), value.map(|t| t.t()))?;
            }
        }
        self.linear((&at("W_out"), &at("b_out")), down, [f, m])
    }

    /// A gated MLP whose gate and input are one matrix `[2 * f, m]`, the gate first.
    pub fn mlp_with_packed_gate(&mut self, layer: usize, gate_up: &str, down: &str) -> Result<(), PretrainedError> {
        let (m, f) = (self.cfg.d_model, self.cfg.d_mlp_of(layer));
        let at = |name: &str| format!("blocks.{layer}.mlp.{name}");
        if let Some(w) = self.read(&format!("{gate_up}.weight"), &[2 * f, m])? {
            self.write(&at("W_gate"), Some(w.narrow(0, 0, f).t()))?;
            self.write(&at("W_in"), Some(w.narrow(0, f, f).t()))?;
        }
        self.linear((&at("W_out"), &at("b_out")), down, [f, m])
    }

    /// Takes note that only some of the checkpoint's layers are wanted.
    fn ignore_layers_beyond(&mut self) {
        let layers = self.cfg.n_layers;
        let beyond = |name: &&String| {
            let mut parts = name.split('.').peekable();
            // The first number in a name is that of its layer.
            parts.find_map(|part| part.parse::<usize>().ok()).is_some_and(|l| l >= layers)
        };
        self.used.extend(self.shapes.keys().filter(beyond).cloned().collect::<Vec<_>>());
    }

    /// A weight of the model as it is now.
    pub fn weight(&self, name: &str) -> Result<Tensor, PretrainedError> {
        self.weights.get(name)
    }

    /// Multiplies a weight that was written.
    pub fn scale(&mut self, name: &str, factor: f64) -> Result<(), PretrainedError> {
        if factor == 1.0 {
            return Ok(());
        }
        let w = self.weight(name)?.affine(factor, 0.0);
        self.write(name, Some(w))
    }

    /// Tells what is wrong, if anything is: what was gathered, weights that nothing was written to, and
    /// tensors that nothing read. Gives what is left to do for a model whose weights were processed as they were read.
    pub fn finish(mut self, path: &Path, options: &LoadOptions) -> Result<Option<Arrived>, PretrainedError> {
        if options.first_n_layers.is_some() {
            self.ignore_layers_beyond();
        }
        for name in self.weights.names() {
            let last = name.rsplit('.').next().unwrap_or_default();
            let matrix = last == "W" || last.trim_start_matches('_').starts_with("W_");
            let told = !self.problems.is_empty();
            // ALiBi models have a table of positions that nothing reads.
            if matrix && !told && !self.written.contains(name) && name != "pos_embed.W_pos" {
                self.problems.push(format!("nothing in it becomes `{name}`"));
            }
        }
        for name in self.shapes.keys() {
            if !self.used.contains(name) && !is_buffer(name) && !is_of_pictures(name) {
                self.problems.push(format!("`{name}` {:?} is not a tensor of this model", self.shapes[name]));
            }
        }
        match self.problems.is_empty() {
            true => self.weights.finish(),
            false => {
                const SHOWN: usize = 20;
                let more = self.problems.len().saturating_sub(SHOWN);
                self.problems.truncate(SHOWN);
                if more > 0 {
                    self.problems.push(format!("and {more} more"));
                }
                Err(PretrainedError::Mismatch { path: path.into(), problems: self.problems })
            }
        }
    }
}

/// What is wrong with values that are not all finite; `offset` elements of the tensor are before them.
fn not_finite(name: &str, values: &[f32], offset: usize) -> Option<String> {
    // A sum is quick, and not finite if one of its parts is not.
    if values.iter().map(|v| v * 0.0).sum::<f32>() == 0.0 {
        return None;
    }
    let at = values.iter().position(|v| !v.is_finite())?;
    Some(format!("`{name}` has the value {} at element {}", values[at], offset + at))
}

/// The rows of a tensor `[V, m]`, as columns of an unembedding.
struct RowsAsColumns<'a> {
    source: &'a dyn Source,
    name: &'a str,
    m: usize,
    make: &'a dyn Fn(Tensor) -> Tensor,
}

/// Why one was not read.
enum Unread {
    NotFinite(String),
    Error(PretrainedError),
}

impl From<PretrainedError> for Unread {
    fn from(error: PretrainedError) -> Unread {
        Unread::Error(error)
    }
}

impl ReadColumns for RowsAsColumns<'_> {
    type Error = Unread;

    fn read(&mut self, tokens: Range<usize>) -> Result<Tensor, Unread> {
        let (start, count) = (tokens.start, tokens.len());
        let values = self.source.read_rows(self.name, tokens, self.m).map_err(PretrainedError::from)?;
        match not_finite(self.name, &values, start * self.m) {
            Some(problem) => Err(Unread::NotFinite(problem)),
            None => Ok((self.make)(Tensor::from_vec(values, &[count, self.m], &Device::Cpu))),
        }
    }
}

/// `[n * h, m]`, as PyTorch's `Linear` has it, to `[n, m, h]`.
pub(crate) fn heads_in(w: &Tensor, n: usize) -> Tensor {
    let (rows, m) = (w.dim(0), w.dim(1));
    w.reshape(&[n, rows / n, m]).permute(&[0, 2, 1])
}

/// Whether a tensor is of a part that sees, in a model that reads text, too.
fn is_of_pictures(name: &str) -> bool {
    const PARTS: [&str; 4] = ["vision_tower.", "vision_model.", "multi_modal_projector.", "visual."];
    PARTS.iter().any(|part| name.contains(part))
}
