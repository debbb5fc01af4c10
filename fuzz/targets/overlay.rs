//! What `--config` reads: TOML over a preset.

#![no_main]

use ironlens_cli::Recipe;
use ironlens_train::Preset;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for preset in [Preset::Notebook, Preset::Tiny] {
        let mut recipe = Recipe::new(preset);
        if recipe.overlay("it", text).is_ok() {
            // Read or refused, without being built.
            let _ = recipe.check();
        }
    }
});
