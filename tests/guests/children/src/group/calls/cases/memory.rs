//! Calls about a child's memory.

use alloc::vec::Vec;

use addr::{Gpn, VpIndex};
use tlfs::CallCode;
use tlfs::call::*;

use super::PARAMETER;
use crate::arena::FRAME;
use crate::child::guest::Guest;
use crate::child::layout;
use crate::client::partition::RWX;
use crate::group::calls::case::{Case, words};

/// The cases; `frames` are free for what they map.
pub fn cases(guest: &Guest, frames: &[u64]) -> Vec<Case> {
    let id = guest.id;
    let vp = VpIndex::new(0);
    let pfn = |n: usize| frames[n] / FRAME;
    let base = Gpn::new(0x600);
    let map = MapGpaPages {
        partition: id,
        base,
        flags: RWX,
        ..MapGpaPages::default()
    };
    let unmap = UnmapGpaPages {
        partition: id,
        base,
        ..UnmapGpaPages::default()
    };
    let translate = Translate {
        partition: id,
        vp,
        flags: TranslateControl(TranslateFlags::READ),
        page: addr::Gvn::new(2),
        ..Translate::default()
    };
    let read = ReadGpa {
        partition: id,
        vp,
        bytes: AccessBytes::new(16),
        gpa: addr::Gpa::new(0x1000),
        ..ReadGpa::default()
    };
    let write = WriteGpa {
        to: ReadGpa {
            gpa: addr::Gpa::new(layout::DATA),
            ..read
        },
        data: [1; 16],
    };
    let marks = GetAccessStates {
        partition: id,
        base: Gpn::new(0x10),
        ..GetAccessStates::default()
    };
    alloc::vec![
        Case::new("MapGpaPages", CallCode::MAP_GPA_PAGES, &map.encode())
            .list(&words(&[pfn(0), pfn(1)]), 2)
            .bad(8, 8, u64::MAX)
            .bad(8, 8, 1 << 40)
            .bad(16, 4, 1 << 20)
            .bad(16, 4, 2)
            .bad(16, 4, 0x8000_000F),
        Case::new("UnmapGpaPages", CallCode::UNMAP_GPA_PAGES, &unmap.encode())
            .list(&[], 2)
            .bad(8, 8, u64::MAX)
            .bad(8, 8, 1 << 40)
            .bad(16, 4, 1),
        Case::new(
            "TranslateVirtualAddress",
            CallCode::TRANSLATE_VIRTUAL_ADDRESS,
            &translate.encode()
        )
        .vp()
        .wrong(12, 4, 1, PARAMETER)
        .wrong(16, 8, 1 << 20, PARAMETER),
        Case::new("ReadGpa", CallCode::READ_GPA, &read.encode())
            .vp()
            .wrong(12, 4, 17, PARAMETER)
            .wrong(25, 1, 1, PARAMETER),
        Case::new("WriteGpa", CallCode::WRITE_GPA, &write.encode())
            .vp()
            .wrong(12, 4, 17, PARAMETER),
        Case::new(
            "GetGpaPagesAccessStates",
            CallCode::GET_GPA_PAGES_ACCESS_STATES,
            &marks.encode()
        )
        .list(&[], 4)
        .out(1)
        .wrong(8, 8, 16, PARAMETER)
        .bad(16, 8, u64::MAX),
    ]
}
