// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl support`: everything that helps to find out what is wrong, in one file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use dvs_api::{KernelLog, KernelTables, Log, Logs, MachineConfig, Version, LOG_LINES_MAX};
use serde::Serialize;

use crate::arguments::{Output, SupportArguments};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::{print, Failure};

/// What is asked of every node as it is.
const ANSWERS: [(&str, &str); 10] = [
    ("version.json", "/v1/version"),
    ("status.json", "/v1/status"),
    ("nodes.json", "/v1/nodes"),
    ("links.json", "/v1/links"),
    ("segment.json", "/v1/segment"),
    ("usage.json", "/v1/usage"),
    ("cluster.json", "/v1/cluster"),
    ("locks.json", "/v1/locks"),
    ("events.json", "/v1/events"),
    ("metrics.txt", "/metrics"),
];

/// What was collected.
#[derive(Debug, Serialize)]
struct Collected {
    file: PathBuf,
    bytes: u64,
    files: usize,
    /// What could not be had, which is in the file as well.
    errors: Vec<String>,
}

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    arguments: &SupportArguments,
) -> Result<ExitCode, Failure> {
    let now = SystemTime::now();
    let stamp = humantime::format_rfc3339_seconds(now).to_string().replace(':', "");
    let file =
        arguments.file.clone().unwrap_or_else(|| format!("dvs-support-{stamp}.tar.zst").into());
    let refused = |error: io::Error| Failure::Refused(format!("write {}: {error}", file.display()));
    let mut archive = Archive::create(&file, now).map_err(refused)?;
    let mut errors = Vec::new();
    let client = format!("dvsctl {}\n", env!("CARGO_PKG_VERSION"));
    archive.add("dvsctl.txt", &client).map_err(refused)?;
    let mut reached = 0;
    for (number, endpoint) in cluster.endpoints().iter().enumerate() {
        let found = collect(endpoint, &mut errors);
        reached += usize::from(!found.is_empty());
        // Nodes by their ids; one that has none, or is reached twice, by its place among the endpoints.
        let node = found.iter().find(|(name, _)| name == "version.json");
        let node = node.and_then(|(_, text)| serde_json::from_str::<Version>(text).ok()?.node);
        let folder = match node.map(|node| format!("node{node}")) {
            Some(folder) if !archive.folders.contains(&folder) => folder,
            _ => format!("endpoint{number}"),
        };
        archive.folders.push(folder.clone());
        for (name, text) in found {
            archive.add(&format!("{folder}/{name}"), &text).map_err(refused)?;
        }
    }
    archive
        .add("errors.txt", &errors.iter().fold(String::new(), |all, one| all + one + "\n"))
        .map_err(refused)?;
    let files = archive.files;
    archive.finish().map_err(refused)?;
    let bytes = std::fs::metadata(&file).map_err(refused)?.len();
    let collected = Collected { file, bytes, files, errors };
    print(output, &collected, || {
        let Collected { file, bytes, files, .. } = &collected;
        format!("{}: {files} files of {reached} nodes, {bytes} bytes\n", file.display())
    })?;
    collected.errors.iter().for_each(|error| eprintln!("error: {error}"));
    Ok(if collected.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks one node for everything. No answer has a secret in it: a node gives none away.
fn collect(endpoint: &Endpoint, errors: &mut Vec<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, path) in ANSWERS {
        match endpoint.text(path) {
            Ok(text) => found.push((name.to_owned(), text)),
            Err(error @ (Error::Unreachable(_) | Error::Untrusted(_))) => {
                // Nor will it answer the rest.
                errors.push(error.to_string());
                return found;
            }
            Err(error) => errors.push(format!("{path}: {error}")),
        }
    }
    let mut more = |what: Result<Vec<(String, String)>, Error>| match what {
        Ok(files) => found.extend(files),
        Err(error) => errors.push(error.to_string()),
    };
    more(
        endpoint
            .get("/v1/config")
            .map(|config: MachineConfig| vec![("config.toml".to_owned(), config.toml)]),
    );
    more(endpoint.get("/v1/kernel/log").map(|log: KernelLog| {
        let line = |record: &dvs_api::KernelRecord| {
            let dvs_api::KernelRecord { number, time_us, level, text } = record;
            format!("{number} {time_us} us <{level}> {text}\n")
        };
        vec![("dmesg.txt".to_owned(), log.records.iter().map(line).collect())]
    }));
    more(endpoint.get("/v1/kernel/tables").map(|all: KernelTables| {
        all.tables.into_iter().map(|(name, text)| (format!("dvk/{name}"), text)).collect()
    }));
    match endpoint.get("/v1/logs") {
        Ok(Logs { services, .. }) => {
            for service in services {
                let path = format!("/v1/logs/{service}?lines={LOG_LINES_MAX}");
                more(endpoint.get(&path).map(|log: Log| {
                    let text = log.lines.iter().fold(String::new(), |all, line| all + line + "\n");
                    vec![(format!("logs/{service}.log"), text)]
                }));
            }
        }
        Err(error) => errors.push(error.to_string()),
    }
    found
}

/// A compressed archive under way.
struct Archive {
    tar: tar::Builder<zstd::Encoder<'static, File>>,
    modified_s: u64,
    files: usize,
    folders: Vec<String>,
}

impl Archive {
    fn create(path: &Path, now: SystemTime) -> io::Result<Self> {
        let file = File::create(path)?;
        let tar = tar::Builder::new(zstd::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?);
        let modified_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Ok(Self { tar, modified_s, files: 0, folders: Vec::new() })
    }

    fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(self.modified_s);
        self.files += 1;
        self.tar.append_data(&mut header, Path::new("dvs-support").join(name), text.as_bytes())
    }

    fn finish(self) -> io::Result<()> {
        self.tar.into_inner()?.finish()?.flush()
    }
}
