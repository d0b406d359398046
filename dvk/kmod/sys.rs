// SPDX-License-Identifier: GPL-2.0
//! Safe faces of the C shim: a lock that also keeps softirqs out, sleeping and waking, poll queues,
//! timers, network devices. All the driver's `unsafe` is here, in `entry`, in `memory` and in `uapi`.

use super::abi::errno::Errno;
use super::abi::wire::ETHERTYPE;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use kernel::bindings;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::LockClassKey;
use kernel::types::Opaque;

// Tasks, files and network devices are opaque here: their bindings have members that Rust does not
// call FFI-safe.
extern "C" {
    fn dvk_chardev_init() -> c_int;
    fn dvk_chardev_add(minor: u32, name: *const kernel::ffi::c_char) -> c_int;
    fn dvk_chardev_remove(minor: u32);
    fn dvk_may_control() -> bool;
    fn dvk_net_init(ethertype: u16) -> c_int;
    fn dvk_netdev_lock();
    fn dvk_netdev_unlock();
    fn dvk_netdev_get(ifindex: u32) -> *mut c_void;
    fn dvk_netdev_put(dev: *mut c_void);
    fn dvk_netdev_name(dev: *mut c_void, name: *mut u8);
    fn dvk_netdev_mtu(dev: *const c_void) -> u32;
    fn dvk_packet_new(bytes: u32, data: *mut *mut u8) -> *mut c_void;
    fn dvk_packet_free(packet: *mut c_void);
    fn dvk_packet_own(packet: *mut c_void, data: *mut *mut u8) -> *mut c_void;
    fn dvk_burst_add_packet(
        burst: *mut RawBurst,
        dev: *mut c_void,
        ethertype: u16,
        destination: *const u8,
        packet: *mut c_void,
        len: u32,
    );
    fn dvk_burst_add_bytes(
        burst: *mut RawBurst,
        dev: *mut c_void,
        ethertype: u16,
        destination: *const u8,
        payload: *const u8,
        len: u32,
    );
    fn dvk_burst_send(burst: *mut RawBurst, dev: *mut c_void);
    #[cfg(CONFIG_DVK_TIPC)]
    fn dvk_tipc_open(
        service: u32,
        here: u32,
        there: u32,
        peer: *const c_void,
        err: *mut c_int,
    ) -> *mut c_void;
    #[cfg(CONFIG_DVK_TIPC)]
    fn dvk_tipc_close(tipc: *mut c_void);
    #[cfg(CONFIG_DVK_TIPC)]
    fn dvk_tipc_congested(tipc: *const c_void) -> bool;
    #[cfg(CONFIG_DVK_TIPC)]
    fn dvk_tipc_transmit(tipc: *mut c_void, payload: *const u8, len: u32);
    fn dvk_spin_lock_bh(lock: *mut bindings::spinlock_t);
    fn dvk_spin_unlock_bh(lock: *mut bindings::spinlock_t);
    fn dvk_spin_lock(lock: *mut bindings::spinlock_t);
    fn dvk_spin_unlock(lock: *mut bindings::spinlock_t);
    fn dvk_softirqs_hold();
    fn dvk_softirqs_release();
    fn dvk_prepare_sleep(killable_only: bool);
    fn dvk_finish_sleep();
    fn dvk_sleep_until(deadline_ns: i64) -> bool;
    fn dvk_release_and_sleep(task: *mut c_void);
    fn dvk_signal_pending(fatal_only: bool) -> bool;
    fn dvk_current() -> *mut c_void;
    fn dvk_wake(task: *mut c_void);
    fn dvk_this_cpu() -> u32;
    fn dvk_spin_clock() -> u64;
    fn dvk_may_spin() -> bool;
    fn dvk_wait_queue_init(queue: *mut bindings::wait_queue_head);
    fn dvk_wait_queue_prepare(
        queue: *mut bindings::wait_queue_head,
        entry: *mut bindings::wait_queue_entry,
    );
    fn dvk_wait_queue_finish(
        queue: *mut bindings::wait_queue_head,
        entry: *mut bindings::wait_queue_entry,
    );
    fn dvk_wait_queue_wake(queue: *mut bindings::wait_queue_head);
    fn dvk_wait_queue_polled(queue: *mut bindings::wait_queue_head) -> bool;
    fn dvk_wait_queue_poll(
        queue: *mut bindings::wait_queue_head,
        file: *mut c_void,
        table: *mut c_void,
    );
    fn dvk_await_sections();
    fn dvk_timer_init(timer: *mut bindings::timer_list);
    fn dvk_timer_set(timer: *mut bindings::timer_list, now_ns: u64, deadline_ns: u64);
    fn dvk_timer_shutdown(timer: *mut bindings::timer_list);
    fn dvk_debugfs_init();
    fn dvk_debugfs_add(name: *const kernel::ffi::c_char, table: u32);
    fn dvk_seq_write(file: *mut c_void, text: *const u8, len: usize);
    fn dvk_queue_new() -> *mut bindings::workqueue_struct;
}

