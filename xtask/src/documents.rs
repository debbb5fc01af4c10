//! Documents that are made of others, so that each thing is written once: a README for each crate, of its front page,
//! and the chapters of the guide, of those that the facade compiles and runs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Where pictures are, for readers of the packaged documentation.
const PICTURES: &str = "https://raw.githubusercontent.com/ironlens/ironlens/main/docs/images/";

/// All of them, with their texts.
fn documents(root: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let mut documents = Vec::new();
    for folder in sorted(&root.join("crates"))? {
        documents.push((folder.join("README.md"), readme(&folder)?));
    }
    let mut index = String::from(
        "# The guide\n\nOne chapter a question. Every block of Rust here is compiled and run by `cargo test --doc` \
         (`crates/ironlens/guide`\nhas the sources, from which `cargo xtask documents` makes these pages).\n\n\
         | chapter | question |\n|---|---|\n",
    );
    let mut chapters = sorted(&root.join("crates/ironlens/guide"))?;
    chapters.retain(|file| file.extension().is_some_and(|e| e == "md"));
    for chapter in &chapters {
        let text = linked(&read(chapter)?, &chapters);
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let title = lines.next().and_then(|line| line.strip_prefix("# "));
        let question = lines.next().and_then(|line| line.strip_prefix('*')?.strip_suffix('*'));
        let (Some(title), Some(question)) = (title, question) else {
            return Err(format!("{}: a chapter begins with `# Title` and `*Its question?*`", chapter.display()));
        };
        let name = chapter.file_name().unwrap_or_default().to_string_lossy();
        writeln!(index, "| [{title}]({name}) | {question} |").map_err(|e| e.to_string())?;
        documents.push((root.join("docs/guide").join(&*name), readable(&text).replace(PICTURES, "../images/")));
    }
    documents.push((root.join("docs/guide/README.md"), index));
    Ok(documents)
}

/// A chapter whose links to others, which are modules of the facade, lead to their files.
fn linked(text: &str, chapters: &[PathBuf]) -> String {
    let names = chapters.iter().filter_map(|file| file.file_name()?.to_str());
    names.fold(text.to_owned(), |text, file| {
        let module = file.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').trim_end_matches(".md");
        text.replace(&format!("](crate::guide::{})", module.replace('-', "_")), &format!("]({file})"))
    })
}

