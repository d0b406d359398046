// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory of a process that may be on another node, and what an endpoint there lends of it.

use crate::cast::{Party, Process};
use crate::lent::{digest, noise, PAGE};
use crate::order::{self, Order};
use crate::wish::{self, Failed, Wish};
use anyhow::{bail, ensure, Result};
use core::ops::Range;
use dvk::{Endpoint, Errno, GrantId, Timeout};

/// Some pages, followed by one that cannot be accessed.
#[derive(Clone)]
pub(crate) struct Memory {
    pub(crate) process: Process,
    pub(crate) number: u32,
    pub(crate) pages: usize,
}

impl Memory {
    /// Pages of zeros in the process of `party`.
    pub(crate) fn of(party: &Party, pages: usize) -> Result<Self> {
        party.process().map(pages, true)
    }

    /// Pages of zeros there that cannot be written.
    pub(crate) fn read_only(party: &Party, pages: usize) -> Result<Self> {
        party.process().map(pages, false)
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        self.pages * PAGE
    }

    /// Fills it with the noise of a seed.
    pub(crate) fn fill(&self, seed: u64) -> Result<()> {
        self.fill_part(0..self.bytes(), seed, 0)
    }

    /// Fills bytes with the noise of a seed, from its byte `skip` on.
    pub(crate) fn fill_part(&self, range: Range<usize>, seed: u64, skip: usize) -> Result<()> {
        let (memory, offset, len) = (self.number, range.start, range.len());
        self.process.order(Order::Fill { memory, offset, len, seed, skip })
    }

    /// The digest of all that is there.
    pub(crate) fn digest(&self) -> Result<u64> {
        self.digest_part(0..self.bytes())
    }

    /// The digest of some bytes.
    fn digest_part(&self, range: Range<usize>) -> Result<u64> {
        let order = Order::Digest { memory: self.number, offset: range.start, len: range.len() };
        let answer = self.process.ask(0, order.clone());
        Ok(wish::read(&order, answer)?)
    }

    /// Checks that these bytes are there from `offset` on; else the first one that is another is
    /// named. The bytes themselves stay where they are.
    pub(crate) fn has(&self, what: &str, offset: usize, expected: &[u8]) -> Result<()> {
        let agree = |len: usize| -> Result<bool> {
            Ok(self.digest_part(offset..offset + len)? == digest(&expected[..len]))
        };
        if agree(expected.len())? {
            return Ok(());
        }
        // The first bytes of which it is known that they agree, and that they do not.
        let (mut right, mut wrong) = (0, expected.len());
        while wrong - right > 1 {
            let middle = right.midpoint(wrong);
            if agree(middle)? {
                right = middle;
            } else {
                wrong = middle;
            }
        }
        bail!("{what}: byte {right} of {} is another", expected.len())
    }
}

/// Memory that an endpoint granted.
#[derive(Clone)]
pub(crate) struct Loan {
    /// The memory.
    pub(crate) memory: Memory,
    /// The grant.
    pub(crate) grant: GrantId,
    /// Who granted it.
    pub(crate) granter: Endpoint,
}

impl Loan {
    /// Has `party` grant pages of zeros.
    pub(crate) fn new(party: &Party, pages: usize, to: Endpoint, access: u32) -> Result<Self> {
        let memory = Memory::of(party, pages)?;
        let grant = party.grant(&memory, 0..memory.bytes(), to, access)?;
        Ok(Self::of(party, &memory, grant))
    }

    /// Has `party` grant pages in which there is the noise of a seed.
    pub(crate) fn noisy(
        party: &Party,
        pages: usize,
        to: Endpoint,
        access: u32,
        seed: u64,
    ) -> Result<(Self, Vec<u8>)> {
        let loan = Self::new(party, pages, to, access)?;
        loan.memory.fill(seed)?;
        let bytes = noise(seed, loan.memory.bytes());
        Ok((loan, bytes))
    }

    /// What `party` granted of a memory.
    pub(crate) fn of(party: &Party, memory: &Memory, grant: GrantId) -> Self {
        Self { memory: memory.clone(), grant, granter: party.endpoint() }
    }

    /// Its byte `offset`.
    pub(crate) fn at(&self, offset: u64) -> order::Lent {
        order::Lent { endpoint: self.granter.raw(), grant: self.grant.raw(), offset }
    }
}

impl Party {
    /// Grants bytes of a memory of its process, which may reach into the page that is not there.
    pub(crate) fn grant(
        &self,
        memory: &Memory,
        range: Range<usize>,
        to: Endpoint,
        access: u32,
    ) -> Result<GrantId, Failed> {
        let (offset, len) = (range.start, range.len());
        let to = to.raw();
        self.call(Order::Grant { memory: memory.number, offset, len, to, access }.into())
    }

    /// Copies out of what was lent, into bytes of a memory of its process.
    pub(crate) fn copy_from(
        &self,
        lent: order::Lent,
        memory: &Memory,
        range: Range<usize>,
        timeout: Timeout,
    ) -> Result<(), Failed> {
        self.call(wish::copy(false, place(lent, memory, range, timeout)))
    }

    /// Copies bytes of a memory of its process into what was lent.
    pub(crate) fn copy_to(
        &self,
        lent: order::Lent,
        memory: &Memory,
        range: Range<usize>,
        timeout: Timeout,
    ) -> Result<(), Failed> {
        self.call(wish::copy(true, place(lent, memory, range, timeout)))
    }

    /// Copies from what one lent to what another did.
    pub(crate) fn copy_between(
        &self,
        from: order::Lent,
        to: order::Lent,
        len: u64,
        timeout: Timeout,
    ) -> Result<(), Failed> {
        self.call(wish::copy_between(from, to, len, timeout))
    }
}

/// What a copy is about.
pub(crate) fn place(
    lent: order::Lent,
    m: &Memory,
    range: Range<usize>,
    timeout: Timeout,
) -> order::Place {
    let (offset, len, timeout_ns) = (range.start, range.len(), timeout.as_ns());
    order::Place { lent, memory: m.number, offset, len, timeout_ns }
}

/// Copies all of a memory out of what was lent or into it, over and over until that fails.
pub(crate) fn over_and_over(to: bool, lent: order::Lent, m: &Memory, timeout: Timeout) -> Wish<()> {
    Order::CopyOverAndOver { place: place(lent, m, 0..m.bytes(), timeout), to }.into()
}

/// The copy stopped after exactly so many bytes, for this reason.
pub(crate) fn stopped(
    what: &str,
    result: Result<(), Failed>,
    copied: u64,
    expected: Errno,
) -> Result<()> {
    let Err(failed) = result else { bail!("{what}: expected {expected}, but it succeeded") };
    ensure!(failed.errno() == Some(expected), "{what}: expected {expected}, got: {failed}");
    ensure!(failed.copied() == copied, "{what}: expected {copied} bytes, got {}", failed.copied());
    Ok(())
}
