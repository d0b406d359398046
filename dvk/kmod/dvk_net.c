// SPDX-License-Identifier: GPL-2.0
/*
 * Raw Ethernet: frames in from the network stack's softirq, frames out through the device's queue.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/netdevice.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <net/net_namespace.h>
#include <net/pkt_sched.h>
#include <net/sch_generic.h>

#include "dvk_shim.h"

/* Room for a frame whose bytes are not together; used where softirqs are held off. */
static u8 __percpu *dvk_flat;

/*
 * @len bytes of a buffer from @offset on, together: where they are, or a copy that is good until the
 * next call on this CPU. NULL if there are not as many, or too many.
 */
const u8 *dvk_skb_flat(struct sk_buff *skb, u32 offset, u32 len)
{
	u8 *flat;

	if (likely(offset + len <= skb_headlen(skb)))
		return skb->data + offset;
	if (len > DVK_FRAME_BYTES_MAX)
		return NULL;
	flat = this_cpu_ptr(dvk_flat);
	return skb_copy_bits(skb, offset, flat, len) ? NULL : flat;
}

/*
 * Takes a frame, the @last one for now or not. @link is the link that has taken the one before and has
 * not been told yet that no more come, if any; dvk_frames_received tells the one that is left there.
 */
static int dvk_take(struct sk_buff *skb, struct net_device *dev, bool last, const void **link)
{
	const u8 *frame;
	u32 len;

	/* Somebody who listens to all frames may hold it too. */
	skb = skb_share_check(skb, GFP_ATOMIC);
	if (!skb)
		return NET_RX_DROP;
	/* Frames to other machines come along where a device is promiscuous or bridged. */
	if (skb->pkt_type != PACKET_HOST || !net_eq(dev_net(dev), &init_net))
		goto drop;
	/* What follows the longest frame is padding. */
	len = min_t(u32, skb->len, DVK_FRAME_BYTES_MAX);
	frame = dvk_skb_flat(skb, 0, len);
	if (!frame)
		goto drop;
	dvk_frame_received(dev, eth_hdr(skb)->h_source, frame, len, last, link);
	consume_skb(skb);
	return NET_RX_SUCCESS;

drop:
	kfree_skb(skb);
	return NET_RX_DROP;
}

static int dvk_receive(struct sk_buff *skb, struct net_device *dev, struct packet_type *type,
		       struct net_device *orig_dev)
{
	const void *link = NULL;

	return dvk_take(skb, dev, true, &link);
}

/* What a device brought at once: a link answers it once. */
static void dvk_receive_list(struct list_head *frames, struct packet_type *type,
			     struct net_device *orig_dev)
{
	const void *link = NULL;
	struct sk_buff *skb, *next;

	list_for_each_entry_safe(skb, next, frames, list) {
		bool last = list_is_last(&skb->list, frames);

		skb_list_del_init(skb);
		dvk_take(skb, skb->dev, last, &link);
	}
	/* The last one may have been dropped. */
	if (link)
		dvk_frames_received(link);
}

static struct packet_type dvk_packet_type = {
	.func = dvk_receive,
	.list_func = dvk_receive_list,
};

static int dvk_netdev_event(struct notifier_block *block, unsigned long event, void *data)
{
	struct net_device *dev = netdev_notifier_info_to_dev(data);

	if (event == NETDEV_UNREGISTER)
		dvk_netdev_gone(dev);
	if (event == NETDEV_CHANGEMTU)
		dvk_netdev_resized(dev);
	return NOTIFY_DONE;
}

static struct notifier_block dvk_netdev_notifier = {
	.notifier_call = dvk_netdev_event,
};

int dvk_net_init(u16 ethertype)
{
	int err;

	dvk_flat = __alloc_percpu(DVK_FRAME_BYTES_MAX, SMP_CACHE_BYTES);
	if (!dvk_flat)
		return -ENOMEM;
	err = register_netdevice_notifier(&dvk_netdev_notifier);
	if (err)
		return err;
	dvk_packet_type.type = htons(ethertype);
	dev_add_pack(&dvk_packet_type);
	return 0;
}

/* While held, no network device comes, goes or changes. */
void dvk_netdev_lock(void)
{
	rtnl_lock();
}

void dvk_netdev_unlock(void)
{
	rtnl_unlock();
}

/* Takes a reference; only Ethernet devices of the initial namespace are to be had. */
struct net_device *dvk_netdev_get(u32 ifindex)
{
	struct net_device *dev = dev_get_by_index(&init_net, ifindex);

	if (dev && dev->type != ARPHRD_ETHER) {
		dev_put(dev);
		return NULL;
	}
	return dev;
}

void dvk_netdev_put(struct net_device *dev)
{
	dev_put(dev);
}

/* @name has room for IFNAMSIZ bytes. */
void dvk_netdev_name(struct net_device *dev, char *name)
{
	netdev_copy_name(dev, name);
}

u32 dvk_netdev_mtu(const struct net_device *dev)
{
	return READ_ONCE(dev->mtu);
}

/* Puts the Ethernet header before a frame and the frame at the end of a burst. */
static void dvk_burst_add(struct dvk_burst *burst, struct sk_buff *skb, struct net_device *dev,
			  u16 ethertype, const u8 *destination)
{
	skb_reset_network_header(skb);
	skb->dev = dev;
	skb->protocol = htons(ethertype);
	skb->priority = TC_PRIO_CONTROL;
	if (dev_hard_header(skb, dev, ethertype, destination, dev->dev_addr, skb->len) < 0) {
		kfree_skb(skb);
		return;
	}
	skb->next = NULL;
	if (burst->last)
		burst->last->next = skb;
	else
		burst->first = skb;
	burst->last = skb;
}

