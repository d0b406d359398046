// SPDX-License-Identifier: MIT OR Apache-2.0
//! Changes of the machine configuration while the node runs, and how they are taken back.
//!
//! `dvsd` reads its configuration when it starts, so a change is a new file and a restart of `dvsd`. A change on trial leaves the
//! former file and a deadline beside it: whichever `dvsd` runs when that is over, or is started after it, puts the former file
//! back. So even a configuration with which `dvsd` cannot start is taken back, by the next one that PID 1 starts.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use dvs_config::{Config, ConfigError, Netboot, Source, Token};
use serde_json::Value;

/// The configuration that services read.
pub const CONFIG: &str = "config.toml";
/// The one before the change on trial.
const BEFORE: &str = "config.before.toml";
/// Until when it is on trial: seconds since the machine was booted.
const TRIAL: &str = "config.trial";
/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What a change comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What is to be the configuration now: the wanted one, but for what takes a reboot.
    pub config: Config,
    /// The wanted one, whole.
    pub wanted: Config,
    /// The keys that change.
    pub changed: Vec<String>,
    /// The keys that would take a reboot, and stay as they are.
    pub at_boot: Vec<String>,
}

/// What has to be done to come from one configuration to another one, which is TOML. Without a token, it means the token that there
/// is.
///
/// # Errors
/// What is wrong with the other one.
pub fn plan(running: &Config, wanted: &str) -> Result<Plan, ConfigError> {
    // Key by key, the later source wins.
    let mut token = Config::default();
    token.cluster.token.clone_from(&running.cluster.token);
    let source = |name: &str| Source::File(name.into());
    let mut wanted = Config::from_sources(&[
        (source("running configuration"), token.to_toml()),
        (source("configuration"), wanted.to_owned()),
    ])?;
    // Nor are arguments shown that hold a secret, so without any, those are meant as well.
    let append = running.netboot.as_ref().and_then(|netboot| netboot.append.as_ref());
    if let (Some(netboot), Some(append)) = (&mut wanted.netboot, append) {
        if netboot.append.is_none() && append.has_secret() {
            netboot.append = Some(append.clone());
        }
    }
    let mut keys = Vec::new();
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    differences(&value(running), &value(&wanted), "", &mut keys);
    // PID 1 has set up interfaces, and started what it is to start, when services begin.
    let boot = |key: &String| key.starts_with("network") || key.starts_with("run");
    let (at_boot, changed) = keys.into_iter().partition(boot);
    let (network, run) = (running.network.clone(), running.run.clone());
    let config = Config { network, run, ..wanted.clone() };
    Ok(Plan { config, wanted, changed, at_boot })
}

/// The dotted keys at which two configurations differ.
fn differences(one: &Value, other: &Value, path: &str, keys: &mut Vec<String>) {
    let (Value::Object(a), Value::Object(b)) = (one, other) else {
        if one != other {
            keys.push(path.to_owned());
        }
        return;
    };
    let mut names: Vec<_> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let of = |fields: &serde_json::Map<String, Value>| fields.get(name).cloned();
        differences(&of(a).unwrap_or_default(), &of(b).unwrap_or_default(), &path, keys);
    }
}

/// Seconds since the machine was booted.
pub fn now_s() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0)
}

fn failed(attempt: &str, path: &Path) -> impl Fn(io::Error) -> String {
    let text = format!("{attempt} {}", path.display());
    move |error| format!("{text}: {error}")
}

/// The text of the configuration, and what it says.
///
/// # Errors
/// For people.
pub fn read(directory: &Path) -> Result<(String, Config), String> {
    let path = directory.join(CONFIG);
    let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
    let config = Config::from_sources(&[(Source::File(path), text.clone())])
        .map_err(|error| error.to_string())?;
    Ok((text, config))
}

/// Until when a change is on trial, in seconds since the machine was booted.
pub fn pending(directory: &Path) -> Option<u64> {
    // What cannot be read has been over for long.
    Some(fs::read_to_string(directory.join(TRIAL)).ok()?.trim().parse().unwrap_or(0))
}

