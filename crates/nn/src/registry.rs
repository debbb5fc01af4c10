//! The tree of modules, and the scope in which a module names what it owns.

use std::collections::HashMap;
use std::fmt;

use ironlens_tensor::{DType, Device, Layout, Rng, Tensor};

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All of this value.
    Constant(f64),
    /// Normal numbers around 0 with this deviation.
    Normal(f64),
    /// Numbers spread evenly over -bound..bound.
    Uniform(f64),
}

impl Init {
    /// Such a tensor, drawn from `rng` where it is drawn.
    pub fn draw(self, shape: &[usize], rng: &mut Rng, device: &Device) -> Tensor {
        match self {
            Init::Zeros => Tensor::zeros(shape, DType::F32, device),
            Init::Ones => Tensor::full(shape, 1.0, DType::F32, device),
            Init::Constant(value) => Tensor::full(shape, value, DType::F32, device),
            Init::Normal(std) => rng.normal(shape, 0.0, std, device),
            Init::Uniform(bound) => rng.uniform(shape, -bound, bound, device),
        }
    }

    /// `U(-a, a)` with `a = gain sqrt(6 / (fan_in + fan_out))` (Glorot & Bengio 2010).
    pub fn xavier_uniform(fan_in: usize, fan_out: usize, gain: f64) -> Init {
        Init::Uniform(gain * (6.0 / (fan_in + fan_out) as f64).sqrt())
    }

    /// `N(0, s)` with `s = gain sqrt(2 / (fan_in + fan_out))` (Glorot & Bengio 2010).
    pub fn xavier_normal(fan_in: usize, fan_out: usize, gain: f64) -> Init {
        Init::Normal(gain * (2.0 / (fan_in + fan_out) as f64).sqrt())
    }

    /// `U(-a, a)` with `a = gain sqrt(6 / fan_in)`, for ReLU (He et al. 2015).
    pub fn kaiming_uniform(fan_in: usize, gain: f64) -> Init {
        Init::Uniform(gain * (6.0 / fan_in as f64).sqrt())
    }

    /// `N(0, s)` with `s = gain sqrt(2 / fan_in)`, for ReLU (He et al. 2015).
    pub fn kaiming_normal(fan_in: usize, gain: f64) -> Init {
        Init::Normal(gain * (2.0 / fan_in as f64).sqrt())
    }
}

/// A handle to a stored parameter tensor; see [`crate::Ctx::param`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param(pub(crate) usize);

/// A named place in a forward pass where hooks may listen.
#[derive(Clone, Copy, Debug)]
pub struct HookPoint {
    pub(crate) id: usize,
}

/// A parameter as users see it: a name and a region of a stored tensor.
#[derive(Clone, Debug)]
pub(crate) struct NamedParam {
    pub name: String,
    pub slot: usize,
    pub layout: Layout,
    pub init: Init,
}

/// A tensor as it is stored, and the parameters that are regions of it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub shape: Vec<usize>,
    pub params: Vec<usize>,
}

/// A hook point as the tree knows it.
#[derive(Clone, Debug)]
pub(crate) struct NamedHook {
    pub name: String,
    pub axes: &'static str,
    /// Why it does not fire, if it does not.
    pub off: Option<String>,
}

#[derive(Clone, Debug)]
struct Module {
    kind: &'static str,
    children: Vec<(String, Child)>,
}

#[derive(Clone, Copy, Debug)]
enum Child {
    Module(usize),
    Hook,
}

/// Every module, parameter and hook point of a model, in the order in which they were named.
#[derive(Clone, Debug)]
pub struct Registry {
    modules: Vec<Module>,
    pub(crate) params: Vec<NamedParam>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) hooks: Vec<NamedHook>,
    hook_ids: HashMap<String, usize>,
    param_ids: HashMap<String, usize>,
}

