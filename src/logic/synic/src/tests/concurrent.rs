//! The message slot with a guest on another thread.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// The guest looks at the slot only after an interrupt, and writes EOM only when the flag tells it to: a flag
/// set too late, or an EOM not answered, leaves a message behind for ever.
#[test]
fn no_message_is_lost_or_doubled_between_two_processors() {
    const MESSAGES: u64 = if cfg!(miri) { 60 } else { 20_000 };
    /// A lost message would leave both sides waiting; this turns the silence into a failure.
    const PATIENCE: Duration = Duration::from_secs(if cfg!(miri) { 600 } else { 20 });
    let start = Instant::now();
    let page = Page::new();
    let mut room = [QueueEntry::EMPTY; 8];
    let vp = Mutex::new(linux_vp(&mut room));
    let interrupt = AtomicBool::new(false);

    let raise = |interrupts: Interrupts| {
        if !interrupts.is_empty() {
            interrupt.store(true, Ordering::SeqCst);
        }
    };
    let guest = || {
        let mut next = 1;
        while next <= MESSAGES {
            assert!(start.elapsed() < PATIENCE, "message {next} never came");
            if !interrupt.swap(false, Ordering::SeqCst) {
                thread::yield_now();
                continue;
            }
            let Some(taken) = page.take(2) else { continue };
            assert_eq!(
                (taken.origin, u64::from(taken.first_payload_word)),
                (next, next)
            );
            next += 1;
            if taken.wants_eom {
                let mut vp = vp.lock().unwrap();
                assert_eq!(vp.write(msr::EOM, 0, &at(0)), Ok(MsrEffect::EndOfMessage));
                raise(vp.service(RefTime(0), Some(&page), &mut ()));
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(guest);
        let mut id = 1;
        while id <= MESSAGES {
            let posted = vp
                .lock()
                .unwrap()
                .post(2, &message(id), RefTime(0), Some(&page), &mut ());
            match posted {
                Ok(interrupts) => {
                    raise(interrupts);
                    id += 1;
                }
                Err(QueueFull) => {
                    assert!(start.elapsed() < PATIENCE, "message {id} finds no room");
                    thread::yield_now();
                }
            }
        }
    });
    assert!(!vp.lock().unwrap().has_undelivered());
}
