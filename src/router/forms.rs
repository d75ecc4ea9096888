//! [`Forms`]: the texts in which an event leaves.

use wire::{Envelope, Field, Splice};

use crate::router::Scope;
use crate::router::backplane::message::{Sent, placed};
use crate::router::history::Position;
use crate::router::index::Subscription;
use crate::websocket::Frame;

/// An event's two forms, without `user` and with it. Each is spliced once, when the first receiver needs it.
pub(super) struct Forms<'e> {
    pub(super) envelope: &'e Envelope<'e>,
    source: &'e str,
    /// The number of the session that sent it, if that can wait for queues on other nodes; otherwise 0.
    sender: u64,
    pub(super) scope: Scope<'e>,
    /// Its place in a log, if its channel has history.
    position: Option<&'e Position>,
    plain: Option<Frame>,
    attributed: Option<Frame>,
}

impl<'e> Forms<'e> {
    pub(super) fn new(envelope: &'e Envelope<'e>, source: &'e str, scope: Scope<'e>) -> Self {
        Self { envelope, source, sender: 0, scope, position: None, plain: None, attributed: None }
    }

    /// The forms of an event of the session with this number, which waits for queues on other nodes that it fills.
    pub(super) fn by(self, sender: u64) -> Self {
        Self { sender, ..self }
    }

    /// The forms of an event that is in a log.
    pub(super) fn at(self, position: &'e Position) -> Self {
        Self { position: Some(position), ..self }
    }

    /// Its place in a log, if its channel has history.
    pub(super) fn position(&self) -> Option<&'e Position> {
        self.position
    }

    fn splice(&self) -> Splice<'_> {
        let splice = Splice::new(self.envelope).cut(Field::User);
        let splice = if self.envelope.source().is_none() { splice.string("source", self.source) } else { splice };
        match self.position {
            None => splice,
            Some(Position { offset, epoch }) => splice.number("offset", *offset).string("epoch", epoch),
        }
    }

    /// The form for a receiver. On a shared channel everyone sees the user, elsewhere services and observers do.
    #[inline]
    pub(super) fn for_receiver(&mut self, subscription: &Subscription) -> Frame {
        let user = match self.scope {
            Scope::User(user) if subscription.sees_user() => Some(user),
            Scope::User(_) | Scope::Shared(None) => None,
            Scope::Shared(user) => user,
        };
        let form = if user.is_some() { &self.attributed } else { &self.plain };
        match form {
            Some(frame) => frame.clone(),
            None => self.make(user),
        }
    }

    /// Makes the form without `user`, or the one with it.
    #[cold]
    fn make(&mut self, user: Option<&str>) -> Frame {
        let splice = self.splice();
        let (splice, is_plain) = match user {
            None => (splice, true),
            Some(user) => (splice.string("user", user), false),
        };
        let frame = Frame::from(splice);
        let form = if is_plain { &mut self.plain } else { &mut self.attributed };
        form.insert(frame).clone()
    }

    /// The event as it crosses a link.
    pub(super) fn sent(&self) -> Sent<'_> {
        let place = self.position.map(|position| placed(position, false, false));
        Sent { sender: self.sender, source: self.source, scope: self.scope.into(), text: self.envelope.text(), place }
    }

    /// The text of what is kept, without mark and place.
    pub(super) fn stored(&self) -> String {
        Frame::from(
            self.with_sender(Self { position: None, ..Self::new(self.envelope, self.source, self.scope) }.splice()),
        )
        .text()
        .to_owned()
    }

    /// The form that is kept as a retained value.
    pub(super) fn retained(&self) -> Frame {
        self.kept("retained")
    }

    /// The form that is kept in a log.
    pub(super) fn replayed(&self) -> Frame {
        self.kept("replayed")
    }

    /// The form that is kept, with a mark. On a user-scoped channel `user` is spliced in when it is sent again.
    fn kept(&self, mark: &'static str) -> Frame {
        self.with_sender(self.splice()).flag(mark).into()
    }

    /// On a shared channel, the user belongs to what is kept.
    fn with_sender<'s>(&'s self, splice: Splice<'s>) -> Splice<'s> {
        match self.scope {
            Scope::Shared(Some(user)) => splice.string("user", user),
            Scope::User(_) | Scope::Shared(None) => splice,
        }
    }
}

impl Subscription {
    /// Whether its session sees the user of an event on a user-scoped channel: services, and observers of others.
    pub(super) fn sees_user(&self) -> bool {
        self.observes.is_some() || self.session.user().is_none()
    }
}
