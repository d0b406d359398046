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
    let found = position_in(image, image.len() as u64, name)?;
    Ok(found.map(|range| range.start as usize..range.end as usize))
}

/// The same for a program of `length` bytes of which only the first ones are at hand, as many as its headers take.
///
/// # Errors
/// As [`position`].
pub fn position_in(head: &[u8], length: u64, name: &str) -> Result<Option<Range<u64>>, UkiError> {
    let Some(at) = header_of(head, name)? else { return Ok(None) };
    let bytes = u64::from(read(head, at + 8)?.min(read(head, at + 16)?));
    let content = u64::from(read(head, at + 20)?);
    if content + bytes > length {
        return Err(UkiError::NotAProgram("it is cut short"));
    }
    Ok(Some(content..content + bytes))
}

/// Where the header of a section is.
fn header_of(head: &[u8], name: &str) -> Result<Option<usize>, UkiError> {
    let layout = Layout::of(head)?;
    for number in 0..usize::from(read_short(head, layout.count)?) {
        let at = layout.table + number * HEADER;
        let own: [u8; 8] = bytes(head, at)?;
        let end = own.iter().position(|byte| *byte == 0).unwrap_or(8);
        if &own[..end] == name.as_bytes() {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// What makes a program one in which the section `name` is `content`: `head`, the first bytes of a program of `length` bytes, is changed,
/// and what is returned follows its last byte. What it was before stays where it is, and nothing points there any more.
///
/// # Errors
/// [`UkiError::NotAProgram`] when it is none, or has no such section.
pub fn replace(
    head: &mut [u8],
    length: u64,
    name: &str,
    content: &[u8],
) -> Result<Vec<u8>, UkiError> {
    let layout = Layout::of(head)?;
    let at = header_of(head, name)?;
    let at = at.ok_or(UkiError::NotAProgram("it has no section of this name"))?;
    let option = |field: usize| layout.optional + field;
    let section_alignment = read(head, option(Layout::SECTION_ALIGNMENT))?;
    let file_alignment = read(head, option(Layout::FILE_ALIGNMENT))?;
    let address = aligned(read(head, option(Layout::SIZE_OF_IMAGE))? as usize, section_alignment)?;
    let length = usize::try_from(length).map_err(|_| UkiError::TooLarge)?;
    let begin = aligned(length, file_alignment.max(ALIGNMENT))?;
    let stored = aligned(content.len(), file_alignment)?;
    write(head, at + 8, small(content.len())?)?;
    write(head, at + 12, small(address)?)?;
    write(head, at + 16, small(stored)?)?;
    write(head, at + 20, small(begin)?)?;
    let size = small(aligned(address + content.len(), section_alignment)?)?;
    write(head, option(Layout::SIZE_OF_IMAGE), size)?;
    let mut tail = vec![0; begin - length];
    tail.extend_from_slice(content);
    tail.resize(begin - length + stored, 0);
    Ok(tail)
}

/// A program of one section that does nothing, for tests: with room for three more headers, and a rest after its sections, as symbols are.
#[doc(hidden)]
pub fn sample_stub() -> Vec<u8> {
    sample_stub_for(3)
}

/// The same with room for so many more headers, at most six.
#[doc(hidden)]
pub fn sample_stub_for(room: usize) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    let table = 0x180 - 3 * HEADER;
    let end = (table + room * HEADER) as u32;
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
    for (field, value) in [(32, 0x1000_u32), (36, 0x200), (56, 0x2000), (60, end), (64, 99)] {
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
    fn a_section_is_replaced_by_a_longer_one_and_the_others_stay() {
        let image = build(&sample_stub(), &[OPTIONS, LINUX]).unwrap();
        let (mut head, rest) = (image[..0x200].to_vec(), &image[0x200..]);
        let longer = [b'x'; 3000];
        let tail = replace(&mut head, image.len() as u64, ".cmdline", &longer).unwrap();
        let changed = [&head[..], rest, &tail].concat();
        assert_eq!(section(&changed, ".cmdline").unwrap(), Some(&longer[..]));
        assert_eq!(section(&changed, ".linux").unwrap(), Some(LINUX.content));
        let layout = Layout::of(&changed).unwrap();
        let header = header_of(&changed, ".cmdline").unwrap().unwrap();
        let linux = header_of(&changed, ".linux").unwrap().unwrap();
        // In memory it begins where the program ended.
        let (address, before) = (read(&changed, header + 12), read(&changed, linux + 12));
        assert!(address.unwrap() >= before.unwrap() + LINUX.content.len() as u32);
        let size = read(&changed, layout.optional + Layout::SIZE_OF_IMAGE).unwrap();
        assert!(size >= address.unwrap() + 3000 && size.is_multiple_of(0x1000));
        let sections = position_in(&head, changed.len() as u64, ".cmdline").unwrap().unwrap();
        assert!(sections.start.is_multiple_of(u64::from(ALIGNMENT)));
        assert!(replace(&mut head, 1 << 20, ".none", b"").is_err());
        assert!(position_in(&head, image.len() as u64, ".cmdline").is_err(), "cut short");
    }

    #[test]
    fn what_is_no_program_is_refused_and_never_panics() {
        let whole = sample_stub();
        for length in 0..0x400 {
            assert!(build(&whole[..length], &[OPTIONS]).is_err(), "{length}");
            let mut head = whole[..length].to_vec();
            let _ = replace(&mut head, length as u64, ".text", b"x");
        }
        let mut other = sample_stub();
        other[0] = b'E';
        assert!(matches!(build(&other, &[OPTIONS]), Err(UkiError::NotAProgram(_))));
    }
}