/// Writes all of them.
///
/// # Errors
/// If a file cannot be read or written.
pub fn write(root: &Path) -> Result<(), String> {
    for (path, text) in documents(root)? {
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        let folder = path.parent().unwrap_or(root);
        fs::create_dir_all(folder).and_then(|()| fs::write(&path, text)).map_err(told(&path))?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Whether all of them are as [`write()`] would write them.
///
/// # Errors
/// The first that is not.
pub fn check(root: &Path) -> Result<(), String> {
    let made = documents(root)?;
    for (path, text) in &made {
        if read(path).ok().as_ref() != Some(text) {
            return Err(format!("{} is not what `cargo xtask documents` makes", path.display()));
        }
    }
    let is_made = |file: &PathBuf| made.iter().any(|(path, _)| path == file);
    match sorted(&root.join("docs/guide"))?.into_iter().find(|file| !is_made(file)) {
        Some(file) => Err(format!("{} has no source in crates/ironlens/guide", file.display())),
        None => Ok(()),
    }
}

/// The README of a crate: its front page between its name and where it comes from.
fn readme(folder: &Path) -> Result<String, String> {
    let manifest = read(&folder.join("Cargo.toml"))?;
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let name = name.ok_or_else(|| format!("{} has no name", folder.display()))?;
    let page: String = read(&folder.join("src/lib.rs"))?
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!").strip_prefix(' ').unwrap_or_default().to_owned() + "\n")
        .collect();
    Ok(format!(
        "# {name}\n\n{}\nPart of [Ironlens](https://github.com/ironlens/ironlens), the HookedTransformer for Rust; \
         [documentation](https://docs.rs/{name}).\n\nLicensed under MIT or Apache-2.0, at your option.\n",
        readable(&sections_one_level_down(&page))
    ))
}

/// A page below the heading of another. In code, `# ` begins what rustdoc hides.
fn sections_one_level_down(page: &str) -> String {
    let mut code = false;
    let mut line_below = |line: &str| {
        code ^= line.starts_with("```");
        if line.starts_with("# ") && !code { format!("#{line}\n") } else { format!("{line}\n") }
    };
    page.lines().map(&mut line_below).collect()
}

/// What rustdoc shows of a document, for those who read it elsewhere: without the lines that it hides, with the
/// language of code, and without links that lead to items.
fn readable(text: &str) -> String {
    let mut out = String::new();
    // Within a block of code: whether that is Rust, and what it has shown so far.
    let mut block: Option<(bool, usize)> = None;
    let mut gap = false;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (block, fence) {
            (None, Some(language)) => {
                let rust = ["", "rust", "no_run", "rust,no_run"].contains(&language);
                out.push_str(if rust { "```rust" } else { line });
                block = Some((rust, out.len() + 1));
                gap = false;
            }
            (None, None) => out.push_str(&without_item_links(line)),
            (Some(_), Some(_)) => {
                out.push_str(line);
                block = None;
            }
            (Some((true, start)), None) => {
                let hidden = line.trim_start() == "#" || line.trim_start().starts_with("# ");
                if hidden || line.is_empty() {
                    // What hidden lines stood apart by is no gap; neither is one at either end.
                    gap |= line.is_empty() && out.len() > start;
                    continue;
                }
                if std::mem::take(&mut gap) {
                    out.push('\n');
                }
                out.push_str(line);
            }
            (Some((false, _)), None) => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// Whether a label in brackets is the name of an item, which rustdoc makes a link of; `1` or `batch, pos` are none.
fn is_item(label: &str) -> bool {
    label.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && label.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':')
}

/// A line without its links to items of Rust; those to pages stay.
fn without_item_links(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['`', '[']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with('`') {
            let end = rest[1..].find('`').map_or(rest.len(), |end| end + 2);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        let Some((label, after)) = rest[1..].split_once(']') else { break };
        let target = after.strip_prefix('(').and_then(|t| t.split_once(')'));
        let is_code = label.len() > 2 && label.starts_with('`') && label.ends_with('`');
        rest = match target {
            Some((page, after)) if page.contains("://") || page.contains(".md") => {
                write!(out, "[{label}]({page})").ok();
                after
            }
            Some((_, after)) => {
                out.push_str(label);
                after
            }
            None if is_code || is_item(label) => {
                out.push_str(label);
                after
            }
            None => {
                write!(out, "[{label}]").ok();
                after
            }
        };
        // Code that went on after the link is one piece of code now.
        if is_code && out.ends_with('`') && rest.starts_with('`') {
            out.pop();
            let end = rest[1..].find('`').map_or(rest.len(), |end| end + 2);
            out.push_str(&rest[1..end]);
            rest = &rest[end..];
        }
    }
    out + rest
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(told(folder))?;
    let mut paths = entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(told(folder))?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(told(path))
}

fn told(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_in_step_with_their_sources() {
        check(&crate::root()).unwrap();
    }

    #[test]
    fn hidden_lines_and_item_links_go() {
        let page = "See [`Var`], [`at`]`(1)`, [this](crate::This) and [that](https://a.b/c), the [guide] and [1].\n\n\
                    ```\nuse a;\n\n# let b = 1;\nb[0]\n# Ok(())\n```\n\n```toml\n# kept\n```\n";
        let shown = "See `Var`, `at(1)`, this and [that](https://a.b/c), the guide and [1].\n\n\
                     ```rust\nuse a;\n\nb[0]\n```\n\n```toml\n# kept\n```\n";
        assert_eq!(readable(page), shown);
    }
}
