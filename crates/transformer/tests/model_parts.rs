//! Blocks and their modules by themselves, own activation functions, starting anew, permanent hooks.

use ironlens_autograd::Var;
use ironlens_nn::{HookedRootModule, Hooks};
use ironlens_tensor::{Device, IndexTensor, Rng};
use ironlens_transformer::{ActFn, Config, HookedTransformer, NormalizationType, PositionalEmbeddingType};

fn config() -> Config {
    Config { d_model: 8, d_head: 4, n_layers: 2, n_ctx: 6, d_vocab: 7, act_fn: ActFn::Gelu, ..Config::default() }
}

fn tokens() -> IndexTensor {
    Rng::new(5, 0).integers(&[2, 6], 0, 7)
}

#[test]
fn a_block_is_the_sum_of_what_its_modules_write() {
    let kinds = [
        config(),
        Config { normalization_type: NormalizationType::None, ..config() },
        Config { positional_embedding_type: PositionalEmbeddingType::Shortformer, ..config() },
        Config { positional_embedding_type: PositionalEmbeddingType::Rotary, parallel_attn_mlp: true, ..config() },
        Config { attn_only: true, ..config() },
        Config { use_split_qkv_input: true, ..config() },
    ];
    for cfg in kinds {
        let shortformer = cfg.positional_embedding_type == PositionalEmbeddingType::Shortformer;
        let model = HookedTransformer::new(cfg.clone(), &Device::Cpu, 1).unwrap();
        let (_, cache) = model.run_with_cache(&tokens()).unwrap();
        for layer in 0..2 {
            let stream = Var::from(cache[("resid_pre", layer)].clone());
            let block = model.block(layer).unwrap();
            assert_eq!(block.run(&stream).unwrap().to_vec(), cache[("resid_post", layer)].to_vec());
            if shortformer {
                continue;
            }
            let read = block.ln1().run(&stream).unwrap();
            let (attn, within) = block.attn().run_with_cache(&read.into()).unwrap();
            let name = format!("blocks.{layer}.attn.hook_pattern");
            assert!((&within[&name] - &cache[("attn", layer)]).abs().max(&[0, 1, 2, 3]).item() < 1e-6);
            let mid = stream.value() + &attn;
            let before_mlp = if cfg.parallel_attn_mlp { stream.value() } else { &mid };
            let read = block.ln2().run(&before_mlp.clone().into()).unwrap();
            let post = &mid + &block.mlp().run(&read.into()).unwrap();
            assert!((&post - &cache[("resid_post", layer)]).abs().max(&[0, 1, 2]).item() < 1e-5);
        }
        let error = model.block(2).unwrap_err().to_string();
        assert!(error.contains("layer 2"), "{error}");
    }
}

#[test]
fn hooks_of_a_part_have_full_names_and_gradients_reach_its_input() {
    let model = HookedTransformer::new(config(), &Device::Cpu, 1).unwrap();
    let stream = Rng::new(2, 0).normal(&[1, 3, 8], 0.0, 1.0, &Device::Cpu);
    let mlp = model.block(-1).unwrap().mlp();
    let mut ablate = Hooks::new().fwd("blocks.1.mlp.hook_post", |x, _| *x = &*x * 0.0);
    let bias = model.param("blocks.1.mlp.b_out").unwrap();
    let out = mlp.run_with_hooks(&stream.clone().into(), &mut ablate).unwrap();
    assert_eq!(out.to_vec(), bias.expand(&[1, 3, 8]).to_vec());
    let (_, gradients) = mlp.gradients(&stream.into(), &mut Hooks::new(), |out| out.square().mean_all()).unwrap();
    let names = model.registry().stored().map(|(names, _)| names[0].to_string());
    let reached: Vec<String> = names.zip(&gradients).filter(|(_, g)| g.is_some()).map(|(n, _)| n).collect();
    let of_mlp = ["W_in", "W_out", "b_in", "b_out"].map(|name| format!("blocks.1.mlp.{name}"));
    assert_eq!(reached, of_mlp);
}

