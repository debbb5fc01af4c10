//! Encoders: agreement with Hugging Face, TransformerLens and sentence-transformers, forms, and what is refused.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{HfCheckpoint, error_of};
use ironlens_files::{Checkpoint, Dtype, SafeTensorsFile, StoredTensor, TensorFile};
use ironlens_pretrained::{LoadOptions, Pretrained, PretrainedError, check_encoder, is_encoder};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_transformer::{
    ActFn, ActivationCache, BertNextSentencePrediction, EncoderOutput, Head, Heads, HookedEncoder, HookedTransformer,
    Hooks, PaddingSide, Pooling, Sentences,
};
use serde_json::{Value, json};

const CASES: [&str; 4] = ["bert_pretraining", "bert_masked", "bert_nsp", "bert_sentence"];

fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/encoders").join(name)
}

fn hf(name: &str) -> PathBuf {
    case(name).join("hf")
}

fn load(folder: &Path) -> Result<HookedEncoder, PretrainedError> {
    HookedEncoder::from_pretrained(folder.to_str().unwrap())
}

fn text(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(case(name).join("texts.json")).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_string()).collect()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    value.as_array().unwrap().iter().map(strings).map(|p| (p[0].clone(), p[1].clone())).collect()
}

/// What a case expects, by name.
fn expected(name: &str) -> BTreeMap<String, Tensor> {
    let file = Checkpoint::open(case(name).join("expected.safetensors")).unwrap();
    let read =
        |t: &StoredTensor| (t.name.clone(), Tensor::from_vec(file.read_f32(&t.name).unwrap(), &t.shape, &Device::Cpu));
    file.tensors().iter().map(read).collect()
}

/// Tokens, their types and the mask of padding, `[batch, pos]` each.
fn inputs(name: &str) -> [IndexTensor; 3] {
    let file = SafeTensorsFile::open(case(name).join("inputs.safetensors")).unwrap();
    ["tokens", "token_type_ids", "attention_mask"].map(|name| {
        let shape = file.get(name).unwrap().shape.clone();
        let bytes = file.read(name).unwrap();
        IndexTensor::new(bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect::<Vec<_>>(), &shape)
    })
}

fn run(model: &HookedEncoder, name: &str, head: Head) -> (EncoderOutput, ActivationCache<HookedEncoder>) {
    let [tokens, types, mask] = inputs(name);
    model.call(&tokens).token_types(&types).attention_mask(&mask).head(head).cached().unwrap()
}

fn close(found: &Tensor, expected: &Tensor, tolerance: f64, what: &str) {
    let error = error_of(found, expected);
    assert!(error <= tolerance, "{what} differs by {error}");
}

#[test]
fn outputs_are_those_of_hugging_face() {
    let mut compared = 0;
    for name in CASES {
        let (model, expected) = (load(&hf(name)).unwrap(), expected(name));
        for (key, value) in expected.iter().filter(|(key, _)| key.starts_with("hf/")) {
            let found = match key.as_str() {
                "hf/last_hidden_state" => run(&model, name, Head::None).0.residual,
                "hf/logits" => run(&model, name, Head::MaskedLanguage).0.logits().clone(),
                "hf/pooler_output" => run(&model, name, Head::Pooler).0.pooled().clone(),
                "hf/nsp" => run(&model, name, Head::NextSentence).0.next_sentence().clone(),
                _ => panic!("{name}: nothing is known of {key}"),
            };
            close(found.value(), value, 1e-5, &format!("{name}: {key}"));
            compared += 1;
        }
        let heads = Heads {
            masked_language: expected.contains_key("hf/logits"),
            pooler: expected.contains_key("hf/pooler_output"),
            next_sentence: expected.contains_key("hf/nsp"),
        };
        assert_eq!(model.heads(), heads, "{name}");
        let failed: Vec<_> = check_encoder(&model).unwrap().into_iter().filter(|c| !c.passed).collect();
        assert!(failed.is_empty(), "{name}: {failed:?}");
    }
    assert_eq!(compared, 11);
}

