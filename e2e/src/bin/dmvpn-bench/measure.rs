//! One measurement of one tunnel: TCP, the tunnel's CPU, ping.

use crate::tunnels::{Ends, Tunnel};
use std::fmt;
use std::process::{Child, Stdio};
use std::time::Duration;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// One TCP stream, received.
    pub(crate) gbit: f64,
    /// Seconds of CPU of both tunnel processes for each GiB received; `None` for tunnels inside the kernel.
    pub(crate) cpu_per_gib: Option<f64>,
    /// Median round trip.
    pub(crate) ping_us: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:7.2} Gbit/s  ", self.gbit)?;
        match self.cpu_per_gib {
            Some(c) => write!(f, "{c:6.2} CPU s/GiB  ")?,
            None => write!(f, "{:>6} CPU s/GiB  ", "-")?,
        }
        write!(f, "ping p50 {:6.0} µs", self.ping_us)
    }
}

/// Measures a running tunnel.
pub(crate) fn measure(ends: &Ends, tunnel: &Tunnel, seconds: u32) -> Result<Sample, String> {
    await_ping(ends, &tunnel.far)?;
    let ping_us = ping(ends, &tunnel.far)?;
    tcp(ends, &tunnel.far, 1)?; // warms windows and caches up
    let before = cpu(tunnel);
    let (bits, bytes) = tcp(ends, &tunnel.far, seconds)?;
    let used = cpu(tunnel).zip(before).map(|(after, before)| after - before);
    let gib = bytes / f64::from(1 << 30);
    Ok(Sample { gbit: bits / 1e9, cpu_per_gib: used.map(|u| u / gib), ping_us })
}

/// The median of each figure.
pub(crate) fn median(samples: &[Sample]) -> Sample {
    let middle = |mut v: Vec<f64>| {
        v.sort_by(f64::total_cmp);
        v[v.len() / 2]
    };
    Sample {
        gbit: middle(samples.iter().map(|s| s.gbit).collect()),
        cpu_per_gib: samples.iter().map(|s| s.cpu_per_gib).collect::<Option<Vec<_>>>().map(middle),
        ping_us: middle(samples.iter().map(|s| s.ping_us).collect()),
    }
}

fn await_ping(ends: &Ends, far: &str) -> Result<(), String> {
    for _ in 0..60 {
        if ends.near(&["ping", "-c1", "-W1", far]).output().is_ok_and(|o| o.status.success()) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Err(format!("{far} does not answer through the tunnel"))
}

fn ping(ends: &Ends, far: &str) -> Result<f64, String> {
    let out =
        ends.near(&["ping", "-n", "-c", "500", "-i", "0.002", far]).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout);
    let mut times: Vec<f64> = text
        .lines()
        .filter_map(|l| l.split_once("time="))
        .filter_map(|(_, r)| r.split(' ').next()?.parse::<f64>().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).map(|ms| ms * 1000.0).ok_or_else(|| format!("no answer to ping: {text}"))
}

struct Server(Child);
impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One stream for so many seconds: bits per second and octets, as received.
fn tcp(ends: &Ends, far: &str, seconds: u32) -> Result<(f64, f64), String> {
    let server = ends
        .far(&["iperf3", "-s", "-1", "-B", far])
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    let _server = Server(server);
    std::thread::sleep(Duration::from_millis(200));
    let seconds = seconds.to_string();
    let out = ends.near(&["iperf3", "-J", "-c", far, "-t", &seconds]).output().map_err(|e| e.to_string())?;
    let report: serde_json::Value =
        serde_json::from_slice(&out.stdout).map_err(|e| format!("iperf3: {e}"))?;
    let sum = &report["end"]["sum_received"];
    match (sum["bits_per_second"].as_f64(), sum["bytes"].as_f64()) {
        (Some(bits), Some(bytes)) if bytes > 0.0 => Ok((bits, bytes)),
        _ => Err(format!("iperf3: {}", report["error"])),
    }
}

/// User and system seconds of all processes of a tunnel.
fn cpu(tunnel: &Tunnel) -> Option<f64> {
    let pids = tunnel.pids();
    if pids.is_empty() {
        return None;
    }
    pids.iter().map(|pid| process_seconds(*pid)).sum()
}

fn process_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // utime and stime are fields 14 and 15 of proc(5), in ticks of 1/100 s; the command's name was cut off with field 2.
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}
