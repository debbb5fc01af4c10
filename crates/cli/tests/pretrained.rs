//! The commands for pretrained models, on a small one with GPT-2's tokenizer.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ironlens::pretrained::Pretrained;
use ironlens::tensor::Device;
use ironlens::tokenizer::HookedTokenizer;
use ironlens::transformer::{ActFn, Config, HookedTransformer};
use serde_json::Value;

fn ironlens(folder: &Path, args: &[impl AsRef<OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironlens"));
    // Nothing is looked up at the hub, or in a cache of this machine.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder.join("cache"));
    command.args(args).current_dir(folder).output().expect("the command runs")
}

fn done(output: &Output) -> String {
    let (out, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    out.into_owned()
}

fn refused(folder: &Path, args: &[impl AsRef<OsStr>]) -> String {
    let output = ironlens(folder, args);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {told}", output.status);
    assert!(!told.contains("panicked"), "{told}");
    told
}

/// A folder with a model in `model`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let cfg = Config {
        d_model: 8,
        d_head: 4,
        n_layers: 2,
        n_ctx: 32,
        d_vocab: 50257,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap();
    let tokenizer = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tokenizers/gpt2");
    model.set_tokenizer(HookedTokenizer::from_folder(tokenizer).unwrap()).unwrap();
    model.save_pretrained(folder.path().join("model")).unwrap();
    folder
}

const PROMPT: &str = "When Mary and John went to the store, John gave a drink to";

#[test]
fn a_prompt_is_continued_and_its_answer_ranked() {
    let folder = folder();
    let base = ["prompt", "model", PROMPT, "--device", "cpu"];
    let text = done(&ironlens(folder.path(), &base));
    assert!(text.contains("\"<|endoftext|>\", \"When\", \" Mary\"") && text.contains('%'), "{text}");
    let args = [&base[..], &["--answer", " Mary", "--wrong", " John", "--json"]].concat();
    let json: Value = serde_json::from_str(&done(&ironlens(folder.path(), &args))).unwrap();
    let step = &json["answer"][0];
    assert_eq!(step["token"], " Mary");
    assert!(step["rank"].as_u64().unwrap() < 50257 && step["top"].as_array().unwrap().len() == 10);
    assert!(json["logit_difference"].is_number());
    // The best of its own list has rank 0.
    let best = step["top"][0]["token"].as_str().unwrap();
    let args = [&base[..], &["--answer", best]].concat();
    assert!(done(&ironlens(folder.path(), &args)).contains("Ranks of the answer's tokens: [0"), "{best:?}");

    std::fs::write(
        folder.path().join("many.jsonl"),
        format!("{{\"prompt\": \"{PROMPT}\", \"answer\": \" Mary\"}}\n\n{{\"prompt\": \"Hi\"}}\n"),
    )
    .unwrap();
    let text =
        done(&ironlens(folder.path(), &["prompt", "model", "--text", "many.jsonl", "--json", "--device", "cpu"]));
    assert_eq!(text.lines().count(), 2);
    std::fs::write(folder.path().join("bad.jsonl"), "{\"prompt\": 3}\n").unwrap();
    let told = refused(folder.path(), &["prompt", "model", "--text", "bad.jsonl", "--device", "cpu"]);
    assert!(told.contains("line 1") && told.contains("expected text"), "{told}");
}

#[test]
fn a_model_is_inspected() {
    let folder = folder();
    let text = done(&ironlens(folder.path(), &["inspect", "model", "--device", "cpu"]));
    for words in
        ["HookedTransformer(", "embed.W_E", "[50257, 8]", "ok   hook points", "ok   residual stream", "ok   vocabulary"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let json: Value =
        serde_json::from_str(&done(&ironlens(folder.path(), &["inspect", "model", "--json", "--device", "cpu"])))
            .unwrap();
    assert_eq!(json["config"]["d_vocab"], 50257);
    assert!(json["checks"].as_array().unwrap().iter().all(|c| c["passed"] == true));
}

#[test]
fn a_text_is_analysed_into_one_page() {
    let folder = folder();
    let base = ["analyze", "model", "--device", "cpu", "--text", PROMPT, "--out", "page.html", "--json", "all.json"];
    let text = done(&ironlens(folder.path(), &[&base[..], &["--answer", " Mary", "--wrong", " John"]].concat()));
    assert!(text.contains("\" John\" at position 10 becomes \" Mary\"") && !text.contains("Not available"), "{text}");
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("logit lens") && page.contains("Mary"));
    let all: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("all.json")).unwrap()).unwrap();
    assert_eq!(all["sections"].as_array().unwrap().len(), 6);

    // Without a corrupted prompt the parts that need one say so.
    let text = done(&ironlens(folder.path(), &base));
    assert!(text.contains("there is no corrupted prompt"), "{text}");
    let told = refused(folder.path(), &[&base[..], &["--answer", " Mary", "--wrong", " Mary"]].concat());
    assert!(told.contains("same token"), "{told}");
    let longer = [&base[..], &["--answer", " Mary", "--corrupted", "much longer than the prompt"]].concat();
    assert!(done(&ironlens(folder.path(), &longer)).contains("give one of as many"));
}

#[test]
fn names_are_listed_and_wrong_ones_have_neighbours() {
    let folder = folder();
    let text = done(&ironlens(folder.path(), &["models"]));
    assert!(
        text.contains("Families") && text.contains("EleutherAI/pythia-70m") && text.contains("237 names"),
        "{text}"
    );
    let text = done(&ironlens(folder.path(), &["models", "pythia-1.4b", "--json"]));
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!((first["parameters"].as_f64(), first["downloaded"].as_bool()), (Some(1.4e9), Some(false)));
    assert!(refused(folder.path(), &["models", "no-such-model-anywhere"]).contains("nearest"));
    let told = refused(folder.path(), &["prompt", "gtp2", "Hi", "--device", "cpu"]);
    assert!(told.contains("gtp2") && told.contains("gpt2"), "{told}");
    let told = refused(folder.path(), &["download", "gpt2", "--device", "cpu"]);
    assert!(told.contains("not in the cache") && told.contains("HF_HUB_OFFLINE"), "{told}");
    assert!(refused(folder.path(), &["download", "model"]).contains("on this machine already"));
    assert!(refused(folder.path(), &["inspect", "cache", "--device", "cpu"]).contains("cache"));
}
