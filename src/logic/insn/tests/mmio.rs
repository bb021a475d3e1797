//! Instructions as binutils assembles them, carried out against one device register.

use insn::{
    DecodeError, MmioBus, Mode, Progress, SegmentName, StringKind, Unsupported, Width, decode_mmio,
    execute,
};
use x86::{Gp, GpRegs, rflags};

/// One register, with a record of accesses.
#[derive(Default)]
struct Device {
    value: u64,
    accesses: Vec<(char, Width, u64)>,
}

impl MmioBus for Device {
    fn read(&mut self, width: Width) -> u64 {
        // All bits, so that a missing mask shows.
        self.accesses.push(('r', width, self.value));
        self.value
    }
    fn write(&mut self, width: Width, value: u64) {
        self.accesses.push(('w', width, value));
        self.value = value;
    }
}

const MEMORY: u64 = 0x7766_5544_3322_1180;

/// RAX is F0E0_D0C0_B0A0_9080, and each register after it has 1 more in each byte.
fn registers() -> GpRegs {
    GpRegs(core::array::from_fn(|index| {
        0xF0E0_D0C0_B0A0_9080 + index as u64 * 0x0101_0101_0101_0101
    }))
}

struct Case(&'static [u8], &'static str, Option<u64>, Option<(Gp, u64)>);

