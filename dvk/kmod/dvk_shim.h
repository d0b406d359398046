/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Between the C and the Rust side of the driver. C is here for what Rust cannot call (inline
 * functions, macros) and for the tables of function pointers that the kernel wants; decisions are
 * made in Rust.
 */
#ifndef DVK_SHIM_H
#define DVK_SHIM_H

#include <linux/mm_types.h>
#include <linux/netdevice.h>
#include <linux/poll.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

/* The minor number of the control device; container N has DVK_MINOR_CONTAINER + N. */
#define DVK_MINOR_CONTROL 0
#define DVK_MINOR_CONTAINER 1
/* The longest frame: FRAME_BYTES_MAX in carrier.rs. */
#define DVK_FRAME_BYTES_MAX (64 + 16384)

#define DVK_MINORS (DVK_MINOR_CONTAINER + 65536)

/* dvk_chardev.c */
int dvk_chardev_init(void);
int dvk_chardev_add(u32 minor, const char *name);
void dvk_chardev_remove(u32 minor);
bool dvk_may_control(void);

/* dvk_net.c */
int dvk_net_init(u16 ethertype);
void dvk_netdev_lock(void);
void dvk_netdev_unlock(void);
struct net_device *dvk_netdev_get(u32 ifindex);
void dvk_netdev_put(struct net_device *dev);
void dvk_netdev_name(struct net_device *dev, char *name);
u32 dvk_netdev_mtu(const struct net_device *dev);
struct sk_buff *dvk_packet_new(u32 bytes, u8 **data);
void dvk_packet_free(struct sk_buff *packet);
struct sk_buff *dvk_packet_own(struct sk_buff *packet, u8 **data);
/* Frames on their way to a device, in order. */
struct dvk_burst {
	struct sk_buff *first;
	struct sk_buff *last;
};

void dvk_burst_add_packet(struct dvk_burst *burst, struct net_device *dev, u16 ethertype,
			  const u8 *destination, struct sk_buff *packet, u32 len);
void dvk_burst_add_bytes(struct dvk_burst *burst, struct net_device *dev, u16 ethertype,
			 const u8 *destination, const u8 *payload, u32 len);
void dvk_burst_send(struct dvk_burst *burst, struct net_device *dev);
const u8 *dvk_skb_flat(struct sk_buff *skb, u32 offset, u32 len);

/* dvk_tipc.c */
struct dvk_tipc;
struct dvk_tipc *dvk_tipc_open(u32 type, u32 here, u32 there, void *peer, int *err);
void dvk_tipc_close(struct dvk_tipc *tipc);
bool dvk_tipc_congested(const struct dvk_tipc *tipc);
void dvk_tipc_transmit(struct dvk_tipc *tipc, const u8 *payload, u32 len);

/* dvk_sched.c */
void dvk_spin_lock_bh(spinlock_t *lock);
void dvk_spin_unlock_bh(spinlock_t *lock);
void dvk_spin_lock(spinlock_t *lock);
void dvk_spin_unlock(spinlock_t *lock);
void dvk_softirqs_hold(void);
void dvk_softirqs_release(void);
void dvk_prepare_sleep(bool killable_only);
void dvk_finish_sleep(void);
bool dvk_sleep_until(s64 deadline_ns);
bool dvk_signal_pending(bool fatal_only);
void dvk_release_and_sleep(struct task_struct *task);
struct task_struct *dvk_current(void);
void dvk_wake(struct task_struct *task);
u32 dvk_this_cpu(void);
u64 dvk_spin_clock(void);
bool dvk_may_spin(void);
void dvk_wait_queue_init(struct wait_queue_head *queue);
void dvk_wait_queue_wake(struct wait_queue_head *queue);
bool dvk_wait_queue_polled(struct wait_queue_head *queue);
void dvk_wait_queue_prepare(struct wait_queue_head *queue, struct wait_queue_entry *entry);
void dvk_wait_queue_finish(struct wait_queue_head *queue, struct wait_queue_entry *entry);
void dvk_wait_queue_poll(struct wait_queue_head *queue, struct file *file, void *table);
void dvk_await_sections(void);
void dvk_timer_init(struct timer_list *timer);
void dvk_timer_set(struct timer_list *timer, u64 now_ns, u64 deadline_ns);
void dvk_timer_shutdown(struct timer_list *timer);

/* dvk_copy.c */
struct mm_struct *dvk_mm_grab_current(void);
void dvk_mm_drop(struct mm_struct *mm);
bool dvk_mm_is_current(const struct mm_struct *mm);
bool dvk_mm_enter(struct mm_struct *mm);
void dvk_mm_leave(struct mm_struct *mm);
bool dvk_user_range(u64 address, u64 len);
bool dvk_fault_in(u64 address, size_t len, bool write);
long dvk_mm_pin(struct mm_struct *mm, u64 start, unsigned int count, bool write,
		struct page **pages);
void dvk_pages_unpin(struct page **pages, unsigned int count, bool dirty);
void dvk_pages_write(struct page **pages, size_t offset, const u8 *bytes, size_t len);
int dvk_mm_copy_user(struct mm_struct *mm, u64 address, u64 user, size_t len, bool write,
		     size_t *copied);
int dvk_mm_read(struct mm_struct *mm, u64 address, u8 *bytes, size_t len, size_t *copied);
int dvk_mm_copy_between(struct mm_struct *source, u64 from, struct mm_struct *destination, u64 to,
			size_t len, size_t *copied);
bool dvk_copy_from_user(u8 *bytes, u64 user, size_t len, size_t *copied);
struct workqueue_struct *dvk_queue_new(void);

/* dvk_uaccess.c */
struct dvk_exchange;
int dvk_exchange_read(struct dvk_exchange *block, struct dvk_exchange __user *from, bool answered);
int dvk_exchange_write(const struct dvk_exchange *block, struct dvk_exchange __user *to);

/* dvk_debugfs.c */
struct seq_file;
void dvk_debugfs_init(void);
void dvk_debugfs_add(const char *name, u32 table);
void dvk_seq_write(struct seq_file *file, const char *text, size_t len);

/* Exported by Rust. */
int dvk_file_open(u32 minor, bool writable, void **private);
void dvk_file_release(void *private);
long dvk_file_ioctl(void *private, unsigned int cmd, unsigned long arg);
__poll_t dvk_file_poll(void *private, struct file *file, void *table);
void dvk_frame_received(struct net_device *dev, const u8 *source, const u8 *payload, u32 len,
			bool last, const void **link);
void dvk_frames_received(const void *link);
void dvk_tipc_received(void *peer, const u8 *payload, u32 len);
void dvk_tipc_has_room(void *peer);
void dvk_netdev_gone(struct net_device *dev);
void dvk_netdev_resized(struct net_device *dev);
void dvk_timer_expired(struct timer_list *timer);
s64 dvk_table_find(u32 table, u64 from);
bool dvk_table_show(u32 table, u64 row, struct seq_file *file);

#endif
