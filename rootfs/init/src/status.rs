// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one-line banner made of `/run/dvs/status.json`, which `dvsd` keeps.

use serde::Deserialize;

/// What `dvsd` says of this node. Keys that a newer `dvsd` adds are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Status {
    name: Option<String>,
    cluster: String,
    state: String,
    detail: String,
    members: u32,
    ready: u32,
    addresses: Vec<String>,
    version: String,
}

impl Status {
    /// The banner: `dvs: node0 of dvs: ready (4 of 4 nodes), fe80::…%eth0, version 0.1.0`.
    pub(crate) fn banner(&self) -> String {
        let name = self.name.as_deref().unwrap_or("new node");
        let mut line = format!("dvs: {name} of {}: {}", self.cluster, self.state);
        if self.members > 0 {
            line += &format!(" ({} of {} nodes)", self.ready, self.members);
        }
        let addresses = self.addresses.join(" ");
        let version = if self.version.is_empty() {
            String::new()
        } else {
            format!("version {}", self.version)
        };
        for part in [&self.detail, &addresses, &version] {
            if !part.is_empty() {
                line += ", ";
                line += part;
            }
        }
        // The detail may repeat what a stranger on the network sent.
        line.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    fn banner(json: &str) -> String {
        serde_json::from_str::<Status>(json).unwrap().banner()
    }

    #[test]
    fn a_ready_node_shows_the_agreed_line() {
        let json = r#"{"node":0,"name":"node0","cluster":"dvs","state":"ready","detail":"",
            "members":4,"ready":4,"addresses":["fe80::1%eth0"],"version":"0.1.0","new":[]}"#;
        let line = "dvs: node0 of dvs: ready (4 of 4 nodes), fe80::1%eth0, version 0.1.0";
        assert_eq!(banner(json), line);
    }

    #[test]
    fn a_node_without_id_shows_what_it_waits_for() {
        let json = r#"{"node":null,"name":null,"cluster":"lab","state":"discovering",
            "detail":"2 of 4 nodes seen\u001b[2J","members":0,"ready":0,"addresses":[],"version":"0.1.0"}"#;
        let line = "dvs: new node of lab: discovering, 2 of 4 nodes seen·[2J, version 0.1.0";
        assert_eq!(banner(json), line);
    }
}
