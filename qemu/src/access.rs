// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the nodes' APIs are reached with: contexts as `dvsctl` has them, in the run directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dvs_client::{Address, Client, Context, Folder};
use dvs_config::{Config, Name, Source, Token};

use crate::error::{Error, Result};
use crate::options::Options;
use crate::run_directory::Description;

/// A virtual cluster does not live that long.
const VALID: Duration = Duration::from_secs(30 * 24 * 3600);

/// The folder with the contexts of the cluster in a run directory: what `DVSCTL_CONFIG` is to be.
pub fn folder(run: &Path) -> PathBuf {
    run.join("dvsctl")
}

/// The context of one node alone.
pub fn context(node: usize) -> String {
    format!("node{node}")
}

/// Has `dvsctl`, or what runs it, reach the cluster in a run directory: all of its nodes, or only the one with this number. What its
/// environment has of another cluster is not heeded.
pub fn reach<'c>(command: &'c mut Command, run: &Path, node: Option<usize>) -> &'c mut Command {
    command.env("DVSCTL_CONFIG", folder(run)).env_remove("DVSCTL_ENDPOINTS");
    match node {
        Some(node) => command.env("DVSCTL_CONTEXT", context(node)),
        None => command.env_remove("DVSCTL_CONTEXT"),
    }
}

/// Ways to the APIs of all nodes.
///
/// # Errors
/// When the contexts cannot be read.
pub fn clients(run: &Path, description: &Description) -> Result<Vec<Client>> {
    let folder = Folder::new(folder(run));
    let client = |node: usize| {
        let name = context(node);
        let clients = folder.read(&name).and_then(|context| context.clients(&name));
        clients.map_err(wrong).map(|clients| clients.into_iter().next())
    };
    let all: Result<Vec<_>> = (0..description.nodes.len()).map(client).collect();
    Ok(all?.into_iter().flatten().collect())
}

/// Makes a context of each node, and one, which is in use, of all that are of the first one's cluster.
pub(crate) fn give(
    run: &Path,
    options: &Options,
    token: &Token,
    description: &Description,
) -> Result<()> {
    let folder = Folder::new(folder(run));
    let mut cluster: Option<(Name, Token, Vec<Address>)> = None;
    for (number, node) in description.nodes.iter().enumerate() {
        let (name, token) = identity(options, number, token);
        let address: Address =
            node.api.parse().map_err(|error| Error::Invalid(format!("node{number}: {error}")))?;
        let one = [address.clone()];
        let context = self::context(number);
        let made = Context::new(&token, name.clone(), &one, "xtask", VALID).map_err(wrong)?;
        folder.write(&context, &made).map_err(wrong)?;
        let (first, secret, addresses) =
            cluster.get_or_insert_with(|| (name.clone(), token.clone(), Vec::new()));
        if (&*first, &*secret) == (&name, &token) {
            addresses.push(address);
        }
    }
    let Some((name, token, addresses)) = cluster else { return Ok(()) };
    let made = Context::new(&token, name, &addresses, "xtask", VALID).map_err(wrong)?;
    folder.write(&description.name, &made).map_err(wrong)?;
    folder.choose(Some(&description.name)).map_err(wrong)
}

/// Which cluster a node is of, and by which token: kernel arguments have the last word.
fn identity(options: &Options, number: usize, token: &Token) -> (Name, Token) {
    let own = options.config(number, token);
    let of_node = options.append_to.get(&number).into_iter().flatten();
    let arguments: Vec<_> = options.append.iter().chain(of_node).map(String::as_str).collect();
    let sources = [(Source::FwCfg, own.to_toml()), (Source::CommandLine, arguments.join(" "))];
    // A node that cannot make sense of it will say so itself.
    let config = Config::from_sources(&sources).unwrap_or(own);
    (config.cluster.name, config.cluster.token.unwrap_or_else(|| token.clone()))
}

fn wrong(error: dvs_client::Error) -> Error {
    Error::Invalid(format!("access to the nodes: {error}"))
}
