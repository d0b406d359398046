// SPDX-License-Identifier: GPL-2.0
//! Copies that other nodes ask for. They are served by threads of the kernel's, since memory of
//! processes can be reached only where one may sleep.

use super::abi::errno::Errno;
use super::abi::ioctl::{GRANT_READ, GRANT_WRITE};
use super::abi::wire::transfer::{
    CopyStep, DataHead, Flow, Place, DATA_HEAD_BYTES, MAX_DATA_BYTES,
};
use super::abi::Endpoint;
use super::container::{Container, Target};
use super::copy;
use super::dvs;
use super::grants::Borrowed;
use super::local_port::{LocalPort, Timeout};
use super::peer::PeerLink;
use super::sys;
use super::transfer::{Transfer, Window};
use kernel::prelude::*;
use kernel::sync::{Arc, SetOnce};
use kernel::workqueue::Queue;

static QUEUE: SetOnce<&'static Queue> = SetOnce::new();

/// Called when the driver starts.
pub(crate) fn init() -> Result {
    QUEUE.populate(sys::new_queue()?);
    Ok(())
}

/// The driver's own work queue.
pub(crate) fn queue() -> Option<&'static Queue> {
    QUEUE.as_ref().copied()
}

/// Starts a worker that serves what `peer` asked for. Returns whether it will run.
pub(crate) fn start(peer: Arc<PeerLink>) -> bool {
    let work = move || {
        while let Some(transfer) = peer.transfers.next_served() {
            serve(&peer, &transfer);
        }
    };
    QUEUE.as_ref().is_some_and(|queue| queue.try_spawn(GFP_ATOMIC, work).is_ok())
}

fn serve(peer: &PeerLink, transfer: &Transfer) {
    let (sent, result) = match attempt(peer, transfer) {
        Ok(sent) => sent,
        Err(error) => (0, Err(error)),
    };
    let before = transfer.look(|rules| rules.end());
    let end = transfer.act(|rules| rules.close(sent, result.err()));
    // The memory is given back before the asker hears that all is over.
    drop(transfer.take_window());
    peer.transfers.finish(transfer);
    if before.is_some_and(|end| end.error == Some(Errno::NodeDown)) {
        // Of an asker that is gone, or was told the same by its own node.
        return;
    }
    let step = CopyStep::Done { copied: end.copied, error: end.error };
    peer.answer_copy(&transfer.answer(step));
}

/// How many bytes were sent, where any are, and how that ended.
type Sent = (u32, Result<(), Errno>);

fn attempt(peer: &PeerLink, transfer: &Transfer) -> Result<Sent, Errno> {
    let head = &transfer.head;
    let container = dvs::get()?.containers.get(head.container).ok_or(Errno::NoDevice)?;
    let granter = local(&container, head.to)?;
    match transfer.step {
        CopyStep::CopyFrom { source, len, rest } => {
            allows(&granter, source, head.from, GRANT_READ, rest)?;
            let _room = container.limits().bytes(len.min(MAX_DATA_BYTES as u32))?;
            Ok(supply(peer, transfer, &granter, source, len))
        }
        CopyStep::CopyTo { destination, len, rest } => {
            allows(&granter, destination, head.from, GRANT_WRITE, rest)?;
            let _room = container.limits().bytes(len)?;
            take_in(peer, transfer, &granter, destination, len).map(|()| (0, Ok(())))
        }
        CopyStep::CopyBetween { source, receiver, destination, len, rest } => {
            let receiver = local(&container, receiver)?;
            allows(&granter, source, head.from, GRANT_READ, rest)?;
            allows(&receiver, destination, head.from, GRANT_WRITE, rest)?;
            let places = copy::Between {
                by: head.from,
                source: &granter,
                from: source,
                destination: &receiver,
                to: destination,
            };
            let go_on = || transfer.look(|rules| !rules.is_stopped() && rules.end().is_none());
            let (copied, result) =
                places.run(len.into(), || if go_on() { Ok(()) } else { Err(Errno::Interrupted) });
            Ok((copied as u32, result))
        }
        CopyStep::Open | CopyStep::Stop | CopyStep::Done { .. } => Err(Errno::Invalid),
    }
}

