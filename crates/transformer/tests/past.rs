//! Passes that go on from a cache of keys and values: the same numbers as one whole pass, to the bit.

mod common;

use common::{architectures, base, llama, model, tokens};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_transformer::{
    AttentionDir, AttnType, Config, HookedTransformer, Hooks, KeyValueCache, LogitsAt, PositionalEmbeddingType,
    ReturnType,
};

/// One of each way in which attention knows what came before.
fn kinds() -> Vec<(&'static str, Config)> {
    let kind = |positional_embedding_type| Config { positional_embedding_type, ..base() };
    let local = Config { use_local_attn: true, window_size: 3, attn_types: vec![AttnType::Local; 2], ..llama() };
    let mut kinds: Vec<(&str, Config)> = architectures().into_iter().map(|(what, cfg, _)| (what, cfg)).collect();
    kinds.extend([
        ("positions that are added", base()),
        ("shortformer", kind(PositionalEmbeddingType::Shortformer)),
        ("ALiBi", kind(PositionalEmbeddingType::Alibi)),
        ("grouped queries", Config { n_key_value_heads: 1, ..llama() }),
        ("parallel", Config { parallel_attn_mlp: true, ..base() }),
        ("windows", local.clone()),
        ("windows and soft caps", Config { attn_scores_soft_cap: 5.0, output_logits_soft_cap: 3.0, ..local }),
        ("an MLP's own rotation", Config { rotary_adjacent_pairs: true, ..llama() }),
    ]);
    kinds
}

/// The logits of tokens that are read in pieces, all together.
fn in_pieces(model: &HookedTransformer, tokens: &IndexTensor, pieces: &[usize]) -> Tensor {
    let mut past = KeyValueCache::new(model, tokens.shape()[0]);
    let mut parts = Vec::new();
    for &n in pieces {
        let piece = tokens.narrow(1, past.len(), n);
        parts.push(model.call(&piece).past_kv_cache(&mut past).output().unwrap().logits().value().clone());
    }
    assert_eq!(past.len(), tokens.shape()[1]);
    Tensor::cat(&parts, 1)
}

#[test]
fn pieces_of_any_size_have_the_bits_of_one_pass() {
    let x = tokens(2, 13);
    for (what, cfg) in kinds() {
        let model = model(cfg);
        let whole = model.forward(&x).unwrap().to_vec();
        for pieces in [vec![1; 13], vec![13], vec![1, 12], vec![12, 1], vec![4, 2, 7], vec![6, 1, 1, 5]] {
            assert_eq!(in_pieces(&model, &x, &pieces).to_vec(), whole, "{what}, in pieces of {pieces:?}");
        }
    }
}

#[test]
fn long_sequences_with_narrow_windows_keep_a_window_only() {
    let local = Config { n_ctx: 1500, use_local_attn: true, window_size: 100, ..llama() };
    let model = model(Config { attn_types: vec![AttnType::Local, AttnType::Global], ..local });
    let x = tokens(1, 1500);
    let whole = model.forward(&x).unwrap();
    let mut past = KeyValueCache::new(&model, 1);
    let mut pieces = vec![700, 3];
    pieces.extend(vec![1; 797]);
    for n in pieces {
        let at = past.len();
        let out = model.call(&x.narrow(1, at, n)).past_kv_cache(&mut past).output().unwrap();
        assert_eq!(out.logits().value().to_vec(), whole.narrow(1, at, n).to_vec(), "from position {at}");
    }
    let kept = [0, 1].map(|layer| past.keys(layer).unwrap().unwrap().dim(1));
    assert!(kept[0] < 100 + 256 && kept[1] == 1500, "{kept:?}");
    let error = past.truncate(20).unwrap_err().to_string();
    assert!(error.contains("layer 0 sees a window of 100"), "{error}");
    assert_eq!(past.len(), 1500);
    past.truncate(1490).unwrap();
    let again = model.call(&x.narrow(1, 1490, 10)).past_kv_cache(&mut past).output().unwrap();
    assert_eq!(again.logits().value().to_vec(), whole.narrow(1, 1490, 10).to_vec());
}

