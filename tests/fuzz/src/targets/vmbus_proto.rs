//! Bytes that a child posts.

use vmbus_proto::{ClientMessage, Guid, MAX_GPADL_PAGES, Offer};

use crate::target;

target!(|bytes: &[u8]| {
    match ClientMessage::decode(bytes) {
        Ok(ClientMessage::GpadlHeader(header, pages)) => {
            assert_eq!(pages.iter().count(), pages.len());
            if let Some(count) = header.page_count() {
                assert!((1..=MAX_GPADL_PAGES).contains(&usize::from(count)));
            }
        }
        Ok(ClientMessage::GpadlBody(_, pages)) => {
            assert_eq!(pages.iter().count(), pages.len());
        }
        Ok(ClientMessage::InitiateContact(contact)) => {
            let _ = (
                contact.sint(),
                contact.vtl(),
                contact.version.is_supported(),
            );
        }
        Ok(ClientMessage::OpenChannel(open)) => {
            let _ = open.target();
        }
        _ => {}
    }
    if let Ok(offer) = Offer::decode(bytes) {
        let again = Offer::decode(&offer.encode());
        assert_eq!(again.ok(), Some(offer));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Guid::parse(text);
    }
});
