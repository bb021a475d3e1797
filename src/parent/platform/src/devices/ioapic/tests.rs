use super::*;
use proptest::prelude::*;

/// An IO-APIC and what it sent.
struct Bench {
    apic: IoApic,
    sent: Vec<Interrupt>,
}

impl Bench {
    fn new() -> Self {
        Self {
            apic: IoApic::new(2),
            sent: Vec::new(),
        }
    }

    fn set(&mut self, register: u8, value: u32) {
        let mut sink = |interrupt| self.sent.push(interrupt);
        self.apic.write(SELECT, register.into(), &mut sink);
        self.apic.write(WINDOW, value, &mut sink);
    }

    fn get(&mut self, register: u8) -> u32 {
        self.apic
            .write(SELECT, register.into(), &mut |_: Interrupt| {});
        self.apic.read(WINDOW)
    }

    fn line(&mut self, pin: u8, is_high: bool) {
        let sent = &mut self.sent;
        self.apic.set_line(pin, is_high, &mut |i| sent.push(i));
    }

    fn eoi(&mut self, vector: u8) {
        let sent = &mut self.sent;
        self.apic.eoi(vector, &mut |i| sent.push(i));
    }

    fn vectors(&mut self) -> Vec<u32> {
        self.sent.drain(..).map(|i| i.vector).collect()
    }
}

#[test]
fn registers_read_as_the_data_sheet_says() {
    let mut bench = Bench::new();
    assert_eq!(bench.get(ID), 2 << 24);
    assert_eq!(bench.get(VERSION), 0x0017_0020);
    bench.set(ID, 0xF << 24);
    assert_eq!(bench.get(ID), 0xF << 24);
    assert_eq!(bench.get(0x10), 0x0001_0000, "masked at reset");
    bench.set(0x10, u32::MAX);
    bench.set(0x11, u32::MAX);
    assert_eq!(bench.get(0x10), 0x0001_AFFF, "no status bit can be set");
    assert_eq!(bench.get(0x11), 0xFF00_0000);
    assert_eq!(bench.get(0x40), u32::MAX, "no pin 24");
}

#[test]
fn an_edge_is_sent_once_and_lost_while_masked() {
    let mut bench = Bench::new();
    bench.set(0x18, 0x0001_0031);
    bench.line(4, true);
    bench.set(0x18, 0x31);
    assert_eq!(bench.vectors(), [0; 0]);
    bench.line(4, true);
    assert_eq!(bench.vectors(), [0; 0], "the line was high already");
    bench.line(4, false);
    bench.line(4, true);
    let sent = std::mem::take(&mut bench.sent);
    let expected = Interrupt {
        kind: InterruptType::Fixed,
        flags: InterruptFlags::empty(),
        destination: 0,
        vector: 0x31,
    };
    assert_eq!(sent, [expected]);
    assert_eq!(
        bench.get(0x18) & entry::REMOTE_IRR as u32,
        0,
        "for levels only"
    );
}

#[test]
fn a_level_is_sent_again_until_the_line_falls() {
    let mut bench = Bench::new();
    bench.set(0x23, 3 << 24);
    bench.line(9, true);
    bench.set(0x22, 0x0000_8841);
    let flags = InterruptFlags::LEVEL | InterruptFlags::LOGICAL;
    assert!(
        matches!(bench.sent[..], [Interrupt { destination: 3, vector: 0x41, flags: f, .. }] if f == flags)
    );
    bench.sent.clear();
    bench.line(9, true);
    assert_eq!(bench.vectors(), [0; 0], "not ended yet");
    bench.eoi(0x40);
    assert_eq!(bench.vectors(), [0; 0], "another vector");
    bench.eoi(0x41);
    assert_eq!(bench.vectors(), [0x41], "the line is still high");
    bench.line(9, false);
    bench.eoi(0x41);
    assert_eq!(bench.vectors(), [0; 0]);
    assert_eq!(bench.get(0x22) & entry::REMOTE_IRR as u32, 0);
}

#[test]
fn the_eoi_register_and_edge_mode_both_end_a_level() {
    let mut bench = Bench::new();
    bench.set(0x22, 0x8041);
    bench.line(9, true);
    assert_eq!(bench.vectors(), [0x41]);
    let sent = &mut bench.sent;
    bench.apic.write(EOI, 0x41, &mut |i| sent.push(i));
    assert_eq!(bench.vectors(), [0x41]);
    // Linux' way with an IO-APIC that has no EOI register: mask and edge, then back.
    bench.set(0x22, 0x0001_0041);
    bench.set(0x22, 0x8041);
    assert_eq!(bench.vectors(), [0x41]);
}

#[test]
fn what_no_apic_can_take_is_not_sent() {
    let mut bench = Bench::new();
    for low in [0x0F, 0x0241, 0x0541, 0x0341, 0x0641] {
        bench.set(0x18, low);
        bench.line(4, true);
        bench.line(4, false);
        bench.line(200, true);
    }
    assert_eq!(bench.sent, []);
}

proptest! {
    #[test]
    fn a_level_pin_never_sends_twice_without_an_eoi(
        steps in proptest::collection::vec((0..4u8, any::<bool>(), any::<u32>()), 0..200)
    ) {
        let mut bench = Bench::new();
        bench.set(0x22, 0x8041);
        let mut open = false;
        for (step, flag, value) in steps {
            let mut ended = false;
            match step {
                0 => bench.line(9, flag),
                1 => { bench.eoi(0x41); ended = true; }
                2 => bench.set(0x22, 0x8041 | u32::from(flag) << 16),
                _ => bench.set(0x23, value),
            }
            open &= !ended;
            let sent = bench.vectors().len();
            prop_assert!(sent <= usize::from(!open));
            open |= sent > 0;
            // A line that is high and may interrupt has been heard.
            let entry = bench.apic.entries[9];
            let high = bench.apic.lines & 1 << 9 != 0;
            prop_assert!(!high || open || entry & entry::MASKED != 0);
        }
    }

    #[test]
    fn no_access_is_too_odd(
        steps in proptest::collection::vec((0..0x1000u64, any::<u32>(), any::<u8>(), any::<bool>()), 0..100)
    ) {
        let mut bench = Bench::new();
        for (offset, value, pin, high) in steps {
            bench.apic.read(offset);
            let sent = &mut bench.sent;
            bench.apic.write([SELECT, WINDOW, EOI, offset][pin as usize % 4], value, &mut |i| sent.push(i));
            bench.line(pin % 32, high);
            prop_assert!(bench.sent.iter().all(|i| i.kind != InterruptType::Fixed || i.vector >= 16));
        }
    }
}
