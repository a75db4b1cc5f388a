//! What the kernel had for us and lost, since we were too late for it. It counts that; nobody else can.

use crate::sockopt;
use std::fs;
use std::io;
use std::os::fd::AsFd;

/// Frames for the interface `name` of this network namespace that found its queue full, since the interface was made.
///
/// # Errors
/// The kernel's file can't be read, or does not know the interface.
pub fn of_interface(name: &str) -> io::Result<u64> {
    // Of the thread: a namespace is a thread's.
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    dropped(&text, name).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Packets that found the queue of a socket full, since it was made. (The kernel's number has 32 bits.)
///
/// # Errors
/// What the kernel says.
pub fn of_socket(socket: impl AsFd) -> io::Result<u32> {
    sockopt::drops(socket)
}

/// "  dmvpn0: 8 columns of what was received, 8 of what was sent", the fourth of each what was dropped.
fn dropped(text: &str, name: &str) -> Option<u64> {
    let columns = text.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    columns.split_whitespace().nth(8 + 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn of_an_interface_what_was_sent_and_dropped_counts() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n\
                    dmvpn01: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n\
                    dmvpn0:17418904   85193    0    9    0     0          0         0 12 85301    1  296    0     0       0          0\n";
        assert_eq!(dropped(text, "dmvpn0"), Some(296));
        assert_eq!(dropped(text, "dmvpn"), None);
        assert_eq!(of_interface("lo").ok(), Some(0));
    }

    #[test]
    fn a_socket_that_is_not_read_loses_what_its_queue_has_no_room_for() {
        let [reader, writer] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        assert_eq!(of_socket(&reader).unwrap(), 0);
        rustix::net::sockopt::set_socket_recv_buffer_size(&reader, 4096).unwrap();
        let to = reader.local_addr().unwrap();
        for _ in 0..100 {
            writer.send_to(&[0; 1000], to).unwrap();
        }
        reader.set_nonblocking(true).unwrap();
        let mut read = 0;
        while reader.recv(&mut [0; 1000]).is_ok() {
            read += 1;
        }
        assert_eq!(of_socket(&reader).unwrap(), 100 - read);
    }
}
