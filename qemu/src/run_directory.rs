// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where running virtual clusters are found: one directory per cluster, with its sockets and `cluster.json`.
//!
//! They are under `$XDG_RUNTIME_DIR/dvs`, or else `/tmp/dvs-<uid>`: short, because the path of a unix socket has at most 107
//! bytes, and closed to other users, because the machine configurations in them hold cluster tokens.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::accel::Accelerator;
use crate::error::{Error, Result};
use crate::front::Publish;
use crate::options::check_name;

/// Name of the first cluster that is given none; further ones are `dvs-2`, `dvs-3`…
const DEFAULT_NAME: &str = "dvs";
const UNNAMED_MAX: usize = 99;
/// Room for the longest file name in a run directory.
const SOCKET_NAME_MAX: usize = "/n255.console".len();
/// `sun_path` less the final NUL.
const SOCKET_PATH_MAX: usize = 107;
/// The environment variable that names the run directory to commands run by `--exec`.
pub const ENVIRONMENT: &str = "DVS_QEMU_RUN";

/// What is known about a running cluster without asking its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Name of the run directory.
    pub name: String,
    /// Process that owns the cluster.
    pub owner: u32,
    /// Seed of the faults.
    pub seed: u64,
    /// What runs the guests' instructions.
    pub accelerator: Accelerator,
    /// The nodes in order.
    pub nodes: Vec<NodeDescription>,
    /// Ports of the host that lead to them.
    #[serde(default)]
    pub published: Vec<Publish>,
}

/// What stays the same about a node however often it is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// MAC address of its cluster interface.
    pub mac: String,
    /// URL of its API.
    pub api: String,
    /// Address of its agent, if it has one.
    pub agent: Option<SocketAddr>,
    /// Log of its console.
    pub log: PathBuf,
    /// Process of its QEMU while it has one.
    pub pid: Option<u32>,
}

/// The directory in which run directories are. It need not exist.
pub fn root() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(runtime) if runtime.is_absolute() && runtime.is_dir() => runtime.join("dvs"),
        _ => {
            let uid = rustix::process::getuid().as_raw();
            std::env::temp_dir().join(format!("dvs-{uid}"))
        }
    }
}

/// A run directory that this process owns. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Held as long as we live, so that nobody else takes the directory for a leftover.
    _lock: File,
}

/// Takes the run directory `name` under `root`, or a free one. What a killed owner left in it is removed.
pub(crate) fn claim(root: &Path, name: Option<&str>) -> Result<Claim> {
    private_directory(root)?;
    if let Some(name) = name {
        check_name(name)?;
        return try_claim(root, name)?.ok_or_else(|| Error::NameTaken(name.to_owned()));
    }
    for name in unnamed() {
        if let Some(claim) = try_claim(root, &name)? {
            return Ok(claim);
        }
    }
    Err(Error::SeveralClusters(running(root)))
}

/// The names that are tried for clusters without one.
fn unnamed() -> impl Iterator<Item = String> {
    let further = (2..=UNNAMED_MAX).map(|n| format!("{DEFAULT_NAME}-{n}"));
    std::iter::once(DEFAULT_NAME.to_owned()).chain(further)
}

/// The run directory that a new cluster would get, without taking it.
pub fn preview(root: &Path, name: Option<&str>) -> PathBuf {
    let free = |name: &String| !is_running(&root.join(name));
    let name = name.map(str::to_owned).or_else(|| unnamed().find(free));
    root.join(name.unwrap_or_else(|| DEFAULT_NAME.to_owned()))
}

fn try_claim(root: &Path, name: &str) -> Result<Option<Claim>> {
    let path = root.join(name);
    if path.as_os_str().len() + SOCKET_NAME_MAX > SOCKET_PATH_MAX {
        return Err(Error::PathTooLong(path));
    }
    loop {
        private_directory(&path)?;
        let lock_path = path.join("lock");
        let lock = match File::options().create(true).append(true).open(&lock_path) {
            Ok(lock) => lock,
            // An owner that ends removes its directory under our hands.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("opening", lock_path)(error)),
        };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(Error::file("locking", lock_path)(error))
            }
        }
        // The lock counts only if it is still the one that others would find.
        let inode = |metadata: std::io::Result<fs::Metadata>| metadata.map(|m| m.ino()).ok();
        if inode(lock.metadata()) != inode(fs::metadata(&lock_path)) {
            continue;
        }
        clear(&path)?;
        return Ok(Some(Claim { name: name.to_owned(), path, _lock: lock }));
    }
}

impl Claim {
    pub(crate) fn control(&self) -> PathBuf {
        control_socket(&self.path)
    }

    /// Makes the description known, all at once.
    pub(crate) fn publish(&self, description: &Description) -> Result<()> {
        let path = self.path.join("cluster.json");
        let new = self.path.join("cluster.json.new");
        let text = serde_json::to_string_pretty(description)
            .map_err(Error::system("describing the cluster"))?;
        fs::write(&new, text + "\n").map_err(Error::file("writing", &new))?;
        fs::rename(&new, &path).map_err(Error::file("writing", &path))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The lock goes last, so that nobody claims the directory while it is being removed.
        let _ = clear(&self.path);
        let _ = fs::remove_file(self.path.join("lock"));
        let _ = fs::remove_dir(&self.path);
    }
}

/// Removes everything but the lock.
fn clear(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(Error::file("reading", path))? {
        let file = entry.map_err(Error::file("reading", path))?.path();
        if !file.ends_with("lock") {
            let removed = match file.is_dir() {
                true => fs::remove_dir_all(&file),
                false => fs::remove_file(&file),
            };
            removed.map_err(Error::file("removing", &file))?;
        }
    }
    Ok(())
}

