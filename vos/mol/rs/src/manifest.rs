// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which servers a virtual OS has, as its author writes it.

use dvk_services::VALUE_BYTES_MAX;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Most servers of a virtual OS. What each node tells of its own has to fit one key.
pub const SERVERS_MAX: usize = 128;
/// Most bytes of a server's name.
pub const NAME_BYTES_MAX: usize = 64;

/// A manifest that makes sense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Where the virtual OS is reached, for people.
    pub url: Option<String>,
    /// By name.
    pub servers: BTreeMap<String, Definition>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// The program and its arguments, in which `{node}` and `{replica}` stand for numbers.
    pub command: Vec<String>,
    /// Variables of its environment, besides those of `mol-rs`.
    pub environment: BTreeMap<String, String>,
    /// Where it runs.
    pub placement: Placement,
    /// Which servers have to run somewhere before it is started for the first time.
    pub after: BTreeSet<String>,
    /// Where it is reached, for people.
    pub url: Option<String>,
}

/// Where a server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On every node, or on each of these.
    Each(Option<BTreeSet<u32>>),
    /// On one node at a time.
    Once {
        /// Where it is rather than elsewhere.
        prefer: Option<u32>,
        /// The nodes that it may be on; all, if there are none.
        nodes: Option<BTreeSet<u32>>,
    },
}

impl Placement {
    /// Whether the server may be on a node.
    pub fn allows(&self, node: u32) -> bool {
        let (Self::Each(nodes) | Self::Once { nodes, .. }) = self;
        nodes.as_ref().is_none_or(|nodes| nodes.contains(&node))
    }

    /// The node where it is rather than elsewhere, if there is one of it at a time.
    pub fn prefers(&self) -> Option<u32> {
        match self {
            Self::Once { prefer, .. } => *prefer,
            Self::Each(_) => None,
        }
    }

    /// Whether there is one of it at a time.
    pub fn is_once(&self) -> bool {
        matches!(self, Self::Once { .. })
    }
}

