//! What spreadsheets and copying leave in a value: formulas, error values, rounded numbers, invisible characters.

/// A mark, in words that continue after the name of the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// The value cannot be right.
    Broken(&'static str),
    /// The value may be right.
    Doubtful(&'static str),
}

/// Finds the marks of a value. A password can be anything, so its marks are only doubtful.
pub(super) fn of(column: &str, text: &str) -> impl Iterator<Item = Mark> {
    let spreadsheet = of_spreadsheet(text).map(|mark| match mark {
        Mark::Broken(why) if column == "password" => Mark::Doubtful(why),
        Mark::Broken(_) | Mark::Doubtful(_) => mark,
    });
    let ends = has_blank_end(text)
        .then_some(Mark::Doubtful("begins or ends with white space or an invisible character, which is kept"));
    spreadsheet.into_iter().chain(ends)
}

fn of_spreadsheet(text: &str) -> Option<Mark> {
    if text.starts_with("=\"") {
        return Some(Mark::Broken("is a formula (=\"...\") of a spreadsheet; write the value alone"));
    }
    if text.len() > 2 && text.bytes().all(|byte| byte == b'#') {
        return Some(Mark::Broken("is what a spreadsheet shows in a column that is too narrow"));
    }
    if is_error_value(text) {
        return Some(Mark::Broken("is an error value of a spreadsheet"));
    }
    if is_rounded(text) {
        return Some(Mark::Broken("is a number that a spreadsheet rounded (1.2E+10); make the column text"));
    }
    if text.strip_prefix('\'').is_some_and(|rest| rest.starts_with(|it: char| it.is_ascii_digit())) {
        return Some(Mark::Doubtful("begins with an apostrophe, which spreadsheets put before a number that is text"));
    }
    if text.strip_suffix(".0").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some(Mark::Doubtful("ends in .0, as a number of a spreadsheet does"));
    }
    None
}

/// `#N/A`, `#NAME?`, `#REF!`, and those of other languages, such as `#WERT!`.
fn is_error_value(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('#') else { return false };
    let ending = matches!(rest, "N/A" | "NV") || rest.ends_with(['!', '?']);
    ending && rest.len() > 1 && rest.chars().all(|it| it.is_uppercase() || "/0!?".contains(it))
}

/// `1.2E+10`, `1,2E+10`.
fn is_rounded(text: &str) -> bool {
    let Some((number, exponent)) = text.split_once("E+") else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once(['.', ',']).unwrap_or((number, "0"));
    digits(whole) && digits(fraction) && digits(exponent)
}

/// Returns whether a text begins or ends with white space or an invisible character.
pub fn has_blank_end(text: &str) -> bool {
    let blank = |it: char| it.is_whitespace() || is_invisible(it);
    text.starts_with(blank) || text.ends_with(blank)
}

/// Returns whether a character has no width: joiners, marks of direction and of byte order, soft hyphens, fillers.
pub(super) fn is_invisible(it: char) -> bool {
    matches!(it,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_spreadsheets_are_found() {
        for broken in ["=\"0051\"", "####", "#N/A", "#NAME?", "#DIV/0!", "#WERT!", "1.2E+10", "49E+09", "1,2345E+11"] {
            assert!(matches!(of("extension", broken).next(), Some(Mark::Broken(_))), "{broken}");
            assert!(matches!(of("password", broken).next(), Some(Mark::Doubtful(_))), "{broken}");
        }
        for doubtful in
            ["'0051", "5051.0", " 5051", "5051\u{a0}", "\u{200b}alice", "alice\u{feff}", "alice\t", "a\u{2060}"]
        {
            assert!(matches!(of("user", doubtful).next(), Some(Mark::Doubtful(_))), "{doubtful:?}");
        }
        for good in
            ["0051", "#5051", "##", "alice@example.com", "'t Hooft", "E+10", "1.5", "=", "a b", "#1!", "josé", ""]
        {
            assert_eq!(of("user", good).next(), None, "{good}");
        }
    }
}
