// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interfaces on top of others: bonds and VLANs.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize};

use crate::schema::{Netboot, Network, WholeNumber};
use crate::value::textual;
use crate::{InterfaceSelector, NamePattern};

/// The name of an interface that is made: 1 to 15 letters, digits, `.`, `_` and `-`, of which the first is a letter, and none that
/// means something else to the kernel or is of interfaces that services make.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceName(String);

/// No interface can be given the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseInterfaceNameError {
    /// The kernel would not take it, or a selector would take it for a pattern.
    #[error(
        "`{0}` is no name for an interface, expected 1 to {max} letters, digits, dots, underscores and hyphens that begin with a \
         letter, such as `bond0`",
        max = NamePattern::MAX_LEN
    )]
    Form(String),
    /// It belongs to something else.
    #[error("`{0}` means something else to the kernel or to services, expected another name, such as `bond0`")]
    Reserved(String),
}

impl InterfaceName {
    /// `all` and `default` stand for interfaces in the kernel's settings, and `bonding_masters` is a file beside those of interfaces.
    const RESERVED: [&str; 4] = ["all", "default", "lo", "bonding_masters"];
    /// What the names begin with of what services make: the devices of MACsec, and the links of containers.
    const OF_SERVICES: [&str; 4] = ["sec-", "v-", "b-", "x-"];

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn as_text(&self) -> String {
        self.0.clone()
    }
}

impl FromStr for InterfaceName {
    type Err = ParseInterfaceNameError;

    fn from_str(text: &str) -> Result<Self, ParseInterfaceNameError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let begins = text.starts_with(|first: char| first.is_ascii_alphabetic());
        if !begins || text.len() > NamePattern::MAX_LEN || !text.bytes().all(fits) {
            return Err(ParseInterfaceNameError::Form(text.to_owned()));
        }
        let of_service = Self::OF_SERVICES.iter().any(|begin| text.starts_with(begin));
        if Self::RESERVED.contains(&text) || of_service {
            return Err(ParseInterfaceNameError::Reserved(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

textual!(InterfaceName, ParseInterfaceNameError);

/// `[[network.bond]]`: several network adapters as one interface, which works for as long as one of them does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bond {
    /// What the interface is called.
    pub name: InterfaceName,
    /// The adapters, which are its members and serve nothing else; at least one selector. The bond has the MAC address of the first.
    #[serde(deserialize_with = "members")]
    pub interfaces: Vec<InterfaceSelector>,
    /// Which member sends.
    #[serde(default)]
    pub mode: BondMode,
    /// Milliseconds between two looks at which members have a carrier: [10](Bond::MIIMON_MS_MIN) to [10,000](Bond::MIIMON_MS_MAX).
    #[serde(default = "miimon_ms_default", deserialize_with = "miimon_ms")]
    pub miimon_ms: u32,
    /// Of `active-backup`: the member that sends whenever it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<InterfaceSelector>,
    /// Of `802.3ad`: how often the switch is asked for a sign of life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacp_rate: Option<LacpRate>,
    /// Of `802.3ad` and `balance-xor`: what of a frame decides by which member it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transmit_hash_policy: Option<TransmitHashPolicy>,
}

impl Bond {
    /// Least value of `miimon_ms`.
    pub const MIIMON_MS_MIN: u32 = 10;
    /// Largest value of `miimon_ms`.
    pub const MIIMON_MS_MAX: u32 = 10_000;
}

/// Which member of a bond sends. Those of the kernel's modes are left out in which frames come twice or out of order, or come from
/// changing MAC addresses: nodes know each other by these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BondMode {
    /// One; another one when it has lost its carrier. The switch need not know.
    #[default]
    #[serde(rename = "active-backup")]
    ActiveBackup,
    /// All, as negotiated with the switch by LACP.
    #[serde(rename = "802.3ad")]
    Ieee8023ad,
    /// All; the switch has to be told that they belong together.
    #[serde(rename = "balance-xor")]
    BalanceXor,
}

impl fmt::Display for BondMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ActiveBackup => "active-backup",
            Self::Ieee8023ad => "802.3ad",
            Self::BalanceXor => "balance-xor",
        })
    }
}

/// How often the partner in LACP is to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LacpRate {
    /// Every 30 seconds.
    Slow,
    /// Every second.
    Fast,
}

