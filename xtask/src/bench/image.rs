//! The hypervisor's ELF file, section by section.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::abi::{SHF_ALLOC, SHT_NOBITS, STT_FUNC};
use elf::endian::LittleEndian;
use rustc_demangle::demangle;

/// A section that is in memory while the hypervisor runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, with the leading dot.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether the file holds it; what it does not hold is zeroed at launch.
    pub is_in_file: bool,
}

/// The sections of the file at `path` that are not empty.
pub fn sections(path: &Path) -> Result<Vec<Section>> {
    let file = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file)?;
    let (headers, names) = elf.section_headers_with_strtab()?;
    let (headers, names) = (
        headers.context("no section headers")?,
        names.context("no section names")?,
    );
    let mut sections = Vec::new();
    for header in headers {
        if header.sh_flags & u64::from(SHF_ALLOC) == 0 || header.sh_size == 0 {
            continue;
        }
        sections.push(Section {
            name: names.get(usize::try_from(header.sh_name)?)?.to_owned(),
            bytes: header.sh_size,
            is_in_file: header.sh_type != SHT_NOBITS,
        });
    }
    Ok(sections)
}

/// Bytes of code by crate, by the names in the symbol table. Code that was copied into another function counts there.
pub fn crates(path: &Path) -> Result<BTreeMap<String, u64>> {
    let file = fs::read(path)?;
    let elf = ElfBytes::<LittleEndian>::minimal_parse(&file)?;
    let (symbols, names) = elf.symbol_table()?.context("no symbols")?;
    let mut sizes = BTreeMap::new();
    for symbol in symbols
        .iter()
        .filter(|symbol| symbol.st_symtype() == STT_FUNC)
    {
        let name = demangle(names.get(usize::try_from(symbol.st_name)?)?);
        *sizes.entry(crate_of(&format!("{name:#}"))).or_default() += symbol.st_size;
    }
    Ok(sizes)
}

/// The crate in a demangled name: `<&spin::Mutex<..> as core::fmt::Debug>::fmt` is `spin`'s.
fn crate_of(name: &str) -> String {
    name.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .find(|word| !matches!(*word, "" | "mut" | "dyn" | "const"))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_belongs_to_the_crate_that_its_name_begins_with() {
        assert_eq!(crate_of("spin::mutex::lock"), "spin");
        assert_eq!(
            crate_of("<&mut bitflags::Iter<u8> as core::fmt::Debug>::fmt"),
            "bitflags"
        );
        assert!(crates(&std::env::current_exe().unwrap()).unwrap()["xtask"] > 0);
    }

    #[test]
    fn this_program_has_text_and_zeroed_data() {
        let sections = sections(&std::env::current_exe().unwrap()).unwrap();
        let is_there = |name| {
            sections
                .iter()
                .find(|section| section.name == name)
                .map(|section| section.is_in_file)
        };
        assert_eq!(
            (is_there(".text"), is_there(".bss")),
            (Some(true), Some(false))
        );
    }
}
