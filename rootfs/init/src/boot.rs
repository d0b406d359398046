// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the kernel's first call to a machine on which services can run.

use std::fs;
use std::io;
use std::path::Path;

use dvs_config::Config;

use crate::console::Console;
use crate::fault::Fault;
use crate::interfaces::{Choice, NetworkFile};
use crate::watchdog::Watchdogs;
use crate::{mounts, network, settings, sources};

/// Where PID 1 and the services leave files for each other.
pub(crate) const RUN_FOLDER: &str = "/run/dvs";
/// Where the services' logs are.
pub(crate) const LOG_FOLDER: &str = "/run/dvs/logs";

/// A machine that has booted.
#[derive(Debug)]
pub(crate) struct Booted {
    pub(crate) console: Console,
    /// What the machine is to do; the error is for people, in one or several lines.
    pub(crate) config: Result<Config, String>,
    /// They count.
    pub(crate) watchdogs: Watchdogs,
}

/// Starts the watchdogs, mounts file systems, opens the console, applies settings, reads the configuration and brings the network up.
/// What fails is said on the console and done without.
pub(crate) fn boot() -> Booted {
    // What came before waits for no hardware; anything after may.
    let mut watchdogs = Watchdogs::arm();
    let mut faults = mounts::mount_all();
    let mut console = Console::open().unwrap_or_else(|fault| {
        faults.push(fault);
        Console::absent()
    });
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    faults.extend(settings::apply(&command_line));
    if !settings::await_entropy() {
        console.say(
            "dvs: warning: the kernel has no random numbers yet; services that need some wait. \
             Give the machine a source, such as QEMU's virtio-rng",
        );
    }
    faults.extend(make_folder(RUN_FOLDER).err());
    faults.extend(make_folder(LOG_FOLDER).err());

    watchdogs.feed_now();
    let config = sources::read(&command_line, &mut || watchdogs.feed_now());
    if let Ok(config) = &config {
        let name = config.node.name.as_ref().map_or("dvs", |name| name.as_str());
        faults.extend(settings::set_host_name(name).err());
        let (choice, network_faults) = network::set_up(&config.network);
        faults.extend(network_faults);
        faults.extend(write_files(config, &choice));
        console.say(&start_banner(config, &choice));
        for missing in &choice.missing {
            console.say(&format!("dvs: warning: {missing}"));
        }
    }
    for fault in faults {
        console.say(&format!("dvs: warning: {fault}"));
    }
    Booted { console, config, watchdogs }
}

fn make_folder(path: &str) -> Result<(), Fault> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Fault::when(format!("make the folder {path}"))(error))
        }
        _ => Ok(()),
    }
}

/// Writes what services need to know; returns what failed.
fn write_files(config: &Config, choice: &Choice) -> Vec<Fault> {
    let folder = Path::new(RUN_FOLDER);
    let network = serde_json::to_vec(&NetworkFile::new(choice, &config.network))
        .map_err(|error| Fault::when("express the network as JSON")(error))
        .and_then(|json| sources::write_file(&folder.join("network.json"), 0o644, &json));
    // It holds the cluster token.
    let config = config.to_toml();
    let config = sources::write_file(&folder.join("config.toml"), 0o600, config.as_bytes());
    [network.err(), config.err()].into_iter().flatten().collect()
}

/// `dvs 0.1.0 on Linux 7.2.13: starting (cluster dvs, eth0 52:54:00:00:00:01)`
fn start_banner(config: &Config, choice: &Choice) -> String {
    let kernel = rustix::system::uname();
    let mut banner = format!(
        "dvs {} on Linux {}: starting (cluster {}",
        env!("CARGO_PKG_VERSION"),
        kernel.release().to_string_lossy(),
        config.cluster.name,
    );
    for interface in &choice.cluster {
        banner += &format!(", {} {}", interface.name, interface.mac);
    }
    banner + ")"
}
