// SPDX-License-Identifier: MIT OR Apache-2.0
//! The image that machines are booted from, as this node has it: a file in memory, of which all that is served is a part.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dvs_image::uki;
use dvs_netboot::files::{script, Content, Files, INITRAMFS, IPXE_BIOS, LINUX, SCRIPT, UNIFIED};

use crate::machine;
use crate::release;

/// How many of the first bytes of an image have all of its headers.
const HEAD: u64 = 4096;
/// The longest command line and the like that is believed.
const TEXT_MAX: u64 = 4096;
/// Bytes of memory that a node that keeps an image has left for everything else.
const RESERVE: u64 = 16 << 20;
/// Where an image is while this node copies its own, and while somebody hands one over: both may be going on.
pub(super) const COPIED: &str = "copied";
pub(super) const RECEIVED: &str = "received";
/// The same while it copies its own to a disk.
pub(super) const INSTALLED: &str = "installed";

/// An image.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// What it is.
    pub(super) release: String,
    /// Its size.
    pub(super) bytes: u64,
    file: Arc<File>,
    head: Vec<u8>,
    command_line: String,
    linux: std::ops::Range<u64>,
    initramfs: std::ops::Range<u64>,
}

impl Image {
    /// The unified kernel image that a file is.
    ///
    /// # Errors
    /// For people: why it is none.
    pub(super) fn of(file: File) -> Result<Self, String> {
        let none = |why: String| format!("it is no image of a node: {why}");
        let unreadable = |error: io::Error| format!("read the image: {error}");
        let bytes = file.metadata().map_err(unreadable)?.len();
        let mut head = vec![0; HEAD.min(bytes) as usize];
        file.read_exact_at(&mut head, 0).map_err(unreadable)?;
        let part = |name: &str| {
            let found = uki::position_in(&head, bytes, name).map_err(|it| none(it.to_string()))?;
            let found = found.filter(|range| !range.is_empty());
            found.ok_or_else(|| none(format!("it has no section `{name}`")))
        };
        let text = |name: &str| {
            let range = part(name)?;
            if range.end - range.start > TEXT_MAX {
                return Err(none(format!("its section `{name}` is too long")));
            }
            let mut text = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut text, range.start).map_err(unreadable)?;
            let text = String::from_utf8(text)
                .map_err(|_| none(format!("its section `{name}` is no text")))?;
            Ok(text.trim_matches(['\0', '\n', ' ']).to_owned())
        };
        let release = release::of_image(&text(".osrel")?);
        let release = release.ok_or_else(|| none("it does not say which release it is".into()))?;
        let command_line = text(".cmdline")?;
        let (linux, initramfs) = (part(".linux")?, part(".initrd")?);
        Ok(Self { release, bytes, file: Arc::new(file), head, command_line, linux, initramfs })
    }

    /// All of it.
    ///
    /// # Errors
    /// For people: when it cannot be read.
    pub(super) fn content(&self) -> Result<Vec<u8>, String> {
        let mut content = vec![0; self.bytes as usize];
        let read = self.file.read_exact_at(&mut content, 0);
        read.map_err(|error| format!("read the image: {error}"))?;
        Ok(content)
    }

    /// What machines are served: with more kernel arguments, and iPXE for those with a BIOS that have none, if it is at hand.
    ///
    /// # Errors
    /// For people: when its headers cannot be changed.
    pub(super) fn files(&self, append: &str, ipxe: Option<Vec<u8>>) -> Result<Files, String> {
        let command_line = [self.command_line.as_str(), append].join(" ");
        let command_line = command_line.trim();
        let mut files = Files::default();
        files.add(LINUX, Content::part(&self.file, self.linux.clone()));
        files.add(INITRAMFS, Content::part(&self.file, self.initramfs.clone()));
        files.add(SCRIPT, Content::of(script(command_line).into_bytes()));
        // UEFI firmware hands no arguments over, so they have to be in the program.
        let mut head = self.head.clone();
        let tail = uki::replace(&mut head, self.bytes, ".cmdline", command_line.as_bytes())
            .map_err(|error| format!("add kernel arguments to the image: {error}"))?;
        let rest = Content::part(&self.file, head.len() as u64..self.bytes);
        files.add(UNIFIED, Content::of(head).then(rest).then(Content::of(tail)));
        if let Some(ipxe) = ipxe {
            files.add(IPXE_BIOS, Content::of(ipxe));
        }
        Ok(files)
    }
}

/// Where the image is kept, and where it is from.
#[derive(Clone, Debug)]
pub(super) struct Shelf(PathBuf);

impl Shelf {
    const IMAGE: &str = "dvs.efi";
    const ORIGIN: &str = "origin";

    pub(super) fn new(directory: &Path) -> Self {
        Self(directory.join("netboot"))
    }

    fn failed(&self, attempt: &str) -> impl Fn(io::Error) -> String {
        let text = format!("{attempt} {}", self.0.display());
        move |error| format!("{text}: {error}")
    }

    /// The image that is kept, and where it is from.
    pub(super) fn image(&self) -> Result<Option<(Image, String)>, String> {
        let file = match File::open(self.0.join(Self::IMAGE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("open the image in")(error)),
        };
        let origin = fs::read_to_string(self.0.join(Self::ORIGIN)).unwrap_or_default();
        Ok(Some((Image::of(file)?, origin)))
    }

