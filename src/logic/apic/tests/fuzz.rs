//! Random accesses: nothing panics, and what must always hold, holds.

mod common;

use addr::ApicId;
use apic::{Apic, Effect, EoiStack, Features, Inbox, Lvt, Mode, Timing, Trigger};
use common::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Read(u16),
    Write(u16, u32),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Base(u64),
    Accept(u8, bool),
    Post(u8),
    Take,
    Event(usize),
    Tick,
    Offset(u64),
    Init,
    Wait(u64),
}

const LVTS: [Lvt; 7] = [
    Lvt::Cmci,
    Lvt::Timer,
    Lvt::Thermal,
    Lvt::Perf,
    Lvt::Lint0,
    Lvt::Lint1,
    Lvt::Error,
];

/// Mostly registers that exist.
fn offset() -> impl Strategy<Value = u16> {
    prop_oneof![8 => (0_u16..0x40).prop_map(|number| number * 16), 1 => any::<u16>()]
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        0_u32..0x200,
        (0_u32..8, 0_u32..256).prop_map(|(high, low)| high << 16 | low)
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let msr = prop_oneof![8 => 0x800_u32..0x840, 2 => Just(0x6E0), 1 => any::<u32>()];
    let wide = prop_oneof![4 => value().prop_map(u64::from), 1 => any::<u64>()];
    prop_oneof![
        2 => offset().prop_map(Op::Read),
        6 => (offset(), value()).prop_map(|(offset, value)| Op::Write(offset, value)),
        2 => msr.clone().prop_map(Op::ReadMsr),
        6 => (msr, wide).prop_map(|(msr, value)| Op::WriteMsr(msr, value)),
        1 => prop_oneof![
            prop::sample::select(vec![0xFEE0_0000, 0xFEE0_0800, 0xFEE0_0C00, 0xFEE0_0400]),
            any::<u64>(),
        ].prop_map(Op::Base),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(vector, level)| Op::Accept(vector, level)),
        2 => any::<u8>().prop_map(Op::Post),
        4 => Just(Op::Take),
        1 => (0..LVTS.len()).prop_map(Op::Event),
        3 => Just(Op::Tick),
        1 => any::<u64>().prop_map(Op::Offset),
        1 => Just(Op::Init),
        3 => prop_oneof![0_u64..10_000, 0_u64..1 << 40, Just(u64::MAX / 2)].prop_map(Op::Wait),
    ]
}

fn features() -> impl Strategy<Value = Features> {
    (any::<bool>(), any::<bool>(), any::<bool>(), 32_u8..=60).prop_map(
        |(x2apic, tsc_deadline, cmci, physical_bits)| Features {
            x2apic,
            tsc_deadline,
            cmci,
            physical_bits,
        },
    )
}

