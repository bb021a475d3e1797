use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;

use linux_loader::loader::bootparam::{boot_params, setup_header};
use vm_memory::{ByteValued, GuestMemoryMmap};

use super::*;

type Memory = GuestMemoryMmap<()>;

const MIB: u64 = 1 << 20;
const PREFERRED: u64 = 16 * MIB;
const INIT_BYTES: u32 = 40 << 20;
const SETUP_SECTORS: u8 = 3;

/// Memory of a child of `bytes`.
fn memory(bytes: u64) -> Memory {
    let regions = child_layout::layout(bytes).unwrap();
    let ranges: Vec<_> = regions
        .iter()
        .map(|region| (GuestAddress(region.gpa.get()), region.bytes as usize))
        .collect();
    Memory::from_ranges(&ranges).unwrap()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A bzImage with what a modern kernel's header says, changed by `change`, and 0xC3 as the kernel.
fn bzimage(change: impl FnOnce(&mut setup_header)) -> File {
    let mut header = setup_header {
        setup_sects: SETUP_SECTORS,
        boot_flag: 0xAA55,
        header: 0x5372_6448,
        version: 0x20F,
        loadflags: 1,
        code32_start: 0x10_0000,
        initrd_addr_max: 0x7FFF_FFFF,
        kernel_alignment: 0x20_0000,
        relocatable_kernel: 1,
        xloadflags: 1,
        cmdline_size: 2047,
        pref_address: PREFERRED,
        init_size: INIT_BYTES,
        ..setup_header::default()
    };
    change(&mut header);
    let setup_bytes = (usize::from(SETUP_SECTORS) + 1) * 512;
    let mut image = vec![0; setup_bytes];
    let bytes = header.as_slice();
    image[0x1F1..0x1F1 + bytes.len()].copy_from_slice(bytes);
    image.extend([0xC3; 10_000]);
    file(&image)
}

fn options(command_line: &str) -> Options<'_> {
    Options {
        vps: 2,
        command_line,
        seed: Some([7; 32]),
    }
}

fn zero_page(memory: &Memory) -> boot_params {
    memory.read_obj(GuestAddress(map::ZERO_PAGE)).unwrap()
}

/// The values that the registers have in the end.
fn last(state: &BootState) -> HashMap<RegisterName, u128> {
    state.registers.iter().copied().collect()
}

