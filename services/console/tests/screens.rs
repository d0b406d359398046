// SPDX-License-Identifier: MIT OR Apache-2.0
//! Screens as people see them, and what keys make of them.

use std::time::Duration;

use dvs_api::{DiskListed, Event, Status, StatusState};
use dvs_console::{
    Action, Console, Facts, Interface, Key, Keys, Outcome, Painter, Purpose, Screen, Silence, Size,
    Style,
};
use proptest::prelude::*;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn status() -> Status {
    Status {
        node: Some(0),
        name: Some("node0".into()),
        cluster: "lab".into(),
        state: StatusState::Ready,
        detail: String::new(),
        members: 4,
        ready: 4,
        addresses: vec!["fe80::5054:ff:fed5:0%eth0".into(), "10.0.2.15".into()],
        version: "0.1.0".into(),
    }
}

fn facts() -> Facts {
    let interface = |name: &str, last: u8, link, purpose| Interface {
        name: name.into(),
        mac: format!("52:54:00:d5:00:{last:02x}"),
        link,
        speed: Some(1000).filter(|_| link == Some(true)),
        purpose,
    };
    Facts {
        uptime: seconds(185),
        version: "0.1.0".into(),
        kernel: "7.2.13".into(),
        cluster: Some("lab".into()),
        api: Some("https://10.0.2.15:7700".into()),
        status: Some(status()),
        interfaces: vec![
            interface("eth0", 0, Some(true), Some(Purpose::Cluster)),
            interface("eth1", 1, Some(false), Some(Purpose::Management)),
            interface("eth2", 2, None, None),
        ],
        has_menu: true,
        ..Facts::default()
    }
}

fn event(number: u64, text: &str) -> Event {
    let unix_ms = Some(1_795_861_010_000 + number * 1000);
    let (at_ms, kind, nodes) = (number * 1000, "node-ready".into(), vec![0]);
    Event { number, at_ms, unix_ms, kind, nodes, text: text.into() }
}

const SIZE: Size = Size { rows: 25, columns: 80 };

/// What a screen shows, without blanks at the ends of lines.
fn text(screen: &Screen) -> String {
    screen.lines.iter().map(|line| format!("{}\n", line.text.trim_end())).collect()
}

fn console() -> Console {
    Console::new(facts(), false)
}

fn press(console: &mut Console, keys: &str) -> Vec<Action> {
    let mut found = Keys::default();
    let keys = found.push(keys.as_bytes()).into_iter().chain(found.settle());
    keys.filter_map(|key| console.press(key)).collect()
}

#[test]
fn the_status_is_what_the_documentation_shows() {
    let mut console = console();
    console.hear([event(1, "node 0 is ready"), event(2, "node 1 is ready")]);
    let expected = " dvs 0.1.0                                                         node0 of lab
--------------------------------------------------------------------------------
 State        ready, 4 of 4 nodes ready
 Node         node0, id 0
 Addresses    fe80::5054:ff:fed5:0%eth0  10.0.2.15
 API          https://10.0.2.15:7700
 Up           3 min 5 s, dvs 0.1.0 on Linux 7.2.13

 Interfaces   eth0      52:54:00:d5:00:00  link, 1000 Mb/s   cluster
              eth1      52:54:00:d5:00:01  no link           management
              eth2      52:54:00:d5:00:02  off               not used

 Events       11-28 10:16:51  node 0 is ready
              11-28 10:16:52  node 1 is ready







 Help         dvsctl --endpoint https://10.0.2.15:7700 node list
              dvsctl support collects what helps to find out what is wrong
--------------------------------------------------------------------------------
 Enter: menu
";
    assert_eq!(text(&console.screen(SIZE)), expected);
    let documented = include_str!("../../../docs/booting.md");
    assert!(documented.contains(expected), "docs/booting.md shows another screen");
    // The lines of events are those that are free.
    console.hear((3..100).map(|number| event(number, "node 2 is ready")));
    let shown = text(&console.screen(SIZE));
    assert_eq!((shown.lines().count(), shown.matches("node 2 is ready").count()), (25, 8));
    assert!(shown.contains("10:18:29  node 2"), "the newest is missing: {shown}");
    let wide = console.screen(Size { rows: 50, columns: 132 });
    let shown = text(&wide);
    assert_eq!((wide.lines.len(), shown.matches("node 2 is ready").count()), (50, 33));
}

