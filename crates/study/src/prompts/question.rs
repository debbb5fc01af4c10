//! Prompts, and what may follow them.

use serde_json::Value;

use crate::error::StudyError;

/// What a line of a file of prompts may have.
const KEYS: [&str; 4] = ["prompt", "answer", "wrong", "corrupted"];

/// A prompt and what may follow it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The text.
    pub prompt: String,
    /// What should follow, such as `" Mary"`: a space before a word is part of its token. What the model itself says
    /// if there is none.
    pub answer: Option<String>,
    /// What should not; its logit is subtracted.
    pub wrong: Option<String>,
    /// The prompt with another answer, of as many tokens, for patching. If there is none, the last mention of the wrong
    /// answer is replaced by the right one.
    pub corrupted: Option<String>,
}

impl Question {
    /// The prompts of a text that has a JSON object a line.
    ///
    /// ```
    /// use ironlens_study::prompts::Question;
    /// let text = r#"{"prompt": "The capital of France is", "answer": " Paris", "wrong": " Rome"}"#;
    /// assert_eq!(Question::read_lines(text)?[0].wrong.as_deref(), Some(" Rome"));
    /// # Ok::<(), ironlens_study::StudyError>(())
    /// ```
    ///
    /// # Errors
    /// Names the line that is something else, or has what no question has.
    pub fn read_lines(text: &str) -> Result<Vec<Question>, StudyError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let questions: Vec<Question> = lines.map(|(i, line)| Question::read(i + 1, line)).collect::<Result<_, _>>()?;
        match questions.is_empty() {
            true => Err(StudyError::prompt(
                "the file has no prompts: one JSON object a line, such as {\"prompt\": \"..\", \"answer\": \" ..\"}",
            )),
            false => Ok(questions),
        }
    }

    fn read(number: usize, line: &str) -> Result<Question, StudyError> {
        let expected = || format!("line {number} is no object with \"prompt\" ({})", KEYS.join(", "));
        let value: Value =
            serde_json::from_str(line).map_err(|e| StudyError::prompt(format!("{}: {e}", expected())))?;
        let text = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(StudyError::prompt(format!("line {number}: \"{name}\" is {other}, expected text"))),
        };
        if let Some(unknown) = value.as_object().and_then(|o| o.keys().find(|k| !KEYS.contains(&k.as_str()))) {
            return Err(StudyError::prompt(format!("line {number} has {unknown:?}; a line has {}", KEYS.join(", "))));
        }
        let (answer, wrong) = (text("answer")?, text("wrong")?);
        if wrong.is_some() && answer.is_none() {
            return Err(StudyError::prompt(format!("line {number} has \"wrong\" without \"answer\"")));
        }
        let prompt = text("prompt")?.ok_or_else(|| StudyError::prompt(expected()))?;
        Ok(Question { prompt, answer, wrong, corrupted: text("corrupted")? })
    }
}
