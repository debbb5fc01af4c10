//! Downloads from a hub on loopback. No test reaches another network.

#![cfg(feature = "download")]

mod support;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use ironlens_files::watch::watch;
use ironlens_hub::{Cached, Hub, HubConfig, HubError, Progress, Token, model_files};
use support::{COMMIT, Files, REPO, Reply, Server, Stored, WEIGHTS, World, answer, names};

const OTHER: &str = "ffffffffffffffffffffffffffffffffffffffff";

#[test]
fn a_model_comes_whole_and_lies_where_python_would_put_it() {
    let world = World::new();
    let (result, told) = world.fetch_told();
    let snapshot = result.unwrap();
    assert_eq!(snapshot, world.path(&format!("snapshots/{COMMIT}")));
    world.assert_whole(&snapshot);
    assert_eq!(fs::read_to_string(world.path("refs/main")).unwrap(), COMMIT);
    let mut files = names(&snapshot);
    files.sort();
    assert_eq!(files, ["config.json", "model.safetensors"], "the README is not wanted");
    #[cfg(unix)]
    {
        let target = fs::read_link(snapshot.join("model.safetensors")).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(world.weights().etag()));
    }
    let lock = format!(".locks/models--owner--model/{}.lock", world.weights().etag());
    assert!(world.folder.path().join(lock).is_file());
    assert_eq!(told.first().unwrap(), "config.json 0/2");
    assert_eq!(told.last().unwrap(), "model.safetensors 400000/400000");
}

#[test]
fn what_is_here_is_not_asked_for_again() {
    let world = World::new();
    let snapshot = world.fetch().unwrap();
    let (asked, brought) = (world.hub.seen().len(), world.store.seen().len());
    assert_eq!(world.fetch().unwrap(), snapshot);
    assert_eq!(world.hub.seen().len(), asked);
    // The newest commit is asked for; it is the same.
    assert_eq!(world.client().fetch(REPO, "main", model_files, &mut |_| ()).unwrap(), snapshot);
    assert_eq!((world.hub.seen().len(), world.store.seen().len()), (asked + 1, brought));
    assert_eq!(world.hub.seen().last().unwrap().path, "/api/models/owner/model/revision/main");
}

#[test]
fn a_newer_commit_shares_the_files_that_did_not_change() {
    let world = World::new();
    let old = world.fetch().unwrap();
    let mut files = world.files.clone();
    files.get_mut("config.json").unwrap().bytes = b"{\"new\": 1}".to_vec();
    let newer = Server::start(move |request, _| answer(&files, OTHER, request));
    let mut config = world.config();
    config.endpoint = newer.address.clone();
    let brought = world.store.seen().len();
    let new = Hub::new(config).fetch(REPO, "main", model_files, &mut |_| ()).unwrap();
    assert_eq!(world.store.seen().len(), brought);
    assert_eq!(fs::read(new.join("config.json")).unwrap(), b"{\"new\": 1}");
    assert_eq!(fs::read(old.join("config.json")).unwrap(), b"{}");
    let hub = world.client();
    assert_eq!(hub.find(REPO, "main").unwrap(), Some(new));
    assert_eq!(hub.find(REPO, COMMIT).unwrap(), Some(old));
}

#[test]
fn the_token_is_sent_to_the_hub_and_to_nobody_else() {
    let world = World::new();
    let files = world.files.clone();
    // A hub that first leads to another place of its own, then to the store.
    let moved = Server::start(move |request, _| {
        let mut request = request.clone();
        match request.path.strip_suffix("?moved").map(String::from) {
            Some(path) => request.path = path,
            None if request.path.contains("/resolve/") => {
                return Reply::status(307).with("Location", &format!("{}?moved", request.path));
            }
            None => {}
        }
        answer(&files, COMMIT, &request)
    });
    let mut config = world.config();
    config.endpoint = moved.address.clone();
    config.token = Token::new("hf_secret");
    world.assert_whole(&Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| ()).unwrap());
    assert!(moved.seen().len() >= 8);
    assert!(moved.seen().iter().all(|r| r.header("authorization") == Some("Bearer hf_secret")));
    assert!(!world.store.seen().is_empty());
    assert!(world.store.seen().iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn another_host_cannot_have_the_token_sent_for_it() {
    // The store leads back to an address of the hub: it is followed as anybody could.
    let hub_address = Arc::new(Mutex::new(String::new()));
    let address = hub_address.clone();
    let world = World::with(
        |request, _| request.path.starts_with("/back").then(|| Reply::part(&WEIGHTS, request)),
        move |_, _| Some(Reply::status(302).with("Location", &format!("{}/back", address.lock().unwrap()))),
    );
    hub_address.lock().unwrap().clone_from(&world.hub.address);
    let mut config = world.config();
    config.token = Token::new("hf_secret");
    world.assert_whole(&Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| ()).unwrap());
    let back: Vec<_> = world.hub.seen().into_iter().filter(|r| r.path == "/back").collect();
    assert_eq!(back.len(), 1);
    assert_eq!(back[0].header("authorization"), None);
}

