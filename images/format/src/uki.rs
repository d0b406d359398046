// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unified kernel images: one UEFI program that holds a kernel, its initial root and its command line.
//!
//! The program is systemd's stub, to which each part is added as a section of the PE file; the stub finds them by name (the Unified
//! Kernel Image specification of the UAPI group). A PE file is laid out as in Microsoft's "PE Format".

use std::ops::Range;

/// A part of the image.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// Its name, which tells the stub what it is: `.linux`, `.initrd`, `.cmdline`, `.osrel`; at most 8 bytes.
    pub name: &'a str,
    /// Its content.
    pub content: &'a [u8],
}

/// Why sections cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UkiError {
    /// The stub is no PE file for x86-64.
    #[error("the stub is no UEFI program for x86-64: {0}")]
    NotAProgram(&'static str),
    /// The headers of the stub end where its first section begins.
    #[error("the stub has room for the headers of {0} more sections, which are too few")]
    NoRoom(usize),
    /// A name is longer than the field that it goes into.
    #[error("a section's name is longer than 8 bytes")]
    LongName,
    /// The image would be larger than what its headers can express.
    #[error("the image would be larger than 4 GiB")]
    TooLarge,
}

/// Length of a section header.
const HEADER: usize = 40;
/// Where in the file added sections begin: at multiples of this, which are sectors of a CD, so that parts of the program can be files
/// of one.
pub const ALIGNMENT: u32 = 2048;
/// Initialised data that may be read (`IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`).
const DATA: u32 = 0x4000_0040;

/// Where the fields of a PE file are that adding sections reads or changes, as offsets in the file.
struct Layout {
    /// `NumberOfSections`.
    count: usize,
    /// The optional header.
    optional: usize,
    /// The first section header.
    table: usize,
}

impl Layout {
    const SIZE_OF_INITIALIZED_DATA: usize = 8;
    const SECTION_ALIGNMENT: usize = 32;
    const FILE_ALIGNMENT: usize = 36;
    const SIZE_OF_IMAGE: usize = 56;
    const SIZE_OF_HEADERS: usize = 60;
    const CHECK_SUM: usize = 64;

    fn of(file: &[u8]) -> Result<Self, UkiError> {
        let wrong = UkiError::NotAProgram;
        if !file.starts_with(b"MZ") {
            return Err(wrong("it does not begin with MZ"));
        }
        let pe = read(file, 0x3c)? as usize;
        if file.get(pe..).is_none_or(|rest| !rest.starts_with(b"PE\0\0")) {
            return Err(wrong("it has no PE header"));
        }
        let coff = pe + 4;
        if read_short(file, coff)? != 0x8664 {
            return Err(wrong("it is for another processor"));
        }
        let optional = coff + 20;
        if read_short(file, optional)? != 0x20b {
            return Err(wrong("its optional header is not that of a 64-bit program"));
        }
        let table = optional + usize::from(read_short(file, coff + 16)?);
        Ok(Self { count: coff + 2, optional, table })
    }
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N], UkiError> {
    let found = file.get(at..).and_then(|rest| rest.first_chunk());
    found.copied().ok_or(UkiError::NotAProgram("it is cut short"))
}

fn read(file: &[u8], at: usize) -> Result<u32, UkiError> {
    bytes(file, at).map(u32::from_le_bytes)
}

fn read_short(file: &[u8], at: usize) -> Result<u16, UkiError> {
    bytes(file, at).map(u16::from_le_bytes)
}

