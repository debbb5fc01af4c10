//! What a user may give by mistake: each is an error with a way out, never a panic or a wait.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const SMALL: &str = "[model]\nd_model = 8\nd_head = 4\nn_heads = 2\nd_mlp = 16\nn_ctx = 8\nd_vocab = 20\n";

fn ironlens(folder: &Path, args: &[impl AsRef<OsStr>]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ironlens")).args(args).current_dir(folder).output().expect("the command runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The message of a command that fails as a command should.
fn refused(folder: &Path, args: &[impl AsRef<OsStr>]) -> String {
    let output = ironlens(folder, args);
    let told = text(&output.stderr);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?}: {told}", output.status);
    assert!(!told.contains("panicked"), "{told}");
    told
}

fn done(output: &Output) -> (String, String) {
    assert!(output.status.success(), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

/// A folder with the run of a small model in `run`.
fn small_run() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), SMALL).unwrap();
    let train = ["train", "--preset", "tiny", "--config", "c.toml", "--steps", "3", "--batch-size", "2"];
    done(&ironlens(folder.path(), &[&train[..], &["--device", "cpu", "--out", "run"]].concat()));
    folder
}

/// The weights file of that run.
const WEIGHTS: &str = "checkpoints/step-000003/weights.safetensors";

/// Puts a number into a tensor of a safetensors file.
fn set(file: &Path, tensor: &str, value: f32) {
    let mut bytes = std::fs::read(file).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let at = 8 + size + header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn numbers_that_cannot_be_say_what_could() {
    let folder = tempfile::tempdir().unwrap();
    for (args, expected) in [
        (["train", "--steps", "-1"], "expected a whole number from 1"),
        (["train", "--steps", "0"], "expected a whole number from 1"),
        (["train", "--steps", "18446744073709551616"], "expected a whole number below 2^64"),
        (["train", "--batch-size", "1.5"], "expected a whole number from 1"),
        (["train", "--seed", "-7"], "expected a whole number from 0"),
        (["train", "--lr", "-1e-3"], "expected a finite number above 0"),
        (["train", "--lr", "nan"], "expected a finite number above 0"),
        (["inspect", "--first-n-layers", "0"], "expected a whole number from 1"),
        (["inspect", "--n-ctx", "many"], "expected a whole number from 1"),
        (["download", "--checkpoint", "-1"], "expected a whole number from 0"),
        (["generate", "--max-new-tokens", "-1"], "expected a whole number from 0"),
        (["generate", "--top-k", "0"], "expected a whole number from 1"),
        (["generate", "--seed", "-1"], "expected a whole number from 0"),
        (["generate", "--temperature", "hot"], "expected a finite number"),
        (["generate", "--top-p", "inf"], "expected a finite number"),
        (["generate", "--min-p", "nan"], "expected a finite number"),
        (["eval", "--induction", "-1"], "expected a whole number from 1"),
        (["eval", "--ioi", "-1"], "expected a whole number from 1"),
        (["eval", "--seed", "x"], "expected a whole number from 0"),
        (["steer", "--coefficients", "inf"], "expected a finite number"),
        (["bench", "--repeats", "0"], "expected a whole number from 1"),
        (["bench", "--repeats", "-2"], "expected a whole number from 1"),
        (["bench", "--beside=true", "--rounds=0"], "expected a whole number from 1"),
    ] {
        let told = refused(folder.path(), &args);
        assert!(told.contains(expected) && told.contains(args[2].trim_start_matches("--rounds=")), "{args:?}: {told}");
    }
    for (setting, expected) in [
        ("steps = -1", "[train] steps = -1 cannot be: got integer `-1`, expected a whole number from 0"),
        ("steps = 1.5", "expected a whole number from 0"),
        ("batch_size = 'many'", "expected a whole number from 0"),
        ("lr = 'fast'", "[train] lr = \"fast\" cannot be: got string \"fast\", expected a number"),
        ("betas = [0.9]", "expected a list of two numbers"),
        ("schedule = 'none'", "expected one of `constant`"),
        ("warmup_steps = -5", "[train] warmup_steps = -5 cannot be"),
        ("task = 'sing'", "expected `previous-token` or `next-token`"),
        ("data_seed = -1", "[train] data_seed = -1 cannot be"),
        (
            "eval_batch_size = 1000000000",
            "eval_batch_size = 1000000000 cannot be: expected a batch that fits into memory",
        ),
        ("batch_size = 1000000000", "batch_size = 1000000000 cannot be: expected a batch that fits into memory"),
        ("accumulate = 1000000000", "accumulate = 1000000000 cannot be: expected at most 1000000"),
        ("stepz = 3", "unknown field `stepz`, expected one of"),
        ("stepz = 3", "task, seed, data_seed; the nearest is steps"),
        ("data_sed = 3", "the nearest is data_seed"),
        ("momentum = 0.9", "[train] momentum goes with optimizer = \"sgd\"; nothing reads it here"),
        ("optimizer = 'sgd'\nbetas = [0.9, 0.99]", "[train] betas goes with optimizer = \"adamw\" or \"adam\""),
        ("optimizer = 'sgd'\neps = 1e-8", "[train] eps goes with"),
        ("warmup_steps = 5", "[train] warmup_steps goes with schedule = \"warmup\" or \"cosine\""),
    ] {
        std::fs::write(folder.path().join("c.toml"), format!("[train]\n{setting}\n")).unwrap();
        let told = refused(folder.path(), &["train", "--config", "c.toml", "--device", "cpu"]);
        assert!(told.contains(expected), "{setting}: {told}");
        assert!(!["u64", "usize", "f64"].iter().any(|t| told.contains(t)), "{told}");
    }
}

#[test]
fn settings_of_a_model_that_cannot_be_are_named_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    for (setting, expected) in [
        ("normalization_type = nan", "[model] normalization_type = NaN cannot be: expected a finite value"),
        ("n_heads = inf", "[model] n_heads = inf cannot be"),
        ("attn_types = ['local', nan]", "[model] attn_types = NaN cannot be"),
        ("seed = -inf", "[model] seed = -inf cannot be"),
        ("n_layers = 1000000000", "`n_layers` is 1000000000: the model's weights would take"),
        ("n_ctx = 1000000000", "`n_ctx` is 1000000000: the model's weights would take"),
        ("device = 'cuda'", "[model] has a device; say with --device where to compute"),
        ("d_vocab_out = 1000000000000000", "`d_vocab_out` is 1000000000000000: the model's weights would take"),
    ] {
        std::fs::write(folder.path().join("c.toml"), format!("[model]\n{setting}\n")).unwrap();
        let told = refused(folder.path(), &["train", "--config", "c.toml", "--device", "cpu", "--out", "run"]);
        assert!(told.contains(expected), "{setting}: {told}");
        assert!(!folder.path().join("run").exists(), "{setting}");
    }
}

