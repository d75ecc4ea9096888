//! [`SignIns`]: codes that wait to be exchanged, and the keys of pages. Only hashes of both are kept.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use secrecy::SecretString;

use crate::auth::hash_token;
use crate::config::May;
use crate::server::admin::tokens::random_token;

/// How long a code can be exchanged.
pub(super) const CODE_TIME: Duration = Duration::from_mins(1);

/// How long a key is valid.
pub(super) const KEY_TIME: Duration = Duration::from_hours(8);

/// The codes of one token that are remembered, used and expired ones included. The oldest makes room.
const CODES_MAX: usize = 8;

/// The keys of one token. The page with the oldest one has to sign in again.
const KEYS_MAX: usize = 32;

/// The codes, and the keys, of all tokens together.
const TOTAL_MAX: usize = 1024;

/// With which token a code was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server::admin) struct Owner {
    /// The name of the token.
    pub(in crate::server::admin) name: Arc<str>,
    /// What the token allowed then.
    pub(in crate::server::admin) may: May,
    /// The hash of the token.
    pub(in crate::server::admin) token_hash: [u8; 32],
}

/// Why a code is not exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is no such code, or it was forgotten.
    Unknown,
    /// It was exchanged before.
    Used,
    /// It is too old.
    Expired,
}

impl Why {
    /// The word in an audit record.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Used => "used",
            Self::Expired => "expired",
        }
    }

    /// The rest of a sentence about the code.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unknown => "is not known",
            Self::Used => "was used before",
            Self::Expired => "has expired",
        }
    }
}

/// A code that is not exchanged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) why: Why,
    /// With which token it was made, if that is known.
    pub(super) owner: Option<Owner>,
}

/// The codes and keys of all tokens.
#[derive(Default)]
pub(in crate::server::admin) struct SignIns(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    codes: VecDeque<Item>,
    keys: VecDeque<Item>,
}

/// A code or a key.
struct Item {
    hash: [u8; 32],
    owner: Owner,
    made: Instant,
    is_used: bool,
}

impl SignIns {
    /// Makes a code for this token.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn new_code(&self, now: Instant, owner: Owner) -> io::Result<SecretString> {
        let code = random_token()?;
        add(&mut self.0.lock().codes, CODES_MAX, Item::new(now, &code, owner));
        Ok(code)
    }

    /// Exchanges a code for a key.
    ///
    /// # Errors
    /// The system has no random numbers. The inner one says why the code is refused.
    pub(super) fn exchange(&self, now: Instant, code: &[u8; 32]) -> io::Result<Result<(SecretString, Owner), Refused>> {
        let mut kept = self.0.lock();
        let Some(known) = kept.codes.iter_mut().find(|it| it.hash == *code) else {
            return Ok(Err(Refused { why: Why::Unknown, owner: None }));
        };
        let owner = known.owner.clone();
        let why = match known.is_used {
            true => Some(Why::Used),
            false if !known.is_within(now, CODE_TIME) => Some(Why::Expired),
            false => None,
        };
        if let Some(why) = why {
            return Ok(Err(Refused { why, owner: Some(owner) }));
        }
        let key = random_token()?;
        known.is_used = true;
        kept.keys.retain(|it| it.is_within(now, KEY_TIME));
        add(&mut kept.keys, KEYS_MAX, Item::new(now, &key, owner.clone()));
        Ok(Ok((key, owner)))
    }

    /// Returns the token that a key belongs to, if the key is valid. That the token is still valid is for the caller to check.
    pub(in crate::server::admin) fn owner(&self, now: Instant, key: &[u8; 32]) -> Option<Owner> {
        let kept = self.0.lock();
        let found = kept.keys.iter().find(|it| it.hash == *key && it.is_within(now, KEY_TIME));
        found.map(|it| it.owner.clone())
    }
}

impl Item {
    fn new(made: Instant, secret: &SecretString, owner: Owner) -> Self {
        Self { hash: hash_token(secret), owner, made, is_used: false }
    }

    fn is_within(&self, now: Instant, time: Duration) -> bool {
        now.saturating_duration_since(self.made) < time
    }
}

