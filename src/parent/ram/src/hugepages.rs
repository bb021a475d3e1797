//! How many huge pages there are.

use std::fs;
use std::path::Path;

const COUNTERS: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

fn read(name: &str) -> Option<u64> {
    let text = fs::read_to_string(Path::new(COUNTERS).join(name)).ok()?;
    text.trim().parse().ok()
}

/// Huge pages that are neither in use nor set aside.
pub fn free() -> Option<u64> {
    Some(read("free_hugepages")?.saturating_sub(read("resv_hugepages")?))
}

/// Lets the kernel make `wanted` huge pages beyond those that were reserved at boot, as far as it finds them. They go back
/// to ordinary memory when nobody has them any more. Whether it worked shows when they are used.
pub fn allow(wanted: u64) {
    let (Some(free), Some(surplus), Some(limit)) = (
        free(),
        read("surplus_hugepages"),
        read("nr_overcommit_hugepages"),
    ) else {
        return;
    };
    let needed = surplus.saturating_add(wanted.saturating_sub(free));
    let all = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text));
    // What no machine of this size has is not tried for.
    if needed > all.unwrap_or(0) {
        return;
    }
    if needed > limit {
        // After some time of use, free memory lies in smaller pieces than these.
        let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        let _ = fs::write(
            Path::new(COUNTERS).join("nr_overcommit_hugepages"),
            needed.to_string(),
        );
    }
}

/// Memory of the machine in huge pages.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 2048)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_memory_is_read() {
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert_eq!(
            total("MemTotal:        4096000 kB\nMemFree: 1 kB\n"),
            Some(2000)
        );
    }
}
