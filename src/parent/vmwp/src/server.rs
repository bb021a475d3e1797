//! The VMBus server in the hypervisor, through the slot.

use slot_proto::{
    GpadlName, GpadlPagesDone, GpadlPagesFrom, OfferDone, OpenResult, RelidOnly, Request,
};
use tlfs::wire::Zero;
use vmbus_proto::{GpadlHandle, Offer, Relid};
use vsp::{GpadlPages, Server, ServerError};

use crate::slot::{Slot, SlotError};

impl From<SlotError> for ServerError {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Refused(status) => Self::Refused(status),
            SlotError::Lost(text) => Self::Lost(text),
        }
    }
}

fn only(relid: Relid) -> RelidOnly {
    RelidOnly {
        relid,
        reserved: Zero,
    }
}

fn no_answer(_: tlfs::HvError) -> ServerError {
    ServerError::Lost("an answer is malformed".into())
}

impl Server for Slot {
    fn offer(&mut self, offer: &Offer) -> Result<Relid, ServerError> {
        let body = self.request(&Request::Offer(*offer))?;
        Ok(OfferDone::decode(&body).map_err(no_answer)?.relid)
    }

    fn rescind(&mut self, relid: Relid) -> Result<(), ServerError> {
        self.request(&Request::Rescind(only(relid)))?;
        Ok(())
    }

    fn open_result(&mut self, relid: Relid, status: u32) -> Result<(), ServerError> {
        self.request(&Request::OpenResult(OpenResult { relid, status }))?;
        Ok(())
    }

    fn close_done(&mut self, relid: Relid) -> Result<(), ServerError> {
        self.request(&Request::CloseDone(only(relid)))?;
        Ok(())
    }

    fn gpadl_pages(
        &mut self,
        relid: Relid,
        handle: GpadlHandle,
        first: u32,
    ) -> Result<GpadlPages, ServerError> {
        let body = self.request(&Request::GpadlPages(GpadlPagesFrom {
            relid,
            handle,
            first,
            reserved: Zero,
        }))?;
        let head = GpadlPagesDone::decode(&body).map_err(no_answer)?;
        let list = body.get(GpadlPagesDone::BYTES..).unwrap_or_default();
        let pages = list
            .as_chunks()
            .0
            .iter()
            .map(|page| u64::from_le_bytes(*page));
        Ok(GpadlPages {
            total: head.pages,
            byte_offset: head.byte_offset,
            pages: pages.take(usize::from(head.count)).collect(),
        })
    }

    fn gpadl_done(&mut self, relid: Relid, handle: GpadlHandle) -> Result<(), ServerError> {
        self.request(&Request::GpadlDone(GpadlName { relid, handle }))?;
        Ok(())
    }

    fn reset_done(&mut self) -> Result<(), ServerError> {
        self.request(&Request::ResetDone)?;
        Ok(())
    }
}
