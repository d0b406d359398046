// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ways to move bytes, and what the papers measured of them.

use std::fmt;

use mol_bench::Work;
use serde::Serialize;

/// Who moves bytes from and to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum Way {
    /// A device of a disk server on the same node.
    VddLocal,
    /// A device of nbd-server on the same node, by Linux's driver.
    NbdLocal,
    /// A device of a disk server on the other node.
    VddRemote,
    /// A device of nbd-server on the other node, by Linux's driver.
    NbdRemote,
    /// A device with a replica on each node, the primary on the same one.
    ReplicasLocal,
    /// A device with a replica on each node, the primary on the other one.
    ReplicasRemote,
    /// A file of a file server on the other node, which has an image file: Config A of Table I, without FUSE.
    FsImage,
    /// A file of a file server on the other node, which has a device of a disk server there: Config B of Table I, without FUSE.
    FsVdd,
    /// Memory that a program on the other node has lent.
    Copy,
    /// A web server and its files in a directory of the node: Config A.
    WebA,
    /// A web server, and a file server with an image file, on one node: Config B.
    WebB,
    /// A web server, a file server and a disk server on one node: Config C.
    WebC,
    /// A web server and a file server, whose disk server is on the other node: Config D.
    WebD,
    /// A web server, whose file server is on the other node and has an image file: Config E.
    WebE,
    /// A web server, whose file server and disk server are on the other node: Config F.
    WebF,
}

impl Way {
    /// Its name as it is printed and given on command lines.
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::VddLocal => "vdd-local",
            Self::NbdLocal => "nbd-local",
            Self::VddRemote => "vdd-remote",
            Self::NbdRemote => "nbd-remote",
            Self::ReplicasLocal => "replicas-local",
            Self::ReplicasRemote => "replicas-remote",
            Self::FsImage => "fs-image",
            Self::FsVdd => "fs-vdd",
            Self::Copy => "copy",
            Self::WebA => "web-a",
            Self::WebB => "web-b",
            Self::WebC => "web-c",
            Self::WebD => "web-d",
            Self::WebE => "web-e",
            Self::WebF => "web-f",
        }
    }

    /// What the papers say of it, in MB/s: figures 6 and 7 and the text below Table I of "A Distributed Virtualization System" (2018), and
    /// its Tables II and III for files of as many bytes. Their machines were connected by Gigabit Ethernet.
    pub(in super::super) fn paper(self, work: Work, bytes: u64) -> Option<f64> {
        let of_sizes = |rates: [f64; 3]| {
            let sizes = [10_u64, 50, 100].map(|mib| mib << 20);
            sizes.iter().position(|size| *size == bytes).map(|size| rates[size])
        };
        let [read, write] = match self {
            Self::VddLocal => [378.0, 308.0],
            Self::NbdLocal => [158.0, 100.0],
            Self::VddRemote => [58.0, 56.0],
            Self::NbdRemote => [108.0, 136.0],
            // They do not say where the client was.
            Self::ReplicasLocal | Self::ReplicasRemote => [16.0, 11.0],
            Self::Copy => [58.0, 58.0],
            // They tell one figure, and not which way.
            Self::FsImage | Self::FsVdd => return (work == Work::Read).then_some(47.0),
            Self::WebA => return of_sizes([74.62, 81.43, 97.11]),
            Self::WebB => return of_sizes([70.00, 79.10, 92.13]),
            Self::WebC => return of_sizes([67.54, 79.52, 92.31]),
            Self::WebD => return of_sizes([4.08, 4.32, 4.32]),
            Self::WebE => return of_sizes([3.81, 3.75, 3.79]),
            Self::WebF => return of_sizes([3.51, 3.57, 3.55]),
        };
        Some(match work {
            Work::Read => read,
            Work::Write => write,
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn ways_are_named_the_same_everywhere() {
        for way in Way::value_variants() {
            let json = serde_json::to_string(way).unwrap();
            assert_eq!(json.trim_matches('"'), way.name());
            assert_eq!(way.to_possible_value().unwrap().get_name(), way.name());
        }
    }

    #[test]
    fn figures_of_the_papers_are_of_a_direction_or_a_size() {
        assert_eq!(Way::VddLocal.paper(Work::Write, 1), Some(308.0));
        assert_eq!(Way::FsVdd.paper(Work::Write, 1), None);
        assert_eq!(Way::WebC.paper(Work::Read, 50 << 20), Some(79.52));
        assert_eq!(Way::WebC.paper(Work::Read, 1 << 20), None);
    }
}
