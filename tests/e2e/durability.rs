//! What a bad day leaves of a run: kills and power cuts between any two operations on files, failures of each,
//! damage of every file, two processes at once. Whatever happened, the run goes on to the bits of an undisturbed
//! one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use ironlens::prelude::*;
use ironlens::train::{Observer, Progress, Run, RunDir, TrainError, Trained};
use ironlens_files::watch::watch;
use tempfile::TempDir;

const STEPS: u64 = 12;

/// The seed of the starting weights.
const SEED: u64 = 11;

fn config() -> TrainConfig {
    TrainConfig {
        steps: STEPS,
        batch_size: 2,
        lr: 3e-3,
        checkpoint_every: 4,
        log_every: 5,
        eval_batch_size: 2,
        ..TrainConfig::notebook()
    }
}

fn model(seed: u64) -> HookedTransformer {
    let cfg = Config {
        d_model: 8,
        d_head: 4,
        n_heads: 2,
        n_layers: 1,
        n_ctx: 5,
        d_mlp: 12,
        d_vocab: 7,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    HookedTransformer::new(cfg, &Device::Cpu, seed).unwrap()
}

fn fit<'a>(
    trainer: Trainer<'a>,
    mut model: HookedTransformer,
    observer: &'a mut dyn Observer,
) -> Result<Run, TrainError> {
    let mut data = RandomTokens::new(model.config(), 2).unwrap();
    trainer.observe(observer).fit_model(&mut model, &mut data, previous_token_loss)
}

fn start(path: &Path) -> Result<Run, TrainError> {
    start_with(path, &mut ())
}

fn start_with(path: &Path, observer: &mut dyn Observer) -> Result<Run, TrainError> {
    fit(Trainer::new(config()).keep(path).drawn_from(SEED), model(SEED), observer)
}

/// Goes on with a model that was not asked for: its weights are those of the run, whatever they were.
fn resume(path: &Path) -> Result<Run, TrainError> {
    fit(Trainer::resume(RunDir::open(path)?), model(99), &mut ())
}

/// What one does after a crash: go on with the run if there is one, and start it if there is none.
fn go_on(path: &Path) {
    let went_on = unsynced(|| match RunDir::open(path) {
        Ok(_) => resume(path),
        Err(_) => start(path),
    });
    went_on.unwrap_or_else(|e| panic!("{e}"));
}

/// Ends after some steps, and remembers what it was told.
#[derive(Default)]
struct Watching {
    stop_at: Option<u64>,
    steps: u64,
    resumed: Option<u64>,
    notices: Vec<String>,
}

impl Observer for Watching {
    fn on(&mut self, progress: Progress<'_>, _: Trained<'_>) {
        match progress {
            Progress::Step(m) => self.steps = m.step + 1,
            Progress::Resumed(step) => self.resumed = Some(step),
            Progress::Notice(notice) => self.notices.push(notice.into()),
            _ => {}
        }
    }

    fn should_stop(&self) -> bool {
        self.stop_at.is_some_and(|at| self.steps >= at)
    }
}

/// Does `run` without bringing anything to the disk: thousands of syncs take minutes, and no test cuts the power.
fn unsynced<R>(run: impl FnOnce() -> R) -> R {
    watch(|_, _| Ok(()), run)
}

/// A folder in memory where there is one.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).unwrap()),
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

/// Everything that is the same whenever a run is done: all files but for seconds, and the checkpoints in their order.
#[derive(PartialEq)]
struct Outcome {
    tensors: BTreeMap<PathBuf, Vec<u8>>,
    metrics: Vec<(u64, f64, f64, f64)>,
    evals: Vec<(u64, f64)>,
}

