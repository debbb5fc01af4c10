//! Analyses of several prompts are means over those of each.

use std::path::PathBuf;

use ironlens_study::prompts::{Prompts, Question};
use ironlens_study::{Analysis, Part, Picture};
use ironlens_tensor::Device;
use ironlens_tokenizer::HookedTokenizer;
use ironlens_transformer::{ActFn, Config, HookedTransformer};

fn model() -> HookedTransformer {
    let cfg = Config {
        d_model: 8,
        d_head: 4,
        n_layers: 2,
        n_ctx: 32,
        d_vocab: 50257,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 3).unwrap();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/reference/tokenizers/gpt2");
    model.set_tokenizer(HookedTokenizer::from_folder(folder).unwrap()).unwrap();
    model
}

fn question(prompt: &str) -> Question {
    let (answer, wrong) = (Some(" Mary".into()), Some(" John".into()));
    Question { prompt: prompt.into(), answer, wrong, corrupted: None }
}

fn analysed(prompts: &[&str]) -> Analysis {
    Prompts::new(model(), prompts.iter().map(|p| question(p)).collect()).unwrap().analyse()
}

fn part<'a>(analysis: &'a Analysis, title: &str) -> &'a Part {
    analysis.sections.iter().find(|p| p.title.contains(title)).unwrap_or_else(|| panic!("{title}"))
}

fn values<'a>(analysis: &'a Analysis, section: &str, picture: &str) -> &'a [f32] {
    let found = part(analysis, section).pictures.iter().find_map(|p| match p {
        Picture::Heatmap { title, values, .. } if title == picture => Some(values),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{section}: {picture}"))
}

const A: &str = "When Mary and John went to the store, John gave a drink to";
/// As many tokens as the first.
const B: &str = "When Mary and John went to the park, John gave a book to";
/// Fewer.
const SHORT: &str = "Mary saw John and John waved to";

#[test]
fn pictures_are_means_and_spreads_over_prompts() {
    let both = analysed(&[A, B]);
    let (a, b) = (analysed(&[A]), analysed(&[B]));
    for (section, picture) in [
        ("activation patching", "Residual stream before each layer"),
        ("activation patching", "Head output"),
        ("attribution patching", "Head output, estimated"),
        ("attribution patching", "Residual stream before each layer, estimated"),
    ] {
        let (first, second) = (values(&a, section, picture), values(&b, section, picture));
        let mean = values(&both, section, &format!("{picture}, mean"));
        let spread = values(&both, section, &format!("{picture}, standard deviation"));
        for (i, (x, y)) in first.iter().zip(second).enumerate() {
            let (expected_mean, expected_spread) = ((x + y) / 2.0, (x - y).abs() / 2f32.sqrt());
            let near = |a: f32, b: f32| (a - b).abs() <= 1e-4 * (x.abs() + y.abs()) + 1e-7;
            assert!(near(mean[i], expected_mean), "{section}, {picture}, {i}: {} {expected_mean}", mean[i]);
            assert!(near(spread[i], expected_spread), "{section}, {picture}, {i}: {} {expected_spread}", spread[i]);
        }
        assert!(first != second, "{section}: the prompts differ");
    }
    assert!(part(&both, "activation patching").prose.contains("over 2 of the 2 prompts."));
    assert!(!part(&a, "activation patching").prose.contains("standard deviation"));
}

#[test]
fn prompts_of_other_lengths_are_left_out_by_position_and_told() {
    let (two, three) = (analysed(&[A, B]), analysed(&[A, B, SHORT]));
    let section = "activation patching";
    let by_position = "Residual stream before each layer, mean";
    assert_eq!(values(&two, section, by_position), values(&three, section, by_position));
    assert_ne!(values(&two, section, "Head output, mean"), values(&three, section, "Head output, mean"));
    let prose = &part(&three, section).prose;
    assert!(prose.contains("over 3 of the 3 prompts") && prose.contains("1 of other lengths are left out"), "{prose}");

    // One without a corrupted prompt counts where none is needed.
    let model = model();
    let mut questions = vec![question(A), question(B)];
    questions[1].corrupted = Some("far too short".into());
    let prompts = Prompts::new(model, questions).unwrap();
    let analysis = prompts.analyse();
    let prose = &part(&analysis, section).prose;
    assert!(prose.contains("of 1 of the 2 prompts") && prose.contains("no corrupted prompt"), "{prose}");
    assert!(part(&analysis, "logit lens").prose.contains("over 2 of the 2 prompts"));
    let page = prompts.report("model", &analysis).unwrap().to_html().unwrap();
    assert!(page.contains("2 prompts, the first of them"));
}
