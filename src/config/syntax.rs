//! Explains lines that are not TOML by their usual causes.

use toml::de::DeValue;

/// Returns what is wrong with a line, given the parser's own words.
pub(super) fn explain(line: &str, words: &str) -> String {
    let value = line.split_once('=').map_or("", |(_, value)| value);
    if value.contains('\\') && (words.contains("escape") || words.contains("unicode")) {
        "is not TOML: a backslash in double quotes begins an escape; write a Windows path in single quotes: 'C:\\folder\\file'"
            .to_owned()
    } else if lacks_quotes(value) {
        "is not TOML: a text needs straight quotes around it: \"text\"".to_owned()
    } else {
        format!("is not TOML: {words}")
    }
}

/// Returns whether a value, or an element of a list on one line, would be a value if it had quotes.
fn lacks_quotes(value: &str) -> bool {
    let value = value.split(" #").next().unwrap_or_default().trim();
    let inside = value.strip_prefix('[').map(|rest| rest.strip_suffix(']').unwrap_or(rest));
    let mut elements = inside.unwrap_or(value).split(if inside.is_some() { ',' } else { '\n' }).map(str::trim);
    elements.any(|element| {
        !element.is_empty()
            && !element.contains(['"', '\'', '\\', '{', '='])
            && DeValue::parse(element).is_err()
            && DeValue::parse(&format!("\"{element}\"")).is_ok()
    })
}

/// Returns whether a line is the header `[applications]`, which should be `[[applications]]`.
pub(super) fn is_single_applications(line: &str) -> bool {
    let header = line.split('#').next().unwrap_or_default().trim();
    header.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).is_some_and(|name| name.trim() == "applications")
}

/// Returns whether a line begins a table.
pub(super) fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[') && !line.contains('=')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_quotes_is_recognised() {
        for value in [
            "tokens",
            " 10s # comment",
            "/var/lib",
            "127.0.0.1:7420",
            "[127.0.0.1:7420]",
            "[\"a\", b]",
            "\u{201c}x\u{201d}",
        ] {
            assert!(lacks_quotes(value), "{value}");
        }
        for value in ["", "1", "true", "\"a", "'a", "[1, 2", "[\"a\" \"b\"]", "{ a = b }", "1979-05-27"] {
            assert!(!lacks_quotes(value), "{value}");
        }
    }
}
