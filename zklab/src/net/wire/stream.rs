//! The bytes of one direction of a connection, put back in order.
//!
//! Segments come late, twice, or overlapping others; the reader gets every byte once and in order. What
//! waits for a missing piece is bounded; when that is too much, or when copies are known to be lost, the
//! piece is given up and the stream goes on behind it.

/// So many bytes wait for a missing piece before it is given up.
pub(super) const LATE_BYTES_MAX: usize = 1 << 20;
/// And so many segments.
pub(super) const LATE_SEGMENTS_MAX: usize = 1024;

/// What became of a segment that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its bytes from this one on come next.
    Next(usize),
    /// All of it was read before.
    Old,
    /// Something is missing before it; it waits.
    Late,
    /// Too much waits: what is missing is given up. Ask for the bytes that waited.
    Gap,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The sequence number of the next byte; `None` until a segment was seen.
    next: Option<u32>,
    /// Segments that wait, each once.
    late: Vec<(u32, Vec<u8>)>,
    late_bytes: usize,
}

/// How far `a` is behind `b`, both being sequence numbers of one stream.
pub(super) fn ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

impl Stream {
    /// It begins at this sequence number.
    pub(super) fn begin(seq: u32) -> Self {
        Self {
            next: Some(seq),
            ..Self::default()
        }
    }

    /// The sequence number of the next byte, if it is known.
    pub(super) fn next(&self) -> Option<u32> {
        self.next
    }

    /// The next byte is this one again, whatever was read; what waits is forgotten.
    pub(super) fn rewind(&mut self, seq: u32) {
        *self = Self::begin(seq);
    }

    /// Some bytes will never come: whatever comes first now is next.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Where a segment belongs. The caller reads its bytes if they come next, and then those of
    /// [`Self::next_late`].
    pub(super) fn offer(&mut self, seq: u32, payload: &[u8]) -> Place {
        let next = *self.next.get_or_insert(seq);
        let before = ahead(next, seq);
        if let Ok(skip) = usize::try_from(before) {
            if skip >= payload.len() {
                return Place::Old;
            }
            self.next = Some(seq.wrapping_add(payload.len() as u32));
            return Place::Next(skip);
        }
        if self
            .late
            .iter()
            .any(|(other, bytes)| *other == seq && bytes.len() >= payload.len())
        {
            return Place::Late;
        }
        self.late.push((seq, payload.to_vec()));
        self.late_bytes += payload.len();
        if self.late_bytes <= LATE_BYTES_MAX && self.late.len() <= LATE_SEGMENTS_MAX {
            return Place::Late;
        }
        let first = self.late.iter().map(|(seq, _)| *seq);
        self.next = first.min_by_key(|seq| ahead(*seq, next));
        Place::Gap
    }

    /// Bytes that waited and come next now; again and again until there are none.
    pub(super) fn next_late(&mut self) -> Option<Vec<u8>> {
        // Nearly always nothing waits.
        if self.late.is_empty() {
            return None;
        }
        let next = self.next?;
        let mut found = None;
        let mut bytes = 0;
        self.late.retain_mut(|(seq, payload)| {
            let skip = ahead(next, *seq);
            let Ok(skip) = usize::try_from(skip) else {
                bytes += payload.len();
                return true;
            };
            if skip < payload.len() && found.is_none() {
                payload.drain(..skip);
                found = Some(std::mem::take(payload));
                return false;
            }
            // Read already, or it overlaps the one just found: then it is looked at again.
            let again = skip < payload.len();
            bytes += if again { payload.len() } else { 0 };
            again
        });
        self.late_bytes = bytes;
        let found = found?;
        self.next = Some(next.wrapping_add(found.len() as u32));
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkd::prng::Prng;

    fn read(stream: &mut Stream, seq: u32, payload: &[u8], into: &mut Vec<u8>) -> Place {
        let place = stream.offer(seq, payload);
        if let Place::Next(skip) = place {
            into.extend(&payload[skip..]);
        }
        while let Some(late) = stream.next_late() {
            into.extend(late);
        }
        place
    }

    #[test]
    fn every_byte_is_read_once_and_in_order_whatever_comes_how() {
        for seed in 0..300 {
            let mut chances = Prng::new(seed);
            let whole: Vec<u8> = (0..2000).map(|_| chances.below(256) as u8).collect();
            // Around the end of the sequence numbers.
            let first = u32::MAX - 700;
            let mut stream = Stream::begin(first);
            let mut got = Vec::new();
            // Random pieces: repeated, overlapping, in any order; what is missing comes at last.
            for _ in 0..60 {
                let from = chances.below(2000) as usize;
                let to = (from + 1 + chances.below(200) as usize).min(2000);
                let seq = first.wrapping_add(from as u32);
                read(&mut stream, seq, &whole[from..to], &mut got);
                assert_eq!(got, whole[..got.len()], "seed {seed}");
            }
            for from in (0..2000).step_by(100) {
                let seq = first.wrapping_add(from as u32);
                read(&mut stream, seq, &whole[from..from + 100], &mut got);
            }
            assert_eq!(got, whole, "seed {seed}");
            assert_eq!((stream.late.len(), stream.late_bytes), (0, 0));
        }
    }

    #[test]
    fn what_is_missing_for_too_long_is_given_up() {
        let mut stream = Stream::begin(0);
        let piece = vec![7; 100 << 10];
        let mut got = Vec::new();
        let places: Vec<Place> = (0..11)
            .map(|n| read(&mut stream, 5 + n * (100 << 10), &piece, &mut got))
            .collect();
        assert!(places[..10].iter().all(|place| *place == Place::Late));
        assert_eq!(places[10], Place::Gap);
        assert_eq!(got.len(), 11 * (100 << 10));
        assert_eq!(read(&mut stream, 0, b"12345", &mut got), Place::Old);
    }

    #[test]
    fn a_stream_seen_from_its_middle_begins_with_what_comes_first() {
        let mut stream = Stream::default();
        assert_eq!(stream.offer(1000, b"abc"), Place::Next(0));
        assert_eq!(stream.next(), Some(1003));
        stream.forget();
        assert_eq!(stream.offer(9, b"abc"), Place::Next(0));
        stream.rewind(10);
        assert_eq!(stream.offer(9, b"abc"), Place::Next(1));
    }
}
