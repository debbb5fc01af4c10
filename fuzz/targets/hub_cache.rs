//! The Hugging Face cache: references, names of repositories, revisions and files, and what a snapshot holds.
//! Nothing outside the cache is given.
//!
//! Lines: repository, revision, a file, names in the snapshot (one a line), an empty line, the reference's bytes.

#![no_main]

use std::fs;
use std::path::Path;

use ironlens_hub::{Cached, Hub, HubConfig, checkpoints_among, lookup, model_files, nearest, tokenizer_files};
use libfuzzer_sys::fuzz_target;

const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";

/// Writes a file below a folder where the system takes its name, and its name stays there.
fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let name = Path::new(name);
    if name.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        let path = folder.join(name);
        let _ = path.parent().map(fs::create_dir_all);
        let _ = fs::write(path, bytes);
    }
}

fuzz_target!(|input: &str| {
    let (names, reference) = input.split_once("\n\n").unwrap_or((input, COMMIT));
    let mut lines = names.lines();
    let [repo, revision, file] = std::array::from_fn(|_| lines.next().unwrap_or_default());
    let listed: Vec<String> = lines.map(str::to_owned).collect();

    let outside = tempfile::tempdir().expect("a temporary folder");
    let cache = outside.path().join("cache/hub");
    let folder = cache.join(format!("models--{}", repo.replace('/', "--")));
    put(&cache, &format!("models--{}/refs/{revision}", repo.replace('/', "--")), reference.as_bytes());
    for name in &listed {
        put(&cache, &format!("models--{}/snapshots/{COMMIT}/{name}", repo.replace('/', "--")), b"x");
    }
    fs::write(outside.path().join("secret"), "x").expect("a file outside");

    let hub = Hub::new(HubConfig::at(&cache));
    if let Ok(Some(found)) = hub.find(repo, revision) {
        assert!(found.starts_with(&cache) && found.canonicalize().is_ok_and(|f| f.starts_with(&folder)), "{found:?}");
    }
    if let Ok(Cached::Here(found)) = hub.cached(repo, revision, file) {
        assert!(found.canonicalize().is_ok_and(|f| f.starts_with(&folder)), "{found:?}");
    }
    for wanted in [model_files, tokenizer_files] {
        if let Ok(found) = hub.snapshot(repo, revision, wanted, &mut |_| ()) {
            assert!(found.canonicalize().is_ok_and(|f| f.starts_with(&folder)), "{found:?}");
        }
        if let Some(files) = wanted(&listed) {
            assert!(files.iter().all(|file| listed.contains(file)));
        }
    }
    if let Some(checkpoints) = checkpoints_among(&listed) {
        assert!(checkpoints.labels.is_sorted());
    }
    let _ = (lookup(repo), nearest(repo));
});
