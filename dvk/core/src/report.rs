// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The tables in which the driver shows its state to people: their columns, and how a row is
//! written. `docs/observability.md` explains every column.
//!
//! A table is text: a head, then one row per line. Fields are separated by blanks and contain none;
//! what there is nothing to say about is `-`. So a row has as many fields as the head, whoever
//! reads it, and columns that are added later do not move those before them, since a table grows at
//! its right end only (but for the name of a container, which is always last).

use super::abi::ioctl::{
    EVENT_LINK_DETACHED, EVENT_LINK_FOUND, EVENT_LINK_INCOMPATIBLE, EVENT_LINK_LOST,
    EVENT_LINK_RESET, EVENT_LINK_UP, LINK_CONNECTING, LINK_DOWN, LINK_UP, ROLE_BACKUP,
    ROLE_PRIMARY, ROLE_REPLICA, STATE_COPY, STATE_IDLE, STATE_MOVING, STATE_RECEIVE, STATE_REQUEST,
    STATE_SEND, STATE_WAIT, TRANSPORT_ETHERNET, TRANSPORT_QUIC, TRANSPORT_TCP, TRANSPORT_TIPC,
    TRANSPORT_UDP,
};
use super::abi::Endpoint;
use core::ffi::CStr;
use core::fmt::{self, Write};