#[test]
fn a_node_that_has_said_nothing_is_starting() {
    let bare = Facts { status: None, uptime: seconds(12), ..facts() };
    let shown = text(&Console::new(bare.clone(), false).screen(SIZE));
    assert!(
        shown.contains("new node of lab\n") && shown.contains("starting since 12 s"),
        "{shown}"
    );
    let why = "there is no such socket".to_owned();
    let silence = Some(Silence { since: seconds(2), why });
    let late = Facts { uptime: seconds(62), silence, ..bare };
    let screen = Console::new(late, false).screen(SIZE);
    let shown = text(&screen);
    assert!(shown.contains("starting since 1 min 2 s"), "{shown}");
    assert!(
        shown.contains("dvsd has not answered for 1 min 0 s: there is no such socket"),
        "{shown}"
    );
    assert_eq!(screen.lines[2].style, Style::Reverse);
}

#[test]
fn what_is_not_as_it_should_be_is_told_with_the_reason() {
    let absent = vec!["node2 is down".to_owned(), "node3 is joining".to_owned()];
    let degraded = Status { ready: 2, ..status() };
    let facts = Facts { status: Some(degraded), absent, ..facts() };
    let screen = Console::new(facts.clone(), false).screen(SIZE);
    let shown = text(&screen);
    assert!(shown.contains(" State        ready, 2 of 4 nodes ready\n"), "{shown}");
    assert!(shown.contains("              node2 is down, node3 is joining\n"), "{shown}");
    assert_eq!(screen.lines[2].style, Style::Reverse);
    let state = StatusState::Failed;
    let failed = Status { state, detail: "open /dev/dvk: no such device".into(), ..status() };
    let shown = text(&Console::new(Facts { status: Some(failed), ..facts }, false).screen(SIZE));
    assert!(shown.contains("failed") && shown.contains("open /dev/dvk: no such device"), "{shown}");
    let complaint =
        Some("dvs.toml on the volume /dev/vda1: line 2\nthere is no key `x`".to_owned());
    let facts = Facts { complaint, status: None, has_menu: false, ..self::facts() };
    let mut console = Console::new(facts, false);
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("stopped: the configuration cannot be used"), "{shown}");
    assert!(
        shown.contains("there is no key `x`") && shown.contains("start the machine again"),
        "{shown}"
    );
    assert_eq!(press(&mut console, "\r5y"), []);
    assert!(text(&console.screen(SIZE)).contains("The menu is off"));
}

#[test]
fn what_others_send_is_shown_as_plain_characters_and_in_bounds() {
    let hostile = "\x1b[2J\x1b]0;x\x07\r\n\u{9b}31m\u{202e}界".to_owned();
    let detail = hostile.repeat(300);
    let named = Status { name: Some(hostile.clone()), detail, ..status() };
    let mut console = Console::new(Facts { status: Some(named), ..facts() }, false);
    console.hear([event(1, &hostile), event(2, &hostile.repeat(100))]);
    for size in [SIZE, Size { rows: 24, columns: 80 }, Size { rows: 60, columns: 200 }] {
        let screen = console.screen(size);
        assert_eq!(screen.lines.len(), size.rows);
        for line in &screen.lines {
            assert!(line.text.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{line:?}");
            assert!(line.text.len() <= size.columns, "{line:?}");
        }
        // What is wrong does not push out what else there is.
        assert!(text(&screen).contains(" Interfaces   eth0"), "{}", text(&screen));
    }
}

#[test]
fn the_menu_restarts_and_switches_off_after_a_question() {
    let mut console = console();
    assert_eq!(press(&mut console, "\r"), []);
    let shown = text(&console.screen(SIZE));
    for item in
        ["1  Status", "2  Install this node on a disk", "3  Network", "4  Restart", "5  Switch"]
    {
        assert!(shown.contains(item), "{shown}");
    }
    // Down three times, Enter; then no, and by number; then yes.
    assert_eq!(press(&mut console, "\x1b[B\x1b[B\x1b[B\r"), []);
    assert!(text(&console.screen(SIZE)).contains("Restart this machine?"));
    assert_eq!(press(&mut console, "\rxn5"), []);
    assert!(text(&console.screen(SIZE)).contains("Switch this machine off?"));
    assert_eq!(press(&mut console, "y"), [Action::ShutDown { force: false }]);
    // Keys do nothing until it is known what comes of it.
    assert_eq!(press(&mut console, "y\r\x1b"), []);
    let why = "no other node is there that could vote and lead instead";
    console.done(Outcome::Power(Err((why.into(), true))));
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains(why) && shown.contains("f: switch off all the same"), "{shown}");
    assert_eq!(press(&mut console, "f"), [Action::ShutDown { force: true }]);
    console.done(Outcome::Power(Err(("it cannot be".into(), false))));
    assert_eq!(press(&mut console, "f"), []);
    assert_eq!(press(&mut console, "\r4y"), [Action::Restart { force: false }]);
    console.done(Outcome::Power(Ok(())));
    assert!(text(&console.screen(SIZE)).contains("The machine restarts"));
}

