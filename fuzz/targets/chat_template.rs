//! Chat templates: a text or an error, in bounded time and memory.
//!
//! What a message says follows the template, after a byte 0.

#![no_main]

use ironlens_tokenizer::{ChatMessage, ChatOptions, GgufVocabulary, Tokenizer};
use libfuzzer_sys::fuzz_target;

// As in `sentencepiece`: panics of the library behind are errors by the time they come here.
fuzz_target!(init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))), |input: &str| {
    let (template, content) = input.split_once('\0').unwrap_or((input, "Hi"));
    let tokenizer = Tokenizer::from_gguf_parts(GgufVocabulary {
        model: "gpt2".to_owned(),
        pre: Some("gpt-2".to_owned()),
        tokens: ["<s>", "a"].map(str::to_owned).to_vec(),
        token_types: vec![3, 1],
        bos_id: Some(0),
        eos_id: Some(0),
        chat_template: Some(template.to_owned()),
        ..GgufVocabulary::default()
    });
    let tokenizer = tokenizer.expect("a template is compiled when it is used");
    let messages = [("system", "Be brief."), ("user", content), ("assistant", "Yes.")];
    let messages = messages.map(|(role, content)| ChatMessage::new(role, content));
    let _ = tokenizer.apply_chat_template(&messages, true);
    let tools = r#"[{"type": "function", "function": {"name": "f", "parameters": {"x": {"type": "number"}}}}]"#;
    let options = ChatOptions::new(false).with_json("tools", tools).expect("it is JSON");
    let _ = tokenizer.apply_chat_template_with(&messages[1..], &options);
});
