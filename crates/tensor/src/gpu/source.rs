//! WGSL of every kernel but products (see `matmul/`): a file of `kernels/` each, under a common head.
//!
//! A file begins with `// reads to writes with part: what it does`: `reads` has a letter per buffer
//! that is read (`f` for f32, `u` for u32, `-` for none), `writes` counts those written, `part` is a
//! file of `kernels/shared/`, if it needs one.

use std::collections::HashMap;
use std::sync::OnceLock;

/// Each kernel's name and file.
macro_rules! kernels {
    ($($name:ident)*) => {
        [$((stringify!($name), include_str!(concat!("kernels/", stringify!($name), ".wgsl")))),*]
    };
}

const KERNELS: [(&str, &str); 25] = kernels! {
    copy assign fill unary unary_grad binary reduce argmax
    softmax softmax_grad log_softmax log_softmax_grad center rms rms_grad scale_shift norm norm_grad
    scores_grad rotary embed embed_grad cross_entropy cross_entropy_grad adamw
};

/// Functions that devices compute too roughly themselves.
pub(super) const MATH: &str = include_str!("kernels/shared/math.wgsl");
/// What scores and their gradient share.
pub(super) const SCORES: &str = include_str!("kernels/shared/scores.wgsl");
const ROWS: &str = include_str!("kernels/shared/rows.wgsl");
const STRIDED: &str = include_str!("kernels/shared/strided.wgsl");

/// Words of parameters that every kernel has.
pub(crate) const WORDS: usize = 32;

/// A kernel's text and bindings.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub text: String,
    pub reads: usize,
    pub writes: usize,
}

struct Template {
    reads: String,
    writes: usize,
    shared: &'static str,
    body: &'static str,
}

/// What the first line of a file says, and the rest.
fn template(file: &'static str) -> Template {
    let (heading, body) = file.split_once('\n').expect("a kernel has a body");
    let words: Vec<&str> = heading.split(':').next().unwrap_or_default().split_whitespace().collect();
    let (reads, writes, shared) = match words[..] {
        ["//", reads, "to", writes] => (reads, writes, ""),
        ["//", reads, "to", writes, "with", "rows"] => (reads, writes, ROWS),
        ["//", reads, "to", writes, "with", "scores"] => (reads, writes, SCORES),
        _ => panic!("a kernel begins with what it reads and writes, not `{heading}`"),
    };
    let writes = writes.parse().expect("a heading counts the writes");
    Template { reads: reads.replace('-', ""), writes, shared, body }
}

fn templates() -> &'static HashMap<&'static str, Template> {
    static ALL: OnceLock<HashMap<&'static str, Template>> = OnceLock::new();
    ALL.get_or_init(|| KERNELS.into_iter().map(|(name, file)| (name, template(file))).collect())
}

/// Names of all kernels, and whether they have an op in them.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = (&'static str, bool)> {
    KERNELS.into_iter().map(|(name, file)| (name, file.contains("OP")))
}

/// What every kernel starts with: its parameters, and buffers of these element types, `r0`, `r1`, ..
/// to read and `w0`, .. to write.
pub(super) fn head(reads: &[&str], writes: &[&str]) -> String {
    let mut text = String::from(
        "struct Args { words: array<vec4<u32>, 8> }\nvar<immediate> args: Args;\n\
         const MINUS_INFINITY = 31u;\n\
         fn u(i: u32) -> u32 { return args.words[i >> 2u][i & 3u]; }\n\
         fn f(i: u32) -> f32 { return bitcast<f32>(u(i)); }\n",
    );
    let reads = reads.iter().enumerate().map(|(i, element)| ("read", format!("r{i}"), element));
    let writes = writes.iter().enumerate().map(|(i, element)| ("read_write", format!("w{i}"), element));
    for (binding, (access, name, element)) in reads.chain(writes).enumerate() {
        text += &format!("@group(0) @binding({binding}) var<storage, {access}> {name}: array<{element}>;\n");
    }
    text
}

/// The WGSL of kernel `name`, with `op` in the place of `OP`.
///
/// # Panics
/// If there is no such kernel.
pub(crate) fn source(name: &str, op: &str) -> Source {
    let t = templates().get(name).unwrap_or_else(|| panic!("there is no kernel `{name}`"));
    let reads: Vec<&str> = t.reads.chars().map(|kind| if kind == 'u' { "u32" } else { "f32" }).collect();
    let mut text = head(&reads, &vec!["f32"; t.writes]);
    text += STRIDED;
    text += MATH;
    text += t.shared;
    text += &t.body.replace("OP", op);
    Source { text, reads: t.reads.len(), writes: t.writes }
}

