//! What waits for one receiver, in little memory: a delivery that nothing is special about takes five bytes.
//!
//! Deliveries are bytes in blocks. A queue that grows gets another block, and nothing is moved; one that is drained gives
//! its blocks back, but for two, so that steady traffic allocates nothing.

use super::message::MessageKey;
use super::router::SubscriptionIds;
use super::session::Delivery;
use crate::store::EntryId;
use alloc::boxed::Box;
use alloc::collections::{VecDeque, vec_deque};
use alloc::vec::Vec;
use mqtt_proto::QoS;

/// Bytes of a block. With what the usual allocator adds, a power of two.
const BLOCK: usize = 504;
/// The first block begins smaller: most queues are short.
const FIRST: usize = 24;
/// Places for blocks that an empty queue may keep.
const PLACES: usize = 8;

/// The deliveries that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue(Option<Box<Blocks>>);

#[derive(Debug, Default)]
struct Blocks {
    /// The oldest delivery is at `read`. Only a queue that is empty has none here.
    front: Vec<u8>,
    /// The others; none is empty.
    rest: VecDeque<Vec<u8>>,
    /// A block for later.
    spare: Vec<u8>,
    read: u32,
    len: u32,
}

impl Queue {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |blocks| blocks.len as usize)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|blocks| blocks.len == 0)
    }

    #[inline]
    pub(super) fn push_back(&mut self, delivery: &Delivery) {
        let blocks = self.0.get_or_insert_default();
        blocks.len += 1;
        let last = blocks.last();
        if delivery.is_plain() && last.capacity() - last.len() >= HEAD {
            last.extend_from_slice(&delivery.head());
        } else {
            blocks.push_any(delivery);
        }
    }

    /// Puts it before all others.
    pub(super) fn push_front(&mut self, delivery: &Delivery) {
        if self.is_empty() {
            return self.push_back(delivery);
        }
        let Some(blocks) = &mut self.0 else { return };
        let mut packed = Vec::with_capacity(delivery.packed_len());
        delivery.pack(&mut packed);
        if blocks.read() < packed.len() {
            blocks.make_room_in_front(packed.len());
        }
        let read = blocks.read().saturating_sub(packed.len());
        if let Some(place) = blocks.front.get_mut(read..).and_then(|from| from.get_mut(..packed.len())) {
            place.copy_from_slice(&packed);
            blocks.set_read(read);
            blocks.len += 1;
        }
    }

    /// Message and QoS of the oldest.
    #[inline]
    pub(super) fn front(&self) -> Option<(MessageKey, QoS)> {
        let blocks = self.0.as_ref()?;
        let [marks, key @ ..] = *blocks.front.get(blocks.read()..)?.first_chunk::<HEAD>()?;
        Some((MessageKey::from_le_bytes(key), qos_of(marks)))
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<Delivery> {
        self.pop_front_if(|_| true)
    }

    /// Takes out the oldest, if its QoS is one that is `wanted`.
    #[inline]
    pub(super) fn pop_front_if(&mut self, wanted: impl FnOnce(QoS) -> bool) -> Option<Delivery> {
        if !wanted(self.front()?.1) {
            return None;
        }
        let blocks = self.0.as_mut()?;
        let mut bytes = blocks.front.get(blocks.read()..)?;
        let delivery = Delivery::unpack(&mut bytes)?;
        let left = bytes.len();
        blocks.set_read(blocks.front.len().saturating_sub(left));
        blocks.len = blocks.len.saturating_sub(1);
        if left == 0 {
            blocks.next_block();
        }
        Some(delivery)
    }

    /// Message and QoS of each.
    #[inline]
    pub(super) fn iter(&self) -> impl Iterator<Item = (MessageKey, QoS)> {
        let blocks = self.0.as_deref();
        let bytes = blocks.and_then(|blocks| blocks.front.get(blocks.read()..)).unwrap_or_default();
        Iter { bytes, rest: blocks.map(|blocks| blocks.rest.iter()).unwrap_or_default() }
    }

    /// Takes out those for which `which` is true, in their order.
    pub(super) fn extract(&mut self, mut which: impl FnMut(&Delivery) -> bool) -> Vec<Delivery> {
        let mut taken = Vec::new();
        self.each(|queue, delivery| {
            if which(&delivery) {
                taken.push(delivery);
            } else {
                queue.push_back(&delivery);
            }
        });
        taken
    }

    /// Changes each of them.
    pub(super) fn update(&mut self, mut change: impl FnMut(&mut Delivery)) {
        self.each(|queue, mut delivery| {
            change(&mut delivery);
            queue.push_back(&delivery);
        });
    }

    /// Takes each out; those that are put back are in their order again.
    fn each(&mut self, mut take: impl FnMut(&mut Self, Delivery)) {
        for _ in 0..self.len() {
            if let Some(delivery) = self.pop_front() {
                take(self, delivery);
            }
        }
    }
}

