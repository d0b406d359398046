// SPDX-License-Identifier: MIT OR Apache-2.0
//! Places that are open.

use anyhow::{ensure, Context, Result};
use core::time::Duration;
use dvk::{Endpoint, GrantId, Granted, Port, Slot, Timeout};
use mol_bench::{Place, Server, Work};
use mol_fs::client::{File, Files};
use mol_fs::run::Servers;
use mol_protocol::file::{OPEN_READ, OPEN_WRITE};
use mol_protocol::{block, Errno};
use mol_vdd::client::{Disk, Finder};
use mol_vdd::run::ByGroup;
use rustix::fs::OFlags;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

/// How long nobody may answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place to read or write.
pub(crate) trait Handle {
    /// Reads all that there is memory for.
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<()>;

    /// Writes all of it.
    fn write(&mut self, position: u64, from: &[u8]) -> Result<()>;

    /// Has what was written on stable storage.
    fn settle(&mut self) -> Result<()>;
}

/// Opens a place and does something there.
///
/// # Errors
/// When it cannot be opened, and those of the work.
pub(crate) fn within(
    dvk: &Path,
    place: &Place,
    work: Work,
    then: impl FnOnce(&mut dyn Handle) -> Result<()>,
) -> Result<()> {
    let port = || Port::open(dvk, Slot::Any).with_context(|| format!("opening {}", dvk.display()));
    match place {
        Place::Disk(server) => {
            let port = port()?;
            let finder: Box<dyn Finder> = match server {
                Server::At(endpoint) => {
                    Box::new(At { endpoint: Endpoint::from_raw(*endpoint), began: Instant::now() })
                }
                Server::Group(group) => Box::new(ByGroup::new(dvk, group, 0)?),
            };
            let flags = if work == Work::Write { block::OPEN_WRITE } else { 0 };
            let mut disk = Disk::open(&port, finder, 0, flags, PATIENCE)?;
            let done = then(&mut disk);
            disk.close();
            done
        }
        Place::File { server, path } => {
            let port = port()?;
            let server = match server {
                Server::At(endpoint) => Endpoint::from_raw(*endpoint),
                Server::Group(group) => Servers::Group(group.clone()).find(&port, PATIENCE)?,
            };
            let files = Files::new(&port, server, 0, 0);
            let mut file = open(&files, path, work)?;
            then(&mut file)
        }
        Place::Lent { endpoint, grant } => {
            let endpoint = Endpoint::from_raw(*endpoint);
            then(&mut Lent { port: port()?, grant: GrantId::from_raw(*grant), endpoint })
        }
        Place::Path { path, direct } => {
            if let (Work::Write, Some(folder)) = (work, path.parent()) {
                let made = std::fs::create_dir_all(folder);
                made.with_context(|| format!("making {}", folder.display()))?;
            }
            let mut options = OpenOptions::new();
            options.read(true).write(work == Work::Write).create(work == Work::Write);
            if *direct {
                options.custom_flags(OFlags::DIRECT.bits().cast_signed());
            }
            let file = options.open(path);
            then(&mut file.with_context(|| format!("opening {}", path.display()))?)
        }
        Place::Web(url) => {
            ensure!(work == Work::Read, "writing to {url}: a web server takes nothing");
            then(&mut Body { url, from: None, position: 0 })
        }
    }
}

/// A disk server that is known.
struct At {
    endpoint: Endpoint,
    began: Instant,
}

impl Finder for At {
    fn find(&self) -> Option<Endpoint> {
        Some(self.endpoint)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl<F: Finder> Handle for Disk<'_, Port, F> {
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<()> {
        Ok(Disk::read(self, position, into)?)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<()> {
        Ok(Disk::write(self, position, from, false)?)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.flush()?)
    }
}

/// Opens a file of a file server, and makes one that is written and missing.
fn open<'f>(files: &'f Files<'f, Port>, path: &str, work: Work) -> Result<File<'f, Port>> {
    if work == Work::Read {
        return Ok(files.follow("", path.as_bytes())?.open(OPEN_READ)?);
    }
    let (above, name) = files.parent("", path.as_bytes())?;
    match above.create(name, 0o644, OPEN_WRITE) {
        Err(error) if error.errno == Some(Errno::Exists) => {
            Ok(files.follow("", path.as_bytes())?.open(OPEN_WRITE)?)
        }
        made => Ok(made?),
    }
}

impl Handle for File<'_, Port> {
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<()> {
        let count = File::read(self, position, into)?;
        ensure!(count == into.len(), "the file ends after {count} of {} bytes", into.len());
        Ok(())
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<()> {
        Ok(File::write(self, position, from)?)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.sync()?)
    }
}

/// Memory of a program on another node.
struct Lent {
    port: Port,
    endpoint: Endpoint,
    grant: GrantId,
}

impl Lent {
    fn from(&self, position: u64) -> Granted {
        self.grant.of(self.endpoint, position)
    }
}

impl Handle for Lent {
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<()> {
        Ok(self.port.copy_from(self.from(position), into, Timeout::After(PATIENCE))?)
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<()> {
        Ok(self.port.copy_to(self.from(position), from, Timeout::After(PATIENCE))?)
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Handle for std::fs::File {
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<()> {
        self.read_exact_at(into, position).context("reading")
    }

    fn write(&mut self, position: u64, from: &[u8]) -> Result<()> {
        self.write_all_at(from, position).context("writing")
    }

    fn settle(&mut self) -> Result<()> {
        Ok(self.sync_data()?)
    }
}

/// What a web server answers, which is read from its beginning to its end. It is asked when the first byte is read.
struct Body<'u> {
    url: &'u str,
    from: Option<Box<dyn Read>>,
    position: u64,
}

impl Handle for Body<'_> {
    fn read(&mut self, position: u64, into: &mut [u8]) -> Result<()> {
        ensure!(position == self.position, "a body is read from its beginning, by one thread");
        let from = match &mut self.from {
            Some(from) => from,
            none => {
                let answer = ureq::get(self.url).call();
                let answer = answer.with_context(|| format!("asking for {}", self.url))?;
                none.insert(Box::new(answer.into_body().into_reader()))
            }
        };
        from.read_exact(into).context("reading the body")?;
        self.position += into.len() as u64;
        Ok(())
    }

    fn write(&mut self, _position: u64, _from: &[u8]) -> Result<()> {
        anyhow::bail!("a web server takes nothing")
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_in_order() {
        let mut body = Body { url: "", from: Some(Box::new(&b"abcdef"[..])), position: 0 };
        let mut into = [0; 3];
        body.read(0, &mut into).unwrap();
        assert_eq!(&into, b"abc");
        assert!(body.read(0, &mut into).is_err(), "it is not there any more");
        body.read(3, &mut into).unwrap();
        assert_eq!(&into, b"def");
        assert!(body.read(6, &mut into).is_err(), "there is no more");
    }

    #[test]
    fn nothing_is_written_to_a_web_server() {
        let place = Place::Web("http://127.0.0.1:9/".into());
        let error = within(Path::new("/dev/dvk"), &place, Work::Write, |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), "writing to http://127.0.0.1:9/: a web server takes nothing");
    }
}
