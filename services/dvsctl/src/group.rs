// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl group`: members that all see the same, in the same order.

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::{self, sleep};

use dvs_api::{
    Group, GroupAcknowledged, GroupAcknowledgement, GroupContent, GroupDelivery, GroupJoin,
    GroupMember, GroupMessage, GroupPosition, KvValue,
};

use crate::agreed::escaped;
use crate::arguments::{GroupCommand, GroupJoinArguments, Output};
use crate::cluster::{Cluster, Error, RETRY};
use crate::lease::Held;
use crate::table::Table;
use crate::{print, Failure};

/// How long a node is asked to wait while there are messages to send.
const BUSY_MS: u64 = 20;

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &GroupCommand,
) -> Result<ExitCode, Failure> {
    match command {
        GroupCommand::Join(arguments) => join(cluster, output, arguments)?,
        GroupCommand::List => {
            let groups: Vec<Group> = cluster.any("/v1/groups")?;
            print(output, &groups, || list(&groups))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn join(cluster: &Cluster, output: Output, arguments: &GroupJoinArguments) -> Result<(), Failure> {
    let GroupJoinArguments { group, name, ttl_s, send } = arguments;
    let mut held = Held::begin(cluster, *ttl_s, "dvsctl group join")?;
    let lines = send.then(lines);
    let taken = take_part(&mut held, output, group, name, lines);
    // Ending the lease leaves the group; it ends by itself if it cannot be ended.
    let _ = held.end();
    taken
}

/// Lines of standard input, read beside everything else.
fn lines() -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    // It ends with the input, or with the program.
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Prints what is delivered, and sends lines, until there are no more and all of them have come back.
fn take_part(
    held: &mut Held<'_>,
    output: Output,
    group: &str,
    name: &str,
    mut lines: Option<Receiver<String>>,
) -> Result<(), Failure> {
    let (cluster, lease) = (held.cluster(), held.lease());
    let request = GroupJoin { group: group.to_owned(), lease, name: name.to_owned() };
    let joined: GroupPosition = cluster.first(|endpoint| endpoint.post("/v1/groups", &request))?;
    let mut next = joined.position.unwrap_or_default();
    let (mut sent, mut back) = (0, 0);
    let (mut pending, mut is_over) = (None::<GroupMessage>, false);
    let mut names: Vec<GroupMember> = Vec::new();
    loop {
        held.keep()?;
        if let (Some(from), None) = (&lines, &pending) {
            match from.try_recv() {
                Ok(line) => {
                    sent += 1;
                    let (group, payload) = (group.to_owned(), KvValue::Text(line));
                    pending = Some(GroupMessage { group, lease, number: sent, payload });
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => (lines, is_over) = (None, true),
            }
        }
        if let Some(message) = &pending {
            let answer = cluster
                .first(|endpoint| endpoint.post::<GroupPosition>("/v1/groups/messages", message));
            match answer {
                Ok(_) => pending = None,
                // The same number again is the same message, whatever became of it.
                Err(Error::Refused { status: 504, .. }) => sleep(RETRY),
                Err(error) if error.is_passing() => sleep(RETRY),
                Err(error) => return Err(error.into()),
            }
        }
        if is_over && pending.is_none() && back == sent {
            return Ok(());
        }
        let wait_ms = if lines.is_some() { BUSY_MS } else { held.wait_ms() };
        let escaped = escaped(group);
        let path = format!(
            "/v1/groups/deliveries?group={escaped}&lease={lease}&from={next}&wait_ms={wait_ms}"
        );
        // Without a majority nothing is delivered, and it is later, as long as the lease lasts.
        let Some(deliveries) = cluster.in_time::<Vec<GroupDelivery>>(&path, wait_ms)? else {
            continue;
        };
        for delivery in &deliveries {
            match &delivery.content {
                GroupContent::View { members, .. } => names.clone_from(members),
                GroupContent::Message { sender, number, .. } if *sender == lease => back = *number,
                GroupContent::Message { .. } => {}
            }
            print(output, delivery, || line(delivery, &names))?;
        }
        let Some(up_to) = deliveries.last().map(|last| last.position) else { continue };
        next = up_to + 1;
        let taken = GroupAcknowledgement { group: group.to_owned(), lease, up_to };
        let path = "/v1/groups/acknowledge";
        // What is not acknowledged now is with what comes next.
        let _ = cluster.first(|endpoint| endpoint.post::<GroupAcknowledged>(path, &taken));
    }
}

fn line(delivery: &GroupDelivery, names: &[GroupMember]) -> String {
    match &delivery.content {
        GroupContent::View { members, .. } => {
            let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
            format!("-- members: {}\n", names.join(", "))
        }
        GroupContent::Message { sender, payload, .. } => {
            let of_sender = names.iter().find(|member| member.lease == *sender);
            let name = of_sender.map_or("?", |member| member.name.as_str());
            let text = match payload {
                KvValue::Text(text) => text.clone(),
                KvValue::Bytes(bytes) => format!("0x{}", bytes.hex),
            };
            format!("{name}: {text}\n")
        }
    }
}

fn list(groups: &[Group]) -> String {
    let mut table = Table::new(&["GROUP", "DELIVERED", "LEASE", "MEMBER"]);
    for Group { name, last, members } in groups {
        for member in members {
            let (last, lease) = (last.to_string(), member.lease.to_string());
            table.row([name.clone(), last, lease, member.name.clone()]);
        }
    }
    table.to_string()
}
