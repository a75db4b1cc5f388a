//! `dmvpnctl`, also installed as `kubectl-dmvpn`.

use clap::Parser as _;
use dmvpnctl::cli::{Cli, Command};
use dmvpnctl::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Capture { .. }) && std::io::stdout().is_terminal() {
        eprintln!("dmvpnctl: {}", Error::Terminal);
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("dmvpnctl: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(dmvpnctl::run::run(&cli, &mut std::io::stdout()));
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
