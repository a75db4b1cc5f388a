//! The tunnel interface. The datapath makes it (a persistent TAP); this sets it up.

use super::{Error, Kernel, refused};
use futures::TryStreamExt as _;
use netlink_packet_core::DefaultNla;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use packet::peer::{Mac, OWN_MAC};
use rtnetlink::LinkUnspec;

/// The attribute that holds an interface's IPv4 switches, and the flag that it holds others.
const IFLA_INET_CONF: u16 = 1;
const NESTED: u16 = 0x8000;

/// An interface as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Kernel index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Administratively up?
    pub up: bool,
    /// Is there a carrier: for a TAP, does somebody hold its queues?
    pub carrier: bool,
    /// MTU in octets.
    pub mtu: u32,
    /// Link-layer address, empty when it is not Ethernet.
    pub mac: Vec<u8>,
}

impl Link {
    /// Does it carry the address that only tunnel interfaces of ours carry?
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.mac == OWN_MAC
    }
}

impl Kernel {
    /// The interface of this name, if there is one.
    pub async fn link(&self, name: &str) -> Result<Option<Link>, Error> {
        match self.handle.link().get().match_name(name).execute().try_next().await {
            Ok(message) => Ok(message.as_ref().map(parse)),
            Err(e) if super::is_gone(&e) => Ok(None),
            Err(e) => Err(refused(format!("interface {name}"), e)),
        }
    }

    /// Every interface.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let messages = self.collect("interfaces", |k| k.link().get().execute()).await?;
        Ok(messages.iter().map(parse).collect())
    }

    /// Gives the interface our link-layer address and this MTU, and sets it up. Returns its state after that.
    pub async fn prepare_link(&self, name: &str, mtu: u32) -> Result<Link, Error> {
        let mut link = self.link(name).await?.ok_or_else(|| Error::NoInterface(name.to_owned()))?;
        if !link.is_tunnel() {
            self.set_mac(&link, OWN_MAC).await?;
            link.mac = OWN_MAC.to_vec();
        }
        if link.mtu != mtu {
            let message = LinkUnspec::new_with_index(link.index).mtu(mtu).build();
            self.set_link(&format!("MTU {mtu} of {name}"), message).await?;
            link.mtu = mtu;
        }
        self.set_switches(&link).await;
        if !link.up {
            let message = LinkUnspec::new_with_index(link.index).up().build();
            self.set_link(&format!("{name} up"), message).await?;
            link.up = true;
        }
        Ok(link)
    }

    /// Deletes the interface; with it go its addresses, neighbours and routes. It may be gone already.
    pub async fn delete_link(&self, name: &str) -> Result<(), Error> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            Err(e) if !super::is_gone(&e) => Err(refused(format!("delete {name}"), e)),
            _ => Ok(()),
        }
    }

    /// Sets the interface's own switches of [`super::sysctl`], as far as netlink can: that also works where `/proc/sys` is
    /// read-only. What is left, `diagnose` says.
    async fn set_switches(&self, link: &Link) {
        // IPV4_DEVCONF_*: forwarding, accept_redirects, send_redirects, rp_filter.
        let switches: Vec<u8> = [(1u16, 1u32), (4, 0), (6, 0), (8, 2)]
            .into_iter()
            .flat_map(|(kind, value)| {
                [&8u16.to_ne_bytes()[..], &kind.to_ne_bytes(), &value.to_ne_bytes()].concat()
            })
            .collect();
        let v4 =
            AfSpecUnspec::Inet(vec![AfSpecInet::Other(DefaultNla::new(IFLA_INET_CONF | NESTED, switches))]);
        let v6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        // One after the other: a machine may be without IPv6.
        for family in [v4, v6] {
            let mut message = LinkUnspec::new_with_index(link.index).build();
            message.attributes.push(LinkAttribute::AfSpecUnspec(vec![family]));
            if let Err(error) = self.set_link(&format!("switches of {}", link.name), message).await {
                tracing::debug!(%error, "not by netlink");
            }
        }
    }

    async fn set_mac(&self, link: &Link, mac: Mac) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(link.index).address(mac.to_vec()).build();
        self.set_link(&format!("link-layer address of {}", link.name), message).await
    }

    async fn set_link(&self, what: &str, message: LinkMessage) -> Result<(), Error> {
        self.handle.link().set(message).execute().await.map_err(|e| refused(what, e))
    }
}

fn parse(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        up: message.header.flags.contains(LinkFlags::Up),
        carrier: message.header.flags.contains(LinkFlags::LowerUp),
        mtu: 0,
        mac: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac.clone_from(mac),
            _ => {}
        }
    }
    link
}
