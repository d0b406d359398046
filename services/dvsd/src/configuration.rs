// SPDX-License-Identifier: MIT OR Apache-2.0
//! The part of the API that shows and changes the machine configuration.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use dvs_api::{
    ConfigChange, ConfigChanged, ConfigConfirmed, ConfigMode, MachineConfig, TRIAL_S_MAX,
};
use dvs_bootdisk::configuration::ConfigVolume;
use dvs_bootdisk::install::Machine;

use crate::api::{bad, Failure};
use crate::containers::blocking;
use crate::daemon::Handle;
use crate::openapi::Description;
use crate::trial::{self, Plan};

struct Configuration {
    daemon: Handle,
    /// Where PID 1 leaves what services need to know.
    directory: PathBuf,
    /// What the daemon was started with.
    running: Option<String>,
    /// Whose volumes keep a configuration over a reboot.
    machine: Machine,
}

/// The routes. `directory` is where PID 1 leaves what services need to know.
pub fn routes(daemon: Handle, machine: Machine, directory: PathBuf) -> Router {
    let running = trial::read(&directory).ok().map(|(text, _)| text);
    let configuration = Configuration { daemon, directory, running, machine };
    Router::new()
        .route("/v1/config", get(show).put(change))
        .route("/v1/config/confirm", post(confirm))
        .with_state(Arc::new(configuration))
}

/// Describes them.
pub fn describe(api: &mut Description) {
    let show = api.get("/v1/config", "The machine configuration of the answering node");
    show.answers::<MachineConfig>();
    let summary =
        "Change the machine configuration of the answering node, whose daemon is then started anew";
    api.put("/v1/config", summary).takes::<ConfigChange>().answers::<ConfigChanged>();
    let confirm = api.post("/v1/config/confirm", "Keep the change that is on trial");
    confirm.answers::<ConfigConfirmed>();
}

fn failed(text: String) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, text)
}

impl Configuration {
    fn node(&self) -> Option<u32> {
        self.daemon.snapshots.borrow().status.node
    }
}

impl Configuration {
    /// Writes a configuration to where this machine has it from when it starts; nothing changes before.
    async fn keep(&self, plan: Plan, dry_run: bool) -> Result<Json<ConfigChanged>, Failure> {
        let Plan { wanted, changed, at_boot, .. } = plan;
        let machine = self.machine.clone();
        let volume = blocking(move || ConfigVolume::of(&machine)).await.map_err(|why| {
            let text = format!(
                "this node keeps nothing over a reboot: {why}; change it where it boots from"
            );
            Failure(StatusCode::CONFLICT, text)
        })?;
        let device = volume.device().display().to_string();
        if !dry_run {
            let written = blocking(move || volume.write(&wanted.to_toml())).await;
            written.map_err(|error| failed(error.to_string()))?;
            println!("the next start has its configuration from {device}, which was changed");
        }
        let at_boot = [changed, at_boot].concat();
        let (changed, kept_on) = (Vec::new(), Some(device));
        Ok(Json(ConfigChanged { node: self.node(), changed, at_boot, trial_s: None, kept_on }))
    }
}

async fn show(State(state): State<Arc<Configuration>>) -> Result<Json<MachineConfig>, Failure> {
    let (text, mut config) = trial::read(&state.directory).map_err(failed)?;
    // Whoever may ask here may do everything but make others that may, so the token stays here.
    let join_token = config.cluster.join_token.take();
    if let Some(netboot) = &mut config.netboot {
        drop(netboot.append.take_if(|append| append.has_secret()));
    }
    let has_token = config.cluster.token.take().is_some() || join_token.is_some();
    let left = |until_s: u64| until_s.saturating_sub(trial::now_s());
    Ok(Json(MachineConfig {
        node: state.node(),
        toml: config.to_toml(),
        has_token,
        running: state.running.as_ref().is_some_and(|running| !trial::differs(running, &text)),
        trial_s: trial::pending(&state.directory).map(left),
    }))
}

async fn change(
    State(state): State<Arc<Configuration>>,
    body: Bytes,
) -> Result<Json<ConfigChanged>, Failure> {
    let ConfigChange { toml, mode, trial_s, dry_run } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("change of the configuration: {error}")))?;
    if !(5..=TRIAL_S_MAX).contains(&trial_s) {
        return Err(bad(format!("trial_s = {trial_s}: expected 5 to {TRIAL_S_MAX}")));
    }
    let conflict = |text: String| Failure(StatusCode::CONFLICT, text);
    let (_, running) = trial::read(&state.directory).map_err(failed)?;
    let plan = trial::plan(&running, &toml).map_err(|error| bad(error.to_string()))?;
    if mode == ConfigMode::Reboot {
        return state.keep(plan, dry_run).await;
    }
    let Plan { config, changed, at_boot, .. } = plan;
    let trial_s = (mode == ConfigMode::Try && !changed.is_empty()).then_some(trial_s);
    if !changed.is_empty() && !dry_run {
        let until_s = trial_s.map(|trial_s| trial::now_s() + trial_s);
        trial::begin(&state.directory, &config, until_s).map_err(conflict)?;
    }
    let kept_on = None;
    Ok(Json(ConfigChanged { node: state.node(), changed, at_boot, trial_s, kept_on }))
}

async fn confirm(
    State(state): State<Arc<Configuration>>,
) -> Result<Json<ConfigConfirmed>, Failure> {
    let confirmed = trial::confirm(&state.directory).map_err(failed)?;
    Ok(Json(ConfigConfirmed { node: state.node(), confirmed }))
}
