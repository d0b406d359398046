// SPDX-License-Identifier: MIT OR Apache-2.0
//! The last lines of a service's log, which PID 1 writes.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

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

/// The last `count` lines of the log of `service` in `directory`, oldest first, including those
/// of the file that was rotated away.
///
/// # Errors
/// See [`LogError`].
pub fn tail(directory: &Path, service: &str, count: usize) -> Result<Vec<String>, LogError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if service.is_empty() || !service.chars().all(plain) {
        return Err(LogError::Unknown(format!("`{service}` is no name of a service")));
    }
    let current = directory.join(format!("{service}.log"));
    let mut lines = match read_end(&current) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let known = services(directory);
            let known = if known.is_empty() { "none has one".into() } else { known.join(", ") };
            return Err(LogError::Unknown(format!(
                "no service `{service}` has a log on this node; there are: {known}"
            )));
        }
        Err(error) => {
            let text = format!("read {}: {error}", current.display());
            return Err(LogError::Unreadable(text));
        }
    };
    if lines.len() < count {
        // No earlier file is no error: there may not have been that much to say.
        let mut earlier = read_end(&directory.join(format!("{service}.log.1"))).unwrap_or_default();
        earlier.append(&mut lines);
        lines = earlier;
    }
    Ok(lines.split_off(lines.len().saturating_sub(count)))
}

fn read_end(path: &Path) -> io::Result<Vec<String>> {
    let mut file = fs::File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // The first line may have been cut.
    Ok(text.lines().skip(usize::from(start > 0)).map(str::to_owned).collect())
}

fn services(directory: &Path) -> Vec<String> {
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
        let tail = |count| tail(directory.path(), "dvsd", count).unwrap().join("");
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
        let lines = tail(directory.path(), "dvsd", usize::MAX).unwrap();
        assert_eq!(lines.len(), (2 << 20) / 100);
        assert!(lines.iter().all(|line| line.len() == 99));
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
