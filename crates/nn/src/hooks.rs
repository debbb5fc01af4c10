//! The hooks of a call.

use std::fmt;

use ironlens_autograd::Var;
use ironlens_tensor::Tensor;

use crate::error::{HookError, HookFailure, nearest};
use crate::registry::Registry;

type Forward<'h> = Box<dyn FnMut(&mut Var, &HookInfo<'_>) -> Result<(), HookFailure> + 'h>;
type Backward<'h> = Box<dyn FnMut(&mut Tensor, &HookInfo<'_>) -> Result<(), HookFailure> + 'h>;

/// What a hook may return: nothing, or `Ok(())`, with any error by way of `?`.
pub trait HookReturn {
    /// Whether the hook could go on.
    fn result(self) -> Result<(), HookFailure>;
}

impl HookReturn for () {
    fn result(self) -> Result<(), HookFailure> {
        Ok(())
    }
}

// For one type of error only, so that the compiler knows it where a hook ends with `Ok(())`.
impl HookReturn for Result<(), HookFailure> {
    fn result(self) -> Result<(), HookFailure> {
        self
    }
}

/// Where a hook is called from.
#[derive(Clone, Copy, Debug)]
pub struct HookInfo<'a> {
    /// Full name of the hook point, such as `blocks.0.attn.hook_z`.
    pub name: &'a str,
    /// Axes of its values, such as `batch pos head d_head`.
    pub axes: &'static str,
    /// Place of the value's first row in its sequence: 0, but where a pass goes on after rows of an earlier one, as
    /// each token that a model writes does. Padding counts.
    pub pos_offset: usize,
}

/// The layer in the name of a weight or hook point within a block, such as `blocks.3.ln1.w`.
///
/// ```
/// use ironlens_nn::layer_of;
/// assert_eq!((layer_of("blocks.3.hook_resid_pre"), layer_of("embed.W_E")), (Some(3), None));
/// ```
pub fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blocks.")?.split('.').next()?.parse().ok()
}

impl HookInfo<'_> {
    /// The layer, for hook points within a block.
    pub fn layer(&self) -> Option<usize> {
        layer_of(self.name)
    }

    /// Which axis is called `name`.
    pub fn axis(&self, name: &str) -> Option<usize> {
        self.axes.split(' ').position(|a| a == name)
    }

    /// The axis along which the values belong to positions: `pos`, or that of the query for scores
    /// and patterns.
    pub fn pos_axis(&self) -> Option<usize> {
        self.axis("pos").or_else(|| self.axis("query_pos"))
    }
}

/// Which hook points a hook listens at.
pub enum Target<'h> {
    /// The one with this full name.
    Name(String),
    /// All of these.
    Names(Vec<String>),
    /// Every one that fires and of whose name this is true.
    Where(Box<dyn Fn(&str) -> bool + 'h>),
}

impl Target<'_> {
    /// Every hook point that fires.
    pub fn all() -> Target<'static> {
        Target::Where(Box::new(|_| true))
    }

    /// The names of the hook points that this stands for in a model.
    ///
    /// # Errors
    /// If a name is of no hook point that fires, or a predicate is true of none.
    pub fn names(&self, registry: &Registry) -> Result<Vec<String>, HookError> {
        Ok(self.resolve(registry)?.into_iter().map(|id| registry.hooks[id].name.clone()).collect())
    }

    pub(crate) fn resolve(&self, registry: &Registry) -> Result<Vec<usize>, HookError> {
        match self {
            Target::Name(name) => Ok(vec![find(registry, name)?]),
            Target::Names(names) => names.iter().map(|n| find(registry, n)).collect(),
            Target::Where(matches) => {
                let on =
                    |(id, h): (usize, &crate::registry::NamedHook)| (h.off.is_none() && matches(&h.name)).then_some(id);
                let found: Vec<usize> = registry.hooks.iter().enumerate().filter_map(on).collect();
                if found.is_empty() {
                    let firing: Vec<&str> = registry.hooks().filter(|h| h.2).map(|h| h.0).collect();
                    return Err(HookError::NoMatch {
                        count: firing.len(),
                        examples: firing.iter().take(3).map(|n| n.to_string()).collect(),
                    });
                }
                Ok(found)
            }
        }
    }
}

/// The hook point of this name, if it fires.
pub(crate) fn find(registry: &Registry, name: &str) -> Result<usize, HookError> {
    let id = registry.hook_id(name).ok_or_else(|| HookError::Unknown {
        name: name.to_string(),
        nearest: nearest(name, registry.hooks().map(|h| h.0)),
    })?;
    match &registry.hooks[id].off {
        None => Ok(id),
        Some(why) => Err(HookError::Off { name: name.to_string(), why: why.clone() }),
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Name(name) => write!(f, "{name:?}"),
            Target::Names(names) => write!(f, "{names:?}"),
            Target::Where(_) => f.write_str("where(..)"),
        }
    }
}

impl From<&str> for Target<'_> {
    fn from(name: &str) -> Self {
        Target::Name(name.to_string())
    }
}

impl From<String> for Target<'_> {
    fn from(name: String) -> Self {
        Target::Name(name)
    }
}

impl From<&String> for Target<'_> {
    fn from(name: &String) -> Self {
        name.as_str().into()
    }
}

impl From<Vec<String>> for Target<'_> {
    fn from(names: Vec<String>) -> Self {
        Target::Names(names)
    }
}

