//! Judging a history: one small file for each rule.
//!
//! Nothing here searches. Every answer of a ZooKeeper server carries the zxid of the state it was given from, so the
//! order of everything is known, and each rule is a pass over sorted operations. Only the fate of operations that were
//! never answered is open: a value that was seen later settles it, and otherwise both are allowed. Where a client hides
//! the zxid of an answer, `bounds` says between which states it was given, and a rule is broken only if it is broken in
//! each of them.
//!
//! A violation names its rule and the two or three operations that prove it; there is none without such a proof, so
//! that a slow machine can never look like a bug.

mod bounds;
mod children;
mod ephemerals;
mod explain;
mod family;
mod lasting;
mod real_time;
mod rewatch;
mod sequences;
mod session;
mod state;
mod sync;
#[cfg(test)]
mod tests;
mod timeline;
mod watches;

use std::fmt;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::bounds::Bounds;
use self::timeline::Timeline;
use super::history::{History, OpIndex, SessionIndex};

/// What a ZooKeeper ensemble promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The order of zxids is the order of real time, and no two writes share one.
    ZxidOrder,
    /// Every acknowledged write is in the history, once, until the end.
    AckedWrites,
    /// A read shows exactly the state of its zxid.
    Reads,
    /// A session's answers come in the order of its requests and never go back.
    SessionFifo,
    /// A read after a sync shows everything that was acknowledged before the sync.
    Sync,
    /// A watch tells of the first change, or of every one if it stays, before any answer that shows it.
    Watches,
    /// Ephemerals live exactly as long as their session.
    Ephemerals,
    /// Sequence numbers are unique and rise with the zxid.
    Sequences,
    /// A multi happens as a whole or not at all.
    Multi,
}

impl Rule {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 9] = [
        Self::ZxidOrder,
        Self::AckedWrites,
        Self::Reads,
        Self::SessionFifo,
        Self::Sync,
        Self::Watches,
        Self::Ephemerals,
        Self::Sequences,
        Self::Multi,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ZxidOrder => "zxid-order",
            Self::AckedWrites => "acked-writes",
            Self::Reads => "reads",
            Self::SessionFifo => "session-fifo",
            Self::Sync => "sync",
            Self::Watches => "watches",
            Self::Ephemerals => "ephemerals",
            Self::Sequences => "sequences",
            Self::Multi => "multi",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A promise was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// How, in one sentence.
    pub what: String,
    /// The ids of the operations that prove it, the offending one last.
    pub witness: Vec<u32>,
    /// The same as people read them.
    pub lines: Vec<String>,
}

/// What became of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The rule.
    pub rule: Rule,
    /// How many cases were looked at.
    pub cases: u64,
    /// How many broke it.
    pub broken: u64,
}

/// The result.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// One for each rule that was asked for.
    pub rules: Vec<Judged>,
    /// The first violations of each rule.
    pub violations: Vec<Violation>,
    /// What is no bug but should be known.
    pub notes: Vec<String>,
}

impl Verdict {
    /// Nothing was broken.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.rules.iter().all(|judged| judged.broken == 0)
    }
}

/// How many violations of a rule are told in full.
const TOLD_MAX: u64 = 5;

/// Where the rules write what they find.
#[derive(Debug)]
struct Findings<'h> {
    history: &'h History,
    cases: [u64; Rule::ALL.len()],
    broken: [u64; Rule::ALL.len()],
    violations: Vec<Violation>,
    notes: Vec<String>,
}

