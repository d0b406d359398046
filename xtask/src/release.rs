// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image says of itself, and whose images may follow it: `/etc/os-release` and `/etc/dvs/release-keys`.
//!
//! Who builds images has a signing key, made when it is first needed: `$XDG_DATA_HOME/dvs/release.key`, else `~/.local/share/dvs/release.key`.
//! Its public half is part of every image, so that nodes take upgrades from whoever has built what they run.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use dvs_bundle::SigningKey;

use crate::cpio::{Archive, Node};
use crate::digest::Digest;
use crate::kernel;
use crate::step::Session;

/// Digits that tell builds apart.
const BUILD_DIGITS: usize = 12;
/// Most characters of a version: what nodes say of themselves has so much room.
const VERSION_MAX: usize = 11;

/// The version of this checkout.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    version: String,
    build: String,
}

impl Release {
    /// That of `version`, of the kernel and the root that consists of these archives.
    ///
    /// # Errors
    /// When the version is none that nodes can tell, or a source cannot be read.
    pub(crate) fn of(
        session: &Session,
        version: &str,
        archives: &[Vec<u8>],
        key: &SigningKey,
    ) -> Result<Self> {
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        ensure!(
            version.split('.').count() == 3 && version.split('.').all(plain) && version.len() <= VERSION_MAX,
            "`{version}` cannot be a version: it has three numbers, as 1.2.3, and at most {VERSION_MAX} characters"
        );
        let mut digest = Digest::new("release", 1);
        kernel::sources(session, &mut digest)?;
        archives.iter().for_each(|archive| digest.bytes("archive", archive));
        digest.text("key", &key.public().to_string());
        digest.text("version", version);
        let build = digest.finish().chars().take(BUILD_DIGITS).collect();
        Ok(Self { version: version.to_owned(), build })
    }

    /// What a node says that runs it.
    pub(crate) fn name(&self) -> String {
        format!("{}+{}", self.version, self.build)
    }

    /// `os-release(5)`.
    pub(crate) fn os_release(&self) -> String {
        let Self { version, build } = self;
        format!(
            "NAME=dvs\nID=dvs\nPRETTY_NAME=\"dvs {version}\"\nVERSION_ID={version}\nBUILD_ID={build}\n"
        )
    }

    /// Adds the files that say so to a root.
    ///
    /// # Errors
    /// As of [`Archive::add`].
    pub(crate) fn add_to(&self, archive: &mut Archive, key: &SigningKey) -> Result<()> {
        let keys = format!("# Who may sign upgrades of this image\n{}\n", key.public());
        archive.add("/etc/os-release", 0o644, Node::File(self.os_release().into_bytes()))?;
        archive.add("/etc/dvs/release-keys", 0o644, Node::File(keys.into_bytes()))?;
        Ok(())
    }
}

/// The signing key of whoever builds here; made if there is none.
///
/// # Errors
/// When it cannot be read, written, or is none.
pub(crate) fn signing_key() -> Result<SigningKey> {
    let path = key_path()?;
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return make_key(&path),
        Err(error) => {
            return Err(error)
                .with_context(|| format!("reading the signing key {}", path.display()))
        }
    };
    SigningKey::from_pkcs8(&bytes)
        .with_context(|| format!("reading the signing key {}", path.display()))
}

fn key_path() -> Result<PathBuf> {
    let base = match env::var_os("XDG_DATA_HOME").filter(|path| Path::new(path).is_absolute()) {
        Some(base) => PathBuf::from(base),
        None => {
            let home = env::var_os("HOME");
            let home = home.context("finding the signing key: set HOME or XDG_DATA_HOME")?;
            PathBuf::from(home).join(".local/share")
        }
    };
    Ok(base.join("dvs/release.key"))
}

fn make_key(path: &Path) -> Result<SigningKey> {
    let context = || format!("making the signing key {}", path.display());
    let key = SigningKey::generate().with_context(context)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(context)?;
    let partial = folder.join(format!("release.key.{}", std::process::id()));
    let mut file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&partial)
        .with_context(context)?;
    file.write_all(key.pkcs8()).with_context(context)?;
    // Whoever was first counts: a build elsewhere may have made one at the same time.
    let linked = fs::hard_link(&partial, path);
    fs::remove_file(&partial).with_context(context)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let bytes = fs::read(path).with_context(context)?;
            SigningKey::from_pkcs8(&bytes).with_context(context)
        }
        linked => linked.map(|()| key).with_context(context),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dvs/release.key");
        let key = make_key(&path).unwrap();
        assert_eq!(make_key(&path).unwrap().public(), key.public());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
