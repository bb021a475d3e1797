//! Everything that boot tests share: emulators, images, kernels. Made once, before the first machine starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use runner::cases::{Case, Damage, GuestKind};
use runner::emulator::Emulators;

use super::download;
use crate::boot_disk::{self, Guest};
use crate::build::{self, Images};
use crate::disk_image::Entry;
use crate::guest::Extras;
use crate::setup::debian::{ChildKernel, Flavour};
use crate::workspace::Workspace;
use crate::{child, guest, root_disk, setup};

/// The parts, ready for any row.
pub struct Parts {
    /// The emulators and the firmware.
    pub emulators: Emulators,
    images: BTreeMap<Vec<String>, Images>,
    debian: BTreeMap<(Flavour, Extras), Guest>,
    programs: BTreeMap<GuestKind, PathBuf>,
    grub: Option<PathBuf>,
    root_disk: Option<root_disk::Parts>,
    locker: Option<PathBuf>,
    children: BTreeMap<BTreeSet<ChildKernel>, PathBuf>,
}

impl Parts {
    /// Obtains and builds what `cases` need, and nothing else.
    pub fn obtain<'a>(
        workspace: &Workspace,
        cases: impl Iterator<Item = &'a Case> + Clone,
    ) -> Result<Self> {
        let mut parts = Self {
            emulators: setup::emulators::obtain()?,
            images: BTreeMap::new(),
            debian: BTreeMap::new(),
            programs: BTreeMap::new(),
            grub: None,
            root_disk: None,
            locker: None,
            children: BTreeMap::new(),
        };
        for case in cases {
            match flavour(case.guest) {
                Some(flavour) if !parts.debian.contains_key(&(flavour, extras(case))) => {
                    let guest = guest::debian(workspace, flavour, extras(case), "")?;
                    parts.debian.insert((flavour, extras(case)), guest);
                }
                None if !parts.programs.contains_key(&case.guest) => {
                    let program = match case.guest {
                        GuestKind::Children => build::children(workspace)?,
                        _ => build::test_parent(workspace)?,
                    };
                    parts.programs.insert(case.guest, program);
                }
                _ => {}
            }
            if case.by_grub && parts.grub.is_none() {
                parts.grub = Some(setup::debian::grub()?);
            }
            let kernels = child_kernels(case)?;
            if !kernels.is_empty() && !parts.children.contains_key(&kernels) {
                let disk = child::disk(workspace, &kernels)?;
                parts.children.insert(kernels, disk);
            }
            if case.locked && parts.locker.is_none() {
                parts.locker = Some(build::locker(workspace)?);
            }
            if case.root_on_disk && parts.root_disk.is_none() {
                parts.root_disk = Some(root_disk::Parts::obtain(workspace)?);
            }
            if !case.bare && !parts.images.contains_key(&case.features) {
                let options = build::Options {
                    features: case.features.clone(),
                };
                let images = build::build(workspace, &options)?;
                parts.images.insert(case.features.clone(), images);
            }
        }
        Ok(parts)
    }

    /// The hypervisor that `case` boots.
    pub fn hypervisor(&self, case: &Case) -> Result<&Path> {
        let images = self.images.get(&case.features);
        Ok(&images.context("these features were not built")?.hypervisor)
    }

    /// The disk of `case`; `bare` overrules what the row says.
    pub fn disk(&self, case: &Case, bare: bool) -> Result<Vec<Entry>> {
        let guest = self.guest(case, bare)?;
        if bare {
            return boot_disk::bare(&guest, &self.emulators.firmware.boot_menu);
        }
        let images = self
            .images
            .get(&case.features)
            .context("these features were not built")?;
        let section = case
            .hypervisor
            .as_deref()
            .unwrap_or(boot_disk::HYPERVISOR_SECTION);
        let configuration = match &case.configuration {
            Some(text) => text.clone(),
            None => boot_disk::configuration(&guest, section),
        };
        let mut entries = boot_disk::with_hypervisor(images, &guest, &configuration)?;
        if let Some(damage) = case.damage {
            apply(damage, &mut entries);
        }
        if let (true, Some(locker)) = (case.locked, &self.locker) {
            boot_disk::put_before_loader(locker, images, &mut entries)?;
        }
        Ok(entries)
    }

    /// Moves what belongs there from `entries` to a root file system below `directory`, where `case` has one.
    pub fn root_on_disk(
        &self,
        case: &Case,
        directory: &Path,
        entries: &mut Vec<Entry>,
    ) -> Result<Option<PathBuf>> {
        match &self.root_disk {
            Some(parts) if case.root_on_disk => parts.make(directory, entries).map(Some),
            _ => Ok(None),
        }
    }

    /// The disk with what the children of `case` boot, where it has any.
    pub fn children(&self, case: &Case) -> Result<Option<&Path>> {
        Ok(self.children.get(&child_kernels(case)?).map(|path| &**path))
    }

    fn guest(&self, case: &Case, bare: bool) -> Result<Guest> {
        let arguments = case.arguments();
        let Some(flavour) = flavour(case.guest) else {
            return Ok(Guest::Program {
                image: self
                    .programs
                    .get(&case.guest)
                    .context("this program was not built")?
                    .clone(),
                command_line: arguments,
            });
        };
        let mut guest = self
            .debian
            .get(&(flavour, extras(case)))
            .context("this kernel was not obtained")?
            .clone();
        if let Guest::Linux { command_line, .. } = &mut guest {
            command_line.push_str(&test_words(case, &arguments, bare));
        }
        Ok(match (guest, &self.grub) {
            (
                Guest::Linux {
                    kernel,
                    initrd,
                    command_line,
                },
                Some(grub),
            ) if case.by_grub => Guest::LinuxByGrub {
                grub: grub.clone(),
                kernel,
                initrd,
                command_line,
            },
            (guest, _) => guest,
        })
    }
}

