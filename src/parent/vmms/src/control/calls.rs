//! The requests that make and unmake a partition.

use addr::{Gpa, Gpn, PartitionId, VpIndex};
use slot_proto::{
    Attach, AttachFlags, Attached, Call, CallDone, Detach, Generation, Request, SlotAdd, Tag,
};
use tlfs::call::{
    Control as ControlWord, CreateFlags, CreatePartition, CreateVp, MapFlags, MapGpaPages,
    MapStatePage, PartitionOnly, ResultWord, SetProperty, StatePageType, Withdraw,
};
use tlfs::property::PropertyCode;
use tlfs::wire::Zero;
use tlfs::{CallCode, HvError};

use super::{Control, ControlError, SharedControl};

/// Elements of one deposit.
const DEPOSIT_REPS: usize = 511;
/// Elements of one map call.
const MAP_REPS: usize = 509;
/// Elements of one withdrawal.
const WITHDRAW_REPS: u16 = 512;

/// The flags that every child is created with: the parent handles what the hypervisor does not, local APICs with x2APIC
/// mode, large pages, intercepts in a page.
const CREATE: CreateFlags = CreateFlags::EXO
    .union(CreateFlags::LAPIC)
    .union(CreateFlags::SUPER_PAGES)
    .union(CreateFlags::INTERCEPT_PAGE)
    .union(CreateFlags::X2APIC);

const RAM: MapFlags = MapFlags::READ
    .union(MapFlags::WRITE)
    .union(MapFlags::KERNEL_EXECUTE)
    .union(MapFlags::USER_EXECUTE)
    .union(MapFlags::LARGE);

/// The interface level that Linux asks for.
const COMPATIBILITY: u32 = 0x609;

/// What to do about a rep call that came so far.
struct Progress {
    done: usize,
    result: Result<(), HvError>,
}

/// The requests, typed.
#[derive(Clone)]
pub struct Calls(pub SharedControl);

impl Calls {
    pub(super) fn ask(
        &self,
        what: &'static str,
        request: &Request<'_>,
    ) -> Result<Vec<u8>, ControlError> {
        let mut control = self.0.lock().unwrap_or_else(|error| error.into_inner());
        let control: &mut dyn Control = &mut *control;
        let answer = control.ask(request)?;
        match answer.result {
            Ok(()) => Ok(answer.body),
            Err(error) => Err(ControlError::Refused { what, error }),
        }
    }

    /// A simple call; its output.
    fn call(
        &self,
        what: &'static str,
        code: CallCode,
        input: &[u8],
    ) -> Result<Vec<u8>, ControlError> {
        let control = ControlWord::simple(code);
        let body = self.ask(what, &Request::Call(Call { control, input }))?;
        Ok(body.get(CallDone::BYTES..).unwrap_or_default().to_vec())
    }

    /// A rep call, issued again while it makes progress: how far it came, why it ended, and its output list.
    fn rep(
        &self,
        code: CallCode,
        input: &[u8],
        count: u16,
        output_bytes: usize,
    ) -> Result<(Progress, Vec<u8>), ControlError> {
        let simple = ControlWord(ControlWord::simple(code).0 | u64::from(count) << 32);
        let mut output = vec![0; output_bytes * usize::from(count)];
        let mut start = 0;
        loop {
            let control = simple.with_rep_start(start);
            let mut channel = self.0.lock().unwrap_or_else(|error| error.into_inner());
            let answer = channel.ask(&Request::Call(Call { control, input }))?;
            drop(channel);
            let word = answer.body.first_chunk().copied().map(u64::from_le_bytes);
            let done = word
                .map_or(0, |word| ResultWord(word).reps_done())
                .min(count);
            // Each answer has the list from its beginning; what was done before this call is left as it was.
            let list = answer.body.get(CallDone::BYTES..).unwrap_or_default();
            let range = usize::from(start) * output_bytes..usize::from(done) * output_bytes;
            if let (Some(to), Some(from)) = (output.get_mut(range.clone()), list.get(range)) {
                to.copy_from_slice(from);
            }
            if answer.result.is_err() || done >= count || done <= start {
                output.truncate(usize::from(done) * output_bytes);
                let progress = Progress {
                    done: done.into(),
                    result: answer.result,
                };
                return Ok((progress, output));
            }
            start = done;
        }
    }

