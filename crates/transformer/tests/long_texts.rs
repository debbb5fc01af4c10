//! Models whose rotation depends on how long a text is.

mod common;

use common::{llama, long_rope, model_f64, tokens};
use ironlens_transformer::config::RopeScaling;
use ironlens_transformer::{Config, HookedTransformer};

fn of(scaling: RopeScaling) -> HookedTransformer {
    model_f64(Config { rope_scaling: Some(scaling), ..llama() })
}

#[test]
fn a_model_turns_to_long_wavelengths_beyond_its_context_and_back() {
    let switching = of(long_rope(8));
    let RopeScaling::LongRope { short, long, context, attention_factor } = long_rope(8) else { unreachable!() };
    let always = |factors: &[f64]| {
        let (short, long) = (factors.to_vec(), factors.to_vec());
        of(RopeScaling::LongRope { short, long, context, attention_factor })
    };
    let (always_short, always_long) = (always(&short), always(&long));
    // Back and forth: tables that are kept must not be taken for each other.
    for pos in [5, 12, 8, 9, 3, 16, 8] {
        let x = tokens(2, pos);
        let found = switching.forward(&x).unwrap();
        let (same, other) = if pos > 8 { (&always_long, &always_short) } else { (&always_short, &always_long) };
        assert_eq!(found.to_vec_f64(), same.forward(&x).unwrap().to_vec_f64(), "{pos} positions");
        assert!(found.max_abs_diff(&other.forward(&x).unwrap()).0 > 1e-4, "{pos} positions");
    }
}

#[test]
fn padding_makes_no_text_long() {
    let model = of(long_rope(8));
    let text = tokens(1, 8);
    let mut padded = vec![1; 4];
    padded.extend_from_slice(text.as_slice());
    let padded = ironlens_tensor::IndexTensor::new(padded, &[1, 12]);
    let mask = ironlens_tensor::IndexTensor::new([[0; 4], [1; 4], [1; 4]].concat(), &[1, 12]);
    let out = model.call(&padded).attention_mask(&mask).output().unwrap();
    let tail = out.logits().value().narrow(1, 4, 8);
    assert!(tail.max_abs_diff(&model.forward(&text).unwrap()).0 < 1e-12);
}