#[test]
fn hooks_see_new_positions_once_and_whole_patterns() {
    let local = Config { n_ctx: 600, use_local_attn: true, window_size: 3, ..llama() };
    for cfg in [base(), Config { attn_types: vec![AttnType::Local; 2], ..local }] {
        let model = model(cfg);
        let long = model.config().n_ctx == 600;
        let x = tokens(1, if long { 590 } else { 9 });
        let (n, (_, whole)) = (x.shape()[1], model.run_with_cache(&x).unwrap());
        let mut past = KeyValueCache::new(&model, 1);
        for at in 0..n {
            let rows = if at == 0 { 3 } else { 1 };
            if at == 1 || at == 2 {
                continue;
            }
            let mut seen = Vec::new();
            let mut hooks = Hooks::new().fwd("blocks.1.hook_resid_post", |x, info| {
                seen.push((info.pos_offset, x.shape()[1]));
            });
            let piece = x.narrow(1, at, rows);
            let (_, cache) = model.call(&piece).past_kv_cache(&mut past).hooks(&mut hooks).cached().unwrap();
            drop(hooks);
            assert_eq!(seen, [(at, rows)]);
            for (name, value) in &cache {
                let full = whole.get(name).unwrap();
                let expected = match name {
                    _ if name.ends_with("hook_pattern") || name.ends_with("hook_attn_scores") => {
                        full.narrow(2, at, rows).narrow(3, 0, at + rows)
                    }
                    _ => full.narrow(1, at, rows),
                };
                assert_eq!(value.shape(), expected.shape(), "{name} from {at}");
                assert_eq!(value.to_vec(), expected.to_vec(), "{name} from {at}");
            }
        }
    }
}

/// Places that count from the first key need it, though no query sees it.
#[test]
fn windows_keep_the_keys_that_places_count_from() {
    let local =
        Config { n_ctx: 700, use_local_attn: true, window_size: 100, attn_types: vec![AttnType::Local; 2], ..base() };
    let places = Config { positional_embedding_type: PositionalEmbeddingType::Alibi, alibi_bf16: true, ..local };
    let (model, x) = (model(Config { alibi_slopes: vec![0.3, 0.05], ..places }), tokens(1, 700));
    let whole = model.forward(&x).unwrap().to_vec();
    assert_eq!(in_pieces(&model, &x, &[300, 300, 99, 1]).to_vec(), whole);
}

#[test]
fn edits_are_kept() {
    let (model, x) = (model(llama()), tokens(1, 6));
    let double = |name: &'static str| {
        Hooks::new().fwd(name, |v, info| {
            // Position 1 only, wherever the piece begins.
            if let Some(row) = 1usize.checked_sub(info.pos_offset).filter(|row| *row < v.shape()[1]) {
                v.assign(move |v| v.select(1, row), 2.0);
            }
        })
    };
    for name in ["blocks.0.attn.hook_k", "blocks.0.attn.hook_v", "blocks.1.attn.hook_rot_k", "blocks.0.hook_resid_pre"]
    {
        let whole = model.run_with_hooks(&x, &mut double(name)).unwrap();
        assert_ne!(whole.to_vec(), model.forward(&x).unwrap().to_vec());
        let mut past = KeyValueCache::new(&model, 1);
        for at in 0..6 {
            let piece = x.narrow(1, at, 1);
            let out = model.call(&piece).past_kv_cache(&mut past).hooks(&mut double(name)).output().unwrap();
            assert_eq!(out.logits().value().to_vec(), whole.narrow(1, at, 1).to_vec(), "{name}, position {at}");
        }
    }
}

