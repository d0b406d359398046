// SPDX-License-Identifier: MIT OR Apache-2.0
//! `--demo`: something that runs on the cluster and can be looked at from the host.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use clap::ValueEnum;
use dvs_qemu::access;
use dvs_qemu::front::Publish;
use dvs_qemu::machine::Memory;

use super::signals::Signals;
use crate::fetch;
use crate::image;
use crate::manifest::Manifest;
use crate::step::{Session, Step};

/// Where the checkout has what the demonstrations consist of.
const FOLDER: &str = "vos/mol/demo";
/// Which servers there are, in that folder; the URL is put before it.
const MANIFEST: &str = "web.toml";
/// The container, and the image.
const CONTAINER: &str = "web";
const IMAGE: &str = "mol";
/// What runs the servers.
const SUPERVISOR: &str = "/bin/mol-rs";
/// Each node's share of the container: a replica of the disk, the servers, and what they keep in memory.
const CONTAINER_MEMORY: &str = "256M";
/// For that, the image, and the node itself.
const NODE_MEMORY: Memory = Memory { mib: 512 };
/// As many as the disk has replicas; these are on the first ones.
const NODES_MIN: usize = 2;
/// Where the nodes have the site if nothing else is said, and the host as well.
const PORT: u16 = 8080;
/// How long the container, and then its servers, may take on a host that translates.
const PATIENCE_S: &str = "300";
/// How long the site may take to answer when all runs, and a try of it. Signals are looked at between tries.
const ANSWER: Duration = Duration::from_secs(60);
const TRY: Duration = Duration::from_secs(10);

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Demo {
    /// A web site on the virtual OS MoL: a web server on each node, one file server, a disk with replicas
    Web,
}

/// A demonstration whose image has been made.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    session: &'a Session,
    archive: PathBuf,
}

/// The ports that are published for a demonstration: those that were chosen, or one.
pub(super) fn published(demo: Option<Demo>, chosen: &[Publish]) -> Vec<Publish> {
    match (demo, chosen) {
        (Some(Demo::Web), []) => vec![Publish { port: PORT, guest: PORT }],
        _ => chosen.to_vec(),
    }
}

/// The memory of a node that has a demonstration on it.
pub(super) fn memory(demo: Option<Demo>, otherwise: Memory) -> Memory {
    match demo {
        Some(Demo::Web) if otherwise.mib < NODE_MEMORY.mib => NODE_MEMORY,
        _ => otherwise,
    }
}

/// Refuses clusters that are too small for it.
pub(super) fn check(demo: Option<Demo>, nodes: usize) -> Result<()> {
    if demo.is_some() && nodes < NODES_MIN {
        bail!("--demo web takes {NODES_MIN} nodes at least: its disk has a replica on each of the first {NODES_MIN}");
    }
    Ok(())
}

impl Demo {
    /// Makes what is needed before the cluster is there.
    ///
    /// # Errors
    /// When the image cannot be made, or lacks a program.
    pub(super) fn prepare(self, session: &Session) -> Result<Prepared<'_>> {
        let Self::Web = self;
        check_programs(&session.workspace.root)?;
        Ok(Prepared { session, archive: image::mol(session)? })
    }
}

impl Prepared<'_> {
    /// Sets it up on a cluster that is ready, whose run directory is `run`; returns the URL when that answers.
    ///
    /// # Errors
    /// When a step fails, the log of the steps is named then; when a signal asks to end.
    pub(super) fn set_up(
        &self,
        run: &Path,
        tools: &Path,
        nodes: usize,
        publish: Publish,
        signals: &Signals,
    ) -> Result<String> {
        let folder = self.session.workspace.root.join(FOLDER);
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (page, fill) = (read("index.html")?, read("fill.sh")?);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, publish.port));
        let url = format!("http://{address}/");
        let manifest = run.join(MANIFEST);
        let text = format!("url = \"{url}\"\n{}", read(MANIFEST)?);
        fs::write(&manifest, text).with_context(|| format!("writing {}", manifest.display()))?;
        let mut step = self.session.begin("demo", "importing the image of MoL")?;
        let mut dvsctl = |doing: &str, words: &[&str]| {
            step.now(doing);
            let mut command = Command::new(tools.join("dvsctl"));
            access::reach(command.args(words), run, None);
            step.watch(&mut command, |line| Some(line.to_owned()))
        };
        let archive = self.archive.display().to_string();
        dvsctl("importing the image of MoL", &["image", "import", &archive, "--name", IMAGE])?;
        let words = vos_run(&manifest, nodes, publish);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        dvsctl("starting MoL's servers", &words)?;
        let words = ["dc", "exec", CONTAINER, "--", "/bin/sh", "-c", &fill, "fill", &page];
        dvsctl("writing the site", &words)?;
        await_answer(&mut step, address, signals)?;
        step.finish(&format!("the site answers at {url}"));
        Ok(url)
    }
}

/// Sees to it that the programs that are to be run are in the image: their absence would show only as servers that do not start.
fn check_programs(root: &Path) -> Result<()> {
    let path = root.join(FOLDER).join(MANIFEST);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let servers: toml::Table =
        toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let servers = servers.get("server").and_then(toml::Value::as_array).into_iter().flatten();
    let programs = servers.filter_map(|it| it.get("command")?.get(0)?.as_str());
    let manifest = Manifest::read(root)?;
    for program in programs.chain([SUPERVISOR]) {
        ensure!(
            manifest.mol.has_program(program),
            "{} needs {program}, which is not in the image of MoL; add it to the programs of [mol] in rootfs/manifest.toml",
            path.display()
        );
    }
    Ok(())
}

