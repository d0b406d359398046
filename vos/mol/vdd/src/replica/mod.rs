// SPDX-License-Identifier: MIT OR Apache-2.0
//! Replication of a device: what its replicas say and do, without I/O, clock and randomness.
//!
//! One replica is the *primary* and answers clients; the others are *in step* or *behind*. Who is what
//! is a [`Lineup`], of which an [`Authority`] outside of the replicas decides one after the other, each with a
//! greater *epoch*. It is a scheme of primary and backups with the membership decided elsewhere, as in PacificA (Lin et
//! al. 2008); that whole blocks take the place of a log is as in DRBD.
//!
//! # A write
//! The primary numbers it and sends it to all others. When each that is in step has done it, the primary does it
//! itself, and answers. So
//! - an answered write is at every replica in step, and any of them can become the primary;
//! - what the primary has, and so what it reads to clients, every replica in step has.
//!
//! A replica that does not answer holds up writes until the authority has agreed to a line-up in which it is behind.
//! The primary never goes on without one on its own account. And it counts one as in step from the
//! moment it proposes that, since the authority may agree without its hearing of it.
//!
//! # Reads
//! The primary reads its own blocks, for which each replica in step must have given it leave, by answering a beat
//! less than a lease ago. A replica that becomes the primary first waits as long as any leave that it has given. So an
//! old primary, cut off, has stopped before a new one begins. This rests on clocks that run at about the same rate, within
//! an eighth, and on nothing else about time.
//!
//! # A new primary
//! It may have writes that others in step lack, and they some that it lacks, none of them answered and none read by
//! anybody. Before it serves, it gives its own blocks to every replica in step wherever either knows of a write that was not
//! said to be *committed*. Then no later failover can take back what it has let somebody read.
//!
//! # What differs
//! Each replica has a set of *unsettled* regions: those that were written since all members were in step and
//! had flushed. It is [kept](Action::Keep) before the blocks are written, so it also has what the replica may have
//! lost with the power. A replica that is behind gets the regions that it or the primary have unsettled; one that
//! was not in step since the primary's set began gets all.
//!
//! # What an answer means
//! | the primary is | a write that was answered | and after a flush |
//! |---|---|---|
//! | alone in step | is lost if its memory is before a flush; nobody can take over | is on its disk |
//! | in step with others | survives as long as one of them keeps its memory or its disk whole | is on the disks of all in step |
//!
//! That a replica is behind, or being filled, changes neither. A store in memory is never on a disk: its flushed
//! writes are as safe as the process.

mod authority;
mod feeding;
mod lineup;
mod message;
mod primary;
mod record;
mod regions;
mod row;
mod state;

pub use self::authority::{Authority, Contents, Presence};
pub use self::lineup::{Life, Lineup, Member, ReplicaId, Standing};
pub use self::message::{
    Action, Change, Feed, Input, Item, Message, Notice, Refusal, Request, RequestId, Sum,
};
pub use self::record::{Boot, Record};
pub use self::regions::{RegionSet, Regions, REGIONS_MAX, REGION_BYTES_MIN};
pub use self::row::{letter_bytes, read_row, row_of, write_row, RowHead};
pub use self::state::{Replica, Settings};
