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

static int dvk_receive(struct sk_buff *skb, struct net_device *dev, struct packet_type *type,
		       struct net_device *orig_dev)
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
	dvk_frame_received(dev, eth_hdr(skb)->h_source, frame, len);
	consume_skb(skb);
	return NET_RX_SUCCESS;

drop:
	kfree_skb(skb);
	return NET_RX_DROP;
}

static struct packet_type dvk_packet_type = {
	.func = dvk_receive,
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

/* Puts the Ethernet header before a frame and queues it. */
static int dvk_transmit(struct sk_buff *skb, struct net_device *dev, u16 ethertype,
			const u8 *destination)
{
	skb_reset_network_header(skb);
	skb->dev = dev;
	skb->protocol = htons(ethertype);
	skb->priority = TC_PRIO_CONTROL;
	if (dev_hard_header(skb, dev, ethertype, destination, dev->dev_addr, skb->len) < 0) {
		kfree_skb(skb);
		return -EINVAL;
	}
	return dev_queue_xmit(skb);
}

int dvk_netdev_transmit(struct net_device *dev, u16 ethertype, const u8 *destination,
			const u8 *payload, u32 len)
{
	/* Read once: the device may come to need more at any time. */
	unsigned int headroom = LL_RESERVED_SPACE(dev);
	unsigned int tailroom = READ_ONCE(dev->needed_tailroom);
	struct sk_buff *skb;

	skb = alloc_skb(headroom + len + tailroom, GFP_ATOMIC);
	if (!skb)
		return -ENOMEM;
	skb_reserve(skb, headroom);
	skb_put_data(skb, payload, len);
	return dvk_transmit(skb, dev, ethertype, destination);
}

/* A packet of @bytes, with room for the headers of most devices before it. */
struct sk_buff *dvk_packet_new(u32 bytes, u8 **data)
{
	struct sk_buff *packet = alloc_skb_fclone(LL_MAX_HEADER + bytes, GFP_ATOMIC | __GFP_NOWARN);

	if (!packet)
		return NULL;
	skb_reserve(packet, LL_MAX_HEADER);
	skb_put(packet, bytes);
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
		*data = copy->data;
	}
	return copy;
}

/* Sends the first @len bytes. The packet stays as it is, and is not to be written to meanwhile. */
void dvk_packet_transmit(struct sk_buff *packet, struct net_device *dev, u16 ethertype,
			 const u8 *destination, u32 len)
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
	dvk_transmit(clone, dev, ethertype, destination);
}