/// The words by which `dvsctl` runs the servers.
fn vos_run(manifest: &Path, nodes: usize, publish: Publish) -> Vec<String> {
    let manifest = manifest.display().to_string();
    let nodes = format!("0-{}", nodes - 1);
    let ports = format!("{}:80", publish.guest);
    let words = ["vos", "run", IMAGE, "--dc", CONTAINER, "--nodes", &nodes, "--image", IMAGE];
    let more = ["--manifest", &manifest, "--publish", &ports, "--memory", CONTAINER_MEMORY];
    let last = ["--timeout", PATIENCE_S];
    words.iter().chain(&more).chain(&last).map(|word| (*word).to_owned()).collect()
}

fn await_answer(step: &mut Step, server: SocketAddr, signals: &Signals) -> Result<()> {
    step.now("waiting for the site to answer");
    let deadline = Instant::now() + ANSWER;
    loop {
        let why = match fetch::get(server, "/", 0, TRY, |_| {}) {
            Ok(answer) if answer.status == 200 && answer.is_whole => return Ok(()),
            Ok(answer) => format!("status {}", answer.status),
            Err(error) => error.to_string(),
        };
        if signals.seen().is_some() || Instant::now() >= deadline {
            bail!("asking http://{server}/ for its first page: {why}; `dvsctl vos show --dc {CONTAINER}` tells which servers run");
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(FOLDER)
    }

    #[test]
    fn a_port_is_published_unless_one_was_chosen() {
        let chosen = [Publish { port: 9000, guest: 80 }];
        assert_eq!(published(Some(Demo::Web), &chosen), chosen);
        assert_eq!(published(Some(Demo::Web), &[]), [Publish { port: 8080, guest: 8080 }]);
        assert_eq!(published(None, &[]), []);
    }

    #[test]
    fn nodes_have_the_memory_that_it_takes() {
        assert_eq!(memory(None, Memory { mib: 128 }).mib, 128);
        assert_eq!(memory(Some(Demo::Web), Memory { mib: 128 }).mib, 512);
        assert_eq!(memory(Some(Demo::Web), Memory { mib: 1024 }).mib, 1024);
    }

    #[test]
    fn one_node_is_too_few() {
        assert!(check(None, 1).is_ok() && check(Some(Demo::Web), 2).is_ok());
        let error = check(Some(Demo::Web), 1).unwrap_err().to_string();
        assert!(error.contains("takes 2 nodes at least"), "{error}");
    }

    #[test]
    fn the_container_has_the_guest_port_lead_to_the_web_server() {
        let words = vos_run(Path::new("/x"), 3, Publish { port: 9000, guest: 8081 }).join(" ");
        assert!(
            words.contains(" --nodes 0-2 ") && words.contains(" --publish 8081:80 "),
            "{words}"
        );
    }

    /// What the manifest names must be there: programs in the image, and servers before others.
    #[test]
    fn the_manifest_names_what_there_is() {
        let read = |path: PathBuf| -> toml::Table {
            toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
        };
        let manifest = read(folder().join("web.toml"));
        let servers = manifest["server"].as_array().unwrap();
        let names: Vec<_> = servers.iter().map(|it| it["name"].as_str().unwrap()).collect();
        for server in servers {
            let program = server["command"][0].as_str().unwrap();
            assert!(program.starts_with("/bin/mol-"), "{program}");
            let after = server.get("after").and_then(|it| it.as_array()).into_iter().flatten();
            for other in after {
                assert!(names.contains(&other.as_str().unwrap()), "{other}");
            }
        }
        assert_eq!(names, ["disk-0", "disk-1", "files", "web"]);
    }

    #[test]
    fn a_program_that_is_not_in_the_image_is_named() {
        let root = tempfile::tempdir().unwrap();
        let check = |mol: &str| {
            let demo = root.path().join(FOLDER);
            fs::create_dir_all(&demo).unwrap();
            fs::copy(folder().join("web.toml"), demo.join("web.toml")).unwrap();
            fs::create_dir_all(root.path().join("rootfs")).unwrap();
            let programs = mol.split(' ').map(|name| {
                format!("{{ path = \"/bin/{name}\", package = \"{name}\", binary = \"{name}\" }},")
            });
            let text =
                format!("[node]\n[test]\n[mol]\nprograms = [{}]\n", programs.collect::<String>());
            fs::write(root.path().join("rootfs/manifest.toml"), text).unwrap();
            check_programs(root.path())
        };
        check("mol-fs mol-rs mol-vdd mol-web").unwrap();
        for (programs, missing) in
            [("mol-fs mol-rs mol-vdd", "/bin/mol-web"), ("mol-fs mol-vdd mol-web", "/bin/mol-rs")]
        {
            let error = check(programs).unwrap_err().to_string();
            assert!(
                error.contains(&format!("needs {missing}, which is not in the image")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_shell_understands_the_script() {
        let checked = Command::new("sh").arg("-n").arg(folder().join("fill.sh")).status().unwrap();
        assert!(checked.success());
    }
}