fn disk(name: &str) -> DiskListed {
    let (disk, bytes) = (format!("/dev/{name}"), 512 << 30);
    DiskListed { disk, bytes, model: Some("Disk 9000".into()), found: None, unfit: None }
}

#[test]
fn nothing_is_installed_before_the_name_of_the_disk_was_typed() {
    let mut console = console();
    assert_eq!(press(&mut console, "\r2"), [Action::ListDisks]);
    let found = Some("partitions: photos".to_owned());
    let unfit = Some("it is in use: /dev/sdb1 is mounted on /mnt".to_owned());
    let disks = vec![
        DiskListed { found, ..disk("sda") },
        DiskListed { unfit, ..disk("sdb") },
        disk("nvme0n1"),
    ];
    console.done(Outcome::Disks(Ok(disks)));
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("  /dev/sda          549 GB  Disk 9000\n"), "{shown}");
    assert!(shown.contains("      cannot be used: it is in use: /dev/sdb1"), "{shown}");
    assert!(shown.contains("      nothing is on it\n"), "{shown}");
    // The one that cannot be used is not chosen.
    assert_eq!(press(&mut console, "\x1b[B\r"), []);
    assert!(text(&console.screen(SIZE)).contains("nothing is on it\n"));
    assert_eq!(press(&mut console, "\x1b[A\r"), []);
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("It has partitions: photos, WHICH WILL BE LOST."), "{shown}");
    assert_eq!(press(&mut console, "\ry\rsd\rsdb\r"), []);
    let screen = console.screen(SIZE);
    assert!(text(&screen).contains("Type sda to go on: ysdsdb\n"), "{}", text(&screen));
    assert!(text(&screen).contains("That is not the name of this disk."));
    let (row, column) = screen.cursor.unwrap();
    assert_eq!(screen.lines[row].text.len(), column);
    let install = Action::Install { disk: "/dev/sda".into(), wipe: true };
    assert_eq!(press(&mut console, "\x15sdx\x7fa\r"), [install]);
    assert_eq!(console.learn(Facts { uptime: seconds(200), ..facts() }), None);
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("Writing to /dev/sda, and reading back ... 15 s"), "{shown}");
    console.done(Outcome::Installed(Ok("/dev/sda".into())));
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("Pull the stick or the CD out and restart"), "{shown}");
    assert_eq!(press(&mut console, "r"), [Action::Restart { force: false }]);

    // A disk with nothing on it is not wiped.
    let mut console = self::console();
    press(&mut console, "\r2");
    console.done(Outcome::Disks(Ok(vec![disk("vda")])));
    let install = Action::Install { disk: "/dev/vda".into(), wipe: false };
    assert_eq!(press(&mut console, "\r/dev/vda\r"), [install]);
    console.done(Outcome::Installed(Err("write to /dev/vda: it broke".into())));
    assert!(text(&console.screen(SIZE)).contains("write to /dev/vda: it broke"));
    assert_eq!(press(&mut console, "r"), []);
}

/// A form with what a node says that has a token.
fn form() -> Console {
    let mut console = console();
    assert_eq!(press(&mut console, "\r3"), [Action::ReadConfig]);
    let toml = "[cluster]\nname = 'lab'\nbootstrap_expect = 3\n[node]\nname = 'rack3'\n";
    console.done(Outcome::Config(Ok((toml.into(), true))));
    console
}

