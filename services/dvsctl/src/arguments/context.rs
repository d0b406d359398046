// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about contexts.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use dvs_config::Name;

use super::context_name;

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// Make a context from the cluster token, and see that its nodes accept it
    ///
    /// The nodes are those of --endpoint. The token is not kept: from it a key and a certificate are made that say that you are an
    /// administrator of the cluster. They are in a file that only you can read, `contexts/NAME.toml` in $DVSCTL_CONFIG, or else
    /// in ~/.config/dvs. Whoever has the file may do everything with the cluster until the certificate ends.
    ///
    /// The first context is in use from then on.
    Add(AddArguments),
    /// All contexts: which one is in use, and when their certificates end
    List,
    /// Use a context wherever none is named
    Use {
        /// The context
        #[arg(value_parser = context_name)]
        name: String,
    },
    /// Everything about a context but its key
    Show {
        /// The context [default: the one that is in use]
        #[arg(value_parser = context_name)]
        name: Option<String>,
    },
    /// Make the certificate of a context anew, when it ends or the cluster has another token
    Renew {
        /// The context [default: the one that is in use]
        #[arg(value_parser = context_name)]
        name: Option<String>,
        #[command(flatten)]
        token: TokenArguments,
    },
    /// Write certificates and key as PEM files, for other programs: authority.pem, certificate.pem and key.pem
    Export {
        /// The context
        #[arg(value_parser = context_name)]
        name: String,
        /// Where to write them; made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Forget a context; what it could do, a copy of its file still can
    Remove {
        /// The context
        #[arg(value_parser = context_name)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// What to call it
    #[arg(value_parser = context_name)]
    pub(crate) name: String,
    /// Name of the cluster: cluster.name of its nodes' configuration
    #[arg(long, value_name = "NAME", default_value = "dvs")]
    pub(crate) cluster: Name,
    #[command(flatten)]
    pub(crate) token: TokenArguments,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArguments {
    /// File with the cluster token: cluster.token of its nodes' configuration; - for stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
    /// For how long the certificate is to be valid
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = validity)]
    pub(crate) valid: Duration,
    /// Who the certificate is to say that you are, for people
    #[arg(long = "as", value_name = "NAME", env = "USER", default_value = "somebody")]
    pub(crate) owner: String,
    /// Do not try whether the nodes accept it
    #[arg(long)]
    pub(crate) no_check: bool,
}

fn validity(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);
    let valid = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match (Duration::from_secs(60)..=MOST).contains(&valid) {
        true => Ok(valid),
        false => Err("expected a time from 1m to 10 years, such as 90d".into()),
    }
}
