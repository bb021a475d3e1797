//! CPUID of a child: what the hypervisor answers, and what the parent makes of it.

use addr::VpIndex;
use machine::verdict::{check, equal, note};
use tlfs::CallCode;
use tlfs::call::*;
use tlfs::register::RegisterName as N;

use crate::child::code;
use crate::child::guest::{Guest, Mode};
use crate::client::call;
use crate::client::vp::get_registers;
use crate::group::need;

fn run_cpuid(guest: &mut Guest, leaf: u32, subleaf: u32) -> Option<[u64; 4]> {
    let registers = [(N::RAX, leaf.into()), (N::RCX, subleaf.into())];
    guest.start(0, Mode::Long, code::cpuid, &registers).ok()?;
    let stop = guest.run(0)?;
    if !stop.is_out(code::STOP) {
        note(format_args!("CPUID {leaf:#x}: {stop}"));
        return None;
    }
    let names = [N::RAX, N::RBX, N::RCX, N::RDX];
    let values = get_registers(guest.id, 0, &names).ok()?;
    Some([0, 1, 2, 3].map(|n: usize| values[n] as u64))
}

/// Leaves as they are, as the parent set them, and as intercepts.
pub fn cpuid(guest: &mut Guest) {
    check(
        "cpuid: the vendor of the interface",
        run_cpuid(guest, 0x4000_0000, 0)
            .is_some_and(|r| r[1] == 0x7263_694D && r[2] == 0x666F_736F && r[3] == 0x7648_2074),
    );
    check(
        "cpuid: the interface",
        run_cpuid(guest, 0x4000_0001, 0).is_some_and(|r| r[0] == 0x3123_7648),
    );
    let privileges = run_cpuid(guest, 0x4000_0003, 0).unwrap_or_default();
    check(
        "cpuid: a child may not create partitions",
        privileges[0] != 0 && privileges[1] & 1 == 0,
    );
    check(
        "cpuid: nothing at the leaf that Linux reads past the end",
        run_cpuid(guest, 0x4000_0082, 0) == Some([0; 4]),
    );
    let one = run_cpuid(guest, 1, 0).unwrap_or_default();
    check("cpuid: there is a hypervisor", one[2] >> 31 == 1);
    check("cpuid: no VMX", one[2] >> 5 & 1 == 0);
    check(
        "cpuid: an APIC with x2APIC mode",
        one[2] >> 21 & 1 == 1 && one[3] >> 9 & 1 == 1,
    );
    let extended = run_cpuid(guest, 0x8000_0001, 0).unwrap_or_default();
    check(
        "cpuid: no SVM, long mode",
        extended[2] >> 2 & 1 == 0 && extended[3] >> 29 & 1 == 1,
    );
    // An override: EBX of a leaf, the upper half of its bits.
    let default = run_cpuid(guest, 0x8000_0002, 0).unwrap_or_default();
    let input = RegisterCpuidResult {
        partition: guest.id,
        vp: VP_ANY,
        leaf: 0x8000_0002,
        registers: [[0, 0], [0xABCD_0000, 0xFFFF_0000], [0, 0], [0, 0]],
        ..RegisterCpuidResult::default()
    };
    need(
        "cpuid: an override is taken",
        guest.feed(|_| call::simple(CallCode::REGISTER_INTERCEPT_RESULT, &input.encode())),
    );
    let now = run_cpuid(guest, 0x8000_0002, 0).unwrap_or_default();
    equal(
        "cpuid: and seen in the masked bits alone",
        now[1],
        default[1] & 0xFFFF | 0xABCD_0000,
    );
    equal("cpuid: not elsewhere", now[0], default[0]);
    let leaf = CpuidLeaf {
        leaf: 0x8000_0002,
        ..CpuidLeaf::default()
    };
    let header = GetCpuidValues {
        partition: guest.id,
        vp: VpIndex::new(0),
        flags: CpuidValuesFlags::APPLY_REGISTERED,
        ..GetCpuidValues::default()
    };
    let mut out = [0; 16];
    let reply = call::rep(
        CallCode::GET_VP_CPUID_VALUES,
        &header.encode(),
        &leaf.encode(),
        1,
        &mut out,
    );
    equal("cpuid: the parent can ask for it", reply.code(), 0);
    check(
        "cpuid: and gets the same",
        out[4..8] == (now[1] as u32).to_le_bytes(),
    );
}
