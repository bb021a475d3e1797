//! The target: which logical units there are.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::cdb::{Cdb, op};
use crate::completion::{Completion, Data, Stop};
use crate::inquiry;
use crate::sense::Sense;

/// Logical units are numbered from 0 to one less than this.
pub const MAX_LUNS: u8 = 64;

/// A disk, a drive: what carries out commands.
pub trait LogicalUnit: Send + Sync {
    /// Carries out one command.
    fn execute(&self, cdb: &Cdb, data: &Data<'_>) -> Completion;
}

/// The number is taken, or [`MAX_LUNS`] or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LunTaken;

/// A target with its logical units, which may come and go while it is used.
#[derive(Default)]
pub struct Target {
    units: RwLock<BTreeMap<u8, Arc<dyn LogicalUnit>>>,
}

impl Target {
    /// A target without units.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `unit` as number `lun`, which is below [`MAX_LUNS`].
    ///
    /// # Errors
    /// The number is too large, or has a unit.
    pub fn insert(&self, lun: u8, unit: Arc<dyn LogicalUnit>) -> Result<(), LunTaken> {
        let mut units = self.units.write().unwrap_or_else(PoisonError::into_inner);
        if lun >= MAX_LUNS || units.contains_key(&lun) {
            return Err(LunTaken);
        }
        units.insert(lun, unit);
        Ok(())
    }

    /// Takes a unit out. Commands that it is carrying out go on.
    pub fn remove(&self, lun: u8) -> Option<Arc<dyn LogicalUnit>> {
        let mut units = self.units.write().unwrap_or_else(PoisonError::into_inner);
        units.remove(&lun)
    }

    fn unit(&self, lun: u8) -> Option<Arc<dyn LogicalUnit>> {
        let units = self.units.read().unwrap_or_else(PoisonError::into_inner);
        units.get(&lun).cloned()
    }

    /// Carries out the command with the descriptor block `cdb`, of which at most 16 bytes count.
    pub fn execute(&self, lun: u8, cdb: &[u8], data: &Data<'_>) -> Completion {
        let cdb = match Cdb::new(cdb) {
            Ok(cdb) => cdb,
            Err(sense) => return Completion::Check(sense),
        };
        if cdb.opcode() == op::REPORT_LUNS {
            let units = self.units.read().unwrap_or_else(PoisonError::into_inner);
            let luns: Vec<u8> = units.keys().copied().collect();
            drop(units);
            return report_luns(&cdb, data, &luns).into();
        }
        match self.unit(lun) {
            Some(unit) => unit.execute(&cdb, data),
            None => execute_absent(&cdb, data),
        }
    }

    /// What an address answers at which there is no target: INQUIRY and REPORT LUNS say that nothing is there.
    pub fn execute_nowhere(cdb: &[u8], data: &Data<'_>) -> Completion {
        match Cdb::new(cdb) {
            Ok(cdb) if cdb.opcode() == op::REPORT_LUNS => report_luns(&cdb, data, &[]).into(),
            Ok(cdb) => execute_absent(&cdb, data),
            Err(sense) => Completion::Check(sense),
        }
    }
}

fn execute_absent(cdb: &Cdb, data: &Data<'_>) -> Completion {
    match cdb.opcode() {
        op::INQUIRY if cdb.bit::<1>(0) => Completion::Check(Sense::NO_SUCH_UNIT),
        op::INQUIRY => data
            .answer(&inquiry::absent(), usize::from(cdb.be16::<3>()))
            .into(),
        op::REQUEST_SENSE => data
            .answer(&Sense::NO_SUCH_UNIT.fixed(), usize::from(cdb.byte::<4>()))
            .into(),
        _ => Completion::NoUnit,
    }
}

/// Answers REPORT LUNS (SPC-4). The units are addressed as the peripheral device addressing of SAM-5 has it.
fn report_luns(cdb: &Cdb, data: &Data<'_>, luns: &[u8]) -> Result<u32, Stop> {
    let luns = match cdb.byte::<2>() {
        0 | 2 => luns,
        // Well-known units only: there are none.
        1 => &[],
        _ => return Err(Sense::INVALID_FIELD_IN_CDB.into()),
    };
    let mut answer = (luns.len() as u32 * 8).to_be_bytes().to_vec();
    answer.extend([0; 4]);
    for lun in luns {
        answer.extend([0, *lun, 0, 0, 0, 0, 0, 0]);
    }
    data.answer(&answer, cdb.be32::<6>() as usize)
}
