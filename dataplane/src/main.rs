//! `dmvpn-datapath`: moves the packets of tunnels that an agent configures over a unix socket, and goes on when the agent
//! is gone.
#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use dmvpn_dataplane::control::{self, Server};
use dmvpn_dataplane::handover::{self, Taken};
use dmvpn_dataplane::standby;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// Moves packets between the tunnel interfaces and the underlay.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where the agent connects to.
    #[arg(long, value_name = "PATH", default_value = "/run/kube-dmvpn/datapath.sock")]
    socket: PathBuf,
    /// Take over from the datapath that runs, with its interfaces, sockets, tables and SAs; it ends then. Without one,
    /// start as usual.
    #[arg(long)]
    takeover: bool,
    /// For containers, which are started again when they end: take over as well; when handed over, stand by until a signal
    /// comes, and begin anew if the successor vanishes. A datapath that can't be taken over is waited for.
    #[arg(long)]
    standby: bool,
    /// Stand by first.
    #[arg(long, hide = true, requires = "standby")]
    wait: bool,
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
    linux_io::memory::give_back_large_blocks();
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

/// Why the process ends.
enum End {
    Signal(i32),
    /// A successor has all we had.
    HandedOver,
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Keys are not for core dumps.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    // Before anything that has to be tidied up.
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let (socket, beside) = (&arguments.socket, handover::path_beside(&arguments.socket));
    let mut is_told_to_end = || signals.pending().next().is_some();
    if arguments.wait && !standby::wait(socket, &mut is_told_to_end)? {
        return Ok(());
    }
    let Some(Taken { server, listener, handover }) = begin(arguments, &beside, &mut is_told_to_end)? else {
        return Ok(());
    };
    tracing::info!(socket = %socket.display(), "listening for an agent");
    let (end, ended) = mpsc::channel();
    let (serving, agents) = (server.clone(), listener.try_clone()?);
    std::thread::spawn(move || serving.serve(&agents));
    let (giving, to_main) = (server.clone(), end.clone());
    std::thread::spawn(move || {
        for stream in handover.incoming() {
            let given = stream
                .map_err(handover::Error::from)
                .and_then(|stream| handover::give(&giving, [&listener, &handover], &stream));
            match given {
                Ok(()) => return to_main.send(End::HandedOver),
                Err(error) => tracing::warn!(%error, "nothing was handed over; all goes on here"),
            }
        }
        Ok(())
    });
    std::thread::spawn(move || signals.forever().next().map(|signal| end.send(End::Signal(signal))));
    match ended.recv()? {
        // All that we had is closed by that: threads, and descriptors that are the successor's now.
        End::HandedOver if arguments.standby => return Err(stand_by().into()),
        End::HandedOver => tracing::info!("ending; the successor goes on"),
        End::Signal(signal) => {
            tracing::info!(signal, "closing; interfaces stay until they are removed");
            server.close();
            std::fs::remove_file(&beside)?;
            std::fs::remove_file(socket)?;
        }
    }
    Ok(())
}

/// Takes over, or begins. `None`: told to end before that.
fn begin(
    arguments: &Arguments,
    beside: &Path,
    is_told_to_end: &mut impl FnMut() -> bool,
) -> Result<Option<Taken>, Box<dyn std::error::Error>> {
    if arguments.takeover || arguments.standby {
        let mut said = false;
        loop {
            match handover::take(beside) {
                Ok(Some(taken)) => return Ok(Some(taken)),
                Ok(None) => break,
                // It has the interfaces; somebody will end it.
                Err(error) if arguments.standby => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, "the datapath that runs can't be taken over: waiting until it ends");
                    }
                    if is_told_to_end() {
                        return Ok(None);
                    }
                    std::thread::sleep(TAKEOVER_RETRY);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let listener = control::listen(&arguments.socket)?;
    Ok(Some(Taken { server: Server::default(), listener, handover: control::listen(beside)? }))
}

/// Becomes a process that has nothing and waits. Returns only if that fails.
fn stand_by() -> io::Error {
    tracing::info!("standing by; the successor goes on");
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--wait");
    match std::env::current_exe() {
        Ok(this) => Command::new(this).args(arguments).arg("--wait").exec(),
        Err(error) => error,
    }
}

/// Between attempts to take over from a datapath that does not let us.
const TAKEOVER_RETRY: Duration = Duration::from_secs(1);
