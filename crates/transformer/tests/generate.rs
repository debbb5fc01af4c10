//! Writing: greedy and drawn, cached and not, hooked, alone and in batches.

mod common;

use common::{architectures, base, llama, long_rope, model, tokens};
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{
    Config, Finish, GenerateOptions, HookedTransformer, Hooks, HooksOn, KeyValueCache, ModelError,
};

/// Ten tokens without an end.
fn greedy() -> GenerateOptions {
    GenerateOptions { stop_at_eos: false, max_new_tokens: 9, ..GenerateOptions::greedy() }
}

fn drawn(seed: u64) -> GenerateOptions {
    GenerateOptions { do_sample: true, seed, ..greedy() }
}

/// Token by token, with a whole pass for each.
fn by_whole_passes(model: &HookedTransformer, tokens: &IndexTensor, n: usize) -> IndexTensor {
    (0..n).fold(tokens.clone(), |tokens, _| {
        let logits = model.forward(&tokens).unwrap();
        let next = logits.select(1, tokens.shape()[1] - 1).argmax(-1).reshape(&[tokens.shape()[0], 1]);
        IndexTensor::cat(&[tokens, next], 1)
    })
}

#[test]
fn the_likeliest_tokens_are_those_of_whole_passes() {
    let x = tokens(2, 5);
    for (what, cfg, _) in architectures() {
        let model = model(cfg);
        let expected = by_whole_passes(&model, &x, 9);
        for use_past_kv_cache in [true, false] {
            let out = model.generate(&x, &GenerateOptions { use_past_kv_cache, ..greedy() }).unwrap();
            assert_eq!(out.tokens, expected, "{what}, cache {use_past_kv_cache}");
            assert_eq!(out.finish, [Finish::Length; 2]);
            for (item, new) in out.new_tokens.iter().enumerate() {
                assert_eq!(new, &expected.select(0, item).as_slice()[5..]);
            }
        }
    }
}

#[test]
fn sequences_that_become_long_ones_are_rotated_anew() {
    let model = model(Config { rope_scaling: Some(long_rope(8)), ..llama() });
    let x = tokens(1, 5);
    let out = model.generate(&x, &greedy()).unwrap();
    assert_eq!(out.tokens, by_whole_passes(&model, &x, 9));
    // A caller's cache does not have the tokens to begin anew.
    let mut past = KeyValueCache::new(&model, 1);
    let error = model.generation(&x).options(greedy()).past_kv_cache(&mut past).run().unwrap_err();
    assert!(error.to_string().contains("other angles"), "{error}");
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let (model, x) = (model(base()), tokens(2, 4));
    for options in [greedy(), drawn(3), GenerateOptions { temperature: 0.2, top_k: Some(3), ..drawn(1) }] {
        let out = model.generate(&x, &options).unwrap();
        let all = model.forward(&out.tokens).unwrap().log_softmax().to_vec();
        let n = out.tokens.shape()[1];
        for item in 0..2 {
            for (i, &id) in out.new_tokens[item].iter().enumerate() {
                let expected = all[(item * n + 4 + i - 1) * 11 + id as usize];
                assert!((out.log_probs[item][i] - expected).abs() < 2e-5, "{} {expected}", out.log_probs[item][i]);
            }
        }
    }
}

#[test]
fn a_seed_gives_the_same_tokens_alone_and_anywhere_in_time() {
    let (model, x) = (model(llama()), tokens(1, 4));
    let of = |options: &GenerateOptions| model.generate(&x, options).unwrap().new_tokens[0].clone();
    assert_eq!(of(&drawn(7)), of(&drawn(7)));
    assert_eq!(of(&drawn(7)), of(&GenerateOptions { use_past_kv_cache: false, ..drawn(7) }));
    assert!((0..20).any(|seed| of(&drawn(seed)) != of(&drawn(7))));
    // The first sequence of a batch is the one that it is alone; the second draws other numbers.
    let two = model.generate(&x.rows(&[0, 0]), &drawn(7)).unwrap();
    assert_eq!(two.new_tokens[0], of(&drawn(7)));
    assert_ne!(two.new_tokens[0], two.new_tokens[1]);
    // What is drawn may not change from machine to machine, nor by accident.
    assert_eq!(of(&drawn(7)), [4, 1, 3, 1, 1, 8, 1, 2, 2]);
}