fn outcome(path: &Path) -> Outcome {
    let run = RunDir::open(path).unwrap();
    assert_eq!(run.last_checkpoint().unwrap().step, STEPS);
    let tensors = files(path).into_iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors"));
    let tensors = tensors.filter(|f| !f.parent().unwrap().to_string_lossy().ends_with(".damaged"));
    let read = |f: PathBuf| (f.strip_prefix(path).unwrap().to_path_buf(), fs::read(&f).unwrap());
    Outcome {
        tensors: tensors.map(read).collect(),
        metrics: run.metrics().unwrap().iter().map(|m| (m.step, m.loss, m.lr, m.grad_norm)).collect(),
        evals: run.evals().unwrap().iter().map(|e| (e.step, e.loss)).collect(),
    }
}

#[track_caller]
fn assert_same(found: &Outcome, right: &Outcome, when: &str) {
    let names = |o: &Outcome| o.tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(right), "{when}");
    for (name, bytes) in &right.tensors {
        assert!(found.tensors[name] == *bytes, "{when}: {} differs", name.display());
    }
    assert_eq!(found.metrics, right.metrics, "{when}");
    assert_eq!(found.evals, right.evals, "{when}");
}

fn undisturbed(folder: &TempDir) -> Outcome {
    let path = folder.path().join("undisturbed");
    unsynced(|| start(&path)).unwrap();
    let right = outcome(&path);
    // Every `log_every` steps, and at the end.
    assert_eq!(right.evals.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [5, 10, 12]);
    right
}

fn leftovers(path: &Path) -> Vec<PathBuf> {
    let leftover = |p: &Path| {
        p.components().any(|c| {
            let name = c.as_os_str().to_string_lossy();
            name.ends_with(".tmp") || name.starts_with(".ironlens-")
        })
    };
    if !path.exists() {
        return Vec::new();
    }
    files(path).into_iter().filter(|f| leftover(f.strip_prefix(path).unwrap())).collect()
}

#[test]
fn a_run_killed_or_cut_from_power_between_any_two_operations_goes_on_to_the_same_bits() {
    let folder = folder();
    let right = undisturbed(&folder);
    let (path, moments) = (folder.path().join("run"), folder.path().join("moments"));
    // The state of the disk before each operation; lines that are in no file that was synced may be lost.
    let log: Rc<RefCell<Vec<(&str, PathBuf)>>> = Rc::default();
    let mut synced: BTreeMap<PathBuf, u64> = BTreeMap::new();
    let (seen, run, to) = (log.clone(), path.clone(), moments.clone());
    let watcher = move |what: &'static str, file: &Path| {
        if let Some((before, file)) = seen.borrow().last()
            && file.extension().is_some_and(|e| e == "jsonl")
            && ["sync", "rename"].contains(before)
            && let Ok(file_now) = fs::metadata(file)
        {
            synced.insert(file.clone(), file_now.len());
        }
        if run.exists() {
            let number = seen.borrow().len();
            copy(&run, &to.join(format!("{number}-kill")));
            copy(&run, &to.join(format!("{number}-power")));
            for (file, length) in &synced {
                let file = to.join(format!("{number}-power")).join(file.file_name().unwrap());
                fs::OpenOptions::new().write(true).open(file).unwrap().set_len(*length).unwrap();
            }
        }
        seen.borrow_mut().push((what, file.into()));
        Ok(())
    };
    watch(watcher, || start(&path)).unwrap();
    assert_same(&outcome(&path), &right, "watched");
    let moments: Vec<_> = fs::read_dir(&moments).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(moments.len() > 100, "{} moments", moments.len());
    for moment in moments {
        let number: usize = moment.file_name().unwrap().to_str().unwrap().split('-').next().unwrap().parse().unwrap();
        let when = format!("{} before {:?}", moment.display(), log.borrow()[number]);
        go_on(&moment);
        assert_eq!(RunDir::open(&moment).unwrap().notices(), [""; 0], "{when}");
        assert_same(&outcome(&moment), &right, &when);
        assert_eq!(leftovers(&moment), Vec::<PathBuf>::new(), "{when}");
    }
}

