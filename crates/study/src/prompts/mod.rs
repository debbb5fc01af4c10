//! Analyses of a model on texts with answers: where an answer comes from.
//!
//! ```no_run
//! use ironlens_study::prompts::{Prompts, Question};
//! # fn pretrained() -> ironlens_transformer::HookedTransformer { unimplemented!() }
//! let model = pretrained();
//! let question = Question {
//!     prompt: "When Mary and John went to the store, John gave a drink to".into(),
//!     answer: Some(" Mary".into()),
//!     wrong: Some(" John".into()),
//!     corrupted: None,
//! };
//! let prompts = Prompts::new(model, vec![question])?;
//! let analysis = prompts.analyse();
//! prompts.report("gpt2", &analysis)?.write_html("mary.html")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Of several prompts, means and standard deviations are shown. What is shown by position is of those that have as
//! many tokens as the first; how many were left out is told.

mod case;
mod over;
mod question;
mod sections;

use ironlens_report::{Example, Report, Snapshot};
use ironlens_tensor::Tensor;
use ironlens_transformer::{ActivationCache, HookedTransformer};

use crate::analyser::Analyser;
use crate::error::StudyError;
use crate::picture::Analysis;
use crate::{array, examples, findings};

pub use case::Case;
pub use question::Question;
pub use sections::ANALYSERS;

/// A model and prompts, the first of which was run.
#[derive(Debug)]
pub struct Prompts {
    /// The model.
    pub model: HookedTransformer,
    /// The prompts; at least one.
    cases: Vec<Case>,
    /// Those of the first prompt, `[1, pos, d_vocab]`.
    logits: Tensor,
    /// Of the first prompt.
    cache: ActivationCache,
}

impl Prompts {
    /// A model that has a tokenizer, and what it is asked.
    ///
    /// # Errors
    /// If the model has no tokenizer, there is no question, or a text does not fit the model.
    pub fn new(model: HookedTransformer, questions: Vec<Question>) -> Result<Prompts, StudyError> {
        let cases: Vec<Case> = questions.into_iter().map(|q| Case::new(&model, q)).collect::<Result<_, _>>()?;
        let first = cases.first().ok_or_else(|| StudyError::prompt("there is no prompt"))?;
        let (logits, cache) = model.run_with_cache(&first.tokens)?;
        Ok(Prompts { model, cases, logits, cache })
    }

    /// The prompts with their tokens.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The standard analyses.
    pub fn analyse(&self) -> Analysis {
        self.analyse_by(ANALYSERS)
    }

    /// Every analysis of a list, in its order.
    pub fn analyse_by(&self, analysers: &[Analyser<Prompts>]) -> Analysis {
        Analysis { step: None, sections: analysers.iter().map(|a| a.part(self, "here")).collect() }
    }

    /// The report of an analysis, with the attention of the first prompt. `name` is the model's.
    ///
    /// # Errors
    /// If values do not fill a shape, as in an analysis that was edited.
    pub fn report(&self, name: &str, analysis: &Analysis) -> Result<Report, StudyError> {
        let (model, first) = (&self.model, &self.cases[0]);
        // Of the only sequence, [head, query, key].
        let pattern = |l| Ok(array(&self.cache.get(("pattern", l))?.select(0, 0).contiguous()));
        let layers = (0..model.config().n_layers).map(pattern).collect::<Result<_, StudyError>>()?;
        Ok(Report {
            title: name.into(),
            subtitle: match self.cases.len() {
                1 => first.question.prompt.clone(),
                n => format!("{n} prompts, the first of them: {}", first.question.prompt),
            },
            facts: vec![
                ("answer".into(), format!("{:?}", model.to_single_str_token(first.answer)?)),
                ("layers".into(), model.config().n_layers.to_string()),
                ("heads a layer".into(), model.config().n_heads().to_string()),
            ],
            model_tree: format!("{model}"),
            tokens: first.labels.clone(),
            snapshots: vec![Snapshot { step: 0, label: "this prompt".into(), layers }],
            snapshot_source: "the first prompt".into(),
            examples: self.examples()?,
            findings: findings::of(analysis),
            head_facts: analysis.head_facts(),
            head_pairs: analysis.head_pairs(),
            sections: analysis.to_sections()?,
            ..Report::default()
        })
    }

    /// The first prompts token by token, with the likeliest tokens after each; the first one's attention is the
    /// report's own.
    fn examples(&self) -> Result<Vec<Example>, StudyError> {
        let mut out = Vec::new();
        for (i, case) in self.cases.iter().enumerate().take(examples::MOST) {
            let mut other = None;
            let (logits, cache) = self.cache_of(i, &mut other)?;
            let ids = case.tokens.as_slice();
            let targets: Vec<Option<u32>> = ids[1..].iter().map(|id| Some(*id)).chain([Some(case.answer)]).collect();
            let text = |id: u32| self.model.to_single_str_token(id).unwrap_or_else(|_| id.to_string());
            let name = if self.cases.len() == 1 { "the prompt".into() } else { format!("prompt {}", i + 1) };
            let mut example = examples::of(name, ids, &targets, &logits.select(0, 0), &text);
            if i > 0 {
                example.layers = examples::patterns(cache, 0)?;
            }
            out.push(example);
        }
        Ok(out)
    }

    /// A prompt's cache: the first one's is there.
    fn cache_of<'c>(
        &'c self,
        i: usize,
        other: &'c mut Option<(Tensor, ActivationCache)>,
    ) -> Result<(&'c Tensor, &'c ActivationCache), StudyError> {
        if i == 0 {
            return Ok((&self.logits, &self.cache));
        }
        let (logits, cache) = other.insert(self.model.run_with_cache(&self.cases[i].tokens)?);
        Ok((&*logits, &*cache))
    }

    /// Whether a prompt has as many tokens as the first, so that positions mean the same.
    fn is_aligned(&self, case: &Case) -> bool {
        case.labels.len() == self.cases[0].labels.len()
    }

    /// Positions with the tokens that the aligned ones of some prompts have there; none is empty or like another.
    fn positions(&self, of: &[usize]) -> Vec<String> {
        let aligned: Vec<&Case> = of.iter().map(|i| &self.cases[*i]).filter(|c| self.is_aligned(c)).collect();
        let label = |i: usize| {
            let mut texts: Vec<&str> = aligned.iter().map(|c| c.labels[i].as_str()).collect();
            texts.sort_unstable();
            texts.dedup();
            match texts.as_slice() {
                [one] => format!("{i} {one}"),
                [one, other] => format!("{i} {one}|{other}"),
                _ => format!("{i} …"),
            }
        };
        (0..self.cases[0].labels.len()).map(label).collect()
    }

    /// What is told of the prompts that pictures are of; nothing where there is one.
    fn told(&self, of: &[usize]) -> String {
        let (all, used) = (self.cases.len(), of.len());
        if all == 1 {
            return String::new();
        }
        let aligned = of.iter().filter(|i| self.is_aligned(&self.cases[**i])).count();
        let mut text = match used {
            1 => format!(" This is of 1 of the {all} prompts."),
            _ => format!(" Means and standard deviations are over {used} of the {all} prompts."),
        };
        if used < all {
            text += " The others have no corrupted prompt of as many tokens that changes the answer.";
        }
        if aligned < used {
            text += &format!(
                " What is shown by position is of the {aligned} that have {} tokens as the first one; {} of other lengths \
                 are left out there.",
                self.cases[0].labels.len(),
                used - aligned
            );
        }
        text
    }
}
