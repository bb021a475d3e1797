//! Messages, event flags and timers on their way to the guest.

use core::cell::{Cell, RefCell};
use proptest::prelude::*;
use std::vec::Vec;

use super::page::{Racing, Taken};
use super::*;

fn taken(id: u64, wants_eom: bool) -> Option<Taken> {
    Some(Taken {
        kind: 1,
        size: 8,
        origin: id,
        first_payload_word: id as u32,
        wants_eom,
    })
}

#[test]
fn a_message_lands_in_the_slot_of_its_sint_and_raises_its_vector() {
    let room = &mut [QueueEntry::EMPTY; 4];
    let (mut vp, page) = (linux_vp(room), Page::new());
    let interrupts = vp
        .post(2, &message(7), RefTime(0), Some(&page), &mut ())
        .unwrap();
    assert_eq!(
        interrupts.collect::<Vec<_>>(),
        [Interrupt {
            vector: VECTOR,
            auto_eoi: false
        }]
    );
    assert_eq!(page.peek(2 * 256), 1);
    assert_eq!(page.take(2), taken(7, false));
    assert!(
        (0..1024)
            .step_by(4)
            .filter(|at| at / 256 != 2)
            .all(|at| page.peek(at) == 0)
    );
}

#[test]
fn a_busy_slot_sets_message_pending_and_eom_brings_the_next() {
    let room = &mut [QueueEntry::EMPTY; 4];
    let (mut vp, page) = (linux_vp(room), Page::new());
    assert_eq!(
        vectors(
            vp.post(2, &message(1), RefTime(0), Some(&page), &mut ())
                .unwrap()
        ),
        [VECTOR]
    );
    assert!(
        vp.post(2, &message(2), RefTime(0), Some(&page), &mut ())
            .unwrap()
            .is_empty()
    );
    assert!(
        vp.post(2, &message(3), RefTime(0), Some(&page), &mut ())
            .unwrap()
            .is_empty()
    );
    assert!(vp.has_undelivered());
    assert_eq!(page.take(2), taken(1, true));
    assert_eq!(
        vectors(vp.service(RefTime(0), Some(&page), &mut ())),
        [VECTOR]
    );
    assert_eq!(page.take(2), taken(2, true));
    assert_eq!(
        vectors(vp.service(RefTime(0), Some(&page), &mut ())),
        [VECTOR]
    );
    assert_eq!(page.take(2), taken(3, false));
    assert!(!vp.has_undelivered());
}

#[test]
fn a_slot_emptied_without_eom_is_noticed_at_the_next_message() {
    let room = &mut [QueueEntry::EMPTY; 4];
    let (mut vp, page) = (linux_vp(room), Page::new());
    let _ = vp
        .post(2, &message(1), RefTime(0), Some(&page), &mut ())
        .unwrap();
    assert_eq!(page.take(2), taken(1, false));
    assert_eq!(
        vectors(
            vp.post(2, &message(2), RefTime(0), Some(&page), &mut ())
                .unwrap()
        ),
        [VECTOR]
    );
    assert_eq!(page.take(2), taken(2, false));
}

#[test]
fn a_guest_that_empties_the_slot_at_any_step_gets_every_message() {
    for steps in 0..8 {
        let room = &mut [QueueEntry::EMPTY; 4];
        let mut vp = linux_vp(room);
        let racing = Racing {
            page: Page::new(),
            steps: Cell::new(-1),
            taken: RefCell::new(None),
        };
        let _ = vp
            .post(2, &message(1), RefTime(0), Some(&racing), &mut ())
            .unwrap();
        racing.steps.set(steps);
        let second = vp
            .post(2, &message(2), RefTime(0), Some(&racing), &mut ())
            .unwrap();
        let first = racing.taken.take();
        match first {
            // It came before the second message was written: it took the first.
            Some(Taken {
                origin: 1,
                wants_eom,
                ..
            }) => {
                if second.is_empty() {
                    assert!(wants_eom, "step {steps}: nobody will tell the hypervisor");
                    assert_eq!(
                        vectors(vp.service(RefTime(0), Some(&racing), &mut ())),
                        [VECTOR]
                    );
                }
                assert_eq!(racing.page.take(2), taken(2, false), "step {steps}");
            }
            // It did not come in time: the second waits, and the flag says so.
            None => assert_eq!(racing.page.take(2), taken(1, true), "step {steps}"),
            other => panic!("step {steps}: {other:?}"),
        }
    }
}

