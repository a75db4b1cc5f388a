//! Words for demos: titles, indented output, and checks that end a demo with a sentence.

use crate::error::{Error, Result};

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
