// SPDX-License-Identifier: MIT OR Apache-2.0
//! The entries of a layer's archive, with names that are fit to be used.
//!
//! The library that reads the format would take names of any length into memory, as long as an archive claims; so extensions
//! that carry names are read here, with a bound.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{bail, ensure, Context, Result};
use tar::{Archive, EntryType, Header, PaxExtensions};

/// The longest path, and the longest target of a link: PATH_MAX of Linux.
const PATH_MAX: usize = 4096;

/// The longest name of a file: NAME_MAX of Linux.
const NAME_MAX: usize = 255;

/// The most directories above each other.
const DEPTH_MAX: usize = 128;

/// The most bytes of an extension, which may hold attributes besides names.
const EXTENSION_MAX: u64 = 1 << 20;

/// A path within a root, free of `.`, `..` and empty names. The root itself has no names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Inner(Vec<OsString>);

impl Inner {
    /// Takes a path of an archive. One that begins at `/` is meant to begin at the root of the image.
    pub(super) fn parse(path: &[u8]) -> Result<Self> {
        let shown = || String::from_utf8_lossy(&path[..path.len().min(100)]).into_owned();
        ensure!(path.len() < PATH_MAX, "the path {:?}… is too long", shown());
        ensure!(!path.contains(&0), "the path {:?} has a byte 0", shown());
        let mut names = Vec::new();
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => {}
                b".." => bail!("the path {:?} leads upwards", shown()),
                name => {
                    ensure!(name.len() <= NAME_MAX, "a name in {:?}… is too long", shown());
                    names.push(OsString::from_vec(name.to_vec()));
                }
            }
        }
        ensure!(names.len() <= DEPTH_MAX, "the path {:?}… is too deep", shown());
        Ok(Self(names))
    }

    /// The directory it is in and its name there, or none for the root itself.
    pub(super) fn split(&self) -> Option<(Self, &OsStr)> {
        let (name, directory) = self.0.split_last()?;
        Some((Self(directory.to_vec()), name))
    }

    /// The path down to each directory of it, from the top.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = Self> + '_ {
        (1..=self.0.len()).map(|length| Self(self.0[..length].to_vec()))
    }

    /// As the kernel is told, relative to the root.
    pub(super) fn to_path(&self) -> OsString {
        if self.0.is_empty() {
            return OsString::from(".");
        }
        self.0.join(OsStr::new("/"))
    }
}

/// What an entry makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File {
        size: u64,
    },
    Directory,
    Symlink(OsString),
    Hardlink(Inner),
    Pipe,
    /// Containers have the devices that the runtime makes, and no others.
    Device,
}

/// An entry, without the content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: Inner,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) time: u64,
}

/// What extensions said of the entry to come.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
}

/// Gives each entry, with its content, to `visit`.
///
/// # Errors
/// When the archive is damaged, an entry is not allowed, or `visit` fails.
pub(super) fn each(
    archive: impl Read,
    mut visit: impl FnMut(Entry, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut archive = Archive::new(archive);
    let mut extended = Extended::default();
    for entry in archive.entries().context("reading a layer")?.raw(true) {
        let mut entry = entry.context("reading a layer: its archive is damaged")?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extended.path = Some(name_of(&mut entry)?),
            EntryType::GNULongLink => extended.link = Some(name_of(&mut entry)?),
            EntryType::XHeader => extended.read(&bounded(&mut entry)?)?,
            // Nothing that is used here could be in one.
            EntryType::XGlobalHeader => {}
            _ => {
                let said = std::mem::take(&mut extended);
                let plain = plain(entry.header(), said)?;
                visit(plain, &mut entry)?;
            }
        }
    }
    Ok(())
}

fn bounded(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(EXTENSION_MAX + 1).read_to_end(&mut bytes).context("reading a layer's extension")?;
    ensure!(bytes.len() as u64 <= EXTENSION_MAX, "reading a layer: an extension is too long");
    Ok(bytes)
}

