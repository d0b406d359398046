// SPDX-License-Identifier: MIT OR Apache-2.0
//! Does what the menu of a screen asks for, by asking the node.

use dvs_api::{
    ConfigChange, ConfigChanged, ConfigMode, DiskListed, InstallRequest, Installed, MachineConfig,
    PowerAction, PowerAnswer, PowerRequest, TRIAL_S_MAX,
};
use dvs_console::{Action, Outcome};
use rustix::process::{kill_process, Pid, Signal};

use crate::cluster::{Cluster, Error};

/// What came of an action, which may take as long as it takes.
pub(super) fn done(node: &Cluster, action: &Action) -> Outcome {
    match action {
        Action::Restart { force } => power(node, PowerAction::Reboot, *force),
        Action::ShutDown { force } => power(node, PowerAction::Shutdown, *force),
        Action::ListDisks => {
            let disks = node.any::<Vec<DiskListed>>("/v1/boot/disks");
            Outcome::Disks(disks.map_err(|error| plain(&error)))
        }
        Action::Install { disk, wipe } => {
            let request = InstallRequest { disk: disk.clone(), wipe: *wipe };
            let installed = node.first(|it| it.post::<Installed>("/v1/boot/disk", &request));
            let installed = installed.map(|installed| installed.disk);
            Outcome::Installed(installed.map_err(|error| plain(&error)))
        }
        Action::ReadConfig => {
            let config = node.any::<MachineConfig>("/v1/config");
            let config = config.map(|config| (config.toml, config.has_token));
            Outcome::Config(config.map_err(|error| plain(&error)))
        }
        Action::Keep { toml } => {
            let kept = change(node, toml, ConfigMode::Reboot).and_then(|changed| {
                changed.kept_on.ok_or_else(|| "the node does not say where it keeps it".into())
            });
            Outcome::Kept(kept.map_err(|why| (why, toml.clone())))
        }
        Action::Apply { toml } => {
            let changed = change(node, toml, ConfigMode::Now);
            Outcome::Applied(changed.map(|changed| [changed.changed, changed.at_boot]))
        }
        // The screen itself does so.
        Action::Leave => Outcome::Power(Ok(())),
    }
}

/// Has the node take another configuration.
fn change(node: &Cluster, toml: &str, mode: ConfigMode) -> Result<ConfigChanged, String> {
    let trial_s = TRIAL_S_MAX;
    let change = ConfigChange { toml: toml.to_owned(), mode, trial_s, dry_run: false };
    let changed = node.first(|it| it.put::<ConfigChanged>("/v1/config", &change));
    changed.map_err(|error| plain(&error))
}

/// Has the machine go down: by the daemon, which tells the others, or, if that cannot or does not want to, by PID 1.
fn power(node: &Cluster, action: PowerAction, force: bool) -> Outcome {
    let request = PowerRequest { action, force };
    let why = match node.first(|it| it.post::<PowerAnswer>("/v1/power", &request)) {
        Ok(PowerAnswer { .. }) => return Outcome::Power(Ok(())),
        Err(error) => plain(&error),
    };
    if !force {
        return Outcome::Power(Err((why, true)));
    }
    let signal = match action {
        PowerAction::Reboot => Signal::TERM,
        PowerAction::Shutdown => Signal::USR2,
    };
    let asked = kill_process(Pid::INIT, signal);
    Outcome::Power(asked.map_err(|error| (format!("{why}; ask PID 1: {error}"), false)))
}

/// An error without what whoever sits in front of the machine knows: which node is asked.
fn plain(error: &Error) -> String {
    match error {
        Error::Refused { text, .. } => text.clone(),
        error => error.to_string(),
    }
}