#[test]
fn names_weights_activations_and_gradients_are_transformerlens_s() {
    let name = "bert_pretraining";
    let (model, expected) = (load(&hf(name)).unwrap(), expected(name));
    let json =
        |file: &str| -> Value { serde_json::from_str(&fs::read_to_string(case(name).join(file)).unwrap()).unwrap() };
    let tree = fs::read_to_string(case(name).join("tree.txt")).unwrap();
    assert_eq!(format!("{model}").trim_end(), tree.trim_end());
    let hooks = json("hooks.json");
    assert_eq!(model.registry().hooks().map(|h| h.0.to_string()).collect::<Vec<_>>(), strings(&hooks["hook_dict"]));
    for (head, key) in [(Head::MaskedLanguage, "cache"), (Head::NextSentence, "nsp_cache")] {
        let (_, cache) = run(&model, name, head);
        let found: Value = cache.iter().map(|(name, value)| json!([name, value.shape()])).collect();
        assert_eq!(found, hooks[key], "{key}");
    }

    let (output, cache) = run(&model, name, Head::MaskedLanguage);
    let (nsp, nsp_cache) = run(&model, name, Head::NextSentence);
    let [tokens, types, mask] = inputs(name);
    let call = model.call(&tokens).token_types(&types).attention_mask(&mask);
    let (loss, gradients) = call.gradients(|out| out.logits().cross_entropy(&tokens).mean_all()).unwrap();
    let mut compared = 0;
    for (key, value) in expected.iter().filter(|(key, _)| key.starts_with("tl")) {
        let rest = key.split_once('/').unwrap().1;
        let (found, tolerance) = match rest.split_once('/') {
            Some(("state", weight)) => (model.param(weight).unwrap(), 1e-6),
            Some(("cache", hook)) if key.starts_with("tl_nsp") => (nsp_cache[hook].clone(), 1e-5),
            Some(("cache", hook)) => (cache[hook].clone(), 1e-5),
            // What the keys' biases add to all scores of a query changes nothing.
            Some(("grad", weight)) if weight.ends_with("b_K") => continue,
            Some(("grad", weight)) => (gradients.get(weight).unwrap(), 2e-5),
            _ if rest == "logits" => (output.logits().value().clone(), 1e-5),
            _ if rest == "nsp" => (nsp.next_sentence().value().clone(), 1e-5),
            _ if rest == "grad_loss" => (Tensor::scalar(loss, DType::F32, &Device::Cpu), 1e-5),
            _ => panic!("nothing is known of {key}"),
        };
        close(&found, value, tolerance, key);
        compared += 1;
    }
    assert!(compared > 120, "only {compared} were compared");
    for head in ["pooler.W", "nsp_head.W"] {
        assert!(gradients.get(head).is_none_or(|g| g.to_vec().iter().all(|v| *v == 0.0)), "{head} was not run");
    }
    // Gradients by activations, too.
    let call = model.call(&tokens).token_types(&types).attention_mask(&mask).head(Head::NextSentence);
    let (_, cache) = call.cached_gradients(|out| out.next_sentence().mean_all()).unwrap();
    assert_eq!(cache.grad("nsp_head.hook_nsp_out").unwrap().to_vec(), [0.25; 4]);
    assert_eq!(cache.grad(("resid_mid", 0)).unwrap().shape(), cache[("resid_mid", 0)].shape());
}

#[test]
fn a_state_dict_is_python_s_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, mut model) = (folder.path().join("state.safetensors"), load(&hf("bert_pretraining")).unwrap());
    model.save_state_dict(&path).unwrap();
    let file = SafeTensorsFile::open(&path).unwrap();
    let state: Value =
        serde_json::from_str(&fs::read_to_string(case("bert_pretraining").join("state_dict.json")).unwrap()).unwrap();
    assert_eq!(file.tensors().len(), state.as_array().unwrap().len());
    for entry in state.as_array().unwrap() {
        assert_eq!(json!(file.get(entry[0].as_str().unwrap()).unwrap().shape), entry[1], "{entry}");
    }
    let before = model.clone();
    let changed = model.param("pooler.W").unwrap() * 2.0;
    model.params_mut().set("pooler.W", &changed).unwrap();
    let loaded = model.load_state_dict(&path).unwrap();
    assert_eq!((loaded.missing.len(), loaded.unexpected.len()), (0, 0), "{loaded:?}");
    same_bits(&model, &before, "bert_pretraining");
    // The masks that TransformerLens keeps beside weights are no weights.
    let mut again = before.clone();
    again.load_weights(&path).unwrap();
    same_bits(&again, &before, "bert_pretraining");
    let other = load(&hf("bert_masked")).unwrap();
    assert!(other.clone().load_weights(&path).is_err(), "heads that the other has not");
}

