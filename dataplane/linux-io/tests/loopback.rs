//! The sockets against the kernel's loopback interface.

use dmvpn_linux_io::poll::{self, Ready};
use dmvpn_linux_io::udp::UdpSocket;
use dmvpn_linux_io::{Outgoing, PathErrors, Receiver, Sender};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

fn socket(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address.parse().unwrap(), 64).unwrap();
    let local = socket.local().unwrap();
    (socket, local)
}

fn wait(socket: &UdpSocket) -> Ready {
    let mut ready = [Ready::default()];
    poll::wait(&[socket.as_fd()], &mut ready, Some(Duration::from_secs(2))).unwrap();
    ready[0]
}

fn super_frame_crosses(address: &str) {
    let (a, from) = socket(address);
    let (b, to) = socket(address);
    assert!(a.has_segment() && b.has_gro());
    let data: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    let super_frame = Outgoing { to, tos: 0xb9, segment: Some(1400), data: &data };
    assert_eq!(Sender::new().send(&a, [super_frame].into_iter()).unwrap(), 1);
    let mut receiver = Receiver::new(8);
    let mut received = Vec::new();
    while received.len() < data.len() {
        assert!(wait(&b).readable);
        receiver.receive(&b).unwrap();
        let (buffer, arrived) = receiver.parts();
        for one in arrived {
            assert_eq!(one.from, from);
            assert_eq!(one.tos, 0xb9);
            assert!(one.segment == 1400 || one.length <= 1400);
            received.extend_from_slice(&buffer[one.start..one.start + one.length]);
        }
    }
    assert_eq!(received, data);
    assert!(receiver.receive(&b).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn a_super_frame_crosses_ipv4() {
    super_frame_crosses("127.0.0.1:0");
}

#[test]
fn a_super_frame_crosses_ipv6() {
    super_frame_crosses("[::1]:0");
}

#[test]
fn many_messages_go_in_one_call() {
    let (a, _) = socket("127.0.0.1:0");
    let (b, to) = socket("127.0.0.1:0");
    let data = [1u8, 2, 3];
    let messages = (1..=3).map(|n| Outgoing { to, tos: 0, segment: None, data: &data[..n] });
    assert_eq!(Sender::new().send(&a, messages).unwrap(), 3);
    let mut receiver = Receiver::new(8);
    let mut lengths = Vec::new();
    while lengths.len() < 3 {
        assert!(wait(&b).readable);
        receiver.receive(&b).unwrap();
        lengths.extend(receiver.parts().1.iter().map(|m| m.length));
    }
    assert_eq!(lengths, [1, 2, 3]);
}

#[test]
fn a_closed_port_is_told_by_the_error_queue() {
    let (a, _) = socket("127.0.0.1:0");
    let (b, to) = socket("127.0.0.1:0");
    drop(b);
    Sender::new().send(&a, [Outgoing { to, tos: 0, segment: None, data: b"quoted" }].into_iter()).unwrap();
    assert!(wait(&a).error);
    let error = PathErrors::of(&a).next().unwrap();
    assert_eq!((error.to, error.port, error.mtu, error.local), (to.ip(), to.port(), None, false));
    assert_eq!(error.quote(), b"quoted");
}
