//! [`Fair`]: the requests that wait for one handler. Askers take turns, so that nobody waits for another's thousand
//! requests. No I/O and no clock: `host` waits.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::router::{RequestId, SessionId};

/// The bounds of each asker.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests on which the handler works at once.
    pub in_flight: usize,
    /// Requests that wait for it.
    pub waiting: usize,
}

/// Whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asker {
    /// A user, also if a service asks for it.
    User(Box<str>),
    /// A service that names no user, by its source.
    Service(Box<str>),
}

/// Requests with the same order are handled one after the other: the session, the triple in lower case, the record.
pub(super) type Order = (SessionId, String, String);

/// Requests that wait, by asker.
pub(super) struct Fair<T> {
    bounds: Bounds,
    askers: HashMap<Asker, Queue<T>>,
    /// The askers that have a request waiting and may have another one in flight; the next one comes first.
    ring: VecDeque<Asker>,
    asker_of: HashMap<RequestId, Asker>,
    /// The orders of which a request is in flight.
    busy: HashSet<Order>,
}

struct Queue<T> {
    in_flight: usize,
    waiting: VecDeque<Waiting<T>>,
    in_ring: bool,
}

struct Waiting<T> {
    id: RequestId,
    order: Option<Order>,
    item: T,
}

/// A request in flight, to be given back to [`Fair::done`].
pub(super) struct Ticket {
    asker: Asker,
    order: Option<Order>,
}

impl<T> Fair<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, askers: HashMap::new(), ring: VecDeque::new(), asker_of: HashMap::new(), busy: HashSet::new() }
    }

    /// Changes the bounds. Requests that wait already stay.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        let askers: Vec<Asker> = self.askers.keys().cloned().collect();
        for asker in askers {
            // It may have more requests in flight now.
            self.enter(asker);
        }
    }

    /// Lets a request wait. Returns it if its asker has too many waiting.
    pub(super) fn offer(&mut self, asker: Asker, id: RequestId, order: Option<Order>, item: T) -> Result<(), T> {
        let Bounds { in_flight, waiting } = self.bounds;
        let queue = self.askers.entry(asker.clone()).or_default();
        // One that can be taken at once does not count as waiting.
        let free = in_flight.saturating_sub(queue.in_flight);
        if queue.waiting.len() >= waiting.saturating_add(free) {
            return Err(item);
        }
        queue.waiting.push_back(Waiting { id, order, item });
        self.asker_of.insert(id, asker.clone());
        self.enter(asker);
        Ok(())
    }

    /// Returns how many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.asker_of.len()
    }

    /// Takes the next request to work on.
    pub(super) fn next(&mut self) -> Option<(Ticket, T)> {
        for _ in 0..self.ring.len() {
            let asker = self.ring.pop_front()?;
            let Some(queue) = self.askers.get_mut(&asker) else { continue };
            queue.in_ring = false;
            let Some(Waiting { id, order, item }) = queue.take(&self.busy) else {
                // All of its requests wait for one of the same order.
                self.enter(asker);
                continue;
            };
            queue.in_flight += 1;
            self.asker_of.remove(&id);
            self.busy.extend(order.clone());
            self.enter(asker.clone());
            return Some((Ticket { asker, order }, item));
        }
        None
    }

    /// A request is no longer in flight.
    pub(super) fn done(&mut self, ticket: Ticket) {
        let Ticket { asker, order } = ticket;
        if let Some(order) = order {
            self.busy.remove(&order);
        }
        if let Some(queue) = self.askers.get_mut(&asker) {
            queue.in_flight -= 1;
            self.enter(asker);
        }
    }

    /// Takes out a request that no longer has to be handled; `None` if it does not wait.
    pub(super) fn withdraw(&mut self, id: RequestId) -> Option<T> {
        let asker = self.asker_of.remove(&id)?;
        let waiting = &mut self.askers.get_mut(&asker)?.waiting;
        let item = waiting.remove(waiting.iter().position(|it| it.id == id)?)?.item;
        self.forget_if_idle(&asker);
        Some(item)
    }

    /// Lets an asker take turns if it has a request waiting and is under its bound; forgets it if it has nothing.
    fn enter(&mut self, asker: Asker) {
        let Some(queue) = self.askers.get_mut(&asker) else { return };
        if !queue.in_ring && !queue.waiting.is_empty() && queue.in_flight < self.bounds.in_flight {
            queue.in_ring = true;
            self.ring.push_back(asker);
        } else {
            self.forget_if_idle(&asker);
        }
    }

    fn forget_if_idle(&mut self, asker: &Asker) {
        if self.askers.get(asker).is_some_and(|queue| queue.in_flight == 0 && queue.waiting.is_empty()) {
            self.askers.remove(asker);
        }
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { in_flight: 0, waiting: VecDeque::new(), in_ring: false }
    }
}

