//! [`Script`]: a conversation that judges one rule, and what comes of it.

use std::fmt::Write as _;

use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};

use super::player::{Player, extend};
use super::{closes, handler, messages, resume};

/// What a script returns: nothing if the client kept the rule.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// Holds the conversation.
pub(super) type Play = for<'p> fn(&'p mut Player) -> LocalBoxFuture<'p, Outcome>;

/// A conversation of the broker with a client, which judges one rule.
pub(super) struct Script {
    pub(super) suite: Suite,
    /// Unique in its suite; a part of the address.
    pub(super) name: &'static str,
    /// The heading of docs/protocol.md that has the rule, as it is in a link.
    pub(super) rule: &'static str,
    /// What a client has to do, in one sentence.
    pub(super) judges: &'static str,
    /// How to mend a client that fails. A failure can have better words.
    pub(super) mend: &'static str,
    pub(super) play: Play,
}

/// A part of the scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Suite {
    /// What every client does: messages, close codes, reconnecting
    Client,
    /// What a client does that answers requests
    Handler,
    /// What a client does that continues its session
    Resume,
}

impl Suite {
    pub(super) const ALL: [Self; 3] = [Self::Client, Self::Handler, Self::Resume];

    /// Returns the name as it is in an address.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Handler => "handler",
            Self::Resume => "resume",
        }
    }

    /// Returns a script of this part.
    pub(super) const fn script(
        self,
        name: &'static str,
        rule: &'static str,
        judges: &'static str,
        mend: &'static str,
        play: Play,
    ) -> Script {
        Script { suite: self, name, rule, judges, mend, play }
    }

    /// Returns the scripts, in the order in which the page has them.
    pub(super) fn scripts(self) -> impl Iterator<Item = &'static Script> {
        let files: [&[Script]; 2] = match self {
            Self::Client => [messages::SCRIPTS, closes::SCRIPTS],
            Self::Handler => [handler::SCRIPTS, &[]],
            Self::Resume => [resume::SCRIPTS, &[]],
        };
        files.into_iter().flatten()
    }
}

impl Script {
    /// Returns the name with that of its suite, which is the path of its address.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.suite.name(), self.name)
    }
}

/// The reason why a script was not passed.
#[derive(Debug)]
pub(super) struct Failure {
    /// What the client should have done.
    expected: String,
    /// What it did.
    came: String,
    /// What to change, if more is known than the script says.
    mend: Option<String>,
}

impl Failure {
    pub(super) fn new(expected: impl Into<String>, came: impl Into<String>) -> Self {
        Self { expected: expected.into(), came: came.into(), mend: None }
    }

    /// Says what to change.
    pub(super) fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// How a client did in one script.
pub(super) struct Verdict {
    pub(super) script: &'static Script,
    /// `None`: no client connected.
    pub(super) outcome: Option<Outcome>,
}

impl Verdict {
    pub(super) fn is_passed(&self) -> bool {
        matches!(self.outcome, Some(Ok(())))
    }

    fn word(&self) -> &'static str {
        match self.outcome {
            Some(Ok(())) => "passed",
            Some(Err(_)) => "failed",
            None => "not judged",
        }
    }

    fn mend<'v>(&'v self, failure: &'v Failure) -> &'v str {
        failure.mend.as_deref().unwrap_or(self.script.mend)
    }

    /// Returns the verdict as lines for a person.
    pub(super) fn text(&self) -> String {
        let Script { rule, judges, .. } = self.script;
        let mut text = format!("{:<10}  {}: {judges}", self.word(), self.script.path());
        if let Some(Err(failure)) = &self.outcome {
            let Failure { expected, came, .. } = failure;
            let mend = self.mend(failure);
            // Writing to a string cannot fail.
            write!(
                text,
                "\n  expected: {expected}\n  came:     {came}\n  mend it:  {mend}\n  rule:     docs/protocol.md#{rule}"
            )
            .ok();
        }
        text
    }

    /// Returns the verdict as an object.
    pub(super) fn json(&self) -> Value {
        let Script { name, rule, judges, .. } = self.script;
        let mut json = json!({
            "suite": self.script.suite.name(), "script": name, "verdict": self.word(), "judges": judges,
            "rule": format!("docs/protocol.md#{rule}"),
        });
        if let Some(Err(failure)) = &self.outcome {
            let Failure { expected, came, .. } = failure;
            extend(&mut json, &json!({ "expected": expected, "came": came, "mend": self.mend(failure) }));
        }
        json
    }
}
