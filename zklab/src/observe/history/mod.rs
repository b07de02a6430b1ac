//! What clients did and what they were told: `history.ndjson`, and the same in memory.
//!
//! The file is append-only, one JSON object a line, and never says what it does not know. Version 1:
//!
//! ```text
//! {"k":"history","v":1,"lab":"default","seed":"0x7","start_us":100,"root":"/load-0000000000","own":6, …}  first
//! {"k":"open","c":1,"s":"0x100…","conn":1,"at":120,"node":"127.0.1.2:2181"}     a session got a connection
//! {"k":"op","id":9,"c":1,"s":"0x100…","conn":1,"xid":3,"op":"set","path":"/r/1","exp":4,"val":9,
//!  "t0":130,"t1":145,"pos":2,"out":"ok","z":"0x100000012","ver":5,"cz":"0x…","mz":"0x…"}
//! {"k":"event","c":1,"s":"0x100…","conn":1,"pos":3,"at":150,"ev":"changed","path":"/r/1","z":"0x100000013"}
//! {"k":"lost","c":1,"s":"0x100…","conn":1,"at":160}                           the connection ended
//! {"k":"expired","c":1,"s":"0x100…","at":900}                      the client was told that its session is over
//! {"k":"final","path":"/r/1","val":9,"ver":5,"cz":"0x…","mz":"0x…","z":"0x…"}   a znode when all was over
//! {"k":"end","z":"0x…","at":990}                                  every znode below `root` has been told of
//! ```
//!
//! Times are microseconds of the system's monotonic clock: `t0` before the request was handed to the kernel,
//! `t1` after the whole answer was read. `pos` counts the frames that a connection received, so that answers and
//! watch events of one connection have one order. `out` is `ok`, `failed` (with the server's `code`) or `unknown`
//! (the connection ended first; no `pos`, no `t1`). `z` is the zxid in the header of the answer. Clients above `own`
//! go through the zookeeper-client crate, which hides headers: they have `z` only where a Stat told it, `pos` says
//! what could be had when, and all connections of a session are one. `val` names a
//! value by the `id` of the operation that wrote it, for reads the value read; 0 is none of ours. `exp` is the
//! version that was demanded, `ver`, `cz`, `mz`, `pz`, `owner` are of the Stat that came back. `made` is the path of a
//! sequential znode; `eph`, `seq`, `watch` say what was asked for. The operations of a multi are `parts`. Ids
//! begin at 1 and leave no large gaps. Strings have no escapes. Unknown fields and kinds are passed over.
//!
//! `children` lists a directory, `kids` are the names that came, with commas. `persistent` and `recursive` leave watches
//! that stay. `rewatch` is what a client says after it has connected again: it has seen `rel`, and its `parts` are the
//! watches that it had, by what left them: `get` one for the data, `exists` one on a znode that was not there, `children`
//! one for the children, `persistent` and `recursive`.

mod blocks;
mod line;
mod quick;
mod text;

use std::io::BufRead;

use hashbrown::HashMap;
use zkd::ids::{SessionId, Zxid};

pub use self::line::{EventLine, FinalLine, Line, MarkLine, OpLine, PartLine};
pub use self::text::Malformed;
use crate::failure::{Exit, Failure};

/// A path, by its place in [`History::paths`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

/// A session, by its place in [`History::sessions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionIndex(pub u32);

/// An operation, by its place in [`History::ops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpIndex(pub u32);

impl OpIndex {
    /// As an index.
    #[must_use]
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// What an operation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Data and Stat.
    Get,
    /// Stat.
    Exists,
    /// The names of the children, and the Stat.
    Children,
    /// Replace the data.
    Set,
    /// Make a znode.
    Create,
    /// Delete a znode.
    Delete,
    /// Check a version, inside a multi.
    Check,
    /// Several writes, all or none.
    Multi,
    /// Catch up with the leader.
    Sync,
    /// End the session.
    Close,
    /// Leave a watch that stays, on one znode.
    Persistent,
    /// Leave a watch that stays, on a znode and all below it.
    Recursive,
    /// Leave the watches again that another connection had.
    Rewatch,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Get,
        Self::Exists,
        Self::Children,
        Self::Set,
        Self::Create,
        Self::Delete,
        Self::Check,
        Self::Multi,
        Self::Sync,
        Self::Close,
        Self::Persistent,
        Self::Recursive,
        Self::Rewatch,
    ];

    /// Its word in the file.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Exists => "exists",
            Self::Children => "children",
            Self::Set => "set",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Check => "check",
            Self::Multi => "multi",
            Self::Sync => "sync",
            Self::Close => "close",
            Self::Persistent => "persistent",
            Self::Recursive => "recursive",
            Self::Rewatch => "rewatch",
        }
    }

    /// The kind that has this word in the file.
    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Does it change the tree, and so get a zxid of its own?
    #[must_use]
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::Set | Self::Create | Self::Delete | Self::Multi | Self::Close
        )
    }

    /// Does it look at one znode?
    #[must_use]
    pub fn is_read(self) -> bool {
        matches!(self, Self::Get | Self::Exists | Self::Children)
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server did it.
    Ok,
    /// The server refused with this error number.
    Failed(i32),
    /// Nobody knows.
    Unknown,
}

