//! strongSwan on a guest: IKEv2 for the GRE between this router and whoever it talks to, in transport mode.
//!
//! GRE's next hops are found by NHRP, so nobody is named beforehand: the kernel has a trap for GRE to anybody, and asks for
//! an SA with whom the first packet goes to (`Trap`); or somebody runs `swanctl --initiate` (`Initiated`).

use std::fmt::Write as _;

/// The key of the stories with a pre-shared one.
pub const PSK: &str = "interop-psk-0123456789abcdef";

/// What charon needs.
const PLUGINS: &str = "random nonce openssl pem pkcs1 pkcs8 pubkey x509 revocation constraints curve25519 hmac sha1 sha2 \
    aes gcm kdf kernel-netlink socket-default vici updown";

/// How SAs come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// By the first packet.
    Trap,
    /// By `swanctl --initiate --child gre` with this router.
    Initiated(String),
}

/// How it proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By [`PSK`]; its identity is its address.
    SharedKey,
    /// By a certificate, in PEM.
    Certificate {
        /// Its identity: a DNS name in the certificate.
        identity: String,
        /// Its own certificate first, then intermediate ones.
        chain: Vec<String>,
        /// Its key.
        key: String,
        /// Who is trusted.
        roots: Vec<String>,
    },
}

/// strongSwan's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrongSwan {
    /// How SAs come about.
    pub start: Start,
    /// How it proves who it is.
    pub proof: Proof,
    /// It asks for ESP in UDP without a NAT too.
    pub encap: bool,
    /// IKE proposals.
    pub ike: String,
    /// ESP proposals.
    pub esp: String,
    /// When it replaces a child SA, as strongSwan writes times.
    pub rekey: String,
    /// When it replaces an IKE SA.
    pub ike_rekey: String,
    /// Further plugins, before the others: the first that can read a certificate does.
    pub plugins: String,
}

impl Default for StrongSwan {
    fn default() -> Self {
        Self {
            start: Start::Trap,
            proof: Proof::SharedKey,
            encap: false,
            ike: "aes256gcm16-prfsha384-x25519,aes128gcm16-prfsha256-x25519".to_owned(),
            esp: "aes128gcm16-x25519,aes128gcm16".to_owned(),
            rekey: "1h".to_owned(),
            ike_rekey: "4h".to_owned(),
            plugins: String::new(),
        }
    }
}

impl StrongSwan {
    /// Shell commands that start it.
    pub(super) const SETUP: &str =
        "modprobe -a xfrm_user esp4 gcm seqiv ctr cbc chacha20poly1305 aesni_intel ghash_generic 2>/dev/null
export STRONGSWAN_CONF=/mnt/conf/swanctl/strongswan.conf
/usr/lib/ipsec/charon > /mnt/charon.log 2>&1 &
for i in $(seq 200); do [ -S /run/charon.vici ] && break; sleep 0.05; done
swanctl --load-all --noprompt
";

    /// Its files, by their path below `/etc/swanctl`.
    pub(super) fn files(&self, address: &str) -> Vec<(String, String)> {
        let mut files = vec![
            ("strongswan.conf".to_owned(), self.daemon()),
            ("swanctl.conf".to_owned(), self.connections(address)),
        ];
        if let Proof::Certificate { chain, key, roots, .. } = &self.proof {
            let (own, intermediate) = chain.split_first().map_or(("", &[][..]), |(own, rest)| (own, rest));
            files.push(("x509/own.pem".to_owned(), own.to_owned()));
            files.push(("private/own.pem".to_owned(), key.clone()));
            for (n, certificate) in intermediate.iter().chain(roots).enumerate() {
                files.push((format!("x509ca/{n}.pem"), certificate.clone()));
            }
        }
        files
    }

    fn daemon(&self) -> String {
        let asked: Vec<&str> = self.plugins.split_whitespace().collect();
        let rest: Vec<&str> = PLUGINS.split_whitespace().filter(|p| !asked.contains(p)).collect();
        format!(
            "charon {{
  load = {} {}
  install_routes = no
  retransmit_tries = 4
  retransmit_timeout = 2.0
  filelog {{
    stderr {{
      default = 1
      ike = 2
      cfg = 2
      chd = 2
    }}
  }}
}}
swanctl {{
  load = random nonce openssl pem pkcs1 pkcs8 x509
}}
",
            self.plugins,
            rest.join(" "),
        )
    }

    fn connections(&self, address: &str) -> String {
        let Self { start, proof, encap, ike, esp, rekey, ike_rekey, plugins: _ } = self;
        let (remote, action) = match start {
            Start::Trap => ("%any", "trap"),
            Start::Initiated(remote) => (remote.as_str(), "none"),
        };
        let (local, other) = match proof {
            Proof::SharedKey => (format!("auth = psk\n      id = {address}"), "auth = psk\n      id = %any"),
            Proof::Certificate { identity, .. } => (
                format!("auth = pubkey\n      certs = own.pem\n      id = {identity}"),
                "auth = pubkey\n      id = %any",
            ),
        };
        let yes_no = if *encap { "yes" } else { "no" };
        let mut text = format!(
            "connections {{
  dmvpn {{
    version = 2
    local_addrs = {address}
    remote_addrs = {remote}
    proposals = {ike}
    rekey_time = {ike_rekey}
    dpd_delay = 20s
    unique = replace
    mobike = no
    encap = {yes_no}
    local {{
      {local}
    }}
    remote {{
      {other}
    }}
    children {{
      gre {{
        mode = transport
        local_ts = dynamic[gre]
        remote_ts = dynamic[gre]
        esp_proposals = {esp}
        rekey_time = {rekey}
        dpd_action = clear
        start_action = {action}
      }}
    }}
  }}
}}
"
        );
        if *proof == Proof::SharedKey {
            // Writing to a string can't fail.
            let _ = write!(text, "secrets {{\n  ike-all {{\n    secret = \"{PSK}\"\n  }}\n}}\n");
        }
        text
    }
}
