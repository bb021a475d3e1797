//! The clock (Motorola MC146818A): time of day and 128 bytes of memory. No alarm and no periodic interrupt.
//!
//! The child may set it; that lasts as long as the device.

/// Tells the time.
pub trait WallClock {
    /// Seconds since the start of 1970, UTC.
    fn now(&self) -> u64;
}

impl<F: Fn() -> u64> WallClock for F {
    fn now(&self) -> u64 {
        self()
    }
}

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0A;
const STATUS_B: u8 = 0x0B;
const STATUS_C: u8 = 0x0C;
const STATUS_D: u8 = 0x0D;
/// Where the tables say that the century is.
pub(crate) const CENTURY: u8 = 0x32;

/// 32,768 Hz, and its usual rate of interrupts; no update is ever in progress.
const A_AT_RESET: u8 = 0x26;
const B_24_HOURS: u8 = 1 << 1;
const B_BINARY: u8 = 1 << 2;
/// The clock stands still while software sets it.
const B_SET: u8 = 1 << 7;
/// The battery is good.
const D_VALID: u8 = 1 << 7;

const DAY_SECONDS: i64 = 86_400;

/// The clock.
pub(super) struct Rtc {
    clock: Box<dyn WallClock + Send>,
    /// What the child's setting differs by from [`WallClock::now`], in seconds.
    offset: i64,
    /// The time while software sets it.
    held: Option<Time>,
    index: u8,
    status_b: u8,
    memory: [u8; 128],
}

impl Rtc {
    pub fn new(clock: Box<dyn WallClock + Send>) -> Self {
        Self {
            clock,
            offset: 0,
            held: None,
            index: 0,
            status_b: B_24_HOURS,
            memory: [0; 128],
        }
    }

    /// Writes the index register. Bit 7 masks NMIs, of which there are none.
    pub fn select(&mut self, byte: u8) {
        self.index = byte & 0x7F;
    }

    fn time(&self) -> Time {
        let now = i64::try_from(self.clock.now()).unwrap_or(i64::MAX);
        self.held
            .unwrap_or_else(|| Time::of(now.saturating_add(self.offset)))
    }

    /// Reads the data register.
    pub fn read(&self) -> u8 {
        match self.index {
            STATUS_A => A_AT_RESET,
            STATUS_B => self.status_b,
            STATUS_C => 0,
            STATUS_D => D_VALID,
            index => match self.time().field(index) {
                Some(value) => self.encode(index, value),
                None => self.memory.get(usize::from(index)).copied().unwrap_or(0xFF),
            },
        }
    }

    /// Writes the data register.
    pub fn write(&mut self, byte: u8) {
        match self.index {
            STATUS_A | STATUS_C | STATUS_D => {}
            STATUS_B => {
                // A stopped clock keeps what it shows; then it goes on from there.
                let time = self.time();
                self.status_b = byte;
                if byte & B_SET != 0 {
                    self.held = Some(time);
                } else if self.held.take().is_some() {
                    self.go_on_from(time);
                }
            }
            index => {
                let mut time = self.time();
                if time.field(index).is_none() {
                    if let Some(cell) = self.memory.get_mut(usize::from(index)) {
                        *cell = byte;
                    }
                    return;
                }
                time.set_field(index, self.decode(index, byte));
                if self.held.is_some() {
                    self.held = Some(time);
                } else {
                    self.go_on_from(time);
                }
            }
        }
    }

    fn go_on_from(&mut self, time: Time) {
        let now = i64::try_from(self.clock.now()).unwrap_or(i64::MAX);
        self.offset = time.seconds_since_1970().saturating_sub(now);
    }