impl Registry {
    /// A tree with a root module of type `kind`.
    pub fn new(kind: &'static str) -> Registry {
        Registry {
            modules: vec![Module { kind, children: Vec::new() }],
            params: Vec::new(),
            slots: Vec::new(),
            hooks: Vec::new(),
            hook_ids: HashMap::new(),
            param_ids: HashMap::new(),
        }
    }

    /// The scope of the root module, whose names have no prefix.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { registry: self, prefix: String::new(), module: 0 }
    }

    /// Names of all parameters with their shapes.
    pub fn params(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.params.iter().map(|p| (p.name.as_str(), p.layout.shape()))
    }

    /// The tensors as they are stored: names of the parameters that are parts of each, and its shape.
    pub fn stored(&self) -> impl Iterator<Item = (Vec<&str>, &[usize])> {
        self.slots.iter().enumerate().map(|(slot, stored)| (self.names_of(slot).collect(), stored.shape.as_slice()))
    }

    /// Names of all hook points with their axes and whether they fire.
    pub fn hooks(&self) -> impl Iterator<Item = (&str, &'static str, bool)> {
        self.hooks.iter().map(|h| (h.name.as_str(), h.axes, h.off.is_none()))
    }

    /// The axes of a hook point's values, such as `batch pos d_model`.
    pub fn hook_axes(&self, name: &str) -> Option<&'static str> {
        self.hook_id(name).map(|id| self.hooks[id].axes)
    }

    pub(crate) fn hook_id(&self, name: &str) -> Option<usize> {
        self.hook_ids.get(name).copied()
    }

    pub(crate) fn param_id(&self, name: &str) -> Option<usize> {
        self.param_ids.get(name).copied()
    }

    /// Index of the stored tensor that parameter `name` is part of, and the parameter's region.
    pub fn param_place(&self, name: &str) -> Option<(usize, &Layout)> {
        self.param_id(name).map(|id| (self.params[id].slot, &self.params[id].layout))
    }

    /// Names of the parameters that are parts of stored tensor `slot`.
    pub(crate) fn names_of(&self, slot: usize) -> impl Iterator<Item = &str> {
        self.slots[slot].params.iter().map(|id| self.params[*id].name.as_str())
    }

    /// The region of stored tensor `slot` that is its parameter `part`.
    pub(crate) fn layout_of(&self, slot: usize, part: usize) -> &Layout {
        &self.params[self.slots[slot].params[part]].layout
    }

    /// A tensor laid out as stored tensor `slot` (a weight, a gradient, a moment), by the parameters
    /// that are part of it; views.
    pub fn split_slot(&self, slot: usize, stored: &Tensor) -> Vec<(&str, Tensor)> {
        let stored = stored.contiguous();
        let view = |id: &usize| (self.params[*id].name.as_str(), part_of(&stored, &self.params[*id].layout));
        self.slots[slot].params.iter().map(view).collect()
    }

    fn write_module(&self, f: &mut fmt::Formatter<'_>, id: usize, depth: usize) -> fmt::Result {
        let module = &self.modules[id];
        // Some modules without parts show how they were made: `GELU(approximate='none')`.
        if module.kind.ends_with(')') {
            return f.write_str(module.kind);
        }
        write!(f, "{}(", module.kind)?;
        if module.children.is_empty() {
            return write!(f, ")");
        }
        let pad = "  ".repeat(depth + 1);
        // Like siblings with numbers for names are folded: `(0-1): 2 x TransformerBlock(`.
        let mut i = 0;
        while i < module.children.len() {
            let (name, child) = &module.children[i];
            match *child {
                Child::Hook => write!(f, "\n{pad}({name}): HookPoint()")?,
                Child::Module(m) => {
                    let text = Subtree(self, m, depth + 1).to_string();
                    let mut same = 1;
                    if name.parse::<usize>().is_ok() {
                        same = module.children[i..]
                            .iter()
                            .take_while(|(_, c)| match c {
                                Child::Module(m) => Subtree(self, *m, depth + 1).to_string() == text,
                                Child::Hook => false,
                            })
                            .count();
                    }
                    match same {
                        1 => write!(f, "\n{pad}({name}): {text}")?,
                        _ => write!(f, "\n{pad}({name}-{}): {same} x {text}", module.children[i + same - 1].0)?,
                    }
                    i += same - 1;
                }
            }
            i += 1;
        }
        write!(f, "\n{})", "  ".repeat(depth))
    }
}

