// SPDX-License-Identifier: MIT OR Apache-2.0
//! The compilers that build a kernel with Rust in it: a rustc with its library's sources, LLVM, and bindgen.

use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::install::{self, On, Tool};
use crate::source::Tools;
use crate::step::{self, Session};

/// A rustc that can build the kernel's `core`.
#[derive(Clone, Debug)]
pub(crate) struct Rust {
    /// The compiler itself, never a proxy that chooses one.
    pub(crate) rustc: PathBuf,
    /// `rustc --version`.
    pub(crate) version: String,
}

/// An LLVM: clang, lld and the binary tools in one directory.
#[derive(Clone, Debug)]
pub(crate) struct Llvm {
    /// The directory of the tools without version suffixes.
    pub(crate) bin: PathBuf,
    /// First line of `clang --version`.
    pub(crate) version: String,
}

/// Everything that `make` needs to be told.
#[derive(Clone, Debug)]
pub(crate) struct Toolchain {
    rust: Rust,
    llvm: Llvm,
    bindgen: PathBuf,
    bindgen_version: String,
}

/// A version as three numbers; missing ones are 0, and what follows the third number is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version([u32; 3]);

impl Version {
    /// The first version number in a text such as `rustc 1.96.0 (…)` or `Debian clang version 19.1.7`.
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || c == '(').find_map(|word| {
            let word = word.trim_start_matches('v');
            let mut parts = word.split(['.', '-', '+', '~']);
            let major = parts.next()?.parse().ok()?;
            let mut next = || parts.next().and_then(|part| part.parse().ok());
            let minor = next()?;
            Some(Self([major, minor, next().unwrap_or(0)]))
        })
    }

    fn major(self) -> u32 {
        self.0[0]
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// A rustc with library sources and at least version `floor`: `$DVS_KERNEL_RUSTC`, the one on `PATH`, then `/usr/bin/rustc`.
pub(crate) fn find_rust(floor: &str) -> Option<Rust> {
    let floor = Version::find(&format!("{floor}.0"))?;
    let path = env::var_os("PATH").unwrap_or_default();
    let chosen = env::var_os("DVS_KERNEL_RUSTC").map(PathBuf::from);
    let candidates = match chosen {
        Some(chosen) => vec![chosen],
        None => step::find_program("rustc", &path)
            .into_iter()
            .chain([PathBuf::from("/usr/bin/rustc")])
            .collect(),
    };
    candidates.iter().find_map(|candidate| {
        let sysroot = step::answer(bare(candidate).args(["--print", "sysroot"])).ok()?;
        let sysroot = Path::new(sysroot.trim_end());
        let has_sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists();
        let rustc = sysroot.join("bin/rustc");
        let version = step::answer(bare(&rustc).arg("--version")).ok()?.trim_end().to_owned();
        (has_sources && Version::find(&version)? >= floor).then_some(Rust { rustc, version })
    })
}

/// A command that is not confused by the libraries of the toolchain that runs this program.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// The newest LLVM with at least major version `floor`: among Debian's versioned directories, else the one on `PATH`.
pub(crate) fn find_llvm(floor: u32) -> Option<Llvm> {
    let versioned = fs::read_dir("/usr/lib").ok().into_iter().flatten().filter_map(|entry| {
        let path = entry.ok()?.path();
        let major = path.file_name()?.to_str()?.strip_prefix("llvm-")?.parse::<u32>().ok()?;
        Some((major, path.join("bin")))
    });
    let mut versioned: Vec<_> = versioned.filter(|(major, _)| *major >= floor).collect();
    versioned.sort();
    let on_path = env::var_os("PATH")
        .and_then(|path| step::find_program("clang", &path))
        .and_then(|clang| Some(clang.parent()?.to_path_buf()));
    versioned.into_iter().rev().map(|(_, bin)| bin).chain(on_path).find_map(|bin| {
        let complete = ["clang", "ld.lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-strip"]
            .iter()
            .all(|tool| bin.join(tool).exists());
        let version = step::answer(bare(&bin.join("clang")).arg("--version")).ok()?;
        let version = version.lines().next()?.to_owned();
        (complete && Version::find(&version)?.major() >= floor).then_some(Llvm { bin, version })
    })
}

impl Toolchain {
    /// Puts `rust` and `llvm` together with the recorded version of bindgen, which is built if the cache has none.
    ///
    /// # Errors
    /// When bindgen cannot be built.
    pub(crate) fn assemble(
        session: &Session,
        tools: &Tools,
        rust: Rust,
        llvm: Llvm,
    ) -> Result<Self> {
        let bindgen =
            Tool { name: "bindgen", package: "bindgen-cli", version: &tools.bindgen, on: On::Host };
        Ok(Self {
            rust,
            llvm,
            bindgen: install::program(session, &bindgen)?,
            bindgen_version: tools.bindgen.clone(),
        })
    }

    /// What identifies it in keys of the cache.
    pub(crate) fn identity(&self) -> String {
        let library = self.rust.rustc.display();
        format!("{}\n{library}\n{}\n{}", self.rust.version, self.llvm.version, self.bindgen_version)
    }

    /// A `make` for the kernel tree `source` with the object directory `objects`, in an environment that holds nothing but what
    /// is said here: variables of the caller's must not change the result.
    pub(crate) fn make(&self, source: &Path, objects: &Path) -> Command {
        let beside = |tool: &str| self.rust.rustc.with_file_name(tool);
        let system = env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let path = env::join_paths(
            std::iter::once(self.llvm.bin.clone()).chain(env::split_paths(&system)),
        )
        .unwrap_or(system);
        let mut command = Command::new("make");
        command.env_clear().env("PATH", path).env("LC_ALL", "C");
        for name in ["HOME", "TERM", "TMPDIR"] {
            if let Some(value) = env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(library) = self.llvm.bin.parent().map(|prefix| prefix.join("lib")) {
            command.env("LIBCLANG_PATH", library);
        }
        // The image is a function of the tree: no time, name or build counter of this machine in it.
        command
            .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
            .env("KBUILD_BUILD_USER", "dvs")
            .env("KBUILD_BUILD_HOST", "dvs")
            .env("KBUILD_BUILD_VERSION", "1");
        command.arg("-C").arg(source);
        let mut variable = |name: &str, value: &Path| {
            command.arg(format!("{name}={}", value.display()));
        };
        variable("O", objects);
        variable("LLVM", Path::new("1"));
        variable("ARCH", Path::new("x86_64"));
        variable("RUSTC", &self.rust.rustc);
        variable("HOSTRUSTC", &self.rust.rustc);
        variable("RUSTDOC", &beside("rustdoc"));
        variable("RUSTFMT", &beside("rustfmt"));
        variable("BINDGEN", &self.bindgen);
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_tools_say() {
        let version = |text| Version::find(text).map(|version| version.to_string());
        assert_eq!(
            version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)").as_deref(),
            Some("1.96.0")
        );
        assert_eq!(version("Debian clang version 19.1.7 (3~deb12u1)").as_deref(), Some("19.1.7"));
        assert_eq!(version("rustc 1.99.0-nightly (x)").as_deref(), Some("1.99.0"));
        assert_eq!(
            version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)").as_deref(),
            Some("7.2.22")
        );
        assert_eq!(version("Ubuntu clang version 18.1.3-1ubuntu1").as_deref(), Some("18.1.3"));
        assert_eq!(version("no version"), None);
    }

    #[test]
    fn versions_compare_by_number() {
        let version = |text| Version::find(text).unwrap();
        assert!(version("1.100.0") > version("1.85.0"));
        assert!(version("1.85.1") > version("1.85.0"));
        assert!(version("2.0") > version("1.99.9"));
    }
}
