//! Splits SOQL into words, each with its position.

use super::refuse_at;
use crate::reply::Refusal;

/// A word and its position in the text.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

/// The kind of a word.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// A keyword or a name, dots included.
    Word(String),
    /// Between single quotes, with escapes unchanged.
    Text(String),
    /// A number, a date, or a date and time.
    Number(String),
    /// Punctuation.
    Symbol(&'static str),
    /// After the last word.
    End,
}

/// Longer symbols first.
const SYMBOLS: &[&str] = &["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", ","];

/// The words of a text, [`Kind::End`] last.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Refusal> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(first) = rest.chars().next() else { break };
        let (kind, length) = match first {
            _ if first.is_whitespace() => {
                at += first.len_utf8();
                continue;
            }
            '\'' => quoted(text, at)?,
            'a'..='z' | 'A'..='Z' => {
                let word = run(rest, |it| it.is_ascii_alphanumeric() || matches!(it, '_' | '.'));
                (Kind::Word(word.to_owned()), word.len())
            }
            '0'..='9' | '-' | '+' => {
                let number = run(rest, |it| it.is_ascii_alphanumeric() || matches!(it, '.' | ':' | '-' | '+'));
                (Kind::Number(number.to_owned()), number.len())
            }
            _ => match SYMBOLS.iter().find(|it| rest.starts_with(**it)) {
                Some(symbol) => (Kind::Symbol(symbol), symbol.len()),
                None => return Err(refuse_at("MALFORMED_QUERY", text, at, &format!("unexpected token: '{first}'"))),
            },
        };
        tokens.push(Token { kind, at });
        at += length;
    }
    tokens.push(Token { kind: Kind::End, at: text.len() });
    Ok(tokens)
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> &str {
    let end = text.find(|it| !belongs(it)).unwrap_or(text.len());
    text.get(..end).unwrap_or(text)
}

/// The text that begins with the quote at `at`, and its length including the quotes.
fn quoted(text: &str, at: usize) -> Result<(Kind, usize), Refusal> {
    let inside = text.get(at + 1..).unwrap_or_default();
    let mut escaped = false;
    for (offset, character) in inside.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => return Ok((Kind::Text(inside.get(..offset).unwrap_or_default().to_owned()), offset + 2)),
            _ => {}
        }
    }
    Err(refuse_at("MALFORMED_QUERY", text, at, "line 1: no viable alternative at character '<EOF>'"))
}

/// Resolves escapes; `None` for an unknown one. In LIKE, `\_` and `\%` are kept, because they are not wildcards.
pub(super) fn unescaped(raw: &str, like: bool) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            text.push(character);
            continue;
        }
        match characters.next()? {
            'n' | 'N' => text.push('\n'),
            'r' | 'R' => text.push('\r'),
            't' | 'T' => text.push('\t'),
            'b' | 'B' => text.push('\u{8}'),
            'f' | 'F' => text.push('\u{c}'),
            // A backslash that LIKE compares must not escape what follows.
            '\\' if like => text.push_str("\\\\"),
            same @ ('"' | '\'' | '\\') => text.push(same),
            wildcard @ ('_' | '%') if like => text.extend(['\\', wildcard]),
            'u' | 'U' => {
                let digits: String = characters.by_ref().take(4).collect();
                let code = (digits.len() == 4).then(|| u32::from_str_radix(&digits, 16).ok())??;
                text.push(char::from_u32(code)?);
            }
            _ => return None,
        }
    }
    Some(text)
}
