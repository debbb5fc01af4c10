//! Figures through every writer.

use ironlens_report::*;
use serde_json::Value;

fn plotly(figure: &Figure) -> Value {
    serde_json::from_str(&figure.to_plotly_json().unwrap()).unwrap()
}

/// Tags are closed in order, and no text holds a bare `&` or `<`.
fn assert_well_formed(svg: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('&') || rest[..start].contains(';'), "{}", &rest[..start]);
        let end = rest[start..].find('>').expect("an unfinished tag") + start;
        let tag = &rest[start + 1..end];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') && !tag.starts_with(['?', '!']) {
            open.push(tag.split_whitespace().next().unwrap());
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "{open:?}");
    assert!(svg.starts_with("<svg") && !svg.contains("href=\"http"));
}

fn matrix(data: &[f32], cols: usize) -> Array {
    Array::new([data.len() / cols, cols], data).unwrap()
}

#[test]
fn the_extension_chooses_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let figure = line(&[3.0, 1.0, 0.1]).title("Loss & <more>").log_y();
    let read = |name: &str| {
        let path = dir.path().join("made/on/the/way").join(name);
        figure.save(&path).unwrap();
        std::fs::read(path).unwrap()
    };
    assert!(read("a.png").starts_with(b"\x89PNG\r\n\x1a\n"));
    assert!(read("a.HTML").starts_with(b"<!DOCTYPE html>"));
    assert_well_formed(&String::from_utf8(read("a.svg")).unwrap());
    for bad in ["a.jpg", "a"] {
        let error = figure.save(dir.path().join(bad)).unwrap_err();
        assert!(matches!(error, ReportError::Format { .. }) && error.to_string().contains(".svg"), "{error}");
        assert!(!dir.path().join(bad).exists());
    }
}

#[test]
fn a_png_has_the_declared_size_twice() {
    let png = line(&[1.0, 2.0]).size(300, 200).to_png().unwrap();
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((number(16), number(20)), (600, 400));
}

#[test]
fn a_heatmap_has_row_0_at_the_top_and_square_cells() {
    let spec = plotly(&imshow(matrix(&[0.0, 0.25, 0.5, 1.0], 2)).x("source").y("destination"));
    assert_eq!(spec["layout"]["yaxis"]["autorange"], "reversed");
    assert_eq!(spec["layout"]["yaxis"]["scaleanchor"], "x");
    assert_eq!(spec["data"][0]["z"][0][1], 0.25);
    assert_eq!(spec["layout"]["xaxis"]["title"]["text"], "source");
    assert_eq!(
        (&spec["layout"]["coloraxis"]["cmin"], &spec["layout"]["coloraxis"]["cmax"]),
        (&0.0.into(), &1.0.into())
    );
    assert_eq!(spec["ironlens"]["extra"]["colors"], "blues");
}

#[test]
fn a_midpoint_makes_the_range_symmetric() {
    let spec = plotly(&imshow(matrix(&[-0.5, 2.0], 2)).midpoint(0.0));
    assert_eq!(
        (&spec["layout"]["coloraxis"]["cmin"], &spec["layout"]["coloraxis"]["cmax"]),
        (&(-2.0).into(), &2.0.into())
    );
    assert_eq!(spec["ironlens"]["extra"]["colors"], "rdbu");
}

#[test]
fn small_multiples_zoom_together_and_share_their_colours() {
    let spec = plotly(&imshow(Array::new([3, 2, 2], &[0.5; 12]).unwrap()).facets(["a", "b", "c"]));
    assert_eq!(spec["data"].as_array().unwrap().len(), 3);
    assert_eq!(spec["layout"]["xaxis3"]["matches"], "x");
    assert!(spec["data"].as_array().unwrap().iter().all(|t| t["coloraxis"] == "coloraxis"));
    assert_eq!(spec["layout"]["annotations"][2]["text"], "c");
}

