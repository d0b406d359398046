// SPDX-License-Identifier: GPL-2.0 OR MIT
//! One part of a copy between nodes, as either of its ends sees it.
//!
//! The asker's end and the granter's end exchange the records of
//! [`wire::transfer`](super::abi::wire::transfer). Either may go away at any time, and what arrives
//! may be late, out of order or made up: a step that does not fit is refused and changes nothing.
//! Whoever runs an end holds its lock while it asks where data belongs *and* while it puts it
//! there, so that once an end is over nobody writes to its memory.

use super::abi::errno::Errno;

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The granter's bytes go to the asker.
    From,
    /// The asker's bytes go to the granter.
    To,
    /// Bytes go from one granter to another, both on one node.
    Between,
}

/// Which end it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// That of the endpoint that copies.
    Asker,
    /// That of the endpoint whose grant is used.
    Granter,
}

/// How a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The first bytes that were copied, as far as is known here.
    pub copied: u32,
    /// Why not all.
    pub error: Option<Errno>,
}

/// A step that does not fit: late, or made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unexpected;

/// One end of one part.
#[derive(Clone, Debug)]
pub struct Transfer {
    kind: Kind,
    role: Role,
    len: u32,
    /// Bytes received, at the end that receives.
    placed: u32,
    /// Bytes for which there is memory there.
    room: u32,
    /// The memory for received bytes is ready; at the asker of [`Kind::To`]: at the other end.
    open: bool,
    /// The asker wants it to end.
    stopped: bool,
    end: Option<End>,
}

impl Transfer {
    /// A part of `len` bytes that begins.
    pub fn new(kind: Kind, role: Role, len: u32) -> Self {
        Self { kind, role, len, placed: 0, room: 0, open: false, stopped: false, end: None }
    }

    /// Which end it is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What it does.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes received so far.
    pub fn placed(&self) -> u32 {
        self.placed
    }

    /// How it ended.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Whether bytes may be sent (at the sending end), or are expected (at the receiving one).
    pub fn is_open(&self) -> bool {
        self.open && self.end.is_none()
    }

    /// Whether the asker wants it to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether this end receives the bytes.
    fn receives(&self) -> bool {
        matches!((self.kind, self.role), (Kind::From, Role::Asker) | (Kind::To, Role::Granter))
    }

    /// Bytes may arrive from here on: there is memory for `room` of them, which may be fewer than
    /// are to come.
    pub fn prepare(&mut self, room: u32) {
        self.open = self.receives();
        self.room = room.min(self.len);
    }

    /// Where in the part `len` bytes belong that arrived for `offset`, and how many of them: those
    /// beyond the room are dropped. They are to be put there before anything else happens to this
    /// end.
    ///
    /// # Errors
    /// [`Unexpected`] at an end that receives none, before [`prepare`](Self::prepare), after the
    /// end, beyond the room, and for others than the next bytes of the part.
    pub fn place(&mut self, offset: u32, len: usize) -> Result<(u32, u32), Unexpected> {
        let len = u32::try_from(len).map_err(|_| Unexpected)?;
        let after = offset.checked_add(len).ok_or(Unexpected)?;
        let expected = self.receives() && self.is_open() && offset == self.placed;
        if !expected || after > self.len || self.is_full() {
            return Err(Unexpected);
        }
        let taken = len.min(self.room - offset);
        self.placed = offset + taken;
        Ok((offset, taken))
    }

    /// Whether there were bytes to arrive, and all have.
    fn is_complete(&self) -> bool {
        self.receives() && self.len != 0 && self.placed == self.len
    }

    /// Whether there is no memory for more bytes, because all have arrived or the memory ends.
    pub fn is_full(&self) -> bool {
        self.receives() && self.placed >= self.room
    }

    /// The granter's node is ready for the asker's bytes.
    ///
    /// # Errors
    /// [`Unexpected`] at another end, twice, or after the end.
    pub fn opened(&mut self) -> Result<(), Unexpected> {
        let expected = self.kind == Kind::To && self.role == Role::Asker;
        if !expected || self.open || self.end.is_some() {
            return Err(Unexpected);
        }
        self.open = true;
        Ok(())
    }

    /// The granter's node says how the part ended.
    ///
    /// What cannot be true ends the part as well, for nothing better will come, but counts for no
    /// more than is known here.
    ///
    /// # Errors
    /// [`Unexpected`] at the granter's end, or after the end.
    pub fn done(&mut self, copied: u32, error: Option<Errno>) -> Result<(), Unexpected> {
        if self.role != Role::Asker || self.end.is_some() {
            return Err(Unexpected);
        }
        let most = if self.kind == Kind::From { self.placed } else { self.len };
        let all = copied == self.len && most == self.len;
        // Once all bytes are there, whatever went wrong afterwards does not matter; where there are
        // none, it is all there is to say.
        let error = match error {
            error if all && self.len == 0 => error,
            _ if all => None,
            error => Some(error.unwrap_or(Errno::Invalid)),
        };
        self.end = Some(End { copied: copied.min(most), error });
        Ok(())
    }

    /// The asker gives up; at the asker's end, the other one is to be told. Returns whether that is
    /// news.
    pub fn stop(&mut self) -> bool {
        let news = !self.stopped && self.end.is_none();
        self.stopped |= news;
        news
    }

    /// The part ends here, for this reason, unless it has ended already, or the asker has all it
    /// wanted. Returns whether it had not.
    pub fn fail(&mut self, error: Errno) -> bool {
        if self.end.is_some() {
            return false;
        }
        let all = self.role == Role::Asker && self.is_complete();
        self.end = Some(End { copied: self.placed, error: (!all).then_some(error) });
        true
    }

    /// The granter's end closes its part, after `sent` bytes where it sends: what to say to the
    /// asker. Nothing is received from here on.
    pub fn close(&mut self, sent: u32, error: Option<Errno>) -> End {
        let copied = if self.receives() { self.placed } else { sent };
        let known = self.end.and_then(|end| end.error);
        let stopped = self.stopped.then_some(Errno::Interrupted);
        let error = match error.or(known).or(stopped) {
            error if self.len == 0 => error,
            _ if copied == self.len => None,
            error => Some(error.unwrap_or(Errno::Fault)),
        };
        let end = End { copied, error };
        self.end = Some(end);
        end
    }
}
