//! `docs/notebook.ipynb`: the example `notebook` as cells for Jupyter's Rust kernel (evcxr_jupyter), with what each
//! cell prints and shows. The kernel is not needed to make it: the cells run as a program that tells where each ends.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

const EXAMPLE: &str = "crates/ironlens/examples/notebook.rs";
const NOTEBOOK: &str = "docs/notebook.ipynb";
/// What the program of the cells prints before each of them.
const MARK: &str = "\u{1}cell\n";

const TITLE: &str = "# The notebook, in Rust

A two-layer transformer learns to predict the previous token, and what it learned is read off its attention. This is
`crates/ironlens/examples/notebook.rs`, cell by cell, for the Rust kernel of Jupyter (`cargo install evcxr_jupyter`,
`evcxr_jupyter --install`). Figures are interactive once their cells have run; what is stored here are their pictures.";

const FIRST: &str = ":opt 3
:dep ironlens = { git = \"https://github.com/ironlens/ironlens\" }
use ironlens::prelude::*;
let preset = Preset::Notebook;";

/// A paragraph of the example's `main`: the comment that it begins with, and its code.
struct Cell {
    text: String,
    code: String,
}

/// The cells of the example.
fn cells(example: &str) -> Result<Vec<Cell>, String> {
    let body = example.split("fn main() -> ironlens::Result<()> {\n").nth(1);
    let body = body.and_then(|b| b.split("    Ok(())\n}").next()).ok_or("the example has no `main` that ends in Ok")?;
    let mut cells = Vec::new();
    for paragraph in body.split("\n\n") {
        let lines = paragraph.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
        let (comment, code): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("// "));
        if !comment.is_empty() {
            let text = comment.iter().map(|line| &line[3..]).collect::<Vec<_>>().join(" ");
            cells.push(Cell { text, code: shown(&code.join("\n"))? });
        }
    }
    Ok(cells)
}

/// Code that shows the figures which the example saves.
fn shown(code: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = code.trim_end();
    while let Some((before, after)) = rest.split_once(".save(") {
        let (_, after) = after.split_once(")?;").ok_or("a figure is saved otherwise than by `.save(..)?;`")?;
        write!(out, "{before}.evcxr_display();").map_err(|e| e.to_string())?;
        rest = after;
    }
    Ok(out + rest)
}

/// What a cell printed, in order: text, or the formats of one figure.
enum Output {
    Text(String),
    Figure(Vec<(String, String)>),
}

/// Runs the cells as one program, in a package of its own beside the project's; what each printed.
fn outputs(root: &Path, cells: &[Cell], small: bool) -> Result<Vec<Vec<Output>>, String> {
    let package = root.join("target/notebook");
    let preset = if small { "Tiny" } else { "Notebook" };
    let mut main =
        format!("use ironlens::prelude::*;\n\nfn main() -> ironlens::Result<()> {{\nlet preset = Preset::{preset};\n");
    for cell in cells {
        write!(main, "print!({MARK:?});\n{}\n", cell.code).map_err(|e| e.to_string())?;
    }
    main.push_str("Ok(())\n}\n");
    let told = |e: std::io::Error| e.to_string();
    // With the command, whose dependencies are built by most that is done here, in the profile that they are built in.
    let whole = fs::read_to_string(root.join("Cargo.toml")).map_err(told)?;
    let profile = whole.find("[profile.release]").zip(whole.find("[profile.release-lto]"));
    let profile =
        profile.and_then(|(from, to)| whole.get(from..to)).ok_or("the profiles of Cargo.toml are elsewhere")?;
    let manifest = format!(
        "[package]\nname = \"notebook\"\nedition = \"2024\"\n\n[dependencies]\n\
         ironlens = {{ path = \"../../crates/ironlens\" }}\n\
         ironlens-cli = {{ path = \"../../crates/cli\" }}\n\n[workspace]\n\n{profile}"
    );
    fs::create_dir_all(package.join("src")).map_err(told)?;
    fs::write(package.join("Cargo.toml"), manifest).map_err(told)?;
    fs::write(package.join("src/main.rs"), main).map_err(told)?;
    // The project's own versions of everything, and what it has built.
    fs::copy(root.join("Cargo.lock"), package.join("Cargo.lock")).map_err(told)?;
    let mut run = crate::cargo();
    run.args(["run", "--quiet", "--release", "--manifest-path"]).arg(package.join("Cargo.toml"));
    run.env("CARGO_TARGET_DIR", root.join("target")).stderr(std::process::Stdio::inherit());
    let output = run.output().map_err(told)?;
    if !output.status.success() {
        return Err(format!("the cells ended with {}", output.status));
    }
    let printed = String::from_utf8(output.stdout).map_err(|e| e.to_string())?;
    Ok(printed.split(MARK).skip(1).map(parts).collect())
}

