// SPDX-License-Identifier: GPL-2.0
//! The Rust side of the tracepoints, which `dvk_trace.h` defines.
//!
//! While nobody listens, a tracepoint costs a look at its static key: no call, no argument made.
//! So what a tracepoint tells is given to it as a closure.

use super::abi::errno::Errno;
use super::abi::ioctl::{
    call_name, Copy, CopyBetween, Event, Exchange, Notify, Privileges, WaitBind, WaitUnbind,
    COPY_BETWEEN, COPY_FROM, COPY_TO, EVENT_BOUND, EVENT_UNBOUND, NODE_NONE, NOTIFY, RECEIVE,
    RECEIVE_REQUEST, REPLY, REPLY_RECEIVE, SEND, SENDREC, SET_PRIVILEGES, WAIT_BIND, WAIT_UNBIND,
};
use super::abi::{Endpoint, Message};
use super::rules::report::link_event;
use super::uapi::Argument;
use core::ffi::CStr;
use core::mem::offset_of;
use kernel::ffi::{c_char, c_int};

/// Declares for each tracepoint a function that fires it if somebody listens, and one that says whether
/// somebody does.
macro_rules! tracepoints {
    ($($name:ident ( $($argument:ident : $type:ty),* );)*) => { kernel::macros::paste! {
        #[cfg(CONFIG_TRACEPOINTS)]
        // With lockdep, a key has a member without a size; only the number in it is looked at.
        #[allow(improper_ctypes)]
        extern "C" {
            $(
                static [< __tracepoint_ $name >]: kernel::bindings::tracepoint;
                fn [< rust_do_trace_ $name >]($($argument: $type),*);
            )*
        }
        $(
            #[inline(always)]
            fn [< $name _is_listened_to >]() -> bool {
                #[cfg(not(CONFIG_TRACEPOINTS))]
                return false;
                #[cfg(CONFIG_TRACEPOINTS)]
                is_listened_to!([< __tracepoint_ $name >])
            }

            #[inline(always)]
            fn $name(tell: impl FnOnce() -> ($($type,)*)) {
                if [< $name _is_listened_to >]() {
                    cold(|| {
                        let ($($argument,)*) = tell();
                        #[cfg(not(CONFIG_TRACEPOINTS))]
                        let _ = ($($argument,)*);
                        #[cfg(CONFIG_TRACEPOINTS)]
                        // SAFETY: the arguments are numbers and C strings that live for ever;
                        // probes may be called in any context.
                        unsafe { [< rust_do_trace_ $name >]($($argument),*) };
                    });
                }
            }
        )*
    } };
}

/// Whether somebody listens to a tracepoint.
#[cfg(CONFIG_TRACEPOINTS)]
macro_rules! is_listened_to {
    ($tracepoint:ident) => {{
        #[cfg(CONFIG_JUMP_LABEL)]
        // SAFETY: it is a tracepoint of C.
        let listened_to = unsafe {
            kernel::jump_label::static_branch_unlikely!(
                $tracepoint,
                kernel::bindings::tracepoint,
                key
            )
        };
        // Where keys are not patched into the code, the kernel's macro calls a function to read a
        // number.
        #[cfg(not(CONFIG_JUMP_LABEL))]
        // SAFETY: it is a tracepoint of C, which lives for ever; the number in its key is read and
        // written whole.
        let listened_to =
            unsafe { (&raw const $tracepoint.key.key.enabled.counter).read_volatile() } > 0;
        listened_to
    }};
}

/// Keeps what is done for a listener out of the way of everybody else.
#[cold]
#[inline(never)]
fn cold(tell: impl FnOnce()) {
    tell();
}

type Text = *const c_char;

tracepoints! {
    dvk_call_begin(container: u32, endpoint: u64, call: Text, peer: u64);
    dvk_call_end(container: u32, endpoint: u64, call: Text, peer: u64, error: c_int);
    dvk_notify(container: u32, endpoint: u64, peer: u64, bits: u64);
    dvk_bind(container: u32, endpoint: u64);
    dvk_unbind(container: u32, endpoint: u64);
    dvk_link_state(node: u32, event: Text);
    dvk_frame_rejected(node: u32, reason: Text);
}

fn text(text: &'static CStr) -> Text {
    text.as_ptr().cast()
}

