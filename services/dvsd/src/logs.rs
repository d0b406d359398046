// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last lines of a service's log, which PID 1 writes.

use std::fmt;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Bytes from the end of a file that are looked at.
const TAIL_BYTES: u64 = 2 << 20;

/// Why there are no lines to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogError {
    /// There is no such service; for people.
    Unknown(String),
    /// The log cannot be read; for people.
    Unreadable(String),
}

/// A place in the log of a service: a file, since PID 1 begins another one at times, and an offset in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    inode: u64,
    offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.inode, self.offset)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (inode, offset) = text.split_once('-')?;
            // Farther than a file can be read from, nothing is a place.
            let offset = offset.parse().ok().filter(|offset| *offset <= i64::MAX as u64)?;
            Some(Self { inode: inode.parse().ok()?, offset })
        };
        parse().ok_or_else(|| format!("`{text}` is no place in a log"))
    }
}

/// What there is of the log of a service: its file, and the one that was rotated away.
struct Files {
    current: PathBuf,
    earlier: PathBuf,
}

impl Files {
    fn of(directory: &Path, service: &str) -> Result<Self, LogError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if service.is_empty() || service.len() > 100 || !service.chars().all(plain) {
            return Err(LogError::Unknown(format!("`{service}` is no name of a service")));
        }
        let file = |end: &str| directory.join(format!("{service}{end}"));
        Ok(Self { current: file(".log"), earlier: file(".log.1") })
    }

    /// Why there is nothing to read.
    fn failed(&self, directory: &Path, service: &str, error: &io::Error) -> LogError {
        if error.kind() != io::ErrorKind::NotFound {
            return LogError::Unreadable(format!("read {}: {error}", self.current.display()));
        }
        let known = services(directory);
        let known = if known.is_empty() { "none has one".into() } else { known.join(", ") };
        LogError::Unknown(format!(
            "no service `{service}` has a log on this node; there are: {known}"
        ))
    }
}

/// The last `count` lines of the log of `service` in `directory`, oldest first, including those
/// of the file that was rotated away, and where they end.
///
/// # Errors
/// See [`LogError`].
pub fn tail(
    directory: &Path,
    service: &str,
    count: usize,
) -> Result<(Vec<String>, Place), LogError> {
    let files = Files::of(directory, service)?;
    let (mut lines, place) =
        read_end(&files.current).map_err(|error| files.failed(directory, service, &error))?;
    if lines.len() < count {
        // No earlier file is no error: there may not have been that much to say.
        let mut earlier = read_end(&files.earlier).map(|(lines, _)| lines).unwrap_or_default();
        earlier.append(&mut lines);
        lines = earlier;
    }
    Ok((lines.split_off(lines.len().saturating_sub(count)), place))
}

/// The lines after a place, at most about as many as [`TAIL_BYTES`] hold, and where they end. What was rotated away twice
/// since is lost.
///
/// # Errors
/// See [`LogError`].
pub fn after(
    directory: &Path,
    service: &str,
    place: Place,
) -> Result<(Vec<String>, Place), LogError> {
    let files = Files::of(directory, service)?;
    let failed = |error: io::Error| files.failed(directory, service, &error);
    let inode = fs::metadata(&files.current).map_err(failed)?.ino();
    if inode == place.inode {
        return read_on(&files.current, place.offset).map_err(failed);
    }
    let rotated = fs::metadata(&files.earlier).is_ok_and(|found| found.ino() == place.inode);
    let mut lines = match rotated {
        true => read_on(&files.earlier, place.offset).map(|(lines, _)| lines).unwrap_or_default(),
        false => Vec::new(),
    };
    let (mut more, place) = read_on(&files.current, 0).map_err(failed)?;
    lines.append(&mut more);
    Ok((lines, place))
}

fn read_end(path: &Path) -> io::Result<(Vec<String>, Place)> {
    let mut file = fs::File::open(path)?;
    let found = file.metadata()?;
    let start = found.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may have been cut.
    let lines = text.lines().skip(usize::from(start > 0)).map(str::to_owned).collect();
    Ok((lines, Place { inode: found.ino(), offset: start + bytes.len() as u64 }))
}

/// Whole lines from an offset on.
fn read_on(path: &Path, offset: u64) -> io::Result<(Vec<String>, Place)> {
    let mut file = fs::File::open(path)?;
    let inode = file.metadata()?.ino();
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    // What does not end yet will; a line that is longer than all that is not waited for.
    if (bytes.len() as u64) < TAIL_BYTES {
        bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1));
    }
    let text = String::from_utf8_lossy(&bytes);
    let place = Place { inode, offset: offset + bytes.len() as u64 };
    Ok((text.lines().map(str::to_owned).collect(), place))
}

/// The services that have a log in `directory`, sorted.
pub fn services(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log").map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_come_from_both_files() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("dvsd.log.1"), "a\nb\n").unwrap();
        fs::write(directory.path().join("dvsd.log"), "c\nd\n").unwrap();
        let tail = |count| tail(directory.path(), "dvsd", count).unwrap().0.join("");
        assert_eq!(
            (tail(1), tail(2), tail(3), tail(9)),
            ("d".into(), "cd".into(), "bcd".into(), "abcd".into())
        );
    }

    #[test]
    fn long_logs_are_not_read_whole() {
        let directory = tempfile::tempdir().unwrap();
        let line = format!("{}\n", "x".repeat(99));
        fs::write(directory.path().join("dvsd.log"), line.repeat(30_000)).unwrap();
        let (lines, _) = tail(directory.path(), "dvsd", usize::MAX).unwrap();
        assert_eq!(lines.len(), (2 << 20) / 100);
        assert!(lines.iter().all(|line| line.len() == 99));
    }

    #[test]
    fn a_log_is_followed_over_its_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("dvsd.log");
        fs::write(&file, "a\nb\n").unwrap();
        let (lines, place) = tail(directory.path(), "dvsd", 1).unwrap();
        assert_eq!((lines.join(""), place.to_string().parse()), ("b".into(), Ok(place)));
        let follow = |place| {
            let (lines, place) = after(directory.path(), "dvsd", place).unwrap();
            (lines.join(" "), place)
        };
        assert_eq!(follow(place), (String::new(), place));
        fs::write(&file, "a\nb\nc\nd").unwrap();
        let (lines, place) = follow(place);
        assert_eq!(lines, "c");
        fs::write(&file, "a\nb\nc\nd\ne\n").unwrap();
        fs::rename(&file, directory.path().join("dvsd.log.1")).unwrap();
        fs::write(&file, "f\n").unwrap();
        let (lines, place) = follow(place);
        assert_eq!(lines, "d e f");
        // What was rotated away twice is lost, and the rest is told.
        fs::rename(&file, directory.path().join("other")).unwrap();
        fs::write(&file, "h\n").unwrap();
        assert_eq!(follow(place).0, "h");
        assert!("1".parse::<Place>().is_err() && "1-x".parse::<Place>().is_err());
    }

    #[test]
    fn no_other_file_can_be_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("dvsd.log"), "").unwrap();
        for name in ["../config", "", "a/b", "a.b", "x"] {
            let error = tail(directory.path(), name, 1).unwrap_err();
            assert!(matches!(error, LogError::Unknown(_)), "{name}: {error:?}");
        }
        let LogError::Unknown(text) = tail(directory.path(), "dvsctl", 1).unwrap_err() else {
            panic!("read")
        };
        assert!(text.ends_with("there are: dvsd"), "{text}");
    }
}
