//! Words for demos: titles, indented output, checks that end a demo with a sentence, and the frame around it.

use crate::error::{Error, Result};
use crate::leaks::Snapshot;
use crate::topology::Lab;
use std::process::ExitCode;
use std::time::Instant;

/// Tells a demo in a lab of this name, says how it ended, and that nothing was left behind: neither a process, nor a file,
/// nor a `place`.
pub fn perform(name: &str, place: &str, tell: impl FnOnce(&Lab) -> Result) -> ExitCode {
    let before = Snapshot::take();
    let start = Instant::now();
    let outcome = Lab::new(name).and_then(|lab| tell(&lab).inspect_err(|_| lab.tell_all()));
    let left = Snapshot::take().since(&before);
    match outcome {
        Err(error) => {
            eprintln!("\nThis did not happen: {error}");
            ExitCode::FAILURE
        }
        Ok(()) if !left.is_empty() => {
            eprintln!("\nThe demo left something behind: {left:#?}");
            ExitCode::FAILURE
        }
        Ok(()) => {
            println!(
                "\nCleaned up: no {place}, process or file is left. The demo took {:.0?}.",
                start.elapsed()
            );
            ExitCode::SUCCESS
        }
    }
}

/// A step begins.
pub fn title(words: &str) {
    println!("\n== {words}\n");
}

/// Output of a program, set off.
pub fn indent(text: &str) {
    for line in text.trim_end().lines() {
        println!("    {line}");
    }
}

/// The step happened, or the demo ends with an error.
pub fn ensure(happened: bool, otherwise: &str) -> Result {
    if happened { Ok(()) } else { Err(Error::other(otherwise)) }
}
