//! Every kind of figure, as a page, PNG and SVG: `cargo run -p ironlens-report --example gallery -- DIR`.

use ironlens_report::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "gallery".into());
    let dir = std::path::Path::new(&dir);
    let mut page = Page::new("Gallery of figures").text("Every kind of figure, drawn from made-up numbers.");
    for (name, figure) in figures()? {
        figure.save(dir.join(format!("{name}.html")))?;
        if name != "own-traces" {
            figure.save(dir.join(format!("{name}.png")))?;
            figure.save(dir.join(format!("{name}.svg")))?;
        }
        page = page.with(figure);
    }
    for (name, view) in views()? {
        view.save(dir.join(format!("{name}.html")))?;
        page = page.with(view);
    }
    page.save(dir.join("gallery.html"))?;
    println!("{}", dir.join("gallery.html").display());
    Ok(())
}

/// Numbers between 0 and 1 that look random and are the same everywhere.
fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..n).map(|_| next()).collect()
}

/// A causal pattern of a head that attends to the token before, more or less.
fn pattern(n: usize, sharp: f32) -> Vec<f32> {
    let mut out = vec![0.0; n * n];
    for d in 0..n {
        let row: Vec<f32> = (0..=d).map(|s| 1.0 + if s + 1 == d { sharp } else { 0.0 }).collect();
        let sum: f32 = row.iter().sum();
        row.iter().enumerate().for_each(|(s, v)| out[d * n + s] = v / sum);
    }
    out
}

fn views() -> Result<Vec<(&'static str, View)>, ReportError> {
    let tokens = ["<bos>", "When", " Mary", " and", " John", " went", ",", "\n", "<b>", "👩\u{200d}👩"];
    let heads: Vec<f32> = (0..6).flat_map(|i| pattern(10, (i * i * 8) as f32)).collect();
    let heads = Array::new([6, 10, 10], &heads)?;
    let values: Vec<f32> = noise(10, 3).iter().map(|v| v * 2.0 - 1.0).collect();
    let acts = |seed| Array::new([10, 2, 3], &noise(60, seed).iter().map(|v| v * 2.0 - 1.0).collect::<Vec<_>>());
    let log_probs: Vec<f32> = (0..10)
        .flat_map(|i| {
            let row: Vec<f32> = noise(10, i + 40).iter().map(|v| v * 6.0).collect();
            let sum: f32 = row.iter().map(|v| v.exp()).sum();
            row.into_iter().map(move |v| v - sum.ln())
        })
        .collect();
    let sample = |seed: u32| Sample { tokens: tokens.map(String::from).to_vec(), values: noise(10, seed) };
    let texts = || vec![tokens.map(String::from).to_vec(); 2];
    Ok(vec![
        ("attention", attention_layers(tokens, [heads.clone(), heads.clone()])),
        ("attention-heads", attention_heads(tokens, heads.clone(), (0..6).map(|i| format!("head {i}")))),
        ("attention-pattern", attention_pattern(tokens, heads.at(4)?)),
        ("colored-tokens", colored_tokens(tokens, &values)),
        (
            "colored-tokens-multi",
            colored_tokens_multi(tokens, Array::new([10, 3], &noise(30, 9))?, ["loss", "logit", "rank"]),
        ),
        (
            "log-probs",
            token_log_probs(
                &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
                Array::new([10, 10], &log_probs)?,
                |i| tokens[i].into(),
                5,
            ),
        ),
        ("neurons", text_neuron_activations(texts(), vec![acts(1)?, acts(2)?])),
        ("topk-tokens", topk_tokens(texts(), vec![acts(1)?, acts(2)?], 5)),
        (
            "topk-samples",
            topk_samples(vec![
                vec![vec![sample(1), sample(2)], vec![sample(3)]],
                vec![vec![sample(4)], vec![sample(5)]],
            ]),
        ),
    ])
}

