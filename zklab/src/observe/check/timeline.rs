//! What became of every znode: all changes that are known to have happened, by path and zxid.
//!
//! Acknowledged writes are known. An operation that was never answered is known to have happened if somebody saw its
//! value: the Stat beside the value says at which zxid. A closed session has deleted its ephemerals. Whatever else may
//! have happened is in `doubts`. A delete whose zxid nobody told has happened, somewhere between two states: it is in
//! `deletes`.

use hashbrown::HashMap;
use std::sync::OnceLock;

use zkd::ids::Zxid;

use super::bounds::{Bounds, Span};
use super::family::Family;
use super::op_index;
use super::real_time::Answers;
use crate::observe::history::{History, Kind, Op, OpIndex, Outcome, PathId};

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Made the znode.
    Born,
    /// Replaced its data; the version after it, -1 if not known.
    Set(i32),
    /// Deleted it.
    Gone,
}

/// A change of one znode.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mutation {
    pub(super) path: PathId,
    pub(super) zxid: Zxid,
    pub(super) op: OpIndex,
    pub(super) change: Change,
}

/// All of them, and where to find them.
#[derive(Debug)]
pub(super) struct Timeline<'h> {
    pub(super) history: &'h History,
    pub(super) bounds: &'h Bounds,
    /// By path, then zxid.
    mutations: Vec<Mutation>,
    /// For each mutation the place of the create that it rests on.
    births: Vec<Option<u32>>,
    /// Where each path begins, and the end.
    starts: Vec<u32>,
    /// Operations that were never answered but left traces: the zxid they got, and for a sequential create its path.
    settled: HashMap<OpIndex, (Zxid, PathId)>,
    /// The traces that cannot all be true: an operation, and the second zxid at which its value was seen.
    pub(super) doubled: Vec<(OpIndex, Zxid)>,
    /// Operations that may have changed this znode: never answered and left no trace.
    doubts: HashMap<PathId, Vec<OpIndex>>,
    /// Acknowledged deletes of which only the bounds are known.
    deletes: HashMap<PathId, Deletes>,
    /// Operations by id.
    by_id: Vec<u32>,
    /// The acknowledged end of each session.
    closes: Vec<Option<OpIndex>>,
    pub(super) family: Family,
    /// All changes by zxid, when somebody asked for them.
    in_order: OnceLock<Vec<Mutation>>,
    /// What showed itself of each multi, when somebody asked for it.
    shown: OnceLock<HashMap<Zxid, Vec<(PathId, Zxid)>>>,
}

/// No operation has this id.
const NOBODY: u32 = u32::MAX;

/// Deletes of one znode, each of which happened somewhere between two states.
#[derive(Debug, Default)]
struct Deletes {
    /// By `from`, the state before each; with the greatest `to` so far.
    by_from: Vec<(Zxid, Zxid)>,
    /// By `to`, the state behind each; with the greatest `from` so far, and whose it is.
    by_to: Vec<(Zxid, Zxid, OpIndex)>,
}

impl Deletes {
    fn add(&mut self, op: OpIndex, span: Span) {
        self.by_from.push((span.from, span.to));
        self.by_to.push((span.to, span.from, op));
    }

    fn sort(&mut self) {
        self.by_from.sort_unstable();
        let mut greatest = Zxid::ZERO;
        for (_, to) in &mut self.by_from {
            greatest = greatest.max(*to);
            *to = greatest;
        }
        self.by_to.sort_unstable();
        let mut greatest = (Zxid::ZERO, OpIndex(0));
        for (_, from, op) in &mut self.by_to {
            greatest = greatest.max((*from, *op));
            (*from, *op) = greatest;
        }
    }

    /// May one have happened behind one state and not behind another?
    fn between(&self, after: Zxid, until: Zxid) -> bool {
        let count = self.by_from.partition_point(|(from, _)| *from < until);
        self.by_from[..count]
            .last()
            .is_some_and(|(_, to)| *to > after)
    }

