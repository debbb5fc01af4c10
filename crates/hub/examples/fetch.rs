//! Finds a model in the cache, or downloads it, and prints where it is:
//! `cargo run -p ironlens-hub --features download --example fetch -- gpt2-small [revision]`.

use std::process::ExitCode;

use ironlens_hub::{Hub, HubConfig, HubError, Progress, lookup, model_files, nearest};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        eprintln!("which model?");
        return ExitCode::FAILURE;
    };
    let revision = arguments.next().unwrap_or("main".into());
    match fetch(&name, &revision) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            if let near @ [_, ..] = &*nearest(&name) {
                eprintln!("names like it: {}", near.join(", "));
            }
            ExitCode::FAILURE
        }
    }
}

fn fetch(name: &str, revision: &str) -> Result<(), HubError> {
    let repo = lookup(name).map_or(name, |known| known.official);
    let hub = Hub::new(HubConfig::from_env()?);
    let folder = hub.snapshot(repo, revision, model_files, &mut |progress| match progress {
        Progress::Bytes { file, done, total: Some(total) } if done == total => eprintln!("{file}: {done} bytes"),
        Progress::Bytes { .. } => {}
        Progress::Again { why, wait } => eprintln!("{why}; again in {} s", wait.as_secs()),
        Progress::Locked { file } => eprintln!("{file}: somebody else downloads it; waiting"),
    })?;
    println!("{}", folder.display());
    Ok(())
}
