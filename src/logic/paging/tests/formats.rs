//! The bits of entries, written out by hand from the manuals.

use addr::Spa;
use paging::{Attributes, Backing, Entry, Format, HOST_PAT, MemoryType, PageSize};

const SPA: Spa = Spa::new(0x0000_1234_4000_0000);

#[test]
fn ept_entries() {
    assert_eq!(
        Format::Ept.leaf(SPA, PageSize::Size4K, Attributes::RWX),
        0x0000_1234_4000_0337
    );
    assert_eq!(
        Format::Ept.leaf(SPA, PageSize::Size2M, Attributes::RWX),
        0x0000_1234_4000_03B7
    );
    let device = Attributes::RW.with_type(MemoryType::Uncacheable);
    assert_eq!(
        Format::Ept.leaf(SPA, PageSize::Size1G, device),
        0x0000_1234_4000_0383
    );
    assert_eq!(Format::Ept.table(SPA), 0x0000_1234_4000_0007);
    assert!(!Format::Ept.is_present(Format::Ept.leaf(SPA, PageSize::Size4K, Attributes::NONE)));
}

/// Accessed and dirty are preset where there is access; what the owner notes lies where processors do not look.
#[test]
fn notes_of_the_owner() {
    fn check(format: Format, accessed: u64, dirty: u64) {
        assert_eq!((format.accessed(), format.dirty()), (accessed, dirty));
        let leaf = |attributes| format.leaf(SPA, PageSize::Size4K, attributes);
        let plain = leaf(Attributes::RW);
        assert_eq!(plain & (accessed | dirty), accessed | dirty);
        assert_eq!(leaf(Attributes::NONE) & (accessed | dirty), 0);
        let with = |backing| leaf(Attributes::RW.with_backing(backing)) ^ plain;
        assert_eq!(with(Backing::Counted), 1 << 59);
        assert_eq!(with(Backing::Overlay), 1 << 62);
    }
    check(Format::Ept, 1 << 8, 1 << 9);
    check(Format::Npt, 1 << 5, 1 << 6);
    check(Format::Host, 1 << 5, 1 << 6);
}

#[test]
fn npt_entries() {
    // P, W, U, A, D; NX only where execution is refused.
    assert_eq!(
        Format::Npt.leaf(SPA, PageSize::Size4K, Attributes::RWX),
        0x0000_1234_4000_0067
    );
    assert_eq!(
        Format::Npt.leaf(SPA, PageSize::Size2M, Attributes::RWX),
        0x0000_1234_4000_00E7
    );
    assert_eq!(
        Format::Npt.leaf(SPA, PageSize::Size4K, Attributes::RO),
        0x8000_1234_4000_0065
    );
    assert_eq!(Format::Npt.table(SPA) & 0xFFF, 0x27);
    assert!(!Format::Npt.is_present(Format::Npt.leaf(SPA, PageSize::Size2M, Attributes::NONE)));
}

#[test]
fn host_entries() {
    let global = Attributes {
        global: true,
        ..Attributes::RX
    };
    assert_eq!(
        Format::Host.leaf(SPA, PageSize::Size4K, global),
        0x0000_1234_4000_0161
    );
    assert_eq!(
        Format::Host.leaf(SPA, PageSize::Size2M, Attributes::RW),
        0x8000_1234_4000_00E3
    );
    let user = Attributes {
        user: true,
        ..Attributes::RWX
    };
    assert_eq!(
        Format::Host.leaf(SPA, PageSize::Size4K, user) & 0xFFF,
        0x067
    );
}

/// The PAT index in a host entry picks the type that the entry was made with.
#[test]
fn the_pat_agrees_with_the_entries() {
    for kind in [0u8, 1, 4, 5, 6] {
        let kind = MemoryType::from_number(kind).unwrap();
        for (size, pat_bit) in [
            (PageSize::Size4K, 7),
            (PageSize::Size2M, 12),
            (PageSize::Size1G, 12),
        ] {
            let entry = Format::Host.leaf(SPA, size, Attributes::RW.with_type(kind));
            let index = (entry >> 3 & 3) | (entry >> pat_bit & 1) << 2;
            assert_eq!(
                HOST_PAT.to_le_bytes()[index as usize],
                kind as u8,
                "{kind:?}"
            );
        }
    }
}

#[test]
fn what_is_written_reads_back() {
    fn check(format: Format) {
        for size in [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G] {
            for bits in 0..32u32 {
                let write = bits & 2 != 0;
                let execute = bits & 4 != 0;
                let read = bits & 1 != 0 || write || execute;
                for kind in [0u8, 1, 4, 5, 6] {
                    let attributes = Attributes {
                        read,
                        write,
                        execute,
                        user: bits & 8 != 0,
                        global: bits & 16 != 0,
                        memory_type: MemoryType::from_number(kind).unwrap(),
                        backing: [Backing::Plain, Backing::Counted, Backing::Overlay]
                            [bits as usize % 3],
                    };
                    let entry = format.leaf(SPA, size, attributes);
                    assert_eq!(
                        format.decode(entry, Some(size)),
                        Entry::Leaf(SPA, format.keep(attributes))
                    );
                    assert_eq!(format.is_present(entry), read);
                }
            }
            if size != PageSize::Size4K {
                assert_eq!(
                    format.decode(format.table(SPA), Some(size)),
                    Entry::Table(SPA)
                );
            }
        }
        assert_eq!(format.decode(format.table(SPA), None), Entry::Table(SPA));
        for size in [None, Some(PageSize::Size4K), Some(PageSize::Size1G)] {
            assert_eq!(format.decode(0, size), Entry::Empty);
        }
    }
    check(Format::Host);
    check(Format::Npt);
    check(Format::Ept);
}
