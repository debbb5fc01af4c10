//! What an encoder guesses at the masks of a text, for `ironlens prompt`.

use anyhow::{Context, Result};
use ironlens::transformer::{Guesses, HookedEncoder};
use serde_json::{Value, json};

use ironlens::study::prompts::Question;

/// How many guesses are shown.
const SHOWN: usize = 10;

/// Prints the likeliest words at each mask, and the ranks of an answer if there is one.
pub fn ask(model: &HookedEncoder, question: &Question, as_json: bool) -> Result<()> {
    // An answer may have any rank.
    let top = if question.answer.is_some() { usize::MAX } else { SHOWN };
    let all = model.fill_mask(&question.prompt, top)?;
    let found = |text: &Option<String>, guesses: &Guesses| -> Result<Option<Found>> {
        text.as_ref().map(|text| Found::of(text, guesses)).transpose()
    };
    if !as_json {
        println!("{:?}", model.to_str_tokens(&question.prompt)?);
    }
    let mut masks: Vec<Value> = Vec::new();
    for guesses in &all {
        let (answer, wrong) = (found(&question.answer, guesses)?, found(&question.wrong, guesses)?);
        // Probabilities of one place differ by the difference of their logits.
        let difference = answer.as_ref().zip(wrong.as_ref()).map(|(a, b)| (a.probability / b.probability).ln());
        let best = &guesses.tokens[..SHOWN.min(guesses.tokens.len())];
        if as_json {
            let top: Vec<Value> = best.iter().map(|(t, p)| json!({ "token": t, "probability": p })).collect();
            let answer = answer.map(|a| json!({ "token": a.text, "rank": a.rank, "probability": a.probability }));
            masks.push(json!({
                "position": guesses.position, "top": top, "answer": answer, "logit_difference": difference,
            }));
            continue;
        }
        println!("mask at position {}:", guesses.position);
        best.iter().for_each(|(token, chance)| println!("{:>6.2}%  {token:?}", 100.0 * chance));
        if let Some(a) = answer {
            println!("Rank of {:?}: {}, probability {:.2}%", a.text, a.rank, 100.0 * a.probability);
        }
        if let (Some(difference), Some(answer), Some(wrong)) = (difference, &question.answer, &question.wrong) {
            println!("Logit difference {answer:?} - {wrong:?}: {difference:.3}");
        }
    }
    if as_json {
        println!("{}", json!({ "prompt": question.prompt, "masks": masks }));
    }
    Ok(())
}

/// An answer among the guesses.
struct Found {
    text: String,
    rank: usize,
    probability: f64,
}

impl Found {
    fn of(text: &str, guesses: &Guesses) -> Result<Found> {
        // Tokens of encoders have no space before them.
        let text = text.trim();
        let rank = guesses.tokens.iter().position(|(token, _)| token == text);
        let rank = rank.with_context(|| {
            format!("{text:?} is not one token of the model's; see what it guesses without --answer")
        })?;
        Ok(Found { text: text.into(), rank, probability: guesses.tokens[rank].1 })
    }
}