#[cfg(test)]
mod tests {
    use naga::back::{msl, spv};
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;
    use crate::gpu::backend::every_op;
    use crate::gpu::matmul::every_variant;

    /// Threads and bytes of workgroup memory that every GPU has.
    const MAX_THREADS: u32 = 1024;
    const MAX_SHARED: u32 = 32768;
    /// Buffers that a kernel may bind on Metal.
    const MAX_BUFFERS: usize = 29;

    #[test]
    fn every_kernel_translates_for_metal_and_vulkan() {
        let products = every_variant().into_iter().map(|v| (v.to_string(), v.source()));
        let others = every_op().into_iter().map(|(name, op)| (format!("{name} {op}"), source(name, op)));
        for (name, Source { text, reads, writes }) in others.chain(products) {
            let module =
                naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{name}: {}", e.emit_to_string(&text)));
            let info = Validator::new(ValidationFlags::all(), Capabilities::all())
                .validate(&module)
                .unwrap_or_else(|e| panic!("{name}: {e:?}"));
            let entry = &module.entry_points[0];
            let threads: u32 = entry.workgroup_size.iter().product();
            // Metal's compiler is said to break kernels of exactly one SIMD group.
            assert!(threads <= MAX_THREADS && threads != 32, "{name}: {threads} threads");
            let shared: u32 = module
                .global_variables
                .iter()
                .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup)
                .map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx()))
                .sum();
            assert!(shared <= MAX_SHARED, "{name}: {shared} bytes of workgroup memory");
            assert!(reads + writes <= MAX_BUFFERS);
            assert!(!barrier_may_diverge(&text), "{name}: a barrier after a return, or within an if");

            let mut resources = msl::EntryPointResources { immediates_buffer: Some(30), ..Default::default() };
            for (_, v) in module.global_variables.iter() {
                if let Some(binding) = v.binding {
                    let target =
                        msl::BindTarget { buffer: Some(binding.binding as u8), mutable: true, ..Default::default() };
                    resources.resources.insert(binding, target);
                }
            }
            resources.sizes_buffer = Some(29);
            let options = msl::Options {
                lang_version: (2, 4),
                per_entry_point_map: [(entry.name.clone(), resources)].into_iter().collect(),
                fake_missing_bindings: false,
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            };
            let pipeline =
                msl::PipelineOptions { entry_point: Some((entry.stage, entry.name.clone())), ..Default::default() };
            let (metal, _) = msl::write_string(&module, &info, &options, &pipeline)
                .unwrap_or_else(|e| panic!("{name} for Metal: {e}"));
            assert!(metal.contains("kernel void"));
            let vulkan = spv::write_vec(&module, &info, &spv::Options::default(), None)
                .unwrap_or_else(|e| panic!("{name} for Vulkan: {e}"));
            assert!(vulkan.len() > 100);
        }
        for (name, _) in names() {
            assert!(every_op().iter().any(|(used, _)| *used == name), "no op is known to use kernel `{name}`");
        }
    }

    /// Whether a barrier stands after a `return`, or in a block that a condition opens. (A loop
    /// whose bounds are parameters is the same for all threads.)
    fn barrier_may_diverge(text: &str) -> bool {
        let mut conditions: Vec<bool> = Vec::new();
        let mut returned = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("fn ") || line.starts_with("@compute") {
                returned = false;
            }
            if line.contains("workgroupBarrier()") && (returned || conditions.contains(&true)) {
                return true;
            }
            // `return` at the end of a function is no early one.
            returned |= line.starts_with("return") && !conditions.is_empty() && conditions.len() > 1;
            for c in line.chars() {
                match c {
                    '{' => conditions.push(line.starts_with("if") || line.contains("else")),
                    '}' => {
                        conditions.pop();
                    }
                    _ => {}
                }
            }
        }
        false
    }

    #[test]
    fn the_lint_sees_a_barrier_that_diverges() {
        assert!(barrier_may_diverge("fn main() {\nif (x) {\nworkgroupBarrier();\n}\n}"));
        assert!(barrier_may_diverge("fn main() {\nfor (;;) {\nreturn;\n}\nworkgroupBarrier();\n}"));
        assert!(!barrier_may_diverge("fn main() {\nfor (;;) {\nworkgroupBarrier();\n}\n}"));
    }
}
