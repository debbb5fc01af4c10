//! The weights of a model, apart from its modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ironlens_tensor::{DType, Device, Operand, Right, Rng, Tensor, release_if_large, release_pooled_memory};

use crate::error::{ParamError, nearest};
use crate::perma::PermaHooks;
use crate::registry::{Init, NamedParam, Registry};

pub(crate) fn check_shape(name: &str, expected: &[usize], value: &Tensor) -> Result<(), ParamError> {
    if expected == value.shape() {
        return Ok(());
    }
    Err(ParamError::Shape { name: name.to_string(), expected: expected.to_vec(), given: value.shape().to_vec() })
}

/// The weights of a model: one stored tensor per product, shown under the names and in the shapes
/// that users know.
///
/// A forward pass borrows them; an optimiser borrows the stored tensors mutably.
#[derive(Clone)]
pub struct Params {
    registry: Arc<Registry>,
    slots: Vec<Tensor>,
    /// Names of parameters that are not trained.
    frozen: BTreeSet<String>,
    /// Hooks of every pass, in the order in which they were added.
    pub(crate) perma_hooks: PermaHooks,
    dtype: DType,
    /// Type that matrices are stored in.
    storage: DType,
    device: Device,
}

impl Params {
    /// Starting weights. Each parameter draws from its own stream of the seed, so that a model's
    /// weights do not depend on how they are stored.
    pub fn initialised(registry: Registry, seed: u64, device: &Device) -> Params {
        Params::initialised_as(DType::F32, registry, seed, device)
    }

    /// The same, with matrices stored in `storage` ([`Params::store_as`]) from the outset: there is no model in `f32`
    /// before.
    ///
    /// # Panics
    /// As there.
    #[track_caller]
    pub fn initialised_as(storage: DType, registry: Registry, seed: u64, device: &Device) -> Params {
        let mut params = Params::zeros_as(storage, registry, device);
        // Memory is 0 as it is made.
        params.draw(seed, |p| (p.init != Init::Zeros).then_some(p.init));
        params
    }

    /// No weight is there yet.
    fn empty(registry: Registry, dtype: DType, storage: DType, device: &Device) -> Params {
        Params {
            registry: Arc::new(registry),
            slots: Vec::new(),
            frozen: BTreeSet::new(),
            perma_hooks: PermaHooks::default(),
            dtype,
            storage,
            device: device.clone(),
        }
    }

    /// Draws all weights anew, as [`Params::initialised`] does. What is frozen stays frozen, and permanent
    /// hooks stay.
    pub fn init_weights(&mut self, seed: u64) {
        self.draw(seed, |p| Some(p.init));
    }

    /// All weights 0.
    pub fn zeros(registry: Registry, device: &Device) -> Params {
        Params::zeros_as(DType::F32, registry, device)
    }

    #[track_caller]
    fn zeros_as(storage: DType, registry: Registry, device: &Device) -> Params {
        let mut params = Params::empty(registry, DType::F32, storage, device);
        params.check_storage(storage);
        for slot in 0..params.registry.slots.len() {
            let zeros = Tensor::zeros(&params.registry.slots[slot].shape, params.stored_dtype(slot), device);
            params.slots.push(zeros);
        }
        params
    }

    /// The weights given by name, in the shapes that users know, as `dtype`. They are given up one by one: a parameter
    /// that is all of a stored tensor becomes that tensor, and the memory of others is free once they are copied, so
    /// that a large model is never there twice. Matrices given in 16 bits, of `f32` weights on the CPU, stay so, and
    /// others join them ([`Params::store_as`]).
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use ironlens_nn::{Init, Params, Registry};
    /// # use ironlens_tensor::{DType, Device, Tensor};
    /// # let mut registry = Registry::new("Toy");
    /// # registry.root().param("W", &[2], Init::Zeros);
    /// let weights = BTreeMap::from([("W".to_string(), Tensor::from([1.0, 2.0]))]);
    /// let params = Params::from_weights(registry, DType::F32, &Device::Cpu, weights)?;
    /// assert_eq!(params.get("W")?.to_vec(), [1.0, 2.0]);
    /// # Ok::<(), ironlens_nn::ParamError>(())
    /// ```
    ///
    /// # Errors
    /// If one is missing, has another shape, or is no parameter.
    pub fn from_weights(
        registry: Registry,
        dtype: DType,
        device: &Device,
        mut weights: BTreeMap<String, Tensor>,
    ) -> Result<Params, ParamError> {
        let can_store = dtype == DType::F32 && *device == Device::Cpu;
        let storage = weights.values().map(Tensor::dtype).find(|given| can_store && given.is_storage());
        let mut params = Params::empty(registry, dtype, storage.unwrap_or(dtype), device);
        let registry = params.registry.clone();
        for (index, slot) in registry.slots.iter().enumerate() {
            let dtype = params.stored_dtype(index);
            let mut stored = None;
            for &i in &slot.params {
                let NamedParam { name, layout, .. } = &registry.params[i];
                let value = weights.remove(name).ok_or_else(|| ParamError::Missing { name: name.clone() })?;
                check_shape(name, layout.shape(), &value)?;
                let value = value.to_dtype(dtype).to_device(device);
                if slot.params.len() == 1 && layout.is_contiguous() {
                    stored = Some(value.contiguous().reshape(&slot.shape));
                } else {
                    let stored = stored.get_or_insert_with(|| Tensor::zeros(&slot.shape, dtype, device));
                    stored.assign(|s| s.with_layout(layout.clone()), &value);
                }
            }
            let stored = stored.unwrap_or_else(|| Tensor::zeros(&slot.shape, dtype, device));
            release_if_large(stored.numel());
            params.slots.push(stored);
        }
        if let Some(name) = weights.into_keys().next() {
            let nearest = nearest(&name, registry.params().map(|(n, _)| n));
            return Err(ParamError::Unknown { name, nearest });
        }
        Ok(params)
    }

