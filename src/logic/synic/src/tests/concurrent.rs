//! The message slot with a guest on another thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
    let page = Arc::new(Page::new());
    let vp = Arc::new(Mutex::new(linux_vp(8)));
    let interrupt = Arc::new(AtomicBool::new(false));

    let raise = |interrupt: &AtomicBool, interrupts: Interrupts| {
        if !interrupts.is_empty() {
            interrupt.store(true, Ordering::SeqCst);
        }
    };
    let guest = {
        let (page, vp, interrupt) = (page.clone(), vp.clone(), interrupt.clone());
        thread::spawn(move || {
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
                    raise(&interrupt, vp.service(RefTime(0), Some(&*page)));
                }
            }
        })
    };
    let mut id = 1;
    while id <= MESSAGES {
        let posted = vp
            .lock()
            .unwrap()
            .post(2, &message(id), RefTime(0), Some(&*page));
        match posted {
            Ok(interrupts) => {
                raise(&interrupt, interrupts);
                id += 1;
            }
            Err(QueueFull) => {
                assert!(start.elapsed() < PATIENCE, "message {id} finds no room");
                thread::yield_now();
            }
        }
        assert!(!guest.is_finished() || id > MESSAGES, "the guest gave up");
    }
    guest.join().unwrap();
    assert!(!vp.lock().unwrap().has_undelivered());
}