#[test]
fn what_a_flag_makes_of_a_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), format!("{SMALL}[train]\nwarmup_steps = 1\n")).unwrap();
    let train = ["train", "--preset", "tiny", "--config", "c.toml", "--steps", "2", "--device", "cpu", "--out", "run"];
    let told = refused(folder.path(), &[&train[..], &["--schedule", "constant"]].concat());
    assert!(told.contains("[train] warmup_steps goes with schedule"), "{told}");
    assert!(!folder.path().join("run").exists());
    done(&ironlens(folder.path(), &[&train[..], &["--schedule", "cosine"]].concat()));
}

#[test]
fn the_seed_of_a_model_is_used_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let run = |seeds: &str, flags: &[&str], out: &str| {
        std::fs::write(folder.path().join("c.toml"), SMALL.replace("[model]", &format!("[model]\n{seeds}"))).unwrap();
        let train = ["train", "--preset", "tiny", "--config", "c.toml", "--steps", "1", "--batch-size", "2"];
        done(&ironlens(folder.path(), &[&train[..], &["--device", "cpu", "--out", out], flags].concat()));
        let weights = folder.path().join(out).join("checkpoints/step-000001/weights.safetensors");
        (std::fs::read(weights).unwrap(), std::fs::read_to_string(folder.path().join(out).join("config.json")).unwrap())
    };
    let (own, config) = run("seed = 7", &[], "own");
    assert!(config.contains("\"seed\": 7"), "{config}");
    assert!(run("", &["--seed", "7"], "flag").0 == own);
    assert!(run("seed = 9", &["--seed", "7"], "both").0 == own);
    assert!(run("", &[], "none").0 != own);
}

