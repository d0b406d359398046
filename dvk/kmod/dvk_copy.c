// SPDX-License-Identifier: GPL-2.0
/*
 * Memory of other processes: pinned a batch of pages at a time, and copied once. And the queue in
 * which copies of other nodes are served.
 */
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

#include "dvk_shim.h"

/* Pages pinned at once for a copy within this node; their pointers are on the stack. */
#define BATCH_PAGES 64

struct mm_struct *dvk_mm_grab_current(void)
{
	/* A kernel thread has none. */
	if (!current->mm)
		return NULL;
	mmgrab(current->mm);
	return current->mm;
}

void dvk_mm_drop(struct mm_struct *mm)
{
	mmdrop(mm);
}

bool dvk_mm_is_current(const struct mm_struct *mm)
{
	return mm == current->mm;
}

/* False once the last process that has the memory is gone. */
bool dvk_mm_enter(struct mm_struct *mm)
{
	return mmget_not_zero(mm);
}

/* May be what frees the memory, which takes its time. */
void dvk_mm_leave(struct mm_struct *mm)
{
	mmput(mm);
}

bool dvk_user_range(u64 address, u64 len)
{
	return access_ok((void __user *)(unsigned long)address, len);
}

/*
 * Brings in the caller's page at `address`, and those behind it where that is easy. False if there
 * is none.
 */
bool dvk_fault_in(u64 address, size_t len, bool write)
{
	char __user *user = (char __user *)(unsigned long)address;

	return (write ? fault_in_writeable(user, len) : fault_in_readable(user, len)) < len;
}

/* Pins up to `count` pages from `start` on, which is the beginning of a page. */
long dvk_mm_pin(struct mm_struct *mm, u64 start, unsigned int count, bool write,
		struct page **pages)
{
	unsigned int flags = write ? FOLL_WRITE : 0;
	int locked = 1;
	long pinned;

	if (mm == current->mm) {
		pinned = pin_user_pages_fast(start, count, flags, pages);
	} else {
		if (mmap_read_lock_killable(mm))
			return -EINTR;
		pinned = pin_user_pages_remote(mm, start, count, flags, pages, &locked);
		if (locked)
			mmap_read_unlock(mm);
	}
	if (pinned > 0)
		return pinned;
	if (pinned == -ENOMEM)
		return pinned;
	return fatal_signal_pending(current) ? -EINTR : -EFAULT;
}

void dvk_pages_unpin(struct page **pages, unsigned int count, bool dirty)
{
	unpin_user_pages_dirty_lock(pages, count, dirty);
}

/* Writes to pinned pages; `offset` is from the beginning of the first. */
void dvk_pages_write(struct page **pages, size_t offset, const u8 *bytes, size_t len)
{
	while (len) {
		size_t within = offset_in_page(offset);
		size_t part = min(len, PAGE_SIZE - within);

		memcpy_to_page(pages[offset >> PAGE_SHIFT], within, bytes, part);
		offset += part;
		bytes += part;
		len -= part;
	}
}

static unsigned int batch(u64 address, size_t len, unsigned int most)
{
	return min_t(u64, DIV_ROUND_UP(offset_in_page(address) + (u64)len, PAGE_SIZE), most);
}

/*
 * Copies a batch of up to `len` bytes between `address` in `mm` and the caller's memory at `user`.
 * The caller's pages are not waited for, since the other side
 * is kept from having its memory back meanwhile: 1 says that the next one is missing.
 */
int dvk_mm_copy_user(struct mm_struct *mm, u64 address, u64 user, size_t len, bool write,
		     size_t *copied)
{
	unsigned int offset = offset_in_page(address);
	struct page *pages[BATCH_PAGES];
	size_t left = 0, done = 0;
	long pinned, at;

	*copied = 0;
	if (!dvk_user_range(user, len))
		return -EFAULT;
	pinned = dvk_mm_pin(mm, address - offset, batch(address, len, BATCH_PAGES), write, pages);
	if (pinned < 0)
		return pinned;
	pagefault_disable();
	for (at = 0; at < pinned && !left; at++) {
		size_t part = min(len - done, (size_t)(PAGE_SIZE - offset));
		void __user *theirs = (void __user *)(unsigned long)(user + done);
		char *ours = kmap_local_page(pages[at]);

		if (write)
			left = __copy_from_user_inatomic(ours + offset, theirs, part);
		else
			left = __copy_to_user_inatomic(theirs, ours + offset, part);
		kunmap_local(ours);
		done += part - left;
		offset = 0;
	}
	pagefault_enable();
	unpin_user_pages_dirty_lock(pages, pinned, write);
	*copied = done;
	return left ? 1 : 0;
}

/* The same with memory of the kernel, which is always there. */
int dvk_mm_read(struct mm_struct *mm, u64 address, u8 *bytes, size_t len, size_t *copied)
{
	unsigned int offset = offset_in_page(address);
	struct page *pages[BATCH_PAGES];
	size_t done = 0;
	long pinned, at;

	*copied = 0;
	pinned = dvk_mm_pin(mm, address - offset, batch(address, len, BATCH_PAGES), false, pages);
	if (pinned < 0)
		return pinned;
	for (at = 0; at < pinned; at++) {
		size_t part = min(len - done, (size_t)(PAGE_SIZE - offset));

		memcpy_from_page(bytes + done, pages[at], offset, part);
		done += part;
		offset = 0;
	}
	unpin_user_pages(pages, pinned);
	*copied = done;
	return 0;
}

/* Copies a batch between two address spaces. */
int dvk_mm_copy_between(struct mm_struct *source, u64 from, struct mm_struct *destination, u64 to,
			size_t len, size_t *copied)
{
	struct page *sources[BATCH_PAGES / 2], *destinations[BATCH_PAGES / 2];
	size_t from_offset = offset_in_page(from), to_offset = offset_in_page(to), done = 0;
	long readable, writable;

	*copied = 0;
	readable = dvk_mm_pin(source, from - from_offset, batch(from, len, BATCH_PAGES / 2), false,
			      sources);
	if (readable < 0)
		return readable;
	len = min(len, readable * PAGE_SIZE - from_offset);
	writable = dvk_mm_pin(destination, to - to_offset, batch(to, len, BATCH_PAGES / 2), true,
			      destinations);
	if (writable < 0) {
		unpin_user_pages(sources, readable);
		return writable;
	}
	len = min(len, writable * PAGE_SIZE - to_offset);
	while (done < len) {
		size_t at = offset_in_page(from_offset), there = offset_in_page(to_offset);
		size_t part = min3(len - done, PAGE_SIZE - at, PAGE_SIZE - there);

		memcpy_page(destinations[to_offset >> PAGE_SHIFT], there,
			    sources[from_offset >> PAGE_SHIFT], at, part);
		from_offset += part;
		to_offset += part;
		done += part;
	}
	unpin_user_pages(sources, readable);
	unpin_user_pages_dirty_lock(destinations, writable, true);
	*copied = done;
	return 0;
}

bool dvk_copy_from_user(u8 *bytes, u64 user, size_t len, size_t *copied)
{
	size_t left = copy_from_user(bytes, (void __user *)(unsigned long)user, len);

	*copied = len - left;
	return !left;
}

/* For work that waits for other nodes; it must not take the place of the kernel's own. */
struct workqueue_struct *dvk_queue_new(void)
{
	return alloc_workqueue("dvk", WQ_UNBOUND, 0);
}
