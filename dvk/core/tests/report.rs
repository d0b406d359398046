// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The tables that people read.

use dvk_core::abi::ioctl;
use dvk_core::abi::Endpoint;
use dvk_core::link::Reject;
use dvk_core::report::{self, Cell, Table, CONTAINERS, DVS, ENDPOINTS, LINKS, NODES};
use std::collections::BTreeMap;

const DOCUMENTED: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/observability.md"));

/// The first column of the table under each heading that is a name in backquotes.
fn documented() -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = None;
    for line in DOCUMENTED.lines() {
        if line.starts_with('#') {
            let name = line.trim_start_matches('#').trim();
            section = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
        } else if let Some((name, _)) =
            line.strip_prefix("| `").and_then(|line| line.split_once("` |"))
        {
            if let Some(section) = section {
                found.entry(section.into()).or_default().push(name.into());
            }
        }
    }
    found
}

fn columns<const N: usize>(table: &Table<N>) -> (String, Vec<String>) {
    let name = table.name.to_str().expect("names are ASCII").to_owned();
    (name, table.columns.iter().map(|(head, _)| (*head).to_owned()).collect())
}

#[test]
fn every_column_is_documented_in_its_place() {
    let documented = documented();
    let tables = [
        columns(&DVS),
        columns(&NODES),
        columns(&LINKS),
        columns(&CONTAINERS),
        columns(&ENDPOINTS),
    ];
    for (name, columns) in tables {
        assert_eq!(documented.get(&name), Some(&columns), "table {name}");
    }
}

#[test]
fn heads_are_words_that_fit() {
    fn check<const N: usize>(table: &Table<N>) {
        let mut head = String::new();
        table.write_head(&mut head).expect("strings grow");
        assert_eq!(head.split_whitespace().count(), N);
        let last = N - 1;
        for (at, (name, width)) in table.columns.iter().enumerate() {
            assert!(name.len() <= *width || at == last, "{name} is wider than its column");
        }
    }
    check(&DVS);
    check(&NODES);
    check(&LINKS);
    check(&CONTAINERS);
    check(&ENDPOINTS);
}

#[test]
fn columns_are_aligned_and_fields_without_blanks() {
    let table = Table { name: c"t", columns: [("node", 5), ("address", 17), ("name", 0)] };
    let mut text = String::new();
    table.write_head(&mut text).expect("strings grow");
    let rows = [
        [Cell::Number(7), Cell::Address([0x52, 0x54, 0, 0xd5, 0, 1]), Cell::Text(b"a b\0c")],
        [Cell::Nothing, Cell::Nothing, Cell::Text(b"")],
        [Cell::Number(1_234_567), Cell::Bits(0xab), Cell::Text(b"-")],
        [Cell::Word("up"), Cell::Endpoint(Endpoint::ANY), Cell::Text(b"\\ \xff")],
    ];
    for row in rows {
        table.write_row(&mut text, row).expect("strings grow");
    }
    let expected = "\
\u{20}node           address name
    7 52:54:00:d5:00:01 a\\x20b
    -                 - -
1234567  00000000000000ab \\x2d
   up               any \\x5c\\x20\\xff
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.split_whitespace().count() == 3));
}

#[test]
fn endpoints_are_named_as_everywhere() {
    let text = |raw| Cell::Endpoint(Endpoint::from_raw(raw)).to_string();
    assert_eq!(text(7 << 32 | 64), "64.7");
    assert_eq!(text(Endpoint::NONE.raw()), "-");
    assert_eq!(text(Endpoint::ANY.raw()), "any");
}

#[test]
fn numbers_have_words() {
    assert_eq!(report::endpoint_state(ioctl::STATE_REQUEST), "sendrec");
    assert_eq!(report::endpoint_state(99), "?");
    assert_eq!(report::endpoint_role(ioctl::ROLE_BACKUP), "backup");
    assert_eq!(report::link_state(ioctl::LINK_CONNECTING), "connecting");
    assert_eq!(report::link_event(ioctl::EVENT_LINK_RESET), Some(c"reset"));
    assert_eq!(report::link_event(ioctl::EVENT_BOUND), None);
    assert_eq!(Reject::Stale.name(), c"stale");
    assert_eq!(ioctl::call_name(ioctl::REPLY_RECEIVE), c"reply_receive");
    assert_eq!(ioctl::call_name(ioctl::DVS_INIT), c"?");
}
