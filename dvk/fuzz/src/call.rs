// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of the DVK as the grammar sees them: an entry for each, with what its fields mean.

use core::mem::{offset_of, size_of};
use dvk_abi::errno::Errno;
use dvk_abi::ioctl::{
    self, Bind, CopyBetween, DvsInit, EndpointInfo, Events, Exchange, Grant, Info, Lease,
    LinkAttach, LinkInfo, Migrate, MigrateEnd, Node, Notify, Privileges, PromoteBackup,
    ProxyFrames, RemoteEndpoint, Revoke, WaitBind, WaitUnbind, BIND_ADOPT, BIND_BACKUP,
    BIND_REPLICA, BIND_SERVER, GRANT_READ, GRANT_WRITE, MAY_ALL, MAY_REACH_OTHERS, MAY_RECEIVE,
    MAY_SEND, MAY_SET_PRIVILEGES, REMOTE_REPLICATED, TRANSPORT_ETHERNET, TRANSPORT_UDP,
};

/// Which device takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// That of a container.
    Container,
    /// `/dev/dvk`.
    Control,
}

/// What a field is for: from which values the grammar takes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Must be 0.
    Reserved,
    /// Bytes that mean nothing to the kernel.
    Bytes,
    /// Somebody to act upon.
    Peer,
    /// Somebody or anybody to wait for.
    From,
    /// Where the kernel puts the endpoint that it made.
    MadeEndpoint,
    /// Where it puts the grant that it made.
    MadeGrant,
    /// How long to wait.
    Timeout,
    /// A slot to bind.
    Slot,
    /// The first slot of a lease.
    LeaseSlot,
    /// The number of slots of a lease.
    LeaseSlots,
    /// A generation.
    Generation,
    /// A container.
    Container,
    /// A node.
    Node,
    /// The incarnation of a node.
    Incarnation,
    /// The number of a move.
    Epoch,
    /// A network interface.
    Interface,
    /// An Ethernet address, in eight bytes.
    Mac,
    /// One of the values that the call knows.
    Choice(&'static [u64]),
    /// Any number.
    Number,
    /// An address in the memory of the caller.
    Address,
    /// A number of bytes.
    Length,
    /// A distance in bytes.
    Offset,
    /// A grant.
    Grant,
}

/// A field of an argument block.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: usize,
    /// Its own bytes.
    pub size: usize,
    /// What it is for.
    pub role: Role,
}

/// A call.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// The number of the ioctl.
    pub number: u32,
    /// Who takes it.
    pub device: Device,
    /// Bytes of its block.
    pub size: usize,
    /// The fields of the block that are not only written by the kernel.
    pub fields: &'static [Field],
}

/// The most fields that a call has.
pub const FIELDS_MAX: usize = 11;
/// The most bytes that a block has.
pub const BLOCK_MAX: usize = 128;

