//! `dmvpn-datapath`: moves the packets of tunnels that an agent configures over a unix socket, and goes on when the agent
//! is gone.
#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use dmvpn_dataplane::control::{self, Server};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Moves packets between the tunnel interfaces and the underlay.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where the agent connects to.
    #[arg(long, value_name = "PATH", default_value = "/run/kube-dmvpn/datapath.sock")]
    socket: PathBuf,
    /// How the log is written, on standard error.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log(arguments.log_format);
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the datapath can't go on");
            ExitCode::FAILURE
        }
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    // Before anything that has to be tidied up.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let listener = control::listen(&arguments.socket)?;
    tracing::info!(socket = %arguments.socket.display(), "listening for an agent");
    let server = Server::default();
    let serving = server.clone();
    std::thread::spawn(move || serving.serve(&listener));
    let signal = signals.forever().next();
    tracing::info!(signal, "closing; interfaces stay until they are removed");
    server.close();
    std::fs::remove_file(&arguments.socket)
}