#[test]
fn a_form_changes_what_a_site_needs_and_nothing_else() {
    let mut console = form();
    let shown = text(&console.screen(SIZE));
    assert!(
        shown.contains("\n  Cluster    lab\n") && shown.contains("\n  Nodes      3\n"),
        "{shown}"
    );
    assert!(shown.contains("  eth1       52:54:00:d5:00:01  no link\n"), "{shown}");
    // The second interface; address; gateway; the name as it is; a token with all that TOML minds; four nodes.
    let keys = "\x1b[C\x1b[C\r10.0.0.15/24\r10.0.0.1\r\rsixteen \"quotes\" \\ more\r\x154\r";
    assert_eq!(press(&mut console, keys), []);
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("\n  Interface  eth1\n"), "{shown}");
    assert!(shown.contains(&format!("\n  Token      {}\n", "*".repeat(23))), "{shown}");
    assert!(!format!("{console:?}").contains("sixteen"), "a secret shows");
    let actions = press(&mut console, "\r");
    let [Action::Keep { toml }] = &actions[..] else { panic!("{actions:?}") };
    let config: dvs_config::Config =
        dvs_config::Config::from_sources(&[(dvs_config::Source::FwCfg, toml.clone())]).unwrap();
    let management = config.network.management.unwrap();
    assert_eq!(management.interface.to_string(), "eth1");
    assert_eq!(management.address.to_string(), "10.0.0.15/24");
    assert_eq!(management.gateway.unwrap().to_string(), "10.0.0.1");
    assert_eq!(config.cluster.token.unwrap(), "sixteen \"quotes\" \\ more".parse().unwrap());
    assert_eq!((config.cluster.bootstrap_expect, config.node.name.unwrap().as_str()), (4, "rack3"));
    console.done(Outcome::Kept(Ok("/dev/sdb2".into())));
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("/dev/sdb2 has the new configuration"), "{shown}");
    assert_eq!(press(&mut console, "r"), [Action::Restart { force: false }]);
}

#[test]
fn a_form_that_is_wrong_says_so_in_the_words_of_the_configuration() {
    let mut console = form();
    let end = "\x1b[B\x1b[B\x1b[B\x1b[B\x1b[B\x1b[B\x1b[B\r";
    // An address outside of any network, and no interface for it.
    press(&mut console, "\r10.0.0.15\r");
    assert_eq!(press(&mut console, end), []);
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("this form") && shown.contains("network.management"), "{shown}");
    let up = "\x1b[A".repeat(7);
    let mut press_and_show = |keys: &str| {
        assert_eq!(press(&mut console, &format!("{up}{keys}{end}")), []);
        text(&console.screen(SIZE))
    };
    let shown = press_and_show("eth1\r");
    assert!(shown.contains("10.0.0.15"), "{shown}");
    let shown = press_and_show("\r/24\r10.9.9.9");
    assert!(shown.contains("10.9.9.9 is\n  outside of the network of 10.0.0.15/24"), "{shown}");
    let shown = press_and_show("\r\r\x15\r\r\r\x15many");
    assert!(shown.contains("bootstrap_expect") && shown.contains("a whole number"), "{shown}");
    let shown = press_and_show("\r\r\r\rshort\r\x151");
    assert!(shown.contains("cluster.token") && !shown.contains("short"), "{shown}");
    // Without a token, it means the one that the node has.
    let actions = press(&mut console, &format!("{up}\r\r\r\r\x15\r\x153{end}"));
    let [Action::Keep { toml }] = &actions[..] else { panic!("{actions:?}") };
    assert!(toml.contains("bootstrap_expect = 3") && !toml.contains("token"), "{toml}");
}

#[test]
fn what_cannot_be_kept_holds_until_the_machine_restarts() {
    let mut console = form();
    let actions = press(&mut console, "\x1b[B\x1b[B\x1b[B\x15bal\r\r\r\r");
    let [Action::Keep { toml }] = &actions[..] else { panic!("{actions:?}") };
    let toml = toml.clone();
    let why = "this node keeps nothing over a reboot".to_owned();
    console.done(Outcome::Kept(Err((why.clone(), toml.clone()))));
    let shown = text(&console.screen(SIZE));
    assert!(
        shown.contains(&why) && shown.contains("a: use it until the machine restarts"),
        "{shown}"
    );
    assert_eq!(press(&mut console, "a"), [Action::Apply { toml }]);
    let keys = |key: &str| vec![key.to_owned()];
    let applied = [keys("cluster.name"), keys("network.management.address")];
    console.done(Outcome::Applied(Ok(applied)));
    let shown = text(&console.screen(SIZE));
    assert!(shown.contains("Changed until the machine restarts: cluster.name."), "{shown}");
    assert!(shown.contains("it takes a restart: network.management.address."), "{shown}");
    let mut console = console_of_nobody();
    assert!(text(&console.screen(SIZE)).contains("there is no key `x`"));
    assert_eq!(press(&mut console, "\r"), []);
}

/// One whose node tells a configuration that is not understood here.
fn console_of_nobody() -> Console {
    let mut console = console();
    press(&mut console, "\r3");
    console.done(Outcome::Config(Ok(("x = 1\n".into(), false))));
    console
}

