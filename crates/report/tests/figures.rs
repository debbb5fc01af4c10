//! Figures through every writer.

use ironlens_report::*;
use serde_json::Value;

fn plotly_spec(figure: &Figure) -> Value {
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
    let spec = plotly_spec(&imshow(matrix(&[0.0, 0.25, 0.5, 1.0], 2)).x("source").y("destination"));
    assert_eq!(spec["layout"]["yaxis"]["autorange"], "reversed");
    assert_eq!(spec["layout"]["yaxis"]["scaleanchor"], "x");
    assert_eq!(spec["data"][0]["z"][0][1], 0.25);
    assert_eq!(spec["layout"]["xaxis"]["title"]["text"], "source");
    assert_eq!(
        (&spec["layout"]["coloraxis"]["cmin"], &spec["layout"]["coloraxis"]["cmax"]),
        (&0.0.into(), &1.0.into())
    );
    assert_eq!(spec["ironlens"]["maps"]["coloraxis"], "blues");
}

#[test]
fn a_midpoint_makes_the_range_symmetric() {
    let spec = plotly_spec(&imshow(matrix(&[-0.5, 2.0], 2)).midpoint(0.0));
    assert_eq!(
        (&spec["layout"]["coloraxis"]["cmin"], &spec["layout"]["coloraxis"]["cmax"]),
        (&(-2.0).into(), &2.0.into())
    );
    assert_eq!(spec["ironlens"]["maps"]["coloraxis"], "rdbu");
}

#[test]
fn small_multiples_zoom_together_and_share_their_colours() {
    let spec = plotly_spec(&imshow(Array::new([3, 2, 2], &[0.5; 12]).unwrap()).facets(["a", "b", "c"]));
    assert_eq!(spec["data"].as_array().unwrap().len(), 3);
    assert_eq!(spec["layout"]["xaxis3"]["matches"], "x");
    assert!(spec["data"].as_array().unwrap().iter().all(|t| t["coloraxis"] == "coloraxis"));
    assert_eq!(spec["layout"]["annotations"][2]["text"], "c");
}

const HEATMAP: u16 = 1;
const LINES: u16 = 2;
const SCATTER: u16 = 4;
const HISTOGRAM: u16 = 8;
const BOXES: u16 = 16;
const BARS: u16 = 32;
const PANELS: u16 = 64;
const OWN: u16 = 256;
const AXES: u16 = LINES | SCATTER | HISTOGRAM | BOXES | BARS;
const ALL: u16 = 511;