/// Adds an item. The oldest of its token, or of all, makes room for it.
fn add(items: &mut VecDeque<Item>, most: usize, item: Item) {
    let is_same = |it: &Item| it.owner.token_hash == item.owner.token_hash;
    if items.iter().filter(|it| is_same(it)).count() >= most
        && let Some(oldest) = items.iter().position(is_same)
    {
        items.remove(oldest);
    }
    if items.len() >= TOTAL_MAX {
        items.pop_front();
    }
    items.push_back(item);
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn owner(number: u8) -> Owner {
        Owner { name: Arc::from(format!("token {number}")), may: May::Act, token_hash: [number; 32] }
    }

    fn exchange(sign_ins: &SignIns, now: Instant, code: &SecretString) -> Result<(SecretString, Owner), Why> {
        sign_ins.exchange(now, &hash_token(code)).unwrap().map_err(|refused| refused.why)
    }

    #[test]
    fn a_code_is_exchanged_once_and_within_a_minute() {
        let (sign_ins, now) = (SignIns::default(), start());
        let code = sign_ins.new_code(now, owner(1)).unwrap();
        let (key, of) = exchange(&sign_ins, now + CODE_TIME.saturating_sub(MOMENT), &code).unwrap();
        assert_eq!(of, owner(1));
        assert_eq!(exchange(&sign_ins, now, &code).unwrap_err(), Why::Used);
        assert_eq!(sign_ins.owner(now, &hash_token(&key)), Some(owner(1)));

        let code = sign_ins.new_code(now, owner(1)).unwrap();
        assert_eq!(exchange(&sign_ins, now + CODE_TIME, &code).unwrap_err(), Why::Expired);
        assert_eq!(exchange(&sign_ins, now, &key).unwrap_err(), Why::Unknown);
        assert_eq!(sign_ins.owner(now, &hash_token(&code)), None, "a code is not a key");
    }

    #[test]
    fn a_key_is_valid_for_eight_hours() {
        let (sign_ins, now) = (SignIns::default(), start());
        let code = sign_ins.new_code(now, owner(1)).unwrap();
        let key = hash_token(&exchange(&sign_ins, now, &code).unwrap().0);
        assert!(sign_ins.owner(now + KEY_TIME.saturating_sub(MOMENT), &key).is_some());
        assert!(sign_ins.owner(now + KEY_TIME, &key).is_none());
    }

    #[test]
    fn the_codes_and_keys_of_one_token_do_not_push_out_those_of_another() {
        let (sign_ins, now) = (SignIns::default(), start());
        let other = sign_ins.new_code(now, owner(2)).unwrap();
        let other_key = hash_token(&exchange(&sign_ins, now, &other).unwrap().0);
        let waiting = sign_ins.new_code(now, owner(2)).unwrap();
        let codes: Vec<_> = (0..=CODES_MAX).map(|_| sign_ins.new_code(now, owner(1)).unwrap()).collect();
        assert_eq!(exchange(&sign_ins, now, &codes[0]).unwrap_err(), Why::Unknown);
        assert!(exchange(&sign_ins, now, &codes[1]).is_ok());
        for _ in 0..KEYS_MAX {
            let code = sign_ins.new_code(now, owner(1)).unwrap();
            exchange(&sign_ins, now, &code).unwrap();
        }
        assert_eq!(sign_ins.0.lock().keys.len(), KEYS_MAX + 1);
        assert!(sign_ins.owner(now, &other_key).is_some());
        assert!(exchange(&sign_ins, now, &waiting).is_ok());
    }

    #[test]
    fn all_tokens_together_have_a_bound() {
        let (sign_ins, now) = (SignIns::default(), start());
        for number in 0..=TOTAL_MAX {
            let owner = Owner { token_hash: hash_token(&SecretString::from(number.to_string())), ..owner(0) };
            sign_ins.new_code(now, owner).unwrap();
        }
        assert_eq!(sign_ins.0.lock().codes.len(), TOTAL_MAX);
    }

    #[test]
    fn of_many_threads_with_one_code_exactly_one_gets_a_key() {
        const THREADS: usize = 8;
        const ROUNDS: usize = 200;
        let (sign_ins, now) = (SignIns::default(), start());
        let mut exchanged = 0;
        for _ in 0..ROUNDS {
            let code = sign_ins.new_code(now, owner(1)).unwrap();
            exchanged += thread::scope(|scope| {
                let threads: Vec<_> =
                    (0..THREADS).map(|_| scope.spawn(|| exchange(&sign_ins, now, &code).is_ok())).collect();
                threads.into_iter().map(|it| usize::from(it.join().unwrap())).sum::<usize>()
            });
        }
        let kept = sign_ins.0.lock();
        assert_eq!((exchanged, kept.codes.len(), kept.keys.len()), (ROUNDS, CODES_MAX, KEYS_MAX));
    }
}