#[test]
fn whoever_goes_away_leaves_nothing_behind() {
    let mut console = console();
    press(&mut console, "\r2");
    console.done(Outcome::Disks(Ok(vec![disk("sda")])));
    press(&mut console, "\rsda");
    assert_eq!(console.learn(Facts { uptime: seconds(185 + 599), ..facts() }), None);
    assert!(text(&console.screen(SIZE)).contains("Type sda"));
    assert_eq!(console.learn(Facts { uptime: seconds(185 + 600), ..facts() }), None);
    assert!(text(&console.screen(SIZE)).contains(" State "));
    let mut guest = Console::new(facts(), true);
    assert!(text(&guest.screen(SIZE)).contains("Enter: menu   Esc: leave"));
    assert_eq!(guest.learn(Facts { uptime: seconds(800), ..facts() }), Some(Action::Leave));
    assert_eq!(press(&mut guest, "\r\x1b\x1b"), [Action::Leave]);
}

#[test]
fn keys_are_found_in_bytes_however_they_come() {
    let whole = Keys::default().push(b"a\x1b[A\x1bOB\x1b[3~\x1b[15~\x1b[[A\x7f\t\x15\xc3\xa9\r");
    let expected = [
        Key::Character('a'),
        Key::Up,
        Key::Down,
        Key::Backspace,
        Key::Backspace,
        Key::Down,
        Key::Clear,
        Key::Enter,
    ];
    assert_eq!(whole, expected);
    let mut keys = Keys::default();
    assert_eq!(keys.push(b"\x1b"), []);
    assert!(keys.is_open());
    assert_eq!(keys.push(b"["), []);
    assert_eq!(keys.push(b"C"), [Key::Right]);
    assert_eq!(
        (keys.push(b"\x1b"), keys.settle(), keys.is_open()),
        (vec![], Some(Key::Escape), false)
    );
    assert_eq!(keys.push(b"\x1b\x1b[D"), [Key::Escape, Key::Left]);
}

#[test]
fn only_what_has_changed_is_painted() {
    let mut console = console();
    let mut painter = Painter::default();
    let whole = painter.paint(&console.screen(SIZE), 80);
    assert!(whole.contains("\x1b[1;1H\x1b[0;1m dvs 0.1.0"), "{whole:?}");
    // A line that fills the terminal is not cleared behind its last place, which is that place.
    let rule = format!("{}\x1b[0m\x1b[3;1H", "-".repeat(80));
    assert!(whole.contains(&rule), "{whole:?}");
    assert_eq!(painter.paint(&console.screen(SIZE), 80), "");
    console.learn(Facts { uptime: seconds(186), ..facts() });
    let change = painter.paint(&console.screen(SIZE), 80);
    assert_eq!(
        change,
        "\x1b[?25l\x1b[7;1H\x1b[0m Up           3 min 6 s, dvs 0.1.0 on Linux 7.2.13\x1b[0m\x1b[K"
    );
    painter.forget();
    assert_eq!(painter.paint(&console.screen(SIZE), 80).matches("\x1b[0m\x1b[K").count(), 22);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any keys, on any terminal: a screen of its size, and nothing is installed on a disk that was not named.
    #[test]
    fn any_keys_are_answered(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b'\r'), Just(0x1b), Just(b'['), Just(b'B'), b'1'..=b'6', any::<u8>(),
        ], 0..60),
        rows in 0..60_usize,
        columns in 0..200_usize,
    ) {
        let mut console = console();
        let mut keys = Keys::default();
        for byte in &bytes {
            for key in keys.push(&[*byte]) {
                match console.press(key) {
                    Some(Action::ListDisks) => {
                        console.done(Outcome::Disks(Ok(vec![disk("sda"), disk("sdb")])));
                    }
                    Some(Action::Install { disk, .. }) => {
                        let typed: String = bytes.iter().map(|byte| char::from(*byte)).collect();
                        prop_assert!(typed.contains(disk.strip_prefix("/dev/").unwrap()));
                    }
                    _ => {}
                }
                let size = Size::of(rows, columns);
                let screen = console.screen(size);
                prop_assert_eq!(screen.lines.len(), size.rows);
                prop_assert!(screen.lines.iter().all(|line| line.text.len() <= size.columns));
                prop_assert!(screen.cursor.is_none_or(|(row, column)| row < size.rows && column < size.columns));
            }
        }
    }
}
