//! Texts of a model with a tokenizer: what is read, and evaluations against sums by hand.

mod common;

use common::{base, reader, tokens};
use ironlens_lens::evaluation::ioi::{IoiSample, ioi_eval, ioi_eval_with};
use ironlens_lens::{CacheExt, PromptOptions, StackOptions, Sublayers, evaluate_text, test_answers, test_prompt_with};
use ironlens_tensor::{IndexTensor, Tensor};
use ironlens_transformer::{
    Config, GenerateOptions, HookedTransformer, Occurrence, PaddingSide, ReturnType, Slice, TokenOptions,
};

/// Log-probabilities of each next token after `ids`, `[pos][d_vocab]`.
fn log_probs(model: &HookedTransformer, ids: &[u32]) -> Vec<Vec<f64>> {
    let tokens = IndexTensor::new(ids.to_vec(), &[1, ids.len()]);
    let found = model.forward(&tokens).unwrap().select(0, 0).log_softmax();
    (0..ids.len()).map(|at| found.select(0, at).to_vec_f64()).collect()
}

fn largest(row: &[f64]) -> usize {
    (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap()
}

#[test]
fn a_text_that_is_or_ends_with_the_padding_token_is_read_whole() {
    let model = reader(base());
    for text in ["", "<|endoftext|>", "a b<|endoftext|>"] {
        let read = model.to_tokens_with(text, &TokenOptions::default()).unwrap();
        assert!(read.attention_mask.is_none(), "{text:?}");
        assert_eq!(model.forward(text).unwrap().to_vec(), model.forward(&read.tokens).unwrap().to_vec(), "{text:?}");
    }
    // The end of a text is predicted, too.
    let output = model.call("a b<|endoftext|>").return_type(ReturnType::Loss).loss_per_token().output().unwrap();
    let (losses, wanted) = (output.loss().value().to_vec_f64(), log_probs(&model, &[0, 1, 5, 0]));
    for (at, next) in [1, 5, 0].into_iter().enumerate() {
        assert!((losses[at] + wanted[at][next]).abs() < 1e-5, "{at}");
    }
    let options = GenerateOptions {
        max_new_tokens: 2,
        stop_at_eos: false,
        prepend_bos: Some(false),
        ..GenerateOptions::greedy()
    };
    assert_eq!(model.generate("<|endoftext|>", &options).unwrap().new_tokens[0].len(), 2);
    // In a batch each is what it is alone.
    let texts = ["a b c", "a<|endoftext|>", ""];
    for side in [PaddingSide::Right, PaddingSide::Left] {
        let read = TokenOptions { padding_side: Some(side), ..TokenOptions::default() };
        let read = model.to_tokens_with(texts, &read).unwrap();
        let together = model.forward(&read).unwrap();
        for (item, text) in texts.iter().enumerate() {
            let alone = model.forward(*text).unwrap().select(0, 0);
            let first = if side == PaddingSide::Left { 4 - alone.dim(0) } else { 0 };
            let (off, alike) = together.select(0, item).narrow(0, first, alone.dim(0)).max_abs_diff(&alone);
            assert!(alike && off < 1e-5, "{text:?} {side:?}: {off}");
        }
    }
}

#[test]
fn prompts_are_texts_or_one_row_of_tokens() {
    let mut model = reader(base());
    let two = model.to_tokens(["a b", "c"]).unwrap();
    let refused = model.to_string(&two).unwrap_err().to_string();
    assert!(refused.contains("[2, 3]") && refused.contains("to_strings"), "{refused}");
    let end = "<|endoftext|>";
    assert_eq!(model.to_strings(&two).unwrap(), [format!("{end}a b"), format!("{end}c{end}")]);
    assert_eq!(model.to_strings(&two.select(0, 0)).unwrap(), [model.to_string(&two.narrow(0, 0, 1)).unwrap()]);
    assert!(model.to_strings(&two.unsqueeze(0)).unwrap_err().to_string().contains("[1, 2, 3]"));

    assert_eq!(model.to_str_tokens(&two.narrow(0, 0, 1)).unwrap(), [end, "a", " b"]);
    assert_eq!(model.to_str_tokens(&two.select(0, 0)).unwrap(), model.to_str_tokens("a b").unwrap());
    assert!(model.to_str_tokens(&two).unwrap_err().to_string().contains("select"));
    let bare = TokenOptions::prepend_bos(false);
    assert_eq!(model.to_str_tokens_with("a b", &bare).unwrap(), ["a", " b"]);
    assert_eq!(model.get_token_position(" b", "a b", Occurrence::First).unwrap(), 2);
    assert_eq!(model.get_token_position_with(" b", "a b", Occurrence::First, &bare).unwrap(), 1);
    assert_eq!(model.get_token_position(0u32, &two.narrow(0, 1, 1), Occurrence::Last).unwrap(), 2);

    model.set_default_padding_side(PaddingSide::Left).unwrap();
    assert_eq!(model.to_tokens(["a b", "c"]).unwrap().as_slice(), [0, 1, 5, 0, 0, 3]);
}

#[test]
fn answers_may_be_texts() {
    let model = reader(base());
    let (_, cache) = model.run_with_cache(&tokens(6)[0]).unwrap();
    let stack = cache.decompose_resid(&StackOptions::default(), Sublayers::All, true).unwrap().values;
    let ids = |ids: &[u32], shape: &[usize]| IndexTensor::new(ids.to_vec(), shape);
    let same = |a: Tensor, b: Tensor| assert_eq!((a.shape(), a.to_vec()), (b.shape(), b.to_vec()));
    let all = &Slice::All;
    same(
        cache.logit_attrs(&stack, " Ann", Some(" Bob".into()), all, all).unwrap(),
        cache.logit_attrs(&stack, &ids(&[12], &[]), Some(13u32.into()), all, all).unwrap(),
    );
    same(
        cache.logit_attrs(&stack, [" Ann", " Bob"], None, all, all).unwrap(),
        cache.logit_attrs(&stack, &ids(&[12, 13], &[2]), None, all, all).unwrap(),
    );
    let refused = cache.logit_attrs(&stack, [" Ann", " Bob"], Some(" c".into()), all, all).unwrap_err().to_string();
    assert!(refused.contains("incorrect tokens"), "{refused}");
}

/// Pieces of `n_ctx` tokens, with the token that begins texts among them or without.
#[test]
fn the_loss_of_a_text_is_that_of_its_pieces() {
    let text = "a b c d and a to b.";
    let ids = [1, 5, 6, 15, 7, 4, 8, 5, 9];
    for (default_prepend_bos, pieces) in [(true, vec![0..4, 4..8, 8..9]), (false, vec![0..5, 5..9])] {
        let model = reader(Config { n_ctx: 5, default_prepend_bos, ..base() });
        let found = evaluate_text(&model, text, |_, _| {}).unwrap();
        assert_eq!(found.tokens, ids);
        let (mut losses, mut right) = (Vec::new(), Vec::new());
        for piece in pieces {
            let mut read = ids[piece].to_vec();
            match default_prepend_bos {
                true => read.insert(0, 0),
                false => {
                    losses.push(None);
                    right.push(None);
                }
            }
            let chances = log_probs(&model, &read);
            for (row, next) in chances.iter().zip(&read[1..]) {
                losses.push(Some(-row[*next as usize]));
                right.push(Some(largest(row) == *next as usize));
            }
        }
        assert_eq!(found.right, right);
        assert_eq!(found.losses.len(), losses.len());
        for (found, wanted) in found.losses.iter().zip(&losses) {
            match (found, wanted) {
                (Some(found), Some(wanted)) => assert!((f64::from(*found) - wanted).abs() < 1e-5),
                _ => assert!(found.is_none() && wanted.is_none()),
            }
        }
        let counted: Vec<f64> = losses.iter().flatten().copied().collect();
        assert!((found.loss() - counted.iter().sum::<f64>() / counted.len() as f64).abs() < 1e-5);
        assert_eq!(found.predicted(), counted.len());
    }
}

#[test]
fn indirect_objects_are_told_where_the_names_differ() {
    let sample = |text: &str, io: &str, s: &str| IoiSample { text: text.into(), io: io.into(), s: s.into() };
    // Names of one token, and of two of which the first is the same.
    let samples = [
        (sample("Ann and Bob to Ann", " Ann", " Bob"), vec![10, 7, 13, 8, 12], [12, 13]),
        (sample("a b Bob and Ann. gave to Bob", " Bob", " Ann"), vec![1, 5, 13, 7, 12, 9, 16, 8, 13], [13, 12]),
        (sample("c Anna and Annb to Anna", " Anna", " Annb"), vec![3, 12, 1, 7, 12, 2, 8, 12, 1], [1, 2]),
    ];
    let mut model = reader(base());
    for prepend_bos in [true, false] {
        let mut differences = Vec::new();
        for (_, ids, [io, s]) in &samples {
            // The last token is the one asked for.
            let read = [if prepend_bos { &[0][..] } else { &[] }, &ids[..ids.len() - 1]].concat();
            let row = log_probs(&model, &read).pop().unwrap();
            differences.push(row[*io] - row[*s]);
        }
        let mean = differences.iter().sum::<f64>() / 3.0;
        let accuracy = differences.iter().filter(|d| **d > 0.0).count() as f64 / 3.0;
        let asked: Vec<IoiSample> = samples.iter().map(|(sample, ..)| sample.clone()).collect();
        for side in [PaddingSide::Right, PaddingSide::Left] {
            model.set_default_padding_side(side).unwrap();
            for batch_size in [1, 2, 3] {
                let found = ioi_eval_with(&model, &asked, batch_size, Some(prepend_bos), |_, _| {}).unwrap();
                assert!((found.logit_difference - mean).abs() < 1e-5, "{found:?}, not {mean}");
                assert_eq!((found.accuracy, found.prompts), (accuracy, 3));
                if prepend_bos {
                    assert_eq!(ioi_eval(&model, &asked, batch_size, |_, _| {}).unwrap(), found);
                }
            }
        }
    }
    // A prompt that is cut would have another answer.
    let long = sample("a b c d a b c d and Bob to Ann", " Ann", " Bob");
    let refused = ioi_eval(&model, &[long], 1, |_, _| {}).unwrap_err().to_string();
    assert!(refused.contains("n_ctx"), "{refused}");
    let same = sample("Ann to Ann", " Ann", " Ann");
    assert!(ioi_eval(&model, &[same], 1, |_, _| {}).unwrap_err().to_string().contains("differ"));
}

#[test]
fn answers_are_ranked_at_one_place_or_token_by_token() {
    let model = reader(base());
    for (prepend_bos, prompt) in [(None, vec![0, 1, 5]), (Some(false), vec![1, 5])] {
        let options = PromptOptions { prepend_bos, top_k: 3, ..PromptOptions::default() };
        let rank = |row: &[f64], token: u32| row.iter().filter(|v| **v > row[token as usize]).count();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5, "{a} {b}");

        // " Anna" is two tokens: of several answers the first counts.
        let found = test_answers(&model, "a b", &["Anna", " Bob"], &options).unwrap();
        let row = log_probs(&model, &prompt).pop().unwrap();
        assert_eq!(found.prompt.len(), prompt.len());
        assert_eq!(found.ranks(), [rank(&row, 12), rank(&row, 13)]);
        assert_eq!((found.answers[0].0.token, found.answers[1].0.token), (12, 13));
        near(found.answers[0].0.probability, row[12].exp());
        assert_eq!((found.top.len(), found.top[0].token as usize), (3, largest(&row)));
        assert!(found.to_string().contains("\" Ann\"") && found.to_string().contains("Top  2"), "{found}");

        let found = test_prompt_with(&model, "a b", "Anna", &options).unwrap();
        let rows = log_probs(&model, &[&prompt[..], &[12, 1]].concat());
        let rows = &rows[prompt.len() - 1..];
        assert_eq!(found.ranks(), [rank(&rows[0], 12), rank(&rows[1], 1)]);
        near(found.steps[1].answer.probability, rows[1][1].exp());
        assert_eq!(found.steps[1].top.len(), 3);
    }
    let bare = PromptOptions { prepend_space_to_answer: false, top_k: 0, ..PromptOptions::default() };
    let found = test_answers(&model, "a b", &["Ann"], &bare).unwrap();
    assert_eq!((found.answers[0].0.token, found.top.len()), (10, 0));
    let none: [&str; 0] = [];
    assert!(test_answers(&model, "a b", &none, &bare).is_err());
    assert!(test_prompt_with(&model, "a b", "", &bare).unwrap_err().to_string().contains("answer has no tokens"));
}
