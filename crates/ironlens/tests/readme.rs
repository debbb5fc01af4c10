//! The Rust of README.md, word for word: it compiles. (That of the guide is compiled and run by `cargo test --doc`.)

#![allow(dead_code, unused_imports, unused_variables)]

use ironlens::prelude::*;

type Done = ironlens::Result<()>;

#[rustfmt::skip]
fn the_notebook() -> Done {
use ironlens::prelude::*;

let cfg = Config {
    d_model: 768, d_head: 64, n_layers: 2, n_ctx: 128, d_mlp: 3072, d_vocab: 300,
    act_fn: ActFn::Gelu, ..Config::default()
};
let mut model = HookedTransformer::new(cfg, &Device::best(), 42)?;
println!("{model}");                                        // the module tree with every HookPoint

let mut data = RandomTokens::new(model.config(), 137)?;      // ids 1..300, position 0 is BOS = 0
let (logits, cache) = model.run_with_cache(&data.batch(1)?)?;
for (name, act) in &cache {
    println!("{name} {:?}", act.shape());
}
imshow(&cache.get(("attn", 0))?.mean(&[0, 1])).title("Layer 0 attention pattern").save("l0.html")?;

let run = Trainer::new(TrainConfig::notebook()).fit_model(&mut model, &mut data, previous_token_loss)?;
line(&run.losses()).x("step").y("loss").log_y().save("loss.html")?;
Ok(())
}

#[rustfmt::skip]
fn pretrained() -> Done {
let model = HookedTransformer::from_pretrained("gpt2")?;            // or a folder, a .gguf, a .pt
let prompt = "When Mary and John went to the shops, John gave a bag to";
let mut ablate = Hooks::new().fwd("blocks.0.attn.hook_z", |z, _| {
    z.assign(|z| z.select(2, 1), 0.0);                        // head 1's output
    Ok(())
});
let logits = model.run_with_hooks(prompt, &mut ablate)?;
println!("{}", test_prompt(&model, prompt, " Mary", false)?);       // its rank and probability, and the likeliest
Ok(())
}

/// The blocks of a document between fences of this language.
fn blocks<'d>(document: &'d str, language: &str) -> Vec<&'d str> {
    let fence = format!("```{language}\n");
    let inside = |after: &'d str| after.split("\n```").next().unwrap_or(after);
    document.split(fence.as_str()).skip(1).map(inside).collect()
}

#[test]
fn every_block_is_compiled_here() {
    let here = include_str!("readme.rs");
    let blocks = blocks(include_str!("../../../README.md"), "rust");
    assert!(!blocks.is_empty());
    for block in blocks {
        assert!(here.contains(block), "this block differs from {}:\n{block}", file!());
    }
}

#[test]
fn the_readme_is_short_and_names_every_chapter() {
    let readme = include_str!("../../../README.md");
    assert!(readme.lines().count() < 150, "{} lines", readme.lines().count());
    let chapters = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/guide")).unwrap();
    let names = chapters.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name.ends_with(".md")).collect();
    assert_eq!(names.len(), 14);
    for name in names {
        assert!(readme.contains(&format!("(docs/guide/{name})")), "{name}");
        let module = name.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').trim_end_matches(".md");
        let front = include_str!("../src/guide.rs");
        assert!(front.contains(&format!("({})", module.replace('-', "_"))), "{module}");
    }
}

#[test]
fn the_manifest_has_our_own_profile() {
    let readme = blocks(include_str!("../../../README.md"), "toml").concat();
    let front = include_str!("../src/lib.rs").replace("//! ", "");
    let ours = include_str!("../../../Cargo.toml");
    for text in [&readme, &front] {
        assert!(text.contains("[profile.dev.package.\"*\"]\nopt-level = 3"), "{text}");
    }
    assert!(ours.contains("[profile.dev.package"));
    let repository = ours.lines().find_map(|l| l.strip_prefix("repository = ")).unwrap();
    assert!(readme.contains(&format!("ironlens = {{ git = {repository}, features = [\"hub\"] }}")), "{readme}");
}

/// The names that a prelude brings in, as they are written there.
fn prelude() -> Vec<&'static str> {
    let front = include_str!("../src/lib.rs");
    let uses = front.split("pub mod prelude {").nth(1).expect("there is one");
    let words = uses.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
    words.filter(|w| !["pub", "use", "crate", "self", "plot"].contains(w) && !w.starts_with("ironlens_")).collect()
}

#[test]
fn the_prelude_has_no_name_that_means_something_else_elsewhere() {
    // Of std, of the crates that people use beside, and of those that two parts of this library share.
    let taken = [
        "Error",
        "Result",
        "Path",
        "File",
        "Read",
        "Write",
        "Debug",
        "Display",
        "Ordering",
        "Duration",
        "Instant",
        "Sender",
        "Receiver",
        "Array",
        "Axis",
        "Layout",
        "Matrix",
        "Parts",
        "Units",
        "Positions",
        "Gradients",
        "Weights",
        "Decompose",
        "Hook",
        "Parameter",
        "Detector",
        "Section",
        "Report",
        "Run",
        "Step",
        "Progress",
        "Checkpoint",
        "Input",
        "Output",
        "Call",
        "Scope",
        "Rule",
        "Change",
        "Site",
        "Method",
        "Every",
        "Stack",
        "Svd",
    ];
    let clashes: Vec<&str> = prelude().into_iter().filter(|name| taken.contains(name)).collect();
    assert!(clashes.is_empty(), "{clashes:?}");
}

#[test]
fn examples_import_the_prelude_alone() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let others: Vec<&str> =
            text.lines().filter(|l| l.starts_with("use ironlens") && *l != "use ironlens::prelude::*;").collect();
        assert!(others.is_empty(), "{others:?}");
        seen += 1;
    }
    assert!(seen >= 8, "{seen}");
    assert!(include_str!("../examples/superposition.rs").lines().count() < 80, "the README says so");
}

#[test]
fn errors_of_all_parts_go_into_one_and_out_of_hooks() {
    fn tells(error: impl Into<ironlens::Error>) -> String {
        error.into().to_string()
    }
    let cfg =
        Config { d_model: 8, d_head: 4, n_layers: 1, n_ctx: 4, d_vocab: 5, act_fn: ActFn::Relu, ..Config::default() };
    let model = HookedTransformer::new(cfg, &Device::Cpu, 0).unwrap();
    assert!(tells(model.param("embed.W").unwrap_err()).contains("embed.W_E"));
    assert!(tells(HeadKind::from_name("copy").unwrap_err()).contains("induction_head"));
    assert!(tells(Config::from_json("{").unwrap_err()).len() > 5);
    assert!(tells(std::io::Error::other("no disk")).contains("no disk"));
    assert_eq!(tells("my words"), "my words");
    let own = || -> ironlens::Result<()> { Err("not here".into()) };
    let mut hooks = Hooks::new().fwd("hook_embed", |_, _| {
        own()?;
        Ok(())
    });
    let error = model.run_with_hooks(&IndexTensor::from([[1, 2]]), &mut hooks).unwrap_err();
    assert!(tells(error).contains("not here"));
}
