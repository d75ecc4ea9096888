//! WHERE and ORDER BY over values, by an org's rules of equality.
//!
//! Text is compared without case unless the field is case-sensitive; ids in their form of 18 characters; null is a
//! value.

use std::cmp::Ordering;

use serde_json::Value;

use super::id;
use super::query::View;
use super::reply::Refusal;
use super::resolve::{Resolved, resolve, value};
use super::schema::{Kind, Object};
use super::soql::{Condition, Literal, Operator, Order, refuse_at};
use super::store::Row;

/// A condition whose names and literals have been checked.
pub(super) enum Bound<'q> {
    /// All of them.
    All(Vec<Self>),
    /// At least one of them.
    Any(Vec<Self>),
    /// Not this one.
    Not(Box<Self>),
    /// A field compared with a literal.
    Compare(Resolved<'q>, Operator, Literal),
    /// A field in a list of literals, or with `true` not in it.
    In(Resolved<'q>, Vec<Literal>, bool),
}

impl<'q> Bound<'q> {
    /// Resolves the fields and checks the literals.
    pub(super) fn bind(view: &View<'q>, object: &'q Object, condition: &Condition) -> Result<Self, Refusal> {
        let several = |parts: &[Condition]| {
            parts.iter().map(|it| Self::bind(view, object, it)).collect::<Result<Vec<_>, Refusal>>()
        };
        Ok(match condition {
            Condition::All(parts) => Self::All(several(parts)?),
            Condition::Any(parts) => Self::Any(several(parts)?),
            Condition::Not(inner) => Self::Not(Box::new(Self::bind(view, object, inner)?)),
            Condition::Compare(path, operator, literal) => {
                let field = resolve(view, object, path)?.filterable(view)?;
                if *operator == Operator::Like && !field.field.kind.is_text() {
                    let message = format!("invalid operator on {} field", field.field.kind.name());
                    return Err(refuse_at("INVALID_QUERY_FILTER_OPERATOR", view.text, path.at, &message));
                }
                let literal = fitted(view, &field, path.at, literal)?;
                Self::Compare(field, *operator, literal)
            }
            Condition::In(path, literals, negated) => {
                let field = resolve(view, object, path)?.filterable(view)?;
                let literals = literals.iter().map(|it| fitted(view, &field, path.at, it)).collect::<Result<_, _>>()?;
                Self::In(field, literals, *negated)
            }
        })
    }

    /// Whether a row meets the condition.
    pub(super) fn holds(&self, view: &View<'_>, row: &Row) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|it| it.holds(view, row)),
            Self::Any(parts) => parts.iter().any(|it| it.holds(view, row)),
            Self::Not(inner) => !inner.holds(view, row),
            Self::Compare(field, operator, literal) => compares(field, value(view, field, row), *operator, literal),
            Self::In(field, literals, negated) => {
                let value = value(view, field, row);
                literals.iter().any(|it| equal(field, value, it)) != *negated
            }
        }
    }
}

/// The literal in the form of its field's values.
fn fitted(view: &View<'_>, field: &Resolved<'_>, at: usize, literal: &Literal) -> Result<Literal, Refusal> {
    let kind = field.field.kind;
    let wrong = |quoted: &str| {
        let message = format!(
            "value of filter criterion for field '{}' must be of type {} and should {quoted}be enclosed in quotes",
            field.field.name,
            kind.name()
        );
        refuse_at("INVALID_FIELD", view.text, at, &message)
    };
    match (literal, kind) {
        (Literal::Text(text), _) if kind.is_id() && !text.is_empty() => match id::complete(text) {
            Some(id) => Ok(Literal::Text(id)),
            None => {
                let message = format!("invalid ID field: {text}");
                Err(refuse_at("INVALID_QUERY_FILTER_OPERATOR", view.text, at, &message))
            }
        },
        (Literal::Text(_), _) if kind.is_text() => Ok(literal.clone()),
        (Literal::Null, _)
        | (Literal::Boolean(_), Kind::Boolean)
        | (Literal::Number(_), Kind::Int | Kind::Double)
        | (Literal::Moment(_), Kind::Date | Kind::DateTime) => Ok(literal.clone()),
        _ => Err(wrong(if kind.is_text() { "" } else { "not " })),
    }
}