/// While it lives, no softirq runs on this CPU, the thread stays on it, and no task that was seen
/// meanwhile is freed (it is an RCU read-side critical section). Nobody may sleep.
pub(crate) struct SoftirqsHeld(PhantomData<*mut ()>);

impl SoftirqsHeld {
    pub(crate) fn new() -> Self {
        // SAFETY: may be called in any context but with interrupts disabled; given up in `drop` or
        // `sleep`.
        unsafe { dvk_softirqs_hold() };
        Self(PhantomData)
    }

    /// Ends the section, wakes `sleeper` and sleeps until woken oneself. Where both share a CPU,
    /// that is one pass through the scheduler. For a thread that has called [`prepare_sleep`].
    pub(crate) fn sleep(self, sleeper: Option<Sleeper>) {
        let task = sleeper.map_or(core::ptr::null_mut(), |sleeper| sleeper.0.as_ptr());
        core::mem::forget(self);
        // SAFETY: ends what `new` began; the task is alive by the contract of `Sleeper`, and
        // `dvk_release_and_sleep` keeps it so until it is woken.
        unsafe { dvk_release_and_sleep(task) }
    }
}

impl Drop for SoftirqsHeld {
    fn drop(&mut self) {
        // SAFETY: ends what `new` began.
        unsafe { dvk_softirqs_release() }
    }
}

/// A spin lock whose holder is not interrupted by softirqs, so that received frames and timers may
/// take it too. Nobody may sleep while holding it.
#[pin_data]
pub(crate) struct BhLock<T> {
    #[pin]
    lock: Opaque<bindings::spinlock_t>,
    guarded: UnsafeCell<T>,
}

// SAFETY: the lock gives one thread at a time access to what it guards.
unsafe impl<T: Send> Send for BhLock<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for BhLock<T> {}

impl<T> BhLock<T> {
    /// Use [`new_bh_lock!`], which gives the lock a class of its own.
    pub(crate) fn new(
        guarded: T,
        name: &'static CStr,
        class: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: the pointer is to pinned memory, which the call initialises; the name and
            // the class live for ever.
            lock <- Opaque::ffi_init(|lock| unsafe {
                bindings::__spin_lock_init(lock, name.as_char_ptr(), class.as_ptr())
            }),
            guarded: UnsafeCell::new(guarded),
        })
    }

    /// Takes the lock, and holds softirqs off as long as it is held.
    pub(crate) fn lock(&self) -> Guard<'_, T, Alone> {
        // SAFETY: the lock was initialised.
        unsafe { dvk_spin_lock_bh(self.lock.get()) };
        Guard { lock: self, _hold: PhantomData }
    }

    /// Takes the lock where softirqs are held off already, which is cheaper.
    pub(crate) fn lock_in<'a>(&'a self, _held: &'a SoftirqsHeld) -> Guard<'a, T, Within> {
        // SAFETY: the lock was initialised.
        unsafe { dvk_spin_lock(self.lock.get()) };
        Guard { lock: self, _hold: PhantomData }
    }
}

