// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which file a request is for: the path of its target (RFC 9110, section 4.2.3, and RFC 3986).

use core::fmt;
use percent_encoding::{percent_encode, AsciiSet, NON_ALPHANUMERIC};

/// Longer paths are refused before anything is made of them.
pub const PATH_MAX: usize = 4096;

/// What stands for itself in a path: the unreserved characters of RFC 3986. A name with `:` could otherwise be read as a
/// scheme, where it stands alone in a link.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path of a request, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The names from the root on. None is empty, `.` or `..`, or has a `/` or a zero byte in it.
    names: Vec<Vec<u8>>,
    /// Whether it ends with `/`, as those of directories do.
    pub is_directory: bool,
}

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// It is longer than [`PATH_MAX`].
    TooLong,
    /// It does not begin with `/`.
    Relative,
    /// A `%` without two hexadecimal digits behind it.
    Encoding,
    /// A name that no file has: one with a `/` or a zero byte in it.
    Name,
    /// A `..`. Whoever follows links has resolved it before asking.
    Upwards,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "the path is longer than 4096 bytes",
            Self::Relative => "the path does not begin with `/`",
            Self::Encoding => "in the path there is a `%` without two hexadecimal digits behind it",
            Self::Name => "the path has a name with a `/` or a zero byte in it",
            Self::Upwards => "the path has `..` in it",
        })
    }
}

impl core::error::Error for TargetError {}

impl Target {
    /// Takes apart the path of a target, without its query. Names that are empty or `.` are left out.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(path: &str) -> Result<Self, TargetError> {
        if path.len() > PATH_MAX {
            return Err(TargetError::TooLong);
        }
        let rest = path.strip_prefix('/').ok_or(TargetError::Relative)?;
        let mut names = Vec::new();
        let mut is_directory = true;
        for part in rest.split('/') {
            let name = decode(part).ok_or(TargetError::Encoding)?;
            if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
                return Err(TargetError::Name);
            }
            is_directory = false;
            match &name[..] {
                b".." => return Err(TargetError::Upwards),
                b"" | b"." => is_directory = true,
                _ => names.push(name),
            }
        }
        Ok(Self { names, is_directory })
    }

    /// The path from the root on, without `/` at its ends: nothing for the root itself.
    pub fn path(&self) -> Vec<u8> {
        self.names.join(&b'/')
    }

    /// The last name.
    pub fn name(&self) -> &[u8] {
        self.names.last().map_or(b"", |name| name)
    }

    /// The path as an address that leads to the directory. It begins with exactly one `/`: with two, it would be another host's.
    pub fn address(&self) -> String {
        let names = self.names.iter().map(|name| format!("{}/", encode(name)));
        format!("/{}", names.collect::<String>())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.names.is_empty()
    }
}

/// A name as a part of an address.
pub fn encode(name: &[u8]) -> String {
    percent_encode(name, ENCODED).to_string()
}

/// The bytes that are meant, unless a `%` is alone.
fn decode(part: &str) -> Option<Vec<u8>> {
    let mut bytes = part.bytes();
    let mut decoded = Vec::with_capacity(part.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        decoded.push((high * 16 + low) as u8);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_is_its_names() {
        let parsed = |path| Target::parse(path).map(|target| (target.path(), target.is_directory));
        assert_eq!(parsed("/"), Ok((b"".to_vec(), true)));
        assert_eq!(parsed("/a/b%20c"), Ok((b"a/b c".to_vec(), false)));
        assert_eq!(parsed("//a/./b//"), Ok((b"a/b".to_vec(), true)));
        assert_eq!(parsed("/a/."), Ok((b"a".to_vec(), true)));
        assert_eq!(parsed("/%c3%A4+"), Ok(("ä+".as_bytes().to_vec(), false)));
        assert_eq!(parsed("/..."), Ok((b"...".to_vec(), false)));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        use TargetError::*;
        let long = "/".repeat(PATH_MAX + 1);
        for (path, error) in [
            (long.as_str(), TooLong),
            ("*", Relative),
            ("", Relative),
            ("/a/../b", Upwards),
            ("/..", Upwards),
            ("/%2e%2E/etc", Upwards),
            ("/.%2e", Upwards),
            ("/a%00", Name),
            ("/a%2fb", Name),
            ("/..%2f..", Name),
            ("/%", Encoding),
            ("/%4", Encoding),
            ("/%g0", Encoding),
            ("/%+1", Encoding),
        ] {
            assert_eq!(Target::parse(path), Err(error), "{path}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_no_name_leads_out(path in "[/.%02efEF5c\\\\a]{0,40}") {
            if let Ok(target) = Target::parse(&format!("/{path}")) {
                for name in &target.names {
                    prop_assert!(!name.is_empty() && name != b"." && name != b"..");
                    prop_assert!(!name.contains(&b'/') && !name.contains(&0));
                }
                prop_assert!(!target.address().starts_with("//"));
            }
        }

        #[test]
        fn an_address_leads_back(names in prop::collection::vec(
            prop::collection::vec(1..=255_u8, 1..20), 0..5,
        )) {
            let is_plain = |name: &[u8]| name != b"." && name != b".." && !name.contains(&b'/');
            prop_assume!(names.iter().all(|name| is_plain(name)));
            let target = Target { names, is_directory: true };
            prop_assert_eq!(Target::parse(&target.address()), Ok(target));
        }
    }
}
