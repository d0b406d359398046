// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of the image: static, small, and also what runs on the host (`dvsctl`).

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::doctor::{self, Need};
use crate::manifest::Manifest;
use crate::source::Pins;
use crate::step::Session;

/// The platform of the nodes. Named even where it is the host's own, so that flags for it do not reach build scripts.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A compiled set of programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// The programs in a directory.
    pub(crate) fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where a program is.
    pub(crate) fn path(&self, binary: &str) -> PathBuf {
        self.directory.join(binary)
    }
}

/// Compiles the programs of a node, with `test` also those of the overlay for tests. What is one program by several names has these here
/// as well.
///
/// # Errors
/// As [`build`], and when a name cannot be given.
pub(crate) fn of_node(session: &Session, manifest: &Manifest, test: bool) -> Result<Programs> {
    let programs = build(session, &manifest.packages(test))?;
    for (name, binary) in manifest.names() {
        link(&programs.path(&name), &binary)?;
    }
    Ok(programs)
}

/// Makes `path` a link to a file beside it, whatever it was.
fn link(path: &Path, target: &str) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}.new", std::process::id()));
    symlink(target, &new)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("linking {} to {target}", path.display()))
}

/// Compiles `packages` for the image, each set of them on its own: within a set, each library has the features that any program of it
/// asks for.
///
/// # Errors
/// When the compiler or linker is missing or fails.
pub(crate) fn build(session: &Session, packages: &[BTreeSet<String>]) -> Result<Programs> {
    doctor::require(session, &[Need::Userspace], &Pins::read(session)?.tools)?;
    let mut step = session.begin("programs", "compiling the programs of the image")?;
    let target = session.workspace.target.join("image");
    let mut crates = 0;
    for packages in packages {
        step.watch(&mut cargo(session, &target, packages), |line| {
            let compiled = line.trim_start().starts_with("Compiling");
            crates += u32::from(compiled);
            compiled.then(|| format!("{crates} crates"))
        })?;
    }
    step.finish(&format!("programs of the image: {crates} crates compiled"));
    Ok(Programs::in_directory(target.join(TARGET).join("image")))
}

/// What makes programs smaller that end when they panic: no tables for unwinding, and where the linker only has to add where the program is,
/// bits instead of 24 bytes each (`DT_RELR`).
const SMALL: &str = "-C force-unwind-tables=no -C link-arg=-Wl,-z,pack-relative-relocs";

fn cargo(session: &Session, target: &Path, packages: &BTreeSet<String>) -> Command {
    let root = &session.workspace.root;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root)
        .env("CARGO_TARGET_DIR", target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // No path of this machine in what is shipped, or two checkouts would give different bytes.
        .env(
            "RUSTFLAGS",
            format!(
                "{SMALL} -C target-feature=+crt-static --remap-path-prefix={}=/dvs --remap-path-prefix={}=/cargo",
                root.display(),
                cargo_home().display()
            ),
        )
        .args(["build", "--locked", "--profile", "image", "--target", TARGET]);
    for package in packages {
        cargo.arg("--package").arg(package);
    }
    cargo
}

/// Compiles the C program `source` of the checkout and links it with the library for C, which is one of `programs`.
///
/// # Errors
/// When the compiler is missing or fails.
pub(crate) fn build_c(
    session: &Session,
    programs: &Programs,
    binary: &str,
    source: &str,
) -> Result<()> {
    let mut step = session.begin("programs", &format!("compiling {source}"))?;
    let mut cc = Command::new("cc");
    cc.current_dir(&session.workspace.root)
        .args([
            "-std=gnu11",
            "-Os",
            "-static",
            "-s",
            "-Wall",
            "-Wextra",
            "-I",
            "dvk/user/c/include",
        ])
        .arg(source)
        .arg(programs.path("libdvk.a"))
        .arg("-o")
        .arg(programs.path(binary));
    step.watch(&mut cc, |_| None)?;
    step.finish(&format!("{source} compiled"));
    Ok(())
}

fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    )
}
