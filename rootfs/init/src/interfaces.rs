// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which interface serves which purpose.

use dvs_config::{InterfaceAddress, InterfaceSelector, Mac, Network};
use serde::Serialize;

/// An Ethernet interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    /// Made by software (bridge, veth, VLAN…), hence never chosen by default.
    pub(crate) is_virtual: bool,
}

/// The interfaces chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Those that carry cluster traffic, by index.
    pub(crate) cluster: Vec<Interface>,
    pub(crate) management: Option<Interface>,
    /// What was asked for and is not there, for people.
    pub(crate) missing: Vec<String>,
}

/// Chooses among the interfaces as the configuration says.
pub(crate) fn choose(interfaces: &[Interface], network: &Network) -> Choice {
    let mut interfaces = interfaces.to_vec();
    interfaces.sort_by_key(|interface| interface.index);
    let selects = |selector: &InterfaceSelector, interface: &Interface| {
        selector.matches(&interface.name, interface.mac)
    };
    let mut missing = Vec::new();

    let wanted = network.management.as_ref().map(|management| &management.interface);
    let management =
        wanted.and_then(|wanted| interfaces.iter().find(|interface| selects(wanted, interface)));
    if let (Some(wanted), None) = (wanted, management) {
        missing.push(format!(
            "no Ethernet interface matches `{wanted}` of `network.management.interface`"
        ));
    }

    let others = || interfaces.iter().filter(|interface| Some(*interface) != management);
    let cluster: Vec<Interface> = if network.cluster.is_empty() {
        others().filter(|interface| !interface.is_virtual).cloned().collect()
    } else {
        for selector in &network.cluster {
            if !others().any(|interface| selects(selector, interface)) {
                missing.push(format!(
                    "no Ethernet interface but the management one matches `{selector}` of \
                     `network.cluster`"
                ));
            }
        }
        others()
            .filter(|interface| network.cluster.iter().any(|s| selects(s, interface)))
            .cloned()
            .collect()
    };
    if cluster.is_empty() && network.cluster.is_empty() {
        missing.push("no Ethernet interface for cluster traffic: this node stays alone".to_owned());
    }
    Choice { cluster, management: management.cloned(), missing }
}

/// `/run/dvs/network.json`: what services need to know of the choice.
#[derive(Debug, Serialize)]
pub(crate) struct NetworkFile {
    cluster: Vec<ClusterEntry>,
    management: Option<ManagementEntry>,
}

#[derive(Debug, Serialize)]
struct ClusterEntry {
    name: String,
    index: u32,
    mac: Mac,
}

#[derive(Debug, Serialize)]
struct ManagementEntry {
    name: String,
    index: u32,
    address: InterfaceAddress,
}

impl NetworkFile {
    pub(crate) fn new(choice: &Choice, network: &Network) -> Self {
        let cluster = choice.cluster.iter().map(|interface| ClusterEntry {
            name: interface.name.clone(),
            index: interface.index,
            mac: interface.mac,
        });
        let management = choice.management.as_ref().zip(network.management.as_ref()).map(
            |(interface, management)| ManagementEntry {
                name: interface.name.clone(),
                index: interface.index,
                address: management.address,
            },
        );
        Self { cluster: cluster.collect(), management }
    }
}

#[cfg(test)]
mod tests {
    use dvs_config::{Mac, Management, Network};

    use super::{choose, Interface, NetworkFile};

    fn interface(name: &str, index: u32, is_virtual: bool) -> Interface {
        let mac = Mac([0x52, 0x54, 0, 0, 0, index as u8]);
        Interface { name: name.to_owned(), index, mac, is_virtual }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface("eth1", 3, false),
            interface("br0", 4, true),
            interface("eth0", 2, false),
            interface("eth2", 5, false),
        ]
    }

    fn network(cluster: &[&str], management: Option<&str>) -> Network {
        Network {
            cluster: cluster.iter().map(|text| text.parse().unwrap()).collect(),
            management: management.map(|interface| Management {
                interface: interface.parse().unwrap(),
                address: "10.0.2.15/24".parse().unwrap(),
                gateway: None,
            }),
        }
    }

    fn names(interfaces: &[Interface]) -> Vec<&str> {
        interfaces.iter().map(|interface| interface.name.as_str()).collect()
    }

    #[test]
    fn by_default_every_real_interface_but_the_management_one() {
        let choice = choose(&machine(), &network(&[], Some("52:54:00:00:00:03")));
        assert_eq!(names(&choice.cluster), ["eth0", "eth2"]);
        assert_eq!(choice.management.unwrap().name, "eth1");
        assert!(choice.missing.is_empty());
        let choice = choose(&machine(), &network(&[], None));
        assert_eq!(names(&choice.cluster), ["eth0", "eth1", "eth2"]);
    }

    #[test]
    fn management_takes_the_first_match_and_cluster_all_the_others() {
        let choice = choose(&machine(), &network(&["eth*", "br0"], Some("eth*")));
        assert_eq!(choice.management.unwrap().name, "eth0");
        assert_eq!(names(&choice.cluster), ["eth1", "br0", "eth2"]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let choice = choose(&machine(), &network(&["eth1", "en*"], Some("wan")));
        assert_eq!(names(&choice.cluster), ["eth1"]);
        assert_eq!(choice.missing.len(), 2);
        assert!(choice.missing[0].contains("`wan`") && choice.missing[1].contains("`en*`"));
        let choice = choose(&machine(), &network(&["eth0"], Some("eth0")));
        assert!(choice.cluster.is_empty());
        assert_eq!(choice.missing.len(), 1);
        assert_eq!(choose(&[], &network(&[], None)).missing.len(), 1);
    }

    #[test]
    fn the_file_has_the_agreed_form() {
        let network = network(&["eth0"], Some("eth1"));
        let file = NetworkFile::new(&choose(&machine(), &network), &network);
        assert_eq!(
            serde_json::to_string(&file).unwrap(),
            r#"{"cluster":[{"name":"eth0","index":2,"mac":"52:54:00:00:00:02"}],"management":{"name":"eth1","index":3,"address":"10.0.2.15/24"}}"#
        );
    }
}
