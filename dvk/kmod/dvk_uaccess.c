// SPDX-License-Identifier: GPL-2.0
/*
 * The argument block of the calls that exchange messages, word by word.
 */
#include <linux/string.h>
#include <linux/uaccess.h>

#include "dvk_shim.h"

#define MESSAGE_WORDS 8

/* struct Exchange of dvk-abi, as words: message; peer, from, timeout; how and flags; unused. */
struct dvk_exchange {
	u64 message[MESSAGE_WORDS];
	u64 peer;
	u64 from;
	s64 timeout_ns;
	u64 how_and_flags;
	u64 unused[4];
};

static_assert(sizeof(struct dvk_exchange) == 128);

/*
 * @answered: something will be written back. Whether that can be is tried now, before a message is
 * taken that could then not be delivered.
 */
int dvk_exchange_read(struct dvk_exchange *block, struct dvk_exchange __user *from, bool answered)
{
	/* Unlike get_user(), what follows does not say so itself to a kernel that looks for mistakes. */
	might_fault();
	/* What the kernel does not read must not be what its stack held. */
	memset(block->unused, 0, sizeof(block->unused));
	if (!user_access_begin(from, sizeof(*from)))
		return -EFAULT;
#pragma unroll
	for (int i = 0; i < MESSAGE_WORDS; i++)
		unsafe_get_user(block->message[i], &from->message[i], fault);
	unsafe_get_user(block->peer, &from->peer, fault);
	unsafe_get_user(block->from, &from->from, fault);
	unsafe_get_user(block->timeout_ns, &from->timeout_ns, fault);
	unsafe_get_user(block->how_and_flags, &from->how_and_flags, fault);
	if (answered)
		unsafe_put_user(block->how_and_flags, &from->how_and_flags, fault);
	user_access_end();
	return 0;

fault:
	user_access_end();
	return -EFAULT;
}

int dvk_exchange_write(const struct dvk_exchange *block, struct dvk_exchange __user *to)
{
	might_fault();
	if (!user_write_access_begin(to, sizeof(*to)))
		return -EFAULT;
#pragma unroll
	for (int i = 0; i < MESSAGE_WORDS; i++)
		unsafe_put_user(block->message[i], &to->message[i], fault);
	unsafe_put_user(block->how_and_flags, &to->how_and_flags, fault);
	user_write_access_end();
	return 0;

fault:
	user_write_access_end();
	return -EFAULT;
}
