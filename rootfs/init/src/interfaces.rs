// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which interface serves which purpose.

use dvs_config::{InterfaceAddress, InterfaceKind, InterfaceSelector, Mac, Network};
use serde::Serialize;

/// An Ethernet interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// The address that it has.
    pub(crate) mac: Mac,
    /// The address that it came with, by which it is selected: members of a bond have that of the bond.
    pub(crate) own_mac: Mac,
    pub(crate) kind: InterfaceKind,
    /// It is a member of a bond, hence never chosen.
    pub(crate) is_member: bool,
}

impl Interface {
    pub(crate) fn is_selected_by(&self, selector: &InterfaceSelector) -> bool {
        selector.selects(self.kind, &self.name, self.own_mac)
    }
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

/// Chooses among the interfaces as the configuration says. By default, adapters and bonds carry cluster traffic: other interfaces that
/// software makes (VLANs, bridges…) share an adapter with what that is for.
pub(crate) fn choose(interfaces: &[Interface], network: &Network) -> Choice {
    let (members, mut interfaces): (Vec<_>, Vec<_>) =
        interfaces.iter().cloned().partition(|interface| interface.is_member);
    interfaces.sort_by_key(|interface| interface.index);
    let selects =
        |selector: &InterfaceSelector, interface: &Interface| interface.is_selected_by(selector);
    let taken = |selector: &InterfaceSelector| {
        let member = members.iter().find(|member| member.is_selected_by(selector));
        member.map(|it| format!(", but `{}`, which is in a bond", it.name)).unwrap_or_default()
    };
    let mut missing = Vec::new();

    let wanted = network.management.as_ref().map(|management| &management.interface);
    let management =
        wanted.and_then(|wanted| interfaces.iter().find(|interface| selects(wanted, interface)));
    if let (Some(wanted), None) = (wanted, management) {
        missing.push(format!(
            "no Ethernet interface matches `{wanted}` of `network.management.interface`{}",
            taken(wanted)
        ));
    }

    let others = || interfaces.iter().filter(|interface| Some(*interface) != management);
    let cluster: Vec<Interface> = if network.cluster.is_empty() {
        let by_default = |interface: &&Interface| {
            matches!(interface.kind, InterfaceKind::Adapter | InterfaceKind::Bond)
        };
        others().filter(by_default).cloned().collect()
    } else {
        for selector in &network.cluster {
            if !others().any(|interface| selects(selector, interface)) {
                missing.push(format!(
                    "no Ethernet interface but the management one matches `{selector}` of \
                     `network.cluster`{}",
                    taken(selector)
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
    use dvs_config::{InterfaceKind, Mac, Management, Network};

    use super::{choose, Interface, NetworkFile};

    fn interface(name: &str, index: u32, is_virtual: bool) -> Interface {
        let kind = if is_virtual { InterfaceKind::Other } else { InterfaceKind::Adapter };
        let mac = Mac([0x52, 0x54, 0, 0, 0, index as u8]);
        Interface { name: name.to_owned(), index, mac, own_mac: mac, kind, is_member: false }
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
            ..Network::default()
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

    /// `eth0` and `eth2` are the bond `bond0`, and frames of `bond0` and `eth1` with number 7 are VLANs.
    fn bonded() -> Vec<Interface> {
        let mut interfaces = machine();
        let bond_mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
        for member in
            interfaces.iter_mut().filter(|it| ["eth0", "eth2"].contains(&it.name.as_str()))
        {
            (member.mac, member.is_member) = (bond_mac, true);
        }
        let made = |name: &str, index, kind| Interface {
            kind,
            mac: bond_mac,
            own_mac: bond_mac,
            ..interface(name, index, true)
        };
        interfaces.push(made("bond0", 6, InterfaceKind::Bond));
        interfaces.push(made("bond0.7", 7, InterfaceKind::Vlan));
        interfaces.push(made("eth1.7", 8, InterfaceKind::Vlan));
        interfaces
    }

    #[test]
    fn by_default_bonds_take_the_place_of_their_members_and_vlans_are_left_out() {
        let choice = choose(&bonded(), &network(&[], None));
        assert_eq!(names(&choice.cluster), ["eth1", "bond0"]);
        let choice = choose(&bonded(), &network(&[], Some("bond0.7")));
        assert_eq!(names(&choice.cluster), ["eth1", "bond0"]);
        assert_eq!(choice.management.unwrap().name, "bond0.7");
    }

    #[test]
    fn members_are_never_chosen_and_vlans_by_their_whole_names() {
        let choice = choose(&bonded(), &network(&["eth*", "bond?", "bond0.7"], None));
        assert_eq!(names(&choice.cluster), ["eth1", "bond0", "bond0.7"]);
        assert!(choice.missing.is_empty());
        // The address of the bond and its VLANs is that of a member.
        let choice = choose(&bonded(), &network(&["52:54:00:00:00:02"], Some("eth2")));
        assert!(choice.cluster.is_empty() && choice.management.is_none());
        let [management, cluster] = &choice.missing[..] else { panic!("{:?}", choice.missing) };
        assert!(management.ends_with("but `eth2`, which is in a bond"), "{management}");
        assert!(cluster.ends_with("but `eth0`, which is in a bond"), "{cluster}");
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
