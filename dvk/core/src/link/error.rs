// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Why a link does not do what it was asked to.

use super::super::abi::wire::frame::FrameError;
use core::ffi::CStr;

/// Why a record was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The link is [`State::Down`](super::State::Down) or [`State::Broken`](super::State::Broken).
    NotUp,
    /// The queue is full; [`Event::Room`](super::Event::Room) will say when to try again.
    Full,
    /// No buffer could be had. Nothing says when one can.
    NoMemory,
    /// The record is empty, or longer than
    /// [`MAX_RECORD_BYTES`](super::super::abi::wire::frame::MAX_RECORD_BYTES).
    Length,
}

/// Why a frame was dropped. All are counted as `rejected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The link is down or has no transport.
    Down,
    /// Of another cluster, or not between these two nodes.
    Address,
    /// Of, or for, an earlier incarnation or stream.
    Stale,
    /// Of, or for, an incarnation or stream later than any that is known. The control plane has
    /// to tell of it before it is trusted.
    Unknown,
    /// Not in the version agreed upon, or no version could be agreed upon.
    Version,
    /// Its payload is malformed.
    Frame(FrameError),
    /// It acknowledges what was never sent.
    Acknowledgement,
    /// It is farther ahead than the window allows.
    Window,
    /// Its chunks do not continue the stream of records, or a record would become too long.
    Order,
    /// It came early and there was no buffer to keep it.
    NoMemory,
}

impl Reject {
    /// A word for it.
    pub const fn name(self) -> &'static CStr {
        match self {
            Self::Down => c"down",
            Self::Address => c"address",
            Self::Stale => c"stale",
            Self::Unknown => c"unknown",
            Self::Version => c"version",
            Self::Frame(_) => c"payload",
            Self::Acknowledgement => c"acknowledgement",
            Self::Window => c"window",
            Self::Order => c"order",
            Self::NoMemory => c"no-memory",
        }
    }
}

/// The storage given to [`Link::new`](super::Link::new) had not enough slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// A transport carries less than [`MIN_PAYLOAD_BYTES`](super::super::abi::wire::frame::MIN_PAYLOAD_BYTES) in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTooSmall;
