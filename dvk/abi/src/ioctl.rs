// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The calls of the DVK: ioctl numbers and their argument blocks.
//!
//! A container's device (`/dev/dvk-dcN`, or whatever name it is bind-mounted under) takes the
//! calls of [`Bind`] and [`Exchange`]; the control device `/dev/dvk` takes those whose block is
//! named for a node, container, link or endpoint table entry. Blocks are `repr(C)` without
//! padding, every reserved field must be 0, and flags a kernel does not know are `EINVAL`.

use super::limits::NAME_BYTES;
use super::message::Message;
use core::ffi::CStr;

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
/// Wait until a slot is bound. Argument: [`WaitBind`].
pub const WAIT_BIND: u32 = number::<WaitBind>(READ | WRITE, 0x18);
/// Wait until an endpoint is gone. Argument: [`WaitUnbind`].
pub const WAIT_UNBIND: u32 = number::<WaitUnbind>(WRITE, 0x19);
/// What the kernel knows of the endpoint of this file. Argument: [`Info`].
pub const GET_INFO: u32 = number::<Info>(READ, 0x20);
/// Say what an endpoint may do. Argument: [`Privileges`].
pub const SET_PRIVILEGES: u32 = number::<Privileges>(WRITE, 0x21);
/// What the endpoint of this file may do. Argument: [`Privileges`] (`endpoint` is set).
pub const GET_PRIVILEGES: u32 = number::<Privileges>(READ, 0x22);
/// Lend a range of memory. Argument: [`Grant`].
pub const GRANT: u32 = number::<Grant>(READ | WRITE, 0x30);
/// End a grant; when the call returns, nobody touches the memory through it any more.
/// Argument: [`Revoke`].
pub const REVOKE: u32 = number::<Revoke>(WRITE, 0x31);
/// Copy out of what a peer granted, into memory of the caller. Argument: [`Copy`].
pub const COPY_FROM: u32 = number::<Copy>(READ | WRITE, 0x32);
/// Copy memory of the caller into what a peer granted. Argument: [`Copy`].
pub const COPY_TO: u32 = number::<Copy>(READ | WRITE, 0x33);
/// Copy out of what one peer granted into what another did. Argument: [`CopyBetween`].
pub const COPY_BETWEEN: u32 = number::<CopyBetween>(READ | WRITE, 0x34);

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

/// Freeze an endpoint that is to move to another node. Argument: [`Migrate`].
pub const MIGRATE_START: u32 = number::<Migrate>(READ | WRITE, 0x50);
/// The endpoint lives on its new node from here on. Argument: [`MigrateEnd`].
pub const MIGRATE_COMMIT: u32 = number::<MigrateEnd>(WRITE, 0x51);
/// The endpoint stays where it was. Argument: [`MigrateEnd`].
pub const MIGRATE_ROLLBACK: u32 = number::<MigrateEnd>(WRITE, 0x52);
/// The backup of an endpoint takes its place. Argument: [`PromoteBackup`].
pub const PROMOTE_BACKUP: u32 = number::<PromoteBackup>(WRITE, 0x53);
/// What this node knows of the endpoints of a container. Argument: [`EndpointInfo`].
pub const ENDPOINT_INFO: u32 = number::<EndpointInfo>(READ | WRITE, 0x54);
/// Take what happened since the last time, or wait for it. Argument: [`Events`].
pub const EVENTS: u32 = number::<Events>(READ | WRITE, 0x55);
/// A proxy takes frames that a link has for its peer, or waits for one.
pub const PROXY_GET: u32 = number::<ProxyFrames>(READ | WRITE, 0x56);
/// A proxy gives a link frames that its peer sent.
pub const PROXY_PUT: u32 = number::<ProxyFrames>(READ | WRITE, 0x57);

/// The name of a call of a container's device, for people; `?` for what is none.
pub const fn call_name(cmd: u32) -> &'static CStr {
    match cmd {
        BIND => c"bind",
        UNBIND => c"unbind",
        SEND => c"send",
        RECEIVE => c"receive",
        SENDREC => c"sendrec",
        REPLY => c"reply",
        REPLY_RECEIVE => c"reply_receive",
        RECEIVE_REQUEST => c"receive_request",
        NOTIFY => c"notify",
        WAIT_BIND => c"wait_bind",
        WAIT_UNBIND => c"wait_unbind",
        GET_INFO => c"get_info",
        SET_PRIVILEGES => c"set_privileges",
        GET_PRIVILEGES => c"get_privileges",
        GRANT => c"grant",
        REVOKE => c"revoke",
        COPY_FROM => c"copy_from",
        COPY_TO => c"copy_to",
        COPY_BETWEEN => c"copy_between",
        _ => c"?",
    }
}