#[test]
fn flags_without_effect_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for args in [
        &["train", "--resume", "run", "--steps", "3"][..],
        &["train", "--resume", "run", "--config", "c.toml"],
        &["pipeline", "--resume", "run", "--out", "other"],
        &["bench", "--self-test", "step"],
        &["bench", "--rounds", "3"],
        &["bench", "--self-test", "--profile"],
    ] {
        let output = ironlens(folder.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    }
    let run = small_run();
    let told = refused(run.path(), &["analyze", "run", "--config", "c.toml", "--device", "cpu"]);
    assert!(told.contains("a run has its own configuration"), "{told}");
    for flag in [&["--n-ctx", "4"][..], &["--first-n-layers", "1"], &["--no-processing"], &["--dtype", "f64"]] {
        for target in ["run", &format!("run/{WEIGHTS}")] {
            let told = refused(run.path(), &[&["analyze", target, "--device", "cpu"], flag].concat());
            assert!(told.contains(&format!("{} goes with --text", flag[0])), "{told}");
        }
    }
    let told = refused(run.path(), &["analyze", "run", "--text", "a text", "--device", "cpu"]);
    assert!(told.contains("run is a run") && told.contains("leave --text out"), "{told}");
}

// Apple's file system refuses such names.
#[cfg(all(unix, not(target_vendor = "apple")))]
#[test]
fn names_of_files_may_be_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let folder = small_run();
    let name = OsStr::from_bytes(b"run-\xff");
    let train = ["train", "--preset", "tiny", "--config", "c.toml", "--steps", "2", "--device", "cpu", "--out"];
    let train: Vec<&OsStr> = train.iter().map(OsStr::new).chain([name]).collect();
    done(&ironlens(folder.path(), &train));
    done(&ironlens(folder.path(), &[OsStr::new("report"), name]));
    assert!(folder.path().join(name).join("report.html").exists());
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let folder = small_run();
    let analyze = ["analyze", "w.safetensors", "--config", "c.json", "--device", "cpu", "--json", "a.json"];
    let run: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("run/config.json")).unwrap()).unwrap();
    std::fs::write(folder.path().join("c.json"), run["model"].to_string()).unwrap();
    let weights = folder.path().join("w.safetensors");
    for (value, name) in [(f32::NAN, "blocks.1.mlp.W_in"), (f32::INFINITY, "blocks.0.attn.W_Q")] {
        std::fs::copy(folder.path().join("run").join(WEIGHTS), &weights).unwrap();
        set(&weights, name, value);
        let told = refused(folder.path(), &analyze);
        assert!(told.contains(&format!("weights of {name} are not finite")), "{told}");
    }

    // Numbers so large that products overflow: what is found is kept, as it is.
    std::fs::copy(folder.path().join("run").join(WEIGHTS), &weights).unwrap();
    for name in ["blocks.0.attn.W_V", "blocks.0.attn.W_O", "embed.W_E", "unembed.W_U"] {
        set(&weights, name, 3e38);
    }
    done(&ironlens(folder.path(), &analyze));
    let found = std::fs::read_to_string(folder.path().join("a.json")).unwrap();
    assert!(found.contains("\"NaN\"") && !found.contains(",null") && !found.contains("[null"));
    // A run can keep it, and one that was written with nulls for such numbers is read, too.
    for kept in [found.clone(), found.replace("\"NaN\"", "null")] {
        std::fs::write(folder.path().join("run/analysis.json"), kept).unwrap();
        done(&ironlens(folder.path(), &["report", "run"]));
    }
    let page = std::fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    assert!(page.contains("not finite (NaN or infinite)"), "figures say what they cannot show");
}