/// Creates a directory for us alone, or makes sure that it is one.
fn private_directory(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(Error::file("creating", path)(error));
        }
        _ => {}
    }
    // Not following a link: in /tmp, somebody else may have put one there.
    let metadata = fs::symlink_metadata(path).map_err(Error::file("examining", path))?;
    let ours = metadata.uid() == rustix::process::getuid().as_raw();
    if !metadata.is_dir() || !ours || metadata.mode() & 0o077 != 0 {
        return Err(Error::NotOurs(path.to_owned()));
    }
    Ok(())
}

/// Where the owner of the cluster in `run` takes commands.
pub(crate) fn control_socket(run: &Path) -> PathBuf {
    run.join("control")
}

/// Whether somebody answers for the cluster.
fn is_running(run: &Path) -> bool {
    UnixStream::connect(control_socket(run)).is_ok()
}

/// The names of all running clusters.
pub fn running(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let running = entries.filter(|entry| is_running(&entry.path()));
    let mut names: Vec<_> =
        running.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Finds a running cluster: by name, else the one that [`ENVIRONMENT`] (given as `environment`) points at, else the only one.
pub fn find(root: &Path, name: Option<&str>, environment: Option<&Path>) -> Result<PathBuf> {
    let not_running =
        |name: &str| Error::NotRunning { name: name.to_owned(), running: running(root) };
    if let Some(name) = name {
        let run = root.join(name);
        return if is_running(&run) { Ok(run) } else { Err(not_running(name)) };
    }
    if let Some(run) = environment {
        let name = run.file_name().unwrap_or_default().to_string_lossy();
        return if is_running(run) { Ok(run.to_owned()) } else { Err(not_running(&name)) };
    }
    let names = running(root);
    match &names[..] {
        [] => Err(Error::NoCluster),
        [name] => Ok(root.join(name)),
        _ => Err(Error::SeveralClusters(names)),
    }
}

/// Reads what the owner has published.
pub fn describe(run: &Path) -> Result<Description> {
    let path = run.join("cluster.json");
    let text = fs::read_to_string(&path).map_err(Error::file("reading", &path))?;
    serde_json::from_str(&text).map_err(|error| Error::File {
        attempt: "reading",
        path,
        source: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    fn description(name: &str) -> Description {
        let node = |n: u16| NodeDescription {
            mac: format!("52:54:00:d5:00:0{n}"),
            api: format!("http://127.0.0.1:{}", 20000 + n),
            agent: (n > 0).then(|| ([127, 0, 0, 1], 21000 + n).into()),
            log: "/logs/node0.log".into(),
            pid: (n > 0).then_some(u32::from(n)),
        };
        Description {
            name: name.to_owned(),
            owner: 77,
            seed: u64::MAX,
            accelerator: Accelerator::Tcg,
            nodes: vec![node(0), node(1)],
            published: Vec::new(),
        }
    }

    fn private() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    #[test]
    fn a_description_is_read_back() {
        let root = private();
        let claim = claim(root.path(), Some("x")).unwrap();
        claim.publish(&description("x")).unwrap();
        assert_eq!(describe(&claim.path).unwrap(), description("x"));
    }

    #[test]
    fn a_name_is_taken_once_and_given_back() {
        let root = private();
        let first = claim(root.path(), None).unwrap();
        let second = claim(root.path(), None).unwrap();
        assert_eq!((first.name.as_str(), second.name.as_str()), ("dvs", "dvs-2"));
        assert!(matches!(claim(root.path(), Some("dvs")), Err(Error::NameTaken(_))));
        let path = first.path.clone();
        drop(first);
        assert!(!path.exists());
        assert_eq!(claim(root.path(), None).unwrap().name, "dvs");
    }

    #[test]
    fn leftovers_of_a_killed_owner_are_removed() {
        let root = private();
        let run = root.path().join("dvs");
        DirBuilder::new().mode(0o700).create(&run).unwrap();
        drop(UnixListener::bind(control_socket(&run)).unwrap());
        fs::write(run.join("cluster.json"), "{").unwrap();
        fs::write(run.join("lock"), "").unwrap();
        fs::create_dir_all(run.join("dvsctl/contexts")).unwrap();
        assert!(running(root.path()).is_empty());
        let claim = claim(root.path(), None).unwrap();
        assert_eq!(claim.path, run);
        assert_eq!(fs::read_dir(&run).unwrap().count(), 1);
    }

    #[test]
    fn the_cluster_meant_is_found() {
        let root = private();
        let find = |name, environment| find(root.path(), name, environment);
        assert!(matches!(find(None, None), Err(Error::NoCluster)));
        let one = claim(root.path(), None).unwrap();
        let _one = UnixListener::bind(one.control()).unwrap();
        assert_eq!(find(None, None).unwrap(), one.path);
        let two = claim(root.path(), Some("two")).unwrap();
        let _two = UnixListener::bind(two.control()).unwrap();
        assert!(
            matches!(find(None, None), Err(Error::SeveralClusters(names)) if names == ["dvs", "two"])
        );
        assert_eq!(find(Some("two"), Some(&one.path)).unwrap(), two.path);
        assert_eq!(find(None, Some(&one.path)).unwrap(), one.path);
        let error = find(Some("no"), None).unwrap_err().to_string();
        assert_eq!(error, "no virtual cluster named `no` is running (running: dvs, two)");
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let root = private();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(claim(root.path(), None), Err(Error::NotOurs(_))));
    }

    #[test]
    fn a_path_too_long_for_sockets_is_refused() {
        let root = private();
        let long = root.path().join("x".repeat(80));
        assert!(matches!(claim(&long, None), Err(Error::PathTooLong(_))));
    }
}
