//! Requests of the parent's user space and what the hypervisor answers, as bytes.

use slot_proto::{Header, NOTICE_WORDS, Notice, Request, split};

use crate::target;

target!(|bytes: &[u8]| {
    if let Ok((header, body)) = split(bytes) {
        assert_eq!(body.len(), header.body_bytes as usize);
        assert!(usize::from(header.header_bytes) + body.len() <= bytes.len());
        request(header, body);
    }
    if let Ok(header) = Header::decode(bytes) {
        request(header, bytes.get(16..).unwrap_or_default());
    }
    let mut words = [0; NOTICE_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    if let Ok((serial, notice)) = Notice::decode(&words) {
        let again = Notice::decode(&notice.encode(serial));
        assert_eq!(again.ok(), Some((serial, notice)));
    }
});

fn request(header: Header, body: &[u8]) {
    if let Ok(request) = Request::decode(header.kind, body) {
        assert_eq!(request.kind(), header.kind);
        let (fixed, tail) = request.body();
        assert_eq!([fixed.as_bytes(), tail].concat(), body, "{request:?}");
    }
}
