//! Values by number. Unlike a slab it never moves what is in it: growing copies nothing, and leaves no hole in the
//! heap that is as large as what grew.

use alloc::vec::Vec;

/// Places of the first chunk; each further one has twice as many.
const FIRST: u32 = 64;

#[derive(Debug)]
pub(super) struct Arena<T> {
    /// None of them ever grows beyond its capacity.
    chunks: Vec<Vec<Place<T>>>,
    len: usize,
    /// The first free place; [`NONE`] if all that there are are taken.
    free: u32,
}

#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// The next free place.
    Free(u32),
}

const NONE: u32 = u32::MAX;

/// The chunk of a place, and where in it.
#[inline]
fn at(number: u32) -> (usize, usize) {
    // Numbers end well below 2^32 - 64: memory would end before.
    let number = number.saturating_add(FIRST);
    let chunk = number.ilog2() - FIRST.ilog2();
    (chunk as usize, (number - (FIRST << chunk)) as usize)
}

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0, free: NONE }
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// One above the highest number there ever was.
    pub(super) fn places(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Puts a value in and tells its number.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        let (chunk, place) = at(self.free);
        if let Some(place) = self.chunks.get_mut(chunk).and_then(|chunk| chunk.get_mut(place)) {
            let number = self.free;
            if let Place::Free(next) = core::mem::replace(place, Place::Taken(value)) {
                self.free = next;
            }
            return number;
        }
        let number = u32::try_from(self.places()).unwrap_or(NONE);
        let (chunk, _) = at(number);
        if self.chunks.len() <= chunk {
            self.chunks.push(Vec::with_capacity((FIRST as usize) << chunk));
        }
        if let Some(chunk) = self.chunks.get_mut(chunk) {
            chunk.push(Place::Taken(value));
        }
        number
    }

    pub(super) fn remove(&mut self, number: u32) {
        let (chunk, place) = at(number);
        let Some(place) = self.chunks.get_mut(chunk).and_then(|chunk| chunk.get_mut(place)) else { return };
        if matches!(place, Place::Taken(_)) {
            *place = Place::Free(self.free);
            self.free = number;
            self.len -= 1;
        }
    }

    /// Gives back the chunks at the end in which nothing is, if more than half of all places are free. So what takes
    /// their numbers next fits into the others.
    pub(super) fn shrink(&mut self) {
        let before = self.chunks.len();
        while self.len <= self.places() / 2
            && self.chunks.len() > 1
            && let Some(last) = self.chunks.last()
            && last.iter().all(|place| matches!(place, Place::Free(_)))
        {
            self.chunks.pop();
        }
        if self.chunks.len() == before {
            return;
        }
        self.chunks.shrink_to_fit();
        // The list of free places went through those that are gone.
        self.free = NONE;
        let places = self.chunks.iter_mut().flatten();
        for (number, place) in (0..).zip(places) {
            if matches!(place, Place::Free(_)) {
                *place = Place::Free(self.free);
                self.free = number;
            }
        }
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let (chunk, place) = at(number);
        match self.chunks.get(chunk)?.get(place)? {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        let (chunk, place) = at(number);
        match self.chunks.get_mut(chunk)?.get_mut(place)? {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_given_again_and_find_their_values() {
        let mut arena = Arena::new();
        for n in 0..1000 {
            assert_eq!(arena.insert(n), n);
        }
        assert!((0..1000).all(|n| arena.get(n) == Some(&n)));
        for n in (0..1000).step_by(3) {
            arena.remove(n);
            arena.remove(n);
            assert_eq!(arena.get(n), None);
        }
        let again: Vec<u32> = (0..334).map(|n| arena.insert(n)).collect();
        assert!(again.iter().all(|n| n % 3 == 0), "{again:?}");
        assert_eq!((arena.len(), arena.places()), (1000, 1000));
        assert_eq!((arena.insert(7), arena.get(2000), arena.get(NONE)), (1000, None, None));
        if let Some(value) = arena.get_mut(1000) {
            *value += 1;
        }
        assert_eq!(arena.get(1000), Some(&8));
    }

    #[test]
    fn free_chunks_at_the_end_go_and_the_rest_keeps_its_numbers() {
        let mut arena = Arena::new();
        assert!((0..1000).all(|n| arena.insert(n) == n));
        (200..1000).for_each(|n| arena.remove(n));
        arena.remove(70);
        arena.shrink();
        assert_eq!((arena.len(), arena.places()), (199, 448), "chunks of 64, 128 and 256");
        assert!((0..200).filter(|n| *n != 70).all(|n| arena.get(n) == Some(&n)));
        let mut again: Vec<u32> = (0..249).map(|n| arena.insert(n)).collect();
        assert_eq!((arena.places(), arena.insert(0)), (448, 448));
        again.sort_unstable();
        assert!(again.iter().copied().eq([70].into_iter().chain(200..448)), "{again:?}");
        arena.shrink();
        assert_eq!(arena.places(), 449, "nothing is free");
    }
}