    /// The tree that names the weights.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Element type that is computed in, which all weights have but for those that [`Params::store_as`] rounded.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Element type that matrices are stored in.
    pub fn storage(&self) -> DType {
        self.storage
    }

    /// Stores matrices (what is called `W_..`: of attention, MLPs, experts, embeddings, the unembedding) in `storage`,
    /// rounded to the nearest: in 16 bits they take half of the memory and of the time that reading them takes.
    /// Vectors, and what is computed, stay in `f32`. Each tensor is converted by itself, and its old memory freed.
    ///
    /// From then on [`Params::get`] gives matrices in 16 bits, which products and tables take as they are; other ops
    /// want `.to_dtype(DType::F32)` of the one that they look at. [`Params::set`] rounds what it is given.
    ///
    /// ```
    /// # use ironlens_nn::{Init, Params, Registry};
    /// # use ironlens_tensor::{DType, Device};
    /// # let mut registry = Registry::new("Toy");
    /// # registry.root().param("W_in", &[2, 3], Init::Ones);
    /// # registry.root().param("b_in", &[3], Init::Zeros);
    /// # let mut params = Params::initialised(registry, 0, &Device::Cpu);
    /// params.store_as(DType::Bf16);
    /// assert_eq!(params.get("W_in")?.dtype(), DType::Bf16);
    /// assert_eq!(params.get("b_in")?.dtype(), DType::F32);
    /// # Ok::<(), ironlens_nn::ParamError>(())
    /// ```
    ///
    /// # Panics
    /// If the weights are not `f32` on the CPU, and `storage` is another type than theirs: 16 bits are stored there, and
    /// computed with in `f32`.
    #[track_caller]
    pub fn store_as(&mut self, storage: DType) {
        self.check_storage(storage);
        self.storage = storage;
        for i in 0..self.slots.len() {
            if self.is_matrix(i) {
                self.slots[i] = self.slots[i].to_dtype(storage);
                release_pooled_memory();
            }
        }
    }

    #[track_caller]
    fn check_storage(&self, storage: DType) {
        assert!(
            storage == self.dtype || self.dtype == DType::F32 && self.device == Device::Cpu && storage != DType::F64,
            "weights that are {} on {} are not stored as {storage}: f32 on the CPU is, as f32, bf16 or f16",
            self.dtype,
            self.device
        );
    }

    /// The type that stored tensor `slot` has.
    fn stored_dtype(&self, slot: usize) -> DType {
        if self.is_matrix(slot) { self.storage } else { self.dtype }
    }

    /// Whether [`Params::store_as`] is about stored tensor `slot`.
    fn is_matrix(&self, slot: usize) -> bool {
        // Grouped keys and values are `_W_K` and `_W_V`.
        let weight = |name: &str| name.split('.').any(|part| part.trim_start_matches('_').starts_with("W_"));
        self.registry.slots[slot].shape.len() > 1 && self.registry.names_of(slot).all(weight)
    }

