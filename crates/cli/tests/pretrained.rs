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
    assert_eq!([&json["dtype"], &json["storage"]], ["f32", "f32"]);
    assert_eq!(json["tokenizer"], true);
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
    // What is beyond the context is not cut off without a word, neither of the first prompt nor of another.
    let long = "word ".repeat(40);
    for answer in [&[][..], &["--answer", " Mary"]] {
        let args = [&["analyze", "model", "--device", "cpu", "--out", "l.html", "--text", &long], answer].concat();
        let told = refused(folder.path(), &args);
        assert!(told.contains("positions, the model at most 32"), "{told}");
    }
    let long_corrupted = [&base[..], &["--answer", " Mary", "--corrupted", &long]].concat();
    assert!(done(&ironlens(folder.path(), &long_corrupted)).contains("give one of as many"));
    assert!(!folder.path().join("l.html").exists());
}

#[test]
fn an_analysed_model_is_loaded_as_it_was_asked_for() {
    let folder = folder();
    let base = ["analyze", "model", "--device", "cpu", "--text", PROMPT, "--out", "page.html"];
    let with = |more: &[&str]| ironlens(folder.path(), &[&base[..], more].concat());
    done(&with(&["--first-n-layers", "1", "--no-processing"]));
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("<b>layers</b>1</li>"), "the page is of one layer");
    done(&with(&["--dtype", "f64"]));
    done(&with(&["--storage", "bf16"]));
    let told = refused(folder.path(), &[&base[..], &["--revision", "main"]].concat());
    assert!(told.contains("on this machine"), "{told}");
}

#[test]
fn a_figure_that_cannot_be_named_so_is_refused_before_the_work() {
    let folder = folder();
    std::fs::write(folder.path().join("p.txt"), "good\n").unwrap();
    // There is no such model, which would be told once it is looked for.
    let steer = ["steer", "nowhere", "--positive", "p.txt", "--negative", "p.txt", "--dose", "Hi", "--answer", " a"];
    let generate = ["generate", "nowhere", "Hi", "--steer", "v.gguf:1", "--compare"];
    for args in [&[&steer[..], &["--wrong", " b"]].concat()[..], &generate] {
        let told = refused(folder.path(), &[args, &["--figure", "x.pdf", "--device", "cpu"]].concat());
        assert!(told.contains("x.pdf") && told.contains(".svg"), "{told}");
    }
}

#[test]
fn a_model_without_a_tokenizer_says_where_to_put_one() {
    let folder = folder();
    for entry in std::fs::read_dir(folder.path().join("model")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("config") && !name.starts_with("model") {
            std::fs::remove_file(folder.path().join("model").join(name)).unwrap();
        }
    }
    let told = refused(folder.path(), &["prompt", "model", "Hi", "--device", "cpu"]);
    assert!(told.contains("putting its tokenizer into model: tokenizer.json"), "{told}");
}

