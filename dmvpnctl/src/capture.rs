//! `capture`: overlay packets in clear, as pcapng (link type RAW: they begin with their IP header).

use crate::error::Error;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter};
use pcap_file::{DataLink, PcapError};
use rpc::AgentClient;
use rpc::agent::{CaptureRequest, CapturedPacket};
use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

/// Bits 0 and 1 of `epb_flags`: which way a packet went (pcapng, 4.3.1).
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// Power of ten of the timestamps' unit: nanoseconds.
const NANOSECONDS: u8 = 9;

/// Writes packets as they come, until `count` (0: until the reader or the agent goes).
pub(crate) async fn capture(
    agent: &mut AgentClient,
    interface: &str,
    count: u64,
    out: &mut impl Write,
) -> Result<(), Error> {
    let request = CaptureRequest { interface: interface.to_owned(), count };
    let mut packets = agent.capture(request).await?.into_inner();
    let mut writer = Writer::new(out)?;
    while let Some(packet) = packets.message().await? {
        writer.write(&packet)?;
    }
    Ok(())
}

/// A pcapng stream that describes interfaces as their first packets come.
pub struct Writer<W: Write> {
    pcapng: PcapNgWriter<W>,
    interfaces: Vec<String>,
}

impl<W: Write> Writer<W> {
    /// Begins a stream.
    ///
    /// # Errors
    /// If `out` can't be written.
    pub fn new(out: W) -> Result<Self, Error> {
        let mut writer = Self { pcapng: PcapNgWriter::new(out).map_err(written)?, interfaces: Vec::new() };
        writer.flush()?; // so that Wireshark sees that it is connected
        Ok(writer)
    }

    /// Adds a packet, and lets the reader see it.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&mut self, packet: &CapturedPacket) -> Result<(), Error> {
        let known = self.interfaces.iter().position(|name| *name == packet.interface);
        let index = match known {
            Some(index) => index,
            None => self.describe(&packet.interface)?,
        };
        let mut options = vec![EnhancedPacketOption::Flags(if packet.outbound { OUTBOUND } else { INBOUND })];
        if !packet.peer.is_empty() {
            let way = if packet.outbound { "to" } else { "from" };
            options.push(EnhancedPacketOption::Comment(Cow::Owned(format!("{way} {}", packet.peer))));
        }
        let block = EnhancedPacketBlock {
            interface_id: u32::try_from(index).unwrap_or(u32::MAX),
            timestamp: Duration::from_nanos(packet.time_ns),
            original_len: u32::try_from(packet.packet.len()).unwrap_or(u32::MAX),
            data: Cow::Borrowed(&packet.packet),
            options,
        };
        self.pcapng.write_block(&block.into_block()).map_err(written)?;
        self.flush()
    }

    fn describe(&mut self, interface: &str) -> Result<usize, Error> {
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::RAW,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(interface.to_owned())),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.pcapng.write_block(&block.into_block()).map_err(written)?;
        self.interfaces.push(interface.to_owned());
        Ok(self.interfaces.len() - 1)
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(self.pcapng.get_mut().flush()?)
    }
}

fn written(error: PcapError) -> Error {
    match error {
        PcapError::IoError(error) => Error::Write(error),
        other => Error::Write(std::io::Error::other(other)),
    }
}
