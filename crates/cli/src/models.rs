//! `ironlens models`: the families that are read, and the names that are known.

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use ironlens::pretrained::hub::{Hub, HubConfig, model_files, names, nearest};
use ironlens::pretrained::{families, not_read};
use serde_json::json;

/// Flags of `models`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// Only names with this in them
    filter: Option<String>,
    /// Print JSON, an object a line
    #[arg(long)]
    json: bool,
}

/// Prints them.
///
/// # Errors
/// If the filter leaves none.
pub fn run(args: &Args) -> Result<()> {
    let filter = args.filter.as_deref().unwrap_or_default().to_lowercase();
    let matches = |name: &str| name.to_lowercase().contains(&filter);
    let hub = HubConfig::from_env().map(Hub::new).ok();
    let here = |repo: &str| hub.as_ref().is_some_and(|hub| hub.holds(repo, "main", model_files).unwrap_or(false));
    let found: Vec<_> = names().filter(|n| matches(n.official) || n.aliases.iter().any(|a| matches(a))).collect();
    if found.is_empty() {
        match nearest(&filter).as_slice() {
            [] => bail!("no known name has {filter:?} in it, and none is like it; without it all are listed"),
            near => bail!("no known name has {filter:?} in it; the nearest are {}", near.join(", ")),
        }
    }
    if args.json {
        for n in &found {
            let size = size_in(n.official);
            let (downloaded, readable) = (here(n.official), not_read(n.official).is_none());
            println!(
                "{}",
                json!({
                    "name": n.official, "aliases": n.aliases, "parameters": size, "downloaded": downloaded,
                    "readable": readable,
                })
            );
        }
        return Ok(());
    }
    if args.filter.is_none() {
        println!("Families (any model of theirs is read from its folder or by its name at the hub):");
        for (name, classes) in families() {
            println!("  {name:14} {}", classes[0]);
        }
        println!("\nNames:");
    }
    println!("  {:46} {:>8} {:>9}  aliases", "name", "size", "f32");
    for n in &found {
        let size = size_in(n.official);
        let count = size.map_or_else(String::new, |n| format!("{:.2}B", n / 1e9));
        let bytes = size.map_or_else(String::new, |n| format!("{:.1} GB", 4.0 * n / 1e9));
        let mark = match not_read(n.official) {
            Some(_) => "-",
            None if here(n.official) => "*",
            None => " ",
        };
        println!("{mark} {:46} {count:>8} {bytes:>9}  {}", n.official, n.aliases.join(", "));
    }
    println!("\n{} names; * is on this machine. Sizes are as the name says them.", found.len());
    if found.iter().any(|n| not_read(n.official).is_some()) {
        println!("- is not read here: models of sound, and those with an encoder and a decoder.");
    }
    Ok(())
}

/// The number of parameters that a name tells: `pythia-1.4b`, `gpt-neo-125M`, `Qwen-1_8B`.
fn size_in(name: &str) -> Option<f64> {
    let parts = name.rsplit('/').next()?.split('-');
    parts
        .filter_map(|part| {
            let unit = match part.chars().last()?.to_ascii_lowercase() {
                'b' => 1e9,
                'm' => 1e6,
                _ => return None,
            };
            let number = part[..part.len() - 1].replace('_', ".");
            number.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0).map(|n| n * unit)
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_names() {
        assert_eq!(size_in("EleutherAI/pythia-1.4b-deduped"), Some(1.4e9));
        assert_eq!(size_in("EleutherAI/gpt-neo-125M"), Some(1.25e8));
        assert_eq!(size_in("Qwen/Qwen-1_8B-Chat"), Some(1.8e9));
        assert_eq!(size_in("gpt2"), None);
        assert_eq!(size_in("google-bert/bert-base-uncased"), None);
    }
}
