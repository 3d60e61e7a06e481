//! What was sent above QoS 0 and is not finished.

use super::ids::{PacketIds, following};
use super::window::Window;
use crate::StoreSeq;
use crate::defects::defect;
use crate::random::IdMap;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use mqtt_proto::{PacketId, QoS};

/// Places that a ledger keeps, whether they are used or not.
const KEPT: usize = 32;

/// How far an outbound exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// PUBLISH has to be sent, or its answer is awaited.
    Publish,
    /// PUBREC arrived: PUBREL has to be sent, or PUBCOMP is awaited. PUBLISH is never sent again
    /// [MQTT-4.3.3-6].
    Release,
}

/// One exchange.
#[derive(Clone, Debug)]
pub(crate) struct Exchange<M> {
    pub(crate) id: PacketId,
    pub(crate) qos: QoS,
    pub(crate) stage: Stage,
    /// PUBLISH was put into an outbox at least once, so the next one is a repetition: DUP is set
    /// ([MQTT-3.3.1-1]).
    pub(crate) published: bool,
    /// It may not be sent before this much is stored.
    pub(crate) after: StoreSeq,
    /// The message; gone once PUBREC has arrived, and never there if it was sent and will not be sent again.
    pub(crate) message: Option<M>,
    /// It holds a place in the window of the present link.
    in_window: bool,
}

/// What an acknowledgement met.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acked<M> {
    /// The exchange is finished.
    Done(Option<M>),
    /// The exchange goes on with PUBREL.
    Release,
    /// No exchange has this identifier.
    Unknown,
    /// It does not answer what was sent (PUBACK for QoS 2, PUBREC for QoS 1).
    WrongKind,
}

/// The exchanges in the order in which they began, which is the order in which they are sent again
/// [MQTT-4.6.0-1], and the identifiers that they hold.
///
/// First sending and sending again are one thing: a cursor that walks the ledger and that a new link
/// sets back to the front.
#[derive(Clone, Debug)]
pub(crate) struct Ledger<M> {
    /// `None` where an exchange finished before an older one.
    exchanges: VecDeque<Option<Exchange<M>>>,
    /// Number of the exchange at the front.
    base: u64,
    /// Number of the next exchange to send on this link.
    cursor: u64,
    /// Exchanges that are not finished.
    live: usize,
    /// The identifier of the exchange at the front.
    first: PacketId,
    /// Numbers by identifiers. `None` as long as identifiers follow each other without a gap, as they
    /// nearly always do: then they tell the place themselves.
    by_id: Option<Box<IdMap<u16, u64>>>,
    ids: PacketIds,
}

impl<M> Default for Ledger<M> {
    fn default() -> Self {
        Self {
            exchanges: VecDeque::new(),
            base: 0,
            cursor: 0,
            live: 0,
            first: PacketId::MIN,
            by_id: None,
            ids: PacketIds::default(),
        }
    }
}