    /// One that must have happened between these.
    fn surely_between(&self, born: Zxid, seen: Zxid) -> Option<OpIndex> {
        let count = self.by_to.partition_point(|(to, ..)| *to <= seen);
        let (_, _, op) = self.by_to[..count]
            .last()
            .filter(|(_, from, _)| *from >= born)?;
        Some(*op)
    }
}

impl<'h> Timeline<'h> {
    /// Is the multi that made this change only half there, in a state that misses the change? It is if another of its
    /// znodes shows it in the same epoch or later. What nothing showed since the epoch before is lost, but whole.
    pub(super) fn is_half(&self, missed: &Mutation, state: Zxid) -> bool {
        let shown = self.shown.get_or_init(|| self.shown_of_multis());
        let mut shown = shown.get(&missed.zxid).into_iter().flatten();
        shown.any(|(path, newest)| *path != missed.path && newest.epoch() >= state.epoch())
    }

    /// By the zxid of each multi that took place: what showed it, but for its own answer, and in which state.
    fn shown_of_multis(&self) -> HashMap<Zxid, Vec<(PathId, Zxid)>> {
        let ops = &self.history.ops;
        let multis = (0..ops.len()).filter(|index| ops[*index].kind == Kind::Multi);
        let mut shown: HashMap<_, Vec<_>> = multis
            .filter_map(|index| Some((self.zxid_of(op_index(index))?, Vec::new())))
            .collect();
        let of_ops = ops.iter().filter(|op| op.kind != Kind::Multi);
        let of_ops = of_ops.filter_map(|op| Some((op.target()?, op.czxid, op.mzxid, op.zxid)));
        let finals = self.history.finals.iter();
        let finals = finals.map(|last| (last.path, last.czxid, last.mzxid, last.zxid));
        for (path, czxid, mzxid, state) in of_ops.chain(finals) {
            for zxid in [czxid, mzxid] {
                if let Some(shown) = shown.get_mut(&zxid) {
                    shown.push((path, state.max(zxid)));
                }
            }
        }
        shown
    }

    /// What needs no answers: who wrote what, and which operations left traces. [`Self::finished`] is the rest.
    pub(super) fn begun(history: &'h History, bounds: &'h Bounds) -> Self {
        let mut timeline = Self {
            history,
            bounds,
            mutations: Vec::with_capacity(history.ops.len()),
            births: Vec::new(),
            starts: Vec::new(),
            settled: HashMap::new(),
            doubled: Vec::new(),
            doubts: HashMap::new(),
            deletes: HashMap::new(),
            by_id: by_id(history),
            closes: vec![None; history.sessions.len()],
            family: Family::default(),
            in_order: OnceLock::new(),
            shown: OnceLock::new(),
        };
        timeline.settle();
        timeline
    }

    /// All changes.
    pub(super) fn finished(mut self, answers: &Answers) -> Self {
        self.collect(answers);
        self.sort();
        if self.bury_ephemerals() {
            self.sort();
        }
        let doubtful = self.doubts.keys().chain(self.deletes.keys());
        self.family = Family::of(self.history, &self.mutations, doubtful.copied());
        self
    }

    /// All known changes by zxid.
    pub(super) fn in_order(&self) -> &[Mutation] {
        self.in_order.get_or_init(|| {
            let mut all = self.mutations.clone();
            all.sort_by_key(|m| m.zxid);
            all
        })
    }

    /// The known change of a znode by this txn.
    pub(super) fn exactly_at(&self, path: PathId, zxid: Zxid) -> Option<&Mutation> {
        self.at(path, zxid).filter(|last| last.zxid == zxid)
    }

    /// Looks for the values of operations that were never answered.
    fn settle(&mut self) {
        let seen = self
            .history
            .ops
            .iter()
            .filter(|op| op.kind == Kind::Get && op.outcome == Outcome::Ok)
            .filter_map(|op| Some((op.path?, op.value, op.mzxid)));
        let last = self
            .history
            .finals
            .iter()
            .map(|f| (f.path, f.value, f.mzxid));
        for (path, value, mzxid) in seen.chain(last) {
            let Some(writer) = self.writer(value) else {
                continue;
            };
            let op = &self.history.ops[writer.at()];
            if op.is_answered() || !writes_to(self.history, op, path) {
                continue;
            }
            let (zxid, _) = *self.settled.entry(writer).or_insert((mzxid, path));
            if zxid != mzxid && self.doubled.last().is_none_or(|(last, _)| *last != writer) {
                self.doubled.push((writer, mzxid));
            }
        }
    }

