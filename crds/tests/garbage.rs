//! Whatever stands in a folder, reading it ends with manifests or with words, never with a panic.

use dmvpn_crds::manifest::read_text;
use proptest::prelude::*;

const SAMPLES: [&str; 4] = [
    include_str!("../../docs/samples/kubernetes.yaml"),
    include_str!("../../docs/samples/foreign-hub.yaml"),
    include_str!("../../docs/samples/ipv6.yaml"),
    include_str!("../../docs/samples/static-peer.yaml"),
];

/// Words that mean something somewhere, to stand where they mean nothing.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "{}",
    "[]",
    "-1",
    "99999999999999999999",
    "1.5e400",
    "'10.200.0.0/99'",
    "\"\\u0000\"",
    "~",
    "&a *a",
    "0x10",
    "!!binary x",
    "{a: {b: [c]}}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        let _ = read_text("t", &text);
    }

    #[test]
    fn a_sample_with_values_replaced_is_answered(
        sample in 0..SAMPLES.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..WORDS.len()), 1..4),
    ) {
        let mut words: Vec<&str> = SAMPLES[sample].split_inclusive([' ', '\n', ',', '{', '}']).collect();
        for (at, word) in changes {
            let at = at.index(words.len());
            words[at] = WORDS[word];
        }
        if let Err(errors) = read_text("t", &words.concat()) {
            prop_assert!(!errors.0.is_empty());
            for error in errors.0 {
                prop_assert!(!error.message.is_empty() && !error.to_string().contains('\n'), "{error}");
            }
        }
    }

    #[test]
    fn a_sample_cut_short_is_answered(sample in 0..SAMPLES.len(), cut in any::<prop::sample::Index>()) {
        let text: String = SAMPLES[sample].chars().take(cut.index(SAMPLES[sample].len())).collect();
        let _ = read_text("t", &text);
    }
}
