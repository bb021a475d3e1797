//! The hypervisor's ELF file, section by section.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use elf::ElfBytes;
use elf::abi::{SHF_ALLOC, SHT_NOBITS};
use elf::endian::LittleEndian;

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

#[cfg(test)]
mod tests {
    use super::*;

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
