// SPDX-License-Identifier: MIT OR Apache-2.0
//! A server that lends memory, looks at it and revokes, as the borrower asks.

use crate::lent::{grant, noise, revoke, Lent, PAGE};
use anyhow::{Context, Result};
use dvk::raw::Arena;
use dvk::{
    payload, Endpoint, Errno, GrantId, Granted, Message, Payload, Port, Slot, Then, Timeout,
};
use std::collections::BTreeMap;

payload! {
    /// Lend pages with noise of a seed in them to the sender, and what is behind them to nobody.
    struct Lend: 0x411 {
        pages: u32,
        access: u32,
        seed: u64,
    }

    /// What was lent, or 0.
    struct Lending: 0x412 {
        grant: u64,
    }

    /// Whether some bytes of a grant are noise of a seed.
    struct Compare: 0x413 {
        grant: u64,
        offset: u64,
        len: u64,
        seed: u64,
    }

    /// Revoke a grant, and look whether its memory stays as it is.
    struct Take: 0x414 {
        grant: u64,
    }

    /// Leave, without an answer.
    struct Leave: 0x415 {}

    /// Whether it is so.
    struct Answer: 0x416 {
        yes: bool,
    }
}

/// Binds in `container`, says its endpoint and serves until it is told to leave.
pub(crate) fn lend(container: u32) -> Result<()> {
    let port = Port::bind(container, Slot::Any)?;
    println!("{}", port.endpoint().raw());
    let mut lents = BTreeMap::new();
    dvk::serve(&port, |request| {
        let message = &request.message;
        if let Ok(wish) = Lend::view(message) {
            let lent = new(&port, request.source(), wish);
            let grant = lent.map_or(0, |lent| {
                lents.insert(lent.grant.raw(), lent);
                lent.grant.raw()
            });
            return Then::Reply(Lending { grant }.message());
        }
        let answer = |yes| Then::Reply(Answer { yes }.message());
        if let Ok(wish) = Compare::view(message) {
            answer(lents.get(&wish.grant).is_some_and(|lent| {
                let (start, len) = (wish.offset as usize, wish.len as usize);
                lent.bytes().get(start..start + len) == Some(&noise(wish.seed, len)[..])
            }))
        } else if let Ok(wish) = Take::view(message) {
            let Some(lent) = lents.get(&wish.grant) else { return answer(false) };
            let revoked = revoke(&port, lent.grant).is_ok();
            let before = lent.bytes();
            std::thread::sleep(core::time::Duration::from_millis(20));
            answer(revoked && lent.bytes() == before)
        } else if Leave::view(message).is_ok() {
            Then::Stop
        } else {
            Then::Reply(Message::new(0))
        }
    })?;
    Ok(())
}

/// Lends an arena and the page behind it, which is not there.
fn new(port: &Port, to: Endpoint, wish: Lend) -> Option<Lent> {
    let arena = Arena::new(wish.pages as usize).ok()?;
    arena.write(0, &noise(wish.seed, arena.bytes()));
    let grant = grant(port, arena, 0, arena.bytes() + PAGE, to, wish.access).ok()?;
    Some(Lent::of(port, arena, grant))
}

/// A lender as those see it who borrow.
#[derive(Clone, Copy)]
pub(crate) struct Lender<'p> {
    /// Who asks.
    pub(crate) port: &'p Port,
    /// The lender.
    pub(crate) endpoint: Endpoint,
}

const PATIENCE: Timeout = Timeout::from_millis(30_000);

impl Lender<'_> {
    /// Has it lend.
    pub(crate) fn lend(&self, pages: u32, access: u32, seed: u64) -> Result<Granted> {
        let wish = Lend { pages, access, seed };
        let reply = self.port.sendrec(self.endpoint, &wish.message(), PATIENCE)?;
        let Lending { grant } = Lending::view(&reply)?;
        anyhow::ensure!(grant != 0, "{} lends nothing", self.endpoint);
        Ok(GrantId::from_raw(grant).of(self.endpoint, 0))
    }

    /// Whether `len` bytes there are noise of `seed`, as the lender sees them.
    pub(crate) fn has(&self, granted: Granted, len: usize, seed: u64) -> Result<bool> {
        let wish =
            Compare { grant: granted.grant.raw(), offset: granted.offset, len: len as u64, seed };
        self.ask(&wish.message())
    }

    /// Has it revoke; false if it could not, or the memory changed afterwards.
    pub(crate) fn take(&self, granted: Granted) -> Result<bool> {
        self.ask(&Take { grant: granted.grant.raw() }.message())
    }

    /// Has it leave.
    pub(crate) fn dismiss(&self) -> Result<()> {
        match self.port.send(self.endpoint, &Leave {}.message(), PATIENCE) {
            Err(error) if !error.is(Errno::OwnerDead) => Err(error).context("dismiss a lender"),
            _ => Ok(()),
        }
    }

    fn ask(&self, message: &Message) -> Result<bool> {
        let reply = self.port.sendrec(self.endpoint, message, PATIENCE)?;
        Ok(Answer::view(&reply)?.yes)
    }
}
