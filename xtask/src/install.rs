// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs of crates.io that are used as they are, each of one recorded version, built once and kept in the cache.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::step::Session;
use crate::userspace::TARGET;

/// Where a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// Here, with the libraries of this host.
    Host,
    /// On a node, which has none.
    Node,
}

/// A program that is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool<'a> {
    /// What its file is called.
    pub(crate) name: &'a str,
    /// The crate that it is in.
    pub(crate) package: &'a str,
    /// Of exactly this version, with the dependencies that this was published with.
    pub(crate) version: &'a str,
    /// Where it is to run.
    pub(crate) on: On,
}

impl Tool<'_> {
    fn key(&self) -> String {
        let of_node = if self.on == On::Node { "-node" } else { "" };
        format!("{}-{}{of_node}", self.name, self.version)
    }
}

/// Where the program is, which is built if the cache has it not.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn program(session: &Session, tool: &Tool<'_>) -> Result<PathBuf> {
    let key = tool.key();
    let entry = match session.store.find("tools", &key) {
        Some(entry) => entry,
        None => install(session, &key, tool)?,
    };
    Ok(entry.join("bin").join(tool.name))
}

fn install(session: &Session, key: &str, tool: &Tool<'_>) -> Result<PathBuf> {
    let Tool { name, package, version, on } = tool;
    let _lock = session.store.lock(key, || {
        session.notice("tool", "waiting for another dvs build that is making it");
    })?;
    if let Some(entry) = session.store.find("tools", key) {
        return Ok(entry);
    }
    let mut step = session.begin("tool", &format!("building {name} {version}"))?;
    let entry = session.store.create("tools", key, |directory| {
        let build = directory.join("build");
        let mut count = 0;
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(directory)
            .env("CARGO_TARGET_DIR", &build)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .args(["install", "--locked", "--no-track", "--root"])
            .arg(directory)
            .arg(format!("{package}@{version}"));
        if *on == On::Node {
            cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").args(["--target", TARGET]);
        }
        step.watch(&mut cargo, |line| {
            count += usize::from(line.trim_start().starts_with("Compiling"));
            Some(format!("{count} crates"))
        })?;
        fs::remove_dir_all(&build).with_context(|| format!("removing {}", build.display()))
    })?;
    step.finish(&format!("{name} {version} built"));
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_a_node_is_not_that_of_the_host() {
        let key = |on| Tool { name: "tool", package: "tool-cli", version: "1.2.3", on }.key();
        assert_eq!((key(On::Host), key(On::Node)), ("tool-1.2.3".into(), "tool-1.2.3-node".into()));
    }
}
