// SPDX-License-Identifier: MIT OR Apache-2.0
//! The CD image, which boots from a USB stick as well: by BIOS through ISOLINUX, by UEFI from a FAT volume that is appended to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use dvs_image::{cd, uki, volume};

use crate::step::Step;

/// What stands for the time of everything in the image, which has none.
const DATE: &str = "2026010100000000";
const SECONDS: &str = "1767225600";

/// Sections of the program, and the files of the CD that a BIOS loads the same from.
const FILES: [(&str, &str); 2] = [(".linux", "boot/linux"), (".initrd", "boot/initramfs")];

/// What goes into the image.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) command_line: &'a str,
    /// ISOLINUX, its module and what it takes to boot from a stick.
    pub(super) isolinux: &'a [u8],
    pub(super) ldlinux: &'a [u8],
    pub(super) stick: &'a Path,
    /// The program for UEFI: kernel and root are parts of it, and not there a second time.
    pub(super) unified: &'a [u8],
    /// The FAT volume that it is on.
    pub(super) boot_volume: &'a [u8],
}

/// Writes the image to `target`, with the folder `work` to prepare it in, which must not exist.
///
/// # Errors
/// When a file cannot be read or written, or xorriso fails.
pub(super) fn build(step: &mut Step, parts: &Parts<'_>, work: &Path, target: &Path) -> Result<()> {
    let root = work.join("root");
    for folder in ["isolinux", "boot"] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    let write = |path: PathBuf, content: &[u8]| {
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))
    };
    write(root.join("isolinux/isolinux.bin"), parts.isolinux)?;
    write(root.join("isolinux/ldlinux.c32"), parts.ldlinux)?;
    write(root.join("isolinux/isolinux.cfg"), menu(parts.command_line).as_bytes())?;
    for path in FILES.map(|(_, path)| path).into_iter().chain([cd::PROGRAM]) {
        // It is put elsewhere below, and has to be somewhere until then.
        write(root.join(path), b"?")?;
    }
    let volume = work.join("boot-volume");
    write(volume.clone(), parts.boot_volume)?;
    step.run(&mut command(parts.stick, &volume, &root, target))?;
    let mut image = fs::read(target).with_context(|| format!("reading {}", target.display()))?;
    share(&mut image, parts)
        .with_context(|| format!("sharing kernel and root in {}", target.display()))?;
    write(target.to_owned(), &image)
}

/// Makes files of the CD what is in the program on its boot volume.
fn share(image: &mut [u8], parts: &Parts<'_>) -> Result<()> {
    let volume = volume::position(image, parts.boot_volume);
    let volume = volume.context("the boot volume is not in the image as it was made")?;
    let program = volume::position(parts.boot_volume, parts.unified);
    let program = volume + program.context("the program is not in one piece on the boot volume")?;
    for (section, path) in FILES {
        let found = uki::position(parts.unified, section)?;
        let found = found.with_context(|| format!("the program has no section {section}"))?;
        cd::place(image, path, program + found.start..program + found.end)?;
    }
    // A node that runs reads it from there, to boot others.
    cd::place(image, cd::PROGRAM, program..program + parts.unified.len())?;
    Ok(())
}

/// What ISOLINUX shows and does: it boots at once, unless a key is held, and then takes other kernel arguments.
fn menu(command_line: &str) -> String {
    format!(
        "SERIAL 0 115200\nDEFAULT dvs\nPROMPT 0\nTIMEOUT 0\nLABEL dvs\n  KERNEL /boot/linux\n  INITRD /boot/initramfs\n  \
         APPEND {command_line}\n"
    )
}

fn command(stick: &Path, volume: &Path, root: &Path, target: &Path) -> Command {
    let mut command = Command::new("xorriso");
    // Dates of files and identifiers of the table of partitions follow from these.
    command.env("SOURCE_DATE_EPOCH", SECONDS).env("LC_ALL", "C").env("TZ", "UTC");
    command.args(["-no_rc", "-as", "mkisofs", "-quiet", "-o"]).arg(target);
    command.args(["-V", cd::LABEL, "-iso-level", "3", "-R"]);
    command.arg(format!("--modification-date={DATE}"));
    command.args(["--set_all_file_dates", DATE, "-uid", "0", "-gid", "0"]);
    command.arg("-isohybrid-mbr").arg(stick);
    command.args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat", "-no-emul-boot"]);
    command.args(["-boot-load-size", "4", "-boot-info-table"]);
    // The volume is partition 2 of a stick, where it can be mounted and a configuration be put on it.
    command.args(["-append_partition", "2", "0xef"]).arg(volume).arg("-appended_part_as_gpt");
    command.args(["-eltorito-alt-boot", "-e", "--interval:appended_partition_2:all::"]);
    command.arg("-no-emul-boot").arg(root);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_menu_hands_on_the_command_line() {
        assert!(menu("quiet a=b").ends_with("  APPEND quiet a=b\n"));
    }
}