fn local(container: &Container, endpoint: Endpoint) -> Result<Arc<LocalPort>, Errno> {
    match container.route(endpoint)? {
        Target::Local(port) => Ok(port),
        Target::Remote(_) => Err(Errno::NoEndpoint),
    }
}

/// Whether `by` may use all that it wants to in the end.
fn allows(
    granter: &Arc<LocalPort>,
    place: Place,
    by: Endpoint,
    access: u32,
    rest: u64,
) -> Result<(), Errno> {
    Borrowed::begin(granter, place.grant, by, access, place.offset, rest).map(drop)
}

/// Sends what was lent to the asker.
fn supply(
    peer: &PeerLink,
    transfer: &Transfer,
    granter: &Arc<LocalPort>,
    source: Place,
    len: u32,
) -> Sent {
    let by = transfer.head.from;
    let read = |at: u32, bytes: &mut [u8]| {
        let offset = source.offset + u64::from(at);
        let len = bytes.len() as u64;
        let lent = Borrowed::begin(granter, source.grant, by, GRANT_READ, offset, len);
        let lent = match lent {
            Ok(lent) => lent,
            Err(error) => return (0, Err(error)),
        };
        match lent.memory() {
            Ok((memory, address)) => memory.read(address, bytes),
            Err(error) => (0, Err(error)),
        }
    };
    let data = DataHead { head: transfer.head.back(), flow: Flow::Supplied, offset: 0 };
    let go_on = || transfer.look(|rules| !rules.is_stopped() && rules.end().is_none());
    send(peer, data, len, Timeout::Forever, read, go_on)
}

/// Sends `len` bytes that `read` gives, in data records that begin like `data`, for as long as
/// `go_on` says so.
pub(crate) fn send(
    peer: &PeerLink,
    data: DataHead,
    len: u32,
    timeout: Timeout,
    read: impl Fn(u32, &mut [u8]) -> copy::Copied,
    go_on: impl Fn() -> bool,
) -> Sent {
    let most = (len as usize).min(MAX_DATA_BYTES);
    let Ok(mut record) = KVec::from_elem(0u8, DATA_HEAD_BYTES + most, GFP_KERNEL) else {
        return (0, Err(Errno::NoMemory));
    };
    let mut sent = 0;
    while sent < len && go_on() {
        let part = ((len - sent) as usize).min(MAX_DATA_BYTES);
        let (head, bytes) = record.split_at_mut(DATA_HEAD_BYTES);
        head.copy_from_slice(&DataHead { offset: sent, ..data }.encode());
        let (read, result) = read(sent, &mut bytes[..part]);
        if read > 0 {
            let record = &record[..DATA_HEAD_BYTES + read as usize];
            match peer.submit_data(record, timeout, &go_on) {
                Ok(true) => sent += read as u32,
                Ok(false) => break,
                Err(error) => return (sent, Err(error)),
            }
        }
        if result.is_err() {
            return (sent, result);
        }
    }
    (sent, Ok(()))
}

/// Takes the asker's bytes into what was lent.
fn take_in(
    peer: &PeerLink,
    transfer: &Transfer,
    granter: &Arc<LocalPort>,
    destination: Place,
    len: u32,
) -> Result<(), Errno> {
    let Place { grant, offset } = destination;
    let by = transfer.head.from;
    let mut lent = Borrowed::begin(granter, grant, by, GRANT_WRITE, offset, len.into())?;
    if len == 0 {
        return Ok(());
    }
    let range = {
        let (memory, address) = lent.memory()?;
        memory.pin(address, len.into())?
    };
    lent.let_go();
    transfer.open_window(Window::Pinned { range, _lent: Some(lent) });
    peer.answer_copy(&transfer.answer(CopyStep::Open));
    // Where the memory has a hole, what is before it is taken, and the rest comes to nothing.
    transfer.wait_idly(|rules| rules.is_full() || rules.is_stopped());
    Ok(())
}