/// The size of the field that a function picks.
const fn field_bytes<B, F>(_: fn(&B) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! calls {
    ($($device:ident $call:ident($block:ty) { $($($field:ident).+: $role:expr),* $(,)? })*) => {
        /// Every call. A new one needs an entry here, and no more.
        pub const CALLS: &[Call] = &[$(Call {
            name: stringify!($call),
            number: ioctl::$call,
            device: Device::$device,
            size: size_of::<$block>(),
            fields: &[$(Field {
                name: stringify!($($field).+),
                offset: offset_of!($block, $($field).+),
                size: field_bytes(|block: &$block| &block.$($field).+),
                role: $role,
            }),*],
        }),*];
    };
}

use Role::{
    Address, Bytes, Choice, Epoch, From, Generation, Incarnation, Interface, LeaseSlot, LeaseSlots,
    Length, MadeEndpoint, MadeGrant, Number, Offset, Peer, Reserved, Timeout,
};

/// How a bind may be meant.
const BIND_FLAGS: Role = Choice(&[
    0,
    BIND_SERVER as u64,
    (BIND_SERVER | BIND_BACKUP) as u64,
    (BIND_SERVER | BIND_REPLICA) as u64,
    (BIND_SERVER | BIND_ADOPT) as u64,
]);
const ACCESS: Role = Choice(&[GRANT_READ as u64, GRANT_WRITE as u64, BOTH, BOTH, BOTH]);
const BOTH: u64 = (GRANT_READ | GRANT_WRITE) as u64;
const CAP: Role = Choice(&[0, 0, 0, 0, 0, 0, 0, 0, 3, 1 << 16]);
/// Mostly all that one has who is no server: what an endpoint gave up it does not get back.
const MAY: Role = Choice(&[
    MAY_ALL as u64,
    (MAY_ALL & !MAY_SET_PRIVILEGES) as u64,
    (MAY_ALL & !MAY_SET_PRIVILEGES) as u64,
    (MAY_ALL & !MAY_SET_PRIVILEGES) as u64,
    (MAY_ALL & !MAY_SET_PRIVILEGES) as u64,
    (MAY_ALL & !MAY_SET_PRIVILEGES) as u64,
    (MAY_ALL & !MAY_SET_PRIVILEGES) as u64,
    (MAY_SEND | MAY_RECEIVE | MAY_REACH_OTHERS) as u64,
]);
const MASK: Role =
    Choice(&[u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX, 0xff, 0]);

/// Mostly the one that needs no program to carry anything.
const TRANSPORT: Role = Choice(&[
    TRANSPORT_ETHERNET as u64,
    TRANSPORT_ETHERNET as u64,
    TRANSPORT_ETHERNET as u64,
    TRANSPORT_UDP as u64,
]);
const PROXIED: Role = Choice(&[TRANSPORT_UDP as u64]);
const FRAME: Role = Choice(&[0, 0, 0, 0, 0, 0, 576, 1500, 100]);

calls! {
    Container BIND(Bind) { slot: Role::Slot, flags: BIND_FLAGS, endpoint: MadeEndpoint }
    Container UNBIND(()) {}
    Container SEND(Exchange) {
        message: Bytes, peer: Peer, from: From, timeout_ns: Timeout, flags: Reserved
    }
    Container RECEIVE(Exchange) {
        message: Bytes, peer: Peer, from: From, timeout_ns: Timeout, flags: Reserved
    }
    Container SENDREC(Exchange) {
        message: Bytes, peer: Peer, from: From, timeout_ns: Timeout, flags: Reserved
    }
    Container REPLY(Exchange) {
        message: Bytes, peer: Peer, from: From, timeout_ns: Timeout, flags: Reserved
    }
    Container REPLY_RECEIVE(Exchange) {
        message: Bytes, peer: Peer, from: From, timeout_ns: Timeout, flags: Reserved
    }
    Container RECEIVE_REQUEST(Exchange) {
        message: Bytes, peer: Peer, from: From, timeout_ns: Timeout, flags: Reserved
    }
    Container NOTIFY(Notify) { peer: Peer, bits: Number }
    Container WAIT_BIND(WaitBind) { slot: Role::Slot, flags: Reserved, timeout_ns: Timeout }
    Container WAIT_UNBIND(WaitUnbind) { endpoint: Peer, timeout_ns: Timeout }
    Container GET_INFO(Info) {}
    Container SET_PRIVILEGES(Privileges) {
        endpoint: Peer, servers: MASK, notify: MASK, calls: MAY, flags: Reserved
    }
    Container GET_PRIVILEGES(Privileges) {}
    Container GRANT(Grant) {
        address: Address, len: Length, to: From, access: ACCESS, flags: Reserved, grant: MadeGrant
    }
    Container REVOKE(Revoke) { grant: Role::Grant }
    Container COPY_FROM(ioctl::Copy) {
        granted.endpoint: Peer, granted.grant: Role::Grant, granted.offset: Offset,
        address: Address, len: Length, timeout_ns: Timeout
    }
    Container COPY_TO(ioctl::Copy) {
        granted.endpoint: Peer, granted.grant: Role::Grant, granted.offset: Offset,
        address: Address, len: Length, timeout_ns: Timeout
    }
    Container COPY_BETWEEN(CopyBetween) {
        source.endpoint: Peer, source.grant: Role::Grant, source.offset: Offset,
        destination.endpoint: Peer, destination.grant: Role::Grant, destination.offset: Offset,
        len: Length, timeout_ns: Timeout
    }
    Control DVS_INIT(DvsInit) { cluster: Choice(&[1]), node: Choice(&[0]), incarnation: Incarnation }
    Control DVS_END(()) {}
    Control NODE_UP(Node) { node: Role::Node, incarnation: Incarnation }
    Control NODE_DOWN(Node) { node: Role::Node, incarnation: Incarnation }
    Control DC_CREATE(ioctl::Container) {
        container: Role::Container, max_endpoints: CAP, name: Bytes, max_grants: CAP,
        reserved: Reserved, max_bytes: Length
    }
    Control DC_DESTROY(ioctl::Container) { container: Role::Container }
    Control DC_ADD_NODE(Lease) {
        container: Role::Container, node: Role::Node, first_slot: LeaseSlot, slots: LeaseSlots,
        first_generation: Generation, reserved: Reserved
    }
    Control DC_REMOVE_NODE(Lease) { container: Role::Container, node: Role::Node }
    Control LINK_ATTACH(LinkAttach) {
        node: Role::Node, transport: TRANSPORT, interface: Interface, frame_bytes: FRAME,
        address: Role::Mac
    }
    Control LINK_DETACH(LinkAttach) { node: Role::Node }
    Control LINK_INFO(LinkInfo) { node: Role::Node }
    Control ENDPOINT_SET_REMOTE(RemoteEndpoint) {
        endpoint: Peer, container: Role::Container, node: Role::Node,
        flags: Choice(&[0, REMOTE_REPLICATED as u64]), reserved: Reserved
    }
    Control MIGRATE_START(Migrate) {
        endpoint: Peer, container: Role::Container, source: Role::Node, destination: Role::Node,
        epoch: Epoch, state: Address, state_len: Length, timeout_ns: Timeout
    }
    Control MIGRATE_COMMIT(MigrateEnd) { endpoint: Peer, container: Role::Container, epoch: Epoch }
    Control MIGRATE_ROLLBACK(MigrateEnd) { endpoint: Peer, container: Role::Container, epoch: Epoch }
    Control PROMOTE_BACKUP(PromoteBackup) {
        endpoint: Peer, container: Role::Container, node: Role::Node, epoch: Epoch, reserved: Reserved
    }
    Control ENDPOINT_INFO(EndpointInfo) { container: Role::Container, slot: Role::Slot }
    Control PROXY_GET(ProxyFrames) {
        node: Role::Node, transport: PROXIED, address: Address, len: Length, timeout_ns: Timeout
    }
    Control PROXY_PUT(ProxyFrames) {
        node: Role::Node, transport: PROXIED, address: Address, len: Length, timeout_ns: Timeout
    }
    Control EVENTS(Events) {
        address: Address, count: Choice(&[0, 1, 8, 100]), flags: Reserved, timeout_ns: Timeout
    }
}

/// The index of the call with this ioctl number in [`CALLS`].
///
/// # Panics
/// If there is none.
pub fn index_of(number: u32) -> usize {
    let found = CALLS.iter().position(|call| call.number == number);
    found.expect("every call of the ABI is in the table")
}

/// The errors that calls end with, by the reference. There is one more, which nodes say to each
/// other only.
pub fn errors() -> impl Iterator<Item = Errno> {
    Errno::ALL.iter().copied().filter(|errno| *errno != Errno::Moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_call_of_the_contract_once() {
        // What the contract defines is read from its source, so that a call cannot be forgotten.
        let source = include_str!("../../abi/src/ioctl.rs");
        let defined: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub const ")?.split_once(": u32 = number::<"))
            .map(|(name, _)| name)
            .collect();
        let mut listed: Vec<&str> = CALLS.iter().map(|call| call.name).collect();
        assert!(defined.len() > 30);
        for name in &defined {
            assert!(listed.contains(name), "{name} has no entry");
        }
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), defined.len());
    }

    #[test]
    fn blocks_and_fields_have_the_size_that_the_number_says() {
        for call in CALLS {
            assert_eq!(call.size, (call.number >> 16 & 0x3fff) as usize, "{}", call.name);
            assert!(call.size <= BLOCK_MAX && call.fields.len() <= FIELDS_MAX, "{}", call.name);
            for field in call.fields {
                assert!(field.offset + field.size <= call.size, "{} {}", call.name, field.name);
            }
        }
        let exchange = &CALLS[index_of(ioctl::SEND)];
        let timeout = exchange.fields.iter().find(|field| field.name == "timeout_ns").unwrap();
        assert_eq!((timeout.offset, timeout.size), (80, 8));
    }
}
