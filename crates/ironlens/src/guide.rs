//! The guide: one chapter a question. All blocks of its chapters are compiled and run.
//!
//! 1. [First steps](first_steps)
//! 2. [From TransformerLens](from_transformerlens): the tables
//! 3. [Hooks](hooks)
//! 4. [The cache](the_cache)
//! 5. [Your own model](your_own_model)
//! 6. [Your own loss, data and loop](your_own_loss_data_and_loop)
//! 7. [Freezing and own parameters](freezing_and_own_parameters)
//! 8. [Pretrained models and text](pretrained_models_and_text)
//! 9. [Generation and steering](generation_and_steering)
//! 10. [Patching and attribution](patching_and_attribution)
//! 11. [Figures and reports](figures_and_reports)
//! 12. [GPU and precision](gpu_and_precision)
//! 13. [Speed and memory](speed_and_memory)
//! 14. [Reproducibility](reproducibility)

macro_rules! chapters {
    ($($file:literal => $name:ident),* $(,)?) => {
        $(#[doc = include_str!(concat!("../guide/", $file, ".md"))] pub mod $name {})*
    };
}

chapters! {
    "01-first-steps" => first_steps,
    "02-from-transformerlens" => from_transformerlens,
    "03-hooks" => hooks,
    "04-the-cache" => the_cache,
    "05-your-own-model" => your_own_model,
    "06-your-own-loss-data-and-loop" => your_own_loss_data_and_loop,
    "07-freezing-and-own-parameters" => freezing_and_own_parameters,
    "08-pretrained-models-and-text" => pretrained_models_and_text,
    "09-generation-and-steering" => generation_and_steering,
    "10-patching-and-attribution" => patching_and_attribution,
    "11-figures-and-reports" => figures_and_reports,
    "12-gpu-and-precision" => gpu_and_precision,
    "13-speed-and-memory" => speed_and_memory,
    "14-reproducibility" => reproducibility,
}
