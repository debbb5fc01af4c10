//! The page and the pictures as files.

mod synthetic;

use ironlens_report::*;

#[test]
fn a_page_loads_nothing_and_has_the_same_bytes_twice() {
    let report = synthetic::report(24);
    let page = report.to_html().unwrap();
    assert_eq!(page, report.to_html().unwrap());
    assert!(page.contains("Content-Security-Policy") && page.contains("default-src 'none'"));
    for load in ["src=\"http", "href=\"http", "@import", "url(http"] {
        assert!(!page.contains(load), "the page loads something: {load}");
    }
    assert_eq!(page.matches("id=\"plotly-js\"").count(), 1, "plotly is embedded once");
    assert!(!page.to_lowercase().contains("mathjax.js"));
}

#[test]
fn hostile_text_stays_text() {
    let hostile = "</script><script>alert(1)</script>\"&'<s>";
    let mut report = synthetic::report(24);
    report.title = hostile.into();
    report.tokens = vec![hostile.into(); 24];
    report.config = vec![("key".into(), hostile.into())];
    report.model_tree = hostile.into();
    let page = report.to_html().unwrap();
    assert!(!page.contains("<script>alert(1)"), "markup came through");
    assert!(page.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn what_the_page_says_follows_the_data() {
    let mut report = synthetic::report(24);
    let verdict = |r: &Report| r.verdict().join(" ");
    let before = verdict(&report);
    report.detectors[0].after[0][0] = 1.0;
    assert_ne!(before, verdict(&report));
    assert!(verdict(&report).contains("L0H0"), "{}", verdict(&report));
    // A report of nothing is a page, not a panic.
    assert!(Report::default().to_html().is_ok());
}

#[test]
fn numbers_that_are_none_give_readable_figures() {
    let odd = [f32::NAN, f32::INFINITY, -1.0, 0.0];
    for (name, values) in [("odd", odd), ("zero", [0.0; 4]), ("nan", [f32::NAN; 4]), ("negative", [-3.0; 4])] {
        for figure in [imshow(Array::new([2, 2], &values).unwrap()), line(&values), line(&values).log_y()] {
            assert!(figure.to_svg().unwrap().contains("<svg"), "{name}");
            assert!(figure.to_png().unwrap().starts_with(b"\x89PNG\r\n\x1a\n"), "{name}");
            assert!(figure.to_html().unwrap().contains("plotly"), "{name}");
        }
    }
    assert!(line(&Vec::<f32>::new()).to_svg().is_ok());
}

#[test]
fn files_are_whole_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let figure = line(&[1.0, 0.1, 0.01]).log_y();
    for name in ["a.html", "a.png", "a.svg"] {
        figure.save(folder.path().join(name)).unwrap();
    }
    let wrong = figure.save(folder.path().join("a.gif")).unwrap_err().to_string();
    assert!(wrong.contains("gif") && wrong.contains("png"), "{wrong}");
    std::fs::write(folder.path().join("file"), "").unwrap();
    let nowhere = synthetic::report(24).write_html(folder.path().join("file/report.html")).unwrap_err().to_string();
    assert!(nowhere.contains("file`") && nowhere.contains("can be written"), "{nowhere}");
    let pictures = synthetic::report(24).write_figures(folder.path().join("figures")).unwrap();
    assert!(pictures.len() >= 8 && pictures.iter().all(|p| p.is_file()));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 5, "leftovers: {left:?}");
}
