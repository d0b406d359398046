// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a witness wrote down, read back. The witness says what the lines mean: `dvk/scenarios/src/witness/mod.rs`.

use std::str::FromStr;

/// Everything that one witness wrote down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Its node.
    pub(super) node: usize,
    /// How many witnesses this node had before.
    pub(super) life: u32,
    /// Whether the node lost power, so that the end is missing.
    pub(super) cut: bool,
    pub(super) events: Vec<Event>,
}

/// How a message was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Send,
    Request,
    Notify,
    Store,
    Fetch,
}

/// A line. Endpoints are the DVK's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Serves { server: u64 },
    Bound { client: u64 },
    Took { source: u64, call: Call, number: u64, to: u64 },
    Bits { source: u64, bits: u64 },
    Late { source: u64, number: u64, error: String },
    Garbled { source: u64 },
    Deaf { error: String },
    Did { client: u64, call: Call, number: u64, server: u64, result: String, healed: bool },
    Healed,
    Stopped,
    End,
}

impl FromStr for Call {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        Ok(match word {
            "send" => Self::Send,
            "request" => Self::Request,
            "notify" => Self::Notify,
            "store" => Self::Store,
            "fetch" => Self::Fetch,
            _ => return Err(()),
        })
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        event(line).ok_or_else(|| format!("no line of a history: {line}"))
    }
}

fn event(line: &str) -> Option<Event> {
    let words: Vec<_> = line.split(' ').collect();
    let number = |word: &str| word.parse::<u64>().ok();
    Some(match words[..] {
        ["serves", server, _] => Event::Serves { server: number(server)? },
        ["bound", client] => Event::Bound { client: number(client)? },
        ["took", source, call, took, to] => Event::Took {
            source: number(source)?,
            call: call.parse().ok()?,
            number: number(took)?,
            to: number(to)?,
        },
        ["bits", source, bits] => {
            Event::Bits { source: number(source)?, bits: u64::from_str_radix(bits, 16).ok()? }
        }
        ["late", source, late, error] => {
            let error = error.to_owned();
            Event::Late { source: number(source)?, number: number(late)?, error }
        }
        ["garbled", source] => Event::Garbled { source: number(source)? },
        ["deaf", error] => Event::Deaf { error: error.to_owned() },
        ["did", client, call, did, server, result, phase] => Event::Did {
            client: number(client)?,
            call: call.parse().ok()?,
            number: number(did)?,
            server: number(server)?,
            result: result.to_owned(),
            healed: number(phase)? > 0,
        },
        ["healed"] => Event::Healed,
        ["stopped"] => Event::Stopped,
        ["end"] => Event::End,
        _ => return None,
    })
}

impl History {
    /// Reads what a witness wrote. What is behind the last line's end was not written to its end.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn read(node: usize, life: u32, cut: bool, text: &str) -> Result<Self, String> {
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(str::parse).collect::<Result<_, _>>();
        let events = events.map_err(|error| format!("node{node}, life {life}: {error}"))?;
        Ok(Self { node, life, cut, events })
    }

    /// The server's endpoint.
    pub(super) fn server(&self) -> Option<u64> {
        self.events.iter().find_map(|event| match event {
            Event::Serves { server } => Some(*server),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_the_last_only_if_it_is_whole() {
        let text = "serves 4294967360 7\nbound 70\ntook 70 request 3 4294967360\nbits 70 ff\n\
                    late 70 3 EAGAIN\ngarbled 70\ndeaf ENOTCONN\ndid 70 store 7 5 ETIMEDOUT 1\n\
                    healed\nstopped\nend\ntook 70 se";
        let history = History::read(2, 1, true, text).unwrap();
        assert_eq!((history.events.len(), history.server()), (11, Some(4_294_967_360)));
        assert_eq!(history.events[3], Event::Bits { source: 70, bits: 0xff });
        let (client, call, number, server) = (70, Call::Store, 7, 5);
        let result = "ETIMEDOUT".to_owned();
        let did = Event::Did { client, call, number, server, result, healed: true };
        assert_eq!(history.events[7], did);
        assert!(History::read(0, 0, false, "took 70 push 3 5\n").is_err());
        assert!(History::read(0, 0, false, "hello\n").unwrap_err().contains("hello"));
        assert_eq!(History::read(0, 0, true, "").unwrap().events, []);
    }
}
