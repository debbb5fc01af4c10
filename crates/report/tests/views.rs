//! Views of attention and of tokens: what fits, what does not, and what is in the page.

use ironlens_report::*;
use serde_json::Value;

/// The data that a view of tokens carries.
fn data(view: &View) -> Value {
    let html = view.to_html().unwrap();
    let start = html.find("id=\"figure-tokens\">").expect("a view of tokens") + 19;
    let end = html[start..].find("</script>").unwrap() + start;
    serde_json::from_str(&html[start..end]).unwrap()
}

fn words(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("w{i}")).collect()
}

#[test]
fn attention_is_shown_with_its_tokens() {
    let heads = Array::new([2, 2, 2], &[1.0, 0.0, 0.4, 0.6, 1.0, 0.0, 0.1, 0.9]).unwrap();
    let view = attention_heads(["<s>", "</script>"], heads.clone(), ["first", "second"]);
    let html = view.to_html().unwrap();
    assert!(html.len() < 100_000, "{} bytes", html.len());
    assert!(html.contains("second") && !html.contains("\"</script>\"") && !html.contains("<s>"));
    assert_eq!(html, view.to_html().unwrap());
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.html", "a.png", "a.svg"] {
        view.save(dir.path().join(name)).unwrap();
    }
    assert!(std::fs::read_to_string(dir.path().join("a.svg")).unwrap().contains("second"));
    attention_layers(words(2), [heads.clone(), heads.clone()]).save(dir.path().join("b.png")).unwrap();
    attention_pattern(words(2), heads.at(1).unwrap()).to_html().unwrap();
    assert!(matches!(view.save(dir.path().join("a.txt")).unwrap_err(), ReportError::Format { .. }));
}

#[test]
fn every_choice_has_its_numbers() {
    let multi = colored_tokens_multi(words(2), Array::new([2, 3], &[1., 2., 3., 4., 5., 6.]).unwrap(), ["a", "b", "c"]);
    let d = data(&multi);
    assert_eq!(d["groups"][1][0]["values"], serde_json::json!([2.0, 5.0]));
    assert_eq!(d["groups"][1][0]["details"][1][2], serde_json::json!(["c", "6.0000", "", ""]));

    // [token, layer, neuron] = 2 x 2 x 3
    let acts = Array::new([2, 2, 3], &(0..12).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let neurons = data(&text_neuron_activations(vec![words(2)], vec![acts.clone()]));
    assert_eq!(neurons["groups"][5][0]["values"], serde_json::json!([5.0, 11.0]), "layer 1, neuron 2");
    assert_eq!(neurons["shared"], true);

    let top = data(&topk_tokens(vec![words(2)], vec![acts], 1));
    assert_eq!(top["groups"][2][0]["tokens"], serde_json::json!(["w1"]), "layer 1, largest");
    assert_eq!(top["groups"][3][0]["values"], serde_json::json!([3.0]), "layer 1, smallest");

    let sample = |v: f32| Sample { tokens: words(1), values: vec![v] };
    let samples = data(&topk_samples(vec![vec![vec![sample(1.0)], vec![sample(2.0), sample(3.0)]]]));
    assert_eq!(samples["groups"][1][1]["values"], serde_json::json!([3.0]));
}

#[test]
fn log_probabilities_list_the_likeliest_and_the_true_one() {
    let p = Array::new([1, 3], &[0.5f32.ln(), 0.2f32.ln(), 0.3f32.ln()]).unwrap();
    let d = data(&token_log_probs(&[1], p.clone(), |i| format!("t{i}"), 2));
    let rows = &d["groups"][0][0]["details"][0];
    assert_eq!(rows[0], serde_json::json!(["3", "t1", "20.00%", "-1.6094"]), "the true one first");
    assert_eq!((&rows[1][1], &rows[2][1]), (&"t0".into(), &"t2".into()));
    assert!(token_log_probs(&[3], p.clone(), |i| i.to_string(), 2).to_html().is_err());
    assert!(token_log_probs(&[1, 2], p, |i| i.to_string(), 2).to_html().is_err());
}

#[test]
fn tokens_are_text_whatever_they_hold() {
    let evil = ["</script><script>alert(1)</script>", "<b>", "\"'&", "\n", "\0", "\u{202e}", "👩\u{200d}👩", ""];
    let html = colored_tokens(evil, &[f32::NAN, 0.0, -1.0, 2.0, f32::INFINITY, 0.0, 0.0, 0.0]).to_html().unwrap();
    assert!(!html.contains("<script>alert") && !html.contains("<b>") && !html.contains('\0'));
    assert!(html.contains("\\x202e") && html.contains('∅'));
}

#[test]
fn what_does_not_fit_is_told() {
    let a = |shape: &[usize]| Array::new(shape, &vec![0.0; shape.iter().product()]).unwrap();
    let sample = Sample { tokens: words(2), values: vec![1.0] };
    let wrong = [
        attention_pattern(words(2), a(&[1, 2, 2])),
        attention_pattern(words(3), a(&[2, 2])),
        attention_heads(words(2), a(&[2, 2, 2]), ["one"]),
        attention_layers(words(2), Vec::<Array>::new()),
        attention_layers(words(2), [a(&[1, 2, 2]), a(&[1, 3, 3])]),
        colored_tokens(words(2), &[1.0]),
        colored_tokens_multi(words(2), a(&[2, 2]), ["a"]),
        text_neuron_activations(vec![words(2)], vec![a(&[3, 1, 1])]),
        topk_tokens(vec![words(2)], vec![a(&[2, 1, 1])], 0),
        topk_samples(vec![vec![vec![sample]]]),
        topk_samples(Vec::new()),
    ];
    for view in wrong {
        let error = view.to_html().unwrap_err();
        assert!(matches!(error, ReportError::Shape { .. }), "{error}");
    }
    let text = colored_tokens(words(1), &[1.0]);
    let error = text.save(std::env::temp_dir().join("never.png")).unwrap_err();
    assert!(matches!(error, ReportError::Option { option: "save", .. }), "{error}");
}

#[test]
fn views_and_figures_stand_on_one_page() {
    let page = Page::new("both").with(colored_tokens(words(2), &[1.0, -1.0])).with(line(&[1.0, 2.0]));
    let html = page.to_html().unwrap();
    assert!(html.contains("id=\"figure-1-tokens\"") && html.contains("id=\"figure-2-data\""));
    let head = attention_pattern(words(2), Array::new([2, 2], &[1.0, 0.0, 0.5, 0.5]).unwrap());
    let two = Page::stack([head.clone(), head]);
    assert!(!two.to_html().unwrap().contains("data-linked"), "two views cannot share one address");
}
