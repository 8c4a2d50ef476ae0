//! Puts the commit into the version: what git says, or the variable `TIDINGS_COMMIT` where the
//! sources come without their history, as in a container's build.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs/heads");
    println!("cargo::rerun-if-env-changed=TIDINGS_COMMIT");
    let given = std::env::var("TIDINGS_COMMIT").ok();
    let commit = given
        .or_else(head)
        .map(|commit| commit.trim().to_owned())
        .filter(|commit| !commit.is_empty());
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match commit {
        Some(commit) => println!("cargo::rustc-env=TIDINGS_VERSION={version} ({commit})"),
        None => println!("cargo::rustc-env=TIDINGS_VERSION={version}"),
    }
}

fn head() -> Option<String> {
    let output = Command::new("git")
        .args(["rev-parse", "--short=9", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
