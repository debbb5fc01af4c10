//! Timing: cases take turns, so that a slow minute of the machine falls on all of them.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

/// Seconds of repeated runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Seconds {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Seconds {
    /// Of at least one sample.
    pub fn of(mut samples: Vec<f64>) -> Seconds {
        samples.sort_by(f64::total_cmp);
        let (lower, upper) = (samples[(samples.len() - 1) / 2], samples[samples.len() / 2]);
        Seconds { median: (lower + upper) / 2.0, min: samples[0], max: samples[samples.len() - 1] }
    }
}

/// Something to time.
pub struct Case<'a> {
    pub name: String,
    run: Box<dyn FnMut() -> Result<()> + 'a>,
    samples: Vec<f64>,
}

impl<'a> Case<'a> {
    pub fn new(name: impl Into<String>, run: impl FnMut() -> Result<()> + 'a) -> Case<'a> {
        Case { name: name.into(), run: Box::new(run), samples: Vec::new() }
    }

    /// Runs it without timing, so that memory and caches are warm.
    pub fn warm(&mut self, times: usize) -> Result<()> {
        (0..times).try_for_each(|_| (self.run)())
    }

    pub fn sample(&mut self) -> Result<()> {
        let start = Instant::now();
        (self.run)()?;
        self.samples.push(start.elapsed().as_secs_f64());
        Ok(())
    }

    pub fn seconds(self) -> (String, Seconds) {
        (self.name, Seconds::of(self.samples))
    }
}

/// Times all cases `repeats` times, in turns.
pub fn interleaved(mut cases: Vec<Case<'_>>, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    for case in &mut cases {
        case.warm(2)?;
    }
    for _ in 0..repeats {
        cases.iter_mut().try_for_each(Case::sample)?;
    }
    Ok(cases.into_iter().map(Case::seconds).collect())
}

/// Times each case `repeats` times, one case after the other, as those measure that this is compared with: with the
/// memory that its last run left, and not with what a larger case between them had.
pub fn in_turn(cases: Vec<Case<'_>>, repeats: usize) -> Result<BTreeMap<String, Seconds>> {
    let timed = |mut case: Case<'_>| {
        case.warm(1)?;
        (0..repeats).try_for_each(|_| case.sample())?;
        Ok(case.seconds())
    };
    cases.into_iter().map(timed).collect()
}

/// The median time of `repeats` runs of `f`, after one to warm up.
pub fn median(repeats: usize, mut f: impl FnMut()) -> f64 {
    f();
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    Seconds::of((0..repeats).map(time).collect()).median
}
