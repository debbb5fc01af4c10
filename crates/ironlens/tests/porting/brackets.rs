//! ARENA's balanced brackets: padded sequences, attention both ways, labels beside the tokens, and a probe by
//! least squares.

use ironlens::prelude::*;

const OPEN: u32 = 1;
const CLOSE: u32 = 2;
const POS: usize = 9;

/// Strings of brackets after a beginning, padded, and whether each is balanced.
struct Brackets {
    sequences: Sequences,
    balanced: IndexTensor,
}

impl TokenBatch for Brackets {
    fn sequences(&self) -> Sequences {
        self.sequences.clone()
    }
}

fn is_balanced(brackets: &[u32]) -> bool {
    let mut depth = 0i32;
    let mut least = 0;
    for b in brackets {
        depth += if *b == OPEN { 1 } else { -1 };
        least = least.min(depth);
    }
    depth == 0 && least == 0
}

/// Half of them balanced: a random balanced string, or one with a bracket turned.
fn draw(size: usize, number: u64) -> Brackets {
    let mut rng = Rng::new(8, number);
    let (mut ids, mut mask, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..size {
        let pairs = rng.integers(&[1], 1, 5).as_slice()[0] as usize;
        let mut brackets = [vec![OPEN; pairs], vec![CLOSE; pairs]].concat();
        rng.shuffle(&mut brackets);
        while i % 2 == 0 && !is_balanced(&brackets) {
            rng.shuffle(&mut brackets);
        }
        labels.push(u32::from(is_balanced(&brackets)));
        let padding = POS - 1 - brackets.len();
        ids.extend([vec![0], brackets, vec![3; padding]].concat());
        mask.extend([vec![1; POS - padding], vec![0; padding]].concat());
    }
    let tensor = |ids| IndexTensor::new(ids, &[size, POS]);
    Brackets { sequences: (&tensor(ids), &tensor(mask)).into(), balanced: IndexTensor::new(labels, &[size]) }
}

fn loss(logits: &Var, batch: &Brackets) -> Var {
    logits.select(1, 0).cross_entropy(&batch.balanced).mean_all()
}

#[test]
fn balanced_brackets() -> ironlens::Result<()> {
    let cfg = Config {
        d_model: 24,
        d_head: 12,
        n_layers: 2,
        n_ctx: POS,
        d_vocab: 4,
        d_vocab_out: 2,
        act_fn: ActFn::Relu,
        attention_dir: AttentionDir::Bidirectional,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
    let mut optimizer = Optimizer::adamw((0.9, 0.999), 1e-8, 0.01);
    for step in 0..80 {
        let mut learner = LanguageModel::new(&mut model, loss);
        train_step(&mut learner, &mut optimizer, &draw(32, step), 3e-3, Some(1.0))?;
    }
    let test = draw(64, 1000);
    let logits = test.sequences.call(&model).output()?.logits().value().clone();
    let said = logits.select(1, 0).argmax(1);
    let right = said.as_slice().iter().zip(test.balanced.as_slice()).filter(|(a, b)| a == b).count();
    assert!(right > 48, "{right} of 64");

    // Padding says nothing: the answer is the same whatever stands there.
    let mut other = test.sequences.tokens.as_slice().to_vec();
    other.iter_mut().filter(|id| **id == 3).for_each(|id| *id = OPEN);
    let other = IndexTensor::new(other, &[64, POS]);
    let mask = test.sequences.mask.as_ref().ok_or("no mask")?;
    let changed = model.call(&other).attention_mask(mask).output()?.logits().value().select(1, 0);
    assert!((changed - logits.select(1, 0)).abs().max(&[0, 1]).item() < 1e-4);

    // A linear probe of the stream at the beginning for the number of brackets, against guessing its mean.
    let (_, cache) = test.sequences.call(&model).pos_slice(Slice::At(0)).cached()?;
    let stream = cache[("resid_post", -1)].squeeze(1);
    let lengths: Vec<f32> = (0..64).map(|i| test.sequences.real(i).len() as f32).collect();
    let lengths = Tensor::from_vec(lengths, &[64, 1], &Device::Cpu);
    let with_one = Tensor::cat(&[stream, Tensor::ones(&[64, 1], DType::F32, &Device::Cpu)], 1);
    let residual = (with_one.matmul(&with_one.lstsq(&lengths)) - &lengths).square().mean_all().item();
    let variance = (&lengths - lengths.mean_all()).square().mean_all().item();
    assert!(residual < 0.9 * variance, "{residual} of {variance}");

    // Detectors leave padding out; of a model with a hook that stays, they see what it does.
    let scores = head_scores(&model, &test.sequences, &[HeadKind::CurrentToken])?;
    let itself = Tensor::eye(POS, DType::F32, &Device::Cpu);
    model.add_perma_hook(act("pattern", 0), move |pattern, _| pattern.set_at(1, 0, &itself))?;
    let hooked = head_scores(&model, &test.sequences, &[HeadKind::CurrentToken])?;
    let of_first = |scores: &[Tensor]| scores[0].select(0, 0).select(0, 0).item();
    assert!(of_first(&scores) < 0.9 && (of_first(&hooked) - 1.0).abs() < 1e-6, "{}", of_first(&scores));
    Ok(())
}