#[test]
fn an_own_activation_function_is_differentiated_and_read_from_no_file() {
    let relu = HookedTransformer::new(Config { act_fn: ActFn::Relu, ..config() }, &Device::Cpu, 1).unwrap();
    let own = |name| ActFn::own(name, |x| x.maximum(0.0));
    let same = HookedTransformer::new(Config { act_fn: own("mine"), ..config() }, &Device::Cpu, 1).unwrap();
    let tokens = tokens();
    let gradients = |model: &HookedTransformer| {
        let (loss, gradients) = model.call(&tokens).gradients(|out| out.logits().square().mean_all()).unwrap();
        (loss, gradients.get("blocks.0.mlp.W_in").unwrap().to_vec())
    };
    assert_eq!(gradients(&relu), gradients(&same));
    // A copy under another configuration keeps it.
    let weights: Vec<_> = same.params().iter().map(|(n, t)| (n.to_string(), t)).collect();
    let copy = same.with_weights(same.config().clone(), weights.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
    assert_eq!(copy.forward(&tokens).unwrap().to_vec(), same.forward(&tokens).unwrap().to_vec());

    let json = same.config().to_json();
    assert!(json.contains("\"mine\""), "{json}");
    let error = Config::from_json(&json).unwrap_err().to_string();
    assert!(error.contains("mine") && error.contains("act_fn"), "{error}");
    let taken = HookedTransformer::new(Config { act_fn: own("gelu"), ..config() }, &Device::Cpu, 1).unwrap_err();
    assert!(taken.to_string().contains("gelu"), "{taken}");
}

#[test]
#[should_panic(expected = "halves made [2, 6, 16] of [2, 6, 32]")]
fn an_own_activation_function_keeps_the_shape() {
    let act_fn = ActFn::own("halves", |x| x.narrow(2, 0, x.dim(2) / 2));
    HookedTransformer::new(Config { act_fn, ..config() }, &Device::Cpu, 1).unwrap().forward(&tokens()).unwrap();
}

#[test]
fn weights_start_anew_also_where_none_were_drawn() {
    let drawn = HookedTransformer::new(config(), &Device::Cpu, 3).unwrap();
    let mut model = HookedTransformer::new(Config { init_weights: false, ..config() }, &Device::Cpu, 0).unwrap();
    assert!(model.param("blocks.0.attn.W_Q").unwrap().to_vec().iter().all(|w| *w == 0.0));
    model.init_weights(3);
    for (name, value) in drawn.params().iter() {
        assert_eq!(value.to_vec(), model.param(name).unwrap().to_vec(), "{name}");
    }
}

#[test]
fn a_permanent_hook_is_that_hook_in_every_call_and_copy() {
    let plain = HookedTransformer::new(config(), &Device::Cpu, 3).unwrap();
    let mut model = plain.clone();
    model.add_perma_hook("blocks.0.attn.hook_z", |z, _| z.zero_at(2, 1)).unwrap();
    let mut hooks = Hooks::new().fwd("blocks.0.attn.hook_z", |z, _| z.zero_at(2, 1));
    let wanted = plain.run_with_hooks(&tokens(), &mut hooks).unwrap().to_vec();
    assert_ne!(plain.forward(&tokens()).unwrap().to_vec(), wanted);
    assert_eq!(model.forward(&tokens()).unwrap().to_vec(), wanted);
    assert_eq!(model.run_with_cache(&tokens()).unwrap().1[("z", 0)].select(2, 1).sum_all().item(), 0.0);
    let copy = model.clone().rebuilt::<ironlens_transformer::ModelError>(|_, _| Ok(())).unwrap();
    assert_eq!(copy.forward(&tokens()).unwrap().to_vec(), wanted);
    let mut switched = model.clone();
    switched.set_use_attn_result(true).unwrap();
    let difference = switched.forward(&tokens()).unwrap() - model.forward(&tokens()).unwrap();
    assert!(difference.abs().max(&[0, 1, 2]).item() < 1e-5);
    model.remove_perma_hooks();
    assert_eq!(model.forward(&tokens()).unwrap().to_vec(), plain.forward(&tokens()).unwrap().to_vec());
}