/// A column: its head, and how many characters are usually enough for what is in it.
pub type Column = (&'static str, usize);

/// A table of `N` columns.
pub struct Table<const N: usize> {
    /// The name of its file.
    pub name: &'static CStr,
    /// From left to right.
    pub columns: [Column; N],
}

/// The node itself: one row.
pub const DVS: Table<9> = Table {
    name: c"dvs",
    columns: [
        ("node", 5),
        ("cluster", 16),
        ("incarnation", 11),
        ("wire_min", 8),
        ("wire_max", 8),
        ("containers", 10),
        ("peers", 5),
        ("malformed", 9),
        ("strangers", 9),
    ],
};

/// The nodes of the DVS that were up since this one joined, and itself.
pub const NODES: Table<3> =
    Table { name: c"nodes", columns: [("node", 5), ("state", 5), ("incarnation", 11)] };

/// The links to other nodes.
pub const LINKS: Table<19> = Table {
    name: c"links",
    columns: [
        ("node", 5),
        ("transport", 9),
        ("interface", 10),
        ("address", 17),
        ("state", 10),
        ("wire", 4),
        ("rtt_us", 7),
        ("frames_sent", 11),
        ("frames_received", 15),
        ("bytes_sent", 12),
        ("bytes_received", 14),
        ("retransmissions", 15),
        ("duplicates", 10),
        ("rejected", 8),
        ("forged", 6),
        ("in_flight", 9),
        ("queued", 6),
        ("backlog", 7),
        ("copies", 6),
    ],
};

/// The containers that span this node.
pub const CONTAINERS: Table<8> = Table {
    name: c"containers",
    columns: [
        ("container", 9),
        ("endpoints", 9),
        ("max_endpoints", 13),
        ("grants", 6),
        ("max_grants", 10),
        ("bytes", 12),
        ("max_bytes", 12),
        ("name", 0),
    ],
};

/// The endpoints that this node knows of.
pub const ENDPOINTS: Table<14> = Table {
    name: c"endpoints",
    columns: [
        ("container", 9),
        ("slot", 5),
        ("generation", 10),
        ("node", 5),
        ("role", 7),
        ("state", 7),
        ("waits_for", 16),
        ("senders", 7),
        ("clients", 7),
        ("notices", 7),
        ("grants", 6),
        ("received", 10),
        ("sent", 10),
        ("epoch", 5),
    ],
};

/// What is in a field.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    /// There is nothing to say.
    Nothing,
    /// A number.
    Number(u64),
    /// A number whose bits mean something, in hexadecimal.
    Bits(u64),
    /// A word.
    Word(&'a str),
    /// Text from elsewhere, up to the first zero byte. Blanks, backslashes and what is not ASCII are
    /// written as `\x` and two hexadecimal digits.
    Text(&'a [u8]),
    /// A MAC address.
    Address([u8; 6]),
    /// Whom an endpoint waits for.
    Endpoint(Endpoint),
}

impl Cell<'_> {
    /// A number that is not there where it is 0.
    pub fn unless_0(number: u64) -> Self {
        if number == 0 {
            Self::Nothing
        } else {
            Self::Number(number)
        }
    }
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Nothing | Self::Endpoint(Endpoint::NONE) => f.write_str("-"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bits(bits) => write!(f, "{bits:016x}"),
            Self::Word(word) => f.write_str(word),
            Self::Text(text) => write_text(f, text),
            Self::Address([a, b, c, d, e, g]) => {
                write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            Self::Endpoint(endpoint) => write!(f, "{endpoint}"),
        }
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &[u8]) -> fmt::Result {
    let len = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = text.get(..len).unwrap_or_default();
    match text {
        [] => return f.write_str("-"),
        // Not to be taken for nothing.
        b"-" => return f.write_str("\\x2d"),
        _ => {}
    }
    for byte in text {
        match byte {
            b'\\' => f.write_str("\\x5c")?,
            b'!'..=b'~' => f.write_char(char::from(*byte))?,
            _ => write!(f, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

impl<const N: usize> Table<N> {
    /// Writes the names of the columns.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_head(&self, out: &mut impl Write) -> fmt::Result {
        self.write_row(out, self.columns.map(|(head, _)| Cell::Word(head)))
    }

    /// Writes a row.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_row(&self, out: &mut impl Write, cells: [Cell<'_>; N]) -> fmt::Result {
        let mut separator = "";
        for ((_, width), cell) in self.columns.iter().zip(&cells) {
            let mut length = Length(0);
            write!(length, "{cell}")?;
            let indent = width.saturating_sub(length.0);
            write!(out, "{separator}{:indent$}{cell}", "")?;
            separator = " ";
        }
        out.write_char('\n')
    }
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.saturating_add(text.len());
        Ok(())
    }
}

/// The word for what the thread of an endpoint is doing (`STATE_…`).
pub fn endpoint_state(state: u32) -> &'static str {
    match state {
        STATE_IDLE => "idle",
        STATE_RECEIVE => "receive",
        STATE_SEND => "send",
        STATE_REQUEST => "sendrec",
        STATE_COPY => "copy",
        STATE_WAIT => "wait",
        STATE_MOVING => "moving",
        _ => "?",
    }
}

/// The word for what an endpoint is to others that share its name (`ROLE_…`).
pub fn endpoint_role(role: u32) -> &'static str {
    match role {
        ROLE_PRIMARY => "primary",
        ROLE_BACKUP => "backup",
        ROLE_REPLICA => "replica",
        _ => "?",
    }
}

/// The word for the state of a link (`LINK_…`).
pub fn link_state(state: u32) -> &'static str {
    match state {
        LINK_DOWN => "down",
        LINK_CONNECTING => "connecting",
        LINK_UP => "up",
        _ => "?",
    }
}

/// The word for a transport (`TRANSPORT_…`), if it is one.
pub fn transport(number: u32) -> Option<&'static str> {
    Some(match number {
        TRANSPORT_ETHERNET => "ethernet",
        TRANSPORT_TIPC => "tipc",
        TRANSPORT_TCP => "tcp",
        TRANSPORT_UDP => "udp",
        TRANSPORT_QUIC => "quic",
        _ => return None,
    })
}

/// The word for what happened to a link, if an event of this kind (`EVENT_LINK_…`) says that.
pub fn link_event(kind: u32) -> Option<&'static CStr> {
    Some(match kind {
        EVENT_LINK_UP => c"up",
        EVENT_LINK_LOST => c"lost",
        EVENT_LINK_FOUND => c"found",
        EVENT_LINK_RESET => c"reset",
        EVENT_LINK_INCOMPATIBLE => c"incompatible",
        EVENT_LINK_DETACHED => c"device-gone",
        _ => return None,
    })
}