/// Carries out a call on the open file `file` of a container's device, between its two tracepoints if
/// somebody listens to one of them. `who` gives the container and the endpoint of the file.
///
/// Whether somebody does is asked at the beginning only. So nothing has to be kept during a call for
/// its end, and the end of a call whose beginning nobody heard is not told.
#[inline(always)]
pub(crate) fn call<F>(
    file: &F,
    cmd: u32,
    argument: Argument,
    who: fn(&F) -> (u16, Endpoint),
    carry_out: fn(&F, u32, Argument) -> Result<(), Errno>,
) -> Result<(), Errno> {
    if dvk_call_begin_is_listened_to() || dvk_call_end_is_listened_to() {
        return traced_call(file, cmd, argument, who, carry_out);
    }
    carry_out(file, cmd, argument)
}

#[cold]
#[inline(never)]
fn traced_call<F>(
    file: &F,
    cmd: u32,
    argument: Argument,
    who: fn(&F) -> (u16, Endpoint),
    carry_out: fn(&F, u32, Argument) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let name = text(call_name(cmd));
    dvk_call_begin(|| {
        let (container, endpoint) = who(file);
        (container.into(), endpoint.raw(), name, peer_of(cmd, argument).raw())
    });
    let result = carry_out(file, cmd, argument);
    dvk_call_end(|| {
        let (container, endpoint) = who(file);
        let peer = if result.is_ok() { partner_of(cmd, argument) } else { peer_of(cmd, argument) };
        let error = result.err().map_or(0, |error| c_int::from(error.raw()));
        (container.into(), endpoint.raw(), name, peer.raw(), error)
    });
    result
}

/// Whom a call is about, as its argument block says. The block is read anew, so that a call that
/// nobody listens to is not burdened with remembering it: a program that writes into the block
/// during the call can lie, but only about itself and to who looks at it.
fn peer_of(cmd: u32, argument: Argument) -> Endpoint {
    let offset = match cmd {
        SEND | SENDREC | REPLY | REPLY_RECEIVE => offset_of!(Exchange, peer),
        RECEIVE | RECEIVE_REQUEST => offset_of!(Exchange, from),
        NOTIFY => offset_of!(Notify, peer),
        WAIT_UNBIND => offset_of!(WaitUnbind, endpoint),
        SET_PRIVILEGES => offset_of!(Privileges, endpoint),
        COPY_FROM | COPY_TO => offset_of!(Copy, granted),
        COPY_BETWEEN => offset_of!(CopyBetween, source),
        _ => return Endpoint::NONE,
    };
    read(argument, offset)
}

/// With whom a call was made that succeeded: of one that receives, the source of the message.
fn partner_of(cmd: u32, argument: Argument) -> Endpoint {
    match cmd {
        RECEIVE | RECEIVE_REQUEST | REPLY_RECEIVE => {
            read(argument, offset_of!(Exchange, message) + offset_of!(Message, source))
        }
        WAIT_BIND => read(argument, offset_of!(WaitBind, endpoint)),
        _ => peer_of(cmd, argument),
    }
}

fn read(argument: Argument, offset: usize) -> Endpoint {
    argument.behind(offset).read().map_or(Endpoint::NONE, Endpoint::from_raw)
}

/// `bits` were set at `peer` by an endpoint of this node.
#[inline(always)]
pub(crate) fn notified(container: u16, endpoint: Endpoint, peer: Endpoint, bits: u64) {
    dvk_notify(|| (container.into(), endpoint.raw(), peer.raw(), bits));
}

/// What is told to those who watch this node.
pub(crate) fn happened(event: &Event) {
    match event.kind {
        EVENT_BOUND => dvk_bind(|| (event.container, event.endpoint)),
        EVENT_UNBOUND => dvk_unbind(|| (event.container, event.endpoint)),
        kind => {
            if let Some(name) = link_event(kind) {
                dvk_link_state(|| (event.node, text(name)));
            }
        }
    }
}

/// The control plane changed something about the link to `node`.
pub(crate) fn link_changed(node: u16, event: &'static CStr) {
    dvk_link_state(|| (node.into(), text(event)));
}

/// A frame, or a record in one, was dropped. `node` is whose it was, if that is known.
pub(crate) fn frame_rejected(node: Option<u16>, reason: &'static CStr) {
    dvk_frame_rejected(|| (node.map_or(NODE_NONE, u32::from), text(reason)));
}
