// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the host lacks, and the one command that installs it.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};

use crate::source::Tools;
use crate::step::{self, Session};
use crate::toolchain::{self, Llvm, Rust, Version};

/// What somebody is about to do, and so what must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compiling and linking programs for the image.
    Userspace,
    /// Unpacking and building the kernel.
    Kernel,
    /// Running virtual machines.
    Qemu,
    /// Making CD images.
    Images,
    /// Running virtual machines with UEFI firmware.
    Firmware,
    /// Reading captures of what nodes send each other, as the tests of the dissector do.
    Captures,
    /// Making and checking file systems in the formats of others, as the tests of MoL's file server do.
    FileSystems,
    /// Being clients of network block devices, as the tests of MoL's disk server are.
    BlockDevices,
}

/// How to tell whether something is there.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// One of these is an executable on `PATH`.
    Program(&'static [&'static str]),
    /// A file that is always at the same place.
    File(&'static str),
    /// A header that host programs of the kernel's build include, searched in the usual directories.
    Header(&'static str),
    /// The library of clang, of any version, which bindgen loads at run time.
    Libclang,
}

/// Something that must be installed.
#[derive(Clone, Copy, Debug)]
struct Requirement {
    need: Need,
    check: Check,
    /// The Debian package that has it.
    package: &'static str,
}

const fn program(need: Need, names: &'static [&'static str], package: &'static str) -> Requirement {
    Requirement { need, check: Check::Program(names), package }
}

const REQUIREMENTS: &[Requirement] = &[
    program(Need::Userspace, &["cc"], "gcc"),
    Requirement { need: Need::Userspace, check: Check::Header("stdlib.h"), package: "libc6-dev" },
    program(Need::Userspace, &["mksquashfs"], "squashfs-tools"),
    // For what `libublk` says to the driver. This program does without, or it could not be the one that installs it.
    Requirement { need: Need::Userspace, check: Check::Libclang, package: "libclang-19-dev" },
    program(Need::Kernel, &["make"], "make"),
    program(Need::Kernel, &["flex"], "flex"),
    program(Need::Kernel, &["bison"], "bison"),
    program(Need::Kernel, &["bc"], "bc"),
    program(Need::Kernel, &["perl"], "perl"),
    program(Need::Kernel, &["patch"], "patch"),
    program(Need::Kernel, &["tar"], "tar"),
    program(Need::Kernel, &["xz"], "xz-utils"),
    program(Need::Kernel, &["zstd"], "zstd"),
    Requirement { need: Need::Kernel, check: Check::Header("libelf.h"), package: "libelf-dev" },
    program(Need::Qemu, &["qemu-system-x86_64"], "qemu-system-x86"),
    program(Need::Images, &["xorriso"], "xorriso"),
    Requirement { need: Need::Firmware, check: Check::File(FIRMWARE_CODE), package: "ovmf" },
    program(Need::Captures, &["tshark"], "tshark"),
    program(Need::FileSystems, &["mkfs.minix"], "util-linux"),
    program(Need::FileSystems, &["fsck.minix"], "util-linux"),
    program(Need::BlockDevices, &["qemu-img"], "qemu-utils"),
    program(Need::BlockDevices, &["qemu-io"], "qemu-utils"),
    program(Need::BlockDevices, &["qemu-nbd"], "qemu-utils"),
    program(Need::BlockDevices, &["nbdinfo"], "libnbd-bin"),
    program(Need::BlockDevices, &["nbdcopy"], "libnbd-bin"),
];

/// UEFI firmware for QEMU, with the variables that it starts with.
pub(crate) const FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// See [`FIRMWARE_CODE`].
pub(crate) const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// QEMU's socket network back end with addresses (`-netdev stream`) came with this version.
const QEMU_FLOOR: &str = "7.2.0";

/// Something that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Missing {
    /// In words.
    what: String,
    /// The Debian packages that have it.
    packages: Vec<&'static str>,
}

fn is_present(check: Check) -> bool {
    match check {
        Check::Program(names) => {
            // The tools of administration are not on every user's path.
            let mut path = env::var_os("PATH").unwrap_or_default();
            path.push(":/usr/sbin:/sbin");
            names.iter().any(|name| step::find_program(name, &path).is_some())
        }
        Check::File(path) => Path::new(path).exists(),
        Check::Header(name) => {
            ["/usr/include", "/usr/local/include", "/usr/include/x86_64-linux-gnu"]
                .iter()
                .any(|directory| Path::new(directory).join(name).exists())
        }
        Check::Libclang => has_libclang(),
    }
}

