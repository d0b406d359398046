// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where a container is on disk: a directory with its description, its state and its log. Nothing else is remembered of it, so
//! any process of the node can see to it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{flock, FlockOperation};
use serde::{Deserialize, Serialize};

use crate::fault::{refuse, Kind};
use crate::life::Life;
use crate::output::Paths;
use crate::spec::{check_name, Spec};

/// The directories of all containers are in this one.
const CONTAINERS: &str = "/run/dvs/containers";

/// What is known of a container besides its description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// How far it has come.
    pub(crate) phase: Phase,
    /// The process that looks after it.
    pub(crate) keeper: Life,
    /// Its first process.
    pub(crate) init: Option<Life>,
    /// What became of it.
    pub(crate) end: Option<End>,
}

/// How far a container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It is being made.
    Creating,
    /// It is there, and its command has not been started.
    Created,
    /// Its command runs.
    Running,
    /// Its first process has ended, and all others with it.
    Stopped,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// The exit status of its command, 128 and the signal's number if one ended it.
    pub status: i32,
    /// How many of its processes were killed for want of memory.
    pub out_of_memory: u64,
}

/// The directory of a container.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
}

/// Held while containers or images come and go, so that no two processes make or remove what they share.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it ends the lock")] OwnedFd);

impl Place {
    /// The place of the container `name`, which may not exist.
    ///
    /// # Errors
    /// When that cannot be a name.
    pub(crate) fn of(name: &str) -> Result<Self> {
        check_name("the container", name)?;
        Ok(Self { path: Path::new(CONTAINERS).join(name) })
    }

    /// The names of all containers.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub(crate) fn names() -> Result<Vec<String>> {
        let entries = match fs::read_dir(CONTAINERS) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("listing {CONTAINERS}")),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.with_context(|| format!("listing {CONTAINERS}"))?.file_name();
            names.extend(name.into_string().ok().filter(|name| check_name("it", name).is_ok()));
        }
        names.sort();
        Ok(names)
    }

    /// Waits for its turn.
    ///
    /// # Errors
    /// When the lock's file cannot be made.
    pub(crate) fn lock() -> Result<Lock> {
        lock(Path::new(CONTAINERS))
    }

    /// Makes the place with the container's description.
    ///
    /// # Errors
    /// When there is a container of this name.
    pub(crate) fn create(&self, spec: &Spec) -> Result<()> {
        directory(Path::new(CONTAINERS))?;
        // Root of the container goes through it, once, on its way to its own root.
        match fs::DirBuilder::new().mode(0o711).create(&self.path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => refuse(
                Kind::Exists,
                format!(
                    "creating the container {}: there is one of this name; delete it first",
                    spec.name
                ),
            ),
            other => other.with_context(|| format!("creating {}", self.path.display())),
        }?;
        fs::create_dir(self.stage())
            .with_context(|| format!("creating {}", self.stage().display()))?;
        self.set_spec(spec)
    }

    /// Writes down what it is to be.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn set_spec(&self, spec: &Spec) -> Result<()> {
        let text = serde_json::to_string(spec).context("writing down a container")?;
        self.write("spec.json", &text)
    }

    /// Where the root file system is put together, in a mount namespace that ends with it.
    pub(crate) fn stage(&self) -> PathBuf {
        self.path.join("root")
    }

    /// The socket by which the keeper is asked.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("keeper")
    }

    /// The log of what the command has written.
    pub(crate) fn log(&self) -> Paths {
        let path = |name| self.path.join(name);
        Paths { current: path("log"), old: path("log.old"), begins: path("log.begins") }
    }

    /// The container's description.
    ///
    /// # Errors
    /// When there is no such container.
    pub(crate) fn spec(&self) -> Result<Spec> {
        Spec::parse(&self.read("spec.json")?)
    }

    /// What is known of it.
    ///
    /// # Errors
    /// When there is no such container.
    pub(crate) fn record(&self) -> Result<Record> {
        let text = self.read("record.json")?;
        serde_json::from_str(&text)
            .with_context(|| format!("reading the record in {}", self.path.display()))
    }

    /// Writes down what is known of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn set_record(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string(record).context("writing down a container's state")?;
        self.write("record.json", &text)
    }

    /// Removes it with all that is in it.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let name = self.path.file_name().unwrap_or_default();
                let name = name.display();
                refuse(
                    Kind::NotFound,
                    format!("looking for the container {name}: this node has none of this name"),
                )
            }
            other => other.with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Readers find the old text or the new one, and nothing in between.
    fn write(&self, file: &str, text: &str) -> Result<()> {
        let (path, partial) = (self.path.join(file), self.path.join(format!("{file}.partial")));
        let write = || {
            let mut file = File::options()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&partial, &path)
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

/// Waits for its turn in a directory, which is made if there is none.
///
/// # Errors
/// When the lock's file cannot be made.
pub(crate) fn lock(path: &Path) -> Result<Lock> {
    directory(path)?;
    let path = path.join(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive)
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(Lock(file.into()))
}

/// Makes a directory that everybody may pass through, with what is above it.
pub(crate) fn directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .with_context(|| format!("creating {}", path.display()))
}
