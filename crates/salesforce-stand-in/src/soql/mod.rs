//! The supported part of SOQL as a tree: SELECT, FROM, WHERE, ORDER BY, LIMIT, OFFSET.
//!
//! `lexer` splits the text into words, `parse` builds a [`Query`]; `query` evaluates it. As in an org, AND beside OR
//! without brackets is an error, and so is a backslash that does not begin a known escape.

mod lexer;
mod parse;

pub(super) use parse::parse;

use super::reply::Refusal;

/// A statement.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) fields: Vec<Path>,
    /// `SELECT COUNT()`: only the number of rows.
    pub(super) count: bool,
    pub(super) object: Name,
    pub(super) condition: Option<Condition>,
    pub(super) order: Vec<Order>,
    pub(super) limit: Option<usize>,
    pub(super) offset: usize,
}

/// A name and its position.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) at: usize,
}

/// A field, possibly through relationships: `User__r.Username`.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) relationships: Vec<String>,
    pub(super) field: String,
    pub(super) at: usize,
}

/// The condition of WHERE.
#[derive(Debug)]
pub(super) enum Condition {
    /// All of them.
    All(Vec<Self>),
    /// At least one of them.
    Any(Vec<Self>),
    /// Not this one.
    Not(Box<Self>),
    /// A field compared with a literal.
    Compare(Path, Operator, Literal),
    /// A field in a list of literals, or with `true` not in it.
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
    /// In single quotes; for LIKE, with its wildcards.
    Text(String),
    /// Digits.
    Number(f64),
    /// A date, or a date and time, without quotes.
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

/// An error with its position in the text, as an org shows it.
pub(super) fn refuse_at(code: &str, text: &str, at: usize, message: &str) -> Refusal {
    let before = text.get(..at).unwrap_or(text);
    let row = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|it| *it != '\n').count() + 1;
    let shown: String = text.lines().nth(row - 1).unwrap_or_default().chars().take(200).collect();
    let pointer = " ".repeat(column - 1);
    Refusal::bad(code, format!("\n{shown}\n{pointer}^\nERROR at Row:{row}:Column:{column}\n{message}"))
}
