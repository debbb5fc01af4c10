//! Writing on a GPU. Run with an adapter: `IRONLENS_ADAPTER=llvmpipe cargo test -p ironlens-transformer --test gpu --
//! --ignored`; without one these tests fail.

#![cfg(feature = "gpu")]

use ironlens_tensor::{Device, IndexTensor};
use ironlens_transformer::{
    ActFn, Config, GenerateOptions, HookedTransformer, NormalizationType, PositionalEmbeddingType,
};

fn config() -> Config {
    Config {
        d_model: 16,
        d_head: 8,
        n_heads: 4,
        n_key_value_heads: 2,
        n_layers: 3,
        n_ctx: 64,
        d_vocab: 500,
        act_fn: ActFn::Silu,
        gated_mlp: true,
        normalization_type: NormalizationType::RMS,
        positional_embedding_type: PositionalEmbeddingType::Rotary,
        ..Config::default()
    }
}

#[test]
#[ignore = "needs an adapter"]
fn a_token_is_one_submission_and_one_small_read() {
    let device = Device::gpu().expect("an adapter; IRONLENS_ADAPTER may name a software one");
    let Device::Gpu(handle) = &device else { panic!("a GPU") };
    let model = HookedTransformer::new(config(), &device, 0).unwrap();
    let prompt = IndexTensor::from([[1, 2, 3, 4], [5, 6, 7, 8]]);
    let options = GenerateOptions { max_new_tokens: 30, stop_at_eos: false, ..GenerateOptions::greedy() };
    let mut stream = model.stream(&prompt, &options).unwrap();
    // The prompt, and what is made once.
    (0..2).for_each(|_| drop(stream.next().unwrap().unwrap()));
    let before = handle.counts();
    let steps = (&mut stream).map(Result::unwrap).count() as u64;
    let after = handle.counts();
    assert_eq!(steps, 28);
    assert_eq!((after.submits - before.submits, after.reads - before.reads), (steps, steps));
    // Ids, lengths and the kernels' arguments: nothing as long as the vocabulary.
    let uploaded = (after.uploaded - before.uploaded) / steps;
    assert!(uploaded < 48 << 10, "{uploaded} bytes a token");
    let on_cpu = model.to_device(&Device::Cpu);
    assert_eq!(stream.finish().unwrap().new_tokens, on_cpu.generate(&prompt, &options).unwrap().new_tokens);
}