impl IntoIterator for Queue {
    type Item = Delivery;
    type IntoIter = IntoIter;

    fn into_iter(self) -> IntoIter {
        IntoIter(self)
    }
}

/// What was in a queue.
#[derive(Debug)]
pub(super) struct IntoIter(Queue);

impl Iterator for IntoIter {
    type Item = Delivery;

    fn next(&mut self) -> Option<Delivery> {
        self.0.pop_front()
    }
}

struct Iter<'a> {
    bytes: &'a [u8],
    rest: vec_deque::Iter<'a, Vec<u8>>,
}

impl Iterator for Iter<'_> {
    type Item = (MessageKey, QoS);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            self.bytes = self.rest.next()?;
        }
        let [marks, key @ ..] = take::<HEAD>(&mut self.bytes)?;
        if marks & !(3 | RETAIN) != 0 {
            skip_rest(marks, &mut self.bytes)?;
        }
        Some((MessageKey::from_le_bytes(key), qos_of(marks)))
    }
}

impl Blocks {
    const fn read(&self) -> usize {
        self.read as usize
    }

    fn set_read(&mut self, read: usize) {
        // A block is never that large.
        self.read = u32::try_from(read).unwrap_or(u32::MAX);
    }

    /// The last block.
    #[inline]
    fn last(&mut self) -> &mut Vec<u8> {
        self.rest.back_mut().unwrap_or(&mut self.front)
    }

    #[inline(never)]
    fn push_any(&mut self, delivery: &Delivery) {
        let size = delivery.packed_len();
        let last = self.last();
        if last.capacity() - last.len() < size {
            self.make_room(size);
        }
        delivery.pack(self.last());
    }

    #[cold]
    fn make_room(&mut self, size: usize) {
        let last = self.last();
        // 24, 56, 120, 248, 504: each with what the allocator adds a power of two.
        let grown = (2 * last.capacity() + 8).clamp(FIRST, BLOCK);
        if last.capacity() < BLOCK && last.len() + size <= grown {
            last.reserve_exact(grown - last.len());
            return;
        }
        if last.is_empty() {
            last.reserve_exact(size);
            return;
        }
        let mut block = core::mem::take(&mut self.spare);
        block.reserve_exact(size.max(BLOCK));
        self.rest.push_back(block);
    }

    /// The same before the oldest. There is one.
    #[cold]
    fn make_room_in_front(&mut self, size: usize) {
        let block = alloc::vec![0; size.max(BLOCK)];
        let read = self.read();
        self.read = 0;
        self.set_read(block.len());
        let mut behind = core::mem::replace(&mut self.front, block);
        behind.drain(..read.min(behind.len()));
        self.rest.push_front(behind);
    }

    /// Nothing is left of the front block.
    #[cold]
    fn next_block(&mut self) {
        self.read = 0;
        self.front.clear();
        let Some(next) = self.rest.pop_front() else { return };
        let done = core::mem::replace(&mut self.front, next);
        if done.capacity() == BLOCK {
            self.spare = done;
        }
        if self.rest.is_empty() && self.rest.capacity() > PLACES {
            self.rest = VecDeque::new();
        }
    }
}

