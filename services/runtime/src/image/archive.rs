// SPDX-License-Identifier: MIT OR Apache-2.0
//! The archive that an image comes in: a tar file of an OCI layout, or of the older format of Docker, with the layers in it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Take};
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use flate2::bufread::MultiGzDecoder;
use serde::de::DeserializeOwned;
use tar::EntryType;

use super::bounds::{sha256, Bounds, Left, Watched};
use super::layer::Target;
use super::manifest::{Config, Defaults, Descriptor, Index, Manifest, OldManifest};

/// The longest document of an image.
const DOCUMENT_MAX: u64 = 4 << 20;

/// The most members of an archive; each layer is one.
const MEMBERS_MAX: usize = 4096;

/// How deep indexes may be within indexes.
const INDEXES_MAX: usize = 3;

/// An archive whose members are known.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    members: HashMap<String, Member>,
}

/// Where a member is in the file.
#[derive(Clone, Copy, Debug)]
struct Member {
    start: u64,
    size: u64,
}

/// An image that an archive holds.
#[derive(Debug)]
pub(super) struct Found {
    /// The digest that identifies it, in hexadecimal.
    pub(super) digest: String,
    config: Config,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    member: String,
    /// The digest of the member, where the archive says one.
    digest: Option<String>,
}

impl Found {
    pub(super) fn defaults(&self) -> Result<Defaults> {
        self.config.defaults()
    }
}

impl Archive {
    /// Opens an archive and lists its members.
    ///
    /// # Errors
    /// When it is no archive, or has members without end or twice.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file =
            File::open(path).with_context(|| format!("opening the image {}", path.display()))?;
        let members = list(&file)
            .with_context(|| format!("reading {}: it is no archive of an image", path.display()))?;
        Ok(Self { file, members })
    }

    /// The image in it.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub(super) fn image(&self, bounds: Bounds) -> Result<Found> {
        let found = if self.members.contains_key("index.json") {
            self.image_of_layout()?
        } else if self.members.contains_key("manifest.json") {
            self.image_of_old_format()?
        } else {
            bail!("reading the image: the archive has neither index.json nor manifest.json; pack it as oci-archive or docker-archive");
        };
        ensure!(
            found.layers.len() <= bounds.layers,
            "reading the image: it has {} layers, and may have {}",
            found.layers.len(),
            bounds.layers
        );
        Ok(found)
    }

    fn image_of_layout(&self) -> Result<Found> {
        let mut index: Index = parsed("index.json", &self.document("index.json")?)?;
        for _ in 0..INDEXES_MAX {
            let chosen = index.choose()?;
            let bytes = self.blob(chosen)?;
            if chosen.media_type.contains("image.index")
                || chosen.media_type.contains("manifest.list")
            {
                index = parsed(&chosen.digest, &bytes)?;
                continue;
            }
            let manifest: Manifest = parsed(&chosen.digest, &bytes)?;
            let config = parsed(&manifest.config.digest, &self.blob(&manifest.config)?)?;
            let layers: Result<_> = manifest.layers.iter().map(|layer| self.layer(layer)).collect();
            return Ok(Found { digest: chosen.sha256()?.to_owned(), config, layers: layers? });
        }
        bail!("reading the image: its indexes lead to indexes, {INDEXES_MAX} deep")
    }

    fn layer(&self, layer: &Descriptor) -> Result<Layer> {
        let digest = layer.sha256()?;
        let member = blob_path(digest);
        self.sized(&member, layer.size)?;
        Ok(Layer { member, digest: Some(digest.to_owned()) })
    }

    fn image_of_old_format(&self) -> Result<Found> {
        let mut images: Vec<OldManifest> =
            parsed("manifest.json", &self.document("manifest.json")?)?;
        let (Some(image), true) = (images.pop(), images.is_empty()) else {
            bail!("reading the image: the archive does not hold one image but another number; pack one");
        };
        let bytes = self.document(&image.config)?;
        let layer = |member| Layer { member, digest: None };
        Ok(Found {
            digest: sha256(&bytes),
            config: parsed(&image.config, &bytes)?,
            layers: image.layers.into_iter().map(layer).collect(),
        })
    }

    /// Unpacks the layers of an image, and sees to it that they are the ones that it says.
    ///
    /// # Errors
    /// When one is damaged, too large or not allowed. What was unpacked by then is not to be used.
    pub(super) fn unpack(&self, image: &Found, target: &mut Target, left: &mut Left) -> Result<()> {
        let plain_digests = image.config.layers(image.layers.len())?;
        for (layer, plain_digest) in image.layers.iter().zip(plain_digests) {
            let packed = Watched::new(self.reader(&layer.member)?, u64::MAX);
            let mut packed = BufReader::new(packed);
            let mut plain = Watched::new(unpacked(&mut packed)?, left.stream());
            target.unpack(&mut plain, left)?;
            let actual = plain.finish().context("reading the end of a layer")?;
            ensure!(
                actual == plain_digest,
                "checking a layer: its content is sha256:{actual}, and the image says sha256:{plain_digest}"
            );
            let actual = packed.into_inner().finish().context("reading the end of a layer")?;
            ensure!(
                layer.digest.as_ref().is_none_or(|digest| *digest == actual),
                "checking the layer {}: it is sha256:{actual}",
                layer.member
            );
        }
        Ok(())
    }

    /// A document that was promised by its digest.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let digest = descriptor.sha256()?;
        let path = blob_path(digest);
        self.sized(&path, descriptor.size)?;
        let bytes = self.document(&path)?;
        let actual = sha256(&bytes);
        ensure!(actual == digest, "checking {path}: it is sha256:{actual}");
        Ok(bytes)
    }

    fn sized(&self, member: &str, size: u64) -> Result<()> {
        let actual = self.member(member)?.size;
        ensure!(
            actual == size,
            "checking {member}: it has {actual} bytes, and {size} are said to be in it"
        );
        Ok(())
    }

    fn document(&self, member: &str) -> Result<Vec<u8>> {
        let size = self.member(member)?.size;
        ensure!(size <= DOCUMENT_MAX, "reading {member}: it is longer than any such document");
        let mut bytes = Vec::new();
        self.reader(member)?
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading {member} of the image"))?;
        Ok(bytes)
    }

    fn member(&self, name: &str) -> Result<Member> {
        let found = self.members.get(name.trim_start_matches("./")).copied();
        found.with_context(|| format!("reading the image: the archive has no {name}"))
    }

    fn reader(&self, name: &str) -> Result<Take<&File>> {
        let Member { start, size } = self.member(name)?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start)).with_context(|| format!("reading {name}"))?;
        Ok(file.take(size))
    }
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn parsed<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).with_context(|| format!("understanding {name} of the image"))
}

