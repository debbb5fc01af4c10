//! What the command's flags can do about an error of the library, which knows of none.

use ironlens::tensor::{DeviceError, GpuFailure};
use ironlens::train::TrainError;
use ironlens::transformer::ModelError;

use crate::command_name;

/// What to try after an error, if a flag may help.
pub(crate) fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        if let Some(DeviceError::NoGpu { .. }) = cause.downcast_ref() {
            return Some("--device cpu, which needs none".into());
        }
        if let Some(failure) = cause.downcast_ref() {
            return Some(match failure {
                GpuFailure::TooLarge { .. } => "--device cpu, or a smaller batch".into(),
                _ => format!(
                    "{} train --resume RUN, which goes on from the last checkpoint, also with --device cpu",
                    command_name()
                ),
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
            (_, Some(ModelError::NoTokenizer)) => {
                Some(format!("{} download MODEL, which brings the tokenizer that the hub has", command_name()))
            }
            _ => None,
        }
    })
}
