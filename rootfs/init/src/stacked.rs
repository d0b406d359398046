// SPDX-License-Identifier: MIT OR Apache-2.0
//! What bonds and VLANs are made of.

use dvs_config::{Bond, InterfaceKind, InterfaceSelector, Mac, Network};

use crate::interfaces::Interface;

/// A bond that can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedBond {
    pub(crate) bond: Bond,
    /// At least one; the first gives the bond its MAC address.
    pub(crate) members: Vec<Interface>,
    /// The member that sends whenever it can.
    pub(crate) primary: Option<Interface>,
}

/// What is to be made of adapters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) bonds: Vec<PlannedBond>,
    /// What was asked for and is not there, for people.
    pub(crate) missing: Vec<String>,
}

/// Says which bonds can be made of these interfaces, and what bonds and VLANs lack.
pub(crate) fn plan(interfaces: &[Interface], network: &Network) -> Plan {
    let mut adapters: Vec<_> =
        interfaces.iter().filter(|it| it.kind == InterfaceKind::Adapter).cloned().collect();
    adapters.sort_by_key(|it| it.index);
    let mut plan = Plan::default();
    for bond in &network.bond {
        let mut members: Vec<Interface> = Vec::new();
        for selector in &bond.interfaces {
            let found = adapters.extract_if(.., |it| it.is_selected_by(selector));
            members.extend(found);
            // It may be one that another selector has found.
            if !members.iter().any(|it| it.is_selected_by(selector)) {
                plan.lacks(selector, "network.bond.interfaces");
            }
        }
        let wanted = bond.primary.as_ref();
        let primary = wanted.and_then(|it| members.iter().find(|member| member.is_selected_by(it)));
        if let (Some(wanted), None) = (wanted, primary) {
            plan.missing.push(format!(
                "no interface of the bond `{}` matches `{wanted}` of `network.bond.primary`",
                bond.name
            ));
        }
        let primary = primary.cloned();
        if !members.is_empty() {
            plan.bonds.push(PlannedBond { bond: bond.clone(), members, primary });
        }
    }
    for vlan in &network.vlan {
        // A bond that cannot be made is missed above.
        let bond = network.bond.iter().any(|bond| selects_bond(&vlan.parent, bond));
        if !bond && !adapters.iter().any(|it| it.is_selected_by(&vlan.parent)) {
            plan.lacks(&vlan.parent, "network.vlan.parent");
        }
    }
    plan
}

impl Plan {
    fn lacks(&mut self, selector: &InterfaceSelector, key: &str) {
        let taken = self.bonds.iter().find_map(|planned| {
            let member = planned.members.iter().find(|it| it.is_selected_by(selector))?;
            Some(format!("; `{}` is one of the bond `{}`", member.name, planned.bond.name))
        });
        let taken = taken.unwrap_or_default();
        self.missing
            .push(format!("no free network adapter matches `{selector}` of `{key}`{taken}"));
    }
}

fn selects_bond(selector: &InterfaceSelector, bond: &Bond) -> bool {
    // The address of a bond plays no part.
    selector.selects(InterfaceKind::Bond, bond.name.as_str(), Mac([0; 6]))
}

/// Which interface is the parent of a VLAN, if there is one.
pub(crate) fn parent<'a>(
    interfaces: &'a [Interface],
    selector: &InterfaceSelector,
) -> Option<&'a Interface> {
    let can_be = |it: &&Interface| {
        matches!(it.kind, InterfaceKind::Adapter | InterfaceKind::Bond)
            && !it.is_member
            && it.is_selected_by(selector)
    };
    interfaces.iter().filter(can_be).min_by_key(|it| it.index)
}

#[cfg(test)]
mod tests {
    use dvs_config::{Config, InterfaceKind, Mac, Network, Source};

    use super::{parent, plan, Plan};
    use crate::interfaces::Interface;

    fn interface(name: &str, index: u32, kind: InterfaceKind) -> Interface {
        let mac = Mac([0x52, 0x54, 0, 0, 0, index as u8]);
        Interface { name: name.to_owned(), index, mac, own_mac: mac, kind, is_member: false }
    }

    /// `eth0` to `eth3`, in another order, and something that is none.
    fn machine() -> Vec<Interface> {
        let adapter = |name, index| interface(name, index, InterfaceKind::Adapter);
        vec![
            adapter("eth2", 4),
            adapter("eth0", 2),
            adapter("eth3", 5),
            interface("ethx", 6, InterfaceKind::Other),
            adapter("eth1", 3),
        ]
    }

    fn network(text: &str) -> Network {
        Config::from_sources(&[(Source::FwCfg, text.to_owned())]).unwrap().network
    }

    fn bond(name: &str, rest: &str) -> String {
        format!("[[network.bond]]\nname = '{name}'\n{rest}\n")
    }

    fn members(plan: &Plan) -> Vec<(&str, Vec<&str>)> {
        plan.bonds
            .iter()
            .map(|it| {
                let members = it.members.iter().map(|member| member.name.as_str()).collect();
                (it.bond.name.as_str(), members)
            })
            .collect()
    }

    #[test]
    fn bonds_have_the_adapters_that_they_name_and_no_earlier_one_has() {
        let text = bond("b0", "interfaces = ['52:54:00:00:00:05', 'eth1', 'eth1*']")
            + &bond("b1", "interfaces = ['e*']\nprimary = '52:54:00:00:00:04'");
        let plan = plan(&machine(), &network(&text));
        assert_eq!(members(&plan), [("b0", vec!["eth3", "eth1"]), ("b1", vec!["eth0", "eth2"])]);
        assert_eq!(plan.bonds[1].primary.as_ref().unwrap().name, "eth2");
        assert_eq!(plan.missing, Vec::<String>::new());
    }

    #[test]
    fn what_bonds_and_vlans_lack_is_said() {
        let text = bond("b0", "interfaces = ['eth0', 'eth9']\nprimary = 'eth9'")
            + &bond("b1", "interfaces = ['52:54:00:00:00:02']")
            + "[[network.vlan]]\nparent = 'b1'\nid = 5\n[[network.vlan]]\nparent = 'eth8'\nid = 5\n\
               [[network.vlan]]\nname = 'v'\nparent = 'eth0*'\nid = 5\n";
        let plan = plan(&machine(), &network(&text));
        assert_eq!(members(&plan), [("b0", vec!["eth0"])]);
        assert_eq!(
            plan.missing,
            [
                "no free network adapter matches `eth9` of `network.bond.interfaces`",
                "no interface of the bond `b0` matches `eth9` of `network.bond.primary`",
                "no free network adapter matches `52:54:00:00:00:02` of `network.bond.interfaces`; `eth0` is one of the bond `b0`",
                "no free network adapter matches `eth8` of `network.vlan.parent`",
                "no free network adapter matches `eth0*` of `network.vlan.parent`; `eth0` is one of the bond `b0`",
            ]
        );
    }

    #[test]
    fn the_parent_of_a_vlan_is_a_bond_or_the_first_adapter_that_is_in_none() {
        let mut interfaces = machine();
        interfaces[1].is_member = true;
        interfaces.push(interface("bond0", 7, InterfaceKind::Bond));
        interfaces.push(interface("bond0.7", 8, InterfaceKind::Vlan));
        let parent = |text: &str| Some(parent(&interfaces, &text.parse().unwrap())?.index);
        assert_eq!([parent("eth*"), parent("bond0")], [Some(3), Some(7)]);
        assert_eq!([parent("eth0"), parent("bond0.7"), parent("ethx")], [None; 3]);
    }
}
