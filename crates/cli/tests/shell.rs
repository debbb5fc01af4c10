//! What shells and `man` are given.

use std::process::{Command, Output};

use clap::CommandFactory;
use ironlens_cli::Cli;

fn ironlens(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ironlens")).args(args).output().expect("the command runs")
}

fn subcommands() -> Vec<String> {
    Cli::command().get_subcommands().map(|c| c.get_name().to_string()).collect()
}

#[test]
fn every_shell_completes_every_subcommand() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = ironlens(&["completions", shell]);
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("ironlens"), "{shell}");
        for name in subcommands() {
            assert!(script.contains(&name), "{shell} does not know {name}");
        }
        assert!(script.contains("preset"), "{shell} knows no flags");
    }
    let error = ironlens(&["completions", "tcsh"]);
    assert!(!error.status.success() && String::from_utf8_lossy(&error.stderr).contains("zsh"), "it lists the shells");
}

/// Where there is a bash, it completes by the script. (On Windows the program of that name starts another system.)
#[cfg(unix)]
#[test]
fn bash_completes() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("ironlens.bash");
    std::fs::write(&script, ironlens(&["completions", "bash"]).stdout).unwrap();
    let ask = format!(
        "source '{}'; COMP_WORDS=(ironlens pipe); COMP_CWORD=1; _ironlens ironlens pipe ironlens; echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let Ok(output) = Command::new("bash").args(["-c", &ask]).output() else { return };
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "pipeline", "{output:?}");
}

#[test]
fn every_subcommand_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("new/man1");
    let output = ironlens(&["man", pages.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    let page = |name: &str| std::fs::read_to_string(pages.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    for name in subcommands() {
        let text = page(&format!("ironlens-{name}.1"));
        assert!(text.contains(&format!(".TH ironlens-{name} 1")), "{text}");
        assert!(text.contains(&format!("ironlens {name}")) || text.contains(&format!("ironlens\\-{name}")), "{text}");
    }
    let whole = page("ironlens.1");
    assert!(whole.contains("IRONLENS_ADAPTER") && whole.contains("pipeline"), "{whole}");
    assert_eq!(ironlens(&["man"]).stdout, whole.into_bytes());
    let listed = String::from_utf8_lossy(&output.stdout).lines().count();
    assert_eq!(listed, std::fs::read_dir(&pages).unwrap().count());
}