/// How a [`Guard`] holds softirqs off.
pub(crate) trait Hold {
    /// # Safety
    /// The lock is held, in the way that this type stands for.
    unsafe fn unlock(lock: *mut bindings::spinlock_t);
}

/// By itself.
pub(crate) struct Alone;

impl Hold for Alone {
    unsafe fn unlock(lock: *mut bindings::spinlock_t) {
        // SAFETY: by this function's contract.
        unsafe { dvk_spin_unlock_bh(lock) }
    }
}

/// Within a section that does.
pub(crate) struct Within;

impl Hold for Within {
    unsafe fn unlock(lock: *mut bindings::spinlock_t) {
        // SAFETY: by this function's contract.
        unsafe { dvk_spin_unlock(lock) }
    }
}

/// A lock that is held.
pub(crate) struct Guard<'a, T, H: Hold> {
    lock: &'a BhLock<T>,
    // Whoever locks unlocks.
    _hold: PhantomData<(H, *mut ())>,
}

impl<T, H: Hold> Deref for Guard<'_, T, H> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.lock.guarded.get() }
    }
}

impl<T, H: Hold> DerefMut for Guard<'_, T, H> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and the guard borrowed mutably.
        unsafe { &mut *self.lock.guarded.get() }
    }
}

impl<T, H: Hold> Drop for Guard<'_, T, H> {
    fn drop(&mut self) {
        // SAFETY: the lock was taken in this way.
        unsafe { H::unlock(self.lock.lock.get()) }
    }
}

/// Initialises a [`BhLock`] with a lockdep class of its own.
macro_rules! new_bh_lock {
    ($inner:expr, $name:literal) => {
        $crate::sys::BhLock::new($inner, $name, kernel::static_lock_class!())
    };
}
pub(crate) use new_bh_lock;

/// Time since boot, in nanoseconds; what deadlines are measured by.
pub(crate) fn now_ns() -> u64 {
    // SAFETY: may be called in any context.
    unsafe { bindings::ktime_get() as u64 }
}

/// Waits until every [`SoftirqsHeld`] that is alive on any CPU has ended.
pub(crate) fn await_sections() {
    // SAFETY: called in a process context without locks held.
    unsafe { dvk_await_sections() }
}

/// The thread that is to be woken when its call is over.
///
/// There is one in the state of a port only while its thread is inside a call on that port, and the
/// thread takes it out before it leaves. So whoever finds it there, under the port's lock, may wake
/// the thread until its own [`SoftirqsHeld`] ends: until then no task is freed.
pub(crate) struct Sleeper(NonNull<c_void>);

// SAFETY: tasks may be woken from anywhere.
unsafe impl Send for Sleeper {}

impl Sleeper {
    /// The calling thread.
    pub(crate) fn current() -> Option<Self> {
        // SAFETY: called in a process context, in which there is a current task.
        NonNull::new(unsafe { dvk_current() }).map(Self)
    }

    /// Wakes the thread, within the section in which it was found.
    pub(crate) fn wake(self, _held: &SoftirqsHeld) {
        // SAFETY: the task is alive by the contract of this type.
        unsafe { dvk_wake(self.0.as_ptr()) }
    }
}

/// The CPU that the caller runs on, or ran on a moment ago.
pub(crate) fn this_cpu() -> u32 {
    // SAFETY: reads a number.
    unsafe { dvk_this_cpu() }
}

