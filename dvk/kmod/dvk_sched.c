// SPDX-License-Identifier: GPL-2.0
/*
 * Locks, sleeping, waking and timers: the inline functions and macros that Rust cannot call.
 */
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sched/task.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/wait.h>

#include "dvk_shim.h"

void dvk_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

void dvk_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

bool dvk_spin_trylock_bh(spinlock_t *lock)
{
	return spin_trylock_bh(lock);
}

void dvk_spin_assert_held(spinlock_t *lock)
{
	lockdep_assert_held(lock);
}

/* From here until dvk_finish_sleep, a wake-up makes the next dvk_sleep_until return at once. */
void dvk_prepare_sleep(bool killable_only)
{
	set_current_state(killable_only ? TASK_KILLABLE : TASK_INTERRUPTIBLE);
}

void dvk_finish_sleep(void)
{
	__set_current_state(TASK_RUNNING);
}

/* Sleeps until woken; a negative deadline (ktime, ns) is never. False if the deadline passed. */
bool dvk_sleep_until(s64 deadline_ns)
{
	ktime_t deadline = ns_to_ktime(deadline_ns);

	if (deadline_ns < 0) {
		schedule();
		return true;
	}
	return schedule_hrtimeout_range(&deadline, 0, HRTIMER_MODE_ABS) != 0;
}

bool dvk_signal_pending(bool fatal_only)
{
	return fatal_only ? fatal_signal_pending(current) : signal_pending(current);
}

struct task_struct *dvk_current_get(void)
{
	return get_task_struct(current);
}

void dvk_task_wake_put(struct task_struct *task)
{
	wake_up_process(task);
	put_task_struct(task);
}

void dvk_task_put(struct task_struct *task)
{
	put_task_struct(task);
}

void dvk_wait_queue_init(struct wait_queue_head *queue)
{
	init_waitqueue_head(queue);
}

void dvk_wait_queue_wake(struct wait_queue_head *queue)
{
	/* Pairs with the barrier in poll_wait: either the poller sees the state or we see it. */
	if (wq_has_sleeper(queue))
		wake_up_interruptible_poll(queue, EPOLLIN | EPOLLRDNORM | EPOLLHUP);
}

void dvk_wait_queue_poll(struct wait_queue_head *queue, struct file *file, void *table)
{
	poll_wait(file, queue, table);
}

static void dvk_timer_function(struct timer_list *timer)
{
	dvk_timer_expired(timer);
}

void dvk_timer_init(struct timer_list *timer)
{
	timer_setup(timer, dvk_timer_function, 0);
}

void dvk_timer_set(struct timer_list *timer, u64 now_ns, u64 deadline_ns)
{
	u64 delay = deadline_ns > now_ns ? deadline_ns - now_ns : 0;

	mod_timer(timer, jiffies + nsecs_to_jiffies(delay) + 1);
}

/* Waits until the timer's function is not running; it cannot be set again afterwards. */
void dvk_timer_shutdown(struct timer_list *timer)
{
	timer_shutdown_sync(timer);
}
