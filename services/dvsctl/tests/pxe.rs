// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes that boot other machines, by the program itself against whole daemons on a pretended segment.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::fs;
use std::process::Output;

use dvs_api::{DiskListed, Event, InstallRequest, NetbootStatus, Node};
use dvs_netboot::files::{IPXE_BIOS, SCRIPT};
use fake::netboot::image;
use fake::{eventually, Boot, Segment};
use program::{failure, program, stdout};

const OWN: &str = "10.9.0.1/24";

fn dvsctl(endpoints: &[String], line: &str) -> Output {
    program(endpoints, &line.split(' ').collect::<Vec<_>>()).output().unwrap()
}

fn status(endpoints: &[String]) -> Vec<NetbootStatus> {
    serde_json::from_str(&stdout(&dvsctl(endpoints, "pxe status -o json"))).unwrap()
}

fn script(segment: &Segment, number: u8) -> String {
    let (_, files) = segment.netboot.of(number).unwrap();
    String::from_utf8(files.get(SCRIPT).unwrap().read(0..u64::MAX).unwrap()).unwrap()
}

/// A node that waits for others, which it is to boot.
fn alone(segment: &Segment) -> Vec<String> {
    let token = "the token of this cluster";
    vec![segment.boot(&Boot { number: 1, token, expect: 3, dvk: true, insecure: false })]
}

