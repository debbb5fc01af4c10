//! Which files of a repository a model is made of.

use crate::checkpoints::label_of;

/// What a model has beside its weights, where it has it.
const BESIDE: [&str; 17] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "chat_template.json",
    // How models of sentence-transformers' make a vector of a text.
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
];

/// The files of a pretrained model, out of a list of names: its configuration, tokenizer and chat template, and
/// weights from the first of these that is there whole:
///
/// 1. `model.safetensors`, or all of `model-00001-of-0000N.safetensors` and their index;
/// 2. `pytorch_model.bin`, or all of `pytorch_model-00001-of-0000N.bin` and their index;
/// 3. TransformerLens's own `*final.pth`.
///
/// `None` if there is no `config.json`, or no weights: then a cache holds the model in part only, and a repository
/// none that can be read. Other forms of the same weights (`flax_model`, `*.fp16.safetensors`, folders of ONNX) are
/// left where they are.
///
/// ```
/// let names = ["README.md", "config.json", "model.safetensors", "pytorch_model.bin"].map(String::from);
/// assert_eq!(ironlens_hub::model_files(&names).unwrap(), ["config.json", "model.safetensors"]);
/// ```
pub fn model_files(names: &[String]) -> Option<Vec<String>> {
    let weights = saved(names, "model", "safetensors")
        .or_else(|| saved(names, "pytorch_model", "bin"))
        .or_else(|| names.iter().find(|n| n.ends_with("final.pth")).map(|n| vec![n.clone()]))?;
    with_weights(names, weights)
}

/// The files of a checkpoint that is a file of its own, `checkpoints/*_{label}.pth`
/// ([`checkpoints_among`](crate::checkpoints_among)), with the model's configuration and tokenizer. `None` if one of
/// them is not there.
pub fn checkpoint_files(names: &[String], label: u64) -> Option<Vec<String>> {
    let weights = names.iter().find(|n| label_of(n) == Some(label))?;
    with_weights(names, vec![weights.clone()])
}

/// The files that a tokenizer is made of, `config.json` with them. `None` if there is none of `tokenizer.json`,
/// `tokenizer.model`, `vocab.json` and the like.
pub fn tokenizer_files(names: &[String]) -> Option<Vec<String>> {
    let beside = beside(names);
    let vocabularies = ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model"];
    beside.iter().any(|n| vocabularies.contains(&n.as_str()) || n.ends_with(".tiktoken")).then_some(beside)
}

/// The weights come last: as files are downloaded in this order, a model whose weights are there is whole.
fn with_weights(names: &[String], weights: Vec<String>) -> Option<Vec<String>> {
    let mut files = beside(names);
    files.iter().any(|n| n == "config.json").then(|| {
        files.extend(weights);
        files
    })
}

fn beside(names: &[String]) -> Vec<String> {
    // The first Qwen's vocabulary is called after the model.
    let ranks = |name: &str| name.ends_with(".tiktoken") && !name.contains('/');
    let template = |name: &str| {
        let name = name.strip_prefix("additional_chat_templates/").and_then(|name| name.strip_suffix(".jinja"));
        name.is_some_and(|name| !name.contains('/'))
    };
    names.iter().filter(|n| BESIDE.contains(&n.as_str()) || ranks(n) || template(n)).cloned().collect()
}

/// `stem.extension`, or else the index and every shard, if they are all there.
fn saved(names: &[String], stem: &str, extension: &str) -> Option<Vec<String>> {
    let whole = format!("{stem}.{extension}");
    if names.contains(&whole) {
        return Some(vec![whole]);
    }
    let index = format!("{whole}.index.json");
    let mut files: Vec<String> = vec![names.iter().find(|&n| *n == index)?.clone()];
    // (number, of how many) of each shard; a repository holds one division of its weights.
    let mut shards: Vec<(usize, usize, &String)> = names
        .iter()
        .filter_map(|name| {
            let numbers = name.strip_prefix(stem)?.strip_prefix('-')?.strip_suffix(extension)?.strip_suffix('.')?;
            let (number, count) = numbers.split_once("-of-")?;
            Some((number.parse().ok()?, count.parse().ok()?, name))
        })
        .collect();
    shards.sort_unstable();
    let count = shards.first()?.1;
    let all = shards.len() == count && shards.iter().enumerate().all(|(i, s)| (s.0, s.1) == (i + 1, count));
    files.extend(shards.into_iter().map(|s| s.2.clone()));
    all.then_some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    fn chosen(names: &[&str]) -> Option<Vec<String>> {
        model_files(&strings(names))
    }

    #[test]
    fn safetensors_come_before_pickles_and_pickles_before_transformerlens_s_own() {
        let all = ["config.json", "x_final.pth", "pytorch_model.bin", "model.safetensors"];
        assert_eq!(chosen(&all), Some(strings(&["config.json", "model.safetensors"])));
        assert_eq!(chosen(&all[..3]), Some(strings(&["config.json", "pytorch_model.bin"])));
        assert_eq!(chosen(&all[..2]), Some(strings(&["config.json", "x_final.pth"])));
        assert_eq!(chosen(&all[..1]), None);
        assert_eq!(chosen(&all[1..]), None);
    }

    #[test]
    fn everything_beside_the_weights_is_taken_and_nothing_else() {
        let names = [
            ".gitattributes",
            "64.tflite",
            "additional_chat_templates/deeper/rag.jinja",
            "additional_chat_templates/tool_use.jinja",
            "chat_template.jinja",
            "config.json",
            "flax_model.msgpack",
            "generation_config.json",
            "merges.txt",
            "model.fp16.safetensors",
            "model.safetensors",
            "onnx/config.json",
            "onnx/model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
        ];
        let taken = chosen(&names).unwrap();
        let left = names.into_iter().filter(|n| !taken.iter().any(|t| t == n)).collect::<Vec<_>>();
        let deeper = "additional_chat_templates/deeper/rag.jinja";
        let odd = [".gitattributes", "64.tflite", deeper, "flax_model.msgpack", "model.fp16.safetensors"];
        assert_eq!(left, [&odd[..], &["onnx/config.json", "onnx/model.safetensors"]].concat());
    }

    #[test]
    fn shards_are_taken_all_or_not_at_all() {
        let (a, b, c) = (
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
        );
        let index = "model.safetensors.index.json";
        assert_eq!(chosen(&[c, a, "config.json", index, b]), Some(strings(&["config.json", index, a, b, c])));
        for part in [&[a, c][..], &[a, b], &[a, a, b], &[a, b, "model-00004-of-00003.safetensors"], &[]] {
            assert_eq!(chosen(&[part, &["config.json", index]].concat()), None, "{part:?}");
        }
        assert_eq!(chosen(&[a, b, c, "config.json"]), None, "without an index");
        let old = ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "config.json", a];
        assert_eq!(chosen(&old), Some(strings(&["config.json", old[1], old[0]])));
    }

    #[test]
    fn a_checkpoint_is_found_by_its_label() {
        let names = strings(&["config.json", "checkpoints/m_10.pth", "checkpoints/m_110.pth", "m_final.pth"]);
        assert_eq!(checkpoint_files(&names, 10), Some(strings(&["config.json", "checkpoints/m_10.pth"])));
        assert_eq!(checkpoint_files(&names, 0), None);
    }

    #[test]
    fn a_tokenizer_is_more_than_its_settings() {
        let whole = strings(&["config.json", "tokenizer.json", "tokenizer_config.json"]);
        assert_eq!(tokenizer_files(&whole), Some(whole.clone()));
        assert_eq!(tokenizer_files(&[whole[0].clone(), whole[2].clone()]), None);
    }
}
