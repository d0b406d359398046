// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The record codec: what is written is read back, and any bytes are read or refused.

use core::num::NonZeroU32;
use dvk_abi::errno::Errno;
use dvk_abi::ioctl::{Privileges, MAY_ALL};
use dvk_abi::limits::SLOTS;
use dvk_abi::message::{Message, MESSAGE_BYTES};
use dvk_abi::wire::record::{Record, RecordError, Step, RECORD_BYTES};
use dvk_abi::Endpoint;
use proptest::collection::vec;
use proptest::prelude::*;

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (0..SLOTS, 1u32..).prop_map(|(slot, generation)| {
        Endpoint::new(slot, NonZeroU32::new(generation).expect("it is at least 1"))
    })
}

fn message() -> impl Strategy<Value = Message> {
    any::<[u8; MESSAGE_BYTES]>().prop_map(|bytes| Message::from_le_bytes(&bytes))
}

fn privileges() -> impl Strategy<Value = Privileges> {
    let servers_notify_calls = (any::<u64>(), any::<u64>(), 0..=MAY_ALL);
    servers_notify_calls.prop_map(|(servers, notify, calls)| Privileges {
        endpoint: 0,
        servers,
        notify,
        calls,
        flags: 0,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let call = any::<u32>();
    prop_oneof![
        (call, message()).prop_map(|(call, message)| Step::Send { call, message }),
        (call, message()).prop_map(|(call, message)| Step::Request { call, message }),
        (call, message()).prop_map(|(call, message)| Step::Reply { call, message }),
        call.prop_map(|call| Step::Accepted { call }),
        (call, prop::sample::select(Errno::ALL))
            .prop_map(|(call, error)| Step::Failed { call, error }),
        call.prop_map(|call| Step::Cancel { call }),
        call.prop_map(|call| Step::Cancelled { call }),
        call.prop_map(|call| Step::Watch { call }),
        (1u64..).prop_map(|bits| Step::Notify { bits }),
        (1u32.., any::<u32>()).prop_map(|(call, epoch)| Step::Returned { call, bits: 0, epoch }),
        (1u64.., any::<u32>()).prop_map(|(bits, epoch)| Step::Returned { call: 0, bits, epoch }),
        call.prop_map(|call| Step::Fence { call }),
        call.prop_map(|call| Step::Fenced { call }),
        call.prop_map(|call| Step::AwaitBind { call }),
        call.prop_map(|call| Step::Bound { call }),
        (call, privileges()).prop_map(|(call, privileges)| Step::Privilege { call, privileges }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (any::<u16>(), endpoint(), endpoint(), step()).prop_map(|(container, from, to, mut step)| {
        if let Step::Privilege { privileges, .. } = &mut step {
            privileges.endpoint = to.raw();
        }
        Record { container, from, to, step }
    })
}

fn written(record: &Record) -> Vec<u8> {
    let mut out = [0xaa; RECORD_BYTES];
    let length = record.encode(&mut out);
    out[..length].to_vec()
}

/// Whatever is read writes the bytes it was read from.
fn canonical(bytes: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(record) = Record::decode(bytes) {
        prop_assert_eq!(written(&record), bytes);
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(record in record()) {
        prop_assert_eq!(Record::decode(&written(&record)), Ok(record));
    }

    #[test]
    fn another_length_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = written(&record);
        let cut = cut.index(bytes.len());
        prop_assert_eq!(Record::decode(&bytes[..cut]), Err(RecordError::Length));
        bytes.push(0);
        prop_assert_eq!(Record::decode(&bytes), Err(RecordError::Length));
    }

    #[test]
    fn any_bytes_are_refused_or_what_a_record_writes(kind in 0u8..12, rest in vec(any::<u8>(), 0..RECORD_BYTES)) {
        let mut bytes = vec![kind];
        bytes.extend(rest);
        canonical(&bytes)?;
    }

    #[test]
    fn changed_bytes_are_refused_or_what_a_record_writes(
        record in record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = written(&record);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        canonical(&bytes)?;
    }
}

#[test]
fn the_layout_is_fixed() {
    let endpoint =
        |slot, generation| Endpoint::new(slot, NonZeroU32::new(generation).expect("it is not 0"));
    let record = Record {
        container: 0x0201,
        from: endpoint(0x1211, 0x1817_1615),
        to: endpoint(0x2221, 0x2827_2625),
        step: Step::Failed { call: 0x0807_0605, error: Errno::OwnerDead },
    };
    let mut expected = vec![5, 0, 1, 2, 5, 6, 7, 8];
    expected.extend([0x11, 0x12, 0, 0, 0x15, 0x16, 0x17, 0x18]);
    expected.extend([0x21, 0x22, 0, 0, 0x25, 0x26, 0x27, 0x28]);
    expected.push(130);
    assert_eq!(written(&record), expected);
    let refused = |at: usize, value: u8| {
        let mut bytes = expected.clone();
        bytes[at] = value;
        Record::decode(&bytes)
    };
    assert_eq!(refused(0, 0), Err(RecordError::Kind));
    assert_eq!(refused(0, 255), Err(RecordError::Kind));
    assert_eq!(refused(0, 3), Err(RecordError::Length));
    assert_eq!(refused(1, 1), Err(RecordError::Field));
    assert_eq!(refused(11, 1), Err(RecordError::Field));
    assert_eq!(refused(24, 2), Err(RecordError::Field));
    let notify = Record { step: Step::Notify { bits: 1 }, ..record };
    let mut bytes = written(&notify);
    bytes[24] = 0;
    assert_eq!(Record::decode(&bytes), Err(RecordError::Field));
}