fn write(file: &mut [u8], at: usize, value: u32) -> Result<(), UkiError> {
    let field = file.get_mut(at..at + 4).ok_or(UkiError::NotAProgram("it is cut short"))?;
    field.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

/// The next multiple of `alignment`.
fn aligned(value: usize, alignment: u32) -> Result<usize, UkiError> {
    value.checked_next_multiple_of(alignment.max(1) as usize).ok_or(UkiError::TooLarge)
}

fn small(value: usize) -> Result<u32, UkiError> {
    u32::try_from(value).map_err(|_| UkiError::TooLarge)
}

/// The program `stub` with `sections` added, in this order.
///
/// # Errors
/// [`UkiError`] when the stub is none, or has no room for their headers.
pub fn build(stub: &[u8], sections: &[Section<'_>]) -> Result<Vec<u8>, UkiError> {
    let mut file = stub.to_vec();
    let layout = Layout::of(&file)?;
    let option = |field: usize| layout.optional + field;
    let section_alignment = read(&file, option(Layout::SECTION_ALIGNMENT))?;
    let file_alignment = read(&file, option(Layout::FILE_ALIGNMENT))?;
    let present = usize::from(read_short(&file, layout.count)?);
    let mut header = layout.table + present * HEADER;
    // Headers may grow up to where the content of the first section begins, or to the end that is declared if that is earlier.
    let mut limit = read(&file, option(Layout::SIZE_OF_HEADERS))? as usize;
    let mut memory_end = 0;
    for number in 0..present {
        let at = layout.table + number * HEADER;
        let (length, address) = (read(&file, at + 8)?, read(&file, at + 12)?);
        memory_end = memory_end.max(length as usize + address as usize);
        let content = read(&file, at + 20)? as usize;
        let stored = read(&file, at + 16)? as usize;
        if stored != 0 {
            limit = limit.min(content);
        }
        if content + stored > file.len() {
            return Err(UkiError::NotAProgram("it is cut short"));
        }
    }
    let room = limit.saturating_sub(header) / HEADER;
    if room < sections.len() {
        return Err(UkiError::NoRoom(room));
    }
    let mut data = read(&file, option(Layout::SIZE_OF_INITIALIZED_DATA))? as usize;
    for section in sections {
        let mut name = [0; 8];
        let name_length = section.name.len();
        name.get_mut(..name_length)
            .ok_or(UkiError::LongName)?
            .copy_from_slice(section.name.as_bytes());
        let address = aligned(memory_end, section_alignment)?;
        let content = aligned(file.len(), file_alignment.max(ALIGNMENT))?;
        let length = aligned(section.content.len(), file_alignment)?;
        file[header..header + 8].copy_from_slice(&name);
        write(&mut file, header + 8, small(section.content.len())?)?;
        write(&mut file, header + 12, small(address)?)?;
        write(&mut file, header + 16, small(length)?)?;
        write(&mut file, header + 20, small(content)?)?;
        file[header + 24..header + 36].fill(0);
        write(&mut file, header + 36, DATA)?;
        file.resize(content, 0);
        file.extend_from_slice(section.content);
        file.resize(content + length, 0);
        header += HEADER;
        memory_end = address + section.content.len();
        data += length;
    }
    let count = present + sections.len();
    let count = u16::try_from(count).map_err(|_| UkiError::TooLarge)?;
    file[layout.count..layout.count + 2].copy_from_slice(&count.to_le_bytes());
    let size = small(aligned(memory_end, section_alignment)?)?;
    write(&mut file, option(Layout::SIZE_OF_IMAGE), size)?;
    write(&mut file, option(Layout::SIZE_OF_INITIALIZED_DATA), small(data)?)?;
    // UEFI does not look at it, and that of the stub is none of the image.
    write(&mut file, option(Layout::CHECK_SUM), 0)?;
    Ok(file)
}

/// The content of the section `name` of the program `image`, if there is one.
///
/// # Errors
/// As [`position`].
pub fn section<'a>(image: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, UkiError> {
    Ok(position(image, name)?.map(|range| &image[range]))
}

/// Where in the program `image` the content of the section `name` is, if there is one.
///
/// # Errors
/// [`UkiError::NotAProgram`] when it is none.
pub fn position(image: &[u8], name: &str) -> Result<Option<Range<usize>>, UkiError> {
    let layout = Layout::of(image)?;
    for number in 0..usize::from(read_short(image, layout.count)?) {
        let at = layout.table + number * HEADER;
        let own: [u8; 8] = bytes(image, at)?;
        let end = own.iter().position(|byte| *byte == 0).unwrap_or(8);
        if &own[..end] == name.as_bytes() {
            let length = read(image, at + 8)?.min(read(image, at + 16)?) as usize;
            let content = read(image, at + 20)? as usize;
            if content + length > image.len() {
                return Err(UkiError::NotAProgram("it is cut short"));
            }
            return Ok(Some(content..content + length));
        }
    }
    Ok(None)
}

/// A program of one section that does nothing, for tests: with room for three more headers, and a rest after its sections, as symbols are.
#[doc(hidden)]
pub fn sample_stub() -> Vec<u8> {
    let mut file = vec![0; 0x200];
    let table = 0x180 - 3 * HEADER;
    let pe = table - 24 - 112 - HEADER;
    let put = |file: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut file, 0, b"MZ");
    put(&mut file, 0x3c, &(pe as u32).to_le_bytes());
    put(&mut file, pe, b"PE\0\0\x64\x86\x01\0");
    put(&mut file, pe + 4 + 16, &112_u16.to_le_bytes());
    let optional = pe + 24;
    put(&mut file, optional, &0x20b_u16.to_le_bytes());
    for (field, value) in [(32, 0x1000_u32), (36, 0x200), (56, 0x2000), (60, 0x180), (64, 99)] {
        put(&mut file, optional + field, &value.to_le_bytes());
    }
    let header = optional + 112;
    put(&mut file, header, b".text");
    for (field, value) in [(8, 5_u32), (12, 0x1000), (16, 0x200), (20, 0x200)] {
        put(&mut file, header + field, &value.to_le_bytes());
    }
    file.extend_from_slice(b"code.");
    file.resize(0x400, 0);
    file.extend_from_slice(b"symbols");
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: Section<'_> = Section { name: ".linux", content: &[7; 0x1234] };
    const OPTIONS: Section<'_> = Section { name: ".cmdline", content: b"quiet" };

    #[test]
    fn sections_are_found_again_and_what_was_there_is_untouched() {
        let image = build(&sample_stub(), &[LINUX, OPTIONS]).unwrap();
        for added in [LINUX, OPTIONS] {
            assert_eq!(section(&image, added.name).unwrap(), Some(added.content));
        }
        assert_eq!(section(&image, ".text").unwrap(), Some(&b"code."[..]));
        assert_eq!(image[0x400..0x407], *b"symbols");
        assert_eq!(section(&image, ".initrd").unwrap(), None);
    }

    #[test]
    fn sections_are_aligned_in_memory_and_in_the_file_and_do_not_overlap() {
        let image = build(&sample_stub(), &[LINUX, OPTIONS]).unwrap();
        let layout = Layout::of(&image).unwrap();
        let field = |number: usize, field| read(&image, layout.table + number * HEADER + field);
        let (mut memory, mut file) = (0, 0);
        for number in 0..3 {
            let (length, address) = (field(number, 8).unwrap(), field(number, 12).unwrap());
            let (stored, content) = (field(number, 16).unwrap(), field(number, 20).unwrap());
            assert!(address % 0x1000 == 0 && content % 0x200 == 0 && stored % 0x200 == 0);
            assert!(address >= memory && content >= file && stored >= length);
            assert!(number == 0 || content % ALIGNMENT == 0);
            (memory, file) = (address + length, content + stored);
        }
        assert_eq!(file as usize, image.len());
        let size = read(&image, layout.optional + Layout::SIZE_OF_IMAGE).unwrap();
        assert_eq!(size, memory.next_multiple_of(0x1000));
        assert_eq!(read(&image, layout.optional + Layout::CHECK_SUM).unwrap(), 0);
    }

    #[test]
    fn headers_do_not_run_into_the_first_section() {
        let more = Section { name: ".osrel", content: b"" };
        assert!(build(&sample_stub(), &[LINUX, OPTIONS, more]).is_ok());
        let four = [LINUX, OPTIONS, more, more];
        assert_eq!(build(&sample_stub(), &four), Err(UkiError::NoRoom(3)));
        let long = Section { name: ".commandline", content: b"" };
        assert_eq!(build(&sample_stub(), &[long]), Err(UkiError::LongName));
    }

    #[test]
    fn what_is_no_program_is_refused_and_never_panics() {
        let whole = sample_stub();
        for length in 0..0x400 {
            assert!(build(&whole[..length], &[OPTIONS]).is_err(), "{length}");
        }
        let mut other = sample_stub();
        other[0] = b'E';
        assert!(matches!(build(&other, &[OPTIONS]), Err(UkiError::NotAProgram(_))));
    }
}