fn missing(needs: &[Need], tools: &Tools) -> Vec<Missing> {
    let mut missing: Vec<_> = REQUIREMENTS
        .iter()
        .filter(|requirement| needs.contains(&requirement.need) && !is_present(requirement.check))
        .map(|requirement| Missing {
            what: match requirement.check {
                Check::Program(names) => names.join(" or "),
                Check::File(path) => format!("the file {path}"),
                Check::Header(name) => format!("the header {name}"),
                Check::Libclang => "libclang".to_owned(),
            },
            packages: vec![requirement.package],
        })
        .collect();
    if needs.contains(&Need::Kernel) {
        if toolchain::find_rust(&tools.rustc).is_none() {
            missing.push(Missing {
                what: format!(
                    "a rustc of at least {} with the sources of its library (with rustup: `rustup component add rust-src`)",
                    tools.rustc
                ),
                packages: vec!["rustc-web", "rust-web-src"],
            });
        }
        if toolchain::find_llvm(tools.llvm).is_none() || !has_libclang() {
            missing.push(Missing {
                what: format!(
                    "clang, lld, the LLVM tools and libclang of at least version {}",
                    tools.llvm
                ),
                packages: vec!["clang-19", "lld-19", "llvm-19", "libclang-19-dev"],
            });
        }
    }
    missing
}

fn has_libclang() -> bool {
    let in_directory = |path: &Path| {
        fs::read_dir(path).is_ok_and(|entries| {
            let mut names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
            names.any(|name| is_libclang(&name.to_string_lossy()))
        })
    };
    let llvm = toolchain::find_llvm(0).and_then(|llvm| Some(llvm.bin.parent()?.join("lib")));
    llvm.into_iter()
        .chain(["/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu"].map(Into::into))
        .any(|path| in_directory(&path))
}

/// Whether a file of this name is clang as a library for C. (`libclang-cpp` is that for clang's own programs.)
fn is_libclang(name: &str) -> bool {
    name.starts_with("libclang.so")
        || name.starts_with("libclang-")
            && !name.starts_with("libclang-cpp")
            && name.contains(".so")
}

/// The packages of all that is missing, each once, in a fixed order.
fn packages(missing: &[Missing]) -> Vec<&'static str> {
    let all: BTreeSet<_> =
        missing.iter().flat_map(|missing| missing.packages.iter().copied()).collect();
    all.into_iter().collect()
}

fn install_command(packages: &[&str]) -> String {
    format!(
        "apt-get update && apt-get install --yes --no-install-recommends {}",
        packages.join(" ")
    )
}

fn description(missing: &[Missing]) -> String {
    missing.iter().map(|missing| format!("\n  - {}", missing.what)).collect()
}

/// Makes sure that everything for `needs` is there: installs what is missing when run as root, asks on a terminal, and
/// otherwise fails with the command to run.
///
/// # Errors
/// When something stays missing.
pub(crate) fn require(session: &Session, needs: &[Need], tools: &Tools) -> Result<()> {
    let lacking = missing(needs, tools);
    if !lacking.is_empty() {
        let root = rustix::process::geteuid().is_root();
        if !has_apt() {
            bail!(
                "this machine lacks what this needs:{}\n  to do:   install these with the system's package manager and run the same command again",
                description(&lacking)
            );
        }
        let command = install_command(&packages(&lacking));
        let sudo = format!("sudo sh -c '{command}'");
        let allowed = root || session.terminal && asked(&lacking, &sudo)?;
        if !allowed {
            bail!(
                "this machine lacks what this needs:{}\n  to do:   run `{sudo}` and the same command again",
                description(&lacking)
            );
        }
        install(session, &packages(&lacking), root)?;
        let still = missing(needs, tools);
        ensure!(
            still.is_empty(),
            "still missing after installing {}:{}",
            packages(&lacking).join(" "),
            description(&still)
        );
    }
    if needs.contains(&Need::Qemu) {
        check_qemu()?;
    }
    Ok(())
}

/// The compilers of the kernel, after [`require`] has seen to them.
///
/// # Errors
/// When one is not there.
pub(crate) fn compilers(tools: &Tools) -> Result<(Rust, Llvm)> {
    let advice = "run `cargo xtask doctor`";
    let rust = toolchain::find_rust(&tools.rustc)
        .with_context(|| format!("finding a rustc with the sources of its library: {advice}"))?;
    let llvm =
        toolchain::find_llvm(tools.llvm).with_context(|| format!("finding LLVM: {advice}"))?;
    Ok((rust, llvm))
}

