//! Calls about a VP's pages and states, and about statistics.

use alloc::vec::Vec;

use addr::{Gpn, VpIndex};
use tlfs::call::*;
use tlfs::{CallCode, HvError};

use super::PARAMETER;
use crate::arena::FRAME;
use crate::child::guest::Guest;
use crate::group::calls::NOBODY;
use crate::group::calls::case::Case;

/// The cases; `frames` are free for what they map.
pub fn cases(guest: &Guest, frames: &[u64]) -> Vec<Case> {
    let id = guest.id;
    let vp = VpIndex::new(0);
    let pfn = |n: usize| frames[n] / FRAME;
    let state = |kind| VpState {
        partition: id,
        kind,
        xsave_states: if kind == StateType::Xsave { 7 } else { 0 },
        ..VpState::default()
    };
    let stats = |area| StatsObject {
        of: StatsOf::Vp(id, vp),
        area,
    };
    let unstate = UnmapStatePage {
        partition: id,
        vp,
        kind: StatePageType::Registers,
        ..UnmapStatePage::default()
    };
    let page = MapStatePage {
        partition: id,
        vp,
        kind: StatePageType::Registers,
        is_placed: true,
        page: Gpn::new(guest.vps[0].registers / FRAME),
        ..MapStatePage::default()
    };
    alloc::vec![
        // The parent places its pages itself.
        Case::new(
            "MapStatsPage",
            CallCode::MAP_STATS_PAGE,
            &StatsPage {
                object: stats(StatsArea::Own)
            }
            .encode()
        )
        .own()
        .unmade()
        .wrong(23, 1, 0, PARAMETER)
        .wrong(23, 1, 1, PARAMETER),
        Case::new(
            "UnmapVpStatePage",
            CallCode::UNMAP_VP_STATE_PAGE,
            &unstate.encode()
        )
        .vp()
        .wrong(12, 2, 7, PARAMETER)
        .wrong(15, 1, 1, PARAMETER),
        Case::new(
            "MapVpStatePage",
            CallCode::MAP_VP_STATE_PAGE,
            &page.encode()
        )
        .vp()
        .wrong(12, 2, 7, PARAMETER)
        .wrong(15, 1, 2, PARAMETER)
        .bad(16, 8, 1 << 40)
        .bad(16, 8, 0xFEE00),
        Case::new(
            "GetVpState, APIC",
            CallCode::GET_VP_STATE,
            &state(StateType::Lapic).encode()
        )
        .header_pages(&frames[2..3])
        .vp()
        .wrong(16, 4, 0x8000_0009, PARAMETER)
        .bad(40, 8, 1 << 40),
        Case::new(
            "SetVpState, APIC",
            CallCode::SET_VP_STATE,
            &state(StateType::Lapic).encode()
        )
        .header_pages(&frames[2..3])
        .vp()
        .bad(40, 8, 1 << 40),
        Case::new(
            "GetVpState, xsave",
            CallCode::GET_VP_STATE,
            &state(StateType::Xsave).encode()
        )
        .header_pages(&frames[3..4])
        .vp()
        .bad(40, 8, 1 << 40),
        Case::new(
            "SetVpState, xsave",
            CallCode::SET_VP_STATE,
            &state(StateType::Xsave).encode()
        )
        .header_pages(&frames[3..4])
        .vp(),
        Case::new(
            "GetVpState, timers",
            CallCode::GET_VP_STATE,
            &state(StateType::Timers).encode()
        )
        .vp()
        .wrong(20, 4, 1, PARAMETER),
        Case::new(
            "MapStatsPage2",
            CallCode::MAP_STATS_PAGE_2,
            &MapStatsPage2 {
                object: stats(StatsArea::Own),
                page: Gpn::new(pfn(4))
            }
            .encode()
        )
        .own()
        .bad(0, 4, 9)
        .wrong(4, 4, 1, PARAMETER)
        .wrong(8, 8, NOBODY, HvError::INVALID_PARTITION_ID)
        .wrong(16, 4, 9, HvError::INVALID_VP_INDEX)
        .bad(23, 1, 2)
        .bad(24, 8, 1 << 40),
        Case::new(
            "UnmapStatsPage",
            CallCode::UNMAP_STATS_PAGE,
            &StatsPage {
                object: stats(StatsArea::Own)
            }
            .encode()
        )
        .own()
        .bad(0, 4, 9),
    ]
}
