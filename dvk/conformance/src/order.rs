// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be asked of an endpoint or of the process it is in, what can come of it, and both as
//! lines of text, so that it makes no difference where that process runs.

use dvk::{CopyError, Endpoint, How, Message, Received, Timeout};
use dvk_abi::ioctl::{self, Info, Privileges};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Make a container on this node, in which two nodes lease slots.
    Container {
        container: u32,
        nodes: [u32; 2],
    },
    /// Leave nothing of a case on this node: no process that was started here, and no such container.
    Clear {
        container: u32,
    },
    /// Tell the kernel that a server is on another node.
    Locate {
        container: u32,
        endpoint: u64,
        node: u32,
    },

    /// Start a process of its own, which takes orders, too.
    Process,
    /// Kill it, and return when it is gone.
    Kill,
    /// Let it leave by itself, and return when it is gone.
    Dismiss,
    /// Send it a signal that it catches.
    Interrupt,
    /// Catch that signal from here on, with `SA_RESTART`.
    CatchSignals,
    /// Become a new program, which takes orders and begins without an endpoint.
    Exec,

    /// Map pages.
    Map {
        memory: u32,
        pages: usize,
        writable: bool,
    },
    /// Fill bytes with the noise of a seed, from its byte `skip` on.
    Fill {
        memory: u32,
        offset: usize,
        len: usize,
        seed: u64,
        skip: usize,
    },
    /// Say the digest of bytes.
    Digest {
        memory: u32,
        offset: usize,
        len: usize,
    },

    /// Bind an endpoint: this server slot, or any.
    Bind {
        container: u32,
        server: Option<u32>,
    },
    /// Close it.
    Close,
    Send {
        to: u64,
        message: Text,
        timeout_ns: i64,
    },
    Sendrec {
        to: u64,
        message: Text,
        timeout_ns: i64,
    },
    Receive {
        from: u64,
        timeout_ns: i64,
    },
    ReceiveRequest {
        from: u64,
        timeout_ns: i64,
    },
    Reply {
        to: u64,
        message: Text,
    },
    ReplyReceive {
        to: u64,
        message: Text,
        from: u64,
        timeout_ns: i64,
    },
    Notify {
        to: u64,
        bits: u64,
    },
    WaitBind {
        slot: u32,
        timeout_ns: i64,
    },
    WaitUnbind {
        endpoint: u64,
        timeout_ns: i64,
    },
    Info,
    Privileges,
    SetPrivileges(#[serde(with = "PrivilegesText")] Privileges),
    Grant {
        memory: u32,
        offset: usize,
        len: usize,
        to: u64,
        access: u32,
    },
    Revoke {
        grant: u64,
    },
    CopyFrom(Place),
    CopyTo(Place),
    CopyBetween {
        from: Lent,
        to: Lent,
        len: u64,
        timeout_ns: i64,
    },
    /// Copy over and over until it fails.
    CopyOverAndOver {
        place: Place,
        to: bool,
    },
    /// Poll for input, for so many seconds.
    Poll {
        seconds: i64,
    },
    /// Send messages of kinds from 0 on; every third one is a request.
    Burst {
        to: u64,
        count: u32,
    },
    /// Make requests of a message, over and over until one fails.
    Storm {
        to: u64,
    },
    /// Make so many requests with numbers, as this client; each is to come back as it was sent.
    Count {
        to: u64,
        client: u32,
        requests: u32,
    },
    /// Serve clients that do, each with so many requests.
    Serve {
        requests: u32,
    },
    /// Answer requests with what they say, over and over.
    Echo,
}

/// Bytes of a memory, and where they come from or go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) lent: Lent,
    pub(crate) memory: u32,
    pub(crate) offset: usize,
    pub(crate) len: usize,
    pub(crate) timeout_ns: i64,
}

/// A place in a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lent {
    pub(crate) endpoint: u64,
    pub(crate) grant: u64,
    pub(crate) offset: u64,
}

impl From<Lent> for ioctl::Granted {
    fn from(lent: Lent) -> Self {
        Self { endpoint: lent.endpoint, grant: lent.grant, offset: lent.offset }
    }
}

impl From<Lent> for dvk::Granted {
    fn from(lent: Lent) -> Self {
        dvk::GrantId::from_raw(lent.grant).of(Endpoint::from_raw(lent.endpoint), lent.offset)
    }
}

/// What came of an order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Nothing yet: the thread that does it sleeps in its call.
    Waits,
    /// It succeeded, and there is nothing to tell.
    Done,
    /// A number: an endpoint, a grant, a digest or the events of a poll.
    Number(u64),
    Message(Text),
    Received(Text, u32),
    Info(#[serde(with = "InfoText")] Info),
    Privileges(#[serde(with = "PrivilegesText")] Privileges),
    /// The call failed for this reason, and copied so many bytes before.
    Failed {
        errno: i32,
        copied: u64,
    },
    /// It could not even be tried.
    Broken(String),
}

impl Answer {
    pub(crate) fn failed(error: &dvk::Error) -> Self {
        Self::Failed { errno: error.raw_os_error(), copied: 0 }
    }
}

impl From<Result<(), dvk::Error>> for Answer {
    fn from(result: Result<(), dvk::Error>) -> Self {
        result.map_or_else(|error| Self::failed(&error), |()| Self::Done)
    }
}

impl From<Result<Message, dvk::Error>> for Answer {
    fn from(result: Result<Message, dvk::Error>) -> Self {
        result.map_or_else(|error| Self::failed(&error), |message| Self::Message(Text(message)))
    }
}

impl From<Result<Received, dvk::Error>> for Answer {
    fn from(result: Result<Received, dvk::Error>) -> Self {
        match result {
            Ok(received) => Self::Received(Text(received.message), raw(received.how)),
            Err(error) => Self::failed(&error),
        }
    }
}

impl From<Result<u64, dvk::Error>> for Answer {
    fn from(result: Result<u64, dvk::Error>) -> Self {
        result.map_or_else(|error| Self::failed(&error), Self::Number)
    }
}

impl From<Result<(), CopyError>> for Answer {
    fn from(result: Result<(), CopyError>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(failed) => {
                Self::Failed { errno: failed.error.raw_os_error(), copied: failed.copied }
            }
        }
    }
}

