//! The command as a user runs it: exit codes, messages, Ctrl-C.

use std::path::Path;
use std::process::{Command, Output};

fn ironlens(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ironlens")).args(args).current_dir(folder).output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn errors_go_to_stderr_with_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    // No adapter has this name, whatever the machine.
    let gpu = Command::new(env!("CARGO_BIN_EXE_ironlens"))
        .args(["train", "--preset", "tiny", "--device", "gpu"])
        .env("IRONLENS_ADAPTER", "no such adapter")
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(gpu.status.code(), Some(1));
    let told = text(&gpu.stderr);
    assert!(told.contains("error: no GPU can be used") && told.contains("try: --device cpu"), "{told}");
    let usage = ironlens(folder.path(), &["train", "--stepz", "3"]);
    assert_eq!(usage.status.code(), Some(2));
    assert!(text(&usage.stderr).contains("--steps"), "{}", text(&usage.stderr));
    let none = ironlens(folder.path(), &["report"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("train one first"), "{}", text(&none.stderr));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    for command in ["train", "report", "pipeline", "analyze", "verify", "devices", "bench"] {
        let help = ironlens(folder.path(), &[command, "--help"]);
        assert!(help.status.success() && text(&help.stdout).contains("Usage:"), "{command}");
    }
}

#[test]
fn why_no_gpu_is_taken_is_said_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_ironlens"))
            .args(args)
            .env("IRONLENS_ADAPTER", "no such adapter")
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("HOME")
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let auto = run(&["train", "--preset", "tiny", "--steps", "1", "--device", "auto"]);
    assert!(auto.status.success(), "{}", text(&auto.stderr));
    let told = text(&auto.stdout);
    assert!(told.contains("no GPU can be used: IRONLENS_ADAPTER asks for `no such adapter`"), "{told}");
    assert!(told.contains("weights on cpu"), "{told}");
    let devices = run(&["devices"]);
    assert!(devices.status.success() && text(&devices.stdout).contains("--device auto takes cpu"));
    // Drivers that miss a desktop do not tell it here.
    assert_eq!((text(&auto.stderr), text(&devices.stderr)), (String::new(), String::new()));
}

#[test]
fn a_disagreeing_case_fails_and_json_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/vocab_out");
    for file in ["config.json", "inputs.safetensors", "expected.safetensors"] {
        std::fs::copy(case.join(file), folder.path().join(file)).unwrap();
    }
    // The weights of another model with the same shapes but for one.
    std::fs::copy(case.join("../gpt2_ln/weights.safetensors"), folder.path().join("weights.safetensors")).unwrap();
    let out = ironlens(folder.path(), &["verify", ".", "--json"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stdout).contains("`unembed.W_U` has shape [32, 29]"), "{}", text(&out.stdout));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(json["passed"] == false && json["groups"][0]["error"] == "inf", "{json}");
    let fine = ironlens(folder.path(), &["verify", case.to_str().unwrap()]);
    assert!(fine.status.success() && text(&fine.stdout).contains(" 0 do not"), "{}", text(&fine.stdout));
    assert!(!text(&fine.stdout).contains('\x1b'), "no colours in a pipe");
}