#[test]
fn messages_wait_while_synic_page_or_source_are_off() {
    for (number, off, on) in [
        (msr::SCONTROL, 0, 1),
        (msr::SIMP, 0x5000, 0x5001),
        (msr::SINT0 + 2, 0x1_00F3, VECTOR.into()),
    ] {
        let room = &mut [QueueEntry::EMPTY; 4];
        let (mut vp, page) = (linux_vp(room), Page::new());
        write(&mut vp, number, off);
        assert!(
            vp.post(2, &message(1), RefTime(0), Some(&page), &mut ())
                .unwrap()
                .is_empty()
        );
        assert!(vp.service(RefTime(0), Some(&page), &mut ()).is_empty());
        assert_eq!(page.take(2), None);
        write(&mut vp, number, on);
        assert_eq!(
            vectors(vp.service(RefTime(0), Some(&page), &mut ())),
            [VECTOR]
        );
        assert_eq!(page.take(2), taken(1, false));
    }
    let room = &mut [QueueEntry::EMPTY; 4];
    let (mut vp, page) = (linux_vp(room), Page::new());
    assert!(
        vp.post(2, &message(1), RefTime(0), NO_PAGE, &mut ())
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        vectors(vp.service(RefTime(0), Some(&page), &mut ())),
        [VECTOR]
    );
}

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    let room = &mut [QueueEntry::EMPTY; 1];
    let (mut vp, page) = (linux_vp(room), Page::new());
    for id in 1..=2 {
        assert!(
            vp.post(2, &message(id), RefTime(0), Some(&page), &mut ())
                .is_ok()
        );
    }
    assert_eq!(
        vp.post(2, &message(3), RefTime(0), Some(&page), &mut ()),
        Err(QueueFull)
    );
    assert_eq!(page.take(2), taken(1, true));
    let _ = vp.service(RefTime(0), Some(&page), &mut ());
    assert_eq!(page.take(2), taken(2, false));
    assert_eq!(
        vp.post(16, &message(3), RefTime(0), Some(&page), &mut ()),
        Err(QueueFull)
    );
    assert!(!vp.has_undelivered(), "the room for SINT 16 was given back");
    assert!(
        vp.post(2, &message(4), RefTime(0), Some(&page), &mut ())
            .is_ok()
    );
}

#[test]
fn a_polled_source_gets_its_message_without_interrupt_and_auto_eoi_is_told() {
    let room = &mut [QueueEntry::EMPTY; 4];
    let (mut vp, page) = (linux_vp(room), Page::new());
    write(&mut vp, msr::SINT0 + 2, u64::from(VECTOR) | 1 << 18);
    assert!(
        vp.post(2, &message(1), RefTime(0), Some(&page), &mut ())
            .unwrap()
            .is_empty()
    );
    assert_eq!(page.take(2), taken(1, false));
    write(&mut vp, msr::SINT0 + 2, u64::from(VECTOR) | 1 << 17);
    let raised: Vec<_> = vp
        .post(2, &message(2), RefTime(0), Some(&page), &mut ())
        .unwrap()
        .collect();
    assert_eq!(
        raised,
        [Interrupt {
            vector: VECTOR,
            auto_eoi: true
        }]
    );
}

#[test]
fn an_event_raises_its_vector_once_until_the_guest_clears_it() {
    let (mut vp, page) = (linux_vp(&mut []), Page::new());
    let interrupt = Some(Interrupt {
        vector: VECTOR,
        auto_eoi: false,
    });
    assert_eq!(
        vp.signal_event(2, 0, Some(&page)).map(|s| s.interrupt),
        Ok(interrupt)
    );
    assert_eq!(
        vp.signal_event(2, 33, Some(&page)).map(|s| s.interrupt),
        Ok(interrupt)
    );
    assert_eq!(
        vp.signal_event(2, 33, Some(&page)).map(|s| s.interrupt),
        Ok(None)
    );
    assert_eq!(
        vp.signal_event(2, 2047, Some(&page)).map(|s| s.interrupt),
        Ok(interrupt)
    );
    assert_eq!(
        (page.peek(0x200), page.peek(0x204), page.peek(0x2FC)),
        (1, 2, 1 << 31)
    );
    page.poke(0x204, 0);
    assert_eq!(
        vp.signal_event(2, 33, Some(&page)).map(|s| s.interrupt),
        Ok(interrupt)
    );
}

