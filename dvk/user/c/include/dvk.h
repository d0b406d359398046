/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The DVK for C programs: message passing between the processes of a Distributed Container,
 * wherever they run. docs/dvk-reference.md says what the calls mean. All functions that return int
 * return -1 and set errno if they fail; the reference lists what each errno means.
 *
 * Generated from dvk/abi and dvk/user/c/src/ffi.rs by UPDATE_HEADER=1 cargo test -p dvk-c.
 */
#ifndef DVK_H
#define DVK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifdef __cplusplus
#define DVK_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), "size of " #type)
extern "C" {
#else
#define DVK_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "size of " #type)
#endif

/* Matches every source in `receive`. */
#define DVK_ENDPOINT_ANY UINT64_C(0xffffffff)

/* Names nobody. */
#define DVK_ENDPOINT_NONE UINT64_C(0xfffffffe)

/* The caller itself. */
#define DVK_ENDPOINT_SELF UINT64_C(0xfffffffd)

/* Nodes of a DVS; node ids are `0..NODES`. */
#define DVK_NODES 65536u

/* Distributed Containers of a DVS; ids are `0..CONTAINERS`. */
#define DVK_CONTAINERS 65536u

/* Slots of one Distributed Container. */
#define DVK_SLOTS 65536u

/* Slots `0..SERVER_SLOTS` are for servers with well-known numbers and are never handed out by a
 * bind to any slot. */
#define DVK_SERVER_SLOTS 64u

/* Leases of slots start and end at multiples of this. */
#define DVK_LEASE_SLOTS 32u

/* Bytes of a container's name, without terminator. */
#define DVK_NAME_BYTES 32

/* Grants that one endpoint can have at once. */
#define DVK_MAX_GRANTS 65536u

/* Bytes of a message. */
#define DVK_MESSAGE_BYTES 64

/* Bytes of a message that belong to the protocol its `kind` names. */
#define DVK_PAYLOAD_BYTES 48

/* `kind` of what `receive` returns for a notification. Protocols use other values. */
#define DVK_KIND_NOTIFY 0xffff0001u

/* The ioctl type byte of every DVK call. */
#define DVK_IOCTL_TYPE 0xd5u

/* struct dvk_bind.slot of a caller that takes any free slot of this node's lease. */
#define DVK_SLOT_ANY 0xffffffffu

/* struct dvk_bind.flags: the endpoint is a server. Required, and only allowed, for slots below
 * DVK_SERVER_SLOTS. This and the other flags need a file that is
 * open for writing: the permissions of the device node say who may be a server, stand by for one
 * or adopt an endpoint. */
#define DVK_BIND_SERVER 1u

/* struct dvk_bind.flags: stand by for the server that is bound to the slot on another node. The
 * endpoint has the value of that one, takes part in nothing, and takes its place at
 * dvk_promote_backup. */
#define DVK_BIND_BACKUP 2u

/* struct dvk_bind.flags: be one of several servers with one endpoint, of which there may be one on each
 * node; processes reach that of their own node where there is one. */
#define DVK_BIND_REPLICA 4u

/* struct dvk_bind.flags: take over an endpoint that has moved, or is moving, to this node. */
#define DVK_BIND_ADOPT 8u

/* struct dvk_exchange.how: by `send`; the sender goes on. */
#define DVK_HOW_SEND 1u

/* struct dvk_exchange.how: by `sendrec`; the sender waits for a reply. */
#define DVK_HOW_REQUEST 2u

/* struct dvk_exchange.how: by `notify`. */
#define DVK_HOW_NOTIFY 3u

/* struct dvk_exchange.how: the reply to the caller's own `sendrec`. */
#define DVK_HOW_REPLY 4u

/* struct dvk_info.state: no blocking call is open. */
#define DVK_STATE_IDLE 0u

/* struct dvk_info.state: in `receive`. */
#define DVK_STATE_RECEIVE 1u

/* struct dvk_info.state: in `send`. */
#define DVK_STATE_SEND 2u

/* struct dvk_info.state: in `sendrec`. */
#define DVK_STATE_REQUEST 3u

/* struct dvk_info.state: in a copy. */
#define DVK_STATE_COPY 4u

/* struct dvk_info.state: in `wait_bind` or `wait_unbind`. */
#define DVK_STATE_WAIT 5u

/* struct dvk_info.state: the endpoint is frozen, on its way to another node. */
#define DVK_STATE_MOVING 6u

/* struct dvk_info.role: the only one of its endpoint. */
#define DVK_ROLE_PRIMARY 0u

/* struct dvk_info.role: bound with DVK_BIND_BACKUP and not promoted. */
#define DVK_ROLE_BACKUP 1u

/* struct dvk_info.role: bound with DVK_BIND_REPLICA. */
#define DVK_ROLE_REPLICA 2u

/* struct dvk_privileges.calls: `send`. */
#define DVK_MAY_SEND 1u

/* struct dvk_privileges.calls: `receive` and `receive_request`. */
#define DVK_MAY_RECEIVE 0x2u

/* struct dvk_privileges.calls: `sendrec`. */
#define DVK_MAY_REQUEST 0x4u

/* struct dvk_privileges.calls: `reply`. */
#define DVK_MAY_REPLY 0x8u

/* struct dvk_privileges.calls: `notify`. */
#define DVK_MAY_NOTIFY 0x10u

/* struct dvk_privileges.calls: `grant`. */
#define DVK_MAY_GRANT 0x20u

/* struct dvk_privileges.calls: `copy_from`, `copy_to` and `copy_between`. */
#define DVK_MAY_COPY 0x40u

/* struct dvk_privileges.calls: `wait_bind` and `wait_unbind`. */
#define DVK_MAY_WAIT 0x80u

/* struct dvk_privileges.calls: send to, request from and notify endpoints that are no servers. */
#define DVK_MAY_REACH_OTHERS 0x100u

/* struct dvk_privileges.calls: set the privileges of other endpoints. Only servers have it from the
 * start. */
#define DVK_MAY_SET_PRIVILEGES 0x200u

/* Every bit of struct dvk_privileges.calls. */
#define DVK_MAY_ALL 0x3ffu

/* struct dvk_grant.access: others may copy out of it. */
#define DVK_GRANT_READ 1u

/* struct dvk_grant.access: others may copy into it. */
#define DVK_GRANT_WRITE 2u

/* struct dvk_info.node of a node that is in no DVS. */
#define DVK_NODE_NONE 0xffffffffu

/* struct dvk_link_attach.transport: raw Ethernet frames of ETHERTYPE. */
#define DVK_TRANSPORT_ETHERNET 1u

/* struct dvk_link_attach.transport: TIPC, by the kernel; its bearers are for others to set up. */
#define DVK_TRANSPORT_TIPC 2u

/* struct dvk_link_attach.transport: a proxy that speaks TCP. */
#define DVK_TRANSPORT_TCP 3u

/* struct dvk_link_attach.transport: a proxy that speaks UDP. */
#define DVK_TRANSPORT_UDP 4u

/* struct dvk_link_attach.transport: a proxy that speaks QUIC. */
#define DVK_TRANSPORT_QUIC 5u

/* The most bytes that one dvk_proxy_put takes, and one dvk_proxy_get gives. */
#define DVK_PROXY_BYTES_MAX UINT64_C(0x100000)

/* struct dvk_link_info.state: no transport, or the node is down. */
#define DVK_LINK_DOWN 0u

/* struct dvk_link_info.state: the two ends have not greeted each other yet. */
#define DVK_LINK_CONNECTING 1u

/* struct dvk_link_info.state: messages flow. */
#define DVK_LINK_UP 2u

/* struct dvk_remote_endpoint.flags: other nodes may have a replica of it (see DVK_BIND_REPLICA). */
#define DVK_REMOTE_REPLICATED 1u

/* struct dvk_event.container of an event that is about no container. */
#define DVK_CONTAINER_NONE 0xffffffffu

/* struct dvk_event.kind: an endpoint was bound here; `detail` is its role. */
#define DVK_EVENT_BOUND 1u

/* struct dvk_event.kind: an endpoint that was bound here is gone. */
#define DVK_EVENT_UNBOUND 2u

/* struct dvk_event.kind: messages flow on the link to `node`. */
#define DVK_EVENT_LINK_UP 3u

/* struct dvk_event.kind: nothing is heard from `node`. */
#define DVK_EVENT_LINK_LOST 4u

/* struct dvk_event.kind: `node` is heard again. */
#define DVK_EVENT_LINK_FOUND 5u

/* struct dvk_event.kind: the stream with `node` was lost and began anew; who waited was told. */
#define DVK_EVENT_LINK_RESET 6u

/* struct dvk_event.kind: `node` speaks no version of the protocol that this node does. */
#define DVK_EVENT_LINK_INCOMPATIBLE 7u

/* struct dvk_event.kind: the device that carried the traffic with `node` is gone. */
#define DVK_EVENT_LINK_DETACHED 8u

/* struct dvk_event.kind: `node` sent what it may not, or what nobody understands. */
#define DVK_EVENT_FORGED 9u

/* struct dvk_event.kind: the endpoint is frozen and about to move to `node`; `detail` is the epoch. */
#define DVK_EVENT_MOVING 10u

/* struct dvk_event.kind: the endpoint lives on `node` now; `detail` is the epoch. */
#define DVK_EVENT_MOVED 11u

/* struct dvk_event.kind: the endpoint stays on `node`; `detail` is the epoch. */
#define DVK_EVENT_STAYED 12u

/* struct dvk_event.kind: the backup on `node` took the endpoint's place; `detail` is the epoch. */
#define DVK_EVENT_PROMOTED 13u

/* Message kinds from here up are the DVK's own. */
#define DVK_RESERVED_KINDS 0xffff0000u

/* Error codes from here up have the same meaning in every protocol. */
#define DVK_RESERVED_CODES 0xffff0000u

/* Status: the server knows no request of this kind. */
#define DVK_CODE_UNKNOWN 0xffff0001u

/* Status: the bytes of a field of the request are no value of its type. */
#define DVK_CODE_MALFORMED 0xffff0002u

/* Status: the message is one that is sent without waiting for a reply. */
#define DVK_CODE_NO_REPLY 0xffff0003u

/* A message as user space, the kernel and the wire see it: 64 bytes, no pointers.
 *
 * `source` is set by the kernel at delivery; what the sender put there is ignored. `kind` says
 * which protocol's view of the payload applies; kinds from `0xffff_0000` up are the DVK's own. */
struct dvk_message {
	/* Endpoint of the sender. */
	uint64_t source;
	/* Meaning of the payload. */
	uint32_t kind;
	/* Free for the protocol. */
	uint32_t flags;
	/* The protocol's data, little-endian by convention. */
	uint8_t payload[48];
} __attribute__((aligned(64)));
DVK_SIZE(struct dvk_message, 64);

/* Argument of dvk_bind. */
struct dvk_bind {
	/* The slot, or DVK_SLOT_ANY. */
	uint32_t slot;
	/* 0, or DVK_BIND_SERVER alone or with one of the other `BIND_` flags. */
	uint32_t flags;
	/* Out: the endpoint. In, with DVK_BIND_ADOPT: the endpoint to be adopted. */
	uint64_t endpoint;
};
DVK_SIZE(struct dvk_bind, 16);

/* Argument of the calls that exchange messages. */
struct dvk_exchange {
	/* In: what is sent; out: what was received. Calls that receive nothing leave it alone. */
	struct dvk_message message;
	/* In: whom to send or reply to. */
	uint64_t peer;
	/* In: from whom to receive; DVK_ENDPOINT_ANY for everybody. */
	uint64_t from;
	/* In: nanoseconds to wait at most; 0: not at all, negative: forever. */
	int64_t timeout_ns;
	/* Out: how the received message was sent (DVK_HOW_SEND and so on). */
	uint32_t how;
	/* Reserved, 0. */
	uint32_t flags;
	/* Fills the block up to its alignment. The kernel neither reads nor writes it. */
	uint64_t unused[4];
};
DVK_SIZE(struct dvk_exchange, 128);

/* Argument of dvk_notify. */
struct dvk_notify {
	/* Whom to notify. */
	uint64_t peer;
	/* Bits to set; 0 is `EINVAL`. */
	uint64_t bits;
};
DVK_SIZE(struct dvk_notify, 16);

/* Argument of dvk_wait_bind. */
struct dvk_wait_bind {
	/* The slot. */
	uint32_t slot;
	/* Reserved, 0. */
	uint32_t flags;
	/* As struct dvk_exchange.timeout_ns. */
	int64_t timeout_ns;
	/* Out: the endpoint bound there. */
	uint64_t endpoint;
};
DVK_SIZE(struct dvk_wait_bind, 24);

/* Argument of dvk_wait_unbind. */
struct dvk_wait_unbind {
	/* The endpoint. */
	uint64_t endpoint;
	/* As struct dvk_exchange.timeout_ns. */
	int64_t timeout_ns;
};
DVK_SIZE(struct dvk_wait_unbind, 16);

/* Argument of dvk_get_info, and part of struct dvk_endpoint_info. */
struct dvk_info {
	/* The endpoint; DVK_ENDPOINT_NONE of a file that is not bound. */
	uint64_t endpoint;
	/* The container. */
	uint32_t container;
	/* The endpoint's node; DVK_NODE_NONE before dvk_dvs_init. */
	uint32_t node;
	/* Messages received since the bind. */
	uint64_t received;
	/* Messages sent since the bind, replies and notifications included. */
	uint64_t sent;
	/* Endpoints that wait to send to this one. */
	uint32_t senders;
	/* Endpoints whose request was received and not yet answered. */
	uint32_t clients;
	/* What the endpoint's thread is doing: DVK_STATE_IDLE and so on. */
	uint32_t state;
	/* DVK_ROLE_PRIMARY, DVK_ROLE_BACKUP or DVK_ROLE_REPLICA. */
	uint32_t role;
	/* The only endpoint that can end what the thread is doing;
	 * DVK_ENDPOINT_ANY if several can,
	 * DVK_ENDPOINT_NONE while it waits for nobody. */
	uint64_t waits_for;
	/* Sources of notifications that were not received yet. */
	uint32_t notices;
	/* Grants that were not revoked. */
	uint32_t grants;
	/* How often the endpoint has moved, or its backup was promoted. */
	uint32_t epoch;
	/* Always 0. */
	uint32_t reserved;
};
DVK_SIZE(struct dvk_info, 72);

/* Argument of dvk_set_privileges and dvk_get_privileges.
 *
 * An endpoint may take from itself what it has. One that may use dvk_set_privileges on others may
 * say what any endpoint of its container may do, though never more than it may itself. */
struct dvk_privileges {
	/* Whose; DVK_ENDPOINT_SELF for the caller. */
	uint64_t endpoint;
	/* Bit `n`: it may send to, request from and notify the server in slot `n`. */
	uint64_t servers;
	/* Bits it may set by `notify`. */
	uint64_t notify;
	/* Calls it may make: the `MAY_` bits. */
	uint32_t calls;
	/* Reserved, 0. */
	uint32_t flags;
};
DVK_SIZE(struct dvk_privileges, 32);

/* Argument of dvk_grant. */
struct dvk_grant {
	/* First byte that is lent, in the address space of the caller. */
	uint64_t address;
	/* How many bytes, not 0. */
	uint64_t len;
	/* To whom; DVK_ENDPOINT_ANY for everybody in the container. */
	uint64_t to;
	/* DVK_GRANT_READ, DVK_GRANT_WRITE or both. */
	uint32_t access;
	/* Reserved, 0. */
	uint32_t flags;
	/* Out: the grant's id among those of the caller's endpoint. Never 0; an id does not come back
	 * before 2^32 other grants were made in its place. */
	uint64_t grant;
};
DVK_SIZE(struct dvk_grant, 40);

/* Argument of dvk_revoke. */
struct dvk_revoke {
	/* The grant. */
	uint64_t grant;
};
DVK_SIZE(struct dvk_revoke, 8);

/* A place in what an endpoint granted. */
struct dvk_granted {
	/* Who granted it. */
	uint64_t endpoint;
	/* The grant. */
	uint64_t grant;
	/* Bytes from the beginning of the grant. */
	uint64_t offset;
};
DVK_SIZE(struct dvk_granted, 24);

/* Argument of dvk_copy_from and dvk_copy_to.
 *
 * If the call fails, `copied` says how many bytes arrived before; they are the first ones. */
struct dvk_copy {
	/* From or to where. */
	struct dvk_granted granted;
	/* The caller's memory. */
	uint64_t address;
	/* How many bytes; the range must lie in the grant. */
	uint64_t len;
	/* As struct dvk_exchange.timeout_ns. A copy within this node is not a wait. */
	int64_t timeout_ns;
	/* Out: how many bytes were copied. */
	uint64_t copied;
};
DVK_SIZE(struct dvk_copy, 56);

/* Argument of dvk_copy_between. */
struct dvk_copy_between {
	/* From where. */
	struct dvk_granted source;
	/* To where. */
	struct dvk_granted destination;
	/* As struct dvk_copy.len. */
	uint64_t len;
	/* As struct dvk_copy.timeout_ns. */
	int64_t timeout_ns;
	/* As struct dvk_copy.copied. */
	uint64_t copied;
};
DVK_SIZE(struct dvk_copy_between, 72);

/* Argument of dvk_dvs_init. */
struct dvk_dvs_init {
	/* Which DVS; frames of another are dropped and counted. */
	uint64_t cluster;
	/* This node's id. */
	uint32_t node;
	/* This run of the node; never 0, and higher at every boot of the same node id. */
	uint32_t incarnation;
};
DVK_SIZE(struct dvk_dvs_init, 16);

/* Argument of dvk_node_up and dvk_node_down. */
struct dvk_node {
	/* The peer's id. */
	uint32_t node;
	/* The peer's incarnation; never 0. Ignored by dvk_node_down. */
	uint32_t incarnation;
};
DVK_SIZE(struct dvk_node, 8);

/* Argument of dvk_dc_create and dvk_dc_destroy. */
struct dvk_container {
	/* The container's id; its device is `/dev/dvk-dc<id>`. */
	uint32_t container;
	/* Endpoints that may be bound on this node at once; 0 for the largest the ABI allows. */
	uint32_t max_endpoints;
	/* A name for people, padded with zero bytes. */
	uint8_t name[32];
	/* Grants that the endpoints bound on this node may have at once; 0 for
	 * DVK_MAX_GRANTS. */
	uint32_t max_grants;
	/* Reserved, 0. */
	uint32_t reserved;
	/* Bytes of bulk data that may be between nodes, or pinned for it, at once for the
	 * container's endpoints on this node; 0 for no limit but memory. */
	uint64_t max_bytes;
};
DVK_SIZE(struct dvk_container, 56);

/* Argument of dvk_dc_add_node and dvk_dc_remove_node.
 *
 * Binds of the leased slots take generations from `first_generation` up; whoever hands out
 * leases takes care that no generation of a slot is ever handed out twice. */
struct dvk_lease {
	/* The container. */
	uint32_t container;
	/* The node that holds the lease; this node's own id for the slots it may bind. */
	uint32_t node;
	/* First slot of the lease: a multiple of DVK_LEASE_SLOTS, not
	 * below DVK_SERVER_SLOTS. */
	uint32_t first_slot;
	/* Number of slots: a multiple of DVK_LEASE_SLOTS; 0 for a node
	 * that binds server slots only. */
	uint32_t slots;
	/* Generation of the first bind of each slot; never 0. Also the floor for server slots
	 * bound on this node. */
	uint32_t first_generation;
	/* Reserved, 0. */
	uint32_t reserved;
};
DVK_SIZE(struct dvk_lease, 24);

/* Argument of dvk_link_attach and dvk_link_detach. */
struct dvk_link_attach {
	/* The peer. */
	uint32_t node;
	/* `TRANSPORT_…`. To the kernel all proxies are the same: see dvk_proxy_get. */
	uint32_t transport;
	/* Index of the local network interface; 0 for other transports than Ethernet. */
	uint32_t interface;
	/* For TIPC and proxies, the longest frame that is carried, in bytes; 0 for the longest there
	 * is. 0 for Ethernet, where the interface knows. */
	uint32_t frame_bytes;
	/* The peer's MAC address in the first six bytes, then two zero bytes; all 0 for
	 * other transports. */
	uint8_t address[8];
};
DVK_SIZE(struct dvk_link_attach, 24);

/* Argument of dvk_proxy_get and dvk_proxy_put: frames of a link, as a proxy carries them. Each is
 * its length, four bytes little-endian, and then as many bytes, without padding. */
struct dvk_proxy_frames {
	/* The peer. */
	uint32_t node;
	/* What the proxy speaks: `TRANSPORT_…`, as struct dvk_link_attach.transport says it of the link. */
	uint32_t transport;
	/* Address of the bytes. */
	uint64_t address;
	/* In: how many bytes there are, or there is room for. Out: how many the kernel gave, or took. */
	uint64_t len;
	/* For dvk_proxy_get: how long to wait for a frame, in nanoseconds: 0 not at all, negative for
	 * ever. */
	int64_t timeout_ns;
};
DVK_SIZE(struct dvk_proxy_frames, 32);

/* Argument of dvk_link_info. */
struct dvk_link_info {
	/* In: the peer. */
	uint32_t node;
	/* DVK_LINK_DOWN, DVK_LINK_CONNECTING or DVK_LINK_UP. */
	uint32_t state;
	/* The attached transport; 0 if none. */
	uint32_t transport;
	/* Smoothed round-trip time in microseconds; 0 while unknown. */
	uint32_t rtt_us;
	/* Frames sent, retransmissions included. */
	uint64_t frames_sent;
	/* Frames accepted. */
	uint64_t frames_received;
	/* Bytes sent, headers included. */
	uint64_t bytes_sent;
	/* Bytes of accepted frames. */
	uint64_t bytes_received;
	/* Frames sent again because no acknowledgement came. */
	uint64_t retransmissions;
	/* Frames that came a second time. */
	uint64_t duplicates;
	/* Frames dropped: malformed, of another cluster, or of an earlier incarnation. */
	uint64_t rejected;
};
DVK_SIZE(struct dvk_link_info, 72);

/* Argument of dvk_endpoint_set_remote. */
struct dvk_remote_endpoint {
	/* The endpoint. An entry for the same slot with a lower generation is replaced; one with a
	 * higher generation stays, and the call is `ESTALE`. */
	uint64_t endpoint;
	/* Its container. */
	uint32_t container;
	/* The node it lives on; DVK_NODE_NONE to forget it. */
	uint32_t node;
	/* 0, or DVK_REMOTE_REPLICATED. */
	uint32_t flags;
	/* Reserved, 0. */
	uint32_t reserved;
};
DVK_SIZE(struct dvk_remote_endpoint, 24);

/* Argument of dvk_migrate_start.
 *
 * To be called on the endpoint's node first, then on every other node of the container, that of
 * the destination included; the epoch is the same everywhere, and higher than at any move of the
 * endpoint before. Then dvk_migrate_commit everywhere, at the source next to last, at the
 * destination last; or dvk_migrate_rollback everywhere, at the source first. */
struct dvk_migrate {
	/* The endpoint. */
	uint64_t endpoint;
	/* Its container. */
	uint32_t container;
	/* The node it lives on. */
	uint32_t source;
	/* The node it is to live on. */
	uint32_t destination;
	/* Number of this move, higher than that of any before; not 0. */
	uint32_t epoch;
	/* On the source: where to put what the destination needs to know; there: what the source
	 * gave; ignored elsewhere. */
	uint64_t state;
	/* Bytes at `state`. Out, on the source: how many were written, or, where the call is
	 * `EMSGSIZE`, are needed. */
	uint64_t state_len;
	/* How long to wait until the endpoint is in no call but `receive` (on the source), or until
	 * the source has confirmed (elsewhere); as struct dvk_exchange.timeout_ns. */
	int64_t timeout_ns;
};
DVK_SIZE(struct dvk_migrate, 48);

/* Argument of dvk_migrate_commit and dvk_migrate_rollback. */
struct dvk_migrate_end {
	/* The endpoint. */
	uint64_t endpoint;
	/* Its container. */
	uint32_t container;
	/* The epoch of the dvk_migrate_start. */
	uint32_t epoch;
};
DVK_SIZE(struct dvk_migrate_end, 16);

/* Argument of dvk_promote_backup, to be called on every node of the container, on the backup's
 * last. */
struct dvk_promote_backup {
	/* The endpoint, which keeps its value. */
	uint64_t endpoint;
	/* Its container. */
	uint32_t container;
	/* The node of the backup. */
	uint32_t node;
	/* As struct dvk_migrate.epoch. */
	uint32_t epoch;
	/* Reserved, 0. */
	uint32_t reserved;
};
DVK_SIZE(struct dvk_promote_backup, 24);

/* Argument of dvk_endpoint_info: a step through a container's table. */
struct dvk_endpoint_info {
	/* In: the container. */
	uint32_t container;
	/* In: the lowest slot that is of interest; out: the first one from there on that is bound, as
	 * far as this node knows. `ESRCH` if there is none. */
	uint32_t slot;
	/* Out: what is known; of an endpoint on another node only where it is. */
	struct dvk_info info;
};
DVK_SIZE(struct dvk_endpoint_info, 80);

/* Argument of dvk_events.
 *
 * Each open file of the control device has its own sequence of events, from its first call on.
 * The file is readable (`poll`) while there are some. */
struct dvk_events {
	/* An array of struct dvk_event, to be filled. */
	uint64_t address;
	/* In: its length; out: how many were written. */
	uint32_t count;
	/* Reserved, 0. */
	uint32_t flags;
	/* As struct dvk_exchange.timeout_ns. */
	int64_t timeout_ns;
	/* Out: events that this file lost before these, because they were not taken in time. */
	uint64_t lost;
};
DVK_SIZE(struct dvk_events, 32);

/* Something that happened on this node. */
struct dvk_event {
	/* When, in nanoseconds since boot. */
	uint64_t time_ns;
	/* The endpoint that it is about, or 0. */
	uint64_t endpoint;
	/* What: DVK_EVENT_BOUND and so on. */
	uint32_t kind;
	/* The container that it is about, or DVK_CONTAINER_NONE. */
	uint32_t container;
	/* The node that it is about, or DVK_NODE_NONE. */
	uint32_t node;
	/* More, as the kind says, or 0. */
	uint32_t detail;
};
DVK_SIZE(struct dvk_event, 32);

#define DVK_IOC_BIND _IOWR(DVK_IOCTL_TYPE, 0x01, struct dvk_bind)
#define DVK_IOC_UNBIND _IO(DVK_IOCTL_TYPE, 0x02)
#define DVK_IOC_SEND _IOWR(DVK_IOCTL_TYPE, 0x10, struct dvk_exchange)
#define DVK_IOC_RECEIVE _IOWR(DVK_IOCTL_TYPE, 0x11, struct dvk_exchange)
#define DVK_IOC_SENDREC _IOWR(DVK_IOCTL_TYPE, 0x12, struct dvk_exchange)
#define DVK_IOC_REPLY _IOWR(DVK_IOCTL_TYPE, 0x13, struct dvk_exchange)
#define DVK_IOC_REPLY_RECEIVE _IOWR(DVK_IOCTL_TYPE, 0x14, struct dvk_exchange)
#define DVK_IOC_RECEIVE_REQUEST _IOWR(DVK_IOCTL_TYPE, 0x15, struct dvk_exchange)
#define DVK_IOC_NOTIFY _IOW(DVK_IOCTL_TYPE, 0x16, struct dvk_notify)
#define DVK_IOC_WAIT_BIND _IOWR(DVK_IOCTL_TYPE, 0x18, struct dvk_wait_bind)
#define DVK_IOC_WAIT_UNBIND _IOW(DVK_IOCTL_TYPE, 0x19, struct dvk_wait_unbind)
#define DVK_IOC_GET_INFO _IOR(DVK_IOCTL_TYPE, 0x20, struct dvk_info)
#define DVK_IOC_SET_PRIVILEGES _IOW(DVK_IOCTL_TYPE, 0x21, struct dvk_privileges)
#define DVK_IOC_GET_PRIVILEGES _IOR(DVK_IOCTL_TYPE, 0x22, struct dvk_privileges)
#define DVK_IOC_GRANT _IOWR(DVK_IOCTL_TYPE, 0x30, struct dvk_grant)
#define DVK_IOC_REVOKE _IOW(DVK_IOCTL_TYPE, 0x31, struct dvk_revoke)
#define DVK_IOC_COPY_FROM _IOWR(DVK_IOCTL_TYPE, 0x32, struct dvk_copy)
#define DVK_IOC_COPY_TO _IOWR(DVK_IOCTL_TYPE, 0x33, struct dvk_copy)
#define DVK_IOC_COPY_BETWEEN _IOWR(DVK_IOCTL_TYPE, 0x34, struct dvk_copy_between)
#define DVK_IOC_DVS_INIT _IOW(DVK_IOCTL_TYPE, 0x40, struct dvk_dvs_init)
#define DVK_IOC_DVS_END _IO(DVK_IOCTL_TYPE, 0x41)
#define DVK_IOC_NODE_UP _IOW(DVK_IOCTL_TYPE, 0x42, struct dvk_node)
#define DVK_IOC_NODE_DOWN _IOW(DVK_IOCTL_TYPE, 0x43, struct dvk_node)
#define DVK_IOC_DC_CREATE _IOW(DVK_IOCTL_TYPE, 0x44, struct dvk_container)
#define DVK_IOC_DC_DESTROY _IOW(DVK_IOCTL_TYPE, 0x45, struct dvk_container)
#define DVK_IOC_DC_ADD_NODE _IOW(DVK_IOCTL_TYPE, 0x46, struct dvk_lease)
#define DVK_IOC_DC_REMOVE_NODE _IOW(DVK_IOCTL_TYPE, 0x47, struct dvk_lease)
#define DVK_IOC_LINK_ATTACH _IOW(DVK_IOCTL_TYPE, 0x48, struct dvk_link_attach)
#define DVK_IOC_LINK_DETACH _IOW(DVK_IOCTL_TYPE, 0x49, struct dvk_link_attach)
#define DVK_IOC_LINK_INFO _IOWR(DVK_IOCTL_TYPE, 0x4a, struct dvk_link_info)
#define DVK_IOC_ENDPOINT_SET_REMOTE _IOW(DVK_IOCTL_TYPE, 0x4b, struct dvk_remote_endpoint)
#define DVK_IOC_MIGRATE_START _IOWR(DVK_IOCTL_TYPE, 0x50, struct dvk_migrate)
#define DVK_IOC_MIGRATE_COMMIT _IOW(DVK_IOCTL_TYPE, 0x51, struct dvk_migrate_end)
#define DVK_IOC_MIGRATE_ROLLBACK _IOW(DVK_IOCTL_TYPE, 0x52, struct dvk_migrate_end)
#define DVK_IOC_PROMOTE_BACKUP _IOW(DVK_IOCTL_TYPE, 0x53, struct dvk_promote_backup)
#define DVK_IOC_ENDPOINT_INFO _IOWR(DVK_IOCTL_TYPE, 0x54, struct dvk_endpoint_info)
#define DVK_IOC_EVENTS _IOWR(DVK_IOCTL_TYPE, 0x55, struct dvk_events)
#define DVK_IOC_PROXY_GET _IOWR(DVK_IOCTL_TYPE, 0x56, struct dvk_proxy_frames)
#define DVK_IOC_PROXY_PUT _IOWR(DVK_IOCTL_TYPE, 0x57, struct dvk_proxy_frames)

/* Opens the device of a container, /dev/dvk-dcN, close-on-exec. Returns a file descriptor, to be
 * closed with close(2), which unbinds. */
int dvk_open(uint32_t container);

/* Opens a device of the DVK wherever it is mounted, close-on-exec. */
int dvk_open_at(const char *path);

/* Binds the file to a slot: one below DVK_SERVER_SLOTS with DVK_BIND_SERVER, or DVK_SLOT_ANY.
 * `endpoint` receives the endpoint; with DVK_BIND_ADOPT it gives the one to be adopted. */
int dvk_bind(int fd, uint32_t slot, uint32_t flags, uint64_t *endpoint);

/* Ceases to be an endpoint and keeps the file open. */
int dvk_unbind(int fd);

/* Sends a message and waits until it is received, at most `timeout_ns` nanoseconds; 0 is not to
 * wait at all (EAGAIN), a negative value to wait for ever. So it is for all timeouts. */
int dvk_send(int fd, uint64_t to, const struct dvk_message *message, int64_t timeout_ns);

/* Waits for a message from `from`, or from anybody with DVK_ENDPOINT_ANY. `how` receives how it
 * was sent, DVK_HOW_SEND and so on; it may be null. */
int dvk_receive(
	int fd,
	uint64_t from,
	struct dvk_message *message,
	uint32_t *how,
	int64_t timeout_ns);

/* As dvk_receive, but takes only messages sent by dvk_sendrec. */
int dvk_receive_request(int fd, uint64_t from, struct dvk_message *message, int64_t timeout_ns);

/* Sends a message and waits for its reply, which replaces it. */
int dvk_sendrec(int fd, uint64_t to, struct dvk_message *message, int64_t timeout_ns);

/* Answers `to`, whose request was received. Never waits; EAGAIN if nobody waits for it. */
int dvk_reply(int fd, uint64_t to, const struct dvk_message *message);

/* dvk_reply to `to` and then dvk_receive from `from`, in one call. The message that is received
 * replaces the reply. If the reply fails, nothing is received. */
int dvk_reply_receive(
	int fd,
	uint64_t to,
	struct dvk_message *message,
	uint64_t from,
	uint32_t *how,
	int64_t timeout_ns);

/* Sets notification bits, not 0, at `to`. Never waits. */
int dvk_notify(int fd, uint64_t to, uint64_t bits);

/* The bits of a received notification; 0 if the message is none. */
uint64_t dvk_notify_bits(const struct dvk_message *message);

/* Waits until somebody is bound to a slot, on whatever node; `endpoint` receives who, and may be
 * null. */
int dvk_wait_bind(int fd, uint32_t slot, uint64_t *endpoint, int64_t timeout_ns);

/* Waits until an endpoint is dead. */
int dvk_wait_unbind(int fd, uint64_t endpoint, int64_t timeout_ns);

/* What the kernel knows of this file and its endpoint. */
int dvk_get_info(int fd, struct dvk_info *info);

/* Says what an endpoint may do. */
int dvk_set_privileges(int fd, const struct dvk_privileges *privileges);

/* What the endpoint of this file may do. */
int dvk_get_privileges(int fd, struct dvk_privileges *privileges);

/* Lends `len` bytes at `address` to `to`, or to everybody with DVK_ENDPOINT_ANY. `access` is
 * DVK_GRANT_READ, DVK_GRANT_WRITE or both. `grant` receives the id that messages carry. Until
 * dvk_revoke, others read and write the memory at any moment. */
int dvk_grant(int fd, void *address, size_t len, uint64_t to, uint32_t access, uint64_t *grant);

/* Ends a grant. When it returns, nobody touches the memory any more. */
int dvk_revoke(int fd, uint64_t grant);

/* Copies `len` bytes out of what a peer granted. `copied` receives how many arrived, also if the
 * call fails; it may be null. */
int dvk_copy_from(
	int fd,
	const struct dvk_granted *from,
	void *into,
	size_t len,
	uint64_t *copied,
	int64_t timeout_ns);

/* Copies `len` bytes into what a peer granted. */
int dvk_copy_to(
	int fd,
	const struct dvk_granted *to,
	const void *from,
	size_t len,
	uint64_t *copied,
	int64_t timeout_ns);

/* Copies `len` bytes out of what one peer granted into what another did. */
int dvk_copy_between(
	int fd,
	const struct dvk_granted *from,
	const struct dvk_granted *to,
	uint64_t len,
	uint64_t *copied,
	int64_t timeout_ns);

/* Leaves the DVS. This and the following are calls of the control device, /dev/dvk, and need
 * CAP_SYS_ADMIN in the initial user namespace. What the blocks mean is said at their structures. */
int dvk_dvs_end(int control);

/* Makes this node part of a DVS. */
int dvk_dvs_init(int control, const struct dvk_dvs_init *block);

/* A peer node runs. */
int dvk_node_up(int control, const struct dvk_node *block);

/* A peer node is gone. */
int dvk_node_down(int control, const struct dvk_node *block);

/* Makes a container and its device. */
int dvk_dc_create(int control, const struct dvk_container *block);

/* Destroys a container. */
int dvk_dc_destroy(int control, const struct dvk_container *block);

/* A container spans a node, which holds a lease of slots in it. */
int dvk_dc_add_node(int control, const struct dvk_lease *block);

/* A container no longer spans a node. */
int dvk_dc_remove_node(int control, const struct dvk_lease *block);

/* Carries the traffic with a node over a transport. */
int dvk_link_attach(int control, const struct dvk_link_attach *block);

/* Stops carrying traffic with a node. */
int dvk_link_detach(int control, const struct dvk_link_attach *block);

/* State and counters of the link to a node. */
int dvk_link_info(int control, struct dvk_link_info *block);

/* An endpoint lives on another node. */
int dvk_endpoint_set_remote(int control, const struct dvk_remote_endpoint *block);

/* Freezes an endpoint that is to move to another node. */
int dvk_migrate_start(int control, struct dvk_migrate *block);

/* The endpoint lives on its new node from here on. */
int dvk_migrate_commit(int control, const struct dvk_migrate_end *block);

/* The endpoint stays where it was. */
int dvk_migrate_rollback(int control, const struct dvk_migrate_end *block);

/* The backup of an endpoint takes its place. */
int dvk_promote_backup(int control, const struct dvk_promote_backup *block);

/* What this node knows of the endpoints of a container. */
int dvk_endpoint_info(int control, struct dvk_endpoint_info *block);

/* Takes what happened on this node since the last time, or waits for it. */
int dvk_events(int control, struct dvk_events *block);

/* Takes frames that a link has for its peer, or waits for one: the proxy's part. */
int dvk_proxy_get(int control, struct dvk_proxy_frames *block);

/* Gives a link frames that its peer sent. */
int dvk_proxy_put(int control, struct dvk_proxy_frames *block);

#undef DVK_SIZE

#ifdef __cplusplus
}
#endif

#endif