impl<M> Ledger<M> {
    /// How many exchanges are not finished.
    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// Whether another exchange may begin while the peer takes `max` at once.
    pub(crate) fn has_room(&self, max: u16) -> bool {
        if defect!(CreditAtPubrec) {
            return self.iter().filter(|e| e.stage == Stage::Publish).count() < usize::from(max);
        }
        self.len() < usize::from(max) || defect!(IgnoreWindow)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether an exchange holds `id`.
    #[inline]
    pub(crate) fn contains(&self, id: PacketId) -> bool {
        // A new one mostly is behind all that there are.
        let is_behind = self.by_id.is_none() && usize::from(distance(self.first, id)) >= self.exchanges.len();
        !is_behind && self.place(id).is_some()
    }

    /// Where the exchange is that holds `id`.
    #[inline]
    fn place(&self, id: PacketId) -> Option<usize> {
        let place = match &self.by_id {
            None => usize::from(distance(self.first, id)),
            Some(by_id) => usize::try_from(by_id.get(&id.get())?.checked_sub(self.base)?).ok()?,
        };
        self.exchanges.get(place)?.as_ref()?;
        Some(place)
    }

    /// Adds an exchange behind the others, and tells its number.
    #[inline(always)]
    fn push(&mut self, exchange: Exchange<M>) -> u64 {
        let (id, number) = (exchange.id, self.base + self.exchanges.len() as u64);
        if self.exchanges.is_empty() {
            self.first = id;
        } else if self.by_id.is_none() && usize::from(distance(self.first, id)) != self.exchanges.len() {
            self.by_id = Some(self.index());
        }
        if let Some(by_id) = &mut self.by_id {
            by_id.insert(id.get(), number);
        }
        self.exchanges.push_back(Some(exchange));
        self.live += 1;
        number
    }

    #[cold]
    #[inline(never)]
    fn index(&self) -> Box<IdMap<u16, u64>> {
        let places = (self.base..).zip(&self.exchanges);
        Box::new(places.filter_map(|(number, e)| Some((e.as_ref()?.id.get(), number))).collect())
    }

    /// Makes the next identifier `first`.
    pub(crate) fn start_ids(&mut self, first: PacketId) {
        self.ids = PacketIds::from(first);
    }

    /// Makes the next identifiers follow `last`.
    pub(crate) fn continue_after(&mut self, last: PacketId) {
        self.ids = PacketIds::after(last);
    }

    /// An identifier that neither an exchange nor `elsewhere` holds.
    pub(crate) fn free_id(&mut self, elsewhere: impl Fn(PacketId) -> bool) -> Option<PacketId> {
        if defect!(ReuseId) {
            return Some(PacketId::MIN);
        }
        let mut ids = self.ids.clone();
        let id = ids.allocate(|id| self.contains(id) || elsewhere(id));
        self.ids = ids;
        id
    }

    /// Begins an exchange with an identifier from [`Ledger::free_id`], without DUP ([MQTT-4.3.2-2],
    /// [MQTT-4.3.3-2]). It is the last to be sent.
    pub(crate) fn begin(&mut self, id: PacketId, qos: QoS, message: M, after: StoreSeq) {
        self.push(Exchange {
            id,
            qos,
            stage: Stage::Publish,
            published: defect!(DupAlways),
            after,
            message: Some(message),
            in_window: false,
        });
    }

    /// The same for an exchange that is in the outbox already. All others are, too. Without a message it cannot be sent
    /// again.
    #[inline(always)]
    pub(crate) fn begin_sent(&mut self, id: PacketId, qos: QoS, message: Option<M>, window: &mut Window) {
        let in_window = window.take();
        debug_assert!(in_window || defect!(IgnoreWindow), "there was room");
        let number = self.push(Exchange {
            id,
            qos,
            stage: Stage::Publish,
            published: !defect!(ForgetDup),
            after: StoreSeq::default(),
            message,
            in_window,
        });
        self.cursor = number + 1;
    }

    /// Adds an exchange that was stored, behind those that are here.
    pub(crate) fn restore(
        &mut self,
        id: PacketId,
        qos: QoS,
        stage: Stage,
        published: bool,
        message: Option<M>,
    ) {
        let after = StoreSeq::default();
        self.push(Exchange { id, qos, stage, published, after, message, in_window: false });
    }

    /// A new link: everything that is not finished is sent again, in order.
    pub(crate) fn rewind(&mut self) {
        if defect!(ForgetResend) {
            return;
        }
        self.cursor = self.base;
        for exchange in self.exchanges.iter_mut().flatten() {
            exchange.in_window = false;
        }
    }

    /// The next exchange to send on this link, if it is allowed to go: PUBLISH or PUBREL by its
    /// stage. Call [`Ledger::sent`] once it is in the outbox.
    pub(crate) fn next_to_send(&mut self) -> Option<&mut Exchange<M>> {
        self.skip_finished();
        let index = usize::try_from(self.cursor - self.base).ok()?;
        self.exchanges.get_mut(index)?.as_mut()
    }

    /// Whether there is one.
    #[inline]
    pub(crate) fn has_next(&mut self) -> bool {
        self.cursor < self.base + self.exchanges.len() as u64 && self.next_to_send().is_some()
    }

    /// Takes the place in the window that sending the next exchange needs. PUBREL always finds one.
    pub(crate) fn admit_next(&mut self, window: &mut Window) -> bool {
        let Some(exchange) = self.next_to_send() else { return false };
        if exchange.in_window {
            return true;
        }
        match exchange.stage {
            Stage::Publish if !window.take() && !defect!(IgnoreWindow) => return false,
            Stage::Publish => {}
            Stage::Release => window.take_regardless(),
        }
        exchange.in_window = true;
        true
    }

    /// The next exchange is in the outbox.
    pub(crate) fn sent(&mut self) {
        if let Some(exchange) = self.next_to_send() {
            if exchange.stage == Stage::Publish && !defect!(ForgetDup) {
                exchange.published = true;
            }
            self.cursor += 1;
        }
    }

    /// As [`Ledger::admit_next`] and [`Ledger::sent`] in one step: the exchange that is to be put into the outbox, and
    /// whether it was there before.
    #[inline]
    pub(crate) fn send_next(&mut self, window: &mut Window) -> Option<(&Exchange<M>, bool)> {
        if !self.admit_next(window) {
            return None;
        }
        // No finished ones are before it any more.
        let index = usize::try_from(self.cursor - self.base).ok()?;
        let exchange = self.exchanges.get_mut(index)?.as_mut()?;
        let again = exchange.published;
        exchange.published |= exchange.stage == Stage::Publish && !defect!(ForgetDup);
        self.cursor += 1;
        Some((exchange, again))
    }

    fn skip_finished(&mut self) {
        while let Ok(index) = usize::try_from(self.cursor - self.base) {
            match self.exchanges.get(index) {
                Some(None) => self.cursor += 1,
                Some(Some(e)) if defect!(LosePubrel) && e.stage == Stage::Release => self.cursor += 1,
                _ => break,
            }
        }
    }

    fn slot(&mut self, id: PacketId) -> Option<&mut Option<Exchange<M>>> {
        self.place(id).and_then(|place| self.exchanges.get_mut(place))
    }

    /// Ends the exchange, if there is one and it is `wanted`, and gives its identifier and its place in the
    /// window back.
    #[inline(always)]
    fn finish(
        &mut self,
        id: PacketId,
        window: Option<&mut Window>,
        wanted: impl FnOnce(&Exchange<M>) -> bool,
    ) -> Acked<M> {
        let Some(slot) = self.slot(id) else { return Acked::Unknown };
        let Some(exchange) = slot.take_if(|exchange| wanted(exchange)) else { return Acked::WrongKind };
        self.live -= 1;
        if let Some(by_id) = &mut self.by_id {
            by_id.remove(&id.get());
        }
        if let Some(window) = window.filter(|_| exchange.in_window) {
            let given = window.give();
            debug_assert!(given, "an exchange in the window was counted");
        }
        while let Some(None) = self.exchanges.front() {
            self.exchanges.pop_front();
            self.base += 1;
            self.first = following(self.first);
        }
        self.cursor = self.cursor.max(self.base);
        if self.exchanges.is_empty() {
            self.by_id = None;
            if self.exchanges.capacity() > KEPT {
                self.exchanges = VecDeque::new();
            }
        } else if self.exchanges.len() > KEPT && self.exchanges.len() > 4 * self.live {
            self.close_gaps();
        }
        Acked::Done(exchange.message)
    }

    /// A peer that answers everything but the oldest leaves a place behind with each answer: takes them
    /// out. As many exchanges finished since the last time as there are places now, so each costs little.
    #[cold]
    #[inline(never)]
    fn close_gaps(&mut self) {
        let cursor = usize::try_from(self.cursor - self.base).unwrap_or(usize::MAX);
        let before = self.exchanges.iter().take(cursor).flatten().count();
        self.exchanges.retain(Option::is_some);
        self.cursor = self.base + before as u64;
        self.by_id = Some(self.index());
    }

    /// PUBACK. An error code acknowledges just as well [MQTT-4.4.0-2].
    #[inline(always)]
    pub(crate) fn puback(&mut self, id: PacketId, window: &mut Window) -> Acked<M> {
        self.finish(id, Some(window), |exchange| exchange.qos == QoS::AtLeastOnce)
    }

    /// PUBREC. One that refuses ends the exchange and returns its place in the window; otherwise
    /// only PUBCOMP does.
    pub(crate) fn pubrec(
        &mut self,
        id: PacketId,
        refused: bool,
        window: &mut Window,
    ) -> (Acked<M>, Option<M>) {
        match self.slot(id) {
            Some(Some(exchange)) if exchange.qos == QoS::ExactlyOnce => {
                if !refused {
                    exchange.stage = Stage::Release;
                    if defect!(CreditAtPubrec) && core::mem::take(&mut exchange.in_window) {
                        let _ = window.give();
                    }
                    let message = exchange.message.take();
                    return (Acked::Release, message);
                }
                if exchange.stage == Stage::Release {
                    // It was accepted before; a refusal now changes nothing.
                    return (Acked::Release, None);
                }
            }
            Some(Some(_)) => return (Acked::WrongKind, None),
            _ => return (Acked::Unknown, None),
        }
        (self.finish(id, Some(window), |_| true), None)
    }

    /// What is sent next for `id` waits until this much is stored.
    pub(crate) fn wait_for(&mut self, id: PacketId, after: StoreSeq) {
        if let Some(Some(exchange)) = self.slot(id) {
            exchange.after = exchange.after.max(after);
        }
    }

    /// PUBCOMP.
    pub(crate) fn pubcomp(&mut self, id: PacketId, window: &mut Window) -> Acked<M> {
        if defect!(LeakId) {
            return Acked::Unknown;
        }
        self.finish(id, Some(window), |exchange| exchange.stage == Stage::Release)
    }

    /// Whether PUBREL for `id` was sent on this link already (or is about to be by the cursor).
    pub(crate) fn cursor_passed(&self, id: PacketId) -> bool {
        self.place(id).is_some_and(|place| self.base + (place as u64) < self.cursor)
    }

    /// The messages of exchanges that still have theirs.
    pub(crate) fn messages_mut(&mut self) -> impl Iterator<Item = &mut M> {
        self.exchanges.iter_mut().flatten().filter_map(|exchange| exchange.message.as_mut())
    }

    /// The exchanges in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Exchange<M>> {
        self.exchanges.iter().flatten()
    }