/// The words that tell Linux' first process which test to run.
fn test_words(case: &Case, arguments: &str, bare: bool) -> String {
    let mut words: Vec<&str> = arguments.split_whitespace().collect();
    let hash;
    if case.download {
        hash = download::hash();
        words.push(&hash);
    }
    if bare && !case.bare {
        words.push("bare"); // the comparison's other half; the test knows the word
    }
    let mut text = String::new();
    if let Some((test, rest)) = words.split_first() {
        text = format!(" vg.test={test} vg.args={}", rest.join(","));
    }
    if !case.append.is_empty() {
        text.push(' ');
        text.push_str(&case.append);
    }
    text
}

fn extras(case: &Case) -> Extras {
    Extras {
        tools: case.tools,
        programs: case.programs || !case.children.is_empty(),
    }
}

fn child_kernels(case: &Case) -> Result<BTreeSet<ChildKernel>> {
    case.children
        .iter()
        .map(|name| child::named(name))
        .collect()
}

fn flavour(guest: GuestKind) -> Option<Flavour> {
    match guest {
        GuestKind::Cloud | GuestKind::None => Some(Flavour::Cloud),
        GuestKind::Generic => Some(Flavour::Generic),
        GuestKind::TestParent | GuestKind::Children => None,
    }
}

fn apply(damage: Damage, entries: &mut Vec<Entry>) {
    let is = |entry: &Entry, names: &[&str]| names.iter().any(|name| entry.path().ends_with(name));
    let mut without = |names: &[&str]| entries.retain(|entry| !is(entry, names));
    match damage {
        Damage::NoConfiguration => without(&[".toml"]),
        Damage::NoHypervisor => without(&["hypervisor.elf"]),
        Damage::NoParent => without(&["vmlinuz", "parent.efi"]),
        Damage::NoInitrd => without(&["initrd.img"]),
        // The checksum would tell of these first, and the image's own checks would not be tried.
        Damage::ShortHypervisor | Damage::WrongHypervisor => without(&[".sha256"]),
        Damage::AlteredHypervisor => {}
    }
    for entry in entries
        .iter_mut()
        .filter(|entry| is(entry, &["hypervisor.elf"]))
    {
        let content = entry.content_mut();
        let middle = content.len() / 2;
        match damage {
            Damage::ShortHypervisor => content.truncate(middle),
            Damage::WrongHypervisor => content[..4].copy_from_slice(b"FLE\x7f"),
            Damage::AlteredHypervisor => content[middle] ^= 1,
            _ => {}
        }
    }
}
