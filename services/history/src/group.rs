// SPDX-License-Identifier: MIT OR Apache-2.0
//! A group: whether what its members saw, and what became of what they sent, can be one stream.

use std::collections::{BTreeMap, BTreeSet};

/// What a member of a group was given. Members are named by numbers, none of which comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// From here on these are the members.
    View {
        /// Greater than that of every view before.
        number: u64,
        /// Who they are.
        members: BTreeSet<u64>,
    },
    /// A message.
    Message {
        /// Who sent it.
        sender: u64,
        /// The sender's count, from 1 up.
        number: u64,
        /// What it says.
        text: String,
    },
}

/// What a member saw, by position, from its joining on.
pub type Stream = Vec<(u64, Delivered)>;

/// A message that a member was told has been taken. Times are places in one order of all events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Who sent it.
    pub sender: u64,
    /// The sender's count.
    pub number: u64,
    /// When it was first sent.
    pub invoked: u64,
    /// When the answer came.
    pub returned: u64,
    /// Where it is in the stream, if that was told.
    pub position: Option<u64>,
}

/// Puts the streams of all members together, and checks that they are parts of one: without gaps, with the same at the same position,
/// each beginning with the view by which its member joined, with every message seen by those only who were members, of whom one sent it;
/// that every sender's messages are in it once and in order; and that it agrees with when `sent` was answered.
///
/// # Errors
/// For people: the first thing that does not fit.
pub fn check(streams: &BTreeMap<u64, Stream>, sent: &[Sent]) -> Result<(), String> {
    let mut merged: BTreeMap<u64, &Delivered> = BTreeMap::new();
    for (member, stream) in streams {
        check_stream(*member, stream)?;
        for (position, delivered) in stream {
            let known = merged.entry(*position).or_insert(delivered);
            if *known != delivered {
                return Err(format!(
                    "at {position} member {member} saw {delivered:?}, and another one {known:?}"
                ));
            }
        }
    }
    let places = check_order(&merged)?;
    check_sent(&places, sent)
}

/// One member's stream on its own.
fn check_stream(member: u64, stream: &Stream) -> Result<(), String> {
    let mut members: Option<&BTreeSet<u64>> = None;
    for (at, (position, delivered)) in stream.iter().enumerate() {
        if *position != stream[0].0 + at as u64 {
            return Err(format!("member {member} saw {position} after {}", stream[at - 1].0));
        }
        match delivered {
            Delivered::View { members: now, .. } => members = Some(now),
            Delivered::Message { sender, .. } => match members {
                Some(members) if members.contains(sender) => {}
                _ => return Err(format!("at {position} {sender} sends and is no member")),
            },
        }
        if !members.is_some_and(|members| members.contains(&member)) {
            return Err(format!("at {position} {member} sees something and is no member"));
        }
    }
    Ok(())
}

/// The order of all; gives where each message is.
fn check_order(merged: &BTreeMap<u64, &Delivered>) -> Result<BTreeMap<(u64, u64), u64>, String> {
    let (mut views, mut counts) = (0, BTreeMap::new());
    let mut places = BTreeMap::new();
    for (position, delivered) in merged {
        match delivered {
            Delivered::View { number, .. } if *number <= views => {
                return Err(format!("at {position} is view {number}, after view {views}"));
            }
            Delivered::View { number, .. } => views = *number,
            Delivered::Message { sender, number, .. } => {
                let before = counts.insert(*sender, *number).unwrap_or(0);
                if *number != before + 1 {
                    return Err(format!(
                        "at {position} is message {number} of {sender}, after {before}"
                    ));
                }
                places.insert((*sender, *number), *position);
            }
        }
    }
    Ok(places)
}

fn check_sent(places: &BTreeMap<(u64, u64), u64>, sent: &[Sent]) -> Result<(), String> {
    let mut placed: Vec<(&Sent, u64)> = Vec::new();
    for one in sent {
        let Some(place) = places.get(&(one.sender, one.number)) else {
            return Err(format!("nobody saw message {} of {}", one.number, one.sender));
        };
        if one.position.is_some_and(|told| told != *place) {
            return Err(format!("message {} of {} is at {place}: {one:?}", one.number, one.sender));
        }
        placed.push((one, *place));
    }
    placed.sort_by_key(|(one, _)| one.returned);
    for (first, at) in &placed {
        for (second, place) in placed.iter().filter(|(one, _)| one.invoked > first.returned) {
            if place < at {
                return Err(format!("{second:?} at {place} is before {first:?} at {at}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(number: u64, members: &[u64]) -> Delivered {
        Delivered::View { number, members: members.iter().copied().collect() }
    }

    fn message(sender: u64, number: u64) -> Delivered {
        Delivered::Message { sender, number, text: format!("{sender} {number}") }
    }

    /// Two members of which the second comes later and goes first.
    fn good() -> (BTreeMap<u64, Stream>, Vec<Sent>) {
        let first = vec![
            (1, view(10, &[1])),
            (2, message(1, 1)),
            (3, view(11, &[1, 2])),
            (4, message(2, 1)),
            (5, message(1, 2)),
            (6, view(14, &[1])),
        ];
        let second = first[2..5].to_vec();
        let sent = |sender, number, invoked, returned, position| Sent {
            sender,
            number,
            invoked,
            returned,
            position,
        };
        let sent = vec![sent(1, 1, 1, 2, Some(2)), sent(2, 1, 3, 4, None), sent(1, 2, 5, 6, None)];
        (BTreeMap::from([(1, first), (2, second)]), sent)
    }

    #[test]
    fn parts_of_one_stream_fit() {
        let (streams, sent) = good();
        assert_eq!(check(&streams, &sent), Ok(()));
    }

    /// What somebody does to a stream that fits.
    type Harm = fn(&mut BTreeMap<u64, Stream>, &mut Vec<Sent>);

    #[test]
    fn whatever_is_no_part_of_one_stream_is_told() {
        let harms: [(&str, Harm); 10] = [
            ("saw 5 after 3", |streams, _| drop(streams.get_mut(&1).unwrap().remove(3))),
            ("saw Message", |streams, _| streams.get_mut(&2).unwrap()[1].1 = message(2, 7)),
            ("is no member", |streams, _| drop(streams.get_mut(&2).unwrap().remove(0))),
            ("sends and is no member", |streams, _| {
                streams.get_mut(&1).unwrap()[5].1 = message(3, 1);
            }),
            ("2 sees something", |streams, _| {
                let last = streams[&1][5].clone();
                streams.get_mut(&2).unwrap().push(last);
            }),
            ("view 9, after view 10", |streams, _| {
                for (member, at) in [(1, 2), (2, 0)] {
                    streams.get_mut(&member).unwrap()[at].1 = view(9, &[1, 2]);
                }
            }),
            ("message 1 of 1, after 1", |streams, _| {
                for (member, at) in [(1, 4), (2, 2)] {
                    streams.get_mut(&member).unwrap()[at].1 = message(1, 1);
                }
            }),
            ("nobody saw message 2 of 2", |_, sent| {
                sent.push(Sent { sender: 2, number: 2, invoked: 7, returned: 8, position: None });
            }),
            ("message 1 of 1 is at 2", |_, sent| sent[0].position = Some(4)),
            ("is before", |_, sent| {
                (sent[1].invoked, sent[1].returned) = (7, 8);
            }),
        ];
        for (expected, harm) in harms {
            let (mut streams, mut sent) = good();
            harm(&mut streams, &mut sent);
            let why = check(&streams, &sent).unwrap_err();
            assert!(why.contains(expected), "{expected}: {why}");
        }
    }
}
