// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether histories are as the DVK promises, whatever was done to the cluster meanwhile.
//!
//! | rule | |
//! |---|---|
//! | whole | a witness whose node kept its power wrote its history to the end, and nothing that nobody sent reached it |
//! | names | no endpoint comes back: no two witnesses, of whatever lives, had the same |
//! | once | what was received was received once, by the server that it was for, as what it was sent as |
//! | delivered | what a client knows to be received was received |
//! | withdrawn | what a client knows not to be received was not |
//! | order | numbers of one client are received in the order in which they were sent |
//! | incarnation | nothing of an earlier life of a node is received after something of a later one |
//! | bits | no bits come that were not set, nor more often than they were set |
//! | bytes | what was stored is what is fetched; a reply is to what was asked |
//! | errors | what failed, failed for a reason that the reference names for it |
//! | local | within a node nothing fails, whatever happens between nodes |
//! | healed | when all faults are over, everything succeeds |
//!
//! Of a node that lost power, the end of the history is missing. It is a beginning of what was, so that a number may be missing
//! in it only if no later number of the same client is there.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Call, Event, History};

/// How many successes of a client show that everything works again.
const SUCCESSES: usize = 3;
/// Errors of calls to another node while there are faults.
const ERRORS: [&str; 6] =
    ["ETIMEDOUT", "EHOSTUNREACH", "ENOTCONN", "ESTALE", "ESRCH", "EOWNERDEAD"];

/// One call of a client.
#[derive(Clone, Copy, Debug)]
struct Did<'h> {
    client: u64,
    call: Call,
    number: u64,
    server: u64,
    result: &'h str,
    healed: bool,
}

/// A number that a server received.
#[derive(Clone, Copy, Debug)]
struct Took {
    /// Index of the server's history.
    by: usize,
    call: Call,
}

/// Where an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Home {
    /// Index of the history.
    history: usize,
    node: usize,
    life: u32,
}

/// Checks all rules, and says what violates them.
pub(super) fn check(histories: &[History]) -> Vec<String> {
    let mut found = Vec::new();
    let homes = homes(histories, &mut found);
    let dids: Vec<Vec<Did<'_>>> = histories.iter().map(dids).collect();
    let took = receptions(histories, &homes, &mut found);
    for (history, dids) in histories.iter().zip(&dids) {
        whole(history, &mut found);
        for did in dids {
            outcome(histories, history, did, &homes, &took, &mut found);
        }
        healed(history, dids, &mut found);
    }
    bits(histories, &dids, &homes, &mut found);
    found
}

/// The endpoints of all lives of all nodes.
fn homes(histories: &[History], found: &mut Vec<String>) -> BTreeMap<u64, Home> {
    let mut homes = BTreeMap::new();
    for (index, history) in histories.iter().enumerate() {
        let &History { node, life, .. } = history;
        for event in &history.events {
            let (Event::Serves { server: endpoint } | Event::Bound { client: endpoint }) = event
            else {
                continue;
            };
            if let Some(Home { node: other, life: then, .. }) =
                homes.insert(*endpoint, Home { history: index, node, life })
            {
                found.push(format!(
                    "names: {} was of node{other}, life {then}, and of node{node}, life {life}",
                    shown(*endpoint)
                ));
            }
        }
    }
    homes
}

fn dids(history: &History) -> Vec<Did<'_>> {
    let did = |event| match event {
        &Event::Did { client, call, number, server, ref result, healed } => {
            Some(Did { client, call, number, server, result, healed })
        }
        _ => None,
    };
    history.events.iter().filter_map(did).collect()
}

/// What each server received, by client and number; checks the rules that are about receiving alone.
fn receptions(
    histories: &[History],
    homes: &BTreeMap<u64, Home>,
    found: &mut Vec<String>,
) -> BTreeMap<(u64, u64), Took> {
    let mut all = BTreeMap::new();
    let some_are_cut = histories.iter().any(|history| history.cut);
    for (by, history) in histories.iter().enumerate() {
        let own = history.server();
        let place = format!("node{}, life {}", history.node, history.life);
        let mut last = BTreeMap::<u64, u64>::new();
        // The latest life of each node that was heard of.
        let mut lives = BTreeMap::<usize, u32>::new();
        for event in &history.events {
            let source = match *event {
                Event::Took { source, .. } | Event::Bits { source, .. } => source,
                _ => continue,
            };
            match homes.get(&source) {
                Some(home) => {
                    let latest = lives.entry(home.node).or_default();
                    if home.life < *latest {
                        found.push(format!(
                            "incarnation: {place} heard of life {} of node{} after it had heard of life {latest}: {event:?}",
                            home.life, home.node
                        ));
                    }
                    *latest = home.life.max(*latest);
                }
                // The line that says whose it is can have been lost with the power of its node.
                None if some_are_cut => {}
                None => found.push(format!("whole: {place} heard of nobody: {event:?}")),
            }
            let &Event::Took { call, number, to, .. } = event else { continue };
            if Some(to) != own {
                found.push(format!("once: {place} took what was for {}: {event:?}", shown(to)));
            }
            if all.insert((source, number), Took { by, call }).is_some() {
                found.push(format!("once: {place} took what had been taken before: {event:?}"));
            }
            if let Some(before) = last.insert(source, number).filter(|before| *before > number) {
                found.push(format!("order: {place} took {before} before {event:?}"));
            }
        }
    }
    all
}

