//! [`Judge`]: why a session does not get an envelope.

use std::collections::HashSet;
use std::sync::Arc;

use wire::{BROKER, Envelope};

use super::answer::{Chosen, Details, Differs, Ended, Nearest, Other, Reason, Who};
use super::asker::Asker;
use super::outlook::Outlook;
use crate::router::access::receive::Interest;
use crate::router::decide::Facts;
use crate::router::ended::EndedSubscription;
use crate::router::hint::pattern::{Likeness, likeness};
use crate::router::ids::Serial;
use crate::router::index::receivers::Receivers;
use crate::router::index::{Matches, Observes, Subscription};
use crate::router::policy::is_in;
use crate::router::recipients::group_of;
use crate::router::session::Session;
use crate::router::{Router, Scope};

/// What decides on the other sessions.
pub(super) struct Judge<'a> {
    pub(super) router: &'a Router,
    pub(super) asker: &'a Asker<'a>,
    /// `None`: it is on another node.
    pub(super) sender: Option<&'a Arc<Session>>,
    pub(super) envelope: &'a Envelope<'a>,
    pub(super) facts: &'a Facts<'a>,
    pub(super) scope: Scope<'a>,
    pub(super) is_request: bool,
    /// Why a session that handles the triple gets an event as no request.
    pub(super) why_event: &'a str,
    /// The subscriptions that an event, or a request, of this scope and triple reaches.
    pub(super) reached: HashSet<Serial>,
    /// An adapter serves the triple, which is protected.
    pub(super) served_inside: bool,
    pub(super) outlook: &'a Outlook,
}

/// The subscriptions of some lists.
pub(super) fn serials(matches: &Matches) -> impl Iterator<Item = Serial> + '_ {
    matches.iter().flat_map(Receivers::iter).map(|subscription| subscription.serial)
}

/// What is known of a session while it is judged.
struct Findings {
    reasons: Vec<Reason>,
    more: Details,
}

impl Findings {
    fn add(&mut self, reason: Reason) {
        self.reasons.push(reason);
    }
}

