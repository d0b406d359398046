// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file on a state partition, written by a thread of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::Mutex;

use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::de::DeserializeOwned;
use serde::Serialize;

use super::{Change, Content, Disk, Done, Owner, StoredSnapshot};

/// Single values by name.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// Entries by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Pieces of the snapshot by number.
const SNAPSHOT: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("snapshot");

/// The form of what is in the tables.
const FORMAT: u16 = 1;
/// Bytes of a piece: large values make the file grow in large steps.
const PIECE_BYTES: usize = 256 * 1024;
/// Most changes that are made safe by one flush.
const BATCH_MAX: usize = 256;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read or written.
    #[error("opening the consensus state in {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the database says.
        source: Box<redb::Error>,
    },
    /// It is of a later release.
    #[error("the consensus state in {path} has format {format}, and this release knows up to {FORMAT}; update the node, or remove the file to join as a new member")]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u16,
    },
    /// It is not what this program writes.
    #[error("the consensus state in {path} is damaged: {what} cannot be decoded; remove the file to join as a new member")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What of it.
        what: &'static str,
    },
    /// The thread that writes it cannot be started.
    #[error("starting the thread that writes the consensus state in {path}: {source}")]
    Thread {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The file. When it is dropped, what was given to it is written before the thread ends.
#[derive(Debug)]
pub struct FileDisk {
    queue: Mutex<Option<Sender<(Change, Done)>>>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl FileDisk {
    /// Opens the file, or makes it for the owner that `new_owner` tells.
    ///
    /// # Errors
    /// [`OpenError`]. A damaged file is never repaired by guessing: a member that has forgotten a vote must not vote again.
    pub fn open(
        path: &Path,
        new_owner: impl FnOnce() -> Owner,
    ) -> Result<(Self, Owner, Content), OpenError> {
        let io = |source: redb::Error| OpenError::Io { path: path.into(), source: source.into() };
        let database = Database::create(path).map_err(|error| io(error.into()))?;
        prepare(&database).map_err(io)?;
        let (owner, content) = match read(&database) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let owner = new_owner();
                write_owner(&database, owner).map_err(io)?;
                (owner, Content::default())
            }
            Err(ReadError::Database(error)) => return Err(io(error)),
            Err(ReadError::TooNew(format)) => {
                return Err(OpenError::TooNew { path: path.into(), format });
            }
            Err(ReadError::Damaged(what)) => {
                return Err(OpenError::Damaged { path: path.into(), what });
            }
        };
        let (queue, changes) = std::sync::mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("consensus-disk".into())
            .spawn(move || write_all(&database, &changes))
            .map_err(|source| OpenError::Thread { path: path.into(), source })?;
        let disk = Self { queue: Mutex::new(Some(queue)), writer: Mutex::new(Some(writer)) };
        Ok((disk, owner, content))
    }
}

impl Disk for FileDisk {
    fn write(&self, change: Change, done: Done) {
        let queue = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let refused = match &*queue {
            Some(queue) => queue.send((change, done)).map_err(|refused| refused.0 .1).err(),
            None => Some(done),
        };
        if let Some(done) = refused {
            done(Err(io::Error::other("the thread that writes the consensus state has ended")));
        }
    }
}

impl Drop for FileDisk {
    fn drop(&mut self) {
        drop(self.queue.lock().map(|mut queue| queue.take()));
        let writer = self.writer.lock().ok().and_then(|mut writer| writer.take());
        // A writer that panicked has told those who wait by dropping what they gave it.
        drop(writer.map(std::thread::JoinHandle::join));
    }
}

enum ReadError {
    Database(redb::Error),
    TooNew(u16),
    Damaged(&'static str),
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(VALUES)?;
    transaction.open_table(LOG)?;
    transaction.open_table(SNAPSHOT)?;
    transaction.commit()?;
    Ok(())
}

fn write_owner(database: &Database, owner: Owner) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    put(&transaction, "format", &FORMAT)?;
    put(&transaction, "owner", &owner)?;
    transaction.commit()?;
    Ok(())
}