    /// A value in the form that status B asks for.
    fn encode(&self, index: u8, value: u8) -> u8 {
        let is_12_hours = index == HOURS && self.status_b & B_24_HOURS == 0;
        let (value, pm) = if is_12_hours {
            let pm = if value >= 12 { 0x80 } else { 0 };
            ((value % 12 + 11) % 12 + 1, pm)
        } else {
            (value, 0)
        };
        let digits = if self.status_b & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        };
        digits | pm
    }

    fn decode(&self, index: u8, byte: u8) -> u8 {
        let is_12_hours = index == HOURS && self.status_b & B_24_HOURS == 0;
        let (byte, is_pm) = if is_12_hours {
            (byte & 0x7F, byte & 0x80 != 0)
        } else {
            (byte, false)
        };
        let value = if self.status_b & B_BINARY != 0 {
            byte
        } else {
            (byte >> 4) * 10 + (byte & 0xF)
        };
        if is_12_hours {
            value % 12 + if is_pm { 12 } else { 0 }
        } else {
            value
        }
    }
}

/// A time of day as the registers show it. While software sets it, it need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    second: u8,
    minute: u8,
    hour: u8,
    /// 1 is Sunday.
    weekday: u8,
    day: u8,
    month: u8,
    year: u8,
    century: u8,
}

impl Time {
    /// The time `seconds` after the start of 1970. Outside of the years 0 to 25,599 the century is cut off.
    fn of(seconds: i64) -> Self {
        let days = seconds.div_euclid(DAY_SECONDS);
        let rest = seconds.rem_euclid(DAY_SECONDS);
        let (year, month, day) = date(days);
        Self {
            second: (rest % 60) as u8,
            minute: (rest / 60 % 60) as u8,
            hour: (rest / 3600) as u8,
            // 1 January 1970 was a Thursday.
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            day,
            month,
            year: year.rem_euclid(100) as u8,
            century: year.div_euclid(100) as u8,
        }
    }

    fn seconds_since_1970(self) -> i64 {
        let year = i64::from(self.century) * 100 + i64::from(self.year);
        let days = days_before(year, self.month.clamp(1, 12)) + i64::from(self.day.max(1)) - 1;
        days * DAY_SECONDS
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }

    fn field(&self, index: u8) -> Option<u8> {
        Some(match index {
            SECONDS => self.second,
            MINUTES => self.minute,
            HOURS => self.hour,
            WEEKDAY => self.weekday,
            DAY => self.day,
            MONTH => self.month,
            YEAR => self.year,
            CENTURY => self.century,
            _ => return None,
        })
    }

    fn set_field(&mut self, index: u8, value: u8) {
        let field = match index {
            SECONDS => &mut self.second,
            MINUTES => &mut self.minute,
            HOURS => &mut self.hour,
            WEEKDAY => &mut self.weekday,
            DAY => &mut self.day,
            MONTH => &mut self.month,
            YEAR => &mut self.year,
            CENTURY => &mut self.century,
            _ => return,
        };
        *field = value;
    }
}

const DAYS_400_YEARS: i64 = 146_097;

/// Days from the start of 1970 to the first of `month`, 1 to 12, of `year` in the Gregorian calendar.
fn days_before(year: i64, month: u8) -> i64 {
    // Years that begin in March: the leap day is their last one.
    let (year, month) = match i64::from(month) {
        month @ 3.. => (year, month - 3),
        month => (year - 1, month + 9),
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // Months of 31, 30, 31, 30, 31 days, over and over.
    year * 365 + leap_days + (153 * month + 2) / 5 - 719_468
}

/// Year, month and day of the day `days` after the first of January 1970.
fn date(days: i64) -> (i64, u8, u8) {
    // A guess that is never too late, and at most two years too early.
    let (cycles, rest) = (
        days.div_euclid(DAYS_400_YEARS),
        days.rem_euclid(DAYS_400_YEARS),
    );
    let mut year = 1970 + cycles * 400 + rest / 366;
    while days_before(year + 1, 1) <= days {
        year += 1;
    }
    let mut month = 12;
    while month > 1 && days_before(year, month) > days {
        month -= 1;
    }
    (year, month, (days - days_before(year, month) + 1) as u8)
}

#[cfg(test)]
mod tests;
