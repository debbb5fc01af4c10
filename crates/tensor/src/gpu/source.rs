//! The text of kernels: a file of `kernels/` under a common head, or what `matmul/` generates.
//!
//! A file begins with `// reads to writes with part: what it does`: `reads` has a letter per buffer
//! that is read (`f` for f32, `u` for u32, `-` for none), `writes` counts those written, `part` is a
//! file of `kernels/shared/`, if it needs one. Its parameters are the kernel's words (`kernels.rs`).

use super::words::READ_WORDS;

/// Functions that devices compute too roughly themselves.
pub(super) const MATH: &str = include_str!("kernels/shared/math.wgsl");
/// What scores and their gradient share.
pub(super) const SCORES: &str = include_str!("kernels/shared/scores.wgsl");
const ROWS: &str = include_str!("kernels/shared/rows.wgsl");
const STRIDED: &str = include_str!("kernels/shared/strided.wgsl");

/// A kernel's text and bindings.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub text: String,
    pub reads: usize,
    pub writes: usize,
}

/// What every kernel starts with: `words`, which declare its parameters, and buffers of these element types, `r0`,
/// `r1`, .. to read and `w0`, .. to write.
pub(super) fn head(words: &str, reads: &[&str], writes: &[&str]) -> String {
    let mut text = String::from(READ_WORDS) + words;
    let reads = reads.iter().enumerate().map(|(i, element)| ("read", format!("r{i}"), element));
    let writes = writes.iter().enumerate().map(|(i, element)| ("read_write", format!("w{i}"), element));
    for (binding, (access, name, element)) in reads.chain(writes).enumerate() {
        text += &format!("@group(0) @binding({binding}) var<storage, {access}> {name}: array<{element}>;\n");
    }
    text
}

impl Source {
    /// The kernel of a file, with `op` in the place of `OP`.
    ///
    /// # Panics
    /// If the file does not begin with what it reads and writes.
    pub fn of_file(file: &str, words: &str, op: &str) -> Source {
        let (heading, body) = file.split_once('\n').expect("a kernel has a body");
        let heading: Vec<&str> = heading.split(':').next().unwrap_or_default().split_whitespace().collect();
        let (reads, writes, shared) = match heading[..] {
            ["//", reads, "to", writes] => (reads, writes, ""),
            ["//", reads, "to", writes, "with", "rows"] => (reads, writes, ROWS),
            ["//", reads, "to", writes, "with", "scores"] => (reads, writes, SCORES),
            _ => panic!("a kernel begins with what it reads and writes, not `{}`", heading.join(" ")),
        };
        let writes = writes.parse().expect("a heading counts the writes");
        let element = |kind| match kind {
            'f' => Some("f32"),
            'u' => Some("u32"),
            _ => None,
        };
        let reads: Vec<&str> = reads.chars().filter_map(element).collect();
        let mut text = head(words, &reads, &vec!["f32"; writes]);
        for part in [STRIDED, MATH, shared, &body.replace("OP", op)] {
            text += part;
        }
        Source { text, reads: reads.len(), writes }
    }
}

#[cfg(test)]
mod tests {
    use naga::back::{msl, spv};
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;
    use crate::gpu::backend::ops_of;
    use crate::gpu::kernels;
    use crate::gpu::matmul::{Epilogue, every_variant};

    /// Threads and bytes of workgroup memory that every GPU has.
    const MAX_THREADS: u32 = 1024;
    const MAX_SHARED: u32 = 32768;
    /// Buffers that a kernel may bind on Metal.
    const MAX_BUFFERS: usize = 29;

    /// Every kernel that a device may be asked to make, by its name.
    fn every_kernel() -> impl Iterator<Item = (String, Source)> {
        let products = every_variant().into_iter().map(|v| (v.to_string(), v.source()));
        let with_ops = |(name, file, words): (&'static str, &'static str, String)| {
            let ops = ops_of(name);
            assert_eq!(ops.is_empty(), !file.contains("OP"), "`{name}` has an op in it, or `ops_of` knows none");
            let ops = if ops.is_empty() { vec![""] } else { ops };
            ops.into_iter().map(move |op| (format!("{name} {op}"), Source::of_file(file, &words, op)))
        };
        kernels::all().into_iter().flat_map(with_ops).chain(products)
    }

