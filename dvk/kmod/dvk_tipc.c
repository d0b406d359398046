// SPDX-License-Identifier: GPL-2.0
/*
 * TIPC: a pair of sockets for each pair of nodes, which know each other by name. Messages are built
 * and given to the TIPC link, and taken out of the socket, where they come in: no thread has to
 * run between the network and the DVK. Losing a message is for the DVK's link protocol to notice;
 * TIPC itself repeats what its bearers lose.
 */
#include <linux/slab.h>
#include <linux/tipc.h>
#include <net/net_namespace.h>
#include <net/sock.h>

#include "core.h"
#include "link.h"
#include "msg.h"
#include "addr.h"
#include "name_table.h"
#include "node.h"

#include "dvk_shim.h"

struct dvk_tipc {
	struct socket *sock;
	/* Rust's PeerLink. */
	void *peer;
	/* This end's port, and the service that the peer's end is bound to. */
	u32 port;
	struct tipc_service_addr there;
	/* TIPC's link takes no more; it says when it does again. */
	bool congested;
};

/* Passes a message to the DVK: the content of one frame. */
static void dvk_tipc_take(struct dvk_tipc *tipc, struct sk_buff *skb)
{
	struct tipc_msg *hdr = buf_msg(skb);
	u32 head = msg_hdr_sz(hdr);
	u32 size = msg_size(hdr);
	const u8 *frame;

	/*
	 * One that comes back was not taken at the other end, which is no news to the link; and from
	 * this node there is nothing to come.
	 */
	if (msg_errcode(hdr) || in_own_node(&init_net, msg_orignode(hdr)) || size > skb->len ||
	    size < head)
		goto drop;
	size = min_t(u32, size - head, DVK_FRAME_BYTES_MAX);
	frame = dvk_skb_flat(skb, head, size);
	if (!frame)
		goto drop;
	dvk_tipc_received(tipc->peer, frame, size);
	consume_skb(skb);
	return;

drop:
	kfree_skb(skb);
}

/*
 * Called by whoever has put a message into the socket's queue: the owner of the socket, in a
 * softirq or in a thread that gives the socket back.
 */