#[test]
fn texts_become_the_same_as_tokens() {
    for name in CASES {
        let (model, texts, [tokens, types, mask]) = (load(&hf(name)).unwrap(), text(name), inputs(name));
        let read = match texts.get("pairs") {
            Some(list) => model.pairs_to_tokens(&pairs(list)).unwrap(),
            None => model.to_tokens(strings(&texts["texts"])).unwrap(),
        };
        // Two single texts of the first case are a batch of pairs in the other order there.
        if name == "bert_pretraining" {
            continue;
        }
        assert_eq!(read.tokens.as_slice(), tokens.as_slice(), "{name}");
        assert_eq!(read.token_type_ids.as_slice(), types.as_slice(), "{name}");
        let own = read.attention_mask.unwrap_or_else(|| IndexTensor::new(vec![1; tokens.numel()], tokens.shape()));
        assert_eq!(own.as_slice(), mask.as_slice(), "{name}");
    }
}

#[test]
fn masked_words_are_guessed() {
    let (name, texts) = ("bert_masked", text("bert_masked"));
    let model = load(&hf(name)).unwrap();
    assert_eq!(model.predict(&strings(&texts["texts"])).unwrap(), strings(&texts["predictions"]));
    let all = model.fill_mask(&strings(&texts["texts"]), 1000).unwrap();
    let [tokens, _, _] = inputs(name);
    for guesses in &all {
        let pos = tokens.shape()[1];
        assert_eq!(tokens.as_slice()[guesses.batch * pos + guesses.position], 4, "where [MASK] is");
        let chances: Vec<f64> = guesses.tokens.iter().map(|t| t.1).collect();
        assert_eq!(chances.len(), model.config().d_vocab);
        assert!(chances.is_sorted_by(|a, b| a >= b) && (chances.iter().sum::<f64>() - 1.0).abs() < 1e-5);
    }
    assert_eq!(all.len(), 2);
    let error = model.predict("the cat").unwrap_err().to_string();
    assert!(error.contains("no [MASK]"), "{error}");
    assert_eq!(model.to_str_tokens("The cats[MASK]").unwrap(), ["[CLS]", "the", "cat", "##s", "[MASK]", "[SEP]"]);
}

#[test]
fn sentences_follow_or_not() {
    let (name, texts) = ("bert_nsp", text("bert_nsp"));
    let (model, expected) = (load(&hf(name)).unwrap(), expected(name));
    let nsp = BertNextSentencePrediction::new(&model).unwrap();
    let pairs = pairs(&texts["pairs"]);
    close(&nsp.forward(&pairs).unwrap(), &expected["hf/nsp"], 1e-5, "logits");
    let (logits, cache) = nsp.run_with_cache(&pairs).unwrap();
    assert_eq!(cache["nsp_head.hook_nsp_out"].to_vec(), logits.to_vec());
    for ((a, b), row) in pairs.iter().zip(expected["hf/nsp"].to_vec().chunks(2)) {
        let said = nsp.predict(a, b).unwrap().to_string();
        assert_eq!(
            said,
            ["The sentences are sequential", "The sentences are NOT sequential"][usize::from(row[1] > row[0])]
        );
    }
    let [tokens, ..] = inputs(name);
    let error = model.call(&tokens).head(Head::NextSentence).output().unwrap_err().to_string();
    assert!(error.contains(".token_types()"), "{error}");
    let error = model.forward(&tokens).unwrap_err().to_string();
    assert!(error.contains("no masked-language head"), "{error}");
    assert!(BertNextSentencePrediction::new(&load(&hf("bert_masked")).unwrap()).is_err());
}

