//! The states of a partition, and what each allows.

use addr::PartitionId;
use machine::verdict::{check, equal};
use tlfs::call::*;
use tlfs::{CallCode, HvError};

use super::fast;
use crate::arena;
use crate::client::call::{self, code};
use crate::client::partition::{Child, Gone, RWX, USUAL, children};
use crate::group::{clean, fails, need, refused};

fn create_vp(child: &Child) -> Result<(), HvError> {
    let input = CreateVp {
        partition: child.id,
        ..CreateVp::default()
    };
    call::simple(CallCode::CREATE_VP, &input.encode())
}

/// What is refused before, between and after the states' calls.
pub fn states() {
    const STATE: HvError = HvError::INVALID_PARTITION_STATE;
    equal(
        "life: there is no child at first",
        children().len() as u64,
        0,
    );
    let Some(mut child) = need("life: a partition is created", Child::create(USUAL)) else {
        return;
    };
    let id = child.id;
    check(
        "life: its id is neither none, nor all, nor the parent's",
        !matches!(id.get(), 0 | 1 | u64::MAX),
    );
    check("life: it is the one child", children() == [id]);
    refused(
        "life: a VP before it is initialized",
        create_vp(&child),
        STATE,
    );
    fails(
        "life: memory before it is initialized",
        child.map_once(0, &[arena::frame()], RWX).status,
    );
    need("life: it is initialized", child.initialize());
    refused(
        "life: but not twice",
        fast(CallCode::INITIALIZE_PARTITION, id),
        STATE,
    );
    refused(
        "life: it cannot be deleted while it lives",
        fast(CallCode::DELETE_PARTITION, id),
        STATE,
    );
    need("life: a VP is created", child.create_vp(0));
    let again = child.feed(create_vp);
    fails("life: but not twice", again);
    need(
        "life: it is finalized",
        fast(CallCode::FINALIZE_PARTITION, id),
    );
    refused("life: no VP after that", create_vp(&child), STATE);
    fails("life: no registers after that", child.resume(0));
    // Linux unmaps after that, and ignores the answer.
    let _ = child.unmap_once(0, 1, UnmapFlags::empty());
    let early = fast(CallCode::DELETE_PARTITION, id);
    fails(
        "life: it cannot be deleted while its pool has frames",
        early,
    );
    let mut gone = Gone::default();
    child.withdraw_all(&mut gone);
    gone.delete = code(fast(CallCode::DELETE_PARTITION, id));
    clean("life: the first child", gone);
    for (name, code) in [
        ("initialize", CallCode::INITIALIZE_PARTITION),
        ("finalize", CallCode::FINALIZE_PARTITION),
        ("delete", CallCode::DELETE_PARTITION),
    ] {
        refused(
            format_args!("life: {name} of one that is gone"),
            fast(code, id),
            HvError::INVALID_PARTITION_ID,
        );
    }
    check("life: nobody is listed any more", children().is_empty());
    // Created, never initialized.
    if let Some(child) = need("life: another is created", Child::create(USUAL)) {
        clean("life: one that was never initialized", child.destroy());
    }
    for id in [0, 1, 2, u64::MAX, 1 << 63, id.get() ^ 1 << 40] {
        let result = fast(CallCode::FINALIZE_PARTITION, PartitionId::new(id));
        fails(format_args!("life: partition {id:#x} is no child"), result);
    }
}
