// SPDX-License-Identifier: GPL-2.0
//! This node's part in the DVS: who it is, which containers span it, and which peers it has.

use super::abi::errno::Errno;
use super::abi::ioctl::Event;
use super::abi::wire::record::Record;
use super::container::Container;
use super::peer::PeerLink;
use super::rules::event_log::EventLog;
use super::storage::KernelStorage;
use super::sys::{self, new_bh_lock, BhLock, PollQueue};
use super::trace;
use kernel::prelude::*;
use kernel::sync::atomic::{ordering::Relaxed, Atomic};
use kernel::sync::{new_mutex, Arc, Mutex, SetOnce};

/// Who this node is.
#[derive(Clone, Copy)]
pub(crate) struct Identity {
    /// The DVS.
    pub(crate) cluster: u64,
    /// The node's id.
    pub(crate) node: u16,
    /// Its incarnation, never 0.
    pub(crate) incarnation: u32,
}

/// A few shared objects, found by number. Changes copy the index, so that look-ups hold the lock
/// for a binary search only; they are made under [`Dvs::control`].
#[pin_data]
pub(crate) struct Registry<T> {
    #[pin]
    entries: BhLock<KVec<(u16, Arc<T>)>>,
}

impl<T> Registry<T> {
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { entries <- new_bh_lock!(KVec::new(), c"dvk_registry") })
    }

    /// The object with this number.
    pub(crate) fn get(&self, number: u16) -> Option<Arc<T>> {
        let entries = self.entries.lock();
        let at = entries.binary_search_by_key(&number, |entry| entry.0).ok()?;
        Some(entries[at].1.clone())
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// The object with the least number that is not below `from`.
    pub(crate) fn next(&self, from: u32) -> Option<(u16, Arc<T>)> {
        let entries = self.entries.lock();
        let at = entries.partition_point(|entry| u32::from(entry.0) < from);
        entries.get(at).cloned()
    }

    /// The least number in use.
    pub(crate) fn first(&self) -> Option<u16> {
        self.entries.lock().first().map(|entry| entry.0)
    }

    /// A copy of the index with room for one more.
    fn copy(&self) -> Result<KVec<(u16, Arc<T>)>, Errno> {
        let len = self.entries.lock().len();
        let mut copy = KVec::with_capacity(len + 1, GFP_KERNEL).map_err(|_| Errno::NoMemory)?;
        for entry in self.entries.lock().iter() {
            copy.push_within_capacity(entry.clone()).map_err(|_| Errno::NoMemory)?;
        }
        Ok(copy)
    }

    /// Calls `visit` with every object. Needs no memory; an object added or removed meanwhile may
    /// or may not be visited.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(u16, &T)) {
        let mut from = 0;
        while let Some((number, object)) = self.next(from) {
            visit(number, &object);
            from = u32::from(number) + 1;
        }
    }

    /// Adds an object.
    pub(crate) fn add(&self, number: u16, object: Arc<T>) -> Result<(), Errno> {
        let mut entries = self.copy()?;
        let Err(at) = entries.binary_search_by_key(&number, |entry| entry.0) else {
            return Err(Errno::Exists);
        };
        entries.insert_within_capacity(at, (number, object)).map_err(|_| Errno::NoMemory)?;
        self.replace(entries);
        Ok(())
    }

    /// Takes an object out.
    pub(crate) fn remove(&self, number: u16) -> Result<Arc<T>, Errno> {
        let mut entries = self.entries.lock();
        let at = entries.binary_search_by_key(&number, |entry| entry.0);
        let removed = entries.remove(at.map_err(|_| Errno::NoDevice)?);
        removed.map(|(_, object)| object).map_err(|_| Errno::NoDevice)
    }

    fn replace(&self, entries: KVec<(u16, Arc<T>)>) {
        let old = core::mem::replace(&mut *self.entries.lock(), entries);
        drop(old);
    }
}

