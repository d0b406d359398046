// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The calls of the DVK: ioctl numbers and their argument blocks.
//!
//! A container's device (`/dev/dvk-dcN`, or whatever name it is bind-mounted under) takes the
//! calls of [`Bind`] and [`Exchange`]; the control device `/dev/dvk` takes those whose block is
//! named for a node, container, link or endpoint table entry. Blocks are `repr(C)` without
//! padding, every reserved field must be 0, and flags a kernel does not know are `EINVAL`.

use super::limits::NAME_BYTES;
use super::message::Message;

/// The ioctl type byte of every DVK call.
pub const IOCTL_TYPE: u8 = 0xd5;

const NONE: u32 = 0;
const WRITE: u32 = 1;
const READ: u32 = 2;

const fn number<T>(direction: u32, nr: u8) -> u32 {
    direction << 30
        | (core::mem::size_of::<T>() as u32) << 16
        | (IOCTL_TYPE as u32) << 8
        | nr as u32
}

/// Bind the open file to a slot. Argument: [`Bind`].
pub const BIND: u32 = number::<Bind>(READ | WRITE, 0x01);
/// Undo [`BIND`]; closing the file does the same.
pub const UNBIND: u32 = number::<()>(NONE, 0x02);
/// Send `message` to `peer` and wait until it is received.
pub const SEND: u32 = number::<Exchange>(READ | WRITE, 0x10);
/// Wait for a message from `from`.
pub const RECEIVE: u32 = number::<Exchange>(READ | WRITE, 0x11);
/// Send `message` to `peer` and wait for its reply, which replaces it.
pub const SENDREC: u32 = number::<Exchange>(READ | WRITE, 0x12);
/// Answer `peer`, which waits in [`SENDREC`]. Never blocks.
pub const REPLY: u32 = number::<Exchange>(READ | WRITE, 0x13);
/// [`REPLY`] to `peer`, then [`RECEIVE`] from `from`.
pub const REPLY_RECEIVE: u32 = number::<Exchange>(READ | WRITE, 0x14);
/// [`RECEIVE`], but only messages sent by [`SENDREC`].
pub const RECEIVE_REQUEST: u32 = number::<Exchange>(READ | WRITE, 0x15);
/// Set notification bits at `peer`. Never blocks. Argument: [`Notify`].
pub const NOTIFY: u32 = number::<Notify>(WRITE, 0x16);
/// What the kernel knows of the endpoint of this file. Argument: [`Info`].
pub const GET_INFO: u32 = number::<Info>(READ, 0x20);

/// Make this node part of a DVS. Argument: [`DvsInit`].
pub const DVS_INIT: u32 = number::<DvsInit>(WRITE, 0x40);
/// Leave the DVS: every node goes down, every container but none of its local files is destroyed.
pub const DVS_END: u32 = number::<()>(NONE, 0x41);
/// A peer node runs with this incarnation. Argument: [`Node`].
pub const NODE_UP: u32 = number::<Node>(WRITE, 0x42);
/// A peer node is gone. Argument: [`Node`].
pub const NODE_DOWN: u32 = number::<Node>(WRITE, 0x43);
/// Make a container and its device node. Argument: [`Container`].
pub const DC_CREATE: u32 = number::<Container>(WRITE, 0x44);
/// Destroy a container: every endpoint in it dies. Argument: [`Container`] (only `container`).
pub const DC_DESTROY: u32 = number::<Container>(WRITE, 0x45);
/// A container spans a node, which holds a lease of slots in it. Argument: [`Lease`].
pub const DC_ADD_NODE: u32 = number::<Lease>(WRITE, 0x46);
/// A container no longer spans a node. Argument: [`Lease`] (only `container` and `node`).
pub const DC_REMOVE_NODE: u32 = number::<Lease>(WRITE, 0x47);
/// Carry the traffic with a node over a transport. Argument: [`LinkAttach`].
pub const LINK_ATTACH: u32 = number::<LinkAttach>(WRITE, 0x48);
/// Stop carrying traffic with a node. Argument: [`LinkAttach`] (only `node`).
pub const LINK_DETACH: u32 = number::<LinkAttach>(WRITE, 0x49);
/// State and counters of the link to a node. Argument: [`LinkInfo`].
pub const LINK_INFO: u32 = number::<LinkInfo>(READ | WRITE, 0x4a);
/// An endpoint of a container lives on another node. Argument: [`RemoteEndpoint`].
pub const ENDPOINT_SET_REMOTE: u32 = number::<RemoteEndpoint>(WRITE, 0x4b);

