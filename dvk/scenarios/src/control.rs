// SPDX-License-Identifier: MIT OR Apache-2.0
//! Control calls, an order each; answered with `done`, what came of it if there is something to
//! tell, or with `failed` and why.

use std::time::Duration;

use anyhow::{bail, Context, Result};
use dvk::{Control, Endpoint, Lease, Limits, Message, Migration, Port, Slot, Timeout, Transport};

use crate::say;
use crate::server::STOP;

/// For a server that is in a call, or a link that is slow.
const PATIENCE: Timeout = Timeout::After(Duration::from_secs(10));
/// Slots that each node leases.
const SLOTS: u32 = 32;

/// Takes orders until there are no more.
pub(crate) fn run() -> Result<()> {
    let control = Control::open()?;
    for line in std::io::stdin().lines() {
        let line = line?;
        match obey(&control, &line)? {
            Ok(told) => say(&format!("done {told}"))?,
            Err(error) => say(&format!("failed {error}"))?,
        }
    }
    Ok(())
}

fn obey(control: &Control, line: &str) -> Result<Result<String, dvk::Error>> {
    let (verb, arguments) = line.split_once(' ').context("an order without arguments")?;
    let (arguments, state) = match arguments.split_once(" state ") {
        Some((arguments, state)) => (arguments, bytes(state)?),
        None => (arguments, Vec::new()),
    };
    let arguments: Result<Vec<u64>, _> = arguments.split_whitespace().map(str::parse).collect();
    let arguments = arguments.with_context(|| format!("numbers in {line}"))?;
    let number = |at: usize| -> Result<u32> {
        Ok((*arguments.get(at).with_context(|| format!("more arguments in {line}"))?).try_into()?)
    };
    let endpoint =
        |at: usize| arguments.get(at).map(|raw| Endpoint::from_raw(*raw)).context("an endpoint");
    let migration = || -> Result<Migration> {
        Ok(Migration {
            container: number(0)?,
            endpoint: endpoint(1)?,
            source: number(2)?,
            destination: number(3)?,
            epoch: number(4)?,
        })
    };
    let nothing = |result: Result<(), dvk::Error>| result.map(|()| String::new());
    Ok(match verb {
        // CONTAINER NODES GENERATION
        "create" => nothing(create(control, number(0)?, number(1)?, number(2)?)),
        // CONTAINER
        "destroy" => nothing(control.dc_destroy(number(0)?)),
        // CONTAINER ENDPOINT NODE
        "remote" => nothing(control.endpoint_set_remote(number(0)?, endpoint(1)?, number(2)?)),
        // CONTAINER ENDPOINT SOURCE DESTINATION EPOCH
        "start" => control.migrate_start(&migration()?, PATIENCE).map(|state| hex(&state)),
        // … state STATE
        "follow" => nothing(control.migrate_follow(&migration()?, &state, PATIENCE)),
        "commit" => nothing(control.migrate_commit(&migration()?)),
        "rollback" => nothing(control.migrate_rollback(&migration()?)),
        // CONTAINER ENDPOINT NODE EPOCH
        "promote" => {
            let (container, node, epoch) = (number(0)?, number(2)?, number(3)?);
            nothing(control.promote_backup(container, endpoint(1)?, node, epoch))
        }
        // NODE
        "transport" => control.link_info(number(0)?).map(|info| info.transport.to_string()),
        // NODE ADDRESS, as a number
        "ethernet" => {
            let [_, _, address @ ..] = arguments.get(1).context("an address")?.to_be_bytes();
            let interface = std::fs::read_to_string("/sys/class/net/eth0/ifindex")?;
            let interface = interface.trim_end().parse()?;
            nothing(control.link_attach(number(0)?, Transport::Ethernet { interface, address }))
        }
        // BYTES
        "mtu" => {
            std::fs::write("/sys/class/net/eth0/mtu", number(0)?.to_string())?;
            Ok(String::new())
        }
        // CONTAINER ENDPOINT
        "stop" => nothing(stop(number(0)?, endpoint(1)?)),
        _ => bail!("no such order: {line}"),
    })
}

fn create(
    control: &Control,
    container: u32,
    nodes: u32,
    generation: u32,
) -> Result<(), dvk::Error> {
    control.dc_create(container, "scenario", Limits::default())?;
    for node in 0..nodes {
        control.dc_add_node(&Lease {
            container,
            node,
            first_slot: 64 + node * SLOTS,
            slots: SLOTS,
            first_generation: generation,
            reserved: 0,
        })?;
    }
    Ok(())
}

/// Lets a server end that serves.
fn stop(container: u32, server: Endpoint) -> Result<(), dvk::Error> {
    let port = Port::bind(container, Slot::Any)?;
    port.sendrec(server, &Message::new(STOP), PATIENCE).map(drop)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2).context("half a byte"));
    pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}