/// Makes `config` the configuration: for good, or on trial until a moment.
///
/// # Errors
/// For people: also when another change is on trial.
pub fn begin(directory: &Path, config: &Config, until_s: Option<u64>) -> Result<(), String> {
    if pending(directory).is_some() {
        let text = "another change is on trial: confirm it, or wait until it is taken back";
        return Err(text.into());
    }
    if let Some(until_s) = until_s {
        let (before, _) = read(directory)?;
        replace(&directory.join(BEFORE), &before)?;
        replace(&directory.join(TRIAL), &format!("{until_s}\n"))?;
    }
    replace(&directory.join(CONFIG), &config.to_toml())
}

/// Puts the cluster's token in the place of the join token, by which the machine was let in: for whoever reads the configuration
/// until the machine restarts.
///
/// # Errors
/// For people: what cannot be read or written.
pub fn admit(directory: &Path, token: Token) -> Result<(), String> {
    let (_, mut config) = read(directory)?;
    (config.cluster.token, config.cluster.join_token) = (Some(token), None);
    replace(&directory.join(CONFIG), &config.to_toml())
}

/// Changes what the configuration says of booting other machines, and nothing else.
///
/// # Errors
/// For people: also when a change is on trial, with which this one would be taken back.
pub fn set_netboot(directory: &Path, netboot: Option<Netboot>) -> Result<(), String> {
    let (_, config) = read(directory)?;
    begin(directory, &Config { netboot, ..config }, None)
}

/// Whether a daemon that was started with the configuration of this text has to be started anew for that of the other one. What is about
/// booting other machines is heeded while it runs.
pub fn differs(one: &str, other: &str) -> bool {
    let rest = |text: &str| {
        let config = Config::from_sources(&[(Source::File(CONFIG.into()), text.to_owned())]);
        config.map(|config| Config { netboot: None, ..config })
    };
    one != other
        && match (rest(one), rest(other)) {
            (Ok(one), Ok(other)) => one != other,
            _ => true,
        }
}

/// Keeps the change that is on trial; whether there was one.
///
/// # Errors
/// For people.
pub fn confirm(directory: &Path) -> Result<bool, String> {
    let path = directory.join(TRIAL);
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", &path)(error)),
    }
}

/// Takes back the change on trial if its time is over; whether that was so.
///
/// # Errors
/// For people.
pub fn settle(directory: &Path, now_s: u64) -> Result<bool, String> {
    if pending(directory).is_none_or(|until_s| now_s < until_s) {
        return Ok(false);
    }
    let (before, config) = (directory.join(BEFORE), directory.join(CONFIG));
    match fs::rename(&before, &config) {
        // Somebody was stopped between this step and the next one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        put => put.map_err(failed("put back", &before))?,
    }
    confirm(directory)?;
    Ok(true)
}

/// Ends when `dvsd` has to be started anew: when the configuration is no longer the one of this text.
pub async fn changed(directory: &Path, text: &str) {
    loop {
        tokio::time::sleep(LOOK).await;
        match settle(directory, now_s()) {
            Ok(true) => {
                println!("the change of the configuration was not confirmed, and is taken back")
            }
            Ok(false) => {}
            Err(error) => println!("error: {error}"),
        }
        if fs::read_to_string(directory.join(CONFIG)).is_ok_and(|now| differs(text, &now)) {
            // Whoever asked for it gets an answer first.
            tokio::time::sleep(LOOK).await;
            println!("the configuration has changed: starting anew with it");
            return;
        }
    }
}

