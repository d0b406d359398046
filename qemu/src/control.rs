// SPDX-License-Identifier: MIT OR Apache-2.0
//! How other processes act on a running cluster: JSON objects, one per line, over a unix socket in its run directory.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{channel, Sender};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::faults::Faults;
use crate::links::LinkSelector;
use crate::node::Power;
use crate::run_directory::{control_socket, describe, Description};
use crate::switch::Report;

/// Longest request or answer in bytes.
const LINE_LIMIT: u64 = 4 << 20;
/// How long an answer may take: starting a node on a busy host takes longest.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Something to do with a running cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Cut a node's power.
    Kill {
        /// Which node.
        node: usize,
    },
    /// Give it power.
    Start {
        /// Which node.
        node: usize,
    },
    /// Stop its processors.
    Pause {
        /// Which node.
        node: usize,
    },
    /// Let them run on.
    Resume {
        /// Which node.
        node: usize,
    },
    /// Plug in or pull the cables of its cluster interfaces.
    Carrier {
        /// Which node.
        node: usize,
        /// On this segment only.
        segment: Option<usize>,
        /// Plug in.
        up: bool,
    },
    /// Let nothing pass on links.
    Cut {
        /// Which links.
        links: LinkSelector,
    },
    /// Undo cuts.
    Heal {
        /// Which links.
        links: LinkSelector,
    },
    /// Cut all links between nodes of different groups.
    Partition {
        /// The groups.
        groups: Vec<Vec<usize>>,
    },
    /// Replace faults.
    SetFaults {
        /// Of which links.
        links: LinkSelector,
        /// By what.
        faults: Faults,
    },
    /// Say how things are.
    Status,
    /// End the cluster.
    Stop,
}

/// How a running cluster is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// What doesn't change.
    pub cluster: Description,
    /// The nodes in order.
    pub nodes: Vec<NodeStatus>,
    /// The switch.
    pub switch: Report,
}

/// How a node is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whether it runs.
    pub power: Power,
    /// Whether the cables of its cluster interfaces are plugged in, by segment.
    pub carrier: Vec<bool>,
}

/// What the owner says to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is done.
    Done,
    /// How things are.
    Status(Box<Status>),
    /// It could not be done.
    Error(String),
}

/// A request on its way to the thread that owns the nodes, with where the answer goes.
pub(crate) type Call = (Request, Sender<Answer>);

/// Takes requests on `socket` and hands them to `owner` until it is gone.
pub(crate) fn serve(socket: &Path, owner: Sender<Call>) -> Result<()> {
    let listener = UnixListener::bind(socket).map_err(Error::file("listening on", socket))?;
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            for stream in listener.incoming().flatten() {
                let owner = owner.clone();
                // One thread per client: each waits for its own answers.
                let _ = std::thread::Builder::new()
                    .name("control client".to_owned())
                    .spawn(move || answer_client(&stream, &owner));
            }
        })
        .map(drop)
        .map_err(Error::system("starting the control thread"))
}

