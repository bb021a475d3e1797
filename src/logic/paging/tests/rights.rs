//! Access rights: page faults and their error codes.

mod guest;

use guest::{ADDRESS, LONG, NX, P, U, W, code, four_levels};
use paging::walk::{Access, PagingState, pf};
use x86::{cr0, cr4, efer, rflags};

#[test]
fn rights_of_user_and_supervisor() {
    let user = PagingState { cpl: 3, ..LONG };
    let read_only = four_levels(0x5000 | P | U);
    assert_eq!(code(&user, &read_only, ADDRESS, Access::Read), None);
    assert_eq!(
        code(&user, &read_only, ADDRESS, Access::Write),
        Some(pf::PRESENT | pf::WRITE | pf::USER)
    );
    assert_eq!(
        code(&LONG, &read_only, ADDRESS, Access::Write),
        Some(pf::PRESENT | pf::WRITE)
    );
    let no_wp = PagingState {
        cr0: cr0::PG | cr0::PE,
        ..LONG
    };
    assert_eq!(code(&no_wp, &read_only, ADDRESS, Access::Write), None);

    let kernel = four_levels(0x5000 | P | W | NX);
    assert_eq!(
        code(&user, &kernel, ADDRESS, Access::Read),
        Some(pf::PRESENT | pf::USER)
    );
    assert_eq!(code(&user, &kernel, ADDRESS, Access::ImplicitRead), None);
    assert_eq!(code(&user, &kernel, ADDRESS, Access::ImplicitWrite), None);
    assert_eq!(
        code(&LONG, &kernel, ADDRESS, Access::Execute),
        Some(pf::PRESENT | pf::FETCH)
    );
    let no_nx = PagingState {
        efer: efer::LMA,
        ..LONG
    };
    assert_eq!(
        code(&no_nx, &kernel, ADDRESS, Access::Read),
        Some(pf::PRESENT | pf::RESERVED)
    );

    // An absent entry: no PRESENT; the fetch bit is there because NX is on.
    let absent = four_levels(0);
    assert_eq!(
        code(&LONG, &absent, ADDRESS, Access::Execute),
        Some(pf::FETCH)
    );
    assert_eq!(code(&no_nx, &absent, ADDRESS, Access::Execute), Some(0));
    assert_eq!(
        code(&user, &absent, ADDRESS, Access::Write),
        Some(pf::WRITE | pf::USER)
    );
}

#[test]
fn smep_and_smap() {
    let page = four_levels(0x5000 | P | W | U);
    let smep = PagingState {
        cr4: cr4::PAE | cr4::SMEP,
        ..LONG
    };
    assert_eq!(code(&LONG, &page, ADDRESS, Access::Execute), None);
    assert_eq!(
        code(&smep, &page, ADDRESS, Access::Execute),
        Some(pf::PRESENT | pf::FETCH)
    );
    assert_eq!(
        code(
            &PagingState { cpl: 3, ..smep },
            &page,
            ADDRESS,
            Access::Execute
        ),
        None
    );
    let smap = PagingState {
        cr4: cr4::PAE | cr4::SMAP,
        ..LONG
    };
    let ac = PagingState {
        rflags: rflags::AC,
        ..smap
    };
    assert_eq!(code(&smap, &page, ADDRESS, Access::Read), Some(pf::PRESENT));
    assert_eq!(
        code(&smap, &page, ADDRESS, Access::Write),
        Some(pf::PRESENT | pf::WRITE)
    );
    assert_eq!(code(&ac, &page, ADDRESS, Access::Write), None);
    assert_eq!(
        code(&ac, &page, ADDRESS, Access::ImplicitRead),
        Some(pf::PRESENT)
    );
    assert_eq!(code(&smap, &page, ADDRESS, Access::Execute), None);
    assert_eq!(
        code(
            &PagingState { cpl: 3, ..smap },
            &page,
            ADDRESS,
            Access::Read
        ),
        None
    );
}

#[test]
fn protection_keys() {
    let page = four_levels(0x5000 | P | W | U | 5 << 59);
    let keyed = |cpl, pkru| PagingState {
        cr4: cr4::PAE | cr4::PKE,
        cpl,
        pkru,
        ..LONG
    };
    let no_write = 2 << 10;
    let no_access = 1 << 10;
    assert_eq!(
        code(&keyed(3, no_write), &page, ADDRESS, Access::Read),
        None
    );
    let refused = Some(pf::PRESENT | pf::KEY | pf::WRITE | pf::USER);
    assert_eq!(
        code(&keyed(3, no_write), &page, ADDRESS, Access::Write),
        refused
    );
    assert_eq!(
        code(&keyed(0, no_access), &page, ADDRESS, Access::Read),
        Some(pf::PRESENT | pf::KEY)
    );
    assert_eq!(
        code(&keyed(3, no_access), &page, ADDRESS, Access::Execute),
        None
    );
    assert_eq!(
        code(&keyed(3, !(3 << 10)), &page, ADDRESS, Access::Write),
        None
    );
    let kernel = four_levels(0x5000 | P | W | 5 << 59);
    let pks = PagingState {
        cr4: cr4::PAE | cr4::PKS,
        pkrs: no_access,
        pkru: 0,
        ..LONG
    };
    assert_eq!(
        code(&pks, &kernel, ADDRESS, Access::Read),
        Some(pf::PRESENT | pf::KEY)
    );
    assert_eq!(code(&pks, &page, ADDRESS, Access::Read), None);
}

#[test]
fn reserved_address_bits() {
    let narrow = PagingState {
        phys_bits: 36,
        ..LONG
    };
    let page = four_levels(1 << 36 | P | W | U);
    assert_eq!(code(&LONG, &page, ADDRESS, Access::Read), None);
    assert_eq!(
        code(&narrow, &page, ADDRESS, Access::Write),
        Some(pf::PRESENT | pf::RESERVED | pf::WRITE)
    );
}