    /// A place for another one: an empty file.
    pub(super) fn begin(&self, name: &str) -> Result<(PathBuf, File), String> {
        let path = self.0.join(name);
        let make = || {
            fs::create_dir_all(&self.0)?;
            File::options().read(true).write(true).create(true).truncate(true).open(&path)
        };
        Ok((path.clone(), make().map_err(self.failed("keep an image in"))?))
    }

    /// Keeps what was written there, in place of the one before, which whoever serves it has for as long.
    pub(super) fn finish(&self, partial: &Path, origin: &str) -> Result<(), String> {
        let keep = || {
            fs::write(self.0.join(Self::ORIGIN), origin)?;
            fs::rename(partial, self.0.join(Self::IMAGE))
        };
        keep().map_err(self.failed("keep an image in"))
    }

    /// Frees the memory that the image takes, once nobody serves it any more.
    pub(super) fn clear(&self) -> Result<(), String> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.failed("remove the image in")(error))
            }
            _ => Ok(()),
        }
    }

    /// Bytes of the memory that the node has for an image.
    pub(super) fn room() -> u64 {
        machine::usage(Path::new(machine::PROC)).memory_available_bytes.saturating_sub(RESERVE)
    }
}

/// Copies an image of so many bytes to the shelf.
pub(super) fn copy(from: impl Read, bytes: u64, to: &mut File) -> io::Result<()> {
    let room = Shelf::room();
    if bytes > room {
        let text = format!("it has {bytes} bytes, and this node has {room} bytes of memory for it");
        return Err(io::Error::new(io::ErrorKind::StorageFull, text));
    }
    io::copy(&mut from.take(bytes), to).map(drop)
}

#[cfg(test)]
pub(super) mod tests {
    use dvs_image::uki::Section;

    use super::*;

    /// An image of a release.
    pub(crate) fn sample(release: &str) -> Vec<u8> {
        let osrel = format!("ID=dvs\nPRETTY_NAME=\"dvs {release}\"\n");
        let sections = [
            Section { name: ".osrel", content: osrel.as_bytes() },
            Section { name: ".cmdline", content: b"quiet panic=10\n" },
            Section { name: ".initrd", content: &[8; 3000] },
            Section { name: ".linux", content: &[7; 5000] },
        ];
        uki::build(&uki::sample_stub_for(sections.len()), &sections).unwrap()
    }

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, content).unwrap();
        file
    }

    #[test]
    fn what_is_served_is_parts_of_the_image() {
        let content = sample("1.0.0+a");
        let image = Image::of(file(&content)).unwrap();
        assert_eq!((image.release.as_str(), image.bytes), ("1.0.0+a", content.len() as u64));
        let files = image.files("dvs.cluster.name=lab", Some(vec![9])).unwrap();
        let read = |name: &str| files.get(name).unwrap().read(0..u64::MAX).unwrap();
        assert_eq!(read(LINUX), [7; 5000]);
        assert_eq!(read(INITRAMFS), [8; 3000]);
        assert_eq!(read(IPXE_BIOS), [9]);
        let line = "quiet panic=10 dvs.cluster.name=lab";
        let text = String::from_utf8(read(SCRIPT)).unwrap();
        assert!(text.contains(&format!("kernel linux {line}\n")), "{text}");
        let program = read(UNIFIED);
        assert_eq!(uki::section(&program, ".cmdline").unwrap(), Some(line.as_bytes()));
        assert_eq!(uki::section(&program, ".linux").unwrap(), Some(&[7; 5000][..]));
        assert!(image.files("", None).unwrap().get(IPXE_BIOS).is_none());
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let whole = sample("1.0.0+a");
        for content in [&b""[..], b"MZ", &[0; 9000], &whole[..whole.len() - 3000]] {
            let error = Image::of(file(content)).unwrap_err();
            assert!(error.starts_with("it is no image of a node: "), "{error}");
        }
        let other = sample("1.0.0+a");
        let at = other.windows(4).position(|bytes| bytes == b"dvs ").unwrap();
        let other = [&other[..at], b"xyz ", &other[at + 4..]].concat();
        assert!(Image::of(file(&other)).unwrap_err().contains("which release"));
    }

    #[test]
    fn an_image_is_kept_whole_until_it_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(directory.path());
        assert!(shelf.image().unwrap().is_none());
        shelf.clear().unwrap();
        for release in ["1.0.0+a", "2.0.0+b"] {
            let (partial, mut to) = shelf.begin("partial").unwrap();
            let image = sample(release);
            copy(&image[..], image.len() as u64, &mut to).unwrap();
            shelf.finish(&partial, "a stick").unwrap();
            let (image, origin) = shelf.image().unwrap().unwrap();
            assert_eq!((image.release.as_str(), origin.as_str()), (release, "a stick"));
        }
        let (image, _) = shelf.image().unwrap().unwrap();
        shelf.clear().unwrap();
        assert!(shelf.image().unwrap().is_none());
        // Whoever serves it goes on until it stops.
        let read = image.files("", None).unwrap().get(LINUX).unwrap().read(0..9).unwrap();
        assert_eq!(read, [7; 9]);
    }
}