/// [`Bind::slot`] of a caller that takes any free slot of this node's lease.
pub const SLOT_ANY: u32 = u32::MAX;

/// Argument of [`BIND`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Bind {
    /// The slot, or [`SLOT_ANY`].
    pub slot: u32,
    /// [`BIND_SERVER`] or 0.
    pub flags: u32,
    /// Out: the endpoint.
    pub endpoint: u64,
}

/// [`Bind::flags`]: the endpoint is a server. Required, and only allowed, for slots below
/// [`SERVER_SLOTS`](super::limits::SERVER_SLOTS).
pub const BIND_SERVER: u32 = 1;

/// Argument of the calls that exchange messages.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Exchange {
    /// In: what is sent; out: what was received. Calls that receive nothing leave it alone.
    pub message: Message,
    /// In: whom to send or reply to.
    pub peer: u64,
    /// In: from whom to receive; [`Endpoint::ANY`](super::Endpoint::ANY) for everybody.
    pub from: u64,
    /// In: nanoseconds to wait at most; 0: not at all, negative: forever.
    pub timeout_ns: i64,
    /// Out: how the received message was sent ([`HOW_SEND`] and so on).
    pub how: u32,
    /// Reserved, 0.
    pub flags: u32,
    /// Reserved, 0.
    pub reserved: [u64; 4],
}

const _: () = assert!(core::mem::size_of::<Exchange>() == 128);

impl Default for Exchange {
    fn default() -> Self {
        Self {
            message: Message::ZERO,
            peer: 0,
            from: 0,
            timeout_ns: 0,
            how: 0,
            flags: 0,
            reserved: [0; 4],
        }
    }
}

/// [`Exchange::how`]: by `send`; the sender goes on.
pub const HOW_SEND: u32 = 1;
/// [`Exchange::how`]: by `sendrec`; the sender waits for a reply.
pub const HOW_REQUEST: u32 = 2;
/// [`Exchange::how`]: by `notify`.
pub const HOW_NOTIFY: u32 = 3;
/// [`Exchange::how`]: the reply to the caller's own `sendrec`.
pub const HOW_REPLY: u32 = 4;

/// Argument of [`NOTIFY`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Notify {
    /// Whom to notify.
    pub peer: u64,
    /// Bits to set; 0 is `EINVAL`.
    pub bits: u64,
}

/// Argument of [`GET_INFO`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Info {
    /// The endpoint of this file; [`Endpoint::NONE`](super::Endpoint::NONE) if it is not bound.
    pub endpoint: u64,
    /// The container whose device the file is.
    pub container: u32,
    /// This node; [`NODE_NONE`] before [`DVS_INIT`].
    pub node: u32,
    /// Messages received since the bind.
    pub received: u64,
    /// Messages sent since the bind, replies and notifications included.
    pub sent: u64,
    /// Endpoints that wait to send to this one.
    pub senders: u32,
    /// Endpoints whose request was received and not yet answered.
    pub clients: u32,
}

/// [`Info::node`] of a node that is in no DVS.
pub const NODE_NONE: u32 = u32::MAX;

/// Argument of [`DVS_INIT`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct DvsInit {
    /// Which DVS; frames of another are dropped and counted.
    pub cluster: u64,
    /// This node's id.
    pub node: u32,
    /// This run of the node; never 0, and higher at every boot of the same node id.
    pub incarnation: u32,
}