#[test]
fn padded_sequences_go_on_as_they_would_alone() {
    for (what, cfg) in kinds() {
        let model = model(cfg);
        let (short, long) = (tokens(1, 4), tokens(1, 7));
        let padded = IndexTensor::cat(&[IndexTensor::new(vec![0; 3], &[1, 3]), short.clone()], 1);
        let right = IndexTensor::cat(&[short.clone(), IndexTensor::new(vec![0; 3], &[1, 3])], 1);
        let next = IndexTensor::from([[5], [6]]);
        for (side, row, mask) in [("left", &padded, [0, 0, 0, 1, 1, 1, 1]), ("right", &right, [1, 1, 1, 1, 0, 0, 0])] {
            let batch = IndexTensor::cat(&[row.clone(), long.clone()], 0);
            let mask = IndexTensor::from([mask, [1; 7]]);
            let mut past = KeyValueCache::new(&model, 2);
            let last = model
                .call(&batch)
                .attention_mask(&mask)
                .logits_at(LogitsAt::Last)
                .past_kv_cache(&mut past)
                .output()
                .unwrap();
            let new = model.call(&next).past_kv_cache(&mut past).output().unwrap();
            for (item, alone) in [&short, &long].into_iter().enumerate() {
                let n = alone.shape()[1];
                let mut past = KeyValueCache::new(&model, 1);
                let whole = model.call(alone).past_kv_cache(&mut past).output().unwrap();
                let then = model.call(&next.narrow(0, item, 1)).past_kv_cache(&mut past).output().unwrap();
                let close = |a: &Tensor, b: &Tensor, when: &str| {
                    let scale = b.abs().max(&[0, 1, 2]).item();
                    let off = (a - b).abs().max(&[0, 1, 2]).item();
                    // Sums over keys of which the first are padding have other partial sums.
                    assert!(off <= 2e-6 * scale, "{what}, padded on the {side}, sequence {item}, {when}: {off}");
                };
                let of = |x: &Tensor| x.narrow(0, item, 1);
                close(&of(last.logits().value()), &whole.logits().value().narrow(1, n - 1, 1), "the last token");
                // ALiBi and windows count places, of which padding between takes some.
                let by_place = side == "right" && item == 0;
                if !(by_place && (what.contains("ALiBi") || model.config().use_local_attn)) {
                    close(&of(new.logits().value()), then.logits().value(), "the token after");
                }
            }
        }
    }
}

#[test]
fn a_cache_can_be_forked_cut_frozen_and_copied() {
    let (model, x) = (model(llama()), tokens(2, 8));
    let whole = model.forward(&x).unwrap();
    let mut past = KeyValueCache::new(&model, 2);
    let read = |past: &mut KeyValueCache, from: usize, n: usize| {
        model.call(&x.narrow(1, from, n)).past_kv_cache(past).output().unwrap().logits().value().to_vec()
    };
    read(&mut past, 0, 5);
    let mut fork = past.clone();
    read(&mut fork, 6, 2);
    assert_eq!(read(&mut past, 5, 1), whole.narrow(1, 5, 1).to_vec(), "the fork changed its origin");
    past.freeze();
    assert_eq!(read(&mut past, 6, 2), whole.narrow(1, 6, 2).to_vec());
    assert_eq!(past.len(), 6);
    past.unfreeze();
    past.truncate(3).unwrap();
    assert_eq!(read(&mut past, 3, 5), whole.narrow(1, 3, 5).to_vec());

    let mut many = past.select(&[1, 1, 0]).unwrap();
    assert_eq!((many.batch(), many.len()), (3, 8));
    many.truncate(5).unwrap();
    let rows = x.rows(&[1, 1, 0]).narrow(1, 5, 3);
    let out = model.call(&rows).past_kv_cache(&mut many).output().unwrap();
    assert_eq!(out.logits().value().to_vec(), whole.narrow(1, 5, 3).index_select(0, &[1, 1, 0].into()).to_vec());
    assert!(past.select(&[2]).unwrap_err().to_string().contains("2 sequences"));
}