/// Text, and the blocks by which figures show themselves to the kernel. Of a figure's formats the interactive one is
/// left out: it brings the chart library along, which is larger than the notebook.
fn parts(printed: &str) -> Vec<Output> {
    let mut parts = Vec::new();
    let mut rest = printed;
    while let Some((before, block)) = rest.split_once("EVCXR_BEGIN_CONTENT ") {
        let (block, after) = block.split_once("\nEVCXR_END_CONTENT").unwrap_or((block, ""));
        let (format, content) = block.split_once('\n').unwrap_or((block, ""));
        if !before.trim().is_empty() {
            parts.push(Output::Text(before.to_owned()));
        }
        match parts.last_mut() {
            // Figures end with their text: what follows it is another.
            Some(Output::Figure(formats)) if formats.last().is_none_or(|(f, _)| f != "text/plain") => {
                formats.push((format.to_owned(), content.to_owned()));
            }
            _ => parts.push(Output::Figure(vec![(format.to_owned(), content.to_owned())])),
        }
        rest = after.strip_prefix('\n').unwrap_or(after);
    }
    if !rest.is_empty() {
        parts.push(Output::Text(rest.to_owned()));
    }
    for part in &mut parts {
        if let Output::Figure(formats) = part {
            formats.retain(|(format, _)| format != "text/html");
        }
    }
    parts
}

/// Makes the notebook, with the outputs of the full model or of a small one.
///
/// # Errors
/// If the example is not made of cells, or they fail.
pub fn write(root: &Path, small: bool) -> Result<(), String> {
    let example = fs::read_to_string(root.join(EXAMPLE)).map_err(|e| format!("{EXAMPLE}: {e}"))?;
    let cells = cells(&example)?;
    let outputs = outputs(root, &cells, small)?;
    if outputs.len() != cells.len() {
        return Err(format!("{} cells ran of {}", outputs.len(), cells.len()));
    }
    let first = if small { FIRST.replace("Notebook", "Tiny") } else { FIRST.to_owned() };
    let mut json = vec![markdown(0, TITLE), code(1, &first, &[])];
    for (i, (cell, outputs)) in cells.iter().zip(&outputs).enumerate() {
        json.push(markdown(2 * i + 2, &cell.text));
        json.push(code(2 * i + 3, &cell.code, outputs));
    }
    let text = format!(
        "{{\n \"cells\": [\n{}\n ],\n \"metadata\": {{\n  \"kernelspec\": {{\"display_name\": \"Rust\", \"language\": \
         \"rust\", \"name\": \"rust\"}},\n  \"language_info\": {{\"file_extension\": \".rs\", \"mimetype\": \
         \"text/rust\", \"name\": \"Rust\"}}\n }},\n \"nbformat\": 4,\n \"nbformat_minor\": 5\n}}\n",
        json.join(",\n")
    );
    fs::write(root.join(NOTEBOOK), text).map_err(|e| format!("{NOTEBOOK}: {e}"))
}

fn markdown(number: usize, text: &str) -> String {
    format!(
        "  {{\"cell_type\": \"markdown\", \"id\": \"cell-{number}\", \"metadata\": {{}}, \"source\": {}}}",
        source(text)
    )
}

fn code(number: usize, code: &str, outputs: &[Output]) -> String {
    let outputs: Vec<String> = outputs
        .iter()
        .map(|output| match output {
            Output::Text(text) => {
                format!("\n   {{\"output_type\": \"stream\", \"name\": \"stdout\", \"text\": {}}}", source(text))
            }
            Output::Figure(formats) => {
                let data: Vec<String> = formats
                    .iter()
                    .map(|(format, content)| format!("{}: {}", quoted(format), quoted(content)))
                    .collect();
                format!(
                    "\n   {{\"output_type\": \"display_data\", \"metadata\": {{}}, \"data\": {{{}}}}}",
                    data.join(", ")
                )
            }
        })
        .collect();
    format!(
        "  {{\"cell_type\": \"code\", \"execution_count\": {}, \"id\": \"cell-{number}\", \"metadata\": {{}},\n   \
         \"source\": {}, \"outputs\": [{}]}}",
        number.div_ceil(2),
        source(code),
        outputs.join(",")
    )
}

/// A text as the list of its lines, which is how notebooks keep texts.
fn source(text: &str) -> String {
    let lines: Vec<String> = text.split_inclusive('\n').map(quoted).collect();
    format!("[{}]", lines.join(", "))
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notebook_is_in_step_with_the_example() {
        let root = crate::root();
        let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
        let (notebook, cells) = (read(NOTEBOOK), cells(&read(EXAMPLE)).unwrap());
        assert!(cells.len() > 6, "{} cells", cells.len());
        let mut rest = notebook.as_str();
        for text in cells.iter().flat_map(|cell| [&cell.text, &cell.code]) {
            let source = format!("\"source\": {}", source(text));
            let at = rest.find(&source).unwrap_or_else(|| panic!("run `cargo xtask notebook`: it lacks {text}"));
            rest = &rest[at + source.len()..];
        }
        assert_eq!(notebook.matches("\"cell_type\"").count(), 2 * cells.len() + 2);
    }

    #[test]
    fn figures_are_told_from_text() {
        let block = |format: &str| format!("EVCXR_BEGIN_CONTENT {format}\nx\nEVCXR_END_CONTENT\n");
        let figure = [block("text/html"), block("image/png"), block("text/plain")].concat();
        let parts = parts(&format!("one\n{figure}{figure}two\n"));
        let kinds: Vec<usize> =
            parts.iter().map(|p| if let Output::Figure(formats) = p { formats.len() } else { 0 }).collect();
        assert_eq!(kinds, [0, 2, 2, 0]);
        assert_eq!(quoted("a\"\\\n\u{1}"), r#""a\"\\\n\u0001""#);
    }

    #[test]
    fn what_is_saved_is_shown() {
        assert_eq!(shown("a.save(b.join(\"c\"))?;\nd;").unwrap(), "a.evcxr_display();\nd;");
        assert!(shown("a.save(b)").is_err());
    }
}
