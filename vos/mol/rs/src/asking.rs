// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a person asks, or has done.

use crate::board::{Board, Seen};
use crate::error::Error;
use crate::manifest::{Manifest, Placement};
use crate::report::{Report, Row, State, Told};
use dvk_services::Way;
use std::fmt::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);

/// All servers of the manifest, and where they are. What no node does anything about has a row without a node.
///
/// # Errors
/// [`Error::NoManifest`], [`Error::Manifest`].
pub fn rows(seen: &Seen) -> Result<Vec<Row>, Error> {
    let manifest = seen.manifest()?;
    let mut rows = Vec::new();
    for (name, definition) in &manifest.servers {
        let of = |(node, told): (&u32, &Told)| {
            let report = told.servers.iter().find(|report| report.server == *name)?;
            Some(Row { node: Some(*node), report: report.clone() })
        };
        let all: Vec<Row> = seen.told.iter().filter_map(of).collect();
        let is_idle = |row: &Row| {
            let state = row.report.state;
            row.report.once && matches!(state, State::Standby | State::Stopped)
        };
        let busy: Vec<Row> = all.into_iter().filter(|row| !is_idle(row)).collect();
        if busy.is_empty() {
            let is_stopped = seen.stopped.contains(name);
            rows.push(Row {
                node: None,
                report: Report {
                    server: name.clone(),
                    once: definition.placement.is_once(),
                    state: if is_stopped { State::Stopped } else { State::Waiting },
                    pid: None,
                    term: None,
                    since_ms: 0,
                    failures: 0,
                    last_exit: None,
                    detail: None,
                },
            });
        }
        rows.extend(busy);
    }
    Ok(rows)
}

/// What is missing until all servers run that are not stopped, on all nodes that have a reincarnation server.
///
/// # Errors
/// [`Error::NoManifest`], [`Error::Manifest`].
pub fn missing(seen: &Seen) -> Result<Vec<String>, Error> {
    let manifest = seen.manifest()?;
    let revision = seen.manifest.as_ref().map_or(0, |(_, revision)| *revision);
    let mut missing = Vec::new();
    for node in &seen.alive {
        match seen.told.get(node) {
            // What it tells is still of the manifest before.
            Some(told) if told.revision >= revision => {
                let old =
                    |it: &&Report| it.pid.is_some() && !manifest.servers.contains_key(&it.server);
                let old = told.servers.iter().filter(old);
                missing.extend(old.map(|it| format!("the end of {} on node {node}", it.server)));
            }
            _ => missing.push(format!("the manifest on node {node}")),
        }
    }
    for (name, definition) in &manifest.servers {
        if seen.stopped.contains(name) {
            continue;
        }
        let report_on =
            |node: &u32| seen.told.get(node)?.servers.iter().find(|report| report.server == *name);
        let runs = |node: &u32| report_on(node).is_some_and(|it| it.state == State::Running);
        match &definition.placement {
            Placement::Once { .. } => {
                if !seen.alive.iter().any(runs) {
                    missing.push(name.clone());
                }
            }
            Placement::Each(nodes) => {
                let allowed = seen.alive.iter().filter(|it| definition.placement.allows(**it));
                let not_there = allowed.filter(|node| !runs(node));
                missing.extend(not_there.map(|node| format!("{name} on node {node}")));
                if seen.alive.is_empty() || nodes.is_some() && !seen.alive.iter().any(runs) {
                    missing.push(name.clone());
                }
            }
        }
    }
    Ok(missing)
}

