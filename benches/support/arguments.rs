//! What cargo says to a bench that has no harness.

/// Whether a bench is to be run: not by `cargo test --benches`, nor where the words that choose benches choose others.
pub(crate) fn ask_for(name: &str) -> bool {
    let (flags, words): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    flags.iter().any(|flag| flag == "--bench") && (words.is_empty() || words.iter().any(|word| name.contains(word)))
}
