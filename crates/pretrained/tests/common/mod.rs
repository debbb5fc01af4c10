//! Checkpoints of the reference cases, as they are and changed.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use ironlens_files::{Checkpoint, Dtype, SafeTensorsFile, StoredTensor, TensorFile};
use ironlens_pretrained::{LoadOptions, Pretrained, PretrainedError};
use ironlens_tensor::{DType, Device, IndexTensor, Tensor};
use ironlens_transformer::HookedTransformer;
use serde_json::{Map, Value, json};

/// The folder of a case.
pub fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/pretrained").join(name)
}

/// The names of all cases.
pub fn cases() -> Vec<String> {
    let entries = fs::read_dir(case("")).expect("the cases are in the repository");
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir())
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 15, "only {} cases were found", names.len());
    names
}

/// The tokens of a case, `[batch, pos]`.
pub fn tokens(name: &str) -> IndexTensor {
    let file = SafeTensorsFile::open(case(name).join("inputs.safetensors")).unwrap();
    let shape = file.get("tokens").unwrap().shape.clone();
    let ids: Vec<u32> =
        file.read("tokens").unwrap().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
    IndexTensor::new(ids, &shape)
}

/// What a case expects, by name; token ids as numbers.
pub fn expected(name: &str) -> BTreeMap<String, Tensor> {
    let file = Checkpoint::open(case(name).join("expected.safetensors")).unwrap();
    let read =
        |t: &StoredTensor| (t.name.clone(), Tensor::from_vec(file.read_f32(&t.name).unwrap(), &t.shape, &Device::Cpu));
    file.tensors().iter().map(read).collect()
}

pub fn load(source: &Path) -> Result<HookedTransformer, PretrainedError> {
    load_with(source, &LoadOptions::no_processing())
}

pub fn load_with(source: &Path, options: &LoadOptions) -> Result<HookedTransformer, PretrainedError> {
    HookedTransformer::from_pretrained_with(source.to_str().unwrap(), options)
}

/// Double precision, without processing.
pub fn f64_options() -> LoadOptions {
    LoadOptions { dtype: DType::F64, ..LoadOptions::no_processing() }
}

/// Largest difference over the largest absolute expected value (if that is not 0); infinite where a value is not
/// finite.
#[track_caller]
pub fn error_of(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let (found, expected) = (found.to_vec_f64(), expected.to_vec_f64());
    let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
    let differences =
        found.iter().zip(&expected).map(|(a, b)| if a.is_finite() { (a - b).abs() } else { f64::INFINITY });
    differences.fold(0.0, f64::max) / if largest == 0.0 { 1.0 } else { largest }
}

/// Checks that two models have the same weights and give the same logits, to the bit.
#[track_caller]
pub fn assert_same_bits(a: &HookedTransformer, b: &HookedTransformer, x: &IndexTensor) {
    let names: Vec<&str> = a.params().iter().map(|(name, _)| name).collect();
    assert_eq!(names, b.params().iter().map(|(name, _)| name).collect::<Vec<_>>());
    for name in names {
        assert!(a.param(name).unwrap().to_vec_f64() == b.param(name).unwrap().to_vec_f64(), "{name}");
    }
    assert!(a.forward(x).unwrap().to_vec_f64() == b.forward(x).unwrap().to_vec_f64());
}

/// A checkpoint as Hugging Face writes it, in memory.
#[derive(Clone)]
pub struct HfCheckpoint {
    pub config: Map<String, Value>,
    /// By name, shape and elements.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl HfCheckpoint {
    /// Of a case.
    pub fn of(name: &str) -> HfCheckpoint {
        HfCheckpoint::at(&case(name).join("hf"))
    }

    /// Of a folder.
    pub fn at(folder: &Path) -> HfCheckpoint {
        let config = serde_json::from_str(&fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
        let file = Checkpoint::open(folder).unwrap();
        let tensors =
            file.tensors().iter().map(|t| (t.name.clone(), (t.shape.clone(), file.read_f32(&t.name).unwrap())));
        HfCheckpoint { config, tensors: tensors.collect() }
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.config.insert(key.into(), value.into());
    }

    /// With other names of tensors; those without one are left out.
    pub fn renamed(&self, name: impl Fn(&str) -> Option<String>) -> HfCheckpoint {
        let tensors = self.tensors.iter().filter_map(|(old, t)| Some((name(old)?, t.clone()))).collect();
        HfCheckpoint { config: self.config.clone(), tensors }
    }

    /// Writes `config.json` and `model.safetensors` with numbers of `dtype` (F32, F16 or BF16) into `folder`.
    pub fn write(&self, folder: &Path, dtype: Dtype) {
        fs::create_dir_all(folder).unwrap();
        self.write_config(folder);
        // By hand: what is written over and over need not reach the disk each time.
        let (mut header, mut bytes) = (Map::new(), Vec::new());
        for (name, (shape, values)) in &self.tensors {
            let start = bytes.len();
            bytes.extend(encoded(values, dtype));
            let kind = format!("{dtype:?}");
            let place = json!({ "dtype": kind, "shape": shape, "data_offsets": [start, bytes.len()] });
            header.insert(name.clone(), place);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let file = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes].concat();
        fs::write(folder.join("model.safetensors"), file).unwrap();
    }

    pub fn write_config(&self, folder: &Path) {
        fs::write(folder.join("config.json"), serde_json::to_string(&self.config).unwrap()).unwrap();
    }

    /// The same with every number rounded to what `dtype` holds.
    pub fn rounded(&self, dtype: Dtype) -> HfCheckpoint {
        let mut rounded = self.clone();
        for (_, values) in rounded.tensors.values_mut() {
            values.iter_mut().for_each(|v| *v = round(*v, dtype));
        }
        rounded
    }
}

fn round(value: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_f32(value).to_f32(),
        Dtype::BF16 => bf16::from_f32(value).to_f32(),
        _ => value,
    }
}

/// Little-endian numbers of `dtype`.
pub fn encoded(values: &[f32], dtype: Dtype) -> Vec<u8> {
    match dtype {
        Dtype::F32 => values.iter().map(|v| v.to_le_bytes()).collect::<Vec<_>>().into_flattened(),
        Dtype::F16 => values.iter().map(|v| f16::from_f32(*v).to_le_bytes()).collect::<Vec<_>>().into_flattened(),
        Dtype::BF16 => values.iter().map(|v| bf16::from_f32(*v).to_le_bytes()).collect::<Vec<_>>().into_flattened(),
        other => panic!("no checkpoint of the tests is written in {other:?}"),
    }
}