#[test]
fn every_operation_may_fail_and_nothing_is_lost_or_left() {
    let folder = folder();
    let right = undisturbed(&folder);
    let (mut failed, mut number) = (0, 0);
    loop {
        let path = folder.path().join(format!("run-{number}"));
        let at: Rc<RefCell<Option<String>>> = Rc::default();
        let (tell, mut count) = (at.clone(), 0);
        let watcher = move |what: &'static str, file: &Path| {
            count += 1;
            if count - 1 != number {
                return Ok(());
            }
            *tell.borrow_mut() = Some(format!("{what} {}", file.display()));
            Err(io::Error::from(io::ErrorKind::StorageFull))
        };
        let result = watch(watcher, || start(&path));
        let Some(at) = at.take() else { break };
        match result {
            Err(e) => {
                failed += 1;
                assert!(e.to_string().contains(&io::Error::from(io::ErrorKind::StorageFull).to_string()), "{at}: {e}");
            }
            // Space that is not given back is no reason to stop.
            Ok(_) => assert!(at.starts_with("remove") && at.ends_with("optimizer.safetensors"), "{at} did not fail"),
        }
        assert_eq!(leftovers(&path), Vec::<PathBuf>::new(), "{at}");
        go_on(&path);
        if !at.starts_with("remove") {
            assert_same(&outcome(&path), &right, &at);
        }
        number += 1;
    }
    assert!(failed > 50, "{failed} operations failed");
}

#[test]
fn nothing_is_named_before_it_is_on_the_disk() {
    let folder = folder();
    let path = folder.path().join("run");
    let log: Rc<RefCell<Vec<(&str, PathBuf)>>> = Rc::default();
    let seen = log.clone();
    let watcher = move |what: &'static str, file: &Path| {
        seen.borrow_mut().push((what, file.into()));
        Ok(())
    };
    watch(watcher, || start(&path)).unwrap();
    let log = log.borrow();
    let mut checkpoints = 0;
    for (i, (_, file)) in log.iter().enumerate().filter(|(_, (what, _))| *what == "rename") {
        let parent = file.parent().unwrap().to_path_buf();
        assert_eq!(log[i + 1], ("sync folder", parent), "after the rename of {}", file.display());
        let is_checkpoint =
            file.file_name().unwrap().to_str().unwrap().starts_with("step-") && file.extension().is_none();
        if !is_checkpoint {
            assert_eq!(log[i - 1], ("sync", file.clone()), "before the rename of {}", file.display());
            continue;
        }
        checkpoints += 1;
        let since = log[..i].iter().rposition(|(what, f)| *what == "rename" && f.parent() == file.parent());
        let since = &log[since.unwrap_or(0)..i];
        let beside = file.with_extension("tmp");
        assert!(since.contains(&("sync", beside.join("state.json"))), "state.json of {}", file.display());
        for lines in ["metrics.jsonl", "evals.jsonl"] {
            assert!(since.contains(&("sync", path.join(lines))), "{lines} before {}", file.display());
        }
    }
    assert_eq!(checkpoints, 3);
    let parent = ("sync folder", folder.path().to_path_buf());
    assert!(log.contains(&parent), "the run's own name may not be on the disk");
}

/// A run that was stopped after step 8, with two checkpoints.
fn stopped(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("stopped");
    start_with(&path, &mut Watching { stop_at: Some(8), ..Watching::default() }).unwrap();
    path
}

