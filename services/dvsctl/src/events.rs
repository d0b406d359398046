// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has happened to the cluster.

use std::time::{Duration, UNIX_EPOCH};

use dvs_api::{Event, Events};

use crate::arguments::{EventsArguments, Output};
use crate::cluster::Cluster;
use crate::table::Table;
use crate::{print, Failure};

/// How long a node is asked to wait for an event.
const WAIT_MS: u64 = 20_000;

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    arguments: &EventsArguments,
) -> Result<(), Failure> {
    let mut after = arguments.after;
    let mut all = Vec::new();
    let mut left = arguments.count.unwrap_or(u64::MAX);
    // What is there already, which may take several answers.
    loop {
        let found: Events = cluster.any(&format!("/v1/events?after={after}"))?;
        if found.missed > 0 && after > 0 {
            eprintln!("note: {} events are no longer kept", found.missed);
        }
        let ended = found.events.is_empty();
        after = found.last;
        let wanted = |event: &Event| is_wanted(arguments, event, found.now_ms);
        all.extend(found.events.into_iter().filter(wanted));
        if ended {
            break;
        }
    }
    if !arguments.follow {
        return print(output, &all, || table(&all));
    }
    let mut first = all.into_iter();
    loop {
        for event in first.by_ref() {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            print(output, &event, || line(&event))?;
        }
        if left == 0 {
            return Ok(());
        }
        let path = format!("/v1/events?after={after}&wait_ms={WAIT_MS}");
        let found: Events = cluster.any_within(&path, WAIT_MS)?;
        if found.missed > 0 {
            eprintln!("note: {} events are no longer kept", found.missed);
        }
        after = found.last;
        let wanted = |event: &Event| is_wanted(arguments, event, found.now_ms);
        first = found.events.into_iter().filter(wanted).collect::<Vec<_>>().into_iter();
    }
}

fn is_wanted(arguments: &EventsArguments, event: &Event, now_ms: u64) -> bool {
    let age_ms = u128::from(now_ms.saturating_sub(event.at_ms));
    arguments.since.is_none_or(|since| age_ms <= since.as_millis())
        && arguments.node.is_none_or(|node| event.nodes.contains(&node))
        && (arguments.kind.is_empty() || arguments.kind.contains(&event.kind))
}

/// The time of day if a leader has said what it is, else the agreed time.
fn time(event: &Event) -> String {
    match event.unix_ms {
        Some(ms) => {
            let time = UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH);
            humantime::format_rfc3339_millis(time).to_string()
        }
        None => format!("+{:.3} s", event.at_ms as f64 / 1000.0),
    }
}

fn table(events: &[Event]) -> String {
    let mut table = Table::new(&["NUMBER", "TIME", "KIND", "WHAT"]);
    for event in events {
        let Event { number, kind, text, .. } = event;
        table.row([number.to_string(), time(event), kind.clone(), text.clone()]);
    }
    table.to_string()
}

fn line(event: &Event) -> String {
    let Event { number, kind, text, .. } = event;
    format!("{number} {} {kind} {text}\n", time(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_chosen_by_age_node_and_kind_and_stamped_as_well_as_can_be() {
        let event = Event {
            number: 7,
            at_ms: 61_500,
            unix_ms: Some(1_000),
            kind: "node-down".into(),
            nodes: vec![3],
            text: "node 3 is not heard any more".into(),
        };
        let all = EventsArguments {
            follow: false,
            since: None,
            after: 0,
            node: None,
            kind: Vec::new(),
            count: None,
        };
        let since = |s| EventsArguments { since: Some(Duration::from_secs(s)), ..all.clone() };
        assert!(is_wanted(&all, &event, 100_000));
        assert!(is_wanted(&since(39), &event, 100_000) && !is_wanted(&since(38), &event, 100_000));
        let of = |node| EventsArguments { node: Some(node), ..all.clone() };
        assert!(is_wanted(&of(3), &event, 0) && !is_wanted(&of(2), &event, 0));
        let kind = |kind: &str| EventsArguments { kind: vec![kind.into()], ..all.clone() };
        assert!(
            is_wanted(&kind("node-down"), &event, 0) && !is_wanted(&kind("node-up"), &event, 0)
        );
        assert_eq!(
            line(&event),
            "7 1970-01-01T00:00:01.000Z node-down node 3 is not heard any more\n"
        );
        assert_eq!(time(&Event { unix_ms: None, ..event }), "+61.500 s");
    }
}
