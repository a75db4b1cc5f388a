//! Fields whose value is known only after what follows them is written.

use crate::malformed::TooLong;

/// Writes `body` behind a header of `header` octets, and the length of both into the header's 16 bits at `at`.
pub(crate) fn with_length(
    out: &mut Vec<u8>,
    header: &[u8],
    at: usize,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), TooLong>,
) -> Result<(), TooLong> {
    let start = out.len();
    out.extend_from_slice(header);
    body(out)?;
    let length = u16::try_from(out.len() - start).map_err(|_| TooLong)?;
    if let Some(field) = out.get_mut(start + at..start + at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

/// A count or size of 8 bits.
pub(crate) fn count8(count: usize) -> Result<u8, TooLong> {
    u8::try_from(count).map_err(|_| TooLong)
}

/// A count or size of 16 bits.
pub(crate) fn count16(count: usize) -> Result<u16, TooLong> {
    u16::try_from(count).map_err(|_| TooLong)
}
