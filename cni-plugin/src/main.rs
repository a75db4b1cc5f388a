//! `dmvpn-cni`: the CNI plugin. It speaks CNI with the container runtime, asks the agent, and acts in the pod's network
//! namespace; what is to be done, the agent decides.
//!
//! *Chained* (no `ipam` in its configuration): after the cluster's plugin. It makes nothing, tells the agent of the pod,
//! and keeps the pod's packets small enough for the overlay. Pods start also when the agent is away.
//!
//! *Standalone* (with `ipam`): makes an interface of its own, as the cluster's plugin or as a pod's second interface.
#![forbid(unsafe_code)]

mod add;
mod agent;
mod call;
mod check;
mod config;
mod del;
mod error;
mod gc;
mod interface;
mod ipam;
mod kernel;
mod namespace;
mod notes;
mod result;
mod route;
mod status;
mod version;

use call::{Call, Command};
use config::Config;
use error::Error;
use serde_json::Value;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::process::ExitCode;
use version::Version;

/// The largest network configuration that is read.
const MOST_INPUT: u64 = 4 << 20;

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_none() && std::io::stdin().is_terminal() {
        eprintln!(
            "dmvpn-cni {}: a CNI plugin, called by container runtimes; speaks {}",
            env!("CARGO_PKG_VERSION"),
            Version::supported().join(", ")
        );
        return ExitCode::FAILURE;
    }
    let mut version = Version::default().as_str().to_owned();
    let (output, code) = match run(&mut version) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(output)) => (output, ExitCode::SUCCESS),
        Err(error) => (error.json(&version), ExitCode::FAILURE),
    };
    match writeln!(std::io::stdout(), "{output}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Does what is asked. `version` becomes what the runtime speaks, as soon as that is known: an error is told in it.
fn run(version: &mut String) -> Result<Option<Value>, Error> {
    // Whatever is wrong: a runtime shall get rid of what it writes, and be answered in its version.
    let input = read().and_then(|input| Ok((config::version(&input)?, input)));
    if let Ok((Some(said), _)) = &input {
        said.clone_into(version);
    }
    let call = Call::parse(|name| std::env::var(name).ok())?;
    let (_, input) = input?;
    if call.command == Command::Version {
        return Ok(Some(version::report(version)));
    }
    let config = Config::parse(input, &call)?;
    match call.command {
        Command::Add => add::add(&call, &config).map(Some),
        Command::Del => del::del(&call, &config).map(|()| None),
        Command::Check => check::check(&call, &config).map(|()| None),
        Command::Gc => gc::gc(&call, &config).map(|()| None),
        Command::Status => status::status(&call, &config).map(|()| None),
        Command::Version => Ok(None),
    }
}

fn read() -> Result<Value, Error> {
    let mut text = Vec::new();
    let from = std::io::stdin().lock().take(MOST_INPUT).read_to_end(&mut text);
    from.map_err(|e| Error::Io {
        what: "read the network configuration from stdin".to_owned(),
        why: e.to_string(),
    })?;
    serde_json::from_slice(&text).map_err(|e| Error::Decode(format!("network configuration on stdin: {e}")))
}

/// Tells people, in the runtime's log, what a result can't say.
fn say(message: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "dmvpn-cni: {message}");
}
