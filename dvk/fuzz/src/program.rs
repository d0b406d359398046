// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a program is made of. It names things by what they are ("the endpoint of file 3"); whoever
//! runs it knows their values.

use crate::call::FIELDS_MAX;

/// Open files of a process; its threads share them.
pub const FILES: u8 = 8;
/// The most threads of a process.
pub const THREADS_MAX: usize = 6;
/// Containers that programs use: the last does not exist unless a program makes it.
pub const CONTAINERS: u32 = 5;
/// The first container that has small limits.
pub const NARROW: u32 = 2;
/// Server slots that programs bind.
pub const SERVERS: u8 = 4;
/// Nodes that programs know: 0 is the local one, [`PARTNERS`] answer, one has no link, one is down.
pub const NODES: u32 = 5;
/// The nodes that have somebody who answers.
pub const PARTNERS: [u16; 2] = [1, 2];
/// The first slot that `node` has a lease of.
pub const fn lease_slot(node: u32) -> u32 {
    64 + node * 64
}
/// Slots of the lease of each node.
pub const LEASED: u32 = 64;
/// The first generation of every lease.
pub const GENERATION: u32 = 10;
/// Network interfaces that programs attach links to, and one number that is none.
pub const INTERFACES: u8 = 4;

/// One operation of a thread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// An ioctl.
    Call(Invocation),
    /// Open a device in place of a file.
    Open {
        /// The file.
        file: u8,
        /// What is opened.
        device: Opened,
    },
    /// Leave out the next operations, unless the last call that this thread made of a file was
    /// refused because the file has no endpoint, or none any more. Who lost it gets another soon,
    /// since there is little to do without.
    IfLost {
        /// The file.
        file: u8,
        /// How many operations.
        ops: u8,
    },
    /// Leave out the next operations, unless the last call of this thread brought it a request:
    /// there is nobody to reply to otherwise.
    IfAsked {
        /// How many operations.
        ops: u8,
    },
    /// Close a file, whoever uses it.
    Close {
        /// The file.
        file: u8,
    },
    /// Make one file the same as another.
    Duplicate {
        /// The one.
        from: u8,
        /// What it replaces.
        to: u8,
    },
    /// `poll` some files.
    Poll {
        /// Bit `n`: file `n`.
        files: u8,
        /// As that of `poll`.
        timeout_ms: u8,
    },
    /// Watch a file with a new epoll instance, which then goes.
    Epoll {
        /// The file.
        file: u8,
        /// As that of `epoll_wait`.
        timeout_ms: u8,
    },
    /// Change how some of the pages that are lent and copied are mapped.
    Map {
        /// The first of them.
        page: u8,
        /// How many.
        pages: u8,
        /// What becomes of them.
        mapping: Mapping,
    },
    /// Write where another thread has its argument block, between its call and what the kernel
    /// makes of it. An address there may become another, but none outside of what the fuzzer has
    /// set aside, which begins at 2^44: its sixth byte becomes 0x10 to 0x1f.
    Scribble {
        /// The thread.
        thread: u8,
        /// Where in its block.
        offset: u8,
        /// What.
        value: u8,
    },
    /// Send a caught signal to a thread.
    Signal {
        /// The thread.
        thread: u8,
    },
    /// Do nothing for a while.
    Pause {
        /// For how long, in microseconds.
        us: u16,
    },
    /// Fork; the child makes some calls of its own and ends.
    Fork {
        /// What its script is made of.
        seed: u64,
        /// How many calls it makes.
        calls: u8,
    },
    /// Let an allocation or an access to user memory fail in the next call.
    Starve {
        /// Which: counted from 1.
        nth: u8,
    },
    /// End the process at once.
    Die(Death),
}

/// How a process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It exits, whatever its other threads are doing.
    Exits,
    /// It kills itself.
    Killed,
    /// It becomes another program, and its files are closed on that.
    Replaced,
}

/// A device that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// `/dev/dvk`.
    Control,
    /// The device of this container.
    Container(u32),
    /// `/dev/null`, which takes no DVK call.
    Null,
}

/// What becomes of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Readable and writable memory, new and zero.
    Fresh,
    /// Memory that other processes have as well.
    Shared,
    /// Only readable.
    ReadOnly,
    /// Readable and writable.
    ReadWrite,
    /// Neither.
    NoAccess,
    /// A hole.
    Unmapped,
    /// Their content is dropped.
    Discarded,
}

/// An ioctl with its argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Invocation {
    /// The call whose fields [`values`](Self::values) are, by its index in the table.
    pub call: u8,
    /// The file.
    pub file: u8,
    /// The ioctl number: that of the call, or one that is no call's.
    pub number: u32,
    /// Where the block is.
    pub block: Block,
    /// A value for each field of the call.
    pub values: [Value; FIELDS_MAX],
}

/// Where an argument block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// In memory that is there, on an address that suits.
    Proper,
    /// In memory that is there, on an odd address.
    Misaligned,
    /// At the very end of memory.
    AtEnd,
    /// Only this many bytes of it are there.
    Cut(u8),
    /// In memory that can only be read.
    ReadOnly,
    /// Where [`Place`] says.
    At(Place),
}

/// A place in the address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Bytes from the start of the pages that [`Op::Map`] changes.
    Page(u32),
    /// Bytes from the start of memory that all processes share.
    Shared(u16),
    /// In the middle of an argument block of this thread.
    OwnBlock,
    /// In a mapped file that can only be read.
    File,
    /// Where nothing is mapped.
    Hole,
    /// Address 0.
    Null,
    /// The last page of user space, to the end and beyond.
    EndOfUser,
    /// Neither user space nor the kernel's.
    NonCanonical,
    /// The kernel's.
    Kernel,
    /// The very last byte.
    Last,
}

/// Somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Somebody {
    /// The endpoint of a file of this process.
    File(u8),
    /// The endpoint that the file had before.
    Former(u8),
    /// Who sent what this thread received last.
    Source,
    /// An endpoint that some process bound, by its place in the list of them.
    Stranger(u8),
    /// Who made a grant, by the place in the list of them.
    Lender(u8),
    /// The server in this slot of the home container.
    Server(u8),
    /// An endpoint on another node.
    Remote {
        /// The node.
        node: u8,
        /// Which of its slots.
        nth: u8,
        /// Its generation above the first.
        generation: u8,
    },
    /// An endpoint whose generation is off by this from that of a file.
    Forged {
        /// The file.
        file: u8,
        /// How much.
        off: i8,
    },
}

/// A grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lent {
    /// The last one of a file of this process.
    Mine(u8),
    /// One that some process made: [`Somebody::Lender`] of the same number, unless both were
    /// replaced meanwhile.
    Theirs(u8),
}

/// What stands in a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// An endpoint.
    Somebody(Somebody),
    /// An address.
    Place(Place),
    /// A grant.
    Lent(Lent),
    /// The last incarnation that a node came up with, and so many more.
    Incarnation(u8),
    /// The index of a network interface.
    Interface(u8),
    /// The Ethernet address of a node.
    Mac(u8),
    /// Bytes from this seed.
    Bytes(u64),
}