fn answer_client(stream: &UnixStream, owner: &Sender<Call>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        match reader.by_ref().take(LINE_LIMIT).read_line(&mut line) {
            Ok(count) if count > 0 => {}
            _ => return,
        }
        let answer = match serde_json::from_str(&line) {
            Ok(request) => ask(owner, request),
            Err(error) => Answer::Error(format!("not understood: {error}")),
        };
        let Ok(text) = serde_json::to_string(&answer) else { return };
        let mut stream = stream;
        if stream.write_all((text + "\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// Has the owner's thread carry out a request.
pub(crate) fn ask(owner: &Sender<Call>, request: Request) -> Answer {
    let (sender, receiver) = channel();
    let ended = || Answer::Error("the cluster has ended".to_owned());
    if owner.send((request, sender)).is_err() {
        return ended();
    }
    receiver.recv().unwrap_or_else(|_| ended())
}

/// A running cluster that another process owns.
#[derive(Clone, Debug)]
pub struct Remote {
    run: PathBuf,
}

impl Remote {
    /// The cluster whose run directory is `run`, as found by [`crate::run_directory::find`].
    pub fn new(run: PathBuf) -> Remote {
        Remote { run }
    }

    /// Its run directory.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// What its owner has published.
    pub fn describe(&self) -> Result<Description> {
        describe(&self.run)
    }

    /// Has the owner do something.
    pub fn act(&self, request: &Request) -> Result<()> {
        self.call(request).map(drop)
    }

    /// Asks the owner how things are.
    pub fn status(&self) -> Result<Status> {
        match self.call(&Request::Status)? {
            Answer::Status(status) => Ok(*status),
            other => Err(Error::Refused(format!("unexpected answer {other:?}"))),
        }
    }

    /// A connection on which a node's console is shown from a little before now on; what is written to it is typed.
    pub fn console(&self, node: usize) -> Result<UnixStream> {
        let nodes = self.describe()?.nodes.len();
        if node >= nodes {
            return Err(Error::NoSuchNode { node, highest: nodes - 1 });
        }
        let socket = crate::options::NodeFiles::new(&self.run, node).view;
        UnixStream::connect(&socket).map_err(Error::file("connecting to the console", socket))
    }

    fn call(&self, request: &Request) -> Result<Answer> {
        let socket = control_socket(&self.run);
        let attempt = "asking the cluster's owner on";
        let text = serde_json::to_string(request).map_err(Error::system(attempt))?;
        let exchange = || {
            let mut stream = UnixStream::connect(&socket)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.write_all((text + "\n").as_bytes())?;
            let mut line = String::new();
            BufReader::new(stream).take(LINE_LIMIT).read_line(&mut line)?;
            std::io::Result::Ok(line)
        };
        let line = exchange().map_err(Error::file(attempt, &socket))?;
        // An owner that was told to stop may be gone before it has answered.
        if line.is_empty() && *request == Request::Stop {
            return Ok(Answer::Done);
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Error(reason)) => Err(Error::Refused(reason)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Error::File { attempt, path: socket, source: error.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_the_documented_form() {
        let requests = [
            (Request::Kill { node: 2 }, r#"{"command":"kill","node":2}"#),
            (
                Request::Cut { links: LinkSelector::Pair(0, 3) },
                r#"{"command":"cut","links":{"pair":[0,3]}}"#,
            ),
            (Request::Heal { links: LinkSelector::All }, r#"{"command":"heal","links":"all"}"#),
            (Request::Stop, r#"{"command":"stop"}"#),
        ];
        for (request, text) in requests {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
    }

    #[test]
    fn a_remote_gets_what_the_owner_answers() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, calls) = channel::<Call>();
        serve(&control_socket(directory.path()), sender).unwrap();
        let owner = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let (request, reply) = calls.recv().unwrap();
                let answer = match request {
                    Request::Kill { .. } => Answer::Done,
                    _ => Answer::Error("node1 is off: start it first".to_owned()),
                };
                reply.send(answer).unwrap();
                seen.push(request);
            }
            seen
        });
        let remote = Remote::new(directory.path().to_owned());
        remote.act(&Request::Kill { node: 0 }).unwrap();
        let error = remote.act(&Request::Pause { node: 1 }).unwrap_err().to_string();
        assert_eq!(error, "node1 is off: start it first");
        assert_eq!(owner.join().unwrap(), [Request::Kill { node: 0 }, Request::Pause { node: 1 }]);
        // The owner has ended; stopping what has stopped is refused with a reason.
        let error = remote.act(&Request::Kill { node: 0 }).unwrap_err().to_string();
        assert_eq!(error, "the cluster has ended");
    }

    #[test]
    fn nonsense_is_answered_with_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (sender, _calls) = channel::<Call>();
        let socket = control_socket(directory.path());
        serve(&socket, sender).unwrap();
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"{\"command\":\"dance\"}\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.starts_with(r#"{"error":"not understood: "#), "{line}");
    }
}
