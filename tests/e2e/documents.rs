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

/// Names of files in backticks that begin with a folder of the project.
#[test]
fn files_that_documents_name_are_there() {
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "PERFORMANCE.md", "docs/from-transformerlens.md"] {
        let text = document(name);
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
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "PERFORMANCE.md"] {
        for (n, line) in document(name).lines().enumerate() {
            let table_or_picture = line.starts_with('|') || line.starts_with('!');
            assert!(table_or_picture || line.chars().count() <= 120, "{name}:{}: {line}", n + 1);
        }
    }
}
