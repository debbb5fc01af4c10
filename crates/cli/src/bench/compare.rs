//! Figures of others, as ratios: a file, or a command that is run in turns with our own.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::table::Table;
use super::timing::Seconds;
use crate::input::read_text;

/// Median seconds by name.
pub type Medians = BTreeMap<String, f64>;

/// The timings in JSON such as `bench --json` and PyTorch's side print.
fn medians(text: &str) -> Result<Medians> {
    // Programs may print other lines before it.
    let start = text.find('{').context("there is no JSON object in it")?;
    let value: Value = serde_json::from_str(&text[start..]).context("it is not JSON")?;
    let object = value.as_object().context("expected a JSON object")?;
    let found: Medians = object.iter().filter_map(|(k, v)| Some((k.clone(), v.get("median")?.as_f64()?))).collect();
    if found.is_empty() {
        bail!("it has no timing: expected entries such as \"train_step\": {{\"median\": 0.7}}");
    }
    Ok(found)
}

/// Timings of a file.
pub fn read(path: &Path) -> Result<Medians> {
    let text = read_text(path, "the timings")?;
    medians(&text).with_context(|| format!("{} is not a benchmark's output", path.display()))
}

/// Timings that a shell command prints.
pub fn run(command: &str) -> Result<Medians> {
    let output = Command::new("sh")
        .args(["-c", command])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{command}`"))?;
    if !output.status.success() {
        bail!("`{command}` failed with {}", output.status);
    }
    medians(&String::from_utf8_lossy(&output.stdout)).with_context(|| format!("`{command}` printed no timings"))
}

/// Both side by side; what only one of them has is left out.
///
/// # Errors
/// If nothing is left.
pub fn table(ours: &BTreeMap<String, Seconds>, theirs: &Medians) -> Result<Table> {
    if !ours.keys().any(|name| theirs.contains_key(name)) {
        let names = |all: Vec<&String>| match all.as_slice() {
            [] => "nothing".into(),
            [..] => all.into_iter().cloned().collect::<Vec<_>>().join(", "),
        };
        bail!(
            "there is nothing to compare: the other side timed {}; this one timed {} (see `bench --help` for what can be)",
            names(theirs.keys().collect()),
            names(ours.keys().collect())
        );
    }
    let mut table = Table::new(["measured", "theirs, ms", "ours, ms", "theirs / ours"]);
    for (name, own) in ours {
        if let Some(other) = theirs.get(name) {
            table.row([
                name.clone(),
                format!("{:.1}", other * 1e3),
                format!("{:.1}", own.median * 1e3),
                format!("{:.2}x", other / own.median),
            ]);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_common_timing_there_is_nothing_to_compare() {
        let ours = BTreeMap::from([("forward_b1".to_string(), Seconds { median: 1.0, min: 1.0, max: 1.0 })]);
        let told = table(&ours, &Medians::from([("train_step".into(), 1.0)])).err().unwrap().to_string();
        assert!(told.contains("the other side timed train_step; this one timed forward_b1"), "{told}");
        assert!(table(&ours, &Medians::from([("forward_b1".into(), 1.0)])).is_ok());
    }
}