/// An option of a figure: its name, how it is set, and the kinds that show it.
type OptionCase = (&'static str, fn(Figure) -> Figure, u16);

/// Every method of `Figure` that sets something.
const OPTIONS: [OptionCase; 29] = [
    ("title", |f| f.title("t"), ALL),
    ("caption", |f| f.caption("c"), ALL),
    ("x", |f| f.x("across"), AXES | HEATMAP),
    ("y", |f| f.y("up"), AXES | HEATMAP),
    ("value", |f| f.value("v"), HEATMAP | SCATTER),
    ("log_x", Figure::log_x, LINES | SCATTER),
    ("log_y", Figure::log_y, AXES),
    ("range", |f| f.range(0.5, 7.0), AXES | HEATMAP),
    ("midpoint", |f| f.midpoint(0.25), HEATMAP | SCATTER),
    ("colorscale", |f| f.colorscale(Colorscale::Greys), HEATMAP | SCATTER),
    ("own_scales", Figure::own_scales, HEATMAP),
    ("stretched", Figure::stretched, HEATMAP),
    ("x_labels", |f| f.x_labels(["a", "b"]), HEATMAP | LINES),
    ("y_labels", |f| f.y_labels(["a", "b"]), HEATMAP),
    ("x_tokens", |f| f.x_tokens([" a", "b"]), HEATMAP | LINES),
    ("y_tokens", |f| f.y_tokens([" a", "b"]), HEATMAP),
    ("facets", |f| f.facets(["a", "b"]), HEATMAP),
    ("columns", |f| f.columns(1), HEATMAP | PANELS),
    ("text_auto", Figure::text_auto, HEATMAP),
    ("causal", Figure::causal, HEATMAP),
    ("mask", |f| f.mask([false, true, true, false]), HEATMAP),
    ("noise", |f| f.noise(Array::new([2, 2, 2], &[5.0; 8]).unwrap()), HEATMAP),
    ("bins", |f| f.bins(3), HISTOGRAM),
    ("density", Figure::density, HISTOGRAM),
    ("diagonal", Figure::diagonal, LINES | SCATTER),
    ("rule", |f| f.rule(1.5, "half"), AXES),
    ("vrule", |f| f.vrule(1.5, "there"), LINES | SCATTER | HISTOGRAM),
    ("below", |f| f.below(line(&[1.0, 2.0])), LINES),
    ("size", |f| f.size(300, 200), ALL),
];

/// One figure of each kind, in the order of the bits.
fn kinds() -> [Figure; 9] {
    let matrix = || Array::new([2, 2, 2], &[1.0, 2.0, 3.0, 4.0, 1.0, 1.0, 2.0, 2.0]).unwrap();
    let points = Points::new("", &[1.0, 2.0], &[2.0, 1.0]).color(&[0.0, 1.0]).size(&[1.0, 4.0]).names(["p", "q"]);
    [
        imshow(matrix()),
        line([Series::new("a", &[1.0, 2.0]), Series::new("b", &[2.0, 1.0])]),
        scatter(points),
        histogram(&[1.0, 2.0, 2.0, 3.0, 7.0]),
        boxes([Series::new("a", &[1.0, 2.0, 3.0, 30.0]), Series::new("b", &[2.0, 3.0, 4.0, 5.0])]),
        bar(["p", "q"], &[1.0, 2.0]),
        panels([imshow(matrix()).title("cells"), line(&[1.0, 2.0]), bar(["p"], &[1.0])]),
        frames([("one", line(&[1.0, 2.0])), ("two", line(&[2.0, 1.0]))]),
        plotly(r#"[{ "type": "violin", "y": [1, 2, 3] }]"#, "{}"),
    ]
}

#[test]
fn an_option_is_shown_or_refused() {
    // A caption stands in the page around the chart.
    let seen = |f: &Figure, name| match name {
        "caption" | "title" => f.to_html().unwrap(),
        _ => f.to_plotly_json().unwrap(),
    };
    for (k, plain) in kinds().iter().enumerate() {
        let own = 1 << k == OWN;
        for (name, set, shown) in OPTIONS {
            let figure = set(kinds()[k].clone());
            assert_ne!(&figure, plain, "{name} sets nothing");
            if shown & (1 << k) != 0 {
                assert_ne!(seen(&figure, name), seen(plain, name), "kind {k} ignores {name}");
                if name != "caption" && !own {
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
fn every_kind_goes_through_every_writer() {
    for (k, figure) in kinds().into_iter().enumerate() {
        let html = figure.to_html().unwrap();
        assert!(html.len() < 800_000, "kind {k}: {} bytes", html.len());
        assert_eq!(html, figure.to_html().unwrap());
        if 1 << k == OWN {
            let error = figure.to_png().unwrap_err().to_string();
            assert!(error.contains("browser"), "{error}");
            continue;
        }
        assert_well_formed(&figure.to_svg().unwrap());
        figure.to_png().unwrap();
    }
}

#[test]
fn points_carry_their_colours_sizes_and_names() {
    let spec = plotly_spec(&kinds()[2]);
    let marker = &spec["data"][0]["marker"];
    assert_eq!(marker["color"], serde_json::json!([0.0, 1.0]));
    // Areas are in proportion: four times the value is twice the diameter beyond the smallest.
    assert_eq!(marker["size"], serde_json::json!([13.0, 22.0]));
    assert_eq!(spec["data"][0]["text"], serde_json::json!(["p", "q"]));
    let wrong = scatter(Points::new("a", &[1.0], &[1.0]).names(["one", "two"])).to_html().unwrap_err().to_string();
    assert!(wrong.contains("expected 1 names"), "{wrong}");
    assert!(scatter(Points::new("a", &[1.0], &[1.0]).size(&[-1.0])).to_html().is_err());
    let error = scatter((&[1.0], &[1.0])).midpoint(0.0).to_html().unwrap_err();
    assert!(matches!(error, ReportError::Option { option: "midpoint", .. }), "{error}");
}

#[test]
fn a_histogram_counts_and_its_density_has_area_one() {
    let samples = [Series::new("a", &[0.0, 0.1, 0.9, 1.0]), Series::new("b", &[0.0, 2.0])];
    let spec = plotly_spec(&histogram(samples.clone()).bins(4));
    assert_eq!(spec["data"][0]["y"], serde_json::json!([2.0, 1.0, 1.0, 0.0]));
    assert_eq!(spec["data"][1]["x"], spec["data"][0]["x"], "overlaid, in the same bins");
    let spec = plotly_spec(&histogram(samples).bins(4).density());
    for trace in spec["data"].as_array().unwrap() {
        let area: f64 = trace["y"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() * 0.5).sum();
        assert!((area - 1.0).abs() < 1e-12);
    }
    assert!(histogram(&[f32::NAN, 1.0]).to_html().unwrap().contains("1 value is not finite"));
}

#[test]
fn a_band_lies_around_its_curve() {
    let spec = plotly_spec(&line(Series::new("a", &[1.0, f64::NAN, 3.0, 4.0]).spread(&[0.5, 0.5, 0.5, 1.0])));
    // One stretch before the gap and one after it, there and back.
    assert_eq!(spec["data"][0]["y"], serde_json::json!([1.5, 0.5, null, 3.5, 5.0, 3.0, 2.5, null]));
    assert_eq!(spec["data"][0]["fill"], "toself");
    let error = line(Series::new("a", &[1.0, 2.0]).spread(&[0.1])).to_html().unwrap_err().to_string();
    assert!(error.contains("lower and upper ends"), "{error}");
    assert!(line(Series::new("a", &[1.0, 2.0]).spread(&[0.1, 0.1, 0.1])).to_html().is_err());
}

#[test]
fn hidden_and_doubtful_cells_are_not_coloured() {
    let figure = imshow(matrix(&[1.0, 9.0, 0.5, 2.0], 2)).causal();
    let spec = plotly_spec(&figure);
    assert_eq!(spec["data"][0]["z"], serde_json::json!([[1.0, null], [0.5, 2.0]]));
    assert_eq!(spec["layout"]["coloraxis"]["cmax"], 2.0, "what is hidden sets no scale");
    assert_eq!(spec["ironlens"]["paint"][1]["mask"], true);
    let noisy = imshow(matrix(&[0.1, -3.0], 2)).midpoint(0.0).noise(matrix(&[0.1, 0.1], 2));
    let spec = plotly_spec(&noisy);
    assert_eq!(spec["data"][1]["z"], serde_json::json!([[1.0, null]]));
    assert!(noisy.to_html().unwrap().contains("1 cell is grey"));
    assert!(imshow(matrix(&[0.0; 4], 2)).mask([true]).to_html().is_err());
    assert!(imshow(matrix(&[0.0; 4], 2)).noise(matrix(&[0.0; 2], 2)).to_html().is_err());
}

#[test]
fn large_heatmaps_are_packed_and_say_how_exactly() {
    let data: Vec<f32> = (0..128 * 128).map(|i| (i as f32).sin()).collect();
    let html = imshow(Array::new([128, 128], &data).unwrap()).to_html().unwrap();
    assert!(html.contains("stored in 16 bits") && html.len() < 800_000, "{}", html.len());
    let spec = plotly_spec(&imshow(Array::new([128, 128], &data).unwrap()));
    assert_eq!(spec["data"][0]["z"]["codec"], "u16");
}

#[test]
fn frames_share_their_axes() {
    let frame = |v: f32| imshow(matrix(&[0.0, v], 2));
    let spec = plotly_spec(&frames([("a", frame(1.0)), ("b", frame(5.0))]));
    assert_eq!(spec["layout"]["coloraxis"]["cmax"], 5.0);
    assert_eq!(spec["frames"][1]["name"], "b");
    assert_eq!(spec["frames"][1]["data"][0]["z"], serde_json::json!([[0.0, 5.0]]));
    assert!(frames([("a", frame(1.0)), ("b", line(&[1.0]))]).to_html().is_err());
    assert!(frames([("a", frame(1.0)), ("b", imshow(matrix(&[0.0; 4], 2)))]).to_html().is_err());
    assert!(frames(Vec::<(String, Figure)>::new()).to_html().is_err() && panels([]).to_html().is_err());
    let titled = frames([("a", frame(1.0).title("own"))]).to_html().unwrap_err();
    assert!(matches!(titled, ReportError::Option { option: "title", .. }), "{titled}");
    let nested = panels([panels([frame(1.0)])]).to_html().unwrap_err();
    assert!(matches!(nested, ReportError::Shape { .. }), "{nested}");
}

#[test]
fn own_traces_are_checked() {
    for (traces, layout) in
        [("{}", "{}"), ("[1]", "{}"), ("[", "{}"), ("[]", "[]"), (r#"[{"type":"scatter3d"}]"#, "{}")]
    {
        assert!(
            matches!(plotly(traces, layout).to_html().unwrap_err(), ReportError::Shape { .. }),
            "{traces} {layout}"
        );
    }
    let spec = plotly_spec(&plotly(r#"[{"type":"violin","y":[1]}]"#, r#"{"shapes":[{"type":"line"}],"height":300}"#));
    assert_eq!((&spec["layout"]["shapes"][0]["type"], &spec["layout"]["height"]), (&"line".into(), &300.into()));
}

#[test]
fn figures_on_one_page_share_the_library() {
    let one = line(&[1.0, 2.0]).to_html().unwrap().len();
    let page = Page::new("all").text("words\n\nand more").with(line(&[1.0, 2.0])).with(bar(["a"], &[1.0]));
    let two = page.to_html().unwrap();
    assert_eq!(two.matches("id=\"plotly-js\"").count(), 1);
    assert!(two.len() < one + 60_000, "{} and {one}", two.len());
    assert!(two.contains("<h1>all</h1>") && two.contains("<p>and more</p>"));
    let dir = tempfile::tempdir().unwrap();
    page.save(dir.path().join("a.html")).unwrap();
    assert!(matches!(page.save(dir.path().join("a.png")).unwrap_err(), ReportError::Format { .. }));
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
        ("range", imshow(matrix(&[0.0; 4], 2)).range(0.0, 1.0).own_scales()),
        ("bins", histogram(&[1.0]).bins(0)),
        ("text_auto", imshow(matrix(&[0.0; 10_000], 100)).text_auto()),
        ("y_tokens", heat().y_labels(["a", "b"]).y_tokens(["a", "b"])),
        ("x_labels", lower().log_x().x_labels(["a", "b"])),
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
    let spec = plotly_spec(&figure);
    assert_eq!(spec["layout"]["xaxis"]["ticktext"], serde_json::json!(["embed", "block 0", "block &lt;1&gt;"]));
    assert_eq!(spec["layout"]["xaxis"]["tickvals"], serde_json::json!([0, 1, 2]));
    let tokens = plotly_spec(&line(&[1.0, 2.0]).x_tokens([" the", "\n"]));
    assert_eq!(tokens["layout"]["xaxis"]["ticktext"], serde_json::json!(["·the", "⏎"]));
    let svg = figure.to_svg().unwrap();
    assert_well_formed(&svg);
    assert!(svg.contains("embed") && svg.contains("block 0"), "names in the picture");
    let many: Vec<f32> = (0..500).map(|i| i as f32).collect();
    assert_well_formed(&line(&many).x_labels((0..500).map(|i| format!("token {i}"))).to_svg().unwrap());
    assert!(line(&[1.0]).x_labels(["a"]).to_png().is_ok());
    let error = line(&[1.0, 2.0]).x_labels(["a"]).to_html().unwrap_err().to_string();
    assert!(error.contains("got 1 labels, expected 2 labels"), "{error}");
}

#[test]
fn stacks_may_be_nested() {
    let spec = plotly_spec(&line(&[1.0]).below(line(&[2.0]).below(line(&[3.0])).below(line(&[4.0]))));
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
    let spec = plotly_spec(&figure);
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
    let spec = plotly_spec(&figure);
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
    let spec = plotly_spec(&line(&[1.0, 0.1]).y("loss").log_y().below(line(&[0.1, 0.2]).y("rate").x("step")));
    assert_eq!(spec["data"][1]["yaxis"], "y2");
    assert_eq!(spec["layout"]["xaxis"]["title"]["text"], "step");
    assert_eq!(spec["layout"]["yaxis2"]["title"]["text"], "rate");
    assert_eq!(spec["layout"]["yaxis2"]["type"], "linear");
}

#[test]
fn numbers_keep_their_digits_and_no_more() {
    let spec = plotly_spec(&line(&[0.1f32, 5.99]));
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

#[test]
fn bars_show_how_exact_they_are() {
    let figure = bar(["a", "b"], Series::new("", &[2.0, 4.0]).spread(&[0.5, 1.0]));
    let page = figure.to_html().unwrap();
    assert!(page.contains(r#""array":[0.5,1.0]"#) && page.contains(r#""arrayminus":[0.5,1.0]"#));
    let plain = bar(["a", "b"], Series::new("", &[2.0, 4.0])).to_svg().unwrap();
    assert!(figure.to_svg().unwrap().len() > plain.len(), "the lines are in the picture, too");
    let error = bar(["a", "b"], Series::new("", &[2.0, 4.0]).spread(&[0.5])).to_html().unwrap_err().to_string();
    assert!(error.contains("2 lower and upper ends"), "{error}");
}

#[test]
fn names_of_rules_lie_on_no_other_name_and_no_curve() {
    let corners = |figure: Figure| -> Vec<(Value, Value)> {
        let all = plotly_spec(&figure)["layout"]["annotations"].take();
        all.as_array().unwrap().iter().map(|a| (a["xanchor"].clone(), a["yanchor"].clone())).collect()
    };
    let curve = |y: &[f64]| line(y).range(0.0, 10.0);
    let at = |x: &str, y: &str| (Value::from(x), Value::from(y));
    let flat = vec![9.0; 200];
    assert_eq!(corners(curve(&flat).rule(5.0, "one")), [at("right", "bottom")]);
    let [one, two] = corners(curve(&flat).rule(5.0, "one").rule(5.02, "two")).try_into().unwrap();
    assert_ne!(one, two, "they would lie over each other");
    // A curve just above the rule: the name stands below it.
    assert_eq!(corners(curve(&vec![5.2; 200]).rule(5.0, "one")), [at("right", "top")]);
}
