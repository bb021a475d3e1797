use proptest::prelude::*;

use super::*;

const NEW_YEAR_2000: u64 = 946_684_800;

fn at(seconds: u64) -> Rtc {
    Rtc::new(Box::new(move || seconds))
}

fn read(rtc: &mut Rtc, index: u8) -> u8 {
    rtc.select(index);
    rtc.read()
}

fn write(rtc: &mut Rtc, index: u8, byte: u8) {
    rtc.select(index);
    rtc.write(byte);
}

fn shown(rtc: &mut Rtc) -> [u8; 8] {
    [CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS, WEEKDAY].map(|index| read(rtc, index))
}

#[test]
fn known_times_are_shown_in_decimal_digits() {
    assert_eq!(shown(&mut at(0)), [0x19, 0x70, 1, 1, 0, 0, 0, 5]);
    let leap_day = NEW_YEAR_2000 + 59 * 86_400 + 23 * 3600 + 58 * 60 + 59;
    assert_eq!(
        shown(&mut at(leap_day)),
        [0x20, 0x00, 2, 0x29, 0x23, 0x58, 0x59, 3]
    );
}

#[test]
fn linux_finds_a_clock_that_works() {
    let mut rtc = at(NEW_YEAR_2000);
    assert_eq!(read(&mut rtc, STATUS_A) & 0x80, 0, "no update in progress");
    assert_eq!(read(&mut rtc, STATUS_B), B_24_HOURS);
    assert_eq!(read(&mut rtc, STATUS_D), D_VALID);
    write(&mut rtc, 0x0F, 0x0A);
    assert_eq!(read(&mut rtc, 0x0F), 0x0A, "the shutdown code is memory");
}

#[test]
fn hours_after_noon_in_both_forms() {
    let mut rtc = at(NEW_YEAR_2000 + 13 * 3600);
    write(&mut rtc, STATUS_B, 0);
    assert_eq!(read(&mut rtc, HOURS), 0x81);
    write(&mut rtc, HOURS, 0x12);
    assert_eq!(read(&mut rtc, HOURS), 0x12, "midnight");
    write(&mut rtc, STATUS_B, B_24_HOURS | B_BINARY);
    assert_eq!(read(&mut rtc, HOURS), 0);
    write(&mut rtc, HOURS, 23);
    assert_eq!(read(&mut rtc, HOURS), 23);
}

#[test]
fn a_clock_that_is_set_goes_on_from_there() {
    let mut rtc = at(0);
    write(&mut rtc, STATUS_B, B_SET | B_24_HOURS);
    let values = [
        (CENTURY, 0x20),
        (YEAR, 0x24),
        (MONTH, 0x02),
        (DAY, 0x29),
        (HOURS, 0x12),
        (MINUTES, 0x34),
        (SECONDS, 0x56),
    ];
    for (index, value) in values {
        write(&mut rtc, index, value);
    }
    write(&mut rtc, STATUS_B, B_24_HOURS);
    assert_eq!(shown(&mut rtc), [0x20, 0x24, 2, 0x29, 0x12, 0x34, 0x56, 5]);
}

proptest! {
    #[test]
    fn every_day_has_one_date(days in -800_000_i64..4_000_000) {
        let (year, month, day) = date(days);
        prop_assert!((1..=12).contains(&month) && (1..=31).contains(&day));
        prop_assert_eq!(days_before(year, month) + i64::from(day) - 1, days);
        let (next_year, next_month, next_day) = date(days + 1);
        prop_assert!((next_year, next_month, next_day) > (year, month, day));
    }

    #[test]
    fn times_survive_the_registers(seconds in -60_000_000_000_i64..700_000_000_000) {
        prop_assert_eq!(Time::of(seconds).seconds_since_1970(), seconds);
    }

    #[test]
    fn no_access_is_too_odd(now in any::<u64>(), accesses in prop::collection::vec(any::<(bool, u8, u8)>(), 0..64)) {
        let mut rtc = at(now);
        for (is_write, index, byte) in accesses {
            rtc.select(index);
            if is_write { rtc.write(byte) } else { let _ = rtc.read(); }
        }
    }
}
