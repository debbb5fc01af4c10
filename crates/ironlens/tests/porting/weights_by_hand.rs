//! An induction circuit written by hand: a head that copies the previous token, one that looks for it, and a
//! model that goes on with what it has seen.

use ironlens::prelude::*;

const TOKENS: usize = 6;
const POS: usize = 10;

/// Where in the stream what is written: the token, the position, the token before, the answer.
const TOKEN: usize = 0;
const POSITION: usize = TOKENS;
const BEFORE: usize = TOKENS + POS;
const ANSWER: usize = 2 * TOKENS + POS;

fn model() -> ironlens::Result<HookedTransformer> {
    let cfg = Config {
        d_model: 3 * TOKENS + POS,
        d_head: POS,
        n_heads: 1,
        n_layers: 2,
        n_ctx: POS,
        d_vocab: TOKENS,
        attn_only: true,
        use_attn_scale: false,
        init_weights: false,
        normalization_type: NormalizationType::None,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 0)?;
    let eye = |n: usize| Tensor::eye(n, DType::F32, &Device::Cpu);
    let params = model.params_mut();
    params.assign("embed.W_E", |w| w.narrow(1, TOKEN, TOKENS), eye(TOKENS))?;
    params.assign("pos_embed.W_pos", |w| w.narrow(1, POSITION, POS), eye(POS))?;
    // Query i asks for i - 1 strongly: keys are positions, shifted by one.
    let shifted = eye(POS + 1).narrow(0, 1, POS).narrow(1, 0, POS);
    params.assign("blocks.0.attn.W_Q", |w| w.select(0, 0).narrow(0, POSITION, POS), &(eye(POS) * 50.0))?;
    params.assign("blocks.0.attn.W_K", |w| w.select(0, 0).narrow(0, POSITION, POS), &shifted)?;
    params.assign(
        "blocks.0.attn.W_V",
        |w| w.select(0, 0).narrow(0, TOKEN, TOKENS).narrow(1, 0, TOKENS),
        eye(TOKENS),
    )?;
    params.assign(
        "blocks.0.attn.W_O",
        |w| w.select(0, 0).narrow(0, 0, TOKENS).narrow(1, BEFORE, TOKENS),
        eye(TOKENS),
    )?;
    // Query: my token. Key: the token before. Value: the token.
    let ask = eye(TOKENS) * 50.0;
    params.assign("blocks.1.attn.W_Q", |w| w.select(0, 0).narrow(0, TOKEN, TOKENS).narrow(1, 0, TOKENS), &ask)?;
    params.assign(
        "blocks.1.attn.W_K",
        |w| w.select(0, 0).narrow(0, BEFORE, TOKENS).narrow(1, 0, TOKENS),
        eye(TOKENS),
    )?;
    params.assign(
        "blocks.1.attn.W_V",
        |w| w.select(0, 0).narrow(0, TOKEN, TOKENS).narrow(1, 0, TOKENS),
        eye(TOKENS),
    )?;
    params.assign(
        "blocks.1.attn.W_O",
        |w| w.select(0, 0).narrow(0, 0, TOKENS).narrow(1, ANSWER, TOKENS),
        eye(TOKENS),
    )?;
    params.assign("unembed.W_U", |w| w.narrow(0, ANSWER, TOKENS), &(eye(TOKENS) * 10.0))?;
    Ok(model)
}

#[test]
fn an_induction_circuit_by_hand() -> ironlens::Result<()> {
    let model = model()?;
    let tokens = IndexTensor::from([[0, 5, 2, 4, 1, 3, 5, 2, 4, 1]]);
    let said = model.forward(&tokens)?.argmax(2);
    assert_eq!(said.as_slice()[6..], [2, 4, 1, 3], "what came after each token before");

    let scores = head_scores(&model, &tokens, &[HeadKind::PreviousToken, HeadKind::Induction])?;
    assert!(scores[0].to_vec()[0] > 0.85, "position 0 has none before it: {:?}", scores[0].to_vec());
    let induction = scores[1].to_vec();
    assert!(induction[1] > 0.35 && induction[1] > 3.0 * induction[0], "{induction:?}");

    // It goes on by itself.
    let options = GenerateOptions { max_new_tokens: 4, stop_at_eos: false, ..GenerateOptions::greedy() };
    let written = model.generation(&IndexTensor::from([[0, 5, 2, 4, 1, 5]])).options(options).run()?;
    assert_eq!(written.new_tokens, [[2, 4, 1, 5]]);

    // Names that are wrong are told with those that are near.
    let error = model.param("blocks.0.attn.Wq").unwrap_err().to_string();
    assert!(error.contains("`blocks.0.attn.W_Q`"), "{error}");
    Ok(())
}