/// Calls `done` until it says yes, `patience_ns` are over, or somebody else needs the CPU. Returns
/// what it said last.
pub(crate) fn spin_until(patience_ns: u32, mut done: impl FnMut() -> bool) -> bool {
    /// Looks between two readings of the clock.
    const ROUND: u32 = 64;
    // SAFETY: reads this CPU's clock.
    let begun = unsafe { dvk_spin_clock() };
    loop {
        for _ in 0..ROUND {
            if done() {
                return true;
            }
            core::hint::spin_loop();
        }
        // SAFETY: reads the state of the current task and this CPU's clock.
        let (may_go_on, now) = unsafe { (dvk_may_spin(), dvk_spin_clock()) };
        // The clock of another CPU, if the thread was moved meanwhile, may be behind.
        if !may_go_on || now.wrapping_sub(begun) > u64::from(patience_ns) {
            return done();
        }
    }
}

/// Which signals end a sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WokenBy {
    /// Every signal.
    Signals,
    /// Only those that kill.
    FatalSignals,
}

/// Announces that the thread is about to sleep: a wake-up from here on makes
/// [`sleep_until`] return at once. May be called under a lock.
pub(crate) fn prepare_sleep(by: WokenBy) {
    // SAFETY: changes the state of the current task only.
    unsafe { dvk_prepare_sleep(by == WokenBy::FatalSignals) }
}

/// Takes [`prepare_sleep`] back.
pub(crate) fn finish_sleep() {
    // SAFETY: changes the state of the current task only.
    unsafe { dvk_finish_sleep() }
}

/// Sleeps until woken; `None` is no deadline. Returns false if the deadline passed.
pub(crate) fn sleep_until(deadline_ns: Option<u64>) -> bool {
    let deadline = deadline_ns.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX));
    // SAFETY: called in a process context without locks held.
    unsafe { dvk_sleep_until(deadline) }
}

/// Whether a signal waits for the thread.
pub(crate) fn signal_pending(by: WokenBy) -> bool {
    // SAFETY: reads the state of the current task only.
    unsafe { dvk_signal_pending(by == WokenBy::FatalSignals) }
}

/// Whether the caller may use the control device: `CAP_SYS_ADMIN` in the initial user namespace.
pub(crate) fn may_control() -> bool {
    // SAFETY: reads the credentials of the current task.
    unsafe { dvk_may_control() }
}

/// Those who poll a file.
#[pin_data]
pub(crate) struct PollQueue {
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
}

// SAFETY: a wait queue has a lock of its own.
unsafe impl Send for PollQueue {}
// SAFETY: as above.
unsafe impl Sync for PollQueue {}

impl PollQueue {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: the pointer is to pinned memory, which the call initialises.
            queue <- Opaque::ffi_init(|queue| unsafe { dvk_wait_queue_init(queue) }),
        })
    }

    /// Wakes everybody who polls.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue was initialised.
        unsafe { dvk_wait_queue_wake(self.queue.get()) }
    }

    /// Whether somebody polls. To be asked under the lock under which the state changes, and which
    /// who polls takes to look at it after [`register`](Self::register).
    pub(crate) fn is_polled(&self) -> bool {
        // SAFETY: the queue was initialised.
        unsafe { dvk_wait_queue_polled(self.queue.get()) }
    }

    /// Waits, interruptibly, until `condition` holds, which somebody who calls
    /// [`wake`](Self::wake) brought about.
    ///
    /// # Errors
    /// [`Errno::TimedOut`] after the deadline, [`Errno::Interrupted`] by a signal.
    pub(crate) fn wait(
        &self,
        deadline_ns: Option<u64>,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), Errno> {
        loop {
            let mut entry = MaybeUninit::<bindings::wait_queue_entry>::uninit();
            let entry = entry.as_mut_ptr();
            // SAFETY: the queue was initialised; the entry stays where it is, and in the queue until
            // it is taken out below.
            unsafe { dvk_wait_queue_prepare(self.queue.get(), entry) };
            let mut in_time = true;
            if !condition() {
                in_time = sleep_until(deadline_ns);
            }
            // SAFETY: ends what `prepare` began.
            unsafe { dvk_wait_queue_finish(self.queue.get(), entry) };
            if condition() {
                return Ok(());
            }
            if !in_time {
                return Err(Errno::TimedOut);
            }
            if signal_pending(WokenBy::Signals) {
                return Err(Errno::Interrupted);
            }
        }
    }

    /// Registers the polling thread.
    ///
    /// # Safety
    /// `file` and `table` are those of a `poll` in progress, and the queue lives as long as the
    /// file.
    pub(crate) unsafe fn register(&self, file: *mut c_void, table: *mut c_void) {
        // SAFETY: by this function's contract.
        unsafe { dvk_wait_queue_poll(self.queue.get(), file, table) }
    }
}

