// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program is told, and what it answers: a line of JSON each, on standard input and output.

use serde::{Deserialize, Serialize};
use std::net::Ipv6Addr;
use std::path::PathBuf;

/// Where a server of MoL is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// At this endpoint, on whatever node.
    At(u64),
    /// It is the one that answers for a group.
    Group(String),
}

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The first device of a disk server.
    Disk(Server),
    /// A file of a file server's first mount; one that is written is made if it is missing.
    File {
        /// The server.
        server: Server,
        /// Its path.
        path: String,
    },
    /// Memory that the program on another node has lent.
    Lent {
        /// Its endpoint.
        endpoint: u64,
        /// The grant.
        grant: u64,
    },
    /// A file or block device of Linux; a file that is written is made if it is missing, with the folders above it.
    Path {
        /// Its path.
        path: PathBuf,
        /// Whether Linux is to keep nothing of it in memory (`O_DIRECT`).
        direct: bool,
    },
    /// What a web server has under this URL, for reading.
    Web(String),
}

/// Into which direction bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// From the place to the program.
    Read,
    /// From the program to the place; all of it is on stable storage in the end.
    Write,
}

impl Work {
    /// Its name as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// How many bytes are moved, from the beginning of a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The direction.
    pub work: Work,
    /// All of them.
    pub bytes: u64,
    /// Those of one request.
    pub block: u32,
    /// How many requests are under way at once, each by a thread that has a part of the bytes for itself.
    pub depth: u32,
    /// Decides what is written, and what has to come of reading.
    pub seed: u64,
}

/// What the program is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Use this device of a container from now on.
    Join(PathBuf),
    /// Tell the endpoint that has a slot on this node; answered by [`Answer::At`].
    Find(u32),
    /// Lend so many bytes to everybody for as long as the program runs; answered by [`Answer::Lent`].
    Lend(u64),
    /// Tell the node's link-local address on the cluster's network; answered by [`Answer::Address`].
    Address,
    /// Move bytes; answered by [`Answer::Took`].
    Move(Place, Transfer),
}

/// What the program answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(String),
    /// The endpoint.
    At(u64),
    /// Memory is lent.
    Lent {
        /// By this endpoint.
        endpoint: u64,
        /// As this grant.
        grant: u64,
    },
    /// The address.
    Address(Ipv6Addr),
    /// So many nanoseconds passed.
    Took(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_and_answers_are_lines() {
        let transfer =
            Transfer { work: Work::Read, bytes: 8192, block: 4096, depth: 2, seed: u64::MAX };
        let places = [
            Place::Disk(Server::At(u64::MAX)),
            Place::Disk(Server::Group("a\nb".into())),
            Place::File { server: Server::At(1), path: "/f".into() },
            Place::Lent { endpoint: 1, grant: 2 },
            Place::Path { path: "/dev/nbd0".into(), direct: true },
            Place::Web("http://[::1]:80/f".into()),
        ];
        let moves = places.into_iter().map(|place| Order::Move(place, transfer));
        let others = [Order::Join("/dev/dvk-dc1".into()), Order::Find(8), Order::Lend(1)];
        for order in moves.chain(others).chain([Order::Address]) {
            let line = serde_json::to_string(&order).unwrap();
            assert_eq!(line.lines().count(), 1);
            assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
        }
        let line = serde_json::to_string(&Answer::Failed("no\nlink".into())).unwrap();
        assert_eq!(line, r#"{"failed":"no\nlink"}"#);
    }
}
