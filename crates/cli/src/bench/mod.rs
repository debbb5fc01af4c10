//! `ironlens bench`: how fast this is on this machine, and how far from what the machine can do.

mod compare;
mod generate;
mod gpt2;
mod kernels;
mod model;
mod patch;
mod peak;
mod run;
mod scaling;
mod self_test;
mod table;
mod timing;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args as ClapArgs, ValueEnum};
use ironlens::tensor::Device;
use ironlens::tensor::profile::Kernel;
use ironlens::train::Preset;
use serde_json::{Value, json};

use crate::input::from_one;
use crate::threads;
use peak::Peak;
pub use run::peak_memory;
use table::Table;
use timing::Seconds;

/// Flags of `bench`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// What to measure
    #[arg(value_enum, default_values = ["step", "forward", "cache"])]
    parts: Vec<Part>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// JSON of another benchmark run (this program's or PyTorch's): print ratios to it
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Shell command that prints such JSON: run it in turns with our own and print ratios
    #[arg(long, value_name = "COMMAND", conflicts_with = "against")]
    beside: Option<String>,
    /// Turns to take with that command
    #[arg(
        long, value_name = "N", default_value = "3", requires = "beside",
        value_parser = from_one::<usize>, allow_negative_numbers = true
    )]
    rounds: usize,
    /// Show where the time of a training step goes, kernel by kernel; with `generate`, that of a token and a prompt
    #[arg(long)]
    profile: bool,
    /// Check every kernel of the device against the CPU in double precision, and time it
    #[arg(long, conflicts_with_all = ["parts", "against", "beside", "profile"])]
    self_test: bool,
    /// Timed runs of each thing, but for `run` and `--profile`, which are one [default: 15; 7 of patching and 3 of its
    /// table by depth, 5 of `gpt2`, `scaling` and `--self-test`]
    #[arg(long, value_name = "N", value_parser = from_one::<usize>, allow_negative_numbers = true)]
    repeats: Option<usize>,
    /// Where to compute
    #[arg(long, value_name = "auto|cpu|gpu", default_value = "auto")]
    device: String,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The notebook's training step, batch 8
    Step,
    /// Its forward pass, batch 1 and 8, without gradient
    Forward,
    /// run_with_cache, everything cached, batch 1 and 8
    Cache,
    /// Patching sweeps on the same model, and by depth
    Patch,
    /// Writing with a cache of keys and values, on SmolLM2-135M's shape: a token of one sequence and of eight, a prompt
    Generate,
    /// GPT-2 small's shape, random weights: passes of 128 and 1024 tokens, cache, gradients, sweeps, peak memory
    Gpt2,
    /// The matrix products of the training step, and those of a few rows, one by one
    Matmul,
    /// The other kernels, one by one
    Kernels,
    /// How the time of a step grows with batch, context, width and depth
    Scaling,
    /// A short training run in a process of its own: time to the first step, peak memory
    Run,
}

