//! `diagnose` of every node.

use super::error::Error;
use super::kubectl::{Answer, Kubectl};
use crate::cli::Output;
use serde_json::Value;
use std::io::Write;
use std::process::ExitCode;

/// Runs every agent's checks. Fails if one does, or if an agent can't be asked.
pub(super) fn all(
    kubectl: &Kubectl,
    output: Output,
    out: &mut impl Write,
) -> Result<ExitCode, crate::error::Error> {
    let agents = kubectl.agents()?;
    if agents.is_empty() {
        return Err(Error::NoAgents(kubectl.namespace().to_owned()).into());
    }
    let answers = kubectl
        .ask_each(&agents, |kubectl, node, pod| (node.to_owned(), kubectl.ask(pod, output, &["diagnose"])));
    let mut good = answers.len() == agents.len();
    let mut document = serde_json::Map::new();
    for (index, (node, answer)) in answers.into_iter().enumerate() {
        let answer = answer?;
        good &= answer.good;
        match output {
            Output::Table => {
                let gap = if index == 0 { "" } else { "\n" };
                writeln!(out, "{gap}{node}")?;
                out.write_all(text(&answer).as_bytes())?;
            }
            Output::Json => {
                let reply = serde_json::from_str(&answer.text);
                document.insert(node, reply.unwrap_or_else(|_| Value::String(text(&answer))));
            }
        }
    }
    if output == Output::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&Value::Object(document))?)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer { text, .. } if !text.is_empty() => text.clone(),
        Answer { complaint, .. } => format!("FAIL  cannot be asked: {complaint}\n"),
    }
}
