//! Benchmarks against peers, interleaved in one run: every round measures each tunnel once between the same two namespaces
//! over one veth, so that the machine's drift hits all alike. What counts are the ratios.

mod machine;
mod measure;
mod tunnels;

use clap::Parser;
use measure::Sample;
use std::path::PathBuf;
use tunnels::{Ends, Kind};

/// Compares tunnels on this machine and writes the result as Markdown.
#[derive(Parser)]
#[command(name = "dmvpn-bench", version, about)]
struct Args {
    /// Tunnels to measure, by name.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "veth,vxlan,stick,wireguard-go,kube-dmvpn,kube-dmvpn-encrypted"
    )]
    peers: Vec<Kind>,
    /// Rounds; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of one TCP stream per measurement.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Where to write the result.
    #[arg(long, default_value = "docs/benchmarks.md")]
    output: PathBuf,
    /// Fail unless kube-dmvpn's TCP in the clear is at least this many times wireguard-go's.
    #[arg(long, default_value_t = 3.0)]
    at_least: f64,
    /// Fail unless its TCP by AES-128-GCM is at least this many times wireguard-go's.
    #[arg(long, default_value_t = 2.0)]
    encrypted_at_least: f64,
}

fn main() -> Result<(), String> {
    let args = Args::parse();
    let built = tunnels::prepare(&args.peers)?;
    let ends = Ends::new()?;
    let mut samples: Vec<(Kind, Vec<Sample>)> = args.peers.iter().map(|k| (*k, Vec::new())).collect();
    for round in 1..=args.rounds {
        for (kind, list) in &mut samples {
            let tunnel = tunnels::start(*kind, &ends, &built)?;
            let sample = measure::measure(&ends, &tunnel, args.seconds)?;
            println!("round {round}  {:14} {sample}", kind.name());
            list.push(sample);
        }
    }
    drop(ends);
    let rows: Vec<(Kind, Sample)> = samples.into_iter().map(|(k, s)| (k, measure::median(&s))).collect();
    let text = report(&args, &rows);
    println!("\n{text}");
    std::fs::write(&args.output, text).map_err(|e| format!("{}: {e}", args.output.display()))?;
    check(&args, &rows)
}

/// The ratios the project promises.
fn check(args: &Args, rows: &[(Kind, Sample)]) -> Result<(), String> {
    let of = |kind| rows.iter().find(|(k, _)| *k == kind).map(|(_, s)| s.gbit);
    let Some(theirs) = of(Kind::WireguardGo) else { return Ok(()) };
    let promised = [
        (Kind::KubeDmvpn, "in the clear", args.at_least),
        (Kind::KubeDmvpnEncrypted, "encrypted", args.encrypted_at_least),
    ];
    for (kind, how, wanted) in promised {
        let Some(ratio) = of(kind).map(|ours| ours / theirs) else { continue };
        if ratio < wanted {
            return Err(format!("kube-dmvpn {how} reached {ratio:.2} x wireguard-go, below {wanted:.2} x"));
        }
        println!(
            "kube-dmvpn {how} reached {ratio:.2} x wireguard-go's TCP (at least {wanted:.2} x is wanted)"
        );
    }
    Ok(())
}

fn report(args: &Args, rows: &[(Kind, Sample)]) -> String {
    let base = rows.iter().find(|(k, _)| *k == Kind::WireguardGo).map(|(_, s)| s.gbit);
    let mut t = format!(
        "# Benchmarks\n\nWritten by `make bench` on {} ({}): {} rounds, interleaved, medians. Two namespaces, one veth of MTU 1500, overlay MTU 1420;\n\
         iperf3 client, server and both tunnel ends share the machine's cores. Other machines give other numbers: compare ratios, and only within one run.\n\n\
         Encrypted are wireguard-go (ChaCha20-Poly1305; it has no clear mode) and the last row of kube-dmvpn. CPU is that of both tunnel\n\
         processes; what the kernel does for its own tunnels is not attributable and shown as `-`.\n\n\
         | tunnel | TCP 1 stream Gbit/s | to wireguard-go | tunnel CPU s/GiB | ping p50 µs |\n|---|---|---|---|---|\n",
        machine::date(),
        machine::describe(),
        args.rounds
    );
    for (kind, s) in rows {
        let ratio = base.map_or_else(|| "-".into(), |b| format!("{:.2}", s.gbit / b));
        let cpu = s.cpu_per_gib.map_or_else(|| "-".into(), |c| format!("{c:.2}"));
        t += &format!("| {} | {:.2} | {ratio} | {cpu} | {:.0} |\n", kind.label(), s.gbit, s.ping_us);
    }
    t
}
