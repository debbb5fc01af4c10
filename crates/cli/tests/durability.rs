//! The command on a bad day: killed at random moments, on a full disk, twice at once, with nobody who reads its
//! output. Whatever happened, the run goes on to the bits of an undisturbed one.
//!
//! `IRONLENS_DURABILITY=N` kills N runs instead of a few.

#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

/// Nothing is the notebook's here: a run that went on with other settings than its own would show.
const CONFIG: &str = r#"
[model]
n_layers = 1
d_model = 8
d_head = 4
n_heads = 2
d_mlp = 12
n_ctx = 5
d_vocab = 7
[train]
task = "next-token"
steps = 400
batch_size = 3
lr = 0.004
schedule = "cosine"
weight_decay = 0.2
max_grad_norm = 0.3
seed = 5
data_seed = 6
checkpoint_every = 60
log_every = 150
eval_batch_size = 2
"#;

const TRAIN: [&str; 7] = ["train", "--preset", "tiny", "--config", "c.toml", "--device", "cpu"];

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("c.toml"), CONFIG).unwrap();
    folder
}

fn command(folder: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ironlens"));
    command.args(args).current_dir(folder.path()).env("RAYON_NUM_THREADS", "1");
    command
}

fn ironlens(folder: &TempDir, args: &[&str]) -> Output {
    command(folder, args).output().unwrap()
}

