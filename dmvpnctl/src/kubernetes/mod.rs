//! `kubectl dmvpn`: the same questions, asked about the nodes of a cluster.
//!
//! ```text
//! status             DmvpnNodes, by kubectl get; SAs and traffic from the agents, by kubectl exec
//! peers, path, ...   dmvpnctl in the agent's pod of one node, by kubectl exec
//! diagnose           the same on one node or on all
//! gather             everything that a bug report needs, in one archive
//! ```
//!
//! Everything goes through the user's own kubectl, with its contexts, plugins for credentials and proxies.

mod cli;
mod diagnose;
mod error;
mod gather;
mod kubectl;
mod pods;
mod redact;
mod status;
#[cfg(test)]
mod tests;

pub use cli::{Cli, Command, words};
pub use error::Error;

use crate::cli::Output;
use crate::commands;
use clap::CommandFactory as _;
use kubectl::Kubectl;
use std::io::Write;
use std::process::ExitCode;

/// Runs a command; what it says goes to `out`, what kubectl shows goes to where our own output goes.
///
/// # Errors
/// With what to do about it.
pub fn run(cli: &Cli, out: &mut impl Write) -> Result<ExitCode, crate::error::Error> {
    let kubectl = Kubectl::new(cli.cluster.clone());
    match &cli.command {
        Command::Status { node: Some(node), .. } => inside(&kubectl, cli, node, &["status".to_owned()]),
        Command::Status { node: None, no_agents } => {
            let rows = status::rows(&kubectl, !no_agents)?;
            match cli.output {
                Output::Table => out.write_all(status::render(&rows).as_bytes())?,
                Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Diagnose { node: None } => diagnose::all(&kubectl, cli.output, out),
        Command::Gather { out: file, lines } => {
            let file = gather::gather(&kubectl, file.as_deref(), *lines)?;
            writeln!(out, "{}", file.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Pki(command) => {
            commands::pki::run(command, cli.output, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut text = Vec::new(); // clap_complete panics where a pipe breaks
            clap_complete::generate(*shell, &mut Cli::command(), "kubectl-dmvpn", &mut text);
            out.write_all(&text)?;
            Ok(ExitCode::SUCCESS)
        }
        command => match command.inside() {
            Some((node, words)) => inside(&kubectl, cli, node, &words),
            None => Ok(ExitCode::SUCCESS),
        },
    }
}

/// Runs dmvpnctl in the pod of a node's agent, on our own standard streams.
fn inside(
    kubectl: &Kubectl,
    cli: &Cli,
    node: &str,
    words: &[String],
) -> Result<ExitCode, crate::error::Error> {
    let pod = kubectl.agent_of(node)?;
    Ok(kubectl.exec(&pod, cli.output, words)?)
}
