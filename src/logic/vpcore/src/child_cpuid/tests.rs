use super::*;
use proptest::prelude::*;

const fn regs(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
    CpuidResult { eax, ebx, ecx, edx }
}

/// A processor with everything, leaf 0xD as Intel's have it.
fn host(leaf: u32, subleaf: u32) -> CpuidResult {
    match (leaf, subleaf) {
        (0, _) => regs(0x24, 1, 2, 3),
        (0x8000_0000, _) => regs(0x8000_0028, 0, 0, 0),
        (0xD, 0) => regs(0x6_02FF, 0, 11008, 0),
        (0xD, 1) => regs(0x1F, 5000, 0x1900, 0),
        (0xD, 2) => regs(256, 576, 0, 0),
        (0xD, 3 | 4) => regs(64, 960, 0, 0),
        (0xD, 5) => regs(64, 1088, 0, 0),
        (0xD, 6) => regs(512, 1152, 0, 0),
        (0xD, 7) => regs(1024, 1664, 0, 0),
        (0xD, 9) => regs(8, 2688, 0, 0),
        (0xD, 17) => regs(64, 2752, 2, 0),
        (0xD, 18) => regs(8192, 2816, 6, 0),
        (0xD, _) => regs(0, 0, 0, 0),
        (4, 0) => regs(0xFC00_4121, 0x01C0_003F, 0x3F, 0),
        (4, 3) => regs(0xFC1F_C163, 0x01C0_003F, 0x3F, 4),
        (4, _) => regs(0, 0, 0, 0),
        (0x8000_0008, _) => regs(0x3030, !0, 0x703F, 0),
        _ => regs(!0, !0, !0, !0),
    }
}

fn view(overrides: &[RegisterCpuidResult]) -> ChildView<'_> {
    ChildView {
        vp: VpIndex::new(5),
        per_socket: 4,
        disabled: [0; 3],
        x2apic: true,
        tsc_deadline: true,
        apic_enabled: true,
        cr4: 0,
        xcr0: 1,
        missing: Missing::default(),
        physical_bits: 40,
        hypervisor_present: true,
        overrides,
    }
}

fn see(leaf: u32, subleaf: u32, view: &ChildView<'_>) -> CpuidResult {
    child(leaf, subleaf, host, view)
}

#[test]
fn what_a_child_cannot_have_is_not_there() {
    let v = view(&[]);
    let one = see(1, 0, &v);
    // VMX, SMX, EIST, TM2, PDCM, MONITOR, DTES64, DS-CPL, debug of the silicon.
    assert_eq!(
        one.ecx & (1 << 2 | 1 << 3 | 1 << 4 | 0xF << 5 & !(1 << 9) | 1 << 11 | 1 << 15),
        0
    );
    assert_ne!(one.ecx & (1 << 21), 0);
    let seven = see(7, 0, &v);
    assert_eq!(seven.ebx & (1 << 2 | 1 << 12 | 1 << 15 | 1 << 25), 0);
    assert_eq!(seven.ecx & (1 << 5 | 1 << 7 | 1 << 13 | 1 << 31), 0);
    assert_eq!(
        seven.edx & (1 << 18 | 1 << 20 | 1 << 22 | 1 << 24 | 1 << 25),
        0
    );
    for leaf in [
        5,
        6,
        0xA,
        0xF,
        0x10,
        0x12,
        0x14,
        0x15,
        0x16,
        0x19,
        0x1C,
        0x1F,
        0x23,
        0x8000_000A,
        0x8000_001F,
        0x8000_0022,
        0x8000_0026,
    ] {
        assert_eq!(see(leaf, 0, &v), CpuidResult::default(), "{leaf:#x}");
    }
    assert_eq!(see(0x8000_0001, 0, &v).ecx & (1 << 2 | 1 << 29), 0);
    assert_eq!(see(0x8000_0007, 0, &v), regs(0, 0, 0, 1 << 8));
    assert_eq!(see(0, 0, &v).eax, 0x16);
    assert_eq!(see(0x8000_0000, 0, &v).eax, 0x8000_0021);
    assert_eq!(see(0x8000_0008, 0, &v).eax & 0xFF, 40);
}

