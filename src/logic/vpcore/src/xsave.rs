//! Room that XSAVE and its kin need, from CPUID leaf 0xD.
//!
//! Source: SDM vol. 1, "Managing State Using the XSAVE Feature Set".

use x86::cpuid::CpuidResult;

/// Bytes of the legacy region and the header.
pub const HEADER_END: usize = 576;

/// Bytes of an area that holds `components`, bits as in XCR0 and IA32_XSS, where `leaf` gives CPUID leaf 0xD by
/// subleaf: in the compacted format or in the standard one, which has no supervisor components.
pub fn area_bytes(components: u64, is_compacted: bool, leaf: impl Fn(u32) -> CpuidResult) -> usize {
    const ALIGNED: u32 = 1 << 1;
    let mut end = HEADER_END;
    for component in (2..63).filter(|n| components >> n & 1 != 0) {
        let about = leaf(component);
        let size = about.eax as usize;
        if !is_compacted {
            end = end.max(about.ebx as usize + size);
        } else if about.ecx & ALIGNED != 0 {
            end = end.next_multiple_of(64) + size;
        } else {
            end += size;
        }
    }
    end
}

/// The components of `offered` whose area is no larger than `room` bytes: lower numbers go first.
pub fn fitting(
    offered: u64,
    is_compacted: bool,
    room: usize,
    leaf: impl Fn(u32) -> CpuidResult,
) -> u64 {
    (0..63)
        .map(|n| offered & 1 << n)
        .fold(0, |chosen, component| {
            if area_bytes(chosen | component, is_compacted, &leaf) <= room {
                chosen | component
            } else {
                chosen
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AVX, AVX-512 and AMX as processors have them.
    fn leaf(component: u32) -> CpuidResult {
        let (eax, ebx, ecx) = match component {
            2 => (256, 576, 0),
            5 => (64, 1088, 0),
            6 => (512, 1152, 0),
            7 => (1024, 1664, 0),
            9 => (8, 2688, 0),
            17 => (64, 2752, 2),
            18 => (8192, 2816, 6),
            _ => (0, 0, 0),
        };
        CpuidResult {
            eax,
            ebx,
            ecx,
            edx: 0,
        }
    }

    #[test]
    fn the_compacted_area_has_no_gaps_but_for_alignment() {
        assert_eq!(area_bytes(0b111, true, leaf), 832);
        assert_eq!(area_bytes(0b111 | 1 << 9, true, leaf), 840);
        assert_eq!(area_bytes(0b111 | 1 << 9 | 1 << 17, true, leaf), 960);
    }

    #[test]
    fn the_standard_area_ends_behind_the_last_component() {
        assert_eq!(area_bytes(0b11, false, leaf), 576);
        assert_eq!(area_bytes(0b111 | 1 << 9, false, leaf), 2696);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let all = 0b1110_0111 | 1 << 9 | 1 << 17 | 1 << 18;
        assert_eq!(fitting(all, true, 4096, leaf), all & !(1 << 18));
        assert_eq!(fitting(all, false, 1000, leaf), 0b111);
        assert_eq!(
            area_bytes(fitting(all, false, 4096, leaf), false, leaf),
            2816
        );
    }
}
