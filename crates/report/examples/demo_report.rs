//! Writes a report of synthetic data, the same with hostile text everywhere, one of a large model, and pictures: `cargo run -p ironlens-report --example demo_report -- DIR`.

#[path = "../tests/synthetic/mod.rs"]
#[allow(dead_code)]
mod synthetic;

fn main() -> Result<(), ironlens_report::ReportError> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "demo-report".into());
    let dir = std::path::Path::new(&dir);
    let report = synthetic::report(128);
    report.write_html(dir.join("report.html"))?;
    synthetic::hostile(24).write_html(dir.join("hostile.html"))?;
    synthetic::large().write_html(dir.join("large-model.html"))?;
    let figures = report.write_figures(dir.join("figures"))?;
    println!("{} and {} pictures", dir.join("report.html").display(), figures.len());
    Ok(())
}
