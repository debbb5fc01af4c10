//! The report as a whole: what is in the page, and what must never be.

#[allow(dead_code)]
mod synthetic;

use ironlens_report::*;

/// The page without the packed chart library, which holds addresses of its own.
fn own_text(html: &str) -> String {
    let start = html.find("id=\"plotly-js\">").map_or(html.len(), |i| i + 15);
    let end = html[start.min(html.len())..].find('<').map_or(html.len(), |i| start + i);
    format!("{}{}", &html[..start], &html[end..])
}

#[test]
fn the_page_loads_nothing_and_runs_only_its_own_scripts() {
    let html = synthetic::report(24).to_html().unwrap();
    assert_eq!(html.matches("id=\"plotly-js\"").count(), 1, "the chart library is there once");
    let text = own_text(&html);
    for bad in [
        "src=\"http",
        "href=\"http",
        "src=\"//",
        "@import",
        "url(",
        "fetch(",
        "XMLHttpRequest",
        "<link rel=\"stylesheet",
    ] {
        assert!(!text.contains(bad), "{bad}");
    }
    assert!(text.contains("default-src 'none'") && !text.contains("'unsafe-eval'"));
    // No handler attributes, which the policy would block.
    assert!(!text.contains(" onclick=\"") && !text.contains("javascript:"));
    assert!(!html.to_lowercase().contains("mathjax.js"));
}

#[test]
fn the_same_data_give_the_same_bytes() {
    assert!(synthetic::report(24).to_html().unwrap() == synthetic::report(24).to_html().unwrap());
}

#[test]
fn the_page_stays_small() {
    let report = synthetic::report(128);
    let html = report.to_html().unwrap();
    let own = own_text(&html).len();
    assert!(own < 1_500_000, "{own} bytes besides the chart library");
    let inside = |open: &str, close: &str| -> usize {
        html.split(open).skip(1).map(|rest| rest.find(close).unwrap_or(rest.len())).sum()
    };
    let packed = inside("id=\"page-js\">", "</script>");
    assert!(packed > 10_000, "the scripts are packed");
    let scripts = inside("<script>", "</script>") + inside("<style>", "</style>") + packed;
    assert!(scripts < 64 * 1024, "{scripts} bytes of scripts and style");
}

#[test]
fn scripts_reach_for_nothing_and_have_no_text_over_several_lines() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/js")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for bad in ["fetch(", "XMLHttpRequest", "import(", "eval(", "WebSocket", "innerHTML", "document.write"] {
            assert!(!text.contains(bad), "{}: {bad}", path.display());
        }
        for (i, line) in text.lines().enumerate() {
            assert!(line.matches('`').count() % 2 == 0, "{}:{}: {line}", path.display(), i + 1);
        }
    }
}

#[test]
fn the_model_is_shown_byte_for_byte() {
    let report = synthetic::report(16);
    let html = report.to_html().unwrap();
    let start = html.find("aria-label=\"The model as printed\">").unwrap() + 34;
    let end = html[start..].find("</pre>").unwrap() + start;
    assert_eq!(&html[start..end], report.model_tree);
}

#[test]
fn hostile_text_stays_text() {
    let report = synthetic::hostile(16);
    let text = own_text(&report.to_html().unwrap());
    assert!(!text.contains("<script>alert") && !text.contains("<b>\"") && !text.contains("</script><script>alert"));
    for (_, figure) in report.figures().unwrap() {
        let svg = figure.to_svg().unwrap();
        assert!(!svg.contains("<script") && !svg.contains('\0'));
        figure.to_png().unwrap();
    }
}

#[test]
fn an_empty_report_and_bad_numbers_are_written() {
    let html = Report::default().to_html().unwrap();
    assert!(html.contains("<h1>Report</h1>") && !html.contains("id=\"plotly-js\""));

    let mut report = synthetic::report(8);
    for s in &mut report.snapshots {
        s.layers = vec![Array::new([2, 8, 8], &[f32::NAN; 128]).unwrap()];
    }
    report.metrics = vec![StepRow { step: 0, loss: f64::NAN, lr: Some(0.0), grad_norm: Some(f64::INFINITY) }];
    report.evaluations = vec![Evaluation { step: 0, loss: -1.0 }; 3];
    report.detectors[0].after = vec![vec![f32::NAN], vec![]];
    report.detectors[0].before = vec![];
    report.examples[0].layers.clear();
    report.head_facts[0].values = vec![vec![f32::NAN], vec![]];
    report.chance_loss = Some(f64::NAN);
    report.to_html().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for path in report.write_figures(dir.path()).unwrap() {
        assert!(path.metadata().unwrap().len() > 200);
    }
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let mut report = synthetic::report(8);
    report.snapshots[1].layers[0] = Array::new([1, 2, 2], &[0.5; 4]).unwrap();
    let error = report.to_html().unwrap_err().to_string();
    assert!(error.contains("layer 0") && error.contains("step 10") && error.contains("[1, 2, 2]"), "{error}");

    let mut report = synthetic::report(8);
    report.detectors[0].before.pop();
    let error = report.figures().unwrap_err().to_string();
    assert!(error.contains("previous token"), "{error}");

    let mut report = synthetic::report(8);
    report.examples[1].targets.pop();
    let error = report.to_html().unwrap_err().to_string();
    assert!(error.contains("held-out sequence 2") && error.contains("8 targets"), "{error}");
    let mut report = synthetic::report(8);
    report.examples[0].layers.pop();
    let error = report.to_html().unwrap_err().to_string();
    assert!(error.contains("attention of the example") && error.contains("[8, 8]"), "{error}");
}

#[test]
fn pictures_have_names_of_their_own() {
    let mut report = synthetic::report(8);
    let again = report.sections[0].clone();
    report.sections.push(again);
    let names: Vec<String> = report.figures().unwrap().into_iter().map(|f| f.0).collect();
    let mut unique = names.clone();
    unique.sort();
    unique.dedup();
    assert_eq!(names.len(), unique.len());
    assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')));
}