/// Those who wait for a condition.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
}

// SAFETY: a wait queue has a lock of its own.
unsafe impl Send for WaitQueue {}
// SAFETY: as above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: the pointer is to pinned memory, which the call initialises.
            queue <- Opaque::ffi_init(|queue| unsafe { dvk_wait_queue_init(queue) }),
        })
    }

    /// Wakes everybody, to look again.
    pub(crate) fn wake_all(&self) {
        // SAFETY: the queue was initialised.
        unsafe {
            bindings::__wake_up(self.queue.get(), bindings::TASK_NORMAL, 0, core::ptr::null_mut())
        };
    }

    /// Waits until `condition` holds, whatever comes. Only for what comes soon, and for threads of
    /// the kernel.
    pub(crate) fn wait(&self, condition: impl FnMut() -> bool) {
        // Neither a signal nor a deadline ends it.
        let _ = self.wait_in(TASK_IDLE, None, condition, || false);
    }

    /// Waits until `condition` holds. It is asked while the thread is about to sleep, and must not.
    ///
    /// # Errors
    /// [`Errno::TimedOut`] after the deadline, [`Errno::Interrupted`] when a signal comes.
    pub(crate) fn wait_until(
        &self,
        by: WokenBy,
        deadline_ns: Option<u64>,
        condition: impl FnMut() -> bool,
    ) -> Result<(), Errno> {
        let state = match by {
            WokenBy::Signals => bindings::TASK_INTERRUPTIBLE,
            WokenBy::FatalSignals => bindings::TASK_UNINTERRUPTIBLE | bindings::TASK_WAKEKILL,
        };
        self.wait_in(state, deadline_ns, condition, || signal_pending(by))
    }

    fn wait_in(
        &self,
        state: c_uint,
        deadline_ns: Option<u64>,
        mut condition: impl FnMut() -> bool,
        is_interrupted: impl Fn() -> bool,
    ) -> Result<(), Errno> {
        if condition() {
            return Ok(());
        }
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: `entry` is on this stack, which it does not leave before `finish_wait`.
        unsafe { bindings::init_wait(entry.get()) };
        let mut in_time = true;
        let result = loop {
            // SAFETY: the queue and the entry were initialised.
            unsafe {
                bindings::prepare_to_wait(self.queue.get(), entry.get(), state as c_int);
            }
            if condition() {
                break Ok(());
            }
            if is_interrupted() {
                break Err(Errno::Interrupted);
            }
            if !in_time {
                break Err(Errno::TimedOut);
            }
            in_time = sleep_until(deadline_ns);
        };
        // SAFETY: as above.
        unsafe { bindings::finish_wait(self.queue.get(), entry.get()) };
        result
    }
}

/// Asleep, but neither to be woken by signals nor counted as load or as hung.
const TASK_IDLE: c_uint = bindings::TASK_UNINTERRUPTIBLE | bindings::TASK_NOLOAD;

/// A timer whose expiry calls [`super::peer::PeerLink::timer_expired`].
#[pin_data]
#[repr(transparent)]
pub(crate) struct Timer {
    #[pin]
    timer: Opaque<bindings::timer_list>,
}

// SAFETY: the kernel's timers may be set and shut down from any thread.
unsafe impl Send for Timer {}
// SAFETY: as above.
unsafe impl Sync for Timer {}

