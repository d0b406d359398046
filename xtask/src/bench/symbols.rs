// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which function of the kernel an address is in: the symbol table of `vmlinux`, an ELF file of 64 bits and little-endian.

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};

const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
/// `SHT_SYMTAB`.
const SYMBOL_TABLE: u32 = 2;
/// `SHF_EXECINSTR`, a flag of sections.
const EXECUTABLE: u64 = 4;

/// The symbols of code, in the order of their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbols {
    sorted: Vec<(u64, String)>,
}

impl Symbols {
    /// Those of the file `vmlinux`.
    pub(super) fn of(vmlinux: &Path) -> Result<Self> {
        let elf = fs::read(vmlinux).with_context(|| format!("reading {}", vmlinux.display()))?;
        Self::read(&elf).with_context(|| format!("reading the symbols of {}", vmlinux.display()))
    }

    /// Reads them from an ELF file.
    fn read(elf: &[u8]) -> Result<Self> {
        ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "it is no ELF file of 64 bits");
        let table = usize::try_from(number::<8>(elf, 0x28)?)?;
        let count = usize::try_from(number::<2>(elf, 0x3c)?)?;
        let header = |index: usize| table + index * SECTION_HEADER_BYTES;
        let section = |index: usize| -> Result<&[u8]> {
            let start = usize::try_from(number::<8>(elf, header(index) + 0x18)?)?;
            let size = usize::try_from(number::<8>(elf, header(index) + 0x20)?)?;
            let end = start.checked_add(size).context("a section is too long")?;
            elf.get(start..end).context("a section is cut off")
        };
        let mut index = 0;
        while number::<4>(elf, header(index) + 4)? != u64::from(SYMBOL_TABLE) {
            index += 1;
            ensure!(index < count, "it has no symbol table");
        }
        let names = section(usize::try_from(number::<4>(elf, header(index) + 0x28)?)?)?;
        let mut sorted = Vec::new();
        for symbol in section(index)?.chunks_exact(SYMBOL_BYTES) {
            let home = usize::try_from(number::<2>(symbol, 6)?)?;
            // 0 is no section, and from `count` up are numbers with other meanings.
            if home == 0 || home >= count || number::<8>(elf, header(home) + 8)? & EXECUTABLE == 0 {
                continue;
            }
            let name = names.get(usize::try_from(number::<4>(symbol, 0)?)?..).unwrap_or_default();
            let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
            // Sections have symbols without a name, and compilers make labels.
            if !name.is_empty() && !name.starts_with(b".L") {
                sorted.push((number::<8>(symbol, 8)?, String::from_utf8_lossy(name).into_owned()));
            }
        }
        Ok(Self::new(sorted))
    }

    /// From addresses and names. Of several names of one address, the first in the alphabet counts that has the fewest underscores
    /// before it.
    pub(super) fn new(mut sorted: Vec<(u64, String)>) -> Self {
        let rank = |name: &str| name.len() - name.trim_start_matches('_').len();
        sorted.sort_by(|(a, one), (b, other)| (a, rank(one), one).cmp(&(b, rank(other), other)));
        sorted.dedup_by_key(|(address, _)| *address);
        Self { sorted }
    }

    /// The number of the symbol whose code `address` is in.
    pub(super) fn number(&self, address: u64) -> Option<usize> {
        self.sorted.partition_point(|(start, _)| *start <= address).checked_sub(1)
    }

    /// Where a symbol begins, and its name.
    pub(super) fn get(&self, number: usize) -> (u64, &str) {
        let (address, name) = &self.sorted[number];
        (*address, name)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Where the symbol of that name begins.
    pub(super) fn address(&self, name: &str) -> Option<u64> {
        self.sorted.iter().find(|(_, one)| one == name).map(|(address, _)| *address)
    }
}

/// The little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<N>());
    let field = field.context("the file is cut off")?;
    Ok(field.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_the_symbol_before_it() {
        let named = |address, name: &str| (address, name.to_owned());
        let symbols = Symbols::new(vec![
            named(0x200, "schedule"),
            named(0x100, "__switch_to"),
            named(0x200, "__alias"),
            named(0x100, "alias"),
        ]);
        let at = |address| symbols.number(address).map(|number| symbols.get(number).1);
        assert_eq!([at(0xff), at(0x100), at(0x1ff)], [None, Some("alias"), Some("alias")]);
        assert_eq!(at(u64::MAX), Some("schedule"));
        assert_eq!(symbols.address("schedule"), Some(0x200));
        assert_eq!(symbols.len(), 2);
    }

    #[test]
    fn a_program_finds_its_own_functions() {
        let elf = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let symbols = Symbols::read(&elf).unwrap();
        assert!(symbols.address("main").is_some());
        assert!(Symbols::read(&elf[..elf.len() / 2]).is_err());
        assert!(Symbols::read(b"#!/bin/sh\n").is_err());
    }
}
