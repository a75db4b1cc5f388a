//! A YAML stream cut into its documents.

use serde_json::Value;

/// One document of a stream.
#[derive(Debug)]
pub(super) struct Document {
    /// Line of its first line, from 1.
    pub(super) line: usize,
    /// What it says, or where and why it isn't YAML.
    pub(super) value: Result<Value, (usize, String)>,
}

/// Cuts a stream into documents, each read on its own, so that a mistake in one doesn't hide those in the others. A
/// `---` at the start of a line ends a document wherever it stands (YAML 1.2, 9.1.2), so that cutting is exact.
/// Empty documents (only comments) are left out.
pub(super) fn split(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut part = String::new();
    let mut first = 1;
    for (number, line) in (1..).zip(text.lines()) {
        if is_marker(line, "---") || is_marker(line, "...") {
            documents.extend(read(first, &part));
            part.clear();
            first = number + 1;
            let rest = &line[3..];
            if !rest.trim().is_empty() {
                part.push_str("   ");
                part.push_str(rest);
                first = number;
            }
        } else {
            part.push_str(line);
        }
        if !part.is_empty() || first <= number {
            part.push('\n');
        }
    }
    documents.extend(read(first, &part));
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']))
}

fn read(line: usize, text: &str) -> Option<Document> {
    let first = text.lines().position(|l| !l.trim().is_empty() && !l.trim_start().starts_with('#'))?;
    let value = serde_saphyr::from_str::<Value>(text).map_err(|error| {
        let at = error.location().and_then(|l| usize::try_from(l.line()).ok()).unwrap_or(1);
        (line + at.saturating_sub(1), plain(&error))
    });
    (value != Ok(Value::Null)).then_some(Document { line: line + first, value })
}

/// The parser's message without its picture of the text: one line that fits a log.
fn plain(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    text.split(" at line ")
        .next()
        .unwrap_or(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(':')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn values(text: &str) -> Vec<(usize, Value)> {
        split(text).into_iter().map(|d| (d.line, d.value.unwrap())).collect()
    }

    #[test]
    fn documents_know_their_lines() {
        assert_eq!(values("a: 1\n---\n# two\n\nb: 2\n"), [(1, json!({"a": 1})), (5, json!({"b": 2}))]);
        assert_eq!(
            values("---\na: 1\n...\n--- {b: 2}\n---\nc: 3"),
            [(2, json!({"a": 1})), (4, json!({"b": 2})), (6, json!({"c": 3}))]
        );
    }

    #[test]
    fn empty_documents_are_nothing() {
        assert_eq!(values(""), []);
        assert_eq!(values("# only words\n---\n---\n\n...\n"), []);
        assert_eq!(values("---\nnull\n"), []);
    }

    #[test]
    fn dashes_inside_text_do_not_cut() {
        assert_eq!(values("a: |\n  ---\n  x\nb: ---x\n"), [(1, json!({"a": "---\nx\n", "b": "---x"}))]);
    }

    #[test]
    fn a_mistake_has_its_line_and_hides_nothing() {
        let documents = split("a: 1\n---\nb: 2\nc: [1,\nd: }\n---\ne: 3\n");
        assert_eq!(documents.len(), 3);
        let (line, message) = documents[1].value.as_ref().unwrap_err();
        assert!((4..=5).contains(line), "line {line}: {message}");
        assert!(!message.contains('\n'), "{message}");
        assert_eq!(documents[2].value, Ok(json!({"e": 3})));
    }

    #[test]
    fn a_repeated_key_is_a_mistake() {
        let documents = split("a: 1\na: 2\n");
        let (line, _) = documents[0].value.as_ref().unwrap_err();
        assert_eq!(*line, 2);
    }
}