/// Argument of [`NODE_UP`] and [`NODE_DOWN`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Node {
    /// The peer's id.
    pub node: u32,
    /// The peer's incarnation; never 0. Ignored by [`NODE_DOWN`].
    pub incarnation: u32,
}

/// Argument of [`DC_CREATE`] and [`DC_DESTROY`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Container {
    /// The container's id; its device is `/dev/dvk-dc<id>`.
    pub container: u32,
    /// Endpoints that may be bound on this node at once; 0 for the largest the ABI allows.
    pub max_endpoints: u32,
    /// A name for people, padded with zero bytes.
    pub name: [u8; NAME_BYTES],
}

/// Argument of [`DC_ADD_NODE`] and [`DC_REMOVE_NODE`].
///
/// Binds of the leased slots take generations from `first_generation` up; whoever hands out
/// leases takes care that no generation of a slot is ever handed out twice.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Lease {
    /// The container.
    pub container: u32,
    /// The node that holds the lease; this node's own id for the slots it may bind.
    pub node: u32,
    /// First slot of the lease: a multiple of [`LEASE_SLOTS`](super::limits::LEASE_SLOTS), not
    /// below [`SERVER_SLOTS`](super::limits::SERVER_SLOTS).
    pub first_slot: u32,
    /// Number of slots: a multiple of [`LEASE_SLOTS`](super::limits::LEASE_SLOTS); 0 for a node
    /// that binds server slots only.
    pub slots: u32,
    /// Generation of the first bind of each slot; never 0. Also the floor for server slots
    /// bound on this node.
    pub first_generation: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// [`LinkAttach::transport`]: raw Ethernet frames of [`ETHERTYPE`](super::wire::ETHERTYPE).
pub const TRANSPORT_ETHERNET: u32 = 1;

/// Argument of [`LINK_ATTACH`] and [`LINK_DETACH`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LinkAttach {
    /// The peer.
    pub node: u32,
    /// [`TRANSPORT_ETHERNET`].
    pub transport: u32,
    /// Index of the local network interface.
    pub interface: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// The peer's MAC address in the first six bytes, then two zero bytes.
    pub address: [u8; 8],
}

/// Argument of [`LINK_INFO`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LinkInfo {
    /// In: the peer.
    pub node: u32,
    /// [`LINK_DOWN`], [`LINK_CONNECTING`] or [`LINK_UP`].
    pub state: u32,
    /// The attached transport; 0 if none.
    pub transport: u32,
    /// Smoothed round-trip time in microseconds; 0 while unknown.
    pub rtt_us: u32,
    /// Frames sent, retransmissions included.
    pub frames_sent: u64,
    /// Frames accepted.
    pub frames_received: u64,
    /// Bytes sent, headers included.
    pub bytes_sent: u64,
    /// Bytes of accepted frames.
    pub bytes_received: u64,
    /// Frames sent again because no acknowledgement came.
    pub retransmissions: u64,
    /// Frames that came a second time.
    pub duplicates: u64,
    /// Frames dropped: malformed, of another cluster, or of an earlier incarnation.
    pub rejected: u64,
}

/// [`LinkInfo::state`]: no transport, or the node is down.
pub const LINK_DOWN: u32 = 0;
/// [`LinkInfo::state`]: the two ends have not greeted each other yet.
pub const LINK_CONNECTING: u32 = 1;
/// [`LinkInfo::state`]: messages flow.
pub const LINK_UP: u32 = 2;

/// Argument of [`ENDPOINT_SET_REMOTE`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct RemoteEndpoint {
    /// The endpoint. An entry for the same slot with a lower generation is replaced; one with a
    /// higher generation stays, and the call is `ESTALE`.
    pub endpoint: u64,
    /// Its container.
    pub container: u32,
    /// The node it lives on; [`NODE_NONE`] to forget it.
    pub node: u32,
}