static void dvk_tipc_ready(struct sock *sk)
{
	struct dvk_tipc *tipc;
	struct sk_buff *skb;

	read_lock_bh(&sk->sk_callback_lock);
	tipc = sk->sk_user_data;
	while ((skb = __skb_dequeue(&sk->sk_receive_queue))) {
		if (tipc)
			dvk_tipc_take(tipc, skb);
		else
			kfree_skb(skb);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

/*
 * The link that was congested is not any more, or is lost. That may be said from within a transmit,
 * under the lock of the peer.
 */
static void dvk_tipc_writable(struct sock *sk)
{
	struct dvk_tipc *tipc;

	read_lock_bh(&sk->sk_callback_lock);
	tipc = sk->sk_user_data;
	if (tipc) {
		WRITE_ONCE(tipc->congested, false);
		dvk_tipc_has_room(tipc->peer);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

static int dvk_tipc_bind(struct socket *sock, u32 type, u32 instance)
{
	struct sockaddr_tipc name = {
		.family = AF_TIPC,
		.addrtype = TIPC_SERVICE_ADDR,
		.scope = TIPC_CLUSTER_SCOPE,
		.addr.name.name = { .type = type, .instance = instance },
	};

	return kernel_bind(sock, (struct sockaddr_unsized *)&name, sizeof(name));
}

/* A socket bound to the service @here, for messages to the service @there. NULL with *@err set. */
struct dvk_tipc *dvk_tipc_open(u32 type, u32 here, u32 there, void *peer, int *err)
{
	struct sockaddr_tipc name = {};
	struct dvk_tipc *tipc;
	struct sock *sk;

	tipc = kzalloc(sizeof(*tipc), GFP_KERNEL);
	if (!tipc) {
		*err = -ENOMEM;
		return NULL;
	}
	*err = sock_create_kern(&init_net, AF_TIPC, SOCK_RDM, 0, &tipc->sock);
	if (*err)
		goto free;
	*err = tipc->sock->ops->getname(tipc->sock, (struct sockaddr *)&name, 0);
	if (*err < 0)
		goto release;
	tipc->port = name.addr.id.ref;
	tipc->there = (struct tipc_service_addr){ .type = type, .instance = there };
	tipc->peer = peer;

	sk = tipc->sock->sk;
	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_user_data = tipc;
	sk->sk_data_ready = dvk_tipc_ready;
	sk->sk_write_space = dvk_tipc_writable;
	write_unlock_bh(&sk->sk_callback_lock);

	*err = dvk_tipc_bind(tipc->sock, type, here);
	if (!*err)
		return tipc;
release:
	sock_release(tipc->sock);
free:
	kfree(tipc);
	return NULL;
}

/* May sleep. Afterwards the peer is not called any more. */
void dvk_tipc_close(struct dvk_tipc *tipc)
{
	struct sock *sk = tipc->sock->sk;

	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_user_data = NULL;
	write_unlock_bh(&sk->sk_callback_lock);
	sock_release(tipc->sock);
	kfree(tipc);
}

static struct sk_buff *dvk_tipc_append(struct sk_buff_head *list, u32 size)
{
	struct sk_buff *skb = tipc_buf_acquire(size, GFP_ATOMIC);

	if (skb)
		__skb_queue_tail(list, skb);
	return skb;
}

/* Puts a message longer than a packet of the bearer into several. */
static bool dvk_tipc_fragment(struct sk_buff_head *list, struct tipc_msg *hdr, const u8 *payload,
			      u32 len, u32 mtu)
{
	u32 head = msg_hdr_sz(hdr), room = mtu - INT_H_SIZE, at = 0, number = 1;
	struct tipc_msg fragment;

	tipc_msg_init(msg_prevnode(hdr), &fragment, MSG_FRAGMENTER, FIRST_FRAGMENT, INT_H_SIZE,
		      msg_destnode(hdr));
	msg_set_importance(&fragment, msg_importance(hdr));
	do {
		/* The message's own header is at the front of the first one. */
		u32 front = at ? 0 : head;
		u32 part = min(len - at, room - front);
		u32 size = INT_H_SIZE + front + part;
		struct sk_buff *skb = dvk_tipc_append(list, size);

		if (!skb)
			return false;
		msg_set_size(&fragment, size);
		msg_set_fragm_no(&fragment, number++);
		if (at + part == len)
			msg_set_type(&fragment, LAST_FRAGMENT);
		memcpy(skb->data, &fragment, INT_H_SIZE);
		memcpy(skb->data + INT_H_SIZE, hdr, front);
		memcpy(skb->data + INT_H_SIZE + front, payload + at, part);
		msg_set_type(&fragment, FRAGMENT);
		at += part;
	} while (at < len);
	return true;
}

/* Whether no frame is to be sent until dvk_tipc_has_room is called. */
bool dvk_tipc_congested(const struct dvk_tipc *tipc)
{
	return READ_ONCE(tipc->congested);
}

/* Sends a frame. One after which the TIPC link is congested was taken, too. */
void dvk_tipc_transmit(struct dvk_tipc *tipc, const u8 *payload, u32 len)
{
	struct tipc_uaddr name = {
		.family = AF_TIPC,
		.addrtype = TIPC_SERVICE_ADDR,
		.scope = TIPC_CLUSTER_SCOPE,
		.sa = { .type = tipc->there.type, .instance = tipc->there.instance },
	};
	struct net *net = sock_net(tipc->sock->sk);
	struct tipc_socket_addr to = {};
	struct sk_buff_head list;
	struct tipc_msg hdr;
	struct sk_buff *skb;
	u32 size, mtu;

	/* Nobody there yet, or this node's TIPC has no address. */
	if (!tipc_nametbl_lookup_anycast(net, &name, &to) || in_own_node(net, to.node))
		return;
	tipc_msg_init(tipc_own_addr(net), &hdr, TIPC_HIGH_IMPORTANCE, TIPC_DIRECT_MSG, BASIC_H_SIZE,
		      to.node);
	msg_set_origport(&hdr, tipc->port);
	msg_set_destport(&hdr, to.ref);
	/* If it cannot be delivered, nobody wants to have it back. */
	msg_set_dest_droppable(&hdr, true);
	size = BASIC_H_SIZE + len;
	msg_set_size(&hdr, size);

	__skb_queue_head_init(&list);
	mtu = tipc_node_get_mtu(net, to.node, tipc->port, false);
	if (size <= mtu) {
		skb = dvk_tipc_append(&list, size);
		if (!skb)
			return;
		memcpy(skb->data, &hdr, BASIC_H_SIZE);
		memcpy(skb->data + BASIC_H_SIZE, payload, len);
	} else if (mtu <= INT_H_SIZE + BASIC_H_SIZE ||
		   !dvk_tipc_fragment(&list, &hdr, payload, len, mtu)) {
		__skb_queue_purge(&list);
		return;
	}
	/* Before it is asked, lest its word that there is room comes first. */
	WRITE_ONCE(tipc->congested, true);
	if (tipc_node_xmit(net, &list, to.node, tipc->port) != -ELINKCONG)
		WRITE_ONCE(tipc->congested, false);
}
