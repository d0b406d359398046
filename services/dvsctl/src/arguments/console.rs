// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command that shows a node on its own screen.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ConsoleArguments {
    /// The terminal
    #[arg(long, value_name = "DEVICE", default_value = "/dev/tty")]
    pub(crate) terminal: PathBuf,
    /// Give the terminal back when whoever used it leaves or is gone
    #[arg(long)]
    pub(crate) guest: bool,
    /// Where the machine's folders are, such as run and sys
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub(crate) root: PathBuf,
}