#[test]
fn a_report_warns_of_a_model_that_overflows() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("c.toml"), SMALL).unwrap();
    // One step of such a length leaves weights whose products are no numbers.
    let train = ["train", "--preset", "tiny", "--config", "c.toml", "--steps", "1", "--lr", "1e30", "--schedule"];
    done(&ironlens(folder.path(), &[&train[..], &["constant", "--device", "cpu", "--out", "run"]].concat()));
    let (_, told) = done(&ironlens(folder.path(), &["report", "run"]));
    assert!(told.contains("warning: The activation") && told.contains("is not finite"), "{told}");
    let page = std::fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    assert!(page.contains("is not finite: what is computed from it means nothing"));
}

#[test]
fn a_run_that_cannot_be_written_to_is_analysed_with_out() {
    let folder = small_run();
    // A folder in the place of the file stops also a user who may write anywhere.
    std::fs::create_dir_all(folder.path().join("run/analysis.json/x")).unwrap();
    let told = refused(folder.path(), &["analyze", "run", "--device", "cpu"]);
    assert!(told.contains("name a page with --out"), "{told}");
    let (_, told) = done(&ironlens(folder.path(), &["analyze", "run", "--device", "cpu", "--out", "page.html"]));
    assert!(told.contains("warning: the analysis is not kept in the run"), "{told}");
    let page = std::fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("Which heads build on which"));
    assert!(!folder.path().join("run/report.html").exists());
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_no_files() {
    let folder = small_run();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in ["pipe", "/dev/zero", "run"] {
        for args in [
            &["train", "--device", "cpu", "--config", path][..],
            &["analyze", "--device", "cpu", &format!("run/{WEIGHTS}"), "--config", path],
            &["bench", "--device", "cpu", "--against", path],
        ] {
            let told = refused(folder.path(), args);
            assert!(told.contains("it is not an ordinary file"), "{args:?}: {told}");
        }
    }
    let told = refused(folder.path(), &["analyze", "--device", "cpu", "pipe"]);
    assert!(told.contains("pipe is not an ordinary file"), "{told}");
    // A configuration may come through a pipe that is ours.
    let config = std::fs::File::open(folder.path().join("c.toml")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_ironlens"))
        .args([
            "train",
            "--preset",
            "tiny",
            "--config",
            "/dev/stdin",
            "--steps",
            "1",
            "--device",
            "cpu",
            "--out",
            "piped",
        ])
        .current_dir(folder.path())
        .stdin(config)
        .output()
        .unwrap();
    done(&output);
}

#[test]
fn errors_of_the_system_are_told_once_with_a_way_out() {
    let folder = small_run();
    let told = refused(folder.path(), &["train", "--config", "none.toml", "--device", "cpu"]);
    assert!(told.contains("cannot read the configuration none.toml") && told.contains("try: check the path"), "{told}");
    let missing = std::fs::read(folder.path().join("none.toml")).unwrap_err().to_string();
    assert_eq!(told.matches(&missing).count(), 1, "{told}");
    let told = refused(folder.path(), &["report", "run", "--out", "c.toml/page.html"]);
    assert_eq!(told.matches("os error").count(), 1, "{told}");
    // A text of any length in a file makes no message of any length.
    let long = format!("[model]\nact_fn = '{}'\n", "x".repeat(10_000_000));
    std::fs::write(folder.path().join("long.toml"), long).unwrap();
    let told = refused(folder.path(), &["train", "--config", "long.toml", "--device", "cpu"]);
    assert!(told.contains("act_fn") && told.len() < 5000, "{} characters", told.len());
}

#[cfg(target_os = "linux")]
#[test]
fn threads_that_cannot_be_started_are_told() {
    let folder = tempfile::tempdir().unwrap();
    // No machine has memory for such a stack.
    let output = Command::new(env!("CARGO_BIN_EXE_ironlens"))
        .args(["train", "--preset", "tiny", "--device", "cpu"])
        .env("RUST_MIN_STACK", (1u64 << 61).to_string())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot start the threads") && told.contains("RAYON_NUM_THREADS"), "{told}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

/// The bytes of a safetensors file with one tensor.
fn one_tensor(name: &str, dtype: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let entry = serde_json::json!({ name: { "dtype": dtype, "shape": shape, "data_offsets": [0, data.len()] } });
    let header = entry.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn reference_cases_of_odd_shapes_say_what_is_odd() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/gpt2_ln");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "weights.safetensors", "inputs.safetensors", "expected.safetensors"] {
        std::fs::copy(case.join(file), folder.path().join(file)).unwrap();
    }
    let verify = |file: &str, bytes: Vec<u8>| {
        let place = folder.path().join(file);
        let whole = std::fs::read(&place).unwrap();
        std::fs::write(&place, bytes).unwrap();
        let output = ironlens(folder.path(), &["verify", ".", "--json"]);
        std::fs::write(&place, whole).unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let ids = |ids: &[i64]| ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>();
    let numbers = |x: &[f32]| x.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    for (shape, given) in [(&[3][..], ids(&[1, 2, 3])), (&[0, 4], vec![]), (&[1, 1, 2], ids(&[1, 2]))] {
        let told = verify("inputs.safetensors", one_tensor("tokens", "I64", shape, &given));
        assert!(told.contains("expected [batch, pos]"), "{told}");
    }
    for (id, expected) in
        [(-1, "-1 in `tokens` is not an id"), (1 << 40, "is not an id"), (4000, "outside of the vocabulary")]
    {
        let told = verify("inputs.safetensors", one_tensor("tokens", "I64", &[1, 2], &ids(&[1, id])));
        assert!(told.contains(expected), "{told}");
    }
    for (name, shape, given, expected) in [
        ("patch/corrupted_tokens", &[2][..], numbers(&[1.0, 2.0]), "the tokens have"),
        ("train/tokens", &[], numbers(&[1.0]), "expected [step, batch, pos]"),
        ("train/tokens", &[1, 1, 2], numbers(&[0.5, 1.0]), "0.5 is not a token id"),
        ("train/tokens", &[1, 1, 2], numbers(&[-1.0, 1.0]), "-1 is not a token id"),
        ("ablate_head/blocks.0.attn.hook_z.99", &[1], numbers(&[1.0]), "there is no head 99"),
        ("stop_at_layer/99", &[1], numbers(&[1.0]), "99"),
        ("lens/nothing", &[1], numbers(&[1.0]), "nothing is no method"),
    ] {
        let told = verify("expected.safetensors", one_tensor(name, "F32", shape, &given));
        assert!(told.contains(expected), "{name}: {told}");
    }
    // One sequence where cases have three, and detectors look at the second.
    std::fs::write(folder.path().join("inputs.safetensors"), one_tensor("tokens", "I64", &[1, 2], &ids(&[1, 2])))
        .unwrap();
    for (name, expected) in [
        ("detect/induction_head/mul", "there is only row 0"),
        ("lens/logit_attrs", "this case has 1"),
        ("patch/corrupted_tokens", "this case has 1"),
    ] {
        let told = verify("expected.safetensors", one_tensor(name, "F32", &[1], &numbers(&[1.0])));
        assert!(told.contains(expected), "{name}: {told}");
    }
}
