// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which file server a virtual OS has.

use mol_fs::run::Servers;
use mol_rs::board::Seen;
use mol_rs::error::Error;
use mol_rs::manifest::Definition;
use mol_rs::report::State;
use serde::Serialize;
use std::path::Path;

/// The program that is one.
const PROGRAM: &str = "mol-fs";

/// A file server, by the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileServer {
    /// Its name in the manifest.
    pub name: String,
    /// By what its clients find it.
    pub servers: Servers,
    /// On which nodes it runs, as clients find it.
    pub nodes: Vec<u32>,
}

/// Where a file server is, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// By what its clients find it: a slot or a group.
    pub server: String,
    /// On which nodes it runs or stands by. One in a slot is found on these only.
    pub nodes: Vec<u32>,
    /// The endpoint of the one that serves for a group, `SLOT.GENERATION`, if one does.
    pub endpoint: Option<String>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nobody knows which servers there are.
    #[error("which file server is meant has to be said with --server SLOT|GROUP: {0}")]
    Manifest(#[from] Error),
    /// The manifest has none.
    #[error("no server of the manifest is a file server (mol-fs serve); name one that was started otherwise with --server SLOT|GROUP")]
    None,
    /// It has several.
    #[error("there are several file servers: {0}; say with --server which one is meant")]
    Several(String),
}

/// The only file server of a virtual OS.
///
/// # Errors
/// [`FindError`].
pub fn only(seen: &Seen) -> Result<FileServer, FindError> {
    let mut all = all(seen)?;
    match (all.pop(), all.is_empty()) {
        (None, _) => Err(FindError::None),
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            all.push(last);
            let named = |one: &FileServer| format!("{} ({})", one.servers, one.name);
            Err(FindError::Several(all.iter().map(named).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// All of them.
fn all(seen: &Seen) -> Result<Vec<FileServer>, FindError> {
    let mut found: Vec<FileServer> = Vec::new();
    for (name, definition) in &seen.manifest()?.servers {
        let runs = |told: &mol_rs::report::Told| {
            let mut servers = told.servers.iter();
            servers.any(|report| report.server == *name && report.state == State::Running)
        };
        let nodes: Vec<u32> =
            seen.told.iter().filter(|(_, told)| runs(told)).map(|(node, _)| *node).collect();
        if nodes.is_empty() {
            // It may be on its way.
            let servers = served(definition, 0);
            let one = |servers| FileServer { name: name.clone(), servers, nodes: Vec::new() };
            found.extend(servers.map(one));
        }
        for node in nodes {
            let Some(servers) = served(definition, node) else { continue };
            match found.iter_mut().find(|one| one.servers == servers && one.name == *name) {
                Some(one) => one.nodes.push(node),
                None => found.push(FileServer { name: name.clone(), servers, nodes: vec![node] }),
            }
        }
    }
    Ok(found)
}

/// As what a server is found on a node, if it is a file server that clients find.
fn served(definition: &Definition, node: u32) -> Option<Servers> {
    let command = definition.command_on(node);
    let (program, words) = command.split_first()?;
    let is_one = Path::new(program).file_name().is_some_and(|name| name == PROGRAM);
    if !is_one || words.first().map(String::as_str) != Some("serve") {
        return None;
    }
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) => (option, Some(value)),
            None => (word.as_str(), None),
        };
        if matches!(option, "--group" | "--slot") {
            return value.or_else(|| words.next().map(String::as_str))?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use mol_rs::report::{Report, Told};

    const FILES: &str = r#"
[[server]]
name = "disks"
command = ["/bin/mol-vdd", "serve", "--group", "disks"]
[[server]]
name = "files"
command = ["/bin/mol-fs", "serve", "--group", "site", "--disk", "a=vdd:disks/0"]
each = true
"#;

    fn seen(text: &str, running: &[(u32, &str)]) -> Seen {
        let mut seen = Seen { manifest: Some((text.to_owned(), 1)), ..Seen::default() };
        for (node, server) in running {
            let report = Report {
                server: (*server).to_owned(),
                once: false,
                state: State::Running,
                pid: Some(7),
                term: None,
                since_ms: 1,
                failures: 0,
                last_exit: None,
                detail: None,
            };
            let told = seen.told.entry(*node).or_insert_with(Told::default);
            told.servers.push(report);
        }
        seen
    }

    #[test]
    fn the_only_file_server_is_found_where_it_runs() {
        let group = |nodes: &[u32]| FileServer {
            name: "files".into(),
            servers: Servers::Group("site".into()),
            nodes: nodes.to_vec(),
        };
        let running = [(0, "disks"), (0, "files"), (2, "files")];
        assert_eq!(only(&seen(FILES, &running)).unwrap(), group(&[0, 2]));
        assert_eq!(only(&seen(FILES, &[])).unwrap(), group(&[]));
        let slot = FILES.replace(r#""--group", "site""#, r#""--slot=7""#);
        assert_eq!(only(&seen(&slot, &running[..2])).unwrap().servers, Servers::Slot(7));
    }

    #[test]
    fn none_and_several_are_told() {
        let (disks, _) = FILES.split_at(FILES.rfind("[[server]]").unwrap());
        let error = only(&seen(disks, &[])).unwrap_err();
        assert!(matches!(error, FindError::None), "{error}");
        let error = only(&Seen::default()).unwrap_err();
        assert!(error.to_string().contains("--server"), "{error}");
        let each = FILES.replace("site", "site{node}");
        let error = only(&seen(&each, &[(0, "files"), (1, "files")])).unwrap_err();
        let expected = "there are several file servers: site0 (files), site1 (files); say";
        assert!(error.to_string().starts_with(expected), "{error}");
        let other = FILES.replace(r#""serve", "--group", "site""#, r#""check", "--group", "x""#);
        assert!(matches!(only(&seen(&other, &[])), Err(FindError::None)));
    }
}