/// [`Bind::slot`] of a caller that takes any free slot of this node's lease.
pub const SLOT_ANY: u32 = u32::MAX;

/// Argument of [`BIND`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Bind {
    /// The slot, or [`SLOT_ANY`].
    pub slot: u32,
    /// 0, or [`BIND_SERVER`] alone or with one of the other `BIND_` flags.
    pub flags: u32,
    /// Out: the endpoint. In, with [`BIND_ADOPT`]: the endpoint to be adopted.
    pub endpoint: u64,
}

/// [`Bind::flags`]: the endpoint is a server. Required, and only allowed, for slots below
/// [`SERVER_SLOTS`](super::limits::SERVER_SLOTS). This and the other flags need a file that is
/// open for writing: the permissions of the device node say who may be a server, stand by for one
/// or adopt an endpoint.
pub const BIND_SERVER: u32 = 1;
/// [`Bind::flags`]: stand by for the server that is bound to the slot on another node. The
/// endpoint has the value of that one, takes part in nothing, and takes its place at
/// [`PROMOTE_BACKUP`].
pub const BIND_BACKUP: u32 = 2;
/// [`Bind::flags`]: be one of several servers with one endpoint, of which there may be one on each
/// node; processes reach that of their own node where there is one.
pub const BIND_REPLICA: u32 = 4;
/// [`Bind::flags`]: take over an endpoint that has moved, or is moving, to this node.
pub const BIND_ADOPT: u32 = 8;

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
    /// Fills the block up to its alignment. The kernel neither reads nor writes it.
    pub unused: [u64; 4],
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
            unused: [0; 4],
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

/// Argument of [`WAIT_BIND`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct WaitBind {
    /// The slot.
    pub slot: u32,
    /// Reserved, 0.
    pub flags: u32,
    /// As [`Exchange::timeout_ns`].
    pub timeout_ns: i64,
    /// Out: the endpoint bound there.
    pub endpoint: u64,
}

/// Argument of [`WAIT_UNBIND`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct WaitUnbind {
    /// The endpoint.
    pub endpoint: u64,
    /// As [`Exchange::timeout_ns`].
    pub timeout_ns: i64,
}

/// Argument of [`GET_INFO`], and part of [`EndpointInfo`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Info {
    /// The endpoint; [`Endpoint::NONE`](super::Endpoint::NONE) of a file that is not bound.
    pub endpoint: u64,
    /// The container.
    pub container: u32,
    /// The endpoint's node; [`NODE_NONE`] before [`DVS_INIT`].
    pub node: u32,
    /// Messages received since the bind.
    pub received: u64,
    /// Messages sent since the bind, replies and notifications included.
    pub sent: u64,
    /// Endpoints that wait to send to this one.
    pub senders: u32,
    /// Endpoints whose request was received and not yet answered.
    pub clients: u32,
    /// What the endpoint's thread is doing: [`STATE_IDLE`] and so on.
    pub state: u32,
    /// [`ROLE_PRIMARY`], [`ROLE_BACKUP`] or [`ROLE_REPLICA`].
    pub role: u32,
    /// The only endpoint that can end what the thread is doing;
    /// [`Endpoint::ANY`](super::Endpoint::ANY) if several can,
    /// [`Endpoint::NONE`](super::Endpoint::NONE) while it waits for nobody.
    pub waits_for: u64,
    /// Sources of notifications that were not received yet.
    pub notices: u32,
    /// Grants that were not revoked.
    pub grants: u32,
    /// How often the endpoint has moved, or its backup was promoted.
    pub epoch: u32,
    /// Always 0.
    pub reserved: u32,
}

