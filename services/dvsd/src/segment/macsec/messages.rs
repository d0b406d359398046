// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the generic netlink family `macsec` is told and tells (linux/if_macsec.h).

use dvs_config::Mac;
use dvs_secret::Key;

use crate::genl::{attribute, attributes, number, Attributes};
use crate::segment::device::Call;
use crate::segment::key::KeyName;
use crate::segment::tally::{DeviceCounts, SenderCounts};

/// Name of the family.
pub(super) const FAMILY: &str = "macsec";
/// The channel of an interface: each node uses one.
pub(super) const PORT: u16 = 1;

const IFINDEX: u16 = 1;
const RXSC_CONFIG: u16 = 2;
const SA_CONFIG: u16 = 3;
const TXSA_LIST: u16 = 5;
const RXSC_LIST: u16 = 6;
const TXSC_STATS: u16 = 7;
const SECY_STATS: u16 = 8;

const RXSC_SCI: u16 = 1;
const RXSC_ACTIVE: u16 = 2;
const RXSC_STATS: u16 = 4;

const SA_AN: u16 = 1;
const SA_ACTIVE: u16 = 2;
const SA_PN: u16 = 3;
const SA_KEY: u16 = 4;
const SA_KEYID: u16 = 5;

const RXSC_STATS_OK: u16 = 5;
const RXSC_STATS_INVALID: u16 = 6;
const RXSC_STATS_LATE: u16 = 7;
const RXSC_STATS_NOT_VALID: u16 = 8;
const RXSC_STATS_NOT_USING_SA: u16 = 9;
const RXSC_STATS_UNUSED_SA: u16 = 10;
const TXSC_STATS_ENCRYPTED: u16 = 2;
const SECY_STATS_BAD_TAG: u16 = 5;
const SECY_STATS_UNKNOWN_SCI: u16 = 6;
const SECY_STATS_NO_SCI: u16 = 7;

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Command {
    Get = 0,
    AddSender = 1,
    RemoveSender = 2,
    AddOwnKey = 4,
    RemoveOwnKey = 5,
    ChangeOwnKey = 6,
    AddKey = 7,
    RemoveKey = 8,
    ChangeKey = 9,
}

/// The messages that tell a device what a call says; none for [`Call::SendWith`], which another family
/// is told.
pub(super) fn requests(
    device: u32,
    call: &Call,
    derive: &dyn Fn(&KeyName) -> Key,
) -> Vec<(Command, Attributes)> {
    let target = || Attributes::default().with(IFINDEX, &device.to_ne_bytes());
    let sender = |target: Attributes, mac: &Mac| {
        let inner = Attributes::default().with(RXSC_SCI, &sci(*mac));
        target.with_nest(RXSC_CONFIG, &inner)
    };
    let key = |target: Attributes, name: &KeyName| {
        let inner = Attributes::default()
            .with(SA_AN, &[name.association()])
            .with(SA_ACTIVE, &[1])
            .with(SA_PN, &1u32.to_ne_bytes())
            .with(SA_KEY, &*derive(name))
            .with(SA_KEYID, &name.id());
        target.with_nest(SA_CONFIG, &inner)
    };
    let numbered = |target: Attributes, association: u8| {
        target.with_nest(SA_CONFIG, &Attributes::default().with(SA_AN, &[association]))
    };
    // The kernel removes no key that is in use.
    let idle = |target: Attributes, association: u8| {
        let inner = Attributes::default().with(SA_AN, &[association]).with(SA_ACTIVE, &[0]);
        target.with_nest(SA_CONFIG, &inner)
    };
    match call {
        Call::AddOwnKey(name) => vec![(Command::AddOwnKey, key(target(), name))],
        Call::SendWith(_) => Vec::new(),
        Call::RemoveOwnKey(association) => vec![
            (Command::ChangeOwnKey, idle(target(), *association)),
            (Command::RemoveOwnKey, numbered(target(), *association)),
        ],
        Call::AddSender(mac) => {
            let inner = Attributes::default().with(RXSC_SCI, &sci(*mac)).with(RXSC_ACTIVE, &[1]);
            vec![(Command::AddSender, target().with_nest(RXSC_CONFIG, &inner))]
        }
        Call::RemoveSender(mac) => vec![(Command::RemoveSender, sender(target(), mac))],
        Call::AddKey(name) => vec![(Command::AddKey, key(sender(target(), &name.mac), name))],
        Call::RemoveKey(mac, association) => vec![
            (Command::ChangeKey, idle(sender(target(), mac), *association)),
            (Command::RemoveKey, numbered(sender(target(), mac), *association)),
        ],
    }
}

/// The channel identifier of an interface: its address, and the port in network byte order.
fn sci(mac: Mac) -> [u8; 8] {
    let [a, b, c, d, e, f] = mac.0;
    let [high, low] = PORT.to_be_bytes();
    [a, b, c, d, e, f, high, low]
}

/// A counter among attributes; 0 if it is not there.
fn figure(bytes: &[u8], kind: u16) -> u64 {
    attribute(bytes, kind).and_then(number).unwrap_or_default()
}

