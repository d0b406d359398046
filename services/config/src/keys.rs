// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every key by its dotted path.
//!
//! The schema's structs say what a value may be once it is TOML. This table adds what serde cannot
//! tell: how bare text from the kernel command line becomes a value of the right type, and which
//! keys exist at all, for "did you mean". A test keeps it in step with the structs.

/// How a bare word of the kernel command line is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Taken literally.
    Text,
    /// A decimal number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// Several texts, separated by commas or blanks; or a TOML array.
    List,
    /// A command and its arguments, separated by blanks; or a TOML array.
    Command,
}

/// The keys that exist, and how each reads bare text.
pub(crate) const KEYS: [(&str, Kind); 19] = [
    ("cluster.name", Kind::Text),
    ("cluster.token", Kind::Text),
    ("cluster.join_token", Kind::Text),
    ("cluster.bootstrap_expect", Kind::Integer),
    ("cluster.insecure", Kind::Boolean),
    ("node.name", Kind::Text),
    ("network.cluster", Kind::List),
    ("network.management.interface", Kind::Text),
    ("network.management.address", Kind::Text),
    ("network.management.gateway", Kind::Text),
    ("api.port", Kind::Integer),
    ("console.menu", Kind::Boolean),
    ("netboot.interface", Kind::Text),
    ("netboot.address", Kind::Text),
    ("netboot.addresses", Kind::Text),
    ("netboot.append", Kind::Text),
    ("run.command", Kind::Command),
    ("run.power", Kind::Text),
    ("run.services", Kind::Boolean),
];

/// The paths of secrets, whose values no error message shows.
pub(crate) const SECRETS: [&str; 3] = ["cluster.token", "cluster.join_token", "netboot.append"];

/// How the key reads bare text; `None` when there is no such key.
pub(crate) fn kind(path: &str) -> Option<Kind> {
    KEYS.iter().find(|(key, _)| *key == path).map(|(_, kind)| *kind)
}

/// Whether the path names a section, that is, keys lie below it.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|(key, _)| {
        key.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.starts_with('.'))
    })
}

/// Whether what stands under this key must not be shown: it is a secret, or meant to be.
pub(crate) fn is_secret(path: &str) -> bool {
    let meant = || nearest(path).filter(|_| kind(path).is_none());
    SECRETS.contains(&path) || meant().is_some_and(|key| SECRETS.contains(&key))
}

/// The key or section that a mistyped path most likely meant.
///
/// A key that stands in the wrong section, or in none, is found by its last part.
pub(crate) fn nearest(path: &str) -> Option<&'static str> {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let sections =
        ["cluster", "node", "network", "network.management", "api", "console", "netboot", "run"];
    let closeness = |candidate: &str| {
        let whole = strsim::damerau_levenshtein(path, candidate);
        // One more than a whole match as good: the section was wrong too.
        let tail = strsim::damerau_levenshtein(&last(path), &last(candidate)) + 1;
        whole.min(tail)
    };
    KEYS.iter()
        .map(|(key, _)| *key)
        .chain(sections)
        .map(|candidate| (closeness(candidate), candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= 1 + last(path).chars().count() / 3)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{is_section, kind, nearest, Kind, KEYS};
    use crate::{Config, Management, Netboot, Node, Run};

    /// A configuration in which every key is set.
    fn full() -> Config {
        let mut config = Config::default();
        config.cluster.token = Some("0123456789abcdef".parse().unwrap());
        let join_token = "ab12.abcdefghijklmnopqrstuvwxyz".parse().unwrap();
        config.cluster.join_token = Some(join_token);
        config.node = Node { name: Some("rack3".parse().unwrap()) };
        config.network.cluster = vec!["eth0".parse().unwrap()];
        config.network.management = Some(Management {
            interface: "eth1".parse().unwrap(),
            address: "10.0.2.15/24".parse().unwrap(),
            gateway: Some("10.0.2.2".parse().unwrap()),
        });
        config.console.menu = false;
        config.netboot = Some(Netboot {
            interface: "eth0".parse().unwrap(),
            address: Some("10.0.0.1/24".parse().unwrap()),
            addresses: Some("10.0.0.2-10.0.0.9".parse().unwrap()),
            append: Some("quiet".parse().unwrap()),
        });
        let command = vec!["/a".into()];
        config.run = Some(Run { command, power: Default::default(), services: true });
        config
    }

    fn leaves(prefix: &str, value: &toml::Value, out: &mut BTreeSet<(String, bool)>) {
        match value {
            toml::Value::Table(table) => {
                for (key, value) in table {
                    let dot = if prefix.is_empty() { "" } else { "." };
                    leaves(&format!("{prefix}{dot}{key}"), value, out);
                }
            }
            toml::Value::Array(_) => assert!(out.insert((prefix.to_owned(), true))),
            _ => assert!(out.insert((prefix.to_owned(), false))),
        }
    }

    #[test]
    fn the_table_is_in_step_with_the_schema() {
        let mut found = BTreeSet::new();
        leaves("", &toml::Value::Table(full().to_toml().parse().unwrap()), &mut found);
        let listed: BTreeSet<_> = KEYS
            .iter()
            .map(|(key, kind)| (key.to_string(), matches!(kind, Kind::List | Kind::Command)))
            .collect();
        assert_eq!(listed, found);
    }

    #[test]
    fn sections_are_prefixes_at_a_dot() {
        assert!(is_section("network.management") && is_section("") && is_section("run"));
        assert!(!is_section("clust") && !is_section("cluster.token") && !is_section("cluster."));
        assert_eq!(kind("network"), None);
    }

    #[test]
    fn a_mistyped_key_finds_its_neighbour() {
        assert_eq!(nearest("cluster.tokn"), Some("cluster.token"));
        assert_eq!(nearest("bootstrap_expect"), Some("cluster.bootstrap_expect"));
        assert_eq!(nearest("cluster.adress"), Some("network.management.address"));
        assert_eq!(nearest("netwrok"), Some("network"));
        assert_eq!(nearest("clutser.token"), Some("cluster.token"));
        assert_eq!(nearest("frobnicate"), None);
    }
}
