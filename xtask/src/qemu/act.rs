// SPDX-License-Identifier: MIT OR Apache-2.0
//! Acting on a cluster that runs, from another terminal or from `--exec`.

use std::env;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, bail, Context, Result};
use dvs_qemu::launch::become_child_of;
use dvs_qemu::links::LinkSelector;
use dvs_qemu::run_directory::{find, root, ENVIRONMENT};
use dvs_qemu::{Error, Remote, Request};

use super::supervise::supervise;
use super::{screen, Action, FaultArguments, LinkChange, Output, Which, WhichNode};

pub(super) fn run(action: &Action) -> Result<ExitCode> {
    let act = |which: &WhichNode, request: Request| {
        remote(&which.which)?.act(&request).map_err(Into::into)
    };
    match action {
        Action::Kill(which) => act(which, Request::Kill { node: which.node }),
        Action::Start(which) => act(which, Request::Start { node: which.node }),
        Action::Pause(which) => act(which, Request::Pause { node: which.node }),
        Action::Resume(which) => act(which, Request::Resume { node: which.node }),
        Action::Console(which) => console(&remote(&which.which)?, which.node),
        Action::Link { links, change, segment, faults, which } => {
            let request = link(*links, *change, *segment, faults)?;
            remote(which)?.act(&request).map_err(Into::into)
        }
        Action::Status { node, output, which } => status(&remote(which)?, *node, *output),
        Action::Stop(which) => remote(which)?.act(&Request::Stop).map_err(Into::into),
        Action::Supervise => return supervise(),
        Action::Launch { parent, command } => Err(launch(*parent, command)),
    }
    .map(|()| ExitCode::SUCCESS)
}

fn remote(which: &Which) -> Result<Remote> {
    let environment = env::var_os(ENVIRONMENT).map(PathBuf::from);
    Ok(Remote::new(find(&root(), which.name.as_deref(), environment.as_deref())?))
}

fn link(
    links: LinkSelector,
    change: LinkChange,
    segment: Option<usize>,
    faults: &FaultArguments,
) -> Result<Request> {
    let faults = faults.faults();
    if !faults.is_none() && change != LinkChange::Set {
        bail!("faults can only be given with `set`, as in: link {links} set --loss 5%");
    }
    if segment.is_some() && !matches!(change, LinkChange::Up | LinkChange::Down) {
        bail!("a segment can only be named with `up` and `down`, as in: link {links} down --segment 0");
    }
    Ok(match (change, links) {
        (LinkChange::Up | LinkChange::Down, LinkSelector::Node(node)) => {
            Request::Carrier { node, segment, up: change == LinkChange::Up }
        }
        (LinkChange::Up | LinkChange::Down, _) => {
            bail!("a cable belongs to one node, as in: link 2 down; between nodes use cut and heal")
        }
        (LinkChange::Cut, _) => Request::Cut { links },
        (LinkChange::Heal, _) => Request::Heal { links },
        (LinkChange::Set, _) => Request::SetFaults { links, faults },
    })
}

fn status(remote: &Remote, node: Option<usize>, output: Output) -> Result<()> {
    let status = remote.status()?;
    let highest = status.nodes.len().saturating_sub(1);
    if let Some(node) = node.filter(|&node| node > highest) {
        return Err(Error::NoSuchNode { node, highest }.into());
    }
    let text = match output {
        Output::Table => screen::status(&status, node),
        Output::Json => serde_json::to_string_pretty(&status)? + "\n",
    };
    io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

/// Shows a console, and types into it what is typed here.
fn console(remote: &Remote, node: usize) -> Result<()> {
    let mut output = remote.console(node)?;
    let mut input = output.try_clone().context("sharing the console's socket")?;
    // Ends with the process: reading a terminal can't be called off.
    std::thread::spawn(move || {
        let mut typed = [0; 256];
        while let Ok(count) = io::stdin().read(&mut typed) {
            if count == 0 || input.write_all(&typed[..count]).is_err() {
                break;
            }
        }
    });
    match io::copy(&mut output, &mut io::stdout()) {
        // Whoever reads us has seen enough, as with `| head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(error).with_context(|| format!("showing the console of node{node}")),
        Ok(_) => {
            eprintln!("the cluster has ended");
            Ok(())
        }
    }
}

fn launch(parent: u32, command: &[OsString]) -> anyhow::Error {
    let error = become_child_of(parent, command);
    anyhow!("starting {}: {error}", command.first().cloned().unwrap_or_default().to_string_lossy())
}