#[test]
fn extended_state_has_the_components_of_a_page() {
    let mut v = view(&[]);
    let main = see(0xD, 0, &v);
    assert_eq!(main, regs(0x2E7, 576, 2696, 0));
    assert_eq!(see(0xD, 1, &v), regs(0xF, 576, 0, 0));
    v.xcr0 = 0x2E7;
    assert_eq!((see(0xD, 0, &v).ebx, see(0xD, 1, &v).ebx), (2696, 2440));
    v.xcr0 = 7;
    assert_eq!((see(0xD, 0, &v).ebx, see(0xD, 1, &v).ebx), (832, 832));
    for gone in [3, 4, 8, 17, 18, 63, 64, 1 << 20] {
        assert_eq!(see(0xD, gone, &v), CpuidResult::default(), "{gone}");
    }
    assert_eq!(see(0xD, 9, &v), host(0xD, 9));
    v.disabled[2] = 1 << 2;
    assert_eq!(see(0xD, 0, &v).eax, 0x203);
    assert_eq!(see(1, 0, &v).ecx & 1 << 28, 0);
    v.disabled[2] = 1;
    assert_eq!(see(0xD, 0, &v), CpuidResult::default());
}

#[test]
fn disabled_features_disappear_and_no_others() {
    let mut v = view(&[]);
    let (one, seven) = (see(1, 0, &v), see(7, 0, &v));
    // SSE4.2, AES; SMAP.
    v.disabled = [1 << 4 | 1 << 16 | 1 << 35, 0, 0];
    assert_eq!(see(1, 0, &v).ecx, one.ecx & !(1 << 20 | 1 << 25));
    assert_eq!(see(7, 0, &v).ebx, seven.ebx & !(1 << 20));
    // LA57, TSC deadline; AVX-512.
    v.disabled = [0, 1 << 4 | 1 << 17, 1 << 6];
    assert_eq!(see(7, 0, &v).ecx, seven.ecx & !(1 << 16));
    assert_eq!(see(1, 0, &v).ecx, one.ecx & !(1 << 24));
    assert_eq!(see(7, 0, &v).ebx, seven.ebx & !(1 << 16));
}

#[test]
fn features_are_those_that_show() {
    let mut v = view(&[]);
    let all = features(host, &v);
    // SSE3; no SSE4A-like bit is invented; WAITPKG, CET and AMX are out of reach.
    assert_eq!(all[0] & 1, 1);
    assert_eq!(all[1] & (1 << 12 | 1 << 8 | 1 << 9), 0);
    assert_eq!(all[2] & (7 << 27 | 1 << 26), 0);
    v.disabled = [1 << 4, 1 << 4, 1 << 2];
    let fewer = features(host, &v);
    assert_eq!(
        [all[0] & !fewer[0], all[1] & !fewer[1], all[2] & !fewer[2]],
        v.disabled
    );
}

#[test]
fn the_topology_is_the_partitions() {
    let mut v = view(&[]);
    let one = see(1, 0, &v);
    assert_eq!(
        (one.ebx >> 24, one.ebx >> 16 & 0xFF, one.edx >> 28 & 1),
        (5, 4, 1)
    );
    assert_eq!(see(0xB, 0, &v), regs(0, 1, 0x100, 5));
    assert_eq!(see(0xB, 1, &v), regs(2, 4, 0x201, 5));
    assert_eq!(see(0xB, 2, &v), regs(0, 0, 2, 5));
    assert_eq!(see(4, 0, &v).eax, 3 << 26 | 0x121);
    assert_eq!(see(4, 3, &v).eax, 3 << 26 | 3 << 14 | 0x163);
    assert_eq!(see(0x8000_0008, 0, &v).ecx, 2 << 12 | 3);
    assert_eq!(see(0x8000_001E, 0, &v), regs(5, 1, 1, 0));
    v.per_socket = 0;
    let one = see(1, 0, &v);
    assert_eq!((one.ebx >> 16 & 0xFF, one.edx >> 28 & 1), (1, 0));
    assert_eq!(see(0xB, 1, &v), regs(0, 1, 0x201, 5));
    v.per_socket = 3;
    assert_eq!(see(0xB, 1, &v).ebx, 4);
    v.per_socket = u32::MAX;
    assert_eq!(see(0xB, 1, &v).eax, 15);
}

