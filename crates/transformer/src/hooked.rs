//! What models of every kind have.

use ironlens_nn::Params;

use crate::config::Config;
use crate::encoder::HookedEncoder;
use crate::model::HookedTransformer;

/// A model whose weights and activations have names: a [`HookedTransformer`] or a [`HookedEncoder`].
pub trait HookedModel: Clone {
    /// The resolved configuration.
    fn config(&self) -> &Config;
    /// The weights, whose registry is the tree of modules and hook points.
    fn params(&self) -> &Params;
    /// The weights, to be changed.
    fn params_mut(&mut self) -> &mut Params;
}

macro_rules! hooked {
    ($($model:ty)*) => {$(
        impl HookedModel for $model {
            fn config(&self) -> &Config {
                <$model>::config(self)
            }

            fn params(&self) -> &Params {
                <$model>::params(self)
            }

            fn params_mut(&mut self) -> &mut Params {
                <$model>::params_mut(self)
            }
        }
    )*};
}
hooked!(HookedTransformer HookedEncoder);
