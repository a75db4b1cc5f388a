//! `dmvpnctl`, also installed as `kubectl-dmvpn`.

use clap::Parser as _;
use dmvpnctl::cli::{Cli, Command};
use dmvpnctl::error::Error;
use dmvpnctl::kubernetes;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(words) = kubernetes::words(std::env::args_os()) {
        let cli = kubernetes::Cli::parse_from(words);
        if cli.is_capture() && std::io::stdout().is_terminal() {
            return end(Err(Error::Terminal));
        }
        return end(kubernetes::run(&cli, &mut std::io::stdout()));
    }
    let cli = Cli::parse();
    if matches!(cli.command, Command::Capture { .. }) && std::io::stdout().is_terminal() {
        return end(Err(Error::Terminal));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("dmvpnctl: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    end(runtime.block_on(dmvpnctl::run::run(&cli, &mut std::io::stdout())))
}

fn end(result: Result<ExitCode, Error>) -> ExitCode {
    let flushed = std::io::stdout().flush().map_err(Into::into);
    match result.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        // Whoever read our output had enough of it (`dmvpnctl peers | head`).
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dmvpnctl: {error}");
            ExitCode::FAILURE
        }
    }
}
