//! Chat templates, as transformers renders them.

mod common;

use std::fs;

use common::{gpt2, gpt2_tokenizer};
use ironlens_tokenizer::{ChatMessage, ChatOptions, GgufVocabulary, Tokenize, Tokenizer, TokenizerError};

fn with(template: &str) -> Tokenizer {
    Tokenizer::from_gguf_parts(GgufVocabulary { chat_template: Some(template.to_owned()), ..gpt2() }).unwrap()
}

fn render(template: &str) -> Result<String, TokenizerError> {
    with(template).apply_chat_template(&[ChatMessage::new("user", " Hi <b>\n")], true)
}

#[test]
fn messages_become_text() {
    let template = "{% for m in messages %}\n    {%- if loop.first %}[{% endif %}\n    {{- '<|' + m['role'] + '|>' + \
        m.content.strip() }}\n{% endfor %}\n{% if add_generation_prompt %}\n<|assistant|>\n{% endif %}\n";
    let tokenizer = with(template);
    let messages = [ChatMessage::new("user", " Hi "), ChatMessage::new("assistant", "Yes")];
    let text = tokenizer.apply_chat_template(&messages, false).unwrap();
    assert_eq!(text, "[<|user|>Hi\n<|assistant|>Yes\n");
    let text = tokenizer.apply_chat_template(&messages, true).unwrap();
    assert_eq!(text, "[<|user|>Hi\n<|assistant|>Yes\n<|assistant|>\n");
    let values = [serde_json::json!({ "role": "user", "content": "Hi" })];
    assert_eq!(tokenizer.apply_chat_template(&values, false).unwrap(), "[<|user|>Hi\n");
}

