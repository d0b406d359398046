// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The errors of the DVK, each with one meaning. Values are those of Linux.

use core::fmt;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $value:literal;)*) => {
        /// Why a call failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Errno {
            $($(#[$doc])* $variant = $value,)*
        }

        impl Errno {
            /// Every error, in the order of its value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name it has in `errno.h`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The error of this (positive) value, if the DVK knows it.
            pub const fn from_raw(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

errors! {
    /// The caller may not do this at all (control calls without `CAP_SYS_ADMIN`).
    NotPermitted = "EPERM", 1;
    /// No such endpoint.
    NoEndpoint = "ESRCH", 3;
    /// A signal arrived; nothing was transferred.
    Interrupted = "EINTR", 4;
    /// The call would have to wait, and its timeout says not to; or `reply` to a peer that is not
    /// waiting for one.
    WouldBlock = "EAGAIN", 11;
    /// The kernel has no memory for what was asked.
    NoMemory = "ENOMEM", 12;
    /// A privilege or a grant does not allow it.
    Denied = "EACCES", 13;
    /// A user address is not readable or writable.
    Fault = "EFAULT", 14;
    /// Another thread blocks in the endpoint, or the slot is taken.
    Busy = "EBUSY", 16;
    /// What is to be made exists already.
    Exists = "EEXIST", 17;
    /// The node or container named does not exist here.
    NoDevice = "ENODEV", 19;
    /// An argument has a value the call does not know.
    Invalid = "EINVAL", 22;
    /// The call is not one of the DVK's.
    NotACall = "ENOTTY", 25;
    /// A limit of the container or of the link is reached.
    Limit = "ENOSPC", 28;
    /// Waiting would close a cycle of endpoints that wait for each other.
    Deadlock = "EDEADLK", 35;
    /// The endpoint is on its way to another node, or there: try again. Nodes say this to each
    /// other; programs never see it.
    Moved = "EREMCHG", 78;
    /// The data is longer than the receiving side can take.
    TooLong = "EMSGSIZE", 90;
    /// The file is not bound to an endpoint, or no link to the node exists.
    NotConnected = "ENOTCONN", 107;
    /// The time given for the call is over.
    TimedOut = "ETIMEDOUT", 110;
    /// The peer's node is down.
    NodeDown = "EHOSTUNREACH", 113;
    /// The endpoint's generation is dead.
    Stale = "ESTALE", 116;
    /// The peer died during the exchange.
    OwnerDead = "EOWNERDEAD", 130;
}

impl Errno {
    /// The positive value, as in `errno.h`.
    pub const fn raw(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