#[test]
fn a_download_goes_on_where_another_stopped() {
    let world = World::new();
    world.put_incomplete(&world.weights().bytes[..123_456]);
    let (result, told) = world.fetch_told();
    world.assert_whole(&result.unwrap());
    assert_eq!(world.store.ranges(), [Some(123_456)]);
    assert!(told.contains(&"model.safetensors 123456/400000".into()), "{told:?}");
    assert!(!told.contains(&"model.safetensors 0/400000".into()));
}

#[test]
fn a_file_that_only_lacked_its_name_is_not_asked_for() {
    let world = World::new();
    world.put_incomplete(&world.weights().bytes);
    world.assert_whole(&world.fetch().unwrap());
    assert!(world.store.seen().is_empty());
}

#[test]
fn connections_that_break_are_followed_by_others_as_long_as_something_comes() {
    // Seven breaks, where three failures in a row would be the end.
    let world = World::with_store(|request, _| {
        let whole = Reply::part(&WEIGHTS, request);
        Some(if request.from().unwrap_or(0) < 350_000 { whole.cut_after(50_000) } else { whole })
    });
    let (result, told) = world.fetch_told();
    world.assert_whole(&result.unwrap());
    let ranges = world.store.ranges();
    assert_eq!(ranges.len(), 8);
    assert_eq!(ranges[0], None);
    assert!(ranges.is_sorted());
    assert_eq!(told.iter().filter(|t| t.starts_with("again in 1ms")).count(), 7, "{told:?}");
}

#[test]
fn a_connection_that_brings_nothing_is_given_up_and_its_file_kept() {
    let world = World::with_store(|request, before| {
        let whole = Reply::part(&WEIGHTS, request);
        Some(whole.cut_after(if before == 0 { 1000 } else { 0 }))
    });
    let (result, told) = world.fetch_told();
    let error = result.unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert!(!error.to_string().contains("secret"), "a signed address is not told: {error}");
    // The first break came after a gain; two more in a row make three.
    assert_eq!(world.store.ranges(), [None, Some(1000), Some(1000)]);
    let waits: Vec<&str> = told.iter().filter_map(|t| t.strip_prefix("again in ")?.split(':').next()).collect();
    assert_eq!(waits, ["1ms", "2ms"]);
    assert_eq!(fs::read(world.incomplete()).unwrap(), &world.weights().bytes[..1000]);
    assert_eq!(world.client().find(REPO, "main").unwrap(), None);
}

#[test]
fn a_server_that_ignores_ranges_begins_anew() {
    let world = World::with_store(|_, _| Some(Reply::ok(&WEIGHTS)));
    world.put_incomplete(b"something else that must not stay");
    world.assert_whole(&world.fetch().unwrap());
    assert_eq!(world.store.ranges(), [Some(33)]);
}

#[test]
fn a_server_that_ignores_ranges_and_breaks_is_given_up() {
    let world = World::with_store(|_, _| Some(Reply::ok(&WEIGHTS).cut_after(5000)));
    assert!(matches!(world.fetch(), Err(HubError::Network { .. })));
    assert_eq!(world.store.ranges().len(), 3, "what came twice is no gain");
}

#[test]
fn a_range_that_was_not_asked_for_is_not_taken() {
    let world = World::with_store(|request, _| {
        request.from().map(|_| Reply::status(206).with("Content-Range", "bytes 7-9/10"))
    });
    world.put_incomplete(&world.weights().bytes[..10]);
    world.assert_whole(&world.fetch().unwrap());
    assert_eq!(world.store.ranges(), [Some(10), None]);
}