#[test]
fn a_call_that_fails_leaves_the_cache_as_it_was() {
    let (model, x) = (model(llama()), tokens(1, 6));
    let mut past = KeyValueCache::new(&model, 1);
    model.call(&x.narrow(1, 0, 3)).past_kv_cache(&mut past).output().unwrap();
    let mut fails = Hooks::new().fwd("blocks.1.attn.hook_z", |_, _| Err("no".into()));
    model.call(&x.narrow(1, 3, 3)).past_kv_cache(&mut past).hooks(&mut fails).output().unwrap_err();
    assert_eq!(past.len(), 3);
    let out = model.call(&x.narrow(1, 3, 3)).past_kv_cache(&mut past).output().unwrap();
    assert_eq!(out.logits().value().to_vec(), model.forward(&x).unwrap().narrow(1, 3, 3).to_vec());
}

#[test]
fn what_does_not_follow_is_refused() {
    let (a, x) = (model(base()), tokens(2, 9));
    let mut past = KeyValueCache::new(&a, 2);
    let refused = |past: &mut KeyValueCache, model: &HookedTransformer, x: &IndexTensor, part: &str| {
        let before = past.len();
        let error = model.call(x).past_kv_cache(past).output().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(past.len(), before);
    };
    a.call(&x).past_kv_cache(&mut past).output().unwrap();
    refused(&mut past, &a, &x, "18 positions");
    refused(&mut past, &a, &x.narrow(0, 0, 1), "2 sequences, the input of 1");
    refused(&mut past, &model(Config { n_layers: 3, ..base() }), &x, "another model");
    refused(&mut past, &a.to_dtype(DType::F64), &x, "another model");
    let both_ways = model(Config { attention_dir: AttentionDir::Bidirectional, ..base() });
    refused(&mut KeyValueCache::new(&both_ways, 2), &both_ways, &x, "bidirectional");
    let mut empty = KeyValueCache::new(&a, 2);
    let part = a.call(&x).past_kv_cache(&mut empty).stop_at_layer(1).output().unwrap_err();
    assert!(part.to_string().contains("all layers"), "{part}");
    let recorded = a.call(&x).past_kv_cache(&mut empty).return_type(ReturnType::Loss);
    let gradients = recorded.gradients(|out| out.loss().clone());
    assert!(gradients.err().unwrap().to_string().contains("no gradients"));
    let loss = a.call(&x).return_type(ReturnType::Loss).logits_at(LogitsAt::Last).output();
    assert!(loss.unwrap_err().to_string().contains("all positions"));
}

#[test]
fn the_loss_of_a_piece_is_of_its_tokens() {
    let (model, x) = (model(llama()), tokens(2, 9));
    let whole = model.call(&x).return_type(ReturnType::Loss).loss_per_token().output().unwrap();
    let mut past = KeyValueCache::new(&model, 2);
    model.call(&x.narrow(1, 0, 4)).past_kv_cache(&mut past).output().unwrap();
    let rest = model.call(&x.narrow(1, 4, 5)).past_kv_cache(&mut past).return_type(ReturnType::Loss).loss_per_token();
    assert_eq!(rest.output().unwrap().loss().value().to_vec(), whole.loss().value().narrow(1, 4, 4).to_vec());
}

#[test]
fn memory_grows_with_what_is_read() {
    let model = model(base());
    let mut past = KeyValueCache::new(&model, 1);
    assert_eq!((past.bytes(), past.keys(0).unwrap().is_none()), (0, true));
    model.call(&tokens(1, 3)).past_kv_cache(&mut past).output().unwrap();
    assert_eq!(past.keys(-1).unwrap().unwrap().shape(), [1, 3, 2, 4]);
    assert_eq!(past.values(-1).unwrap().unwrap().shape(), [1, 3, 2, 4]);
    assert!(past.keys(2).is_err());
    assert!(past.bytes() > 0);
    assert_eq!(past.keys(0).unwrap().unwrap().device(), Device::Cpu);
}
