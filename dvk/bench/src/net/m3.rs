// SPDX-License-Identifier: MIT OR Apache-2.0
//! The DVK between nodes: messages, and copies into and out of what a peer on another node has lent.

use std::time::Duration;

use anyhow::{Context, Result};
use dvk::{
    Access, Control, Endpoint, Errno, GrantId, Lease, Limits, Loan, Message, Port, Slot, Timeout,
};
use dvk_bench::{Server, Work};

use super::{in_thread, Client, BLOCK_BYTES_MAX};

/// The container in which the programs talk; the services of the nodes have another.
const CONTAINER: u32 = 60;
/// Slots of each node.
const SLOTS: u32 = 32;
/// After this long without an answer, something hangs.
const PATIENCE: Timeout = Timeout::After(Duration::from_secs(30));

/// Makes the container, which spans as many nodes.
pub(super) fn join(nodes: u32) -> Result<()> {
    let control = Control::open()?;
    match control.dc_create(CONTAINER, "bench", Limits::default()) {
        Err(error) if !error.is(Errno::Exists) => return Err(error.into()),
        _ => {}
    }
    for node in 0..nodes {
        control.dc_add_node(&Lease {
            container: CONTAINER,
            node,
            first_slot: 64 + node * SLOTS,
            slots: SLOTS,
            first_generation: 1,
            reserved: 0,
        })?;
    }
    Ok(())
}

/// Answers messages, and returns the endpoint.
pub(super) fn answer() -> Result<u64> {
    let port = Port::bind(CONTAINER, Slot::Any).context("binding the server's endpoint")?;
    let endpoint = port.endpoint().raw();
    in_thread(move || {
        let mut received = port.receive(Endpoint::ANY, Timeout::Forever)?;
        loop {
            let (to, reply) = (received.source(), Message::new(2));
            let next = port.reply_receive(to, &reply, Endpoint::ANY, Timeout::Forever);
            received = match next {
                // The client has given up, and is not to take the server with it.
                Err(error) if error.is(Errno::WouldBlock) => {
                    port.receive(Endpoint::ANY, Timeout::Forever)?
                }
                next => next?,
            };
        }
    });
    Ok(endpoint)
}

/// Lends memory, and returns the endpoint that does and the grant.
pub(super) fn lend() -> Result<(u64, u64)> {
    // The program ends with the loan, and the port is to live as long.
    let port: &'static Port =
        Box::leak(Box::new(Port::bind(CONTAINER, Slot::Any).context("binding the lender")?));
    let loan = Loan::new(port, Endpoint::ANY, BLOCK_BYTES_MAX, Access::ReadWrite)?;
    loan.write(0, &vec![2; BLOCK_BYTES_MAX]);
    let grant = loan.grant().raw();
    std::mem::forget(loan);
    Ok((port.endpoint().raw(), grant))
}

/// Talks to the one endpoint, and copies from and to what the other has lent.
pub(super) fn client(server: &Server, number: u32) -> Result<Client> {
    let port = Port::bind(CONTAINER, Slot::Any).context("binding the client's endpoint")?;
    let answers = server.answers.get(number as usize).context("a client without a server")?;
    let answers = Endpoint::from_raw(*answers);
    let lent = GrantId::from_raw(server.grant).of(Endpoint::from_raw(server.lends), 0);
    let mut block = vec![1; BLOCK_BYTES_MAX];
    Ok(Box::new(move |work, count| {
        let message = Message::new(1);
        for _ in 0..count {
            match work {
                Work::RoundTrip => drop(port.sendrec(answers, &message, PATIENCE)?),
                Work::Fetch(bytes) => {
                    port.copy_from(lent, &mut block[..bytes as usize], PATIENCE)?
                }
                Work::Store(bytes) => port.copy_to(lent, &block[..bytes as usize], PATIENCE)?,
            }
        }
        Ok(())
    }))
}