#[test]
fn a_rest_that_the_server_does_not_have_is_asked_for_from_the_start() {
    let world = World::with_store(|request, _| request.from().map(|_| Reply::status(416)));
    world.put_incomplete(b"abc");
    world.assert_whole(&world.fetch().unwrap());
    assert_eq!(world.store.ranges(), [Some(3), None]);
    // More than the file has is not asked for at all.
    let world = World::new();
    world.put_incomplete(&[0; 400_001]);
    world.assert_whole(&world.fetch().unwrap());
    assert_eq!(world.store.ranges(), [None]);
}

#[test]
fn bytes_that_are_not_the_file_s_are_thrown_away() {
    let changed = |name: &'static str| {
        move |request: &support::Request, before: usize| {
            let mut bytes = support::model("")[name].bytes.clone();
            bytes[1] ^= 1;
            (request.path.contains(name) && request.method == "GET" && before == 0).then(|| Reply::ok(&bytes))
        }
    };
    for (name, hash, world) in [
        ("model.safetensors", "SHA-256", World::with_store(changed("model.safetensors"))),
        ("config.json", "SHA-1 in Git", World::with_hub(changed("config.json"))),
    ] {
        let error = world.fetch().unwrap_err();
        assert!(matches!(&error, HubError::Damaged { what, .. } if *what == hash), "{error}");
        assert!(error.to_string().contains(name) && error.to_string().contains(&world.files[name].etag()), "{error}");
        assert!(names(&world.path("blobs")).iter().all(|blob| !blob.contains(&world.files[name].etag())));
        assert_eq!(world.client().find(REPO, "main").unwrap(), None);
        world.assert_whole(&world.fetch().unwrap());
    }
}

#[test]
fn a_damaged_beginning_is_noticed_when_the_rest_came() {
    let world = World::new();
    world.put_incomplete(&[7; 1000]);
    let error = world.fetch().unwrap_err();
    assert!(matches!(error, HubError::Damaged { what: "SHA-256", .. }), "{error}");
    assert!(!world.incomplete().exists());
    world.assert_whole(&world.fetch().unwrap());
}

#[test]
fn more_bytes_than_there_should_be_are_an_error() {
    let world = World::with_store(|_, before| {
        let mut bytes = WEIGHTS.clone();
        bytes.push(0);
        (before == 0).then(|| Reply::ok(&bytes))
    });
    let error = world.fetch().unwrap_err();
    assert!(matches!(error, HubError::Damaged { what: "size", .. }), "{error}");
    assert!(error.to_string().contains("400000 bytes"), "{error}");
    assert!(!world.incomplete().exists());
    world.assert_whole(&world.fetch().unwrap());
}

#[test]
fn fewer_bytes_than_there_should_be_are_asked_for_again() {
    // Nothing breaks: the answer says itself that it is shorter.
    let world = World::with_store(|_, before| (before == 0).then(|| Reply::ok(&WEIGHTS[..399_999])));
    let (result, told) = world.fetch_told();
    world.assert_whole(&result.unwrap());
    assert!(told.iter().any(|t| t.contains("ended after 399999 of 400000 bytes")), "{told:?}");
    assert_eq!(world.store.ranges(), [None, Some(399_999)]);
}

#[test]
fn who_may_not_have_a_model_is_told_what_to_do() {
    let told = |status: u16, code: Option<&'static str>, token: Option<&str>| {
        let world = World::with_hub(move |_, _| {
            let reply = Reply::status(status).with("X-Error-Message", "Access is restricted");
            Some(code.map_or(reply.clone(), |code| reply.with("X-Error-Code", code)))
        });
        let mut config = world.config();
        config.token = token.and_then(Token::new);
        let error = Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| ()).unwrap_err();
        assert!(matches!(error, HubError::Denied { .. }), "{error}");
        assert_eq!(world.hub.seen().len(), 1, "asking again does not help");
        assert!(error.to_string().contains("(Access is restricted)"), "{error}");
        (error.to_string(), world.hub.address.clone())
    };
    for status in [401, 403] {
        let (error, address) = told(status, Some("GatedRepo"), None);
        assert!(error.contains(&format!("accept its licence at {address}/owner/model, and set HF_TOKEN")), "{error}");
        let (error, _) = told(status, Some("GatedRepo"), Some("hf_x"));
        assert!(error.contains("the token's account may not have it"), "{error}");
        let (error, _) = told(status, None, None);
        assert!(error.contains("check the name"), "{error}");
    }
    assert!(told(401, None, Some("hf_x")).0.contains("is not valid"));
}

#[test]
fn names_that_the_hub_does_not_know_are_told() {
    let world = World::new();
    let error = world.client().snapshot("owner/modle", "main", model_files, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("no model owner/modle at revision main (Repository not found)"), "{error}");
    assert!(!world.folder.path().join("models--owner--modle").exists());
}