/// What is in the file; `None` if it is new.
fn read(database: &Database) -> Result<Option<(Owner, Content)>, ReadError> {
    fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ReadError> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok(_) | Err(_) => Err(ReadError::Damaged(what)),
        }
    }
    let transaction = database.begin_read()?;
    let values = transaction.open_table(VALUES)?;
    let Some(format) = values.get("format")? else { return Ok(None) };
    let format: u16 = decode(format.value(), "the format")?;
    if format > FORMAT {
        return Err(ReadError::TooNew(format));
    }
    let owner = values.get("owner")?.ok_or(ReadError::Damaged("the owner"))?;
    let owner: Owner = decode(owner.value(), "the owner")?;
    let mut content = Content::default();
    if let Some(vote) = values.get("vote")? {
        content.vote = decode(vote.value(), "the vote")?;
    }
    if let Some(committed) = values.get("committed")? {
        content.committed = decode(committed.value(), "what was agreed on")?;
    }
    if let Some(purged) = values.get("purged")? {
        content.purged = decode(purged.value(), "where the log begins")?;
    }
    for entry in transaction.open_table(LOG)?.iter()? {
        let (index, entry) = entry?;
        content.log.insert(index.value(), decode(entry.value(), "an entry of the log")?);
    }
    if let Some(meta) = values.get("snapshot")? {
        let meta = decode(meta.value(), "what the snapshot is of")?;
        let mut bytes = Vec::new();
        for piece in transaction.open_table(SNAPSHOT)?.iter()? {
            bytes.extend_from_slice(piece?.1.value());
        }
        content.snapshot = Some(StoredSnapshot { meta, bytes });
    }
    let begin = content.purged.map_or(0, |purged| purged.index + 1);
    if content.log.keys().zip(begin..).any(|(index, expected)| *index != expected) {
        return Err(ReadError::Damaged("the log, which has a gap,"));
    }
    Ok(Some((owner, content)))
}

/// Makes changes safe as long as some come: those that wait already by one flush.
fn write_all(database: &Database, changes: &Receiver<(Change, Done)>) {
    while let Ok(first) = changes.recv() {
        let mut batch = vec![first];
        batch.extend(changes.try_iter().take(BATCH_MAX - 1));
        let mut waiting = Vec::with_capacity(batch.len());
        let mut urgent = false;
        let mut written = Vec::with_capacity(batch.len());
        for (change, done) in batch {
            urgent |= !matches!(change, Change::Committed(_));
            written.push(change);
            waiting.push(done);
        }
        let result = write_batch(database, &written, urgent);
        for done in waiting {
            done(result.as_ref().map_err(|error| io::Error::other(error.to_string())).copied());
        }
        if result.is_err() {
            // What comes after a failed write must not be written: the file would have a gap. The queue refuses from now on.
            return;
        }
    }
}

fn write_batch(database: &Database, changes: &[Change], urgent: bool) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    if !urgent {
        transaction.set_durability(Durability::None)?;
    }
    for change in changes {
        write_change(&transaction, change)?;
    }
    transaction.commit()?;
    Ok(())
}

fn write_change(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Vote(vote) => put(transaction, "vote", &Some(vote)),
        Change::Committed(committed) => put(transaction, "committed", committed),
        Change::Append(entries) => {
            let mut log = transaction.open_table(LOG)?;
            for entry in entries {
                log.insert(entry.log_id.index, encode(entry)?.as_slice())?;
            }
            Ok(())
        }
        Change::Truncate(from) => {
            transaction.open_table(LOG)?.retain_in(*from.., |_, _| false)?;
            Ok(())
        }
        Change::Purge(up_to) => {
            transaction.open_table(LOG)?.retain_in(..=up_to.index, |_, _| false)?;
            put(transaction, "purged", &Some(up_to))
        }
        Change::Snapshot(StoredSnapshot { meta, bytes }) => {
            let mut pieces = transaction.open_table(SNAPSHOT)?;
            pieces.retain(|_, _| false)?;
            for (number, piece) in (0..).zip(bytes.chunks(PIECE_BYTES)) {
                pieces.insert(number, piece)?;
            }
            put(transaction, "snapshot", meta)
        }
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    postcard::to_allocvec(value).map_err(|error| redb::Error::Io(io::Error::other(error)))
}

fn put<T: Serialize>(
    transaction: &WriteTransaction,
    name: &str,
    value: &T,
) -> Result<(), redb::Error> {
    transaction.open_table(VALUES)?.insert(name, encode(value)?.as_slice())?;
    Ok(())
}
