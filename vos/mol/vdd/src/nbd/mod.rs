// SPDX-License-Identifier: MIT OR Apache-2.0
//! Both sides of NBD, the protocol of network block devices: a gateway that has a device as an export for whoever speaks it, and
//! a session as the client of a foreign server, by which a store is on a volume of that.
//!
//! Both speak the fixed newstyle handshake of the NBD protocol (`doc/proto.md` of the project NetworkBlockDevice/nbd), with simple
//! replies and one request after the other. There is no encryption: it is for a socket of the node, or for a network that has some.

mod connection;
mod handshake;
mod session;
mod uri;
mod wire;

pub use self::connection::{serve_connection, NbdError};
pub use self::handshake::GREETING;
pub use self::session::{Offer, Session, SessionError};
pub use self::uri::{NbdUri, UriError, Where};