impl<T> Queue<T> {
    /// Takes the oldest request whose order is free.
    fn take(&mut self, busy: &HashSet<Order>) -> Option<Waiting<T>> {
        let is_free = |it: &Waiting<T>| it.order.as_ref().is_none_or(|order| !busy.contains(order));
        let place = self.waiting.iter().position(is_free)?;
        self.waiting.remove(place)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn user(name: &str) -> Asker {
        Asker::User(name.into())
    }

    fn id(number: usize) -> RequestId {
        // Decimal digits are digits of an id, too.
        format!("r{number:08}").parse().unwrap()
    }

    fn order(record: &str) -> Order {
        (Uuid::nil().into(), "a/b/c".to_owned(), record.to_owned())
    }

    /// Offers numbered requests, each of a user, with the record that it touches.
    fn offered(bounds: Bounds, requests: &[(&str, &str)]) -> (Fair<usize>, Vec<usize>) {
        let mut fair = Fair::new(bounds);
        let mut refused = Vec::new();
        for (number, (name, record)) in requests.iter().enumerate() {
            let order = Some(*record).filter(|it| !it.is_empty()).map(order);
            refused.extend(fair.offer(user(name), id(number), order, number).err());
        }
        (fair, refused)
    }

    #[test]
    fn askers_take_turns() {
        let asked = [("a", ""), ("a", ""), ("a", ""), ("b", ""), ("c", ""), ("b", "")];
        let (mut fair, _) = offered(Bounds { in_flight: 9, waiting: 9 }, &asked);
        let order: Vec<usize> = std::iter::from_fn(|| fair.next().map(|(_, number)| number)).collect();
        assert_eq!(order, [0, 3, 4, 1, 5, 2]);
    }

    #[test]
    fn each_asker_has_its_own_bounds() {
        let (mut fair, refused) = offered(Bounds { in_flight: 2, waiting: 3 }, &[[("a", "")].as_slice(); 7].concat());
        assert_eq!(refused, [5, 6]);
        assert_eq!(fair.offer(user("b"), id(99), None, 99), Ok(()));
        let mut taken: Vec<(Ticket, usize)> = std::iter::from_fn(|| fair.next()).collect();
        assert_eq!(taken.iter().map(|it| it.1).collect::<Vec<_>>(), [0, 99, 1]);
        assert_eq!(fair.offer(user("a"), id(100), None, 100), Err(100));
        fair.done(taken.remove(0).0);
        assert_eq!(fair.next().map(|it| it.1), Some(2));
    }

    #[test]
    fn other_bounds_hold_for_requests_that_wait_already() {
        let (mut fair, _) = offered(Bounds { in_flight: 1, waiting: 9 }, &[[("a", "")].as_slice(); 4].concat());
        let taken: Vec<_> = std::iter::from_fn(|| fair.next()).collect();
        assert_eq!(taken.len(), 1);
        fair.set_bounds(Bounds { in_flight: 3, waiting: 1 });
        assert_eq!(std::iter::from_fn(|| fair.next()).count(), 2);
        assert_eq!(fair.offer(user("a"), id(9), None, 9), Err(9));
    }

    #[test]
    fn requests_on_one_record_are_handled_one_after_the_other() {
        let asked = [("a", "x"), ("a", "x"), ("a", "y"), ("a", "x"), ("a", "")];
        let (mut fair, _) = offered(Bounds { in_flight: 9, waiting: 9 }, &asked);
        let mut taken: Vec<(Ticket, usize)> = std::iter::from_fn(|| fair.next()).collect();
        assert_eq!(taken.iter().map(|it| it.1).collect::<Vec<_>>(), [0, 2, 4]);
        fair.done(taken.remove(1).0);
        assert!(fair.next().is_none());
        fair.done(taken.remove(0).0);
        let (ticket, next) = fair.next().unwrap();
        assert_eq!((next, fair.next().map(|it| it.1)), (1, None));
        fair.done(ticket);
        assert_eq!(fair.next().map(|it| it.1), Some(3));
    }

    #[test]
    fn what_is_withdrawn_waits_no_longer() {
        let (mut fair, _) = offered(Bounds { in_flight: 1, waiting: 9 }, &[("a", ""), ("a", ""), ("b", "")]);
        let (ticket, first) = fair.next().unwrap();
        assert_eq!((first, fair.withdraw(id(0)), fair.withdraw(id(1))), (0, None, Some(1)));
        assert_eq!(fair.withdraw(id(2)), Some(2));
        assert!(fair.next().is_none());
        fair.done(ticket);
        assert!(fair.next().is_none());
        assert!(fair.askers.is_empty() && fair.asker_of.is_empty() && fair.busy.is_empty());
    }
}
