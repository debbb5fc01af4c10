//! The table that `verify` prints.

use std::io::IsTerminal;

use super::GroupResult;

/// One line per case and group, and a summary.
pub fn print(results: &[GroupResult], unchecked: &[String]) {
    // The old console of Windows shows the codes of colours; its successor says who it is.
    let knows_colors = !cfg!(windows) || std::env::var_os("WT_SESSION").is_some();
    let color = knows_colors && std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let paint = |text: &str, ok: bool| match (color, ok) {
        (false, _) => text.to_string(),
        (true, true) => format!("\x1b[32m{text}\x1b[0m"),
        (true, false) => format!("\x1b[31m{text}\x1b[0m"),
    };
    let width = |f: fn(&GroupResult) -> usize, least: usize| results.iter().map(f).max().unwrap_or(0).max(least);
    let (case, group) = (width(|r| r.case.len(), 4), width(|r| r.group.len(), 5));
    println!(
        "{:case$}  {:group$}  {:>7}  {:>11}  {:>9}        where",
        "case", "group", "tensors", "worst error", "tolerance"
    );
    for r in results {
        let verdict = paint(if r.passed() { "ok  " } else { "FAIL" }, r.passed());
        let place = r.problem.as_deref().unwrap_or(&r.place);
        println!(
            "{:case$}  {:group$}  {:>7}  {:>11.2e}  {:>9.0e}  {verdict}  {place}",
            r.case, r.group, r.tensors, r.error, r.tolerance
        );
    }
    let failed = results.iter().filter(|r| !r.passed()).count();
    let tensors: usize = results.iter().map(|r| r.tensors).sum();
    if !unchecked.is_empty() {
        println!("not checked: {} tensors, such as {}", unchecked.len(), unchecked[0]);
    }
    let summary = format!("{} groups agree, {failed} do not; {tensors} tensors", results.len() - failed);
    println!("{}", paint(&summary, failed == 0));
}