fn start(folder: &TempDir, args: &[&str]) -> Running {
    Running(command(folder, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn train<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&TRAIN[..], &["--out", out], more].concat()
}

#[track_caller]
fn assert_success(output: &Output) {
    assert!(output.status.success(), "{:?}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is the same whenever a run is done: the last weights and moments, the snapshots, and the lines but for seconds.
#[derive(PartialEq)]
struct Outcome {
    tensors: Vec<(PathBuf, Vec<u8>)>,
    lines: Vec<String>,
}

fn outcome(run: &Path) -> Outcome {
    let mut files = vec![run.join("checkpoints/step-000400/weights.safetensors")];
    files.push(run.join("checkpoints/step-000400/optimizer.safetensors"));
    let mut snapshots: Vec<_> = fs::read_dir(run.join("snapshots")).unwrap().map(|e| e.unwrap().path()).collect();
    snapshots.sort();
    files.extend(snapshots);
    let tensors = files.iter().map(|f| (f.strip_prefix(run).unwrap().into(), fs::read(f).unwrap())).collect();
    let lines = ["metrics.jsonl", "evals.jsonl"].map(|name| fs::read_to_string(run.join(name)).unwrap());
    let without_seconds = |line: &str| line.split(",\"seconds\"").next().unwrap().to_string();
    Outcome { tensors, lines: lines.iter().flat_map(|text| text.lines().map(without_seconds)).collect() }
}

#[track_caller]
fn assert_same(run: &Path, right: &Outcome) {
    let found = outcome(run);
    let names = |o: &Outcome| o.tensors.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(right));
    for (found, right) in found.tensors.iter().zip(&right.tensors) {
        assert!(found == right, "{} differs", found.0.display());
    }
    assert_eq!(found.lines, right.lines);
}

/// An undisturbed run, and how long it took.
fn undisturbed(folder: &TempDir) -> (Outcome, Duration) {
    let clock = Instant::now();
    assert_success(&ironlens(folder, &train("undisturbed", &[])));
    (outcome(&folder.path().join("undisturbed")), clock.elapsed())
}

fn goes_on(folder: &TempDir, run: &str, right: &Outcome) {
    assert_success(&ironlens(folder, &["train", "--resume", run, "--device", "cpu"]));
    assert_same(&folder.path().join(run), right);
}

#[test]
fn killed_at_any_moment_and_again_a_run_goes_on_to_the_same_bits() {
    let folder = folder();
    let (right, time) = undisturbed(&folder);
    let runs = std::env::var("IRONLENS_DURABILITY").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    // Any moments will do, and others each time.
    let mut random = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let mut next = |most: Duration| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        most.mul_f64((random >> 33) as f64 / (1u64 << 31) as f64)
    };
    for number in 0..runs {
        let name = format!("run-{number}");
        let run = folder.path().join(&name);
        // Half of the first kills come early, most of them before the first checkpoint.
        let child = start(&folder, &train(&name, &[]));
        std::thread::sleep(next(if number % 2 == 0 { time / 4 } else { time }));
        drop(child);
        for _ in 0..number % 3 {
            let args = ["train", "--resume", &name, "--device", "cpu"];
            let child = start(&folder, if run.join("config.json").exists() { &args } else { break });
            std::thread::sleep(next(time));
            drop(child);
        }
        let checkpoints = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
        let named = checkpoints.filter(|e| !e.file_name().to_string_lossy().ends_with(".tmp")).count();
        if run.join("checkpoints/step-000400").exists() {
            assert_same(&run, &right);
        } else if named == 0 && (number % 4 == 0 || !run.join("config.json").exists()) {
            // Nothing is lost with it, so that the folder can be had again.
            assert_success(&ironlens(&folder, &train(&name, &[])));
            assert_same(&run, &right);
        } else {
            goes_on(&folder, &name, &right);
        }
        fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn one_process_holds_a_run_until_it_ends_however_it_ends() {
    let folder = folder();
    let (right, _) = undisturbed(&folder);
    // One that takes half a minute, while others try.
    let mut child = start(&folder, &train("run", &["--steps", "30000"]));
    let run = folder.path().join("run");
    while !run.join("checkpoints/step-000060").exists() {
        assert!(child.0.try_wait().unwrap().is_none(), "training ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    let resume = ["train", "--resume", "run", "--device", "cpu"];
    let second = command(&folder, &resume).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut second = Running(second);
    let mut said = BufReader::new(second.0.stderr.take().unwrap()).lines();
    let refused = said.next().expect("it is refused").unwrap();
    assert!(refused.contains("is being trained by another process"), "{refused}");
    assert_eq!(second.0.wait().unwrap().code(), Some(1));
    drop(child);
    let mut third = start(&folder, &resume);
    std::thread::sleep(Duration::from_millis(500));
    assert!(third.0.try_wait().unwrap().is_none(), "the lock outlived its holder");
    drop(third);

    // Of three that start at once in one folder, one trains and the others are refused.
    let args = train("three", &[]);
    let all: Vec<Running> = (0..3).map(|_| start(&folder, &args)).collect();
    let codes: Vec<_> = all.into_iter().map(|mut c| c.0.wait().unwrap().code()).collect();
    assert_eq!(codes.iter().filter(|c| **c == Some(0)).count(), 1, "{codes:?}");
    assert_same(&folder.path().join("three"), &right);
}

#[test]
fn output_that_nobody_takes_ends_no_training() {
    let folder = folder();
    let (right, _) = undisturbed(&folder);
    if Path::new("/dev/full").exists() {
        let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let status = command(&folder, &train("full", &[])).stdout(full()).stderr(full()).status().unwrap();
        assert!(status.success(), "{status}");
        assert_same(&folder.path().join("full"), &right);
    }
    // As `train | head -1`, and the report after it.
    let args: Vec<&str> = train("pipe", &["--log-every", "1"]).into_iter().skip(1).collect();
    let mut child = command(&folder, &[&["pipeline"], &args[..]].concat());
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    let run = folder.path().join("pipe");
    assert!(run.join("report.html").exists());
    assert!(outcome(&run).tensors == right.tensors);
}

/// Whether this process ignores a signal, and with it those that it starts: as `nohup` has it, or a shell's `&`.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal - 1) & 1 == 1)
}

/// Sends a signal to a training that is under way; false if that was done before it came.
fn stopped_by(signal: &str, code: i32, folder: &TempDir, name: &str) -> bool {
    let mut child = command(folder, &train(name, &["--log-every", "1"]));
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("Epoch: 20:")));
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    let status = child.wait().unwrap();
    let says = |what: &str| rest.iter().any(|line| line.starts_with(what));
    if says("final loss") && !says("stopped after") {
        return false;
    }
    assert_eq!(status.code(), Some(code), "{status}");
    assert!(rest.iter().any(|line| line.contains("train --resume")), "{rest:?}");
    true
}

#[test]
fn a_signal_asks_a_training_to_stop_and_is_its_exit_status() {
    let folder = folder();
    let (right, _) = undisturbed(&folder);
    for (signal, code) in [("-INT", 130), ("-TERM", 143), ("-HUP", 129)] {
        if is_ignored(code - 128) {
            continue;
        }
        // On a busy machine the last step may be done before the signal comes: another run is stopped then.
        let mut names = (0..20).map(|attempt| format!("run{signal}-{attempt}"));
        let name = names.find(|name| stopped_by(signal, code, &folder, name)).expect("one is stopped in time");
        assert_success(&ironlens(&folder, &["train", "--resume", &name, "--device", "cpu"]));
        assert!(outcome(&folder.path().join(name)).tensors == right.tensors);
    }
}

#[test]
fn files_that_may_not_grow_lose_nothing() {
    let folder = folder();
    let (right, _) = undisturbed(&folder);
    // Blocks of 512 bytes or of 1024, by the shell: some let the first checkpoint be, some not even the configuration.
    for blocks in [1, 2, 4, 8, 16, 32, 64] {
        let name = format!("run-{blocks}");
        let args = train(&name, &[]);
        let script = format!("ulimit -f {blocks}; exec \"$@\"");
        let mut limited = Command::new("sh");
        limited.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_ironlens")]).args(&args);
        let output = limited.current_dir(folder.path()).env("RAYON_NUM_THREADS", "1").output().unwrap();
        let run = folder.path().join(&name);
        if !output.status.success() {
            // A shell that ignores SIGXFSZ makes it an error of the write.
            assert!(output.status.code() == Some(1) || output.status.signal().is_some(), "{:?}", output.status);
        }
        if run.join("config.json").exists() && !output.status.success() {
            goes_on(&folder, &name, &right);
        } else if !output.status.success() {
            assert_success(&ironlens(&folder, &args));
            assert_same(&run, &right);
        }
    }
}

#[test]
fn a_start_that_is_refused_or_fails_blocks_nothing() {
    let folder = folder();
    let (right, _) = undisturbed(&folder);
    let wild = ironlens(&folder, &train("run", &["--lr", "1e38", "--schedule", "constant", "--checkpoint-every", "1"]));
    assert_eq!(wild.status.code(), Some(1));
    assert!(text(&wild.stderr).contains("not finite"), "{}", text(&wild.stderr));
    assert_success(&ironlens(&folder, &train("run", &[])));
    assert_same(&folder.path().join("run"), &right);
    for steps in ["18446744073709551615", "10000000000000000000"] {
        let endless = ironlens(&folder, &train("endless", &["--steps", steps]));
        assert_eq!(endless.status.code(), Some(1));
        assert!(text(&endless.stderr).contains(&format!("steps = {steps} cannot be")), "{}", text(&endless.stderr));
        assert!(!folder.path().join("endless").exists());
    }
    // A report of a damaged run says what it left out.
    let run = folder.path().join("run");
    let weights = run.join("checkpoints/step-000400/weights.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_success(&ironlens(&folder, &["report", "run"]));
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("step-000400 is damaged") && page.contains("Training stopped after 360 of 400 steps"));
    let resumed = ironlens(&folder, &["train", "--resume", "run", "--device", "cpu"]);
    assert!(
        text(&resumed.stdout).contains("warning: the checkpoint step-000400 is damaged"),
        "{}",
        text(&resumed.stdout)
    );
    assert_same(&run, &right);
    let done = ironlens(&folder, &["train", "--resume", "run", "--device", "cpu"]);
    assert!(text(&done.stderr).contains("is complete"), "{}", text(&done.stderr));
}
