//! Arguments.

use crate::commands::pki::Pki;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::IpAddr;
use std::path::PathBuf;

/// Shows what the DMVPN agent of this machine does, and why.
#[derive(Debug, Parser)]
#[command(
    name = "dmvpnctl",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "For the nodes of a Kubernetes cluster: kubectl dmvpn, or dmvpnctl --kubernetes"
)]
pub struct Cli {
    /// Socket of the agent
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "DMVPN_SOCKET",
        default_value = "/run/kube-dmvpn/agent.sock"
    )]
    pub socket: PathBuf,

    /// Tables for people, or JSON for programs
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// What to show
    #[command(subcommand)]
    pub command: Command,
}

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people; they may change.
    #[default]
    Table,
    /// One JSON document (watch: one a line), with the names of the gRPC API.
    Json,
}

/// Only one tunnel.
#[derive(Clone, Debug, Default, Args)]
pub struct Interface {
    /// Only this tunnel interface
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub interface: String,
}

/// What to show or do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The tunnels of this node, its hubs and routing neighbours
    Status,
    /// Every peer that the tunnels know
    Peers(Interface),
    /// NHRP: registrations, answers, and what is being asked
    Cache(Interface),
    /// Direct paths that carry, or are being made
    Shortcuts(Interface),
    /// Encryption: IKE sessions, and the SAs by which packets are encrypted
    Sa(Interface),
    /// Which way a packet goes now, and why
    Path {
        /// Addresses: destination, or source and destination
        #[arg(required = true, num_args = 1..=2, value_name = "[SOURCE] DESTINATION")]
        addresses: Vec<IpAddr>,
    },
    /// What happens, as it happens
    Watch {
        /// Begin with the last N events
        #[arg(long, value_name = "N", default_value_t = 0)]
        history: u32,
    },
    /// Checks, each with what to do when it fails; fails if one does
    Diagnose,
    /// Overlay packets in clear, as pcapng: dmvpnctl capture | wireshark -k -i -
    Capture {
        /// Only this tunnel interface
        #[command(flatten)]
        interface: Interface,
        /// Stop after N packets
        #[arg(short, long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        count: u64,
    },
    /// Forget shortcuts and learnt answers; they form again when they are needed
    #[command(args_conflicts_with_subcommands = true)]
    Clear {
        /// Something else than shortcuts
        #[command(subcommand)]
        what: Option<Clear>,
        /// Only this tunnel interface
        #[command(flatten)]
        interface: Interface,
        /// Only what concerns this address or prefix
        #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
        prefix: String,
    },
    /// Replace the keys of encrypted paths before their time; no packet is lost
    Rekey {
        /// Which
        #[command(flatten)]
        of: Selection,
        /// Those of the IKE SA, in place of those that packets are encrypted with
        #[arg(long)]
        ike: bool,
    },
    /// Certificates, for who has no PKI: roots, confined CAs, nodes, revocation
    #[command(subcommand)]
    Pki(Pki),
    /// Shell completions, to standard output
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// The manual page, to standard output
    #[command(hide = true)]
    Man,
}

/// What to clear instead of shortcuts.
#[derive(Debug, Subcommand)]
pub enum Clear {
    /// End IKE sessions and their SAs; they are made anew, with what credentials are now in force
    Sa(Selection),
    /// (Hub) forget registrations; spokes register again
    Registrations(Selection),
}

/// Some peers.
#[derive(Clone, Debug, Default, Args)]
pub struct Selection {
    /// Only this tunnel interface
    #[command(flatten)]
    pub interface: Interface,
    /// Only this peer: its identity, tunnel address or path
    #[arg(value_name = "PEER", default_value = "", hide_default_value = true)]
    pub peer: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        for words in [
            &["dmvpnctl", "--socket", "/tmp/a.sock", "-o", "json", "status"][..],
            &["dmvpnctl", "status", "-o", "json", "--socket", "/tmp/a.sock"],
        ] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!((cli.output, cli.socket), (Output::Json, PathBuf::from("/tmp/a.sock")));
        }
    }

    #[test]
    fn clearing_is_of_shortcuts_unless_said_otherwise() {
        let clear = |words: &[&str]| {
            let words = ["dmvpnctl", "clear"].iter().chain(words);
            match Cli::try_parse_from(words).unwrap().command {
                Command::Clear { what, prefix, .. } => (what, prefix),
                other => panic!("{other:?}"),
            }
        };
        assert!(matches!(clear(&["10.2.0.0/16"]), (None, prefix) if prefix == "10.2.0.0/16"));
        assert!(matches!(clear(&["sa"]), (Some(Clear::Sa(all)), _) if all.peer.is_empty()));
        assert!(matches!(clear(&["sa", "b-2"]), (Some(Clear::Sa(one)), _) if one.peer == "b-2"));
        assert!(matches!(clear(&["registrations"]), (Some(Clear::Registrations(_)), _)));
    }

    #[test]
    fn a_path_needs_one_or_two_addresses() {
        for (words, good) in [
            (&["10.2.3.4"][..], true),
            (&["10.1.0.1", "fd00::1"], true),
            (&[], false),
            (&["a-1"], false),
            (&["::1", "::2", "::3"], false),
        ] {
            let words = ["dmvpnctl", "path"].iter().chain(words);
            assert_eq!(Cli::try_parse_from(words).is_ok(), good);
        }
    }
}