#[test]
fn padded_prompts_go_on_as_they_would_alone() {
    let model = model(llama());
    let (short, long) = (tokens(1, 3), tokens(1, 6));
    let row = |pad_left: bool| {
        let pad = IndexTensor::new(vec![10; 3], &[1, 3]);
        if pad_left { IndexTensor::cat(&[pad, short.clone()], 1) } else { IndexTensor::cat(&[short.clone(), pad], 1) }
    };
    for (pad_left, mask) in [(true, [0, 0, 0, 1, 1, 1]), (false, [1, 1, 1, 0, 0, 0])] {
        let batch = IndexTensor::cat(&[row(pad_left), long.clone()], 0);
        let mask = IndexTensor::from([mask, [1; 6]]);
        let out = model.generation(&batch).attention_mask(&mask).options(greedy()).run().unwrap();
        for (item, alone) in [&short, &long].into_iter().enumerate() {
            let alone = model.generate(alone, &greedy()).unwrap();
            assert_eq!(out.new_tokens[item], alone.new_tokens[0], "sequence {item}, padded left: {pad_left}");
        }
    }
}

#[test]
fn a_sequence_ends_by_itself() {
    let (model, x) = (model(llama()), tokens(3, 5));
    let free = model.generate(&x, &greedy()).unwrap();
    let end = free.new_tokens[1][2];
    let options = GenerateOptions { stop_at_eos: true, eos_token_id: vec![end], ..greedy() };
    let out = model.generate(&x, &options).unwrap();
    for item in 0..3 {
        let all = &free.new_tokens[item];
        let length = all.iter().position(|id| *id == end).map_or(all.len(), |at| at + 1);
        assert_eq!(out.new_tokens[item], all[..length]);
        assert_eq!(out.log_probs[item].len(), length);
        let expected = if length < all.len() || all[length - 1] == end { Finish::Eos } else { Finish::Length };
        assert_eq!(out.finish[item], expected);
        let row = out.tokens.select(0, item);
        assert!(row.as_slice()[5 + length..].iter().all(|id| *id == end), "filled with the token that ends");
    }
    let longest = out.new_tokens.iter().map(Vec::len).max().unwrap();
    assert_eq!(out.tokens.shape(), [3, 5 + longest]);
}

#[test]
fn the_context_may_become_full() {
    let (model, x) = (model(base()), tokens(1, 14));
    let out = model.generate(&x, &greedy()).unwrap();
    assert_eq!((out.new_tokens[0].len(), out.finish[0]), (2, Finish::ContextFull));
    let none = model.generate(&x, &GenerateOptions { max_new_tokens: 0, ..greedy() }).unwrap();
    assert_eq!((none.tokens.shape(), none.finish[0]), (&[1, 14][..], Finish::Length));
}

#[test]
fn hooks_run_where_they_are_wanted() {
    let (model, x) = (model(llama()), tokens(1, 4));
    for (on, expected) in [
        (HooksOn::All, vec![(0, 4), (4, 1), (5, 1), (6, 1)]),
        (HooksOn::Prompt, vec![(0, 4)]),
        (HooksOn::NewTokens, vec![(4, 1), (5, 1), (6, 1)]),
    ] {
        let mut seen = Vec::new();
        let mut hooks =
            Hooks::new().fwd("blocks.1.hook_resid_pre", |v, info| seen.push((info.pos_offset, v.shape()[1])));
        let options = GenerateOptions { max_new_tokens: 4, ..greedy() };
        model.generation(&x).options(options).hooks(&mut hooks).hooks_on(on).run().unwrap();
        drop(hooks);
        assert_eq!(seen, expected);
    }
}

#[test]
fn hooks_that_do_nothing_change_nothing() {
    let x = tokens(2, 5);
    for (what, cfg, _) in architectures() {
        let model = model(cfg);
        let plain = model.generate(&x, &greedy()).unwrap();
        let mut hooks = Hooks::new().fwd(|_: &str| true, |_, _| {});
        let hooked = model.generation(&x).options(greedy()).hooks(&mut hooks).run().unwrap();
        assert_eq!(hooked.tokens, plain.tokens, "{what}");
        let bits = |all: &[Vec<f32>]| all.iter().flatten().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&hooked.log_probs), bits(&plain.log_probs), "{what}");
    }
}

