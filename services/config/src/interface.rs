// SPDX-License-Identifier: MIT OR Apache-2.0
//! Naming interfaces: by hardware address, or by a pattern for the kernel's name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::value::textual;

/// A hardware (MAC) address of an Ethernet interface. Displays as `52:54:00:12:34:56`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// The text is no MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no MAC address, expected six two-digit hexadecimal numbers joined by colons")]
pub struct ParseMacError(String);

impl Mac {
    /// Whether the address is a group address, or all zeroes: no interface has one.
    pub fn is_group_or_zero(self) -> bool {
        self.0[0] & 1 != 0 || self.0 == [0; 6]
    }

    fn as_text(self) -> String {
        self.to_string()
    }
}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let error = || ParseMacError(text.to_owned());
        let mut parts = text.split(':');
        let mut mac = [0; 6];
        for byte in &mut mac {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        match parts.next() {
            None => Ok(Self(mac)),
            Some(_) => Err(error()),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

textual!(Mac, ParseMacError);

/// Selects interfaces: one by its MAC address, or any whose name matches a pattern, in which `*`
/// stands for any characters and `?` for one. A text with a colon is a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum InterfaceSelector {
    /// The interface with this hardware address.
    Mac(Mac),
    /// The interfaces whose names match this pattern.
    Name(NamePattern),
}

/// What an interface is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InterfaceKind {
    /// Hardware, also that of a virtual machine. Its address is the one that it came with, whatever it has been given since.
    Adapter,
    /// Several adapters.
    Bond,
    /// The tagged frames of another interface.
    Vlan,
    /// Other software.
    Other,
}

/// A checked pattern for interface names; made by parsing an [`InterfaceSelector`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern(String);

/// The text selects no interfaces.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSelectorError {
    /// It has a colon, so it should have been a MAC address.
    #[error(transparent)]
    Mac(#[from] ParseMacError),
    /// A MAC address that no interface can have.
    #[error("`{0}` is a group address or zero, expected the MAC address of an interface")]
    Group(Mac),
    /// No interface can have a name that matches.
    #[error(
        "`{0}` is no interface name or pattern, expected a MAC address or 1 to {max} characters \
         without blanks and slashes, such as `eth0` or `en*`",
        max = NamePattern::MAX_LEN
    )]
    Name(String),
}

impl NamePattern {
    /// Longest name of an interface in bytes (the kernel's `IFNAMSIZ` less the final NUL).
    pub const MAX_LEN: usize = 15;

    /// Whether the name matches the pattern.
    pub fn matches(&self, name: &str) -> bool {
        glob(self.0.as_bytes(), name.as_bytes())
    }

    /// The one name that matches; `None` if there may be several.
    pub fn exact(&self) -> Option<&str> {
        (!self.0.contains(['*', '?'])).then_some(&self.0)
    }
}

/// Matches bytes against a pattern in time proportional to the product of their lengths: on a
/// mismatch only the latest `*` takes one more byte, since earlier ones gain nothing by it.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, n));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    p = after;
                    n = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl InterfaceSelector {
    /// Whether it selects the interface of that name and address.
    pub fn matches(&self, name: &str, mac: Mac) -> bool {
        match self {
            Self::Mac(wanted) => *wanted == mac,
            Self::Name(pattern) => pattern.matches(name),
        }
    }

    /// Whether it selects the interface of that kind, name and address. Bonds and VLANs, which have the address of what they are made
    /// of, are selected by their names, and VLANs only by the whole name: `eth*` is not meant to be `eth0.7`.
    pub fn selects(&self, kind: InterfaceKind, name: &str, mac: Mac) -> bool {
        match kind {
            InterfaceKind::Adapter | InterfaceKind::Other => self.matches(name, mac),
            InterfaceKind::Bond => {
                matches!(self, Self::Name(pattern) if pattern.matches(name))
            }
            InterfaceKind::Vlan => self.exact_name() == Some(name),
        }
    }

    /// The one name that it selects; `None` if it selects by address, or by a pattern that several may match.
    pub fn exact_name(&self) -> Option<&str> {
        match self {
            Self::Mac(_) => None,
            Self::Name(pattern) => pattern.exact(),
        }
    }

    fn as_text(&self) -> String {
        self.to_string()
    }
}

