//! Figures in a notebook with the evcxr kernel.

use std::fs::{File, OpenOptions};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use super::Figure;
use crate::View;
use crate::document::{self, Document, json_in_script};

/// Where a figure goes in the shell.
const PLACE: &str = "figure goes here";
const LOADER: &str = include_str!("../../js/notebook.js");

/// Whether this process shows its first figure.
///
/// The kernel may link a copy of this crate into every cell, each with statics of its own. What all copies of
/// one process share is a lock on a file, which ends with the process.
pub(crate) fn first_in_this_process() -> bool {
    is_first_at(&std::env::temp_dir().join(format!("ironlens-notebook-{}.lock", std::process::id())))
}

/// Whether nobody holds the lock on this file, which is held from now on; also if there can be none.
///
/// The folder is everyone's: a link in the file's place makes no file elsewhere, and a file that is there is only read.
fn is_first_at(path: &Path) -> bool {
    let new = OpenOptions::new().write(true).create_new(true).open(path);
    let is_file = || path.symlink_metadata().is_ok_and(|found| found.is_file());
    let there = || if is_file() { File::open(path).ok() } else { None };
    let Some(file) = new.ok().or_else(there) else { return true };
    match file.try_lock() {
        Ok(()) => {
            // Held until the process ends.
            std::mem::forget(file);
            true
        }
        Err(_) => false,
    }
}

/// What the kernel reads from the standard output: one block for each format; a front end shows the richest
/// that it knows.
///
/// The HTML is the picture, the figure's data, and a script that puts the figure into a sandboxed frame in the
/// picture's place. The frame needs the chart library: the `first` display of a notebook brings it along (the
/// "shell"), the others find it there. Where scripts are stripped (a code host, a static export) or the shell is
/// gone, the picture stays.
pub(crate) fn blocks(figure: &Figure, first: bool) -> String {
    let parts = figure.scene().and_then(|s| Ok((s, figure.to_png_small()?, document::chart("figure", figure, 1)?)));
    let (scene, picture, markup) = match parts {
        Ok(parts) => parts,
        Err(error) => return block("text/plain", &format!("figure not shown: {error}")),
    };
    let title = if scene.title.is_empty() { "figure" } else { &scene.title };
    let picture = picture.map(|png| STANDARD.encode(png));
    let (width, height) = scene.size;
    let id = &format!("{:x}", Sha256::digest(markup.0.as_bytes()))[..16];
    // The picture is in the display already: the frame is for browsers that run scripts.
    let bare = without_picture(&markup.0);
    let shell = first.then(shell);
    let html = html! {
        div data-ironlens=(id) style={ "max-width:" (width) "px" } {
            @match &picture {
                Some(png) => img alt=(title) width=(width) style="max-width:100%;height:auto" src={ "data:image/png;base64," (png) };,
                None => p { (title) ": this chart is drawn by a browser that runs scripts" },
            }
            script type="application/json" { (PreEscaped(json_string(&bare))) }
            @if let Some(shell) = &shell {
                script type="application/json" class="ironlens-shell" { (PreEscaped(json_string(shell))) }
            }
            script { (PreEscaped(LOADER.replace("$ID", id).replace("$HEIGHT", &(height + 120).to_string()).replace("$PLACE", PLACE))) }
        }
    };
    let text = block("text/plain", &format!("{title} ({width} x {height})"));
    let picture = picture.map(|png| block("image/png", &png));
    [Some(block("text/html", &html.into_string())), picture, Some(text)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("\n")
}

/// A view is a page of its own in a frame, small because it needs no chart library; below it lies the text that a
/// front end without frames shows.
pub(crate) fn view_blocks(view: &View) -> String {
    let (page, markup) = match view.to_html().and_then(|p| Ok((p, view.markup("view", 1, false)?))) {
        Ok(parts) => parts,
        Err(error) => return block("text/plain", &format!("view not shown: {error}")),
    };
    let id = &format!("{:x}", Sha256::digest(page.as_bytes()))[..16];
    let fallback = without_scripts(&markup.0);
    let loader = LOADER.replace("$ID", id).replace("$HEIGHT", "640").replace("$PLACE", PLACE);
    let html = html! {
        div data-ironlens=(id) data-whole {
            div { (PreEscaped(fallback)) }
            script type="application/json" { (PreEscaped(json_string(&page))) }
            script { (PreEscaped(loader)) }
        }
    };
    [block("text/html", &html.into_string()), block("text/plain", &view.title)].join("\n")
}

fn without_scripts(markup: &str) -> String {
    let mut out = String::new();
    let mut rest = markup;
    while let Some(start) = rest.find("<script") {
        out.push_str(&rest[..start]);
        rest = rest[start..].find("</script>").map_or("", |i| &rest[start + i + 9..]);
    }
    out + rest
}

/// A page without a figure, which is put in by the notebook.
fn shell() -> String {
    let body: Markup = html! { main.single { (PreEscaped(format!("<!--{PLACE}-->"))) } };
    Document { title: "Figure", body, charts: true, explorer: false, tokens: false }.render()
}

fn json_string(text: &str) -> String {
    json_in_script(&serde_json::Value::from(text).to_string())
}

fn without_picture(markup: &str) -> String {
    match markup.find("<img class=\"static\"") {
        Some(start) => {
            let end = markup[start..].find('>').map_or(markup.len(), |i| start + i + 1);
            format!("{}{}", &markup[..start], &markup[end..])
        }
        None => markup.into(),
    }
}

fn block(mime: &str, content: &str) -> String {
    format!("EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT")
}

#[cfg(test)]
mod tests {
    use crate::line;

    #[test]
    fn one_block_of_each_format() {
        let out = super::blocks(&line(&[1.0, 2.0]).title("a <b>"), false);
        for mime in ["text/html", "image/png", "text/plain"] {
            assert_eq!(out.matches(&format!("EVCXR_BEGIN_CONTENT {mime}\n")).count(), 1);
        }
        let (img, script) = (out.find("<img"), out.find("<script"));
        assert!(img.is_some() && img < script);
        let html = out.split("EVCXR_END_CONTENT").next().unwrap_or_default();
        assert!(!html.contains("<b>") && !html.contains("ironlens-shell\">"));
    }

    #[test]
    fn displays_after_the_first_are_small() {
        let many: Vec<f32> = (0..3000).map(|i| (-(i as f32) / 300.0).exp()).collect();
        let figures = [line(&many).log_y(), crate::imshow(crate::Array::new([128, 128], &vec![0.5; 16_384]).unwrap())];
        for figure in figures {
            let (first, later) = (super::blocks(&figure, true).len(), super::blocks(&figure, false).len());
            assert!(later < 100_000 && first < 800_000, "{first} and then {later} bytes");
        }
    }

    #[test]
    fn a_process_shows_its_first_figure_once() {
        let first = super::first_in_this_process();
        assert!(!super::first_in_this_process(), "after {first}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_place_of_the_lock_changes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let [kept, none, link] = ["kept", "none", "link"].map(|name| folder.path().join(name));
        std::fs::write(&kept, "kept").unwrap();
        for target in [&kept, &none] {
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert!(super::is_first_at(&link) && super::is_first_at(&link));
            std::fs::remove_file(&link).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept");
        assert!(!none.exists());
        // One that an earlier process left behind is held by nobody.
        assert!(super::is_first_at(&kept) && !super::is_first_at(&kept));
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept");
    }

    #[test]
    fn errors_are_shown_not_raised() {
        let out = super::blocks(&crate::imshow(crate::Array::default()), true);
        assert!(out.contains("figure not shown"), "{out}");
    }
}