impl Timer {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: the pointer is to pinned memory, which the call initialises.
            timer <- Opaque::ffi_init(|timer| unsafe { dvk_timer_init(timer) }),
        })
    }

    /// Sets the timer, to the next tick after `deadline_ns`.
    pub(crate) fn set(&self, now_ns: u64, deadline_ns: u64) {
        // SAFETY: the timer was initialised; setting one that was shut down does nothing.
        unsafe { dvk_timer_set(self.timer.get(), now_ns, deadline_ns) }
    }

    /// Stops the timer for good and waits until its function is not running.
    pub(crate) fn shutdown(&self) {
        // SAFETY: the timer was initialised; called in a process context.
        unsafe { dvk_timer_shutdown(self.timer.get()) }
    }
}

/// While it lives, no network device comes, goes or changes: what is looked up and attached is told
/// if it goes away. Taken after `Dvs::control` and before every spin lock.
pub(crate) struct DevicesHeld(());

impl DevicesHeld {
    pub(crate) fn new() -> Self {
        // SAFETY: called in a process context that does not hold the lock.
        unsafe { dvk_netdev_lock() };
        Self(())
    }
}

impl Drop for DevicesHeld {
    fn drop(&mut self) {
        // SAFETY: taken in `new`.
        unsafe { dvk_netdev_unlock() }
    }
}

/// A reference to an Ethernet device.
pub(crate) struct NetDevice(NonNull<c_void>);

// SAFETY: network devices are reference-counted and may be used from any thread.
unsafe impl Send for NetDevice {}
// SAFETY: as above.
unsafe impl Sync for NetDevice {}

impl NetDevice {
    /// The Ethernet device with this index in the initial network namespace.
    pub(crate) fn get(ifindex: u32) -> Option<Self> {
        // SAFETY: looks the device up and takes a reference, which `drop` gives up.
        NonNull::new(unsafe { dvk_netdev_get(ifindex) }).map(Self)
    }

    /// Its name, padded with zero bytes.
    pub(crate) fn name(&self) -> [u8; 16] {
        let mut name = [0; 16];
        const { assert!(bindings::IFNAMSIZ == 16) };
        // SAFETY: the device lives as long as the reference, and there is room for a name.
        unsafe { dvk_netdev_name(self.0.as_ptr(), name.as_mut_ptr()) };
        name
    }

    /// The largest payload of a frame, in bytes.
    pub(crate) fn mtu(&self) -> usize {
        // SAFETY: the device lives as long as the reference.
        unsafe { dvk_netdev_mtu(self.0.as_ptr()) as usize }
    }

    /// Whether this is `device`.
    pub(crate) fn is(&self, device: *const c_void) -> bool {
        core::ptr::eq(self.0.as_ptr(), device)
    }

    /// Frames to `destination` that leave when it is dropped, to be made where softirqs are held off.
    pub(crate) fn burst<'d>(&'d self, destination: &'d [u8; 6]) -> Burst<'d> {
        let frames = RawBurst { first: core::ptr::null_mut(), last: core::ptr::null_mut() };
        Burst { device: self, destination, frames }
    }
}

/// `struct dvk_burst`.
#[repr(C)]
struct RawBurst {
    first: *mut c_void,
    last: *mut c_void,
}

/// Frames of the DVK's ethertype that a device gets at once, so that it has to be told of them only
/// once. Losing them is for the link protocol to notice.
pub(crate) struct Burst<'d> {
    device: &'d NetDevice,
    destination: &'d [u8; 6],
    frames: RawBurst,
}

