// SPDX-License-Identifier: MIT OR Apache-2.0
//! What people can see of the kernel's state and of what happens: tables and tracepoints.

use super::exchange::bind_shared;
use super::Case;
use crate::blocked::blocked;
use crate::check::{equal, fails};
use crate::dvs::{self, Scratch, HOME};
use crate::lent::Lent;
use crate::puppet::{Order, Puppet};
use crate::seen::{Listener, Table, TABLES};
use anyhow::{ensure, Context, Result};
use dvk::abi::ioctl::GRANT_READ;
use dvk::{Control, Endpoint, Errno, Limits, Message, Port, Slot, Timeout};
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

/// Why no case is run between nodes.
const WHY: &str = "a node shows what it knows";

pub(super) const CASES: &[Case] = &[
    Case::alone("debugfs-tables-have-a-field-for-every-column", WHY, fields),
    Case::alone("debugfs-tables-say-who-this-node-is", WHY, itself),
    Case::alone("debugfs-tables-list-what-is-bound", WHY, bound),
    Case::alone("debugfs-tables-say-who-waits-for-whom", WHY, waits),
    Case::alone("debugfs-tables-show-use-and-caps", WHY, caps),
    Case::alone("debugfs-tables-tell-of-nodes-and-links", WHY, nodes),
    Case::alone("debugfs-tables-list-once-what-stays", WHY, pieces).long(),
    Case::alone("debugfs-is-for-root", WHY, root_only),
    Case::alone("tracepoints-tell-of-calls", WHY, calls),
    Case::alone("tracepoints-tell-of-binds-and-links", WHY, binds),
];

/// A peer that is not there.
const PEER: u32 = 9;

fn fields() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    scratch.lease(64, 32)?;
    let _port = scratch.bind()?;
    control.endpoint_set_remote(scratch.id, Endpoint::from_raw(7 << 32 | 20), 3)?;
    control.node_up(PEER, 1)?;
    for name in TABLES {
        // Reading it checks every row.
        let table = Table::read(name)?;
        ensure!(!table.rows.is_empty(), "{name}: no rows");
    }
    // So that the next one to use this peer can begin anew.
    Ok(control.dvs_end()?)
}

fn itself() -> Result<()> {
    let table = Table::read("dvs")?;
    equal("rows", table.rows.len(), 1)?;
    let expected = ["0", "0000000000000001", "1"];
    equal("node, cluster, incarnation", table.pick(0, ["node", "cluster", "incarnation"]), expected)
}

fn bound() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    scratch.lease(64, 64)?;
    let remote = Endpoint::from_raw(7 << 32 | 20);
    control.endpoint_set_remote(scratch.id, remote, 3)?;
    let server = Port::bind(scratch.id, Slot::Server(21))?;
    let ports: Vec<Port> = (0..40).map(|_| scratch.bind()).collect::<Result<_, _>>()?;
    let mut expected: Vec<[String; 4]> = ports
        .iter()
        .chain([&server])
        .map(|port| (port.endpoint(), "0", "primary"))
        .chain([(remote, "3", "-")])
        .map(|(endpoint, node, role)| {
            [
                endpoint.slot().to_string(),
                endpoint.generation().to_string(),
                node.into(),
                role.into(),
            ]
        })
        .collect();
    expected.sort_by_key(|[slot, ..]| slot.parse::<u32>().ok());
    let listed = || -> Result<Vec<[String; 4]>> {
        let table = Table::read("endpoints")?.of("container", scratch.id);
        Ok((0..table.rows.len())
            .map(|row| table.pick(row, ["slot", "generation", "node", "role"]).map(str::to_owned))
            .collect())
    };
    equal("endpoints", listed()?, expected)?;
    drop((ports, server));
    equal("endpoints after their files are closed", listed()?.len(), 1)
}

