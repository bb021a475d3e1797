//! Where the diagnostics area lies: the ACPI table of the hypervisor says so.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};

const TABLES: &str = "/sys/firmware/acpi/tables";
/// Length of the header that all ACPI tables share (ACPI 6.5, "System Description Table Header").
const HEADER_LEN: usize = 36;
/// The area is not larger than what a parent would copy without a thought.
const AREA_MAX: u64 = 64 << 20;

/// A range of physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First byte, a physical address; page-aligned.
    pub base: u64,
    /// Length in bytes.
    pub len: usize,
}

/// Finds the area of the hypervisor that this system runs under. An error says why there is none.
pub fn find() -> Result<Place> {
    in_tables(Path::new(TABLES))
}

fn in_tables(tables: &Path) -> Result<Place> {
    let signature = String::from_utf8_lossy(&diagnostics::ACPI_SIGNATURE).into_owned();
    let file = tables.join(&signature);
    let table = fs::read(&file).map_err(|error| match error.kind() {
        ErrorKind::NotFound if tables.is_dir() => {
            anyhow!("this system is not the parent partition of Verdigris: it has no ACPI table {signature}")
        }
        ErrorKind::NotFound => anyhow!(
            "{} does not exist: sysfs is not mounted, or the system has no ACPI",
            tables.display()
        ),
        ErrorKind::PermissionDenied => anyhow!("no permission to read {}: run it as root", file.display()),
        _ => anyhow!("reading {}: {error}", file.display()),
    })?;
    parse(&table)
}

fn parse(table: &[u8]) -> Result<Place> {
    let number = |at: usize| Some(u64::from_le_bytes(*table.get(at..)?.first_chunk()?));
    let (Some(base), Some(len)) = (number(HEADER_LEN), number(HEADER_LEN + 8)) else {
        return Err(anyhow!("the ACPI table has only {} bytes", table.len()));
    };
    ensure!(
        table.starts_with(&diagnostics::ACPI_SIGNATURE)
            && table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0,
        "the ACPI table is damaged: its signature or its checksum is wrong"
    );
    ensure!(
        base.is_multiple_of(4096) && (diagnostics::MIN_LEN..=AREA_MAX).contains(&len),
        "the ACPI table names an area of {len} bytes at {base:#x}, which cannot be"
    );
    Ok(Place {
        base,
        len: len as usize,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(base: u64, len: u64) -> Vec<u8> {
        let mut table = vec![0; HEADER_LEN];
        table[..4].copy_from_slice(b"VDGS");
        table.extend(base.to_le_bytes());
        table.extend(len.to_le_bytes());
        let sum = table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        table[9] = sum.wrapping_neg();
        table
    }

    #[test]
    fn the_table_names_the_area() {
        let place = parse(&table(0x7c80_0000, 1 << 20)).unwrap();
        assert_eq!(
            place,
            Place {
                base: 0x7c80_0000,
                len: 1 << 20
            }
        );
    }

    #[test]
    fn damaged_tables_are_refused() {
        let good = table(0x7c80_0000, 1 << 20);
        assert!(
            parse(&good[..40])
                .unwrap_err()
                .to_string()
                .contains("only 40 bytes")
        );
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(parse(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn impossible_areas_are_refused() {
        assert!(parse(&table(0x7c80_0001, 1 << 20)).is_err());
        assert!(parse(&table(0x7c80_0000, 4096)).is_err());
        assert!(parse(&table(0x7c80_0000, u64::MAX)).is_err());
    }

    #[test]
    fn the_errors_tell_what_is_missing() {
        let error = in_tables(&std::env::temp_dir()).unwrap_err().to_string();
        assert!(
            error.contains("not the parent partition of Verdigris"),
            "{error}"
        );
        let error = in_tables(Path::new("/nowhere/at/all"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("sysfs is not mounted"), "{error}");
    }
}
