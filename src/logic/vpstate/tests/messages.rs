//! Intercept messages and the register page.

mod common;

use addr::{Gpa, Gva, PartitionId, VpIndex};
use common::Vp;
use proptest::prelude::*;
use tlfs::HvError;
use tlfs::intercept::{
    AccessType, CpuidIntercept, ExceptionIntercept, ExecutionState, InterceptHeader,
    IoPortIntercept, MemoryAccess, MemoryIntercept, MsrIntercept,
};
use tlfs::register::RegisterName as N;
use vpcore::seam::{IoAccess, SlatFault};
use vpstate::intercept::{Context, Instruction};
use vpstate::register_page::BYTES;
use x86::Gp;

/// 64-bit user code that stopped.
fn stopped() -> Vp {
    let mut vp = Vp::new();
    for (name, value) in [
        (N::CR0, 0x8005_0033),
        (N::EFER, 0xD01),
        (N::CS, 0xA0FB_0033_FFFF_FFFF << 64),
        (N::DS, 0xC0F3_002B_FFFF_FFFF << 64),
        (N::ES, 0xC0F3_002A_FFFF_FFFF << 64),
        (N::SS, 0xC0F3_0023_FFFF_FFFF << 64),
        (N::RIP, 0x40_1000),
        (N::RFLAGS, 0x246),
        (N::DR7, 0x401),
        (N::INTERRUPT_STATE, 1),
    ] {
        let _ = vp.registers().set(name, value).unwrap();
    }
    // The back end derives LMA.
    vp.backend.registers.insert("Efer".into(), 0xD01);
    for (index, value) in vp.backend.gp.0.iter_mut().enumerate() {
        *value = 0x1111 * (index as u64 + 1);
    }
    vp.backend.cpl = 3;
    vp
}

fn context(vp: &Vp, length: u8) -> Context {
    let who = (PartitionId::new(0x77), VpIndex::new(5));
    Context::new(who, &vp.backend, 9, length, false)
}

#[test]
fn a_port_access_has_all_that_a_vmm_needs_to_step_over_it() {
    let vp = stopped();
    let access = IoAccess {
        port: 0x3F8,
        width: 1,
        is_in: false,
        is_string: true,
        is_rep: true,
        next_rip: None,
    };
    let message = context(&vp, 2).port(&vp.backend, &access, &Instruction::new(&[0xF3, 0x6E]));
    assert_eq!((message.kind().0, message.origin()), (0x8001_0000, 0x77));
    let m = IoPortIntercept::decode(message.payload()).unwrap();
    assert_eq!(m.header.vp, VpIndex::new(5));
    assert_eq!(m.header.length_and_cr8, 0x92);
    assert_eq!(m.header.access, AccessType::Write);
    assert_eq!(
        m.header.state,
        ExecutionState::CPL
            | ExecutionState::PE
            | ExecutionState::AM
            | ExecutionState::DEBUG_ACTIVE
            | ExecutionState::LMA
            | ExecutionState::INTERRUPT_SHADOW
    );
    assert_eq!((m.header.rip, m.header.rflags), (0x40_1000, 0x246));
    assert_eq!(m.header.cs.selector, 0x33);
    assert_eq!(
        (m.port, m.info.bits(), m.instruction_count),
        (0x3F8, 0b1_1001, 2)
    );
    assert_eq!(m.instruction[..3], [0xF3, 0x6E, 0]);
    assert_eq!((m.ds.selector, m.es.selector), (0x2B, 0x2A));
    assert_eq!(
        [m.rax, m.rcx, m.rsi, m.rdi],
        [1, 2, 7, 8].map(|n| n * 0x1111)
    );
}

#[test]
fn memory_accesses_tell_mapped_from_unmapped_and_walks_from_fetches() {
    let vp = stopped();
    let fault = SlatFault {
        gpa: Gpa::new(0xFEC0_0010),
        gva: None,
        is_write: false,
        is_execute: true,
        is_protection: false,
        is_table_walk: false,
    };
    let bytes = Instruction::new(&[0x90; 20]);
    let decode = |fault: &SlatFault, is_mapped, gva| {
        let message = context(&vp, 0).memory(fault, is_mapped, gva, &bytes);
        (
            message.kind().0,
            MemoryIntercept::decode(message.payload()).unwrap(),
        )
    };
    let (kind, m) = decode(&fault, false, None);
    assert_eq!(
        (kind, m.header.access, m.cache_type),
        (0x8000_0000, AccessType::Execute, 0)
    );
    assert_eq!(
        (m.info, m.instruction_count, m.tpr),
        (MemoryAccess::empty(), 16, 9)
    );
    let walk = SlatFault {
        is_table_walk: true,
        ..fault
    };
    let (kind, m) = decode(&walk, true, Some(Gva::new(0x1234)));
    assert_eq!(
        (kind, m.header.access, m.cache_type),
        (0x8000_0001, AccessType::Read, 6)
    );
    assert_eq!(
        (m.info, m.gva.get(), m.gpa.get()),
        (MemoryAccess::GVA_VALID, 0x1234, 0xFEC0_0010)
    );
    let write = SlatFault {
        is_write: true,
        is_execute: false,
        ..fault
    };
    let (_, m) = decode(&write, true, Some(Gva::new(0x1234)));
    assert_eq!(m.header.access, AccessType::Write);
    assert_eq!(
        m.info,
        MemoryAccess::GVA_VALID | MemoryAccess::GVA_GPA_VALID
    );
}

