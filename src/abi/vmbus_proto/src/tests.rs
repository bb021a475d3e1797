//! Bytes as Linux writes and reads them.

use proptest::prelude::*;
use std::vec::Vec;

use super::*;

fn message(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[test]
fn contact_names_a_sint_from_5_0_on() {
    let mut words = [14, 0, 0x5_0003, 3, 2, 0, 0x1000, 0, 0x2000, 0];
    let bytes = message(&words);
    assert_eq!(bytes.len(), 40);
    let Ok(ClientMessage::InitiateContact(contact)) = ClientMessage::decode(&bytes) else {
        panic!()
    };
    assert_eq!((contact.version, contact.vp.get()), (Version::V5_3, 3));
    assert_eq!((contact.sint(), contact.vtl()), (2, 0));
    assert!(ClientMessage::decode(&bytes[..39]).is_err());

    // Before, the interrupt page stands there.
    (words[2], words[4]) = (0x4_0001, 0xABCD_E000);
    let bytes = message(&words);
    let Ok(ClientMessage::InitiateContact(contact)) = ClientMessage::decode(&bytes) else {
        panic!()
    };
    assert_eq!((contact.sint(), contact.vtl()), (2, 0));
}

#[test]
fn versions_that_were_skipped_are_not_supported() {
    for version in [
        0,
        0x1_0000,
        0x3_0000,
        0x4_0002,
        0x5_0004,
        0x6_0000,
        u32::MAX,
    ] {
        assert!(!Version(version).is_supported(), "{version:#x}");
    }
}

#[test]
fn an_open_has_its_fields_where_linux_puts_them() {
    let mut words = [0u32; 37];
    words[..7].copy_from_slice(&[5, 0, 9, 9, 0xE1E10, 1, 17]);
    words[36] = 0x0403_0201;
    let bytes = message(&words);
    assert_eq!(bytes.len(), 148);
    let Ok(ClientMessage::OpenChannel(open)) = ClientMessage::decode(&bytes) else {
        panic!()
    };
    assert_eq!(
        (open.relid, open.open_id, open.ring),
        (Relid(9), 9, GpadlHandle(0xE1E10))
    );
    assert_eq!(
        (open.target().map(|vp| vp.get()), open.downstream_page),
        (Some(1), 17)
    );
    assert_eq!(open.user.0[116..], [1, 2, 3, 4]);
    words[5] = NO_VP;
    let bytes = message(&words);
    let Ok(ClientMessage::OpenChannel(open)) = ClientMessage::decode(&bytes) else {
        panic!()
    };
    assert_eq!(open.target(), None);
}

#[test]
fn a_gpadl_is_one_range_with_the_pages_that_it_needs() {
    let header = |range_bytes, range_count, byte_count, byte_offset| GpadlHeader {
        range_bytes,
        range_count,
        byte_count,
        byte_offset,
        ..GpadlHeader::default()
    };
    assert_eq!(header(8 + 8 * 34, 1, 34 * 4096, 0).page_count(), Some(34));
    assert_eq!(header(8 + 8 * 2, 1, 2, 4095).page_count(), Some(2));
    assert_eq!(header(65528, 1, 8190 * 4096, 0).page_count(), Some(8190));
    assert_eq!(MAX_GPADL_PAGES, 8190);
    for (bytes, count, byte_count, offset) in [
        (0, 1, 1, 0),
        (8, 1, 0, 0),
        (16, 1, 0, 0),
        (16, 0, 4096, 0),
        (16, 2, 4096, 0),
        (16, 1, 4097, 0),
        (17, 1, 4096, 0),
        (24, 1, 4096, 0),
        (24, 1, 4096, 4096),
        (16, 1, u32::MAX, u32::MAX),
    ] {
        assert_eq!(
            header(bytes, count, byte_count, offset).page_count(),
            None,
            "{bytes} {count}"
        );
    }
}

#[test]
fn pages_follow_header_and_body() {
    let bytes = message(&[8, 0, 4, 0xE1E10, 24 | 1 << 16, 8192, 0, 0x11, 0, 0x22, 1]);
    let Ok(ClientMessage::GpadlHeader(header, pages)) = ClientMessage::decode(&bytes) else {
        panic!()
    };
    assert_eq!(
        (header.relid, header.handle, header.page_count()),
        (Relid(4), GpadlHandle(0xE1E10), Some(2))
    );
    assert_eq!(
        pages.iter().map(|page| page.get()).collect::<Vec<_>>(),
        [0x11, 0x1_0000_0022]
    );
    let bytes = message(&[9, 0, 7, 0xE1E10, 0x33, 0, 0x44]);
    let Ok(ClientMessage::GpadlBody(handle, pages)) = ClientMessage::decode(&bytes) else {
        panic!()
    };
    assert_eq!((handle, pages.len()), (GpadlHandle(0xE1E10), 1));
}

#[test]
fn an_offer_is_196_bytes_with_the_fields_where_linux_reads_them() {
    let offer = Offer {
        class: class::SCSI,
        instance: class::slot_instance(1),
        flags: OfferFlags::ENUMERATE,
        mmio_megabytes: 8,
        sub_channel: 3,
        user: UserData([7; 120]),
        ..Offer::default()
    };
    let bytes = OfferChannel::new(&offer, Relid(5), 0x2005).encode();
    assert_eq!(bytes.len(), 196);
    assert_eq!(bytes[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[8..24], class::SCSI.0);
    assert_eq!(bytes[24..40], class::slot_instance(1).0);
    assert_eq!(
        bytes[40..60],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 8, 0]
    );
    assert_eq!(bytes[60..180], [7; 120]);
    assert_eq!(
        bytes[180..],
        [3, 0, 0, 0, 5, 0, 0, 0, 0xFF, 0, 1, 0, 5, 0x20, 0, 0]
    );
}

#[test]
fn answers_have_the_length_and_fields_that_linux_wants() {
    let sent = |answer: Answer| {
        let (bytes, len) = answer.payload();
        bytes[..len]
            .as_chunks()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word))
            .collect::<Vec<_>>()
    };
    let (relid, handle) = (Relid(5), GpadlHandle(0xE1E10));
    assert_eq!(sent(Answer::rescind(relid)), [2, 0, 5]);
    assert_eq!(sent(Answer::all_offers_delivered()), [4, 0]);
    assert_eq!(sent(Answer::open_result(relid, 6, 7)), [6, 0, 5, 6, 7]);
    assert_eq!(
        sent(Answer::gpadl_created(relid, handle, 0)),
        [10, 0, 5, 0xE1E10, 0]
    );
    assert_eq!(sent(Answer::gpadl_torndown(handle)), [12, 0, 0xE1E10]);
    assert_eq!(sent(Answer::version_response(Version::V5_3)), [15, 0, 1, 4]);
    assert_eq!(
        sent(Answer::version_response(Version::V4_1)),
        [15, 0, 1, 0x4_0001]
    );
    assert_eq!(
        sent(Answer::version_response(Version(0x6_0000))),
        [15, 0, 0, 4]
    );
    assert_eq!(sent(Answer::unload_response()), [17, 0]);
    assert_eq!(sent(Answer::modify_response(relid, 1)), [24, 0, 5, 1]);
    let to = TlConnect {
        endpoint: Guid([1; 16]),
        service: Guid([2; 16]),
    };
    let (one, two) = (0x0101_0101, 0x0202_0202);
    assert_eq!(
        sent(Answer::tl_connect_result(&to, status::CONNECTION_REFUSED)),
        [23, 0, one, one, one, one, two, two, two, two, 0xC000_0236]
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(kind in 0u32..32, mut bytes in proptest::collection::vec(any::<u8>(), 0..260)) {
        if let Some(head) = bytes.first_chunk_mut() {
            *head = kind.to_le_bytes();
        }
        if let Ok(ClientMessage::GpadlHeader(header, pages)) = ClientMessage::decode(&bytes) {
            prop_assert_eq!(pages.iter().count(), pages.len());
            prop_assert!(header.page_count().is_none_or(|count| count > 0));
        }
    }

    #[test]
    fn an_offer_reads_back(bytes in proptest::collection::vec(any::<u8>(), 160)) {
        let mut bytes = bytes;
        bytes[38..40].fill(0);
        prop_assert_eq!(Offer::decode(&bytes).unwrap().encode().to_vec(), bytes);
    }
}
