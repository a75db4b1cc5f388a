//! What a raw socket does not tell.
//!
//! Between two kernels on one machine, or after a network card's GRO, a GRE packet may arrive that never was on a wire
//! like this: its inner checksum is left to a device that will not come, and it may be a TCP super-frame. For UDP the
//! kernel puts that right, for raw sockets it neither does nor says so. It is recognised by the checksum field, which
//! then holds the sum of the pseudo header.

use packet::checksum::Sum;
use packet::ip::{Ip, Protocol};
use packet::vnet::{self, Gso, flags};
use packet::{Malformed, eth, tcp, udp};

/// Completes the checksum of a packet that was left without, or says how the super-frame it is must be cut. Offsets in
/// the header that is returned count from the IP header.
///
/// # Errors
/// [`Malformed::TotalLength`] for a super-frame of anything but TCP: where it is to be cut, nobody knows.
pub fn recover(packet: &mut [u8], ip: &Ip, mtu: u16) -> Result<vnet::Header, Malformed> {
    let field = match ip.protocol {
        Protocol::TCP => tcp::CHECKSUM_OFFSET,
        Protocol::UDP => udp::CHECKSUM_OFFSET,
        _ => return Ok(vnet::Header::NONE),
    };
    let pseudo = ip.pseudo_sum();
    let place = ip.header_len + field;
    let said = packet.get(place..).and_then(|p| p.first_chunk()).map(|b| u16::from_be_bytes(*b));
    if ip.fragment.is_some() || said != Some(pseudo.fold()) || pseudo.with(ip.upper(packet)).is_valid() {
        return Ok(vnet::Header::NONE);
    }
    if packet.len() <= usize::from(mtu) {
        let sum = Sum::ZERO.with(ip.upper(packet));
        let sum = if ip.protocol == Protocol::UDP { sum.finish_udp() } else { sum.finish() };
        if let Some(place) = packet.get_mut(place..).and_then(|p| p.first_chunk_mut()) {
            *place = sum.to_be_bytes();
        }
        return Ok(vnet::Header::NONE);
    }
    if ip.protocol != Protocol::TCP {
        return Err(Malformed::TotalLength);
    }
    let (_, options, _) = tcp::Header::parse(ip.upper(packet))?;
    let headers = ip.header_len + tcp::HEADER_LEN + options.len();
    let size = usize::from(mtu).checked_sub(headers).filter(|s| *s > 0).ok_or(Malformed::TotalLength)?;
    Ok(vnet::Header {
        flags: flags::NEEDS_CSUM,
        gso: if ip.is_v4() { Gso::TcpV4 } else { Gso::TcpV6 },
        ecn: false,
        hdr_len: headers as u16,
        gso_size: size as u16,
        csum_start: ip.header_len as u16,
        csum_offset: field as u16,
    })
}

/// The same header for a frame, whose offsets count from the Ethernet header.
#[must_use]
pub const fn in_frame(header: &vnet::Header) -> vnet::Header {
    let mut header = *header;
    header.hdr_len += eth::HEADER_LEN as u16;
    header.csum_start += eth::HEADER_LEN as u16;
    header
}