impl From<Mac> for InterfaceSelector {
    fn from(mac: Mac) -> Self {
        Self::Mac(mac)
    }
}

impl FromStr for InterfaceSelector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, ParseSelectorError> {
        if text.contains(':') {
            let mac: Mac = text.parse()?;
            return if mac.is_group_or_zero() {
                Err(ParseSelectorError::Group(mac))
            } else {
                Ok(Self::Mac(mac))
            };
        }
        let fits = |c: char| c.is_ascii_graphic() && c != '/';
        if (1..=NamePattern::MAX_LEN).contains(&text.len()) && text.chars().all(fits) {
            Ok(Self::Name(NamePattern(text.to_owned())))
        } else {
            Err(ParseSelectorError::Name(text.to_owned()))
        }
    }
}

impl fmt::Display for InterfaceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => mac.fmt(f),
            Self::Name(NamePattern(pattern)) => f.write_str(pattern),
        }
    }
}

textual!(InterfaceSelector, ParseSelectorError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{glob, InterfaceKind, InterfaceSelector, Mac};

    const MAC: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xab]);

    #[test]
    fn a_mac_selects_one_interface_in_either_case() {
        let selector: InterfaceSelector = "52:54:00:12:34:AB".parse().unwrap();
        assert!(selector.matches("eth7", MAC));
        assert!(!selector.matches("eth7", Mac([0x52, 0x54, 0, 0x12, 0x34, 0xac])));
        assert_eq!(selector.to_string(), "52:54:00:12:34:ab");
    }

    #[test]
    fn a_pattern_selects_by_name() {
        let selects = |pattern: &str, name: &str| {
            pattern.parse::<InterfaceSelector>().unwrap().matches(name, MAC)
        };
        assert!(selects("eth0", "eth0") && !selects("eth0", "eth01") && !selects("eth0", "eth"));
        assert!(selects("en*", "enp3s0") && selects("en*", "en") && !selects("en*", "eth0"));
        assert!(selects("eth?", "eth1") && !selects("eth?", "eth10") && !selects("eth?", "eth"));
        assert!(selects("*p*s0", "enp3s0"));
    }

    #[test]
    fn bonds_are_selected_by_name_and_vlans_by_the_whole_name() {
        let selects = |text: &str, kind, name| {
            text.parse::<InterfaceSelector>().unwrap().selects(kind, name, MAC)
        };
        let mac = MAC.to_string();
        assert!(selects(&mac, InterfaceKind::Adapter, "eth0"));
        assert!(!selects(&mac, InterfaceKind::Bond, "bond0"));
        assert!(!selects(&mac, InterfaceKind::Vlan, "eth0.7"));
        assert!(selects("bond*", InterfaceKind::Bond, "bond0"));
        assert!(selects("eth0.7", InterfaceKind::Vlan, "eth0.7"));
        for pattern in ["eth*", "eth0.?", "*"] {
            assert!(!selects(pattern, InterfaceKind::Vlan, "eth0.7"), "{pattern}");
            assert!(selects(pattern, InterfaceKind::Other, "eth0.7"), "{pattern}");
        }
    }

    #[test]
    fn what_no_interface_can_have_is_refused() {
        for bad in [
            "",
            "a/b",
            "a b",
            "sixteen-letters0",
            "52:54:00:12:34",
            "52:54:00:12:34:ab:cd",
            "5254:00:12:34:ab",
            "+2:54:00:12:34:ab",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(bad.parse::<InterfaceSelector>().is_err(), "{bad}");
        }
    }

    /// The definition of a glob, exponential and obvious.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| naive(rest, &name[skip..])),
            Some((b'?', rest)) => !name.is_empty() && naive(rest, &name[1..]),
            Some((byte, rest)) => name.first() == Some(byte) && naive(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn globs_agree_with_their_definition(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            prop_assert_eq!(
                glob(pattern.as_bytes(), name.as_bytes()),
                naive(pattern.as_bytes(), name.as_bytes())
            );
        }

        #[test]
        fn macs_survive_display(bytes: [u8; 6]) {
            prop_assert_eq!(Mac(bytes).to_string().parse(), Ok(Mac(bytes)));
        }
    }
}