/// What holds in every state, from the registers alone.
fn check(apic: &mut Apic, timing: Timing, now: u64) -> Result<(), TestCaseError> {
    let (irr, isr) = (apic.irr(), apic.isr());
    for low in 0..16 {
        prop_assert!(!irr.contains(low) && !isr.contains(low) && !apic.tmr().contains(low));
    }
    let highest = isr.highest().unwrap_or(0);
    let ppr = if apic.tpr() >> 4 >= highest >> 4 {
        apic.tpr()
    } else {
        highest & 0xF0
    };
    prop_assert_eq!(apic.ppr(), ppr);
    let enabled = apic.is_software_enabled() && apic.mode() != Mode::Disabled;
    prop_assert_eq!(apic.is_accepting(), enabled);
    let pending = irr
        .highest()
        .filter(|vector| enabled && vector >> 4 > ppr >> 4);
    prop_assert_eq!(apic.pending(), pending);
    if !apic.is_software_enabled() {
        prop_assert!(LVTS.iter().all(|&entry| apic.lvt(entry) & 1 << 16 != 0));
        prop_assert_eq!(apic.timer_deadline(), None);
    }
    apic.timer_tick(now);
    prop_assert!(apic.timer_deadline().is_none_or(|deadline| deadline > now));

    // Saved and restored it is the same APIC, but for two things that the registers do not tell: the
    // DFR of x2APIC mode, and a periodic timer at zero, which is about to reload or was never started.
    let saved = apic.snapshot(now);
    let mut again = Apic::from_snapshot(&saved, apic.features(), timing, now)
        .unwrap()
        .snapshot(now);
    // A deadline may have passed in a TSC without the offset, which is not a register of the APIC.
    (again.tsc_deadline, again.irr) = (saved.tsc_deadline, saved.irr);
    if apic.mode() == Mode::X2Apic {
        again.dfr = saved.dfr;
    }
    if saved.lvt_timer >> 17 & 3 == 1 && saved.current_count == 0 {
        prop_assert_eq!(again.current_count, saved.initial_count);
        again.current_count = 0;
    }
    prop_assert_eq!(again, saved);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn random_accesses_keep_the_invariants(
        features in features(),
        rates in prop::sample::select(vec![
            (3_000_000_000_u64, 1_000_000_000_u64), (50_000_000, 50_000_000), (4_000_000_000, 5_000), (1_000, 900_000_000),
        ]),
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let timing = Timing::new(rates.0, rates.1).unwrap();
        let mut apic = Apic::new(ApicId::new(3), false, features, timing);
        let _ = apic.write(SVR, 0x1FF, 0);
        let inbox = Inbox::new();
        let mut now = 0_u64;
        for op in ops {
            let before = apic.snapshot(now);
            let effect = match op {
                Op::Read(offset) => {
                    apic.read(offset, now);
                    Effect::None
                }
                Op::Write(offset, value) => apic.write(offset, value, now),
                Op::ReadMsr(msr) => {
                    let _ = apic.read_msr(msr, now);
                    Effect::None
                }
                Op::WriteMsr(msr, value) => match apic.write_msr(msr, value, now) {
                    Ok(effect) => effect,
                    Err(_) => {
                        prop_assert_eq!(apic.snapshot(now), before);
                        Effect::None
                    }
                },
                Op::Base(value) => {
                    if apic.write_apic_base(value).is_err() {
                        prop_assert_eq!(apic.snapshot(now), before);
                    }
                    Effect::None
                }
                Op::Accept(vector, level) => {
                    let _ = apic.accept(vector, if level { Trigger::Level } else { Trigger::Edge });
                    Effect::None
                }
                Op::Post(vector) => {
                    inbox.post(vector);
                    apic.absorb(&inbox);
                    Effect::None
                }
                Op::Take => {
                    if let Some(vector) = apic.pending() {
                        prop_assert!(apic.take(vector));
                    }
                    Effect::None
                }
                Op::Event(index) => {
                    apic.lvt_event(LVTS[index]);
                    Effect::None
                }
                Op::Tick => {
                    apic.timer_tick(now);
                    Effect::None
                }
                Op::Offset(offset) => {
                    apic.set_tsc_offset(offset, now);
                    Effect::None
                }
                Op::Init => {
                    apic.init_reset();
                    prop_assert_eq!((apic.id(), apic.apic_base()), (ApicId::new(3), before.apic_base));
                    Effect::None
                }
                Op::Wait(ticks) => {
                    // A TSC does not come near its end.
                    now = now.saturating_add(ticks).min(1 << 63);
                    Effect::None
                }
            };
            match effect {
                Effect::Eoi { vector, .. } => {
                    prop_assert!(before.isr[usize::from(vector / 32)] >> (vector % 32) & 1 == 1);
                    prop_assert!(!apic.isr().contains(vector));
                }
                Effect::EoiWithoutService => prop_assert_eq!(before.isr, [0; 8]),
                Effect::Lvt(entry, value) => prop_assert_eq!(apic.lvt(entry), value),
                Effect::SoftwareDisabled => prop_assert!(!apic.is_software_enabled()),
                Effect::SoftwareEnabled => prop_assert!(apic.is_software_enabled()),
                Effect::None | Effect::Ipi(_) | Effect::Timer | Effect::LogicalId => {}
            }
            check(&mut apic, timing, now)?;
        }
    }

    /// The EOI stack against a physical APIC that retires the highest vector in service: in the end
    /// nothing is in service, and no EOI ever retired a vector whose owner was not done.
    #[test]
    fn physical_eois_retire_only_finished_vectors(
        ops in prop::collection::vec((16_u8.., prop::bool::weighted(0.6)), 1..200),
    ) {
        let mut stack = EoiStack::new();
        let mut in_service: Vec<u8> = Vec::new();
        let mut finished: Vec<u8> = Vec::new();
        for (vector, arrives) in ops {
            let highest = in_service.iter().max().copied().unwrap_or(0);
            if arrives {
                if vector >> 4 > highest >> 4 {
                    in_service.push(vector);
                    stack.push(vector);
                }
            } else if !in_service.is_empty() {
                // Some owner, not the highest one necessarily, is done; or an EOI of something else.
                let done = in_service[usize::from(vector) % in_service.len()];
                prop_assert!(stack.mark_ready(done));
                finished.push(done);
                if !in_service.contains(&vector) {
                    prop_assert!(!stack.mark_ready(vector));
                }
            }
            for _ in 0..stack.retire() {
                let highest = in_service.iter().max().copied().unwrap();
                prop_assert!(finished.contains(&highest), "{highest:#x} was not finished");
                in_service.retain(|&v| v != highest);
                finished.retain(|&v| v != highest);
            }
            let top = in_service.iter().max();
            prop_assert!(top.is_none_or(|top| !finished.contains(top)), "an EOI is missing");
        }
        stack.mark_all_ready();
        prop_assert_eq!(stack.retire(), in_service.len());
        prop_assert!(stack.is_empty());
    }
}
