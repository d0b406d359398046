// SPDX-License-Identifier: MIT OR Apache-2.0
//! What files tell of the machine, whether or not the node answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dvs_config::{Config, Source};
use dvs_console::{Facts, Interface, Purpose};
use serde::Deserialize;

/// What Linux calls Ethernet interfaces, in `type`.
const ETHERNET: &str = "1";

/// The machine whose folders are below a root.
#[derive(Debug)]
pub(super) struct Machine(PathBuf);

/// `network.json`, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
struct NetworkFile {
    cluster: Vec<Named>,
    management: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.to_owned())
    }

    /// Where the daemon answers.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.join("run/dvs/api.sock")
    }

    /// A text without the blanks around it; `None` if there is none.
    fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.0.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// What is so now, but for what only the node can tell.
    pub(super) fn facts(&self) -> Facts {
        let uptime = self.text("proc/uptime").unwrap_or_default();
        let uptime = uptime.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let config = self.text("run/dvs/config.toml").and_then(|text| {
            Config::from_sources(&[(Source::File("config.toml".into()), text)]).ok()
        });
        // Nobody could prove to be an administrator without a token.
        let api = config.as_ref().filter(|config| config.cluster.token.is_some()).and_then(|it| {
            let address = it.network.management.as_ref()?.address.address();
            Some(format!("https://{address}:{}", it.api.port))
        });
        Facts {
            uptime: Duration::try_from_secs_f64(uptime).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: self.text("proc/sys/kernel/osrelease").unwrap_or_default(),
            cluster: config.as_ref().map(|config| config.cluster.name.to_string()),
            api,
            complaint: self.text("run/dvs/complaint"),
            status: self
                .text("run/dvs/status.json")
                .and_then(|text| serde_json::from_str(&text).ok()),
            silence: None,
            absent: Vec::new(),
            interfaces: self.interfaces(),
            // Nobody knows what is wanted where nobody can read it.
            has_menu: config.is_some_and(|config| config.console.menu),
        }
    }

    fn interfaces(&self) -> Vec<Interface> {
        let network = self.text("run/dvs/network.json");
        let NetworkFile { cluster, management } =
            network.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let purpose = |name: &str| {
            let management = management.iter().map(|it| (it, Purpose::Management));
            let mut all = cluster.iter().map(|it| (it, Purpose::Cluster)).chain(management);
            all.find(|(it, _)| it.name == name).map(|(_, purpose)| purpose)
        };
        let entries =
            fs::read_dir(self.0.join("sys/class/net")).into_iter().flatten().filter_map(Result::ok);
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut found: Vec<_> = names
            .filter_map(|name| {
                let file = |file: &str| self.text(&format!("sys/class/net/{name}/{file}"));
                let purpose = purpose(&name);
                // What is made by software is shown if it is used.
                let is_real = self.0.join(format!("sys/class/net/{name}/device")).exists();
                if file("type").as_deref() != Some(ETHERNET) || !(is_real || purpose.is_some()) {
                    return None;
                }
                Some(Interface {
                    mac: file("address").unwrap_or_default(),
                    // It cannot be read while the interface is off.
                    link: file("carrier").map(|carrier| carrier == "1"),
                    speed: file("speed").and_then(|speed| speed.parse().ok()),
                    purpose,
                    name,
                })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_tell_of_the_machine_and_nothing_of_its_secrets() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::new(root.path());
        let none = machine.facts();
        assert_eq!((none.status, none.has_menu, none.interfaces), (None, false, vec![]));
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/uptime", "61.50 100.00\n");
        write(
            "run/dvs/config.toml",
            "[cluster]\nname = 'lab'\ntoken = 'sixteen letters or more'\n\
             [network.management]\ninterface = 'eth1'\naddress = '10.0.2.15/24'\n",
        );
        write(
            "run/dvs/network.json",
            r#"{"cluster":[{"name":"eth0","index":2}],"management":{"name":"eth1","index":3}}"#,
        );
        let interfaces = [("eth0", "1", true), ("lo", "772", false), ("veth7", "1", false)];
        for (name, kind, is_real) in interfaces {
            write(&format!("sys/class/net/{name}/type"), kind);
            write(&format!("sys/class/net/{name}/address"), "52:54:00:00:00:01\n");
            if is_real {
                write(&format!("sys/class/net/{name}/device/x"), "");
                write(&format!("sys/class/net/{name}/carrier"), "1\n");
                write(&format!("sys/class/net/{name}/speed"), "-1\n");
            }
        }
        let facts = machine.facts();
        assert_eq!((facts.uptime.as_secs(), facts.has_menu), (61, true));
        assert_eq!(facts.api.as_deref(), Some("https://10.0.2.15:7700"));
        assert!(!format!("{facts:?}").contains("sixteen"));
        let eth0 = Interface {
            name: "eth0".into(),
            mac: "52:54:00:00:00:01".into(),
            link: Some(true),
            speed: None,
            purpose: Some(Purpose::Cluster),
        };
        assert_eq!(facts.interfaces, [eth0]);
        write("run/dvs/config.toml", "[console]\nmenu = false\n");
        assert!(!machine.facts().has_menu);
    }
}
