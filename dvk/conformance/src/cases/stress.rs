// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many clients at once, some of which are killed.

use super::Case;
use crate::blocked::blocked;
use crate::check::equal;
use crate::dvs::{self, HOME};
use crate::puppet::{Order, Puppet};
use anyhow::{bail, ensure, Result};
use core::time::Duration;
use dvk::{payload, Endpoint, Message, Payload, Port, Then, Timeout};

pub(super) const CASES: &[Case] =
    &[Case::long("requests-under-load-are-served-once-and-in-order", load)];

const CLIENTS: u32 = 8;
const REQUESTS: u32 = 2_000;
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

fn serve(server: &Port) -> Result<Ledger, dvk::Error> {
    let mut ledger = Ledger::new();
    dvk::serve(server, |request| match Count::view(&request.message) {
        Ok(count) => {
            ledger.note(count);
            Then::Reply(count.message())
        }
        Err(_) if request.message.kind == STOP => Then::Stop,
        // One of those that get killed.
        Err(_) => Then::Reply(Message::new(0)),
    })?;
    Ok(ledger)
}

fn client(server: Endpoint, client: u32) -> Result<()> {
    let port = dvs::bind()?;
    for number in 0..REQUESTS {
        let sent = Count { client, number };
        let reply = port.sendrec(server, &sent.message(), Timeout::Forever)?;
        equal("reply", Count::view(&reply)?, sent)?;
    }
    Ok(())
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

fn load() -> Result<()> {
    let port = dvs::bind()?;
    let server = port.endpoint();
    let serving = blocked(move || serve(&port).map(|ledger| (ledger, port)))?;
    let clients: Vec<_> =
        (0..CLIENTS).map(|number| std::thread::spawn(move || client(server, number))).collect();
    let mut random = Random(0x5eed);
    let mut kills = 0;
    while kills < 5 || clients.iter().any(|client| !client.is_finished()) {
        let (mut puppet, _) = Puppet::bound(HOME)?;
        puppet.start(Order::Storm(server))?;
        std::thread::sleep(Duration::from_millis(random.below(20)));
        puppet.kill()?;
        kills += 1;
    }
    for client in clients {
        match client.join() {
            Ok(result) => result?,
            Err(_) => bail!("a client panicked"),
        }
    }
    dvs::bind()?.send(server, &Message::new(STOP), Timeout::Forever)?;
    let (ledger, port) = serving.join("the server to stop")??;
    if let Some(wrong) = ledger.wrong {
        bail!("{wrong}");
    }
    equal("requests served", ledger.expected, [REQUESTS; CLIENTS as usize])?;
    let info = port.info()?;
    equal("what the killed left behind", (info.senders, info.clients), (0, 0))?;
    let left = port.receive(Endpoint::ANY, Timeout::NoWait);
    ensure!(left.is_err(), "a message is left: {left:?}");
    Ok(())
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
