//! Kernel modules: finding them, what they depend on, and the tables that `modprobe` reads.
//!
//! Debian's packages leave these tables to `depmod` at installation, which there is none of here. A module says
//! itself what it needs, in its `.modinfo` section: strings `depends=a,b` and `alias=pattern`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::cpio::Archive;
use crate::setup::debian::Kernel;

/// One module, ready to be loaded.
struct Module {
    /// The object file, not compressed.
    content: Vec<u8>,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// Adds the modules of `kernel` that are `wanted`, with the tables; the archive has `lib` already.
pub fn add(archive: &mut Archive, kernel: &Kernel, wanted: &[&str]) -> Result<()> {
    let modules = closure(&kernel.modules, wanted)?;
    ensure!(
        !modules.is_empty(),
        "no module found in {}",
        kernel.modules.display()
    );
    let base = format!("lib/modules/{}", kernel.release);
    archive.directory("lib/modules");
    archive.directory(&base);
    for (name, module) in &modules {
        archive.file(&format!("{base}/{name}.ko"), 0o644, &module.content);
    }
    for (table, text) in [
        ("modules.dep", dependencies(&modules)),
        ("modules.alias", aliases(&modules)),
    ] {
        archive.file(&format!("{base}/{table}"), 0o644, text.as_bytes());
    }
    Ok(())
}

/// `wanted` and everything they depend on, by name. A name that this kernel has no module of is left out: it is
/// either built in or not part of the flavour.
fn closure(directory: &Path, wanted: &[&str]) -> Result<BTreeMap<String, Module>> {
    let mut files = BTreeMap::new();
    collect(&directory.join("kernel"), &mut files)?;
    let mut queue: VecDeque<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
    let mut modules = BTreeMap::new();
    while let Some(name) = queue.pop_front() {
        if modules.contains_key(&name) {
            continue;
        }
        if let Some(path) = files.get(&name) {
            let module = load(path).with_context(|| format!("reading {}", path.display()))?;
            queue.extend(module.depends.iter().cloned());
            modules.insert(name, module);
        }
    }
    Ok(modules)
}

fn collect(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?
    {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if let Some((stem, _)) = name.split_once(".ko") {
            files.insert(stem.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn load(path: &Path) -> Result<Module> {
    let mut content = Vec::new();
    let file = BufReader::new(File::open(path)?);
    if path.extension().is_some_and(|extension| extension == "xz") {
        lzma_rust2::XzReader::new(file, true).read_to_end(&mut content)?;
    } else {
        BufReader::new(file).read_to_end(&mut content)?;
    }
    let information = modinfo(&content).context("it is not a kernel module")?;
    let values = |key: &str| {
        information
            .split(|&byte| byte == 0)
            .filter_map(|text| std::str::from_utf8(text).ok()?.strip_prefix(key))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let depends = values("depends=")
        .iter()
        .flat_map(|names| names.split(','))
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect();
    let aliases = values("alias=");
    Ok(Module {
        content,
        depends,
        aliases,
    })
}

/// The `.modinfo` section of a little-endian ELF file of either class.
fn modinfo(elf: &[u8]) -> Option<&[u8]> {
    let u16_at = |at: usize| {
        Some(usize::from(u16::from_le_bytes(
            *elf.get(at..)?.first_chunk()?,
        )))
    };
    let u32_at =
        |at: usize| usize::try_from(u32::from_le_bytes(*elf.get(at..)?.first_chunk()?)).ok();
    let u64_at =
        |at: usize| usize::try_from(u64::from_le_bytes(*elf.get(at..)?.first_chunk()?)).ok();
    let is_wide = match elf.get(..6)? {
        b"\x7fELF\x02\x01" => true,
        b"\x7fELF\x01\x01" => false,
        _ => return None,
    };
    let word = |wide_at: usize, narrow_at: usize| match is_wide {
        true => u64_at(wide_at),
        false => u32_at(narrow_at),
    };
    // The section headers: their place, their size, their number, and which of them has the names.
    let table = word(0x28, 0x20)?;
    let at = if is_wide { 0x3a } else { 0x2e };
    let (size, count, names) = (u16_at(at)?, u16_at(at + 2)?, u16_at(at + 4)?);
    let header = |number: usize| table.checked_add(number.checked_mul(size)?);
    let place = |header: usize| word(header + 0x18, header + 0x10);
    let names = place(header(names)?)?;
    (0..count).find_map(|number| {
        let header = header(number)?;
        let name = elf.get(names.checked_add(u32_at(header)?)?..)?;
        if !name.starts_with(b".modinfo\0") {
            return None;
        }
        let start = place(header)?;
        let length = word(header + 0x20, header + 0x14)?;
        elf.get(start..start.checked_add(length)?)
    })
}

/// The content of `modules.dep`: each module with everything that must be loaded before it, nearest first.
fn dependencies(modules: &BTreeMap<String, Module>) -> String {
    let mut text = String::new();
    for name in modules.keys() {
        let mut before = Vec::new();
        let mut queue = VecDeque::from([name]);
        while let Some(next) = queue.pop_front() {
            for needed in modules.get(next).map_or(&[][..], |module| &module.depends) {
                // A module met again moves behind the later one that needs it.
                before.retain(|known| *known != needed);
                before.push(needed);
                queue.push_back(needed);
            }
        }
        let _ = write!(text, "{name}.ko:");
        for needed in before
            .iter()
            .filter(|needed| modules.contains_key(**needed))
        {
            let _ = write!(text, " {needed}.ko");
        }
        text.push('\n');
    }
    text
}

/// What is asked for by alias: drivers of devices on these buses, and file systems. A short table is read sooner.
const KINDS: [&str; 4] = ["pci:", "virtio:", "vmbus:", "fs-"];

/// The content of `modules.alias`.
fn aliases(modules: &BTreeMap<String, Module>) -> String {
    let mut text = String::new();
    for (name, module) in modules {
        let is_wanted = |alias: &&String| KINDS.iter().any(|kind| alias.starts_with(kind));
        for alias in module.aliases.iter().filter(is_wanted) {
            let _ = writeln!(text, "alias {alias} {name}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &[&str]) -> Module {
        Module {
            content: Vec::new(),
            depends: depends.iter().map(|name| (*name).to_owned()).collect(),
            aliases: Vec::new(),
        }
    }

    #[test]
    fn a_shared_dependency_comes_last() {
        let modules = BTreeMap::from([
            ("top".to_owned(), module(&["base", "middle"])),
            ("middle".to_owned(), module(&["base"])),
            ("base".to_owned(), module(&[])),
        ]);
        assert!(dependencies(&modules).contains("top.ko: middle.ko base.ko\n"));
    }

    #[test]
    fn something_else_is_not_a_module() {
        assert!(modinfo(b"").is_none());
        assert!(modinfo(b"\x7fELF\x02\x01").is_none());
        assert!(modinfo(&[0xff; 100]).is_none());
    }
}