/// Makes a file say this, for its owner alone. Whoever reads it sees the old text or the new one, whole.
fn replace(path: &Path, text: &str) -> Result<(), String> {
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    write().map_err(failed("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_sources(&[(Source::FwCfg, text.to_owned())]).unwrap()
    }

    const RUNNING: &str = "[cluster]\nname = 'lab'\ntoken = 'sixteen letters or more'\n\
        [network.management]\ninterface = 'eth1'\naddress = '10.0.2.15/24'\n";

    const SEED: &str =
        "[netboot]\ninterface = 'eth0'\nappend = 'dvs.cluster.token=sixteen_letters_x'\n";

    #[test]
    fn booting_others_is_changed_without_a_new_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        fs::write(directory.join(CONFIG), RUNNING).unwrap();
        let netboot = config(SEED).netboot;
        set_netboot(directory, netboot.clone()).unwrap();
        let (text, now) = read(directory).unwrap();
        assert_eq!(now.netboot, netboot);
        assert!(text != RUNNING && !differs(RUNNING, &text));
        assert!(differs(RUNNING, &text.replace("lab", "bal")));
        assert!(differs(RUNNING, "nonsense"));
        set_netboot(directory, None).unwrap();
        assert_eq!(read(directory).unwrap().1, config(RUNNING));
        begin(directory, &config(RUNNING), Some(100)).unwrap();
        assert!(set_netboot(directory, netboot).unwrap_err().contains("is on trial"));
    }

    #[test]
    fn arguments_with_a_secret_stay_where_none_are_given() {
        let running = config(&[RUNNING, SEED].concat());
        let bare = "[netboot]\ninterface = 'eth1'\n";
        let planned = plan(&running, &[RUNNING, bare].concat()).unwrap();
        assert_eq!(planned.changed, ["netboot.interface"]);
        assert!(planned.config.netboot.unwrap().append.unwrap().has_secret());
        assert_eq!(plan(&running, RUNNING).unwrap().config.netboot, None);
    }

    #[test]
    fn what_takes_a_reboot_is_told_and_stays() {
        let running = config(RUNNING);
        let wanted = "[cluster]\nname = 'bal'\n[node]\nname = 'a'\n[network.management]\ninterface = 'eth1'\n\
             address = '10.0.2.16/24'\n";
        let Plan { config, wanted, changed, at_boot } = plan(&running, wanted).unwrap();
        assert!(wanted.to_toml().contains("10.0.2.16/24") && wanted.cluster.token.is_some());
        assert_eq!(changed, ["cluster.name", "node.name"]);
        assert_eq!(at_boot, ["network.management.address"]);
        assert_eq!(
            (&config.network, &config.cluster.token),
            (&running.network, &running.cluster.token)
        );
        assert_eq!(config.cluster.name.to_string(), "bal");
        let same = plan(&running, RUNNING).unwrap();
        assert!(same.changed.is_empty() && same.at_boot.is_empty());
        let other = RUNNING.replace("sixteen letters or more", "another one of sixteen");
        assert_eq!(plan(&running, &other).unwrap().changed, ["cluster.token"]);
        // The token that there is makes this one complete.
        let more = RUNNING.replace("token = 'sixteen letters or more'", "bootstrap_expect = 2");
        assert_eq!(plan(&running, &more).unwrap().changed, ["cluster.bootstrap_expect"]);
        assert!(plan(&self::config(""), &more)
            .unwrap_err()
            .to_string()
            .contains("needs a cluster token"));
    }

    #[test]
    fn a_change_on_trial_is_confirmed_or_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        fs::write(directory.join(CONFIG), RUNNING).unwrap();
        let name = || read(directory).unwrap().1.cluster.name.to_string();
        let (one, two) = (config("[cluster]\nname = 'one'\n"), config("[cluster]\nname = 'two'\n"));
        begin(directory, &one, Some(100)).unwrap();
        assert_eq!((name(), pending(directory)), ("one".into(), Some(100)));
        assert!(begin(directory, &two, None).unwrap_err().contains("is on trial"));
        assert_eq!(settle(directory, 99), Ok(false));
        assert_eq!(settle(directory, 100), Ok(true));
        assert_eq!((name(), pending(directory)), ("lab".into(), None));
        assert_eq!(fs::read_to_string(directory.join(CONFIG)).unwrap(), RUNNING);
        begin(directory, &one, Some(200)).unwrap();
        assert_eq!(confirm(directory), Ok(true));
        assert_eq!((settle(directory, 1_000), name()), (Ok(false), "one".into()));
        assert_eq!(confirm(directory), Ok(false));
        begin(directory, &two, None).unwrap();
        assert_eq!((settle(directory, 1_000), name()), (Ok(false), "two".into()));
    }
}
