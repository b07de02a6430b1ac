//! One direction of one connection: its bytes in order, and the messages in them.
//!
//! Where bytes are missing for good, the reader waits for a segment that looks like the beginning of a
//! message (servers write messages whole) and goes on there; after [`ASTRAY_BYTES_MAX`] it gives up and
//! says so.

use std::ops::ControlFlow;

use super::scan::{Fed, Grammar, Head, Item, Scanner, Senseless, is_plausible};
use super::stream::{Place, Stream, ahead};
use super::{Ending, What};

/// After so many bytes without a recognizable message the direction is given up.
pub(super) const ASTRAY_BYTES_MAX: u64 = 8 << 20;

const MIDDLE: Senseless = "it was joined in its middle";
const LOST: Senseless = "some of its bytes were not seen";

/// How far the reader is.
#[derive(Debug)]
enum Reader {
    /// It knows where it is.
    Follows(Scanner),
    /// It has passed over so many bytes since it lost its way, for this reason.
    Astray(u64, Senseless),
    /// It gave up, or the direction ended.
    Done,
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was read.
    Read,
    /// The message that begins at this sequence number was refused; the reader stands before it.
    Refused(u32),
}

/// One direction of one connection.
#[derive(Debug)]
pub(super) struct Flow {
    election: bool,
    stream: Stream,
    reader: Reader,
    /// A whole message was read.
    makes_sense: bool,
    /// The sequence number behind the last byte, once its sender has closed.
    fin: Option<u32>,
    /// When something came last.
    pub(super) used_us: u64,
}

/// What is found is told to this, with the bytes of the message.
pub(super) type Tell<'a> = &'a mut dyn FnMut(What, u64);
/// Is asked about the head of every message; true refuses it.
pub(super) type Judge<'a> = &'a mut dyn FnMut(&Head) -> bool;

impl Flow {
    /// From its first byte, at `seq`; `dials` if its sender connects.
    pub(super) fn opened(election: bool, dials: bool, seq: u32) -> Self {
        Self {
            election,
            stream: Stream::begin(seq),
            reader: Reader::Follows(Scanner::new(Grammar::first(election, dials))),
            makes_sense: false,
            fin: None,
            used_us: 0,
        }
    }

    /// From somewhere in its middle.
    pub(super) fn joined(election: bool) -> Self {
        Self {
            election,
            stream: Stream::default(),
            reader: Reader::Astray(0, MIDDLE),
            makes_sense: false,
            fin: None,
            used_us: 0,
        }
    }

    /// The sequence number of the next byte, if the reader knows where it is.
    pub(super) fn next(&self) -> Option<u32> {
        matches!(self.reader, Reader::Follows(_))
            .then(|| self.stream.next())
            .flatten()
    }

    /// Copies of some bytes were lost.
    pub(super) fn miss(&mut self) {
        self.stream.forget();
        if !matches!(self.reader, Reader::Done) {
            self.reader = Reader::Astray(0, LOST);
        }
    }

    /// Reads a segment. What waited for it is read too, but `judge` is not asked about that.
    pub(super) fn take(
        &mut self,
        seq: u32,
        payload: &[u8],
        judge: Judge<'_>,
        tell: Tell<'_>,
    ) -> Taken {
        match self.stream.offer(seq, payload) {
            Place::Next(skip) => {
                let at = seq.wrapping_add(skip as u32);
                if let Some(begin) = self.read(&payload[skip..], judge, tell) {
                    let refused = at.wrapping_add(begin as u32);
                    self.stream.rewind(refused);
                    return Taken::Refused(refused);
                }
            }
            Place::Old | Place::Late => return Taken::Read,
            Place::Gap => self.lose_the_way(LOST),
        }
        while let Some(late) = self.stream.next_late() {
            self.read(&late, &mut |_| false, tell);
        }
        Taken::Read
    }

    /// Its sender has closed or broken it off, behind a segment that ends at `seq`.
    pub(super) fn end(&mut self, ending: Ending, seq: u32, tell: Tell<'_>) {
        self.fin.get_or_insert(seq);
        self.end_if_read(ending, tell);
    }

    /// Closed and read to its end? Only then it is over, or a segment that was overtaken is missed.
    pub(super) fn end_if_read(&mut self, ending: Ending, tell: Tell<'_>) {
        let is_read = match (self.fin, self.stream.next()) {
            (Some(fin), Some(next)) => ahead(next, fin) >= 0,
            (fin, _) => fin.is_some(),
        };
        if matches!(self.reader, Reader::Done) || !(is_read || ending == Ending::Rst) {
            return;
        }
        self.reader = Reader::Done;
        tell(What::Closed(ending), 0);
    }

    /// It has been told to be closed, but something is still to come.
    pub(super) fn is_closing(&self) -> bool {
        self.fin.is_some()
    }

    /// The first byte of a message of which too little was read to say what it is.
    pub(super) fn undecided(&self) -> Option<u32> {
        let Reader::Follows(scanner) = &self.reader else {
            return None;
        };
        let length = scanner.undecided()?;
        Some(self.stream.next()?.wrapping_sub(length as u32))
    }

    /// Stands before a byte again that was read: the first one of a message.
    pub(super) fn rewind(&mut self, seq: u32) {
        self.stream.rewind(seq);
        if let Reader::Follows(scanner) = &mut self.reader {
            scanner.restart();
        }
    }

    /// Reads bytes that come next; where a refused message begins, counted from the first of them.
    fn read(&mut self, bytes: &[u8], judge: Judge<'_>, tell: Tell<'_>) -> Option<i64> {
        if let Reader::Astray(passed, why) = &mut self.reader {
            if !is_plausible(self.election, bytes) {
                *passed += bytes.len() as u64;
                if *passed > ASTRAY_BYTES_MAX {
                    let why = *why;
                    self.reader = Reader::Done;
                    tell(What::Unreadable(why), 0);
                }
                return None;
            }
            self.reader = Reader::Follows(Scanner::new(Grammar::between(self.election)));
            tell(What::Missed, 0);
        }
        let Reader::Follows(scanner) = &mut self.reader else {
            return None;
        };
        let makes_sense = &mut self.makes_sense;
        let fed = scanner.feed(bytes, |item, length| {
            match item {
                Item::Head(head) if judge(&head) => return ControlFlow::Break(()),
                Item::End(what) => {
                    *makes_sense = true;
                    if let Some(what) = what {
                        tell(what, length);
                    }
                }
                Item::Head(_) | Item::Nothing => {}
            }
            ControlFlow::Continue(())
        });
        match fed {
            Fed::All => None,
            Fed::Stopped(begin) => Some(begin),
            Fed::Senseless(why) if self.makes_sense => {
                self.lose_the_way(why);
                None
            }
            // From the very first byte: this is another protocol.
            Fed::Senseless(why) => {
                self.reader = Reader::Done;
                tell(What::Unreadable(why), 0);
                None
            }
        }
    }

    fn lose_the_way(&mut self, why: Senseless) {
        if !matches!(self.reader, Reader::Done) {
            self.reader = Reader::Astray(0, why);
        }
    }
}
