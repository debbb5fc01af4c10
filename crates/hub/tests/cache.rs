//! A cache in Python's layout, written by hand, is read without a connection.

use std::fs;
use std::path::{Path, PathBuf};

use ironlens_hub::{Cached, Hub, HubConfig, HubError, model_files, tokenizer_files};

const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffff";

/// A cache with `files` of one repository, linked as `huggingface_hub` links them.
struct Cache {
    folder: tempfile::TempDir,
}

impl Cache {
    fn new() -> Cache {
        Cache { folder: tempfile::tempdir().unwrap() }
    }

    fn put(&self, path: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A file of a snapshot, in `blobs` and linked to it.
    fn link(&self, repo: &str, commit: &str, name: &str) {
        let etag = format!("{:040x}", name.bytes().map(u64::from).sum::<u64>());
        self.put(&format!("{repo}/blobs/{etag}"), name);
        let link = self.folder.path().join(format!("{repo}/snapshots/{commit}/{name}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        #[cfg(unix)]
        {
            let up = "../".repeat(2 + name.matches('/').count());
            std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), link).unwrap();
        }
        #[cfg(not(unix))]
        fs::write(link, name).unwrap();
    }

    fn hub(&self) -> Hub {
        let mut config = HubConfig::at(self.folder.path());
        config.offline = true;
        Hub::new(config)
    }

    fn snapshot(&self, repo: &str, commit: &str) -> PathBuf {
        self.folder.path().join(repo).join("snapshots").join(commit)
    }
}

fn model(hub: &Hub, repo: &str, revision: &str) -> Result<PathBuf, HubError> {
    hub.snapshot(repo, revision, model_files, &mut |_| ())
}

#[test]
fn a_model_is_found_by_branch_tag_and_commit() {
    let cache = Cache::new();
    let folder = "models--EleutherAI--pythia-70m";
    for (revision, commit) in [("main", COMMIT), ("step3000", OTHER), ("refs/pr/1", COMMIT)] {
        cache.put(&format!("{folder}/refs/{revision}"), commit);
    }
    for commit in [COMMIT, OTHER] {
        cache.link(folder, commit, "config.json");
        cache.link(folder, commit, "model.safetensors");
    }
    let hub = cache.hub();
    for (revision, commit) in
        [("main", COMMIT), ("step3000", OTHER), ("refs/pr/1", COMMIT), (COMMIT, COMMIT), (OTHER, OTHER)]
    {
        let there = cache.snapshot(folder, commit);
        assert_eq!(hub.find("EleutherAI/pythia-70m", revision).unwrap().as_ref(), Some(&there), "{revision}");
        assert_eq!(model(&hub, "EleutherAI/pythia-70m", revision).unwrap(), there, "{revision}");
    }
    for revision in ["step4000", "refs", "refs/pr", "607a30d"] {
        assert_eq!(hub.find("EleutherAI/pythia-70m", revision).unwrap(), None, "{revision}");
    }
    assert_eq!(hub.find("EleutherAI/pythia-160m", "main").unwrap(), None);
}

#[test]
fn the_old_and_the_new_name_of_gpt2_are_one_model() {
    let cache = Cache::new();
    cache.put("models--openai-community--gpt2/refs/main", COMMIT);
    cache.link("models--openai-community--gpt2", COMMIT, "config.json");
    cache.link("models--openai-community--gpt2", COMMIT, "model.safetensors");
    let there = cache.snapshot("models--openai-community--gpt2", COMMIT);
    assert_eq!(model(&cache.hub(), "gpt2", "main").unwrap(), there);
    // A folder under the name given comes first, but not if the other has more.
    cache.put("models--gpt2/refs/main", OTHER);
    cache.link("models--gpt2", OTHER, "config.json");
    assert_eq!(cache.hub().find("gpt2", "main").unwrap(), Some(cache.snapshot("models--gpt2", OTHER)));
    assert_eq!(model(&cache.hub(), "gpt2", "main").unwrap(), there);
}

#[test]
fn a_model_that_is_there_in_part_is_told_from_one_that_is_not() {
    let cache = Cache::new();
    let told = |cache: &Cache| model(&cache.hub(), "a/b", "main").unwrap_err().to_string();
    assert!(told(&cache).starts_with("the model of a/b at revision main is not in the cache"), "{}", told(&cache));
    cache.put("models--a--b/refs/main", COMMIT);
    assert!(told(&cache).contains("is not in the cache"), "a reference alone is nothing");
    for name in ["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "tokenizer.json"] {
        cache.link("models--a--b", COMMIT, name);
    }
    assert!(told(&cache).contains("is not whole in the cache"), "{}", told(&cache));
    assert!(told(&cache).contains(cache.folder.path().to_str().unwrap()));
    // Its tokenizer is whole.
    let tokenizer = cache.hub().snapshot("a/b", "main", tokenizer_files, &mut |_| ()).unwrap();
    assert_eq!(tokenizer, cache.snapshot("models--a--b", COMMIT));
    cache.link("models--a--b", COMMIT, "model-00002-of-00002.safetensors");
    assert_eq!(model(&cache.hub(), "a/b", "main").unwrap(), tokenizer);
}

#[test]
fn the_error_says_why_nothing_is_downloaded() {
    let error = model(&Cache::new().hub(), "gpt2", "main").unwrap_err().to_string();
    let why = if cfg!(feature = "download") { "HF_HUB_OFFLINE" } else { "the feature `download`" };
    assert!(error.contains(why), "{error}");
}

#[cfg(unix)]
#[test]
fn a_link_to_bytes_that_are_gone_is_no_file() {
    let cache = Cache::new();
    cache.put("models--a--b/refs/main", COMMIT);
    cache.link("models--a--b", COMMIT, "config.json");
    cache.link("models--a--b", COMMIT, "model.safetensors");
    model(&cache.hub(), "a/b", "main").unwrap();
    let blob = fs::canonicalize(cache.snapshot("models--a--b", COMMIT).join("model.safetensors")).unwrap();
    fs::remove_file(blob).unwrap();
    assert!(model(&cache.hub(), "a/b", "main").is_err());
    assert_eq!(cache.hub().cached("a/b", "main", "model.safetensors").unwrap(), Cached::Unknown);
}

#[test]
fn files_are_here_or_absent_or_unknown() {
    let cache = Cache::new();
    cache.put("models--a--b/refs/main", COMMIT);
    cache.link("models--a--b", COMMIT, "sub/folder/a.txt");
    cache.put(&format!("models--a--b/.no_exist/{COMMIT}/chat_template.jinja"), "");
    let cached = |file| cache.hub().cached("a/b", "main", file).unwrap();
    let there = cache.snapshot("models--a--b", COMMIT).join("sub/folder/a.txt");
    assert_eq!(cached("sub/folder/a.txt"), Cached::Here(there.clone()));
    assert_eq!(fs::read(there).unwrap(), b"sub/folder/a.txt");
    assert_eq!(cached("chat_template.jinja"), Cached::Absent);
    assert_eq!(cached("config.json"), Cached::Unknown);
    assert_eq!(cached("sub/folder"), Cached::Unknown);
}

#[test]
fn names_that_lead_out_of_the_cache_are_refused() {
    let cache = Cache::new();
    let hub = cache.hub();
    for repo in ["../gpt2", "/gpt2", "a/b/c", "", "a\\b"] {
        assert!(matches!(hub.find(repo, "main"), Err(HubError::BadName { what: "repository", .. })), "{repo}");
    }
    for revision in ["../main", "/etc/passwd", "", "a//b"] {
        assert!(matches!(hub.find("gpt2", revision), Err(HubError::BadName { what: "revision", .. })), "{revision}");
    }
    for file in ["../../x", "/etc/passwd", ""] {
        assert!(matches!(hub.cached("gpt2", "main", file), Err(HubError::BadName { what: "file", .. })), "{file}");
    }
}

#[test]
fn a_reference_that_is_no_commit_is_as_good_as_none() {
    let cache = Cache::new();
    let outside = cache.put("outside/config.json", "{}");
    for text in ["../../outside", "", "main", &COMMIT.to_uppercase(), outside.to_str().unwrap()] {
        cache.put("models--a--b/refs/main", text);
        assert_eq!(cache.hub().find("a/b", "main").unwrap(), None, "{text:?}");
    }
    cache.put("models--a--b/refs/main", &format!("{COMMIT}\n"));
    cache.link("models--a--b", COMMIT, "config.json");
    assert!(cache.hub().find("a/b", "main").unwrap().is_some());
    // No folder, no file and no reference where a folder is expected: nothing is there, and that is no error.
    assert_eq!(cache.hub().find("c/d", "main").unwrap(), None);
    assert_eq!(Hub::new(HubConfig::at(Path::new("/nowhere"))).find("gpt2", "main").unwrap(), None);
}
