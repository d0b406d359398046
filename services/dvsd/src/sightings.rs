// SPDX-License-Identifier: MIT OR Apache-2.0
//! What of all that this node sees is worth an event of the cluster.
//!
//! Both ends of a link see it come and go; the one with the lower id tells. Of a node that is down nobody tells that its links
//! are down too.

use std::collections::BTreeMap;

use dvs_state::events::Sight;

use crate::rejects::QUIET_MS;

/// Something that this node has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// What.
    pub sight: Sight,
    /// The node that it is about, if it is about another one.
    pub about: Option<u16>,
    /// More of it, for people.
    pub text: String,
}

/// What has been told.
#[derive(Debug, Default)]
pub struct Sightings {
    /// Whether links were up at the last look, by the node at the other end.
    links: BTreeMap<u16, bool>,
    /// Until when no more strangers are told of.
    quiet_ms: u64,
}

impl Sightings {
    /// What is new about the links of node `own`: which of them there are now, whether they are up, and over what they go.
    pub fn links<'a>(
        &mut self,
        own: u16,
        now: impl Iterator<Item = (u16, bool, &'a str)>,
    ) -> Vec<Sighting> {
        let before = std::mem::take(&mut self.links);
        let mut seen = Vec::new();
        for (node, up, over) in now.filter(|(node, ..)| *node > own) {
            self.links.insert(node, up);
            let was_up = before.get(&node).copied().unwrap_or(false);
            let (sight, text) = match (was_up, up) {
                (false, true) => {
                    (Sight::LinkUp, format!("the link to node {node} is up, over {over}"))
                }
                (true, false) => (Sight::LinkDown, format!("the link to node {node} is down")),
                _ => continue,
            };
            seen.push(Sighting { sight, about: Some(node), text });
        }
        seen
    }

    /// A line of the log that says which frames were dropped, or what else is the matter with keys.
    pub fn segment(line: &str) -> Option<Sighting> {
        let text = line.strip_prefix("warning: ")?.to_owned();
        Some(Sighting { sight: Sight::FramesDropped, about: None, text })
    }

    /// A line of the log that says who spoke and does not belong here. One a minute is an event: whoever pretends to be
    /// many must not drive out all other events.
    pub fn stranger(&mut self, now_ms: u64, line: &str) -> Option<Sighting> {
        if now_ms < self.quiet_ms {
            return None;
        }
        self.quiet_ms = now_ms + QUIET_MS;
        let bare = ["warning: ", "note: "].iter().find_map(|word| line.strip_prefix(word));
        let text = bare.unwrap_or(line).to_owned();
        Some(Sighting { sight: Sight::Stranger, about: None, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(sightings: &mut Sightings, now: &[(u16, bool)]) -> Vec<(u16, Sight)> {
        let now = now.iter().map(|(node, up)| (*node, *up, "ethernet"));
        let seen = sightings.links(1, now);
        seen.into_iter().map(|seen| (seen.about.unwrap(), seen.sight)).collect()
    }

    #[test]
    fn links_to_higher_nodes_are_told_when_they_change() {
        let mut sightings = Sightings::default();
        assert_eq!(told(&mut sightings, &[(0, true), (2, false), (3, true)]), [(3, Sight::LinkUp)]);
        assert_eq!(told(&mut sightings, &[(0, false), (2, false), (3, true)]), []);
        assert_eq!(
            told(&mut sightings, &[(2, true), (3, false)]),
            [(2, Sight::LinkUp), (3, Sight::LinkDown)]
        );
        // Node 2 is down and comes back.
        assert_eq!(told(&mut sightings, &[(3, false)]), []);
        assert_eq!(told(&mut sightings, &[(2, true), (3, false)]), [(2, Sight::LinkUp)]);
    }

    #[test]
    fn lines_of_the_log_are_told_without_their_severity_and_no_flood_of_them() {
        let mut sightings = Sightings::default();
        assert_eq!(sightings.stranger(0, "warning: a: b").unwrap().text, "a: b");
        assert_eq!(sightings.stranger(QUIET_MS - 1, "warning: c"), None);
        assert_eq!(sightings.stranger(QUIET_MS, "note: d").unwrap().text, "d");
        assert_eq!(Sightings::segment("warning: 5 frames").unwrap().text, "5 frames");
        assert_eq!(Sightings::segment("frames are sent under key 2"), None);
    }
}