/// The content of an entry that holds a name, which ends with a byte 0.
fn name_of(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut bytes = bounded(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

impl Extended {
    /// Takes the records of POSIX's extended header.
    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        for record in PaxExtensions::new(bytes) {
            let record = record.context("reading a layer: an extension is damaged")?;
            let number = || {
                let text = record.value().context("reading a layer: a number is none")?;
                text.parse::<u64>()
                    .with_context(|| format!("reading a layer: {text:?} is no number"))
            };
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_vec()),
                b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                // The entry to come would not end where its own header says.
                b"size" => bail!("reading a layer: a file of 8 GiB or more is too large"),
                key if key.starts_with(b"GNU.sparse.") => {
                    bail!("reading a layer: it has a sparse file; pack the image without")
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn plain(header: &Header, said: Extended) -> Result<Entry> {
    let path = said.path.unwrap_or_else(|| header.path_bytes().into_owned());
    let target = || -> Result<Vec<u8>> {
        let link =
            said.link.clone().or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        link.context("a link has no target")
    };
    let entry = || -> Result<Entry> {
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous => Kind::File { size: header.entry_size()? },
            EntryType::Directory => Kind::Directory,
            EntryType::Link => Kind::Hardlink(Inner::parse(&target()?)?),
            EntryType::Symlink => {
                let target = target()?;
                ensure!(
                    !target.is_empty() && target.len() < PATH_MAX && !target.contains(&0),
                    "its target cannot be one"
                );
                Kind::Symlink(OsString::from_vec(target))
            }
            EntryType::Fifo => Kind::Pipe,
            EntryType::Char | EntryType::Block => Kind::Device,
            other => bail!("entries of type {:?} are not understood", char::from(other.as_byte())),
        };
        let id = |said: Option<u64>, own: u64| {
            let id = said.unwrap_or(own);
            u32::try_from(id).ok().filter(|id| *id < IDS).with_context(|| {
                format!("it belongs to {id}, and containers have ids below {IDS} only")
            })
        };
        Ok(Entry {
            path: Inner::parse(&path)?,
            kind,
            mode: header.mode()? & 0o7777,
            uid: id(said.uid, header.uid()?)?,
            gid: id(said.gid, header.gid()?)?,
            time: header.mtime()?,
        })
    };
    let shown = OsStr::from_bytes(&path[..path.len().min(200)]);
    entry().with_context(|| format!("unpacking {}", shown.display()))
}

/// Files of an image belong to ids that every container has.
const IDS: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        let path = |text: &str| Inner::parse(text.as_bytes());
        assert_eq!(path("./usr//bin/.").unwrap().to_path(), "usr/bin");
        assert_eq!(path("/etc").unwrap().to_path(), "etc");
        assert_eq!(path("./").unwrap(), Inner::default());
        assert_eq!(path("").unwrap().to_path(), ".");
        for bad in ["..", "a/../b", "a/..", "a\0b"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        assert!(path("..a").is_ok());
        assert!(path(&"a".repeat(255)).is_ok());
        assert!(path(&"a".repeat(256)).is_err());
        assert!(path(&"a/".repeat(DEPTH_MAX)).is_ok());
        assert!(path(&"a/".repeat(DEPTH_MAX + 1)).is_err());
    }

    #[test]
    fn prefixes_go_down() {
        let path = Inner::parse(b"a/b/c").unwrap();
        let prefixes: Vec<_> = path.prefixes().map(|prefix| prefix.to_path()).collect();
        assert_eq!(prefixes, ["a", "a/b", "a/b/c"]);
        let (directory, name) = path.split().unwrap();
        assert_eq!((directory.to_path(), name), ("a/b".into(), OsStr::new("c")));
        assert!(Inner::default().split().is_none());
    }

    #[test]
    fn a_name_without_end_is_not_read_to_its_end() {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 33);
        header.set_path("././@LongLink").unwrap();
        header.set_cksum();
        let endless = header.as_bytes().as_slice().chain(std::io::repeat(b'a'));
        let error = each(endless, |_, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error:#}");
    }
}