/// Bytes, what `objdump` shows, what is written to the device, what register changes.
#[rustfmt::skip]
const CASES_64: &[Case] = &[
    Case(&[0x8B, 0x43, 0x20], "mov eax,[rbx+0x20]", None, Some((Gp::Rax, 0x3322_1180))),
    Case(&[0x44, 0x89, 0x23], "mov [rbx],r12d", Some(0xBCAC_9C8C), None),
    Case(&[0x49, 0x8B, 0x45, 0x08], "mov rax,[r13+8]", None, Some((Gp::Rax, MEMORY))),
    Case(&[0x88, 0x27], "mov [rdi],ah", Some(0x90), None),
    Case(&[0x8A, 0x6C, 0x24, 0x04], "mov ch,[rsp+4]", None, Some((Gp::Rcx, 0xF1E1_D1C1_B1A1_8081))),
    Case(&[0x40, 0x88, 0x37], "mov [rdi],sil", Some(0x86), None),
    Case(&[0x66, 0x44, 0x8B, 0x08], "mov r9w,[rax]", None, Some((Gp::R9, 0xF9E9_D9C9_B9A9_1180))),
    Case(&[0xC7, 0x80, 0xB0, 0, 0, 0, 0, 0, 0, 0], "mov dword [rax+0xb0],0", Some(0), None),
    Case(&[0x48, 0xC7, 0x00, 0xFE, 0xFF, 0xFF, 0xFF], "mov qword [rax],-2", Some(0xFFFF_FFFF_FFFF_FFFE), None),
    Case(&[0xC6, 0x05, 0x10, 0, 0, 0, 0x7F], "mov byte [rip+0x10],0x7f", Some(0x7F), None),
    Case(&[0xA1, 0x20, 0, 0xE0, 0xFE, 0, 0, 0, 0], "movabs eax,[0xfee00020]", None, Some((Gp::Rax, 0x3322_1180))),
    Case(&[0xA3, 0xB0, 0, 0xE0, 0xFE, 0, 0, 0, 0], "movabs [0xfee000b0],eax", Some(0xB0A0_9080), None),
    Case(&[0x0F, 0xB6, 0x01], "movzx eax,byte [rcx]", None, Some((Gp::Rax, 0x80))),
    Case(&[0x4C, 0x0F, 0xB7, 0x01], "movzx r8,word [rcx]", None, Some((Gp::R8, 0x1180))),
    Case(&[0x0F, 0xBF, 0x11], "movsx edx,word [rcx]", None, Some((Gp::Rdx, 0x1180))),
    Case(&[0x0F, 0xBE, 0x11], "movsx edx,byte [rcx]", None, Some((Gp::Rdx, 0xFFFF_FF80))),
    Case(&[0x66, 0x0F, 0xBE, 0x01], "movsx ax,byte [rcx]", None, Some((Gp::Rax, 0xF0E0_D0C0_B0A0_FF80))),
    Case(&[0x48, 0x63, 0x11], "movsxd rdx,dword [rcx]", None, Some((Gp::Rdx, 0x3322_1180))),
    Case(&[0x87, 0x2E], "xchg [rsi],ebp", Some(0xB5A5_9585), Some((Gp::Rbp, 0x3322_1180))),
    Case(&[0x83, 0x01, 0x05], "add dword [rcx],5", Some(0x3322_1185), None),
    Case(&[0x81, 0x01, 0x78, 0x56, 0x34, 0x12], "add dword [rcx],0x12345678", Some(0x4556_67F8), None),
    Case(&[0x48, 0x83, 0x09, 0xFF], "or qword [rcx],-1", Some(u64::MAX), None),
    Case(&[0x44, 0x23, 0x11], "and r10d,[rcx]", None, Some((Gp::R10, 0xBAAA_9A8A & 0x3322_1180))),
    Case(&[0x18, 0x11], "sbb [rcx],dl", Some(0x80u8.wrapping_sub(0x82) as u64), None),
    Case(&[0x33, 0x44, 0x91, 0x10], "xor eax,[rcx+rdx*4+0x10]", None, Some((Gp::Rax, 0xB0A0_9080 ^ 0x3322_1180))),
    Case(&[0x80, 0x39, 0x80], "cmp byte [rcx],0x80", None, None),
    Case(&[0x48, 0x3B, 0x31], "cmp rsi,[rcx]", None, None),
    Case(&[0xF7, 0x01, 0, 1, 0, 0], "test dword [rcx],0x100", None, None),
    Case(&[0x84, 0x19], "test [rcx],bl", None, None),
    Case(&[0x66, 0xF7, 0x11], "not word [rcx]", Some(0xEE7F), None),
    Case(&[0x48, 0xF7, 0x19], "neg qword [rcx]", Some(MEMORY.wrapping_neg()), None),
    Case(&[0xFF, 0x01], "inc dword [rcx]", Some(0x3322_1181), None),
    Case(&[0xF0, 0x48, 0xFF, 0x09], "lock dec qword [rcx]", Some(MEMORY - 1), None),
    Case(&[0x0F, 0xBA, 0x21, 0x21], "bt dword [rcx],0x21", None, None),
    Case(&[0xF0, 0x48, 0x0F, 0xBA, 0x29, 0x3F], "lock bts qword [rcx],0x3f", Some(MEMORY | 1 << 63), None),
    Case(&[0x66, 0x0F, 0xBA, 0x31, 0x17], "btr word [rcx],0x17", Some(0x1100), None),
    Case(&[0x0F, 0xBA, 0x39, 0x01], "btc dword [rcx],1", Some(0x3322_1182), None),
    Case(&[0xF0, 0x0F, 0xB1, 0x11], "lock cmpxchg [rcx],edx", Some(0x3322_1180), Some((Gp::Rax, 0x3322_1180))),
    Case(&[0xF0, 0x4C, 0x0F, 0xC1, 0x01], "lock xadd [rcx],r8", Some(MEMORY.wrapping_add(0xF8E8_D8C8_B8A8_9888)), Some((Gp::R8, MEMORY))),
    Case(&[0x48, 0x0F, 0xC3, 0x01], "movnti [rcx],rax", Some(0xF0E0_D0C0_B0A0_9080), None),
];

#[rustfmt::skip]
const CASES_32: &[Case] = &[
    Case(&[0xA1, 0x20, 0, 0xE0, 0xFE], "mov eax,ds:0xfee00020", None, Some((Gp::Rax, 0x3322_1180))),
    Case(&[0x89, 0x15, 0xB0, 0, 0xE0, 0xFE], "mov ds:0xfee000b0,edx", Some(0xB2A2_9282), None),
    Case(&[0x66, 0x8B, 0x03], "mov ax,[ebx]", None, Some((Gp::Rax, 0xF0E0_D0C0_B0A0_1180))),
    Case(&[0x67, 0xC7, 0x00, 5, 0, 0, 0], "mov dword [bx+si],5", Some(5), None),
    Case(&[0x82, 0x01, 0xFF], "add byte [ecx],-1 (alias)", Some(0x7F), None),
];

