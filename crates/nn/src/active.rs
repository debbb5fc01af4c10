//! The hooks of a pass, by hook point: those that stay with the parameters, then those of the call.

use ironlens_autograd::{Tape, Var};
use ironlens_tensor::{DType, Device, Tensor};

use crate::error::HookError;
use crate::hooks::{Action, HookInfo, Hooks, find};
use crate::perma::{PermaAction, PermaHook};
use crate::registry::Registry;

/// One that listens, by its place among those of its kind.
#[derive(Clone, Copy)]
enum Listener {
    Permanent(usize),
    OfCall(usize),
}

/// Who listens where.
#[derive(Default)]
pub(crate) struct Active<'a, 'h> {
    permanent: &'a [PermaHook],
    hooks: Option<&'a mut Hooks<'h>>,
    /// Per hook point, whether any hook listens; empty if there are no hooks at all.
    pub live: Vec<bool>,
    at: Vec<Vec<Listener>>,
    /// Where the pass records, if it does.
    tape: Option<Tape>,
    /// Place of the first row, as hooks are told.
    pub pos_offset: usize,
}

impl<'a, 'h> Active<'a, 'h> {
    pub fn new(
        registry: &Registry,
        tape: Option<&Tape>,
        permanent: &'a [PermaHook],
        hooks: &'a mut Hooks<'h>,
    ) -> Result<Self, HookError> {
        let tape = tape.cloned();
        if permanent.is_empty() && hooks.is_empty() {
            return Ok(Active { tape, ..Active::default() });
        }
        let mut at = vec![Vec::new(); registry.hooks.len()];
        for (entry, hook) in permanent.iter().enumerate() {
            for name in &hook.names {
                at[find(registry, name)?].push(Listener::Permanent(entry));
            }
        }
        for (entry, (target, _)) in hooks.entries.iter().enumerate() {
            for id in target.resolve(registry)? {
                at[id].push(Listener::OfCall(entry));
            }
        }
        let live = at.iter().map(|listeners| !listeners.is_empty()).collect();
        Ok(Active { permanent, hooks: Some(hooks), live, at, tape, pos_offset: 0 })
    }

    pub fn forward(&mut self, registry: &Registry, id: usize, mut value: Var) -> Result<Var, HookError> {
        let info = self.info(registry, id);
        let expected = Kind::of(value.value());
        let failed = |source| HookError::Failed { name: info.name.into(), source };
        let mut tap = false;
        for &listener in &self.at[id] {
            match listener {
                Listener::Permanent(i) => match &self.permanent[i].action {
                    PermaAction::Forward(f) => f(&mut value, &info).map_err(failed)?,
                    PermaAction::Backward(_) => tap = true,
                },
                Listener::OfCall(i) => match &mut self.hooks.as_mut().expect("they listen").entries[i].1 {
                    Action::Forward(f) => f(&mut value, &info).map_err(failed)?,
                    Action::Backward(_) => tap = true,
                },
            }
            expected.kept(&info, "value", value.value())?;
        }
        if !tap {
            return Ok(value);
        }
        // Where nothing before is differentiated by, the tape begins here.
        let begins = self.tape.as_ref().filter(|_| !value.requires_grad());
        Ok(match begins {
            Some(tape) => tape.leaf(value.into_value()).tap(id),
            None => value.tap(id),
        })
    }

    fn info<'r>(&self, registry: &'r Registry, id: usize) -> HookInfo<'r> {
        HookInfo { name: &registry.hooks[id].name, axes: registry.hooks[id].axes, pos_offset: self.pos_offset }
    }

    pub fn backward(&mut self, registry: &Registry, id: usize, grad: &mut Tensor) -> Result<(), HookError> {
        let info = self.info(registry, id);
        let expected = Kind::of(grad);
        let failed = |source| HookError::Failed { name: info.name.into(), source };
        for &listener in &self.at[id] {
            match listener {
                Listener::Permanent(i) => match &self.permanent[i].action {
                    PermaAction::Backward(f) => f(grad, &info).map_err(failed)?,
                    PermaAction::Forward(_) => {}
                },
                Listener::OfCall(i) => match &mut self.hooks.as_mut().expect("they listen").entries[i].1 {
                    Action::Backward(f) => f(grad, &info).map_err(failed)?,
                    Action::Forward(_) => {}
                },
            }
            expected.kept(&info, "gradient", grad)?;
        }
        Ok(())
    }
}

/// What a hook must leave as it is.
#[derive(PartialEq)]
struct Kind {
    shape: Vec<usize>,
    dtype: DType,
    device: Device,
}

impl Kind {
    fn of(value: &Tensor) -> Kind {
        Kind { shape: value.shape().to_vec(), dtype: value.dtype(), device: value.device() }
    }

    /// Whether a hook left a `what` (value or gradient) of this kind.
    fn kept(&self, by: &HookInfo<'_>, what: &'static str, left: &Tensor) -> Result<(), HookError> {
        let given = Kind::of(left);
        if given == *self {
            return Ok(());
        }
        let (name, expected, given) = (by.name.into(), self.to_string(), given.to_string());
        Err(HookError::Changed { name, what, expected, given })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shape {:?} in {} on {}", self.shape, self.dtype, self.device)
    }
}
