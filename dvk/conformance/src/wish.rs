// SPDX-License-Identifier: MIT OR Apache-2.0
//! Calls that can be made by an endpoint wherever it is, and what they return.

use crate::order::{self, Answer, Lent, Order, Place};
use anyhow::anyhow;
use core::fmt;
use core::marker::PhantomData;
use dvk::{Endpoint, Errno, GrantId, Message, Received, Timeout};
use dvk_abi::ioctl::{Info, Privileges};
use rustix::event::PollFlags;

/// A call that returns a `T`.
pub(crate) struct Wish<T> {
    pub(crate) order: Order,
    gives: PhantomData<fn() -> T>,
}

impl<T> From<Order> for Wish<T> {
    fn from(order: Order) -> Self {
        Self { order, gives: PhantomData }
    }
}

pub(crate) fn send(to: Endpoint, message: &Message, timeout: Timeout) -> Wish<()> {
    let (to, timeout_ns) = (to.raw(), timeout.as_ns());
    Order::Send { to, message: message.into(), timeout_ns }.into()
}

pub(crate) fn sendrec(to: Endpoint, message: &Message, timeout: Timeout) -> Wish<Message> {
    let (to, timeout_ns) = (to.raw(), timeout.as_ns());
    Order::Sendrec { to, message: message.into(), timeout_ns }.into()
}

pub(crate) fn receive(from: Endpoint, timeout: Timeout) -> Wish<Received> {
    Order::Receive { from: from.raw(), timeout_ns: timeout.as_ns() }.into()
}

pub(crate) fn receive_request(from: Endpoint, timeout: Timeout) -> Wish<Received> {
    Order::ReceiveRequest { from: from.raw(), timeout_ns: timeout.as_ns() }.into()
}

pub(crate) fn reply_receive(
    to: Endpoint,
    message: &Message,
    from: Endpoint,
    timeout: Timeout,
) -> Wish<Received> {
    let (to, from, timeout_ns) = (to.raw(), from.raw(), timeout.as_ns());
    Order::ReplyReceive { to, message: message.into(), from, timeout_ns }.into()
}

pub(crate) fn wait_bind(slot: u32, timeout: Timeout) -> Wish<Endpoint> {
    Order::WaitBind { slot, timeout_ns: timeout.as_ns() }.into()
}

pub(crate) fn wait_unbind(endpoint: Endpoint, timeout: Timeout) -> Wish<()> {
    Order::WaitUnbind { endpoint: endpoint.raw(), timeout_ns: timeout.as_ns() }.into()
}

/// Polls for input, for so many seconds.
pub(crate) fn poll(seconds: i64) -> Wish<PollFlags> {
    Order::Poll { seconds }.into()
}

/// Sends messages of kinds from 0 on; every third one is a request.
pub(crate) fn burst(to: Endpoint, count: u32) -> Wish<()> {
    Order::Burst { to: to.raw(), count }.into()
}

/// Makes requests until one fails.
pub(crate) fn storm(to: Endpoint) -> Wish<()> {
    Order::Storm { to: to.raw() }.into()
}

/// What an answer means to who made the call.
pub(crate) trait Outcome: Sized {
    /// Takes the answer of a call that succeeded.
    fn of(answer: Answer) -> Option<Self>;
}

macro_rules! outcomes {
    ($($type:ty: $pattern:pat => $value:expr,)*) => {$(
        impl Outcome for $type {
            fn of(answer: Answer) -> Option<Self> {
                match answer {
                    $pattern => Some($value),
                    _ => None,
                }
            }
        }
    )*};
}

outcomes! {
    (): Answer::Done => (),
    u64: Answer::Number(number) => number,
    Endpoint: Answer::Number(raw) => Self::from_raw(raw),
    GrantId: Answer::Number(raw) => Self::from_raw(raw),
    PollFlags: Answer::Number(bits) => Self::from_bits_retain(bits as u16),
    Message: Answer::Message(text) => text.0,
    Received: Answer::Received(text, how) => Self { message: text.0, how: order::how(how) },
    Info: Answer::Info(info) => info,
    Privileges: Answer::Privileges(privileges) => privileges,
}

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) struct Failed {
    what: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    /// The kernel refused, after this many bytes.
    Refused(i32, u64),
    /// The test went wrong.
    Broken(anyhow::Error),
}

impl Failed {
    /// The test itself went wrong.
    pub(crate) fn broken(what: &Order, error: anyhow::Error) -> Self {
        Self { what: name(what), why: Why::Broken(error) }
    }

    /// Why the kernel refused.
    pub(crate) fn errno(&self) -> Option<Errno> {
        match self.why {
            Why::Refused(raw, _) => u8::try_from(raw).ok().and_then(Errno::from_raw),
            Why::Broken(_) => None,
        }
    }

    /// How many bytes were copied before.
    pub(crate) fn copied(&self) -> u64 {
        match self.why {
            Why::Refused(_, copied) => copied,
            Why::Broken(_) => 0,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Broken(error) => write!(f, "{}: {error:#}", self.what),
            Why::Refused(raw, copied) => {
                match self.errno() {
                    Some(errno) => write!(f, "{}: {errno}", self.what)?,
                    None => write!(f, "{}: error {raw}", self.what)?,
                }
                if *copied > 0 {
                    write!(f, " (after {copied} bytes)")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Failed {}

/// The name of an order, for people.
fn name(order: &Order) -> String {
    let text = format!("{order:?}");
    text.split([' ', '(']).next().unwrap_or_default().to_owned()
}

/// What came of an order.
pub(crate) fn read<T: Outcome>(order: &Order, answer: anyhow::Result<Answer>) -> Result<T, Failed> {
    let broken = |error| Failed::broken(order, error);
    match answer.map_err(broken)? {
        Answer::Failed { errno, copied } => {
            Err(Failed { what: name(order), why: Why::Refused(errno, copied) })
        }
        Answer::Broken(why) => Err(broken(anyhow!(why))),
        other => {
            let text = format!("{other:?}");
            T::of(other).ok_or_else(|| broken(anyhow!("an answer of another kind: {text}")))
        }
    }
}

/// Copies out of what was lent, or into it.
pub(crate) fn copy(to: bool, place: Place) -> Wish<()> {
    if to { Order::CopyTo(place) } else { Order::CopyFrom(place) }.into()
}

pub(crate) fn copy_between(from: Lent, to: Lent, len: u64, timeout: Timeout) -> Wish<()> {
    Order::CopyBetween { from, to, len, timeout_ns: timeout.as_ns() }.into()
}
