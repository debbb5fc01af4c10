//! `ironlens verify`: does this library agree with TransformerLens on a folder of reference cases?
//!
//! A case is a folder with `config.json`, `weights.safetensors`, `inputs.safetensors` (`tokens`)
//! and `expected.safetensors`, whose tensors are named `group/..`. Every expected tensor is
//! computed and compared, or counted as not checked. A folder with `hf/` is a checkpoint as Hugging Face
//! writes it (`pretrained.rs`, `encoder.rs`), one with `expected.json` is a tokenizer (`tokenizer.rs`).

mod case;
mod encoder;
mod groups;
mod pretrained;
mod table;
mod tokenizer;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args as ClapArgs;
use ironlens::tensor::{DType, Device};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::device::DeviceName;
use crate::threads;
use case::Case;

/// Flags of `verify`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// Case folders, or folders of case folders
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Where to compute
    #[arg(long, value_name = "auto|cpu|gpu", default_value = "cpu")]
    device: DeviceName,
    /// f64 computes in double precision on the CPU, to tell rounding from bugs
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Precision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Precision {
    F32,
    F64,
}

/// The outcome of one group of a case.
#[derive(Clone, Debug, Serialize)]
pub struct GroupResult {
    /// Name of the case's folder.
    pub case: String,
    /// First part of the tensors' names.
    pub group: String,
    /// Number of tensors compared.
    pub tensors: usize,
    /// Largest absolute difference over largest absolute expected value, of the worst tensor;
    /// infinite where non-finite cells differ in kind, shapes differ, or a tensor was not computed (`"inf"` in JSON).
    #[serde(serialize_with = "number_or_word")]
    pub error: f64,
    /// What the error may be.
    pub tolerance: f64,
    /// The worst tensor.
    pub place: String,
    /// What went wrong, if the group could not be computed.
    pub problem: Option<String>,
}

/// JSON has no number that is not finite.
fn number_or_word<S: Serializer>(number: &f64, to: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() { to.serialize_f64(*number) } else { to.collect_str(number) }
}

impl GroupResult {
    /// Whether the group agrees.
    pub fn passed(&self) -> bool {
        self.problem.is_none() && self.error <= self.tolerance
    }
}

/// Runs the command; false if anything disagrees.
///
/// # Errors
/// If a folder holds no case, or the device cannot be had.
pub fn run(args: &Args) -> Result<bool> {
    let (device, _) = args.device.open()?;
    threads::start()?;
    let dtype = match args.dtype {
        Precision::F32 => DType::F32,
        Precision::F64 if device == Device::Cpu => DType::F64,
        Precision::F64 => bail!("--dtype f64 computes on the CPU only; leave out --device"),
    };
    let mut results = Vec::new();
    let mut unchecked = Vec::new();
    for dir in find_cases(&args.dirs)? {
        let (found, rest) = verify_case(&dir, &device, dtype);
        results.extend(found);
        unchecked.extend(rest);
    }
    let passed = !results.is_empty() && results.iter().all(GroupResult::passed);
    if args.json {
        let all = json!({ "passed": passed, "groups": results, "not_checked": unchecked });
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        table::print(&results, &unchecked);
    }
    Ok(passed)
}

/// The folders below `dirs` that are cases.
///
/// # Errors
/// If one of them holds none.
pub fn find_cases(dirs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let is_case = |p: &Path| {
        p.join("config.json").is_file() && p.join("expected.safetensors").is_file()
            || pretrained::is_case(p)
            || tokenizer::is_case(p)
    };
    let mut cases = Vec::new();
    for dir in dirs {
        if is_case(dir) {
            cases.push(dir.clone());
            continue;
        }
        let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?;
        let mut inside: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_case(p)).collect();
        if inside.is_empty() {
            bail!(
                "{} is no case and holds none: a case is a folder with config.json, weights.safetensors, \
                 inputs.safetensors and expected.safetensors",
                dir.display()
            );
        }
        inside.sort();
        cases.extend(inside);
    }
    Ok(cases)
}

/// Compares one case; gives its groups, and the expected tensors that no group knows.
pub fn verify_case(dir: &Path, device: &Device, dtype: DType) -> (Vec<GroupResult>, Vec<String>) {
    let name = dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned());
    let compared = match (pretrained::is_case(dir), tokenizer::is_case(dir)) {
        (true, _) if encoder::is_case(dir) => encoder::compare(&name, dir, device, dtype),
        (true, _) => pretrained::compare(&name, dir, device, dtype),
        (_, true) => tokenizer::compare(&name, dir).map(|results| (results, Vec::new())),
        (false, false) => Case::load(dir, device, dtype).map(|case| groups::compare(&name, &case)),
    };
    match compared {
        Ok(compared) => compared,
        Err(error) => {
            let result = GroupResult {
                case: name,
                group: "load".into(),
                tensors: 0,
                error: f64::INFINITY,
                tolerance: 0.0,
                place: String::new(),
                problem: Some(format!("{error:#}")),
            };
            (vec![result], Vec::new())
        }
    }
}
