//! Arguments of `kubectl dmvpn`.

use crate::cli::{Interface, Output};
use crate::commands::pki::Pki;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Shows what the DMVPN agents of a cluster do, and why.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-dmvpn",
    bin_name = "kubectl dmvpn",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "It calls kubectl, or what the environment variable KUBECTL names."
)]
pub struct Cli {
    /// Which cluster, and where in it
    #[command(flatten)]
    pub cluster: Cluster,

    /// Tables for people, or JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// What to show
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Will it write packets to standard output?
    #[must_use]
    pub fn is_capture(&self) -> bool {
        matches!(self.command, Command::Capture { .. })
    }
}

/// Which cluster, and where in it; handed on to kubectl.
#[derive(Clone, Debug, Default, Args)]
pub struct Cluster {
    /// Path of the kubeconfig
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Act as this user
    #[arg(long = "as", global = true, value_name = "USER")]
    pub user: Option<String>,
    /// Namespace that the chart was installed into
    #[arg(
        short,
        long,
        global = true,
        value_name = "NAME",
        env = "DMVPN_NAMESPACE",
        default_value = "kube-dmvpn"
    )]
    pub namespace: String,
}

/// What to show or do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every node's tunnels, or one node's with what stands behind them
    Status {
        /// Only this node, in detail
        node: Option<String>,
        /// Ask the API server only, not the agents: without SA and RX/TX
        #[arg(long, conflicts_with = "node")]
        no_agents: bool,
    },
    /// Every peer that a node knows
    Peers(OfNode),
    /// NHRP: registrations, answers, and what is being asked
    Cache(OfNode),
    /// Direct paths that carry, or are being made
    Shortcuts(OfNode),
    /// Encryption: IKE sessions, and the SAs by which packets are encrypted
    Sa(OfNode),
    /// Which way a packet goes from a node now, and why
    Path {
        /// Name of the Node
        node: String,
        /// Addresses: destination, or source and destination
        #[arg(required = true, num_args = 1..=2, value_name = "[SOURCE] DESTINATION")]
        addresses: Vec<IpAddr>,
    },
    /// What happens on a node, as it happens
    Watch {
        /// Name of the Node
        node: String,
        /// Begin with the last N events
        #[arg(long, value_name = "N", default_value_t = 0)]
        history: u32,
    },
    /// Checks, each with what to do when it fails; fails if one does
    Diagnose {
        /// Only this node; by default all that have an agent
        node: Option<String>,
    },
    /// Overlay packets of a node in clear, as pcapng: kubectl dmvpn capture NODE | wireshark -k -i -
    Capture {
        /// Name of the Node
        node: String,
        /// Only this tunnel interface
        #[command(flatten)]
        interface: Interface,
        /// Stop after N packets
        #[arg(short, long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        count: u64,
    },
    /// Forget shortcuts and learnt answers of a node, or: sa [PEER], registrations [PEER]
    Clear {
        /// Name of the Node
        node: String,
        /// As those of dmvpnctl clear
        #[arg(value_name = "WHAT", trailing_var_arg = true, allow_hyphen_values = true)]
        what: Vec<String>,
    },
    /// What a bug report needs, in one archive: resources, events, logs, every agent's answers; no secrets
    Gather {
        /// File to write [default: kube-dmvpn-TIME.tar.gz]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The last N lines of each log
        #[arg(long, value_name = "N", default_value_t = 5000)]
        lines: u32,
    },
    /// Certificates, for who has no PKI: roots, confined CAs, nodes, revocation
    #[command(subcommand)]
    Pki(Pki),
    /// Shell completions, to standard output
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// One node, perhaps one tunnel of it.
#[derive(Clone, Debug, Args)]
pub struct OfNode {
    /// Name of the Node
    pub node: String,
    /// Only one tunnel
    #[command(flatten)]
    pub interface: Interface,
}

impl Command {
    /// What is asked of one node's agent: the node, and the words for dmvpnctl there. `None`: it isn't.
    #[must_use]
    pub fn inside(&self) -> Option<(&str, Vec<String>)> {
        let (node, words) = match self {
            Self::Peers(of) => (&of.node, with_interface("peers", &of.interface)),
            Self::Cache(of) => (&of.node, with_interface("cache", &of.interface)),
            Self::Shortcuts(of) => (&of.node, with_interface("shortcuts", &of.interface)),
            Self::Sa(of) => (&of.node, with_interface("sa", &of.interface)),
            Self::Path { node, addresses } => {
                let addresses = addresses.iter().map(ToString::to_string);
                (node, std::iter::once("path".to_owned()).chain(addresses).collect())
            }
            Self::Watch { node, history } => {
                (node, vec!["watch".to_owned(), "--history".to_owned(), history.to_string()])
            }
            Self::Diagnose { node: Some(node) } => (node, vec!["diagnose".to_owned()]),
            Self::Capture { node, interface, count } => {
                let mut words = with_interface("capture", interface);
                words.extend(["--count".to_owned(), count.to_string()]);
                (node, words)
            }
            Self::Clear { node, what } => {
                (node, std::iter::once("clear".to_owned()).chain(what.iter().cloned()).collect())
            }
            Self::Status { .. }
            | Self::Diagnose { node: None }
            | Self::Gather { .. }
            | Self::Pki(_)
            | Self::Completions { .. } => return None,
        };
        Some((node, words))
    }
}

fn with_interface(verb: &str, only: &Interface) -> Vec<String> {
    let mut words = vec![verb.to_owned()];
    if !only.interface.is_empty() {
        words.extend(["--interface".to_owned(), only.interface.clone()]);
    }
    words
}

/// The command line, if it is about a cluster: called as `kubectl-dmvpn`, or with `--kubernetes` as the first argument.
#[must_use]
pub fn words(arguments: impl Iterator<Item = OsString>) -> Option<Vec<OsString>> {
    let mut words: Vec<OsString> = arguments.collect();
    let called = words.first().and_then(|first| Path::new(first).file_stem()).unwrap_or_default();
    if called == "kubectl-dmvpn" {
        return Some(words);
    }
    if words.get(1).is_some_and(|word| word == "--kubernetes") {
        words.remove(1);
        return Some(words);
    }
    None
}