    /// Creates a partition.
    ///
    /// # Errors
    /// [`ControlError`]. `INSUFFICIENT_MEMORY`: the parent's own pool is empty.
    pub fn create(&self) -> Result<PartitionId, ControlError> {
        const WHAT: &str = "creating a partition";
        let input = CreatePartition {
            flags: CREATE,
            compatibility: COMPATIBILITY,
            ..CreatePartition::default()
        };
        let output = self.call(WHAT, CallCode::CREATE_PARTITION, &input.encode())?;
        let id = output.first_chunk().copied().map(u64::from_le_bytes);
        let id = id.ok_or(ControlError::Senseless(WHAT))?;
        Ok(PartitionId::new(id))
    }

    /// Gives a partition the daemon's own number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn tag(&self, partition: PartitionId, tag: u64) -> Result<(), ControlError> {
        let request = Request::Tag(Tag { partition, tag });
        self.ask("tagging the partition", &request).map(drop)
    }

    /// Gives frames of the parent to the pool of a partition: how many were taken.
    ///
    /// # Errors
    /// [`ControlError`]; frames before the failing one may have been taken.
    pub fn deposit(&self, partition: PartitionId, frames: &[u64]) -> Result<(), ControlError> {
        for piece in frames.chunks(DEPOSIT_REPS) {
            let input = with_list(&PartitionOnly { partition }.encode(), piece);
            let count = piece.len() as u16;
            let (progress, _) = self.rep(CallCode::DEPOSIT_MEMORY, &input, count, 0)?;
            progress.all(piece.len(), "depositing memory")?;
            worker_link::stop_point("vmms:deposited");
        }
        Ok(())
    }

    /// Takes some frames of a pool back; none when it is empty.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn withdraw(&self, partition: PartitionId) -> Result<Vec<u64>, ControlError> {
        const WHAT: &str = "withdrawing memory";
        let input = Withdraw {
            partition,
            ..Withdraw::default()
        };
        let (progress, list) =
            self.rep(CallCode::WITHDRAW_MEMORY, &input.encode(), WITHDRAW_REPS, 8)?;
        let frames: Vec<u64> = list
            .chunks_exact(8)
            .filter_map(|frame| frame.first_chunk().copied().map(u64::from_le_bytes))
            .collect();
        match progress.result {
            Ok(()) | Err(HvError::NO_RESOURCES) => Ok(frames),
            Err(error) => Err(ControlError::Refused { what: WHAT, error }),
        }
    }

    /// Sets a property.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn set_property(
        &self,
        partition: PartitionId,
        code: PropertyCode,
        value: u64,
    ) -> Result<(), ControlError> {
        let input = SetProperty {
            partition,
            code,
            value,
            ..SetProperty::default()
        };
        let code = CallCode::SET_PARTITION_PROPERTY;
        self.call("setting a property of the partition", code, &input.encode())
            .map(drop)
    }

    /// Initializes a partition.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn initialize(&self, partition: PartitionId) -> Result<(), ControlError> {
        let input = PartitionOnly { partition }.encode();
        self.call(
            "initializing the partition",
            CallCode::INITIALIZE_PARTITION,
            &input,
        )
        .map(drop)
    }

    /// Maps large pages of the parent, given by their first frames, to `gpa` and up. How many were mapped, and the
    /// error that stopped it.
    ///
    /// # Errors
    /// [`ControlError::Broken`].
    pub fn map_ram(
        &self,
        partition: PartitionId,
        gpa: Gpa,
        frames: &[u64],
    ) -> Result<(usize, Result<(), ControlError>), ControlError> {
        let piece = frames.get(..frames.len().min(MAP_REPS)).unwrap_or_default();
        let header = MapGpaPages {
            partition,
            base: Gpn::new(gpa.get() / 4096),
            flags: RAM,
            ..MapGpaPages::default()
        };
        let input = with_list(&header.encode(), piece);
        let (progress, _) = self.rep(CallCode::MAP_GPA_PAGES, &input, piece.len() as u16, 0)?;
        Ok((
            progress.done,
            progress.all(piece.len(), "mapping the child's memory"),
        ))
    }

    /// Makes VP `vp`, suspended.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn create_vp(&self, partition: PartitionId, vp: u32) -> Result<(), ControlError> {
        let input = CreateVp {
            partition,
            vp: VpIndex::new(vp),
            ..CreateVp::default()
        };
        self.call("creating a VP", CallCode::CREATE_VP, &input.encode())
            .map(drop)
    }

    /// Has a page of the parent show state of VP `vp`.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn map_state_page(
        &self,
        partition: PartitionId,
        vp: u32,
        kind: StatePageType,
        page: Gpa,
    ) -> Result<(), ControlError> {
        let input = MapStatePage {
            partition,
            vp: VpIndex::new(vp),
            kind,
            is_placed: true,
            page: Gpn::new(page.get() / 4096),
            ..MapStatePage::default()
        };
        let code = CallCode::MAP_VP_STATE_PAGE;
        self.call("mapping a VP's state page", code, &input.encode())
            .map(drop)
    }

    /// Makes slot `slot` the partition's.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn attach(
        &self,
        partition: PartitionId,
        slot: u32,
        event_area: Gpa,
        signal_page: Gpa,
    ) -> Result<Generation, ControlError> {
        const WHAT: &str = "attaching the slot";
        let request = Request::Attach(Attach {
            slot,
            flags: AttachFlags::STAYS_SUSPENDED,
            partition,
            event_area,
            signal_page,
        });
        let body = self.ask(WHAT, &request)?;
        let attached = Attached::decode(&body).map_err(|_| ControlError::Senseless(WHAT))?;
        Ok(attached.generation)
    }

    /// Ends the session of a slot.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn detach(&self, slot: u32, generation: Generation) -> Result<(), ControlError> {
        let request = Request::Detach(Detach { slot, generation });
        self.ask("detaching the slot", &request).map(drop)
    }

    /// Takes a partition apart, down to its pool.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn finalize(&self, partition: PartitionId) -> Result<(), ControlError> {
        let input = PartitionOnly { partition }.encode();
        self.call(
            "finalizing the partition",
            CallCode::FINALIZE_PARTITION,
            &input,
        )
        .map(drop)
    }

    /// Deletes a partition that is finalized and has an empty pool.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn delete(&self, partition: PartitionId) -> Result<(), ControlError> {
        let input = PartitionOnly { partition }.encode();
        self.call("deleting the partition", CallCode::DELETE_PARTITION, &input)
            .map(drop)
    }

    /// Has the hypervisor offer slot `number` as well.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn add_slot(&self, number: u32) -> Result<(), ControlError> {
        let request = Request::SlotAdd(SlotAdd {
            number,
            reserved: Zero,
        });
        self.ask("adding a slot", &request).map(drop)
    }
}

impl Progress {
    /// Whether all `count` elements were done.
    fn all(&self, count: usize, what: &'static str) -> Result<(), ControlError> {
        match self.result {
            Err(error) => Err(ControlError::Refused { what, error }),
            Ok(()) if self.done < count => Err(ControlError::Senseless(what)),
            Ok(()) => Ok(()),
        }
    }
}

fn with_list(header: &[u8], frames: &[u64]) -> Vec<u8> {
    let mut input = header.to_vec();
    input.extend(frames.iter().flat_map(|frame| frame.to_le_bytes()));
    input
}
