// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that are moved, and the time that takes.

use crate::place::{self, Handle};
use anyhow::{bail, ensure, Context, Result};
use mol_bench::{Pattern, Place, Transfer, Work};
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Where memory begins that is moved without Linux's copy: the largest block of devices.
const ALIGNMENT: usize = 4096;

/// Moves bytes; says how long it took. Opening and comparing is not counted.
///
/// # Errors
/// When something fails, or what was read is not what was written.
pub(crate) fn run(dvk: &Path, place: &Place, transfer: &Transfer) -> Result<Duration> {
    let &Transfer { work, bytes, block, depth, seed } = transfer;
    let (block, depth) = (block as usize, depth as usize);
    ensure!(block > 0 && block % 8 == 0, "blocks of {block} bytes: a multiple of 8");
    ensure!(depth > 0 && bytes > 0, "nothing is to be moved");
    let length = usize::try_from(bytes)?;
    let mut memory = vec![0; length + ALIGNMENT];
    let offset = memory.as_ptr().align_offset(ALIGNMENT);
    let memory = &mut memory[offset..offset + length];
    let pattern = Pattern { seed };
    if work == Work::Write {
        pattern.fill(0, memory);
    }
    // Each thread has whole blocks, as many as the others but for the last.
    let share = length.div_ceil(block).div_ceil(depth) * block;
    let parts: Vec<_> = memory.chunks_mut(share).zip((0u64..).step_by(share)).collect();
    ensure!(parts.len() == depth, "{bytes} bytes are too few for {depth} threads");
    let (begin, end) = (Barrier::new(depth + 1), Barrier::new(depth + 1));
    let took = std::thread::scope(|scope| -> Result<Duration> {
        let threads: Vec<_> = parts
            .into_iter()
            .map(|(part, position)| {
                let (begin, end) = (&begin, &end);
                scope.spawn(move || one(dvk, place, (work, block), (position, part), begin, end))
            })
            .collect();
        begin.wait();
        end.wait();
        let (mut first, mut last): (Option<Instant>, Option<Instant>) = (None, None);
        for thread in threads {
            let Ok(span) = thread.join() else { bail!("a thread panicked") };
            let (began, ended) = span?;
            first = Some(first.map_or(began, |first| first.min(began)));
            last = Some(last.map_or(ended, |last| last.max(ended)));
        }
        Ok(last.zip(first).map_or(Duration::ZERO, |(last, first)| last - first))
    })?;
    match pattern.difference(0, memory) {
        Some(at) => bail!("byte {at} is not what was written"),
        None => Ok(took),
    }
}

/// What one thread does; from when to when. It takes the time itself: another one may not get the processor in between. It comes to both
/// barriers whatever happens, or the others would wait for ever.
fn one(
    dvk: &Path,
    place: &Place,
    (work, block): (Work, usize),
    (position, part): (u64, &mut [u8]),
    begin: &Barrier,
    end: &Barrier,
) -> Result<(Instant, Instant)> {
    let mut span = None;
    let done = place::within(dvk, place, work, |handle| {
        begin.wait();
        let began = Instant::now();
        let moved = blocks(handle, work, block, position, part);
        span = Some((began, Instant::now()));
        end.wait();
        moved
    });
    if span.is_none() {
        begin.wait();
        end.wait();
    }
    done?;
    span.context("nothing was moved")
}

fn blocks(
    handle: &mut dyn Handle,
    work: Work,
    block: usize,
    position: u64,
    part: &mut [u8],
) -> Result<()> {
    for (piece, position) in part.chunks_mut(block).zip((position..).step_by(block)) {
        match work {
            Work::Read => handle.read(position, piece),
            Work::Write => handle.write(position, piece),
        }
        .with_context(|| format!("at byte {position}"))?;
    }
    match work {
        Work::Read => Ok(()),
        Work::Write => handle.settle().context("making it stable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(path: &Path, transfer: Transfer) -> Result<Duration> {
        let place = Place::Path { path: path.to_owned(), direct: false };
        run(Path::new("/dev/null"), &place, &transfer)
    }

    #[test]
    fn what_is_written_is_read_in_other_blocks_and_depths() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let write = Transfer { work: Work::Write, bytes: 100_000, block: 4096, depth: 3, seed: 5 };
        moved(&path, write).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100_000);
        moved(&path, Transfer { work: Work::Read, block: 65_536, depth: 1, ..write }).unwrap();
        moved(&path, Transfer { work: Work::Read, block: 8, depth: 7, ..write }).unwrap();
    }

    #[test]
    fn what_was_not_moved_is_found_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let write = Transfer { work: Work::Write, bytes: 10_000, block: 4096, depth: 2, seed: 5 };
        moved(&path, write).unwrap();
        let read = Transfer { work: Work::Read, ..write };
        let error = moved(&path, Transfer { seed: 6, ..read }).unwrap_err();
        assert_eq!(format!("{error:#}"), "byte 0 is not what was written");
        let mut content = std::fs::read(&path).unwrap();
        content[9_000] ^= 1;
        std::fs::write(&path, &content).unwrap();
        let error = moved(&path, read).unwrap_err();
        assert_eq!(format!("{error:#}"), "byte 9000 is not what was written");
        std::fs::write(&path, &content[..9_000]).unwrap();
        let error = format!("{:#}", moved(&path, read).unwrap_err());
        assert!(error.starts_with("at byte 8192: reading"), "{error}");
        let error = format!("{:#}", moved(&directory.path().join("none"), read).unwrap_err());
        assert!(error.starts_with("opening "), "{error}");
    }
}