#[test]
fn the_other_messages_have_their_types_and_fields() {
    let mut vp = stopped();
    vp.backend.gp.set(Gp::Rdx, 0xD);
    let context = context(&vp, 2);
    let message = context.msr(&vp.backend, 0x1234, true);
    assert_eq!(message.kind().0, 0x8001_0001);
    let m = MsrIntercept::decode(message.payload()).unwrap();
    assert_eq!(
        (m.msr, m.rdx, m.rax, m.header.access),
        (0x1234, 0xD, 0x1111, AccessType::Write)
    );

    let answer = x86::cpuid::CpuidResult {
        eax: 1,
        ebx: 2,
        ecx: 3,
        edx: 4,
    };
    let message = context.cpuid(&vp.backend, &answer);
    assert_eq!(message.kind().0, 0x8001_0002);
    let m = CpuidIntercept::decode(message.payload()).unwrap();
    assert_eq!(
        [m.default_rax, m.default_rbx, m.default_rcx, m.default_rdx],
        [1, 2, 3, 4]
    );
    assert_eq!((m.rax, m.rcx, m.rbx), (0x1111, 0x2222, 0x4444));

    let none = Instruction::default();
    let message = context.exception(&vp.backend, (14, Some(7)), 0xBAD, &none);
    assert_eq!(message.kind().0, 0x8001_0003);
    let m = ExceptionIntercept::decode(message.payload()).unwrap();
    assert_eq!(
        (m.vector, m.info.bits(), m.error_code, m.parameter),
        (14, 1, 7, 0xBAD)
    );
    assert_eq!((m.ss.selector, m.gp[15]), (0x23, 0x1_1110));
    let message = context.exception(&vp.backend, (3, None), 0, &none);
    let m = ExceptionIntercept::decode(message.payload()).unwrap();
    assert_eq!(
        (m.vector, m.info.bits()),
        (3, 2),
        "INT3 raises it by intent"
    );

    let message = context.unrecoverable();
    assert_eq!(
        (message.kind().0, message.payload().len()),
        (0x8000_0021, 40)
    );
    assert!(InterceptHeader::decode(message.payload()).is_ok());
    let message = context.invalid_state();
    assert_eq!(
        (message.kind().0, message.payload()),
        (0x8000_0020, &[5, 0, 0, 0, 0, 0, 0, 0][..])
    );
    let message = context.apic_eoi(0x31);
    assert_eq!(
        (message.kind().0, message.payload()),
        (0x8001_0004, &[5, 0, 0, 0, 0x31, 0, 0, 0][..])
    );
}

#[test]
fn the_page_shows_the_registers_and_takes_back_dirty_classes_only() {
    let mut vp = stopped();
    let _ = vp.registers().set(N::XMM0.nth(5), 0x55).unwrap();
    let mut page = vp.registers().page();
    assert_eq!(page[..8], [1, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(page[8..10], [0x11, 0x11]);
    assert_eq!(page[0x80..0x84], [0x10, 0x11, 1, 0]);
    assert_eq!(page[0x88..0x8B], [0, 0x10, 0x40]);
    assert_eq!(page[0xF0], 0x55);
    // CS is the second segment: limit, selector.
    assert_eq!(page[0x118..0x11E], [0xFF, 0xFF, 0xFF, 0xFF, 0x33, 0]);
    assert_eq!(page[0x160..0x164], [0x33, 0, 5, 0x80]);
    assert_eq!(page[0x1A8], 1);

    page[8] = 0x99;
    page[0x88] = 0x42;
    page[0x90] = 0x2;
    assert_eq!(vp.registers().apply_page(&page), Ok(()));
    assert_eq!(vp.registers().get(N::RAX), Ok(0x1111));
    page[4] = 0b1;
    assert_eq!(vp.registers().apply_page(&page), Ok(()));
    assert_eq!(vp.registers().get(N::RAX), Ok(0x1199));
    assert_eq!(vp.registers().get(N::RIP), Ok(0x40_1000));
    page[4] = 0b10010;
    assert_eq!(vp.registers().apply_page(&page), Ok(()));
    assert_eq!(vp.registers().get(N::RIP), Ok(0x40_1042));
    assert_eq!(vp.registers().get(N::RFLAGS), Ok(0x202));
}

#[test]
fn a_page_with_one_bad_register_changes_none() {
    let mut vp = stopped();
    let good = vp.registers().page();
    for (at, value) in [(0x8F, 0x70), (0x93, 0x80), (0x11F, 0x0F), (5, 1), (4, 0x3F)] {
        let mut page = good;
        page[4] = 0x1F;
        page[8] = 0x99;
        page[at] = value;
        assert_eq!(
            vp.registers().apply_page(&page),
            Err(HvError::INVALID_REGISTER_VALUE),
            "{at:#x}"
        );
        assert_eq!(vp.registers().page(), good);
    }
    let mut page = good;
    page[4] = 0x1F;
    assert_eq!(vp.registers().apply_page(&page), Ok(()));
    assert_eq!(vp.registers().page(), good);
}

proptest! {
    #[test]
    fn any_page_is_taken_whole_or_not_at_all(
        patches in proptest::collection::vec((0..BYTES, any::<u8>()), 0..40),
        dirty in 0_u8..0x20,
    ) {
        let mut vp = stopped();
        let before = vp.registers().page();
        let mut page = before;
        for (at, value) in patches {
            page[at] = value;
        }
        page[4..8].copy_from_slice(&[dirty, 0, 0, 0]);
        if vp.registers().apply_page(&page).is_err() {
            prop_assert_eq!(vp.registers().page(), before);
        } else {
            let mut after = vp.registers().page();
            // What is shown after it can be given back.
            after[4] = 0x1F;
            prop_assert!(vp.registers().apply_page(&after).is_ok());
        }
    }
}
