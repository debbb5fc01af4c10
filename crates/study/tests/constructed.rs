//! Heads whose weights are set by hand, so that each looks at exactly one kind of place: in the report of a run each
//! gets the name of what it does, and the page holds the pattern that it was made for. At chance none is named.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ironlens_lens::heads::HeadKind;
use ironlens_report::Report;
use ironlens_study as study;
use ironlens_tensor::{DType, Device, Tensor};
use ironlens_train::{Induction, LanguageModel, Preset, RunDir, TrainConfig, Trainer, labelled_loss};
use ironlens_transformer::{Config, HookedTransformer, NormalizationType};
use serde_json::Value;

const TOKENS: usize = 33;
const POS: usize = 33;
const HEADS: usize = 6;

/// Where in the stream what is written: the token, the position, the token before, the answer.
const TOKEN: usize = 0;
const POSITION: usize = TOKENS;
const BEFORE: usize = TOKENS + POS;
const ANSWER: usize = 2 * TOKENS + POS;

/// How much a score lies above the others where a head looks: the others have shares of exp(-50).
const STRONG: f64 = 50.0;

/// What each head is made for; the rest have weights of 0 and look at all they see alike.
const MADE: [(usize, usize, HeadKind); 5] = [
    (0, 0, HeadKind::PreviousToken),
    (0, 1, HeadKind::CurrentToken),
    (0, 2, HeadKind::FirstToken),
    (0, 3, HeadKind::DuplicateToken),
    (1, 0, HeadKind::Induction),
];

fn kind_of(layer: usize, head: usize) -> Option<HeadKind> {
    MADE.iter().find(|(l, h, _)| (*l, *h) == (layer, head)).map(|made| made.2)
}

/// Two layers without norms and MLPs. Tokens and positions are one-hot in the stream; a query and a key compare tokens
/// in their first `TOKENS` dimensions and positions in the others. `answers` is how loud it says what it found.
fn made(answers: f64) -> HookedTransformer {
    let cfg = Config {
        d_model: 3 * TOKENS + POS,
        d_head: TOKENS + POS,
        n_heads: HEADS,
        n_layers: 2,
        n_ctx: POS,
        d_vocab: TOKENS,
        attn_only: true,
        use_attn_scale: false,
        init_weights: false,
        normalization_type: NormalizationType::None,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 0).unwrap();
    let eye = |n: usize| Tensor::eye(n, DType::F32, &Device::Cpu);
    let ones = |rows: usize, columns: usize| Tensor::ones(&[rows, columns], DType::F32, &Device::Cpu);
    let params = model.params_mut();
    // A block of a head's matrix that reads the stream `from` and lies in the head's dimensions `to`.
    let mut set = |layer: usize, name: &str, head: usize, [from, to]: [usize; 2], block: &Tensor| {
        let name = format!("blocks.{layer}.attn.{name}");
        let (rows, columns) = (block.dim(0), block.dim(1));
        params.assign(&name, |w| w.select(0, head).narrow(0, from, rows).narrow(1, to, columns), block).unwrap();
    };
    let by_position = [POSITION, TOKENS];
    // The one before: keys are positions moved by one.
    let before = eye(POS + 1).narrow(0, 1, POS).narrow(1, 0, POS);
    set(0, "W_Q", 0, by_position, &(eye(POS) * STRONG));
    set(0, "W_K", 0, by_position, &before);
    // It tells the next layer which token that is.
    set(0, "W_V", 0, [TOKEN, 0], &eye(TOKENS));
    set(0, "W_O", 0, [0, BEFORE], &eye(TOKENS));
    // Itself.
    set(0, "W_Q", 1, by_position, &(eye(POS) * STRONG));
    set(0, "W_K", 1, by_position, &eye(POS));
    // The first: every position asks for what position 0 alone has.
    set(0, "W_Q", 2, by_position, &(ones(POS, 1) * STRONG));
    set(0, "W_K", 2, by_position, &ones(1, 1));
    // The same token, not itself.
    set(0, "W_Q", 3, [TOKEN, 0], &(eye(TOKENS) * STRONG));
    set(0, "W_K", 3, [TOKEN, 0], &eye(TOKENS));
    set(0, "W_Q", 3, by_position, &(eye(POS) * (-2.0 * STRONG)));
    set(0, "W_K", 3, by_position, &eye(POS));
    // What came after the same token: it says the answer.
    set(1, "W_Q", 0, [TOKEN, 0], &(eye(TOKENS) * STRONG));
    set(1, "W_K", 0, [BEFORE, 0], &eye(TOKENS));
    set(1, "W_V", 0, [TOKEN, 0], &eye(TOKENS));
    set(1, "W_O", 0, [0, ANSWER], &eye(TOKENS));
    params.assign("embed.W_E", |w| w.narrow(1, TOKEN, TOKENS), eye(TOKENS)).unwrap();
    params.assign("pos_embed.W_pos", |w| w.narrow(1, POSITION, POS), eye(POS)).unwrap();
    params.assign("unembed.W_U", |w| w.narrow(0, ANSWER, TOKENS), &(eye(TOKENS) * answers)).unwrap();
    model
}

