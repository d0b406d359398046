// SPDX-License-Identifier: MIT OR Apache-2.0
//! The screen of a node, by the program itself on a terminal that is only pretended, against a pretended node.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dvs_api::{
    ConfigChange, ConfigChanged, ConfigMode, DiskListed, Event, Events, InstallRequest, Installed,
    MachineConfig, PowerAction, PowerAnswer, PowerRequest,
};
use rustix::pty::{grantpt, openpt, ptsname, unlockpt, OpenptFlags};
use rustix::termios::{tcgetattr, tcsetwinsize, LocalModes, Winsize};

/// What was asked of the node.
#[derive(Debug, Default)]
struct Asked {
    power: Mutex<Vec<(PowerAction, bool)>>,
    installed: Mutex<Vec<(String, bool)>>,
    configured: Mutex<Vec<(ConfigMode, String)>>,
}

fn routes(asked: &Arc<Asked>) -> Router {
    let event = |number, text: &str| Event {
        number,
        at_ms: 1000,
        unix_ms: None,
        kind: "node-ready".into(),
        nodes: vec![0],
        text: text.into(),
    };
    let all = Json(Events {
        events: vec![event(1, "node 0 is ready\x1b[2J"), event(2, "node 1 is ready")],
        last: 2,
        missed: 0,
        now_ms: 0,
    });
    let none = Json(Events { events: Vec::new(), last: 2, missed: 0, now_ms: 0 });
    let events = move |uri: axum::http::Uri| async move {
        match uri.query().is_some_and(|query| query.starts_with("after=0&")) {
            true => all,
            false => {
                tokio::time::sleep(Duration::from_millis(200)).await;
                none
            }
        }
    };
    let disk = DiskListed {
        disk: "/dev/vda".into(),
        bytes: 8 << 30,
        model: None,
        found: Some("partitions: photos".into()),
        unfit: None,
    };
    let (power, install) = (Arc::clone(asked), Arc::clone(asked));
    let power = move |Json(request): Json<PowerRequest>| async move {
        power.power.lock().unwrap().push((request.action, request.force));
        match request.force {
            true => Ok(Json(PowerAnswer { node: Some(0), incarnation: Some(1) })),
            false => {
                let error = dvs_api::Error { error: "no other node could vote".into() };
                Err((StatusCode::CONFLICT, Json(error)))
            }
        }
    };
    let install = move |Json(request): Json<InstallRequest>| async move {
        let InstallRequest { disk, wipe } = request;
        install.installed.lock().unwrap().push((disk.clone(), wipe));
        Json(Installed { node: Some(0), disk, bytes: 8 << 30 })
    };
    let config = Json(MachineConfig {
        node: Some(0),
        toml: "[cluster]\nname = 'lab'\n".into(),
        has_token: true,
        running: true,
        trial_s: None,
    });
    let configure = Arc::clone(asked);
    let configure = move |Json(change): Json<ConfigChange>| async move {
        configure.configured.lock().unwrap().push((change.mode, change.toml));
        let kept_on = Some("/dev/vdb".into());
        let (changed, at_boot) = (Vec::new(), vec!["cluster.name".into()]);
        Json(ConfigChanged { node: Some(0), changed, at_boot, trial_s: None, kept_on })
    };
    Router::new()
        .route("/v1/config", get(|| async { config }).put(configure))
        .route("/v1/nodes", get(|| async { Json(Vec::<dvs_api::Node>::new()) }))
        .route("/v1/events", get(events))
        .route("/v1/power", post(power))
        .route("/v1/boot/disks", get(|| async { Json(vec![disk]) }))
        .route("/v1/boot/disk", post(install))
}

/// A node with its files, its API and a program that shows it.
struct Shown {
    root: tempfile::TempDir,
    asked: Arc<Asked>,
    program: Child,
    keyboard: File,
    /// The terminal's other end, to see how it is set up.
    terminal: File,
    /// All that was written to the terminal since [`Shown::see`] was last asked.
    written: Arc<Mutex<String>>,
    _runtime: tokio::runtime::Runtime,
}

impl Shown {
    fn new(config: &str, more: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("run/dvs/config.toml", config);
        write("proc/uptime", "61.50 100.00\n");
        write("sys/class/net/eth0/type", "1");
        write("sys/class/net/eth0/address", "52:54:00:d5:00:00\n");
        write("sys/class/net/eth0/device/x", "");
        let asked = Arc::new(Asked::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _guard = runtime.enter();
        let listener =
            tokio::net::UnixListener::bind(root.path().join("run/dvs/api.sock")).unwrap();
        let router = routes(&asked);
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });

