//! What the documents say of the tree of files.

use std::collections::BTreeSet;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn document(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn architecture_has_a_section_for_every_crate() {
    let folders: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| format!("crates/{}", entry.unwrap().file_name().to_string_lossy()))
        .collect();
    let text = document("ARCHITECTURE.md");
    let headings = text.lines().filter_map(|l| l.strip_prefix("## ")).flat_map(|l| l.split(", "));
    let described: BTreeSet<String> = headings.filter(|h| h.starts_with("crates/")).map(String::from).collect();
    assert_eq!(described, folders);
}

/// The documents that are written by hand, but for those that only rustdoc shows.
fn documents() -> Vec<String> {
    let top = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "PERFORMANCE.md", "SECURITY.md"];
    let guide = "crates/ironlens/guide";
    let chapters =
        std::fs::read_dir(root().join(guide)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let chapters = chapters.filter(|name| name.ends_with(".md")).map(|name| format!("{guide}/{name}"));
    top.map(String::from).into_iter().chain(chapters).collect()
}

/// Names of files in backticks that begin with a folder of the project.
#[test]
fn files_that_documents_name_are_there() {
    for name in documents() {
        let text = document(&name);
        let spans = text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace);
        let paths = spans.map(|s| s.trim_matches(|c| "\"',;:()".contains(c)));
        let ours = ["crates/", "tests/e2e", "tests/reference", "docs/", "bench/", "xtask/", "fuzz/"];
        for path in paths.filter(|p| ours.iter().any(|folder| p.starts_with(folder))) {
            assert!(root().join(path).exists(), "{name} names {path}, which is not there");
        }
    }
}

#[test]
fn lines_are_short_where_they_can_be() {
    for name in documents() {
        for (n, line) in document(&name).lines().enumerate() {
            // Tables and pictures have no shorter lines, and what rustdoc hides is seen by nobody.
            let free = ["|", "!", "# "].iter().any(|start| line.starts_with(start));
            assert!(free || line.chars().count() <= 120, "{name}:{}: {line}", n + 1);
        }
    }
}

/// A notebook is JSON of its format's version 4, whose cells have run in order and show what they made. (That its cells
/// are the example's is a test of xtask's.)
#[test]
fn the_notebook_has_run() {
    let notebook: serde_json::Value = serde_json::from_str(&document("docs/notebook.ipynb")).unwrap();
    assert_eq!(
        (notebook["nbformat"].as_u64(), notebook["metadata"]["kernelspec"]["name"].as_str()),
        (Some(4), Some("rust"))
    );
    let cells = notebook["cells"].as_array().unwrap();
    let code: Vec<_> = cells.iter().filter(|cell| cell["cell_type"] == "code").collect();
    let counts: Vec<u64> = code.iter().map(|cell| cell["execution_count"].as_u64().unwrap()).collect();
    assert!(counts.iter().copied().eq(1..=counts.len() as u64) && counts.len() > 6, "{counts:?}");
    let outputs = || code.iter().flat_map(|cell| cell["outputs"].as_array().unwrap());
    let pictures = outputs().filter(|output| output["data"]["image/png"].is_string()).count();
    assert!(pictures >= 5, "{pictures} pictures");
    let printed: String =
        outputs().flat_map(|o| o["text"].as_array().into_iter().flatten()).map(|line| line.as_str().unwrap()).collect();
    for word in ["HookedTransformer(", "blocks.1.attn.hook_pattern", "Epoch: 0: ", "loss on a fresh batch: "] {
        assert!(printed.contains(word), "{word}");
    }
}

/// The crates need each other at exactly the version that all of them have.
#[test]
fn crates_have_one_version() {
    let manifest = document("Cargo.toml");
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    let ours: Vec<&str> = manifest.lines().filter(|line| line.starts_with("ironlens")).collect();
    assert!(ours.len() >= std::fs::read_dir(root().join("crates")).unwrap().count(), "{ours:?}");
    for line in ours {
        assert!(line.contains(&format!("version = \"={version}\"")) || line.contains("opt-level"), "{line}");
    }
    assert!(document("CHANGELOG.md").contains(&format!("\n## {version}")));
}
