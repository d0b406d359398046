// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod keys;

use std::io::{self, Read};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

pub use keys::{KeyError, PublicKey, SigningKey, TrustedKeys};

const MAGIC: [u8; 8] = *b"DVSBUNDL";
/// The version of the format.
pub const FORMAT: u32 = 1;
/// Most bytes of a manifest.
pub const MANIFEST_BYTES_MAX: usize = 65_536;
/// Bytes before the manifest.
const HEAD: usize = 16;
const SIGNATURE: usize = 64;

/// What a bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What a node says that runs it: its version, `+`, and what tells builds apart.
    pub release: String,
    /// For which processors, as `uname -m` says it.
    pub architecture: String,
    /// The unified kernel image.
    pub image: Part,
}

/// A part of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in hexadecimal digits.
    pub sha256: String,
}

/// Why a file is no bundle that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read.
    #[error("read the bundle: {0}")]
    Io(#[from] io::Error),
    /// It is another file, or damaged.
    #[error("it is no upgrade bundle: {0}")]
    Malformed(String),
    /// It is of a later release.
    #[error("the bundle has format {0}, and this release knows format {FORMAT} only; upgrade to a release between the two first")]
    Format(u32),
    /// Nobody who is trusted has signed it.
    #[error("no key that is trusted here has signed the bundle; make it with the key that belongs to the image that the nodes run")]
    Untrusted,
    /// What follows the signature is not what was signed.
    #[error("the image in the bundle is damaged: {0}; copy the bundle again")]
    Damaged(String),
    /// It is for other machines.
    #[error("the bundle is for {found}, and this machine is {own}")]
    Architecture {
        /// Of the bundle.
        found: String,
        /// Of the machine.
        own: String,
    },
}

fn malformed(what: impl Into<String>) -> BundleError {
    BundleError::Malformed(what.into())
}

/// SHA-256 in hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes a bundle of an image.
///
/// # Errors
/// [`BundleError::Malformed`] when there is more to say of it than a manifest may hold.
pub fn write(
    release: &str,
    architecture: &str,
    image: &[u8],
    key: &SigningKey,
) -> Result<Vec<u8>, BundleError> {
    let manifest = Manifest {
        release: release.to_owned(),
        architecture: architecture.to_owned(),
        image: Part {
            bytes: image.len() as u64,
            sha256: hex(ring::digest::digest(&SHA256, image).as_ref()),
        },
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|error| malformed(error.to_string()))?;
    let length = u32::try_from(manifest.len()).ok();
    let length = length.filter(|length| *length as usize <= MANIFEST_BYTES_MAX);
    let length = length.ok_or_else(|| malformed("its manifest would be too long"))?;
    let mut bytes = Vec::with_capacity(HEAD + manifest.len() + SIGNATURE + image.len());
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(manifest);
    let signature = key.sign(&bytes);
    bytes.extend(signature);
    bytes.extend(image);
    Ok(bytes)
}

/// Reads what a bundle is, if it is signed by a key that is trusted. The image follows in `file`, unread.
///
/// # Errors
/// [`BundleError`].
pub fn open(file: &mut impl Read, trusted: &TrustedKeys) -> Result<Manifest, BundleError> {
    let mut signed = vec![0; HEAD];
    exact(file, &mut signed, "it is shorter than its head")?;
    let number = |at: usize| {
        let bytes = signed.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().map_or(0, u32::from_le_bytes)
    };
    if !signed.starts_with(&MAGIC) {
        return Err(malformed("it begins with something else"));
    }
    let (format, length) = (number(8), number(12) as usize);
    if format != FORMAT {
        return Err(BundleError::Format(format));
    }
    if length > MANIFEST_BYTES_MAX {
        return Err(malformed(format!("its manifest would have {length} bytes")));
    }
    signed.resize(HEAD + length, 0);
    exact(file, &mut signed[HEAD..], "it ends within its manifest")?;
    let mut signature = [0; SIGNATURE];
    exact(file, &mut signature, "it ends within its signature")?;
    if !trusted.have_signed(&signed, &signature) {
        return Err(BundleError::Untrusted);
    }
    // Nothing is believed before that.
    serde_json::from_slice(&signed[HEAD..]).map_err(|error| malformed(format!("manifest: {error}")))
}

fn exact(file: &mut impl Read, into: &mut [u8], short: &str) -> Result<(), BundleError> {
    file.read_exact(into).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => malformed(short),
        _ => error.into(),
    })
}

