// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reaching nodes by contexts, over TLS.

#[path = "../../dvsd/tests/fake/mod.rs"]
mod fake;
mod program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Output;

use fake::{eventually, Segment};
use program::{failure, program, stdout};

const TOKEN: &str = "the token of this cluster";

/// Somebody's home.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn context(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("dvs/contexts/{name}.toml"))
    }

    fn dvsctl(&self, line: &str) -> Output {
        let mut command = program(&[], &line.split(' ').collect::<Vec<_>>());
        command.env_remove("DVSCTL_ENDPOINTS").env("DVSCTL_CONFIG", self.0.path().join("dvs"));
        command.output().unwrap()
    }
}

#[test]
fn a_context_is_made_used_and_forgotten() {
    let (segment, home) = (Segment::new(), Home::new());
    segment.boot_all(2);
    let endpoints = [1, 2].map(|number| format!("https://{}", segment.guarded(number))).join(",");
    let file = home.file("token", &format!("{TOKEN}\n"));
    let error = failure(&home.dvsctl("node list"), 1);
    assert!(
        error.contains("no cluster is named: make a context with `dvsctl context add`"),
        "{error}"
    );
    let error = failure(&home.dvsctl(&format!("context add lab --token-file {file}")), 1);
    assert!(error.contains("name it with --endpoint"), "{error}");

    let add = format!("context add lab --token-file {file} --endpoint {endpoints}");
    let made = stdout(&home.dvsctl(&add));
    assert!(made.contains("contexts/lab.toml, and in use; it is valid until 2"), "{made}");
    assert!(!fs::read_to_string(home.context("lab")).unwrap().contains(TOKEN));
    let error = failure(&home.dvsctl(&add), 1);
    assert!(error.contains("there is a context lab already"), "{error}");

    let listed = || home.dvsctl("node list -o yaml");
    let all = eventually(listed, |output| {
        String::from_utf8_lossy(&output.stdout).matches("state: ready").count() == 2
    });
    assert!(stdout(&all).starts_with("- addresses:\n  - \"fe80::1%eth0\"\n"), "{all:?}");
    let wide = stdout(&home.dvsctl("node list -o wide"));
    assert!(
        wide.lines().next().unwrap().ends_with("MACHINE            INCARNATION  OVER      HEARD"),
        "{wide}"
    );
    assert!(stdout(&home.dvsctl("version")).contains("node 1"));

    // Another one of the same cluster ends soon, which is told.
    let soon = format!("context add soon --token-file {file} --valid 3d --endpoint {endpoints}");
    assert!(!stdout(&home.dvsctl(&soon)).contains("in use"));
    let output = home.dvsctl("--context soon node show 0");
    let note = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{note}");
    assert_eq!(
        note,
        "note: the certificate of context soon ends in 2 days: see `dvsctl context renew soon`\n"
    );
    stdout(&home.dvsctl(&format!("context renew soon --token-file {file}")));
    stdout(&home.dvsctl("--context soon node show 0"));
    let list = stdout(&home.dvsctl("context list"));
    let rows: Vec<Vec<_>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..5], ["*", "lab", "dvs", "364", "days"], "{list}");
    assert_eq!(rows[2][..4], ["soon", "dvs", "364", "days"], "{list}");
    stdout(&home.dvsctl("context use soon"));
    assert!(
        stdout(&home.dvsctl("context show -o json")).contains(r#""name":"soon","current":true"#)
    );
    let out = home.0.path().join("pem");
    let written = stdout(&home.dvsctl(&format!("context export soon {}", out.display())));
    assert_eq!(written, "written; nodes prove to be node.dvs.dvs\n");
    for (name, label) in
        [("authority", "CERTIFICATE"), ("certificate", "CERTIFICATE"), ("key", "PRIVATE KEY")]
    {
        let path = out.join(format!("{name}.pem"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("-----BEGIN {label}-----\n")), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let removed = home.dvsctl("context remove soon");
    assert!(removed.status.success() && !home.context("soon").exists(), "{removed:?}");
    let error = failure(&home.dvsctl("--context soon node list"), 1);
    assert!(error.contains("there is no context soon; there are: lab"), "{error}");
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let (segment, home) = (Segment::new(), Home::new());
    let plain = segment.boot_all(1).remove(0);
    let at = segment.guarded(1);
    let token = home.file("token", TOKEN);
    let other = home.file("other", "the token of another cluster");
    let add = |name: &str, file: &str, more: &str| {
        home.dvsctl(&format!("context add {name} --token-file {file} --endpoint {at}{more}"))
    };
    for (name, file, more) in [("token", &other, ""), ("name", &token, " --cluster lab")] {
        let error = failure(&add(name, file, more), 1);
        assert!(
            error.contains(&format!("no node accepted context {name}, so it is not kept")),
            "{error}"
        );
        assert!(error.contains("is not vouched for by the authority of context"), "{error}");
        assert!(!home.context(name).exists());
    }
    let short = home.file("short", "short");
    assert!(failure(&add("x", &short, ""), 1).contains("has 5 characters"));

    stdout(&add("lab", &token, ""));
    let bare =
        |endpoint: &str| home.dvsctl(&format!("--context lab --endpoint {endpoint} version"));
    stdout(&bare(&at.to_string()));
    let error = |output: Output| String::from_utf8(output.stderr).unwrap();
    let said = error(bare(plain.strip_prefix("http://").unwrap()));
    assert!(said.contains("what answers there does not speak TLS"), "{said}");
    let said = error(bare(&format!("http://{at}")));
    assert!(said.contains("a node with a cluster token speaks TLS"), "{said}");
    let said = error(home.dvsctl("--endpoint unix:/nowhere/api.sock version"));
    assert!(
        said.contains("unix:/nowhere/api.sock does not answer: there is no such socket"),
        "{said}"
    );
    let said = error(home.dvsctl("context remove lab"));
    assert_eq!(said, "note: it was in use; choose another with `dvsctl context use`\n");
}

#[test]
fn a_certificate_ends_and_the_nodes_see_to_it() {
    let (segment, home) = (Segment::new(), Home::new());
    segment.boot_all(1);
    let at = segment.guarded(1);
    // One that ended an hour ago, and one that a node whose clock is behind does not take yet.
    let now = std::time::SystemTime::now();
    let hour = std::time::Duration::from_secs(3600);
    for (name, then, why) in [
        ("ended", now - 2 * hour, "was valid from"),
        (
            "early",
            now + 48 * hour,
            "by the node's clock the certificate of context early is not valid now",
        ),
    ] {
        let secret = dvs_secret::ClusterSecret::new(&TOKEN.parse().unwrap());
        let authority = dvs_authority::Authority::derived(&secret, "dvs").unwrap();
        let made = authority.administrator("me", then, hour).unwrap();
        let token = home.file("token", TOKEN);
        stdout(&home.dvsctl(&format!("context add {name} --token-file {token} --endpoint {at}")));
        let file = home.context(name);
        let mut table: toml::Table = fs::read_to_string(&file).unwrap().parse().unwrap();
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        let pem = |label: &str, der: &[u8]| {
            let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der);
            format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
        };
        table.insert("begins".into(), time(made.begins).into());
        table.insert("expires".into(), time(made.expires).into());
        table.insert("certificate".into(), pem("CERTIFICATE", &made.certificate).into());
        table.insert("key".into(), pem("PRIVATE KEY", &made.key).into());
        fs::write(&file, toml::to_string(&table).unwrap()).unwrap();
        let output = home.dvsctl(&format!("--context {name} version"));
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why), "{said}");
        let output = home.dvsctl(&format!("--context {name} node list"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains(why) && said.contains("context renew"), "{said}");
    }
}
