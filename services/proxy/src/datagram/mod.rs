// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames in encrypted datagrams: sessions between two proxies, by Noise (<https://noiseprotocol.org>), pattern `NNpsk0` over Curve25519,
//! ChaCha20-Poly1305 and SHA-256. Both ends know a key that is derived from the cluster token for the two of them,
//! and each session has fresh keys of its own.
//!
//! - `packet` is what is in a datagram.
//! - `session` seals and opens data, and `window` knows what was there before.
//! - `tunnel` makes sessions, and replaces them on a schedule. It has no clock and no socket.
//!
//! The node with the lower id begins a handshake, the other one answers. An answer costs two multiplications on a curve, so nobody
//! gets one who does not know the shared key (which takes a hash to find out) and does not repeat a *challenge* that the one
//! who answers has made up since the last handshake: what was recorded earlier opens nothing. Who begins hears the next challenge at the end of
//! a handshake, or, after a restart of either, by a datagram of its own; so a handshake takes one round trip, or two.
//!
//! (WireGuard, by Donenfeld, has its sessions and timers from similar thoughts; it has the time of day in the place of the challenge,
//! which a node does not know for sure.)

pub(crate) mod packet;
pub(crate) mod session;
pub(crate) mod tunnel;
pub(crate) mod window;
