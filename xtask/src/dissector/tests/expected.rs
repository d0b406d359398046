// SPDX-License-Identifier: MIT OR Apache-2.0
//! What must be in the fields of the dissector, from the values that were encoded.

use std::collections::BTreeMap;

use dvk_abi::errno::Errno;
use dvk_abi::ioctl::{
    MAY_COPY, MAY_GRANT, MAY_NOTIFY, MAY_REACH_OTHERS, MAY_RECEIVE, MAY_REPLY, MAY_REQUEST,
    MAY_SEND, MAY_SET_PRIVILEGES, MAY_WAIT,
};
use dvk_abi::wire::frame::{Greeting, Header, MAGIC};
use dvk_abi::wire::record::{Record, Step};
use dvk_abi::wire::transfer::{CopyHead, CopyRecord, CopyStep, DataHead, Place};
use dvk_abi::{Endpoint, Message};

use super::samples::Sample;
use crate::dissector::Packet;

/// Values by the name of their filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    /// What tshark found, with numbers in decimal whatever it writes them in.
    pub(super) fn found(packet: &Packet) -> Self {
        let plain = |value: &String| {
            let hexadecimal =
                value.strip_prefix("0x").and_then(|value| u64::from_str_radix(value, 16).ok());
            match (value.as_str(), hexadecimal) {
                (_, Some(number)) => number.to_string(),
                ("True", _) => "1".to_owned(),
                ("False", _) => "0".to_owned(),
                (other, _) => other.replace(':', ""),
            }
        };
        let plain = |(name, values): (&String, &Vec<String>)| {
            // Nodes of the tree have no value; what tshark shows for them is their text.
            let is_node = ["dvk.chunk", "dvk.record", "dvk.message"].contains(&name.as_str());
            let values =
                values.iter().map(|value| if is_node { String::new() } else { plain(value) });
            (name.clone(), values.collect())
        };
        Self(packet.fields.iter().map(plain).collect())
    }

    /// Whether all of `others` are there, each as often as it is in them.
    pub(super) fn contains(&self, others: &Self) -> bool {
        others.0.iter().all(|(name, values)| self.0.get(name) == Some(values))
    }

    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.entry(format!("dvk.{name}")).or_default().push(value.to_string());
    }

    /// A field that has no value of its own.
    fn node(&mut self, name: &str) {
        self.add(name, "");
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.add(name, bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }

    fn endpoint(&mut self, name: &str, endpoint: Endpoint) {
        self.add(name, endpoint);
        self.add(&format!("{name}.slot"), endpoint.slot());
        self.add(&format!("{name}.generation"), endpoint.generation());
    }

    pub(super) fn header(&mut self, header: &Header, payload_bytes: usize) {
        self.add("magic", MAGIC);
        self.add("version", header.version);
        self.add("kind", header.kind as u8);
        self.add("flags", u8::from(header.echo.is_some()) | u8::from(header.asks) << 1);
        self.add("flags.echo", u8::from(header.echo.is_some()));
        self.add("flags.asks", u8::from(header.asks));
        self.add("flags.reserved", 0);
        self.add("zero1", 0);
        self.add("length", payload_bytes);
        self.add("cluster", header.cluster);
        self.add("src.node", header.source.node);
        self.add("dst.node", header.destination.node);
        self.add("src.incarnation", header.source.incarnation);
        self.add("dst.incarnation", header.destination.incarnation);
        self.add("src.stream", header.source.stream);
        self.add("dst.stream", header.destination.stream);
        self.add("sequence", header.sequence);
        self.add("ack", header.ack);
        self.add("timestamp", header.timestamp);
        self.add("selective", header.selective);
        for bit in (0..64).filter(|bit| header.selective >> bit & 1 != 0) {
            self.add("selective.sequence", header.ack.wrapping_add(1 + bit));
        }
        self.add("echo", header.echo.unwrap_or(0));
        self.add("window", header.window);
        self.add("zero2", 0);
    }

    pub(super) fn greeting(&mut self, greeting: &Greeting, appended: &[u8]) {
        self.add("greeting.oldest", greeting.versions.min);
        self.add("greeting.newest", greeting.versions.max);
        self.add("greeting.payload", greeting.payload_bytes);
        self.add("greeting.reserved", 0);
        self.bytes("greeting.appended", appended);
    }

    pub(super) fn padding(&mut self, bytes: &[u8]) {
        self.bytes("padding", bytes);
    }

    /// A record in a chunk of its own.
    pub(super) fn whole(&mut self, sample: &Sample) {
        let bytes = sample.bytes();
        self.node("chunk");
        self.add("chunk.head", 0xc000 | bytes.len());
        self.add("chunk.length", bytes.len());
        self.add("chunk.first", 1);
        self.add("chunk.last", 1);
        self.bytes("chunk.data", &bytes);
        self.record(sample);
    }

    pub(super) fn record(&mut self, sample: &Sample) {
        self.node("record");
        match sample {
            Sample::Step(record) => self.step(record),
            Sample::Copy(record) => self.copy(record),
            Sample::Data(head, data) => self.data(head, data),
        }
    }

    fn head(&mut self, sample: &Sample, head: &CopyHead) {
        self.add("record.kind", sample.bytes()[0]);
        self.add("record.zero", 0);
        self.add("record.container", head.container);
        self.add("record.call", head.call);
        self.endpoint("record.from", head.from);
        self.endpoint("record.to", head.to);
    }

    fn step(&mut self, record: &Record) {
        let &Record { container, from, to, ref step } = record;
        let head = CopyHead { container, call: step.call(), from, to };
        self.head(&Sample::Step(*record), &head);
        match step {
            Step::Send { message, .. }
            | Step::Request { message, .. }
            | Step::Reply { message, .. } => self.message(message),
            Step::Failed { error, .. } => self.add("record.error", error.raw()),
            Step::Notify { bits } => self.add("record.bits", bits),
            Step::Returned { bits, epoch, .. } => {
                self.add("record.bits", bits);
                self.add("record.epoch", epoch);
            }
            Step::Privilege { privileges, .. } => {
                self.add("privileges.servers", privileges.servers);
                self.add("privileges.notify", privileges.notify);
                self.add("privileges.calls", privileges.calls);
                for (name, bit) in [
                    ("send", MAY_SEND),
                    ("receive", MAY_RECEIVE),
                    ("request", MAY_REQUEST),
                    ("reply", MAY_REPLY),
                    ("notify", MAY_NOTIFY),
                    ("grant", MAY_GRANT),
                    ("copy", MAY_COPY),
                    ("wait", MAY_WAIT),
                    ("reach_others", MAY_REACH_OTHERS),
                    ("set_privileges", MAY_SET_PRIVILEGES),
                ] {
                    let allowed = u8::from(privileges.calls & bit != 0);
                    self.add(&format!("privileges.calls.{name}"), allowed);
                }
            }
            Step::Accepted { .. }
            | Step::Cancel { .. }
            | Step::Cancelled { .. }
            | Step::Watch { .. }
            | Step::Fence { .. }
            | Step::Fenced { .. }
            | Step::AwaitBind { .. }
            | Step::Bound { .. } => {}
        }
    }

    fn message(&mut self, message: &Message) {
        self.node("message");
        self.endpoint("message.source", message.source());
        self.add("message.kind", message.kind);
        self.add("message.flags", message.flags);
        self.bytes("message.payload", &message.payload);
    }

    fn copy(&mut self, record: &CopyRecord) {
        self.head(&Sample::Copy(*record), &record.head);
        match record.step {
            CopyStep::CopyFrom { source: place, len, rest }
            | CopyStep::CopyTo { destination: place, len, rest } => self.part(len, rest, place),
            CopyStep::CopyBetween { source, receiver, destination, len, rest } => {
                self.part(len, rest, source);
                self.endpoint("copy.receiver", receiver);
                self.add("copy.receiver_grant", destination.grant);
                self.add("copy.receiver_offset", destination.offset);
            }
            CopyStep::Open | CopyStep::Stop => {}
            CopyStep::Done { copied, error } => {
                self.add("copy.copied", copied);
                self.add("record.error", error.map_or(0, Errno::raw));
            }
        }
    }

    fn part(&mut self, len: u32, rest: u64, place: Place) {
        self.add("copy.length", len);
        self.add("copy.rest", rest);
        self.add("copy.grant", place.grant);
        self.add("copy.offset", place.offset);
    }

    fn data(&mut self, head: &DataHead, data: &[u8]) {
        self.head(&Sample::Data(*head, Vec::new()), &head.head);
        self.add("copy.part_offset", head.offset);
        self.bytes("copy.data", data);
    }
}
