//! Runs the tests of the page's scripts where node is installed, as it is wherever changes are checked (`CI`).

use std::process::Command;

#[test]
fn the_scripts_pass_their_tests() {
    let test = concat!(env!("CARGO_MANIFEST_DIR"), "/js/core.test.js");
    match Command::new("node").args(["--test", test]).output() {
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
        }
        Err(error) => {
            let checked = std::env::var_os("CI").is_some_and(|ci| !ci.is_empty());
            assert!(!checked, "node cannot be started: {error}; install nodejs");
            eprintln!("not run, node cannot be started: {error}");
        }
    }
}