#[test]
fn what_has_no_effect_is_refused_or_told() {
    let folder = folder();
    std::fs::write(folder.path().join("text.txt"), PROMPT).unwrap();
    let corrupted = format!("{{\"prompt\": \"{PROMPT}\", \"corrupted\": \"x\"}}\n");
    std::fs::write(folder.path().join("many.jsonl"), corrupted).unwrap();
    let told = refused(folder.path(), &["eval", "model", "--device", "cpu", "--text", "text.txt", "--seed", "3"]);
    assert!(told.contains("--induction or --ioi"), "{told}");
    for (args, part) in [
        (&["eval", "model", "--induction", "500"][..], "16 tokens are taken"),
        (&["prompt", "model", "--text", "many.jsonl"], "\"corrupted\" is for `analyze`"),
    ] {
        let output = ironlens(folder.path(), &[args, &["--device", "cpu"]].concat());
        done(&output);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains(part), "{told}");
    }
    let whole = ironlens(folder.path(), &["eval", "model", "--induction", "--device", "cpu"]);
    done(&whole);
    assert!(!String::from_utf8_lossy(&whole.stderr).contains("--induction"), "nobody asked for more");

    let generate = ["generate", "model", PROMPT, "--device", "cpu"];
    for (more, part) in [
        (&["--greedy", "--freq-penalty", "1"][..], "--freq-penalty"),
        (&["--greedy", "--seed", "0"], "--seed"),
        (&["--temperature", "0", "--top-k", "3"], "--top-k is of what is drawn"),
        (&["--temperature", "0", "--seed", "3"], "--seed is of what is drawn"),
    ] {
        let told = refused(folder.path(), &[&generate[..], more].concat());
        assert!(told.contains(part), "{told}");
    }
    let steer =
        ["steer", "model", "--positive", "text.txt", "--negative", "text.txt", "--device", "cpu", "--dose", "Hi"];
    let same = [&steer[..], &["--answer", " Mary", "--wrong", " Mary"]].concat();
    assert!(refused(folder.path(), &same).contains("are the same token, \" Mary\""));
    assert!(!folder.path().join("steering.safetensors").exists());
    let nan = [&steer[..], &["--answer", " Mary", "--wrong", " John", "--coefficients", "1,nan"]].concat();
    assert!(refused(folder.path(), &nan).contains("expected a finite number"));
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
    assert_eq!(first["readable"], true);
    let text = done(&ironlens(folder.path(), &["models", "t5-", "--json"]));
    let t5: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(t5.len() == 3 && t5.iter().all(|name| name["readable"] == false), "{text}");
    assert!(done(&ironlens(folder.path(), &["models", "hubert"])).contains("- facebook/hubert-base-ls960"));
    // Said before anything is asked of the hub.
    for name in ["t5-small", "google-t5/t5-large", "wav2vec2-base"] {
        let told = refused(folder.path(), &["download", name]);
        assert!(told.contains("is not read here"), "{told}");
    }
    assert!(refused(folder.path(), &["models", "pythai-70m"]).contains("the nearest are pythia-70m"));
    assert!(refused(folder.path(), &["models", "zzzzzz"]).contains("none is like it"));
    let told = refused(folder.path(), &["prompt", "gtp2", "Hi", "--device", "cpu"]);
    assert!(told.contains("gtp2") && told.contains("gpt2"), "{told}");
    let told = refused(folder.path(), &["download", "gpt2"]);
    assert!(told.contains("not in the cache") && told.contains("HF_HUB_OFFLINE"), "{told}");
    assert!(refused(folder.path(), &["download", "model"]).contains("on this machine already"));
    assert!(refused(folder.path(), &["inspect", "cache", "--device", "cpu"]).contains("cache"));
}

#[test]
fn a_model_writes_on_and_says_how_fast() {
    let folder = folder();
    let base = ["generate", "model", PROMPT, "--device", "cpu", "--max-new-tokens", "5", "--ignore-eos"];
    let with = |more: &[&str]| ironlens(folder.path(), &[&base[..], more].concat());
    let greedy = with(&["--greedy"]);
    let text = done(&greedy);
    assert!(text.starts_with(PROMPT) && text.len() > PROMPT.len() + 5, "{text}");
    let told = String::from_utf8_lossy(&greedy.stderr).into_owned();
    assert!(told.contains("prompt: 15 tokens") && told.contains("continuation: 5 tokens"), "{told}");
    assert_eq!(done(&with(&["--greedy"])), text);
    assert_eq!(done(&with(&["--top-k", "1", "--seed", "4"])), text, "the likeliest of one");
    assert_eq!(done(&with(&["--seed", "4"])), done(&with(&["--seed", "4"])));
    assert_ne!(done(&with(&["--seed", "4"])), done(&with(&["--seed", "5"])));
    let lines: Vec<Value> =
        done(&with(&["--greedy", "--json"])).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    let written: String = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(format!("{PROMPT}{written}\n"), text);
    assert!(lines.iter().all(|line| line["log_prob"].as_f64().unwrap() < 0.0));
    let stop = lines[2]["text"].as_str().unwrap();
    let stopped = done(&with(&["--greedy", "--stop", stop]));
    assert!(text.starts_with(stopped.trim_end()) && !stopped[PROMPT.len()..].contains(stop), "{stopped}");

    for (more, part) in [
        (&["--temperature", "-1"][..], "temperature is -1"),
        (&["--top-p", "2"], "top_p is 2"),
        (&["--steer", "nowhere.gguf:1"], "nowhere.gguf"),
        (&["--steer", "x.gguf"], "FILE:COEFFICIENT"),
        (&["--chat"], "its model was not made for chats"),
        (&["--stop", ""], "stop string is empty"),
        (&["--checkpoint", "5"], "on this machine"),
        (&["--revision", "main"], "on this machine"),
    ] {
        let told = refused(folder.path(), &[&base[..], more].concat());
        assert!(told.contains(part), "{told}");
    }
    let long = "word ".repeat(40);
    for command in ["generate", "prompt"] {
        let told = refused(folder.path(), &[command, "model", &long, "--device", "cpu"]);
        assert!(told.contains("32"), "{told}");
    }
    let none = ironlens(folder.path(), &["generate", "model", PROMPT, "--device", "cpu", "--max-new-tokens", "0"]);
    assert_eq!(done(&none).trim_end(), PROMPT);
    assert!(!String::from_utf8_lossy(&none.stderr).contains("a second"), "nothing was timed");
}

