// SPDX-License-Identifier: GPL-2.0
/*
 * Locks, sleeping, waking and timers: the inline functions and macros that Rust cannot call.
 */
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/clock.h>
#include <linux/sched/handoff.h>
#include <linux/sched/signal.h>
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

void dvk_spin_lock(spinlock_t *lock)
{
	spin_lock(lock);
}

void dvk_spin_unlock(spinlock_t *lock)
{
	spin_unlock(lock);
}

void dvk_softirqs_hold(void)
{
	local_bh_disable();
}

void dvk_softirqs_release(void)
{
	local_bh_enable();
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

struct task_struct *dvk_current(void)
{
	return current;
}

void dvk_wake(struct task_struct *task)
{
	wake_up_process(task);
}

/*
 * Ends dvk_softirqs_hold, wakes the task, if any, and sleeps until woken. The task was found to be
 * alive while softirqs were held off, and preemption stays off until it has been woken.
 */
void dvk_release_and_sleep(struct task_struct *task)
{
	preempt_disable();
	local_bh_enable();
	if (task) {
		schedule_handoff(task);
	} else {
		sched_preempt_enable_no_resched();
		schedule();
	}
}

u32 dvk_this_cpu(void)
{
	return raw_smp_processor_id();
}

/* Nanoseconds of this CPU; those of two CPUs are near to each other and no more. */
u64 dvk_spin_clock(void)
{
	return local_clock();
}

/* Whether nobody else needs this CPU, and no signal waits for the thread. */
bool dvk_may_spin(void)
{
	return !need_resched() && !signal_pending(current);
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

/*
 * Whether somebody polls. To be asked under the lock under which the state changes, and which who
 * polls takes to look at it after being put into the queue.
 */
bool dvk_wait_queue_polled(struct wait_queue_head *queue)
{
	return waitqueue_active(queue);
}

/* From here until dvk_wait_queue_finish, a wake-up of the queue ends the next dvk_sleep_until. */
void dvk_wait_queue_prepare(struct wait_queue_head *queue, struct wait_queue_entry *entry)
{
	init_wait(entry);
	prepare_to_wait(queue, entry, TASK_INTERRUPTIBLE);
}

void dvk_wait_queue_finish(struct wait_queue_head *queue, struct wait_queue_entry *entry)
{
	finish_wait(queue, entry);
}

void dvk_wait_queue_poll(struct wait_queue_head *queue, struct file *file, void *table)
{
	poll_wait(file, queue, table);
}

/* Waits until every section (dvk_softirqs_hold) that is under way on any CPU has ended. */
void dvk_await_sections(void)
{
	synchronize_rcu_expedited();
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