    /// Where the weights are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Parameter `name`, in the shape that users know; a view.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, name: &str) -> Result<Tensor, ParamError> {
        let (slot, layout) = self.place(name)?;
        Ok(self.slots[slot].with_layout(layout.clone()))
    }

    /// Where parameter `name` is: its stored tensor, and its region of that.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn place(&self, name: &str) -> Result<(usize, &ironlens_tensor::Layout), ParamError> {
        self.registry.param_place(name).ok_or_else(|| ParamError::Unknown {
            name: name.to_string(),
            nearest: nearest(name, self.registry.params().map(|(n, _)| n)),
        })
    }

    /// Replaces parameter `name`, converting to the type that it is stored in.
    ///
    /// # Errors
    /// If there is none, or the shape is another.
    pub fn set(&mut self, name: &str, value: &Tensor) -> Result<(), ParamError> {
        let (slot, layout) = self.place(name)?;
        check_shape(name, layout.shape(), value)?;
        let layout = layout.clone();
        let value = value.to_dtype(self.slots[slot].dtype()).to_device(&self.device);
        self.slots[slot].assign(|s| s.with_layout(layout), &value);
        Ok(())
    }

    /// Edits a part of parameter `name`: `region` picks it as a view, and `value`, a number or as large as the part,
    /// takes its place, converting to the type that it is stored in.
    ///
    /// ```
    /// # use ironlens_nn::{Init, Params, Registry};
    /// # use ironlens_tensor::{Device, Tensor};
    /// # let mut registry = Registry::new("Toy");
    /// # registry.root().param("W_Q", &[2, 3], Init::Zeros);
    /// # let mut params = Params::zeros(registry, &Device::Cpu);
    /// params.assign("W_Q", |w| w.select(0, 1), &Tensor::from([1.0, 2.0, 3.0]))?;
    /// assert_eq!(params.get("W_Q")?.to_vec(), [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    /// # Ok::<(), ironlens_nn::ParamError>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such parameter, or the part has another shape.
    pub fn assign(
        &mut self,
        name: &str,
        region: impl Fn(&Tensor) -> Tensor,
        value: impl Operand<Tensor>,
    ) -> Result<(), ParamError> {
        let (slot, layout) = self.place(name)?;
        let layout = layout.clone();
        let part = |stored: &Tensor| region(&stored.with_layout(layout.clone()));
        let value = match value.operand() {
            Right::Array(value) => value.into_owned(),
            Right::Number(value) => Tensor::full(part(&self.slots[slot]).shape(), value, self.dtype(), &self.device),
        };
        check_shape(name, part(&self.slots[slot]).shape(), &value)?;
        let value = value.to_dtype(self.slots[slot].dtype()).to_device(&self.device);
        self.slots[slot].assign(part, &value);
        Ok(())
    }

    /// Starts the parameters of whose full name `names` is true anew, from `init`. Gives how many there are.
    ///
    /// ```
    /// # use ironlens_nn::{Init, Params, Registry};
    /// # use ironlens_tensor::Device;
    /// # let mut registry = Registry::new("Toy");
    /// # registry.root().param("W", &[2, 3], Init::Zeros);
    /// # let mut params = Params::zeros(registry, &Device::Cpu);
    /// assert_eq!(params.init_where(|name| name == "W", Init::Uniform(0.1), 7), 1);
    /// assert!(params.get("W")?.to_vec().iter().all(|w| w.abs() < 0.1 && *w != 0.0));
    /// # Ok::<(), ironlens_nn::ParamError>(())
    /// ```
    pub fn init_where(&mut self, names: impl Fn(&str) -> bool, init: Init, seed: u64) -> usize {
        self.draw(seed, |p| names(&p.name).then_some(init))
    }

    /// Draws the parameters that `init` gives a start, each from its own stream; how many there are.
    fn draw(&mut self, seed: u64, init: impl Fn(&NamedParam) -> Option<Init>) -> usize {
        let registry = self.registry.clone();
        let mut drawn = 0;
        for (i, p) in registry.params.iter().enumerate() {
            let Some(init) = init(p) else { continue };
            let value = init.draw(p.layout.shape(), &mut Rng::new(seed, i as u64), &self.device);
            let (stored, elements) = (self.slots[p.slot].dtype(), value.numel());
            self.slots[p.slot].assign(|s| s.with_layout(p.layout.clone()), value.to_dtype(stored));
            // As much memory again as the weights have would be kept for tensors of these sizes.
            drop(value);
            release_if_large(elements);
            drawn += 1;
        }
        drawn
    }

    /// Parameters of whose full name `names` is true are trained no more (PyTorch's `requires_grad = False`):
    /// they are constants of recorded passes and optimisers leave them as they are. A stored tensor of which no part
    /// is trained costs no gradient, and no moments if an optimiser never trained it. Gives how many `names` names.
    ///
    /// ```
    /// # use ironlens_nn::{Init, Params, Registry};
    /// # use ironlens_tensor::Device;
    /// # let mut registry = Registry::new("Toy");
    /// # registry.root().param("W", &[2, 3], Init::Zeros);
    /// # registry.root().param("b", &[3], Init::Zeros);
    /// # let mut params = Params::zeros(registry, &Device::Cpu);
    /// params.freeze(|name| name == "W");
    /// assert!(params.is_frozen("W") && !params.is_frozen("b"));
    /// params.unfreeze(|_| true);
    /// assert!(!params.is_frozen("W"));
    /// ```
    pub fn freeze(&mut self, names: impl Fn(&str) -> bool) -> usize {
        let found: Vec<String> =
            self.registry.params().map(|(name, _)| name).filter(|n| names(n)).map(String::from).collect();
        let count = found.len();
        self.frozen.extend(found);
        count
    }

    /// Parameters of whose full name `names` is true are trained again.
    pub fn unfreeze(&mut self, names: impl Fn(&str) -> bool) {
        self.frozen.retain(|name| !names(name));
    }

    /// Whether parameter `name` is frozen.
    pub fn is_frozen(&self, name: &str) -> bool {
        self.frozen.contains(name)
    }

    /// Names of the parameters that are frozen.
    pub fn frozen(&self) -> impl Iterator<Item = &str> {
        self.frozen.iter().map(String::as_str)
    }

    /// All parameters by name, as views, in the tree's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.registry.params.iter().map(|p| (p.name.as_str(), self.slots[p.slot].with_layout(p.layout.clone())))
    }

    /// Number of weights.
    pub fn count(&self) -> usize {
        self.slots.iter().map(Tensor::numel).sum()
    }

    /// Memory of the weights.
    pub fn bytes(&self) -> usize {
        self.slots.iter().map(|s| s.numel() * s.dtype().size()).sum()
    }

    /// The stored tensors.
    pub fn slots(&self) -> &[Tensor] {
        &self.slots
    }

    /// The stored tensors, for an optimiser.
    pub fn slots_mut(&mut self) -> &mut [Tensor] {
        &mut self.slots
    }

    /// A tensor laid out as stored tensor `slot` (a gradient, a moment), by the parameters that
    /// are part of it.
    pub fn split_slot(&self, slot: usize, stored: &Tensor) -> Vec<(&str, Tensor)> {
        self.registry.split_slot(slot, stored)
    }

    /// The inverse of [`Params::split_slot`]: writes the part of `stored` that is parameter `name`.
    ///
    /// # Errors
    /// As [`Params::set`].
    pub fn set_in_slots(&self, slots: &mut [Tensor], name: &str, value: &Tensor) -> Result<(), ParamError> {
        let (slot, layout) = self.place(name)?;
        check_shape(name, layout.shape(), value)?;
        let layout = layout.clone();
        let value = value.to_dtype(slots[slot].dtype()).to_device(&self.device);
        slots[slot].assign(|s| s.with_layout(layout), &value);
        Ok(())
    }

    /// The same weights in another element type to compute in, all of them stored in it too.
    ///
    /// # Panics
    /// If it is one for storage alone: see [`Params::store_as`].
    #[track_caller]
    pub fn to_dtype(&self, dtype: DType) -> Params {
        assert!(!dtype.is_storage(), "{dtype} is not computed in; `store_as` stores matrices in it");
        let slots = self.slots.iter().map(|s| s.to_dtype(dtype)).collect();
        Params { slots, dtype, storage: dtype, ..self.clone() }
    }

    /// The same weights on another device. A GPU holds `f32`: 16 bits are widened, which loses nothing.
    pub fn to_device(&self, device: &Device) -> Params {
        Params {
            slots: self.slots.iter().map(|s| s.to_device(device)).collect(),
            device: device.clone(),
            storage: if *device == Device::Cpu { self.storage } else { self.dtype },
            ..self.clone()
        }
    }

    /// The tree with a change that keeps every parameter (a hook switched on or off).
    ///
    /// # Panics
    /// If the tree has other parameters.
    #[track_caller]
    pub fn with_registry(&self, registry: Registry) -> Params {
        let named = |r: &Registry| r.params().map(|(name, shape)| format!("{name} {shape:?}")).collect::<Vec<_>>();
        assert!(
            self.registry.params().eq(registry.params()) && self.registry.stored().eq(registry.stored()),
            "the tree has other parameters ({}) than these weights ({})",
            named(&registry).join(", "),
            named(&self.registry).join(", ")
        );
        Params { registry: Arc::new(registry), ..self.clone() }
    }
}

/// What they are, not the numbers.
impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, stored) = (self.count(), self.slots.len());
        write!(f, "Params: {count} numbers in {stored} stored tensors, {} on {}", self.dtype, self.device)
    }
}
