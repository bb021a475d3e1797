//! Messages from elsewhere, event rings, saved timers, lazy EOI.

use std::collections::VecDeque;

use proptest::prelude::*;
use tlfs::state::{TimersState, event_ring};

use super::*;

/// One line of messages for SINT 0.
struct Line(VecDeque<u64>);

impl MessageSource for Line {
    fn waiting(&mut self) -> u16 {
        (!self.0.is_empty()).into()
    }

    fn first(&mut self, sint: usize) -> Option<(Message, bool)> {
        assert_eq!(sint, 0);
        self.0.front().map(|id| (message(*id), self.0.len() > 1))
    }

    fn pop(&mut self, sint: usize) {
        assert_eq!(sint, 0);
        self.0.pop_front();
    }
}

/// As [`linux_vp`], with sources 0 and 5 of the driver for children, and event rings.
fn parent_vp(room: &mut [QueueEntry]) -> VpSynic<'_> {
    let mut vp = linux_vp(room);
    write(&mut vp, msr::SINT0, VECTOR.into());
    write(&mut vp, msr::SINT0 + 5, u64::from(VECTOR) | 1 << 19);
    write(&mut vp, msr::SIRBP, 0x7001);
    vp
}

#[test]
fn a_source_comes_after_the_queue_and_the_flag_tells_of_it() {
    let (page, mut room) = (Page::new(), [QueueEntry::EMPTY; 2]);
    let mut vp = parent_vp(&mut room);
    let mut line = Line([10, 11].into());
    let now = RefTime(0);
    assert_eq!(
        vectors(
            vp.post(0, &message(1), now, Some(&page), &mut line)
                .unwrap()
        ),
        [VECTOR]
    );
    for (origin, wants_eom) in [(1, true), (10, true), (11, false)] {
        let taken = page.take(0).unwrap();
        assert_eq!((taken.origin, taken.wants_eom), (origin, wants_eom));
        let raised = vectors(vp.service(now, Some(&page), &mut line));
        assert_eq!(raised.is_empty(), !wants_eom);
    }
    assert!(line.0.is_empty());
}

#[test]
fn a_full_slot_keeps_what_the_source_has() {
    let (page, mut room) = (Page::new(), [QueueEntry::EMPTY; 2]);
    let mut vp = parent_vp(&mut room);
    let mut line = Line([10].into());
    page.poke(0, 1);
    assert!(vp.service(RefTime(0), Some(&page), &mut line).is_empty());
    assert_eq!(line.0.len(), 1);
    assert!(page.take(0).unwrap().wants_eom);
}

/// Takes the next entry as Linux does.
fn take_entry(page: &Page, sint: usize, tail: &mut usize) -> Option<u32> {
    let at = sint * 256 + event_ring::ENTRIES + *tail * 4;
    let port = Some(page.peek(at)).filter(|port| *port != 0)?;
    page.poke(at, 0);
    *tail = (*tail + 1) % event_ring::ENTRY_COUNT;
    Some(port)
}

#[test]
fn a_ring_tells_by_one_message_and_keeps_its_cursor() {
    let (rings, page, mut room) = (Page::new(), Page::new(), [QueueEntry::EMPTY; 2]);
    let mut vp = parent_vp(&mut room);
    let mut tail = 0;
    for round in 0..3 {
        for port in 1..=40 {
            assert_eq!(vp.ring(5, port, Some(&rings)), Ok(None));
        }
        assert!(vp.has_undelivered());
        assert_eq!(
            vectors(vp.service(RefTime(0), Some(&page), &mut ())),
            [VECTOR]
        );
        let taken = page.take(0).unwrap();
        assert_eq!(
            (taken.kind, taken.first_payload_word, taken.wants_eom),
            (0x8000_0061, 5, false)
        );
        assert!(
            vp.service(RefTime(0), Some(&page), &mut ()).is_empty(),
            "round {round}"
        );
        for port in 1..=40 {
            assert_eq!(take_entry(&rings, 5, &mut tail), Some(port));
        }
        // The driver goes and comes back: both sides go on where they were.
        write(&mut vp, msr::SIRBP, 0x7000);
        assert_eq!(vp.ring(5, 9, Some(&rings)), Err(RingError::Off));
        assert_eq!(vp.read(msr::SIRBP), Ok(0x7000));
        write(&mut vp, msr::SIRBP, 0x7001);
    }
}