#[test]
fn embeddings_are_those_of_sentence_transformers() {
    let (name, texts) = ("bert_sentence", strings(&text("bert_sentence")["texts"]));
    let (mut model, expected) = (load(&hf(name)).unwrap(), expected(name));
    assert_eq!(model.sentences(), Sentences { pooling: Pooling::Mean, normalize: true });
    close(&model.sentence_embeddings(&texts).unwrap(), &expected["sentence/default"], 1e-5, "default");
    let of = |model: &HookedEncoder, pooling| {
        model.call(&texts).sentence_embeddings(Sentences { pooling, normalize: false }).unwrap()
    };
    for (pooling, key) in [
        (Pooling::Mean, "sentence/mean"),
        (Pooling::Cls, "sentence/cls"),
        (Pooling::Max, "sentence/max"),
        (Pooling::Pooler, "hf/pooler_output"),
    ] {
        close(&of(&model, pooling), &expected[key], 1e-5, key);
        // A text alone has what it has beside longer ones.
        let alone = model.call(&texts[0]).sentence_embeddings(Sentences { pooling, normalize: false }).unwrap();
        close(&alone.select(0, 0), &of(&model, pooling).select(0, 0), 1e-6, key);
    }
    let how = Sentences { pooling: Pooling::Cls, normalize: false };
    model.set_sentences(how).unwrap();
    let saved = tempfile::tempdir().unwrap();
    model.save_pretrained(saved.path()).unwrap();
    assert_eq!(load(saved.path()).unwrap().sentences(), how);
    assert!(load(&hf("bert_masked")).unwrap().set_sentences(Sentences { pooling: Pooling::Pooler, ..how }).is_err());
}

