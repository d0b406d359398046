// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Endpoints: who a message is for.

use core::fmt;
use core::num::NonZeroU32;

/// The name of a party in a Distributed Container: a slot and the generation of its binding.
///
/// The high 32 bits are the generation, which is never 0 and grows at every bind of the slot, so
/// that a value kept by somebody after its owner has gone never names the owner's successor. The
/// low 32 bits are the slot. Values whose generation is 0 are reserved; three of them have names
/// ([`ANY`](Self::ANY), [`NONE`](Self::NONE), [`SELF`](Self::SELF)).
///
/// MINIX 3 packs the same two numbers into 32 bits (`generation << 15 | slot`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Endpoint(u64);

impl Endpoint {
    /// Matches every source in `receive`.
    pub const ANY: Self = Self(0xffff_ffff);
    /// Names nobody.
    pub const NONE: Self = Self(0xffff_fffe);
    /// The caller itself.
    pub const SELF: Self = Self(0xffff_fffd);

    /// The endpoint of `slot` in its binding number `generation`.
    pub const fn new(slot: u32, generation: NonZeroU32) -> Self {
        Self((generation.get() as u64) << 32 | slot as u64)
    }

    /// Takes a value as it stands in a message or an argument block.
    ///
    /// Any value is accepted: whether it names somebody is for [`is_name`](Self::is_name) and the
    /// endpoint table to say.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The value as it stands in messages and argument blocks.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The slot: the low 32 bits.
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// The generation: the high 32 bits; 0 for a reserved value.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether the value can name a party: its generation is not 0 and its slot is in range.
    pub const fn is_name(self) -> bool {
        self.generation() != 0 && self.slot() < super::limits::SLOTS
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ANY => f.write_str("any"),
            Self::NONE => f.write_str("none"),
            Self::SELF => f.write_str("self"),
            _ => write!(f, "{}.{}", self.slot(), self.generation()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
