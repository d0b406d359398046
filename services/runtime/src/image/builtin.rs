// SPDX-License-Identifier: MIT OR Apache-2.0
//! The root of containers without an image: a static busybox and the few files that programs expect.

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};

/// Its name in the store, which is no digest.
pub(super) const NAME: &str = "builtin";

/// Where a node has busybox.
const BUSYBOX: &str = "/usr/libexec/dvs/busybox";

/// Directories and their modes. What the runtime mounts on is made by it.
const DIRECTORIES: [(&str, u32); 8] = [
    ("bin", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
];

const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];

/// Makes it in an empty directory.
///
/// # Errors
/// When this node has no busybox, or files cannot be written.
pub(super) fn fill(root: &Path) -> Result<()> {
    for (name, mode) in DIRECTORIES {
        let path = root.join(name);
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
            .with_context(|| format!("creating {}", path.display()))?;
    }
    for (name, text) in FILES {
        let path = root.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let programs = root.join("bin");
    fs::copy(BUSYBOX, programs.join("busybox")).with_context(|| {
        format!("copying {BUSYBOX}: is it in the image of this node? Without it, give an image")
    })?;
    for applet in applets()? {
        if applet != "busybox" {
            let path = programs.join(&applet);
            symlink("busybox", &path).with_context(|| format!("linking {}", path.display()))?;
        }
    }
    Ok(())
}

/// The names by which busybox is different programs.
fn applets() -> Result<Vec<String>> {
    let output = Command::new(BUSYBOX)
        .arg("--list")
        .output()
        .with_context(|| format!("running {BUSYBOX}"))?;
    ensure!(output.status.success(), "running {BUSYBOX} --list: it ended with {}", output.status);
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names
        .lines()
        .map(str::to_owned)
        .filter(|name| !name.is_empty() && !name.contains('/'))
        .collect())
}
