// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cluster's agreement, and keys and values.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use dvs_api::{
    ClusterStatus, KvChanges, KvCompare, KvDone, KvOperation, KvRange, KvResult, KvTransaction,
    KvValue,
};

use crate::arguments::{KvCommand, Output, PutArguments};
use crate::cluster::Cluster;
use crate::table::Table;
use crate::{print, Failure};

/// How long a node is asked to wait for a change.
const WAIT_MS: u64 = 20_000;

pub(crate) fn status(cluster: &Cluster, output: Output) -> Result<ExitCode, Failure> {
    let status: ClusterStatus = cluster.any("/v1/cluster")?;
    print(output, &status, || {
        let mut table = Table::new(&[]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        let or = |text: &str, without: &str| {
            if text.is_empty() {
                without.to_owned()
            } else {
                text.to_owned()
            }
        };
        let node = |node: u32| format!("node {node}");
        row("cluster", or(&status.name, "not agreed on yet"));
        row("id", or(&status.id, "not agreed on yet"));
        row("leader", status.leader.map_or("none".into(), node));
        row(
            "majority",
            if status.majority { "yes" } else { "no: nothing can be agreed on" }.into(),
        );
        row("term", status.term.to_string());
        row("applied", format!("{} of {}", status.applied, status.last));
        row("snapshot", status.snapshot.to_string());
        row("version", status.version.to_string());
        row("answered by", node(status.node));
        if let Some(trouble) = &status.trouble {
            row("trouble", trouble.clone());
        }
        let mut members = Table::new(&["NODE", "NAME", "ROLE", "HEARD", "MEMBER"]);
        for member in &status.members {
            let leads = member.voter && Some(member.node) == status.leader;
            let role = match (leads, member.voter) {
                (true, _) => "leader",
                (false, true) => "voter",
                (false, false) => "learner",
            };
            let heard = if member.heard { "yes" } else { "no" };
            members.row([
                member.node.to_string(),
                member.name.clone(),
                role.into(),
                heard.into(),
                member.member.clone(),
            ]);
        }
        format!("{table}\n{members}")
    })?;
    Ok(match status.majority && status.leader.is_some() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

pub(crate) fn kv(
    cluster: &Cluster,
    output: Output,
    command: &KvCommand,
) -> Result<ExitCode, Failure> {
    match command {
        KvCommand::Get { key, stale } => get(cluster, output, key, *stale),
        KvCommand::Put(put) => self::put(cluster, output, put),
        KvCommand::Delete { key, prefix } => {
            let delete = KvOperation::Delete { key: key.clone(), prefix: *prefix };
            let done =
                transact(cluster, &KvTransaction { then: vec![delete], ..Default::default() })?;
            let count = match done.results[..] {
                [KvResult::Deleted(count)] => count,
                _ => 0,
            };
            print(output, &done, || match count {
                1 => "1 key was deleted\n".into(),
                count => format!("{count} keys were deleted\n"),
            })?;
            Ok(ExitCode::SUCCESS)
        }
        KvCommand::List { prefix, limit, stale } => {
            let limit = limit.map(|limit| format!("&limit={limit}")).unwrap_or_default();
            let path = format!("/v1/kv?prefix={}&stale={stale}{limit}", escaped(prefix));
            let range: KvRange = cluster.any(&path)?;
            print(output, &range, || list(&range))?;
            Ok(ExitCode::SUCCESS)
        }
        KvCommand::Watch { prefix, from, count } => watch(cluster, output, prefix, *from, *count),
        KvCommand::Txn { file } => {
            let text = read(file)?;
            let transaction: KvTransaction = serde_json::from_str(&text)
                .map_err(|error| Failure::Refused(format!("{}: {error}", file.display())))?;
            let done = transact(cluster, &transaction)?;
            print(output, &done, || done_text(&done))?;
            Ok(if done.held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn read(file: &Path) -> Result<String, Failure> {
    let text = match file == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => std::fs::read_to_string(file),
    };
    text.map_err(|error| Failure::Refused(format!("read {}: {error}", file.display())))
}

/// Proposes it once, to a node that is able to: it must not be done twice.
fn transact(cluster: &Cluster, transaction: &KvTransaction) -> Result<KvDone, Failure> {
    Ok(cluster.agreeing()?.post("/v1/kv", transaction)?)
}

fn get(cluster: &Cluster, output: Output, key: &str, stale: bool) -> Result<ExitCode, Failure> {
    let path = format!("/v1/kv?key={}&stale={stale}", escaped(key));
    let range: KvRange = cluster.any(&path)?;
    let Some(pair) = range.pairs.first() else {
        return Err(Failure::Refused(format!("there is no key {key}")));
    };
    match output {
        Output::Json | Output::Yaml => print(output, pair, String::new)?,
        Output::Table | Output::Wide => {
            let garbled = || Failure::Refused(format!("the node's answer has no value for {key}"));
            let bytes = pair.value.bytes().ok_or_else(garbled)?;
            let mut stdout = io::stdout().lock();
            stdout.write_all(&bytes)?;
            // So that the prompt of a shell does not follow it on the same line.
            if io::IsTerminal::is_terminal(&stdout) && !bytes.ends_with(b"\n") {
                stdout.write_all(b"\n")?;
            }
            stdout.flush()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn put(cluster: &Cluster, output: Output, put: &PutArguments) -> Result<ExitCode, Failure> {
    let PutArguments { key, value, if_absent, if_modified, lease } = put;
    let value = match value.as_str() {
        "-" => {
            let mut bytes = Vec::new();
            let read = io::stdin().read_to_end(&mut bytes);
            read.map_err(|error| Failure::Refused(format!("read the value from stdin: {error}")))?;
            KvValue::of(bytes)
        }
        text => KvValue::Text(text.to_owned()),
    };
    let modified = if *if_absent { Some(0) } else { *if_modified };
    let compare = modified.map(|modified| KvCompare {
        key: key.clone(),
        modified: Some(modified),
        value: None,
    });
    let then = vec![KvOperation::Put { key: key.clone(), value, lease: *lease }];
    let otherwise = match compare {
        Some(_) => vec![KvOperation::Get { key: key.clone() }],
        None => Vec::new(),
    };
    let transaction = KvTransaction { compare: compare.into_iter().collect(), then, otherwise };
    let done = transact(cluster, &transaction)?;
    if done.held {
        print(output, &done, || format!("revision {}\n", done.revision))?;
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::Refused(match &done.results[..] {
        [KvResult::Got(Some(pair))] => format!(
            "key {key} was not written: revision {} wrote it last; look at it again",
            pair.modified
        ),
        _ => format!("key {key} was not written: there is no such key any more; look again"),
    }))
}

fn list(range: &KvRange) -> String {
    let mut table = Table::new(&["KEY", "VALUE", "REVISION", "VERSION", "LEASE"]);
    for pair in &range.pairs {
        table.row([
            pair.key.escape_debug().to_string(),
            shown(&pair.value),
            pair.modified.to_string(),
            pair.version.to_string(),
            pair.lease.map(|lease| lease.to_string()).unwrap_or_default(),
        ]);
    }
    let left = range.count - range.pairs.len() as u64;
    let left = if left > 0 { format!("and {left} more\n") } else { String::new() };
    format!("{table}{left}")
}

/// A value on one line.
fn shown(value: &KvValue) -> String {
    const MOST: usize = 60;
    match value {
        KvValue::Text(text) => {
            let shown: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
            if text.chars().count() > MOST {
                shown + "…"
            } else {
                shown
            }
        }
        KvValue::Bytes(bytes) => format!("{} bytes", bytes.hex.len() / 2),
    }
}

fn done_text(done: &KvDone) -> String {
    let mut text = match done.held {
        true => format!("all comparisons held; revision {}\n", done.revision),
        false => format!("a comparison did not hold; revision {}\n", done.revision),
    };
    for result in &done.results {
        text += &match result {
            KvResult::Got(Some(pair)) => format!("{} = {}\n", pair.key, shown(&pair.value)),
            KvResult::Got(None) => "no such key\n".into(),
            KvResult::Put => "written\n".into(),
            KvResult::Deleted(count) => format!("{count} deleted\n"),
        };
    }
    text
}

fn watch(
    cluster: &Cluster,
    output: Output,
    prefix: &str,
    from: Option<u64>,
    count: Option<u64>,
) -> Result<ExitCode, Failure> {
    let mut next = match from {
        Some(from) => from,
        None => cluster.any::<KvChanges>("/v1/kv/changes")?.revision + 1,
    };
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let prefix = escaped(prefix);
        let path = format!("/v1/kv/changes?prefix={prefix}&from={next}&wait_ms={WAIT_MS}");
        let found: KvChanges = cluster.any_within(&path, WAIT_MS)?;
        for change in found.changes.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            print(output, change, || match &change.pair {
                Some(pair) => {
                    format!("{} put {} {}\n", change.revision, change.key, shown(&pair.value))
                }
                None => format!("{} delete {}\n", change.revision, change.key),
            })?;
        }
        next = found.revision + 1;
    }
    Ok(ExitCode::SUCCESS)
}

/// A text as it stands in a query (RFC 3986, 2.1).
pub(crate) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().fold(String::new(), |mut escaped, byte| {
        match plain(byte) {
            true => escaped.push(byte.into()),
            false => escaped += &format!("%{byte:02X}"),
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_and_values_fit_on_a_line() {
        assert_eq!(escaped("a/b c&ü%"), "a/b%20c%26%C3%BC%25");
        assert_eq!(shown(&KvValue::Text("a\nb".into())), "a\\nb");
        assert_eq!(shown(&KvValue::Text("x".repeat(61))), "x".repeat(60) + "…");
        assert_eq!(shown(&KvValue::of(vec![0xff, 0])), "2 bytes");
    }
}