#[test]
fn damage_of_every_file_is_noticed_and_the_run_goes_on_to_the_same_bits() {
    let folder = folder();
    let right = undisturbed(&folder);
    let path = stopped(&folder);
    let weights_at =
        |step: u64| right.tensors[&PathBuf::from(format!("checkpoints/step-{step:06}/weights.safetensors"))].clone();
    let all = files(&path);
    assert_eq!(all.len(), 1 + 1 + 1 + 2 + 2 * 3 + 1, "{all:?}");
    for file in all.iter().filter(|f| !f.ends_with(".lock")) {
        let name = file.strip_prefix(&path).unwrap();
        let bytes = fs::read(file).unwrap();
        let flips = (0..8).map(|i| {
            let mut bytes = bytes.clone();
            let at = bytes.len() * i / 8 + bytes.len() / 16;
            bytes[at] ^= 1 << i;
            (format!("bit {i} of byte {at} of {}", name.display()), Some(bytes))
        });
        let cuts = [0, 1, bytes.len() / 2, bytes.len() - 1]
            .map(|n| (format!("{} cut to {n} bytes", name.display()), Some(bytes[..n].to_vec())));
        let gone = (format!("{} removed", name.display()), None);
        for (what, bytes) in flips.chain(cuts).chain([gone]) {
            let copied = folder.path().join("copied");
            copy(&path, &copied);
            match bytes {
                Some(bytes) => fs::write(copied.join(name), bytes).unwrap(),
                None => fs::remove_file(copied.join(name)).unwrap(),
            }
            check_damaged(&copied, name, &what, &right, &weights_at);
            fs::remove_dir_all(&copied).unwrap();
        }
    }
}

/// What is read of a damaged run is right or refused, and going on with it ends as it should.
fn check_damaged(path: &Path, name: &Path, what: &str, right: &Outcome, weights_at: &dyn Fn(u64) -> Vec<u8>) {
    let run = match RunDir::open(path) {
        Ok(run) => run,
        Err(e) => {
            assert!(name.ends_with("config.json") && e.to_string().contains("config.json"), "{what}: {e}");
            return;
        }
    };
    let last = run.last_checkpoint().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(fs::read(last.weights()).unwrap() == weights_at(last.step), "{what}: the report would show other weights");
    run.snapshots().unwrap();
    run.metrics_of(8).unwrap();
    run.evals().unwrap();
    let newest = name.starts_with("checkpoints/step-000008");
    let mut watching = Watching::default();
    unsynced(|| fit(Trainer::resume(RunDir::open(path).unwrap()), model(99), &mut watching))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    if newest {
        assert_eq!(watching.resumed, Some(4), "{what}");
        assert!(
            watching.notices.iter().any(|n| n.contains("step-000008 is damaged")),
            "{what}: {:?}",
            watching.notices
        );
        assert!(path.join("checkpoints/step-000008.damaged").is_dir(), "{what}: it is set aside, to be looked at");
    } else {
        assert_eq!(watching.resumed, Some(8), "{what}");
    }
    let found = outcome(path);
    for (file, bytes) in right.tensors.iter().filter(|(file, _)| **file != name) {
        assert!(found.tensors[file] == *bytes, "{what}: {} differs", file.display());
    }
    if name.starts_with("snapshots") {
        let run = RunDir::open(path).unwrap();
        let kept = run.snapshots().unwrap();
        let gone = !path.join(name).exists();
        assert!(gone || run.notices().iter().any(|n| n.contains("the snapshot step-000000")), "{what}");
        assert_eq!(kept.len(), 2, "{what}");
    }
    if name.ends_with("metrics.jsonl") && found.metrics.len() < right.metrics.len() {
        assert!(watching.notices.iter().any(|n| n.contains("metrics.jsonl")), "{what}: {:?}", watching.notices);
    }
}

/// The JSON file with its fields changed.
fn rewrite(file: &Path, change: impl Fn(&mut serde_json::Map<String, serde_json::Value>)) {
    let mut fields: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    change(fields.as_object_mut().unwrap());
    fs::write(file, fields.to_string()).unwrap();
}

