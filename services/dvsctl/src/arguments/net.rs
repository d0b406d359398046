// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands that have a node look at the network.

use clap::{Args, Subcommand, ValueEnum};
use dvs_api::{DnsType, IpVersion, ECHO_BYTES_MAX};

#[derive(Debug, Subcommand)]
pub(crate) enum NetCommand {
    /// Have a node send echo requests (ICMP); exit status 1 if none is answered
    Ping(NetPingArguments),
    /// Have a node find out which routers are on the way; exit status 1 if the target does not answer
    Trace(TraceArguments),
    /// Have a node ask a DNS server; exit status 1 if there is no such name, or nothing of that type
    Dns(DnsArguments),
    /// Have a node connect by TCP; exit status 1 if nobody accepts
    Tcp(TcpArguments),
}

/// Which node, and over what.
#[derive(Debug, Args)]
pub(crate) struct ProbeArguments {
    /// Id of the node that does it, which must be among the endpoints [default: the first endpoint that answers]
    #[arg(long)]
    pub(crate) node: Option<u32>,
    /// Seconds to wait for an answer, at most 30
    #[arg(long = "timeout", value_name = "S", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) timeout_s: f64,
}

/// Whom, and by which version of IP.
#[derive(Debug, Args)]
pub(crate) struct TargetArguments {
    /// An IP address, as in 10.0.0.9, fd00::9 or fe80::9%eth0, or a name that the node looks up
    pub(crate) target: String,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "v6")]
    pub(crate) v4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    pub(crate) v6: bool,
}

impl TargetArguments {
    /// The version of IP that is meant, if one is.
    pub(crate) fn ip(&self) -> Option<IpVersion> {
        match (self.v4, self.v6) {
            (true, _) => Some(IpVersion::V4),
            (_, true) => Some(IpVersion::V6),
            _ => None,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct NetPingArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) probe: ProbeArguments,
    /// How many requests
    #[arg(short, long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) count: u16,
    /// Seconds from one request to the next
    #[arg(short, long = "interval", value_name = "S", default_value_t = 1.0, value_parser = seconds)]
    pub(crate) interval_s: f64,
    /// Bytes of each
    #[arg(short = 's', long = "size", value_name = "BYTES", default_value_t = 56,
          value_parser = clap::value_parser!(u16).range(..=i64::from(ECHO_BYTES_MAX)))]
    pub(crate) bytes: u16,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    #[command(flatten)]
    pub(crate) probe: ProbeArguments,
    /// Over how many routers at most
    #[arg(short, long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) max_hops: u8,
    /// How often each is asked
    #[arg(short, long, value_name = "N", default_value_t = 3,
          value_parser = clap::value_parser!(u8).range(1..=10))]
    pub(crate) queries: u8,
}

#[derive(Debug, Args)]
pub(crate) struct DnsArguments {
    /// The name; with --type PTR, an address will do
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) probe: ProbeArguments,
    /// What of it is asked for
    #[arg(short = 't', long = "type", value_name = "TYPE", value_enum, ignore_case = true, default_value_t = RecordType::A)]
    pub(crate) kind: RecordType,
    /// IP address of the server, perhaps with a port, as in [::1]:53 [default: the node's first one]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct TcpArguments {
    #[command(flatten)]
    pub(crate) target: TargetArguments,
    /// The port
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) probe: ProbeArguments,
}

/// The types of records, as people write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub(crate) enum RecordType {
    /// IPv4 addresses
    A,
    /// IPv6 addresses
    Aaaa,
    /// The name for which it is another one
    Cname,
    /// Who takes its mail
    Mx,
    /// Its name servers
    Ns,
    /// The name of an address
    Ptr,
    /// Who is responsible for its zone
    Soa,
    /// Where a service is
    Srv,
    /// Texts
    Txt,
}

impl From<RecordType> for DnsType {
    fn from(kind: RecordType) -> Self {
        match kind {
            RecordType::A => Self::A,
            RecordType::Aaaa => Self::Aaaa,
            RecordType::Cname => Self::Cname,
            RecordType::Mx => Self::Mx,
            RecordType::Ns => Self::Ns,
            RecordType::Ptr => Self::Ptr,
            RecordType::Soa => Self::Soa,
            RecordType::Srv => Self::Srv,
            RecordType::Txt => Self::Txt,
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    match (0.001..=30.0).contains(&seconds) {
        true => Ok(seconds),
        false => Err("expected 0.001 to 30 seconds".to_owned()),
    }
}
