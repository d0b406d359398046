// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Records: the steps of an exchange between endpoints on different nodes.
//!
//! A link delivers records in order and exactly once; what they mean is up to the rendezvous
//! (`dvk-core`). `call` numbers the blocking calls of one endpoint, so that an answer that comes
//! late is told from the answer to the next call.

use super::super::endpoint::Endpoint;
use super::super::errno::Errno;
use super::super::ioctl::{Privileges, MAY_ALL};
use super::super::message::{Message, MESSAGE_BYTES};

/// The step that a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `from` is blocked in `send` with this message.
    Send {
        /// Number of the call.
        call: u32,
        /// What is sent.
        message: Message,
    },
    /// `from` is blocked in `sendrec` with this message.
    Request {
        /// Number of the call.
        call: u32,
        /// What is sent.
        message: Message,
    },
    /// The message of `to`'s `send` number `call` was received.
    Accepted {
        /// Number of the call.
        call: u32,
    },
    /// The answer to `to`'s `sendrec` number `call`.
    Reply {
        /// Number of the call.
        call: u32,
        /// The answer.
        message: Message,
    },
    /// `to`'s call number `call` ends with an error.
    Failed {
        /// Number of the call.
        call: u32,
        /// Why.
        error: Errno,
    },
    /// `from` no longer waits in its call number `call`.
    Cancel {
        /// Number of the call.
        call: u32,
    },
    /// The [`Cancel`](Self::Cancel) of `to`'s call came in time.
    Cancelled {
        /// Number of the call.
        call: u32,
    },
    /// `from` waits in its call number `call` for something only `to` can do; say so if `to` dies.
    Watch {
        /// Number of the call.
        call: u32,
    },
    /// Set notification bits at `to`.
    Notify {
        /// The bits, not 0.
        bits: u64,
    },
    /// A [`Notify`](Self::Notify) or [`Cancel`](Self::Cancel) of `to` that reached `from` where it
    /// does not live any more, to be kept until it has settled.
    Returned {
        /// The call that was cancelled; 0 for a notification.
        call: u32,
        /// The notification's bits; 0 for a cancelled call.
        bits: u64,
        /// The move of `from` that this is about.
        epoch: u32,
    },
    /// Asks for [`Fenced`](Self::Fenced) once everything that was sent before it was delivered.
    /// From one node to the other: both endpoints are that whose move asks for it.
    Fence {
        /// Number of the fence.
        call: u32,
    },
    /// Everything that was sent before [`Fence`](Self::Fence) was delivered, and what it called for
    /// was sent before this.
    Fenced {
        /// Number of the fence.
        call: u32,
    },
    /// `from` waits in its call number `call` until somebody is bound to the slot of `to`, whose
    /// generation means nothing. For the node that leases the slot.
    AwaitBind {
        /// Number of the call.
        call: u32,
    },
    /// The answer to [`AwaitBind`](Self::AwaitBind), from the endpoint that is bound.
    Bound {
        /// Number of the call.
        call: u32,
    },
    /// `from`, which may do so, says what `to` may do; answered with [`Accepted`](Self::Accepted).
    Privilege {
        /// Number of the call.
        call: u32,
        /// What `to` may do; its endpoint is `to`.
        privileges: Privileges,
    },
}

impl Step {
    /// The number of the call that the step begins, ends or speaks of; 0 for a notification, which
    /// is no call.
    pub const fn call(&self) -> u32 {
        match *self {
            Self::Send { call, .. }
            | Self::Request { call, .. }
            | Self::Accepted { call }
            | Self::Reply { call, .. }
            | Self::Failed { call, .. }
            | Self::Cancel { call }
            | Self::Cancelled { call }
            | Self::Watch { call }
            | Self::AwaitBind { call }
            | Self::Bound { call }
            | Self::Privilege { call, .. }
            | Self::Returned { call, .. }
            | Self::Fence { call }
            | Self::Fenced { call } => call,
            Self::Notify { .. } => 0,
        }
    }

