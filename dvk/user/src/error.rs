// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why a call failed, for programs ([`Error::errno`]) and for people (`Display`).

use crate::device::Slot;
use crate::grant::Granted;
use core::fmt;
use dvk_abi::errno::Errno;
use dvk_abi::Endpoint;
use std::path::PathBuf;

macro_rules! calls {
    ($($variant:ident = $name:literal,)*) => {
        /// The calls of the library that reach the kernel.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[expect(missing_docs, reason = "named as in the reference, docs/dvk-reference.md")]
        pub enum Call {
            $($variant,)*
        }

        impl Call {
            /// The name it has in the reference.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

calls! {
    Open = "open",
    Bind = "bind",
    Unbind = "unbind",
    Send = "send",
    Receive = "receive",
    Sendrec = "sendrec",
    Reply = "reply",
    ReplyReceive = "reply_receive",
    ReceiveRequest = "receive_request",
    Notify = "notify",
    WaitBind = "wait_bind",
    WaitUnbind = "wait_unbind",
    GetInfo = "get_info",
    SetPrivileges = "set_privileges",
    GetPrivileges = "get_privileges",
    Grant = "grant",
    CopyFrom = "copy_from",
    CopyTo = "copy_to",
    CopyBetween = "copy_between",
    DvsInit = "dvs_init",
    DvsEnd = "dvs_end",
    NodeUp = "node_up",
    NodeDown = "node_down",
    DcCreate = "dc_create",
    DcDestroy = "dc_destroy",
    DcAddNode = "dc_add_node",
    DcRemoveNode = "dc_remove_node",
    LinkAttach = "link_attach",
    LinkDetach = "link_detach",
    LinkInfo = "link_info",
    EndpointSetRemote = "endpoint_set_remote",
    MigrateStart = "migrate_start",
    MigrateCommit = "migrate_commit",
    MigrateRollback = "migrate_rollback",
    PromoteBackup = "promote_backup",
    EndpointInfo = "endpoint_info",
    Events = "events",
    ProxyGet = "proxy_get",
    ProxyPut = "proxy_put",
}

/// What a failed call was about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// Nothing in particular.
    None,
    /// A device node.
    Path(PathBuf),
    /// The slot to bind.
    Slot(Slot),
    /// The endpoint that the message or the change was for.
    To(Endpoint),
    /// The endpoint, or any, that a message was to come from.
    From(Endpoint),
    /// The endpoint that it was about.
    Of(Endpoint),
    /// A slot, whoever may be bound there.
    Number(u32),
    /// A grant of an endpoint.
    Granted(Granted),
    /// A node.
    Node(u32),
}

/// A call that failed: which, on what, and why.
///
/// Displayed, it reads like `sendrec to 65.1 in container 0: the peer died (EOWNERDEAD)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub(crate) call: Call,
    pub(crate) subject: Subject,
    pub(crate) container: Option<u32>,
    pub(crate) errno: rustix::io::Errno,
}

impl Error {
    /// The call that failed.
    pub fn call(&self) -> Call {
        self.call
    }

    /// What the call was about.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The container the call was made in or about.
    pub fn container(&self) -> Option<u32> {
        self.container
    }

    /// Why it failed, if it is one of the DVK's reasons. Opening a device has reasons of its own.
    pub fn errno(&self) -> Option<Errno> {
        u8::try_from(self.errno.raw_os_error()).ok().and_then(Errno::from_raw)
    }

    /// Why it failed, as in `errno.h`.
    pub fn raw_os_error(&self) -> i32 {
        self.errno.raw_os_error()
    }

    /// Whether it failed for this reason.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno() == Some(errno)
    }

    /// What went wrong, and where it is not obvious what to do about it.
    fn reason(&self, errno: Errno) -> &'static str {
        match (errno, self.call) {
            (Errno::NotPermitted, _) => {
                "not permitted; control calls need CAP_SYS_ADMIN in the initial user namespace"
            }
            (Errno::NoEndpoint, _) => "no such endpoint",
            (Errno::Interrupted, _) => "interrupted by a signal, nothing was transferred",
            (Errno::WouldBlock, Call::Reply | Call::ReplyReceive) => {
                "the peer is not waiting for a reply from this endpoint"
            }
            (Errno::WouldBlock, _) => "it would have to wait",
            (Errno::NoMemory, _) => "out of memory",
            (Errno::Denied, _) => "denied by a privilege or a grant",
            (Errno::Fault, _) => "an address is not readable or writable",
            (Errno::Busy, Call::Bind) => "the slot is taken, or the file is bound already",
            (Errno::Busy, Call::DcAddNode) => "another node holds a lease of some of these slots",
            (Errno::Busy, Call::EndpointSetRemote) => {
                "the slot is bound on another node or on this"
            }
            (Errno::Busy, _) => "another thread is blocked in the endpoint",
            (Errno::Exists, Call::DvsInit) => "this node is in a DVS already; dvs_end leaves it",
            (Errno::Exists, _) => "it exists already",
            (Errno::NoDevice, Call::Open) => "no such device",
            (Errno::NoDevice, _) => "unknown node or container, or this node is in no DVS",
            (Errno::Invalid, _) => "an argument has a value the call does not know",
            (Errno::NotACall, _) => "not a call of this device",
            (Errno::Limit, Call::Bind) => {
                "no free slot: this node has no lease in the container, or all of it is in use"
            }
            (Errno::Limit, _) => "a limit of the container or of the link is reached",
            (Errno::Deadlock, _) => {
                "waiting for it would never end: the peer waits for this endpoint"
            }
            (Errno::TooLong, _) => "the data is longer than the receiving side can take",
            (Errno::NotConnected, _) => {
                "the file is not bound, or there is no link to the peer's node"
            }
            (Errno::TimedOut, _) => "timed out",
            (Errno::NodeDown, _) => "the peer's node is down",
            (Errno::Stale, _) => "the endpoint is dead, its slot was unbound or bound anew",
            (Errno::OwnerDead, _) => "the peer died",
            (Errno::Moved, _) => "the endpoint is moving to another node",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.call.name())?;
        match &self.subject {
            Subject::None => {}
            Subject::Path(path) => write!(f, " {}", path.display())?,
            Subject::Slot(slot) => write!(f, " {slot}")?,
            Subject::To(peer) => write!(f, " to {peer}")?,
            Subject::From(peer) => write!(f, " from {peer}")?,
            Subject::Of(endpoint) => write!(f, " of {endpoint}")?,
            Subject::Number(slot) => write!(f, " of slot {slot}")?,
            Subject::Granted(granted) => write!(f, " with {granted}")?,
            Subject::Node(node) => write!(f, " of node {node}")?,
        }
        if let Some(container) = self.container {
            write!(f, " in container {container}")?;
        }
        match self.errno() {
            Some(errno) => write!(f, ": {} ({errno})", self.reason(errno)),
            None if self.call == Call::Open && self.errno == rustix::io::Errno::NOENT => f
                .write_str(
                    ": no such device; the kernel has no DVK, or the container is not on this node",
                ),
            None => write!(f, ": {}", self.errno),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = Self::from_raw_os_error(error.raw_os_error()).kind();
        Self::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::num::NonZeroU32;

    fn error(call: Call, subject: Subject, container: Option<u32>, errno: Errno) -> Error {
        let errno = rustix::io::Errno::from_raw_os_error(i32::from(errno.raw()));
        Error { call, subject, container, errno }
    }

    #[test]
    fn says_call_subject_reason_and_name() {
        let peer = Endpoint::new(65, NonZeroU32::MIN);
        let shown = |call, subject, errno| error(call, subject, Some(0), errno).to_string();
        assert_eq!(
            shown(Call::Sendrec, Subject::To(peer), Errno::OwnerDead),
            "sendrec to 65.1 in container 0: the peer died (EOWNERDEAD)"
        );
        assert_eq!(
            shown(Call::Receive, Subject::From(Endpoint::ANY), Errno::WouldBlock),
            "receive from any in container 0: it would have to wait (EAGAIN)"
        );
        assert_eq!(
            shown(Call::Reply, Subject::To(peer), Errno::WouldBlock),
            "reply to 65.1 in container 0: the peer is not waiting for a reply from this endpoint (EAGAIN)"
        );
        assert_eq!(
            shown(Call::Bind, Subject::Slot(Slot::Server(3)), Errno::Busy),
            "bind server slot 3 in container 0: the slot is taken, or the file is bound already (EBUSY)"
        );
    }

    #[test]
    fn every_reason_is_a_lowercase_phrase() {
        for errno in Errno::ALL {
            let shown = error(Call::Send, Subject::None, None, *errno).to_string();
            let reason = shown.strip_prefix("send: ").unwrap();
            let (reason, name) = reason.rsplit_once(" (").unwrap();
            assert!(!reason.is_empty() && !reason.ends_with('.'), "{shown}");
            assert!(!reason.chars().next().unwrap().is_uppercase(), "{shown}");
            assert_eq!(name.strip_suffix(')').unwrap(), errno.name());
        }
    }

    #[test]
    fn a_missing_device_says_what_may_be_missing() {
        let error = Error {
            call: Call::Open,
            subject: Subject::Path("/dev/dvk-dc3".into()),
            container: None,
            errno: rustix::io::Errno::NOENT,
        };
        let shown = error.to_string();
        assert!(shown.starts_with("open /dev/dvk-dc3: no such device; "), "{shown}");
        assert_eq!(error.errno(), None);
        let io = std::io::Error::from(error);
        assert_eq!(io.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(io.to_string(), shown);
    }
}