#[test]
fn what_python_has_is_there() {
    for (template, text) in [
        // JSON with Python's spaces, and no escapes for HTML.
        ("{{ messages | tojson }}", r#"[{"role": "user", "content": " Hi <b>\n"}]"#),
        ("{{ {'a': [1, 'é']} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    \"é\"\n  ]\n}"),
        ("{{ {'b': [], 'a': {}} | tojson(sort_keys=true) }}", r#"{"a": {}, "b": []}"#),
        ("{{ ['é', 1] | tojson(ensure_ascii=true, separators=(',', ':')) }}", r#"["\u00e9",1]"#),
        ("{{ none }} {{ true }} {{ nothing }}", "None True "),
        ("{{ 'a b'.split(' ')[1].upper() }}{{ 'x'.startswith('x') }}", "BTrue"),
        (
            "{% set ns = namespace(n=0) %}{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{% set ns.n = i %}{% endfor %}{{ ns.n }}",
            "2",
        ),
        ("{% generation %}said{% endgeneration %}", "said"),
        ("{%- generation -%} said {%- endgeneration -%} .", "said."),
        ("{{ eos_token }}{{ tools is none }}{{ bos_token is defined }}", "<|endoftext|>TrueFalse"),
        ("{{ strftime_now('%Y') | int > 2020 }}", "True"),
        // Parts of lists and sums of them are lists.
        ("{{ ['a', 'b'][1:] }}{{ ['a'] + [none] }}{{ ['a', 'b'][::-1] }}", "['b']['a', None]['b', 'a']"),
        ("{{ ['a'][1:] is sequence }}{{ (['a'] + ['b']) | length }}{{ messages[0:][0:] | count }}", "True21"),
        ("{{ ['a', 'b', 'c'][1:][0] }}{{ (['a'] + ['b'])[1]['x'] is defined }}", "bFalse"),
        ("{{ ['a', 1.5, true] | string }}{{ none | string | length }}", "['a', 1.5, True]4"),
        ("{{ nothing | length }}{{ nothing | string }}{{ messages[0].nothing | count }}{{ 'é' | length }}", "001"),
        // Line breaks of any kind are one of Unix's, and the last is none.
        ("a\r\nb\rc\n\nd\r\n", "a\nb\nc\n\nd"),
        ("{% if true %}\r\nx{% endif %}", "x"),
    ] {
        assert_eq!(render(template).unwrap(), text, "{template}");
    }
}

#[test]
fn templates_that_fail_say_why() {
    for (template, word) in [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for %}", "syntax error"),
        ("{%} {% generation %}", "syntax error"),
        ("{{ messages.0.nothing.more }}", "undefined"),
        ("{{ none | length }}", "no length"),
        ("{{ strftime_now('%!') }}", "strftime_now"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}", "fuel"),
    ] {
        let error = render(template).unwrap_err();
        assert!(matches!(error, TokenizerError::ChatTemplate(_)), "{template}: {error:?}");
        assert!(error.to_string().contains(word), "{template}: {error}");
    }
    let error = gpt2_tokenizer().apply_chat_template(&[ChatMessage::new("user", "Hi")], true).unwrap_err();
    assert!(matches!(&error, TokenizerError::NoChatTemplate { name, .. } if name == "default"), "{error:?}");
}

#[test]
fn templates_come_from_files_and_have_names() {
    let folder = tempfile::tempdir().unwrap();
    gpt2_tokenizer().save_into(folder.path()).unwrap();
    let config = r#"{"chat_template": [{"name": "default", "template": "config"}, {"name": "rag", "template": "rag {{ x }} {{ y | tojson }}"}]}"#;
    fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    let none: [ChatMessage; 0] = [];
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.apply_chat_template(&none, true).unwrap(), "config");
    let options = ChatOptions::new(true).with_template("rag");
    let options = options.with_variable("x", 3).with_json("y", r#"{"b": 1, "a": 2}"#).unwrap();
    let text = tokenizer.apply_chat_template_with(&none, &options).unwrap();
    assert_eq!(text, r#"rag 3 {"b": 1, "a": 2}"#);
    assert!(ChatOptions::new(true).with_json("y", "{").is_err());
    let missing = ChatOptions::new(true).with_template("tool_use");
    let error = tokenizer.apply_chat_template_with(&none, &missing).unwrap_err().to_string();
    assert!(error.contains("tool_use") && error.contains("rag"), "{error}");
    // Files are believed first, and all of it is saved; where tools are given, a template of theirs is taken.
    fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    fs::create_dir(folder.path().join("additional_chat_templates")).unwrap();
    fs::write(folder.path().join("additional_chat_templates/tool_use.jinja"), "tools").unwrap();
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.apply_chat_template(&none, true).unwrap(), "file");
    assert_eq!(tokenizer.apply_chat_template_with(&none, &missing).unwrap(), "tools");
    for (tools, text) in [("[]", "tools"), ("null", "file")] {
        let options = ChatOptions::new(true).with_json("tools", tools).unwrap();
        assert_eq!(tokenizer.apply_chat_template_with(&none, &options).unwrap(), text);
        let named = options.with_template("rag").with_json("y", "1").unwrap();
        assert_eq!(tokenizer.apply_chat_template_with(&none, &named).unwrap(), "rag  1");
    }
    let saved = tempfile::tempdir().unwrap();
    tokenizer.save_into(saved.path()).unwrap();
    assert_eq!(Tokenizer::from_folder(saved.path()).unwrap().chat_templates(), tokenizer.chat_templates());
}

/// As transformers' `special_tokens_map` names them to a template.
#[test]
fn templates_know_special_tokens_by_name() {
    let folder = tempfile::tempdir().unwrap();
    gpt2_tokenizer().save_into(folder.path()).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write(
        "chat_template.jinja",
        "{{ cls_token }}{{ sep_token }}{{ mask_token }}{{ additional_special_tokens }}{{ pic }}",
    );
    let render = || {
        let none: [ChatMessage; 0] = [];
        Tokenizer::from_folder(folder.path()).unwrap().apply_chat_template(&none, true).unwrap()
    };
    write(
        "tokenizer_config.json",
        r#"{"cls_token": "[C]", "sep_token": {"content": "[S]"}, "mask_token": "[M]",
            "additional_special_tokens": ["<x>"], "extra_special_tokens": {"pic": "<pic>"}}"#,
    );
    assert_eq!(render(), "[C][S][M]['<x>']<pic>");
    // Folders without `added_tokens_decoder` name more of them in a file of its own.
    let map = r#"{"cls_token": "[D]", "additional_special_tokens": ["<x>", {"content": "<y>", "special": false}]}"#;
    write("special_tokens_map.json", map);
    assert_eq!(render(), "[D][S][M]['<x>', '<y>']<pic>");
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let ids = tokenizer.encode("hi<y>", true).unwrap();
    assert_eq!((ids.len(), tokenizer.decode(&ids, true).unwrap()), (2, "hi".to_owned()));
    write("tokenizer_config.json", r#"{"added_tokens_decoder": {}, "cls_token": "[C]"}"#);
    assert_eq!(render(), "[C]");
}
