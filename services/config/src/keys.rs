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
    /// A TOML table; or an array of several.
    Tables,
}

/// The keys that exist, and how each reads bare text.
pub(crate) const KEYS: [(&str, Kind); 21] = [
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
    ("network.bond", Kind::Tables),
    ("network.vlan", Kind::Tables),
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

/// The keys of the tables that stand in lists.
pub(crate) const FIELDS: [(&str, Kind); 10] = [
    ("network.bond.name", Kind::Text),
    ("network.bond.interfaces", Kind::List),
    ("network.bond.mode", Kind::Text),
    ("network.bond.miimon_ms", Kind::Integer),
    ("network.bond.primary", Kind::Text),
    ("network.bond.lacp_rate", Kind::Text),
    ("network.bond.transmit_hash_policy", Kind::Text),
    ("network.vlan.name", Kind::Text),
    ("network.vlan.parent", Kind::Text),
    ("network.vlan.id", Kind::Integer),
];

/// The paths of secrets, whose values no error message shows.
pub(crate) const SECRETS: [&str; 3] = ["cluster.token", "cluster.join_token", "netboot.append"];

/// How the key reads bare text; `None` when there is no such key.
pub(crate) fn kind(path: &str) -> Option<Kind> {
    KEYS.iter().find(|(key, _)| *key == path).map(|(_, kind)| *kind)
}

/// What a key of a table in a list holds; `None` when there is no such key.
pub(crate) fn field(path: &str) -> Option<Kind> {
    FIELDS.iter().find(|(key, _)| *key == path).map(|(_, kind)| *kind)
}

/// The list of tables that the path leads into, if it does.
pub(crate) fn list_around(path: &str) -> Option<&'static str> {
    let around = |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().find(|(key, kind)| *kind == Kind::Tables && around(key)).map(|(key, _)| *key)
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
    let list = list_around(path);
    let fields = FIELDS.iter().filter(|(key, _)| list.is_some() && list_around(key) == list);
    KEYS.iter()
        .chain(fields)
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

    use super::{is_section, kind, list_around, nearest, Kind, FIELDS, KEYS};
    use crate::{Bond, Config, LacpRate, Management, Netboot, Node, Run, TransmitHashPolicy, Vlan};

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
        // Not all of them go together.
        config.network.bond = vec![Bond {
            name: "bond0".parse().unwrap(),
            interfaces: vec!["eth2".parse().unwrap()],
            mode: Default::default(),
            miimon_ms: 100,
            primary: Some("eth2".parse().unwrap()),
            lacp_rate: Some(LacpRate::Fast),
            transmit_hash_policy: Some(TransmitHashPolicy::Layer2),
        }];
        let name = Some("lab".parse().unwrap());
        config.network.vlan = vec![Vlan { name, parent: "bond0".parse().unwrap(), id: 7 }];
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
            .map(|(key, kind)| {
                (key.to_string(), matches!(kind, Kind::List | Kind::Command | Kind::Tables))
            })
            .collect();
        assert_eq!(listed, found);
    }

    #[test]
    fn the_tables_in_lists_are_in_step_with_the_schema() {
        let mut found = BTreeSet::new();
        let written = toml::Value::Table(full().to_toml().parse().unwrap());
        for (list, _) in KEYS.iter().filter(|(_, kind)| *kind == Kind::Tables) {
            let value = list.split('.').fold(&written, |value, key| &value[key]);
            leaves(list, &value[0], &mut found);
        }
        let listed: BTreeSet<_> = FIELDS
            .iter()
            .map(|(key, kind)| (key.to_string(), matches!(kind, Kind::List)))
            .collect();
        assert_eq!(listed, found);
        assert!(FIELDS.iter().all(|(key, _)| list_around(key).is_some()));
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
        assert_eq!(nearest("network.bond.lacprate"), Some("network.bond.lacp_rate"));
        assert_eq!(nearest("network.vlna"), Some("network.vlan"));
        // What is in tables of lists is meant only there.
        assert_eq!(nearest("node.primary"), None);
    }
}