fn compares(field: &Resolved<'_>, value: &Value, operator: Operator, literal: &Literal) -> bool {
    let ordering = || match literal {
        Literal::Text(text) => value.as_str().map(|it| folded(it).cmp(&folded(text))),
        Literal::Number(number) => value.as_f64().and_then(|it| it.partial_cmp(number)),
        Literal::Moment(moment) => value.as_str().map(|it| comparable(it).cmp(comparable(moment))),
        Literal::Boolean(_) | Literal::Null => None,
    };
    match operator {
        Operator::Equal => equal(field, value, literal),
        Operator::Unequal => !equal(field, value, literal),
        Operator::Less => ordering().is_some_and(Ordering::is_lt),
        Operator::LessOrEqual => ordering().is_some_and(Ordering::is_le),
        Operator::Greater => ordering().is_some_and(Ordering::is_gt),
        Operator::GreaterOrEqual => ordering().is_some_and(Ordering::is_ge),
        Operator::Like => match (value, literal) {
            (Value::String(text), Literal::Text(pattern)) => like(&folded(text), &folded(pattern)),
            _ => false,
        },
    }
}

fn equal(field: &Resolved<'_>, value: &Value, literal: &Literal) -> bool {
    match literal {
        Literal::Null => value.is_null() || value == "",
        // An empty literal matches rows without a value.
        Literal::Text(text) if text.is_empty() => value.is_null() || value == "",
        Literal::Text(text) => value.as_str().is_some_and(|it| {
            let exact = field.field.case_sensitive || field.field.kind.is_id();
            if exact { it == text } else { folded(it) == folded(text) }
        }),
        Literal::Number(number) => value.as_f64().is_some_and(|it| it.total_cmp(number).is_eq()),
        Literal::Moment(moment) => value.as_str().is_some_and(|it| comparable(it) == comparable(moment)),
        Literal::Boolean(boolean) => value.as_bool() == Some(*boolean),
    }
}

/// The order of two values by one key of ORDER BY.
pub(super) fn rank(one: &Value, other: &Value, order: &Order) -> Ordering {
    let nulls = |first: Ordering| if order.nulls_last { first.reverse() } else { first };
    match (one, other) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => nulls(Ordering::Less),
        (_, Value::Null) => nulls(Ordering::Greater),
        _ => {
            let ordering = match (one.as_f64(), other.as_f64()) {
                (Some(one), Some(other)) => one.total_cmp(&other),
                _ => sortable(one).cmp(&sortable(other)),
            };
            if order.descending { ordering.reverse() } else { ordering }
        }
    }
}

fn sortable(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), folded)
}

fn folded(text: &str) -> String {
    text.to_lowercase()
}

/// Times of the same form can be compared as text, without the offset, which has several spellings.
fn comparable(moment: &str) -> &str {
    moment.get(..19).unwrap_or(moment)
}

/// `%` matches any text and `_` any one character; a backslash escapes either. Without recursion, because a pattern may
/// have thousands of `%`.
fn like(text: &str, pattern: &str) -> bool {
    enum Part {
        One(char),
        AnyOne,
        Any,
    }
    let mut parts = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        parts.push(match character {
            '\\' => Part::One(characters.next().unwrap_or('\\')),
            '_' => Part::AnyOne,
            '%' => Part::Any,
            same => Part::One(same),
        });
    }
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut part) = (0, 0);
    let mut retry = None;
    while let Some(character) = text.get(at) {
        match parts.get(part) {
            Some(Part::Any) => {
                retry = Some((at, part + 1));
                part += 1;
            }
            Some(Part::AnyOne) => (at, part) = (at + 1, part + 1),
            Some(Part::One(same)) if same == character => (at, part) = (at + 1, part + 1),
            _ => match retry {
                Some((from, after)) => {
                    retry = Some((from + 1, after));
                    (at, part) = (from + 1, after);
                }
                None => return false,
            },
        }
    }
    parts.iter().skip(part).all(|it| matches!(it, Part::Any))
}