    fn collect(&mut self, answers: &Answers) {
        for (index, op) in self.history.ops.iter().enumerate() {
            let index = op_index(index);
            if op.outcome == Outcome::Ok && op.kind == Kind::Close && op.zxid > Zxid::ZERO {
                self.closes[op.session.0 as usize] = Some(index);
            }
            if !op.kind.is_write() || matches!(op.outcome, Outcome::Failed(_)) {
                continue;
            }
            match self.zxid_of(index) {
                Some(zxid) => self.add(op, index, zxid),
                None if op.outcome == Outcome::Ok => self.add_delete(op, index, answers),
                None => self.doubt(op, index),
            }
        }
        for deletes in self.deletes.values_mut() {
            deletes.sort();
        }
    }

    /// A write without a zxid: only deletes (and closes, which have no znode) are told of in this way.
    fn add_delete(&mut self, op: &Op, index: OpIndex, answers: &Answers) {
        if let Some(path) = op.path.filter(|_| op.kind == Kind::Delete) {
            let mut span = self.bounds.span(self.history, index);
            // What anybody had read before it was sent is older.
            let read = answers.before(op.t0).map_or(Zxid::ZERO, |(zxid, _)| zxid);
            span.from = span.from.max(read);
            self.deletes.entry(path).or_default().add(index, span);
        }
    }

    fn add(&mut self, op: &Op, index: OpIndex, zxid: Zxid) {
        let mut push = |path: Option<PathId>, kind: Kind, version: i32| {
            let change = match kind {
                Kind::Create => Change::Born,
                Kind::Set => Change::Set(version),
                Kind::Delete => Change::Gone,
                _ => return,
            };
            if let Some(path) = path {
                self.mutations.push(Mutation {
                    path,
                    zxid,
                    op: index,
                    change,
                });
            }
        };
        if op.kind == Kind::Multi {
            for part in self.history.parts_of(op) {
                push(Some(part.path), part.kind, part.version);
            }
        } else {
            let settled = self.settled.get(&index).map(|(_, path)| *path);
            push(op.made.or(settled).or(op.path), op.kind, op.version);
        }
    }

    fn doubt(&mut self, op: &Op, index: OpIndex) {
        if op.kind == Kind::Multi {
            for part in self.history.parts_of(op) {
                self.doubts.entry(part.path).or_default().push(index);
            }
        } else if let Some(path) = op.path {
            self.doubts.entry(path).or_default().push(index);
        }
    }

    /// By path, then by zxid. Operations come nearly in the order of their zxids, so there is little to sort when each
    /// path has its own.
    fn sort(&mut self) {
        let mut starts = vec![0_u32; self.history.paths.len() + 1];
        for mutation in &self.mutations {
            starts[mutation.path.0 as usize + 1] += 1;
        }
        for index in 1..starts.len() {
            starts[index] += starts[index - 1];
        }
        let mut next = starts.clone();
        let mut sorted = self.mutations.clone();
        for mutation in &self.mutations {
            let place = &mut next[mutation.path.0 as usize];
            sorted[*place as usize] = *mutation;
            *place += 1;
        }
        for bounds in starts.windows(2) {
            sorted[bounds[0] as usize..bounds[1] as usize].sort_by_key(|m| m.zxid);
        }
        self.mutations = sorted;
        self.starts = starts;
        let mut birth: Option<(PathId, u32)> = None;
        self.births.clear();
        for (index, mutation) in self.mutations.iter().enumerate() {
            if mutation.change == Change::Born {
                birth = Some((mutation.path, op_index(index).0));
            }
            let own = birth.filter(|(path, _)| *path == mutation.path);
            self.births.push(own.map(|(_, index)| index));
        }
    }

