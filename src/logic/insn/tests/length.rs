//! Lengths, compared with a decoder that others wrote and keep.

use insn::{DecodeError, LENGTH_MAX, Mode, length};
use proptest::prelude::*;
use yaxpeax_arch::LengthedInstruction;
use yaxpeax_x86::{long_mode, protected_mode, real_mode};

const MODES: [Mode; 3] = [Mode::Bits16, Mode::Bits32, Mode::Bits64];

/// Length and text of the instruction, by the other decoder.
fn reference(bytes: &[u8], mode: Mode) -> Option<(u8, String)> {
    Some(match mode {
        Mode::Bits16 => {
            let found = real_mode::InstDecoder::default().decode_slice(bytes).ok()?;
            (found.len().to_const() as u8, found.to_string())
        }
        Mode::Bits32 => {
            let found = protected_mode::InstDecoder::default()
                .decode_slice(bytes)
                .ok()?;
            (found.len().to_const() as u8, found.to_string())
        }
        Mode::Bits64 => {
            let found = long_mode::InstDecoder::default().decode_slice(bytes).ok()?;
            (found.len().to_const() as u8, found.to_string())
        }
    })
}

/// Legacy prefixes, then the rest.
fn split_prefixes(bytes: &[u8]) -> (&[u8], &[u8]) {
    const LEGACY: [u8; 11] = [
        0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65,
    ];
    bytes.split_at(
        bytes
            .iter()
            .take_while(|byte| LEGACY.contains(byte))
            .count(),
    )
}

/// The reference gives these the displacement of the default size in 16 and 32-bit modes. The processor and
/// binutils give them the size that the prefix says; see [`near_branches_follow_the_operand_size`].
fn is_near_branch_with_operand_size(bytes: &[u8]) -> bool {
    let (prefixes, rest) = split_prefixes(bytes);
    prefixes.contains(&0x66) && matches!(rest, [0xE8 | 0xE9, ..] | [0x0F, 0x80..=0x8F, ..])
}

/// These raise #UD (SDM vol. 2A, "VEX and the 66H, F2H, and F3H Prefixes"); the reference lets some pass.
fn is_vex_after_a_forbidden_prefix(bytes: &[u8]) -> bool {
    let (prefixes, rest) = split_prefixes(bytes);
    let (rex, rest) = rest.split_at(rest.iter().take_while(|byte| **byte >> 4 == 4).count());
    let forbidden = !rex.is_empty()
        || prefixes
            .iter()
            .any(|byte| [0x66, 0xF2, 0xF3, 0xF0].contains(byte));
    forbidden && matches!(rest, [0xC4 | 0xC5 | 0x62 | 0x8F, ..])
}

fn compare(bytes: &[u8], mode: Mode) -> Result<(), String> {
    let Some((expected, text)) = reference(bytes, mode) else {
        return Ok(());
    };
    let found = length(bytes, mode);
    if is_near_branch_with_operand_size(bytes) && mode != Mode::Bits64 {
        return Ok(());
    }
    if is_vex_after_a_forbidden_prefix(bytes) && found == Err(DecodeError::Undefined) {
        return Ok(());
    }
    if found == Ok(expected) {
        Ok(())
    } else {
        Err(format!(
            "{mode:?} {bytes:02x?} `{text}`: {found:?}, not {expected}"
        ))
    }
}

const PREFIXES: &[&[u8]] = &[
    &[],
    &[0x66],
    &[0x67],
    &[0xF2],
    &[0xF3],
    &[0x48],
    &[0x66, 0x48],
    &[0x48, 0x66],
    &[0x67, 0x66],
    &[0x2E, 0xF0],
    &[0x66, 0xF2],
];
const ESCAPES: &[&[u8]] = &[&[], &[0x0F], &[0x0F, 0x38], &[0x0F, 0x3A]];
/// Escapes and the first bytes of VEX, EVEX and XOP.
const STARTS: &[&[u8]] = &[
    &[],
    &[0x0F],
    &[0x0F, 0x38],
    &[0x0F, 0x3A],
    &[0xC5],
    &[0xC4],
    &[0x62],
    &[0x8F],
];
const TAIL: [u8; 10] = [0x25, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x11, 0x22];