impl<const N: usize> From<[&str; N]> for Target<'_> {
    fn from(names: [&str; N]) -> Self {
        Target::Names(names.iter().map(|n| n.to_string()).collect())
    }
}

impl<'h, F: Fn(&str) -> bool + 'h> From<F> for Target<'h> {
    fn from(matches: F) -> Self {
        Target::Where(Box::new(matches))
    }
}

pub(crate) enum Action<'h> {
    Forward(Forward<'h>),
    Backward(Backward<'h>),
}

/// The hooks of a call. Closures may borrow from their surroundings; at one hook point they run
/// in the order in which they were added.
///
/// ```
/// # use ironlens_nn::Hooks;
/// let mut largest = 0f32;
/// let head = 3;
/// let hooks = Hooks::new()
///     .fwd("blocks.0.attn.hook_z", |z, _| z.zero_at(2, head))
///     .fwd_where(|name| name.ends_with("hook_resid_post"), |x, info| {
///         let layer = info.layer().ok_or("not in a block")?;
///         if layer > 0 {
///             largest = largest.max(x.value().max_all().item() as f32);
///         }
///         Ok(())
///     });
/// # assert_eq!(hooks.len(), 2);
/// ```
///
/// A forward hook may read the value, replace it, or edit it in place; the result stays
/// differentiable. A backward hook sees the gradient of the value that the forward hooks left,
/// and may replace it.
#[derive(Default)]
pub struct Hooks<'h> {
    pub(crate) entries: Vec<(Target<'h>, Action<'h>)>,
}

impl<'h> Hooks<'h> {
    /// No hooks.
    pub fn new() -> Hooks<'h> {
        Hooks { entries: Vec::new() }
    }

    /// With a forward hook at a name, several names, or wherever a predicate on names is true.
    #[must_use]
    pub fn fwd<F, R>(mut self, target: impl Into<Target<'h>>, mut hook: F) -> Self
    where
        F: FnMut(&mut Var, &HookInfo<'_>) -> R + 'h,
        R: HookReturn,
    {
        let hook = move |value: &mut Var, info: &HookInfo<'_>| hook(value, info).result();
        self.entries.push((target.into(), Action::Forward(Box::new(hook))));
        self
    }

    /// As [`Hooks::fwd`] with a predicate on names, whose argument needs no type.
    #[must_use]
    pub fn fwd_where<F, R>(self, names: impl Fn(&str) -> bool + 'h, hook: F) -> Self
    where
        F: FnMut(&mut Var, &HookInfo<'_>) -> R + 'h,
        R: HookReturn,
    {
        self.fwd(names, hook)
    }

    /// With a backward hook.
    #[must_use]
    pub fn bwd<F, R>(mut self, target: impl Into<Target<'h>>, mut hook: F) -> Self
    where
        F: FnMut(&mut Tensor, &HookInfo<'_>) -> R + 'h,
        R: HookReturn,
    {
        let hook = move |grad: &mut Tensor, info: &HookInfo<'_>| hook(grad, info).result();
        self.entries.push((target.into(), Action::Backward(Box::new(hook))));
        self
    }

    /// As [`Hooks::bwd`] with a predicate on names, whose argument needs no type.
    #[must_use]
    pub fn bwd_where<F, R>(self, names: impl Fn(&str) -> bool + 'h, hook: F) -> Self
    where
        F: FnMut(&mut Tensor, &HookInfo<'_>) -> R + 'h,
        R: HookReturn,
    {
        self.bwd(names, hook)
    }

    /// These hooks with more to come: what is added to the inner ones is gone with them.
    ///
    /// ```
    /// # use ironlens_nn::Hooks;
    /// let mut outer = Hooks::new().fwd("hook_embed", |_, _| Ok(()));
    /// {
    ///     let inner = outer.nested().fwd("hook_embed", |_, _| Ok(()));
    ///     assert_eq!(inner.len(), 2);      // the outer one runs first
    /// }
    /// assert_eq!(outer.len(), 1);
    /// ```
    pub fn nested(&mut self) -> Hooks<'_> {
        let entries = self
            .entries
            .iter_mut()
            .map(|(target, action)| {
                let target = match target {
                    Target::Name(n) => Target::Name(n.clone()),
                    Target::Names(n) => Target::Names(n.clone()),
                    Target::Where(f) => {
                        let f: &dyn Fn(&str) -> bool = f;
                        Target::Where(Box::new(f))
                    }
                };
                let action = match action {
                    Action::Forward(f) => Action::Forward(Box::new(f)),
                    Action::Backward(f) => Action::Backward(Box::new(f)),
                };
                (target, action)
            })
            .collect();
        Hooks { entries }
    }

    /// These hooks and then others.
    #[must_use]
    pub fn and(mut self, others: Hooks<'h>) -> Self {
        self.entries.extend(others.entries);
        self
    }

    /// Number of hooks.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is a backward hook.
    pub fn has_backward(&self) -> bool {
        self.first_backward().is_some()
    }

    /// Where the first backward hook listens.
    pub(crate) fn first_backward(&self) -> Option<&Target<'h>> {
        self.entries.iter().find(|(_, action)| matches!(action, Action::Backward(_))).map(|(target, _)| target)
    }
}

/// Where they listen, in order: `Hooks { forward: "hook_embed", backward: where(..) }`.
impl fmt::Debug for Hooks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Hooks");
        for (target, action) in &self.entries {
            let direction = match action {
                Action::Forward(_) => "forward",
                Action::Backward(_) => "backward",
            };
            shown.field(direction, target);
        }
        shown.finish()
    }
}