#[test]
fn a_direction_that_is_added_steers() {
    let model = model(base());
    // Along W_U of token 6, far enough.
    let direction = model.param("unembed.W_U").unwrap().select(1, 6).contiguous();
    let mut hooks = Hooks::new().fwd("blocks.1.hook_resid_post", |x, _| *x += &direction * 200.0);
    let x = tokens(1, 3);
    let all = model.generation(&x).options(greedy()).hooks(&mut hooks).run().unwrap();
    assert!(all.new_tokens[0].iter().filter(|id| **id == 6).count() >= 8, "{:?}", all.new_tokens);
    assert!(model.generate(&x, &greedy()).unwrap().new_tokens[0].iter().filter(|id| **id == 6).count() < 8);
}

#[test]
fn steps_bring_activations() {
    let (model, x) = (model(llama()), tokens(1, 4));
    let stream =
        model.generation(&x).options(greedy()).names(["blocks.0.hook_resid_post", "blocks.1.attn.hook_pattern"]);
    for (i, step) in stream.stream().unwrap().enumerate() {
        let step = step.unwrap();
        assert_eq!(step.pos, 4 + i);
        let cache = step.cache.unwrap();
        let rows = if i == 0 { 4 } else { 1 };
        assert_eq!(cache.get(("resid_post", 0)).unwrap().shape(), [1, rows, 8]);
        assert_eq!(cache.get(("pattern", 1)).unwrap().shape(), [1, 2, rows, 4 + i]);
    }
}

#[test]
fn logits_can_be_edited() {
    let (model, x) = (model(base()), tokens(2, 4));
    let allowed = [2usize, 5];
    let mut lengths = Vec::new();
    let out = model
        .generation(&x)
        .options(drawn(1))
        .edit_logits(|logits, seen| {
            lengths.push(seen[1].len());
            for id in (0..11).filter(|id| !allowed.contains(id)) {
                *logits = logits.masked_fill(one_hot(id), f64::NEG_INFINITY);
            }
        })
        .run()
        .unwrap();
    assert!(out.new_tokens.iter().flatten().all(|id| allowed.contains(&(*id as usize))));
    assert!(out.new_tokens.iter().flatten().any(|id| *id == 2) && out.new_tokens.iter().flatten().any(|id| *id == 5));
    assert_eq!(lengths, (4..13).collect::<Vec<_>>());
    let nothing = model.generation(&x).options(greedy()).edit_logits(|logits, _| {
        *logits = logits.affine(0.0, f64::NEG_INFINITY);
    });
    assert!(nothing.run().unwrap_err().to_string().contains("are not numbers"));
    let fails = model.generation(&x).options(greedy()).edit_logits(|_, _| Err("a reason".into()));
    assert!(matches!(fails.run().unwrap_err(), ModelError::Hook(_)));
}

fn one_hot(id: usize) -> Tensor {
    Tensor::from((0..11).map(|i| f32::from(u8::from(i == id))).collect::<Vec<_>>())
}

#[test]
fn a_cache_is_gone_on_from() {
    let (model, x) = (model(llama()), tokens(1, 4));
    let whole = model.generate(&x, &greedy()).unwrap();
    let mut past = KeyValueCache::new(&model, 1);
    let options = GenerateOptions { max_new_tokens: 4, ..greedy() };
    let first = model.generation(&x).options(options).past_kv_cache(&mut past).run().unwrap();
    assert_eq!(past.len(), 7, "all but the last new token was read");
    let last = first.tokens.narrow(1, 7, 1);
    let options = GenerateOptions { max_new_tokens: 5, ..greedy() };
    let rest = model.generation(&last).options(options).past_kv_cache(&mut past).run().unwrap();
    assert_eq!([&first.new_tokens[0][..], &rest.new_tokens[0][..]].concat(), whole.new_tokens[0]);
}