#[rustfmt::skip]
const CASES_16: &[Case] = &[
    Case(&[0x66, 0x8B, 0x47, 0x02], "mov eax,[bx+2]", None, Some((Gp::Rax, 0x3322_1180))),
    Case(&[0x88, 0x11], "mov [bx+di],dl", Some(0x82), None),
    Case(&[0xA1, 0x34, 0x12], "mov ax,ds:0x1234", None, Some((Gp::Rax, 0xF0E0_D0C0_B0A0_1180))),
    Case(&[0x67, 0x66, 0x83, 0x00, 0x03], "add dword [eax],3", Some(0x3322_1183), None),
];

#[test]
fn instructions_do_what_they_say() {
    for (mode, cases) in [
        (Mode::Bits64, CASES_64),
        (Mode::Bits32, CASES_32),
        (Mode::Bits16, CASES_16),
    ] {
        for Case(bytes, text, written, changed) in cases {
            let insn = decode_mmio(bytes, mode).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            assert_eq!(usize::from(insn.length), bytes.len(), "{text}");
            let mut device = Device {
                value: MEMORY,
                ..Device::default()
            };
            let mut regs = registers();
            let mut flags = rflags::FIXED_1;
            assert_eq!(
                execute(&insn, &mut regs, &mut flags, &mut device),
                Ok(Progress::Done),
                "{text}"
            );
            let stores: Vec<_> = device
                .accesses
                .iter()
                .filter(|access| access.0 == 'w')
                .collect();
            assert_eq!(
                stores.iter().map(|access| access.2).next(),
                *written,
                "{text}"
            );
            assert!(
                stores.len() <= 1 && device.accesses.iter().all(|access| access.1 == insn.width),
                "{text}"
            );
            assert_eq!(insn.writes(), written.is_some(), "{text}");
            let mut expected = registers();
            if let Some((gp, value)) = changed {
                expected.set(*gp, *value);
            }
            assert_eq!(regs, expected, "{text}");
        }
    }
}

#[test]
fn what_is_not_emulated_is_refused() {
    let unsupported: &[&[u8]] = &[
        &[0x89, 0xC8],             // mov eax, ecx: no memory
        &[0x0F, 0x10, 0x01],       // movups xmm0, [rcx]
        &[0xC5, 0xFC, 0x10, 0x01], // vmovups ymm0, [rcx]
        &[0x0F, 0x7F, 0x01],       // movq [rcx], mm0
        &[0xD9, 0x01],             // fld dword [rcx]
        &[0xFF, 0x31],             // push [rcx]
        &[0xFF, 0x11],             // call [rcx]
        &[0x8C, 0x19],             // mov [rcx], ds
        &[0x0F, 0xA3, 0x01],       // bt [rcx], eax
        &[0x0F, 0xC7, 0x09],       // cmpxchg8b [rcx]
        &[0xF7, 0x21],             // mul dword [rcx]
        &[0xC1, 0x21, 4],          // shl dword [rcx], 4
        &[0xA6],                   // cmpsb
        &[0x6C],                   // insb
        &[0x90],                   // nop
    ];
    for bytes in unsupported {
        assert_eq!(
            decode_mmio(bytes, Mode::Bits64),
            Err(DecodeError::Unsupported),
            "{bytes:02x?}"
        );
    }
    let undefined: &[&[u8]] = &[
        &[0xF0, 0x89, 0x01],          // lock mov
        &[0xF0, 0x39, 0x01],          // lock cmp
        &[0xF0, 0x03, 0x01],          // lock add eax, [rcx]
        &[0xF0, 0x0F, 0xBA, 0x21, 1], // lock bt
        &[0xC7, 0x09, 0, 0, 0, 0],    // group 11, not MOV
        &[0x0F, 0xBA, 0x01, 1],       // group 8, first half
        &[0x66, 0x0F, 0xC3, 0x01],    // movnti with a prefix
        &[0x06],                      // push es
    ];
    for bytes in undefined {
        assert_eq!(
            decode_mmio(bytes, Mode::Bits64),
            Err(DecodeError::Undefined),
            "{bytes:02x?}"
        );
    }
    assert_eq!(
        decode_mmio(&[0x8B], Mode::Bits64),
        Err(DecodeError::Incomplete)
    );
}

