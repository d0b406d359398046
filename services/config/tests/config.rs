// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration as its users see it: texts in, a configuration or an error out.

use std::path::PathBuf;

use dvs_config::{
    Api, Bond, BondMode, Cluster, Config, ConfigError, Console, InterfaceSelector, LacpRate, Mac,
    Management, Netboot, Network, Node, Power, Run, Source, TransmitHashPolicy, Vlan,
};
use proptest::prelude::*;

fn read(sources: &[(Source, &str)]) -> Result<Config, ConfigError> {
    let owned: Vec<_> = sources.iter().map(|(s, text)| (s.clone(), text.to_string())).collect();
    Config::from_sources(&owned)
}

fn fw_cfg_error(text: &str) -> String {
    read(&[(Source::FwCfg, text)]).unwrap_err().to_string()
}

fn command_line_error(text: &str) -> String {
    read(&[(Source::CommandLine, text)]).unwrap_err().to_string()
}

#[test]
fn nothing_gives_the_defaults() {
    let config = read(&[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.cluster.name.as_str(), "dvs");
    assert_eq!((config.cluster.bootstrap_expect, config.api.port), (1, 7700));
    assert_eq!(read(&[(Source::CommandLine, "console=ttyS0 quiet\n")]).unwrap(), config);
}

#[test]
fn the_documented_example_is_read() {
    let text = r#"
        [cluster]
        name = "lab"
        token = "correct horse battery"
        bootstrap_expect = 4
        [node]
        name = "rack3"
        [network]
        cluster = ["52:54:00:00:00:01", "en*"]
        [network.management]
        interface = "eth1"
        address = "10.0.2.15/24"
        gateway = "10.0.2.2"
        [api]
        port = 7701
        [run]
        command = ["/usr/libexec/dvs/dvk-conformance", "--all of it"]
        power = "reboot"
        services = true
    "#;
    let config = read(&[(Source::FwCfg, text)]).unwrap();
    assert_eq!(config.cluster.token.as_ref().unwrap().secret(), "correct horse battery");
    assert_eq!(config.cluster.bootstrap_expect, 4);
    assert!(config.network.cluster[0].matches("x", Mac([0x52, 0x54, 0, 0, 0, 1])));
    assert!(config.network.cluster[1].matches("enp3s0", Mac([2; 6])));
    let management = config.network.management.as_ref().unwrap();
    assert_eq!(management.address.to_string(), "10.0.2.15/24");
    let run = config.run.as_ref().unwrap();
    assert_eq!(run.command[1], "--all of it");
    assert_eq!(run.power, Power::Reboot);
    assert!(run.services);
}

#[test]
fn later_sources_win_key_by_key() {
    let config = read(&[
        (Source::FwCfg, "[cluster]\nname='a'\ntoken='0123456789abcdef'\nbootstrap_expect=2"),
        (Source::File(PathBuf::from("/x")), "cluster.bootstrap_expect = 3\n[api]\nport = 1"),
        (Source::CommandLine, "dvs.cluster.name=b dvs.api.port=2 dvs.api.port=3"),
    ])
    .unwrap();
    assert_eq!(config.cluster.name.as_str(), "b");
    assert_eq!(config.cluster.bootstrap_expect, 3);
    assert_eq!(config.cluster.token.unwrap().secret(), "0123456789abcdef");
    assert_eq!(config.api.port, 3);
}

#[test]
fn a_section_may_be_completed_by_another_source() {
    let config = read(&[
        (Source::FwCfg, "[network.management]\ninterface='eth1'\naddress='10.0.2.15/24'"),
        (Source::CommandLine, "dvs.network.management.address=10.0.3.15/24"),
    ])
    .unwrap();
    assert_eq!(config.network.management.unwrap().address.to_string(), "10.0.3.15/24");
}

#[test]
fn the_command_line_reads_values_as_their_keys_want_them() {
    let config = read(&[(
        Source::CommandLine,
        "ro dvs.cluster.token=1234567890123456 dvs.cluster.bootstrap-expect=4 \
         dvs.network.cluster=eth0,52:54:00:00:00:02 dvs.run.command=\"/bin/x --flag  a,b\"",
    )])
    .unwrap();
    assert_eq!(config.cluster.token.unwrap().secret(), "1234567890123456");
    assert_eq!(config.cluster.bootstrap_expect, 4);
    let selectors: Vec<_> = config.network.cluster.iter().map(|s| s.to_string()).collect();
    assert_eq!(selectors, ["eth0", "52:54:00:00:00:02"]);
    assert_eq!(config.run.unwrap().command, ["/bin/x", "--flag", "a,b"]);

    let config = read(&[(Source::CommandLine, r#"dvs.run.command="['/bin/x', 'a b']""#)]).unwrap();
    assert_eq!(config.run.unwrap().command, ["/bin/x", "a b"]);
}

#[test]
fn an_unknown_key_is_shown_in_place_with_its_neighbour() {
    assert_eq!(
        fw_cfg_error("[cluster]\nname = 'lab'\ntokn = 'x'\n"),
        "QEMU fw_cfg file opt/dvs/config, line 3, column 1: there is no key `cluster.tokn`; did \
         you mean `cluster.token`?\n  |\n3 | tokn = ***\n  | ^^^^"
    );
    assert_eq!(
        command_line_error("quiet dvs.cluster.bootstrap_expct=4 ro"),
        "kernel command line, column 7: there is no key `cluster.bootstrap_expct`; did you mean \
         `cluster.bootstrap_expect`?\n  |\n1 | dvs.cluster.bootstrap_expct=4\n  \
         | ^^^^^^^^^^^^^^^^^^^^^^^^^^^"
    );
    assert!(fw_cfg_error("[cluter]\n").contains("`cluter`; did you mean `cluster`?"));
    assert!(fw_cfg_error("frobnicate = 1")
        .ends_with("key `frobnicate`\n  |\n1 | frobnicate = 1\n  | ^^^^^^^^^^"));
    assert!(fw_cfg_error("cluster = 1").contains("`cluster` is a section"));
    assert!(command_line_error("dvs.api=1").contains("`api` is a section"));
    assert!(command_line_error("dvs.api.port").contains("expected `dvs.api.port=…`"));
    // The first in the text, not in the alphabet.
    assert!(fw_cfg_error("[node]\nnme='x'\n[cluster]\ntokn='x'\n").contains("line 2"));
    // A key below a key.
    assert!(fw_cfg_error("[api.port]\nx = 1").contains("`api.port`: invalid type"));
}

#[test]
fn a_value_out_of_range_points_at_itself_in_the_source_that_set_it() {
    let error = read(&[
        (Source::FwCfg, "# füße\n[cluster]\nbootstrap_expect = 1\n"),
        (Source::File(PathBuf::from("/etc/dvs.toml")), "[api]\nport = 1\n"),
        (Source::CommandLine, "quiet dvs.cluster.bootstrap_expect=65537"),
    ])
    .unwrap_err();
    assert_eq!(error.origin(), Some(&Source::CommandLine));
    assert_eq!((error.line(), error.column()), (Some(1), Some(36)));
    assert!(error.summary().ends_with(
        "`cluster.bootstrap_expect`: 65537 is out of range, expected a number of nodes from 1 to \
         65536"
    ));

    let error = read(&[
        (Source::FwCfg, "[cluster]\nname = 'x'\n"),
        (Source::File(PathBuf::from("/etc/dvs.toml")), "\n[network]\ncluster = ['eth0', 'a/b']"),
    ])
    .unwrap_err();
    assert_eq!(error.origin(), Some(&Source::File("/etc/dvs.toml".into())));
    assert_eq!((error.line(), error.column()), (Some(3), Some(20)), "{error}");
}

#[test]
fn ranges_and_types_are_checked() {
    for (text, expected) in [
        ("[cluster]\nbootstrap_expect = 0", "`cluster.bootstrap_expect`: 0 is out of range"),
        ("[cluster]\nbootstrap_expect = '4'", "expected a whole number"),
        ("[cluster]\nbootstrap_expect = 4.0", "expected a whole number"),
        ("[cluster]\nbootstrap_expect = 99999999999999999999", "`cluster.bootstrap_expect`"),
        ("[cluster]\ntoken = 'short'", "has 5 characters, expected at least 16"),
        ("[cluster]\ntoken = 1234567890123456", "expected a text in quotes"),
        ("[cluster]\nname = 'A b'", "`A b` is no name"),
        ("[api]\nport = 0", "expected a TCP port"),
        ("[api]\nport = 65536", "expected a TCP port"),
        ("[network]\ncluster = 'eth0'", "expected a sequence"),
        ("[network]\ncluster = ['52:54:00']", "no MAC address"),
        ("[network.management]\ninterface = 'eth1'", "missing field `address`"),
        ("[run]\ncommand = []", "the command is empty"),
        ("[run]\ncommand = ['sh']", "expected an absolute path"),
        ("[run]\npower = 'off'", "missing field `command`"),
        ("[run]\ncommand = ['/x']\npower = 'on'", "expected `off` or `reboot`"),
        ("[run]\ncommand = ['/x']\nservices = 1", "expected a boolean"),
    ] {
        let error = read(&[(Source::FwCfg, text)]).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert!(error.line().is_some(), "{text}: {error}");
    }
    assert!(command_line_error("dvs.api.port=no").contains("expected a whole number"));
    let error = command_line_error("dvs.run.command=/x dvs.run.services=yes");
    assert!(error.contains("expected a boolean"), "{error}");
}

#[test]
fn contradictions_are_found() {
    let error = command_line_error("dvs.cluster.bootstrap_expect=4");
    assert!(error.contains("set `cluster.token`") && error.ends_with('^'), "{error}");
    let gateway = "[network.management]\ninterface='e'\naddress='10.0.2.15/24'\ngateway='10.0.3.2'";
    assert!(fw_cfg_error(gateway).contains("line 4, column 9"), "{}", fw_cfg_error(gateway));
}

#[test]
fn the_token_is_never_shown() {
    for text in [
        "[cluster]\ntoken = 'secret'",
        "[cluster]\ntoken = 777777777",
        "cluster = {token = 'secret-secret-secret', tokn = 1}",
        "cluster = {token = 'secret-secret-secret', tokn = }",
    ] {
        let error = fw_cfg_error(text);
        assert!(
            !error.contains("secret-") && !error.contains("'secret") && !error.contains("777"),
            "{error}"
        );
    }
    assert!(!command_line_error("dvs.cluster.token=secret").contains("=secret"));
}

#[test]
fn a_syntax_error_points_at_its_place() {
    let error = read(&[(Source::FwCfg, "[cluster]\nname = lab\n")]).unwrap_err();
    assert_eq!((error.line(), error.column()), (Some(2), Some(8)), "{error}");
    let error = read(&[(Source::FwCfg, "[api]\nport = 1\nport = 2\n")]).unwrap_err();
    assert_eq!(error.line(), Some(3), "{error}");
}

#[test]
fn a_long_line_is_cut_around_the_mark() {
    let text =
        format!("[network]\ncluster = [{}'a/b', {}]", "'eth0', ".repeat(40), "'x', ".repeat(40));
    let error = fw_cfg_error(&text);
    let lines: Vec<_> = error.lines().collect();
    let marked = lines[3].find('^').unwrap();
    let shown: String = lines[2].chars().skip(marked).take(5).collect();
    assert_eq!(shown, "'a/b'");
    assert!(lines[2].chars().count() < 80, "{error}");
}

fn selector() -> impl Strategy<Value = InterfaceSelector> {
    prop_oneof![
        any::<[u8; 6]>()
            .prop_map(Mac)
            .prop_filter("no interface", |mac| !mac.is_group_or_zero())
            .prop_map(InterfaceSelector::Mac),
        "[a-z*?0-9.@-]{1,15}".prop_map(|text| text.parse().unwrap()),
    ]
}

fn management() -> impl Strategy<Value = Management> {
    (selector(), 8..=30_u8, 1..255_u8, any::<bool>()).prop_map(|(interface, len, host, gate)| {
        Management {
            interface,
            address: format!("10.0.0.{}/{len}", 1 + host % 2).parse().unwrap(),
            gateway: gate.then(|| [10, 0, 0, 2 - host % 2].into()),
        }
    })
}

prop_compose! {
    /// Those of two configurations can be mixed.
    fn netboot()(
        interface in selector(),
        own in any::<bool>(),
        addresses in proptest::option::of(2..=254_u8),
        append in proptest::option::of("[a-z=._ ]{0,20}"),
    ) -> Netboot {
        Netboot {
            interface,
            address: own.then(|| "10.0.0.1/24".parse().unwrap()),
            addresses: addresses.map(|last| format!("10.0.0.2-10.0.0.{last}").parse().unwrap()),
            append: append.map(|text| format!("quiet {text}").parse().unwrap()),
        }
    }
}

prop_compose! {
    /// The bond of this number, with adapters that no other one has and nothing is chosen for.
    fn bond(number: usize)(
        members in 1..4_u8,
        pattern in any::<bool>(),
        mode in 0..3_u8,
        miimon_ms in Bond::MIIMON_MS_MIN..=Bond::MIIMON_MS_MAX,
        has in any::<bool>(),
        fast in any::<bool>(),
        policy in 0..3_u8,
    ) -> Bond {
        let member = |port: u8| match pattern {
            true => format!("ENP{number}S*F{port}").parse().unwrap(),
            false => InterfaceSelector::Mac(Mac([6, 0, 0, 0, number as u8, port])),
        };
        let interfaces: Vec<_> = (0..members).map(member).collect();
        let mode = [BondMode::ActiveBackup, BondMode::Ieee8023ad, BondMode::BalanceXor]
            [usize::from(mode)];
        let policies =
            [TransmitHashPolicy::Layer2, TransmitHashPolicy::Layer23, TransmitHashPolicy::Layer34];
        let primary = interfaces.last().cloned().filter(|_| has && mode == BondMode::ActiveBackup);
        let rate = if fast { LacpRate::Fast } else { LacpRate::Slow };
        Bond {
            name: format!("BOND{number}").parse().unwrap(),
            interfaces,
            mode,
            miimon_ms,
            primary,
            lacp_rate: (has && mode == BondMode::Ieee8023ad).then_some(rate),
            transmit_hash_policy: (has && mode != BondMode::ActiveBackup)
                .then(|| policies[usize::from(policy)]),
        }
    }
}

prop_compose! {
    /// Bonds, and VLANs on them and on an adapter.
    fn stacked()(count in 0..3_usize)(
        bond in (0..count).map(bond).collect::<Vec<_>>(),
        vlan in proptest::collection::btree_map(1..=Vlan::ID_MAX, (0..=count, any::<bool>()), 0..4),
    ) -> (Vec<Bond>, Vec<Vlan>) {
        let made = vlan.into_iter().map(|(id, (parent, named))| Vlan {
            name: named.then(|| format!("LAN-{id}").parse().unwrap()),
            parent: bond.get(parent).map_or("UPLINK", |bond| bond.name.as_str()).parse().unwrap(),
            id,
        });
        let vlan = made.collect();
        (bond, vlan)
    }
}

prop_compose! {
    fn config()(
        name in "[a-z0-9]{1,10}",
        token in "[!-~]{1}[ -~]{14,100}[!-~]{1}",
        bootstrap_expect in 1..=65_536_u32,
        insecure in any::<bool>(),
        node in proptest::option::of("[a-z0-9]{1,10}"),
        cluster in proptest::collection::vec(selector(), 0..4),
        management in proptest::option::of(management()),
        (bond, vlan) in stacked(),
        port in 1..=u16::MAX,
        menu in any::<bool>(),
        netboot in proptest::option::of(netboot()),
        run in proptest::option::of((proptest::collection::vec("\\PC{0,10}", 0..4), any::<[bool; 2]>())),
    ) -> Config {
        Config {
            cluster: Cluster {
                name: name.parse().unwrap(),
                token: Some(token.parse().unwrap()),
                join_token: None,
                bootstrap_expect,
                insecure,
            },
            node: Node { name: node.map(|name| name.parse().unwrap()) },
            network: Network { cluster, management, bond, vlan },
            api: Api { port },
            console: Console { menu },
            netboot,
            run: run.map(|(arguments, [reboot, services])| Run {
                command: std::iter::once("/x".to_owned()).chain(arguments).collect(),
                power: if reboot { Power::Reboot } else { Power::Off },
                services,
            }),
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(config in config()) {
        let text = config.to_toml();
        prop_assert_eq!(Config::from_sources(&[(Source::FwCfg, text)]).unwrap(), config);
    }

    /// The later of two complete configurations wins whole, except for optional keys it lacks.
    #[test]
    fn a_complete_source_replaces_what_it_names(first in config(), second in config()) {
        let sources = [
            (Source::FwCfg, first.to_toml()),
            (Source::File("/x".into()), second.to_toml()),
        ];
        let Ok(merged) = Config::from_sources(&sources) else {
            // The gateway of the first with the address of the second.
            prop_assert!(first.network.management.is_some_and(|m| m.gateway.is_some()));
            prop_assert!(second.network.management.is_some_and(|m| m.gateway.is_none()));
            return Ok(());
        };
        prop_assert_eq!(&merged.cluster, &second.cluster);
        prop_assert_eq!(&merged.api, &second.api);
        prop_assert_eq!(&merged.network.cluster, &second.network.cluster);
        // A list goes as a whole, and is not written if it is empty.
        let bond = if second.network.bond.is_empty() { &first } else { &second };
        prop_assert_eq!(&merged.network.bond, &bond.network.bond);
        let vlan = if second.network.vlan.is_empty() { &first } else { &second };
        prop_assert_eq!(&merged.network.vlan, &vlan.network.vlan);
        prop_assert_eq!(merged.node.name, second.node.name.or(first.node.name));
        prop_assert_eq!(merged.run, second.run.or(first.run));
    }

    /// Hostile input gives an error with a place, never a panic.
    #[test]
    fn any_text_is_answered(
        toml in "([a-z\\[\\]\\.= '\"\n#é]|cluster|token|port){0,40}",
        line in "([a-z\\[\\]= '\",é\t]|dvs\\.|cluster\\.|token=|api\\.port=|network\\.cluster=|network\\.vlan=|\\{|\\}|parent=|id=5){0,20}",
    ) {
        for sources in [
            vec![(Source::FwCfg, toml.clone())],
            vec![(Source::FwCfg, String::new()), (Source::CommandLine, line)],
        ] {
            if let Err(error) = Config::from_sources(&sources) {
                let shown = error.to_string();
                prop_assert!(error.line().is_some() && error.column().is_some(), "{}", shown);
                prop_assert_eq!(shown.lines().count(), 4);
            }
        }
    }
}

#[test]
fn booting_others_is_checked_and_errors_point_at_the_line() {
    let config = read(&[(
        Source::FwCfg,
        "[netboot]\ninterface = 'en*'\naddress = '10.9.0.1/24'\naddresses = '10.9.0.5-10.9.0.9'\nappend = 'quiet'\n",
    )]);
    let netboot = config.unwrap().netboot.unwrap();
    assert!(netboot.interface.matches("enp3s0", Mac([2; 6])));
    assert_eq!(netboot.addresses.unwrap().count(), 5);
    assert_eq!(netboot.append.unwrap().secret(), "quiet");
    let error = fw_cfg_error("[netboot]\naddress = '10.9.0.1/24'\n");
    assert!(error.contains("missing field `interface`"), "{error}");
    let text =
        "[netboot]\ninterface = 'eth0'\naddress = '10.9.0.1/24'\naddresses = '10.9.1.5-10.9.1.9'\n";
    let error = fw_cfg_error(text);
    assert!(
        error.contains("line 4, column 13: `netboot.addresses`: 10.9.1.5-10.9.1.9 is not"),
        "{error}"
    );
    let error = fw_cfg_error("[netboot]\ninterface = 'eth0'\naddressses = 'x'\n");
    assert!(error.contains("did you mean `netboot.addresses`?"), "{error}");
    let error = command_line_error(r#"dvs.netboot.append="dvs.cluster.tokn=a_secret_of_sixteen""#);
    assert!(error.contains("`netboot.append`: in the arguments, there is no key"), "{error}");
    assert!(!error.contains("a_secret"), "{error}");
}

const TRUNK: &str = "
[network]
cluster = ['bond0.100']
[[network.bond]]
name = 'bond0'
interfaces = ['52:54:00:00:00:01', 'enp4s0']
mode = '802.3ad'
lacp_rate = 'fast'
transmit_hash_policy = 'layer2+3'
[[network.vlan]]
parent = 'bond0'
id = 100
[[network.vlan]]
name = 'lab'
parent = 'en*'
id = 4094
";

#[test]
fn bonds_and_vlans_are_read() {
    let network = read(&[(Source::FwCfg, TRUNK)]).unwrap().network;
    let bond = &network.bond[0];
    assert_eq!((bond.name.as_str(), bond.interfaces.len(), bond.miimon_ms), ("bond0", 2, 100));
    assert_eq!(bond.mode, BondMode::Ieee8023ad);
    assert_eq!(bond.lacp_rate, Some(LacpRate::Fast));
    assert_eq!(bond.transmit_hash_policy, Some(TransmitHashPolicy::Layer23));
    let vlans: Vec<_> = network.vlan.iter().map(|vlan| (vlan.interface_name(), vlan.id)).collect();
    assert_eq!(vlans, [("bond0.100".to_owned(), 100), ("lab".to_owned(), 4094)]);
    let least = "[[network.bond]]\nname = 'b'\ninterfaces = ['eth*']\nprimary = 'eth1'\n";
    let bond = read(&[(Source::FwCfg, least)]).unwrap().network.bond.remove(0);
    assert_eq!((bond.mode, bond.primary), (BondMode::ActiveBackup, "eth1".parse().ok()));
}

#[test]
fn the_command_line_takes_tables() {
    let config = read(&[(
        Source::CommandLine,
        "quiet dvs.network.bond={name='bond0',interfaces=['eth0','eth1']} \
         dvs.network.vlan=\"[{parent='bond0', id=5}, {parent='bond0', id=6}]\" \
         dvs.network.management.interface=bond0.5 dvs.network.management.address=10.1.2.3/24",
    )])
    .unwrap();
    assert_eq!(config.network.bond[0].interfaces.len(), 2);
    assert_eq!(config.network.vlan.iter().map(|vlan| vlan.id).collect::<Vec<_>>(), [5, 6]);
    let line = "quiet dvs.network.vlan={parent='eth0',id=4095}";
    assert_eq!(
        command_line_error(line),
        "kernel command line, column 42: `network.vlan.id`: 4095 is out of range, expected the number of a VLAN from 1 to 4094\n  \
         |\n1 | dvs.network.vlan={parent='eth0',id=4095}\n  |                                    ^^^^"
    );
    let error = command_line_error("dvs.network.vlan={parent='eth0',idd=5}");
    assert!(
        error.contains(
            "column 33: there is no key `network.vlan.idd`; did you mean `network.vlan.id`?"
        ),
        "{error}"
    );
    let error = command_line_error("dvs.network.vlan=eth0.5");
    assert!(error.contains("expected `dvs.network.vlan={…}`, or several"), "{error}");
    let error = command_line_error("dvs.network.vlan.id=5");
    assert!(
        error.contains("`network.vlan.id` stands in a table, expected `dvs.network.vlan={…}`"),
        "{error}"
    );
    let error = command_line_error("dvs.network.vlan={parent='eth0'");
    assert!(error.contains("column 32"), "{error}");
}

#[test]
fn a_list_of_tables_of_a_later_source_replaces_the_earlier_one() {
    let second =
        "[[network.vlan]]\nparent = 'eth1'\nid = 7\n[[network.vlan]]\nparent = 'eth2'\nid = 0\n";
    let file = Source::File("/x".into());
    let error = read(&[(Source::FwCfg, TRUNK), (file.clone(), second)]).unwrap_err();
    assert_eq!(error.origin(), Some(&file));
    assert_eq!((error.line(), error.column()), (Some(6), Some(6)), "{error}");
    let line = "dvs.network.vlan={parent='eth1',id=7} dvs.network.cluster=eth1.7";
    let network = read(&[(file, TRUNK), (Source::CommandLine, line)]).unwrap().network;
    assert_eq!((network.vlan.len(), network.bond.len()), (1, 1));
}

#[test]
fn errors_of_bonds_and_vlans_point_at_the_line() {
    let bond = |name: &str, rest: &str| format!("[[network.bond]]\nname = '{name}'\n{rest}\n");
    let vlan = |rest: &str| format!("[[network.vlan]]\n{rest}\n");
    let two = bond("bond0", "interfaces = ['eth0', 'en*']");
    let cases = [
        (bond("b", "interfaces = []"), 3, "`network.bond.interfaces`: a bond of no interfaces"),
        (bond("b", "interfaces = ['eth0', 'a/b']"), 3, "`a/b` is no interface name"),
        (bond("b", "mode = 'active-backup'"), 1, "missing field `interfaces`"),
        (
            bond("b", "interfaces = ['eth0']\nmode = 'balance-alb'"),
            4,
            "unknown variant `balance-alb`",
        ),
        (bond("b", "interfaces = ['eth0']\nmiimon_ms = 0"), 4, "expected 10 to 10000 milliseconds"),
        (
            bond("b", "interfaces = ['eth0']\nmiimon = 100"),
            4,
            "did you mean `network.bond.miimon_ms`?",
        ),
        (bond("sixteen-letters0", ""), 2, "`network.bond.name`: `sixteen-letters0` is no name"),
        (bond("bond*", ""), 2, "`bond*` is no name"),
        (bond("all", ""), 2, "`all` means something else"),
        (bond("sec-eth0", ""), 2, "`sec-eth0` means something else"),
        (format!("{two}{}", bond("bond0", "interfaces = ['eth1']")), 5, "another bond `bond0`"),
        (
            format!("{two}{}", bond("b1", "interfaces = ['eth1', 'eth0']")),
            6,
            "of the bond `bond0` already",
        ),
        (
            format!("{two}{}", bond("b1", "interfaces = ['enp3s0']")),
            6,
            "of the bond `bond0` already",
        ),
        (format!("{two}{}", bond("b1", "interfaces = ['en*']")), 6, "of the bond `bond0` already"),
        (format!("{two}{}", bond("b1", "interfaces = ['bond0']")), 6, "`bond0` is a bond, and"),
        (bond("b1", "interfaces = ['b1']"), 3, "`b1` is a bond, and"),
        (
            bond("b", "interfaces = ['eth0']\nprimary = 'eth1'"),
            4,
            "`eth1` is none of the `interfaces`",
        ),
        (
            bond("b", "interfaces = ['eth0']\nmode = '802.3ad'\nprimary = 'eth0'"),
            5,
            "only one of `active-backup`",
        ),
        (bond("b", "interfaces = ['eth0']\nlacp_rate = 'fast'"), 4, "only one of `802.3ad`"),
        (
            bond("b", "interfaces = ['eth0']\ntransmit_hash_policy = 'layer2'"),
            4,
            "`802.3ad` or `balance-xor`",
        ),
        (vlan("parent = 'eth0'\nid = 0"), 3, "`network.vlan.id`: 0 is out of range"),
        (vlan("parent = 'eth0'\nid = 4095"), 3, "4095 is out of range"),
        (vlan("parent = 'eth0'"), 1, "missing field `id`"),
        (vlan("parent = 'en*'\nid = 5"), 2, "give the VLAN a `name`"),
        (vlan("parent = '52:54:00:00:00:01'\nid = 5"), 2, "give the VLAN a `name`"),
        (vlan("parent = 'enp0s31f6xy'\nid = 4094"), 2, "`enp0s31f6xy.4094` is no name"),
        (
            vlan("parent = 'eth0.5'\nid = 6") + &vlan("parent = 'eth0'\nid = 5"),
            2,
            "`eth0.5` is a VLAN itself",
        ),
        (vlan("name = 'v'\nparent = 'v'\nid = 6"), 3, "`v` is a VLAN itself"),
        (
            vlan("parent = 'eth0'\nid = 6") + &vlan("parent = 'eth0'\nid = 6"),
            4,
            "another VLAN `eth0.6`",
        ),
        (
            vlan("name = 'v'\nparent = 'eth0'\nid = 6") + &vlan("parent = 'eth0'\nid = 6"),
            7,
            "is `v` already",
        ),
        (
            format!("{two}{}", vlan("name = 'bond0'\nparent = 'bond0'\nid = 6")),
            5,
            "there is a bond `bond0`",
        ),
        (format!("{two}{}", vlan("parent = 'eth0'\nid = 6")), 5, "choose `bond0`"),
        (
            format!("{two}[network]\ncluster = ['eth9', 'eth0']"),
            5,
            "`network.cluster`: `eth0` is an interface of the bond",
        ),
        (
            format!("{two}[network.management]\naddress = '10.0.0.1/8'\ninterface = 'enp3s0'"),
            6,
            "`network.management.interface`",
        ),
        (
            format!("{two}[netboot]\ninterface = 'eth0'"),
            5,
            "`netboot.interface`: `eth0` is an interface of the bond",
        ),
        ("[network.bond]\nname = 'b'\n".to_owned(), 1, "expected `[[network.bond]]`"),
        ("[network]\nvlan = ['eth0.5']\n".to_owned(), 2, "expected `[[network.vlan]]`"),
    ];
    for (text, line, expected) in cases {
        let error = read(&[(Source::FwCfg, &text)]).unwrap_err();
        assert!(error.to_string().contains(expected), "{text}: {error}");
        assert_eq!(error.line(), Some(line), "{text}: {error}");
    }
    // What a pattern may select besides is up to the machine.
    let rest = "[network]\ncluster = ['e*']\n[netboot]\ninterface = 'eth*'";
    assert!(read(&[(Source::FwCfg, &format!("{two}{rest}"))]).is_ok());
}