/// Measures and prints; false if a kernel disagrees with the CPU.
///
/// # Errors
/// If the device cannot be had, or a file or command to compare with gives no timings.
pub fn run(args: &Args) -> Result<bool> {
    let device = Device::from_name(&args.device)?;
    threads::start()?;
    let repeats = |usual: usize| args.repeats.unwrap_or(usual);
    let theirs = args.against.as_deref().map(compare::read).transpose()?;
    let config = Preset::Notebook.model().resolved()?;
    let peak = Peak::measure();
    let mut report = Report::new(&device, &peak, args.json);

    if args.self_test {
        let (table, agrees) = self_test::run(&device, repeats(5));
        report.table("self_test", &table);
        if let Some(tiles) = self_test::tiles(&device) {
            report.table("tiles", &tiles);
        }
        report.end();
        return Ok(agrees);
    }
    if args.profile {
        if args.parts.contains(&Part::Generate) {
            for (name, seconds, kernels) in generate::profiles(&device)? {
                report.table(name, &profile_table(seconds, &kernels, &peak));
            }
        } else {
            let (seconds, kernels) = model::Trained::new(config.clone(), 8, &device)?.profile()?;
            report.table("profile", &profile_table(seconds, &kernels, &peak));
        }
    }
    let mut other_rounds = Vec::new();
    let rounds = if args.beside.is_some() { args.rounds } else { 1 };
    for _ in 0..rounds {
        if let Some(command) = &args.beside {
            other_rounds.push(compare::run(command)?);
        }
        for part in &args.parts {
            match part {
                Part::Step => report.timings(model::step(&config, &device, repeats(15))?),
                Part::Forward => report.timings(model::forward(&config, &device, repeats(15))?),
                Part::Cache => report.timings(model::cache(&config, &device, repeats(15))?),
                Part::Patch => report.timings(patch::sweeps(&config, &device, repeats(7))?),
                Part::Generate => report.timings(generate::steps(&device, repeats(15))?),
                Part::Gpt2 => report.timings(gpt2::work(&device, repeats(5))?),
                Part::Matmul | Part::Kernels | Part::Scaling | Part::Run => {}
            }
        }
    }
    let timings = report.finish_timings();
    if let Some(step) = timings.get("train_step") {
        let gflops = model::step_flops(&config, 8) / step.median / 1e9;
        report.figure("train_step_gflops", gflops, &format!("{:.0} % of the peak", 100.0 * gflops / peak.gflops));
    }
    if args.parts.contains(&Part::Step) {
        for (name, value) in model::gpu_cost(&config, &device)? {
            report.figure(name, value, "one warm training step");
        }
    }
    for part in &args.parts {
        match part {
            Part::Step | Part::Forward | Part::Cache => {}
            Part::Generate => report.table("generate", &generate::rates(&timings)),
            Part::Gpt2 => {
                report.table("gpt2", &gpt2::rates(&timings, &peak)?);
                if let Some(bytes) = run::peak_memory() {
                    report.figure("gpt2_peak_memory_mib", (bytes >> 20) as f64, "this process, all of the above");
                }
            }
            Part::Patch => report.table("patch_by_depth", &patch::by_depth(&device, repeats(3))?),
            Part::Matmul => {
                report.table("matmul", &kernels::matmul(&device, repeats(15), &peak));
                report.table("few_rows", &kernels::few_rows(&device, repeats(15), &peak));
            }
            Part::Kernels => report.table("kernels", &kernels::kernels(&device, repeats(15), &peak)),
            Part::Scaling => report.table("scaling", &scaling::scaling(&device, repeats(5), &peak)?),
            Part::Run => {
                let cost = run::measure(&args.device, 20)?;
                report.figure("start_seconds", cost.start_seconds, "program start to first step");
                if let Some(bytes) = cost.peak_memory {
                    report.figure("peak_memory_mib", (bytes >> 20) as f64, "a training run of 20 steps");
                }
            }
        }
    }
    let theirs = theirs.or_else(|| (!other_rounds.is_empty()).then(|| median_of(&other_rounds)));
    if let Some(theirs) = theirs {
        report.table("comparison", &compare::table(&timings, &theirs)?);
    }
    report.end();
    Ok(true)
}

/// Figure by figure, the median of several rounds.
fn median_of(rounds: &[compare::Medians]) -> compare::Medians {
    let values = |name: &String| rounds.iter().filter_map(|r| r.get(name)).copied().collect();
    rounds[0].keys().map(|name| (name.clone(), Seconds::of(values(name)).median)).collect()
}

fn profile_table(seconds: f64, kernels: &[Kernel], peak: &Peak) -> Table {
    let mut table = Table::new(["ms", "of step", "calls", "GFLOP/s", "GB/s", "kernel", "operands"]);
    let mut known = 0.0;
    for k in kernels {
        let time = k.time.as_secs_f64();
        known += time;
        let rate = |x: f64| if x > 0.0 { format!("{:.0}", x / time / 1e9) } else { String::new() };
        table.row([
            format!("{:.2}", time * 1e3),
            format!("{:.1} %", 100.0 * time / seconds),
            k.calls.to_string(),
            rate(k.flops),
            rate(k.bytes),
            k.name.to_string(),
            k.shapes.clone(),
        ]);
    }
    let mut line = |time: f64, what: &str, gflops: String| {
        let share = format!("{:.1} %", 100.0 * time / seconds);
        table.row([
            format!("{:.2}", time * 1e3),
            share,
            String::new(),
            gflops,
            String::new(),
            what.into(),
            String::new(),
        ]);
    };
    line(seconds - known, "between the ops", String::new());
    let products: Vec<&Kernel> = kernels.iter().filter(|k| k.flops > 0.0).collect();
    let (flops, time): (f64, f64) =
        (products.iter().map(|k| k.flops).sum(), products.iter().map(|k| k.time.as_secs_f64()).sum());
    let share = 100.0 * flops / time / 1e9 / peak.gflops;
    line(time, &format!("all with products, {share:.0} % of the peak"), format!("{:.0}", flops / time / 1e9));
    line(seconds, "the step", format!("{:.0}", flops / seconds / 1e9));
    table
}

