//! `diagnose`: checks, each with what to do when it fails.

use rpc::agent::{DiagnoseReply, Verdict};
use std::fmt::Write as _;

/// What people read.
#[must_use]
pub fn render(reply: &DiagnoseReply) -> String {
    let width = reply.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in &reply.checks {
        let line = format!("{:4}  {:width$}  {}", word(check.verdict), check.name, check.found);
        let _ = writeln!(text, "{}", line.trim_end());
        if !check.advice.is_empty() {
            let _ = writeln!(text, "      {:width$}  -> {}", "", check.advice);
        }
    }
    let number =
        |verdict: Verdict| reply.checks.iter().filter(|check| check.verdict == i32::from(verdict)).count();
    let (failed, warned) = (number(Verdict::Fail), number(Verdict::Warn));
    let _ = match (failed, warned) {
        (0, 0) => writeln!(text, "\nall {} checks passed", reply.checks.len()),
        (0, _) => writeln!(text, "\n{warned} of {} checks warn", reply.checks.len()),
        (_, 0) => writeln!(text, "\n{failed} of {} checks failed", reply.checks.len()),
        _ => writeln!(text, "\n{failed} of {} checks failed, {warned} warn", reply.checks.len()),
    };
    text
}

/// Did a check fail?
#[must_use]
pub fn failed(reply: &DiagnoseReply) -> bool {
    reply.checks.iter().any(|check| check.verdict == i32::from(Verdict::Fail))
}

fn word(verdict: i32) -> &'static str {
    match Verdict::try_from(verdict) {
        Ok(Verdict::Ok) => "ok",
        Ok(Verdict::Warn) => "WARN",
        Ok(Verdict::Fail) => "FAIL",
        Ok(Verdict::Unspecified) | Err(_) => "?",
    }
}