fn set(
    vp: VpIndex,
    leaf: u32,
    subleaf: Option<u32>,
    registers: [[u32; 2]; 4],
) -> RegisterCpuidResult {
    RegisterCpuidResult {
        vp,
        leaf,
        subleaf: subleaf.unwrap_or(0),
        is_subleaf_specific: subleaf.is_some(),
        registers,
        ..Default::default()
    }
}

#[test]
fn overrides_replace_their_bits_on_their_vp() {
    let low = [[0x11, 0xFF], [0, 0], [0, 0], [0, 0]];
    let list = [
        set(VP_ANY, 2, None, low),
        set(VpIndex::new(6), 2, None, [[0x22, 0xFF]; 4]),
        set(VP_ANY, 2, Some(9), [[0x33, 0xFF], [0, 0], [0, 0], [0, 0]]),
    ];
    let v = view(&list);
    assert_eq!(see(2, 0, &v), regs(0xFFFF_FF11, !0, !0, !0));
    assert_eq!(see(2, 9, &v).eax, 0xFFFF_FF33);
    let six = ChildView {
        vp: VpIndex::new(6),
        ..v
    };
    assert_eq!(
        see(2, 0, &six),
        regs(0xFFFF_FF22, 0xFFFF_FF22, 0xFFFF_FF22, 0xFFFF_FF22)
    );
}

#[test]
fn what_follows_the_guest_cannot_be_overridden() {
    let ones = [[!0, !0]; 4];
    let list = [
        set(VP_ANY, 1, None, ones),
        set(VP_ANY, 7, Some(0), ones),
        set(VP_ANY, 0xD, Some(0), ones),
    ];
    let mut v = view(&list);
    assert_eq!(see(1, 0, &v).ecx, !(1 << 27));
    assert_eq!(see(7, 0, &v).ecx, !(1 << 4));
    assert_eq!(see(0xD, 0, &v).ebx, 576);
    v.cr4 = cr4::OSXSAVE | cr4::PKE;
    v.apic_enabled = false;
    assert_eq!((see(1, 0, &v).ecx, see(1, 0, &v).edx), (!0, !(1 << 9)));
    assert_eq!(see(7, 0, &v).ecx, !0);
}

#[test]
fn leaves_of_the_hypervisor_are_the_callers() {
    let list = [set(
        VP_ANY,
        0x4000_0005,
        None,
        [[7, !0], [0, 0], [0, 0], [0, 0]],
    )];
    assert_eq!(see(0x4000_0003, 0, &view(&list)), host(0x4000_0003, 0));
    assert_eq!(see(0x4000_0005, 0, &view(&list)).eax, 7);
}

proptest! {
    #[test]
    fn any_leaf_of_any_vp_has_an_answer(
        leaf in prop_oneof![any::<u32>(), 0_u32..0x30, 0x8000_0000_u32..0x8000_0030],
        subleaf in prop_oneof![any::<u32>(), 0_u32..70],
        vp: u32, per_socket: u32, disabled: [u64; 3], cr4: u64, xcr0: u64,
    ) {
        let v = ChildView { vp: VpIndex::new(vp), per_socket, disabled, cr4, xcr0, ..view(&[]) };
        let r = see(leaf, subleaf, &v);
        if leaf == 0xD && subleaf == 0 {
            prop_assert!(r.ebx <= r.ecx.max(576) && r.ecx <= 4096);
        }
        // Nothing shows that a partition with everything would not show.
        if leaf == 1 {
            prop_assert_eq!(r.ecx & !see(1, 0, &view(&[])).ecx & !(1 << 27), 0);
        }
    }
}