#[test]
fn an_event_for_a_source_that_is_off_is_lost() {
    for (number, off) in [
        (msr::SCONTROL, 0),
        (msr::SIEFP, 0x6000),
        (msr::SINT0 + 2, 0x1_00F3),
    ] {
        let (mut vp, page) = (linux_vp(&mut []), Page::new());
        write(&mut vp, number, off);
        assert_eq!(vp.signal_event(2, 5, Some(&page)), Err(EventError::Lost));
        assert_eq!(page.peek(0x200), 0);
    }
    let (mut vp, page) = (linux_vp(&mut []), Page::new());
    assert_eq!(vp.signal_event(2, 5, NO_PAGE), Err(EventError::Lost));
    assert_eq!(
        vp.signal_event(2, 2048, Some(&page)),
        Err(EventError::NoSuchFlag)
    );
    assert_eq!(
        vp.signal_event(16, 5, Some(&page)),
        Err(EventError::NoSuchFlag)
    );
}

#[test]
fn the_timer_of_linux_fires_as_an_interrupt() {
    let mut vp = linux_vp(&mut []);
    write(&mut vp, msr::STIMER0_CONFIG, 0x1ED9);
    assert_eq!(vp.deadline(), None);
    assert_eq!(
        vp.write(msr::STIMER0_COUNT, 40_000, &at(100)),
        Ok(MsrEffect::Timers)
    );
    assert_eq!(vp.deadline(), Some(RefTime(40_000)));
    assert!(vp.service(RefTime(39_999), NO_PAGE, &mut ()).is_empty());
    let raised: Vec<_> = vp.service(RefTime(40_000), NO_PAGE, &mut ()).collect();
    assert_eq!(
        raised,
        [Interrupt {
            vector: 0xED,
            auto_eoi: false
        }]
    );
    assert_eq!(vp.deadline(), None);
    assert_eq!(
        vp.read(msr::STIMER0_CONFIG),
        Ok(0x1ED8),
        "disabled by its expiry"
    );
    // already past when it is written
    assert_eq!(
        vp.write(msr::STIMER0_COUNT, 40_000, &at(50_000)),
        Ok(MsrEffect::Timers)
    );
    assert_eq!(
        vectors(vp.service(RefTime(50_000), NO_PAGE, &mut ())),
        [0xED]
    );
}

#[test]
fn who_only_expires_timers_learns_that_a_message_is_owed() {
    let (mut vp, page) = (linux_vp(&mut []), Page::new());
    let in_message_mode = 9 | 2 << 16;
    write(&mut vp, msr::STIMER0_CONFIG, 0x1ED9);
    write(&mut vp, msr::STIMER0_CONFIG + 2, in_message_mode);
    for timer in [0, 1] {
        write(&mut vp, msr::STIMER0_COUNT + 2 * timer, 500);
    }
    assert_eq!(vectors(vp.expire(RefTime(499))), []);
    assert!(!vp.has_undelivered());
    assert_eq!(vectors(vp.expire(RefTime(500))), [0xED]);
    assert!(vp.has_undelivered());
    assert_eq!(vectors(vp.expire(RefTime(501))), []);
    assert_eq!(
        vectors(vp.service(RefTime(501), Some(&page), &mut ())),
        [0xF3]
    );
    assert!(!vp.has_undelivered());
}

#[test]
fn the_earliest_of_the_timers_is_the_deadline() {
    let mut vp = linux_vp(&mut []);
    for (timer, count) in [(0, 900), (1, 300), (3, 600)] {
        write(
            &mut vp,
            msr::STIMER0_CONFIG + 2 * timer,
            0x1009 | u64::from(0x40 + timer) << 4,
        );
        write(&mut vp, msr::STIMER0_COUNT + 2 * timer, count);
    }
    assert_eq!(vp.deadline(), Some(RefTime(300)));
    assert_eq!(
        vectors(vp.service(RefTime(700), NO_PAGE, &mut ())),
        [0x41, 0x43]
    );
    assert_eq!(vp.deadline(), Some(RefTime(900)));
}

