use addr::VpIndex;
use tlfs::intercept::{ExecutionState, InterceptHeader};
use x86::Segment;

use super::*;

fn devices() -> Devices {
    Devices::new(
        1,
        Box::new(std::io::sink()),
        Box::new(|_| {}),
        Box::new(|| 0),
    )
}

fn intercept(access: AccessType, port: u16, width: u8, rax: u64) -> IoPortIntercept {
    let mut instruction = [0; 16];
    // in or out with DX, of a byte or more.
    instruction[0] = 0xEC | u8::from(width > 1) | u8::from(access == AccessType::Write) << 1;
    IoPortIntercept {
        header: InterceptHeader {
            vp: VpIndex::new(0),
            length_and_cr8: 0xF1,
            access,
            state: ExecutionState::PE | ExecutionState::LMA,
            cs: Segment {
                attributes: Segment::LONG,
                ..Segment::default()
            },
            rip: 0xFFFF_FFFF_8100_0000,
            rflags: 2,
        },
        port,
        info: PortAccess::from_bits_retain(width),
        instruction_count: 1,
        reserved: Default::default(),
        rax,
        instruction,
        ds: Segment::default(),
        es: Segment::default(),
        rcx: 0,
        rsi: 0,
        rdi: 0,
    }
}

#[test]
fn in_changes_as_much_of_rax_as_hardware_does() {
    for (width, rax) in [
        (1, 0x1111_2222_3333_44FF),
        (2, 0x1111_2222_3333_FFFF),
        (4, 0xFFFF_FFFF),
    ] {
        let read = intercept(AccessType::Read, 0xCFC, width, 0x1111_2222_3333_4444);
        let completion = Completion {
            rip: 0xFFFF_FFFF_8100_0001,
            rax,
            outcome: Outcome::Nothing,
        };
        assert_eq!(carry_out(&read, &mut devices()), Ok(completion));
    }
}

#[test]
fn out_keeps_rax_and_says_what_it_asks_for() {
    let mut off = intercept(AccessType::Write, 0x404, 2, 0xABCD_2001);
    // An older hypervisor may leave the length to the reader.
    off.header.length_and_cr8 = 0;
    let completion = Completion {
        rip: 0xFFFF_FFFF_8100_0001,
        rax: 0xABCD_2001,
        outcome: Outcome::PowerOff,
    };
    assert_eq!(carry_out(&off, &mut devices()), Ok(completion));
}

#[test]
fn what_is_not_an_in_or_out_is_refused() {
    let mut string = intercept(AccessType::Write, 0x3F8, 1, 0);
    string.info |= PortAccess::STRING;
    assert_eq!(carry_out(&string, &mut devices()), Err(PortError::String));
    for width in [0, 3, 5, 7] {
        let odd = intercept(AccessType::Read, 0x3F8, width, 0);
        assert_eq!(carry_out(&odd, &mut devices()), Err(PortError::Malformed));
    }
    let mut unknown = intercept(AccessType::Read, 0x3F8, 1, 0);
    unknown.header.length_and_cr8 = 0;
    unknown.instruction_count = 200;
    assert_eq!(
        carry_out(&unknown, &mut devices()),
        Err(PortError::Malformed)
    );
}