#[test]
fn a_vector_is_made_and_steers() {
    let folder = folder();
    let put = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    put("good.txt", "I love this\nThis is wonderful\n\n");
    put("bad.txt", "I hate this\nThis is awful\n");
    put("none.txt", "\n");
    let make = |out: &str| {
        ["steer", "model", "--positive", "good.txt", "--negative", "bad.txt", "--device", "cpu", "--out", out]
            .map(String::from)
    };
    for out in ["v.safetensors", "v.gguf"] {
        let text = done(&ironlens(folder.path(), &make(out)));
        assert!(
            text.contains("2 prompts less 2") && text.contains("layer   1") && !text.contains("layer   0"),
            "{text}"
        );
    }
    let base = ["generate", "model", PROMPT, "--device", "cpu", "--max-new-tokens", "5", "--ignore-eos", "--greedy"];
    let with = |more: &[&str]| done(&ironlens(folder.path(), &[&base[..], more].concat()));
    assert_eq!(with(&["--steer", "v.gguf:0"]), with(&[]));
    assert_ne!(with(&["--steer", "v.gguf:300"]), with(&[]));
    assert_eq!(with(&["--steer", "v.gguf:300"]), with(&["--steer", "v.safetensors:100@1", "--steer", "v.gguf:200"]));
    let compared = with(&["--steer", "v.gguf:300", "--compare", "--figure", "moved.svg"]);
    assert!(std::fs::read_to_string(folder.path().join("moved.svg")).unwrap().contains("How far steering moved"));
    assert!(compared.contains(with(&[]).trim()) && compared.contains(with(&["--steer", "v.gguf:300"]).trim()));
    let moved: Vec<f64> = compared
        .lines()
        .skip_while(|line| !line.starts_with("nats"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .map(|line| line.trim().split("  ").next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(moved.len(), 5, "{compared}");
    assert!(moved.iter().all(|kl| *kl > 0.0), "{compared}");
    let dose =
        ["--dose", PROMPT, "--answer", " Mary", "--wrong", " John", "--coefficients=-1,0,2", "--figure", "d.svg"];
    let doses = done(&ironlens(folder.path(), &[&make("v.gguf")[..], &dose.map(String::from)].concat()));
    let rows: Vec<Vec<f64>> = doses
        .lines()
        .skip_while(|line| !line.starts_with("coefficient"))
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .map(|line| line.split_whitespace().map(|x| x.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), [-1.0, 0.0, 2.0], "{doses}");
    assert!(rows[1][2] == 0.0 && rows[0][2] >= 0.0 && rows[2][2] >= 0.0, "{doses}");
    assert!(std::fs::read_to_string(folder.path().join("d.svg")).unwrap().contains("Dose and response"));
    let told = refused(folder.path(), &[&base[..], &["--steer", "v.gguf:1@7"]].concat());
    assert!(told.contains("layers 0 to 1"), "{told}");
    let told = refused(folder.path(), &make("v.txt"));
    assert!(told.contains(".safetensors or .gguf"), "{told}");
    let empty = ["steer", "model", "--positive", "none.txt", "--negative", "bad.txt", "--device", "cpu"];
    assert!(refused(folder.path(), &empty).contains("no prompts"));
}

#[test]
fn predictions_are_measured() {
    let folder = folder();
    std::fs::write(folder.path().join("text.txt"), format!("{PROMPT}. ").repeat(6)).unwrap();
    let base = ["eval", "model", "--device", "cpu", "--json"];
    let with = |more: &[&str]| -> Vec<Value> {
        let out = done(&ironlens(folder.path(), &[&base[..], more].concat()));
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let text = with(&["--text", "text.txt", "--tokens"]);
    let (tokens, whole) = text.split_at(text.len() - 1);
    let losses: Vec<f64> = tokens.iter().filter_map(|t| t["loss"].as_f64()).collect();
    let mean = losses.iter().sum::<f64>() / losses.len() as f64;
    assert_eq!(whole[0]["tokens"], losses.len());
    assert!((whole[0]["loss"].as_f64().unwrap() - mean).abs() < 1e-6);
    assert!((whole[0]["perplexity"].as_f64().unwrap() - mean.exp()).abs() < 1e-2);
    let said: String = tokens.iter().map(|t| t["token"].as_str().unwrap()).collect();
    assert_eq!(said, format!("{PROMPT}. ").repeat(6), "every token of a text longer than the context");
    let random = with(&["--induction", "--ioi", "6"]);
    assert_eq!((random[0]["subseq_len"].as_u64(), random[1]["prompts"].as_u64()), (Some(16), Some(6)));
    assert!((0.0..=1.0).contains(&random[1]["ioi_accuracy"].as_f64().unwrap()));
    assert!(refused(folder.path(), &["eval", "model"]).contains("--text"));
}

#[test]
fn an_encoder_guesses_masked_words_and_is_inspected() {
    let reference = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/encoders");
    let folder = tempfile::tempdir().unwrap();
    let hf = reference.join("bert_masked/hf").to_string_lossy().into_owned();
    let base = ["prompt", &hf, "The cat sat on the [MASK].", "--device", "cpu"];
    let text = done(&ironlens(folder.path(), &base));
    assert!(text.contains("\"[MASK]\"") && text.contains("mask at position 6"), "{text}");
    assert_eq!(text.matches('%').count(), 10);
    let args = [&base[..], &["--answer", " mat", "--wrong", "dog", "--json"]].concat();
    let json: Value = serde_json::from_str(&done(&ironlens(folder.path(), &args))).unwrap();
    let mask = &json["masks"][0];
    assert!(mask["answer"]["token"] == "mat" && mask["logit_difference"].is_number(), "{json}");
    let best = mask["top"][0]["token"].as_str().unwrap();
    let text = done(&ironlens(folder.path(), &[&base[..], &["--answer", best]].concat()));
    assert!(text.contains(&format!("Rank of {best:?}: 0")), "{text}");
    let told = refused(folder.path(), &[&base[..], &["--answer", "mats"]].concat());
    assert!(told.contains("not one token"), "{told}");
    assert!(refused(folder.path(), &["prompt", &hf, "no mask", "--device", "cpu"]).contains("[MASK]"));
    let sentence = reference.join("bert_sentence/hf").to_string_lossy().into_owned();
    let told = refused(folder.path(), &["prompt", &sentence, "a [MASK]", "--device", "cpu"]);
    assert!(told.contains("no masked-language head"), "{told}");

    let text = done(&ironlens(folder.path(), &["inspect", &hf, "--device", "cpu"]));
    for words in ["HookedEncoder(", "embed.token_type_embed.W_token_type", "ok   residual stream", "ok   vocabulary"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let output = ironlens(folder.path(), &["inspect", &hf, "--device", "cpu", "--no-processing"]);
    done(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--no-processing changes nothing"), "{output:?}");
    let told = refused(folder.path(), &["analyze", &hf, "--text", "a [MASK]", "--answer", "dog", "--device", "cpu"]);
    assert!(told.contains("HookedEncoder::from_pretrained"), "{told}");
    let cases = reference.to_string_lossy().into_owned();
    let text = done(&ironlens(folder.path(), &["verify", &cases]));
    assert!(text.contains("tl/cache") && text.contains("sentence/default"), "{text}");
}
