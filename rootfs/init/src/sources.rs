// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads the machine configuration from where it may be, and writes what came of it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use dvs_config::{Config, Source};

use crate::fault::Fault;
use crate::volumes;

/// The fw_cfg file as the kernel shows it, when QEMU hands one.
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/dvs/config/raw";
/// Longest configuration in bytes.
const LIMIT: u64 = 64 << 10;

/// Reads all sources: what QEMU hands over, or else a volume, and the kernel's command line over it. Does `meanwhile` again and again while
/// it waits for a volume. The error is for people and may have several lines.
pub(crate) fn read(command_line: &str, meanwhile: &mut dyn FnMut()) -> Result<Config, String> {
    let mut sources = Vec::new();
    if let Some(text) = read_fw_cfg().map_err(|fault| fault.to_string())? {
        sources.push((Source::FwCfg, text));
    } else if let Some(patience) = volumes::patience(command_line) {
        let found = volumes::find(patience, LIMIT, meanwhile).map_err(|fault| fault.to_string())?;
        sources.extend(found.map(|(device, text)| (Source::Volume(device), text)));
    }
    sources.push((Source::CommandLine, command_line.to_owned()));
    Config::from_sources(&sources).map_err(|error| error.to_string())
}

fn read_fw_cfg() -> Result<Option<String>, Fault> {
    match File::open(FW_CFG).and_then(|file| read_limited(file, LIMIT)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Fault::when(format!("read the QEMU fw_cfg file {}", Source::FW_CFG_NAME))(error))
        }
    }
}

/// The text of a file that has at most `limit` bytes.
pub(crate) fn read_limited(file: File, limit: u64) -> io::Result<String> {
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        return Err(io::Error::other(format!("it is longer than {limit} bytes")));
    }
    Ok(text)
}

/// Writes a file that appears whole or not at all, with this mode.
pub(crate) fn write_file(path: &Path, mode: u32, content: &[u8]) -> Result<(), Fault> {
    let write = || {
        let temporary = path.with_extension("new");
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        fs::rename(temporary, path)
    };
    write().map_err(Fault::when(format!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{read_limited, write_file};

    #[test]
    fn a_text_has_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dvs.toml");
        fs::write(&path, "12345").unwrap();
        let open = || fs::File::open(&path).unwrap();
        assert_eq!(read_limited(open(), 5).unwrap(), "12345");
        assert!(read_limited(open(), 4).unwrap_err().to_string().contains("longer than 4"));
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        for content in ["a longer first content", "short"] {
            write_file(&path, 0o600, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
