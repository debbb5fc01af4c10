//! `ironlens report`: from a run directory to one page.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args as ClapArgs;
use ironlens::report::Report;
use ironlens::study::{Analysis, report_with};
use ironlens::train::RunDir;

use crate::say::{say, say_aside};
use crate::threads;
use crate::train::RUNS;

/// Flags of `report`.
#[derive(ClapArgs, Clone, Debug)]
#[group(skip)]
pub struct Args {
    /// The run [default: the newest in runs/]
    run: Option<PathBuf>,
    /// The page to write [default: report.html in the run]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write every figure as PNG and SVG to this folder, too
    #[arg(long, value_name = "DIR")]
    figures: Option<PathBuf>,
}

impl Args {
    /// The report of one run.
    pub fn new(run: PathBuf, figures: Option<PathBuf>) -> Args {
        Args { run: Some(run), out: None, figures }
    }
}

/// Writes the report.
///
/// # Errors
/// If the run is not one or is cut short, or a file cannot be written.
pub fn run(args: &Args) -> Result<()> {
    threads::start()?;
    let run = match &args.run {
        Some(path) => RunDir::open(path)?,
        None => RunDir::newest(Path::new(RUNS))?,
    };
    write_with(&run, Analysis::kept(&run)?, args.out.as_deref(), args.figures.as_deref())
}

/// Writes the report of a run with an analysis to `out`, or into the run.
///
/// # Errors
/// As [`run`].
pub fn write_with(run: &RunDir, analysis: Option<Analysis>, out: Option<&Path>, figures: Option<&Path>) -> Result<()> {
    let page = out.map_or_else(|| run.path().join("report.html"), Path::to_path_buf);
    write_page(&report_with(run, analysis)?, &page, figures)
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