#[test]
fn a_checkpoint_of_another_run_or_without_its_hashes_is_passed_over() {
    let folder = folder();
    let right = undisturbed(&folder);
    let path = stopped(&folder);
    let newest = path.join("checkpoints/step-000008");
    // What is in the way of those that are set aside or written is removed.
    fs::write(path.join("checkpoints/step-000008.damaged"), "a file").unwrap();
    fs::write(path.join("checkpoints/step-000012"), "a file").unwrap();
    let other = folder.path().join("other");
    fit(Trainer::new(TrainConfig { lr: 1e-3, ..config() }).keep(&other), model(SEED), &mut ()).unwrap();
    let state = |of: &Path| fs::read(of.join("checkpoints/step-000008/state.json")).unwrap();
    let own = state(&path);
    for (why, text) in [("has no SHA-256", None), ("was made with another config.json", Some(state(&other)))] {
        fs::write(newest.join("state.json"), text.as_ref().unwrap_or(&own)).unwrap();
        if text.is_none() {
            rewrite(&newest.join("state.json"), |fields| drop(fields.remove("sha256")));
        }
        let run = RunDir::open(&path).unwrap();
        assert_eq!(run.last_checkpoint().unwrap().step, 4);
        assert!(run.notices().iter().any(|n| n.contains("step-000008 is damaged") && n.contains(why)), "{why}");
    }
    resume(&path).unwrap();
    assert!(path.join("checkpoints/step-000008.damaged").is_dir());
    assert_same(&outcome(&path), &right, "from the checkpoint before");
}

#[test]
fn weights_of_old_checkpoints_are_there_in_their_length() {
    let folder = folder();
    let path = folder.path().join("run");
    start(&path).unwrap();
    let run = RunDir::open(&path).unwrap();
    let old = run.checkpoints().unwrap()[0].weights();
    fs::write(&old, &fs::read(&old).unwrap()[1..]).unwrap();
    assert_eq!(run.checkpoints().unwrap().iter().map(|c| c.step).collect::<Vec<_>>(), [8, 12]);
    // The start is the seed's still.
    let start = run.initial_model(&Device::Cpu).unwrap();
    assert!(start.params().iter().zip(model(SEED).params().iter()).all(|(a, b)| a.1.to_vec() == b.1.to_vec()));
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    assert_eq!(run.checkpoints().unwrap(), []);
    fs::write(path.join("checkpoints"), "a file").unwrap();
    assert!(run.checkpoints().unwrap_err().to_string().contains("checkpoints"));
}