/// What of a frame decides by which member of a bond it is sent; all frames with the same of it take the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransmitHashPolicy {
    /// MAC addresses and the type.
    #[serde(rename = "layer2")]
    Layer2,
    /// MAC and IP addresses.
    #[serde(rename = "layer2+3")]
    Layer23,
    /// IP addresses and ports.
    #[serde(rename = "layer3+4")]
    Layer34,
}

/// `[[network.vlan]]`: the frames of an interface that are tagged with a number (IEEE 802.1Q), as an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vlan {
    /// What the interface is called; when absent, the [name of the parent and the id](Vlan::interface_name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<InterfaceName>,
    /// The network adapter or bond; the first that matches.
    pub parent: InterfaceSelector,
    /// The number: 1 to [4094](Vlan::ID_MAX).
    #[serde(deserialize_with = "vlan_id")]
    pub id: u16,
}

impl Vlan {
    /// Largest number of a VLAN.
    pub const ID_MAX: u16 = 4094;

    /// What the interface is called: its `name`, or `PARENT.ID`, of a parent that is named in full.
    pub fn interface_name(&self) -> String {
        match &self.name {
            Some(name) => name.to_string(),
            None => format!("{}.{}", self.parent, self.id),
        }
    }
}

impl Network {
    /// Says what is wrong among the interfaces on top of others, and with what is chosen of those below: the key to point at, and the
    /// text.
    pub(crate) fn contradiction(&self, netboot: Option<&Netboot>) -> Option<(String, String)> {
        let bonds = self.bond.iter().enumerate();
        let vlans = self.vlan.iter().enumerate();
        bonds
            .map(|(at, bond)| (format!("network.bond.{at}"), self.bond_contradiction(at, bond)))
            .chain(vlans.map(|(at, vlan)| {
                (format!("network.vlan.{at}"), self.vlan_contradiction(at, vlan))
            }))
            .find_map(|(path, found)| {
                let (key, text) = found?;
                Some((if key.is_empty() { path } else { format!("{path}.{key}") }, text))
            })
            .or_else(|| self.choice_contradiction(netboot))
    }

    fn bond_contradiction(&self, at: usize, bond: &Bond) -> Option<(String, String)> {
        let earlier = &self.bond[..at];
        if earlier.iter().any(|other| other.name == bond.name) {
            return Some(("name".into(), format!("there is another bond `{}`", bond.name)));
        }
        for (number, member) in bond.interfaces.iter().enumerate() {
            let key = || format!("interfaces.{number}");
            if let Some(kind) = self.kind_made(member) {
                return Some((
                    key(),
                    format!(
                        "`{member}` is a {kind}, and the interfaces of a bond are network adapters"
                    ),
                ));
            }
            if let Some(other) = earlier.iter().find(|other| is_member(other, member)) {
                return Some((
                    key(),
                    format!("`{member}` is an interface of the bond `{}` already", other.name),
                ));
            }
        }
        let Bond { mode, primary, lacp_rate, transmit_hash_policy, .. } = bond;
        let wrong_mode = |key: &str, modes| {
            Some((key.to_owned(), format!("a bond of mode `{mode}` has none, only one of {modes}")))
        };
        if primary.is_some() && *mode != BondMode::ActiveBackup {
            return wrong_mode("primary", "`active-backup`");
        }
        if lacp_rate.is_some() && *mode != BondMode::Ieee8023ad {
            return wrong_mode("lacp_rate", "`802.3ad`");
        }
        if transmit_hash_policy.is_some() && *mode == BondMode::ActiveBackup {
            return wrong_mode("transmit_hash_policy", "`802.3ad` or `balance-xor`");
        }
        let primary = primary.as_ref()?;
        let apart = bond.interfaces.iter().all(|member| overlap(member, primary) == Some(false));
        let text = || format!("`{primary}` is none of the `interfaces` of the bond");
        apart.then(|| ("primary".to_owned(), text()))
    }