impl Burst<'_> {
    /// Adds the first `bytes` of a packet. The device shares the packet until the frame has left.
    pub(crate) fn add(&mut self, packet: &Packet, bytes: usize) {
        let len = packet.len.min(bytes as u32);
        // SAFETY: packet and device live as long as the references, and the packet is as long.
        unsafe {
            dvk_burst_add_packet(
                &mut self.frames,
                self.device.0.as_ptr(),
                ETHERTYPE,
                self.destination.as_ptr(),
                packet.skb.as_ptr(),
                len,
            )
        }
    }

    /// Adds a frame that is copied.
    pub(crate) fn add_bytes(&mut self, payload: &[u8]) {
        let Ok(len) = u32::try_from(payload.len()) else { return };
        // SAFETY: the device lives as long as the reference; the pointers are to live slices.
        unsafe {
            dvk_burst_add_bytes(
                &mut self.frames,
                self.device.0.as_ptr(),
                ETHERTYPE,
                self.destination.as_ptr(),
                payload.as_ptr(),
                len,
            )
        }
    }
}

impl Drop for Burst<'_> {
    fn drop(&mut self) {
        // SAFETY: the frames are those that were added, and the device lives as long as the reference.
        unsafe { dvk_burst_send(&mut self.frames, self.device.0.as_ptr()) }
    }
}

impl Drop for NetDevice {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `get` is given up here.
        unsafe { dvk_netdev_put(self.0.as_ptr()) }
    }
}

/// Memory of a frame, in the form in which network devices take it. Devices may share it for as long
/// as they send.
pub(crate) struct Packet {
    skb: NonNull<c_void>,
    data: NonNull<u8>,
    len: u32,
}

// SAFETY: what it points to is not bound to a thread.
unsafe impl Send for Packet {}
// SAFETY: shared references only read.
unsafe impl Sync for Packet {}

impl Packet {
    /// A packet of so many bytes, whose content is whatever was there.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let len = u32::try_from(bytes).ok()?;
        let mut data = core::ptr::null_mut();
        // SAFETY: may be called in any context; `data` is a live variable.
        let skb = NonNull::new(unsafe { dvk_packet_new(len, &mut data) })?;
        Some(Self { skb, data: NonNull::new(data)?, len })
    }

    /// Makes sure that no device reads it any more. Returns false if there is no memory for that.
    pub(crate) fn make_exclusive(&mut self) -> bool {
        let mut data = self.data.as_ptr();
        // SAFETY: gives up the packet for the one that is returned, if one is; nobody else refers
        // to it but devices, which have references of their own.
        let skb = unsafe { dvk_packet_own(self.skb.as_ptr(), &mut data) };
        match (NonNull::new(skb), NonNull::new(data)) {
            (Some(skb), Some(data)) => {
                (self.skb, self.data) = (skb, data);
                true
            }
            _ => false,
        }
    }
}

impl Deref for Packet {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes of the packet are there. They are memory that C gave, and so bytes,
        // whatever they say; nobody writes to them while they are borrowed.
        unsafe { core::slice::from_raw_parts(self.data.as_ptr(), self.len as usize) }
    }
}