#[test]
fn a_full_ring_says_so_and_a_masked_one_is_silent() {
    let (rings, mut room) = (Page::new(), [QueueEntry::EMPTY; 2]);
    let mut vp = parent_vp(&mut room);
    rings.poke(5 * 256, 1); // signal masked
    for port in 1..=63 {
        assert_eq!(vp.ring(5, port, Some(&rings)), Ok(None));
    }
    assert!(!vp.has_undelivered());
    assert_eq!(vp.ring(5, 64, Some(&rings)), Err(RingError::Full));
    assert_eq!(rings.peek(5 * 256), 0x101);
    let mut tail = 0;
    assert_eq!(take_entry(&rings, 5, &mut tail), Some(1));
    assert_eq!(vp.ring(5, 64, Some(&rings)), Ok(None));
    assert_eq!(vp.ring(16, 64, Some(&rings)), Err(RingError::NoSuchSint));
    assert_eq!(vp.ring(6, 64, Some(&rings)), Err(RingError::Off));
    write(&mut vp, msr::SINT0 + 5, VECTOR.into());
    rings.poke(5 * 256, 0);
    let _ = take_entry(&rings, 5, &mut tail);
    let interrupt = Interrupt {
        vector: VECTOR,
        auto_eoi: false,
    };
    assert_eq!(vp.ring(5, 65, Some(&rings)), Ok(Some(interrupt)));
}

#[test]
fn timers_go_on_after_a_load_as_they_would_have() {
    let mut vp = VpSynic::new(&CONFIG, VpIndex::new(0), &mut []);
    for (number, value) in [
        (msr::STIMER0_CONFIG, 0x1ED9),
        (msr::STIMER0_COUNT, 90_000),
        (msr::STIMER0_CONFIG + 2, 0x2_0003),
        (msr::STIMER0_COUNT + 2, 20_000),
    ] {
        write(&mut vp, number, value);
    }
    let _ = vp.service(RefTime(25_000), NO_PAGE, &mut ());
    let saved = TimersState::decode(&vp.timers(RefTime(26_000)).encode()).unwrap();
    // The clock of the other machine shows another time, but for the one-shot it is the same scale.
    let mut other = VpSynic::new(&CONFIG, VpIndex::new(0), &mut []);
    assert_eq!(other.set_timers(&saved, RefTime(26_000)), Ok(()));
    assert_eq!(other.deadline(), Some(RefTime(40_000)));
    assert!(other.has_undelivered());
    for number in msr::STIMER0_CONFIG..=msr::STIMER3_COUNT {
        assert_eq!(vp.read(number), other.read(number));
    }
    let mut wrong = saved;
    wrong.timers[3].config = 1 << 13;
    assert_eq!(other.set_timers(&wrong, RefTime(0)), Err(GpFault));
    assert_eq!(other.deadline(), Some(RefTime(40_000)));
}

#[test]
fn the_parent_of_a_partition_may_write_zeros() {
    let config = PartitionConfig {
        privileges: Privileges::empty(),
        ..CONFIG
    };
    let mut vp = VpSynic::new(&config, VpIndex::new(0), &mut []);
    for number in [
        msr::SCONTROL,
        msr::SIEFP,
        msr::SIMP,
        msr::SIRBP,
        msr::SINT0,
        msr::SINT0 + 15,
    ] {
        assert!(vp.write(number, 0, &at(0)).is_err());
        assert!(vp.set(number, 0, &at(0)).is_ok());
        assert_eq!(vp.get(number), Ok(0));
    }
    assert!(vp.set(msr::SVERSION, 0, &at(0)).is_err());
    let mut partition = PartitionMsrs::new(config);
    let _ = partition.set(msr::HYPERCALL, 0x4001, &at(0)).unwrap();
    assert!(partition.hypercall().is_enabled());
    let _ = partition.set(msr::GUEST_OS_ID, 0, &at(0)).unwrap();
    assert!(!partition.hypercall().is_enabled());
}

