//! Classic BPF programs that choose among the sockets of several workers.

use crate::sockopt;
use std::io;
use std::os::fd::AsFd;

/// Lets a raw socket see only the senders whose address, modulo `of`, is `number`.
///
/// # Errors
/// What the kernel says.
pub fn share_by_sender(socket: impl AsFd, version6: bool, (number, of): (u16, u16)) -> io::Result<()> {
    if of <= 1 {
        return Ok(());
    }
    // The last word of the source address, wherever the socket's data begins.
    let offset = if version6 { 20 } else { 12 };
    let program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (libc::SKF_NET_OFF + offset) as u32),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, of.into()),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number.into(), 0, 1),
        op(libc::BPF_RET | libc::BPF_K, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0),
    ];
    sockopt::attach_program(socket, libc::SO_ATTACH_FILTER, &program)
}

/// Lets a raw socket of ESP see only the SPIs whose lowest bits, as many as it takes to count to `of`, are `number`.
/// Numbers beyond the last are the first's.
///
/// # Errors
/// What the kernel says.
pub fn share_by_spi(socket: impl AsFd, version6: bool, (number, of): (u16, u16)) -> io::Result<()> {
    if of <= 1 {
        return Ok(());
    }
    let mask = u32::from(of.next_power_of_two()) - 1;
    let mine = if number == 0 {
        // 0, or beyond the last.
        [
            jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 0),
            jump(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, of.into(), 0, 1),
        ]
    } else {
        [
            jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number.into(), 0, 2),
            jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number.into(), 0, 1),
        ]
    };
    let program = [
        behind_ip(version6),
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 0),
        op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask),
        mine[0],
        mine[1],
        op(libc::BPF_RET | libc::BPF_K, u32::MAX),
        op(libc::BPF_RET | libc::BPF_K, 0),
    ];
    sockopt::attach_program(socket, libc::SO_ATTACH_FILTER, &program)
}

/// Lets a raw socket of GRE see only packets with this key (RFC 2890), or, for `None`, only those without one.
///
/// # Errors
/// What the kernel says.
pub fn only_gre_key(socket: impl AsFd, version6: bool, key: Option<u32>) -> io::Result<()> {
    // Flags of the header's first two octets; with a checksum the key stands 4 octets further.
    const CHECKSUM: u32 = 0x8000;
    const KEY: u32 = 0x2000;
    let flags = op(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, 0);
    let (pass, drop) = (op(libc::BPF_RET | libc::BPF_K, u32::MAX), op(libc::BPF_RET | libc::BPF_K, 0));
    let has = |flag, yes, no| jump(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, flag, yes, no);
    let Some(key) = key else {
        let program = [behind_ip(version6), flags, has(KEY, 1, 0), pass, drop];
        return sockopt::attach_program(socket, libc::SO_ATTACH_FILTER, &program);
    };
    let program = [
        behind_ip(version6),
        flags,
        has(KEY, 0, 6),
        has(CHECKSUM, 2, 0),
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 4),
        op(libc::BPF_JMP | libc::BPF_JA, 1),
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_IND, 8),
        jump(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, key, 0, 1),
        pass,
        drop,
    ];
    sockopt::attach_program(socket, libc::SO_ATTACH_FILTER, &program)
}

/// Makes the sockets that share a port with `socket` receive by the first word of the payload, masked: the socket
/// bound as number `word & mask` gets it. (An SPI carries its owner there.)
///
/// # Errors
/// What the kernel says.
pub fn reuseport_by_first_word(socket: impl AsFd, mask: u32) -> io::Result<()> {
    let program = [
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask),
        op(libc::BPF_RET | libc::BPF_A, 0),
    ];
    sockopt::attach_program(socket, SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Points the index register at what a raw socket's packets carry: the socket's data begins with the IP header, of a
/// length that is told in it, or (IPv6) behind all headers.
const fn behind_ip(version6: bool) -> libc::sock_filter {
    if version6 {
        op(libc::BPF_LDX | libc::BPF_W | libc::BPF_IMM, 0)
    } else {
        op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0)
    }
}

/// `libc` has it for some architectures only.
const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;

const fn op(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}
