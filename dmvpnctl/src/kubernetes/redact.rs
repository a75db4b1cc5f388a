//! Secrets that must not leave with a bug report. We collect none on purpose; this is for what others let slip into logs
//! and annotations.

/// Words whose value is a secret, as a key of YAML or JSON or in `key=value`.
const WORDS: [&str; 6] = ["psk", "password", "passwd", "token", "tls.key", "private-key"];

/// The text without private keys and without the values of what is called a secret.
pub(super) fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if in_key {
            in_key = !line.contains("-----END");
            continue;
        }
        match line.find("-----BEGIN").filter(|_| line.contains("PRIVATE KEY")) {
            Some(start) => {
                out.push_str(line.get(..start).unwrap_or_default());
                out.push_str("(private key redacted)\n");
                // In a log or in JSON, a whole key may stand in one line.
                in_key = !line.contains("-----END");
            }
            None => out.push_str(&without_values(line)),
        }
    }
    out
}

fn without_values(line: &str) -> String {
    let small = line.to_ascii_lowercase();
    for word in WORDS {
        for (start, _) in small.match_indices(word) {
            let Some(rest) = line.get(start + word.len()..) else { continue };
            let before = line.get(..start).unwrap_or_default();
            // A word of its own: `psk: x`, `"psk":"x"`, `psk=x`; not `tokens` nor `mypsk`.
            if before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
                continue;
            }
            let rest = rest.strip_prefix(['"', '\\', '\'']).unwrap_or(rest);
            let rest = rest.strip_prefix('"').unwrap_or(rest);
            let Some(value) = rest.strip_prefix([':', '=']) else { continue };
            // Nothing to hide: a list or an object, whose own keys are looked at in turn.
            if value.trim_start().is_empty() || value.trim_start().starts_with(['{', '[']) {
                continue;
            }
            let kept = line.len() - value.len();
            return format!("{} (redacted)\n", line.get(..kept).unwrap_or_default());
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_does_not_leave() {
        let text = "a\nkey: -----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\nb\n";
        assert_eq!(redact(text), "a\nkey: (private key redacted)\nb\n");
        let json = "{\"k\":\"-----BEGIN PRIVATE KEY-----\\nMHcC\\n-----END PRIVATE KEY-----\"}\nb\n";
        assert_eq!(redact(json), "{\"k\":\"(private key redacted)\nb\n");
    }

    #[test]
    fn certificates_stay() {
        let text = "-----BEGIN CERTIFICATE-----\nMHcC\n-----END CERTIFICATE-----\n";
        assert_eq!(redact(text), text);
    }

    #[test]
    fn values_of_secrets_do_not_leave() {
        for line in [
            "psk: abc\n",
            "  \"psk\": \"abc\"\n",
            "x token=abc y\n",
            "{\\\"tls.key\\\":\\\"abc\\\"}\n",
            "PSK=abc\n",
        ] {
            let out = redact(line);
            assert!(!out.contains("abc") && out.contains("(redacted)"), "{line}: {out}");
        }
    }

    #[test]
    fn what_only_looks_like_a_secret_stays() {
        for line in ["preSharedKey: {secret: dmvpn-psk}\n", "tokens: 3\n", "dmvpn-psk: found\n", "psk:\n"] {
            assert_eq!(redact(line), line);
        }
    }
}