/// The rows for people; `now_ms` are those since 1970.
pub fn table(rows: &[Row], now_ms: u64) -> String {
    let mut text = String::new();
    let heading = ["SERVER", "NODE", "STATE", "PID", "SINCE", "FAILURES", "DETAIL"];
    let cells: Vec<[String; 7]> = rows
        .iter()
        .map(|Row { node, report }| {
            let number = |number: Option<u32>| number.map_or("-".to_owned(), |it| it.to_string());
            let since = match (report.since_ms, now_ms.saturating_sub(report.since_ms) / 1000) {
                (0, _) => "-".to_owned(),
                (_, s @ 0..=59) => format!("{s}s"),
                (_, s @ 60..=3_599) => format!("{}m{:02}s", s / 60, s % 60),
                (_, s) => format!("{}h{:02}m", s / 3_600, s / 60 % 60),
            };
            let ended = report.last_exit.as_ref().filter(|_| report.failures > 0);
            let detail = report.detail.clone().or(ended.cloned()).unwrap_or_default();
            [
                report.server.clone(),
                number(*node),
                report.state.to_string(),
                number(report.pid),
                since,
                report.failures.to_string(),
                detail,
            ]
        })
        .collect();
    let width = |at: usize| {
        let cells = cells.iter().map(|row| row[at].chars().count());
        cells.max().unwrap_or(0).max(heading[at].len())
    };
    let heading = heading.map(str::to_owned);
    for row in core::iter::once(&heading).chain(&cells) {
        let padded = row.iter().enumerate().map(|(at, cell)| format!("{cell:<0$}", width(at)));
        let line = padded.collect::<Vec<_>>().join("  ");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn known(manifest: &Manifest, name: &str) -> Result<Placement, Error> {
    let server = manifest.servers.get(name).ok_or_else(|| Error::NoServer {
        name: name.to_owned(),
        there: manifest.servers.keys().cloned().collect::<Vec<_>>().join(", "),
    })?;
    Ok(server.placement.clone())
}

/// Has a server go to another node, and waits until it runs there.
///
/// # Errors
/// [`Error`]; nothing is changed if the node cannot have it.
pub fn go<W: Way>(board: &Board<W>, name: &str, node: u32, limit: Duration) -> Result<(), Error> {
    let began = Instant::now();
    let seen = look(board, limit)?;
    let placement = known(&seen.manifest()?, name)?;
    let failed = |why: String| Error::NotMoved { name: name.to_owned(), node, why };
    if !placement.is_once() {
        return Err(failed("it runs on several nodes; change the manifest".to_owned()));
    }
    if seen.stopped.contains(name) {
        return Err(failed(format!("it is stopped; start it first, with `mol-rs start {name}`")));
    }
    if !placement.allows(node) {
        return Err(failed("that is none of the `nodes` in the manifest".to_owned()));
    }
    if !seen.alive.contains(&node) {
        let there: Vec<_> = seen.alive.iter().map(u32::to_string).collect();
        let there = there.join(", ");
        return Err(failed(format!("no mol-rs runs there; there is one on nodes {there}")));
    }
    board.prefer(name, node, rest(began, limit))?;
    wait(board, (began, limit), &format!("moving {name} to node {node}"), |seen| {
        let is_there = |report: &&Report| report.server == name;
        let there = seen.told.get(&node).and_then(|told| told.servers.iter().find(is_there));
        Ok(match there {
            Some(report) if report.state == State::Running => None,
            Some(report) => Some(format!("there it is {}", report.state)),
            None => Some("that node tells nothing of it".to_owned()),
        })
    })
}

/// Has a server be on no node, or where it belongs again, and waits for that.
///
/// # Errors
/// [`Error`].
pub fn switch<W: Way>(
    board: &Board<W>,
    name: &str,
    on: bool,
    limit: Duration,
) -> Result<(), Error> {
    let began = Instant::now();
    known(&look(board, limit)?.manifest()?, name)?;
    if on {
        board.start(name, rest(began, limit))?;
        return wait(board, (began, limit), &format!("starting {name}"), |seen| {
            let missing = missing(seen)?;
            let prefix = format!("{name} on node ");
            let is_of = |it: &&String| **it == name || it.starts_with(&prefix);
            let of: Vec<String> = missing.iter().filter(is_of).cloned().collect();
            Ok((!of.is_empty()).then(|| format!("{} does not run", of.join(", "))))
        });
    }
    board.stop(name, rest(began, limit))?;
    wait(board, (began, limit), &format!("stopping {name}"), |seen| {
        let all = seen.told.iter();
        let all = all.flat_map(|(node, told)| told.servers.iter().map(move |it| (node, it)));
        let mut left = all.filter(|(_, it)| it.server == name && it.pid.is_some());
        Ok(left.next().map(|(node, _)| format!("node {node} still has a process of it")))
    })
}

/// Waits until `mol-rs` runs on some nodes, so that a server goes at once where it is to be.
///
/// # Errors
/// [`Error`].
pub fn wait_for_nodes<W: Way>(
    board: &Board<W>,
    nodes: &[u32],
    limit: Duration,
) -> Result<(), Error> {
    let what = "nothing was changed: having mol-rs on all nodes";
    wait(board, (Instant::now(), limit), what, |seen| {
        let away: Vec<_> = nodes.iter().filter(|node| !seen.alive.contains(node)).collect();
        Ok((!away.is_empty()).then(|| format!("it is not on {away:?}")))
    })
}

/// Waits until all servers run, and `mol-rs` on some nodes; tells what is missing, each time that it is something else.
///
/// # Errors
/// [`Error`].
pub fn wait_for_all<W: Way>(
    board: &Board<W>,
    nodes: &[u32],
    limit: Duration,
    mut tell: impl FnMut(&str),
) -> Result<(), Error> {
    let mut told = String::new();
    wait(board, (Instant::now(), limit), "having all servers run", |seen| {
        let away = nodes.iter().filter(|node| !seen.alive.contains(node));
        let mut missing = missing(seen)?;
        missing.extend(away.map(|node| format!("mol-rs on node {node}")));
        let text = format!("missing: {}", missing.join(", "));
        if !missing.is_empty() && text != told {
            tell(&text);
            told.clone_from(&text);
        }
        Ok((!missing.is_empty()).then_some(text))
    })
}

/// How much is left of a limit.
fn rest(began: Instant, limit: Duration) -> Duration {
    limit.saturating_sub(began.elapsed())
}

/// Looks, and insists for at most `limit` while nobody leads.
fn look<W: Way>(board: &Board<W>, limit: Duration) -> Result<Seen, Error> {
    let began = Instant::now();
    loop {
        match board.look() {
            Err(error) if error.is_leaderless() && began.elapsed() < limit => sleep(LOOK),
            other => return other,
        }
    }
}

/// Waits until nothing is missing any more, at most so long from when it began.
fn wait<W: Way>(
    board: &Board<W>,
    (began, limit): (Instant, Duration),
    what: &str,
    mut missing: impl FnMut(&Seen) -> Result<Option<String>, Error>,
) -> Result<(), Error> {
    loop {
        let seen = look(board, rest(began, limit))?;
        let Some(now) = missing(&seen)? else { return Ok(()) };
        if began.elapsed() >= limit {
            return Err(Error::Late { what: what.to_owned(), seconds: limit.as_secs(), now });
        }
        sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(server: &str, state: State) -> Report {
        Report {
            server: server.to_owned(),
            once: false,
            state,
            pid: Some(7),
            term: None,
            since_ms: 0,
            failures: 0,
            last_exit: None,
            detail: None,
        }
    }

    #[test]
    fn what_a_node_tells_of_the_manifest_before_does_not_count() {
        let manifest = "[[server]]\nname = \"a\"\ncommand = [\"/bin/a\"]\neach = true\n";
        let mut seen = Seen { manifest: Some((manifest.to_owned(), 7)), ..Seen::default() };
        seen.alive.insert(2);
        let mut missing = |revision, servers: &[Report]| {
            seen.told.insert(2, Told { revision, servers: servers.to_vec() });
            missing(&seen).unwrap().join(", ")
        };
        assert_eq!(missing(6, &[report("a", State::Running)]), "the manifest on node 2");
        assert_eq!(missing(7, &[report("a", State::Stopping)]), "a on node 2");
        let both = [report("a", State::Running), report("b", State::Stopping)];
        assert_eq!(missing(7, &both), "the end of b on node 2");
        assert_eq!(missing(8, &both[..1]), "");
    }
}
