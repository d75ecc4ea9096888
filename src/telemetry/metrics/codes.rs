//! The values of labels that are codes of the wire: how a registration ended, and how a connection did.

use wire::{CloseCode, ErrorCode};

use super::label::{Label, Labels};

impl Label for ErrorCode {
    const COUNT: usize = Self::ALL.len();

    fn index(self) -> usize {
        self as usize
    }

    fn labels(index: usize) -> Labels {
        Self::ALL.get(index).map(|code| ("code", code.as_str().to_owned())).into_iter().collect()
    }
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationOutcome {
    /// A new session.
    Ok,
    /// An earlier session goes on.
    Resumed,
    /// It was refused.
    Refused(ErrorCode),
}

impl Label for RegistrationOutcome {
    const COUNT: usize = 2 + <ErrorCode as Label>::COUNT;

    fn index(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Resumed => 1,
            Self::Refused(code) => 2 + code.index(),
        }
    }

    fn labels(index: usize) -> Labels {
        let value = match index {
            0 => "ok",
            1 => "resumed",
            index => ErrorCode::ALL.get(index - 2).map_or("", |code| code.as_str()),
        };
        vec![("outcome", value.to_owned())]
    }
}

/// The status code of a Close frame. The numbers that a client can choose freely are one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedWith {
    /// One of the broker's own; a client can send them too.
    Catalogue(CloseCode),
    /// 1000: the client is done.
    Normal,
    /// 1005: a Close frame without a code.
    NoCode,
    /// 1006: the connection was lost without a Close frame.
    Lost,
    /// Any other.
    Other,
}

impl ClosedWith {
    /// Returns the label for what a client sent.
    pub fn of(code: Option<u16>) -> Self {
        match code {
            None => Self::NoCode,
            Some(1000) => Self::Normal,
            Some(code) => CloseCode::from_code(code).map_or(Self::Other, Self::Catalogue),
        }
    }
}

impl Label for ClosedWith {
    const COUNT: usize = 4 + CloseCode::ALL.len();

    fn index(self) -> usize {
        match self {
            Self::Normal => 0,
            Self::NoCode => 1,
            Self::Lost => 2,
            Self::Other => 3,
            Self::Catalogue(code) => 4 + code as usize,
        }
    }

    fn labels(index: usize) -> Labels {
        let value = match index {
            0 => "1000".to_owned(),
            1 => "1005".to_owned(),
            2 => "1006".to_owned(),
            3 => "other".to_owned(),
            index => CloseCode::ALL.get(index - 4).map(|code| code.code().to_string()).unwrap_or_default(),
        };
        vec![("code", value)]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_client_cannot_make_new_values_with_its_close_codes() {
        assert_eq!(ClosedWith::of(Some(1001)), ClosedWith::Catalogue(CloseCode::GoingAway));
        let values: BTreeSet<usize> = (0..=u16::MAX).map(|code| ClosedWith::of(Some(code)).index()).collect();
        assert!(values.len() <= ClosedWith::COUNT);
    }
}