/// Why a text is no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not of the form.
    #[error("the manifest cannot be read: {0}")]
    Form(String),
    /// It is too long to be kept.
    #[error("the manifest has {0} bytes; {VALUE_BYTES_MAX} are the most that can be kept")]
    Bytes(usize),
    /// There are too many servers.
    #[error("the manifest has {0} servers; {SERVERS_MAX} are the most")]
    Servers(usize),
    /// A server makes no sense.
    #[error("server {name:?}: {why}")]
    Server {
        /// Which one.
        name: String,
        /// What to change.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    url: Option<String>,
    #[serde(default)]
    server: Vec<ServerText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerText {
    name: String,
    command: Vec<String>,
    each: Option<bool>,
    once: Option<bool>,
    nodes: Option<BTreeSet<u32>>,
    prefer: Option<u32>,
    #[serde(default)]
    after: BTreeSet<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    url: Option<String>,
}

impl Manifest {
    /// Reads one.
    ///
    /// # Errors
    /// [`ManifestError`], with the line if it is not of the form.
    pub fn read(text: &str) -> Result<Self, ManifestError> {
        if text.len() > VALUE_BYTES_MAX {
            return Err(ManifestError::Bytes(text.len()));
        }
        let read: Text = toml::from_str(text)
            .map_err(|error| ManifestError::Form(error.to_string().trim_end().to_owned()))?;
        if read.server.len() > SERVERS_MAX {
            return Err(ManifestError::Servers(read.server.len()));
        }
        let mut servers = BTreeMap::new();
        for server in read.server {
            let name = server.name.clone();
            let failed = |why: &str| ManifestError::Server { name: name.clone(), why: why.into() };
            check_name(&name).map_err(|why| failed(&why))?;
            let definition = definition(server).map_err(|why| failed(&why))?;
            if servers.insert(name.clone(), definition).is_some() {
                return Err(failed("there is another one of that name"));
            }
        }
        let manifest = Self { url: read.url, servers };
        manifest.check_order()?;
        Ok(manifest)
    }

    /// Where the virtual OS is reached: what the manifest says as a whole, else what its first server with an address says.
    pub fn address(&self) -> Option<&str> {
        let of_servers = || self.servers.values().find_map(|server| server.url.as_deref());
        self.url.as_deref().or_else(of_servers)
    }

    /// Whoever waits for others waits for some that there are, and for none that waits for it.
    fn check_order(&self) -> Result<(), ManifestError> {
        let failed = |name: &str, why: String| ManifestError::Server { name: name.into(), why };
        for (name, server) in &self.servers {
            if let Some(missing) = server.after.iter().find(|it| !self.servers.contains_key(*it)) {
                let why = format!("it is to start after {missing:?}, which is no server of these");
                return Err(failed(name, why));
            }
        }
        let mut left: BTreeMap<&str, BTreeSet<&str>> = self
            .servers
            .iter()
            .map(|(name, server)| {
                (name.as_str(), server.after.iter().map(String::as_str).collect())
            })
            .collect();
        loop {
            let free = left.iter().find(|(_, after)| after.is_empty()).map(|(name, _)| *name);
            match free {
                Some(free) => {
                    left.remove(free);
                    for after in left.values_mut() {
                        after.remove(free);
                    }
                }
                None => break,
            }
        }
        match left.keys().next() {
            None => Ok(()),
            Some(name) => {
                let why = "it would start after itself, by way of what is in its `after`".into();
                Err(failed(name, why))
            }
        }
    }
}

fn definition(server: ServerText) -> Result<Definition, String> {
    let ServerText { command, each, once, nodes, prefer, after, env, url, .. } = server;
    if command.first().is_none_or(String::is_empty) {
        return Err("its `command` names no program".into());
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err("its `command` has a zero byte in it".into());
    }
    let is_variable = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
    if let Some(name) = env.keys().find(|name| !is_variable(name)) {
        return Err(format!("{name:?} cannot be the name of a variable"));
    }
    if env.values().any(|value| value.contains('\0')) {
        return Err("its `env` has a zero byte in it".into());
    }
    if nodes.as_ref().is_some_and(BTreeSet::is_empty) {
        return Err("its `nodes` are none; leave them out if it may be on any".into());
    }
    let is_each = match (each, once) {
        (Some(true), Some(true)) => return Err("it is `each` or `once`, not both".into()),
        (Some(false), Some(false)) => return Err("it is neither `each` nor `once`".into()),
        (Some(each), _) => each,
        (None, Some(once)) => !once,
        // Nodes alone are where it runs, each of them.
        (None, None) => nodes.is_some(),
    };
    let placement = match is_each {
        true if prefer.is_some() => {
            return Err(
                "it runs on several nodes, so it can `prefer` none; write `once = true`".into()
            );
        }
        true => Placement::Each(nodes),
        false => Placement::Once { prefer, nodes },
    };
    if prefer.is_some_and(|node| !placement.allows(node)) {
        return Err("the node that it prefers is none of its `nodes`".into());
    }
    Ok(Definition { command, environment: env, placement, after, url })
}

fn check_name(name: &str) -> Result<(), String> {
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    match is_name {
        true => Ok(()),
        false => Err(format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`")),
    }
}

impl Definition {
    /// The command on a node.
    pub fn command_on(&self, node: u32) -> Vec<String> {
        let (here, replica) = (node.to_string(), (u64::from(node) + 1).to_string());
        let filled = |word: &String| word.replace("{node}", &here).replace("{replica}", &replica);
        self.command.iter().map(filled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<Manifest, String> {
        Manifest::read(text).map_err(|error| error.to_string())
    }

    fn server(rest: &str) -> Result<Definition, String> {
        let text =
            format!("[[server]]\nname = \"a\"\ncommand = [\"/bin/a\", \"{{node}}\"]\n{rest}");
        read(&text).map(|manifest| manifest.servers["a"].clone())
    }

    #[test]
    fn a_server_is_placed_as_its_manifest_says() {
        let placement = |rest: &str| server(rest).unwrap().placement;
        let two = Some(BTreeSet::from([0, 2]));
        assert_eq!(placement(""), Placement::Once { prefer: None, nodes: None });
        assert_eq!(placement("prefer = 3"), Placement::Once { prefer: Some(3), nodes: None });
        assert_eq!(placement("each = true"), Placement::Each(None));
        assert_eq!(placement("nodes = [0, 2]"), Placement::Each(two.clone()));
        assert_eq!(placement("each = true\nnodes = [0, 2]"), Placement::Each(two.clone()));
        let once = placement("once = true\nprefer = 2\nnodes = [0, 2]");
        assert_eq!(once, Placement::Once { prefer: Some(2), nodes: two });
        assert!(once.allows(2) && !once.allows(1));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_place() {
        for (rest, part) in [
            ("each = true\nonce = true", "not both"),
            ("each = false\nonce = false", "neither"),
            ("nodes = []", "none"),
            ("nodes = [1]\nprefer = 1", "once = true"),
            ("once = true\nnodes = [1]\nprefer = 2", "none of its `nodes`"),
            ("after = [\"b\"]", "\"b\", which is no server"),
            ("after = [\"a\"]", "after itself"),
            ("env = { \"\" = \"1\" }", "variable"),
            ("colour = 1", "line 4"),
        ] {
            let error = server(rest).unwrap_err();
            assert!(error.contains(part), "{rest}: {error}");
        }
        assert!(read("[[server]]\nname = \"a/b\"\ncommand = [\"a\"]")
            .unwrap_err()
            .contains("letters"));
        assert!(read("[[server]]\nname = \"a\"\ncommand = []").unwrap_err().contains("no program"));
        let twice = "[[server]]\nname = \"a\"\ncommand = [\"a\"]\n".repeat(2);
        assert!(read(&twice).unwrap_err().contains("another one"));
        let long = format!("# {}", "x".repeat(VALUE_BYTES_MAX));
        assert!(read(&long).unwrap_err().contains("the most that can be kept"));
        let circle = "[[server]]\nname = \"a\"\ncommand = [\"a\"]\nafter = [\"b\"]\n\
                      [[server]]\nname = \"b\"\ncommand = [\"b\"]\nafter = [\"a\"]\n";
        assert!(read(circle).unwrap_err().contains("after itself"));
    }

    #[test]
    fn numbers_are_filled_in() {
        let definition = server("").unwrap();
        assert_eq!(definition.command_on(7), ["/bin/a", "7"]);
        let text = "url = \"http://x\"\n[[server]]\nname = \"a\"\ncommand = [\"d\", \"--replica={replica}\"]";
        let manifest = read(text).unwrap();
        assert_eq!(manifest.servers["a"].command_on(2), ["d", "--replica=3"]);
        assert_eq!(manifest.address(), Some("http://x"));
        assert_eq!(server("url = \"http://y\"").unwrap().url.as_deref(), Some("http://y"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_much(text in "\\PC{0,200}") {
            let _ = Manifest::read(&text);
        }
    }
}