impl DerefMut for Packet {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`. Whoever writes where a device may still read has to call
        // `make_exclusive` before; if it is not, the device sends other bytes, and that is all.
        unsafe { core::slice::from_raw_parts_mut(self.data.as_ptr(), self.len as usize) }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        // SAFETY: made in `new`, or in its place; not used any more.
        unsafe { dvk_packet_free(self.skb.as_ptr()) }
    }
}

/// This node's end of a pair of TIPC sockets. To be dropped where one may sleep.
#[cfg(CONFIG_DVK_TIPC)]
pub(crate) struct TipcSocket(NonNull<c_void>);

#[cfg(CONFIG_DVK_TIPC)]
// SAFETY: what it points to is not bound to a thread.
unsafe impl Send for TipcSocket {}
#[cfg(CONFIG_DVK_TIPC)]
// SAFETY: it is changed by `open` and `drop` only.
unsafe impl Sync for TipcSocket {}

#[cfg(CONFIG_DVK_TIPC)]
impl TipcSocket {
    /// A socket of a service, bound to the instance `here`, for frames to the instance `there`.
    ///
    /// # Errors
    /// [`Errno::NoMemory`], or [`Errno::NoDevice`] if TIPC does not give one.
    ///
    /// # Safety
    /// `peer` points to what `entry` takes it for, for as long as the socket lives.
    pub(crate) unsafe fn open(
        service: u32,
        here: u32,
        there: u32,
        peer: *const c_void,
    ) -> Result<Self, Errno> {
        let mut err = 0;
        // SAFETY: called in a process context; `err` is a live variable.
        let socket = unsafe { dvk_tipc_open(service, here, there, peer, &mut err) };
        let failed = if err == ENOMEM.to_errno() { Errno::NoMemory } else { Errno::NoDevice };
        NonNull::new(socket).map(Self).ok_or(failed)
    }

    /// Whether no frame is to be sent until there is room.
    pub(crate) fn is_congested(&self) -> bool {
        // SAFETY: the socket is open.
        unsafe { dvk_tipc_congested(self.0.as_ptr()) }
    }

    /// Sends a frame. Losing it is for the link protocol to notice.
    pub(crate) fn transmit(&self, frame: &[u8]) {
        let Ok(len) = u32::try_from(frame.len()) else { return };
        // SAFETY: the socket is open; the pointer is to a live slice.
        unsafe { dvk_tipc_transmit(self.0.as_ptr(), frame.as_ptr(), len) }
    }
}

#[cfg(CONFIG_DVK_TIPC)]
impl Drop for TipcSocket {
    fn drop(&mut self) {
        // SAFETY: opened in `open`; by the type's contract one may sleep.
        unsafe { dvk_tipc_close(self.0.as_ptr()) }
    }
}

/// A queue for work that waits for other nodes. It lasts for ever.
pub(crate) fn new_queue() -> Result<&'static kernel::workqueue::Queue> {
    // SAFETY: called in a process context.
    let queue = unsafe { dvk_queue_new() };
    if queue.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: the queue was made and is never destroyed.
    Ok(unsafe { kernel::workqueue::Queue::from_raw(queue) })
}

/// Registers the character devices.
pub(crate) fn register_chardev() -> Result {
    // SAFETY: called once, when the driver starts.
    to_result(unsafe { dvk_chardev_init() })
}

/// Registers for the frames of the DVK's ethertype and for devices that go away.
pub(crate) fn register_net() -> Result {
    // SAFETY: called once, when the driver starts.
    to_result(unsafe { dvk_net_init(ETHERTYPE) })
}

/// Adds the device node `name` with `minor`.
pub(crate) fn add_device(minor: u32, name: &CStr) -> Result {
    // SAFETY: the name is a C string; the region of minors is registered.
    to_result(unsafe { dvk_chardev_add(minor, name.as_char_ptr()) })
}

/// Removes the device node with `minor`.
pub(crate) fn remove_device(minor: u32) {
    // SAFETY: removing a device that does not exist does nothing.
    unsafe { dvk_chardev_remove(minor) }
}

/// Makes the folder of the tables, and a file there for each name, in the order of their numbers.
pub(crate) fn register_tables(names: impl Iterator<Item = &'static core::ffi::CStr>) {
    // SAFETY: called once, when the driver starts.
    unsafe { dvk_debugfs_init() };
    for (table, name) in (0..).zip(names) {
        // SAFETY: the name is a C string that lives for ever.
        unsafe { dvk_debugfs_add(name.as_ptr().cast(), table) };
    }
}

/// The buffer of a table that is being read.
pub(crate) struct SeqFile<'a>(*mut c_void, PhantomData<&'a mut ()>);

impl SeqFile<'_> {
    /// # Safety
    /// `file` is the `seq_file` of a `show` in progress, which lasts as long as the result lives.
    pub(crate) unsafe fn new(file: *mut c_void) -> Self {
        Self(file, PhantomData)
    }
}

impl core::fmt::Write for SeqFile<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        // SAFETY: by the contract of `new`; what there is no room for makes the kernel ask for the
        // row again, with a larger buffer.
        unsafe { dvk_seq_write(self.0, text.as_ptr(), text.len()) };
        Ok(())
    }
}