/// [`Info::state`]: no blocking call is open.
pub const STATE_IDLE: u32 = 0;
/// [`Info::state`]: in `receive`.
pub const STATE_RECEIVE: u32 = 1;
/// [`Info::state`]: in `send`.
pub const STATE_SEND: u32 = 2;
/// [`Info::state`]: in `sendrec`.
pub const STATE_REQUEST: u32 = 3;
/// [`Info::state`]: in a copy.
pub const STATE_COPY: u32 = 4;
/// [`Info::state`]: in `wait_bind` or `wait_unbind`.
pub const STATE_WAIT: u32 = 5;
/// [`Info::state`]: the endpoint is frozen, on its way to another node.
pub const STATE_MOVING: u32 = 6;

/// [`Info::role`]: the only one of its endpoint.
pub const ROLE_PRIMARY: u32 = 0;
/// [`Info::role`]: bound with [`BIND_BACKUP`] and not promoted.
pub const ROLE_BACKUP: u32 = 1;
/// [`Info::role`]: bound with [`BIND_REPLICA`].
pub const ROLE_REPLICA: u32 = 2;

/// Argument of [`SET_PRIVILEGES`] and [`GET_PRIVILEGES`].
///
/// An endpoint may take from itself what it has. One that may use [`SET_PRIVILEGES`] on others may
/// say what any endpoint of its container may do, though never more than it may itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Privileges {
    /// Whose; [`Endpoint::SELF`](super::Endpoint::SELF) for the caller.
    pub endpoint: u64,
    /// Bit `n`: it may send to, request from and notify the server in slot `n`.
    pub servers: u64,
    /// Bits it may set by `notify`.
    pub notify: u64,
    /// Calls it may make: the `MAY_` bits.
    pub calls: u32,
    /// Reserved, 0.
    pub flags: u32,
}

/// [`Privileges::calls`]: `send`.
pub const MAY_SEND: u32 = 1;
/// [`Privileges::calls`]: `receive` and `receive_request`.
pub const MAY_RECEIVE: u32 = 1 << 1;
/// [`Privileges::calls`]: `sendrec`.
pub const MAY_REQUEST: u32 = 1 << 2;
/// [`Privileges::calls`]: `reply`.
pub const MAY_REPLY: u32 = 1 << 3;
/// [`Privileges::calls`]: `notify`.
pub const MAY_NOTIFY: u32 = 1 << 4;
/// [`Privileges::calls`]: `grant`.
pub const MAY_GRANT: u32 = 1 << 5;
/// [`Privileges::calls`]: `copy_from`, `copy_to` and `copy_between`.
pub const MAY_COPY: u32 = 1 << 6;
/// [`Privileges::calls`]: `wait_bind` and `wait_unbind`.
pub const MAY_WAIT: u32 = 1 << 7;
/// [`Privileges::calls`]: send to, request from and notify endpoints that are no servers.
pub const MAY_REACH_OTHERS: u32 = 1 << 8;
/// [`Privileges::calls`]: set the privileges of other endpoints. Only servers have it from the
/// start.
pub const MAY_SET_PRIVILEGES: u32 = 1 << 9;
/// Every bit of [`Privileges::calls`].
pub const MAY_ALL: u32 = (1 << 10) - 1;

/// Argument of [`GRANT`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Grant {
    /// First byte that is lent, in the address space of the caller.
    pub address: u64,
    /// How many bytes, not 0.
    pub len: u64,
    /// To whom; [`Endpoint::ANY`](super::Endpoint::ANY) for everybody in the container.
    pub to: u64,
    /// [`GRANT_READ`], [`GRANT_WRITE`] or both.
    pub access: u32,
    /// Reserved, 0.
    pub flags: u32,
    /// Out: the grant's id among those of the caller's endpoint. Never 0; an id does not come back
    /// before 2^32 other grants were made in its place.
    pub grant: u64,
}

/// [`Grant::access`]: others may copy out of it.
pub const GRANT_READ: u32 = 1;
/// [`Grant::access`]: others may copy into it.
pub const GRANT_WRITE: u32 = 2;

/// Argument of [`REVOKE`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Revoke {
    /// The grant.
    pub grant: u64,
}

/// A place in what an endpoint granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Granted {
    /// Who granted it.
    pub endpoint: u64,
    /// The grant.
    pub grant: u64,
    /// Bytes from the beginning of the grant.
    pub offset: u64,
}

/// Argument of [`COPY_FROM`] and [`COPY_TO`].
///
/// If the call fails, `copied` says how many bytes arrived before; they are the first ones.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Copy {
    /// From or to where.
    pub granted: Granted,
    /// The caller's memory.
    pub address: u64,
    /// How many bytes; the range must lie in the grant.
    pub len: u64,
    /// As [`Exchange::timeout_ns`]. A copy within this node is not a wait.
    pub timeout_ns: i64,
    /// Out: how many bytes were copied.
    pub copied: u64,
}

