//! The life of a partition, and what goes into its pool and comes out.

mod many;
mod pool;
mod properties;
mod states;

use addr::PartitionId;
use machine::platform::Platform;
use tlfs::{CallCode, HvError};

use crate::client::call;
use crate::options::Options;
use many::{ids, many};
use pool::{costs, pool, refused_frames, whole_chunk};
use properties::properties;
use states::states;

/// Runs the group.
pub fn run(_: &Options, platform: &Platform) {
    states();
    properties();
    pool();
    refused_frames(platform);
    whole_chunk();
    costs();
    ids();
    many();
}

fn fast(call: CallCode, id: PartitionId) -> Result<(), HvError> {
    call::fast(call, id.get(), 0)
}
