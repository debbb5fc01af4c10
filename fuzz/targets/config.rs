//! Configurations as JSON: read or refused, and what was read is read again from what it is written as.

#![no_main]

use ironlens_transformer::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(config) = Config::from_json(text) else { return };
    let again = Config::from_json(&config.to_json()).expect("what was read can be written and read");
    assert_eq!(config, again);
    // Sizes that cannot be are refused without being built.
    let _ = config.resolved();
});
