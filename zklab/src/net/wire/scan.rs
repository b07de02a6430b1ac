//! Reading messages that come in any cut: gather a few bytes, skip many, say what was found.
//!
//! A [`Scanner`] holds at most [`HELD_MAX`] bytes whatever the length of a message. What the bytes mean
//! is the [`Grammar`]'s business.

use std::ops::ControlFlow;

use super::{Name, What, ballot, quorum};

/// The most bytes that are ever gathered.
pub(super) const HELD_MAX: usize = 48;

/// What a message is, known before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) name: Name,
    pub(super) zxid: i64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Nothing yet.
    Nothing,
    /// The beginning of a message that can be told apart.
    Head(Head),
    /// The end of a message, and what it was if that is of any interest.
    End(Option<What>),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What was found.
    pub(super) item: Item,
    /// Pass over so many bytes …
    pub(super) skip: u64,
    /// … and gather so many.
    pub(super) want: usize,
}

impl Step {
    pub(super) fn skip_and_want(skip: u64, want: usize) -> Self {
        Self {
            item: Item::Nothing,
            skip,
            want,
        }
    }
}

/// The bytes are none of this protocol's; says what is wrong.
pub(super) type Senseless = &'static str;

/// A protocol.
#[derive(Clone, Debug)]
pub(super) enum Grammar {
    /// The quorum port.
    Quorum(quorum::State),
    /// The election port.
    Election(ballot::State),
}

impl Grammar {
    /// At the beginning of a connection's direction; `dials` if its sender connected.
    pub(super) fn first(election: bool, dials: bool) -> Self {
        if election {
            Self::Election(ballot::State::first(dials))
        } else {
            Self::Quorum(quorum::State::HEAD)
        }
    }

    /// At the beginning of a message in the middle of a connection.
    pub(super) fn between(election: bool) -> Self {
        Self::first(election, false)
    }

    fn want(&self) -> usize {
        match self {
            Self::Quorum(_) => quorum::HEAD_BYTES,
            Self::Election(state) => state.want(),
        }
    }

    fn on_bytes(&mut self, bytes: &[u8]) -> Result<Step, Senseless> {
        match self {
            Self::Quorum(state) => state.on_bytes(bytes),
            Self::Election(state) => state.on_bytes(bytes),
        }
    }

    /// Could what comes now be a message with a name?
    fn names_come(&self) -> bool {
        match self {
            Self::Quorum(state) => *state == quorum::State::HEAD,
            Self::Election(state) => state.names_come(),
        }
    }
}

/// How far a piece of input was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fed {
    /// To its end.
    All,
    /// The message that begins here was not wanted; counted from the begin of the piece, below 0 if the
    /// message began before it. The scanner stands before that message again.
    Stopped(i64),
    /// It makes no sense.
    Senseless(Senseless),
}

/// Reads the messages of one direction.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    grammar: Grammar,
    held: Vec<u8>,
    skip: u64,
    want: usize,
    /// Bytes of the present message that were read.
    length: u64,
}

impl Scanner {
    /// Before the first byte that `grammar` expects.
    pub(super) fn new(grammar: Grammar) -> Self {
        let want = grammar.want();
        Self {
            grammar,
            held: Vec::with_capacity(HELD_MAX),
            skip: 0,
            want,
            length: 0,
        }
    }

    /// Reads on. `tell` hears of each item with the bytes that its message has had so far, and may break at a
    /// head.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut tell: impl FnMut(Item, u64) -> ControlFlow<()>,
    ) -> Fed {
        let mut rest = bytes;
        loop {
            let skipped = usize::try_from(self.skip)
                .unwrap_or(usize::MAX)
                .min(rest.len());
            rest = &rest[skipped..];
            self.skip -= skipped as u64;
            self.length += skipped as u64;
            if self.skip > 0 || (rest.is_empty() && self.held.len() < self.want) {
                return Fed::All;
            }
            let missing = self.want - self.held.len();
            let step = if self.held.is_empty() && rest.len() >= self.want {
                self.grammar.on_bytes(&rest[..self.want])
            } else {
                let taken = missing.min(rest.len());
                self.held.extend_from_slice(&rest[..taken]);
                if taken < missing {
                    self.length += taken as u64;
                    return Fed::All;
                }
                self.grammar.on_bytes(&self.held)
            };
            rest = &rest[missing..];
            self.length += missing as u64;
            self.held.clear();
            let step = match step {
                Ok(step) => step,
                Err(why) => return Fed::Senseless(why),
            };
            self.skip = step.skip;
            self.want = step.want;
            let flow = match step.item {
                Item::Nothing => ControlFlow::Continue(()),
                item => tell(item, self.length),
            };
            match step.item {
                Item::End(_) => self.length = 0,
                Item::Head(_) if flow.is_break() => {
                    let read = (bytes.len() - rest.len()) as i64;
                    let begin = read - self.length.cast_signed();
                    self.restart();
                    return Fed::Stopped(begin);
                }
                _ => {}
            }
        }
    }

    /// Forgets what it has of the present message, which comes again from its first byte.
    pub(super) fn restart(&mut self) {
        let election = matches!(self.grammar, Grammar::Election(_));
        *self = Self::new(Grammar::between(election));
    }

    /// How many bytes it has of a message of which it is not known yet what it is.
    pub(super) fn undecided(&self) -> Option<u64> {
        (self.length > 0 && self.grammar.names_come()).then_some(self.length)
    }
}

/// Do these bytes, from the first on, look like whole messages?
pub(super) fn is_plausible(election: bool, bytes: &[u8]) -> bool {
    let mut ends = 0;
    let mut scanner = Scanner::new(Grammar::between(election));
    let fed = scanner.feed(bytes, |item, _| {
        ends += usize::from(matches!(item, Item::End(_)));
        ControlFlow::Continue(())
    });
    fed == Fed::All && ends > 0
}

/// An integer at `at`; the caller has gathered enough.
pub(super) fn int(bytes: &[u8], at: usize) -> i32 {
    bytes
        .get(at..at + 4)
        .and_then(|four| four.first_chunk())
        .map_or(0, |four| i32::from_be_bytes(*four))
}

/// A long at `at`; the caller has gathered enough.
pub(super) fn long(bytes: &[u8], at: usize) -> i64 {
    bytes
        .get(at..at + 8)
        .and_then(|eight| eight.first_chunk())
        .map_or(0, |eight| i64::from_be_bytes(*eight))
}