/// The rules about one witness alone.
fn whole(history: &History, found: &mut Vec<String>) {
    let place = format!("node{}, life {}", history.node, history.life);
    for event in &history.events {
        match event {
            Event::Garbled { .. } => found.push(format!("whole: at {place}: {event:?}")),
            Event::Deaf { .. } => found.push(format!("errors: at {place}: {event:?}")),
            // Whoever waits no longer, for whatever reason, is not to be answered.
            Event::Late { error, .. } if error == "EAGAIN" => {}
            Event::Late { .. } => found.push(format!("errors: at {place}: {event:?}")),
            _ => {}
        }
    }
    if !history.cut && history.events.last() != Some(&Event::End) {
        found.push(format!("whole: the history of {place} has no end"));
    }
}

/// The rules about one call.
fn outcome(
    histories: &[History],
    history: &History,
    did: &Did<'_>,
    homes: &BTreeMap<u64, Home>,
    took: &BTreeMap<(u64, u64), Took>,
    found: &mut Vec<String>,
) {
    let &Did { client, call, number, server, result, healed } = did;
    let mut violates = |rule: &str, why: &str| {
        let place = format!("node{}, life {}", history.node, history.life);
        let (client, server) = (shown(client), shown(server));
        let phase = if healed { " when all was healed" } else { "" };
        found.push(format!(
            "{rule}: at {place}, {call:?} {number} of {client} to {server}{phase}: {result}{why}"
        ));
    };
    if ["strange", "corrupt"].contains(&result) {
        violates("bytes", "");
    } else if result != "ok" {
        let limit = result == "ENOSPC" && call == Call::Notify;
        if !ERRORS.contains(&result) && !limit {
            violates("errors", "");
        }
        if homes.get(&server).is_some_and(|home| home.node == history.node) {
            violates("local", "");
        }
    }
    if !matches!(call, Call::Send | Call::Request) {
        return;
    }
    let received = took.get(&(client, number));
    if let Some(received) = received {
        if received.call != call {
            violates("once", &format!(", but it was taken as {:?}", received.call));
        }
        let at = histories[received.by].server();
        if at != Some(server) {
            violates("once", &format!(", but it was taken by {}", shown(at.unwrap_or_default())));
        }
        let is_known_not_to_be = match result {
            "ESTALE" | "ESRCH" => true,
            // Of a request, it is the answer that did not come in time.
            "ETIMEDOUT" => call == Call::Send,
            _ => false,
        };
        if is_known_not_to_be {
            violates("withdrawn", ", but it was taken");
        }
    } else if result == "ok" {
        let lost_with_the_power = homes.get(&server).is_some_and(|home| {
            let later = took.range((client, number)..=(client, u64::MAX));
            histories[home.history].cut && !later.into_iter().any(|(_, one)| one.by == home.history)
        });
        if !lost_with_the_power {
            violates("delivered", ", but it was not taken");
        }
    }
}

/// What is begun when all faults are over succeeds, and something is begun by every client.
fn healed(history: &History, dids: &[Did<'_>], found: &mut Vec<String>) {
    let place = format!("node{}, life {}", history.node, history.life);
    let mut successes = BTreeMap::<u64, usize>::new();
    for event in &history.events {
        if let Event::Bound { client } = event {
            successes.insert(*client, 0);
        }
    }
    for did in dids.iter().filter(|did| did.healed) {
        if did.result == "ok" {
            *successes.entry(did.client).or_default() += 1;
        } else {
            let &Did { client, call, number, server, result, .. } = did;
            let (client, server) = (shown(client), shown(server));
            found.push(format!(
                "healed: at {place}, {call:?} {number} of {client} to {server}: {result}"
            ));
        }
    }
    if history.cut {
        return;
    }
    for (client, count) in successes {
        if count < SUCCESSES {
            let client = shown(client);
            found.push(format!("healed: at {place}, {client} had only {count} successes"));
        }
    }
}

/// Bits that came were set, as often; and those set when all was healed came.
fn bits(
    histories: &[History],
    dids: &[Vec<Did<'_>>],
    homes: &BTreeMap<u64, Home>,
    found: &mut Vec<String>,
) {
    // By client, server and bit: how often it was set, how often it came, and whether it must have come.
    let mut all = BTreeMap::<(u64, u64, u32), (u32, u32, bool)>::new();
    for did in dids.iter().flatten().filter(|did| did.call == Call::Notify) {
        let bit = (did.number / 8 % 64) as u32;
        let entry = all.entry((did.client, did.server, bit)).or_default();
        entry.0 += 1;
        entry.2 |= did.healed && did.result == "ok";
    }
    for history in histories {
        for event in &history.events {
            let &Event::Bits { source, bits } = event else { continue };
            for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                let entry = all.entry((source, history.server().unwrap_or_default(), bit));
                entry.or_default().1 += 1;
            }
        }
    }
    let is_cut =
        |endpoint: &u64| homes.get(endpoint).is_none_or(|home| histories[home.history].cut);
    for ((client, server, bit), (set, came, due)) in all {
        let names = format!("bit {bit} of {} to {}", shown(client), shown(server));
        if came > set && !is_cut(&client) {
            found.push(format!("bits: {names} came {came} times and was set {set} times"));
        }
        if due && came == 0 && !is_cut(&server) {
            found.push(format!("bits: {names} was set when all was healed, and did not come"));
        }
    }
}

/// How people write an endpoint.
fn shown(endpoint: u64) -> String {
    format!("{}.{}", endpoint & 0xffff_ffff, endpoint >> 32)
}

/// The rules that are violated, for a short account.
pub(super) fn rules(found: &[String]) -> BTreeSet<&str> {
    found.iter().filter_map(|text| text.split(':').next()).collect()
}

#[cfg(test)]
mod tests;
