//! `ironlens report`: from a run directory, or several, to one page.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args as ClapArgs;
use ironlens::report::{Comparison, Report};
use ironlens::study::{self, Analysis, report_with};
use ironlens::train::RunDir;

use crate::say::{say, say_aside};
use crate::train::RUNS;
use crate::{quoted, threads};

/// Flags of `report`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// The run [default: the newest in runs/]; several are compared on one page
    #[arg(value_name = "RUN")]
    run: Vec<PathBuf>,
    /// The page to write [default: report.html in the run, comparison.html beside the first of several]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write every figure as PNG and SVG to this folder, too
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

impl Args {
    /// The report of one run.
    pub fn new(run: PathBuf, figures: Option<PathBuf>) -> Args {
        Args { run: vec![run], out: None, figures }
    }
}

/// Writes the report.
///
/// # Errors
/// If the run is not one or is cut short, or a file cannot be written.
pub fn run(args: &Args) -> Result<()> {
    threads::start()?;
    let run = match args.run.as_slice() {
        [] => RunDir::newest(Path::new(RUNS))?,
        [path] => RunDir::open(path)?,
        several => return compare(several, args),
    };
    write_with(&run, Analysis::kept(&run)?, args.out.as_deref(), args.figures.as_deref())
}

/// Writes a page of several runs.
fn compare(runs: &[PathBuf], args: &Args) -> Result<()> {
    let reports: Vec<Report> =
        runs.iter().map(|path| Ok(study::report(&RunDir::open(path)?)?)).collect::<Result<_>>()?;
    let comparison = Comparison::new(reports);
    let page = args.out.clone().unwrap_or_else(|| runs[0].with_file_name("comparison.html"));
    comparison.write_html(&page)?;
    for report in &comparison.reports {
        for sentence in report.verdict() {
            say!("{}: {sentence}", report.title);
        }
    }
    say!("comparison         {}", page.display());
    if let Some(folder) = &args.figures {
        let mut files = 0;
        for (name, figure) in comparison.figures()? {
            for extension in ["png", "svg"] {
                figure.save(folder.join(format!("{name}.{extension}")))?;
                files += 1;
            }
        }
        say!("figures            {files} files in {}", folder.display());
    }
    Ok(())
}

/// Writes the report of a run with an analysis to `out`, or into the run.
///
/// # Errors
/// As [`run`].
pub fn write_with(run: &RunDir, analysis: Option<Analysis>, out: Option<&Path>, figures: Option<&Path>) -> Result<()> {
    let page = out.map_or_else(|| run.path().join("report.html"), Path::to_path_buf);
    let analysed = analysis.is_some();
    let mut report = report_with(run, analysis)?;
    if let Some(more) = page_again(&report.reproduce, &report.title, analysed) {
        report.reproduce += &format!("\n{more}");
    }
    write_page(&report, &page, figures)
}

/// What writes the page of a run that `command` made, in the words that it has for the program and the folder: a page
/// does not depend on who writes it again, and from where. Nothing if it is no command of ours, or wrote the page itself.
fn page_again(command: &str, name: &str, analysed: bool) -> Option<String> {
    let (program, rest) = [" train", " pipeline"].iter().find_map(|verb| command.split_once(verb))?;
    if !analysed && command.contains(" pipeline") {
        return None;
    }
    // A folder of several words is in quotes, and flags begin with two dashes.
    let given = rest.split_once("--out=").or(rest.split_once("--out ")).map(|(_, folder)| folder);
    let folder = given.and_then(|folder| folder.split(" --").next());
    let folder = folder.map_or_else(|| quoted(&format!("{RUNS}/{name}")), str::to_owned);
    Some(format!("{program} {} {folder}", if analysed { "analyze" } else { "report" }))
}

/// Writes a report, and pictures if wanted; says what it found and where it is.
///
/// # Errors
/// If a file cannot be written.
pub fn write_page(report: &Report, page: &Path, figures: Option<&Path>) -> Result<()> {
    report.write_html(page)?;
    for warning in &report.warnings {
        say_aside(format_args!("warning: {warning}"));
    }
    for sentence in report.verdict() {
        say!("{sentence}");
    }
    say!("report             {}", page.display());
    if let Some(folder) = figures {
        let files = report.write_figures(folder)?;
        say!("figures            {} files in {}", files.len(), folder.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_again_by_the_words_that_made_the_run() {
        let again = |command: &str, analysed| page_again(command, "tiny-1", analysed);
        assert_eq!(again("cargo xtask train --out 'my run' --steps 3", false).unwrap(), "cargo xtask report 'my run'");
        assert_eq!(again("ironlens pipeline --preset tiny --out=a/b", true).unwrap(), "ironlens analyze a/b");
        assert_eq!(again("ironlens train", true).unwrap(), "ironlens analyze runs/tiny-1");
        assert_eq!(again("ironlens pipeline", false), None);
        assert_eq!(again("./own --steps 3", true), None);
    }
}