#[test]
fn a_repository_without_a_model_says_what_it_has() {
    let files = Files::from([("data.csv".into(), Stored { bytes: vec![], store: None })]);
    let hub = Server::start(move |request, _| answer(&files, COMMIT, request));
    let folder = tempfile::tempdir().unwrap();
    let mut config = HubConfig::at(folder.path());
    config.endpoint = hub.address.clone();
    let error = Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::NoModel { .. }), "{error}");
    assert!(error.to_string().contains("data.csv"), "{error}");
}

#[test]
fn one_file_is_brought_and_one_that_is_not_there_is_kept_in_mind() {
    let world = World::new();
    let hub = world.client();
    let file = |name| hub.file(REPO, "main", name, &mut |_| ()).unwrap();
    let readme = file("README.md").unwrap();
    assert_eq!(fs::read(&readme).unwrap(), b"# A model");
    assert_eq!(fs::read_to_string(world.path("refs/main")).unwrap(), COMMIT);
    assert_eq!(file("tokenizer.json"), None);
    assert!(world.path(&format!(".no_exist/{COMMIT}/tokenizer.json")).is_file());
    assert_eq!(hub.cached(REPO, "main", "tokenizer.json").unwrap(), Cached::Absent);
    let asked = world.hub.seen().len();
    assert_eq!((file("README.md"), file("tokenizer.json")), (Some(readme), None));
    assert_eq!(world.hub.seen().len(), asked);
    // Later files are of the commit that the cache has, and not of whatever `main` is by now.
    file("config.json").unwrap();
    assert_eq!(world.hub.seen()[asked].path, format!("/owner/model/resolve/{COMMIT}/config.json"));
}

#[test]
fn a_server_that_is_asked_too_often_is_left_alone_as_long_as_it_wants() {
    let world = World::with_hub(|_, before| (before == 0).then(|| Reply::status(429).with("Retry-After", "1")));
    let (result, told) = world.fetch_told();
    world.assert_whole(&result.unwrap());
    assert!(told[0].starts_with("again in 1s: ") && told[0].contains("asked too often"), "{told:?}");

    let world = World::with_hub(|_, _| Some(Reply::status(429).with("Retry-After", "3600")));
    let (result, told) = world.fetch_told();
    let error = result.unwrap_err();
    assert!(matches!(error, HubError::Busy { wait: Some(_), .. }), "{error}");
    assert!(error.to_string().contains("3600 s") && told.is_empty(), "{error}");
}

#[test]
fn a_server_in_trouble_is_asked_again_a_few_times() {
    let world = World::with_hub(|_, before| (before < 2).then(|| Reply::status(503)));
    world.assert_whole(&world.fetch().unwrap());
    let world = World::with_hub(|_, _| Some(Reply::status(500)));
    let error = world.fetch().unwrap_err();
    assert!(matches!(error, HubError::Status { status: 500, .. }), "{error}");
    assert_eq!(world.hub.seen().len(), 3);
    let world = World::with_hub(|request, before| {
        let first = before == 0 && request.path.starts_with("/api/");
        first.then(|| Reply::ok(b"{\"sha\": ").cut_after(3))
    });
    world.assert_whole(&world.fetch().unwrap());
    let world = World::with_store(|_, _| Some(Reply::status(403)));
    let error = world.fetch().unwrap_err();
    assert!(matches!(error, HubError::Status { status: 403, .. }), "a store's refusal is not the hub's: {error}");
}

