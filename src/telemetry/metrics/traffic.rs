//! [`Traffic`]: the counters of the hot path, beside each other, so that a message finds the copy of its thread once.

use std::sync::Arc;

use super::cells::{self, Cells};
use super::label::{Label, Labels};
use super::names::Names;
use super::values::EnvelopeKind;

/// Cells of a message, by their place. The first places are those of [`EnvelopeKind`]; events that are counted for their
/// channel are not counted there, too.
const UNHEARD: usize = 6;
const RECEIVED_BYTES: usize = 7;
const SENT_BYTES: usize = 8;

/// Where the cells of channels begin: on a line of their own.
const CHANNELS: usize = 16;

/// Cells of a channel: events, deliveries, requests, and one that is not used. So all of them are on one line.
const CHANNEL_CELLS: usize = 4;
const EVENTS: usize = 0;
const DELIVERIES: usize = 1;
const REQUESTS: usize = 2;

/// The counters of envelopes, deliveries and bytes, in all and by channel.
pub struct Traffic {
    cells: Cells,
    channels: Arc<Names>,
}

/// A channel as counters know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelPlace(u16);

impl ChannelPlace {
    /// The channel at this place of the names.
    pub fn at(place: usize) -> Self {
        Self(u16::try_from(place).unwrap_or(u16::MAX))
    }

    #[inline]
    fn first_cell(self) -> usize {
        CHANNELS + usize::from(self.0) * CHANNEL_CELLS
    }
}

impl Traffic {
    pub(super) fn new(channels: &Arc<Names>) -> Self {
        let cells = Cells::new(CHANNELS + channels.places() * CHANNEL_CELLS);
        Self { cells, channels: Arc::clone(channels) }
    }

    /// Counts an event that was put into this number of queues.
    #[inline]
    pub fn event(&self, channel: ChannelPlace, deliveries: usize) {
        let (own, first) = (self.cells.own(), channel.first_cell());
        let Some(of_channel) = own.line(first) else { return };
        of_channel.add(first + EVENTS, 1);
        if deliveries == 0 {
            own.add(UNHEARD, 1);
        } else {
            of_channel.add(first + DELIVERIES, deliveries as u64);
        }
    }

    /// Counts a request that was given to this number of handlers.
    pub fn request(&self, kind: EnvelopeKind, channel: ChannelPlace, deliveries: usize) {
        let own = self.cells.own();
        own.add(kind as usize, 1);
        own.add(channel.first_cell() + REQUESTS, 1);
        add_deliveries(own, channel, deliveries);
    }

    /// Counts a reply that was put into this number of queues.
    pub fn reply(&self, channel: ChannelPlace, deliveries: usize) {
        let own = self.cells.own();
        own.add(EnvelopeKind::Reply as usize, 1);
        add_deliveries(own, channel, deliveries);
    }

    /// Counts further deliveries of a message that was counted before.
    pub fn delivered(&self, channel: ChannelPlace, deliveries: usize) {
        add_deliveries(self.cells.own(), channel, deliveries);
    }

    /// Counts an envelope that nobody gets.
    pub fn undelivered(&self, kind: EnvelopeKind) {
        self.cells.own().add(kind as usize, 1);
    }

    /// Counts bytes that were read from connections.
    #[inline]
    pub fn received(&self, bytes: usize) {
        self.cells.own().add(RECEIVED_BYTES, bytes as u64);
    }

    /// Counts bytes that were written to connections.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        self.cells.own().add(SENT_BYTES, bytes as u64);
    }

    /// Returns the envelopes of each kind.
    pub(super) fn envelopes(&self) -> impl Iterator<Item = (Labels, u64)> {
        (0..EnvelopeKind::COUNT).map(|index| (EnvelopeKind::labels(index), self.read(index)))
    }

    /// Returns the envelopes of a kind.
    pub fn envelopes_of(&self, kind: EnvelopeKind) -> u64 {
        self.read(kind as usize)
    }

    /// The envelopes of the kind at this place.
    fn read(&self, kind: usize) -> u64 {
        let of_channels = if kind == EnvelopeKind::Event as usize { self.of_all_channels(EVENTS) } else { 0 };
        self.cells.read(kind) + of_channels
    }

    /// Returns the messages that were put into queues of receivers.
    pub fn deliveries(&self) -> u64 {
        self.of_all_channels(DELIVERIES)
    }

    /// Returns the events that no session received.
    pub fn unheard(&self) -> u64 {
        self.cells.read(UNHEARD)
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.cells.read(RECEIVED_BYTES)
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.cells.read(SENT_BYTES)
    }

    pub(super) fn channel_events(&self) -> Vec<(Labels, u64)> {
        self.by_channel(EVENTS)
    }

    pub(super) fn channel_deliveries(&self) -> Vec<(Labels, u64)> {
        self.by_channel(DELIVERIES)
    }

    pub(super) fn channel_requests(&self) -> Vec<(Labels, u64)> {
        self.by_channel(REQUESTS)
    }

    /// The sum of a cell of all channels.
    fn of_all_channels(&self, cell: usize) -> u64 {
        (0..self.channels.places()).map(|place| self.cells.read(ChannelPlace::at(place).first_cell() + cell)).sum()
    }

    fn by_channel(&self, cell: usize) -> Vec<(Labels, u64)> {
        let count = |(place, name)| {
            let cell = ChannelPlace::at(place).first_cell() + cell;
            (vec![(self.channels.label(), name)], self.cells.read(cell))
        };
        self.channels.all().into_iter().map(count).collect()
    }
}

fn add_deliveries(own: cells::Copy<'_>, channel: ChannelPlace, deliveries: usize) {
    own.add(channel.first_cell() + DELIVERIES, deliveries as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_envelopes_share_no_cell_with_what_follows() {
        assert_eq!(EnvelopeKind::COUNT, UNHEARD);
    }

    #[test]
    fn a_message_counts_in_all_and_for_its_channel() {
        let names = Arc::new(Names::new("channel", 2));
        let [phone, other] = ["Phone", "Unknown"].map(|name| {
            names.add("Phone");
            ChannelPlace::at(names.place(name))
        });
        let traffic = Traffic::new(&names);
        traffic.event(phone, 3);
        traffic.event(phone, 0);
        traffic.event(other, 1);
        traffic.request(EnvelopeKind::Gather, phone, 2);
        traffic.reply(phone, 1);
        traffic.undelivered(EnvelopeKind::Unreadable);
        let envelopes: Vec<u64> = traffic.envelopes().map(|(_, count)| count).collect();
        assert_eq!(envelopes, [3, 0, 1, 1, 0, 1]);
        assert_eq!((traffic.deliveries(), traffic.unheard()), (7, 1));
        let of = |counts: Vec<(Labels, u64)>| counts.into_iter().map(|(labels, n)| (labels[0].1.clone(), n)).collect();
        let expected = |phone, other| vec![("Phone".to_owned(), phone), ("other".to_owned(), other)];
        let counts: [Vec<_>; 3] =
            [traffic.channel_events(), traffic.channel_deliveries(), traffic.channel_requests()].map(of);
        assert_eq!(counts, [expected(2, 1), expected(6, 1), expected(1, 0)]);
    }
}
