// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dvsctl config`: the machine configuration of nodes.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use dvs_api::{ConfigChange, ConfigChanged, ConfigConfirmed, MachineConfig, Version};
use dvs_config::{Config, Source};
use serde::Serialize;

use crate::arguments::{ApplyArguments, ConfigCommand, Output, Which};
use crate::cluster::{Cluster, Endpoint, Error};
use crate::{print, told, Failure};

/// How often a node is asked whether it runs with a change.
const POLL: Duration = Duration::from_millis(300);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(
    cluster: &Cluster,
    output: Output,
    command: &ConfigCommand,
) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show { node } => {
            let config: MachineConfig = match node {
                Some(node) => cluster.node(*node)?.get("/v1/config")?,
                None => cluster.any("/v1/config")?,
            };
            print(output, &config, || {
                let token = match config.has_token {
                    true => "# cluster.token is set, and not shown\n",
                    false => "",
                };
                let trial = config.trial_s.map_or(String::new(), |left| {
                    format!("# on trial: taken back in {left} s unless confirmed\n")
                });
                format!("{trial}{token}{}", config.toml)
            })?;
            Ok(ExitCode::SUCCESS)
        }
        ConfigCommand::Validate { file } => validate(output, file),
        ConfigCommand::Apply(arguments) => apply(cluster, output, arguments),
        ConfigCommand::Confirm { which } => confirm(cluster, output, which),
    }
}

fn text_of(file: &Path) -> Result<String, Failure> {
    let text = match file == Path::new("-") {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    text.map_err(|error| Failure::Refused(format!("read {}: {error}", file.display())))
}

#[derive(Serialize)]
struct Validity {
    file: String,
    valid: bool,
    error: Option<String>,
}

/// Whether a file is a machine configuration.
pub(crate) fn validate(output: Output, file: &Path) -> Result<ExitCode, Failure> {
    let text = text_of(file)?;
    let checked = Config::from_sources(&[(Source::File(file.to_owned()), text)]);
    let error = checked.err().map(|error| error.to_string());
    if let (Output::Table | Output::Wide, Some(error)) = (output, &error) {
        return Err(Failure::Refused(error.clone()));
    }
    let name = file.display().to_string();
    let validity = Validity { file: name, valid: error.is_none(), error };
    print(output, &validity, || format!("{} is a machine configuration\n", validity.file))?;
    Ok(if validity.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn node_of(node: Option<u32>) -> String {
    node.map_or("a node without an id".into(), |node| format!("node {node}"))
}

fn apply(
    cluster: &Cluster,
    output: Output,
    arguments: &ApplyArguments,
) -> Result<ExitCode, Failure> {
    let ApplyArguments { file, mode, which, confirm_within, dry_run, no_wait } = arguments;
    let toml = text_of(file)?;
    // What is wrong with it is said with its name, and before any node is told. Nodes have a token of their own.
    let token = "[cluster]\ntoken = 'that of the node, whatever it is'\n".to_owned();
    let sources =
        [(Source::File("nodes".into()), token), (Source::File(file.clone()), toml.clone())];
    Config::from_sources(&sources).map_err(|error| Failure::Refused(error.to_string()))?;
    let change = ConfigChange {
        toml,
        mode: (*mode).into(),
        trial_s: confirm_within.as_secs(),
        dry_run: *dry_run,
    };
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for endpoint in cluster.meant(which.node)? {
        let changed: Result<ConfigChanged, Error> = endpoint.put("/v1/config", &change);
        let changed = match changed {
            Ok(changed) => changed,
            Err(error) => {
                errors.push(error.to_string());
                continue;
            }
        };
        let node = node_of(changed.node);
        if !changed.at_boot.is_empty() && changed.kept_on.is_none() {
            eprintln!(
                "note: {node} keeps what takes a reboot, and has it from where it boots from: {}",
                changed.at_boot.join(", ")
            );
        }
        let wait = !changed.changed.is_empty() && !dry_run && !no_wait;
        match if wait { await_running(&endpoint, &node) } else { Ok(()) } {
            Ok(()) => done.push(changed),
            Err(why) => errors.push(match changed.trial_s {
                Some(trial_s) => {
                    format!("{why}; the change is taken back {trial_s} s after it was made")
                }
                None => why,
            }),
        }
    }
    let line = |changed: &ConfigChanged| {
        let node = node_of(changed.node);
        let keys = changed.changed.join(", ");
        if let Some(device) = &changed.kept_on {
            let keys = changed.at_boot.join(", ");
            return match (keys.is_empty(), dry_run) {
                (true, _) => format!("{node}: {device} has what it runs with\n"),
                (_, true) => {
                    format!("{node}: would change {keys} on {device} for its next start\n")
                }
                (_, false) => format!("{node}: {keys} changed on {device}, for its next start\n"),
            };
        }
        match (changed.changed.is_empty(), dry_run, changed.trial_s) {
            (true, ..) => format!("{node}: nothing to change\n"),
            (_, true, _) => format!("{node}: would change {keys}\n"),
            (_, _, Some(trial_s)) => format!(
                "{node}: {keys} changed; taken back after {trial_s} s unless confirmed by `dvsctl config confirm`\n"
            ),
            (_, _, None) => format!("{node}: {keys} changed\n"),
        }
    };
    told(output, &done, &errors, || done.iter().map(line).collect())
}

/// Waits until a node's daemon was started anew and is what it was before.
fn await_running(endpoint: &Endpoint, node: &str) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        thread::sleep(POLL);
        let why = match endpoint.get::<MachineConfig>("/v1/config") {
            Ok(MachineConfig { running: true, .. }) => match endpoint.get::<Version>("/v1/version")
            {
                Ok(Version { node: Some(_), .. }) => return Ok(()),
                Ok(_) => "it is in no cluster yet".to_owned(),
                Err(error) => error.to_string(),
            },
            Ok(_) => "its daemon has not been started anew yet".to_owned(),
            Err(error) => error.to_string(),
        };
        if begun.elapsed() > PATIENCE {
            let s = PATIENCE.as_secs();
            return Err(format!("{node} does not run with the change after {s} s: {why}"));
        }
    }
}

fn confirm(cluster: &Cluster, output: Output, which: &Which) -> Result<ExitCode, Failure> {
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for endpoint in cluster.meant(which.node)? {
        match endpoint.post::<ConfigConfirmed>("/v1/config/confirm", &()) {
            Ok(confirmed) => done.push(confirmed),
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() && done.iter().all(|done| !done.confirmed) {
        errors.push(
            "no change is on trial; it may have been taken back: see `dvsctl config show`".into(),
        );
    }
    let line = |done: &ConfigConfirmed| match done.confirmed {
        true => format!("{}: the change stays\n", node_of(done.node)),
        false => format!("{}: no change was on trial\n", node_of(done.node)),
    };
    told(output, &done, &errors, || done.iter().map(line).collect())
}
