//! A training run as its user sees it: time until the first step, memory at most.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ironlens::train::RunDir;

/// What a short run of the notebook preset took.
pub struct RunCost {
    /// Seconds from the start of the program to the start of the first step.
    pub start_seconds: f64,
    /// Most memory that the process held, bytes, where the system tells.
    pub peak_memory: Option<u64>,
}

/// Runs `train --preset notebook` for a few steps in a process of its own.
pub fn measure(device: &str, steps: u64) -> Result<RunCost> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let out = folder.path().join("run");
    let program = std::env::current_exe().context("cannot find this program")?;
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(["train", "--preset", "notebook", "--log-every", "1", "--checkpoint-every", "0", "--device", device])
        .args(["--steps", &steps.to_string()])
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a training run")?;
    let (mut first_line, mut peak_memory) = (None, None);
    let pipe = child.stdout.take().context("the training run has no output")?;
    for line in BufReader::new(pipe).lines() {
        let line = line?;
        if line.starts_with("Epoch: 0:") {
            first_line = Some(start.elapsed().as_secs_f64());
        }
        if let Some(mib) = line.strip_prefix("peak memory") {
            peak_memory = mib.trim().trim_end_matches(" MiB").parse::<u64>().ok().map(|m| m << 20);
        }
    }
    let status = child.wait()?;
    let Some(first_line) = first_line.filter(|_| status.success()) else {
        bail!("a training run of {steps} steps failed with {status}");
    };
    let in_step = RunDir::open(&out)?.metrics()?.first().map_or(0.0, |m| m.seconds);
    Ok(RunCost { start_seconds: (first_line - in_step).max(0.0), peak_memory })
}

/// Most memory that this process has held so far, in bytes; `None` where the system does not tell
/// (it does on Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()? << 10)
}
