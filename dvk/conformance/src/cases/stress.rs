// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients at once, some of which are killed.

use super::Case;
use crate::cast::{Cast, Waiting};
use crate::check::equal;
use crate::order::Order;
use crate::wish;
use anyhow::{bail, Result};
use core::time::Duration;
use dvk::{payload, Endpoint, Message, Payload, Port, Then, Timeout};

pub(super) const CASES: &[Case] =
    &[Case::both("requests-under-load-are-served-once-and-in-order", load).long()];

const CLIENTS: u32 = 8;
const STOP: u32 = 0x302;

payload! {
    /// A request or its reply.
    struct Count: 0x301 {
        client: u32,
        number: u32,
    }
}

/// What the server saw of each client.
struct Ledger {
    expected: [u32; CLIENTS as usize],
    wrong: Option<String>,
}

impl Ledger {
    fn new() -> Self {
        Self { expected: [0; CLIENTS as usize], wrong: None }
    }

    /// Takes note of a request, and says whether it is the client's next.
    fn note(&mut self, count: Count) {
        match self.expected.get_mut(count.client as usize) {
            Some(expected) if *expected == count.number => *expected += 1,
            Some(expected) => {
                let wrong = format!("{count:?} came when {expected} was next");
                self.wrong.get_or_insert(wrong);
            }
            None => {
                self.wrong.get_or_insert(format!("{count:?} is of nobody"));
            }
        }
    }
}

/// Serves until it is told to stop, and checks that each client made this many requests.
pub(crate) fn serve(server: &Port, requests: u32) -> Result<Result<(), dvk::Error>> {
    let mut ledger = Ledger::new();
    let served = dvk::serve(server, |request| match Count::view(&request.message) {
        Ok(count) => {
            ledger.note(count);
            Then::Reply(count.message())
        }
        Err(_) if request.message.kind == STOP => Then::Stop,
        // One of those that get killed.
        Err(_) => Then::Reply(Message::new(0)),
    });
    if let Err(error) = served {
        return Ok(Err(error));
    }
    if let Some(wrong) = ledger.wrong {
        bail!("{wrong}");
    }
    equal("requests served", ledger.expected, [requests; CLIENTS as usize])?;
    Ok(Ok(()))
}

/// Is a client: makes this many requests, and checks the replies.
pub(crate) fn count(
    port: &Port,
    server: Endpoint,
    client: u32,
    requests: u32,
) -> Result<Result<(), dvk::Error>> {
    for number in 0..requests {
        let sent = Count { client, number };
        match port.sendrec(server, &sent.message(), Timeout::Forever) {
            Ok(reply) => equal("reply", Count::view(&reply)?, sent)?,
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// Xorshift (Marsaglia 2003), for times that differ and can be had again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn load(cast: &Cast) -> Result<()> {
    let requests = cast.rounds(2_000, 150);
    let server = cast.near()?;
    let to = server.endpoint();
    let serving: Waiting<()> = server.begin(Order::Serve { requests }.into())?;
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        // Most of them are on the far side, and one is by the server.
        let party = if client == 0 { cast.near()? } else { cast.far()? };
        let count = Order::Count { to: to.raw(), client, requests };
        let counting: Waiting<()> = party.begin(count.into())?;
        clients.push((party, counting));
    }
    let mut random = Random(0x5eed);
    let mut kills = 0;
    while kills < 5 || clients.iter().any(|(_, counting)| !counting.is_over()) {
        let (puppet, party) = cast.far_puppet()?;
        party.begin(wish::storm(to))?;
        std::thread::sleep(Duration::from_millis(random.below(20)));
        puppet.kill()?;
        kills += 1;
    }
    for (_, counting) in clients {
        counting.join("a client to be done")??;
    }
    cast.settle()?;
    cast.far()?.send(to, &Message::new(STOP), Timeout::Forever)?;
    serving.join("the server to stop")??;
    let info = server.info()?;
    equal("what the killed left behind", (info.senders, info.clients), (0, 0))?;
    server.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_finds_what_is_lost_doubled_or_out_of_order() {
        let wrong = |numbers: &[u32]| {
            let mut ledger = Ledger::new();
            for number in numbers {
                ledger.note(Count { client: 1, number: *number });
            }
            ledger.wrong
        };
        assert_eq!(wrong(&[0, 1, 2]), None);
        assert!(wrong(&[0, 2]).is_some() && wrong(&[0, 0]).is_some() && wrong(&[1, 0]).is_some());
        let mut ledger = Ledger::new();
        ledger.note(Count { client: CLIENTS, number: 0 });
        assert!(ledger.wrong.is_some());
    }

    #[test]
    fn random_times_differ_and_repeat() {
        let take = || {
            let mut random = Random(0x5eed);
            [(); 6].map(|()| random.below(20))
        };
        assert_eq!(take(), take());
        assert!(take().iter().any(|time| *time != take()[0]));
    }
}
