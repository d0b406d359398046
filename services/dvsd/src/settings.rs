// SPDX-License-Identifier: MIT OR Apache-2.0
//! What PID 1 tells `dvsd`: the machine configuration and the choice of interfaces.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use dvs_config::{Config, JoinToken, Mac, Source, Token};
use serde::Deserialize;

use crate::beacon::MEMBERS_MAX;
use crate::release;

/// A network interface that carries cluster traffic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
}

/// `network.json`, as far as `dvsd` needs it. Keys that a newer PID 1 adds are ignored.
#[derive(Debug, Deserialize)]
struct NetworkFile {
    cluster: Vec<Interface>,
}

/// Everything that does not change while `dvsd` runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the cluster.
    pub cluster: String,
    /// The cluster's token; `None` for a node that stays alone, or has to be let in first.
    pub token: Option<Token>,
    /// With what a machine is to be let in that has not the cluster's token.
    pub join_token: Option<JoinToken>,
    /// Whether messages between nodes go in the clear.
    pub insecure: bool,
    /// How many nodes form a cluster.
    pub expect: u16,
    /// The configured name of the node; empty if there is none.
    pub name: String,
    /// The interfaces that carry cluster traffic.
    pub interfaces: Vec<Interface>,
    /// Address of the management interface.
    pub management: Option<IpAddr>,
    /// Where the API listens, besides the socket: in the clear on this machine only, if there is no token.
    pub api: SocketAddr,
    /// What this node runs: see [`crate::release`].
    pub release: String,
}

impl Settings {
    /// Reads `config.toml` and `network.json` in `directory`.
    ///
    /// # Errors
    /// For people: what cannot be read, or what the two don't allow.
    pub fn read(directory: &Path) -> Result<Self, String> {
        let text = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).map_err(|error| format!("read {}: {error}", path.display()))
        };
        let source = Source::File(directory.join("config.toml"));
        let config = Config::from_sources(&[(source, text("config.toml")?)])
            .map_err(|error| error.to_string())?;
        let network: NetworkFile =
            serde_json::from_str(&text("network.json")?).map_err(|error| {
                format!(
                    "{} is not as PID 1 writes it: {error}",
                    directory.join("network.json").display()
                )
            })?;
        Self::of(&config, network.cluster)
    }

    fn of(config: &Config, interfaces: Vec<Interface>) -> Result<Self, String> {
        let expect = config.cluster.bootstrap_expect;
        if expect as usize > MEMBERS_MAX {
            return Err(format!(
                "cluster.bootstrap_expect = {expect}: a cluster has at most {MEMBERS_MAX} nodes in \
                 this version"
            ));
        }
        if expect > 1 && interfaces.is_empty() {
            return Err(format!(
                "cluster.bootstrap_expect = {expect}, but this machine has no interface for cluster \
                 traffic; check network.cluster and the network cards"
            ));
        }
        let management: Option<IpAddr> =
            config.network.management.as_ref().map(|it| it.address.address().into());
        // Without a token nobody could prove to be an administrator.
        let reachable = management.filter(|_| config.cluster.token.is_some());
        let listen = reachable.unwrap_or(Ipv4Addr::LOCALHOST.into());
        Ok(Self {
            cluster: config.cluster.name.to_string(),
            token: config.cluster.token.clone(),
            join_token: config.cluster.join_token.clone(),
            insecure: config.cluster.insecure,
            expect: expect as u16,
            name: config.node.name.as_ref().map(ToString::to_string).unwrap_or_default(),
            interfaces,
            management,
            api: SocketAddr::new(listen, config.api.port),
            release: release::own().to_owned(),
        })
    }

    /// The machine's identity: the lowest MAC address of its cluster interfaces, or, without any,
    /// one made of `random`, since nobody else will hear of it.
    pub fn identity(&self, random: u64) -> Mac {
        let [.., a, b, c, d, e] = random.to_be_bytes();
        self.interfaces.iter().map(|it| it.mac).min().unwrap_or(Mac([2, a, b, c, d, e]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str, network: &str) -> Result<Settings, String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config.toml"), config).unwrap();
        fs::write(directory.path().join("network.json"), network).unwrap();
        Settings::read(directory.path())
    }

    const TWO: &str = r#"{"cluster":[{"name":"eth0","index":2,"mac":"52:54:00:00:00:09"},
        {"name":"eth2","index":4,"mac":"52:54:00:00:00:03"}],
        "management":{"name":"eth1","index":3,"address":"10.0.2.15/24"}}"#;

    #[test]
    fn the_files_of_pid_1_are_understood() {
        let settings = read(
            "[cluster]\nname = 'lab'\ntoken = 'sixteen letters or more'\nbootstrap_expect = 4\n\
             [network.management]\ninterface = 'eth1'\naddress = '10.0.2.15/24'\n",
            TWO,
        )
        .unwrap();
        assert_eq!(settings.identity(0).to_string(), "52:54:00:00:00:03");
        assert_eq!(settings.api, "10.0.2.15:7700".parse().unwrap());
        assert_eq!((settings.cluster.as_str(), settings.expect), ("lab", 4));
    }

    #[test]
    fn without_a_management_interface_the_api_is_local() {
        let settings = read("", r#"{"cluster":[],"management":null}"#).unwrap();
        assert_eq!(settings.api, "127.0.0.1:7700".parse().unwrap());
        assert_eq!(settings.identity(1).0[0], 2);
    }

    #[test]
    fn without_a_token_the_api_is_local() {
        let config = "[network.management]\ninterface = 'eth1'\naddress = '10.0.2.15/24'\n";
        let settings = read(config, TWO).unwrap();
        assert_eq!(settings.api, "127.0.0.1:7700".parse().unwrap());
    }

    #[test]
    fn a_machine_that_was_let_in_is_reached_as_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let config = "[cluster]\njoin_token = 'ab12.abcdefghijklmnopqrstuvwxyz'\n\
            [network.management]\ninterface = 'eth1'\naddress = '10.0.2.15/24'\n";
        fs::write(directory.join("config.toml"), config).unwrap();
        fs::write(directory.join("network.json"), TWO).unwrap();
        let before = Settings::read(directory).unwrap();
        assert_eq!((before.token, before.api), (None, "127.0.0.1:7700".parse().unwrap()));
        let token: Token = "sixteen letters or more".parse().unwrap();
        crate::trial::admit(directory, token.clone()).unwrap();
        let after = Settings::read(directory).unwrap();
        assert_eq!((after.token, after.join_token), (Some(token), None));
        assert_eq!(after.api, "10.0.2.15:7700".parse().unwrap());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let cluster = |expect| {
            format!("[cluster]\ntoken = 'sixteen letters or more'\nbootstrap_expect = {expect}\n")
        };
        let error = read(&cluster(MEMBERS_MAX + 1), TWO).unwrap_err();
        assert!(error.contains(&format!("at most {MEMBERS_MAX} nodes")), "{error}");
        let error = read(&cluster(2), r#"{"cluster":[]}"#).unwrap_err();
        assert!(error.contains("no interface"), "{error}");
        let error = read("", "{").unwrap_err();
        assert!(error.contains("network.json"), "{error}");
    }
}
