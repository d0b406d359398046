// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl group`: members that all see the same, in the same order.

use std::io::BufRead;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use dvs_api::{
    Group, GroupAcknowledged, GroupAcknowledgement, GroupContent, GroupDelivery, GroupJoin,
    GroupMember, GroupMessage, GroupPosition, KvValue,
};

use crate::agreed::escaped;
use crate::arguments::{GroupCommand, GroupJoinArguments, Output};
use crate::cluster::{Cluster, Error, ANSWER};
use crate::lease::Held;
use crate::table::Table;
use crate::{print, Failure};

/// Lines and answers that are read before those before them were dealt with.
const AHEAD: usize = 16;

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
    let taken = take_part(&mut held, output, group, name, *send);
    // Ending the lease leaves the group; it ends by itself if it cannot be ended.
    let _ = held.end();
    taken
}

/// What a member waits for.
enum Arrival {
    /// A line of standard input.
    Line(String),
    /// Standard input has ended.
    End,
    /// What comes next in the group's stream; an error is the end of it.
    Deliveries(Result<Vec<GroupDelivery>, Error>),
}

/// Reads standard input. It ends with the input, or with the program.
fn read_lines(to: SyncSender<Arrival>) {
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if to.send(Arrival::Line(line)).is_err() {
                return;
            }
        }
        let _ = to.send(Arrival::End);
    });
}

/// Reads the group's stream from a position on, a request after the other. It ends with what it gives to, or with the program.
fn read_stream(held: &Held<'_>, group: &str, mut from: u64, to: SyncSender<Arrival>) {
    let (cluster, wait_ms) = (held.cluster().clone(), held.wait_ms());
    let (group, lease) = (escaped(group), held.lease());
    thread::spawn(move || loop {
        let path = format!(
            "/v1/groups/deliveries?group={group}&lease={lease}&from={from}&wait_ms={wait_ms}"
        );
        // Without a majority nothing is delivered, and it is later, as long as the lease lasts.
        let found = cluster.in_time::<Vec<GroupDelivery>>(&path, wait_ms);
        let found = found.map(Option::unwrap_or_default);
        let failed = found.is_err();
        if let Ok(Some(last)) = found.as_ref().map(|found| found.last()) {
            from = last.position + 1;
        }
        if to.send(Arrival::Deliveries(found)).is_err() || failed {
            return;
        }
    });
}

/// Prints what is delivered, and sends lines, until there are no more and all of them have come back.
fn take_part(
    held: &mut Held<'_>,
    output: Output,
    group: &str,
    name: &str,
    send: bool,
) -> Result<(), Failure> {
    let lease = held.lease();
    let request = GroupJoin { group: group.to_owned(), lease, name: name.to_owned() };
    let joined: GroupPosition =
        held.insist(|endpoint| endpoint.post_within("/v1/groups", &request, ANSWER))?;
    let (to, arrivals) = mpsc::sync_channel(AHEAD);
    read_stream(held, group, joined.position.unwrap_or_default(), to.clone());
    if send {
        read_lines(to);
    }
    let (mut sent, mut back, mut is_over) = (0, 0, false);
    let mut names: Vec<GroupMember> = Vec::new();
    while !(is_over && back == sent) {
        held.keep()?;
        let deliveries = match arrivals.recv_timeout(Duration::from_millis(held.wait_ms())) {
            Ok(Arrival::Line(line)) => {
                sent += 1;
                let (group, payload) = (group.to_owned(), KvValue::Text(line));
                let message = GroupMessage { group, lease, number: sent, payload };
                // The same number again is the same message, whatever became of it.
                held.insist(|endpoint| {
                    endpoint.post_within::<GroupPosition>("/v1/groups/messages", &message, ANSWER)
                })?;
                continue;
            }
            Ok(Arrival::End) => {
                is_over = true;
                continue;
            }
            Ok(Arrival::Deliveries(deliveries)) => deliveries?,
            // The stream is read until it ends with an error, which comes first.
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => continue,
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
        let taken = GroupAcknowledgement { group: group.to_owned(), lease, up_to };
        let path = "/v1/groups/acknowledge";
        // What is not acknowledged now is with what comes next.
        let _ = held
            .cluster()
            .first(|endpoint| endpoint.post_within::<GroupAcknowledged>(path, &taken, ANSWER));
    }
    Ok(())
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
