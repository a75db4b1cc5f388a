//! Control messages (`cmsg(3)`) written and read as bytes: the layout is a header of length, level and type in
//! native byte order, each message padded to the size of a word.

use std::mem::size_of;

const WORD: usize = size_of::<usize>();
/// `struct cmsghdr`: `size_t` length, `int` level, `int` type.
const HEADER: usize = WORD + 8;

/// Space for the control messages of one packet, aligned as the kernel wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Control<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Control<N> {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; N], used: 0 }
    }

    pub(crate) const fn clear(&mut self) {
        self.used = 0;
    }

    /// Octets written so far.
    pub(crate) const fn len(&self) -> usize {
        self.used
    }

    pub(crate) const fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    /// Adds a message. What does not fit is left out, which the sizes in this crate rule out.
    pub(crate) fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let length = HEADER + data.len();
        let space = HEADER + data.len().next_multiple_of(WORD);
        let Some(place) = self.bytes.get_mut(self.used..self.used + space) else {
            debug_assert!(false, "control buffer too small");
            return;
        };
        place.fill(0);
        place[..WORD].copy_from_slice(&length.to_ne_bytes());
        place[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        place[WORD + 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        place[HEADER..length].copy_from_slice(data);
        self.used += space;
    }

    /// The messages in the first `filled` octets, as the kernel left them.
    pub(crate) fn messages(&self, filled: usize) -> Messages<'_> {
        Messages { rest: self.bytes.get(..filled).unwrap_or(&self.bytes) }
    }
}

/// One control message.
pub(crate) struct Message<'a> {
    pub(crate) level: i32,
    pub(crate) kind: i32,
    pub(crate) data: &'a [u8],
}

impl Message<'_> {
    /// The data as an `int`, or as the single octet that `IP_TOS` is told by.
    pub(crate) fn int(&self) -> Option<i32> {
        match self.data {
            [one] => Some(i32::from(*one)),
            [a, b, c, d, ..] => Some(i32::from_ne_bytes([*a, *b, *c, *d])),
            _ => None,
        }
    }
}

/// Iterator over control messages; ends at the first that is malformed.
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let (length, rest) = self.rest.split_first_chunk::<WORD>()?;
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::from_ne_bytes(*length).checked_sub(HEADER)?;
        let data = rest.get(..length)?;
        self.rest = rest.get(length.next_multiple_of(WORD)..).unwrap_or(&[]);
        Some(Message { level: i32::from_ne_bytes(*level), kind: i32::from_ne_bytes(*kind), data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut control = Control::<64>::new();
        control.push(libc::IPPROTO_IP, libc::IP_TOS, &5i32.to_ne_bytes());
        control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &1400u16.to_ne_bytes());
        let read: Vec<_> =
            control.messages(control.len()).map(|m| (m.level, m.kind, m.data.to_vec())).collect();
        assert_eq!(
            read,
            [
                (libc::IPPROTO_IP, libc::IP_TOS, 5i32.to_ne_bytes().to_vec()),
                (libc::SOL_UDP, libc::UDP_SEGMENT, 1400u16.to_ne_bytes().to_vec()),
            ]
        );
    }

    #[test]
    fn the_layout_is_that_of_libc() {
        // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
        let (space, length) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
        let mut control = Control::<64>::new();
        control.push(1, 2, &[7, 7]);
        assert_eq!(control.len(), space as usize);
        assert_eq!(control.bytes[..WORD], (length as usize).to_ne_bytes());
    }

    #[test]
    fn a_length_beyond_the_buffer_ends_the_walk() {
        let mut control = Control::<64>::new();
        control.push(1, 2, &[0; 4]);
        control.bytes[0] = 200;
        assert_eq!(control.messages(control.len()).count(), 0);
        control.bytes[0] = 3;
        assert_eq!(control.messages(control.len()).count(), 0);
    }
}
