// SPDX-License-Identifier: GPL-2.0
//! The functions that the C shim calls.

use super::abi::errno::Errno;
use super::dvs;
use super::file::{File, Readiness};
use super::peer::PeerLink;
use super::sys::SeqFile;
use super::tables;
use super::uapi::{to_kernel, Argument};
use core::ffi::c_void;
use kernel::bindings;
use kernel::prelude::*;
use kernel::sync::Arc;

fn status(result: Result<(), Errno>) -> c_long {
    match result {
        Ok(()) => 0,
        Err(error) => -c_long::from(error.raw()),
    }
}

/// Opens the device with this minor number, for reading or for writing as well.
///
/// # Safety
/// `private` is valid for a write.
#[no_mangle]
unsafe extern "C" fn dvk_file_open(minor: u32, writable: bool, private: *mut *mut c_void) -> c_int {
    let container = match minor.checked_sub(1).map(u16::try_from) {
        None => None,
        Some(Ok(container)) => Some(container),
        Some(Err(_)) => return to_kernel(Errno::NoDevice).to_errno(),
    };
    let file = File::open(container, writable)
        .and_then(|file| KBox::new(file, GFP_KERNEL).map_err(|_| Errno::NoMemory));
    match file {
        Ok(file) => {
            // SAFETY: by this function's contract.
            unsafe { *private = KBox::into_raw(file).cast() };
            0
        }
        Err(error) => to_kernel(error).to_errno(),
    }
}

/// Releases what [`dvk_file_open`] gave.
///
/// # Safety
/// `private` comes from [`dvk_file_open`] and is not used again.
#[no_mangle]
unsafe extern "C" fn dvk_file_release(private: *mut c_void) {
    // SAFETY: by this function's contract.
    drop(unsafe { KBox::<File>::from_raw(private.cast()) });
}

/// # Safety
/// `private` comes from [`dvk_file_open`] and is not released during the call.
#[no_mangle]
unsafe extern "C" fn dvk_file_ioctl(private: *mut c_void, cmd: c_uint, arg: c_ulong) -> c_long {
    // SAFETY: by this function's contract.
    let file = unsafe { &*private.cast::<File>() };
    status(file.ioctl(cmd, Argument(arg)))
}

/// # Safety
/// As for [`dvk_file_ioctl`]; `file` and `table` are those of the poll in progress.
#[no_mangle]
unsafe extern "C" fn dvk_file_poll(
    private: *mut c_void,
    file: *mut c_void,
    table: *mut c_void,
) -> bindings::__poll_t {
    // SAFETY: by this function's contract.
    let open = match unsafe { &*private.cast::<File>() } {
        File::Container(open) => open,
        File::Control(control) => {
            let Ok(dvs) = dvs::get() else { return 0 };
            // SAFETY: by this function's contract; the instance lives for ever.
            unsafe { dvs.watchers.register(file, table) };
            let readable = control.is_readable(dvs);
            return if readable { bindings::POLLIN | bindings::POLLRDNORM } else { 0 };
        }
    };
    // SAFETY: by this function's contract.
    match unsafe { open.poll(file, table) } {
        Readiness::Waiting => 0,
        Readiness::Readable => bindings::POLLIN | bindings::POLLRDNORM,
        Readiness::Unbound => bindings::POLLERR | bindings::POLLHUP,
    }
}

/// A frame of the DVK's ethertype arrived; called in a softirq. A link
/// answers the frames that it gets at once after the `last` one, after the next one that is for
/// another link, or when [`dvk_frames_received`] says so.
///
/// # Safety
/// `source` points to a MAC address, `payload` to `len` bytes, `link` to null or to what this left
/// there before.
#[no_mangle]
unsafe extern "C" fn dvk_frame_received(
    device: *mut c_void,
    source: *const u8,
    payload: *const u8,
    len: u32,
    last: bool,
    link: *mut *const c_void,
) {
    // SAFETY: by this function's contract.
    let (source, frame) =
        unsafe { (*source.cast::<[u8; 6]>(), core::slice::from_raw_parts(payload, len as usize)) };
    // SAFETY: as above: it is a reference that was left there, and is taken.
    let before = unsafe { link.replace(core::ptr::null()) };
    // SAFETY: as above.
    let before = unsafe { peer_from_raw(before) };
    let now = PeerLink::frame_received(device, &source, frame, last, before);
    // SAFETY: by this function's contract.
    unsafe { link.write(now.map_or(core::ptr::null(), |peer| Arc::into_raw(peer).cast())) }
}

