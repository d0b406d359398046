// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames of the stream.

use crate::tree::{About, Error, Top, PERMISSIONS};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// The most bytes that a frame has behind its header. No path is longer.
pub(crate) const PAYLOAD_MAX: usize = 64 << 10;
/// The tag and the length.
pub(crate) const HEADER: usize = 5;
/// Bytes of a digest.
pub(crate) const DIGEST: usize = 32;

/// What a stream begins with, behind the first header: that it is one, and its version.
const MAGIC: &[u8; 8] = b"dvstree1";
/// In place of a number of bytes that is not known.
const UNKNOWN: u64 = u64::MAX;

const BEGIN: u8 = 1;
const DIRECTORY: u8 = 2;
const FILE: u8 = 3;
const LINK: u8 = 4;
/// A part of the content of a file.
pub(crate) const DATA: u8 = 5;
/// The end of a file, with the digest of all that came before.
pub(crate) const END_OF_FILE: u8 = 6;
/// The end, likewise.
pub(crate) const END: u8 = 7;

/// A frame, but for those with content or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Begin(Top),
    Directory(PathBuf, About),
    File(PathBuf, About),
    Link(PathBuf, PathBuf),
}

impl Frame {
    /// Its tag and what is behind the header.
    pub(crate) fn encode(&self) -> (u8, Vec<u8>) {
        let with = |about: &About, path: &Path| {
            let mode = about.mode.to_le_bytes();
            let time = about.modified_s.to_le_bytes();
            [&mode[..], &time, path.as_os_str().as_bytes()].concat()
        };
        match self {
            Self::Begin(top) => {
                let bytes = top.bytes.unwrap_or(UNKNOWN).to_le_bytes();
                let name = top.name.as_ref().map_or(&b""[..], |name| name.as_bytes());
                (BEGIN, [&MAGIC[..], &bytes, name].concat())
            }
            Self::Directory(path, about) => (DIRECTORY, with(about, path)),
            Self::File(path, about) => (FILE, with(about, path)),
            Self::Link(path, to) => {
                let (path, to) = (path.as_os_str().as_bytes(), to.as_os_str().as_bytes());
                // Neither can have a zero in it.
                (LINK, [path, b"\0", to].concat())
            }
        }
    }

    pub(crate) fn decode(tag: u8, payload: &[u8]) -> Result<Self, Error> {
        let strange = |what: &str| Error::Strange(format!("a frame of tag {tag} {what}"));
        let entry = || {
            let (mode, rest) =
                payload.split_first_chunk().ok_or_else(|| strange("is too short"))?;
            let (time, path) = rest.split_first_chunk().ok_or_else(|| strange("is too short"))?;
            let mode = u32::from_le_bytes(*mode) & PERMISSIONS;
            Ok((path_of(path)?, About { mode, modified_s: u64::from_le_bytes(*time) }))
        };
        match tag {
            BEGIN => {
                let rest = payload.strip_prefix(MAGIC);
                let rest = rest.ok_or_else(|| strange("is not of this version"))?;
                let (bytes, name) =
                    rest.split_first_chunk().ok_or_else(|| strange("is too short"))?;
                let bytes = Some(u64::from_le_bytes(*bytes)).filter(|bytes| *bytes != UNKNOWN);
                let name = Some(name).filter(|name| !name.is_empty());
                let name = name.map(path_of).transpose()?.map(PathBuf::into_os_string);
                if name.as_ref().is_some_and(|name| Path::new(name).components().count() != 1) {
                    return Err(strange("has a name that is none"));
                }
                Ok(Self::Begin(Top { name, bytes }))
            }
            DIRECTORY => entry().map(|(path, about)| Self::Directory(path, about)),
            FILE => entry().map(|(path, about)| Self::File(path, about)),
            LINK => {
                let zero = payload.iter().position(|byte| *byte == 0);
                let zero = zero.ok_or_else(|| strange("has no path for a link"))?;
                let to = &payload[zero + 1..];
                if to.is_empty() || to.contains(&0) {
                    return Err(strange("has a path for a link that is none"));
                }
                let to = PathBuf::from(OsString::from_vec(to.to_vec()));
                Ok(Self::Link(path_of(&payload[..zero])?, to))
            }
            _ => Err(Error::Strange(format!("the tag {tag} is not known or out of place"))),
        }
    }
}

/// A path that leads nowhere but further down.
fn path_of(bytes: &[u8]) -> Result<PathBuf, Error> {
    let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
    let is_down = path.components().all(|part| matches!(part, Component::Normal(_)));
    match is_down && !bytes.contains(&0) {
        // As written, so that a path of its components is the same one.
        true => Ok(path.components().collect()),
        false => Err(Error::Strange(format!("{path:?} is no path within a tree"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        let path = || {
            prop::collection::vec("[a-zA-Z.]{3,9}", 0..4).prop_map(|names| names.iter().collect())
        };
        let about =
            (0..=0o777_u32, any::<u64>()).prop_map(|(mode, modified_s)| About { mode, modified_s });
        prop_oneof![
            (prop::option::of("[a-z]{1,9}"), prop::option::of(0..u64::MAX))
                .prop_map(|(name, bytes)| Frame::Begin(Top { name: name.map(Into::into), bytes })),
            (path(), about.clone()).prop_map(|(path, about)| Frame::Directory(path, about)),
            (path(), about).prop_map(|(path, about)| Frame::File(path, about)),
            (path(), "[a-z./]{1,9}").prop_map(|(path, to)| Frame::Link(path, to.into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frame in frame()) {
            let (tag, payload) = frame.encode();
            prop_assert_eq!(Frame::decode(tag, &payload).unwrap(), frame);
        }

        #[test]
        fn any_bytes_are_read_or_refused(tag in any::<u8>(), payload in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = Frame::decode(tag, &payload);
        }
    }

    #[test]
    fn no_path_leads_out_of_the_tree() {
        for path in ["/etc/passwd", "..", "a/../../b", "./a", "a\0b"] {
            assert!(path_of(path.as_bytes()).is_err(), "{path:?}");
        }
        assert_eq!(path_of(b"a//b/").unwrap(), Path::new("a/b"));
        let (tag, payload) = Frame::Begin(Top { name: Some("a/b".into()), bytes: None }).encode();
        assert!(Frame::decode(tag, &payload).is_err());
    }
}