/// An option of a figure: its name, how it is set, and whether heatmaps, lines and bars show it.
type OptionCase = (&'static str, fn(Figure) -> Figure, [bool; 3]);

/// Every method of `Figure` that sets something.
const OPTIONS: [OptionCase; 16] = [
    ("title", |f| f.title("t"), [true; 3]),
    ("caption", |f| f.caption("c"), [true; 3]),
    ("x", |f| f.x("across"), [true; 3]),
    ("y", |f| f.y("up"), [true; 3]),
    ("value", |f| f.value("v"), [true, false, false]),
    ("log_y", Figure::log_y, [false, true, true]),
    ("range", |f| f.range(0.5, 7.0), [true; 3]),
    ("midpoint", |f| f.midpoint(0.25), [true, false, false]),
    ("colorscale", |f| f.colorscale(Colorscale::Viridis), [true, false, false]),
    ("x_labels", |f| f.x_labels(["a", "b"]), [true, true, false]),
    ("y_labels", |f| f.y_labels(["a", "b"]), [true, false, false]),
    ("facets", |f| f.facets(["a", "b"]), [true, false, false]),
    ("columns", |f| f.columns(1), [true, false, false]),
    ("rule", |f| f.rule(1.5, "half"), [false, true, true]),
    ("below", |f| f.below(line(&[1.0, 2.0])), [false, true, false]),
    ("size", |f| f.size(300, 200), [true; 3]),
];

#[test]
fn an_option_is_shown_or_refused() {
    let kinds = || [imshow(Array::new([2, 2, 2], &[1.0; 8]).unwrap()), line(&[1.0, 2.0]), bar(["p", "q"], &[1.0, 2.0])];
    // A caption stands in the page around the chart.
    let seen = |f: &Figure, name| if name == "caption" { f.to_html().unwrap() } else { f.to_plotly_json().unwrap() };
    for (k, plain) in kinds().iter().enumerate() {
        for (name, set, shown) in OPTIONS {
            let figure = set(kinds()[k].clone());
            assert_ne!(&figure, plain, "{name} sets nothing");
            if shown[k] {
                assert_ne!(seen(&figure, name), seen(plain, name), "kind {k} ignores {name}");
                if name != "caption" {
                    assert_ne!(figure.to_svg().unwrap(), plain.to_svg().unwrap(), "pictures of kind {k} ignore {name}");
                }
                continue;
            }
            let error = figure.to_html().unwrap_err();
            assert!(matches!(&error, ReportError::Option { option, .. } if *option == name), "kind {k}: {error}");
            assert!(figure.to_png().is_err() && figure.to_svg().is_err() && figure.to_plotly_json().is_err());
        }
    }
}

#[test]
fn values_of_options_that_cannot_be_are_refused() {
    let heat = || imshow(matrix(&[0.0; 4], 2));
    let placed = || line(Series::new("a", &[1.0, 2.0]).x(&[5.0, 6.0]));
    let lower = || line(&[1.0, 2.0]);
    let wrong = [
        ("range", heat().range(f64::NAN, 1.0)),
        ("range", heat().range(1.0, 1.0)),
        ("range", lower().range(0.0, 1.0).log_y()),
        ("midpoint", heat().midpoint(f64::INFINITY)),
        ("columns", heat().columns(0)),
        ("x_labels", placed().x_labels(["a", "b"])),
        ("x_labels", lower().x_labels(["a", "b"]).below(lower().x_labels(["c", "d"]))),
        ("x", lower().x("step").below(lower().x("time"))),
        ("title", lower().below(lower().title("of its own"))),
        ("caption", lower().below(lower().caption("of its own"))),
        ("size", lower().below(lower().below(lower().size(300, 300)))),
        ("colorscale", lower().below(lower().colorscale(Colorscale::Blues))),
    ];
    for (name, figure) in wrong {
        let error = figure.to_html().unwrap_err();
        assert!(matches!(&error, ReportError::Option { option, .. } if *option == name), "{name}: {error}");
    }
}

#[test]
fn positions_of_a_curve_may_have_names() {
    let names = ["embed", "block 0", "block <1>"];
    let figure = line(&[3.0, 2.0, 1.0]).x_labels(names).below(line(&[1.0, 2.0]).y("rate"));
    let spec = plotly(&figure);
    assert_eq!(spec["layout"]["xaxis"]["ticktext"], serde_json::json!(["embed", "block·0", "block·&lt;1&gt;"]));
    assert_eq!(spec["layout"]["xaxis"]["tickvals"], serde_json::json!([0, 1, 2]));
    let svg = figure.to_svg().unwrap();
    assert_well_formed(&svg);
    assert!(svg.contains("embed") && svg.contains("block·0"), "names in the picture");
    let many: Vec<f32> = (0..500).map(|i| i as f32).collect();
    assert_well_formed(&line(&many).x_labels((0..500).map(|i| format!("token {i}"))).to_svg().unwrap());
    assert!(line(&[1.0]).x_labels(["a"]).to_png().is_ok());
    let error = line(&[1.0, 2.0]).x_labels(["a"]).to_html().unwrap_err().to_string();
    assert!(error.contains("got 1 labels, expected 2 labels"), "{error}");
}

#[test]
fn stacks_may_be_nested() {
    let spec = plotly(&line(&[1.0]).below(line(&[2.0]).below(line(&[3.0])).below(line(&[4.0]))));
    assert_eq!(spec["data"].as_array().unwrap().len(), 4);
}

#[test]
fn long_texts_end_in_an_ellipsis() {
    let long = "a🦀".repeat(1_000_000);
    let start = std::time::Instant::now();
    let figure = imshow(matrix(&[0.0; 4], 2)).title(&long).x(&long).value(&long).x_labels([&long, &long]);
    assert!(figure.to_svg().unwrap().len() < 100_000 && figure.to_plotly_json().unwrap().len() < 100_000);
    figure.to_png().unwrap();
    let bars = bar([&long, &long], Series::new(&long, &[1.0, 2.0])).rule(1.0, &long);
    assert!(bars.to_svg().unwrap().len() < 100_000);
    assert!(bar([&long], Series::new(&long, &[1.0, 2.0])).title(&long).to_svg().unwrap_err().to_string().len() < 3000);
    // Measuring all of such a text would take minutes.
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn rules_that_cannot_be_shown_are_told() {
    let html = |f: Figure| f.to_html().unwrap();
    assert!(html(line(&[1.0, 2.0]).log_y().rule(0.0, "none").rule(1.0, "one")).contains("1 rule is not finite, zero"));
    assert!(html(line(&[1.0]).rule(f64::NAN, "a").rule(f64::INFINITY, "b")).contains("2 rules are not finite"));
}

#[test]
fn shapes_that_cannot_be_shown_say_so() {
    let wrong = [
        imshow(Array::new([4], &[0.0; 4]).unwrap()).title("vector"),
        imshow(Array::new([1, 1, 2, 2], &[0.0; 4]).unwrap()),
        imshow(Array::new([0, 2], &[]).unwrap()),
        imshow(matrix(&[0.0; 4], 2)).x_labels(["only one"]),
        line(Series::new("a", &[1.0, 2.0]).x(&[1.0])),
        bar(["a", "b"], &[1.0]),
        bar(Vec::<String>::new(), &[] as &[f64]),
        line(&[1.0]).below(bar(["a"], &[1.0])),
        bar(["a"], Series::new("a", &[1.0]).x(&[2.0])),
    ];
    for figure in wrong {
        let error = figure.to_html().unwrap_err();
        assert!(matches!(error, ReportError::Shape { .. }), "{error}");
        assert!(figure.to_png().is_err() && figure.to_svg().is_err());
    }
    let error = imshow(Array::new([4], &[0.0; 4]).unwrap()).title("vector").to_html().unwrap_err().to_string();
    assert!(error.contains("vector") && error.contains("[4]") && error.contains("[rows, columns]"), "{error}");
}

#[test]
fn a_log_axis_has_decades_and_drops_what_it_cannot_show() {
    let figure = line(&[10.0, 1.0, 0.0, -2.0, 1e-6]).y("loss").log_y();
    let spec = plotly(&figure);
    assert_eq!(spec["layout"]["yaxis"]["type"], "log");
    assert_eq!(spec["layout"]["yaxis"]["dtick"], 1.0);
    assert_eq!(spec["data"][0]["y"][2], Value::Null);
    let html = figure.to_html().unwrap();
    assert!(
        html.contains("2 values are of loss") || html.contains("2 values of loss are zero or negative"),
        "the note"
    );
    let svg = figure.to_svg().unwrap();
    assert!(svg.contains("10⁻⁶") && svg.contains("10¹"));
}

#[test]
fn values_that_are_not_finite_are_marked() {
    let figure = imshow(matrix(&[f32::NAN, 1.0, f32::NEG_INFINITY, 0.0], 2));
    let spec = plotly(&figure);
    assert_eq!(spec["data"].as_array().unwrap().len(), 2, "a second layer marks them");
    assert_eq!(spec["data"][1]["z"][0][0], 1.0);
    assert!(figure.to_html().unwrap().contains("2 cells are not finite"));
    for data in [[f32::NAN; 4], [0.0; 4], [-3.0; 4], [f32::MAX; 4], [f32::MIN_POSITIVE; 4]] {
        let all = [
            imshow(matrix(&data, 2)),
            imshow(matrix(&data, 2)).midpoint(0.0),
            imshow(matrix(&data, 2)).range(1.0, 0.0),
            imshow(matrix(&data, 2)).range(1.0, 0.0).midpoint(0.3),
            line(&data),
            line(&data).log_y().rule(0.0, "zero").rule(1.0, "one"),
            line(&data).range(2.0, 1.0).log_y(),
            bar(["a", "b", "c", "d"], &data),
            bar(["a", "b", "c", "d"], &data).log_y(),
        ];
        for figure in all {
            assert_well_formed(&figure.to_svg().unwrap());
            figure.to_png().unwrap();
            figure.to_html().unwrap();
        }
    }
}

#[test]
fn odd_sizes_are_drawn() {
    let long: Vec<f32> = (0..5000).map(|i| i as f32).collect();
    for figure in [
        imshow(Array::new([1, 5000], &long).unwrap()),
        imshow(Array::new([5000, 1], &long).unwrap()).y_labels((0..5000).map(|i| format!("token {i}"))),
        imshow(Array::new([50, 10, 10], &long).unwrap()),
        line(&long),
        line(&[] as &[f32]),
        line(&[1.0_f64]),
        line(Vec::<Series>::new()),
        bar((0..5000).map(|i| format!("label {i}")), &long),
        imshow(matrix(&long, 100)).size(1, 1),
        line(&long).title("a very long title ".repeat(60)),
    ] {
        assert_well_formed(&figure.to_svg().unwrap());
        figure.to_png().unwrap();
        figure.to_plotly_json().unwrap();
    }
}

#[test]
fn stacked_lines_share_their_steps() {
    let spec = plotly(&line(&[1.0, 0.1]).y("loss").log_y().below(line(&[0.1, 0.2]).y("rate").x("step")));
    assert_eq!(spec["data"][1]["yaxis"], "y2");
    assert_eq!(spec["layout"]["xaxis"]["title"]["text"], "step");
    assert_eq!(spec["layout"]["yaxis2"]["title"]["text"], "rate");
    assert!(spec["layout"]["yaxis2"]["type"].is_null());
}

#[test]
fn numbers_keep_their_digits_and_no_more() {
    let spec = plotly(&line(&[0.1f32, 5.99]));
    assert_eq!((&spec["data"][0]["y"][0], &spec["data"][0]["y"][1]), (&0.1.into(), &5.99.into()));
}

#[test]
fn the_picture_shows_the_numbers() {
    // One dark cell among white ones, in the second row, first column.
    let svg = imshow(matrix(&[0.0, 0.0, 1.0, 0.0], 2)).to_svg().unwrap();
    let data = svg.split("base64,").nth(1).unwrap().split('"').next().unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let at = |x: u32, y: u32| {
        let i = ((y * info.width + x) * 3) as usize;
        [pixels[i], pixels[i + 1], pixels[i + 2]]
    };
    let (left, right) = (info.width / 4, info.width * 3 / 4);
    let (top, bottom) = (info.height / 4, info.height * 3 / 4);
    assert_eq!(at(left, bottom), [8, 48, 107]);
    for white in [at(left, top), at(right, top), at(right, bottom)] {
        assert_eq!(white, [255, 255, 255]);
    }
}