/// What there is of each delivery: a byte that tells its QoS in two bits and what follows, and its message.
const HEAD: usize = 1 + size_of::<MessageKey>();
const RETAIN: u8 = 1 << 2;
const GROUP: u8 = 1 << 3;
const ENTRY: u8 = 1 << 4;
const ONE_ID: u8 = 1 << 5;
const MANY_IDS: u8 = 1 << 6;

fn qos_of(marks: u8) -> QoS {
    QoS::from_u8(marks & 3).unwrap_or(QoS::AtMostOnce)
}

#[inline]
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// What follows the head of a delivery.
fn skip_rest(marks: u8, bytes: &mut &[u8]) -> Option<()> {
    if marks & GROUP != 0 {
        take::<4>(bytes)?;
    }
    if marks & ENTRY != 0 {
        take::<8>(bytes)?;
    }
    let ids = match marks & (ONE_ID | MANY_IDS) {
        0 => 0,
        ONE_ID => 1,
        _ => u32::from_le_bytes(take(bytes)?),
    };
    for _ in 0..ids {
        take::<4>(bytes)?;
    }
    Some(())
}

impl Delivery {
    #[inline]
    fn is_plain(&self) -> bool {
        self.group.is_none() && self.entry.is_none() && self.ids == SubscriptionIds::None
    }

    fn packed_len(&self) -> usize {
        let ids = match &self.ids {
            SubscriptionIds::None => 0,
            SubscriptionIds::One(_) => 4,
            SubscriptionIds::Many(ids) => 4 * (1 + ids.len()),
        };
        let group = if self.group.is_some() { 4 } else { 0 };
        HEAD + group + if self.entry.is_some() { 8 } else { 0 } + ids
    }

    #[inline]
    fn head(&self) -> [u8; HEAD] {
        let mut marks = self.qos as u8;
        marks |= if self.retain { RETAIN } else { 0 };
        marks |= if self.group.is_some() { GROUP } else { 0 };
        marks |= if self.entry.is_some() { ENTRY } else { 0 };
        marks |= match &self.ids {
            SubscriptionIds::None => 0,
            SubscriptionIds::One(_) => ONE_ID,
            SubscriptionIds::Many(_) => MANY_IDS,
        };
        let [a, b, c, d] = self.message.to_le_bytes();
        [marks, a, b, c, d]
    }

