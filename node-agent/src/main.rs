//! `dmvpn-agent`: the command line of the node agent.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use dmvpn_agent::agent::{self, Options};
use dmvpn_agent::source::Source;
use dmvpn_agent::{cni, uninstall};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use telemetry::{Endpoint, LogFormat};
use tokio::signal::unix::{SignalKind, signal};

/// Runs the DMVPN tunnels of this node.
#[derive(Debug, Parser)]
#[command(name = "dmvpn-agent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Folder of DmvpnHub, DmvpnSpoke and Secret manifests; changes are applied as they are written
    #[arg(long, value_name = "DIR", conflicts_with = "kubernetes")]
    manifests: Option<PathBuf>,

    /// Take the configuration from this node's DmvpnNode, as the operator writes it, and write its status; a new agent
    /// waits for the one before it to end
    #[arg(long)]
    kubernetes: bool,

    /// Namespace of the release, where the Secrets are
    #[arg(long, value_name = "NAME", default_value = crds::kubernetes::NAMESPACE, requires = "kubernetes")]
    namespace: String,

    /// Name of this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,

    /// Where sockets are
    #[arg(long, value_name = "DIR", default_value = "/run/kube-dmvpn", global = true)]
    run_dir: PathBuf,

    /// What survives a restart
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kube-dmvpn", global = true)]
    state_dir: PathBuf,

    /// The dmvpn-datapath binary; "external" if somebody else starts it, and again when it ends [default: beside this one]
    #[arg(long, value_name = "PATH")]
    datapath: Option<PathBuf>,

    /// Datapath threads per tunnel [default: one per CPU, at most 8]
    #[arg(long, value_name = "NUMBER")]
    workers: Option<u16>,

    /// Where Prometheus metrics, /healthz and /readyz are served; "off" for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9477")]
    metrics: Endpoint,

    /// A unix socket of this process alone, by which `dmvpn-agent probe` asks how it is
    #[arg(long, value_name = "PATH", env = "DMVPN_PROBE_SOCKET", global = true)]
    probe_socket: Option<PathBuf>,

    /// How the log is written; what is logged: RUST_LOG
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,

    /// Install the CNI plugin: the folder of network configurations, the first of which it is chained to
    #[arg(long, value_name = "DIR", requires = "cni_bin_dir", global = true)]
    cni_conf_dir: Option<PathBuf>,

    /// Install the CNI plugin: the folder of plugins
    #[arg(long, value_name = "DIR", requires = "cni_conf_dir", global = true)]
    cni_bin_dir: Option<PathBuf>,

    /// At the end, stay registered and leave the datapath forwarding, for a successor to take over
    #[arg(long)]
    keep_datapath: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask the agent with this --probe-socket how it is; fails if it is not well. One that waits for another to end is
    Probe,
    /// Remove everything this agent ever made: interfaces, routes, kernel switches, files
    Uninstall {
        /// Wait for an agent that still runs to end
        #[arg(long)]
        wait: bool,
        /// Afterwards do nothing until told to stop: a container of a DaemonSet that ended would be started again
        #[arg(long)]
        stay: bool,
    },
}

/// The Kubernetes client logs each attempt; what matters of that we say once.
const DEFAULT_FILTER: &str = "info,kube_client=off,kube_runtime=off";

/// Instead of the path of a datapath that we start.
const EXTERNAL: &str = "external";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    linux_io::memory::give_back_large_blocks();
    telemetry::init(arguments.log_format, DEFAULT_FILTER);
    let folders = arguments.cni_conf_dir.clone().zip(arguments.cni_bin_dir.clone());
    let cni = folders.map(|(configuration, binaries)| cni::Folders { configuration, binaries });
    match arguments.command {
        Some(Command::Uninstall { wait, stay }) => {
            let code = uninstall(&arguments.run_dir, &arguments.state_dir, cni.as_ref(), wait).await;
            if stay && code == ExitCode::SUCCESS {
                stop_signal().await;
            }
            code
        }
        Some(Command::Probe) => probe(arguments.probe_socket.as_deref()).await,
        None => run(arguments, cni).await,
    }
}

async fn probe(socket: Option<&Path>) -> ExitCode {
    let Some(socket) = socket else {
        eprintln!("dmvpn-agent: say --probe-socket PATH");
        return ExitCode::from(2);
    };
    match telemetry::ask(socket, "/healthz").await {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("dmvpn-agent: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments, cni: Option<cni::Folders>) -> ExitCode {
    let source = match (arguments.manifests, arguments.kubernetes) {
        (Some(folder), _) => Source::Manifests(folder),
        (None, true) => Source::Kubernetes { namespace: arguments.namespace },
        (None, false) => {
            eprintln!("dmvpn-agent: say --manifests DIR or --kubernetes");
            return ExitCode::from(2);
        }
    };
    let Some(node) = arguments.node.or_else(host_name) else {
        eprintln!("dmvpn-agent: say --node NAME");
        return ExitCode::from(2);
    };
    let options = Options {
        succeed: matches!(source, Source::Kubernetes { .. }),
        source,
        node,
        run_dir: arguments.run_dir,
        state_dir: arguments.state_dir,
        datapath: match arguments.datapath {
            Some(path) if path == Path::new(EXTERNAL) => None,
            path => Some(path.unwrap_or_else(beside_this)),
        },
        metrics: arguments.metrics.0,
        probe_socket: arguments.probe_socket,
        workers: arguments.workers.unwrap_or_else(default_workers),
        keep_datapath: arguments.keep_datapath,
        cni,
    };
    match agent::run(options, stop_signal()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn uninstall(run_dir: &Path, state_dir: &Path, cni: Option<&cni::Folders>, wait: bool) -> ExitCode {
    if wait {
        uninstall::no_agent_runs(run_dir).await;
    }
    let left = uninstall::run(run_dir, state_dir, cni).await;
    for what in &left {
        eprintln!("dmvpn-agent: not removed: {what}");
    }
    if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// SIGTERM or SIGINT.
async fn stop_signal() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process at once, as for any program.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

fn beside_this() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    this.with_file_name("dmvpn-datapath")
}

fn host_name() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
}

fn default_workers() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(8).min(8))
}