/// A run whose weights stay what they are, with its analyses.
fn run_of(mut model: HookedTransformer, folder: &Path) -> RunDir {
    let mut data = Induction::new(model.config(), 137).unwrap();
    let train = TrainConfig { steps: 1, batch_size: 2, eval_batch_size: 8, ..Preset::Induction.train() };
    let mut learner = LanguageModel::new(&mut model, labelled_loss).named("induction");
    Trainer::new(train).keep(folder).schedule(|_| 0.0).fit(&mut learner, &mut data).unwrap();
    let run = RunDir::open(folder).unwrap();
    let subject = study::Subject::of_run(&run, &Device::Cpu).unwrap();
    study::analyse(&subject, study::ANALYSERS).keep(&run).unwrap();
    run
}

fn report_of(model: HookedTransformer) -> (RunDir, Report, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let run = run_of(model, &folder.path().join("made"));
    let report = study::report(&run).unwrap();
    (run, report, folder)
}

/// What a page's explorer is told.
fn explorer(html: &str) -> Value {
    serde_json::from_str(element(html, "explorer-meta")).unwrap()
}

/// The text of the element with this id.
fn element<'a>(html: &'a str, id: &str) -> &'a str {
    let from = html.find(&format!("id=\"{id}\">")).unwrap_or_else(|| panic!("no {id}")) + id.len() + 6;
    &html[from..][..html[from..].find('<').unwrap()]
}

/// Patterns as the page stores them exactly: the bytes of big-endian f32, first ones first, of the lower triangles
/// `[dest][head][src]`. As `[head][dest * POS + src]`.
fn patterns(html: &str, info: &Value) -> Vec<Vec<f32>> {
    assert_eq!((info["codec"].as_str(), info["causal"].as_bool()), (Some("f32"), Some(true)));
    let packed = STANDARD.decode(element(html, info["id"].as_str().unwrap())).unwrap();
    let bytes = miniz_oxide::inflate::decompress_to_vec(&packed).unwrap();
    let count = bytes.len() / 4;
    let mut values = (0..count).map(|i| f32::from_be_bytes([0, 1, 2, 3].map(|plane| bytes[plane * count + i])));
    let mut out = vec![vec![0.0; POS * POS]; HEADS];
    for dest in 0..POS {
        for head in &mut out {
            head[dest * POS..=dest * POS + dest].iter_mut().for_each(|cell| *cell = values.next().unwrap());
        }
    }
    out
}