/// No more frames come for now.
///
/// # Safety
/// `link` is what [`dvk_frame_received`] left, and is not used again.
#[no_mangle]
unsafe extern "C" fn dvk_frames_received(link: *const c_void) {
    // SAFETY: by this function's contract.
    if let Some(peer) = unsafe { peer_from_raw(link) } {
        peer.frames_received();
    }
}

/// # Safety
/// `raw` is null or from [`Arc::into_raw`], and not used again.
unsafe fn peer_from_raw(raw: *const c_void) -> Option<Arc<PeerLink>> {
    // SAFETY: by this function's contract.
    (!raw.is_null()).then(|| unsafe { Arc::from_raw(raw.cast()) })
}

/// A frame came by TIPC; called with softirqs held off.
///
/// # Safety
/// `peer` is that of the [`TipcSocket`](super::sys::TipcSocket), `payload` points to `len` bytes.
#[cfg(CONFIG_DVK_TIPC)]
#[no_mangle]
unsafe extern "C" fn dvk_tipc_received(peer: *const c_void, payload: *const u8, len: u32) {
    // SAFETY: by this function's contract, and that of the socket.
    let (peer, frame) =
        unsafe { (&*peer.cast::<PeerLink>(), core::slice::from_raw_parts(payload, len as usize)) };
    peer.tipc_received(frame);
}

/// TIPC takes frames again; called with softirqs held off.
///
/// # Safety
/// As for [`dvk_tipc_received`].
#[cfg(CONFIG_DVK_TIPC)]
#[no_mangle]
unsafe extern "C" fn dvk_tipc_has_room(peer: *const c_void) {
    // SAFETY: by this function's contract, and that of the socket.
    unsafe { &*peer.cast::<PeerLink>() }.tipc_has_room();
}

/// A network device is going away: links give up their reference.
#[no_mangle]
extern "C" fn dvk_netdev_gone(device: *mut c_void) {
    let Ok(dvs) = dvs::get() else { return };
    dvs.peers.for_each(|_, peer| peer.device_gone(device));
}

/// The MTU of a network device changed: links learn what fits in a frame.
#[no_mangle]
extern "C" fn dvk_netdev_resized(device: *mut c_void) {
    let Ok(dvs) = dvs::get() else { return };
    dvs.peers.for_each(|_, peer| peer.device_resized(device));
}

/// # Safety
/// `timer` is the timer of a [`PeerLink`].
#[no_mangle]
unsafe extern "C" fn dvk_timer_expired(timer: *mut bindings::timer_list) {
    // SAFETY: by this function's contract.
    unsafe { PeerLink::timer_expired(timer) }
}

/// The number of the first row of a table from `from` on; negative if there is none.
#[no_mangle]
extern "C" fn dvk_table_find(table: u32, from: u64) -> i64 {
    let table = tables::File::ALL.get(table as usize);
    let row = table.and_then(|table| table.find(from));
    row.and_then(|row| i64::try_from(row).ok()).unwrap_or(-1)
}

/// Writes a row of a table. Returns false if what it was about is gone.
///
/// # Safety
/// `file` is the `seq_file` of the `show` in progress.
#[no_mangle]
unsafe extern "C" fn dvk_table_show(table: u32, row: u64, file: *mut c_void) -> bool {
    // SAFETY: by this function's contract.
    let out = unsafe { SeqFile::new(file) };
    let table = tables::File::ALL.get(table as usize);
    table.and_then(|table| table.write(row, out)).is_some()
}
