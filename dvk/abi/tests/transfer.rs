// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The codec of copies: what is written is read back, and any bytes are read or refused.

use core::num::NonZeroU32;
use dvk_abi::errno::Errno;
use dvk_abi::limits::SLOTS;
use dvk_abi::wire::record::{Record, RECORD_BYTES};
use dvk_abi::wire::transfer::{
    CopyHead, CopyRecord, CopyStep, DataHead, Flow, Malformed, Place, KINDS, MAX_PART_BYTES,
};
use dvk_abi::Endpoint;
use proptest::collection::vec;
use proptest::prelude::*;

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (0..SLOTS, 1u32..).prop_map(|(slot, generation)| {
        Endpoint::new(slot, NonZeroU32::new(generation).expect("it is at least 1"))
    })
}

fn place() -> impl Strategy<Value = Place> {
    any::<(u64, u64)>().prop_map(|(grant, offset)| Place { grant, offset })
}

fn head() -> impl Strategy<Value = CopyHead> {
    (any::<u16>(), any::<u32>(), endpoint(), endpoint())
        .prop_map(|(container, call, from, to)| CopyHead { container, call, from, to })
}

fn step() -> impl Strategy<Value = CopyStep> {
    let rest = |len: u32| (Just(len), u64::from(len)..);
    let part = (0..=MAX_PART_BYTES).prop_flat_map(rest);
    let error = prop::option::of(prop::sample::select(Errno::ALL));
    prop_oneof![
        (place(), part.clone()).prop_map(|(source, (len, rest))| CopyStep::CopyFrom {
            source,
            len,
            rest
        }),
        (place(), part).prop_map(|(destination, (len, rest))| CopyStep::CopyTo {
            destination,
            len,
            rest
        }),
        (place(), endpoint(), place(), any::<u32>().prop_flat_map(rest)).prop_map(
            |(source, receiver, destination, (len, rest))| CopyStep::CopyBetween {
                source,
                receiver,
                destination,
                len,
                rest
            }
        ),
        Just(CopyStep::Open),
        Just(CopyStep::Stop),
        (any::<u32>(), error).prop_map(|(copied, error)| CopyStep::Done { copied, error }),
    ]
}

fn record() -> impl Strategy<Value = CopyRecord> {
    (head(), step()).prop_map(|(head, step)| CopyRecord { head, step })
}

fn data() -> impl Strategy<Value = DataHead> {
    let flow = prop_oneof![Just(Flow::Supplied), Just(Flow::Stored)];
    (head(), flow, any::<u32>()).prop_map(|(head, flow, offset)| DataHead { head, flow, offset })
}

fn written(record: &CopyRecord) -> Vec<u8> {
    let mut out = [0xaa; RECORD_BYTES];
    let length = record.encode(&mut out);
    out[..length].to_vec()
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(record in record()) {
        let bytes = written(&record);
        prop_assert!(KINDS.contains(&bytes[0]) && !DataHead::begins(&bytes));
        prop_assert_eq!(CopyRecord::decode(&bytes), Ok(record));
        prop_assert!(Record::decode(&bytes).is_err(), "a record of a copy is none of a message");
    }

    #[test]
    fn another_length_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = written(&record);
        prop_assert_eq!(CopyRecord::decode(&bytes[..cut.index(bytes.len())]), Err(Malformed));
        bytes.push(0);
        prop_assert_eq!(CopyRecord::decode(&bytes), Err(Malformed));
    }

    #[test]
    fn data_follows_its_head(data in data(), rest in vec(any::<u8>(), 0..50)) {
        let mut bytes = data.encode().to_vec();
        let head_bytes = bytes.len();
        bytes.extend(&rest);
        prop_assert!(DataHead::begins(&bytes) && CopyRecord::decode(&bytes).is_err());
        prop_assert_eq!(DataHead::decode(&bytes), Ok((data, &rest[..])));
        prop_assert_eq!(DataHead::decode(&bytes[..head_bytes - 1]), Err(Malformed));
    }

    #[test]
    fn any_bytes_are_refused_or_what_a_record_writes(
        kind in 18u8..30,
        rest in vec(any::<u8>(), 0..RECORD_BYTES),
        endpoints in (endpoint(), endpoint()),
    ) {
        let mut bytes = vec![kind];
        bytes.extend(rest);
        if bytes.len() >= 24 {
            // Random ones hardly ever name anybody.
            bytes[1] = 0;
            bytes[8..16].copy_from_slice(&endpoints.0.raw().to_le_bytes());
            bytes[16..24].copy_from_slice(&endpoints.1.raw().to_le_bytes());
        }
        if let Ok(record) = CopyRecord::decode(&bytes) {
            prop_assert_eq!(written(&record), &bytes[..]);
        }
        if let Ok((head, rest)) = DataHead::decode(&bytes) {
            prop_assert_eq!([&head.encode()[..], rest].concat(), bytes);
        }
    }

    #[test]
    fn the_answer_goes_back(head in head()) {
        prop_assert_eq!((head.back().from, head.back().to), (head.to, head.from));
        prop_assert_eq!(head.back().back(), head);
    }
}

#[test]
fn a_part_that_is_too_long_is_refused() {
    let endpoint = Endpoint::new(70, NonZeroU32::MIN);
    let head = CopyHead { container: 1, call: 2, from: endpoint, to: endpoint };
    let place = Place { grant: 1, offset: 0 };
    let (len, rest) = (MAX_PART_BYTES + 1, u64::MAX);
    for step in [
        CopyStep::CopyFrom { source: place, len, rest },
        CopyStep::CopyTo { destination: place, len, rest },
        CopyStep::CopyTo { destination: place, len: 9, rest: 8 },
    ] {
        assert_eq!(CopyRecord::decode(&written(&CopyRecord { head, step })), Err(Malformed));
    }
}
