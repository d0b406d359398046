// SPDX-License-Identifier: MIT OR Apache-2.0
#![doc = include_str!("../README.md")]
//!
//! ```
//! use dvs_config::{Config, Source};
//!
//! let config = Config::from_sources(&[
//!     (Source::FwCfg, "[cluster]\ntoken = 'correct horse battery'\n".into()),
//!     (Source::CommandLine, "quiet dvs.cluster.bootstrap_expect=4".into()),
//! ])
//! .unwrap();
//! assert_eq!(config.cluster.bootstrap_expect, 4);
//!
//! let error = Config::from_sources(&[(Source::FwCfg, "[cluster]\ntokn = 'x'\n".into())]);
//! assert!(error.unwrap_err().to_string().contains("did you mean `cluster.token`?"));
//! ```
#![forbid(unsafe_code)]

mod command_line;
mod error;
mod interface;
mod keys;
mod schema;
mod source;
mod stacked;
mod value;

pub use error::ConfigError;
pub use interface::{
    InterfaceKind, InterfaceSelector, Mac, NamePattern, ParseMacError, ParseSelectorError,
};
pub use schema::{Api, Cluster, Config, Console, Management, Netboot, Network, Node, Power, Run};
pub use source::Source;
pub use stacked::{
    Bond, BondMode, InterfaceName, LacpRate, ParseInterfaceNameError, TransmitHashPolicy, Vlan,
};
pub use value::{
    AddressRange, InterfaceAddress, JoinToken, KernelArguments, Name, ParseAddressError,
    ParseArgumentsError, ParseJoinTokenError, ParseNameError, ParseRangeError, ParseTokenError,
    Token,
};