/// How often something happened.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// It happened once more.
    pub(crate) fn increase(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// How often so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The one instance of the driver.
#[pin_data]
pub(crate) struct Dvs {
    /// Held during control calls, so that they see a state that stays.
    #[pin]
    pub(crate) control: Mutex<()>,
    #[pin]
    identity: BhLock<Option<Identity>>,
    /// Containers that span this node.
    #[pin]
    pub(crate) containers: Registry<Container>,
    /// Peer nodes that were up since this node joined.
    #[pin]
    pub(crate) peers: Registry<PeerLink>,
    #[pin]
    events: BhLock<EventLog<KernelStorage>>,
    /// Those who wait for events.
    #[pin]
    pub(crate) watchers: PollQueue,
    /// Frames that nobody could read.
    pub(crate) malformed: Counter,
    /// Frames from a node that is no peer of this one.
    pub(crate) strangers: Counter,
}

static DVS: SetOnce<Arc<Dvs>> = SetOnce::new();

/// Makes the instance; called when the driver starts.
pub(crate) fn init() -> Result {
    let dvs = Arc::pin_init(
        pin_init!(Dvs {
            control <- new_mutex!((), "dvk_control"),
            identity <- new_bh_lock!(None, c"dvk_identity"),
            containers <- Registry::new(),
            peers <- Registry::new(),
            events <- new_bh_lock!(EventLog::default(), c"dvk_events"),
            watchers <- PollQueue::new(),
            malformed: Counter::new(),
            strangers: Counter::new(),
        }),
        GFP_KERNEL,
    )?;
    DVS.populate(dvs);
    Ok(())
}

/// The instance.
///
/// # Errors
/// [`Errno::NoDevice`] before the driver has started.
pub(crate) fn get() -> Result<&'static Dvs, Errno> {
    DVS.as_ref().map(|dvs| &**dvs).ok_or(Errno::NoDevice)
}

/// Queues a record for a peer node, if `wanted` says so once nothing can come between.
///
/// # Errors
/// [`Errno::NodeDown`] if the node is not up, [`Errno::NotConnected`] without a link to it,
/// [`Errno::Limit`] or [`Errno::NoMemory`] if it cannot be queued.
pub(crate) fn submit(
    node: u16,
    record: &Record,
    wanted: impl FnOnce() -> bool,
) -> Result<(), Errno> {
    get()?.peers.get(node).ok_or(Errno::NodeDown)?.submit(record, wanted)
}

/// Notes that something happened: its time is set here.
pub(crate) fn happened(event: Event) {
    trace::happened(&event);
    let Ok(dvs) = get() else { return };
    dvs.events.lock().push(Event { time_ns: sys::now_ns(), ..event });
    dvs.watchers.wake();
}

impl Dvs {
    /// Number of the next event.
    pub(crate) fn next_event(&self) -> u64 {
        self.events.lock().next()
    }

    /// See [`EventLog::read`].
    pub(crate) fn read_event(&self, cursor: &mut u64) -> (Option<Event>, u64) {
        self.events.lock().read(cursor)
    }

    /// Who this node is.
    ///
    /// # Errors
    /// [`Errno::NoDevice`] while it is in no DVS.
    pub(crate) fn identity(&self) -> Result<Identity, Errno> {
        (*self.identity.lock()).ok_or(Errno::NoDevice)
    }

    /// Sets or clears who this node is.
    pub(crate) fn set_identity(&self, identity: Option<Identity>) {
        *self.identity.lock() = identity;
    }

    /// Tells every container that `node` is down, or up again.
    pub(crate) fn set_node_down(&self, node: u16, down: bool) {
        self.containers.for_each(|_, container| container.set_node_down(node, down));
    }

    /// Ends everything that waits for `node`, in every container.
    pub(crate) fn fail_waiters(&self, node: u16) {
        self.containers.for_each(|_, container| container.node_down(node));
    }
}