fn check_qemu() -> Result<()> {
    let text = step::answer(Command::new("qemu-system-x86_64").arg("--version"))?;
    let found = Version::find(&text).context("asking QEMU for its version: it gives none")?;
    let floor = Version::find(QEMU_FLOOR).context("reading the least version of QEMU")?;
    ensure!(
        found >= floor,
        "running virtual machines: QEMU {found} is too old, at least {floor} is needed"
    );
    Ok(())
}

fn has_apt() -> bool {
    is_present(Check::Program(&["apt-get"])) && Path::new("/etc/debian_version").exists()
}

fn asked(lacking: &[Missing], command: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!(
        "this machine lacks what this needs:{}\nrun `{command}` now? [y/N] ",
        description(lacking)
    );
    io::stderr().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading the answer")?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

fn install(session: &Session, packages: &[&str], root: bool) -> Result<()> {
    if !root {
        // sudo may have to ask for a password: it keeps the terminal.
        let status = Command::new("sudo")
            .args(["sh", "-c", &install_command(packages)])
            .status()
            .context("running sudo")?;
        ensure!(status.success(), "installing {}: {status}", packages.join(" "));
        return Ok(());
    }
    let _lock = session.store.lock("apt-get", || {
        session.notice("host packages", "waiting for another dvs build that is installing");
    })?;
    let mut step = session.begin("host packages", &format!("installing {}", packages.join(" ")))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env_remove("LD_LIBRARY_PATH")
            // Somebody else may be at it.
            .args(["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"])
            .args(arguments);
        command
    };
    step.run(&mut apt(&["update"]))?;
    step.run(apt(&["install", "--yes", "--no-install-recommends"]).args(packages))?;
    step.finish(&format!("installed {}", packages.join(" ")));
    Ok(())
}

/// `cargo xtask doctor`: says what is there and what is not; with `install`, sees to it.
///
/// # Errors
/// When something is missing (and could not be installed).
pub(crate) fn examine(session: &Session, tools: &Tools, install: bool) -> Result<()> {
    let needs = [
        Need::Userspace,
        Need::Kernel,
        Need::Qemu,
        Need::Images,
        Need::Firmware,
        Need::Captures,
        Need::FileSystems,
        Need::BlockDevices,
    ];
    if install {
        require(session, &needs, tools)?;
    }
    let lacking = missing(&needs, tools);
    if lacking.is_empty() {
        check_qemu()?;
        let (rust, llvm) = compilers(tools)?;
        println!("everything that dvs needs is installed");
        println!("  kernel Rust: {} ({})", rust.version, rust.rustc.display());
        println!("  LLVM:        {} ({})", llvm.version, llvm.bin.display());
        return Ok(());
    }
    if has_apt() {
        let sudo = if rustix::process::geteuid().is_root() { "sh -c" } else { "sudo sh -c" };
        bail!(
            "this machine lacks:{}\n  to do:   run `cargo xtask doctor --install`, or `{sudo} '{}'`",
            description(&lacking),
            install_command(&packages(&lacking))
        );
    }
    bail!(
        "this machine lacks:{}\n  to do:   install these with the system's package manager",
        description(&lacking)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_listed_once_and_in_order() {
        let lacking = [
            Missing { what: "zstd".into(), packages: vec!["zstd"] },
            Missing { what: "LLVM".into(), packages: vec!["lld-19", "clang-19"] },
            Missing { what: "clang".into(), packages: vec!["clang-19"] },
        ];
        assert_eq!(packages(&lacking), ["clang-19", "lld-19", "zstd"]);
        assert!(install_command(&packages(&lacking))
            .ends_with("--no-install-recommends clang-19 lld-19 zstd"));
        assert_eq!(description(&lacking), "\n  - zstd\n  - LLVM\n  - clang");
    }

    #[test]
    fn the_library_of_clang_is_not_that_of_its_programs() {
        for name in ["libclang.so", "libclang.so.1", "libclang-19.so.19", "libclang-19.so"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang-cpp.so.19.1", "libclangTidy.a", "libc.so"] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn programs_are_found_on_the_path_and_inventions_are_not() {
        assert!(is_present(Check::Program(&["no-such-program", "sh"])));
        assert!(!is_present(Check::Program(&["no-such-program"])));
        assert!(!is_present(Check::Header("no-such-header.h")));
    }
}