/// The regular members of an archive. Names that need an extension are longer than any that an image's documents can say.
fn list(file: &File) -> Result<HashMap<String, Member>> {
    let mut members = HashMap::new();
    let length = file.metadata().context("looking at the archive")?.len();
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries_with_seek()?.raw(true) {
        let entry = entry?;
        if !matches!(entry.header().entry_type(), EntryType::Regular | EntryType::Continuous) {
            continue;
        }
        let member =
            Member { start: entry.raw_file_position(), size: entry.header().entry_size()? };
        ensure!(
            member.start.checked_add(member.size).is_some_and(|end| end <= length),
            "the archive ends early"
        );
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        ensure!(members.len() < MEMBERS_MAX, "it has more than {MEMBERS_MAX} members");
        ensure!(members.insert(name.clone(), member).is_none(), "it has {name} twice");
    }
    ensure!(!members.is_empty(), "it has no members");
    Ok(members)
}

/// The content of a layer, which is compressed in one of the ways that images know, or not.
fn unpacked<'a, R: Read>(packed: &'a mut BufReader<R>) -> Result<Box<dyn Read + 'a>> {
    use std::io::BufRead as _;
    /// The most memory that a layer's compressor may ask for, as a power of two: what zstd asks for at its highest level.
    const WINDOW_LOG_MAX: u32 = 27;
    let start = packed.fill_buf().context("reading a layer")?;
    if start.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(MultiGzDecoder::new(packed)));
    }
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(packed).context("reading a layer")?;
        decoder.window_log_max(WINDOW_LOG_MAX).context("reading a layer")?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(packed))
}