    /// Takes out every exchange for which `which` is true, in order.
    pub(crate) fn extract(&mut self, which: impl Fn(&Exchange<M>) -> bool) -> alloc::vec::Vec<Exchange<M>> {
        let ids: alloc::vec::Vec<PacketId> = self.iter().filter(|e| which(e)).map(|e| e.id).collect();
        let mut taken = alloc::vec::Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(exchange) = self.slot(id).and_then(|slot| slot.as_ref()) {
                let copy = Exchange { message: None, ..clone_head(exchange) };
                if let Acked::Done(message) = self.finish(id, None, |_| true) {
                    taken.push(Exchange { message, ..copy });
                }
            }
        }
        taken
    }

    /// The messages of all exchanges, which end without an answer.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Exchange<M>> {
        let all = core::mem::take(&mut self.exchanges);
        self.base += all.len() as u64;
        self.cursor = self.base;
        (self.live, self.by_id) = (0, None);
        all.into_iter().flatten()
    }
}

/// How many steps lead from one identifier to another.
#[inline]
const fn distance(from: PacketId, to: PacketId) -> u16 {
    // There is no identifier 0, so that a step less leads over the end.
    match to.get().checked_sub(from.get()) {
        Some(steps) => steps,
        None => u16::MAX - from.get() + to.get(),
    }
}