/// An operation. What was not told is 0, -1 for versions, `None` for the rest.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Its number in the whole history, from 1.
    pub id: u32,
    /// The client.
    pub client: u32,
    /// Its session.
    pub session: SessionIndex,
    /// The connection, rising within a session.
    pub conn: u32,
    /// The client's number of the request.
    pub xid: i32,
    /// What was asked.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// A watch was to be left.
    pub watch: bool,
    /// An ephemeral was to be made.
    pub ephemeral: bool,
    /// A sequential znode was to be made.
    pub sequential: bool,
    /// Before it was sent.
    pub t0: u64,
    /// After it was answered; `u64::MAX` if it never was.
    pub t1: u64,
    /// The place of the answer among the frames of its connection.
    pub pos: u32,
    /// The zxid in the header of the answer.
    pub zxid: Zxid,
    /// The znode meant.
    pub path: Option<PathId>,
    /// The sequential znode that was made.
    pub made: Option<PathId>,
    /// The version that was demanded, -1 for any.
    pub expected: i32,
    /// The version in the Stat that came back.
    pub version: i32,
    /// The value written or read, by the operation that wrote it; 0 is none of ours.
    pub value: u32,
    /// The txn that made the znode, by the Stat that came back.
    pub czxid: Zxid,
    /// The txn that last changed the znode, by the Stat that came back.
    pub mzxid: Zxid,
    /// The txn that last made or deleted a child, by the Stat that came back.
    pub pzxid: Zxid,
    /// What the client had seen when it left its watches again.
    pub rel: Zxid,
    /// The session that owns the znode, by the Stat that came back.
    pub owner: Option<SessionIndex>,
    /// The operations of a multi, the children of a znode, or watches: where they begin in [`History::parts`].
    pub parts: u32,
    /// How many they are.
    pub part_count: u32,
}

impl Op {
    /// The znode that a create made: the sequential one, or the one asked for.
    #[must_use]
    pub fn target(&self) -> Option<PathId> {
        self.made.or(self.path)
    }

    /// It was answered with an error that is a txn of its own, with a zxid of its own.
    #[must_use]
    pub fn is_ordered_failure(&self) -> bool {
        // NoNode, BadVersion, NoChildrenForEphemerals, NodeExists, NotEmpty.
        self.kind.is_write()
            && matches!(
                self.outcome,
                Outcome::Failed(-101 | -103 | -108 | -110 | -111)
            )
    }

    /// Was it answered?
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.outcome != Outcome::Unknown
    }
}

/// One operation of a multi, a child, or a watch.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Set, create, delete or check; `Exists` for a child; what left a watch.
    pub kind: Kind,
    /// The znode.
    pub path: PathId,
    /// The version that was demanded, -1 for any.
    pub expected: i32,
    /// The version that came back, -1 if none did.
    pub version: i32,
}

/// What a watch event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Happened {
    /// The znode was made.
    Created,
    /// It is gone.
    Deleted,
    /// Its data were replaced.
    Changed,
    /// A child was made or is gone.
    Children,
}

/// A watch event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// The client.
    pub client: u32,
    /// Its session.
    pub session: SessionIndex,
    /// The connection.
    pub conn: u32,
    /// Its place among the frames of its connection.
    pub pos: u32,
    /// When it was read.
    pub at: u64,
    /// What it says.
    pub what: Happened,
    /// Of which znode.
    pub path: PathId,
    /// The txn, where the server tells it (Apache before 3.9 does not), or -1.
    pub zxid: Zxid,
}

/// A znode when all was over.
#[derive(Clone, Copy, Debug)]
pub struct Final {
    /// The znode.
    pub path: PathId,
    /// Its value.
    pub value: u32,
    /// Its version.
    pub version: i32,
    /// The txn that made it.
    pub czxid: Zxid,
    /// The txn that last changed it.
    pub mzxid: Zxid,
    /// Its owner.
    pub owner: Option<SessionIndex>,
    /// The state that was read.
    pub zxid: Zxid,
}