/// A folder of the sentence case with another file of its settings.
fn with_file(file: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    HfCheckpoint::at(&hf("bert_sentence")).write(folder.path(), Dtype::F32);
    fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    for name in ["modules.json", "1_Pooling/config.json"] {
        fs::copy(hf("bert_sentence").join(name), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join(file), text).unwrap();
    folder
}

#[test]
fn pooling_is_read_in_both_spellings_and_refused_where_it_is_another() {
    let pooling = |text: &str| load(with_file("1_Pooling/config.json", text).path()).map(|m| m.sentences().pooling);
    let old =
        |mode: &str| format!(r#"{{"word_embedding_dimension": 16, "pooling_mode_cls_token": false, "{mode}": true}}"#);
    for (text, expected) in [
        (old("pooling_mode_mean_tokens"), Pooling::Mean),
        (old("pooling_mode_cls_token"), Pooling::Cls),
        (old("pooling_mode_max_tokens"), Pooling::Max),
        ("{}".into(), Pooling::Mean),
        (r#"{"pooling_mode": "cls"}"#.into(), Pooling::Cls),
        (r#"{"pooling_mode": ["max"]}"#.into(), Pooling::Max),
    ] {
        match pooling(&text) {
            Ok(found) => assert_eq!(found, expected, "{text}"),
            // A list of modes is several vectors in a row.
            Err(error) => assert!(text.contains('[') && error.to_string().contains("max"), "{text}: {error}"),
        }
    }
    for text in [old("pooling_mode_weightedmean_tokens"), r#"{"pooling_mode": ["mean", "cls"]}"#.into(), "no".into()] {
        let error = pooling(&text).unwrap_err().to_string();
        assert!(error.contains("1_Pooling"), "{error}");
    }
    let dense = r#"[{"idx": 0, "path": "2_Dense", "type": "sentence_transformers.models.Dense"}]"#;
    let error = load(with_file("modules.json", dense).path()).unwrap_err().to_string();
    assert!(error.contains("models.Dense"), "{error}");
}

#[track_caller]
fn same_bits(a: &HookedEncoder, b: &HookedEncoder, name: &str) {
    assert_eq!((a.heads(), format!("{a}")), (b.heads(), format!("{b}")));
    for ((name, x), (other, y)) in a.params().iter().zip(b.params().iter()) {
        assert!(name == other && x.to_vec_f64() == y.to_vec_f64(), "{name}");
    }
    let [x, y] = [a, b].map(|m| run(m, name, Head::None).0.residual.value().to_vec_f64());
    assert!(x == y, "{name}");
}

#[test]
fn saved_encoders_are_read_back_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    for name in CASES {
        let (model, path) = (load(&hf(name)).unwrap(), folder.path().join(name));
        model.save_pretrained(&path).unwrap();
        assert!(is_encoder(path.to_str().unwrap(), &LoadOptions::default()).unwrap());
        let again = load(&path).unwrap();
        same_bits(&model, &again, name);
        assert_eq!(again.config().to_json(), model.config().to_json());
        let text = "The cats slept in [MASK], é!";
        let ids = |m: &HookedEncoder| m.to_tokens(text).unwrap().tokens.as_slice().to_vec();
        assert_eq!(ids(&again), ids(&model));
        assert_eq!(again.tokenizer().unwrap().max_length(), model.tokenizer().unwrap().max_length());
    }
    let options = LoadOptions { dtype: DType::F64, ..LoadOptions::default() };
    let double = HookedEncoder::from_pretrained_with(hf(CASES[0]).to_str().unwrap(), &options).unwrap();
    double.save_pretrained(folder.path().join("double")).unwrap();
    let again = HookedEncoder::from_pretrained_with(folder.path().join("double").to_str().unwrap(), &options).unwrap();
    same_bits(&double, &again, CASES[0]);
}

#[test]
fn one_encoder_comes_in_many_forms() {
    let folder = tempfile::tempdir().unwrap();
    for name in CASES {
        let (whole, model) = (HfCheckpoint::at(&hf(name)), load(&hf(name)).unwrap());
        let forms: [(&str, HfCheckpoint); 3] = [
            // The names of the first files, converted from TensorFlow's.
            (
                "old names",
                whole.renamed(|n| {
                    let old =
                        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
                    Some(old)
                }),
            ),
            ("no prefix", whole.renamed(|n| Some(n.strip_prefix("bert.").unwrap_or(n).into()))),
            ("positions", {
                let mut more = whole.clone();
                more.tensors.insert("bert.embeddings.position_ids".into(), (vec![1, 20], vec![0.0; 20]));
                more
            }),
        ];
        for (form, checkpoint) in forms {
            checkpoint.write(folder.path(), Dtype::F32);
            let found = load(folder.path()).unwrap_or_else(|e| panic!("{name}, {form}: {e}"));
            same_bits(&found, &model, name);
        }
        let _ = fs::remove_file(folder.path().join("model.safetensors"));
    }
    // Published files name a class of one head, and have all.
    let mut all = HfCheckpoint::at(&hf("bert_pretraining"));
    all.set("architectures", json!(["BertForMaskedLM"]));
    all.write(folder.path(), Dtype::F32);
    same_bits(&load(folder.path()).unwrap(), &load(&hf("bert_pretraining")).unwrap(), "bert_pretraining");
    // A model without its head is a base model.
    let mut base = all.renamed(|n| (!n.starts_with("cls.")).then(|| n.into()));
    base.set("architectures", json!(["BertModel"]));
    base.write(folder.path(), Dtype::F32);
    assert_eq!(load(folder.path()).unwrap().heads(), Heads { pooler: true, ..Heads::NONE });
}

#[test]
fn options_are_obeyed_or_refused() {
    let name = "bert_pretraining";
    let source = hf(name);
    let with = |options: LoadOptions| HookedEncoder::from_pretrained_with(source.to_str().unwrap(), &options);
    let first = with(LoadOptions { first_n_layers: Some(1), ..LoadOptions::default() }).unwrap();
    let whole = load(&source).unwrap();
    let stream = |m: &HookedEncoder| run(m, name, Head::None).1[("normalized_resid_post", 0)].to_vec();
    assert_eq!((first.config().n_layers, stream(&first)), (1, stream(&whole)));
    let short = with(LoadOptions { n_ctx: Some(14), ..LoadOptions::default() }).unwrap();
    assert_eq!(short.param("embed.pos_embed.W_pos").unwrap().shape(), [14, 16]);
    assert_eq!(
        run(&short, name, Head::None).0.residual.value().to_vec(),
        run(&whole, name, Head::None).0.residual.value().to_vec()
    );
    assert_eq!(short.to_tokens("cat ".repeat(30)).unwrap().tokens.shape(), [1, 14]);
    for (options, word) in [
        (LoadOptions { first_n_layers: Some(3), ..LoadOptions::default() }, "first_n_layers is 3"),
        (LoadOptions { n_ctx: Some(21), ..LoadOptions::default() }, "n_ctx is 21"),
        (LoadOptions { default_prepend_bos: Some(true), ..LoadOptions::default() }, "default_prepend_bos"),
        (
            LoadOptions { default_padding_side: Some(PaddingSide::Left), ..LoadOptions::default() },
            "default_padding_side",
        ),
        (LoadOptions { refactor_factored_attn_matrices: true, ..LoadOptions::default() }, "refactor_factored"),
    ] {
        let error = with(options).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    // TransformerLens takes every activation function for GELU.
    let like = LoadOptions { like_transformerlens: true, ..LoadOptions::default() };
    let relu = HookedEncoder::from_pretrained_with(hf("bert_nsp").to_str().unwrap(), &like).unwrap();
    assert_eq!(relu.config().act_fn, ActFn::Gelu);
}

#[test]
fn hooks_change_what_comes_after() {
    let name = "bert_masked";
    let model = load(&hf(name)).unwrap();
    let [tokens, ..] = inputs(name);
    let plain = model.forward(&tokens).unwrap();
    let mut idle = Hooks::new().fwd(|_: &str| true, |_, _| Ok(()));
    assert_eq!(model.run_with_hooks(&tokens, &mut idle).unwrap().to_vec(), plain.to_vec(), "hooks that do nothing");
    let mut split = model.clone();
    split.set_use_split_qkv_input(true).unwrap();
    split.set_use_attn_result(true).unwrap();
    split.set_use_hook_mlp_in(true).unwrap();
    let (logits, cache) = split.run_with_cache(&tokens).unwrap();
    close(&logits, &plain, 1e-6, "split inputs");
    assert_eq!(cache["blocks.1.hook_k_input"].shape(), [2, tokens.shape()[1], 2, 16]);
    close(
        &(cache["blocks.0.attn.hook_result"].sum(2) + &split.param("blocks.0.attn.b_O").unwrap()),
        &cache[("attn_out", 0)],
        1e-5,
        "the heads' results",
    );
    assert_eq!(cache[("mlp_in", 1)].to_vec(), cache[("resid_mid", 1)].to_vec());
    for hook in check_hooks(&split) {
        let mut zero = Hooks::new().fwd(hook.as_str(), |x, _| *x = &*x * 0.0);
        let changed = split.run_with_hooks(&tokens, &mut zero).unwrap();
        assert_ne!(changed.to_vec(), plain.to_vec(), "{hook}");
    }
}

/// Hook points whose values set to 0 change the logits.
fn check_hooks(model: &HookedEncoder) -> Vec<String> {
    let all = model.registry().hooks().filter(|h| h.2).map(|h| h.0.to_string());
    // A norm divides by its scale; scores that are all equal are those of zeros only if queries or keys were.
    all.filter(|name| !name.ends_with("hook_scale")).collect()
}

#[test]
fn padding_is_seen_by_nobody() {
    let name = "bert_sentence";
    let model = load(&hf(name)).unwrap();
    let [tokens, types, mask] = inputs(name);
    let other: Vec<u32> =
        tokens.as_slice().iter().zip(mask.as_slice()).map(|(t, m)| if *m == 0 { 9 } else { *t }).collect();
    let other = IndexTensor::new(other, tokens.shape());
    assert_ne!(other.as_slice(), tokens.as_slice());
    let out = |tokens: &IndexTensor| {
        let call = model.call(tokens).token_types(&types).attention_mask(&mask).head(Head::None);
        call.output().unwrap().residual.value().clone()
    };
    let (a, b) = (out(&tokens), out(&other));
    let d = model.config().d_model;
    for (i, m) in mask.as_slice().iter().enumerate() {
        let row = |t: &Tensor| t.to_vec()[i * d..(i + 1) * d].to_vec();
        assert_eq!(row(&a) == row(&b), *m != 0, "position {i}");
    }
}

#[test]
fn a_checkpoint_that_is_damaged_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in CASES {
        let whole = HfCheckpoint::at(&hf(name));
        for (i, tensor) in whole.tensors.keys().enumerate() {
            let without = whole.renamed(|n| (n != tensor).then(|| n.into()));
            without.write(folder.path(), Dtype::F32);
            let result = load(folder.path());
            // A bias that is not there is 0, the unembedding the embedding.
            if tensor.ends_with(".bias") || tensor.ends_with("decoder.weight") {
                result.unwrap_or_else(|e| panic!("{name} without {tensor}: {e}"));
            } else {
                let base = tensor.strip_prefix("bert.").unwrap_or(tensor);
                let error = result.map(|_| ()).unwrap_err().to_string();
                assert!(error.contains(base), "{name} without {tensor}: {error}");
            }
            let mut bad = whole.clone();
            let (shape, values) = bad.tensors.get_mut(tensor).unwrap();
            match i % 2 {
                0 => shape.insert(0, 1),
                _ => *values.last_mut().unwrap() = f32::NAN,
            }
            bad.write(folder.path(), Dtype::F32);
            let error = load(folder.path()).map(|_| ()).unwrap_err();
            assert!(matches!(error, PretrainedError::Mismatch { .. }) && error.to_string().contains(tensor), "{error}");
        }
        let mut more = whole.clone();
        more.tensors.insert("bert.encoder.layer.0.more.weight".into(), (vec![2], vec![0.0; 2]));
        more.write(folder.path(), Dtype::F32);
        let error = load(folder.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("layer.0.more.weight") && error.contains("is not a tensor"), "{error}");
    }
}

#[test]
fn configurations_that_are_not_berts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let whole = HfCheckpoint::at(&hf("bert_pretraining"));
    let refused = |key: &str, value: Value, words: &[&str]| {
        let mut changed = whole.clone();
        changed.set(key, value);
        changed.write(folder.path(), Dtype::F32);
        let error = load(folder.path()).map(|_| ()).unwrap_err().to_string();
        words.iter().for_each(|word| assert!(error.contains(word), "{key}: {error}"));
    };
    refused("position_embedding_type", json!("relative_key"), &["position_embedding_type", "absolute"]);
    refused("type_vocab_size", json!(16), &["type_vocab_size", "16"]);
    refused("is_decoder", json!(true), &["is_decoder"]);
    refused("hidden_act", json!("quick_gelu"), &["hidden_act"]);
    refused("hidden_act", json!("relu2"), &["act_fn", "gelu"]);
    refused("num_attention_heads", json!(0), &["num_attention_heads", "at least 1"]);
    refused("num_attention_heads", json!(3), &["attention.self.query"]);
    refused("num_hidden_layers", json!(3), &["layer.2.", "is missing"]);
    refused("num_hidden_layers", json!(1), &["layer.1.", "is not a tensor"]);
    refused("vocab_size", json!(1_000_000_000_000u64), &["d_vocab"]);
    refused("hidden_size", json!("x"), &["hidden_size"]);
    for (class, hint) in [
        ("DistilBertForMaskedLM", "bert-base-uncased"),
        ("RobertaForMaskedLM", "bert-base-cased"),
        ("BertForSequenceClassification", "BertForPreTraining"),
        ("T5ForConditionalGeneration", "encoder-decoder"),
        ("NewThing", "families that are: BERT"),
        ("LlamaForCausalLM", "HookedTransformer::from_pretrained"),
    ] {
        refused("architectures", json!([class]), &[class, hint]);
    }
}

#[test]
fn each_kind_of_model_is_told_from_the_other() {
    let (bert, decoder) = (hf("bert_masked"), common::case("lma31").join("hf"));
    let options = LoadOptions::default();
    assert!(is_encoder(bert.to_str().unwrap(), &options).unwrap());
    assert!(!is_encoder(decoder.to_str().unwrap(), &options).unwrap());
    let saved = tempfile::tempdir().unwrap();
    load(&bert).unwrap().save_pretrained(saved.path()).unwrap();
    for folder in [bert.as_path(), saved.path()] {
        let error = HookedTransformer::from_pretrained(folder.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.contains("HookedEncoder::from_pretrained"), "{error}");
    }
    common::load(&decoder).unwrap().save_pretrained(saved.path()).unwrap();
    for folder in [decoder.as_path(), saved.path()] {
        let error = load(folder).unwrap_err().to_string();
        assert!(error.contains("HookedTransformer::from_pretrained"), "{error}");
    }
}
