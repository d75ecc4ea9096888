//! Variables with which a bench measures less, or more.

/// A number that a variable of the environment has, or else the default.
pub(crate) fn number<T: std::str::FromStr>(variable: &str, default: T) -> T {
    let read = |text: String| text.parse().ok().expect("a number");
    std::env::var(variable).map_or(default, read)
}
