//! Messages that a guest posts.

use addr::{Gpn, VpIndex};
use tlfs::wire::{Field, Pad, blocks};
use tlfs::{HvError, Reader};

use crate::{GpadlHandle, Guid, MessageType, NO_VP, Relid, UserData, Version};

/// Pages of the longest GPADL: what the length of its range in bytes, 16 bits, can say.
pub const MAX_GPADL_PAGES: usize = (u16::MAX as usize - 8) / 8;

blocks! {
    /// `CHANNELMSG_INITIATE_CONTACT`. Longer forms are for features that were not offered.
    InitiateContact[32] {
        version: Version, /// The VP that messages are sent to.
        vp: VpIndex, /// From version 5.0 on SINT and VTL, before it the interrupt page.
        target: u64, monitor_pages: Pad<16>,
    }
    /// `CHANNELMSG_OPENCHANNEL`.
    OpenChannel[140] {
        relid: Relid, /// Echoed in the answer.
        open_id: u32, /// Holds both rings.
        ring: GpadlHandle, /// The VP that is signalled, or [`crate::NO_VP`].
        vp: u32, /// Where in the GPADL the ring from host to guest begins.
        downstream_page: u32, user: UserData,
    }
    /// `CHANNELMSG_GPADL_HEADER` up to the page numbers.
    GpadlHeader[20] {
        relid: Relid, handle: GpadlHandle, /// Bytes of all ranges: 8 for each, 8 for each page.
        range_bytes: u16, range_count: u16, byte_count: u32, byte_offset: u32,
    }
    /// `CHANNELMSG_MODIFYCHANNEL`.
    ModifyChannel[8] { relid: Relid, vp: VpIndex, }
    /// `CHANNELMSG_TL_CONNECT_REQUEST`. Longer forms name more that only a server of sockets needs.
    TlConnect[32] { endpoint: Guid, service: Guid, }
    /// Header of every message.
    Header[8] { kind: MessageType, padding: Pad<4>, }
    /// `CHANNELMSG_GPADL_BODY` up to the page numbers. Linux leaves the number of the message 0 in every one.
    GpadlBody[8] { number: Pad<4>, handle: GpadlHandle, }
    /// `CHANNELMSG_GPADL_TEARDOWN`.
    GpadlTeardown[8] { relid: Relid, handle: GpadlHandle, }
}

impl InitiateContact {
    /// The SINT for messages and events: 2 before version 5.0, where a guest does not say.
    pub const fn sint(&self) -> u8 {
        if self.version.0 < Version::V5_0.0 {
            2
        } else {
            self.target as u8
        }
    }

    /// The trust level, 0 before version 5.0.
    pub const fn vtl(&self) -> u8 {
        if self.version.0 < Version::V5_0.0 {
            0
        } else {
            (self.target >> 8) as u8
        }
    }
}

impl OpenChannel {
    /// The VP that is signalled, `None` for none.
    pub fn target(&self) -> Option<VpIndex> {
        (self.vp != NO_VP).then(|| VpIndex::new(self.vp))
    }
}

impl GpadlHeader {
    /// Pages of the whole GPADL, 1 to [`MAX_GPADL_PAGES`]. `None` unless it is one range, at least one byte long, whose
    /// page numbers are as many as its bytes need.
    pub fn page_count(&self) -> Option<u16> {
        let pages = self.range_bytes.checked_sub(8)? / 8;
        let end = u64::from(self.byte_offset) + u64::from(self.byte_count);
        let is_whole = self.range_count == 1
            && self.range_bytes.is_multiple_of(8)
            && self.byte_count != 0
            && self.byte_offset < 4096
            && end.div_ceil(4096) == u64::from(pages);
        is_whole.then_some(pages)
    }
}

/// Page numbers at the end of a message, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageNumbers<'a>(&'a [u8]);

impl<'a> PageNumbers<'a> {
    /// The numbers in order; bytes at the end that make no whole number are left out.
    pub fn iter(&self) -> impl Iterator<Item = Gpn> + 'a {
        let (whole, _) = self.0.as_chunks::<8>();
        whole
            .iter()
            .map(|bytes| Gpn::new(u64::from_le_bytes(*bytes)))
    }

    /// How many there are, 0 to 28 in a message that was posted.
    pub const fn len(&self) -> usize {
        self.0.len() / 8
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A message that the server knows. Bytes behind what a type needs do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the protocol")]
pub enum ClientMessage<'a> {
    RequestOffers,
    OpenChannel(OpenChannel),
    CloseChannel(Relid),
    GpadlHeader(GpadlHeader, PageNumbers<'a>),
    GpadlBody(GpadlHandle, PageNumbers<'a>),
    GpadlTeardown(Relid, GpadlHandle),
    RelidReleased(Relid),
    InitiateContact(InitiateContact),
    Unload,
    TlConnect(TlConnect),
    ModifyChannel(ModifyChannel),
}

impl<'a> ClientMessage<'a> {
    /// Reads the payload of a synthetic message.
    ///
    /// # Errors
    /// [`HvError::INVALID_PARAMETER`]: too short for its type, or no type of a guest's message.
    pub fn decode(payload: &'a [u8]) -> Result<Self, HvError> {
        let mut r = Reader::new(payload);
        let r = &mut r;
        Ok(match Header::read(r)?.kind {
            MessageType::REQUEST_OFFERS => Self::RequestOffers,
            MessageType::OPEN_CHANNEL => Self::OpenChannel(Field::read(r)?),
            MessageType::CLOSE_CHANNEL => Self::CloseChannel(Field::read(r)?),
            MessageType::GPADL_HEADER => Self::GpadlHeader(Field::read(r)?, PageNumbers(r.rest())),
            MessageType::GPADL_BODY => {
                Self::GpadlBody(GpadlBody::read(r)?.handle, PageNumbers(r.rest()))
            }
            MessageType::GPADL_TEARDOWN => {
                let teardown = GpadlTeardown::read(r)?;
                Self::GpadlTeardown(teardown.relid, teardown.handle)
            }
            MessageType::RELID_RELEASED => Self::RelidReleased(Field::read(r)?),
            MessageType::INITIATE_CONTACT => Self::InitiateContact(Field::read(r)?),
            MessageType::UNLOAD => Self::Unload,
            MessageType::TL_CONNECT_REQUEST => Self::TlConnect(Field::read(r)?),
            MessageType::MODIFY_CHANNEL => Self::ModifyChannel(Field::read(r)?),
            _ => return Err(HvError::INVALID_PARAMETER),
        })
    }
}
