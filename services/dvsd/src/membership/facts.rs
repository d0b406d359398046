// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a member tells everybody of itself, and its form: part of its beacons, and what [`swim`](super::swim) spreads.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | 1 if it is able to exchange messages with every live member |
//! | 8 | echo endpoint |
//! | 4 | keys: twice the newest generation, plus 1 if the one before is still sent with; 0: nothing is encrypted |
//! | 1 + n | management address: 0, 4 or 16 bytes |
//! | 1 + n | node name |
//! | 1 + n | program version |
//! | 1 + 22 n | interfaces to the other nodes: MAC address 6, link-local address 16 |
//!
//! Numbers are little-endian. What a later release puts behind that is ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dvs_config::Mac;

use super::swim::record::FACTS_MAX;
use crate::beacon::{cut, put_text, Reader, NAME_MAX};
use crate::segment::Announced;

/// Longest program version that is told; a longer one is cut.
const RELEASE_MAX: usize = 24;
/// Of so many interfaces is told at most.
pub const INTERFACES_MAX: usize = 8;
/// The bytes of the longest facts.
pub const BYTES_MAX: usize =
    1 + 8 + 4 + 1 + 16 + 1 + NAME_MAX + 1 + RELEASE_MAX + 1 + INTERFACES_MAX * INTERFACE_BYTES;
const INTERFACE_BYTES: usize = 6 + 16;

const _: () = assert!(BYTES_MAX <= FACTS_MAX);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// It is able to exchange messages with every live member.
    pub ready: bool,
    /// Endpoint of its echo server in container 0; 0 while there is none.
    pub echo: u64,
    /// The keys that it encrypts with; `None` if it does not encrypt.
    pub keys: Option<Announced>,
    /// Address of its management interface.
    pub management: Option<IpAddr>,
    /// Its configured name; empty if it has none.
    pub name: String,
    /// Version of its `dvsd`.
    pub release: String,
    /// Its interfaces to the other nodes that have an address: those beyond [`INTERFACES_MAX`] are not told.
    pub interfaces: Vec<(Mac, Ipv6Addr)>,
}

impl Facts {
    /// Their form on the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.push(u8::from(self.ready));
        out.extend_from_slice(&self.echo.to_le_bytes());
        out.extend_from_slice(&self.keys.map_or(0, Announced::to_wire).to_le_bytes());
        match self.management {
            None => out.push(0),
            Some(IpAddr::V4(address)) => {
                out.push(4);
                out.extend_from_slice(&address.octets());
            }
            Some(IpAddr::V6(address)) => {
                out.push(16);
                out.extend_from_slice(&address.octets());
            }
        }
        put_text(&mut out, &self.name, NAME_MAX);
        put_text(&mut out, &self.release, RELEASE_MAX);
        let told = &self.interfaces[..self.interfaces.len().min(INTERFACES_MAX)];
        out.push(told.len() as u8);
        for (mac, address) in told {
            out.extend_from_slice(&mac.0);
            out.extend_from_slice(&address.octets());
        }
        out
    }

    /// How many bytes they take.
    pub fn length(&self) -> usize {
        let address = match self.management {
            None => 0,
            Some(IpAddr::V4(_)) => 4,
            Some(IpAddr::V6(_)) => 16,
        };
        let interfaces = INTERFACE_BYTES * self.interfaces.len().min(INTERFACES_MAX);
        let texts = cut(&self.name, NAME_MAX).len() + cut(&self.release, RELEASE_MAX).len();
        1 + 8 + 4 + 1 + address + 1 + 1 + texts + 1 + interfaces
    }

    /// Reads them; `None` where they make no sense.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            ready: match reader.byte()? {
                0 => false,
                1 => true,
                _ => return None,
            },
            echo: reader.u64()?,
            keys: match reader.u32()? {
                0 => None,
                wire => Some(Announced::from_wire(wire)?),
            },
            management: match reader.byte()? {
                0 => None,
                4 => Some(Ipv4Addr::from(reader.array::<4>()?).into()),
                16 => Some(Ipv6Addr::from(reader.array::<16>()?).into()),
                _ => return None,
            },
            name: reader.text(NAME_MAX)?.to_owned(),
            release: reader.text(RELEASE_MAX)?.to_owned(),
            interfaces: {
                let count = usize::from(reader.byte()?);
                if count > INTERFACES_MAX {
                    return None;
                }
                let interface = |reader: &mut Reader<'_>| {
                    let mac = reader.mac()?;
                    Some((mac, Ipv6Addr::from(reader.array::<16>()?)))
                };
                (0..count).map(|_| interface(&mut reader)).collect::<Option<_>>()?
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> impl Strategy<Value = Facts> {
        let interface = (any::<[u8; 6]>(), any::<u128>())
            .prop_map(|(mac, address)| (Mac(mac), Ipv6Addr::from(address)));
        let keys = (1..1_000_000u32, any::<bool>())
            .prop_map(|(generation, pending)| Announced { generation, pending });
        (
            any::<(bool, u64)>(),
            proptest::option::of(keys),
            any::<Option<IpAddr>>(),
            "[a-zü-]{0,31}",
            "[0-9.+a-z]{0,24}",
            proptest::collection::vec(interface, 0..=INTERFACES_MAX),
        )
            .prop_map(|((ready, echo), keys, management, name, release, interfaces)| {
                Facts { ready, echo, keys, management, name, release, interfaces }
            })
    }

    proptest! {
        #[test]
        fn facts_are_read_as_they_were_told_whatever_a_later_release_adds(
            facts in facts(),
            later in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut bytes = facts.to_bytes();
            prop_assert_eq!(bytes.len(), facts.length());
            prop_assert!(bytes.len() <= BYTES_MAX);
            for end in 0..bytes.len() {
                prop_assert_eq!(Facts::read(&bytes[..end]), None);
            }
            bytes.extend(later);
            prop_assert_eq!(Facts::read(&bytes), Some(facts));
        }

        #[test]
        fn any_bytes_are_refused_or_read_as_facts_that_are_told_alike(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Some(facts) = Facts::read(&bytes) {
                prop_assert_eq!(&facts.to_bytes()[..], &bytes[..facts.length()]);
            }
        }
    }

    #[test]
    fn facts_that_make_no_sense_are_refused() {
        let facts = Facts { name: "node1".into(), ..Facts::default() };
        let changed = |at: usize, to: u8| {
            let mut bytes = facts.to_bytes();
            bytes[at] = to;
            Facts::read(&bytes)
        };
        assert_eq!(changed(0, 1), Some(Facts { ready: true, ..facts.clone() }));
        assert_eq!(changed(0, 2), None, "neither ready nor not");
        assert_eq!(changed(9, 1), None, "keys that are pending, but of no generation");
        assert_eq!(changed(13, 5), None, "an address of five bytes");
        assert_eq!(changed(15, b'\n'), None, "a name of two lines");
        assert_eq!(changed(14, 64), None, "a name that does not end");
    }

    #[test]
    fn what_is_too_long_is_cut_and_the_longest_fit() {
        let interface = (Mac([2; 6]), Ipv6Addr::LOCALHOST);
        let facts = Facts {
            management: Some(Ipv6Addr::LOCALHOST.into()),
            name: "n".repeat(70),
            release: "9".repeat(70),
            interfaces: vec![interface; 9],
            ..Facts::default()
        };
        let bytes = facts.to_bytes();
        assert_eq!((bytes.len(), facts.length()), (BYTES_MAX, BYTES_MAX));
        let read = Facts::read(&bytes).unwrap();
        assert_eq!((read.name.len(), read.release.len(), read.interfaces.len()), (63, 24, 8));
    }
}
