// SPDX-License-Identifier: MIT OR Apache-2.0
//! The node daemon: reads what PID 1 left for it and runs until it is told to stop.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use crate::containers::{Containers, Runtime};
use crate::daemon::{Daemon, Handle, Surroundings};
use crate::doors::Doors;
use crate::images::Images;
use crate::kernel::{Dvk, Kernel};
use crate::links::Links;
use crate::netboot::{Netboot, ThisMachine};
use crate::peers::Peers;
use crate::proxies::Processes;
use crate::segment::macsec::Macsec;
use crate::services::Services;
use crate::settings::Settings;
use crate::status::StatusFile;
use crate::tipc::Tipc;
use crate::upgrades::boot::{Boot, Kexec, Slots};
use crate::upgrades::{Upgrades, KEYS};
use crate::{admission, api, boot, multicast, orphans, power, relay, release, trial};
use dvs_api::{Status, StatusState};
use dvs_authority::Authority;
use dvs_secret::ClusterSecret;
use tokio::signal::unix::{signal, SignalKind};

const USAGE: &str = "usage: dvsd [--run-directory DIR]  (default /run/dvs)";
/// Where PID 1 leaves what the services need to know.
const RUN_DIRECTORY: &str = "/run/dvs";
/// The program that carries a link over TCP, UDP or QUIC.
const PROXY: &str = "dvs-proxy";

/// The program: does what its arguments say.
pub fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let directory = match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (None, ..) => PathBuf::from(RUN_DIRECTORY),
        (Some("--run-directory"), Some(directory), None) => PathBuf::from(directory),
        (Some("--version"), None, _) => {
            println!("dvsd {}", release::own());
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(run(&directory));
            // A ping may still block its thread; it must not keep the process.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(format!("start the runtime: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            let status = Status {
                node: None,
                name: None,
                cluster: String::new(),
                state: StatusState::Failed,
                detail: error,
                members: 0,
                ready: 0,
                addresses: Vec::new(),
                version: release::own().into(),
            };
            if let Err(error) = StatusFile::new(&directory).write(&status) {
                println!("error: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(directory: &Path) -> Result<(), String> {
    if trial::settle(directory, trial::now_s())? {
        println!("the change of the configuration was not confirmed, and is taken back");
    }
    let mut settings = Settings::read(directory)?;
    let interfaces = match settings.token.is_some() || settings.join_token.is_some() {
        true => settings.interfaces.as_slice(),
        // Nothing could be authenticated.
        false => &[],
    };
    let mut network = multicast::start(interfaces)?;
    let random = || getrandom::u64().map_err(|error| format!("entropy: {error}"));
    if let Some(token) = settings.join_token.clone() {
        let mut file = StatusFile::new(directory);
        let token = admission::apply(&settings, &token, random()?, &mut network, &mut file);
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|error| format!("watch for SIGTERM: {error}"))?;
        let token = tokio::select! {
            token = token => token?,
            _ = terminate.recv() => return Ok(()),
        };
        println!("the cluster has let this machine in");
        trial::admit(directory, token)?;
        // Where the API is reached follows from it, too.
        settings = Settings::read(directory)?;
    }
    let (configured, _) = trial::read(directory)?;
    orphans::end(PROXY);
    // It looks there by itself where it is not told otherwise.
    let arguments = match directory == Path::new(RUN_DIRECTORY) {
        true => Vec::new(),
        false => vec!["--config".to_owned(), directory.display().to_string()],
    };
    let proxies = Processes::new(PROXY.into(), arguments);
    let surroundings = Surroundings {
        open_kernel: Box::new(|| Dvk::open().map(|dvk| Arc::new(dvk) as Arc<dyn Kernel>)),
        link_local: Box::new(multicast::link_local),
        links: Links::new(Box::new(proxies), Box::new(Tipc::default())),
        status: StatusFile::new(directory),
        reach: Arc::new(SocketAddr::V6),
        power: Box::new(power::change),
        devices: Box::new(|| Box::new(Macsec::default())),
    };
    let authority = authority(&settings)?;
    let doors = Doors::new(&settings, directory.join("api.sock"), authority.clone());
    let release = settings.release.clone();
    let address = settings.api.ip();
    let reach = Arc::clone(&surroundings.reach);
    let (daemon, handle) = Daemon::new(settings, random()?, surroundings);
    let peers = Peers::new(handle.agreement.clone(), authority, reach);
    // The others can do something with this node before anybody can ask it: it is heard while its API is still being put together.
    let daemon = tokio::spawn(daemon.run(network));
    let (own, shared) = (handle.clone(), directory.to_owned());
    // A panic in there ends the program, as any does.
    drop(tokio::task::spawn_blocking(move || {
        serve(own, &shared, doors, peers, address, release);
    }));
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|error| format!("watch for SIGTERM: {error}"))?;
    let asked = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
            () = trial::changed(directory, &configured) => {}
        }
        handle.leave().await;
    };
    tokio::select! {
        result = daemon => result.unwrap_or_else(|error| Err(format!("the daemon ended: {error}"))),
        () = asked => Ok(()),
    }
}

/// What vouches for the nodes of the cluster; `None` without a token.
fn authority(settings: &Settings) -> Result<Option<Arc<Authority>>, String> {
    let derive = |token| Authority::derived(&ClusterSecret::new(token), &settings.cluster);
    let authority = settings.token.as_ref().map(derive).transpose();
    let authority = authority.map_err(|error| format!("the cluster's authority: {error:#}"))?;
    Ok(authority.map(Arc::new))
}

/// Starts what follows the daemon, and answers those who ask for it.
fn serve(
    handle: Handle,
    directory: &Path,
    doors: Doors,
    peers: Peers,
    address: IpAddr,
    release: String,
) {
    let snapshots = handle.snapshots.clone();
    let runtime: Arc<dyn Runtime> = Arc::new(dvs_runtime::Runtime::default());
    let archives = directory.join("archives");
    let images = Images::new(handle.clone(), peers.clone(), Arc::clone(&runtime), archives);
    let states = images.states();
    let containers = Containers::new(handle.clone(), Arc::clone(&runtime), states, address);
    tokio::spawn(containers.run());
    tokio::spawn(Services::new(handle.clone()).run());
    let boot = boot::Boot::of_this_machine();
    let way: Arc<dyn Boot> = match &boot.disk {
        Ok(disk) => {
            tokio::spawn(boot::watch(Arc::clone(disk), directory.to_owned(), handle.clone()));
            Arc::new(Slots::new(Arc::clone(disk)))
        }
        Err(_) => Arc::new(Kexec::new(directory)),
    };
    let upgrades = Upgrades::new(handle.clone(), images.store(), way, KEYS.into(), release);
    let machine = Arc::new(ThisMachine::new(boot.disk.clone(), directory));
    let netboot = Netboot::new(directory, machine, handle.journal.clone());
    tokio::spawn(netboot.clone().run());
    let (own, shared) = (handle.clone(), directory.to_owned());
    let router = api::router(own, shared, runtime, &images, boot, &upgrades, netboot);
    tokio::spawn(upgrades.run());
    tokio::spawn(images.run());
    doors.open(&relay::relaying(router, handle, peers), &snapshots);
}
