// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands in a field: mostly what the call wants there, sometimes what it must refuse.

use dvk_abi::ioctl::{NODE_NONE, SLOT_ANY};
use dvk_abi::Endpoint;

use super::Script;
use crate::call::Role;
use crate::program::{
    lease_slot, Lent, Place, Somebody, Value, CONTAINERS, FILES, GENERATION, INTERFACES, LEASED,
    NODES, SERVERS,
};

/// Pages whose mapping changes.
pub(crate) const PAGES: u64 = 64;
const PAGE_BYTES: u64 = 4096;

/// Numbers at which arithmetic breaks. Added to an address of the programs' own memory, none gives
/// that of anything else: each stays within 2^44, or leads out of user space.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    7,
    63,
    4095,
    4096,
    4097,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    1 << 40,
    1 << 47,
    1 << 62,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

impl Script {
    /// A value for a field of this role.
    pub(super) fn value(&mut self, role: Role) -> Value {
        if self.rng.percent(self.wrong_percent()) {
            self.wrong(role)
        } else {
            self.right(role)
        }
    }

    fn right(&mut self, role: Role) -> Value {
        match role {
            Role::Reserved | Role::MadeEndpoint | Role::MadeGrant => Value::Number(0),
            Role::Bytes => Value::Bytes(self.rng.draw()),
            Role::Peer => self.peer(),
            Role::From => {
                if self.rng.percent(60) {
                    Value::Number(Endpoint::ANY.raw())
                } else {
                    self.peer()
                }
            }
            Role::Timeout => Value::Number(self.timeout()),
            Role::Slot => {
                let server = self.rng.below(SERVERS.into());
                let leased = u64::from(lease_slot(0)) + self.rng.below(16);
                Value::Number(self.rng.pick(&[SLOT_ANY.into(), server, leased]))
            }
            Role::LeaseSlot => {
                Value::Number(lease_slot(self.rng.below(NODES.into()) as u32).into())
            }
            Role::LeaseSlots => Value::Number(self.rng.pick(&[LEASED.into(), 0, 32])),
            Role::Generation => Value::Number(u64::from(GENERATION) + self.rng.below(4)),
            Role::Container => {
                if self.rng.percent(60) {
                    Value::Number(self.home.into())
                } else {
                    Value::Number(self.rng.below(CONTAINERS.into()))
                }
            }
            Role::Node => Value::Number(self.rng.below(NODES.into())),
            Role::Incarnation => Value::Incarnation(self.rng.below(4) as u8),
            Role::Epoch => Value::Number(1 + self.rng.below(60)),
            Role::Interface => Value::Interface(self.rng.below(INTERFACES.into()) as u8),
            Role::Mac => Value::Mac(self.rng.below(NODES.into()) as u8),
            Role::Choice(choices) => Value::Number(self.rng.pick(choices)),
            Role::Number => Value::Number(1 << self.rng.below(64)),
            Role::Address => Value::Place(self.memory()),
            Role::Length => Value::Number(self.length()),
            Role::Offset => {
                let within = self.rng.below(PAGE_BYTES);
                Value::Number(self.rng.pick(&[0, 0, 1, within]))
            }
            Role::Grant => {
                let nth = self.rng.below(16) as u8;
                let mine = Lent::Mine(self.own());
                Value::Lent(if self.rng.percent(80) { mine } else { Lent::Theirs(nth) })
            }
        }
    }

    fn wrong(&mut self, role: Role) -> Value {
        match role {
            Role::Address => Value::Place(match self.place() {
                // It takes one changed byte to make that the address of a stack.
                Place::EndOfUser => Place::Hole,
                place => place,
            }),
            Role::Bytes | Role::Mac => Value::Bytes(self.rng.draw()),
            Role::Peer | Role::From if self.rng.percent(50) => {
                let reserved = [Endpoint::ANY, Endpoint::NONE, Endpoint::SELF].map(Endpoint::raw);
                Value::Number(self.rng.pick(&reserved))
            }
            Role::Peer | Role::From => {
                let (slot, generation) = (self.rng.below(1 << 17), self.rng.pick(EDGES));
                Value::Number(generation << 32 | slot)
            }
            Role::Node => Value::Number(self.rng.pick(&[
                NODE_NONE.into(),
                u64::from(NODES) + 1,
                65_535,
                65_536,
            ])),
            Role::Container => Value::Number(self.rng.pick(&[65_535, 65_536, 77, u64::MAX])),
            // The last of its kind would leave the node down for the rest of the run.
            Role::Incarnation => Value::Number(0),
            Role::Choice(_) => Value::Number(1 << self.rng.below(64)),
            _ => Value::Number(self.rng.pick(EDGES)),
        }
    }

    fn peer(&mut self) -> Value {
        // Mostly one that is bound, which is a thread's own.
        let files = if self.rng.percent(90) { self.threads } else { FILES };
        let file = self.rng.below(files.into()) as u8;
        Value::Somebody(match self.rng.below(100) {
            // The first thread is a server.
            0..=21 => Somebody::File(0),
            22..=42 => Somebody::File(file),
            43..=53 => Somebody::Stranger(self.rng.below(16) as u8),
            54..=57 => Somebody::Lender(self.rng.below(16) as u8),
            58..=71 => Somebody::Server(self.rng.below(SERVERS.into()) as u8),
            72..=85 => self.remote(),
            86..=91 => Somebody::Source,
            92..=96 => Somebody::Former(file),
            _ => Somebody::Forged { file, off: self.rng.pick(&[-1, 1, 2, 100]) },
        })
    }

    /// Somebody on another node: mostly on one that answers.
    pub(super) fn remote(&mut self) -> Somebody {
        Somebody::Remote {
            node: self.rng.pick(&[1, 1, 1, 1, 2, 2, 2, 2, 3]),
            nth: self.rng.below(8) as u8,
            generation: self.rng.below(2) as u8,
        }
    }

    /// In nanoseconds. Who waits for ever is interrupted in the end.
    fn timeout(&mut self) -> u64 {
        match self.rng.below(100) {
            0..=11 => 0,
            12..=59 => 1_000 << self.rng.below(10),
            60..=79 => 1_000_000 + self.rng.below(4_000_000),
            80..=96 => u64::MAX,
            97 => i64::MAX as u64,
            98 => i64::MIN as u64,
            _ => 1,
        }
    }

    /// Memory that can be there.
    fn memory(&mut self) -> Place {
        let bytes = PAGES * PAGE_BYTES;
        match self.rng.below(10) {
            0..=5 => Place::Page(self.rng.below(bytes / PAGE_BYTES) as u32 * PAGE_BYTES as u32),
            6 | 7 => Place::Page(self.rng.below(bytes) as u32),
            8 => Place::Shared(self.rng.below(16 * PAGE_BYTES) as u16),
            _ => Place::OwnBlock,
        }
    }

    /// Memory, or what is none.
    pub(super) fn place(&mut self) -> Place {
        let somewhere = self.memory();
        self.rng.pick(&[
            somewhere,
            Place::File,
            Place::Hole,
            Place::Null,
            Place::EndOfUser,
            Place::NonCanonical,
            Place::Kernel,
            Place::Last,
        ])
    }

    fn length(&mut self) -> u64 {
        match self.rng.below(10) {
            0..=2 => 1 + self.rng.below(256),
            3..=5 => 1 + self.rng.below(2 * PAGE_BYTES),
            6 | 7 => PAGE_BYTES << self.rng.below(6),
            8 => 1 + self.rng.below(PAGES * PAGE_BYTES),
            _ => 64,
        }
    }
}