    /// A session that ended took its ephemerals along, at the zxid of its end.
    fn bury_ephemerals(&mut self) -> bool {
        let mut buried = Vec::new();
        for pair in 0..self.mutations.len() {
            let born = self.mutations[pair];
            let op = &self.history.ops[born.op.at()];
            if born.change != Change::Born || !op.ephemeral {
                continue;
            }
            let Some(close) = self.closes[op.session.0 as usize] else {
                continue;
            };
            let zxid = self.history.ops[close.at()].zxid;
            // If it may have been deleted before, nobody can say that it went with its session.
            if self.may_be_deleted(born.path, born.zxid, zxid, u64::MAX) {
                continue;
            }
            let deleted = self
                .of_path(born.path)
                .iter()
                .filter(|m| m.zxid > born.zxid)
                .find(|m| !matches!(m.change, Change::Set(_)));
            if deleted.is_none_or(|next| next.zxid > zxid) && zxid > born.zxid {
                let path = born.path;
                buried.push(Mutation {
                    path,
                    zxid,
                    op: close,
                    change: Change::Gone,
                });
            }
        }
        let any = !buried.is_empty();
        self.mutations.append(&mut buried);
        any
    }

    /// The changes of a znode, in order.
    pub(super) fn of_path(&self, path: PathId) -> &[Mutation] {
        let path = path.0 as usize;
        &self.mutations[self.starts[path] as usize..self.starts[path + 1] as usize]
    }

    /// All paths with their changes.
    pub(super) fn paths(&self) -> impl Iterator<Item = &[Mutation]> {
        self.starts
            .windows(2)
            .map(|bounds| &self.mutations[bounds[0] as usize..bounds[1] as usize])
            .filter(|mutations| !mutations.is_empty())
    }

    /// A multi on this znode that was refused between these states.
    pub(super) fn refused_multi(&self, path: PathId, after: Zxid, before: Zxid) -> Option<OpIndex> {
        let history = self.history;
        let found = history.ops.iter().position(|op| {
            op.kind == Kind::Multi
                && op.is_ordered_failure()
                && op.zxid > after
                && op.zxid < before
                && history.parts_of(op).iter().any(|part| part.path == path)
        });
        found.map(op_index)
    }

    /// The last known change up to this state.
    pub(super) fn at(&self, path: PathId, zxid: Zxid) -> Option<&Mutation> {
        let mutations = self.of_path(path);
        let after = mutations.partition_point(|m| m.zxid <= zxid);
        mutations[..after].last()
    }

    /// The first known change after this state.
    pub(super) fn after(&self, path: PathId, zxid: Zxid) -> Option<&Mutation> {
        let mutations = self.of_path(path);
        mutations.get(mutations.partition_point(|m| m.zxid <= zxid))
    }

    /// The known changes behind the first state of a span, up to its last.
    pub(super) fn within(&self, path: PathId, span: Span) -> impl Iterator<Item = &Mutation> {
        let mutations = self.of_path(path);
        let from = mutations.partition_point(|m| m.zxid <= span.from);
        mutations[from..]
            .iter()
            .take_while(move |m| m.zxid <= span.to)
    }

    /// May something unknown have happened to this znode?
    pub(super) fn has_doubts(&self, path: PathId) -> bool {
        self.doubts.contains_key(&path)
    }

    /// May it have been deleted between two states, and by `until`, without anybody knowing just when?
    pub(super) fn may_be_deleted(
        &self,
        path: PathId,
        after: Zxid,
        state: Zxid,
        until: u64,
    ) -> bool {
        if self.was_deleted_between(path, after, state) {
            return true;
        }
        self.doubts_of(path).any(|index| {
            let op = &self.history.ops[index.at()];
            let deletes = op.kind == Kind::Delete
                || self
                    .history
                    .parts_of(op)
                    .iter()
                    .any(|part| part.path == path && part.kind == Kind::Delete);
            deletes && op.t0 <= until
        })
    }

    /// May a delete that has happened at a state that nobody told have happened between these?
    pub(super) fn was_deleted_between(&self, path: PathId, after: Zxid, until: Zxid) -> bool {
        let deletes = self.deletes.get(&path);
        deletes.is_some_and(|deletes| deletes.between(after, until))
    }