    fn vlan_contradiction(&self, at: usize, vlan: &Vlan) -> Option<(String, String)> {
        let parent = &vlan.parent;
        let wrong_parent = |text: String| Some(("parent".to_owned(), text));
        if vlan.name.is_none() && parent.exact_name().is_none() {
            return wrong_parent(format!(
                "the VLAN is called like its parent, but what `{parent}` is called is known only on the machine; give the VLAN a `name`"
            ));
        }
        let name = vlan.interface_name();
        if let Err(error) = name.parse::<InterfaceName>() {
            return wrong_parent(format!("{error}; give the VLAN a `name`"));
        }
        // A name that was not given has no place of its own.
        let key = vlan.name.as_ref().map_or("", |_| "name");
        let earlier = &self.vlan[..at];
        if self.bond.iter().any(|bond| bond.name.as_str() == name) {
            return Some((key.to_owned(), format!("there is a bond `{name}`")));
        }
        if earlier.iter().any(|other| other.interface_name() == name) {
            return Some((key.to_owned(), format!("there is another VLAN `{name}`")));
        }
        if self.kind_made(parent) == Some("VLAN") {
            return wrong_parent(format!(
                "`{parent}` is a VLAN itself, and the parent of one is a network adapter or a bond"
            ));
        }
        if let Some(bond) = self.bond.iter().find(|bond| is_member(bond, parent)) {
            return wrong_parent(taken(parent, bond));
        }
        let same = |other: &&Vlan| other.id == vlan.id && other.parent == *parent;
        let other = earlier.iter().find(same)?.interface_name();
        Some(("id".to_owned(), format!("number {} of `{parent}` is `{other}` already", vlan.id)))
    }

    /// Members of bonds that are chosen for something.
    fn choice_contradiction(&self, netboot: Option<&Netboot>) -> Option<(String, String)> {
        let cluster = self.cluster.iter().enumerate();
        let cluster = cluster.map(|(at, selector)| (format!("network.cluster.{at}"), selector));
        let management = self
            .management
            .iter()
            .map(|management| ("network.management.interface".to_owned(), &management.interface));
        let netboot = netboot.map(|netboot| ("netboot.interface".to_owned(), &netboot.interface));
        cluster.chain(management).chain(netboot).find_map(|(path, selector)| {
            let bond = self.bond.iter().find(|bond| is_member(bond, selector))?;
            Some((path, taken(selector, bond)))
        })
    }

    /// What an interface is that is made, if that is what the selector names.
    fn kind_made(&self, selector: &InterfaceSelector) -> Option<&'static str> {
        let name = selector.exact_name()?;
        if self.bond.iter().any(|bond| bond.name.as_str() == name) {
            return Some("bond");
        }
        self.vlan.iter().any(|vlan| vlan.interface_name() == name).then_some("VLAN")
    }
}

fn taken(selector: &InterfaceSelector, bond: &Bond) -> String {
    let name = &bond.name;
    format!("`{selector}` is an interface of the bond `{name}` and serves nothing else; choose `{name}`")
}

/// Whether the selector is of one interface that is certainly a member. One of several is of those that are not.
fn is_member(bond: &Bond, selector: &InterfaceSelector) -> bool {
    let certain = |member: &InterfaceSelector| overlap(member, selector) == Some(true);
    let of_one = matches!(selector, InterfaceSelector::Mac(_)) || selector.exact_name().is_some();
    of_one && bond.interfaces.iter().any(certain) || bond.interfaces.contains(selector)
}

/// Whether two selectors are of the same interface; `None` where that is up to the machine.
fn overlap(one: &InterfaceSelector, other: &InterfaceSelector) -> Option<bool> {
    use InterfaceSelector::{Mac, Name};
    match (one, other) {
        (Mac(one), Mac(other)) => Some(one == other),
        (Name(one), Name(other)) => match (one.exact(), other.exact()) {
            (Some(one), Some(other)) => Some(one == other),
            (None, Some(name)) => Some(one.matches(name)),
            (Some(name), None) => Some(other.matches(name)),
            (None, None) => None,
        },
        _ => None,
    }
}

fn members<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<InterfaceSelector>, D::Error> {
    let members = Vec::<InterfaceSelector>::deserialize(deserializer)?;
    match members.is_empty() {
        true => {
            Err(D::Error::custom("a bond of no interfaces, expected at least one network adapter"))
        }
        false => Ok(members),
    }
}

fn miimon_ms_default() -> u32 {
    100
}

fn miimon_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let value = deserializer.deserialize_i64(WholeNumber)?;
    let range = Bond::MIIMON_MS_MIN..=Bond::MIIMON_MS_MAX;
    u32::try_from(value).ok().filter(|value| range.contains(value)).ok_or_else(|| {
        D::Error::custom(format_args!(
            "{value} is out of range, expected {} to {} milliseconds",
            range.start(),
            range.end()
        ))
    })
}

fn vlan_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let value = deserializer.deserialize_i64(WholeNumber)?;
    u16::try_from(value).ok().filter(|id| (1..=Vlan::ID_MAX).contains(id)).ok_or_else(|| {
        D::Error::custom(format_args!(
            "{value} is out of range, expected the number of a VLAN from 1 to {}",
            Vlan::ID_MAX
        ))
    })
}