#[test]
fn no_network_is_told_after_a_few_attempts() {
    let world = World::new();
    let mut config = world.config();
    config.endpoint = "http://127.0.0.1:1".into();
    let mut attempts = 0;
    let error = Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| attempts += 1).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert!(error.to_string().contains("check the network"), "{error}");
    assert_eq!(attempts, 2);
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_without_end() {
    let world = World::with_hub(|_, _| Some(Reply::status(200).silent_for(Duration::from_secs(5))));
    let mut config = world.config();
    (config.silence, config.attempts) = (Duration::from_millis(100), 2);
    let start = std::time::Instant::now();
    let error = Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::Network { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn an_address_that_is_none_is_told() {
    for endpoint in ["huggingface.co", "ftp://huggingface.co", ""] {
        let mut config = World::new().config();
        config.endpoint = endpoint.into();
        let error = Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");
    }
}

#[test]
fn a_token_that_cannot_be_sent_is_told_and_not_shown() {
    let world = World::new();
    let mut config = world.config();
    config.token = Token::new("hf_one\nhf_two");
    let error = Hub::new(config).snapshot(REPO, "main", model_files, &mut |_| ()).unwrap_err();
    assert!(matches!(error, HubError::BadToken) && !error.to_string().contains("hf_"), "{error}");
    assert!(world.hub.seen().is_empty());
}

#[test]
fn a_file_that_is_not_there_is_told_by_a_cache_that_may_only_be_read_too() {
    let world = World::new();
    world.fetch().unwrap();
    let only_read = |_: &'static str, _: &Path| Err(std::io::ErrorKind::ReadOnlyFilesystem.into());
    let file = || world.client().file(REPO, "main", "tokenizer.json", &mut |_| ());
    assert_eq!(watch(only_read, file).unwrap(), None);
    assert_eq!(world.client().cached(REPO, "main", "tokenizer.json").unwrap(), Cached::Unknown);
}

#[test]
fn offline_nothing_is_asked_and_what_is_here_is_found() {
    let world = World::new();
    let mut config = world.config();
    config.offline = true;
    let hub = Hub::new(config);
    let quiet = &mut |_: Progress<'_>| ();
    for error in [
        hub.snapshot(REPO, "main", model_files, quiet).unwrap_err(),
        hub.fetch(REPO, "main", model_files, quiet).unwrap_err(),
        hub.file(REPO, "main", "config.json", quiet).unwrap_err(),
    ] {
        assert!(matches!(error, HubError::NotHere { .. }), "{error}");
        assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
    }
    assert!(world.hub.seen().is_empty());
    let snapshot = world.fetch().unwrap();
    let asked = world.hub.seen().len();
    assert_eq!(hub.snapshot(REPO, "main", model_files, quiet).unwrap(), snapshot);
    assert_eq!(hub.file(REPO, COMMIT, "config.json", quiet).unwrap(), Some(snapshot.join("config.json")));
    assert_eq!(world.hub.seen().len(), asked);
}

#[test]
fn names_that_would_leave_their_folder_are_refused_before_anything_is_written() {
    for name in ["../../evil", "/tmp/evil", "a/../../../evil", "..\\evil", "C:evil", "a//b", "evil\u{7}"] {
        let listing = format!("{{\"sha\": {COMMIT:?}, \"siblings\": [{{\"rfilename\": \"{}\"}}]}}", json(name));
        let world = World::with_hub(move |_, _| Some(Reply::ok(listing.as_bytes())));
        let all = |names: &[String]| Some(names.to_vec());
        let error = world.client().snapshot(REPO, "main", all, &mut |_| ()).unwrap_err();
        assert!(matches!(error, HubError::BadName { what: "file", .. }), "{error}");
        assert!(names(world.folder.path()).is_empty(), "{name}");
    }
}

/// A text within quotes, in JSON.
fn json(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\u{7}', "\\u0007")
}

#[test]
fn answers_that_are_not_the_hub_s_are_told() {
    for (text, reason) in [
        ("<html>Log in to the network of this hotel</html>", "expected value"),
        ("{}", "`sha` is no commit"),
        ("{\"sha\": \"../../x\", \"siblings\": []}", "`sha` is no commit"),
        (&format!("{{\"sha\": {COMMIT:?}}}"), "`siblings` is no list"),
    ] {
        let text = text.to_string();
        let world = World::with_hub(move |_, _| Some(Reply::ok(text.as_bytes())));
        let error = world.fetch().unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }) && error.to_string().contains(reason), "{error}");
    }
    for etag in ["", "../../../evil", "a/b", &"a".repeat(300)] {
        let etag = format!("\"{etag}\"");
        let world = World::with_hub(move |r, _| (r.method == "HEAD").then(|| Reply::ok(b"").with("ETag", &etag)));
        let error = world.fetch().unwrap_err();
        assert!(error.to_string().contains("its etag is"), "{error}");
    }
    let world = World::with_hub(|request, _| Some(Reply::status(302).with("Location", &request.path)));
    assert!(world.fetch().unwrap_err().to_string().contains("it leads on and on"));
}

