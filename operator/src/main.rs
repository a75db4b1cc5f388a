//! `dmvpn-operator`: the command line of the operator.
#![forbid(unsafe_code)]

use clap::{ArgAction, Parser, Subcommand};
use dmvpn_operator::cleanup::{self, Nodes};
use dmvpn_operator::context::Context;
use dmvpn_operator::{apply, check, metrics, run, uninstall};
use kube::{Client, Config};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use telemetry::{Endpoint, LogFormat};
use tokio::signal::unix::{SignalKind, signal};

/// The longest that a request to the API server may wait for octets; watches are quiet for longer, and have bookmarks.
const CONNECT: Duration = Duration::from_secs(10);

/// Turns DmvpnHub and DmvpnSpoke into one DmvpnNode per node, and signs nodes' certificates.
#[derive(Debug, Parser)]
#[command(name = "dmvpn-operator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// Namespace of the release, where Secrets and the Lease are [default: POD_NAMESPACE, or kube-dmvpn]
    #[arg(long, value_name = "NAME", global = true)]
    namespace: Option<String>,

    /// Where Prometheus metrics, /healthz and /readyz are served; "off" for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:9478")]
    metrics: Endpoint,

    /// Act only while holding the Lease, so that several replicas can run
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true, default_missing_value = "true", num_args = 0..=1)]
    leader_elect: bool,

    /// Name of this replica in the Lease [default: POD_NAME, or the host's name]
    #[arg(long, value_name = "NAME", global = true)]
    identity: Option<String>,

    /// How the log is written; what is logged: RUST_LOG
    #[arg(long, value_name = "FORMAT", default_value = "text", global = true)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Remove finalizers and DmvpnNodes, so that nothing hangs when the operator is gone (the chart's pre-delete hook)
    Uninstall {
        /// Then delete this DaemonSet, of the agents
        #[arg(long, value_name = "DAEMONSET", requires = "cleanup")]
        agents: Option<String>,
        /// And wait until every pod of this one, which cleans the nodes, is ready
        #[arg(long, value_name = "DAEMONSET", requires = "agents")]
        cleanup: Option<String>,
        /// So long at most
        #[arg(long, value_name = "SECONDS", default_value = "60s", value_parser = seconds)]
        patience: Duration,
    },
    /// Wait until every DmvpnNode is ready; fail with what is wrong with those that are not (helm test)
    Check {
        /// So long at most
        #[arg(long, value_name = "SECONDS", default_value = "60s", value_parser = seconds)]
        timeout: Duration,
    },
}

/// `60s`, or `60`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text);
    number.parse().map(Duration::from_secs).map_err(|_| "write seconds, such as 60s".to_owned())
}

/// Why the operator cannot run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no API server is known here: run in a pod, or set KUBECONFIG ({0})")]
    Config(#[from] kube::config::InferConfigError),
    #[error("the API server's client cannot be made: {0}")]
    Client(#[from] kube::Error),
    #[error("{0}")]
    Metrics(#[from] std::io::Error),
    #[error("not everything could be removed: {0}")]
    Uninstall(#[from] apply::WriteError),
    #[error("{0}")]
    Check(#[from] check::Error),
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    telemetry::init(arguments.log_format, "info");
    match start(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn start(arguments: Arguments) -> Result<(), Error> {
    let Arguments { command, namespace, metrics: Endpoint(metrics), leader_elect, identity, log_format: _ } =
        arguments;
    let namespace = namespace.or_else(|| variable("POD_NAMESPACE"));
    let namespace = namespace.unwrap_or_else(|| crds::kubernetes::NAMESPACE.to_owned());
    let identity = identity.or_else(|| variable("POD_NAME")).unwrap_or_else(host_name);
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(CONNECT);
    let client = Client::try_from(config)?;
    match command {
        Some(Command::Uninstall { agents, cleanup, patience }) => {
            let identity = format!("{identity}-uninstall");
            let quiet = uninstall::run(client.clone(), &namespace, &identity).await?;
            if let (Some(agents), Some(cleanup)) = (agents, cleanup) {
                let nodes = Nodes { agents, cleanup, patience };
                tokio::select! {
                    cleaned = cleanup::run(&client, &namespace, &nodes) => cleaned?,
                    () = quiet.keep() => {}
                }
            }
            return Ok(());
        }
        Some(Command::Check { timeout }) => {
            println!("{} nodes are ready", check::run(client, timeout).await?);
            return Ok(());
        }
        None => {}
    }
    let context = Arc::new(Context::new(client, namespace, identity));
    let serve = async {
        match metrics {
            Some(address) => metrics::serve(address, Arc::clone(&context)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        served = serve => Ok(served?),
        () = run::run(&context, leader_elect, stop_signal()) => Ok(()),
    }
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

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "dmvpn-operator".to_owned(),
        name => name.to_owned(),
    }
}
