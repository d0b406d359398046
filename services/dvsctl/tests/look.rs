// SPDX-License-Identifier: MIT OR Apache-2.0
//! Looking at nodes, and what is made of the command line's definition.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Output, Stdio};

use dvs_image::volume;
use fake::{eventually, Segment};
use program::{failure, program, stdout};

const TOKEN: &str = "the token of this cluster";

fn dvsctl(endpoints: &[String], line: &str) -> Output {
    program(endpoints, &line.split(' ').collect::<Vec<_>>()).output().unwrap()
}

#[test]
fn a_log_is_followed() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    let path = segment.run_directory(1).join("logs/dvsd.log");
    fs::write(&path, "one\ntwo\n").unwrap();
    let mut following = program(&urls, &["logs", "dvsd", "-n", "1", "--follow"]);
    let mut following = following.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "two");
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    writeln!(file, "three").unwrap();
    assert_eq!(next(), "three");
    fs::rename(&path, path.with_extension("log.1")).unwrap();
    fs::write(&path, "four\n").unwrap();
    assert_eq!(next(), "four");
    following.kill().unwrap();
    following.wait().unwrap();
}

#[test]
fn what_nodes_do_is_shown_once_for_scripts() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    let links = || dvsctl(&urls, "top --once --interval 200ms");
    let shown = eventually(links, |output| {
        String::from_utf8_lossy(&output.stdout).contains("0-1   up     ethernet")
    });
    let shown = stdout(&shown);
    let lines: Vec<Vec<_>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0][..4], ["NODE", "NAME", "CPUS", "CPU"], "{shown}");
    assert_eq!((lines[1][0], lines[2][1]), ("0", "node1"), "{shown}");
    assert!(lines[1][3].ends_with('%'), "{shown}");
    assert_eq!(lines.len(), 6, "{shown}");
    let json = stdout(&dvsctl(&urls, "top --once --interval 200ms -o json"));
    let sight: serde_json::Value = serde_json::from_str(&json).unwrap();
    let percent = sight["nodes"][0]["cpu_percent"].as_f64().unwrap();
    assert!((0.0..=100.0).contains(&percent), "{json}");
    let error = failure(&dvsctl(&urls, "top"), 1);
    assert!(error.contains("stdout is no terminal; use --once"), "{error}");
    segment.kill(2);
    let output = dvsctl(&urls, "top --once --interval 200ms");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("not reached: "), "{output:?}");
}

#[test]
fn support_has_everything_but_secrets() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    for number in [1, 2] {
        let log = segment.run_directory(number).join("logs/dvsd.log");
        fs::write(log, format!("line of {number}\n")).unwrap();
    }
    let agreed = || dvsctl(&urls, "cluster status");
    eventually(agreed, |output| output.status.success());
    let file = segment.run_directory(1).join("support.tar.zst");
    let output = dvsctl(&urls, &format!("support {}", file.display()));
    let told = String::from_utf8(output.stderr).unwrap();
    // Where tests run, the kernel's log may be closed.
    assert!(told.lines().all(|line| line.contains("/dev/kmsg")), "{told}");
    let mut tar = Vec::new();
    zstd::Decoder::new(fs::File::open(&file).unwrap()).unwrap().read_to_end(&mut tar).unwrap();
    let holds = |text: &str| tar.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(!holds(TOKEN), "the token is in it");
    assert!(holds("bootstrap_expect = 2") && holds("line of 2") && holds("dvs_link_up"));
    let mut names = Vec::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    for name in [
        "dvsctl.txt",
        "errors.txt",
        "node0/config.toml",
        "node0/nodes.json",
        "node0/metrics.txt",
        "node1/logs/dvsd.log",
        "node1/events.json",
    ] {
        assert!(names.contains(&format!("dvs-support/{name}")), "{name}: {names:?}");
    }
    segment.kill(2);
    let output = dvsctl(&urls, &format!("support {}", file.display()));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not answer"), "{output:?}");
    let error = failure(&dvsctl(&urls, "support /nowhere/x"), 1);
    assert!(error.contains("write /nowhere/x: "), "{error}");
}

