// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stores as people write them: `memory:64M`, `file:/images/a.img,create=1G`, `disk:/dev/vdb,read-only`, `nbd://192.0.2.1/export`.

use super::{FileStore, Intent, MemoryStore, NbdStore, OpenError, Store, NBD_LIMIT};
use crate::nbd::{NbdUri, UriError};
use core::str::FromStr;
use std::path::PathBuf;

/// The block of a store in memory that nobody said otherwise of, in bytes.
pub const BLOCK_BYTES_OF_MEMORY: u32 = 512;

/// Which store a device has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSpec {
    /// Memory.
    Memory {
        /// How many bytes.
        bytes: u64,
        /// The block.
        block_bytes: u32,
    },
    /// An image file or a block device of Linux.
    File {
        /// Its path.
        path: PathBuf,
        /// What it is opened for.
        intent: Intent,
        /// How many bytes it is made with if it is not there.
        create: Option<u64>,
    },
    /// A volume of a foreign NBD server.
    Nbd {
        /// Which.
        uri: NbdUri,
        /// What it is opened for.
        intent: Intent,
    },
}

/// Why a text is no store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// It begins with none of the kinds.
    #[error("`{0}` is no store: write memory:SIZE, file:PATH, disk:PATH, nbd://… or nbd+unix://…")]
    Kind(String),
    /// A size is none.
    #[error("`{0}` is no size: write a number of bytes, or one with K, M, G or T behind it (powers of 1024)")]
    Size(String),
    /// There is no such option, or not for this kind.
    #[error(
        "`{option}` is no option of {kind}: memory has block=BYTES, file has read-only and create=SIZE, disk and nbd \
         have read-only"
    )]
    Option {
        /// What was written.
        option: String,
        /// The kind.
        kind: &'static str,
    },
    /// A path is missing.
    #[error("a path is missing behind `{0}:`")]
    Path(&'static str),
    /// A volume of a server is none.
    #[error(transparent)]
    Uri(#[from] UriError),
}

/// A number of bytes: `512`, `64K`, `1G`.
///
/// # Errors
/// [`SpecError::Size`].
pub fn read_size(text: &str) -> Result<u64, SpecError> {
    let none = || SpecError::Size(text.to_owned());
    let shift = match text.bytes().last() {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(none());
    }
    let number: u64 = digits.parse().map_err(|_| none())?;
    number.checked_mul(1 << shift).ok_or_else(none)
}

impl FromStr for StoreSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (kind, rest) = text.split_once(':').ok_or_else(|| SpecError::Kind(text.to_owned()))?;
        let mut parts = rest.split(',');
        let first = parts.next().unwrap_or_default();
        let kind = match kind {
            "memory" => "memory",
            "file" => "file",
            "disk" => "disk",
            "nbd" | "nbd+unix" => "nbd",
            _ => return Err(SpecError::Kind(text.to_owned())),
        };
        let wrong = |option: &str| SpecError::Option { option: option.to_owned(), kind };
        if kind == "memory" {
            let mut block_bytes = BLOCK_BYTES_OF_MEMORY;
            for option in parts {
                let bytes = option.strip_prefix("block=").ok_or_else(|| wrong(option))?;
                block_bytes =
                    u32::try_from(read_size(bytes)?).map_err(|_| SpecError::Size(bytes.into()))?;
            }
            return Ok(Self::Memory { bytes: read_size(first)?, block_bytes });
        }
        if first.is_empty() {
            return Err(SpecError::Path(kind));
        }
        if kind == "nbd" {
            let uri = text.split(',').next().unwrap_or_default().parse()?;
            let mut intent = Intent::Write;
            for option in parts {
                match option {
                    "read-only" => intent = Intent::Read,
                    other => return Err(wrong(other)),
                }
            }
            return Ok(Self::Nbd { uri, intent });
        }
        let (mut intent, mut create) = (Intent::Write, None);
        for option in parts {
            match (kind, option.strip_prefix("create=")) {
                (_, None) if option == "read-only" => intent = Intent::Read,
                ("file", Some(size)) => create = Some(read_size(size)?),
                _ => return Err(wrong(option)),
            }
        }
        Ok(Self::File { path: first.into(), intent, create })
    }
}

impl StoreSpec {
    /// Opens it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self) -> Result<Box<dyn Store>, OpenError> {
        Ok(match self {
            Self::Memory { bytes, block_bytes } => {
                Box::new(MemoryStore::new(*bytes, *block_bytes)?)
            }
            Self::File { path, create: Some(bytes), .. } if !path.exists() => {
                Box::new(FileStore::create(path, *bytes)?)
            }
            Self::File { path, intent, .. } => Box::new(FileStore::open(path, *intent)?),
            Self::Nbd { uri, intent } => Box::new(NbdStore::open(uri, *intent, NBD_LIMIT)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_read_as_they_are_written() {
        let read = |text: &str| text.parse::<StoreSpec>().unwrap();
        let memory = |bytes, block_bytes| StoreSpec::Memory { bytes, block_bytes };
        assert_eq!(read("memory:64M"), memory(64 << 20, 512));
        assert_eq!(read("memory:4K,block=4096"), memory(4096, 4096));
        let file =
            |path: &str, intent, create| StoreSpec::File { path: path.into(), intent, create };
        assert_eq!(read("file:/a:b"), file("/a:b", Intent::Write, None));
        assert_eq!(read("file:a,create=1G"), file("a", Intent::Write, Some(1 << 30)));
        assert_eq!(read("disk:/dev/vdb,read-only"), file("/dev/vdb", Intent::Read, None));
        let nbd =
            |text: &str, intent| StoreSpec::Nbd { uri: text.parse().expect("a volume"), intent };
        let tcp = "nbd://192.0.2.1:1/a";
        assert_eq!(read(tcp), nbd(tcp, Intent::Write));
        let unix = "nbd+unix:///a?socket=/run/a";
        assert_eq!(read(&format!("{unix},read-only")), nbd(unix, Intent::Read));
    }

    #[test]
    fn what_is_no_store_is_told_apart() {
        let refused = |text: &str| text.parse::<StoreSpec>().unwrap_err().to_string();
        assert!(refused("ram").starts_with("`ram` is no store"));
        assert!(refused("ram:1M").starts_with("`ram:1M` is no store"));
        assert!(refused("memory:").starts_with("`` is no size"));
        assert!(refused("memory:-1").starts_with("`-1` is no size"));
        assert!(refused("memory:+1").starts_with("`+1` is no size"));
        assert!(refused("memory:16777216T").starts_with("`16777216T` is no size"));
        assert!(refused("memory:1M,read-only").starts_with("`read-only` is no option of memory"));
        assert!(refused("disk:/d,create=1M").starts_with("`create=1M` is no option of disk"));
        assert!(refused("nbd://192.0.2.1/a,create=1M").contains("is no option of nbd"));
        assert!(refused("nbd:192.0.2.1").starts_with("`nbd:192.0.2.1` is no volume"));
        assert_eq!(refused("file:"), "a path is missing behind `file:`");
    }

    #[test]
    fn a_file_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("file:{},create=64K", folder.path().join("a.img").display());
        let spec: StoreSpec = text.parse().unwrap();
        let mut store = spec.open().unwrap();
        store.write(0, &[7; 512], super::super::Safety::AtFlush).unwrap();
        drop(store);
        let mut back = [0; 512];
        spec.open().unwrap().read(0, &mut back).unwrap();
        assert_eq!(back, [7; 512]);
    }
}