#[test]
fn penalties_and_filters_have_their_distributions() {
    let logits = [2.0f32, 1.0, 0.0, -1.0, 1.0];
    let of = |options: GenerateOptions, seen: &[u32]| options.sampling().unwrap().probabilities(&logits, seen);
    let softmax = |x: &[f64]| {
        let sum: f64 = x.iter().map(|v| v.exp()).sum();
        x.iter().map(|v| v.exp() / sum).collect::<Vec<_>>()
    };
    let close = |a: Vec<f64>, b: Vec<f64>| {
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?} {b:?}");
    };
    let hidden = f64::NEG_INFINITY;
    close(of(drawn(0), &[]), softmax(&[2.0, 1.0, 0.0, -1.0, 1.0]));
    close(of(GenerateOptions { temperature: 0.5, ..drawn(0) }, &[]), softmax(&[4.0, 2.0, 0.0, -2.0, 2.0]));
    // As TransformerLens: what equals the k-th stays.
    close(of(GenerateOptions { top_k: Some(2), ..drawn(0) }, &[]), softmax(&[2.0, 1.0, hidden, hidden, 1.0]));
    close(of(GenerateOptions { top_k: Some(9), ..drawn(0) }, &[]), softmax(&[2.0, 1.0, 0.0, -1.0, 1.0]));
    // 0.50, 0.19, 0.19, 0.07, 0.03: the second makes more than 0.6.
    close(of(GenerateOptions { top_p: Some(0.6), ..drawn(0) }, &[]), softmax(&[2.0, 1.0, hidden, hidden, hidden]));
    close(of(GenerateOptions { top_p: Some(1.0), ..drawn(0) }, &[]), softmax(&[2.0, 1.0, 0.0, -1.0, 1.0]));
    close(of(GenerateOptions { min_p: Some(0.3), ..drawn(0) }, &[]), softmax(&[2.0, 1.0, hidden, hidden, 1.0]));
    let both = GenerateOptions { top_k: Some(2), top_p: Some(0.7), top_k_then_top_p: true, ..drawn(0) };
    close(of(both, &[]), softmax(&[2.0, 1.0, hidden, hidden, hidden]));
    let twice = GenerateOptions { freq_penalty: 0.5, temperature: 2.0, ..drawn(0) };
    close(of(twice, &[0, 0, 3]), softmax(&[0.0, 0.5, 0.0, -1.0, 0.5]));
    let repeated = GenerateOptions { repetition_penalty: 2.0, ..drawn(0) };
    close(of(repeated, &[0, 0, 3]), softmax(&[1.0, 1.0, 0.0, -2.0, 1.0]));
    let zero = GenerateOptions { temperature: 0.0, ..drawn(0) };
    assert_eq!(of(zero, &[]), [1.0, 0.0, 0.0, 0.0, 0.0]);
    // Of equals, the lowest id.
    let penalised = GenerateOptions { repetition_penalty: 4.0, do_sample: false, ..drawn(0) };
    assert_eq!(of(penalised, &[0]), [0.0, 1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn what_is_drawn_has_the_distribution_of_the_filters() {
    // The next token only, from one prompt, by the seeds 0 to 3999.
    let (model, x) = (model(base()), tokens(1, 4));
    let logits = model.forward(&x).unwrap().select(1, 3).select(0, 0).contiguous().to_vec();
    let cases = [
        drawn(0),
        GenerateOptions { temperature: 1.7, ..drawn(0) },
        GenerateOptions { top_k: Some(4), ..drawn(0) },
        GenerateOptions { top_p: Some(0.8), ..drawn(0) },
        GenerateOptions { min_p: Some(0.1), freq_penalty: 0.4, ..drawn(0) },
    ];
    for options in cases {
        let chances = options.sampling().unwrap().probabilities(&logits, x.as_slice());
        const N: usize = 4000;
        let mut counts = [0usize; 11];
        let batch = x.rows(&[0; 40]);
        for seed in 0..N / 40 {
            let options = GenerateOptions { max_new_tokens: 1, seed: seed as u64, ..options.clone() };
            for new in model.generate(&batch, &options).unwrap().new_tokens {
                counts[new[0] as usize] += 1;
            }
        }
        let mut chi_square = 0.0;
        for (id, &chance) in chances.iter().enumerate() {
            match chance {
                0.0 => assert_eq!(counts[id], 0, "token {id} was filtered out: {options:?}"),
                _ => chi_square += (counts[id] as f64 - N as f64 * chance).powi(2) / (N as f64 * chance),
            }
        }
        // Of ten degrees of freedom or less, one in a thousand is above 29.6; the seeds are fixed.
        assert!(chi_square < 29.6, "{chi_square} with {options:?}: {counts:?}, {chances:?}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let (model, x) = (model(base()), tokens(1, 4));
    let refused = |options: GenerateOptions, part: &str| {
        let error = model.generate(&x, &options).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(GenerateOptions { temperature: -1.0, ..greedy() }, "temperature is -1");
    refused(GenerateOptions { temperature: f64::NAN, ..greedy() }, "temperature is NaN");
    refused(GenerateOptions { top_k: Some(0), ..greedy() }, "top_k is 0");
    refused(GenerateOptions { top_p: Some(0.0), ..greedy() }, "top_p is 0");
    refused(GenerateOptions { top_p: Some(1.5), ..greedy() }, "top_p is 1.5");
    refused(GenerateOptions { min_p: Some(-0.1), ..greedy() }, "min_p is -0.1");
    refused(GenerateOptions { repetition_penalty: 0.0, ..greedy() }, "repetition_penalty is 0");
    refused(GenerateOptions { freq_penalty: f64::INFINITY, ..greedy() }, "freq_penalty is inf");
    refused(GenerateOptions { top_k: Some(4), top_p: Some(0.5), ..greedy() }, "top_k_then_top_p");
    refused(GenerateOptions { stop_at_eos: true, ..greedy() }, "stop_at_eos = false");
    refused(GenerateOptions { eos_token_id: vec![11], ..greedy() }, "ids are 0 to 10");
    refused(GenerateOptions { stop_strings: vec!["a".into()], ..greedy() }, "no tokenizer");
    let error = |x: &IndexTensor| model.generate(x, &greedy()).unwrap_err().to_string();
    assert!(error(&IndexTensor::new(vec![], &[1, 0])).contains("no tokens"));
    assert!(error(&tokens(1, 17)).contains("17 positions, the model at most 16"));
    assert!(error(&IndexTensor::from([[0, 11]])).contains("token 11"));
    assert!(model.generate("text", &greedy()).unwrap_err().to_string().contains("no tokenizer"));
    let mask = IndexTensor::from([[1, 1]]);
    let masked = model.generation(&x).options(greedy()).attention_mask(&mask).run().unwrap_err();
    assert!(masked.to_string().contains("[1, 2]"), "{masked}");
    let mask = IndexTensor::from([[0, 0, 0, 0]]);
    let masked = model.generation(&x).options(greedy()).attention_mask(&mask).run().unwrap_err();
    assert!(masked.to_string().contains("all of sequence 0"), "{masked}");
    let mut two = KeyValueCache::new(&model, 2);
    let cached = model.generation(&x).options(greedy()).past_kv_cache(&mut two).run().unwrap_err();
    assert!(cached.to_string().contains("2 sequences"), "{cached}");
    let mut unknown = Hooks::new().fwd("blocks.0.hook_nowhere", |_, _| {});
    let hooked = model.generation(&x).options(greedy()).hooks(&mut unknown).hooks_on(HooksOn::NewTokens).stream();
    assert!(hooked.err().unwrap().to_string().contains("hook_nowhere"));
}

#[test]
fn hooks_on_some_passes_need_each_position_to_be_read_once() {
    let x = tokens(1, 4);
    let refused = |model: &HookedTransformer, options: GenerateOptions, words: &[&str]| {
        let mut hooks = Hooks::new().fwd("blocks.1.hook_resid_pre", |_, _| {});
        let error =
            model.generation(&x).options(options).hooks(&mut hooks).hooks_on(HooksOn::Prompt).run().unwrap_err();
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let uncached = GenerateOptions { use_past_kv_cache: false, ..greedy() };
    refused(&model(llama()), uncached, &["use_past_kv_cache", "Prompt", "HooksOn::All"]);
    // Four tokens and two more: then all positions are rotated anew.
    let long = model(Config { rope_scaling: Some(long_rope(6)), ..llama() });
    refused(&long, greedy(), &["beyond 6 tokens", "Prompt", "HooksOn::All"]);
    let few = GenerateOptions { max_new_tokens: 2, ..greedy() };
    long.generation(&x).options(few).hooks_on(HooksOn::Prompt).run().unwrap();
}
