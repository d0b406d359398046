// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `GET /metrics` answers is the text format of Prometheus, by its rules and its conventions.

mod fake;

use std::collections::{BTreeMap, BTreeSet};

use fake::{eventually, Segment};

/// The samples of a family: labels and value.
type Samples = Vec<(BTreeMap<String, String>, f64)>;

/// Families by name, read as strictly as the rules and conventions are (prometheus.io: exposition formats, naming).
fn parse(text: &str) -> Result<BTreeMap<String, (String, Samples)>, String> {
    let mut families: BTreeMap<String, (String, Samples)> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let (mut help, mut current) = (None, None);
    if !text.ends_with('\n') {
        return Err("the last line does not end".into());
    }
    for line in text.lines() {
        let fail = |why: &str| Err(format!("{line}: {why}"));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let Some((name, text)) = rest.split_once(' ') else { return fail("no help") };
            if !text.ends_with('.') || families.contains_key(name) {
                return fail("no sentence, or a second time");
            }
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = rest.split_once(' ') else { return fail("no type") };
            if help.take().as_deref() != Some(name) {
                return fail("no help before it");
            }
            let ours = ["dvs_", "dvk_", "process_"].iter().any(|prefix| name.starts_with(prefix));
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !ours || !name.chars().all(plain) {
                return fail("a bad name");
            }
            if (kind == "counter") != name.ends_with("_total")
                || !["counter", "gauge"].contains(&kind)
            {
                return fail("a counter's name ends in _total, and no other");
            }
            if ["_ms", "_us", "_ns", "_kb", "_mb", "_percent"]
                .iter()
                .any(|unit| name.contains(unit))
            {
                return fail("no base unit");
            }
            families.insert(name.to_owned(), (kind.to_owned(), Vec::new()));
            current = Some(name.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').ok_or(format!("{line}: no value"))?;
            let (name, labels) = match series.split_once('{') {
                Some((name, rest)) => (name, labels(rest)?),
                None => (series, BTreeMap::new()),
            };
            if current.as_deref() != Some(name) {
                return fail("not among its family");
            }
            if !seen.insert(series.to_owned()) {
                return fail("twice");
            }
            let value: f64 = value.parse().map_err(|_| format!("{line}: no number"))?;
            if value < 0.0 {
                return fail("less than nothing");
            }
            families.get_mut(name).unwrap().1.push((labels, value));
        }
    }
    Ok(families)
}

/// `a="b",c="d"}` with its escapes.
fn labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").ok_or(format!("{text}: no label"))?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            return Err(format!("{text}: a bad name of a label"));
        }
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().ok_or(format!("{text}: no end"))? {
                (_, '\\') => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    _ => return Err(format!("{text}: a bad escape")),
                },
                (end, '"') => break end,
                (_, c) => value.push(c),
            }
        };
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("{text}: a label twice"));
        }
        rest = match after[end + 1..].strip_prefix(',') {
            Some(rest) => rest,
            None if &after[end + 1..] == "}" => return Ok(labels),
            None => return Err(format!("{text}: something after a label")),
        };
    }
}

fn scrape(url: &str) -> BTreeMap<String, (String, Samples)> {
    let mut answer = ureq::get(format!("{url}/metrics")).call().unwrap();
    let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.body_mut().read_to_string().unwrap();
    parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn a_node_tells_its_figures_in_the_format_of_prometheus() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    let one = |families: &BTreeMap<String, (String, Samples)>, name: &str| families[name].1[0].1;
    let settled = |families: &BTreeMap<String, (String, Samples)>| {
        families["dvs_members"]
            .1
            .iter()
            .any(|(labels, value)| labels["state"] == "ready" && *value == 2.0)
            && families.get("dvs_consensus_has_leader").is_some_and(|family| family.1[0].1 == 1.0)
    };
    let families = eventually(|| scrape(&urls[0]), settled);
    let states = &families["dvs_node_state"].1;
    assert_eq!(states.iter().map(|(_, value)| *value).sum::<f64>(), 1.0);
    let link = &families["dvs_link_rtt_seconds"].1;
    assert_eq!((link.len(), link[0].0["peer"].as_str(), link[0].1), (1, "1", 0.0002));
    assert_eq!(one(&families, "dvs_link_up"), 1.0);
    assert_eq!(families["dvs_link_info"].1[0].0["transport"], "ethernet");
    assert_eq!(one(&families, "dvs_segment_encrypted"), 1.0);
    assert_eq!(one(&families, "dvs_consensus_voters"), 2.0);
    assert!(one(&families, "process_resident_memory_bytes") > 0.0);
    assert!(one(&families, "dvs_machine_cpus") > 0.0);
    segment.forge(1, 7);
    eventually(
        || one(&scrape(&urls[0]), "dvs_segment_forged_frames_total"),
        |forged| *forged >= 7.0,
    );
}

#[test]
fn the_tables_of_the_dvk_are_told_by_the_names_of_their_columns() {
    let segment = Segment::new();
    let url = segment.boot_all(1).remove(0);
    drop(scrape(&url));
    let snapshot = segment.snapshot(1);
    let tables = dvsd::metrics::Tables {
        dvs: "node new cluster containers peers malformed strangers\n0 x 1f 2 3 4 5\n".into(),
        containers: "container endpoints max_endpoints grants max_grants bytes max_bytes name\n\
                     0 1 32 0 64 0 - system\n7 2 40 3 65 4096 8192 a\\x20\"b\n"
            .into(),
    };
    let text = dvsd::metrics::render(&snapshot, None, &tables);
    let families = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let value = |name: &str, index: usize| families[name].1[index].1;
    assert_eq!((value("dvk_containers", 0), value("dvk_stranger_frames_total", 0)), (2.0, 5.0));
    assert_eq!(value("dvk_container_endpoints", 1), 2.0);
    let caps = &families["dvk_container_max_copy_bytes"].1;
    assert_eq!((caps.len(), caps[0].1, caps[0].0["name"].as_str()), (1, 8192.0, "a\\x20\"b"));
    assert_eq!(value("dvs_consensus_member", 0), 0.0);
}

#[test]
fn the_reader_of_this_test_is_strict() {
    let good = "# HELP dvs_a_total A.\n# TYPE dvs_a_total counter\ndvs_a_total{x=\"y\"} 1\n";
    assert!(parse(good).is_ok());
    for (from, to) in [
        ("counter", "gauge"),
        ("counter", "untyped"),
        ("A.", "A"),
        ("# HELP dvs_a_total A.\n", ""),
        ("x=\"y\"", "x=\"y\",x=\"y\""),
        ("x=\"y\"", "X=\"y\""),
        ("x=\"y\"", "x=\"\\y\""),
        ("} 1", "} -1"),
        ("} 1", "} one"),
        ("} 1\n", "} 1"),
        ("} 1\n", "} 1\ndvs_a_total{x=\"y\"} 2\n"),
        ("} 1\n", "} 1\ndvs_b 2\n"),
    ] {
        assert!(parse(&good.replace(from, to)).is_err(), "{from} → {to}");
    }
}
