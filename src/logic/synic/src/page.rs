//! Access to a page that a VP shares with the hypervisor.

/// A page of one VP (messages, event flags, event rings, VP assist), which the guest reads and changes at the same time.
///
/// Offsets are below 4096 and aligned to the access.
pub trait SynicPage {
    /// Reads 4 bytes; nothing after it happens before it (acquire).
    fn load_u32(&self, offset: usize) -> u32;
    /// Writes 4 bytes; nothing before it happens after it (release).
    fn store_u32(&self, offset: usize, value: u32);
    /// Sets `bits` of one byte, atomically (sequentially consistent).
    fn or_u8(&self, offset: usize, bits: u8);
    /// Sets `bits` of 4 bytes atomically (sequentially consistent), and tells what was there.
    fn or_u32(&self, offset: usize, bits: u32) -> u32;
    /// Copies `bytes` to `offset`, in any order and with any size of access.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Orders everything before it against everything after it (sequentially consistent fence).
    fn fence(&self);
}