#[test]
fn compare_exchange_that_succeeds_leaves_the_accumulator() {
    let insn = decode_mmio(&[0x0F, 0xB1, 0x11], Mode::Bits64).unwrap();
    let mut device = Device {
        value: 0xB0A0_9080,
        ..Device::default()
    };
    let (mut regs, mut flags) = (registers(), 0);
    assert_eq!(
        execute(&insn, &mut regs, &mut flags, &mut device),
        Ok(Progress::Done)
    );
    assert_eq!((device.value, regs), (0xB2A2_9282, registers()));
    assert_ne!(flags & rflags::ZF, 0);
}

#[test]
fn strings_go_one_element_at_a_time() {
    let stos = decode_mmio(&[0xF3, 0x66, 0xAB], Mode::Bits64).unwrap();
    let mut regs = registers();
    regs.set(Gp::Rcx, 2);
    regs.set(Gp::Rdi, 0x1000);
    let (mut flags, mut device) = (rflags::DF, Device::default());
    assert_eq!(
        execute(&stos, &mut regs, &mut flags, &mut device),
        Ok(Progress::Repeat)
    );
    assert_eq!((regs.get(Gp::Rcx), regs.get(Gp::Rdi)), (1, 0xFFE));
    assert_eq!(
        execute(&stos, &mut regs, &mut flags, &mut device),
        Ok(Progress::Done)
    );
    assert_eq!((regs.get(Gp::Rcx), regs.get(Gp::Rdi)), (0, 0xFFC));
    assert_eq!(device.accesses, [('w', Width::Word, 0x9080); 2]);
    // The count ran out: nothing more happens.
    assert_eq!(
        execute(&stos, &mut regs, &mut flags, &mut device),
        Ok(Progress::Done)
    );
    assert_eq!((device.accesses.len(), regs.get(Gp::Rdi)), (2, 0xFFC));

    // 16-bit addresses wrap within 16 bits and leave the rest of the register.
    let lods = decode_mmio(&[0xAC], Mode::Bits16).unwrap();
    let mut regs = registers();
    regs.set(Gp::Rsi, 0x1234_FFFF);
    let mut device = Device {
        value: MEMORY,
        ..Device::default()
    };
    assert_eq!(
        execute(&lods, &mut regs, &mut 0, &mut device),
        Ok(Progress::Done)
    );
    assert_eq!(
        (regs.get(Gp::Rsi), regs.get(Gp::Rax)),
        (0x1234_0000, 0xF0E0_D0C0_B0A0_9080)
    );
    assert_eq!(regs.get(Gp::Rcx), registers().get(Gp::Rcx));
}

#[test]
fn the_caller_handles_the_other_end_of_movs() {
    let movs = decode_mmio(&[0xF3, 0x65, 0x67, 0xA5], Mode::Bits64).unwrap();
    let op = movs.string().unwrap();
    assert_eq!(
        (op.kind, op.width, op.source_segment),
        (StringKind::Movs, Width::Dword, SegmentName::Gs)
    );
    let mut regs = registers();
    let (mut flags, mut device) = (0, Device::default());
    assert_eq!(
        execute(&movs, &mut regs, &mut flags, &mut device),
        Err(Unsupported)
    );
    assert_eq!(regs, registers());
    assert!(device.accesses.is_empty());
    regs.set(Gp::Rcx, 0xFFFF_FFFF_0000_0002);
    assert_eq!(
        (
            op.source_offset(&regs),
            op.destination_offset(&regs),
            op.count(&regs)
        ),
        (0xB6A6_9686, 0xB7A7_9787, 2)
    );
    assert!(op.advance(&mut regs, 0));
    assert_eq!(
        (
            op.source_offset(&regs),
            op.destination_offset(&regs),
            op.count(&regs)
        ),
        (0xB6A6_968A, 0xB7A7_978B, 1)
    );
    assert!(!op.advance(&mut regs, 0));
    let done = regs;
    assert!(!op.advance(&mut regs, 0));
    assert_eq!(regs, done);
}
