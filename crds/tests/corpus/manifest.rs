//! A manifest of any bytes. Shared by the fuzz target and the replay of its corpus.

use dmvpn_crds::manifest::read_text;

/// Reading ends with objects, or with words that fit a log, one line each.
pub fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match read_text("manifest.yaml", &text) {
        Ok(manifests) => {
            // What was taken can be shown.
            let _ = format!("{manifests:?}");
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in errors.0 {
                assert!(!error.message.is_empty() && !error.to_string().contains('\n'), "{error}");
            }
        }
    }
}
