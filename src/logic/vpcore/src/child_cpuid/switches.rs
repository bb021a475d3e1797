//! Which bit of CPUID each processor feature of a partition switches (TLFS, `HV_PARTITION_PROCESSOR_FEATURES`,
//! `HV_PARTITION_PROCESSOR_XSAVE_FEATURES`). Features whose bit of a bank is not published are not here.

/// No feature bank has this bit.
const __: u8 = 0xFF;

/// For each bit of one register the processor feature that switches it: bank 0 in 0 to 63, bank 1 in 64 to 127, XSAVE
/// features in 128 to 191.
pub(super) struct Switches {
    pub(super) leaf: u32,
    pub(super) subleaf: u32,
    /// EAX to EDX.
    pub(super) register: usize,
    pub(super) features: [u8; 32],
}

const fn row(leaf: u32, subleaf: u32, register: usize, features: [u8; 32]) -> Switches {
    Switches {
        leaf,
        subleaf,
        register,
        features,
    }
}

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

#[rustfmt::skip]
pub(super) const SWITCHES: [Switches; 12] = [
    row(1, 0, ECX, [0, 17, __, __, __, __, __, __, __, 2, __, __, 132, 8, __, __,
        __, 18, __, 3, 4, __, 29, 7, 81, 16, 128, __, 130, 20, 21, __]),
    row(7, 0, EBX, [22, 82, __, 25, 36, 131, __, 23, 26, 24, 43, 37, __, 31, 133, __,
        134, 135, 32, 33, 35, 143, __, 39, 40, __, __, __, 136, 41, 137, 138]),
    row(7, 0, ECX, [__, 144, 58, __, __, 76, 145, 72, 147, 148, 150, 146, 142, __, 149, __,
        68, __, __, __, __, __, 57, __, __, 79, __, 77, 78, 75, __, __]),
    row(7, 0, EDX, [__, __, __, __, 49, __, __, __, 152, __, 60, __, __, __, 80, __,
        86, __, __, __, 73, __, 156, 153, 155, 157, 44, 45, 50, __, __, 48]),
    row(7, 1, EAX, [__, __, __, __, 158, 151, __, __, __, __, 83, 84, 85, __, __, __,
        __, __, __, __, __, __, __, 159, __, __, __, __, __, __, __, __]),
    row(7, 1, EDX, [__, __, __, __, 161, 160, __, __, __, __, 162, __, __, __, __, __,
        __, __, __, __, __, __, __, __, __, __, __, __, __, __, __, __]),
    row(7, 2, EDX, [71, __, __, __, __, __, __, __, __, __, __, __, __, __, __, __,
        __, __, __, __, __, __, __, __, __, __, __, __, __, __, __, __]),
    row(0xD, 1, EAX, [129, 139, 141, 140, 154, __, __, __, __, __, __, __, __, __, __, __,
        __, __, __, __, __, __, __, __, __, __, __, __, __, __, __, __]),
    row(0x8000_0001, 0, ECX, [1, __, __, __, 9, 10, 5, 11, 34, __, __, 6, __, __, __, __,
        19, __, __, __, __, __, __, __, __, __, __, __, __, __, __, __]),
    row(0x8000_0001, 0, EDX, [__, __, __, __, __, __, __, __, __, __, __, __, __, __, __, __,
        __, __, __, __, __, __, 12, __, __, __, 15, 38, __, __, 14, 13]),
    row(0x8000_0007, 0, EDX, [__, __, __, __, __, __, __, __, 65, __, __, __, __, __, __, __,
        __, __, __, __, __, __, __, __, __, __, __, __, __, __, __, __]),
    row(0x8000_0008, 0, EBX, [66, __, 42, __, 67, __, __, __, __, __, __, __, 46, __, 44, 45,
        __, __, __, __, __, __, __, __, 48, 56, __, __, 71, __, __, __]),
];