fn bytes_at<const N: usize>(memory: &Memory, at: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn word(memory: &Memory, at: u64) -> u64 {
    u64::from_le_bytes(bytes_at(memory, at))
}

/// Follows the page tables that VP 0 begins with.
fn translate(memory: &Memory, root: u64, linear: u64) -> Option<u64> {
    let mut table = root;
    for shift in [39, 30, 21] {
        let entry = word(memory, table + (linear >> shift & 511) * 8);
        if entry & 1 == 0 {
            return None;
        }
        table = entry & 0x000F_FFFF_FFFF_F000;
        if entry & 1 << 7 != 0 {
            return Some(table | linear & 0x1F_FFFF);
        }
    }
    None
}

#[test]
fn a_kernel_of_today_enters_in_64_bit_mode() {
    let memory = memory(128 * MIB);
    let mut initrd = file(&[0xA5; 5000]);
    let mut kernel = bzimage(|_| {});
    let state = load(&memory, &mut kernel, Some(&mut initrd), &options("a=1")).unwrap();

    let registers = last(&state);
    let value = |name| registers[&name] as u64;
    assert_eq!(value(RegisterName::RIP), PREFERRED + 0x200);
    assert_eq!(value(RegisterName::RSI), map::ZERO_PAGE);
    assert_eq!(value(RegisterName::RFLAGS), 2, "interrupts are off");
    assert_eq!(value(RegisterName::CR0), 0x8000_0031);
    assert_eq!(value(RegisterName::CR4), 0x20);
    assert_eq!(value(RegisterName::EFER), 0x500);
    let names: Vec<_> = state.registers.iter().map(|&(name, _)| name).collect();
    let place = |name| names.iter().rposition(|&other| other == name).unwrap();
    for needed in [RegisterName::EFER, RegisterName::CR4, RegisterName::CR3] {
        assert!(place(needed) < place(RegisterName::CR0), "{needed:?}");
    }
    let root = value(RegisterName::CR3);
    for linear in [0, map::ZERO_PAGE, PREFERRED, 0xFFFF_FFFF] {
        assert_eq!(translate(&memory, root, linear), Some(linear));
    }
    assert_eq!(translate(&memory, root, 1 << 32), None);
    let cs = registers[&RegisterName::CS];
    assert_eq!(cs >> 64, 0xA09B_0010_FFFF_FFFF, "flat 64-bit code");
    assert_eq!(registers[&RegisterName::SS] >> 64, 0xC093_0018_FFFF_FFFF);
    // The selectors are in the table, with the same meaning.
    assert_eq!(word(&memory, map::GDT + 0x10), 0x00AF_9B00_0000_FFFF);
    assert_eq!(word(&memory, map::GDT + 0x18), 0x00CF_9300_0000_FFFF);
    let gdt = registers[&RegisterName::GDTR];
    assert_eq!((gdt >> 64, gdt >> 48 & 0xFFFF), (map::GDT.into(), 47));

    assert_eq!(bytes_at(&memory, PREFERRED), [0xC3; 10_000]);
    let page = zero_page(&memory);
    let (rsdp, header) = (page.acpi_rsdp_addr, page.hdr);
    assert_eq!(&bytes_at(&memory, rsdp), b"RSD PTR ");
    assert_eq!(page.sentinel, 0);
    let line = header.cmd_line_ptr;
    assert_eq!(&bytes_at(&memory, line.into()), b"a=1\0");
    let (image, size) = (header.ramdisk_image, header.ramdisk_size);
    assert_eq!((image, size), (0x7FF_E000, 5000));
    assert_eq!(bytes_at(&memory, image.into()), [0xA5; 5000]);
    assert_eq!((header.type_of_loader, header.loadflags & 1), (0xFF, 1));
    let seed = header.setup_data;
    assert_eq!(word(&memory, seed), 0, "no further record");
    assert_eq!(word(&memory, seed + 8), 32 << 32 | 9);
    assert_eq!(bytes_at(&memory, seed + 16), [7; 32]);
}

#[test]
fn the_memory_map_has_the_legacy_hole_and_both_parts() {
    let parts = |bytes| {
        let memory = memory(bytes);
        load(&memory, &mut bzimage(|_| {}), None, &options("")).unwrap();
        let page = zero_page(&memory);
        let (table, count) = (page.e820_table, page.e820_entries);
        let entries = table[..count.into()].iter();
        let parts: Vec<_> = entries
            .map(|entry| (entry.addr, entry.size, entry.r#type))
            .collect();
        parts
    };
    let low = [(0, 0xA_0000, 1), (0xA_0000, 0x6_0000, 2)];
    assert_eq!(parts(512 * MIB)[..2], low);
    assert_eq!(parts(512 * MIB)[2..], [(MIB, 511 * MIB, 1)]);
    let rest = [(MIB, 3071 * MIB, 1), (4096 * MIB, 1024 * MIB, 1)];
    assert_eq!(parts(4096 * MIB)[2..], rest);
}

#[test]
fn a_kernel_without_a_64_bit_entry_enters_in_protected_mode() {
    let memory = memory(128 * MIB);
    let mut kernel = bzimage(|header| header.xloadflags = 0);
    let state = load(&memory, &mut kernel, None, &options("")).unwrap();
    let registers = last(&state);
    let value = |name| registers[&name] as u64;
    assert_eq!(value(RegisterName::RIP), PREFERRED);
    assert_eq!(value(RegisterName::RSI), map::ZERO_PAGE);
    for zero in [RegisterName::RBP, RegisterName::RDI, RegisterName::RBX] {
        assert_eq!(value(zero), 0);
    }
    assert_eq!(value(RegisterName::CR0), 0x31);
    assert_eq!(value(RegisterName::EFER) | value(RegisterName::CR4), 0);
    assert_eq!(registers[&RegisterName::CS] >> 64, 0xC09B_0010_FFFF_FFFF);
    assert_eq!(word(&memory, map::GDT + 0x10), 0x00CF_9B00_0000_FFFF);
}

#[test]
fn a_kernel_that_cannot_move_stays_where_it_says() {
    let memory = memory(128 * MIB);
    let mut kernel = bzimage(|header| header.relocatable_kernel = 0);
    let state = load(&memory, &mut kernel, None, &options("")).unwrap();
    assert_eq!(last(&state)[&RegisterName::RIP], 0x10_0200);
    let mut low = bzimage(|header| header.pref_address = 0x8000);
    let error = load(&memory, &mut low, None, &options("")).unwrap_err();
    assert!(matches!(error, LoadError::KernelPlace(0x8000)), "{error}");
}

/// An ELF file of the 64-bit class with one segment at `at`.
fn elf(at: u64, class: u8) -> File {
    let mut bytes = b"\x7FELF".to_vec();
    bytes.extend([class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for field in [at + 16, 64, 0] {
        bytes.extend(u64::to_le_bytes(field));
    }
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    bytes.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for field in [120, at, at, 64, 4 * MIB, 0x20_0000] {
        bytes.extend(u64::to_le_bytes(field));
    }
    bytes.extend([0x90; 64]);
    file(&bytes)
}

#[test]
fn an_elf_kernel_enters_where_it_says() {
    let memory = memory(64 * MIB);
    let mut initrd = file(&[1; 10]);
    let mut kernel = elf(PREFERRED, 2);
    let state = load(&memory, &mut kernel, Some(&mut initrd), &options("x")).unwrap();
    let rip = last(&state)[&RegisterName::RIP];
    assert_eq!(rip, (PREFERRED + 16).into());
    assert_eq!(bytes_at(&memory, PREFERRED), [0x90; 64]);
    let header = zero_page(&memory).hdr;
    let (magic, flag, image) = (header.header, header.boot_flag, header.ramdisk_image);
    assert_eq!((magic, flag), (0x5372_6448, 0xAA55));
    assert_eq!(image, 0x3FF_F000);
}

#[test]
fn what_cannot_be_loaded_is_named_with_its_cure() {
    let load = |memory_bytes, mut kernel, line: &str| {
        load(&memory(memory_bytes), &mut kernel, None, &options(line)).unwrap_err()
    };
    for other in [&b""[..], b"MZ", b"\x7FELF", &[0; 4096]] {
        let error = load(64 * MIB, file(other), "");
        assert!(matches!(error, LoadError::Kernel), "{error}");
    }
    let error = load(64 * MIB, elf(PREFERRED, 1), "");
    assert!(matches!(error, LoadError::Kernel), "{error}");
    let error = load(54 * MIB, bzimage(|_| {}), "");
    assert!(error.to_string().contains("memory = \"56M\""), "{error}");
    let error = load(8 * MIB, elf(PREFERRED, 2), "");
    assert!(matches!(error, LoadError::KernelContent(_)), "{error}");
    let error = load(64 * MIB, elf(0x1000, 2), "");
    assert!(matches!(error, LoadError::KernelContent(_)), "{error}");
    let long = "x".repeat(2048);
    for line in [&long[..], "a\0b"] {
        let error = load(64 * MIB, bzimage(|_| {}), line);
        assert!(matches!(error, LoadError::CommandLine { max: 2047, .. }));
        assert!(error.to_string().starts_with("command_line"), "{error}");
    }
}

#[test]
fn an_initrd_beside_which_the_kernel_has_no_room_is_refused() {
    let memory = memory(64 * MIB);
    let mut initrd = file(&[]);
    initrd.set_len(9 * MIB).unwrap();
    let mut kernel = bzimage(|_| {});
    let error = load(&memory, &mut kernel, Some(&mut initrd), &options("")).unwrap_err();
    assert!(matches!(error, LoadError::InitrdRoom { .. }), "{error}");
}

#[test]
fn machines_that_cannot_be_are_refused() {
    let mut kernel = bzimage(|_| {});
    for vps in [0, map::MAX_VPS + 1] {
        let options = Options { vps, ..options("") };
        let error = load(&memory(64 * MIB), &mut kernel, None, &options).unwrap_err();
        assert!(matches!(error, LoadError::Vps(_)), "{error}");
    }
    for ranges in [
        &[(GuestAddress(0), 0x1000)][..],
        &[(GuestAddress(0x20_0000), 0x20_0000)],
        &[
            (GuestAddress(0), 0x20_0000),
            (GuestAddress(0xD000_0000), 0x1000),
        ],
    ] {
        let memory = Memory::from_ranges(ranges).unwrap();
        let error = load(&memory, &mut kernel, None, &options("")).unwrap_err();
        assert!(matches!(error, LoadError::Memory), "{error}");
    }
}

/// Kernels that the development tools have fetched: those that children of the test rows boot.
#[test]
fn debian_kernels_load() {
    let Some(home) = std::env::var_os("HOME") else {
        return;
    };
    let Ok(entries) = PathBuf::from(home).join(".cache/verdigris").read_dir() else {
        eprintln!("not run: no kernels were fetched");
        return;
    };
    let modules = entries
        .flatten()
        .map(|entry| entry.path().join("usr/lib/modules"));
    let releases = modules
        .filter_map(|modules| modules.read_dir().ok())
        .flatten();
    for release in releases.flatten() {
        let path = release.path().join("vmlinuz");
        let Ok(mut kernel) = File::open(&path) else {
            continue;
        };
        let memory = memory(256 * MIB);
        let state = load(&memory, &mut kernel, None, &options("console=ttyS0")).unwrap();
        let registers = last(&state);
        assert_eq!(registers[&RegisterName::EFER], 0x500, "{path:?}");
        let header = zero_page(&memory).hdr;
        let (preferred, init_size) = (header.pref_address, header.init_size);
        assert_eq!(registers[&RegisterName::RIP], (preferred + 0x200).into());
        // The 64-bit entry begins with CLD, CLI.
        assert_eq!(
            bytes_at(&memory, preferred + 0x200),
            [0xFC, 0xFA],
            "{path:?}"
        );
        eprintln!("{}: {} MiB to begin with", path.display(), init_size >> 20);
    }
}