/// Every opcode of the four maps, with prefixes and the shapes of ModRM and SIB.
#[test]
fn every_opcode_agrees_with_the_reference() {
    let step = std::env::var("INSN_MODRM_STEP")
        .ok()
        .and_then(|step| step.parse().ok())
        .unwrap_or(37);
    let mut wrong = Vec::new();
    for mode in MODES {
        for prefix in PREFIXES {
            for escape in ESCAPES {
                for opcode in 0..=255u8 {
                    for modrm in (0..=255u8)
                        .step_by(step)
                        .chain([0x04, 0x05, 0x06, 0x44, 0x84, 0x3F])
                    {
                        let bytes = [prefix, escape, &[opcode, modrm][..], &TAIL].concat();
                        wrong.extend(compare(&bytes, mode).err());
                    }
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong
            .iter()
            .step_by(wrong.len() / 40 + 1)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_agree_with_the_reference(
        prefix in prop::sample::select(PREFIXES),
        escape in prop::sample::select(STARTS),
        rest in any::<[u8; 12]>(),
        mode in prop::sample::select(&MODES[..]),
    ) {
        let bytes = [prefix, escape, &rest].concat();
        if let Err(text) = compare(&bytes, mode) {
            prop_assert!(false, "{}", text);
        }
    }

    /// Never longer than allowed, and every shorter piece asks for more.
    #[test]
    fn lengths_are_bounded_and_prefixes_incomplete(bytes in any::<[u8; 20]>(), mode in prop::sample::select(&MODES[..])) {
        match length(&bytes, mode) {
            Ok(len) => {
                prop_assert!(len >= 1 && usize::from(len) <= LENGTH_MAX);
                prop_assert_eq!(length(&bytes[..usize::from(len)], mode), Ok(len));
                for shorter in 0..usize::from(len) {
                    prop_assert_eq!(length(&bytes[..shorter], mode), Err(DecodeError::Incomplete));
                }
            }
            Err(error) => prop_assert_ne!(error, DecodeError::Incomplete),
        }
    }
}

#[test]
fn sixteen_bytes_are_too_many() {
    let mut bytes = [0x66; 16];
    assert_eq!(
        length(&bytes[..15], Mode::Bits64),
        Err(DecodeError::TooLong)
    );
    assert_eq!(
        length(&bytes[..14], Mode::Bits64),
        Err(DecodeError::Incomplete)
    );
    bytes[14] = 0x90;
    assert_eq!(length(&bytes, Mode::Bits32), Ok(15));
    assert_eq!(length(&[], Mode::Bits32), Err(DecodeError::Incomplete));
}

#[test]
fn instructions_that_exit() {
    let cases: &[(&[u8], u8)] = &[
        (&[0x0F, 0xA2], 2),       // cpuid
        (&[0x0F, 0x30], 2),       // wrmsr
        (&[0x0F, 0x32], 2),       // rdmsr
        (&[0x0F, 0x31], 2),       // rdtsc
        (&[0x0F, 0x33], 2),       // rdpmc
        (&[0x0F, 0x01, 0xF9], 3), // rdtscp
        (&[0xF4], 1),             // hlt
        (&[0x0F, 0x01, 0xC1], 3), // vmcall
        (&[0x0F, 0x01, 0xD9], 3), // vmmcall
        (&[0x0F, 0x01, 0xD1], 3), // xsetbv
        (&[0x0F, 0x01, 0xC8], 3), // monitor
        (&[0x0F, 0x01, 0xC9], 3), // mwait
        (&[0x0F, 0x01, 0xD8], 3), // vmrun
        (&[0x0F, 0x01, 0xDF], 3), // invlpga
        (&[0x0F, 0x08], 2),       // invd
        (&[0x0F, 0x09], 2),       // wbinvd
        (&[0xF3, 0x0F, 0x09], 3), // wbnoinvd
        (&[0xF3, 0x90], 2),       // pause
        (&[0xE6, 0x80], 2),       // out 0x80, al
        (&[0xED], 1),             // in eax, dx
        (&[0x66, 0xEF], 2),       // out dx, ax
        (&[0xF3, 0x6C], 2),       // rep insb
        (&[0x0F, 0x22, 0xC0], 3), // mov cr0, eax
        (&[0x0F, 0x20, 0x18], 3), // mov eax, cr3 with a mod field that does not count
        (&[0x0F, 0x01, 0x38], 3), // invlpg [eax]
        (&[0x66, 0x0F, 0xA2], 3), // cpuid with a prefix that means nothing
        (&[0x0F, 0x06], 2),       // clts
        (&[0x0F, 0xAA], 2),       // rsm
    ];
    for (bytes, expected) in cases {
        for mode in [Mode::Bits32, Mode::Bits64] {
            assert_eq!(length(bytes, mode), Ok(*expected), "{bytes:02x?} {mode:?}");
        }
    }
}

/// As `objdump -D -b binary -m i8086` and `-m i386` show them.
#[test]
fn near_branches_follow_the_operand_size() {
    let jump = [0x66, 0xE9, 1, 2, 3, 4];
    assert_eq!(length(&jump, Mode::Bits16), Ok(6));
    assert_eq!(length(&jump, Mode::Bits32), Ok(4));
    let conditional = [0x66, 0x0F, 0x84, 1, 2, 3, 4];
    assert_eq!(length(&conditional, Mode::Bits16), Ok(7));
    assert_eq!(length(&conditional, Mode::Bits32), Ok(5));
}