fn raw(how: How) -> u32 {
    match how {
        How::Send => ioctl::HOW_SEND,
        How::Request => ioctl::HOW_REQUEST,
        How::Notify => ioctl::HOW_NOTIFY,
        How::Reply => ioctl::HOW_REPLY,
        How::Other(raw) => raw,
    }
}

/// How a message was received, as [`Answer::Received`] has it.
pub(crate) fn how(raw: u32) -> How {
    match raw {
        ioctl::HOW_SEND => How::Send,
        ioctl::HOW_REQUEST => How::Request,
        ioctl::HOW_NOTIFY => How::Notify,
        ioctl::HOW_REPLY => How::Reply,
        other => How::Other(other),
    }
}

/// The timeout of so many nanoseconds.
pub(crate) fn timeout(ns: i64) -> Timeout {
    match u64::try_from(ns) {
        Ok(0) => Timeout::NoWait,
        Ok(ns) => Timeout::After(core::time::Duration::from_nanos(ns)),
        Err(_) => Timeout::Forever,
    }
}

/// A message as text: its bytes on the wire, in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) Message);

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let hex: String = self.0.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        to.serialize_str(&hex)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let hex = String::deserialize(from)?;
        let byte = |at: usize| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..hex.len() / 2).map(byte).collect();
        let bytes = bytes.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| serde::de::Error::custom("a message of 64 bytes"))?;
        Ok(Self(Message::from_le_bytes(&bytes)))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Info")]
struct InfoText {
    endpoint: u64,
    container: u32,
    node: u32,
    received: u64,
    sent: u64,
    senders: u32,
    clients: u32,
    state: u32,
    role: u32,
    waits_for: u64,
    notices: u32,
    grants: u32,
    epoch: u32,
    reserved: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Privileges")]
struct PrivilegesText {
    endpoint: u64,
    servers: u64,
    notify: u64,
    calls: u32,
    flags: u32,
}

/// An order on its way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Addressed {
    /// Names it in the answers.
    pub(crate) id: u32,
    /// Which process: 0 for the one that reads this, others for those it has started.
    pub(crate) process: u32,
    /// Which endpoint of it; it is chosen by who has it bound.
    pub(crate) endpoint: u32,
    /// Whether it goes on while others are done; [`Answer::Waits`] may come first then.
    pub(crate) aside: bool,
    /// What to do.
    pub(crate) order: Order,
}

/// An answer on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answered {
    /// Of which order.
    pub(crate) id: u32,
    /// What came of it.
    pub(crate) answer: Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survives<T: Serialize + for<'de> Deserialize<'de> + core::fmt::Debug>(value: T) {
        let line = serde_json::to_string(&value).unwrap();
        assert!(!line.contains('\n'), "{line}");
        let read = serde_json::from_str::<T>(&line).unwrap();
        assert_eq!(format!("{read:?}"), format!("{value:?}"));
    }

    #[test]
    fn orders_are_read_as_written() {
        let message = Text(Message { payload: [0xa5; 48], flags: 1 << 31, ..Message::new(7) });
        let privileges =
            Privileges { endpoint: 1, servers: u64::MAX, notify: 2, calls: 3, flags: 4 };
        let lent = Lent { endpoint: u64::MAX, grant: 1 << 63, offset: u64::MAX };
        for order in [
            Order::Echo,
            Order::Send { to: u64::MAX, message, timeout_ns: i64::MIN },
            Order::SetPrivileges(privileges),
            Order::CopyTo(Place { lent, memory: 1, offset: 2, len: 3, timeout_ns: -1 }),
            Order::Bind { container: 1, server: None },
        ] {
            survives(Addressed { id: 1, process: 2, endpoint: 3, aside: true, order });
        }
    }

    #[test]
    fn answers_are_read_as_written() {
        let message = Text(Message { source: u64::MAX, ..Message::new(u32::MAX) });
        let info = Info { endpoint: u64::MAX, received: 1 << 60, ..Info::default() };
        for answer in [
            Answer::Waits,
            Answer::Number(u64::MAX),
            Answer::Received(message, ioctl::HOW_NOTIFY),
            Answer::Info(info),
            Answer::Failed { errno: 11, copied: u64::MAX },
            Answer::Broken("two\nlines".to_owned()),
        ] {
            survives(Answered { id: 9, answer });
        }
        assert!(serde_json::from_str::<Text>("\"00\"").is_err());
    }

    #[test]
    fn timeouts_and_ways_are_those_of_the_abi() {
        for ns in [-1, 0, 1, 5_000_000_000] {
            assert_eq!(timeout(ns).as_ns(), ns);
        }
        for way in 0..6 {
            assert_eq!(raw(how(way)), way);
        }
    }
}