    fn to_metal(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<String, msl::Error> {
        let entry = &module.entry_points[0];
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
        msl::write_string(module, info, &options, &pipeline).map(|(text, _)| text)
    }

    #[test]
    fn every_kernel_translates_for_metal_and_vulkan() {
        for (name, Source { text, reads, writes }) in every_kernel() {
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

            let metal = to_metal(&module, &info).unwrap_or_else(|e| panic!("{name} for Metal: {e}"));
            assert!(metal.contains("kernel void"));
            let operators = operators_on_matrices(&metal);
            assert!(operators.is_empty(), "{name}: Metal's matrices have no operators: {}", operators.join("; "));
            let vulkan = spv::write_vec(&module, &info, &spv::Options::default(), None)
                .unwrap_or_else(|e| panic!("{name} for Vulkan: {e}"));
            assert!(vulkan.len() > 100);
        }
    }

    /// Names that `words` declare, functions and constants.
    fn declared(words: &str) -> impl Iterator<Item = &str> {
        let name = |line: &'_ str| -> Option<usize> { line.find(['(', ' ']) };
        words.lines().filter_map(move |line| {
            let line = line.strip_prefix("fn ").or(line.strip_prefix("const "))?;
            Some(&line[..name(line)?])
        })
    }

    /// Whether `name` stands in `text` as a word of its own.
    fn names(text: &str, name: &str) -> bool {
        let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
        text.split(|c| !part_of_name(c)).any(|word| word == name)
    }

    /// A word that is given and not read, or read by its place, is a mistake.
    #[test]
    fn every_word_is_read_by_its_name() {
        let mut unread = Vec::new();
        let mut look = |kernel: &str, text: &str, words: &str| {
            let (_, body) = text.split_once(words).expect("a kernel declares its words");
            let unread_here = declared(words).filter(|name| !names(body, name));
            unread.extend(unread_here.map(|name| format!("{kernel}: {name}")));
            let body = body.replace(STRIDED, "");
            assert!(!names(&body, "word"), "{kernel} reads a word by its place");
        };
        for (name, file, words) in kernels::all() {
            // All ops in one text: few use the parameters that any may have.
            look(name, &Source::of_file(file, &words, &ops_of(name).join(" ")).text, &words);
        }
        for scores in [false, true] {
            let variants = || every_variant().into_iter().filter(move |v| (v.epilogue == Epilogue::Scores) == scores);
            let words = variants().next().expect("there are kernels of both kinds").words();
            let texts: Vec<String> = variants().map(|v| v.source().text.split_once(&words).unwrap().1.into()).collect();
            look("products", &(words.clone() + &texts.join("\n")), &words);
        }
        // What scores are made with beside what their gradient asks for.
        assert_eq!(unread, ["scores_grad: has_alibi", "scores_grad: alibi_bf16"]);
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

    /// Lines of Metal's language with an operator beside a matrix of a SIMD group. Such are declared by their type
    /// and nothing else has their names.
    fn operators_on_matrices(metal: &str) -> Vec<&str> {
        let plain = |word: &'_ str| -> String { word.chars().filter(|c| c.is_alphanumeric() || *c == '_').collect() };
        let words = |line: &str| -> Vec<String> { line.split_whitespace().map(String::from).collect() };
        let mut matrices = std::collections::HashSet::new();
        for line in metal.lines() {
            let words = words(line);
            let declared = words.windows(2).filter(|pair| pair[0].starts_with("metal::simdgroup_float"));
            matrices.extend(declared.map(|pair| plain(&pair[1])));
        }
        let is_operator = |word: &str| ["+", "-", "*", "/", "+=", "-=", "*=", "/="].contains(&word);
        let is_matrix = |word: &str| matrices.contains(&plain(word));
        let has_operator = |line: &&str| {
            let words = words(line);
            words.windows(2).any(|pair| {
                (is_operator(&pair[0]) && is_matrix(&pair[1])) || (is_matrix(&pair[0]) && is_operator(&pair[1]))
            })
        };
        metal.lines().filter(has_operator).map(str::trim).collect()
    }

    #[test]
    fn the_lint_sees_an_operator_on_a_matrix() {
        let metal = |step: &str| {
            let text = format!(
                "enable wgpu_cooperative_matrix;\n\
                 @group(0) @binding(0) var<storage, read> r0: array<f32>;\n\
                 @group(0) @binding(1) var<storage, read_write> w0: array<f32>;\n\
                 @compute @workgroup_size(64) fn main() {{\n\
                 var c = coop_mat8x8<f32, C>(); let pitch = 8u; let at = 64u * pitch + 8u;\n{step}\n\
                 coopStoreT(c, &w0[at], pitch);\n}}"
            );
            let module = naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
            let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
            to_metal(&module, &info).unwrap()
        };
        let loaded = "c = coopLoadT<coop_mat8x8<f32, C>>(&r0[at], pitch);";
        let added = "c = c + coopLoadT<coop_mat8x8<f32, C>>(&r0[at], pitch);";
        let (plain, sum) = (metal(loaded), metal(added));
        assert!(operators_on_matrices(&plain).is_empty(), "{plain}");
        assert!(!operators_on_matrices(&sum).is_empty(), "{sum}");
    }

    #[test]
    fn the_lint_sees_a_barrier_that_diverges() {
        assert!(barrier_may_diverge("fn main() {\nif (x) {\nworkgroupBarrier();\n}\n}"));
        assert!(barrier_may_diverge("fn main() {\nfor (;;) {\nreturn;\n}\nworkgroupBarrier();\n}"));
        assert!(!barrier_may_diverge("fn main() {\nfor (;;) {\nworkgroupBarrier();\n}\n}"));
    }
}