/// A whole history.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// When it began.
    pub start_us: u64,
    /// The lab.
    pub lab: String,
    /// Everything happened below this znode.
    pub root: String,
    /// Clients of a higher number went through the zookeeper-client crate.
    pub own_clients: Option<u32>,
    /// All paths.
    pub paths: Vec<Box<str>>,
    /// All sessions.
    pub sessions: Vec<SessionId>,
    /// Sessions that ended because the servers said so, and when the client learned it.
    pub expired: Vec<(SessionIndex, u64)>,
    /// All operations, in the order of the file.
    pub ops: Vec<Op>,
    /// The operations of all multis.
    pub parts: Vec<Part>,
    /// All watch events, in the order of the file.
    pub events: Vec<Event>,
    /// The end state.
    pub finals: Vec<Final>,
    /// The end state is complete, and this is its zxid.
    pub end: Option<Zxid>,
    path_ids: HashMap<Box<str>, PathId>,
    session_ids: HashMap<SessionId, SessionIndex>,
}

impl History {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is not a history, or has a line that is not understood. A last line that was
    /// cut off (the writer was killed) is passed over.
    pub fn read(mut from: impl BufRead, name: &str) -> Result<Self, Failure> {
        let mut history = Self::default();
        blocks::read(&mut from, name, &mut history)?;
        Ok(history)
    }

    fn take_header(&mut self, line: &[u8]) -> Result<(), Malformed> {
        let header: serde_json::Value =
            serde_json::from_slice(line).map_err(|_| Malformed::new("not JSON"))?;
        if header["k"] != "history" {
            return Err(Malformed::new(
                "not a history: its first line has no \"k\":\"history\"",
            ));
        }
        if header["v"] != 1 {
            return Err(Malformed::new(
                "a history of a version this zklab does not know",
            ));
        }
        let text = |key: &str| header[key].as_str().unwrap_or_default().to_owned();
        self.start_us = header["start_us"].as_u64().unwrap_or_default();
        self.lab = text("lab");
        self.root = text("root");
        let own = header["own"].as_u64();
        self.own_clients = own.and_then(|own| u32::try_from(own).ok());
        Ok(())
    }

    /// Adds a line.
    ///
    /// # Errors
    /// If an operation's id is 0.
    pub fn push(&mut self, line: &Line<'_>) -> Result<(), Malformed> {
        match line {
            Line::Op(op) => return self.push_op(op),
            Line::Event(event) => {
                let event = Event {
                    client: event.client,
                    session: self.session(event.session),
                    conn: event.conn,
                    pos: event.pos,
                    at: event.at,
                    what: event.what,
                    path: self.path(event.path),
                    zxid: event.zxid,
                };
                self.events.push(event);
            }
            Line::Open(_) | Line::Lost(_) => {}
            Line::Expired(mark) => {
                let session = self.session(mark.session);
                self.expired.push((session, mark.at));
            }
            Line::Final(line) => {
                let found = Final {
                    path: self.path(line.path),
                    value: line.value,
                    version: line.version,
                    czxid: line.czxid,
                    mzxid: line.mzxid,
                    owner: self.owner(line.owner),
                    zxid: line.zxid,
                };
                self.finals.push(found);
            }
            Line::End { zxid, .. } => self.end = Some(*zxid),
        }
        Ok(())
    }

    fn push_op(&mut self, op: &OpLine<'_>) -> Result<(), Malformed> {
        if op.id == 0 {
            return Err(Malformed::new("an operation has no id"));
        }
        let parts = u32::try_from(self.parts.len()).map_err(|_| Malformed::new("too long"))?;
        for part in &op.parts {
            let part = Part {
                kind: part.kind,
                path: self.path(part.path),
                expected: part.expected,
                version: part.version,
            };
            self.parts.push(part);
        }
        let mut part_count = op.parts.len();
        if let (Some(dir), Some(kids)) = (op.path, op.kids) {
            for kid in kids.split(',').filter(|kid| !kid.is_empty()) {
                let part = Part {
                    kind: Kind::Exists,
                    path: self.path(&format!("{dir}/{kid}")),
                    expected: -1,
                    version: -1,
                };
                self.parts.push(part);
                part_count += 1;
            }
        }
        let op = Op {
            id: op.id,
            client: op.client,
            session: self.session(op.session),
            conn: op.conn,
            xid: op.xid,
            kind: op.kind,
            outcome: op.outcome,
            watch: op.watch,
            ephemeral: op.ephemeral,
            sequential: op.sequential,
            t0: op.t0,
            t1: op.t1,
            pos: op.pos,
            zxid: op.zxid,
            path: op.path.map(|path| self.path(path)),
            made: op.made.map(|path| self.path(path)),
            expected: op.expected,
            version: op.version,
            value: op.value,
            czxid: op.czxid,
            mzxid: op.mzxid,
            pzxid: op.pzxid,
            rel: op.rel,
            owner: self.owner(op.owner),
            parts,
            part_count: u32::try_from(part_count).map_err(|_| Malformed::new("too long"))?,
        };
        self.ops.push(op);
        Ok(())
    }