fn figures() -> Result<Vec<(&'static str, Figure)>, ReportError> {
    let steps: Vec<f64> = (0..60).map(|i| 10f64.powf(f64::from(i) / 15.0)).collect();
    let loss: Vec<f64> =
        steps.iter().zip(noise(60, 1)).map(|(s, e)| 6.0 / (1.0 + s / 30.0) * (0.9 + 0.2 * f64::from(e))).collect();
    let spread: Vec<f64> = loss.iter().map(|v| v * 0.15).collect();
    let held: Vec<f64> = loss.iter().map(|v| v * 1.2).collect();
    let tokens = ["<bos>", "When", " Mary", " and", " John", " went", ",", "\n"];
    let heads: Vec<String> = (0..12).map(|i| format!("L{}H{}", i / 6, i % 6)).collect();
    let words = ["alpha", "beta", "gamma", "delta"];
    let all: Vec<f32> = (0..4).flat_map(|i| pattern(16, (i * i * 10) as f32)).collect();
    let signed: Vec<f32> = noise(12, 8).iter().map(|v| v * 2.0 - 1.0).collect();
    Ok(vec![
        (
            "line",
            line([
                Series::new("trained", &loss).x(&steps).spread(&spread),
                Series::new("held out", &held).x(&steps).markers(true),
            ])
            .title("Loss with its spread over seeds")
            .x("step")
            .y("loss")
            .log_x()
            .log_y()
            .rule(5.7, "guessing")
            .vrule(30.0, "half-way")
            .caption("Both axes are logarithmic; the band is one standard deviation."),
        ),
        (
            "line-names",
            line(&[0.1, 0.4, 0.35, 0.9])
                .title("Named places")
                .x_labels(["embed", "block 0", "block 1", "unembed"])
                .y("norm"),
        ),
        (
            "scatter",
            scatter([
                Points::new("layer 0", &noise(6, 2), &noise(6, 3))
                    .names(heads[..6].to_vec())
                    .color(&noise(6, 4))
                    .size(&noise(6, 5)),
                Points::new("layer 1", &noise(6, 6), &noise(6, 7))
                    .names(heads[6..].to_vec())
                    .color(&noise(6, 8))
                    .size(&noise(6, 9)),
            ])
            .title("What a head does, and what is lost without it")
            .x("previous-token score")
            .y("rise of the loss")
            .value("entropy")
            .diagonal(),
        ),
        (
            "histogram",
            histogram([
                Series::new("before", &noise(400, 1)),
                Series::new("after", &noise(300, 2).iter().map(|v| v * v).collect::<Vec<_>>()),
            ])
            .title("Weights before and after")
            .x("weight")
            .density()
            .bins(24),
        ),
        (
            "box",
            boxes(
                words
                    .iter()
                    .enumerate()
                    .map(|(i, w)| {
                        Series::new(*w, &noise(40, i as u32).iter().map(|v| v * v * (i + 1) as f32).collect::<Vec<_>>())
                    })
                    .collect::<Vec<_>>(),
            )
            .title("Norms by token")
            .y("norm"),
        ),
        (
            "bar",
            bar(heads.clone(), [Series::new("zero", &signed), Series::new("mean", &noise(12, 3))])
                .title("Without each head")
                .y("rise of the loss"),
        ),
        (
            "values",
            imshow(Array::new([3, 4], &signed)?)
                .title("Values in cells, doubtful ones grey")
                .midpoint(0.0)
                .text_auto()
                .noise(Array::new([3, 4], &[0.2; 12])?)
                .x_labels(words)
                .y_labels(["layer 0", "layer 1", "layer 2"])
                .value("effect"),
        ),
        (
            "tokens",
            imshow(Array::new([8, 8], &pattern(8, 12.0))?)
                .title("Attention between tokens")
                .causal()
                .x_tokens(tokens)
                .y_tokens(tokens)
                .x("source")
                .y("destination")
                .value("attention"),
        ),
        (
            "facets",
            imshow(Array::new([4, 16, 16], &all)?)
                .title("Four heads on one scale")
                .facets(words)
                .causal()
                .x("source")
                .y("destination")
                .value("attention"),
        ),
        (
            "own-scales",
            imshow(Array::new([4, 16, 16], &all)?)
                .title("Four heads, each on its own scale")
                .facets(words)
                .columns(2)
                .own_scales(),
        ),
        (
            "frames",
            frames((0..6).map(|i| {
                (
                    format!("step {}", i * 100),
                    imshow(Array::new([16, 16], &pattern(16, (i * i * 4) as f32)).unwrap_or_default())
                        .causal()
                        .value("attention"),
                )
            }))
            .title("A head while it learns"),
        ),
        (
            "panels",
            panels([
                imshow(Array::new([16, 16], &pattern(16, 20.0))?).title("pattern").causal().value("attention"),
                line(Series::new("loss", &loss).x(&steps)).title("loss").log_x().x("step").y("loss"),
                scatter((&noise(30, 5), &noise(30, 6))).title("points").x("a").y("b").diagonal(),
                bar(words, &[1.0, 3.0, 2.0, 0.5]).title("bars").y("share"),
            ])
            .title("Panels of different kinds"),
        ),
        (
            "own-traces",
            plotly(
                r#"[{ "type": "violin", "y": [1, 2, 2, 3, 3, 3, 4, 9], "name": "own" }]"#,
                r#"{ "yaxis": { "title": { "text": "value" } } }"#,
            )
            .title("Own traces: a violin"),
        ),
        (
            "large",
            imshow(Array::new([128, 128], &pattern(128, 60.0))?)
                .title("128 × 128")
                .causal()
                .x("source")
                .y("destination"),
        ),
    ])
}