/// What a head of a kind looks at on these tokens; where there is no such place, all that its scores leave.
fn looks(kind: Option<HeadKind>, tokens: &[u32]) -> Vec<f32> {
    let asked = kind.map_or(vec![0.0; POS * POS], |kind| kind.pattern(tokens).to_vec());
    let row = |(dest, row): (usize, &[f32])| -> Vec<f32> {
        let found: f32 = row.iter().sum();
        // A head that looks for the same token never looks at itself, unless there is nothing else.
        let last = if kind == Some(HeadKind::DuplicateToken) { dest.max(1) - 1 } else { dest };
        // Nothing is before the first position.
        let last = if kind == Some(HeadKind::PreviousToken) { 0 } else { last };
        let alike = |src: usize| if src <= last { 1.0 / (last + 1) as f32 } else { 0.0 };
        (0..POS).map(|src| if found > 0.0 { row[src] / found } else { alike(src) }).collect()
    };
    asked.chunks(POS).enumerate().flat_map(row).collect()
}

#[test]
fn made_heads_get_the_name_and_the_picture_of_what_they_do() {
    let (run, report, _folder) = report_of(made(10.0));
    assert!(report.evaluations.last().unwrap().loss < 2.2, "it foresees what was said before");
    let found: Vec<String> = report.found().into_iter().map(|f| f.text).collect();
    for (layer, head, kind) in MADE {
        let does = match kind {
            HeadKind::Induction => "is an induction head",
            HeadKind::DuplicateToken => "is a duplicate token head",
            HeadKind::PreviousToken => "attends to the previous token",
            HeadKind::CurrentToken => "attends to the current token",
            HeadKind::FirstToken => "attends to the first token",
        };
        let own: Vec<&String> = found.iter().filter(|text| text.contains(does)).collect();
        assert!(own.len() == 1 && own[0].starts_with(&format!("L{layer}H{head} (")), "{does}: {found:#?}");
    }

    // The cards of the page: the names of these heads and of no other.
    let html = report.to_html().unwrap();
    let meta = explorer(&html);
    let mut named: Vec<(usize, usize, String)> = serde_json::from_value(meta["roles"].clone()).unwrap();
    named.sort();
    let expected: Vec<_> = MADE.iter().map(|(l, h, kind)| (*l, *h, kind.label().to_string())).collect();
    assert_eq!(named, expected);

    // The pictures: of single sequences, and their mean over the run's.
    let tokens = run.sequences().unwrap().tokens;
    let rows: Vec<&[u32]> = tokens.as_slice().chunks(POS).collect();
    let (layers, snapshots) = (2, meta["snapshots"].as_array().unwrap().len());
    let examples = meta["examples"].as_array().unwrap().len();
    assert!(examples > 1, "single sequences can be chosen");
    for layer in 0..layers {
        let of = |group: usize| patterns(&html, &meta["arrays"][group * layers + layer]);
        let mean = of(snapshots - 1);
        assert_eq!(mean.len(), HEADS);
        for (head, mean) in mean.iter().enumerate() {
            let kind = kind_of(layer, head);
            let near = |shown: &[f32], expected: &[f32], what: &str| {
                let off = shown.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off < 1e-6, "{what} of L{layer}H{head}, {kind:?}, is off by {off}");
            };
            for (item, row) in rows.iter().enumerate().take(examples) {
                near(&of(snapshots + item)[head], &looks(kind, row), "a sequence");
            }
            let all: Vec<Vec<f32>> = rows.iter().map(|row| looks(kind, row)).collect();
            let expected = |at: usize| all.iter().map(|one| one[at]).sum::<f32>() / all.len() as f32;
            near(mean, &(0..POS * POS).map(expected).collect::<Vec<f32>>(), "the mean");
        }
    }
}

#[test]
fn a_model_at_chance_gets_no_names() {
    // Heads of every kind whose findings nobody hears, and weights as they are drawn.
    let drawn = HookedTransformer::new(Preset::Induction.model(), &Device::Cpu, 42).unwrap();
    for (what, model) in [("silent", made(0.0)), ("drawn", drawn)] {
        let (_, report, _folder) = report_of(model);
        assert_eq!(report.found(), [], "{what}");
        let html = report.to_html().unwrap();
        assert_eq!(explorer(&html)["roles"], Value::Array(vec![]), "{what}");
        assert!(html.contains("The model is at chance"), "{what}");
        assert!(!html.contains("attends to the") && !html.contains("attend to the"), "{what}");
    }
}
