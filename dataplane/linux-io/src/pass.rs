//! Descriptors that pass from one process to another over a unix stream socket (`SCM_RIGHTS`, `unix(7)`). Both have
//! the same open file then: what waits in a socket's queue is there for whoever reads it.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Descriptors in one message; the kernel takes 253.
const AT_ONCE: usize = 64;

/// Sends descriptors, with one octet for each message of them.
///
/// # Errors
/// What the kernel says.
pub fn send(stream: impl AsFd, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    for some in descriptors.chunks(AT_ONCE) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(some)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(&stream, &[IoSlice::new(&[some.len() as u8])], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

/// Receives so many descriptors.
///
/// # Errors
/// `UnexpectedEof` when the stream ends before, `InvalidData` for another number of them, or what the kernel says.
pub fn receive(stream: impl AsFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::with_capacity(count);
    while descriptors.len() < count {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut octet = [0];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = recvmsg(&stream, &mut [IoSliceMut::new(&mut octet)], &mut control, flags)?;
        if message.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let before = descriptors.len();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                descriptors.extend(some);
            }
        }
        if descriptors.len() - before != usize::from(octet[0]) || descriptors.len() > count {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(descriptors)
}

/// Does the process at the other end belong to our user?
///
/// # Errors
/// What the kernel says.
pub fn is_ours(stream: impl AsFd) -> io::Result<bool> {
    Ok(crate::sockopt::peer_user(stream)? == rustix::process::geteuid().as_raw())
}

/// Makes us the process that listens at a socket we were passed: for those who ask whom they are connected to.
///
/// # Errors
/// What the kernel says.
pub fn listen(socket: impl AsFd) -> io::Result<()> {
    const BACKLOG: i32 = 128;
    Ok(rustix::net::listen(socket, BACKLOG)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_arrive_in_order_and_are_the_same_files() {
        let (a, b) = UnixStream::pair().unwrap();
        let pairs: Vec<_> = (0..100).map(|_| UnixStream::pair().unwrap()).collect();
        let ends: Vec<_> = pairs.iter().map(|(end, _)| end.as_fd()).collect();
        send(&a, &ends).unwrap();
        let received = receive(&b, 100).unwrap();
        for (n, ((_, other), received)) in pairs.iter().zip(received).enumerate() {
            UnixStream::from(received).write_all(&[n as u8]).unwrap();
            let mut octet = [0];
            (&mut &*other).read_exact(&mut octet).unwrap();
            assert_eq!(octet, [n as u8]);
        }
        assert!(is_ours(&b).unwrap());
    }

    #[test]
    fn too_few_descriptors_are_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        // Not `a` itself: who receives it would hold the end open that is to be closed.
        send(&a, &[b.as_fd()]).unwrap();
        drop(a);
        let error = receive(&b, 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
