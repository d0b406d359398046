// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page that is shown when nobody presses a key: how the node is.

use std::time::{Duration, UNIX_EPOCH};

use dvs_api::{Event, Status, StatusState};

use crate::facts::{spoken, Facts};
use crate::screen::{room, wrapped, Body, Line, Size, Style};

/// Where values begin.
const MARGIN: usize = 14;
/// The most lines that one value takes, whatever somebody sends.
const LINES_MAX: usize = 6;
/// The most interfaces that are shown.
const INTERFACES_MAX: usize = 5;
/// Events below which addresses and interfaces are shortened.
const EVENTS_LEAST: usize = 3;
/// After this long without a word of it, something is wrong with the daemon.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who the node is: `node0 of lab`.
pub(crate) fn title(facts: &Facts) -> String {
    let status = facts.status.as_ref();
    let name = status.and_then(|status| status.name.as_deref()).unwrap_or("new node");
    let cluster = status.map(|status| status.cluster.as_str()).filter(|name| !name.is_empty());
    match cluster.or(facts.cluster.as_deref()) {
        Some(cluster) => format!("{name} of {cluster}"),
        None => name.to_owned(),
    }
}

/// The page.
pub(crate) fn body(facts: &Facts, events: &[Event], size: Size) -> Body {
    let mut body = Body::default();
    let (state, style, reasons) = state(facts);
    row(&mut body, "State", &state, style, size);
    for reason in &reasons {
        row(&mut body, "", reason, Style::Plain, size);
    }
    if let Some(Status { node: Some(id), name: Some(name), .. }) = &facts.status {
        row(&mut body, "Node", &format!("{name}, id {id}"), Style::Plain, size);
    }
    let addresses = facts.status.as_ref().map(|it| it.addresses.join("  ")).unwrap_or_default();
    let addresses = if addresses.is_empty() { "none yet".to_owned() } else { addresses };
    row(&mut body, "Addresses", &addresses, Style::Plain, size);
    let api = facts.api.as_deref().unwrap_or("on this machine only");
    row(&mut body, "API", api, Style::Plain, size);
    let Facts { uptime, version, kernel, .. } = facts;
    let release = format!("{}, dvs {version} on Linux {kernel}", spoken(*uptime));
    row(&mut body, "Up", &release, Style::Plain, size);
    body.gap();
    interfaces(&mut body, facts, size);
    body.gap();
    let help = help(facts);
    let left = room(size).saturating_sub(body.lines.len() + help.len() + 1);
    history(&mut body, events, left.max(EVENTS_LEAST), size);
    let left = room(size).saturating_sub(help.len());
    body.lines.truncate(left);
    body.lines.resize(left, Line::default());
    for (label, text) in help {
        row(&mut body, label, &text, Style::Plain, size);
    }
    body
}

/// How the node is: in a word, how that looks, and why.
fn state(facts: &Facts) -> (String, Style, Vec<String>) {
    if let Some(complaint) = &facts.complaint {
        let text = "stopped: the configuration cannot be used".to_owned();
        let remedy = "Correct the configuration and start the machine again.".to_owned();
        return (text, Style::Reverse, vec![complaint.clone(), remedy]);
    }
    let silence = facts.silence.as_ref().map(|silence| {
        let time = spoken(facts.uptime.saturating_sub(silence.since));
        format!("dvsd has not answered for {time}: {}", silence.why)
    });
    let Some(status) = &facts.status else {
        let style = if facts.uptime < PATIENCE { Style::Plain } else { Style::Reverse };
        let text = format!("starting since {}", spoken(facts.uptime));
        return (text, style, silence.into_iter().collect());
    };
    let name = match status.state {
        StatusState::Starting => "starting",
        StatusState::Discovering => "discovering",
        StatusState::Joining => "joining",
        StatusState::Ready => "ready",
        StatusState::Failed => "failed",
    };
    let count = match status.members {
        0 => String::new(),
        members => format!(", {} of {members} nodes ready", status.ready),
    };
    let mut reasons: Vec<_> = silence.into_iter().collect();
    let good =
        reasons.is_empty() && status.state != StatusState::Failed && status.ready == status.members;
    reasons.extend(Some(status.detail.clone()).filter(|detail| !detail.is_empty()));
    reasons.extend((!facts.absent.is_empty()).then(|| facts.absent.join(", ")));
    (format!("{name}{count}"), if good { Style::Bold } else { Style::Reverse }, reasons)
}

fn row(body: &mut Body, label: &str, text: &str, style: Style, size: Size) {
    let mut lines = wrapped(text, size.columns.saturating_sub(MARGIN + 1));
    if lines.len() > LINES_MAX {
        lines.truncate(LINES_MAX - 1);
        lines.push("...".into());
    }
    for (index, line) in lines.iter().enumerate() {
        let label = if index == 0 { label } else { "" };
        body.push(Line::styled(format!(" {label:0$}{line}", MARGIN - 1), style));
    }
}

fn interfaces(body: &mut Body, facts: &Facts, size: Size) {
    if facts.interfaces.is_empty() {
        row(body, "Interfaces", "none", Style::Plain, size);
    }
    for (index, interface) in facts.interfaces.iter().take(INTERFACES_MAX).enumerate() {
        let label = if index == 0 { "Interfaces" } else { "" };
        let (name, mac) = (&interface.name, &interface.mac);
        let text = format!("{name:10}{mac:19}{:18}{}", interface.state(), interface.purpose());
        row(body, label, &text, Style::Plain, size);
    }
    if facts.interfaces.len() > INTERFACES_MAX {
        let text = format!("and {} more", facts.interfaces.len() - INTERFACES_MAX);
        row(body, "", &text, Style::Plain, size);
    }
}

/// The last events, the newest last, each in one line.
fn history(body: &mut Body, events: &[Event], lines: usize, size: Size) {
    if events.is_empty() {
        row(body, "Events", "none yet", Style::Plain, size);
    }
    for (index, event) in events[events.len().saturating_sub(lines)..].iter().enumerate() {
        let label = if index == 0 { "Events" } else { "" };
        let text = format!("{}  {}", time(event), event.text);
        let text: String = text.chars().take(size.columns.saturating_sub(MARGIN + 1)).collect();
        row(body, label, &text, Style::Plain, size);
    }
}

/// The time of day of an event, in UTC, or how long after the cluster was formed it happened.
fn time(event: &Event) -> String {
    let moment = event.unix_ms.and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    match moment {
        Some(moment) => {
            let text = humantime::format_rfc3339_seconds(moment).to_string();
            text.get(5..19).unwrap_or(&text).replace('T', " ")
        }
        None => format!("+{:<13}", spoken(Duration::from_millis(event.at_ms))),
    }
}

/// How to get help.
fn help(facts: &Facts) -> Vec<(&'static str, String)> {
    let mine = match &facts.api {
        Some(api) => format!("dvsctl --endpoint {api} node list"),
        None => "give the node an address: network.management in its dvs.toml".to_owned(),
    };
    vec![
        ("Help", mine),
        ("", "dvsctl support collects what helps to find out what is wrong".into()),
    ]
}