    /// Whether the step begins something, rather than answering or withdrawing it.
    pub const fn begins(&self) -> bool {
        matches!(
            self,
            Self::Send { .. }
                | Self::Request { .. }
                | Self::Watch { .. }
                | Self::Notify { .. }
                | Self::AwaitBind { .. }
                | Self::Privilege { .. }
        )
    }
}

/// One record: a step of the exchange between two endpoints of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The container.
    pub container: u16,
    /// Who does the step.
    pub from: Endpoint,
    /// Whom it is for.
    pub to: Endpoint,
    /// What is done.
    pub step: Step,
}

/// Bytes before a record's step-specific part: kind, zero, container, call, from, to.
const HEAD_BYTES: usize = 24;
/// The longest record.
pub const RECORD_BYTES: usize = HEAD_BYTES + MESSAGE_BYTES;

/// Bytes of a privilege record's step-specific part.
const PRIVILEGE_BYTES: usize = 20;
/// Bytes of a returned record's step-specific part.
const RETURNED_BYTES: usize = 12;

mod kind {
    pub(super) const SEND: u8 = 1;
    pub(super) const REQUEST: u8 = 2;
    pub(super) const ACCEPTED: u8 = 3;
    pub(super) const REPLY: u8 = 4;
    pub(super) const FAILED: u8 = 5;
    pub(super) const CANCEL: u8 = 6;
    pub(super) const CANCELLED: u8 = 7;
    pub(super) const WATCH: u8 = 8;
    pub(super) const NOTIFY: u8 = 9;
    pub(super) const RETURNED: u8 = 10;
    pub(super) const AWAIT_BIND: u8 = 11;
    pub(super) const BOUND: u8 = 12;
    pub(super) const PRIVILEGE: u8 = 13;
    pub(super) const FENCE: u8 = 14;
    pub(super) const FENCED: u8 = 15;
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// Shorter or longer than a record of its kind is.
    Length,
    /// Of no known kind.
    Kind,
    /// A reserved byte is not 0, or a field has a value that no sender writes.
    Field,
}

impl Record {
    /// Writes the record and returns its length in bytes.
    pub fn encode(&self, out: &mut [u8; RECORD_BYTES]) -> usize {
        let kind = match self.step {
            Step::Send { .. } => kind::SEND,
            Step::Request { .. } => kind::REQUEST,
            Step::Accepted { .. } => kind::ACCEPTED,
            Step::Reply { .. } => kind::REPLY,
            Step::Failed { .. } => kind::FAILED,
            Step::Cancel { .. } => kind::CANCEL,
            Step::Cancelled { .. } => kind::CANCELLED,
            Step::Watch { .. } => kind::WATCH,
            Step::Notify { .. } => kind::NOTIFY,
            Step::AwaitBind { .. } => kind::AWAIT_BIND,
            Step::Bound { .. } => kind::BOUND,
            Step::Privilege { .. } => kind::PRIVILEGE,
            Step::Returned { .. } => kind::RETURNED,
            Step::Fence { .. } => kind::FENCE,
            Step::Fenced { .. } => kind::FENCED,
        };
        out[0] = kind;
        out[1] = 0;
        out[2..4].copy_from_slice(&self.container.to_le_bytes());
        out[4..8].copy_from_slice(&self.step.call().to_le_bytes());
        out[8..16].copy_from_slice(&self.from.raw().to_le_bytes());
        out[16..24].copy_from_slice(&self.to.raw().to_le_bytes());
        match &self.step {
            Step::Send { message, .. }
            | Step::Request { message, .. }
            | Step::Reply { message, .. } => {
                out[HEAD_BYTES..].copy_from_slice(&message.to_le_bytes());
                RECORD_BYTES
            }
            Step::Failed { error, .. } => {
                out[HEAD_BYTES] = error.raw();
                HEAD_BYTES + 1
            }
            Step::Notify { bits } => {
                out[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&bits.to_le_bytes());
                HEAD_BYTES + 8
            }
            Step::Returned { bits, epoch, .. } => {
                let rest = &mut out[HEAD_BYTES..];
                rest[..8].copy_from_slice(&bits.to_le_bytes());
                rest[8..12].copy_from_slice(&epoch.to_le_bytes());
                HEAD_BYTES + RETURNED_BYTES
            }
            Step::Privilege { privileges, .. } => {
                let rest = &mut out[HEAD_BYTES..];
                rest[..8].copy_from_slice(&privileges.servers.to_le_bytes());
                rest[8..16].copy_from_slice(&privileges.notify.to_le_bytes());
                rest[16..20].copy_from_slice(&privileges.calls.to_le_bytes());
                HEAD_BYTES + PRIVILEGE_BYTES
            }
            _ => HEAD_BYTES,
        }
    }