/// Argument of [`COPY_BETWEEN`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CopyBetween {
    /// From where.
    pub source: Granted,
    /// To where.
    pub destination: Granted,
    /// As [`Copy::len`].
    pub len: u64,
    /// As [`Copy::timeout_ns`].
    pub timeout_ns: i64,
    /// As [`Copy::copied`].
    pub copied: u64,
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
    /// Grants that the endpoints bound on this node may have at once; 0 for
    /// [`MAX_GRANTS`](super::limits::MAX_GRANTS).
    pub max_grants: u32,
    /// Reserved, 0.
    pub reserved: u32,
    /// Bytes of bulk data that may be between nodes, or pinned for it, at once for the
    /// container's endpoints on this node; 0 for no limit but memory.
    pub max_bytes: u64,
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
/// [`LinkAttach::transport`]: TIPC, by the kernel; its bearers are for others to set up.
pub const TRANSPORT_TIPC: u32 = 2;
/// [`LinkAttach::transport`]: a proxy that speaks TCP.
pub const TRANSPORT_TCP: u32 = 3;
/// [`LinkAttach::transport`]: a proxy that speaks UDP.
pub const TRANSPORT_UDP: u32 = 4;
/// [`LinkAttach::transport`]: a proxy that speaks QUIC.
pub const TRANSPORT_QUIC: u32 = 5;

/// Argument of [`LINK_ATTACH`] and [`LINK_DETACH`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LinkAttach {
    /// The peer.
    pub node: u32,
    /// `TRANSPORT_…`. To the kernel all proxies are the same: see [`PROXY_GET`].
    pub transport: u32,
    /// Index of the local network interface; 0 for other transports than Ethernet.
    pub interface: u32,
    /// For TIPC and proxies, the longest frame that is carried, in bytes; 0 for the longest there
    /// is. 0 for Ethernet, where the interface knows.
    pub frame_bytes: u32,
    /// The peer's MAC address in the first six bytes, then two zero bytes; all 0 for
    /// other transports.
    pub address: [u8; 8],
}

/// Argument of [`PROXY_GET`] and [`PROXY_PUT`]: frames of a link, as a proxy carries them. Each is
/// its length, four bytes little-endian, and then as many bytes, without padding.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ProxyFrames {
    /// The peer.
    pub node: u32,
    /// What the proxy speaks: `TRANSPORT_…`, as [`LinkAttach::transport`] says it of the link.
    pub transport: u32,
    /// Address of the bytes.
    pub address: u64,
    /// In: how many bytes there are, or there is room for. Out: how many the kernel gave, or took.
    pub len: u64,
    /// For [`PROXY_GET`]: how long to wait for a frame, in nanoseconds: 0 not at all, negative for
    /// ever.
    pub timeout_ns: i64,
}

/// The most bytes that one [`PROXY_PUT`] takes, and one [`PROXY_GET`] gives.
pub const PROXY_BYTES_MAX: u64 = 1 << 20;

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
    /// 0, or [`REMOTE_REPLICATED`].
    pub flags: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// [`RemoteEndpoint::flags`]: other nodes may have a replica of it (see [`BIND_REPLICA`]).
pub const REMOTE_REPLICATED: u32 = 1;

/// Argument of [`MIGRATE_START`].
///
/// To be called on the endpoint's node first, then on every other node of the container, that of
/// the destination included; the epoch is the same everywhere, and higher than at any move of the
/// endpoint before. Then [`MIGRATE_COMMIT`] everywhere, at the source next to last, at the
/// destination last; or [`MIGRATE_ROLLBACK`] everywhere, at the source first.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Migrate {
    /// The endpoint.
    pub endpoint: u64,
    /// Its container.
    pub container: u32,
    /// The node it lives on.
    pub source: u32,
    /// The node it is to live on.
    pub destination: u32,
    /// Number of this move, higher than that of any before; not 0.
    pub epoch: u32,
    /// On the source: where to put what the destination needs to know; there: what the source
    /// gave; ignored elsewhere.
    pub state: u64,
    /// Bytes at `state`. Out, on the source: how many were written, or, where the call is
    /// `EMSGSIZE`, are needed.
    pub state_len: u64,
    /// How long to wait until the endpoint is in no call but `receive` (on the source), or until
    /// the source has confirmed (elsewhere); as [`Exchange::timeout_ns`].
    pub timeout_ns: i64,
}

