//! Arguments of `pki`.

use clap::{Args, Subcommand};
use identity::pki;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;

/// What to make, or to show.
#[derive(Debug, Subcommand)]
pub enum Pki {
    /// A root: the one certificate that every node trusts
    Root(RootArgs),
    /// A CA below it for one cluster, confined to its names, tunnel addresses and prefixes
    Intermediate(IntermediateArgs),
    /// A node's certificate and key, made in one place (see `request` for keys that never leave their node)
    Node(NodeArgs),
    /// A key and a request for a certificate, on the node
    Request(RequestArgs),
    /// Sign a request
    Sign(SignArgs),
    /// Revoke a certificate, and write a new revocation list
    Revoke(RevokeArgs),
    /// Write a new revocation list, before the last one is stale
    Crl {
        /// Folder of the CA
        #[arg(long, value_name = "FOLDER")]
        ca: PathBuf,
        /// Days until the next list is due
        #[arg(long, value_name = "N", default_value_t = 90)]
        days: u64,
    },
    /// What is in PEM files: names, claims, validity
    Show {
        /// Files with certificates, requests, revocation lists
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Where results go.
#[derive(Debug, Args)]
pub struct Output {
    /// Folder to write into; by default one of that name here
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Replace a key that is there
    #[arg(long)]
    pub force: bool,
    /// Also write secret.yaml: Secrets of this name, and of this name with `-trust` for the root
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,
}

/// `pki root`.
#[derive(Debug, Args)]
pub struct RootArgs {
    /// Its name, for people
    pub name: String,
    /// Days it is valid
    #[arg(long, value_name = "N", default_value_t = 3650)]
    pub days: u64,
    /// Where to
    #[command(flatten)]
    pub output: Output,
}

/// `pki intermediate`.
#[derive(Debug, Args)]
pub struct IntermediateArgs {
    /// Its name, for people
    pub name: String,
    /// Folder of the root
    #[arg(long, value_name = "FOLDER")]
    pub parent: PathBuf,
    /// Domain of the names that it may issue for
    #[arg(long, required = true, value_name = "DOMAIN", value_delimiter = ',')]
    pub domain: Vec<String>,
    /// Networks of the tunnel addresses that it may issue for
    #[arg(long, required = true, value_name = "PREFIX", value_delimiter = ',')]
    pub tunnel_addresses: Vec<IpNet>,
    /// Prefixes that it may give to nodes; none if left out
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub prefixes: Vec<IpNet>,
    /// Days it is valid
    #[arg(long, value_name = "N", default_value_t = 1825)]
    pub days: u64,
    /// Where to
    #[command(flatten)]
    pub output: Output,
}

/// Who a node is, and what it may claim.
#[derive(Debug, Args)]
pub struct Claims {
    /// Its DNS name, which is its IKE identity (a-1.hq.example.com)
    pub name: String,
    /// Its address in the tunnel
    #[arg(long, required = true, value_name = "ADDRESS", value_delimiter = ',')]
    pub tunnel_address: Vec<IpAddr>,
    /// Prefixes behind it; none if left out
    #[arg(long, value_name = "PREFIX", value_delimiter = ',')]
    pub prefixes: Vec<IpNet>,
}

/// `pki node`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Who
    #[command(flatten)]
    pub claims: Claims,
    /// Folder of the CA
    #[arg(long, value_name = "FOLDER")]
    pub ca: PathBuf,
    /// Days it is valid
    #[arg(long, value_name = "N", default_value_t = 365)]
    pub days: u64,
    /// Where to
    #[command(flatten)]
    pub output: Output,
}

/// `pki request`.
#[derive(Debug, Args)]
pub struct RequestArgs {
    /// Who
    #[command(flatten)]
    pub claims: Claims,
    /// For the key that is there already
    #[arg(long)]
    pub renew: bool,
    /// Where to
    #[command(flatten)]
    pub output: Output,
}

/// `pki sign`.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The request
    pub request: PathBuf,
    /// Folder of the CA
    #[arg(long, value_name = "FOLDER")]
    pub ca: PathBuf,
    /// Tunnel addresses instead of those asked for
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub tunnel_address: Vec<IpAddr>,
    /// Prefixes instead of those asked for
    #[arg(long, value_name = "PREFIX", value_delimiter = ',', num_args = 0..)]
    pub prefixes: Option<Vec<IpNet>>,
    /// Days it is valid
    #[arg(long, value_name = "N", default_value_t = 365)]
    pub days: u64,
    /// Where to
    #[command(flatten)]
    pub output: Output,
}

/// `pki revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// File with the certificate, or its serial number in hexadecimal
    #[arg(value_name = "FILE|SERIAL")]
    pub what: String,
    /// Folder of the CA that issued it
    #[arg(long, value_name = "FOLDER")]
    pub ca: PathBuf,
    /// Days until the next list is due
    #[arg(long, value_name = "N", default_value_t = 90)]
    pub days: u64,
}

impl Claims {
    pub(super) fn to_pki(&self) -> pki::Claims {
        pki::Claims {
            name: self.name.clone(),
            tunnel_addresses: self.tunnel_address.clone(),
            prefixes: self.prefixes.clone(),
        }
    }
}

/// Claims in a line.
pub(super) fn shown(claims: &pki::Claims) -> String {
    let list = |items: Vec<String>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    format!(
        "{}: tunnel addresses {}; prefixes {}",
        claims.name,
        list(claims.tunnel_addresses.iter().map(ToString::to_string).collect()),
        list(claims.prefixes.iter().map(ToString::to_string).collect()),
    )
}
