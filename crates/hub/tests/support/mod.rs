//! A hub of our own, on loopback.

mod server;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ironlens_hub::{Hub, HubConfig, HubError, Progress, model_files};
use sha1::Sha1;
use sha2::{Digest, Sha256};

pub use server::{Reply, Request, Server};

pub const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
pub const REPO: &str = "owner/model";

/// A file of the hub's repository.
#[derive(Clone)]
pub struct Stored {
    pub bytes: Vec<u8>,
    /// The address of the store that holds it, if it is a large file.
    pub store: Option<String>,
}

impl Stored {
    pub fn etag(&self) -> String {
        let hex = |digest: &[u8]| digest.iter().map(|b| format!("{b:02x}")).collect();
        match self.store {
            Some(_) => hex(&Sha256::digest(&self.bytes)),
            None => {
                hex(&Sha1::new_with_prefix(format!("blob {}\0", self.bytes.len())).chain_update(&self.bytes).finalize())
            }
        }
    }
}

/// The files of a repository, by name.
pub type Files = BTreeMap<String, Stored>;

/// The bytes of the model's weights.
pub static WEIGHTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..100_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect());

/// A model: its configuration, and weights in a store at that address.
pub fn model(store: &str) -> Files {
    Files::from([
        ("README.md".into(), Stored { bytes: b"# A model".to_vec(), store: None }),
        ("config.json".into(), Stored { bytes: b"{}".to_vec(), store: None }),
        ("model.safetensors".into(), Stored { bytes: WEIGHTS.clone(), store: Some(store.into()) }),
    ])
}

/// What the hub answers, in the manner of huggingface.co.
pub fn answer(files: &Files, commit: &str, request: &Request) -> Reply {
    if request.path.starts_with("/api/models/owner/model/revision/") {
        let files: Vec<String> = files.keys().map(|name| format!("{{\"rfilename\": {name:?}}}")).collect();
        return Reply::ok(format!("{{\"sha\": {commit:?}, \"siblings\": [{}]}}", files.join(", ")).as_bytes());
    }
    let Some(name) = request.path.strip_prefix("/owner/model/resolve/").and_then(|p| Some(p.split_once('/')?.1)) else {
        return Reply::status(404).with("X-Error-Code", "RepoNotFound").with("X-Error-Message", "Repository not found");
    };
    let Some(file) = files.get(name) else {
        return Reply::status(404).with("X-Error-Code", "EntryNotFound").with("X-Repo-Commit", commit);
    };
    let etag = format!("\"{}\"", file.etag());
    match &file.store {
        None => Reply::part(&file.bytes, request).with("X-Repo-Commit", commit).with("ETag", &etag),
        Some(store) => Reply::status(302)
            .with("Location", &format!("{store}/{name}?Signature=secret"))
            .with("X-Repo-Commit", commit)
            .with("X-Linked-Etag", &etag)
            .with("X-Linked-Size", &file.bytes.len().to_string()),
    }
}

/// A hub with a model, a store on another port, and an empty cache.
pub struct World {
    pub hub: Server,
    pub store: Server,
    pub files: Files,
    pub folder: tempfile::TempDir,
}

type Odd = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

impl World {
    pub fn new() -> World {
        World::with(|_, _| None, |_, _| None)
    }

    /// One whose store does something odd with a request: the second number says how many of its kind (method and
    /// path) came before.
    pub fn with_store(odd: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> World {
        World::with(|_, _| None, odd)
    }

    /// One whose hub does something odd.
    pub fn with_hub(odd: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> World {
        World::with(odd, |_, _| None)
    }

    /// One whose hub and store do something odd.
    pub fn with(
        hub_odd: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
        store_odd: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> World {
        let (hub_odd, store_odd): (Arc<Odd>, Arc<Odd>) = (Arc::new(hub_odd), Arc::new(store_odd));
        let store = Server::start(move |request, before| {
            store_odd(request, before).unwrap_or_else(|| Reply::part(&WEIGHTS, request))
        });
        let files = model(&store.address);
        let known = files.clone();
        let hub = Server::start(move |request, before| {
            hub_odd(request, before).unwrap_or_else(|| answer(&known, COMMIT, request))
        });
        World { hub, store, files, folder: tempfile::tempdir().unwrap() }
    }

    /// A configuration that waits for nothing long.
    pub fn config(&self) -> HubConfig {
        let mut config = HubConfig::at(self.folder.path());
        config.endpoint = self.hub.address.clone();
        config.attempts = 3;
        config.first_wait = Duration::from_millis(1);
        config
    }

    pub fn client(&self) -> Hub {
        Hub::new(self.config())
    }

    /// Downloads the model.
    pub fn fetch(&self) -> Result<PathBuf, HubError> {
        self.client().snapshot(REPO, "main", model_files, &mut |_| ())
    }

    /// Downloads the model, and says what was told meanwhile.
    pub fn fetch_told(&self) -> (Result<PathBuf, HubError>, Vec<String>) {
        let mut told = vec![];
        let result = self.client().snapshot(REPO, "main", model_files, &mut |progress: Progress<'_>| {
            told.push(match progress {
                Progress::Bytes { file, done, total } => format!("{file} {done}/{}", total.unwrap_or(0)),
                Progress::Again { why, wait } => format!("again in {wait:?}: {why}"),
                Progress::Locked { file } => format!("locked {file}"),
            });
        });
        (result, told)
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join("models--owner--model").join(below)
    }

    pub fn weights(&self) -> &Stored {
        &self.files["model.safetensors"]
    }

    /// Where the weights are while they come.
    pub fn incomplete(&self) -> PathBuf {
        self.path(&format!("blobs/{}.incomplete", self.weights().etag()))
    }

    /// Puts the first bytes of the weights there.
    pub fn put_incomplete(&self, bytes: &[u8]) {
        fs::create_dir_all(self.path("blobs")).unwrap();
        fs::write(self.incomplete(), bytes).unwrap();
    }

    /// Checks that the model is here as it is on the hub, and nothing of its download is left.
    #[track_caller]
    pub fn assert_whole(&self, snapshot: &Path) {
        for name in ["config.json", "model.safetensors"] {
            assert!(fs::read(snapshot.join(name)).unwrap() == self.files[name].bytes, "{name}");
        }
        let mut blobs = names(&self.path("blobs"));
        let mut etags = ["config.json", "model.safetensors"].map(|name| self.files[name].etag());
        blobs.sort();
        etags.sort();
        assert_eq!(blobs, etags);
    }
}

/// The names in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