#[test]
fn revisions_with_a_slash_are_folders_in_the_cache() {
    let world = World::new();
    let snapshot = world.client().snapshot(REPO, "refs/pr/1", model_files, &mut |_| ()).unwrap();
    assert_eq!(world.hub.seen()[0].path, "/api/models/owner/model/revision/refs%2Fpr%2F1");
    assert_eq!(fs::read_to_string(world.path("refs/refs/pr/1")).unwrap(), COMMIT);
    assert_eq!(world.client().find(REPO, "refs/pr/1").unwrap(), Some(snapshot));
}

#[test]
fn a_full_disk_is_told_and_what_came_is_kept() {
    let world = World::new();
    let (incomplete, mut appended) = (world.incomplete(), 0);
    let full = move |what: &'static str, path: &Path| {
        appended += usize::from(what == "append" && path == incomplete);
        match appended {
            2 => Err(std::io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    };
    let error = watch(full, || world.fetch()).unwrap_err();
    let kept = fs::metadata(world.incomplete()).unwrap().len() as usize;
    assert!(kept > 0);
    assert!(matches!(error, HubError::DiskFull { .. }), "{error}");
    assert!(error.to_string().contains(&format!("{} more bytes are to come", 400_000 - kept)), "{error}");
    world.assert_whole(&world.fetch().unwrap());
    assert_eq!(world.store.ranges(), [None, Some(kept)]);
}

#[test]
fn where_links_are_not_possible_files_are_copied() {
    let world = World::new();
    let no_links = |what: &'static str, _: &Path| match what {
        "link" => Err(std::io::ErrorKind::Unsupported.into()),
        _ => Ok(()),
    };
    let snapshot = watch(no_links, || world.fetch()).unwrap();
    assert!(!fs::symlink_metadata(snapshot.join("model.safetensors")).unwrap().is_symlink());
    world.assert_whole(&snapshot);
}

#[test]
fn two_downloads_at_once_are_one() {
    let world = World::with_store(|request, _| {
        let whole = Reply::part(&WEIGHTS, request);
        Some(whole.silent_for(Duration::from_millis(300)))
    });
    let waited = AtomicUsize::new(0);
    let fetch = || {
        let mut told = |progress: Progress<'_>| {
            waited.fetch_add(usize::from(matches!(progress, Progress::Locked { .. })), Ordering::Relaxed);
        };
        world.client().snapshot(REPO, "main", model_files, &mut told).unwrap()
    };
    let snapshots = thread::scope(|scope| [scope.spawn(fetch), scope.spawn(fetch)].map(|t| t.join().unwrap()));
    assert_eq!(snapshots[0], snapshots[1]);
    world.assert_whole(&snapshots[0]);
    assert_eq!(world.store.ranges(), [None]);
    assert!(waited.load(Ordering::Relaxed) >= 1);
}

#[test]
fn a_download_that_dies_leaves_a_cache_that_holds_whole_files_only() {
    let world = World::new();
    // As a process that is killed in the middle of a file: nothing is tidied up.
    let died = thread::scope(|scope| {
        let dying = scope.spawn(|| {
            let mut die = |progress: Progress<'_>| {
                let half = matches!(progress, Progress::Bytes { done, .. } if done > 100_000);
                assert!(!half, "killed");
            };
            world.client().snapshot(REPO, "main", model_files, &mut die)
        });
        dying.join()
    });
    assert!(died.is_err());
    assert_eq!(world.client().find(REPO, "main").unwrap(), None);
    assert!(world.incomplete().is_file());
    world.assert_whole(&world.fetch().unwrap());
    assert!(world.store.ranges()[1].unwrap() > 100_000);
}

#[test]
fn whichever_operation_on_a_file_fails_the_cache_stays_valid() {
    for failing in 0.. {
        let world = World::new();
        let mut left = failing;
        let fail = move |_: &'static str, _: &Path| match left {
            0 => {
                left = usize::MAX; // the others work
                Err(std::io::Error::other("no"))
            }
            _ => {
                left -= 1;
                Ok(())
            }
        };
        let result = watch(fail, || world.fetch());
        // What is in the snapshot is whole, whatever is missing, and the reference names no model in part.
        for name in ["config.json", "model.safetensors"] {
            if let Cached::Here(path) = world.client().cached(REPO, COMMIT, name).unwrap() {
                assert!(fs::read(path).unwrap() == world.files[name].bytes, "{name} after failure {failing}");
            }
        }
        if let Some(snapshot) = world.client().find(REPO, "main").unwrap() {
            world.assert_whole(&snapshot);
        }
        let failed = result.is_err();
        world.assert_whole(&world.fetch().unwrap());
        if !failed && failing > 20 {
            return;
        }
    }
}
