//! What the machines printed, as numbers.

use std::collections::BTreeMap;

/// Numbers by name.
pub type Readings = BTreeMap<String, u64>;

/// `# bench NAME TICKS` of the test parent.
pub fn payload(console: &str) -> Readings {
    let mut readings = Readings::new();
    for line in console.lines() {
        let mut words = line.split_whitespace();
        if (words.next(), words.next()) != (Some("#"), Some("bench")) {
            continue;
        }
        if let (Some(name), Some(Ok(ticks))) = (words.next(), words.next().map(str::parse)) {
            readings.insert(name.to_owned(), ticks);
        }
    }
    readings
}

/// `memory: NAME SIZE KiB` of the hypervisor, in bytes.
pub fn memory(hypervisor: &str) -> Readings {
    let mut readings = Readings::new();
    for line in hypervisor.lines() {
        let Some((_, text)) = line.split_once("memory: ") else {
            continue;
        };
        for part in text.split(", ") {
            let mut parts = part.splitn(2, " KiB");
            let Some((name, size)) = parts.next().and_then(|part| part.rsplit_once(' ')) else {
                continue;
            };
            if let (Ok(kib), true) = (size.parse::<u64>(), part.contains(" KiB")) {
                readings.insert(format!("memory-{}", name.replace(' ', "-")), kib << 10);
            }
        }
    }
    readings
}

/// `counters: vpN NAME=VALUE ...` of the hypervisor, added up over the VPs.
pub fn counters(hypervisor: &str) -> Readings {
    let mut readings = Readings::new();
    for line in hypervisor.lines() {
        let Some((_, text)) = line.split_once("counters: vp") else {
            continue;
        };
        for word in text.split_whitespace() {
            if let Some((name, Ok(value))) =
                word.split_once('=').map(|(n, v)| (n, v.parse::<u64>()))
            {
                *readings.entry(name.to_owned()).or_default() += value;
            }
        }
    }
    readings
}

/// How long Debian's boot took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boot {
    /// Ticks from the kernel's first line until it starts the first process.
    pub init: f64,
    /// Until the test.
    pub test: f64,
    /// Ticks of these in which the processor slept.
    pub idle: f64,
}

/// Times of the kernel's log are TSC ticks by the frequency that the kernel found, so that ticks come out as they
/// were, however it measured.
pub fn boot(console: &str) -> Option<Boot> {
    let stamp = |line: &str| {
        let (_, rest) = line.split_once('[')?;
        rest.split_once(']')?.0.trim().parse::<f64>().ok()
    };
    let find = |what: &str| console.lines().find(|line| line.contains(what));
    let mhz: f64 = find("tsc: Detected")?
        .split_once("Detected ")?
        .1
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    let ticks = mhz * 1e6;
    let idle: f64 = find("# bench uptime ")?
        .split_whitespace()
        .nth(4)?
        .parse()
        .ok()?;
    Some(Boot {
        init: stamp(find("as init process")?)? * ticks,
        test: stamp(find("# bench kmsg ")?)? * ticks,
        idle: idle * ticks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payloads_lines_are_read_and_others_are_not() {
        let readings =
            payload("ok 1 - a\r\n# bench cpuid 190\r\n# bench cpuid.min 189\r\n# group bench\r\n");
        assert_eq!(readings.len(), 2);
        assert_eq!(readings["cpuid"], 190);
    }

    #[test]
    fn memory_is_read_in_every_form_of_the_line() {
        let readings = memory(
            "[    0.000001] lp0 INFO  memory: block 8192 KiB at 0x1000, image 300 KiB\n\
             [    0.000002] lp0 INFO  memory: second-level tables 40 KiB\n\
             [    0.000003] lp0 INFO  memory: diagnostics 1024 KiB, free 9 KiB\n",
        );
        assert_eq!(readings["memory-block"], 8192 << 10);
        assert_eq!(readings["memory-image"], 300 << 10);
        assert_eq!(readings["memory-second-level-tables"], 40 << 10);
        assert_eq!(readings["memory-free"], 9 << 10);
    }

    #[test]
    fn counters_of_all_vps_are_added() {
        let readings =
            counters("counters: vp0 exit.cpuid=2 entries=9\ncounters: vp1 exit.cpuid=3\n");
        assert_eq!(readings["exit.cpuid"], 5);
        assert_eq!(readings["entries"], 9);
    }

    #[test]
    fn the_boot_is_timed_by_the_kernels_own_frequency() {
        let log = "# bench uptime 4.00 1.25\n\
                   # bench init [    2.500000] Run /init as init process\n\
                   # bench tsc [    0.000007] tsc: Detected 100.000 MHz processor\n\
                   # bench kmsg [    4.000000] vg: bench mark\n";
        let boot = boot(log).unwrap();
        assert_eq!((boot.init, boot.test, boot.idle), (2.5e8, 4e8, 1.25e8));
    }
}
