// SPDX-License-Identifier: MIT OR Apache-2.0
//! M3-IPC: the DVK's messages, and its copies out of what a peer grants.

use super::{Address, Client, Pair, Server};
use anyhow::{Context, Result};
use dvk::{
    Access, Control, DvsInit, Endpoint, Errno, GrantId, Lease, Limits, Loan, Message, Port, Slot,
    Timeout,
};

/// The container in which the pairs talk.
const CONTAINER: u32 = 0;

/// Makes a DVS of this node alone, or finds it made.
fn dvs() -> Result<()> {
    let exists_or = |result: Result<(), dvk::Error>| match result {
        Err(error) if error.is(Errno::Exists) => Ok(()),
        other => other,
    };
    let control = Control::open()?;
    exists_or(control.dvs_init(&DvsInit { cluster: 1, node: 0, incarnation: 1 }))?;
    exists_or(control.dc_create(CONTAINER, "bench", Limits::default()))?;
    control.dc_add_node(&Lease {
        container: CONTAINER,
        node: 0,
        first_slot: 64,
        slots: 128,
        first_generation: 1,
        reserved: 0,
    })?;
    Ok(())
}

/// Each binds in its own process; the server's endpoint is the address.
pub(super) fn round_trip() -> Result<Pair> {
    dvs().context("making a DVS")?;
    let bind = || Port::bind(CONTAINER, Slot::Any);
    let server = move || -> Result<(Address, Server)> {
        let port = bind()?;
        let address = [port.endpoint().raw(), 0];
        let serve: Server = Box::new(move || {
            let mut received = port.receive(Endpoint::ANY, Timeout::Forever)?;
            loop {
                let (to, reply) = (received.source(), Message::new(2));
                received = port.reply_receive(to, &reply, Endpoint::ANY, Timeout::Forever)?;
            }
        });
        Ok((address, serve))
    };
    let client = move |[server, _]: Address| -> Result<Client> {
        let (port, server) = (bind()?, Endpoint::from_raw(server));
        Ok(Box::new(move |count| {
            let message = Message::new(1);
            for _ in 0..count {
                port.sendrec(server, &message, Timeout::Forever)?;
            }
            Ok(())
        }))
    };
    Ok(Pair { server: Box::new(server), client: Box::new(client), kept: Box::new(()) })
}

/// The server lends its block and does nothing; the client copies. The endpoint and the grant are the address.
pub(super) fn copy(bytes: u32) -> Result<Pair> {
    dvs().context("making a DVS")?;
    let bytes = bytes as usize;
    let server = move || -> Result<(Address, Server)> {
        // The process ends with the loan, and the port is to live as long.
        let port: &'static Port = Box::leak(Box::new(Port::bind(CONTAINER, Slot::Any)?));
        let loan = Loan::new(port, Endpoint::ANY, bytes, Access::Read)?;
        loan.write(0, &vec![2; bytes]);
        let address = [port.endpoint().raw(), loan.grant().raw()];
        let serve: Server = Box::new(move || {
            let _lent = loan;
            loop {
                std::thread::park();
            }
        });
        Ok((address, serve))
    };
    let client = move |[server, grant]: Address| -> Result<Client> {
        let port = Port::bind(CONTAINER, Slot::Any)?;
        let from = GrantId::from_raw(grant).of(Endpoint::from_raw(server), 0);
        let mut block = vec![1; bytes];
        Ok(Box::new(move |count| {
            for _ in 0..count {
                port.copy_from(from, &mut block, Timeout::Forever)?;
            }
            Ok(())
        }))
    };
    Ok(Pair { server: Box::new(server), client: Box::new(client), kept: Box::new(()) })
}