impl<'h> Findings<'h> {
    fn new(history: &'h History) -> Self {
        Self {
            history,
            cases: [0; Rule::ALL.len()],
            broken: [0; Rule::ALL.len()],
            violations: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Takes over what later rules found.
    fn add(&mut self, later: Self) {
        for rule in 0..Rule::ALL.len() {
            self.cases[rule] += later.cases[rule];
            self.broken[rule] += later.broken[rule];
        }
        for violation in later.violations {
            let of_its_rule = |told: &&Violation| told.rule == violation.rule;
            if (self.violations.iter().filter(of_its_rule).count() as u64) < TOLD_MAX {
                self.violations.push(violation);
            }
        }
        self.notes.extend(later.notes);
    }

    fn looked(&mut self, rule: Rule) {
        self.cases[rule as usize] += 1;
    }

    /// The witnesses stand in the order of the story; an end state has no operation and comes as text.
    fn broken(&mut self, rule: Rule, what: impl FnOnce() -> String, witness: &[OpIndex]) {
        self.broken[rule as usize] += 1;
        if self.broken[rule as usize] > TOLD_MAX {
            return;
        }
        let mut seen: Vec<OpIndex> = Vec::new();
        for op in witness {
            if !seen.contains(op) {
                seen.push(*op);
            }
        }
        let ops = seen.iter().map(|op| &self.history.ops[op.at()]);
        self.violations.push(Violation {
            rule,
            what: what(),
            witness: ops.clone().map(|op| op.id).collect(),
            lines: ops.map(|op| explain::op(self.history, op)).collect(),
        });
    }
}

/// The operations of each session in the order in which they were answered; those that never were are left out.
#[derive(Debug)]
struct Sessions {
    ops: Vec<Vec<OpIndex>>,
}

impl Sessions {
    fn of(history: &History) -> Self {
        let count = history.sessions.len();
        let mut ops: Vec<Vec<OpIndex>> = vec![Vec::new(); count];
        // A file written by one writer is in order already.
        let mut last = vec![(0, 0); count];
        let mut is_sorted = vec![true; count];
        let answered = history.ops.iter().enumerate();
        for (index, op) in answered.filter(|(_, op)| op.is_answered()) {
            let session = op.session.0 as usize;
            let place = (op.conn, op.pos);
            is_sorted[session] &= last[session] <= place;
            last[session] = place;
            ops[session].push(op_index(index));
        }
        for (ops, _) in ops.iter_mut().zip(is_sorted).filter(|(_, sorted)| !sorted) {
            ops.sort_by_key(|op| (history.ops[op.at()].conn, history.ops[op.at()].pos));
        }
        Self { ops }
    }

    fn iter(&self) -> impl Iterator<Item = (SessionIndex, &[OpIndex])> {
        self.ops.iter().enumerate().map(|(index, ops)| {
            let index = u32::try_from(index).expect("sessions are counted in 32 bits");
            (SessionIndex(index), ops.as_slice())
        })
    }
}

fn op_index(index: usize) -> OpIndex {
    OpIndex(u32::try_from(index).expect("a history has fewer than 2^32 operations"))
}

/// Everything that the rules look things up in.
struct Known<'h> {
    sessions: &'h Sessions,
    answers: &'h real_time::Answers,
    timeline: &'h Timeline<'h>,
}

/// A pass over the history.
type Pass = fn(&Known<'_>, &mut Findings<'_>);

/// All of them, in the order in which their findings are told.
const PASSES: [Pass; 8] = [
    |known, findings| real_time::check(known.timeline, known.answers, findings),
    |known, findings| state::check(known.timeline, findings),
    |known, findings| session::check(known.sessions, known.timeline, findings),
    |known, findings| session::moved(known.timeline, findings),
    |known, findings| sync::check(known.sessions, known.timeline, known.answers, findings),
    |known, findings| watches::check(known.sessions, known.timeline, findings),
    |known, findings| ephemerals::check(known.timeline, findings),
    |known, findings| sequences::check(known.timeline, findings),
];

/// More threads would wait for the longest pass.
const THREADS_MAX: usize = 4;

/// All passes, each by whichever thread is free; what they find is told as if there were one.
fn all_passes<'h>(known: &Known<'h>, history: &'h History) -> Findings<'h> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        // From the end of the list: the long passes are there or in the middle, and a short one is good for the end.
        while let Some(pass) = PASSES
            .len()
            .checked_sub(next.fetch_add(1, Ordering::Relaxed) + 1)
        {
            let mut findings = Findings::new(history);
            PASSES[pass](known, &mut findings);
            done.push((pass, findings));
        }
        done
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut done = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(THREADS_MAX))
            .map(|_| scope.spawn(work))
            .collect();
        let mut done = work();
        for other in others {
            done.extend(joined(other));
        }
        done
    });
    done.sort_by_key(|(pass, _)| *pass);
    let mut all = Findings::new(history);
    for (_, findings) in done {
        all.add(findings);
    }
    all
}

/// What a thread leaves; its panic, if it has one, goes on here.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(left) => left,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Judges a history by these rules.
#[must_use]
pub fn judge(history: &History, rules: &[Rule]) -> Verdict {
    let sessions = Sessions::of(history);
    let bounds = Bounds::of(history, &sessions);
    let (answers, begun) = thread::scope(|scope| {
        let answers = scope.spawn(|| real_time::Answers::of(history, &bounds));
        let begun = Timeline::begun(history, &bounds);
        (joined(answers), begun)
    });
    let timeline = begun.finished(&answers);
    let known = Known {
        sessions: &sessions,
        answers: &answers,
        timeline: &timeline,
    };
    let findings = all_passes(&known, history);
    let wanted = |rule: &Rule| rules.contains(rule);
    Verdict {
        rules: Rule::ALL
            .into_iter()
            .filter(wanted)
            .map(|rule| Judged {
                rule,
                cases: findings.cases[rule as usize],
                broken: findings.broken[rule as usize],
            })
            .collect(),
        violations: findings
            .violations
            .into_iter()
            .filter(|violation| wanted(&violation.rule))
            .collect(),
        notes: findings.notes,
    }
}
