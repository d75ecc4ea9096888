//! The part of SOQL that matters here, as a tree: SELECT, FROM, WHERE, ORDER BY, LIMIT, OFFSET.
//!
//! `lexer` makes words of the text, `parse` a [`Query`] of the words; what the query finds is `query`'s business. As
//! in an org, AND beside OR without brackets is an error, and so is every backslash that begins no known escape.

mod lexer;
mod parse;

pub(super) use parse::parse;

use super::reply::Refusal;

/// A statement.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) fields: Vec<Path>,
    /// `SELECT COUNT()`: no rows, their number only.
    pub(super) count: bool,
    pub(super) object: Name,
    pub(super) condition: Option<Condition>,
    pub(super) order: Vec<Order>,
    pub(super) limit: Option<usize>,
    pub(super) offset: usize,
}

/// A name and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) at: usize,
}

/// A field, maybe through relationships: `User__r.Username`.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) relationships: Vec<String>,
    pub(super) field: String,
    pub(super) at: usize,
}

/// What WHERE asks.
#[derive(Debug)]
pub(super) enum Condition {
    /// Each of them.
    All(Vec<Self>),
    /// One of them at least.
    Any(Vec<Self>),
    /// Not so.
    Not(Box<Self>),
    /// A field beside a literal.
    Compare(Path, Operator, Literal),
    /// A field among literals, or with `true` among none of them.
    In(Path, Vec<Literal>, bool),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `=`
    Equal,
    /// `!=` or `<>`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `LIKE`
    Like,
}

/// A value as written.
#[derive(Clone, Debug)]
pub(super) enum Literal {
    /// In single quotes; of LIKE, with its wildcards still in it.
    Text(String),
    /// Digits.
    Number(f64),
    /// A day or a moment, without quotes.
    Moment(String),
    /// TRUE or FALSE.
    Boolean(bool),
    /// NULL.
    Null,
}

/// One key of ORDER BY.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) path: Path,
    pub(super) descending: bool,
    pub(super) nulls_last: bool,
}

/// An error with the place in the text, as an org shows it.
pub(super) fn refuse_at(code: &str, text: &str, at: usize, message: &str) -> Refusal {
    let before = text.get(..at).unwrap_or(text);
    let row = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
    let shown: String = text.lines().nth(row - 1).unwrap_or_default().chars().take(200).collect();
    let pointer = " ".repeat(column - 1);
    Refusal::bad(code, format!("\n{shown}\n{pointer}^\nERROR at Row:{row}:Column:{column}\n{message}"))
}