    fn pack(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.head());
        if let Some(group) = self.group {
            to.extend_from_slice(&group.to_le_bytes());
        }
        if let Some(entry) = self.entry {
            to.extend_from_slice(&entry.0.to_le_bytes());
        }
        if let SubscriptionIds::Many(ids) = &self.ids {
            // As many as one session has filters.
            let count = u32::try_from(ids.len()).unwrap_or(u32::MAX);
            to.extend_from_slice(&count.to_le_bytes());
        }
        for id in self.ids.as_slice() {
            to.extend_from_slice(&id.to_le_bytes());
        }
    }

    #[inline]
    fn unpack(bytes: &mut &[u8]) -> Option<Self> {
        let [marks, key @ ..] = take::<HEAD>(bytes)?;
        let (message, qos, retain) = (MessageKey::from_le_bytes(key), qos_of(marks), marks & RETAIN != 0);
        let mut delivery =
            Self { message, group: None, qos, retain, entry: None, ids: SubscriptionIds::None };
        if marks & !(3 | RETAIN) != 0 {
            delivery.unpack_rest(marks, bytes)?;
        }
        Some(delivery)
    }

    #[inline(never)]
    fn unpack_rest(&mut self, marks: u8, bytes: &mut &[u8]) -> Option<()> {
        if marks & GROUP != 0 {
            self.group = Some(u32::from_le_bytes(take(bytes)?));
        }
        if marks & ENTRY != 0 {
            self.entry = Some(EntryId(u64::from_le_bytes(take(bytes)?)));
        }
        if marks & ONE_ID != 0 {
            self.ids = SubscriptionIds::One(u32::from_le_bytes(take(bytes)?));
        }
        if marks & MANY_IDS != 0 {
            let count = u32::from_le_bytes(take(bytes)?);
            let ids: Option<Box<[u32]>> = (0..count).map(|_| take(bytes).map(u32::from_le_bytes)).collect();
            self.ids = SubscriptionIds::Many(ids?);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn delivery() -> impl Strategy<Value = Delivery> {
        let ids = prop_oneof![
            4 => Just(Vec::new()),
            2 => prop::collection::vec(any::<u32>(), 1),
            1 => prop::collection::vec(any::<u32>(), 2..200),
        ];
        let (group, entry) = (prop::option::of(any::<u32>()), prop::option::of(any::<u64>()));
        (any::<u32>(), group, 0u8..3, any::<bool>(), entry, ids).prop_map(
            |(message, group, qos, retain, entry, ids)| Delivery {
                message,
                group,
                qos: QoS::from_u8(qos).unwrap(),
                retain,
                entry: entry.map(EntryId),
                ids: SubscriptionIds::from(&*ids),
            },
        )
    }

    #[derive(Clone, Debug)]
    enum Step {
        Back(Delivery),
        Front(Delivery),
        Pop(u16),
        Extract(u32),
        Update(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            10 => delivery().prop_map(Step::Back),
            3 => delivery().prop_map(Step::Front),
            3 => (0u16..40).prop_map(Step::Pop),
            1 => (2u32..5).prop_map(Step::Extract),
            1 => (2u32..5).prop_map(Step::Update),
        ];
        prop::collection::vec(step, 1..500)
    }

    proptest! {
        /// It does what a list of deliveries does.
        #[test]
        fn a_queue_is_a_list(steps in steps()) {
            let (mut queue, mut list) = (Queue::default(), VecDeque::new());
            for step in steps {
                match step {
                    Step::Back(delivery) => {
                        queue.push_back(&delivery);
                        list.push_back(delivery);
                    }
                    Step::Front(delivery) => {
                        queue.push_front(&delivery);
                        list.push_front(delivery);
                    }
                    Step::Pop(count) => {
                        for _ in 0..count {
                            prop_assert_eq!(queue.pop_front(), list.pop_front());
                        }
                    }
                    Step::Extract(part) => {
                        let is_one = |delivery: &Delivery| delivery.message.is_multiple_of(part);
                        let (gone, kept): (Vec<_>, Vec<_>) = list.into_iter().partition(is_one);
                        prop_assert_eq!(queue.extract(is_one), gone);
                        list = kept.into();
                    }
                    Step::Update(part) => {
                        let change = |delivery: &mut Delivery| {
                            if delivery.message.is_multiple_of(part) {
                                (delivery.group, delivery.entry) = (None, Some(EntryId(7)));
                            }
                        };
                        queue.update(change);
                        list.iter_mut().for_each(change);
                    }
                }
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(queue.front(), list.front().map(|d| (d.message, d.qos)));
                prop_assert!(queue.iter().eq(list.iter().map(|d| (d.message, d.qos))));
            }
            prop_assert!(queue.into_iter().eq(list));
        }
    }

    /// Traffic through a queue that is neither empty nor grows needs two blocks, and one that was long gives its memory back.
    #[test]
    fn blocks_are_used_again() {
        let one = |message| Delivery {
            message,
            group: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            entry: None,
            ids: SubscriptionIds::None,
        };
        let mut queue = Queue::default();
        (0..100_000).for_each(|n| queue.push_back(&one(n)));
        for n in 100_000..200_000 {
            assert_eq!(queue.pop_front(), Some(one(n - 100_000)));
            queue.push_back(&one(n));
        }
        while queue.len() > 3 {
            queue.pop_front();
        }
        let blocks = queue.0.unwrap();
        assert!(blocks.rest.len() <= 1 && blocks.rest.capacity() <= PLACES);
        let bytes = [&blocks.front, &blocks.spare].map(Vec::capacity);
        assert!(bytes.iter().all(|bytes| *bytes <= BLOCK), "{bytes:?}");
    }
}