/// Argument of [`MIGRATE_COMMIT`] and [`MIGRATE_ROLLBACK`].
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MigrateEnd {
    /// The endpoint.
    pub endpoint: u64,
    /// Its container.
    pub container: u32,
    /// The epoch of the [`MIGRATE_START`].
    pub epoch: u32,
}

/// Argument of [`PROMOTE_BACKUP`], to be called on every node of the container, on the backup's
/// last.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PromoteBackup {
    /// The endpoint, which keeps its value.
    pub endpoint: u64,
    /// Its container.
    pub container: u32,
    /// The node of the backup.
    pub node: u32,
    /// As [`Migrate::epoch`].
    pub epoch: u32,
    /// Reserved, 0.
    pub reserved: u32,
}

/// Argument of [`ENDPOINT_INFO`]: a step through a container's table.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct EndpointInfo {
    /// In: the container.
    pub container: u32,
    /// In: the lowest slot that is of interest; out: the first one from there on that is bound, as
    /// far as this node knows. `ESRCH` if there is none.
    pub slot: u32,
    /// Out: what is known; of an endpoint on another node only where it is.
    pub info: Info,
}

/// Argument of [`EVENTS`].
///
/// Each open file of the control device has its own sequence of events, from its first call on.
/// The file is readable (`poll`) while there are some.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Events {
    /// An array of [`Event`], to be filled.
    pub address: u64,
    /// In: its length; out: how many were written.
    pub count: u32,
    /// Reserved, 0.
    pub flags: u32,
    /// As [`Exchange::timeout_ns`].
    pub timeout_ns: i64,
    /// Out: events that this file lost before these, because they were not taken in time.
    pub lost: u64,
}

/// Something that happened on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// When, in nanoseconds since boot.
    pub time_ns: u64,
    /// The endpoint that it is about, or 0.
    pub endpoint: u64,
    /// What: [`EVENT_BOUND`] and so on.
    pub kind: u32,
    /// The container that it is about, or [`CONTAINER_NONE`].
    pub container: u32,
    /// The node that it is about, or [`NODE_NONE`].
    pub node: u32,
    /// More, as the kind says, or 0.
    pub detail: u32,
}

/// [`Event::container`] of an event that is about no container.
pub const CONTAINER_NONE: u32 = u32::MAX;

/// [`Event::kind`]: an endpoint was bound here; `detail` is its role.
pub const EVENT_BOUND: u32 = 1;
/// [`Event::kind`]: an endpoint that was bound here is gone.
pub const EVENT_UNBOUND: u32 = 2;
/// [`Event::kind`]: messages flow on the link to `node`.
pub const EVENT_LINK_UP: u32 = 3;
/// [`Event::kind`]: nothing is heard from `node`.
pub const EVENT_LINK_LOST: u32 = 4;
/// [`Event::kind`]: `node` is heard again.
pub const EVENT_LINK_FOUND: u32 = 5;
/// [`Event::kind`]: the stream with `node` was lost and began anew; who waited was told.
pub const EVENT_LINK_RESET: u32 = 6;
/// [`Event::kind`]: `node` speaks no version of the protocol that this node does.
pub const EVENT_LINK_INCOMPATIBLE: u32 = 7;
/// [`Event::kind`]: the device that carried the traffic with `node` is gone.
pub const EVENT_LINK_DETACHED: u32 = 8;
/// [`Event::kind`]: `node` sent what it may not, or what nobody understands.
pub const EVENT_FORGED: u32 = 9;
/// [`Event::kind`]: the endpoint is frozen and about to move to `node`; `detail` is the epoch.
pub const EVENT_MOVING: u32 = 10;
/// [`Event::kind`]: the endpoint lives on `node` now; `detail` is the epoch.
pub const EVENT_MOVED: u32 = 11;
/// [`Event::kind`]: the endpoint stays on `node`; `detail` is the epoch.
pub const EVENT_STAYED: u32 = 12;
/// [`Event::kind`]: the backup on `node` took the endpoint's place; `detail` is the epoch.
pub const EVENT_PROMOTED: u32 = 13;
