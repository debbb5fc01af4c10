//! Runs the tests of the page's scripts where node is installed.

use std::process::Command;

#[test]
fn the_scripts_pass_their_tests() {
    let test = concat!(env!("CARGO_MANIFEST_DIR"), "/js/core.test.js");
    match Command::new("node").args(["--test", test]).output() {
        Ok(out) => {
            let text = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
        }
        Err(error) => eprintln!("not run, node cannot be started: {error}"),
    }
}