#[test]
fn configurations_are_shown_without_the_token_and_checked() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    let shown = stdout(&dvsctl(&urls, "config show"));
    assert!(shown.starts_with("# cluster.token is set, and not shown\n[cluster]\n"), "{shown}");
    assert!(shown.contains("bootstrap_expect = 1\n") && !shown.contains(TOKEN), "{shown}");
    let file = segment.run_directory(1).join("good.toml");
    fs::write(&file, "[cluster]\nname = 'lab'\n").unwrap();
    let validate = format!("config validate {}", file.display());
    // No cluster is needed for that.
    assert!(stdout(&dvsctl(&[], &validate)).ends_with("good.toml is a machine configuration\n"));
    fs::write(&file, "[cluster]\nnaem = 'lab'\n").unwrap();
    let error = failure(&dvsctl(&[], &validate), 1);
    assert!(
        error.contains("good.toml") && error.contains("did you mean `cluster.name`?"),
        "{error}"
    );
    let output = dvsctl(&[], &format!("{validate} -o json"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(r#""valid":false"#), "{output:?}");
}

#[test]
fn a_configuration_is_applied_on_trial_and_confirmed() {
    let segment = Segment::new();
    let urls = segment.boot_all(2);
    let all = || dvsctl(&urls, "node list");
    eventually(all, |output| {
        String::from_utf8_lossy(&output.stdout).matches(" ready ").count() == 2
    });
    let file = segment.run_directory(1).join("wanted.toml");
    let wanted =
        "[cluster]\nbootstrap_expect = 2\n[node]\nname = 'a'\n[network]\ncluster = ['eth0']\n";
    fs::write(&file, wanted).unwrap();
    let apply = |more: &str| dvsctl(&urls, &format!("config apply {} {more}", file.display()));
    let error = failure(&apply(""), 2);
    assert!(error.contains("<--node <NODE>|--all>"), "{error}");
    let error = failure(&apply("--node 0 --mode reboot"), 1);
    assert!(error.contains("this node keeps nothing over a reboot"), "{error}");
    let output = apply("--all --dry-run");
    let note = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "node 0: would change node.name\nnode 1: would change node.name\n"
    );
    assert!(
        note.starts_with("note: node 0 keeps what takes a reboot")
            && note.contains("network.cluster"),
        "{note}"
    );
    // The daemons of this test are not started anew, which is what would be waited for.
    let output = apply("--node 1 --no-wait --confirm-within 30s");
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .starts_with("node 1: node.name changed; taken back after 30 s"),
        "{output:?}"
    );
    let written = fs::read_to_string(segment.run_directory(2).join("config.toml")).unwrap();
    assert!(written.contains("name = \"a\"") && written.contains(TOKEN), "{written}");
    let shown = stdout(&dvsctl(&urls, "config show --node 1"));
    assert!(shown.starts_with("# on trial: taken back in ") && !shown.contains(TOKEN), "{shown}");
    let output = apply("--node 1 --no-wait --mode now");
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "nothing is left to change: {error}");
    fs::write(&file, wanted.replace("'a'", "'b'")).unwrap();
    let output = apply("--node 1 --no-wait --mode now");
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && error.contains("another change is on trial"),
        "{error}"
    );
    assert_eq!(stdout(&dvsctl(&urls, "config confirm --node 1")), "node 1: the change stays\n");
    let output = dvsctl(&urls, "config confirm --all");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("no change is on trial"),
        "{output:?}"
    );
    fs::write(&file, "[cluster]\nnaem = 'x'\n").unwrap();
    let error = failure(&apply("--all"), 1);
    assert!(error.contains("wanted.toml") && error.contains("did you mean"), "{error}");
}

#[test]
fn a_configuration_for_the_next_start_goes_to_the_volume_that_is_read_then() {
    let segment = Segment::new();
    let urls = segment.boot_all(1);
    let all = || dvsctl(&urls, "node list");
    eventually(all, |output| String::from_utf8_lossy(&output.stdout).contains(" ready "));
    let directory = segment.run_directory(1);
    fs::write(directory.join("cmdline"), "quiet dvs_volume=5\n").unwrap();
    for folder in ["block/vdb", "devices"] {
        fs::create_dir_all(directory.join(folder)).unwrap();
    }
    let (kind, label) = (volume::Kind::Fitting, volume::CONFIG_LABEL);
    let content = volume::build(2 << 20, kind, label, &[]).unwrap();
    let device = directory.join("devices/vdb");
    fs::write(&device, &content).unwrap();
    let file = directory.join("wanted.toml");
    let address = "[network.management]\ninterface = 'eth1'\naddress = '10.0.0.15/24'\n";
    fs::write(&file, format!("[node]\nname = 'a'\n{address}")).unwrap();
    let apply = |more: &str| {
        stdout(&dvsctl(&urls, &format!("config apply {} --node 0 {more}", file.display())))
    };
    let keys = "node.name, network.management";
    let expected =
        format!("node 0: would change {keys} on {} for its next start\n", device.display());
    assert_eq!(apply("--mode reboot --dry-run"), expected);
    assert!(fs::read(&device).unwrap() == content, "the volume was changed");
    let before = fs::read_to_string(directory.join("config.toml")).unwrap();
    let expected = format!("node 0: {keys} changed on {}, for its next start\n", device.display());
    assert_eq!(apply("--mode reboot"), expected);
    let mut disk = fs::File::open(&device).unwrap();
    let kept = volume::read(&mut disk, "dvs.toml").unwrap().unwrap();
    let kept = String::from_utf8(kept).unwrap();
    // The file has no token: the node's own is meant.
    for part in ["name = \"a\"", "address = \"10.0.0.15/24\"", TOKEN] {
        assert!(kept.contains(part), "{kept}");
    }
    assert_eq!(fs::read_to_string(directory.join("config.toml")).unwrap(), before);
}

#[test]
fn completions_and_manual_pages_are_those_of_all_commands() {
    for (shell, part) in [
        ("bash", "complete -F _dvsctl"),
        ("zsh", "#compdef dvsctl"),
        ("fish", "complete -c dvsctl"),
    ] {
        let text = stdout(&dvsctl(&[], &format!("completions {shell}")));
        assert!(text.contains(part) && text.contains("renew"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man");
    assert_eq!(stdout(&dvsctl(&[], &format!("man {}", pages.display()))), "");
    for (page, text) in [
        ("dvsctl", "Look at and work with a DVS"),
        ("dvsctl-link-set", "Choose what carries the link"),
        ("dvsctl-context-add", "token\\-file"),
    ] {
        let page = fs::read_to_string(pages.join(format!("{page}.1"))).unwrap();
        assert!(page.contains(".TH dvsctl") && page.contains(text), "{page}");
    }
}