/// The region `layout` of a tensor that is laid out as a stored one, and contiguous; a view.
pub(crate) fn part_of(stored: &Tensor, layout: &Layout) -> Tensor {
    stored.with_layout(layout.starting_at(stored.layout().offset() + layout.offset()))
}

struct Subtree<'a>(&'a Registry, usize, usize);

impl fmt::Display for Subtree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_module(f, self.1, self.2)
    }
}

/// The module tree with every hook point, as PyTorch's `print(model)` writes it.
impl fmt::Display for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_module(f, 0, 0)
    }
}

/// Where a module is built: gives what it owns a name under its own.
pub struct Scope<'r> {
    registry: &'r mut Registry,
    prefix: String,
    module: usize,
}

impl Scope<'_> {
    /// The scope of a submodule of type `kind`; one that has no parts may end with what it was made with, in brackets.
    pub fn child(&mut self, name: &str, kind: &'static str) -> Scope<'_> {
        let id = self.registry.modules.len();
        self.registry.modules.push(Module { kind, children: Vec::new() });
        self.add_child(name, Child::Module(id));
        Scope { prefix: format!("{}{name}.", self.prefix), module: id, registry: self.registry }
    }

    fn add_child(&mut self, name: &str, child: Child) {
        self.registry.modules[self.module].children.push((name.to_string(), child));
    }

    /// A hook point whose values have these axes, such as `batch pos head d_head`.
    pub fn hook(&mut self, name: &str, axes: &'static str) -> HookPoint {
        self.hook_if(name, axes, true, "")
    }

    /// A hook point that fires only if `on`; `why` tells how to turn it on.
    ///
    /// # Panics
    /// If the name is taken.
    pub fn hook_if(&mut self, name: &str, axes: &'static str, on: bool, why: &str) -> HookPoint {
        let full = format!("{}{name}", self.prefix);
        let id = self.registry.hooks.len();
        assert!(self.registry.hook_ids.insert(full.clone(), id).is_none(), "two hook points are named {full}");
        self.registry.hooks.push(NamedHook { name: full, axes, off: (!on).then(|| why.to_string()) });
        self.add_child(name, Child::Hook);
        HookPoint { id }
    }

    /// A parameter stored as it is named.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Param {
        self.packed(shape, &[(name, Layout::contiguous(shape), init)])
    }

    /// Parameters that are stored in one tensor of shape `stored`, in the layout that their
    /// product wants, each shown as a region of it.
    ///
    /// # Panics
    /// If a name is taken, or a region reaches beyond what is stored.
    pub fn packed(&mut self, stored: &[usize], parts: &[(&str, Layout, Init)]) -> Param {
        let slot = self.registry.slots.len();
        let mut params = Vec::new();
        for (name, layout, init) in parts {
            let full = format!("{}{name}", self.prefix);
            assert!(
                layout.end() <= stored.iter().product(),
                "parameter {full} of shape {:?} reaches beyond the tensor of shape {stored:?} that it is stored in",
                layout.shape()
            );
            let id = self.registry.params.len();
            assert!(self.registry.param_ids.insert(full.clone(), id).is_none(), "two parameters are named {full}");
            self.registry.params.push(NamedParam { name: full, slot, layout: layout.clone(), init: *init });
            params.push(id);
        }
        self.registry.slots.push(Slot { shape: stored.to_vec(), params });
        Param(slot)
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({:?})", self.prefix)
    }
}
