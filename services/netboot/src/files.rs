// SPDX-License-Identifier: MIT OR Apache-2.0
//! The files that are served, and which of them a machine begins with.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The kernel.
pub const LINUX: &str = "linux";
/// Its initial root.
pub const INITRAMFS: &str = "initramfs";
/// Both, and the command line, in one UEFI program.
pub const UNIFIED: &str = "dvs.efi";
/// What iPXE does.
pub const SCRIPT: &str = "boot.ipxe";
/// iPXE for a BIOS whose own PXE can do little.
pub const IPXE_BIOS: &str = "undionly.kpxe";

/// The kernel's command line; it is part of the script, and not served itself.
pub const COMMAND_LINE: &str = "command-line";

/// Files by name. There are no folders, and nothing but what is in here is ever served.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<String, Arc<[u8]>>);

impl Files {
    /// Adds a file, in place of one of the same name.
    pub fn add(&mut self, name: &str, content: impl Into<Arc<[u8]>>) {
        self.0.insert(name.to_owned(), content.into());
    }

    /// A file, by the name that a client asks for: one `/` before it does not matter.
    pub fn get(&self, name: &str) -> Option<&Arc<[u8]>> {
        self.0.get(name.strip_prefix('/').unwrap_or(name))
    }
}

/// The script that iPXE runs: by BIOS it loads kernel and root, by UEFI the program that holds both, with `command_line` in place of
/// its own.
pub fn script(command_line: &str) -> String {
    format!(
        "#!ipxe\niseq ${{platform}} efi && goto efi ||\nkernel {LINUX} {command_line}\ninitrd {INITRAMFS}\nboot\n\
         :efi\nchain {UNIFIED} {command_line}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_added_is_found() {
        let mut files = Files::default();
        files.add(LINUX, *b"kernel");
        assert_eq!(files.get("linux").map(|file| &file[..]), Some(&b"kernel"[..]));
        assert!(files.get("/linux").is_some());
        for name in ["//linux", "../linux", "/etc/passwd", "", "linux\0"] {
            assert!(files.get(name).is_none(), "{name}");
        }
    }
}