    /// Adds what another one read from the lines that follow, and leaves that one empty.
    ///
    /// Paths and sessions get the places that they would have got line by line.
    fn append(&mut self, piece: &mut Self) -> Result<(), Malformed> {
        let offset = u32::try_from(self.parts.len()).map_err(|_| Malformed::new("too long"))?;
        let count = u32::try_from(piece.parts.len()).map_err(|_| Malformed::new("too long"))?;
        if offset.checked_add(count).is_none() {
            return Err(Malformed::new("too long"));
        }
        let paths: Vec<PathId> = piece.paths.iter().map(|path| self.path(path)).collect();
        let sessions: Vec<SessionIndex> =
            piece.sessions.iter().map(|id| self.session(*id)).collect();
        let path = |local: PathId| paths[local.0 as usize];
        let session = |local: SessionIndex| sessions[local.0 as usize];
        self.ops.extend(piece.ops.iter().map(|op| Op {
            session: session(op.session),
            path: op.path.map(path),
            made: op.made.map(path),
            owner: op.owner.map(session),
            parts: op.parts + offset,
            ..*op
        }));
        self.parts.extend(piece.parts.iter().map(|part| Part {
            path: path(part.path),
            ..*part
        }));
        self.events.extend(piece.events.iter().map(|event| Event {
            session: session(event.session),
            path: path(event.path),
            ..*event
        }));
        self.finals.extend(piece.finals.iter().map(|last| Final {
            path: path(last.path),
            owner: last.owner.map(session),
            ..*last
        }));
        let expired = piece.expired.iter();
        self.expired
            .extend(expired.map(|(local, at)| (session(*local), *at)));
        self.end = piece.end.or(self.end);
        piece.clear();
        Ok(())
    }

    /// Forgets all lines, and keeps the room that they took.
    fn clear(&mut self) {
        self.paths.clear();
        self.path_ids.clear();
        self.sessions.clear();
        self.session_ids.clear();
        self.expired.clear();
        self.ops.clear();
        self.parts.clear();
        self.events.clear();
        self.finals.clear();
        self.end = None;
    }

    fn path(&mut self, path: &str) -> PathId {
        if let Some(known) = self.path_ids.get(path) {
            return *known;
        }
        let id =
            PathId(u32::try_from(self.paths.len()).expect("a history has fewer than 2^32 paths"));
        self.paths.push(path.into());
        self.path_ids.insert(path.into(), id);
        id
    }

    fn session(&mut self, session: SessionId) -> SessionIndex {
        let next = self.sessions.len();
        let sessions = &mut self.sessions;
        *self.session_ids.entry(session).or_insert_with(|| {
            sessions.push(session);
            SessionIndex(u32::try_from(next).expect("a history has fewer than 2^32 sessions"))
        })
    }

    fn owner(&mut self, owner: SessionId) -> Option<SessionIndex> {
        (owner != SessionId::NONE).then(|| self.session(owner))
    }

    /// The path of an id.
    #[must_use]
    pub fn path_text(&self, path: PathId) -> &str {
        &self.paths[path.0 as usize]
    }

    /// The id of a path, if the history names it.
    #[must_use]
    pub fn path_id(&self, path: &str) -> Option<PathId> {
        self.path_ids.get(path).copied()
    }

    /// The operations of a multi, the children that were listed, or the watches that were left again.
    #[must_use]
    pub fn parts_of(&self, op: &Op) -> &[Part] {
        &self.parts[op.parts as usize..][..op.part_count as usize]
    }

    /// Opens a file, or `history.ndjson` in a run's folder.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn open(path: &std::path::Path) -> Result<Self, Failure> {
        let file_name = if path.is_dir() {
            path.join("history.ndjson")
        } else {
            path.to_owned()
        };
        let name = file_name.display().to_string();
        let file = std::fs::File::open(&file_name).map_err(|error| {
            Failure::new(Exit::Usage, format!("cannot open {name}: {error}"))
                .hint("`zklab load --history FILE` writes one")
        })?;
        Self::read(std::io::BufReader::with_capacity(1 << 20, file), &name)
    }
}
