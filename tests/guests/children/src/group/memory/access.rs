//! The parent's reads, writes and translations.

use machine::verdict::{check, equal};
use tlfs::CallCode;
use tlfs::call::*;

use super::BASE;
use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::call;
use crate::group::{need, stopped};

/// The parent reads and writes guest memory through the calls 53 and 54.
pub fn access(guest: &mut Guest) {
    let read = |guest: &Guest, gpa| {
        let input = ReadGpa {
            partition: guest.id,
            bytes: AccessBytes::new(16),
            gpa: addr::Gpa::new(gpa),
            ..ReadGpa::default()
        };
        call::ask::<24>(CallCode::READ_GPA, &input.encode())
    };
    guest.write(crate::child::layout::DATA, 0x1234_5678);
    check(
        "access: read",
        read(guest, crate::child::layout::DATA)
            .is_ok_and(|out| out[0] == 0 && out[8..12] == 0x1234_5678_u32.to_le_bytes()),
    );
    check(
        "access: unmapped",
        read(guest, BASE).is_ok_and(|out| out[0] == AccessGpaCode::Unmapped as u8),
    );
    need("access: no access", guest.map_no_access(BASE, 1));
    check(
        "access: without access",
        read(guest, BASE).is_ok_and(|out| out[0] == AccessGpaCode::ReadIntercept as u8),
    );
    need("access: unmap", guest.unmap(BASE, 1));
    let mut data = [0; 16];
    data[..8].copy_from_slice(&0xFEED_F00D_u64.to_le_bytes());
    let input = WriteGpa {
        to: ReadGpa {
            partition: guest.id,
            bytes: AccessBytes::new(8),
            gpa: addr::Gpa::new(crate::child::layout::DATA + 8),
            ..ReadGpa::default()
        },
        data,
    };
    check(
        "access: write",
        call::ask::<8>(CallCode::WRITE_GPA, &input.encode()).is_ok_and(|out| out[0] == 0),
    );
    equal(
        "access: in memory",
        guest.read(crate::child::layout::DATA + 8),
        0xFEED_F00D,
    );
}

/// Addresses of the child, with and without its page tables.
pub fn translate(guest: &mut Guest) {
    need(
        "translate: start",
        guest.start(0, Mode::Long, code::out_64, &[]),
    );
    stopped("translate: stopped", guest.run(0));
    let ask = |guest: &Guest, gva: u64, flags| {
        let input = Translate {
            partition: guest.id,
            flags: TranslateControl(flags),
            page: addr::Gva::new(gva).page(),
            ..Translate::default()
        };
        call::ask::<16>(CallCode::TRANSLATE_VIRTUAL_ADDRESS, &input.encode())
    };
    let out = ask(
        guest,
        0x1_2345,
        TranslateFlags::READ | TranslateFlags::WRITE,
    );
    check(
        "translate: an address",
        out.is_ok_and(|out| out[0] == 0 && out[8..] == 0x12_u64.to_le_bytes()),
    );
    let out = ask(guest, 0x7FFF_0000_0000, TranslateFlags::READ);
    check(
        "translate: not present",
        out.is_ok_and(|out| out[0] == TranslateCode::NotPresent as u8),
    );
}
