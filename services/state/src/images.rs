// SPDX-License-Identifier: MIT OR Apache-2.0
//! Images of containers: which name stands for which archive. The archives themselves are on nodes, and not part of what is agreed on.
//! Since version 3.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::refusal::{Refusal, Thing};
use crate::time::Time;

/// Most images that have names.
pub const IMAGES_MAX: usize = 256;

/// SHA-256 of the archive that an image comes in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            // As they are printed, so that each has one way to be written.
            let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            let mut bytes = [0; 32];
            (plain && text.len() == 2 * bytes.len()).then_some(())?;
            for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
                *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
            }
            Some(Self(bytes))
        };
        parse().ok_or_else(|| format!("`{text}` is no SHA-256; it has 64 digits from 0 to f"))
    }
}

/// What is known of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Which archive it is.
    pub digest: Digest,
    /// Bytes of the archive.
    pub bytes: u64,
    /// When it was given this name.
    pub added: Time,
}

/// What can be done with images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Gives an archive a name, which may have stood for another one.
    Name {
        /// The name.
        name: String,
        /// SHA-256 of the archive.
        digest: Digest,
        /// Its size.
        bytes: u64,
    },
    /// Ends a name. Containers that were made by it keep their image.
    Forget {
        /// The name.
        name: String,
    },
}

/// Images by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images(BTreeMap<String, Image>);

impl Images {
    /// The image of a name.
    pub fn get(&self, name: &str) -> Option<&Image> {
        self.0.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Image)> + '_ {
        self.0.iter().map(|(name, image)| (name.as_str(), image))
    }

    /// Says whether that changed anything.
    pub(crate) fn apply(&mut self, now: Time, command: &Command) -> Result<bool, Refusal> {
        match command {
            Command::Name { name, digest, bytes } => {
                crate::check_name("an image", name)?;
                if self.0.get(name).is_some_and(|known| known.digest == *digest) {
                    return Ok(false);
                }
                if !self.0.contains_key(name) && self.0.len() >= IMAGES_MAX {
                    return Err(Refusal::limit("the number of images", IMAGES_MAX as u64));
                }
                let image = Image { digest: *digest, bytes: *bytes, added: now };
                self.0.insert(name.clone(), image);
                Ok(true)
            }
            Command::Forget { name } => match self.0.remove(name) {
                Some(_) => Ok(true),
                None => Err(Refusal::missing(Thing::Image, name)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_in_one_way() {
        let digest = Digest([0xa5; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for text in ["", &"a5".repeat(31), &"A5".repeat(32), &"g0".repeat(32), &"+5".repeat(32)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_stands_for_one_image_and_is_not_taken_twice() {
        let mut images = Images::default();
        let name = |name: &str, byte| Command::Name {
            name: name.into(),
            digest: Digest([byte; 32]),
            bytes: 1,
        };
        assert_eq!(images.apply(Time(1), &name("a", 1)), Ok(true));
        assert_eq!(images.apply(Time(2), &name("a", 1)), Ok(false));
        assert_eq!(images.get("a").unwrap().added, Time(1));
        assert_eq!(images.apply(Time(3), &name("a", 2)), Ok(true));
        assert_eq!(images.get("a").unwrap().digest, Digest([2; 32]));
        assert!(images.apply(Time(4), &name("", 2)).is_err());
        let forget = Command::Forget { name: "a".into() };
        assert_eq!(images.apply(Time(5), &forget), Ok(true));
        assert!(images.apply(Time(6), &forget).is_err());
    }

    #[test]
    fn there_are_only_so_many() {
        let mut images = Images::default();
        let name =
            |n: usize| Command::Name { name: n.to_string(), digest: Digest([1; 32]), bytes: 1 };
        for n in 0..IMAGES_MAX {
            images.apply(Time(0), &name(n)).unwrap();
        }
        assert!(images.apply(Time(0), &name(IMAGES_MAX)).is_err());
        assert_eq!(images.apply(Time(0), &name(0)), Ok(false), "that one is there");
    }
}
