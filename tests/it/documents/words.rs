//! No document, comment or string has a phrase that made earlier texts of this project hard to read.

use std::path::Path;

use super::{files, markdown};

/// Whole words. Each has a plain one: receives, requester, has, another, arrives, is in.
const UNCLEAR: &[&str] = &[
    "so many",
    "hear",
    "hears",
    "heard",
    "whoever",
    "whomever",
    "bears",
    "who asks",
    "the asker's",
    "is ill",
    "comes and goes",
    "come and go",
    "has come",
    "have come",
    "stands at",
    "stands in",
    "stands on",
    "stands once",
    "stands twice",
    "stands beside",
    "as it stands",
    "comes back",
    "come back",
    "came back",
    "for good",
    "all the same",
    "those who",
    "who does",
    "who did",
    "in vain",
    "be had",
    "knows no",
];

/// Before a noun, these negate it: "is no JSON" for "is not JSON". Not after "there", and not before these words.
const NEGATING: &[&str] = &["is no", "are no"];
const ADVERBS: &[&str] = &["longer", "more", "less", "better"];

fn words(text: &str) -> Vec<String> {
    let words = text.split(|it: char| !it.is_alphanumeric() && !"'_".contains(it));
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
}

/// Returns the unclear phrases in a text.
fn unclear(text: &str) -> Vec<&'static str> {
    let words = words(text);
    let joined = format!(" {} ", words.join(" "));
    let mut found: Vec<_> = UNCLEAR.iter().filter(|phrase| joined.contains(&format!(" {phrase} "))).copied().collect();
    for phrase in NEGATING {
        let (verb, no) = phrase.split_once(' ').unwrap();
        let negates = words.windows(2).enumerate().any(|(at, pair)| {
            let before = at.checked_sub(1).map(|at| words[at].as_str());
            let after = words.get(at + 2).map_or("", String::as_str);
            pair == [verb, no] && before != Some("there") && !ADVERBS.contains(&after)
        });
        found.extend(negates.then_some(*phrase));
    }
    found
}

/// Returns the comments and strings of Rust code, without what is between backticks or braces: names and placeholders. Lines of
/// one comment are one text.
fn texts(code: &str) -> Vec<(usize, String)> {
    let mut texts: Vec<(usize, String)> = Vec::new();
    let mut rest = code;
    let (mut line, mut counted) = (1, 0);
    while let Some(at) = rest.find(['/', '"', '\'', 'r']) {
        rest = &rest[at..];
        let read = code.len() - rest.len();
        line += code[counted..read].matches('\n').count();
        counted = read;
        let after_word = code[..read].ends_with(|it: char| it.is_alphanumeric() || it == '_');
        let (len, is_comment) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true)
        } else if let Some(hashes) = raw_string(rest).filter(|_| !after_word) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            (start + rest[start..].find(&end).unwrap() + end.len(), false)
        } else if rest.starts_with('"') {
            (string(rest), false)
        } else {
            rest = &rest[character(rest)..];
            continue;
        };
        let (text, after) = rest.split_at(len);
        rest = after;
        let text = text.trim_start_matches(['/', '!']).replace("\\\n", " ");
        match texts.last_mut() {
            Some((last, joined)) if is_comment && *last + joined.matches('\n').count() + 1 == line => {
                joined.push('\n');
                joined.push_str(&text);
            }
            _ => texts.push((line, text)),
        }
    }
    texts.into_iter().map(|(line, text)| (line, without(&without(&text, '`', '`'), '{', '}'))).collect()
}

/// Returns the number of `#` if a raw string begins here.
fn raw_string(code: &str) -> Option<usize> {
    let hashes = code.strip_prefix('r')?;
    let string = hashes.trim_start_matches('#');
    string.starts_with('"').then_some(hashes.len() - string.len())
}

/// Returns the length of the string that begins here.
fn string(code: &str) -> usize {
    let mut escaped = false;
    let end = code[1..].find(|it| {
        let ends = it == '"' && !escaped;
        escaped = it == '\\' && !escaped;
        ends
    });
    end.map_or(code.len(), |end| end + 2)
}

/// Returns the length of the character literal that begins here, or 1.
fn character(code: &str) -> usize {
    if !code.starts_with('\'') {
        return 1;
    }
    let mut inside = code[1..].chars();
    let len = match inside.next() {
        Some('\\') => inside.next().map_or(1, |it| 2 + it.len_utf8()),
        Some(it) => 1 + it.len_utf8(),
        None => 1,
    };
    if code[len..].starts_with('\'') { len + 1 } else { 1 }
}

/// Returns a text without what is between two marks.
fn without(text: &str, begin: char, end: char) -> String {
    let mut left = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(begin) {
        left.push_str(before);
        left.push(' ');
        let Some((_, after)) = inside.split_once(end) else { return left + inside };
        rest = after;
    }
    left + rest
}

#[test]
fn documents_avoid_unclear_phrases() {
    let mut found = Vec::new();
    for (path, text) in markdown() {
        let is_ours = path.starts_with("docs") || path.parent() == Some(Path::new(""));
        if is_ours {
            found.extend(unclear(&text).into_iter().map(|phrase| format!("{}: '{phrase}'", path.display())));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn comments_and_strings_avoid_unclear_phrases() {
    let mut found = Vec::new();
    for path in files() {
        let is_rust = path.extension().is_some_and(|it| it == "rs");
        let is_ours = ["src", "crates", "benches", "tests"].iter().any(|room| path.starts_with(room));
        // This file lists the phrases.
        if !is_rust || !is_ours || path.ends_with("documents/words.rs") {
            continue;
        }
        for (line, text) in texts(&std::fs::read_to_string(&path).unwrap()) {
            found.extend(unclear(&text).into_iter().map(|phrase| format!("{}:{line}: '{phrase}'", path.display())));
        }
    }
    assert!(found.is_empty(), "say it in plain words:\n{}", found.join("\n"));
}

#[test]
fn phrases_are_found_in_comments_and_strings_and_nowhere_else() {
    let code = [
        "// It is heard, when",
        "// whoever has `hears`.",
        "let heard = 'h'; let quote = '\"'; // so",
        "let text = \"a \\\" who asks\"; let other = r#\"is no \"JSON\"\"#;",
        "let fine = (\"there is no JSON\", \"it is no longer\", \"{heard:?}\");",
        "// knows nothing and",
        "// no more",
    ]
    .join("\n");
    let found: Vec<_> = texts(&code)
        .into_iter()
        .flat_map(|(line, text)| unclear(&text).into_iter().map(move |it| (line, it)))
        .collect();
    assert_eq!(found, [(1, "heard"), (1, "whoever"), (4, "who asks"), (4, "is no")]);
}
