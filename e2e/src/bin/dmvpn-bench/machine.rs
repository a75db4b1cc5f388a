//! What is printed beside the numbers: the machine and the day.

use std::process::Command;

/// Cores, processor and kernel.
pub(crate) fn describe() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|l| l.strip_prefix("model name\t: ")).unwrap_or("unknown CPU").to_owned();
    let cores = cpuinfo.lines().filter(|l| l.starts_with("processor")).count();
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: String = release.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    format!("{cores} x {model}, Linux {version}")
}

/// Today, `YYYY-MM-DD`.
pub(crate) fn date() -> String {
    Command::new("date")
        .arg("+%F")
        .output()
        .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
        .unwrap_or_default()
}
