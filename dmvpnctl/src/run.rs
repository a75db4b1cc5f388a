//! One command from arguments to output.

use crate::capture::capture;
use crate::cli::{Clear, Cli, Command, Output, Selection};
use crate::client::connect;
use crate::error::Error;
use crate::{commands, json};
use clap::CommandFactory as _;
use rpc::agent::{
    CacheRequest, ClearRequest, Clearing, DiagnoseRequest, PathRequest, PeersRequest, RekeyRequest,
    SasRequest, ShortcutsRequest, StatusRequest, WatchRequest,
};
use serde::Serialize;
use std::io::Write;
use std::process::ExitCode;

/// Runs a command; what it says goes to `out`.
///
/// # Errors
/// With what to do about it.
pub async fn run(cli: &Cli, out: &mut impl Write) -> Result<ExitCode, Error> {
    let show = Show { output: cli.output };
    match &cli.command {
        Command::Completions { shell } => {
            let mut text = Vec::new(); // clap_complete panics where a pipe breaks
            clap_complete::generate(*shell, &mut Cli::command(), "dmvpnctl", &mut text);
            out.write_all(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Man => {
            clap_mangen::Man::new(Cli::command()).render(out)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Pki(command) => {
            commands::pki::run(command, cli.output, out)?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let mut agent = connect(&cli.socket).await?;
    match &cli.command {
        Command::Status => {
            let reply = agent.status(StatusRequest {}).await?.into_inner();
            show.one(out, &reply, commands::status::render)?;
        }
        Command::Peers(only) => {
            let reply = agent.peers(PeersRequest { interface: only.interface.clone() }).await?.into_inner();
            show.one(out, &reply, commands::peers::render)?;
        }
        Command::Cache(only) => {
            let reply = agent.cache(CacheRequest { interface: only.interface.clone() }).await?.into_inner();
            show.one(out, &reply, commands::cache::render)?;
        }
        Command::Shortcuts(only) => {
            let reply =
                agent.shortcuts(ShortcutsRequest { interface: only.interface.clone() }).await?.into_inner();
            show.one(out, &reply, commands::shortcuts::render)?;
        }
        Command::Sa(only) => {
            let reply = agent.sas(SasRequest { interface: only.interface.clone() }).await?.into_inner();
            show.one(out, &reply, commands::sa::render)?;
        }
        Command::Path { addresses } => {
            let (destination, source) = (addresses.last(), addresses.first().filter(|_| addresses.len() > 1));
            let request = PathRequest {
                source: source.map(ToString::to_string).unwrap_or_default(),
                destination: destination.map(ToString::to_string).unwrap_or_default(),
            };
            let reply = agent.path(request).await?.into_inner();
            show.one(out, &reply, commands::path::render)?;
        }
        Command::Watch { history } => {
            let mut events = agent.watch(WatchRequest { history: *history }).await?.into_inner();
            while let Some(event) = events.message().await? {
                show.line(out, &event, commands::watch::render)?;
            }
            return Err(Error::Gone("it closed the stream".to_owned()));
        }
        Command::Diagnose => {
            let reply = agent.diagnose(DiagnoseRequest {}).await?.into_inner();
            show.one(out, &reply, commands::diagnose::render)?;
            if commands::diagnose::failed(&reply) {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Capture { interface, count } => {
            capture(&mut agent, &interface.interface, *count, out).await?
        }
        Command::Clear { what, interface, prefix } => {
            let some = |what: Clearing, Selection { interface, peer }: &Selection| ClearRequest {
                interface: interface.interface.clone(),
                what: what.into(),
                peer: peer.clone(),
                ..ClearRequest::default()
            };
            let (request, render): (_, fn(&_) -> _) = match what {
                None => {
                    let interface = interface.interface.clone();
                    let request =
                        ClearRequest { interface, prefix: prefix.clone(), ..ClearRequest::default() };
                    (request, commands::clear::shortcuts)
                }
                Some(Clear::Sa(of)) => (some(Clearing::Sessions, of), commands::clear::sessions),
                Some(Clear::Registrations(of)) => {
                    (some(Clearing::Registrations, of), commands::clear::registrations)
                }
            };
            let reply = agent.clear(request).await?.into_inner();
            show.one(out, &reply, render)?;
        }
        Command::Rekey { of: Selection { interface, peer }, ike } => {
            let interface = interface.interface.clone();
            let request = RekeyRequest { interface, peer: peer.clone(), ike: *ike };
            let reply = agent.rekey(request).await?.into_inner();
            show.one(out, &reply, commands::rekey::render)?;
        }
        Command::Completions { .. } | Command::Man | Command::Pki(_) => {}
    }
    Ok(ExitCode::SUCCESS)
}

struct Show {
    output: Output,
}

impl Show {
    fn one<T: Serialize>(
        &self,
        out: &mut impl Write,
        reply: &T,
        table: fn(&T) -> String,
    ) -> Result<(), Error> {
        match self.output {
            Output::Table => out.write_all(table(reply).as_bytes())?,
            Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&json::to_value(reply)?)?)?,
        }
        Ok(())
    }

    fn line<T: Serialize>(
        &self,
        out: &mut impl Write,
        reply: &T,
        table: fn(&T) -> String,
    ) -> Result<(), Error> {
        match self.output {
            Output::Table => out.write_all(table(reply).as_bytes())?,
            Output::Json => writeln!(out, "{}", json::to_value(reply)?)?,
        }
        Ok(out.flush()?)
    }
}