#[test]
fn a_node_installs_the_image_that_it_runs() {
    let segment = Segment::new();
    let urls = alone(&segment);
    let directory = segment.run_directory(1);
    let tell = |file: &str, text: &str| {
        let path = directory.join("block/vda").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for (file, text) in [("ro", "0"), ("queue/logical_block_size", "512"), ("device/x", "")] {
        tell(file, text);
    }
    let bytes = 120 << 20;
    tell("size", &(bytes / 512).to_string());
    fs::create_dir(directory.join("devices")).unwrap();
    fs::File::create(directory.join("devices/vda")).unwrap().set_len(bytes).unwrap();
    let agent = ureq::Agent::config_builder().proxy(None).http_status_as_error(false);
    let agent = agent.build().new_agent();
    let post = |wipe: bool| {
        let request = InstallRequest { disk: "/dev/vda".into(), wipe };
        let answer = agent.post(format!("{}/v1/boot/disk", urls[0])).send_json(&request);
        answer.unwrap().body_mut().read_json::<dvs_api::Error>().unwrap().error
    };
    let disks = || -> Vec<DiskListed> {
        let answer = agent.get(format!("{}/v1/boot/disks", urls[0])).call();
        answer.unwrap().body_mut().read_json().unwrap()
    };
    let listed = disks();
    assert_eq!((listed.len(), listed[0].bytes, &listed[0].unfit), (1, bytes, &None));
    let error = post(false);
    assert!(
        error.contains("does not find the image that it runs, or name an image with"),
        "{error}"
    );
    // The image is there now; the pretended machine lacks the boot loader only, which is in the root of a node.
    segment.netboot.with_image.lock().unwrap().insert(1);
    let error = post(false);
    assert!(error.starts_with("read the boot loader /usr/libexec/dvs/"), "{error}");
    assert!(!directory.join("netboot/installed").exists(), "the copy of the image stays");
    tell("holders/md0", "");
    assert_eq!(disks()[0].unfit.as_deref(), Some("it is in use: /dev/vda is part of md0"));
    assert!(post(true).contains("it is in use"));
}

#[test]
fn a_node_that_is_in_no_cluster_yet_boots_others() {
    let segment = Segment::new();
    let urls = alone(&segment);
    segment.netboot.with_image.lock().unwrap().insert(1);
    let line = format!("pxe enable --interface eth0 --address {OWN} --addresses 10.9.0.5-10.9.0.9");
    let text = stdout(&dvsctl(&urls, &line));
    assert_eq!(
        text,
        "a node without an id boots machines on eth0 from 10.9.0.1/24, with 1.0.0+own of /dev/sr0\n"
    );
    let (settings, files) = segment.netboot.of(1).unwrap();
    assert_eq!((settings.interface.as_str(), settings.pool.unwrap().count), ("eth0", 5));
    assert!(files.get(IPXE_BIOS).is_some());
    // The stick may be pulled.
    segment.netboot.with_image.lock().unwrap().clear();
    let line = format!("pxe enable --interface eth0 --address {OWN} --append dvs.node.name=x");
    stdout(&dvsctl(&urls, &line));
    assert!(segment.netboot.of(1).unwrap().0.pool.is_none());
    assert!(script(&segment, 1).contains("kernel linux quiet dvs.node.name=x\n"));
    segment.netboot.boot(1, [10, 9, 0, 7].into());
    let all = status(&urls);
    assert_eq!((all.len(), all[0].booted, all[0].machines.len()), (1, 1, 1));
    assert_eq!(all[0].machines[0].mac.as_deref(), Some("02:00:00:00:00:07"));
    let text = stdout(&dvsctl(&urls, "pxe disable"));
    assert_eq!(text, "a node without an id boots no machines\n");
    assert!(segment.netboot.of(1).is_none());
    assert!(segment.netboot.given.lock().unwrap().is_empty(), "the address was not taken back");
    assert!(!segment.run_directory(1).join("netboot").exists(), "the image takes memory");
}

#[test]
fn what_cannot_be_served_is_told_and_taken_back() {
    let segment = Segment::new();
    let urls = alone(&segment);
    let ask = |more: &str| {
        failure(&dvsctl(&urls, &format!("pxe enable --interface eth0 --address {OWN}{more}")), 1)
    };
    assert!(ask("").contains("does not find the image that it runs"));
    assert!(segment.netboot.given.lock().unwrap().is_empty(), "the address was not taken back");
    eventually(|| status(&urls), |all| all[0].wanted.is_none());
    segment.netboot.with_image.lock().unwrap().insert(1);
    let error = failure(&dvsctl(&urls, "pxe enable --interface eth7"), 1);
    assert!(error.contains("no interface `eth7`; it has eth0"), "{error}");
    assert!(ask(" --addresses 10.9.1.1-10.9.1.9").contains("network of 10.9.0.1/24"));
    let words = ["pxe", "enable", "--interface", "eth0", "--append", "dvs.cluster.tokn=abc"];
    let error = String::from_utf8(program(&urls, &words).output().unwrap().stderr).unwrap();
    assert!(error.contains("did you mean `cluster.token`?"), "{error}");
    let error = failure(&dvsctl(&urls, "pxe disable 5"), 1);
    assert!(error.contains("node 5 is not reached"), "{error}");
    // What works goes on when what is wanted next does not.
    stdout(&dvsctl(&urls, &format!("pxe enable --interface eth0 --address {OWN}")));
    failure(&dvsctl(&urls, "pxe enable --interface eth7"), 1);
    eventually(|| status(&urls), |all| all[0].serves.is_some());
}

#[test]
fn an_image_is_handed_over_to_a_node_that_finds_none() {
    let segment = Segment::new();
    let urls = alone(&segment);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dvs.efi");
    fs::write(&path, &image("2.0.0+other")[..4000]).unwrap();
    let line = format!("pxe enable --interface eth0 --address {OWN} --image {}", path.display());
    let error = failure(&dvsctl(&urls, &line), 1);
    assert!(error.contains("it is no image of a node"), "{error}");
    assert!(segment.netboot.of(1).is_none());
    fs::write(&path, image("2.0.0+other")).unwrap();
    let text = stdout(&dvsctl(&urls, &line));
    assert!(text.contains("with 2.0.0+other of what an administrator has handed over"), "{text}");
    let missing = line.replace("dvs.efi", "none.efi");
    assert!(failure(&dvsctl(&urls, &missing), 1).contains("none.efi: No such file"));
}

#[test]
fn the_configuration_is_heeded_from_the_start_and_without_a_new_daemon() {
    let segment = Segment::new();
    let urls = alone(&segment);
    segment.netboot.with_image.lock().unwrap().insert(1);
    let path = segment.run_directory(1).join("config.toml");
    let before = fs::read_to_string(&path).unwrap();
    let section = format!(
        "[netboot]\ninterface = 'eth0'\naddress = '{OWN}'\nappend = 'dvs.cluster.token=sixteen_letters_of_it'\n"
    );
    fs::write(&path, format!("{before}{section}")).unwrap();
    eventually(|| segment.netboot.of(1).is_some(), |serves| *serves);
    assert!(script(&segment, 1).contains("dvs.cluster.token=sixteen_letters_of_it"));
    // Whoever may ask learns no token.
    let append = status(&urls)[0].wanted.clone().unwrap().append;
    assert_eq!(append.as_deref(), Some("dvs.cluster.token=***"));
    let shown = stdout(&dvsctl(&urls, "config show"));
    assert!(shown.contains("[netboot]") && !shown.contains("sixteen_letters"), "{shown}");
    // What has failed is told, and tried again.
    segment.netboot.fail(1, "the interface is gone");
    let failed = |all: &Vec<NetbootStatus>| all[0].trouble.is_some();
    let trouble = eventually(|| status(&urls), failed)[0].trouble.clone();
    assert_eq!(trouble.as_deref(), Some("the interface is gone"));
    eventually(|| segment.netboot.of(1).is_some(), |serves| *serves);
    fs::write(&path, before).unwrap();
    eventually(|| segment.netboot.of(1).is_none(), |ended| *ended);
}

#[test]
fn machines_that_were_booted_are_events_of_the_cluster() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    segment.netboot.with_image.lock().unwrap().insert(2);
    eventually(
        || serde_json::from_slice::<Vec<Node>>(&dvsctl(&urls, "node list -o json").stdout).ok(),
        |nodes| nodes.as_ref().is_some_and(|nodes| nodes.len() == 2),
    );
    let line = format!("pxe enable 1 --interface eth0 --address {OWN}");
    let text = eventually(|| dvsctl(&urls, &line), |output| output.status.success());
    assert!(stdout(&text).starts_with("node 1 boots machines on eth0"));
    segment.netboot.boot(2, [10, 9, 0, 7].into());
    let events = || -> Vec<Event> {
        let output = dvsctl(&urls, "events --kind machine-booted -o json");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    };
    let found = eventually(events, |events| !events.is_empty());
    assert_eq!(found[0].nodes, [1]);
    assert!(found[0].text.contains("(02:00:00:00:00:07, 10.9.0.7)"), "{}", found[0].text);
    let text = stdout(&dvsctl(&urls, "pxe status"));
    let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..2], ["0", "none"], "{text}");
    assert_eq!(rows[2][..3], ["1", "eth0", "10.9.0.1/24"], "{text}");
}