/// Reads a bundle to its end, and gives its image to `take` piece by piece. What was taken may be used only after this has returned without an
/// error.
///
/// # Errors
/// [`BundleError`], or what `take` could not do.
pub fn verify(
    file: &mut impl Read,
    trusted: &TrustedKeys,
    own_architecture: &str,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Manifest, BundleError> {
    let manifest = open(file, trusted)?;
    if manifest.architecture != own_architecture {
        let (found, own) = (manifest.architecture, own_architecture.to_owned());
        return Err(BundleError::Architecture { found, own });
    }
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 65_536];
    let mut bytes = 0u64;
    loop {
        let length = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        bytes += length as u64;
        if bytes > manifest.image.bytes {
            let text = format!("it has more than {} bytes", manifest.image.bytes);
            return Err(BundleError::Damaged(text));
        }
        context.update(&buffer[..length]);
        take(&buffer[..length])?;
    }
    if bytes != manifest.image.bytes {
        let text = format!("it has {bytes} bytes of {}", manifest.image.bytes);
        return Err(BundleError::Damaged(text));
    }
    if hex(context.finish().as_ref()) != manifest.image.sha256 {
        return Err(BundleError::Damaged("its SHA-256 is another one".into()));
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RELEASE: &str = "0.2.0+0123456789ab";

    fn made(image: &[u8]) -> (Vec<u8>, TrustedKeys) {
        let key = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::parse(&key.public().to_string()).unwrap();
        (write(RELEASE, "x86_64", image, &key).unwrap(), trusted)
    }

    fn read(bytes: &[u8], trusted: &TrustedKeys) -> Result<(Manifest, Vec<u8>), BundleError> {
        let mut image = Vec::new();
        let manifest = verify(&mut &*bytes, trusted, "x86_64", |piece| {
            image.extend(piece);
            Ok(())
        })?;
        Ok((manifest, image))
    }

    #[test]
    fn what_was_written_is_read() {
        let image: Vec<u8> = (0..200_000u32).map(|n| (n >> 3) as u8).collect();
        let (bytes, trusted) = made(&image);
        let (manifest, read) = read(&bytes, &trusted).unwrap();
        assert_eq!((manifest.release.as_str(), manifest.image.bytes), (RELEASE, 200_000));
        assert!(read == image);
    }

    #[test]
    fn nothing_is_taken_from_strangers() {
        let (bytes, _) = made(b"image");
        let (_, others) = made(b"");
        assert!(matches!(read(&bytes, &others), Err(BundleError::Untrusted)));
        assert!(matches!(read(&bytes, &TrustedKeys::default()), Err(BundleError::Untrusted)));
    }

    #[test]
    fn other_machines_and_formats_are_told_apart() {
        let key = SigningKey::generate().unwrap();
        let trusted = TrustedKeys::parse(&key.public().to_string()).unwrap();
        let bytes = write(RELEASE, "aarch64", b"image", &key).unwrap();
        let error = read(&bytes, &trusted).unwrap_err().to_string();
        assert_eq!(error, "the bundle is for aarch64, and this machine is x86_64");
        let (mut bytes, trusted) = made(b"image");
        bytes[8] = 2;
        assert!(matches!(read(&bytes, &trusted), Err(BundleError::Format(2))));
        let error = read(b"PK\x03\x04 is another kind of file", &trusted).unwrap_err().to_string();
        assert_eq!(error, "it is no upgrade bundle: it begins with something else");
        let error = read(b"DVS", &trusted).unwrap_err().to_string();
        assert_eq!(error, "it is no upgrade bundle: it is shorter than its head");
    }

    #[test]
    fn an_image_that_is_damaged_cut_or_longer_is_refused() {
        let (bytes, trusted) = made(b"the image of a node");
        let mut longer = bytes.clone();
        longer.push(0);
        let mut other = bytes.clone();
        *other.last_mut().unwrap() ^= 1;
        for bytes in [&longer[..], &other, &bytes[..bytes.len() - 1]] {
            assert!(matches!(read(bytes, &trusted), Err(BundleError::Damaged(_))));
        }
    }

    #[test]
    fn what_cannot_be_taken_is_told() {
        let (bytes, trusted) = made(b"image");
        let full = |_: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
        let error = verify(&mut &*bytes, &trusted, "x86_64", full).unwrap_err();
        assert!(error.to_string().starts_with("read the bundle: "), "{error}");
    }

    proptest! {
        #[test]
        fn no_change_of_a_byte_goes_unnoticed(at: prop::sample::Index, bit in 0u32..8) {
            let (mut bytes, trusted) = made(b"the image of a node");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(read(&bytes, &trusted).is_err(), "byte {at}");
        }

        #[test]
        fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), whole: bool) {
            let (_, trusted) = made(b"");
            let head = [&MAGIC[..], &1u32.to_le_bytes()].concat();
            let bytes = if whole { [head, bytes].concat() } else { bytes };
            prop_assert!(read(&bytes, &trusted).is_err());
        }
    }
}
