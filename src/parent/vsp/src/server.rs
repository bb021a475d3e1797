//! The VMBus server in the hypervisor, as a worker asks it.

use tlfs::HvError;
use vmbus_proto::{GpadlHandle, Offer, Relid};

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// The server refused it.
    #[error("the VMBus server refused: status {:#x}", .0.0)]
    Refused(HvError),
    /// There is no way to the server any more.
    #[error("no way to the VMBus server: {0}")]
    Lost(String),
}

/// Why the bus cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// A channel was open when this worker came.
    #[error("channel {} was left open by another worker: reset the child", .0.0)]
    LeftOpen(Relid),
    /// A request failed that cannot be done without.
    #[error("{doing}: {error}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// What failed.
        #[source]
        error: ServerError,
    },
}

/// Pages of a GPADL, from one on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpadlPages {
    /// Pages of the whole GPADL.
    pub total: u32,
    /// Where the described memory begins in the first page.
    pub byte_offset: u32,
    /// The page numbers asked for, as many as an answer holds.
    pub pages: Vec<u64>,
}

/// The requests of `slot_proto` about a child's VMBus. Each blocks until it is answered.
///
/// # Errors
/// [`ServerError`]; what is refused changed nothing.
pub trait Server {
    /// OFFER: the number of the channel.
    fn offer(&mut self, offer: &Offer) -> Result<Relid, ServerError>;
    /// RESCIND. The caller is off all pages of the channel.
    fn rescind(&mut self, relid: Relid) -> Result<(), ServerError>;
    /// OPEN_RESULT, with the status for the child.
    fn open_result(&mut self, relid: Relid, status: u32) -> Result<(), ServerError>;
    /// CLOSE_DONE.
    fn close_done(&mut self, relid: Relid) -> Result<(), ServerError>;
    /// GPADL_PAGES, from page `first` on.
    fn gpadl_pages(
        &mut self,
        relid: Relid,
        handle: GpadlHandle,
        first: u32,
    ) -> Result<GpadlPages, ServerError>;
    /// GPADL_DONE.
    fn gpadl_done(&mut self, relid: Relid, handle: GpadlHandle) -> Result<(), ServerError>;
    /// RESET_DONE.
    fn reset_done(&mut self) -> Result<(), ServerError>;
}