    /// Reads a record that fills `bytes` exactly.
    ///
    /// # Errors
    /// Says what is wrong with bytes that [`encode`](Self::encode) never writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(RecordError::Length)?;
        let u32_at =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let endpoint_at =
            |at: usize| Endpoint::from_raw(u64::from(u32_at(at + 4)) << 32 | u64::from(u32_at(at)));
        let call = u32_at(4);
        let message = || -> Result<Message, RecordError> {
            Ok(Message::from_le_bytes(rest.try_into().map_err(|_| RecordError::Length)?))
        };
        let bare = |step: Step| if rest.is_empty() { Ok(step) } else { Err(RecordError::Length) };
        let step = match head[0] {
            kind::SEND => Step::Send { call, message: message()? },
            kind::REQUEST => Step::Request { call, message: message()? },
            kind::REPLY => Step::Reply { call, message: message()? },
            kind::ACCEPTED => bare(Step::Accepted { call })?,
            kind::CANCEL => bare(Step::Cancel { call })?,
            kind::CANCELLED => bare(Step::Cancelled { call })?,
            kind::WATCH => bare(Step::Watch { call })?,
            kind::FAILED => match rest {
                [error] => {
                    Step::Failed { call, error: Errno::from_raw(*error).ok_or(RecordError::Field)? }
                }
                _ => return Err(RecordError::Length),
            },
            kind::NOTIFY => {
                let bits = u64::from_le_bytes(rest.try_into().map_err(|_| RecordError::Length)?);
                if bits == 0 || call != 0 {
                    return Err(RecordError::Field);
                }
                Step::Notify { bits }
            }
            kind::RETURNED => {
                let rest: &[u8; RETURNED_BYTES] =
                    rest.try_into().map_err(|_| RecordError::Length)?;
                let [a, b, c, d, e, f, g, h, epoch @ ..] = *rest;
                let bits = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
                // Either a notification came back or a call.
                if (bits == 0) == (call == 0) {
                    return Err(RecordError::Field);
                }
                Step::Returned { call, bits, epoch: u32::from_le_bytes(epoch) }
            }
            kind::FENCE => bare(Step::Fence { call })?,
            kind::FENCED => bare(Step::Fenced { call })?,
            kind::AWAIT_BIND => bare(Step::AwaitBind { call })?,
            kind::BOUND => bare(Step::Bound { call })?,
            kind::PRIVILEGE => {
                let rest: &[u8; PRIVILEGE_BYTES] =
                    rest.try_into().map_err(|_| RecordError::Length)?;
                let u32_at = |at: usize| {
                    u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]])
                };
                let u64_at = |at: usize| u64::from(u32_at(at + 4)) << 32 | u64::from(u32_at(at));
                let privileges = Privileges {
                    endpoint: endpoint_at(16).raw(),
                    servers: u64_at(0),
                    notify: u64_at(8),
                    calls: u32_at(16),
                    flags: 0,
                };
                if privileges.calls & !MAY_ALL != 0 {
                    return Err(RecordError::Field);
                }
                Step::Privilege { call, privileges }
            }
            _ => return Err(RecordError::Kind),
        };
        let (from, to) = (endpoint_at(8), endpoint_at(16));
        if head[1] != 0 || !from.is_name() || !to.is_name() {
            return Err(RecordError::Field);
        }
        Ok(Self { container: u16::from_le_bytes([head[2], head[3]]), from, to, step })
    }
}