#[test]
fn a_source_without_a_vector_raises_nothing() {
    let (page, mut room) = (Page::new(), [QueueEntry::EMPTY; 2]);
    let mut vp = linux_vp(&mut room);
    let _ = vp.set(msr::SINT0, 0, &at(0)).unwrap();
    assert!(
        vp.post(0, &message(1), RefTime(0), Some(&page), &mut ())
            .unwrap()
            .is_empty()
    );
    assert!(page.take(0).is_some());
}

#[test]
fn lazy_eoi_is_offered_alone_and_taken_back_once() {
    let page = Page::new();
    let mut lazy = LazyEoi::default();
    for (is_edge, is_only) in [(false, true), (true, false)] {
        lazy.offer(Some(&page), is_edge, is_only);
        assert_eq!(page.peek(0), 0);
        assert!(!lazy.settle(Some(&page), true));
    }
    lazy.offer(Some(&page), true, true);
    assert_eq!(page.peek(0), 1);
    assert!(!lazy.settle(Some(&page), false));
    page.poke(0, 0); // the guest ends it
    assert!(lazy.settle(Some(&page), false));
    assert!(!lazy.settle(Some(&page), false));
    lazy.offer(Some(&page), true, true);
    assert!(!lazy.settle(Some(&page), true));
    assert_eq!(page.peek(0), 0);
    assert!(!lazy.settle(Some(&page), false), "the guest will write EOI");
}

proptest! {
    /// A consumer that follows the protocol sees every port once, in order, whatever the two do in turn.
    #[test]
    fn a_ring_loses_nothing(steps in proptest::collection::vec((0u8..3, 1usize..90), 0..60)) {
        let (rings, page, mut room) = (Page::new(), Page::new(), [QueueEntry::EMPTY; 2]);
        let mut vp = parent_vp(&mut room);
        let (mut kept, mut seen, mut next, mut tail, mut told) = (VecDeque::new(), 0u32, 1u32, 0, false);
        let mut consume = |count: usize, vp: &mut VpSynic<'_>, kept: &mut VecDeque<u32>, told: &mut bool| {
            for _ in 0..count {
                let mut port = take_entry(&rings, 5, &mut tail);
                if port.is_none() && rings.peek(5 * 256) & 0x100 != 0 {
                    rings.poke(5 * 256, rings.peek(5 * 256) & !0x100);
                    while kept.front().is_some_and(|port| vp.ring(5, *port, Some(&rings)).is_ok()) {
                        kept.pop_front();
                    }
                    port = take_entry(&rings, 5, &mut tail);
                }
                let Some(port) = port else {
                    rings.poke(5 * 256, rings.peek(5 * 256) & !1);
                    *told = false;
                    return;
                };
                rings.poke(5 * 256, rings.peek(5 * 256) | 1);
                seen += 1;
                assert_eq!(port, seen);
            }
        };
        for (step, count) in steps {
            match step {
                0 => for _ in 0..count {
                    if !kept.is_empty() || vp.ring(5, next, Some(&rings)).is_err() {
                        kept.push_back(next);
                    }
                    next += 1;
                },
                _ if told => consume(count, &mut vp, &mut kept, &mut told),
                _ => {}
            }
            let _ = vp.service(RefTime(0), Some(&page), &mut ());
            told |= page.take(0).is_some();
        }
        for _ in 0..2 {
            if told {
                consume(usize::MAX, &mut vp, &mut kept, &mut told);
            }
            let _ = vp.service(RefTime(0), Some(&page), &mut ());
            told |= page.take(0).is_some();
        }
        prop_assert!(kept.is_empty());
        prop_assert_eq!(seen + 1, next);
    }
}
