//! `watch`: a line an event.

use crate::text::moment;
use rpc::agent::{Event, Severity};

/// What people read.
#[must_use]
pub fn render(event: &Event) -> String {
    let mark = if event.severity == i32::from(Severity::Warning) { "!" } else { " " };
    let Event { interface, reason, message, .. } = event;
    let text = format!("{} {mark} {interface:8} {reason:24} {message}", moment(event.time_ms));
    format!("{}\n", text.trim_end())
}