#[test]
fn sequences_and_snapshots_of_other_shapes_are_refused() {
    let folder = folder();
    let path = stopped(&folder);
    let run = RunDir::open(&path).unwrap();
    let kept = run.sequences().unwrap();
    assert_eq!((kept.tokens.shape(), kept.mask), (&[2, 5][..], None));
    for (tokens, mask) in [("[]", "null"), ("[[]]", "null"), ("[[1, 2], [3]]", "null"), ("[[1, 2]]", "[[1]]")] {
        fs::write(path.join("sequences.json"), format!(r#"{{"tokens": {tokens}, "mask": {mask}}}"#)).unwrap();
        let error = run.sequences().unwrap_err().to_string();
        assert!(error.contains("differ in length"), "{tokens} {mask}: {error}");
    }
    fs::write(path.join("sequences.json"), r#"{"tokens": [[1, 2]], "mask": [[1, 0]]}"#).unwrap();
    assert_eq!(run.sequences().unwrap().mask.unwrap().as_slice(), [1, 0]);
    fs::remove_file(path.join("sequences.json")).unwrap();
    assert!(run.sequences().unwrap_err().to_string().contains("sequences.json"));

    // Of a snapshot that no checkpoint tells of, shapes are checked.
    for (shape, fits) in
        [([2, 5, 5], true), ([2, 3, 3], true), ([1, 5, 5], false), ([2, 5, 4], false), ([2, 6, 6], false)]
    {
        let pattern = Tensor::zeros(&shape, DType::F32, &Device::Cpu);
        let file = path.join("snapshots/step-000009.safetensors");
        ironlens::transformer::write_tensors(&file, [("blocks.0.attn.hook_pattern", pattern)]).unwrap();
        let steps: Vec<u64> = run.snapshots().unwrap().iter().map(|s| s.step).collect();
        assert_eq!(steps.contains(&9), fits, "{shape:?}");
    }
}

#[test]
fn two_checkpoints_can_be_gone_on_from_and_old_ones_keep_their_weights() {
    let folder = folder();
    let path = folder.path().join("run");
    start(&path).unwrap();
    let checkpoints = RunDir::open(&path).unwrap().checkpoints().unwrap();
    let kept: Vec<_> = checkpoints.iter().map(|c| (c.step, c.is_resumable(), c.weights().exists())).collect();
    assert_eq!(kept, [(4, false, true), (8, true, true), (12, true, true)]);
    // What is no whole checkpoint is none, whatever its name says.
    fs::create_dir(path.join("checkpoints/step-999999")).unwrap();
    let run = RunDir::open(&path).unwrap();
    assert_eq!(run.last_checkpoint().unwrap().step, 12);
    assert!(run.notices()[0].contains("step-999999 is damaged"), "{:?}", run.notices());
    copy(&path.join("checkpoints/step-000008"), &path.join("checkpoints/step-000011"));
    let steps: Vec<_> = run.checkpoints().unwrap().iter().map(|c| c.step).collect();
    assert_eq!(steps, [4, 8, 12], "a checkpoint is of the step that its name says");
    // A run whose optimiser's states are gone is not trained anew in silence.
    for checkpoint in &checkpoints {
        let _ = fs::remove_file(checkpoint.path.join("optimizer.safetensors"));
    }
    let error = resume(&path).unwrap_err().to_string();
    assert!(error.contains("step-000012") && error.contains("optimizer.safetensors"), "{error}");
}

#[test]
fn the_lines_of_a_checkpoint_s_steps_are_in_their_files_when_it_is_told() {
    struct Lines(PathBuf, u64);
    impl Observer for Lines {
        fn on(&mut self, progress: Progress<'_>, _: Trained<'_>) {
            if let Progress::Checkpoint(c) = progress {
                let text = fs::read_to_string(self.0.join("metrics.jsonl")).unwrap();
                assert_eq!(text.lines().count() as u64, c.step);
                self.1 += 1;
            }
        }
    }
    let folder = folder();
    let path = folder.path().join("run");
    let mut lines = Lines(path.clone(), 0);
    start_with(&path, &mut lines).unwrap();
    assert_eq!(lines.1, 3);
}

#[test]
fn one_at_a_time_trains_a_run() {
    struct Second(PathBuf, u64);
    impl Observer for Second {
        fn on(&mut self, progress: Progress<'_>, _: Trained<'_>) {
            if let Progress::Step(_) = progress {
                let busy = resume(&self.0).unwrap_err();
                assert!(matches!(busy, TrainError::Busy { .. }), "{busy}");
                let text = busy.to_string();
                assert!(text.contains("is being trained by another process"), "{text}");
                assert!(start(&self.0).is_err());
                self.1 += 1;
            }
        }
    }
    let folder = folder();
    let right = undisturbed(&folder);
    let path = folder.path().join("run");
    let mut second = Second(path.clone(), 0);
    start_with(&path, &mut second).unwrap();
    assert_eq!(second.1, STEPS);
    assert_same(&outcome(&path), &right, "with others at the door");
}

#[test]
fn a_folder_without_checkpoints_is_taken_again_and_no_other() {
    let folder = folder();
    let right = undisturbed(&folder);
    let path = folder.path().join("run");
    // Stopped before its first step, it leaves a checkpoint; here that is lost, with lines and snapshots left.
    start_with(&path, &mut Watching { stop_at: Some(3), ..Watching::default() }).unwrap();
    fs::remove_dir_all(path.join("checkpoints/step-000003")).unwrap();
    fs::create_dir(path.join("checkpoints/step-000004.tmp")).unwrap();
    let again = folder.path().join("again");
    copy(&path, &again);
    start(&again).unwrap();
    assert_same(&outcome(&again), &right, "taken again");
    fs::remove_dir_all(path.join("snapshots")).unwrap();
    resume(&path).unwrap();
    assert_same(&outcome(&path), &right, "resumed from the start");

    let refused = start(&path).unwrap_err();
    assert!(matches!(refused, TrainError::Exists { .. }), "{refused}");
    for foreign in [
        "config.json",
        "notes.txt",
        "checkpoints/step-000001/x",
        "checkpoints/.tmp/x",
        "metrics.jsonl",
        "evals.jsonl",
        "sequences.json",
        "snapshots/x",
        ".tmpdir/x",
        ".ironlens-notes/x",
        "step-000004.tmp/x",
        "config.json.tmp",
    ] {
        let path = folder.path().join("foreign").join(foreign);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{}").unwrap();
        let before = files(&folder.path().join("foreign"));
        let refused = start(&folder.path().join("foreign")).unwrap_err();
        assert!(matches!(refused, TrainError::Exists { .. }), "{foreign}: {refused}");
        assert_eq!(files(&folder.path().join("foreign")), before);
        fs::remove_dir_all(folder.path().join("foreign")).unwrap();
    }
    // What cannot be trained makes no folder.
    let path = folder.path().join("none");
    let trainer = Trainer::new(TrainConfig { lr: f64::NAN, ..config() }).keep(&path);
    let refused = fit(trainer, model(SEED), &mut ()).unwrap_err();
    assert!(matches!(refused, TrainError::Setting { name: "lr", .. }) && !path.exists(), "{refused}");
}

#[test]
fn weights_that_no_seed_gives_are_kept_as_the_start() {
    let folder = folder();
    let path = folder.path().join("run");
    // The seed that is told is not the one that gives them.
    let trainer = Trainer::new(config()).keep(&path).drawn_from(SEED);
    let given = model(SEED + 1);
    fit(trainer, given.clone(), &mut Watching { stop_at: Some(1), ..Watching::default() }).unwrap();
    let run = RunDir::open(&path).unwrap();
    assert_eq!(run.checkpoints().unwrap().iter().map(|c| c.step).collect::<Vec<_>>(), [0, 1]);
    let start = run.initial_model(&Device::Cpu).unwrap();
    for ((name, x), (_, y)) in start.params().iter().zip(given.params().iter()) {
        assert_eq!(x.to_vec(), y.to_vec(), "{name}");
    }
    fs::remove_dir_all(path.join("checkpoints")).unwrap();
    let error = resume(&path).unwrap_err().to_string();
    assert!(error.contains("weights of its own"), "{error}");
}

#[test]
fn weights_that_are_not_finite_are_never_kept() {
    let folder = folder();
    let path = folder.path().join("run");
    let wild = TrainConfig { lr: 1e38, checkpoint_every: 1, ..config() };
    let error = fit(Trainer::new(wild).keep(&path).drawn_from(SEED), model(SEED), &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::WeightsNotFinite { steps: 1, .. }), "{error}");
    assert!(error.to_string().contains("no checkpoint yet"), "{error}");
    assert_eq!(RunDir::open(&path).unwrap().checkpoints().unwrap(), []);
}

#[test]
fn lines_that_are_torn_or_lost_are_told_and_block_nothing() {
    let folder = folder();
    let right = undisturbed(&folder);
    let path = stopped(&folder);
    let lines = path.join("metrics.jsonl");
    let text = fs::read_to_string(&lines).unwrap();
    let mut torn: Vec<&[u8]> = text.split_inclusive('\n').map(str::as_bytes).collect();
    torn[2] = b"{\"step\":2,\"lo\n";
    torn[3] = b"\xff\xfe\n";
    torn.remove(5);
    torn.push(b"{\"step\":8,");
    fs::write(&lines, torn.concat()).unwrap();
    let mut watching = Watching::default();
    fit(Trainer::resume(RunDir::open(&path).unwrap()), model(99), &mut watching).unwrap();
    let told = [
        "metrics.jsonl: 2 lines cannot be read and are left out",
        "metrics.jsonl lacks 3 of the 8 steps that were trained",
    ];
    assert_eq!(watching.notices, told);
    let found = outcome(&path);
    assert!(found.tensors == right.tensors);
    assert_eq!(found.metrics.iter().map(|m| m.0).collect::<Vec<_>>(), [0, 1, 4, 6, 7, 8, 9, 10, 11]);
}

#[test]
fn a_run_of_format_1_is_read_and_gone_on_with() {
    let folder = folder();
    let right = undisturbed(&folder);
    let path = stopped(&folder);
    rewrite(&path.join("config.json"), |fields| {
        fields.retain(|name, _| !["sha256", "learner", "data", "seed"].contains(&name.as_str()));
        fields["format"] = 1.into();
        let train = fields["train"].as_object_mut().unwrap();
        train.extend([
            ("seed".into(), SEED.into()),
            ("data_seed".into(), 2.into()),
            ("task".into(), "previous-token".into()),
        ]);
        // Left out, it was the notebook's.
        train.retain(|name, _| !["eps", "warmup_steps"].contains(&name.as_str()));
    });
    for step in [4, 8] {
        rewrite(&path.join(format!("checkpoints/step-{step:06}/state.json")), |fields| {
            fields.retain(|name, _| ["step", "optimizer_steps", "seconds"].contains(&name.as_str()));
        });
    }
    let copied = folder.path().join("copied");
    copy(&path, &copied);
    rewrite(&copied.join("checkpoints/step-000008/state.json"), |fields| fields["optimizer_steps"] = 7.into());
    assert_eq!(RunDir::open(&copied).unwrap().last_checkpoint().unwrap().step, 4);
    resume(&path).unwrap();
    assert_same(&outcome(&path), &right, "format 1");
}

#[cfg(unix)]
#[test]
fn pipes_links_and_bombs_in_a_run_do_no_harm() {
    let folder = folder();
    let right = undisturbed(&folder);
    let path = stopped(&folder);
    let pipe = |name: &str| {
        let file = path.join(name);
        let _ = fs::remove_file(&file);
        assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    };
    pipe("checkpoints/step-000008/weights.safetensors");
    pipe("snapshots/step-000010.safetensors");
    // A file that its shape does not fit is not read, however long it is.
    let bomb = fs::File::create(path.join("snapshots/step-000007.safetensors")).unwrap();
    bomb.set_len(1 << 40).unwrap();
    let kept = folder.path().join("kept");
    fs::write(&kept, "mine").unwrap();
    std::os::unix::fs::symlink(&kept, path.join("metrics.jsonl.tmp")).unwrap();
    let run = RunDir::open(&path).unwrap();
    assert_eq!(run.last_checkpoint().unwrap().step, 4);
    assert_eq!(run.snapshots().unwrap().iter().map(|s| s.step).collect::<Vec<_>>(), [0]);
    fs::remove_file(path.join("snapshots/step-000010.safetensors")).unwrap();
    fs::remove_file(path.join("snapshots/step-000007.safetensors")).unwrap();
    resume(&path).unwrap();
    assert_same(&outcome(&path), &right, "pipes");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "mine");
    pipe("metrics.jsonl");
    assert!(RunDir::open(&path).unwrap().metrics().unwrap_err().to_string().contains("not an ordinary file"));
    for name in ["config.json", ".lock"] {
        pipe(name);
        let error = resume(&path).unwrap_err().to_string();
        assert!(error.contains("not an ordinary file"), "{error}");
        fs::remove_file(path.join(name)).unwrap();
        fs::copy(folder.path().join("undisturbed").join(name), path.join(name)).unwrap();
    }
}
