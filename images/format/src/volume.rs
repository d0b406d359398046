// SPDX-License-Identifier: MIT OR Apache-2.0
//! FAT volumes: what UEFI firmware reads programs from, and people put a machine configuration on.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};

use fatfs::{
    Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider,
};

/// Label of the volume that machines boot from, and on which a node looks for its configuration.
pub const BOOT_LABEL: &str = "DVS-BOOT";
/// Label of a volume that holds nothing but a configuration.
pub const CONFIG_LABEL: &str = "DVS-CONFIG";

/// Bytes of a sector.
const SECTOR: usize = 512;
/// Bytes of a sector of a CD.
const CD_SECTOR: usize = crate::cd::SECTOR;
/// How many entries the root folder of a volume on a CD has at least.
const ROOT_ENTRIES: u16 = 64;

/// A file of a volume.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its path, with `/` between names; folders are made as needed.
    pub path: &'a str,
    /// Its content.
    pub content: &'a [u8],
}

/// Which of the kinds of FAT a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whatever suits its size: for volumes that are written once.
    Fitting,
    /// What the UEFI specification asks of disks.
    Fat32,
    /// Part of a CD: files begin at sectors of the CD, if the volume does.
    Cd,
}

/// A volume of `size` bytes with these files. All files have the same date, and the serial number follows from the label: the same files are
/// the same bytes.
///
/// # Errors
/// When the files do not fit, or a path is none that FAT can have.
pub fn build(size: usize, kind: Kind, label: &str, files: &[File<'_>]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    format(&mut Cursor::new(&mut bytes[..]), kind, label, 0)?;
    // The more entries the root folder has, the later the files begin: a sector for sixteen.
    for more in 1..(CD_SECTOR / SECTOR) as u16 {
        if kind != Kind::Cd || files_begin(&bytes).is_multiple_of(CD_SECTOR) {
            break;
        }
        bytes.fill(0);
        format(&mut Cursor::new(&mut bytes[..]), kind, label, more * 16)?;
    }
    for file in files {
        put(&mut Cursor::new(&mut bytes[..]), *file)?;
    }
    Ok(bytes)
}

/// A size at which `content` bytes in a few files and folders fit: with the tables of the volume, and an eighth to spare.
pub fn size_for(content: usize) -> usize {
    (content + content / 8 + (1 << 20)).next_multiple_of(1 << 20)
}

/// Makes an empty volume on a device, over whatever it has. Its dates and its serial number are those of all such volumes.
///
/// # Errors
/// When the device is too small for this kind of volume, or fails.
pub fn make(volume: &mut (impl Read + Write + Seek), kind: Kind, label: &str) -> io::Result<()> {
    format(volume, kind, label, 0)
}

/// Whether a volume has a file of this content.
///
/// # Errors
/// When there is no volume or it cannot be read.
pub fn is_same(
    volume: &mut (impl Read + Write + Seek),
    path: &str,
    content: &[u8],
) -> io::Result<bool> {
    let volume = open(volume)?;
    let mut file = match volume.root_dir().open_file(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let (mut left, mut chunk) = (content, vec![0; 64 << 10]);
    loop {
        let length = file.read(&mut chunk)?;
        match left.split_at_checked(length) {
            _ if length == 0 => return Ok(left.is_empty()),
            Some((same, rest)) if same == &chunk[..length] => left = rest,
            _ => return Ok(false),
        }
    }
}

/// Where the first file of a FAT16 volume can begin, as its header says.
fn files_begin(volume: &[u8]) -> usize {
    let number = |at: usize| usize::from(u16::from_le_bytes([volume[at], volume[at + 1]]));
    let (reserved, tables, entries, length) =
        (number(14), usize::from(volume[16]), number(17), number(22));
    (reserved + tables * length) * SECTOR + entries * 32
}

/// Where the file of this content begins in a volume, if it is there in one piece, as it is in a volume that has just been built.
pub fn position(volume: &[u8], content: &[u8]) -> Option<usize> {
    (0..volume.len()).step_by(SECTOR).find(|at| volume[*at..].starts_with(content))
}

fn format(
    volume: &mut (impl Read + Write + Seek),
    kind: Kind,
    label: &str,
    more_entries: u16,
) -> io::Result<()> {
    let mut padded = [b' '; 11];
    let field = padded.get_mut(..label.len());
    let field = field.ok_or_else(|| io::Error::other("a label has at most 11 characters"))?;
    field.copy_from_slice(label.as_bytes());
    // FNV-1a: any number does that is the same for the same label.
    let serial = label
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut options = FormatVolumeOptions::new().volume_label(padded).volume_id(serial);
    options = match kind {
        Kind::Fitting => options,
        Kind::Fat32 => options.fat_type(FatType::Fat32).bytes_per_cluster(1024),
        Kind::Cd => options
            .fat_type(FatType::Fat16)
            .bytes_per_cluster(CD_SECTOR as u32)
            .max_root_dir_entries(ROOT_ENTRIES + more_entries),
    };
    fatfs::format_volume(volume, options)
}

/// The time of everything that is written, so that the same files are the same bytes. It must be one that the calendar has: UEFI
/// firmware refuses to rename a file without, and a boot loader could not count how often it has started an image.
#[derive(Debug)]
struct SameTime;

static SAME_TIME: SameTime = SameTime;

impl TimeProvider for SameTime {
    fn get_current_date(&self) -> Date {
        Date { year: 2026, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        let time = Time { hour: 0, min: 0, sec: 0, millis: 0 };
        DateTime { date: self.get_current_date(), time }
    }
}

fn open<V: Read + Write + Seek>(mut volume: V) -> io::Result<FileSystem<V>> {
    volume.rewind()?;
    FileSystem::new(volume, FsOptions::new().time_provider(&SAME_TIME))
}

/// Writes a file into a volume, over one of the same path.
///
/// # Errors
/// When there is no volume, it is full, or the path is none that FAT can have.
pub fn put(volume: &mut (impl Read + Write + Seek), file: File<'_>) -> io::Result<()> {
    let volume = open(volume)?;
    let mut folder = volume.root_dir();
    let mut path = file.path;
    while let Some((name, rest)) = path.split_once('/') {
        folder = folder.create_dir(name)?;
        path = rest;
    }
    let mut target = folder.create_file(path)?;
    target.truncate()?;
    target.write_all(file.content)?;
    target.flush()?;
    drop(target);
    drop(folder);
    volume.unmount()
}

/// The content of a file of a volume, if it has that file.
///
/// # Errors
/// When there is no volume or it cannot be read.
pub fn read(volume: &mut (impl Read + Write + Seek), path: &str) -> io::Result<Option<Vec<u8>>> {
    let volume = open(volume)?;
    let opened = volume.root_dir().open_file(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(Some(content))
}

/// The length of a file of a volume in bytes, if it has that file.
///
/// # Errors
/// When there is no volume or it cannot be read.
pub fn length(volume: &mut (impl Read + Write + Seek), path: &str) -> io::Result<Option<u64>> {
    let volume = open(volume)?;
    let opened = volume.root_dir().open_file(path);
    match opened {
        Ok(mut file) => Ok(Some(file.seek(SeekFrom::End(0))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file of a volume.
///
/// # Errors
/// When there is no volume, it has no such file, or it cannot be written.
pub fn remove(volume: &mut (impl Read + Write + Seek), path: &str) -> io::Result<()> {
    let volume = open(volume)?;
    volume.root_dir().remove(path)?;
    volume.unmount()
}

/// Gives a file of a volume another name, which none has.
///
/// # Errors
/// When there is no volume, it has no such file or one of the other name, or it cannot be written.
pub fn rename(volume: &mut (impl Read + Write + Seek), from: &str, to: &str) -> io::Result<()> {
    let volume = open(volume)?;
    let root = volume.root_dir();
    root.rename(from, &root, to)?;
    drop(root);
    volume.unmount()
}

/// How many bytes a volume has left for files.
///
/// # Errors
/// When there is no volume or it cannot be read.
pub fn free(volume: &mut (impl Read + Write + Seek)) -> io::Result<u64> {
    let stats = open(volume)?.stats()?;
    Ok(u64::from(stats.free_clusters()) * u64::from(stats.cluster_size()))
}

/// The names of the files in a folder of a volume, in the order in which it has them.
///
/// # Errors
/// When there is no volume, it has no such folder, or it cannot be read.
pub fn names(volume: &mut (impl Read + Write + Seek), folder: &str) -> io::Result<Vec<String>> {
    let volume = open(volume)?;
    let folder = volume.root_dir().open_dir(folder)?;
    let mut names = Vec::new();
    for entry in folder.iter() {
        let entry = entry?;
        if entry.is_file() {
            names.push(entry.file_name());
        }
    }
    Ok(names)
}

/// The label of the FAT volume that begins with `sector`, its first 512 bytes; `None` when it is no FAT volume.
pub fn label(sector: &[u8]) -> Option<String> {
    if sector.get(510..512) != Some(&[0x55, 0xaa]) {
        return None;
    }
    // The name of the kind follows the label; it stands further on in FAT32, whose header is longer.
    let field = |kind: usize, label: usize| {
        sector[kind..kind + 3].eq(b"FAT").then(|| &sector[label..label + 11])
    };
    let label = field(54, 43).or_else(|| field(82, 71))?;
    let label = std::str::from_utf8(label).ok()?.trim_end();
    Some(label.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "dvs.toml";
    #[test]
    fn a_file_is_compared_with_what_it_should_be() {
        let mut volume = Cursor::new(build(4 << 20, Kind::Fitting, BOOT_LABEL, &FILES).unwrap());
        let File { path, content } = FILES[0];
        let mut same = |path: &str, content: &[u8]| is_same(&mut volume, path, content).unwrap();
        assert!(same(path, content));
        assert!(!same(path, &content[1..]) && !same("EFI/BOOT/NONE", content));
        assert!(!same(path, &[content, &[3]].concat()));
        let mut other = content.to_vec();
        other[content.len() - 1] = 4;
        assert!(!same(path, &other));
    }

    #[test]
    fn files_and_folders_have_a_date_that_the_calendar_has() {
        let volume = build(4 << 20, Kind::Fitting, BOOT_LABEL, &FILES).unwrap();
        let volume = open(Cursor::new(volume)).unwrap();
        let mut open = vec![volume.root_dir()];
        let mut seen = 0;
        while let Some(folder) = open.pop() {
            for entry in folder
                .iter()
                .map(Result::unwrap)
                .filter(|entry| !entry.file_name().starts_with('.'))
            {
                for date in [entry.created().date, entry.modified().date, entry.accessed()] {
                    assert_eq!(
                        (date.year, date.month, date.day),
                        (2026, 1, 1),
                        "{}",
                        entry.file_name()
                    );
                }
                seen += 1;
                if entry.is_dir() {
                    open.push(entry.to_dir());
                }
            }
        }
        assert_eq!(seen, 6);
    }

    #[test]
    fn files_of_a_volume_on_a_cd_begin_at_its_sectors() {
        // Tables of several lengths.
        for size in [16 << 20, (18 << 20) + 512, 21 << 20, 27 << 20] {
            let volume = build(size, Kind::Cd, BOOT_LABEL, &FILES).unwrap();
            assert_eq!(position(&volume, FILES[0].content).unwrap() % CD_SECTOR, 0, "{size}");
            assert_eq!(position(&volume, FILES[1].content).unwrap() % CD_SECTOR, 0, "{size}");
            assert_eq!(label(&volume[..512]).as_deref(), Some(BOOT_LABEL));
            let mut volume = Cursor::new(volume);
            assert_eq!(read(&mut volume, FILES[1].path).unwrap().unwrap(), FILES[1].content);
        }
        assert_eq!(position(&[0; 2048], &[1]), None);
    }

    const FILES: [File<'_>; 3] = [
        File { path: "EFI/BOOT/BOOTX64.EFI", content: &[3; 70_000] },
        File { path: "EFI/Linux/dvs-a+3.efi", content: &[4; 5000] },
        File { path: CONFIG, content: b"[cluster]\n" },
    ];

    #[test]
    fn files_are_read_back_from_every_kind_of_volume() {
        for (size, kind) in [(2 << 20, Kind::Fitting), (96 << 20, Kind::Fat32)] {
            let mut bytes = build(size, kind, BOOT_LABEL, &FILES).unwrap();
            assert_eq!(bytes.len(), size);
            assert_eq!(label(&bytes[..512]).as_deref(), Some(BOOT_LABEL));
            for file in FILES {
                let mut volume = Cursor::new(&mut bytes[..]);
                assert_eq!(read(&mut volume, file.path).unwrap().unwrap(), file.content);
                assert_eq!(read(&mut volume, "none").unwrap(), None);
                assert_eq!(names(&mut volume, "EFI/Linux").unwrap(), ["dvs-a+3.efi"]);
            }
        }
    }

    #[test]
    fn the_same_files_are_the_same_bytes() {
        let volume = || build(2 << 20, Kind::Fitting, BOOT_LABEL, &FILES).unwrap();
        assert!(volume() == volume());
        assert!(volume() != build(2 << 20, Kind::Fitting, CONFIG_LABEL, &FILES).unwrap());
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let mut bytes = build(2 << 20, Kind::Fitting, BOOT_LABEL, &FILES).unwrap();
        let mut volume = Cursor::new(&mut bytes[..]);
        put(&mut volume, File { path: CONFIG, content: b"#" }).unwrap();
        assert_eq!(read(&mut volume, CONFIG).unwrap().unwrap(), b"#");
        assert_eq!(read(&mut volume, FILES[0].path).unwrap().unwrap(), FILES[0].content);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let large = [File { path: "a", content: &vec![1; 3 << 20] }];
        assert!(build(2 << 20, Kind::Fitting, BOOT_LABEL, &large).is_err());
        assert!(build(size_for(3 << 20), Kind::Fitting, BOOT_LABEL, &large).is_ok());
        assert!(build(2 << 20, Kind::Fitting, "TWELVE-CHARS", &[]).is_err());
    }

    #[test]
    fn files_are_renamed_and_removed_and_give_their_room_back() {
        let mut volume = Cursor::new(build(4 << 20, Kind::Fitting, BOOT_LABEL, &FILES).unwrap());
        let before = free(&mut volume).unwrap();
        let (old, new) = (FILES[1].path, "EFI/Linux/dvs-a.efi");
        rename(&mut volume, old, new).unwrap();
        assert_eq!(length(&mut volume, old).unwrap(), None);
        assert_eq!(length(&mut volume, new).unwrap(), Some(5000));
        assert_eq!(read(&mut volume, new).unwrap().unwrap(), FILES[1].content);
        rename(&mut volume, CONFIG, new).unwrap_err();
        assert_eq!(free(&mut volume).unwrap(), before);
        remove(&mut volume, new).unwrap();
        remove(&mut volume, new).unwrap_err();
        assert!(free(&mut volume).unwrap() >= before + 5000);
    }

    #[test]
    fn other_sectors_have_no_label() {
        assert_eq!(label(&[]), None);
        assert_eq!(label(&[0; 512]), None);
        let mut marked = [0; 512];
        (marked[510], marked[511]) = (0x55, 0xaa);
        assert_eq!(label(&marked), None);
    }
}