impl Judge<'_> {
    /// Why a session does not get the envelope. `None`: nothing but a refusal of the envelope itself keeps it from the session.
    pub(super) fn judge(&self, session: &Arc<Session>) -> Option<Other> {
        let (held, ended) = {
            let holds = session.holds.lock();
            let ended = holds.ended.as_ref().map(|ended| ended.iter().cloned().collect::<Vec<_>>());
            (holds.subscriptions.clone(), ended.unwrap_or_default())
        };
        let mut found = Findings { reasons: Vec::new(), more: Details::default() };
        let is_sender = self.sender.is_some_and(|sender| Arc::ptr_eq(session, sender));
        if is_sender && (self.is_request || !session.echoes()) {
            found.add(Reason::IsSender);
        }
        if self.is_of_other_user(session) && held.iter().all(|it| it.observes.is_none()) {
            found.add(Reason::OtherUser);
        }
        if self.envelope.target().is_some_and(|target| target != &*session.source) {
            found.add(Reason::Target);
        }
        let matching: Vec<_> = held.iter().filter(|it| self.matches(it)).collect();
        if matching.is_empty() {
            found.add(Reason::NoMatch);
            self.note_nearest(session, &held, &ended, &mut found.more);
        } else if matching.iter().all(|it| it.is_handler() != self.is_request) {
            self.note_other_role(&mut found);
        }
        if self.facts.protected && !self.may_handle(session) {
            found.add(Reason::Protected);
            found.more.protected_by =
                self.router.policy.protecting(self.envelope.triple()).map(|pattern| pattern.to_string());
        }
        for subscription in matching.iter().filter(|it| it.is_handler() == self.is_request) {
            self.judge_subscription(subscription, &mut found);
        }
        found.reasons.sort_unstable();
        found.reasons.dedup();
        let mut reasons = found.reasons.into_iter();
        let reason = reasons.next()?;
        Some(Other { who: Who::of(session), reason, also: reasons.collect(), details: found.more })
    }

    fn is_of_other_user(&self, session: &Session) -> bool {
        match self.scope {
            Scope::Shared(_) => false,
            Scope::User(user) => session.user().is_some_and(|own| own != user),
        }
    }

    /// Whether the pattern of a subscription matches the triple, for whatever users it is.
    fn matches(&self, subscription: &Subscription) -> bool {
        self.reached.contains(&subscription.serial)
            || is_in(&subscription.pattern, self.envelope.triple(), self.facts.folded)
    }

    fn note_other_role(&self, found: &mut Findings) {
        if self.is_request {
            found.add(Reason::IsRequest);
            let handlers = self.outlook.picked.iter().map(|it| &it.subscription.session);
            found.more.handler = handlers.filter(|it| self.asker.sees(it)).map(|it| Who::of(it)).next();
        } else {
            found.add(Reason::IsEvent);
            found.more.why = Some(self.why_event.to_owned());
        }
    }

    /// Whether a session may handle the triple, or could if no adapter served it.
    fn may_handle(&self, session: &Session) -> bool {
        let may = |served_inside| {
            self.router.may_handle(session, self.envelope.triple(), self.scope, self.facts, served_inside)
        };
        may(self.served_inside) || !self.router.policy.open && may(false)
    }

    /// Why a subscription of the right role, whose pattern matches, does not bring the envelope.
    fn judge_subscription(&self, subscription: &Arc<Subscription>, found: &mut Findings) {
        if let Some((right, decided_by)) = self.lacking(subscription) {
            found.add(Reason::Permission);
            if self.asker.may_know_permissions_of(&subscription.session) {
                (found.more.right, found.more.decided_by) = (Some(right.to_owned()), Some(decided_by));
            }
            return;
        }
        if !self.reached.contains(&subscription.serial) {
            if !found.reasons.contains(&Reason::OtherUser) {
                found.add(Reason::UserFilter);
                let named = match &subscription.observes {
                    Some(Observes::User(user)) => Some(&**user),
                    Some(Observes::All) | None => subscription.session.user(),
                };
                found.more.named = named.filter(|user| self.asker.may_know_user(user)).map(str::to_owned);
            }
            return;
        }
        if let Some(member) = self.member_instead(subscription) {
            found.add(Reason::Group);
            found.more.member = self.asker.sees(&member.session).then(|| Who::of(&member.session));
        }
        if self.is_request && !self.envelope.gather() {
            self.note_not_chosen(subscription, found);
        }
    }

    /// The other member of the group of a subscription that gets the envelope.
    fn member_instead(&self, subscription: &Subscription) -> Option<&Arc<Subscription>> {
        subscription.group.as_ref()?;
        let group = group_of(subscription);
        let members = self.outlook.members.iter();
        members.filter(|it| it.session.number != subscription.session.number).find(|it| group_of(it) == group)
    }

    fn note_not_chosen(&self, subscription: &Subscription, found: &mut Findings) {
        let ranked = self.outlook.ranked.iter().find(|(_, handler)| handler.serial == subscription.serial);
        let why = match ranked {
            Some(own) => self.outlook.why_not(own),
            // The adapter comes before all others on a protected triple.
            None if self.served_inside && self.may_handle(&subscription.session) => Chosen::Rank,
            None => return,
        };
        found.add(Reason::NotChosen);
        found.more.why.get_or_insert_with(|| why.as_str().to_owned());
    }

    /// The right that a subscription lacks, and the rule that decides.
    fn lacking(&self, subscription: &Subscription) -> Option<(&'static str, String)> {
        let (session, triple) = (&subscription.session, self.envelope.triple());
        let permissions = session.permissions();
        if let Some(right) = Interest::of(subscription, &permissions).right()
            && let Err(why) = right.check(triple)
        {
            return Some((if subscription.is_handler() { "handle" } else { "subscribe" }, why.to_string()));
        }
        if !self.reached.contains(&subscription.serial) {
            return None;
        }
        if !session.admits(&permissions, self.scope) {
            let right = if session.user().is_some() { "observe" } else { "users" };
            return Some((right, format!("the key '{right}' does not list this user")));
        }
        let is_granted = || self.router.may_handle(session, triple, self.scope, self.facts, false);
        if subscription.is_handler() && !self.facts.protected && !is_granted() {
            let words = "the channel is shared, and neither 'handle' in [[applications]] nor 'protected_handle' of a role \
                         allows it";
            return Some(("handle", words.to_owned()));
        }
        None
    }

    /// Names the pattern that was probably meant, and the subscriptions that have ended.
    fn note_nearest(
        &self,
        session: &Session,
        held: &[Arc<Subscription>],
        ended: &[EndedSubscription],
        more: &mut Details,
    ) {
        let triple = self.envelope.triple();
        let known = held.iter().filter(|it| it.pattern.channel.as_deref() != Some(BROKER));
        let similar = known.filter(|it| self.asker.may_know_pattern(&it.pattern)).filter_map(|it| {
            let likeness = likeness(&it.pattern, triple).filter(|_| !is_in(&it.pattern, triple, self.facts.folded));
            Some((likeness?, &it.pattern))
        });
        more.nearest = similar
            .min_by_key(|(likeness, _)| *likeness)
            .map(|(likeness, pattern)| Nearest { name: pattern.to_string(), differs: Differs::of(likeness) });
        if self.asker.may_know_permissions_of(session) {
            let words = |it: &EndedSubscription| Ended {
                pattern: it.pattern.to_string(),
                role: it.role.to_owned(),
                at: super::date_text(it.at),
                reason: it.why.words(it.pattern.split('/').next().unwrap_or_default()),
            };
            let fits = |it: &&EndedSubscription| {
                it.pattern.parse().is_ok_and(|pattern| is_in(&pattern, triple, self.facts.folded))
            };
            more.ended = ended.iter().filter(fits).map(words).collect();
        }
    }
}

impl Differs {
    pub(super) fn of(likeness: Likeness) -> Self {
        match likeness {
            Likeness::InCase => Self::Case,
            Likeness::Swapped => Self::Swapped,
            Likeness::Misspelt(_) => Self::Spelling,
        }
    }
}
