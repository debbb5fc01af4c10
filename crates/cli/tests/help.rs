//! Every subcommand is known wherever they are listed.

use clap::CommandFactory;
use ironlens::train::Preset;
use ironlens_cli::{Cli, Recipe};

#[test]
fn every_subcommand_has_help_and_is_in_xtasks_list() {
    let xtask = include_str!("../../../xtask/src/main.rs");
    let mut cli = Cli::command();
    cli.build();
    let names: Vec<String> = cli.get_subcommands().map(|c| c.get_name().to_string()).collect();
    assert!(names.len() > 6, "{names:?}");
    for name in names.iter().filter(|n| *n != "help") {
        assert!(xtask.contains(&format!("\n  {name:<10} ")), "the help of xtask does not name {name}");
        let command = cli.find_subcommand_mut(name).unwrap();
        assert!(command.get_about().is_some(), "{name} has no description");
        assert!(command.render_help().to_string().contains("Usage: ironlens"), "{name}");
        for argument in command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str())) {
            assert!(argument.get_help().is_some(), "{name}: {} is not explained", argument.get_id());
        }
    }
}

#[test]
fn help_says_what_the_command_is_for() {
    let about = Cli::command().get_about().map(ToString::to_string).unwrap_or_default();
    assert!(about.contains("look inside"), "{about}");
}

#[test]
fn help_names_the_library_of_products() {
    let help = Cli::command().render_long_help().to_string();
    assert!(help.contains(&format!("  {} ", ironlens::tensor::ACCELERATE_VARIABLE)), "{help}");
}

#[cfg(feature = "gpu")]
#[test]
fn help_names_every_variable() {
    use ironlens::tensor::gpu::{ADAPTER_VARIABLE, CHECKS_VARIABLE, MATRICES_VARIABLE, TUNE_VARIABLE};
    let help = Cli::command().render_long_help().to_string();
    for name in [ADAPTER_VARIABLE, CHECKS_VARIABLE, MATRICES_VARIABLE, TUNE_VARIABLE] {
        assert!(help.contains(&format!("  {name} ")), "{name}: {help}");
    }
}

#[test]
fn the_guides_configuration_is_one() {
    let chapter = include_str!("../../ironlens/guide/06-your-own-loss-data-and-loop.md");
    let block = chapter.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of TOML");
    for preset in [Preset::Notebook, Preset::Tiny] {
        let mut recipe = Recipe::new(preset);
        recipe.overlay("the guide", block).unwrap();
        let recipe = recipe.check().unwrap();
        assert_eq!((recipe.model.d_model, recipe.train.momentum, recipe.data_seed), (128, 0.9, 2));
    }
}
