//! The committed case of TransformerLens's: everything in its `expected.json`.

use std::path::Path;

use ironlens_tokenizer::check_case;

#[test]
fn everything_is_as_transformer_lens_has_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tokenizers/gpt2");
    let list = check_case(folder).unwrap();
    assert_eq!(list.len(), 150);
    let wrong: Vec<_> = list.iter().filter_map(|(what, outcome)| Some((what, outcome.as_ref().err()?))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
