//! What the command's flags can do about an error of the library, which knows of none.

use std::path::Path;

use ironlens::tensor::{DeviceError, GpuFailure};
use ironlens::train::TrainError;
use ironlens::transformer::ModelError;

use crate::command_name;

/// What of a command line decides which hint helps.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked<'a> {
    /// Whether it trains, and so keeps a run that can be resumed.
    pub trains: bool,
    /// The name or path of the model that it reads.
    pub model: Option<&'a Path>,
}

/// What to try after an error, if a flag may help.
pub(crate) fn hint(error: &anyhow::Error, asked: Asked<'_>) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(DeviceError::NoGpu { .. }) = cause.downcast_ref() {
            return Some("--device cpu, which needs none".into());
        }
        if let Some(failure) = cause.downcast_ref() {
            return Some(match failure {
                GpuFailure::TooLarge { .. } => "--device cpu, or a smaller batch".into(),
                _ if asked.trains => format!(
                    "{} train --resume RUN, which goes on from the last checkpoint, also with --device cpu",
                    command_name()
                ),
                _ => "--device cpu".into(),
            });
        }
        match (cause.downcast_ref(), cause.downcast_ref()) {
            (Some(TrainError::Exists { path }), _) => {
                Some(format!("--out for another folder, or --resume {} to go on with the run in it", path.display()))
            }
            (Some(TrainError::Model(ModelError::TooLarge { .. })), _) | (_, Some(ModelError::TooLarge { .. })) => {
                Some("--device cpu".into())
            }
            (_, Some(ModelError::NoEnd { .. })) => Some("--ignore-eos, which writes on until --max-new-tokens".into()),
            (_, Some(ModelError::NoTokenizer)) => Some(tokenizer_of(asked.model)),
            _ => None,
        }
    })
}

/// How a model gets a tokenizer: one at the hub, one in a folder, or one in a file.
fn tokenizer_of(model: Option<&Path>) -> String {
    let files = "tokenizer.json, vocab.json with merges.txt, vocab.txt, tokenizer.model or a *.tiktoken file";
    let Some(path) = model.filter(|path| path.exists()) else {
        return format!("{} download MODEL, which brings the tokenizer that the hub has", command_name());
    };
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        true => "a GGUF file with its tokenizer in it, or a folder as Hugging Face writes it".into(),
        false if folder.join("config.json").is_file() => {
            format!("putting its tokenizer into {}: {files}", folder.display())
        }
        false => format!("a folder that has the model with its config.json, and its tokenizer: {files}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_training_is_resumed() {
        let failed = || anyhow::Error::from(GpuFailure::Failed { adapter: "a GPU".into(), what: "it hangs".into() });
        let trains = Asked { trains: true, ..Asked::default() };
        assert!(hint(&failed(), trains).unwrap().contains("train --resume RUN"));
        assert_eq!(hint(&failed(), Asked::default()).unwrap(), "--device cpu");
    }

    #[test]
    fn a_tokenizer_is_had_where_the_model_is() {
        let folder = tempfile::tempdir().unwrap();
        let told = |name: &str| tokenizer_of(Some(&folder.path().join(name)));
        for name in ["config.json", "model.safetensors", "model.gguf"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let here = format!("putting its tokenizer into {}", folder.path().display());
        assert!(tokenizer_of(Some(folder.path())).starts_with(&here));
        assert!(told("model.safetensors").starts_with(&here));
        assert!(told("model.gguf").contains("a GGUF file with its tokenizer in it"));
        assert!(told("gpt2").contains("download MODEL"));
    }
}