        let keyboard: File = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap().into();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(&path).unwrap();
        resize(&terminal, 25, 80);
        let mut command = Command::new(env!("CARGO_BIN_EXE_dvsctl"));
        command.args(["console", "--terminal", &path, "--root"]).arg(root.path()).args(more);
        let program = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        let written = Arc::new(Mutex::new(String::new()));
        let (mut screen, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&written));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = screen.read(&mut bytes) {
                *shown.lock().unwrap() += &String::from_utf8_lossy(&bytes[..length]);
            }
        });
        Self { root, asked, program, keyboard, terminal, written, _runtime: runtime }
    }

    /// Waits until a text is shown, and forgets all up to there.
    fn see(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let mut written = self.written.lock().unwrap();
            if let Some(at) = written.find(text) {
                written.drain(..at + text.len());
                return;
            }
            assert!(Instant::now() < end, "{text:?} is not in {written:?}");
            drop(written);
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn say(&self, status: &str) {
        let folder = self.root.path().join("run/dvs");
        fs::write(folder.join("status.new"), status).unwrap();
        fs::rename(folder.join("status.new"), folder.join("status.json")).unwrap();
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

fn resize(terminal: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

const READY: &str = r#"{"node":0,"name":"node0","cluster":"lab","state":"ready","detail":"","members":2,"ready":2,
    "addresses":["fe80::1%eth0"],"version":"0.1.0"}"#;

#[test]
fn a_node_is_shown_as_it_is_and_restarts_by_its_menu() {
    let mut shown = Shown::new("[cluster]\nname = 'lab'\n", &[]);
    shown.see("new node of lab");
    shown.see("starting since 1 min 1 s");
    shown.see("52:54:00:d5:00:00");
    shown.say(READY);
    shown.see("node0 of lab");
    shown.see("ready, 2 of 2 nodes ready");
    // It is painted anew after a while, with what was heard meanwhile and nothing of what it could do to a terminal.
    shown.see("\x1b[1;1H");
    shown.see("node 0 is ready.[2J\x1b[0m");
    shown.see("node 1 is ready");
    // A larger terminal has its rule at its end.
    resize(&shown.terminal, 30, 100);
    shown.see(&format!("\x1b[29;1H\x1b[0m{}", "-".repeat(100)));
    shown.press("\r");
    shown.see("4  Restart the machine");
    shown.press("4");
    shown.see("Restart this machine?");
    shown.press("y");
    shown.see("no other node could vote");
    shown.see("f: restart all the same");
    shown.press("f");
    shown.see("The machine restarts");
    let end = Instant::now() + Duration::from_secs(60);
    while shown.asked.power.lock().unwrap().len() < 2 && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    let expected = [(PowerAction::Reboot, false), (PowerAction::Reboot, true)];
    assert_eq!(*shown.asked.power.lock().unwrap(), expected);
}

#[test]
fn a_node_is_installed_on_the_disk_that_was_named() {
    let mut shown = Shown::new("", &[]);
    shown.press("\r2");
    shown.see("/dev/vda");
    shown.see("partitions: photos");
    shown.press("\r");
    shown.see("Type vda to go on: ");
    shown.press("vdb\r");
    shown.see("That is not the name of this disk.");
    assert!(shown.asked.installed.lock().unwrap().is_empty());
    shown.press("\x15vda\r");
    shown.see("/dev/vda boots this node from now on");
    assert_eq!(*shown.asked.installed.lock().unwrap(), [("/dev/vda".to_owned(), true)]);
}

#[test]
fn a_node_is_told_its_address_and_cluster_by_a_form() {
    let mut shown = Shown::new("", &[]);
    shown.press("\r3");
    shown.see("Network and cluster");
    shown.see("  Cluster    lab");
    shown.press("\x1b[C\r10.0.0.15/24\r\r\x15bal\r\r\r");
    shown.see("  Interface  eth0");
    shown.press("\r");
    shown.see("/dev/vdb has the new configuration");
    let configured = shown.asked.configured.lock().unwrap();
    let [(ConfigMode::Reboot, toml)] = &configured[..] else { panic!("{configured:?}") };
    for part in ["name = \"bal\"", "interface = \"eth0\"", "address = \"10.0.0.15/24\""] {
        assert!(toml.contains(part), "{toml}");
    }
}

#[test]
fn a_guest_gives_the_terminal_back_as_it_was() {
    let mut shown = Shown::new("[console]\nmenu = false\n", &["--guest"]);
    let is_raw = |terminal: &File| {
        !tcgetattr(terminal).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    };
    shown.see("The menu is off   Esc: leave");
    assert!(is_raw(&shown.terminal));
    // Enter shows no menu, and Escape is one although it begins longer keys.
    shown.press("\r3y\x1b");
    shown.see("\x1b[J\x1b[?25h");
    assert!(shown.program.wait().unwrap().success());
    assert!(!is_raw(&shown.terminal));
    assert!(shown.asked.power.lock().unwrap().is_empty());
}

#[test]
fn without_a_terminal_it_says_so_and_ends() {
    let root = tempfile::tempdir().unwrap();
    let run = |terminal: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dvsctl"));
        command.args(["console", "--root"]).arg(root.path()).arg("--terminal").arg(terminal);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = run(Path::new("/nowhere/tty1"));
    assert_eq!(code, Some(1));
    assert!(error.starts_with("error: open the terminal /nowhere/tty1: "), "{error}");
    let (code, error) = run(Path::new("/dev/null"));
    assert_eq!(code, Some(1));
    assert!(error.starts_with("error: set up the terminal /dev/null: "), "{error}");
}