fn clone_head<M>(e: &Exchange<M>) -> Exchange<M> {
    Exchange {
        id: e.id,
        qos: e.qos,
        stage: e.stage,
        published: e.published,
        after: e.after,
        message: None,
        in_window: e.in_window,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(ledger: &mut Ledger<u32>, window: &mut Window, message: u32) -> PacketId {
        let id = ledger.free_id(|_| false).unwrap();
        ledger.begin(id, QoS::AtLeastOnce, message, StoreSeq(0));
        assert!(ledger.admit_next(window));
        ledger.sent();
        id
    }

    /// A peer that never answers the oldest message must not make the ledger grow with each of the others.
    #[test]
    fn an_exchange_that_never_ends_costs_its_own_place() {
        let (mut ledger, mut window) = (Ledger::default(), Window::new(10));
        let stuck = send(&mut ledger, &mut window, 0);
        let later = send(&mut ledger, &mut window, 1);
        for n in 2..200_000 {
            let id = send(&mut ledger, &mut window, n);
            assert_eq!(ledger.puback(id, &mut window), Acked::Done(Some(n)));
        }
        assert!(ledger.exchanges.capacity() <= 4 * KEPT, "{}", ledger.exchanges.capacity());
        // The cursor and the order are as they were.
        assert!(ledger.next_to_send().is_none());
        let waits = ledger.free_id(|_| false).unwrap();
        ledger.begin(waits, QoS::AtLeastOnce, 7, StoreSeq(0));
        assert_eq!(ledger.next_to_send().map(|e| e.id), Some(waits));
        ledger.rewind();
        assert_eq!(ledger.iter().map(|e| e.id).collect::<alloc::vec::Vec<_>>(), [stuck, later, waits]);
        assert_eq!(ledger.puback(later, &mut window), Acked::Done(Some(1)));
        assert_eq!(ledger.puback(later, &mut window), Acked::Unknown);
        assert_eq!(ledger.puback(stuck, &mut window), Acked::Done(Some(0)));
    }

    proptest::proptest! {
        /// Whatever ends in whatever order, and wherever identifiers jump, each finds its own exchange.
        #[test]
        fn identifiers_find_their_exchanges(
            steps in proptest::collection::vec((0u8..10, proptest::prelude::any::<u16>()), 1..400),
        ) {
            let (mut ledger, mut window) = (Ledger::default(), Window::new(u16::MAX));
            ledger.continue_after(PacketId::new(u16::MAX - 20).unwrap());
            let mut live: alloc::vec::Vec<(PacketId, u32)> = alloc::vec::Vec::new();
            for (n, (what, which)) in (0u32..).zip(steps) {
                match what {
                    0..5 => live.push((send(&mut ledger, &mut window, n), n)),
                    5 if which % 8 == 0 => ledger.continue_after(PacketId::new(which | 1).unwrap()),
                    6 => assert_eq!(
                        ledger.contains(PacketId::new(which | 1).unwrap()),
                        live.iter().any(|(id, _)| id.get() == which | 1)
                    ),
                    _ if live.is_empty() => {}
                    _ => {
                        let (id, message) = live.remove(usize::from(which) % live.len());
                        assert_eq!(ledger.puback(id, &mut window), Acked::Done(Some(message)));
                        assert_eq!(ledger.puback(id, &mut window), Acked::Unknown);
                    }
                }
                assert_eq!(ledger.len(), live.len());
                assert!(ledger.iter().map(|e| e.id).eq(live.iter().map(|(id, _)| *id)));
            }
        }
    }
}
