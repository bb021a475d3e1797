//! Where things lie in a child's first 2 MiB.

/// Page map level 4.
pub const PML4: u64 = 0x1000;
/// Page directory pointers of long mode.
pub const PDPT: u64 = 0x2000;
/// Four page directories: 4 GiB in leaves of 2 MiB.
pub const DIRECTORIES: u64 = 0x3000;
/// Page directory pointers of PAE mode.
pub const PAE_PDPT: u64 = 0x7000;
/// Page directory of 32-bit paging, in leaves of 4 MiB.
pub const LEGACY_DIRECTORY: u64 = 0x8000;
/// GDT.
pub const GDT: u64 = 0x9000;
/// IDT.
pub const IDT: u64 = 0xA000;
/// Payloads.
pub const CODE: u64 = 0x1_0000;
/// Each VP's [`Shared`](super::runtime::Shared), 4 KiB each.
pub const SHARED: u64 = 0x2_0000;
/// Pages that a child's program uses as it likes.
pub const PAGES: u64 = 0x6_0000;
/// The child's hypercall page.
pub const CALL_PAGE: u64 = PAGES;
/// Input of its hypercalls.
pub const CALL_INPUT: u64 = PAGES + 0x1000;
/// Output of its hypercalls.
pub const CALL_OUTPUT: u64 = PAGES + 0x2000;
/// Message page of VP 0; the others follow.
pub const MESSAGES: u64 = PAGES + 0x4000;
/// Event flags page.
pub const EVENTS: u64 = PAGES + 0x8000;
/// Reference TSC page.
pub const TSC_PAGE: u64 = PAGES + 0xC000;
/// VP assist page.
pub const ASSIST: u64 = PAGES + 0xD000;
/// Stacks of 16 KiB.
pub const STACKS: u64 = 0x8_0000;
/// Bytes of a stack.
pub const STACK: u64 = 0x4000;
/// Stacks that there are.
pub const MAX_VPS: u64 = 16;
/// Room for data, up to 2 MiB.
pub const DATA: u64 = 0x10_0000;

/// Selector of 64-bit code.
pub const CODE_64: u16 = 0x08;
/// Selector of data.
pub const DATA_32: u16 = 0x10;
/// Selector of 32-bit code.
pub const CODE_32: u16 = 0x18;
/// The table behind the selectors.
pub const DESCRIPTORS: [u64; 4] = [
    0,
    0x00AF_9B00_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00CF_9B00_0000_FFFF,
];

const _: () = assert!(STACKS + STACK * MAX_VPS <= 0xC_0000);
const _: () = assert!(SHARED + 64 * 0x1000 <= PAGES);