/// Reads what the kernel tells of one device: its index, and what it counted.
pub(super) fn counts(bytes: &[u8]) -> Option<(u32, DeviceCounts)> {
    let index = u32::try_from(figure(bytes, IFINDEX)).ok().filter(|index| *index != 0)?;
    let part = |kind| attribute(bytes, kind).unwrap_or_default();
    let own = attributes(part(TXSA_LIST))
        .map(|(_, key)| (figure(key, SA_AN) as u8, figure(key, SA_PN) as u32));
    let senders = attributes(part(RXSC_LIST)).filter_map(|(_, sender)| {
        let mac = Mac(*attribute(sender, RXSC_SCI)?.first_chunk()?);
        let stats = attribute(sender, RXSC_STATS).unwrap_or_default();
        let count = |kind| figure(stats, kind);
        let counts = SenderCounts {
            accepted: count(RXSC_STATS_OK),
            invalid: count(RXSC_STATS_NOT_VALID) + count(RXSC_STATS_INVALID),
            late: count(RXSC_STATS_LATE),
            keyless: count(RXSC_STATS_NOT_USING_SA) + count(RXSC_STATS_UNUSED_SA),
        };
        Some((mac, counts))
    });
    let secy = part(SECY_STATS);
    let counts = DeviceCounts {
        next_packet: own.collect(),
        sent: figure(part(TXSC_STATS), TXSC_STATS_ENCRYPTED),
        unknown: figure(secy, SECY_STATS_UNKNOWN_SCI) + figure(secy, SECY_STATS_NO_SCI),
        malformed: figure(secy, SECY_STATS_BAD_TAG),
        senders: senders.collect(),
    };
    Some((index, counts))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 9]);
    const NAME: KeyName = KeyName { mac: MAC, instance: 7, generation: 6 };

    fn told(call: Call) -> Vec<(Command, Attributes)> {
        requests(5, &call, &|_| Key::new([0xaa; 32]))
    }

    #[test]
    fn a_key_is_added_as_the_kernel_reads_it() {
        let requests = told(Call::AddKey(NAME));
        let [(Command::AddKey, attributes)] = &requests[..] else { panic!("{requests:?}") };
        let bytes = attributes.as_bytes();
        assert_eq!(figure(bytes, IFINDEX), 5);
        let sender = attribute(bytes, RXSC_CONFIG).unwrap();
        let channel: &[u8] = &[0x52, 0x54, 0, 0, 0, 9, 0, 1];
        assert_eq!(attribute(sender, RXSC_SCI), Some(channel), "big-endian, as on the wire");
        let key = attribute(bytes, SA_CONFIG).unwrap();
        assert_eq!((figure(key, SA_AN), figure(key, SA_ACTIVE), figure(key, SA_PN)), (2, 1, 1));
        assert_eq!(attribute(key, SA_PN).unwrap().len(), 4, "no extended packet numbers");
        assert_eq!(attribute(key, SA_KEY), Some(&[0xaa; 32][..]));
        assert_eq!(attribute(key, SA_KEYID).unwrap().len(), 16);
    }

    #[test]
    fn an_own_key_names_no_sender() {
        let requests = told(Call::AddOwnKey(NAME));
        let [(Command::AddOwnKey, attributes)] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(attribute(attributes.as_bytes(), RXSC_CONFIG), None);
        assert_eq!(figure(attribute(attributes.as_bytes(), SA_CONFIG).unwrap(), SA_PN), 1);
    }

    #[test]
    fn a_key_is_put_out_of_use_before_it_is_removed() {
        for (call, commands) in [
            (Call::RemoveOwnKey(3), [Command::ChangeOwnKey, Command::RemoveOwnKey]),
            (Call::RemoveKey(MAC, 3), [Command::ChangeKey, Command::RemoveKey]),
        ] {
            let requests = told(call);
            assert_eq!(requests.iter().map(|(command, _)| *command).collect::<Vec<_>>(), commands);
            let key = attribute(requests[0].1.as_bytes(), SA_CONFIG).unwrap();
            assert_eq!(attribute(key, SA_ACTIVE), Some(&[0][..]));
            assert_eq!(figure(attribute(requests[1].1.as_bytes(), SA_CONFIG).unwrap(), SA_AN), 3);
        }
    }

    #[test]
    fn what_is_counted_is_read() {
        let stats = |pairs: &[(u16, u64)]| {
            pairs.iter().fold(Attributes::default(), |all, (kind, count)| {
                all.with(*kind, &count.to_ne_bytes())
            })
        };
        let key = Attributes::default().with(SA_PN, &41u32.to_ne_bytes()).with(SA_AN, &[2]);
        let sender = Attributes::default()
            .with(RXSC_ACTIVE, &[1])
            .with(RXSC_SCI, &sci(MAC))
            .with_nest(RXSC_STATS, &stats(&[(5, 100), (7, 2), (8, 3), (9, 4)]));
        let bytes = Attributes::default()
            .with(IFINDEX, &9u32.to_ne_bytes())
            .with_nest(TXSC_STATS, &stats(&[(2, 40)]))
            .with_nest(SECY_STATS, &stats(&[(4, 1_000), (5, 5), (7, 6)]))
            .with_nest(TXSA_LIST, &Attributes::default().with_nest(1, &key))
            .with_nest(RXSC_LIST, &Attributes::default().with_nest(1, &sender));
        let counts = counts(bytes.as_bytes()).unwrap();
        let of_sender = SenderCounts { accepted: 100, invalid: 3, late: 2, keyless: 4 };
        let expected = DeviceCounts {
            next_packet: BTreeMap::from([(2, 41)]),
            sent: 40,
            // Frames without a tag are beacons, and nothing to count.
            unknown: 6,
            malformed: 5,
            senders: BTreeMap::from([(MAC, of_sender)]),
        };
        assert_eq!(counts, (9, expected));
        assert_eq!(super::counts(&[]), None);
    }
}