#[test]
fn timers_in_message_mode_wait_behind_the_queue_and_for_eom() {
    let room = &mut [QueueEntry::EMPTY; 4];
    let (mut vp, page) = (linux_vp(room), Page::new());
    for timer in [0, 2] {
        write(&mut vp, msr::STIMER0_CONFIG + 2 * timer, 0x2_0009);
        write(
            &mut vp,
            msr::STIMER0_COUNT + 2 * timer,
            500 + u64::from(timer),
        );
    }
    let _ = vp
        .post(2, &message(1), RefTime(0), Some(&page), &mut ())
        .unwrap();
    let _ = vp
        .post(2, &message(2), RefTime(0), Some(&page), &mut ())
        .unwrap();
    assert!(
        vp.service(RefTime(600), Some(&page), &mut ()).is_empty(),
        "the slot is full"
    );
    assert_eq!(vp.deadline(), None);
    assert_eq!(page.take(2), taken(1, true));
    assert_eq!(
        vectors(vp.service(RefTime(610), Some(&page), &mut ())),
        [VECTOR]
    );
    assert_eq!(page.take(2), taken(2, true), "timers wait behind it");
    for (index, wants_eom) in [(0, true), (2, false)] {
        assert_eq!(
            vectors(vp.service(RefTime(620), Some(&page), &mut ())),
            [VECTOR]
        );
        assert_eq!((page.peek(0x218), page.peek(0x220)), (500 + index, 620));
        let timer = Taken {
            kind: 0x8000_0010,
            size: 24,
            origin: 0,
            first_payload_word: index,
            wants_eom,
        };
        assert_eq!(page.take(2), Some(timer));
    }
    assert!(!vp.has_undelivered());
}

#[test]
fn a_reset_forgets_everything() {
    let room = &mut [QueueEntry::EMPTY; 4];
    let (mut vp, page) = (linux_vp(room), Page::new());
    write(&mut vp, msr::STIMER0_CONFIG, 0x1ED9);
    write(&mut vp, msr::STIMER0_COUNT, 400);
    for id in 1..4 {
        let _ = vp
            .post(2, &message(id), RefTime(0), Some(&page), &mut ())
            .unwrap();
    }
    vp.reset();
    assert!(!vp.has_undelivered());
    assert_eq!(vp.deadline(), None);
    assert_eq!(vp.read(msr::SINT0 + 2), Ok(0x1_0000));
    assert_eq!(
        (
            vp.read(msr::SCONTROL),
            vp.read(msr::SIMP),
            vp.read(msr::SIEFP)
        ),
        (Ok(0), Ok(0), Ok(0))
    );
}

proptest! {
    /// Whatever the guest does to registers and page, calls end, and the queue never holds more than its room.
    #[test]
    fn a_hostile_guest_harms_only_itself(
        steps in proptest::collection::vec((0u8..5, any::<u32>(), any::<u64>()), 0..120)
    ) {
        let room = &mut [QueueEntry::EMPTY; 3];
        let (mut vp, page) = (vp(room), Page::new());
        let mut now = 0u64;
        for (what, number, value) in steps {
            match what {
                0 => {
                    let _ = vp.write(msr::SCONTROL + number % 0x40, value, &at(now));
                }
                1 => page.poke(number as usize % 1024 * 4, value as u32),
                2 => {
                    let sint = number as usize % 18;
                    let _ = vp.post(sint, &message(value), RefTime(now), Some(&page), &mut ());
                }
                3 => {
                    let _ = vp.signal_event(number as usize % 18, value as u16, Some(&page));
                }
                _ => now = now.saturating_add(value),
            }
            for interrupt in vp.service(RefTime(now), Some(&page), &mut ()) {
                prop_assert!(interrupt.vector >= 16);
            }
            prop_assert!(vp.deadline().is_none_or(|due| due > RefTime(now) || now == u64::MAX));
        }
    }
}
