// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands about machines that nodes boot over the network.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dvs_config::{AddressRange, InterfaceAddress, InterfaceSelector, KernelArguments};

#[derive(Debug, Subcommand)]
pub(crate) enum PxeCommand {
    /// Have a node boot other machines on one of its interfaces, with the image that it runs itself, and wait until it does
    ///
    /// It answers machines that boot over the network on that interface, and nobody else. It is what [netboot] in the machine configuration
    /// does, and ends when the node restarts; what is in the configuration on a volume stays.
    Enable(EnableArguments),
    /// Have a node boot no machines any more, and wait until it does not
    Disable {
        /// Id of the node [default: the first endpoint that answers, be it a node of a cluster or not yet]
        node: Option<u32>,
    },
    /// Which nodes boot other machines, on which interface, with what, and which machines they have booted
    Status {
        /// Id of the only node to ask
        #[arg(long)]
        node: Option<u32>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct EnableArguments {
    /// Id of the node [default: the first endpoint that answers, be it a node of a cluster or not yet]
    pub(crate) node: Option<u32>,
    /// The interface, and no other: a name, a pattern such as en*, or a MAC address
    #[arg(long, value_name = "INTERFACE")]
    pub(crate) interface: InterfaceSelector,
    /// The address that the node has there, and gets if it does not have it, such as 192.168.7.1/24 [default: the one that it has]
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub(crate) address: Option<InterfaceAddress>,
    /// Addresses to give to the machines, such as 192.168.7.100-192.168.7.199. Without, the segment has a DHCP server that does so, and
    /// machines hear from the node only what to boot
    #[arg(long, value_name = "FIRST-LAST")]
    pub(crate) addresses: Option<AddressRange>,
    /// More kernel arguments of the machines; dvs.… ones are their machine configuration. Whoever is on the segment can read them, a
    /// token included
    #[arg(long, value_name = "ARGUMENTS", allow_hyphen_values = true)]
    pub(crate) append: Option<KernelArguments>,
    /// The unified kernel image, dvs.efi, for a node that does not find the one that it runs, or to have machines boot another one
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Option<PathBuf>,
}