#[test]
fn an_analysis_stays_with_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let train = ["train", "--preset", "tiny", "--steps", "20", "--batch-size", "4", "--device", "cpu", "--out", "run"];
    assert!(ironlens(folder.path(), &train).status.success());
    let again = ironlens(folder.path(), &train);
    let told = text(&again.stderr);
    assert!(told.contains("run is not empty") && told.contains("--out") && told.contains("--resume run"), "{told}");
    let out = ironlens(folder.path(), &["analyze", "run", "--device", "cpu", "--json", "a.json"]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
    let json = read("a.json");
    for found in [
        "What each head attends to",
        "Direct logit attribution",
        "Where the answer is: patching",
        "What is needed: ablation",
        "Copying score",
        "Which heads build on which",
    ] {
        assert!(json.contains(found), "no {found}");
    }
    assert!(!json.contains("Not available"), "every analysis fits this model");
    // The report keeps it when it is written again.
    assert!(ironlens(folder.path(), &["report", "run"]).status.success());
    assert!(read("run/report.html").contains("Which heads build on which"));
    // Several runs become one page, beside the first.
    let both = ironlens(folder.path(), &["report", "run", "run"]);
    assert!(both.status.success() && text(&both.stdout).contains("run (2): "), "{}", text(&both.stderr));
    assert!(read("comparison.html").contains("Their settings are the same"));

    let weights = folder.path().join("run/checkpoints/step-000020/weights.safetensors");
    std::fs::copy(weights, folder.path().join("w.safetensors")).unwrap();
    let none = ironlens(folder.path(), &["analyze", "w.safetensors", "--device", "cpu"]);
    assert!(!none.status.success() && text(&none.stderr).contains("--config"), "{}", text(&none.stderr));
    let missing = ironlens(folder.path(), &["analyze", "nothing", "--device", "cpu"]);
    assert!(text(&missing.stderr).contains("nothing does not exist"), "{}", text(&missing.stderr));
}

#[test]
fn benchmarks_have_the_keys_that_others_compare_with() {
    let folder = tempfile::tempdir().unwrap();
    let bench = ironlens(folder.path(), &["bench", "forward", "--repeats", "1", "--device", "cpu", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&bench.stdout).expect("JSON");
    for key in ["forward_b1", "forward_b8"] {
        assert!(json[key]["median"].as_f64().unwrap() > 0.0 && json[key]["min"].as_f64().is_some(), "{key}");
    }
    std::fs::write(folder.path().join("other.json"), r#"{"forward_b1": {"median": 1000.0, "min": 1.0}}"#).unwrap();
    let against =
        ironlens(folder.path(), &["bench", "forward", "--repeats", "1", "--device", "cpu", "--against", "other.json"]);
    assert!(text(&against.stdout).contains("theirs / ours"), "{}", text(&against.stdout));
    std::fs::write(folder.path().join("bad.json"), "{}").unwrap();
    let bad = ironlens(folder.path(), &["bench", "forward", "--device", "cpu", "--against", "bad.json"]);
    assert!(!bad.status.success() && text(&bad.stderr).contains("bad.json"), "{}", text(&bad.stderr));
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error_to_shout_about() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/vocab_out");
    let mut child = Command::new(env!("CARGO_BIN_EXE_ironlens"))
        .args(["verify", "--device", "cpu", case.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_run_that_goes_on_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[model]\nd_model = 16\nd_head = 8\nn_heads = 2\nd_mlp = 32\nn_ctx = 8\n";
    std::fs::write(folder.path().join("c.toml"), config).unwrap();
    let train = ["train", "--preset", "tiny", "--config", "c.toml", "--steps", "2000", "--log-every", "50"];
    let train = [&train[..], &["--device", "cpu"]].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ironlens"))
        .args(&train)
        .args(["--out", "stopped"])
        .current_dir(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Once a checkpoint is there it is well on its way.
    let run = folder.path().join("stopped");
    while !run.join("checkpoints/step-000250").exists() {
        assert!(child.try_wait().unwrap().is_none(), "training ended before it was stopped");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("stopped after") && said.contains("train --resume stopped"), "{said}");
    assert!(ironlens(folder.path(), &["report", "stopped"]).status.success());
    let resumed = ironlens(folder.path(), &["train", "--resume", "stopped", "--device", "cpu"]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));

    let whole = ironlens(folder.path(), &[&train[..], &["--out", "whole"]].concat());
    assert!(whole.status.success());
    let weights = |run: &str| {
        let file = folder.path().join(run).join("checkpoints/step-002000/weights.safetensors");
        std::fs::read(file).unwrap()
    };
    assert!(weights("stopped") == weights("whole"), "the resumed run's weights differ");
}
