//! A report of a run that never happened: every part filled, heads of known kinds.

use ironlens_report::*;

pub const LAYERS: usize = 2;
pub const HEADS: usize = 8;

/// The pattern of a causal head: weights by distance and position, normalised.
fn head(n: usize, weight: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut out = vec![0.0; n * n];
    for i in 0..n {
        let row: Vec<f32> = (0..=i).map(|j| weight(i, j).max(1e-9)).collect();
        let sum: f32 = row.iter().sum();
        for (j, w) in row.iter().enumerate() {
            out[i * n + j] = w / sum;
        }
    }
    out
}

/// A number in [0, 1) that depends on its arguments alone.
fn noise(a: usize, b: usize, c: usize) -> f32 {
    let mut x = (a as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (b as u64 + 7).wrapping_mul(0xBF58_476D_1CE4_E5B9)
        ^ (c as u64 + 3).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    x = x.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x ^= x >> 32;
    (x % 10_000) as f32 / 10_000.0
}

/// Layer patterns; `trained` goes from 0 (uniform) to 1.
pub fn layer(l: usize, n: usize, trained: f32) -> Array {
    layer_of(l, HEADS, n, trained)
}

fn layer_of(l: usize, heads: usize, n: usize, trained: f32) -> Array {
    let mut data = Vec::new();
    for h in 0..heads {
        data.extend(head(n, |i, j| {
            let uniform = 1.0 + 0.3 * noise(l * HEADS + h, i, j);
            let sharp = match (l * HEADS + h) % 8 {
                0 => {
                    if i == j + 1 {
                        60.0 * n as f32
                    } else {
                        1.0
                    }
                }
                1 => {
                    if i == j {
                        20.0 * n as f32
                    } else {
                        1.0
                    }
                }
                2 => {
                    if j == 0 {
                        20.0 * n as f32
                    } else {
                        1.0
                    }
                }
                3 => (-0.7 * (i - j) as f32).exp() * 50.0,
                4 => {
                    if j % 7 == 3 {
                        30.0
                    } else {
                        1.0
                    }
                }
                5 => {
                    if i < j + 6 {
                        30.0
                    } else {
                        0.5
                    }
                }
                6 => {
                    if i > j && (i - j) % 12 == 11 {
                        90.0
                    } else {
                        1.0
                    }
                }
                _ => 1.0 + 6.0 * noise(h, i / 3, j / 3),
            };
            uniform * (1.0 - trained) + sharp * trained
        }));
    }
    Array::from_vec([heads, n, n], data).unwrap()
}

fn offset_score(layer: &Array, k: usize) -> Vec<f32> {
    let n = layer.shape()[1];
    (0..layer.shape()[0])
        .map(|h| {
            (k..n).map(|i| layer.data()[h * n * n + i * n + i - k]).sum::<f32>() / n.saturating_sub(k).max(1) as f32
        })
        .collect()
}

/// A sequence with a loss for each token but the first; the first one has attention, too.
fn example(i: usize, n: usize) -> Example {
    let id = |k: usize| format!("{}", (noise(i, k, 1) * 50.0) as usize);
    Example {
        name: format!("held-out sequence {}", i + 1),
        tokens: (0..n).map(id).collect(),
        targets: (0..n).map(|k| if k == 0 { String::new() } else { id(k - 1) }).collect(),
        log_probs: (0..n).map(|k| if k == 0 { f32::NAN } else { -6.0 * noise(i, k, 2) }).collect(),
        top: (0..n).map(|k| (0..5).map(|r| (id(k + r), -0.1 - r as f32)).collect()).collect(),
        layers: if i == 0 { (0..LAYERS).map(|l| layer(l, n, 0.9)).collect() } else { Vec::new() },
    }
}

/// A model of 12 layers of 12 heads on 128 positions, after training only.
pub fn large() -> Report {
    let layers: Vec<Array> = (0..12).map(|l| layer_of(l, 12, 128, 1.0)).collect();
    let score = |k| layers.iter().map(|a| offset_score(a, k)).collect::<Vec<_>>();
    let detectors = [("previous token", 1), ("current token", 0)].map(|(name, k)| Detector {
        name: name.into(),
        formula: format!("Mean of A[i, i-{k}] over all i ≥ {k}."),
        after: score(k),
        uniform: Some(0.04),
        ..Detector::default()
    });
    Report {
        title: "12 layers of 12 heads".into(),
        detectors: detectors.into(),
        snapshots: vec![Snapshot { step: 0, label: "after".into(), layers }],
        head_facts: Vec::new(),
        head_pairs: Vec::new(),
        examples: Vec::new(),
        ..report(128)
    }
}

/// The whole report for patterns of `n` positions.
pub fn report(n: usize) -> Report {
    let steps = [0, 10, 30, 100, 300, 1000, 3000];
    let snapshots: Vec<Snapshot> = steps
        .iter()
        .map(|&step| Snapshot {
            step,
            label: match step {
                0 => "before".into(),
                3000 => "after".into(),
                _ => format!("step {step}"),
            },
            layers: (0..LAYERS).map(|l| layer(l, n, (step as f32 / 3000.0).powf(0.35))).collect(),
        })
        .collect();
    let score = |s: &Snapshot, k| s.layers.iter().map(|a| offset_score(a, k)).collect::<Vec<_>>();
    let (before, after) = (snapshots[0].clone(), snapshots[steps.len() - 1].clone());
    let detectors =
        [("previous token", 1), ("current token", 0), ("induction", 11), ("duplicate token", 12)].map(|(name, k)| {
            Detector {
                name: name.into(),
                formula: format!("Mean of A[i, i-{k}] over all i ≥ {k}."),
                before: score(&before, k),
                after: score(&after, k),
                uniform: Some(1.0 / n as f32),
                ..Detector::default()
            }
        });
    let metrics = (0..300)
        .map(|i| {
            let step = i * 10;
            let fall = 5.99 * 10f64.powf(-(step as f64 / 330.0).min(9.0)) * (0.7 + 0.6 * f64::from(noise(1, i, 2)));
            let spike = if i % 97 == 60 { 300.0 } else { 1.0 };
            StepRow {
                step,
                loss: fall * spike,
                lr: Some(1e-4 * (step as f64 / 100.0).max(1.0)),
                grad_norm: Some(fall.sqrt() * spike.sqrt() * 1.7),
            }
        })
        .collect();
    let mut hooks = Vec::new();
    let mut hook = |name: String, axes: &[&str], shape: &[usize]| {
        let k = hooks.len();
        hooks.push(Hook {
            name,
            axes: axes.iter().map(|a| (*a).into()).collect(),
            shape: shape.to_vec(),
            stats: Some(Stats {
                mean: f64::from(noise(k, 1, 1)) - 0.5,
                std: 0.9,
                min: -3.2,
                max: if k == 9 { f64::NAN } else { 4.1 },
            }),
        });
    };
    hook("hook_embed".into(), &["batch", "pos", "d_model"], &[1, n, 768]);
    hook("hook_pos_embed".into(), &["batch", "pos", "d_model"], &[1, n, 768]);
    let mut parameters = vec![
        Parameter { name: "embed.W_E".into(), shape: vec![300, 768] },
        Parameter { name: "pos_embed.W_pos".into(), shape: vec![n, 768] },
    ];
    let mut tree =
        String::from("HookedTransformer(\n  (embed): Embed()\n  (hook_embed): HookPoint()\n  (blocks): ModuleList(\n");
    for l in 0..LAYERS {
        hook(format!("blocks.{l}.hook_resid_pre"), &["batch", "pos", "d_model"], &[1, n, 768]);
        for name in ["hook_q", "hook_k", "hook_v", "hook_z"] {
            hook(format!("blocks.{l}.attn.{name}"), &["batch", "pos", "head", "d_head"], &[1, n, HEADS, 64]);
        }
        for name in ["hook_attn_scores", "hook_pattern"] {
            hook(format!("blocks.{l}.attn.{name}"), &["batch", "head", "dest", "src"], &[1, HEADS, n, n]);
        }
        for name in ["W_Q", "W_K", "W_V", "W_O"] {
            parameters.push(Parameter { name: format!("blocks.{l}.attn.{name}"), shape: vec![HEADS, 768, 64] });
        }
        tree.push_str(&format!("    ({l}): TransformerBlock(\n      (attn): Attention(\n        (hook_q): HookPoint()\n        (hook_k): HookPoint()\n        (hook_pattern): HookPoint()\n      )\n      (mlp): MLP(\n        (hook_pre): HookPoint()\n      )\n      (hook_resid_post): HookPoint()\n    )\n"));
    }
    tree.push_str("  )\n  (unembed): Unembed()\n)");
    Report {
        title: "notebook: previous token".into(),
        subtitle: "A 2-layer transformer learns to copy the token before each position (synthetic data)".into(),
        facts: [
            ("seed", "137"),
            ("device", "CPU"),
            ("parameters", "14.6 M"),
            ("steps", "3000"),
            ("batch", "100 × 128"),
        ]
        .map(|(a, b)| (a.into(), b.into()))
        .into(),
        model_tree: tree,
        parameters,
        hooks,
        tokens: Vec::new(),
        snapshots,
        snapshot_source: "mean over one fixed batch of 10 sequences".into(),
        metrics,
        evaluations: steps
            .iter()
            .map(|&step| Evaluation { step, loss: 5.9 * 10f64.powf(-(step as f64 / 380.0)) })
            .collect(),
        chance_loss: Some(300f64.ln()),
        references: vec![
            Reference { name: "a simpler rule".into(), loss: 1.0, best: false },
            Reference { name: "the best that can be".into(), loss: 1e-3, best: true },
        ],
        detectors: detectors.into(),
        head_facts: ["Rise of the loss, head set to zero", "Copying score"]
            .iter()
            .enumerate()
            .map(|(k, name)| HeadFact {
                name: (*name).into(),
                values: (0..LAYERS).map(|l| (0..HEADS).map(|h| noise(k, l, h) - 0.3).collect()).collect(),
                noise: (0..LAYERS).map(|_| vec![0.05; HEADS]).collect(),
            })
            .collect(),
        head_pairs: vec![HeadPair {
            writer: (0, 0),
            reader: (1, 6),
            by: "keys".into(),
            score: 0.31,
            others: (0.002, 0.01),
        }],
        examples: (0..2).map(|i| example(i, n)).collect(),
        config: [
            ("d_model", "768"),
            ("d_head", "64"),
            ("n_layers", "2"),
            ("n_ctx", "128"),
            ("d_mlp", "3072"),
            ("d_vocab", "300"),
            ("act_fn", "gelu"),
            ("lr", "0.0001"),
            ("schedule", "notebook"),
        ]
        .map(|(a, b)| (a.into(), b.into()))
        .into(),
        reproduce: "ironlens train --preset notebook --seed 137 --steps 3000".into(),
        warnings: Vec::new(),
        findings: vec![Finding {
            text: "Without L0H1 the loss rises by 2.9, the most of all parts.".into(),
            evidence: "Ablations".into(),
            since: None,
        }],
        sections: vec![Section {
            title: "Ablations".into(),
            prose: "The loss when one head's output is set to its mean.\n\nBoth colours are always shown.".into(),
            figures: vec![
                bar(
                    (0..16).map(|i| format!("L{}H{}", i / 8, i % 8)),
                    [
                        Series::new("zero", &(0..16).map(|i| noise(i, 4, 4) * 3.0).collect::<Vec<_>>()),
                        Series::new("mean", &(0..16).map(|i| noise(i, 5, 5)).collect::<Vec<_>>()),
                    ],
                )
                .x("head")
                .y("loss")
                .title("Loss without each head"),
                imshow(Array::from_vec([2, 12], (0..24).map(|i| noise(i, 9, 1) - 0.4).collect()).unwrap())
                    .title("Direct logit attribution")
                    .x("head")
                    .y("layer")
                    .value("logit")
                    .midpoint(0.0),
            ],
        }],
    }
}

/// The report with text that would harm a page that took it for markup.
pub fn hostile(n: usize) -> Report {
    let evil = "</script><script>alert(1)</script><b>\"'&\n\0\u{202e}";
    let mut report = report(n);
    report.title = evil.into();
    report.subtitle = evil.into();
    report.model_tree = evil.into();
    report.reproduce = evil.into();
    report.snapshot_source = evil.into();
    report.tokens = vec![evil.repeat(20); n];
    report.facts = vec![(evil.into(), evil.into())];
    report.warnings = vec![evil.into()];
    for d in &mut report.detectors {
        d.name = evil.into();
        d.formula = evil.into();
    }
    for s in &mut report.snapshots {
        s.label = evil.into();
    }
    for e in &mut report.examples {
        e.name = evil.into();
        e.tokens = vec![evil.into(); n];
        e.targets = vec![evil.into(); n];
        e.top = vec![vec![(evil.into(), -1.0)]; n];
    }
    for f in &mut report.head_facts {
        f.name = evil.into();
    }
    report.sections.push(Section {
        title: evil.into(),
        prose: evil.into(),
        figures: vec![bar([evil], &[1.0]).title(evil).x(evil).y(evil).caption(evil)],
    });
    report
}
