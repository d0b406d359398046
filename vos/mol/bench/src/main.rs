// SPDX-License-Identifier: MIT OR Apache-2.0
//! Takes orders until there are no more, and answers each with a line.
#![forbid(unsafe_code)]

mod place;
mod transfer;

use anyhow::{Context, Result};
use dvk::{Access, Endpoint, Loan, Port, Slot, Timeout};
use mol_bench::{Answer, Order};
use std::io::Write;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The interface by which the nodes see each other.
const INTERFACE: &str = "eth0";
/// How long a server may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mol-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// That an order makes no sense is an error; that it cannot be carried out is an answer.
fn run() -> Result<()> {
    let mut dvk = PathBuf::from("/dev/dvk");
    for line in std::io::stdin().lines() {
        let line = line?;
        let order = serde_json::from_str(&line).with_context(|| format!("no order: {line}"))?;
        let answer = match obey(&mut dvk, order) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(format!("{error:#}")),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn obey(dvk: &mut PathBuf, order: Order) -> Result<Answer> {
    let open =
        || Port::open(&*dvk, Slot::Any).with_context(|| format!("opening {}", dvk.display()));
    Ok(match order {
        Order::Join(device) => {
            *dvk = device;
            Answer::Done
        }
        Order::Find(slot) => {
            let found = open()?.wait_bind(slot, Timeout::After(PATIENCE));
            Answer::At(found.with_context(|| format!("waiting for slot {slot}"))?.raw())
        }
        Order::Lend(bytes) => lend(open()?, usize::try_from(bytes)?)?,
        Order::Address => Answer::Address(address()?),
        Order::Move(place, transfer) => {
            let took = transfer::run(dvk, &place, &transfer);
            let what =
                || format!("to {} {} bytes of {place:?}", transfer.work.name(), transfer.bytes);
            Answer::Took(u64::try_from(took.with_context(what)?.as_nanos())?)
        }
    })
}

/// Lends memory until the program ends.
fn lend(port: Port, bytes: usize) -> Result<Answer> {
    let port: &'static Port = Box::leak(Box::new(port));
    let loan = Loan::new(port, Endpoint::ANY, bytes, Access::ReadWrite).context("lending")?;
    let grant = loan.grant().raw();
    std::mem::forget(loan);
    Ok(Answer::Lent { endpoint: port.endpoint().raw(), grant })
}

fn address() -> Result<Ipv6Addr> {
    let path = "/proc/net/if_inet6";
    let table = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    link_local(&table).with_context(|| format!("{INTERFACE} has no link-local address: {path}"))
}

/// The link-local address of the interface in Linux's table of addresses.
fn link_local(table: &str) -> Option<Ipv6Addr> {
    table.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_it = words.last() == Some(&INTERFACE) && line.starts_with("fe80");
        is_it.then(|| u128::from_str_radix(words[0], 16).ok()).flatten().map(Ipv6Addr::from_bits)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_the_cluster() {
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe800000000000000000000000000009 03 40 20 80     mgmt0\n\
                     fd000000000000000000000000000001 02 40 00 80     eth0\n\
                     fe800000000000005054000000000101 02 40 20 80     eth0\n";
        assert_eq!(link_local(table), Some("fe80::5054:0:0:101".parse().unwrap()));
        assert_eq!(link_local(""), None);
    }
}
