use std::fs;
use std::process::Command;

use super::*;

/// The little-endian number of `bytes` at `at`.
fn number(table: &[u8], at: usize, bytes: usize) -> u64 {
    let digits = table[at..at + bytes].iter().rev();
    digits.fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// The table at `address`, whose checksum is right.
fn table(area: &[u8], address: u64) -> &[u8] {
    let start = (address - map::TABLES.start) as usize;
    let length = number(area, start + 4, 4) as usize;
    let table = &area[start..start + length];
    assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
    table
}

fn sum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0, |sum: u8, &byte| sum.wrapping_add(byte))
}

/// Tables as a kernel finds them.
struct Found {
    area: Vec<u8>,
    fadt: u64,
    madt: u64,
}

impl Found {
    fn for_vps(vps: u32) -> Self {
        let area = tables(vps);
        assert!(map::TABLES.start + area.len() as u64 <= map::TABLES.end);
        let rsdp = &area[..36];
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        assert_eq!((sum(&rsdp[..20]), sum(rsdp), rsdp[15]), (0, 0, 2));
        let xsdt = table(&area, number(rsdp, 24, 8));
        assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 16));
        let (fadt, madt) = (number(xsdt, 36, 8), number(xsdt, 44, 8));
        Self { area, fadt, madt }
    }

    fn fadt(&self) -> &[u8] {
        table(&self.area, self.fadt)
    }

    fn madt(&self) -> &[u8] {
        table(&self.area, self.madt)
    }

    fn dsdt(&self) -> &[u8] {
        table(&self.area, number(self.fadt(), 140, 8))
    }
}

#[test]
fn fixed_hardware_is_where_the_devices_have_it() {
    let found = Found::for_vps(2);
    let fadt = found.fadt();
    assert_eq!(&fadt[..4], b"FACP");
    assert_eq!(number(fadt, 46, 2), 9);
    assert_eq!(number(fadt, 48, 4), 0, "no SMI command: ACPI mode is on");
    let blocks = [56, 64, 76].map(|at| number(fadt, at, 4));
    assert_eq!(blocks, [0x400, 0x404, 0], "event, control, no timer");
    assert_eq!((fadt[88], fadt[89], fadt[91]), (4, 2, 0));
    // Address space, width, offset, access size, address.
    assert_eq!(fadt[148..152], [1, 32, 0, 2]);
    assert_eq!(number(fadt, 152, 8), 0x400);
    assert_eq!(fadt[172..176], [1, 16, 0, 2]);
    assert_eq!(number(fadt, 176, 8), 0x404);
    assert_eq!(fadt[116..120], [1, 8, 0, 1]);
    assert_eq!((number(fadt, 120, 8), fadt[128]), (0x433, 1), "reset");
    assert_eq!(number(fadt, 109, 2), 4, "no VGA, no 8042, a clock");
    let flags = number(fadt, 112, 4);
    assert_eq!(flags & (1 << 10 | 1 << 20 | 1 << 4), 1 << 10);
    assert_eq!(number(fadt, 40, 4), number(fadt, 140, 8), "both DSDTs");
    let facs = number(fadt, 36, 4);
    let facs = &found.area[(facs - map::TABLES.start) as usize..][..64];
    assert_eq!((&facs[..4], number(facs, 4, 4)), (&b"FACS"[..], 64));
}

#[test]
fn every_vp_has_its_apic() {
    for vps in [1, 2, 64, map::MAX_VPS] {
        let found = Found::for_vps(vps);
        let madt = found.madt();
        assert_eq!(&madt[..4], b"APIC");
        assert_eq!(number(madt, 36, 4), 0xFEE0_0000);
        assert_eq!(number(madt, 40, 4), 0, "no 8259s");
        let mut entries = &madt[44..];
        for vp in 0..vps as u8 {
            let (entry, rest) = entries.split_at(8);
            assert_eq!(entry, [0, 8, vp, vp, 1, 0, 0, 0]);
            entries = rest;
        }
        let (io_apic, sci) = entries.split_at(12);
        assert_eq!(io_apic[..4], [1, 12, vps as u8, 0]);
        assert_eq!(
            (number(io_apic, 4, 4), number(io_apic, 8, 4)),
            (0xFEC0_0000, 0)
        );
        assert_eq!(sci, [2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0]);
    }
}

#[test]
fn the_dsdt_names_what_linux_looks_for() {
    let found = Found::for_vps(1);
    let dsdt = found.dsdt();
    let has = |part: &[u8]| dsdt.windows(part.len()).any(|window| window == part);
    // \_S5 is a package whose first numbers are the type of soft off.
    assert!(has(b"\x08_S5_\x12"));
    assert!(has(b"_CID\x0DVMBus\0"));
    assert!(has(b"VMBS"));
    // PNP0501 and PNP0B00, packed.
    assert!(has(b"_HID\x0C\x41\xD0\x05\x01"));
    assert!(has(b"_HID\x0C\x41\xD0\x0B\x00"));
    // An empty resource template: the end tag and nothing else.
    assert!(has(b"_CRS\x11\x05\x0A\x02\x79\x00"));
    let window: Vec<u8> = [0xC000_0000_u32, 0xFDFF_FFFF, 0, 0x3E00_0000]
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .collect();
    assert!(has(&window));
}

/// Where the compiler of ACPI's source is installed, it must be able to read the tables, and to compile what it read.
#[test]
fn the_reference_compiler_reads_the_tables() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("not run: there is no iasl here");
        return;
    }
    let found = Found::for_vps(64);
    let folder = tempfile::tempdir().unwrap();
    for (name, table) in [
        ("dsdt", found.dsdt()),
        ("facp", found.fadt()),
        ("apic", found.madt()),
    ] {
        let binary = folder.path().join(format!("{name}.aml"));
        fs::write(&binary, table).unwrap();
        let run = |arguments: &[&str], file| {
            let output = Command::new("iasl")
                .args(arguments)
                .arg(&file)
                .current_dir(&folder)
                .output()
                .unwrap();
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(output.status.success(), "{name}: {text}");
            text
        };
        run(&["-d"], binary);
        let source = folder.path().join(format!("{name}.dsl"));
        let listing = fs::read_to_string(&source).unwrap();
        for complaint in ["Invalid", "Unknown", "Incorrect checksum", "/**** "] {
            assert!(!listing.contains(complaint), "{name}: {listing}");
        }
        if name == "dsdt" {
            // 6014: Microsoft writes the id of VMBus with small letters.
            let text = run(&["-vw", "6014", "-p", "again"], source);
            assert!(text.contains("0 Errors"), "{text}");
        }
    }
}
