//! Parses words into a [`Query`].

use super::lexer::{Kind, Token, tokens, unescaped};
use super::{Condition, Literal, Name, Operator, Order, Path, Query, refuse_at};
use crate::reply::Refusal;

/// The longest statement, and the longest string in WHERE.
const STATEMENT_MAX: usize = 100_000;
const STRING_MAX: usize = 4_000;
/// The deepest nesting of brackets. An org has a limit too; ours keeps the stack small.
const DEPTH_MAX: usize = 32;

/// Parses a statement.
pub(crate) fn parse(text: &str) -> Result<Query, Refusal> {
    if text.chars().count() > STATEMENT_MAX {
        return Err(Refusal::bad("MALFORMED_QUERY", "SOQL statements cannot be longer than 100000 characters."));
    }
    let mut parser = Parser { text, tokens: tokens(text)?, next: 0, depth: 0 };
    let query = parser.query()?;
    match parser.peek() {
        Kind::End => Ok(query),
        _ => Err(parser.unexpected()),
    }
}

struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn query(&mut self) -> Result<Query, Refusal> {
        self.expect_word("SELECT")?;
        let (fields, count) = self.selected()?;
        self.expect_word("FROM")?;
        let object = self.name()?;
        let condition = if self.take_word("WHERE") { Some(self.condition()?) } else { None };
        let mut order = Vec::new();
        if self.take_word("ORDER") {
            self.expect_word("BY")?;
            loop {
                order.push(self.order()?);
                if !self.take_symbol(",") {
                    break;
                }
            }
        }
        let limit = if self.take_word("LIMIT") { Some(self.whole()?) } else { None };
        let offset = if self.take_word("OFFSET") { self.whole()? } else { 0 };
        Ok(Query { fields, count, object, condition, order, limit, offset })
    }

    fn selected(&mut self) -> Result<(Vec<Path>, bool), Refusal> {
        let mut fields = vec![self.path()?];
        if fields.first().is_some_and(|it| it.field.eq_ignore_ascii_case("count")) && self.take_symbol("(") {
            self.expect_symbol(")")?;
            return Ok((Vec::new(), true));
        }
        while self.take_symbol(",") {
            fields.push(self.path()?);
        }
        Ok((fields, false))
    }

    /// Parses one level of AND or of OR; to mix them, brackets are needed.
    fn condition(&mut self) -> Result<Condition, Refusal> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.refuse("the condition is nested too deeply"));
        }
        let first = self.simple()?;
        let joined = ["AND", "OR"].into_iter().find(|it| self.is_word(it));
        let Some(joined) = joined else {
            self.depth -= 1;
            return Ok(first);
        };
        let mut parts = vec![first];
        while self.take_word(joined) {
            parts.push(self.simple()?);
        }
        if self.is_word("AND") || self.is_word("OR") {
            return Err(self.unexpected());
        }
        self.depth -= 1;
        Ok(if joined == "AND" { Condition::All(parts) } else { Condition::Any(parts) })
    }

    fn simple(&mut self) -> Result<Condition, Refusal> {
        if self.take_symbol("(") {
            let condition = self.condition()?;
            self.expect_symbol(")")?;
            return Ok(condition);
        }
        if self.take_word("NOT") {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(self.refuse("the condition is nested too deeply"));
            }
            let condition = self.simple()?;
            self.depth -= 1;
            return Ok(Condition::Not(Box::new(condition)));
        }
        let path = self.path()?;
        if self.take_word("IN") {
            return Ok(Condition::In(path, self.list()?, false));
        }
        if self.take_word("NOT") {
            self.expect_word("IN")?;
            return Ok(Condition::In(path, self.list()?, true));
        }
        let operator = self.operator()?;
        let literal = self.literal(operator == Operator::Like)?;
        Ok(Condition::Compare(path, operator, literal))
    }

    fn operator(&mut self) -> Result<Operator, Refusal> {
        if self.take_word("LIKE") {
            return Ok(Operator::Like);
        }
        let operator = match self.peek() {
            Kind::Symbol("=") => Operator::Equal,
            Kind::Symbol("!=" | "<>") => Operator::Unequal,
            Kind::Symbol("<") => Operator::Less,
            Kind::Symbol("<=") => Operator::LessOrEqual,
            Kind::Symbol(">") => Operator::Greater,
            Kind::Symbol(">=") => Operator::GreaterOrEqual,
            _ => return Err(self.unexpected()),
        };
        self.next += 1;
        Ok(operator)
    }

    fn list(&mut self) -> Result<Vec<Literal>, Refusal> {
        self.expect_symbol("(")?;
        let mut literals = vec![self.literal(false)?];
        while self.take_symbol(",") {
            literals.push(self.literal(false)?);
        }
        self.expect_symbol(")")?;
        Ok(literals)
    }

    fn literal(&mut self, like: bool) -> Result<Literal, Refusal> {
        let literal = match self.peek().clone() {
            Kind::Text(raw) => {
                let Some(text) = unescaped(&raw, like) else {
                    return Err(self.refuse(&format!(
                        "Invalid string literal '{raw}'. Illegal character sequence in string literal."
                    )));
                };
                if text.chars().count() > STRING_MAX {
                    return Err(self.refuse("a string in WHERE is longer than 4000 characters"));
                }
                Literal::Text(text)
            }
            Kind::Number(text) => match text.parse() {
                Ok(number) => Literal::Number(number),
                Err(_) if text.len() >= 10 && text.get(4..5) == Some("-") => Literal::Moment(text),
                Err(_) => return Err(self.unexpected()),
            },
            Kind::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Boolean(true),
            Kind::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Boolean(false),
            Kind::Word(word) if word.eq_ignore_ascii_case("null") => Literal::Null,
            Kind::Word(_) | Kind::Symbol(_) | Kind::End => return Err(self.unexpected()),
        };
        self.next += 1;
        Ok(literal)
    }

    fn order(&mut self) -> Result<Order, Refusal> {
        let path = self.path()?;
        let descending = !self.take_word("ASC") && self.take_word("DESC");
        let mut nulls_last = descending;
        if self.take_word("NULLS") {
            nulls_last = match self.take_word("LAST") {
                true => true,
                false => {
                    self.expect_word("FIRST")?;
                    false
                }
            };
        }
        Ok(Order { path, descending, nulls_last })
    }

    fn whole(&mut self) -> Result<usize, Refusal> {
        let number = match self.peek() {
            Kind::Number(text) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else { return Err(self.unexpected()) };
        self.next += 1;
        Ok(number)
    }

    fn path(&mut self) -> Result<Path, Refusal> {
        let Name { text, at } = self.name()?;
        let mut parts: Vec<String> = text.split('.').map(ToOwned::to_owned).collect();
        let field = parts.pop().filter(|it| !it.is_empty());
        match field {
            Some(field) if parts.iter().all(|it| !it.is_empty()) => Ok(Path { relationships: parts, field, at }),
            _ => Err(refuse_at("MALFORMED_QUERY", self.text, at, &format!("unexpected token: '{text}'"))),
        }
    }

    fn name(&mut self) -> Result<Name, Refusal> {
        let reserved = ["FROM", "WHERE", "AND", "OR", "SELECT", "LIMIT", "LIKE"];
        match self.peek() {
            Kind::Word(text) if !reserved.iter().any(|it| text.eq_ignore_ascii_case(it)) => {
                let name = Name { text: text.clone(), at: self.at() };
                self.next += 1;
                Ok(name)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn peek(&self) -> &Kind {
        self.tokens.get(self.next).map_or(&Kind::End, |it| &it.kind)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |it| it.at)
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Kind::Word(text) if text.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is = self.is_word(word);
        self.next += usize::from(is);
        is
    }

    fn expect_word(&mut self, word: &str) -> Result<(), Refusal> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let is = matches!(self.peek(), Kind::Symbol(it) if *it == symbol);
        self.next += usize::from(is);
        is
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<(), Refusal> {
        if self.take_symbol(symbol) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> Refusal {
        let shown = match self.peek() {
            Kind::Word(text) | Kind::Number(text) => format!("'{text}'"),
            Kind::Text(text) => format!("''{text}''"),
            Kind::Symbol(symbol) => format!("'{symbol}'"),
            Kind::End => "<EOF>".to_owned(),
        };
        self.refuse(&format!("unexpected token: {shown}"))
    }

    fn refuse(&self, message: &str) -> Refusal {
        refuse_at("MALFORMED_QUERY", self.text, self.at(), message)
    }
}