    /// A delete that must have happened after a znode of this age was made and before it was seen.
    pub(super) fn surely_deleted(&self, path: PathId, born: Zxid, seen: Zxid) -> Option<OpIndex> {
        self.deletes.get(&path)?.surely_between(born, seen)
    }

    /// The newest state that shows a znode as this answer does.
    pub(super) fn newest_of(&self, index: OpIndex) -> Zxid {
        let op = &self.history.ops[index.at()];
        let to = self.bounds.span(self.history, index).to;
        if op.zxid > Zxid::ZERO || !op.kind.is_read() || op.outcome != Outcome::Ok {
            return to;
        }
        let next = op.path.and_then(|path| match op.kind {
            Kind::Children => self.family.after(path, op.pzxid).map(|(zxid, _)| zxid),
            _ => self.after(path, op.mzxid).map(|next| next.zxid),
        });
        next.map_or(to, |next| to.min(Zxid(next.0 - 1)))
    }

    /// The create behind the znode that is there at this state, if it is known.
    pub(super) fn birth(&self, path: PathId, zxid: Zxid) -> Option<&Mutation> {
        let before = self.of_path(path).partition_point(|m| m.zxid <= zxid);
        let last = (self.starts[path.0 as usize] as usize + before).checked_sub(1)?;
        let birth = self.births[last].filter(|_| before > 0)?;
        self.mutations.get(birth as usize)
    }

    /// The operations that may have changed this znode.
    pub(super) fn doubts_of(&self, path: PathId) -> impl Iterator<Item = OpIndex> {
        self.doubts.get(&path).into_iter().flatten().copied()
    }

    /// The zxid of a write that is known to have happened, or of an ordered failure.
    pub(super) fn zxid_of(&self, index: OpIndex) -> Option<Zxid> {
        let op = &self.history.ops[index.at()];
        match op.outcome {
            Outcome::Ok => Some(op.zxid).filter(|zxid| *zxid > Zxid::ZERO),
            Outcome::Failed(_) => {
                let is_ordered = op.is_ordered_failure() && op.zxid > Zxid::ZERO;
                is_ordered.then_some(op.zxid)
            }
            Outcome::Unknown => self.settled.get(&index).map(|(zxid, _)| *zxid),
        }
    }

    /// The znode that a create made.
    pub(super) fn made_by(&self, index: OpIndex) -> Option<PathId> {
        let op = &self.history.ops[index.at()];
        let settled = self.settled.get(&index).map(|(_, path)| *path);
        op.made.or(settled)
    }

    /// Operations that were never answered and are known to have happened; in no order.
    pub(super) fn settled(&self) -> impl Iterator<Item = OpIndex> {
        self.settled.keys().copied()
    }

    /// The operation whose value this is.
    pub(super) fn writer(&self, value: u32) -> Option<OpIndex> {
        let found = *self.by_id.get(value as usize)?;
        (found != NOBODY && value != 0).then_some(OpIndex(found))
    }
}

/// Ids are dense, so a table serves; ids far beyond the number of operations name nothing.
fn by_id(history: &History) -> Vec<u32> {
    let limit = history.ops.len().saturating_mul(4) + 1024;
    let mut table = Vec::new();
    for (index, op) in history.ops.iter().enumerate() {
        let id = op.id as usize;
        if id >= limit {
            continue;
        }
        if id >= table.len() {
            table.resize((id + 1).next_power_of_two(), NOBODY);
        }
        table[id] = op_index(index).0;
    }
    table
}

/// Could this operation have put its value there?
pub(super) fn writes_to(history: &History, op: &Op, path: PathId) -> bool {
    match op.kind {
        Kind::Set => op.path == Some(path),
        Kind::Create if op.sequential => op.made.map_or_else(
            || {
                let asked = op.path.map_or("", |asked| history.path_text(asked));
                let made = history.path_text(path);
                made.len() == asked.len() + 10 && made.starts_with(asked)
            },
            |made| made == path,
        ),
        Kind::Create => op.path == Some(path),
        Kind::Multi => history
            .parts_of(op)
            .iter()
            .any(|part| part.path == path && matches!(part.kind, Kind::Set | Kind::Create)),
        _ => false,
    }
}