/// What was found, printed as it comes or as JSON at the end.
struct Report {
    as_json: bool,
    json: serde_json::Map<String, Value>,
    rounds: Vec<BTreeMap<String, Seconds>>,
}

impl Report {
    fn new(device: &Device, peak: &Peak, as_json: bool) -> Report {
        let threads = rayon::current_num_threads();
        let version = env!("CARGO_PKG_VERSION");
        let cpu = cpu_name();
        if !as_json {
            println!("ironlens {version} on {device}; {cpu}, {threads} threads");
            println!(
                "measured limits: {:.0} GFLOP/s of f32 multiply-adds, {:.0} GB/s of memory traffic\n",
                peak.gflops, peak.gbytes
            );
        }
        let json = json!({
            "ironlens": version, "device": device.to_string(), "cpu": cpu, "threads": threads,
            "peak_gflops": peak.gflops, "peak_gbytes": peak.gbytes,
        });
        let Value::Object(json) = json else { unreachable!("an object was written") };
        Report { as_json, json, rounds: Vec::new() }
    }

    fn timings(&mut self, timings: BTreeMap<String, Seconds>) {
        self.rounds.push(timings);
    }

    /// All timings: of what was measured more than once, the median of medians and the extremes.
    fn finish_timings(&mut self) -> BTreeMap<String, Seconds> {
        let mut all: BTreeMap<String, Vec<Seconds>> = BTreeMap::new();
        for (name, seconds) in self.rounds.drain(..).flatten() {
            all.entry(name).or_default().push(seconds);
        }
        let merge = |s: Vec<Seconds>| Seconds {
            median: Seconds::of(s.iter().map(|s| s.median).collect()).median,
            min: Seconds::of(s.iter().map(|s| s.min).collect()).min,
            max: Seconds::of(s.iter().map(|s| s.max).collect()).max,
        };
        let all: BTreeMap<String, Seconds> = all.into_iter().map(|(name, s)| (name, merge(s))).collect();
        let mut table = Table::new(["measured", "median, ms", "min, ms", "max, ms"]);
        for (name, s) in &all {
            let ms = |x: f64| format!("{:.1}", x * 1e3);
            table.row([name.clone(), ms(s.median), ms(s.min), ms(s.max)]);
            self.json.insert(name.clone(), json!(s));
        }
        if !self.as_json && !all.is_empty() {
            println!("{table}");
        }
        all
    }

    fn figure(&mut self, name: &str, value: f64, note: &str) {
        if !self.as_json {
            println!("{name}: {value:.2} ({note})\n");
        }
        self.json.insert(name.into(), json!(value));
    }

    fn table(&mut self, name: &str, table: &Table) {
        if !self.as_json {
            println!("{table}");
        }
        self.json.insert(name.into(), table.to_json());
    }

    fn end(self) {
        if self.as_json {
            println!("{:#}", Value::Object(self.json));
        }
    }
}

fn cpu_name() -> String {
    let linux = || {
        let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
        let line = text.lines().find(|l| l.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let mac = || {
        let asked = std::process::Command::new("/usr/sbin/sysctl").args(["-n", "machdep.cpu.brand_string"]).output();
        Some(String::from_utf8(asked.ok()?.stdout).ok()?.trim().to_string()).filter(|name| !name.is_empty())
    };
    let windows = || std::env::var("PROCESSOR_IDENTIFIER").ok();
    let told = match () {
        () if cfg!(target_os = "macos") => mac(),
        () if cfg!(windows) => windows(),
        () => linux(),
    };
    told.unwrap_or_else(|| format!("{} {}", std::env::consts::OS, std::env::consts::ARCH))
}
