//! Names and data of all znodes, in slots of a few sizes.
//!
//! A general allocator spends about 20 bytes on each of a million small values and gives them back one
//! by one; here a value costs its bytes rounded up to 8, and a whole tree is dropped in a few thousand
//! frees. Slots are reused, chunks are kept until the tree goes. Large values are allocated singly.

use super::arena::NodeId;

/// The largest value that lives in a slot.
const SLOT_MAX: usize = 4096;
/// Up to here sizes go by 8, above by 64.
const FINE_MAX: usize = 512;
/// Bytes per chunk, about.
const CHUNK_LEN: usize = 1 << 15;
/// A class has so many of those, and then chunks that are as many times as large: beyond the first half megabyte the
/// system is asked for memory so much less often, which two threads of one process that grow both have to wait for.
const SMALL_CHUNKS: usize = 16;

/// Where a value is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    len: u32,
    index: u32,
}

/// All values.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    classes: Vec<Class>,
    large: Vec<Box<[u8]>>,
    large_free: Vec<u32>,
}

/// Slots of one size.
#[derive(Debug)]
struct Class {
    size: usize,
    /// A small chunk has `1 << bits` slots.
    bits: u32,
    chunks: Vec<Box<[u8]>>,
    /// Slots ever used.
    used: u32,
    free: Vec<u32>,
}

impl Payloads {
    /// Stores the concatenation of `parts`.
    pub(super) fn insert(&mut self, parts: [&[u8]; 3]) -> Place {
        let len = parts.iter().map(|part| part.len()).sum();
        let place = self.reserve(len);
        let mut rest = self.get_mut(place);
        for part in parts {
            let (head, tail) = rest.split_at_mut(part.len());
            head.copy_from_slice(part);
            rest = tail;
        }
        place
    }

    pub(super) fn get(&self, place: Place) -> &[u8] {
        let len = place.len as usize;
        if len > SLOT_MAX {
            return &self.large[place.index as usize];
        }
        if len == 0 {
            return &[];
        }
        let class = &self.classes[class_of(len)];
        let (chunk, at) = class.position(place.index);
        &class.chunks[chunk][at..at + len]
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut [u8] {
        let len = place.len as usize;
        if len > SLOT_MAX {
            return &mut self.large[place.index as usize];
        }
        if len == 0 {
            return &mut [];
        }
        let class = &mut self.classes[class_of(len)];
        let (chunk, at) = class.position(place.index);
        &mut class.chunks[chunk][at..at + len]
    }

    pub(super) fn remove(&mut self, place: Place) {
        let len = place.len as usize;
        if len > SLOT_MAX {
            self.large[place.index as usize] = Box::default();
            self.large_free.push(place.index);
        } else if len > 0 {
            self.classes[class_of(len)].free.push(place.index);
        }
    }

    /// Length of the value at `place`.
    pub(super) fn len(place: Place) -> usize {
        place.len as usize
    }

    fn reserve(&mut self, len: usize) -> Place {
        let short = u32::try_from(len).expect("names and data are shorter than their frame");
        let index = if len > SLOT_MAX {
            let value = vec![0; len].into_boxed_slice();
            if let Some(index) = self.large_free.pop() {
                self.large[index as usize] = value;
                index
            } else {
                self.large.push(value);
                NodeId::try_from(self.large.len() - 1).expect("no more values than znodes")
            }
        } else if len == 0 {
            0
        } else {
            let class = class_of(len);
            while self.classes.len() <= class {
                self.classes.push(Class::new(self.classes.len()));
            }
            self.classes[class].reserve()
        };
        Place { len: short, index }
    }
}

impl Class {
    fn new(class: usize) -> Self {
        let size = size_of_class(class);
        Self {
            size,
            bits: (CHUNK_LEN / size).ilog2(),
            chunks: Vec::new(),
            used: 0,
            free: Vec::new(),
        }
    }

    fn reserve(&mut self) -> u32 {
        if let Some(index) = self.free.pop() {
            return index;
        }
        let index = self.used;
        self.used += 1;
        if self.position(index).0 == self.chunks.len() {
            let is_small = self.chunks.len() < SMALL_CHUNKS;
            let small_chunks = if is_small { 1 } else { SMALL_CHUNKS };
            let chunk = vec![0; (self.size << self.bits) * small_chunks];
            self.chunks.push(chunk.into_boxed_slice());
        }
        index
    }

    /// Chunk and offset of a slot.
    fn position(&self, index: u32) -> (usize, usize) {
        let index = index as usize;
        let small = index >> self.bits;
        if small < SMALL_CHUNKS {
            return (small, (index & ((1 << self.bits) - 1)) * self.size);
        }
        let slots = SMALL_CHUNKS << self.bits;
        (SMALL_CHUNKS - 1 + index / slots, index % slots * self.size)
    }
}

fn class_of(len: usize) -> usize {
    if len <= FINE_MAX {
        len.div_ceil(8) - 1
    } else {
        FINE_MAX / 8 - 1 + (len - FINE_MAX).div_ceil(64)
    }
}

fn size_of_class(class: usize) -> usize {
    let fine = FINE_MAX / 8;
    if class < fine {
        (class + 1) * 8
    } else {
        FINE_MAX + (class + 1 - fine) * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    #[test]
    fn every_length_has_a_class_that_holds_it() {
        for len in 1..=SLOT_MAX {
            let size = size_of_class(class_of(len));
            assert!(size >= len && size - len < 64, "{len} in {size}");
        }
    }

    #[test]
    fn a_class_that_has_become_large_grows_in_large_chunks() {
        let mut store = Payloads::default();
        for len in [SLOT_MAX, 400] {
            let small = (CHUNK_LEN / size_of_class(class_of(len))).next_power_of_two() as u32;
            let count = small * SMALL_CHUNKS as u32 * 3;
            let value = |number: u32| [&number.to_be_bytes()[..], &vec![1; len - 4]].concat();
            let places: Vec<Place> = (0..count)
                .map(|number| store.insert([&value(number), &[], &[]]))
                .collect();
            for (place, number) in places.iter().zip(0..) {
                assert!(store.get(*place) == value(number), "{number} of {len}");
            }
            let chunks = &store.classes[class_of(len)].chunks;
            assert!(chunks[SMALL_CHUNKS - 1].len() <= CHUNK_LEN);
            assert_eq!(chunks[SMALL_CHUNKS].len(), chunks[0].len() * SMALL_CHUNKS);
            assert!(chunks.len() > SMALL_CHUNKS + 1);
        }
    }

    #[test]
    fn values_stay_what_they_are_while_others_come_and_go() {
        let mut prng = Prng::new(7);
        let mut store = Payloads::default();
        let mut values: Vec<(Place, Vec<u8>)> = Vec::new();
        for round in 0..20_000 {
            if !values.is_empty() && prng.one_in(3) {
                let at = prng.below(values.len() as u64) as usize;
                let (place, value) = values.swap_remove(at);
                assert_eq!(store.get(place), value);
                store.remove(place);
            } else {
                let len_max = *prng.pick(&[3, 40, 600, 9000]);
                let len = prng.below(len_max) as usize;
                let value = vec![round as u8; len];
                let cut = len / 3;
                let place = store.insert([&value[..cut], &[], &value[cut..]]);
                values.push((place, value));
            }
        }
        for (place, value) in &values {
            assert_eq!(store.get(*place), value);
        }
    }
}