/*
 * Gives all frames to the device at once, which is told of them once, if its queue is idle and
 * nothing else has a say in what it sends. To be called with softirqs held off.
 */
static bool dvk_burst_pass(struct net_device *dev, struct sk_buff *first)
{
	struct netdev_queue *txq;
	struct sk_buff *skb;
	struct Qdisc *q;
	bool passed;

#ifdef CONFIG_NET_EGRESS
#ifdef CONFIG_NET_XGRESS
	if (rcu_access_pointer(dev->tcx_egress))
		return false;
#endif
#ifdef CONFIG_NETFILTER_EGRESS
	if (rcu_access_pointer(dev->nf_hooks_egress))
		return false;
#endif
#endif
	txq = netdev_core_pick_tx(dev, first, NULL);
	q = rcu_dereference_bh(txq->qdisc);
	/* As __dev_xmit_skb does for one frame. */
	if (!q->enqueue || !(q->flags & TCQ_F_NOLOCK) || !(q->flags & TCQ_F_CAN_BYPASS) ||
	    !nolock_qdisc_is_empty(q) || !qdisc_run_begin(q))
		return false;
	passed = nolock_qdisc_is_empty(q);
	if (likely(passed)) {
		u16 queue = skb_get_queue_mapping(first);

		for (skb = first; skb; skb = skb->next) {
			skb_reset_mac_header(skb);
			skb_set_queue_mapping(skb, queue);
			qdisc_skb_cb(skb)->pkt_len = skb->len;
			qdisc_skb_cb(skb)->pkt_segs = 1;
			qdisc_calculate_pkt_len(skb, q);
			qdisc_bstats_cpu_update(q, skb);
		}
		if (sch_direct_xmit(first, q, dev, txq, NULL, true) && !nolock_qdisc_is_empty(q))
			__qdisc_run(q);
	}
	qdisc_run_end(q);
	return passed;
}

/* Sends the frames of a burst, which is empty then. To be called with softirqs held off. */
void dvk_burst_send(struct dvk_burst *burst, struct net_device *dev)
{
	struct sk_buff *skb = burst->first;

	burst->first = NULL;
	burst->last = NULL;
	if (!skb)
		return;
	rcu_read_lock_bh();
	if (!skb->next || !dvk_burst_pass(dev, skb)) {
		while (skb) {
			struct sk_buff *next = skb->next;

			skb_mark_not_on_list(skb);
			dev_queue_xmit(skb);
			skb = next;
		}
	}
	rcu_read_unlock_bh();
}

/* Puts a frame that is copied into a burst. */
void dvk_burst_add_bytes(struct dvk_burst *burst, struct net_device *dev, u16 ethertype,
			 const u8 *destination, const u8 *payload, u32 len)
{
	/* Read once: the device may come to need more at any time. */
	unsigned int headroom = LL_RESERVED_SPACE(dev);
	unsigned int tailroom = READ_ONCE(dev->needed_tailroom);
	struct sk_buff *skb;

	skb = alloc_skb(headroom + len + tailroom, GFP_ATOMIC | __GFP_NOWARN);
	if (!skb)
		return;
	skb_reserve(skb, headroom);
	skb_put_data(skb, payload, len);
	dvk_burst_add(burst, skb, dev, ethertype, destination);
}

/*
 * A packet of @bytes, with room for the headers of most devices before it. Its clones may write to
 * that room, of which there is one at a time, so that a device can put a header of its own there.
 * Such a header is a multiple of four bytes away from the Ethernet header's beginning, and so aligned.
 */
struct sk_buff *dvk_packet_new(u32 bytes, u8 **data)
{
	const unsigned int headroom = ALIGN(LL_MAX_HEADER, 4) + ETH_HLEN % 4;
	struct sk_buff *packet = alloc_skb_fclone(headroom + bytes, GFP_ATOMIC | __GFP_NOWARN);

	if (!packet)
		return NULL;
	skb_reserve(packet, headroom);
	skb_put(packet, bytes);
	__skb_header_release(packet);
	*data = packet->data;
	return packet;
}

void dvk_packet_free(struct sk_buff *packet)
{
	consume_skb(packet);
}

/* The packet, or a copy in its place if a device still has it; NULL if there is no memory. */
struct sk_buff *dvk_packet_own(struct sk_buff *packet, u8 **data)
{
	struct sk_buff *copy;

	if (!skb_cloned(packet))
		return packet;
	copy = skb_copy(packet, GFP_ATOMIC | __GFP_NOWARN);
	if (copy) {
		consume_skb(packet);
		__skb_header_release(copy);
		*data = copy->data;
	}
	return copy;
}

/*
 * Puts the first @len bytes into a burst. The packet stays as it is, and is not to be written to
 * meanwhile.
 */
void dvk_burst_add_packet(struct dvk_burst *burst, struct net_device *dev, u16 ethertype,
			  const u8 *destination, struct sk_buff *packet, u32 len)
{
	struct sk_buff *clone = skb_clone(packet, GFP_ATOMIC | __GFP_NOWARN);

	if (!clone)
		return;
	skb_trim(clone, len);
	if (unlikely(skb_headroom(clone) < LL_RESERVED_SPACE(dev))) {
		struct sk_buff *moved = skb_realloc_headroom(clone, LL_RESERVED_SPACE(dev));

		consume_skb(clone);
		if (!moved)
			return;
		clone = moved;
	}
	dvk_burst_add(burst, clone, dev, ethertype, destination);
}