fn waits() -> Result<()> {
    let (client, server) = (bind_shared()?, bind_shared()?);
    let seen = |of: &Port| -> Result<Vec<String>> {
        let columns = ["state", "waits_for", "senders", "clients", "notices", "received", "sent"];
        let table = Table::read("endpoints")?.of("container", HOME);
        let table = table.of("slot", of.endpoint().slot());
        equal("rows of an endpoint", table.rows.len(), 1)?;
        Ok(table.pick(0, columns).map(str::to_owned).to_vec())
    };
    equal("idle", seen(&client)?, words("idle - 0 0 0 0 0"))?;
    let (port, to) = (Arc::clone(&client), server.endpoint());
    let call = blocked(move || port.sendrec(to, &Message::new(1), Timeout::Forever))?;
    server.notify(client.endpoint(), 1)?;
    equal("client", seen(&client)?, words(&format!("sendrec {to} 0 0 1 0 1")))?;
    equal("server before it receives", seen(&server)?, words("idle - 1 0 0 0 1"))?;
    server.receive(Endpoint::ANY, Timeout::Forever)?;
    equal("server after that", seen(&server)?, words("idle - 0 1 0 1 1"))?;
    server.reply(client.endpoint(), &Message::new(2))?;
    call.join("sendrec to end")??;
    let port = Arc::clone(&server);
    let call = blocked(move || port.receive(Endpoint::ANY, Timeout::Forever))?;
    equal("server that waits", seen(&server)?, words("receive any 0 0 0 1 2"))?;
    client.notify(server.endpoint(), 1)?;
    call.join("receive to end")??;
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn caps() -> Result<()> {
    let limits = Limits { endpoints: 5, grants: 3, bytes: 1 << 20 };
    let scratch = Scratch::with(limits)?;
    scratch.lease(64, 32)?;
    let seen = |container: u32| -> Result<Vec<String>> {
        let columns =
            ["endpoints", "max_endpoints", "grants", "max_grants", "bytes", "max_bytes", "name"];
        let table = Table::read("containers")?.of("container", container);
        equal("rows of a container", table.rows.len(), 1)?;
        Ok(table.pick(0, columns).map(str::to_owned).to_vec())
    };
    equal("empty", seen(scratch.id)?, words("0 5 0 3 0 1048576 scratch"))?;
    let (granter, _other) = (scratch.bind()?, scratch.bind()?);
    Lent::new(&granter, 1, Endpoint::ANY, GRANT_READ)?;
    equal("used", seen(scratch.id)?, words("2 5 1 3 0 1048576 scratch"))?;
    drop(granter);
    equal("after an end", seen(scratch.id)?, words("1 5 0 3 0 1048576 scratch"))?;
    equal("a container without limits", seen(HOME)?[5].as_str(), "-")?;
    let control = Control::open()?;
    let id = scratch.id;
    drop(scratch);
    // No name makes a field more or less.
    for (name, written) in [("a b\\c", "a\\x20b\\x5cc"), ("", "-"), ("-", "\\x2d")] {
        control.dc_create(id, name, Limits::default())?;
        let seen = seen(id);
        control.dc_destroy(id)?;
        equal("name", seen?[6].as_str(), written)?;
    }
    Ok(())
}

fn nodes() -> Result<()> {
    let control = Control::open()?;
    let node = |of: u32| -> Result<Vec<String>> {
        let table = Table::read("nodes")?.of("node", of);
        equal("rows of a node", table.rows.len(), 1)?;
        Ok(table.pick(0, ["state", "incarnation"]).map(str::to_owned).to_vec())
    };
    control.node_up(PEER, 1_000_000)?;
    let while_up = node(PEER);
    let link = Table::read("links");
    control.node_down(PEER)?;
    equal("a node that is up", while_up?, words("up 1000000"))?;
    equal("a node that is down", node(PEER)?, words("down 1000000"))?;
    equal("this node", node(dvs::NODE)?, words("self 1"))?;
    let link = link?.of("node", PEER);
    equal("rows of a link", link.rows.len(), 1)?;
    let columns = ["transport", "interface", "address", "state", "rtt_us", "frames_sent", "copies"];
    equal("a link without transport", link.pick(0, columns).join(" "), "- - - down - 0 0".into())?;
    // So that the next one to use this peer can begin anew.
    control.dvs_end()?;
    equal("a node in no DVS", Table::read("nodes")?.rows.len(), 0)?;
    let table = Table::read("dvs")?;
    equal("who it is", table.pick(0, ["node", "cluster", "incarnation"]), ["-"; 3])
}

fn pieces() -> Result<()> {
    const SLOTS: u32 = 3072;
    // Each endpoint is an open file.
    let mut files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    files.current = files.maximum;
    rustix::process::setrlimit(rustix::process::Resource::Nofile, files)?;
    let scratch = Scratch::new(0)?;
    scratch.lease(64, SLOTS)?;
    let mut ports: Vec<Port> = (0..SLOTS - 32).map(|_| scratch.bind()).collect::<Result<_, _>>()?;
    // While the table is read a few bytes at a time, others come and go in between, and one in
    // eight of those that were there at first goes.
    let mut reader = Table::open("endpoints")?;
    let (mut text, mut piece) = (String::new(), [0; 1000]);
    let mut gone = 0;
    for step in 0.. {
        let len = std::io::Read::read(&mut reader, &mut piece)?;
        if len == 0 {
            break;
        }
        text += core::str::from_utf8(&piece[..len])?;
        drop(scratch.bind()?);
        if step % 8 == 0 && ports.len() > 64 {
            drop(ports.swap_remove(step % 64));
            gone += 1;
        }
    }
    let table = Table::parse("endpoints", &text)?.of("container", scratch.id);
    let mut listed: BTreeMap<u32, usize> = BTreeMap::new();
    for row in 0..table.rows.len() {
        let [slot] = table.pick(row, ["slot"]);
        *listed.entry(slot.parse()?).or_default() += 1;
    }
    ensure!(gone > 0, "nothing went while the table was read");
    ensure!(listed.values().all(|times| *times == 1), "a slot was listed twice");
    for port in &ports {
        let slot = port.endpoint().slot();
        ensure!(listed.contains_key(&slot), "slot {slot} was bound all the time and not listed");
    }
    Ok(())
}

fn root_only() -> Result<()> {
    let folder = std::fs::metadata(crate::seen::FOLDER).context("the folder of the tables")?;
    equal("mode of the folder", folder.permissions().mode() & 0o7777, 0o700)?;
    equal("owner of the folder", (folder.uid(), folder.gid()), (0, 0))?;
    for name in TABLES {
        let file = Table::open(name)?.metadata()?;
        equal("mode of a table", file.permissions().mode() & 0o7777, 0o400)?;
        equal("owner of a table", (file.uid(), file.gid()), (0, 0))?;
    }
    // The file system lets the owner pass, so it is the driver that refuses.
    let mut powerless = Puppet::new()?;
    equal("errors of root", powerless.obey(Order::TryTables)?, 0)?;
    powerless.obey(Order::LayDown)?;
    let refused = |errno: Errno| u64::from(errno.raw());
    let answer = powerless.obey(Order::TryTables)?;
    equal("errors without capabilities", answer, refused(Errno::NotPermitted))?;
    let answer = Puppet::of_user(65_534)?.obey(Order::TryTables)?;
    equal("errors of another user", answer, refused(Errno::Denied))
}

fn calls() -> Result<()> {
    let (client, server, gone) = (dvs::bind()?, bind_shared()?, dvs::bind()?.endpoint());
    let (c, s) = (client.endpoint(), server.endpoint());
    let listener = Listener::new()?;
    let port = Arc::clone(&server);
    let call = blocked(move || port.receive(Endpoint::ANY, Timeout::Forever))?;
    client.notify(s, 5)?;
    call.join("receive to end")??;
    let port = Arc::clone(&server);
    let call = blocked(move || {
        let request = port.receive(Endpoint::ANY, Timeout::Forever)?;
        port.reply(request.source(), &Message::new(2))
    })?;
    client.sendrec(s, &Message::new(1), Timeout::Forever)?;
    call.join("the server to end")??;
    fails("send", client.send(gone, &Message::new(1), Timeout::Forever), Errno::Stale)?;
    let lines = listener.lines()?;
    let expected = [
        format!("dvk_call_begin: container=0 endpoint={s} call=receive peer=4294967295.0"),
        format!("dvk_call_begin: container=0 endpoint={c} call=notify peer={s}"),
        format!("dvk_notify: container=0 endpoint={c} peer={s} bits=0x5"),
        format!("dvk_call_end: container=0 endpoint={c} call=notify peer={s} errno=0"),
        format!("dvk_call_end: container=0 endpoint={s} call=receive peer={c} errno=0"),
        format!("dvk_call_begin: container=0 endpoint={c} call=sendrec peer={s}"),
        format!("dvk_call_begin: container=0 endpoint={s} call=reply peer={c}"),
        format!("dvk_call_end: container=0 endpoint={s} call=reply peer={c} errno=0"),
        format!("dvk_call_end: container=0 endpoint={c} call=sendrec peer={s} errno=0"),
        format!("dvk_call_begin: container=0 endpoint={c} call=send peer={gone}"),
        format!("dvk_call_end: container=0 endpoint={c} call=send peer={gone} errno=116"),
    ];
    for line in &expected {
        ensure!(lines.contains(line), "no event {line:?} among:\n{}", lines.join("\n"));
    }
    listener.stop()?;
    let before = listener.lines()?.len();
    client.notify(s, 1)?;
    equal("events when nobody listens any more", listener.lines()?.len(), before)
}

fn binds() -> Result<()> {
    let (control, scratch) = (Control::open()?, Scratch::new(0)?);
    scratch.lease(64, 32)?;
    let listener = Listener::new()?;
    let port = scratch.bind()?;
    let endpoint = port.endpoint();
    drop(port);
    control.node_up(PEER, 2_000_000)?;
    control.node_down(PEER)?;
    let lines = listener.lines()?;
    let id = scratch.id;
    let ours: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with("dvk_call") && !line.contains("container=0 "))
        .collect();
    let expected = [
        format!("dvk_bind: container={id} endpoint={endpoint}"),
        format!("dvk_unbind: container={id} endpoint={endpoint}"),
        format!("dvk_link_state: node={PEER} event=node-up"),
        format!("dvk_link_state: node={PEER} event=node-down"),
    ];
    equal("events", ours, expected.iter().map(String::as_str).collect())?;
    Ok(control.dvs_end()?)
}
