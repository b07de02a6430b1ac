//! An ensemble that keeps every promise, and what its clients were told.

use std::collections::BTreeMap;

use zkd::ids::{SessionId, Zxid};
use zkd::prng::Prng;

use crate::observe::history::{
    EventLine, FinalLine, Happened, History, Kind, Line, MarkLine, OpLine, Outcome, PartLine,
};

/// A znode of the model.
#[derive(Clone, Copy, Debug)]
struct Node {
    czxid: i64,
    mzxid: i64,
    version: i32,
    value: u32,
    owner: i64,
}

/// A client of the model.
struct Client {
    session: i64,
    conn: u32,
    pos: u32,
    server: usize,
    seen: i64,
    idle_since: u64,
    /// Watched znodes, by the zxid of the read.
    watches: BTreeMap<&'static str, i64>,
    /// The zxid of the read that left a watch for the children of [`DIR`].
    child_watch: Option<i64>,
    /// Watches that stay: the znode, whether it is recursive, and since when.
    lasting: Vec<(&'static str, bool, i64)>,
    /// Changes up to here were told.
    told: i64,
}

impl Client {
    fn forget(&mut self) {
        self.watches.clear();
        self.child_watch = None;
        self.lasting.clear();
    }
}

/// An ensemble that keeps every promise: one log, servers that lag, clients that come and go.
pub(super) struct Model {
    prng: Prng,
    zxid: i64,
    now: u64,
    id: u32,
    sessions: i64,
    sequence: u32,
    /// All states of every znode.
    nodes: BTreeMap<String, Vec<(i64, Option<Node>)>>,
    servers: [i64; 3],
    clients: Vec<Client>,
    history: History,
}

/// The number of the client that goes through the crate.
pub(super) const FOREIGN: usize = 2;
const REGISTERS: [&str; 3] = ["/r/0", "/r/1", "/r/2"];
const PAIR: [&str; 2] = ["/m/a", "/m/b"];
const EPHEMERALS: [&str; 3] = ["/e/0", "/e/1", "/e/2"];
/// The directory of the ephemerals.
const DIR: &str = "/e";

impl Model {
    pub(super) fn run(seed: u64, steps: u32) -> History {
        let mut model = Self {
            prng: Prng::new(seed),
            zxid: 0,
            now: 1,
            id: 0,
            sessions: 0,
            sequence: 0,
            nodes: BTreeMap::new(),
            servers: [0; 3],
            clients: Vec::new(),
            history: History::default(),
        };
        model.history.own_clients = Some(1);
        for _ in 0..3 {
            let session = model.next_session();
            let server = model.prng.below(3) as usize;
            model.clients.push(Client {
                session,
                conn: 1,
                pos: 0,
                server,
                seen: 0,
                idle_since: 0,
                watches: BTreeMap::new(),
                child_watch: None,
                lasting: Vec::new(),
                told: 0,
            });
        }
        for path in REGISTERS.into_iter().chain(PAIR) {
            model.create(0, path, false);
        }
        for _ in 0..steps {
            model.step();
        }
        model.finish()
    }

    fn next_session(&mut self) -> i64 {
        self.zxid += 1;
        self.sessions += 1;
        self.sessions
    }

    fn at(&self, path: &str, zxid: i64) -> Option<Node> {
        let states = self.nodes.get(path)?;
        let count = states.partition_point(|(at, _)| *at <= zxid);
        states[..count].last()?.1
    }

    fn put(&mut self, path: &str, node: Option<Node>) {
        self.nodes
            .entry(path.to_owned())
            .or_default()
            .push((self.zxid, node));
    }

    /// The id, and a line with everything known when the request is sent.
    fn asks<'a>(&mut self, who: usize, kind: Kind, path: &'a str) -> OpLine<'a> {
        self.id += 1;
        let client = &self.clients[who];
        let mut line = OpLine::new(kind);
        line.id = self.id;
        line.xid = self.id.cast_signed();
        line.client = u32::try_from(who).unwrap();
        line.session = SessionId(client.session);
        line.conn = client.conn;
        line.path = (!path.is_empty()).then_some(path);
        line.t0 = client.idle_since + 1;
        line
    }

    /// The answer goes out from the state `zxid`; whatever the client watched and that state shows goes before it.
    ///
    /// The last client goes through the crate, which hides the state where no Stat tells it.
    fn answer(&mut self, who: usize, mut line: OpLine<'_>, zxid: i64) {
        self.fire(who, zxid);
        self.now += 1 + self.prng.below(5);
        let client = &mut self.clients[who];
        client.pos += 1;
        client.seen = zxid;
        client.idle_since = self.now;
        let server = &mut self.servers[client.server];
        *server = zxid.max(*server);
        line.pos = client.pos;
        let is_told = who < FOREIGN
            || line.outcome == Outcome::Ok
                && matches!(line.kind, Kind::Set | Kind::Create | Kind::Multi);
        line.zxid = if is_told { Zxid(zxid) } else { Zxid::ZERO };
        line.t1 = self.now;
        self.history.push(&Line::Op(line)).unwrap();
    }

    /// Tells of every change up to this state that the client watches.
    fn fire(&mut self, who: usize, zxid: i64) {
        for at in self.clients[who].told + 1..=zxid {
            let changed = self.nodes.iter().filter_map(|(path, states)| {
                let index = states.iter().position(|(when, _)| *when == at)?;
                let before = index.checked_sub(1).and_then(|index| states[index].1);
                let what = match (before, states[index].1) {
                    (_, None) => Happened::Deleted,
                    (None, Some(_)) => Happened::Created,
                    _ => Happened::Changed,
                };
                Some((path.clone(), what))
            });
            for (path, what) in changed.collect::<Vec<_>>() {
                self.tell(who, &path, what, at);
                if what != Happened::Changed && path.starts_with(DIR) {
                    self.tell(who, DIR, Happened::Children, at);
                }
            }
        }
        let client = &mut self.clients[who];
        client.told = client.told.max(zxid);
    }

    /// Tells of one change, if the client watches for it.
    fn tell(&mut self, who: usize, path: &str, what: Happened, at: i64) {
        let client = &mut self.clients[who];
        let stays = client.lasting.iter().any(|(top, recursive, from)| {
            let is_meant = if *recursive {
                what != Happened::Children
                    && path
                        .strip_prefix(top)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            } else {
                path == *top
            };
            is_meant && *from < at
        });
        let once = if what == Happened::Children {
            client.child_watch.take_if(|from| *from < at).is_some()
        } else {
            let is_due = client.watches.get(path).is_some_and(|from| *from < at);
            is_due && client.watches.remove(path).is_some()
        };
        if stays || once {
            self.event(who, path, what, at);
        }
    }

    /// A write was done (or refused, or never arrived): tells the client, or loses the connection.
    fn written(&mut self, who: usize, line: OpLine<'_>, zxid: i64) {
        if self.prng.one_in(8) {
            self.history
                .push(&Line::Op(OpLine {
                    outcome: Outcome::Unknown,
                    ..line
                }))
                .unwrap();
            self.reconnect(who);
        } else {
            self.answer(who, line, zxid);
        }
    }

    fn reconnect(&mut self, who: usize) {
        let server = self.prng.below(3) as usize;
        let keeps = who == FOREIGN || self.prng.one_in(2);
        let client = &mut self.clients[who];
        if who != FOREIGN {
            client.conn += 1;
            client.pos = 0;
        }
        if !keeps {
            client.forget();
        }
        client.server = server;
        client.idle_since = self.now;
        self.servers[server] = self.servers[server].max(client.seen);
        let has_any = !client.watches.is_empty()
            || client.child_watch.is_some()
            || !client.lasting.is_empty();
        client.told = self.servers[server];
        if has_any {
            self.rewatch(who);
        }
    }

    /// The client leaves its watches again and says what it has seen: the server tells what was missed. The crate does
    /// that without anybody knowing.
    fn rewatch(&mut self, who: usize) {
        let client = &self.clients[who];
        let (seen, state) = (client.seen, self.servers[client.server]);
        let part = |kind, path| PartLine {
            kind,
            path,
            expected: -1,
            version: -1,
        };
        let watches = client.watches.clone();
        let mut parts: Vec<PartLine<'static>> = watches
            .iter()
            .map(|(path, from)| match self.at(path, *from) {
                Some(_) => part(Kind::Get, *path),
                None => part(Kind::Exists, *path),
            })
            .collect();
        parts.extend(client.child_watch.map(|_| part(Kind::Children, DIR)));
        parts.extend(client.lasting.iter().map(|(path, recursive, _)| {
            let kind = if *recursive {
                Kind::Recursive
            } else {
                Kind::Persistent
            };
            part(kind, *path)
        }));
        let mut line = self.asks(who, Kind::Rewatch, "");
        (line.outcome, line.rel, line.parts) = (Outcome::Ok, Zxid(seen), parts);
        if who != FOREIGN && self.prng.one_in(6) {
            line.outcome = Outcome::Unknown;
            self.history.push(&Line::Op(line)).unwrap();
            return self.reconnect(who);
        }
        self.catch_up(who, seen, state);
        if who != FOREIGN {
            self.answer(who, line, state);
        }
    }

    fn catch_up(&mut self, who: usize, seen: i64, state: i64) {
        let watches = std::mem::take(&mut self.clients[who].watches);
        for (path, from) in watches {
            let now = self.at(path, state);
            let what = match (self.at(path, from), now) {
                (Some(_), None) => Some(Happened::Deleted),
                (Some(_), Some(node)) if node.mzxid > seen => Some(Happened::Changed),
                (None, Some(_)) => Some(Happened::Created),
                _ => None,
            };
            match what {
                Some(what) => self.event(who, path, what, -1),
                None => drop(self.clients[who].watches.insert(path, state)),
            }
        }
        if self.clients[who].child_watch.take().is_some() {
            if self.listed(state).1 > seen {
                self.event(who, DIR, Happened::Children, -1);
            } else {
                self.clients[who].child_watch = Some(state);
            }
        }
        for (_, _, from) in &mut self.clients[who].lasting {
            *from = state;
        }
    }

    /// The children of [`DIR`], and when they changed last.
    fn listed(&self, zxid: i64) -> (Vec<&'static str>, i64) {
        let there = EPHEMERALS
            .into_iter()
            .filter(|path| self.at(path, zxid).is_some());
        let changes = EPHEMERALS.into_iter().flat_map(|path| {
            let states = self.nodes.get(path).into_iter().flatten();
            states.map(|(at, _)| *at).filter(|at| *at <= zxid)
        });
        let last = changes.max().unwrap_or(0);
        (there.map(|path| &path[DIR.len() + 1..]).collect(), last)
    }

    fn event(&mut self, who: usize, path: &str, what: Happened, zxid: i64) {
        let client = &mut self.clients[who];
        client.pos += 1;
        let event = EventLine {
            client: u32::try_from(who).unwrap(),
            session: SessionId(client.session),
            conn: client.conn,
            pos: client.pos,
            at: self.now,
            what,
            path,
            zxid: Zxid(zxid),
        };
        self.history.push(&Line::Event(event)).unwrap();
    }

    fn create(&mut self, who: usize, path: &'static str, ephemeral: bool) {
        let mut line = self.asks(who, Kind::Create, path);
        line.ephemeral = ephemeral;
        line.value = line.id;
        self.zxid += 1;
        let zxid = self.zxid;
        line.outcome = if self.at(path, zxid).is_some() {
            Outcome::Failed(-110)
        } else {
            let owner = if ephemeral {
                self.clients[who].session
            } else {
                0
            };
            let node = Node {
                czxid: zxid,
                mzxid: zxid,
                version: 0,
                value: line.id,
                owner,
            };
            self.put(path, Some(node));
            Outcome::Ok
        };
        self.written(who, line, zxid);
    }

    fn sequential(&mut self, who: usize) {
        let mut line = self.asks(who, Kind::Create, "/s/q-");
        line.sequential = true;
        line.value = line.id;
        self.zxid += 1;
        let zxid = self.zxid;
        let path = format!("/s/q-{:010}", self.sequence);
        self.sequence += 1;
        let node = Node {
            czxid: zxid,
            mzxid: zxid,
            version: 0,
            value: line.id,
            owner: 0,
        };
        self.put(&path, Some(node));
        line.outcome = Outcome::Ok;
        if self.prng.one_in(8) {
            self.history
                .push(&Line::Op(OpLine {
                    outcome: Outcome::Unknown,
                    ..line
                }))
                .unwrap();
            self.reconnect(who);
        } else {
            line.made = Some(&path);
            self.answer(who, line, zxid);
        }
    }

    fn set(&mut self, who: usize, path: &'static str) {
        let mut line = self.asks(who, Kind::Set, path);
        line.value = line.id;
        let now = self.at(path, self.zxid);
        if self.prng.one_in(2) {
            let known = now.map_or(0, |node| node.version);
            line.expected = known - i32::from(self.prng.one_in(4) && known > 0);
        }
        self.zxid += 1;
        let zxid = self.zxid;
        match now {
            None => line.outcome = Outcome::Failed(-101),
            Some(node) if line.expected != -1 && line.expected != node.version => {
                line.outcome = Outcome::Failed(-103);
            }
            Some(node) => {
                let node = Node {
                    mzxid: zxid,
                    version: node.version + 1,
                    value: line.id,
                    ..node
                };
                self.put(path, Some(node));
                line.outcome = Outcome::Ok;
            }
        }
        let shown = self.at(path, zxid).filter(|_| line.outcome == Outcome::Ok);
        if self.prng.one_in(8) {
            self.history
                .push(&Line::Op(OpLine {
                    outcome: Outcome::Unknown,
                    ..line
                }))
                .unwrap();
            return self.reconnect(who);
        }
        if let Some(node) = shown {
            line.version = node.version;
            (line.czxid, line.mzxid) = (Zxid(node.czxid), Zxid(node.mzxid));
        }
        self.answer(who, line, zxid);
    }

    fn delete(&mut self, who: usize, path: &'static str) {
        let mut line = self.asks(who, Kind::Delete, path);
        self.zxid += 1;
        line.outcome = if self.at(path, self.zxid).is_some() {
            self.put(path, None);
            Outcome::Ok
        } else {
            Outcome::Failed(-101)
        };
        let zxid = self.zxid;
        self.written(who, line, zxid);
    }

    fn multi(&mut self, who: usize) {
        let mut line = self.asks(who, Kind::Multi, "");
        line.value = line.id;
        line.parts = PAIR
            .map(|path| PartLine {
                kind: Kind::Set,
                path,
                expected: -1,
                version: -1,
            })
            .to_vec();
        self.zxid += 1;
        let zxid = self.zxid;
        line.outcome = Outcome::Failed(-103);
        if !self.prng.one_in(4) {
            line.outcome = Outcome::Ok;
            for (index, path) in PAIR.into_iter().enumerate() {
                let node = self.at(path, zxid).unwrap();
                let version = node.version + 1;
                self.put(
                    path,
                    Some(Node {
                        mzxid: zxid,
                        version,
                        value: line.id,
                        ..node
                    }),
                );
                line.parts[index].version = version;
            }
        }
        self.written(who, line, zxid);
    }

    /// The state that the client's server has when it answers next.
    fn next_state(&mut self, who: usize) -> i64 {
        let server = self.clients[who].server;
        let behind = self.zxid - self.servers[server];
        let ahead = self
            .prng
            .below(u64::try_from(behind).unwrap() + 1)
            .cast_signed();
        (self.servers[server] + ahead).max(self.clients[who].seen)
    }

    fn list(&mut self, who: usize) {
        let zxid = self.next_state(who);
        let (kids, pzxid) = self.listed(zxid);
        let kids = kids.join(",");
        let mut line = self.asks(who, Kind::Children, DIR);
        line.watch = self.prng.one_in(2);
        line.outcome = Outcome::Ok;
        (line.kids, line.pzxid) = (Some(kids.as_str()), Zxid(pzxid));
        let watch = line.watch;
        self.answer(who, line, zxid);
        if watch {
            self.clients[who].child_watch.get_or_insert(zxid);
        }
    }

    fn stay(&mut self, who: usize) {
        let zxid = self.next_state(who);
        let (path, kind) = *self.prng.pick(&[
            (DIR, Kind::Recursive),
            (DIR, Kind::Persistent),
            ("/r", Kind::Recursive),
            ("/r/1", Kind::Persistent),
        ]);
        let mut line = self.asks(who, kind, path);
        line.outcome = Outcome::Ok;
        self.answer(who, line, zxid);
        let watch = (path, kind == Kind::Recursive, zxid);
        let lasting = &mut self.clients[who].lasting;
        if !lasting
            .iter()
            .any(|known| (known.0, known.1) == (watch.0, watch.1))
        {
            lasting.push(watch);
        }
    }

    fn read(&mut self, who: usize, path: &'static str) {
        let zxid = self.next_state(who);
        let kind = if self.prng.one_in(3) {
            Kind::Exists
        } else {
            Kind::Get
        };
        let mut line = self.asks(who, kind, path);
        line.watch = self.prng.one_in(3);
        match self.at(path, zxid) {
            None => line.outcome = Outcome::Failed(-101),
            Some(node) => {
                line.outcome = Outcome::Ok;
                (line.czxid, line.mzxid) = (Zxid(node.czxid), Zxid(node.mzxid));
                (line.version, line.owner) = (node.version, SessionId(node.owner));
                line.value = if kind == Kind::Get { node.value } else { 0 };
            }
        }
        let leaves = line.watch && (line.outcome == Outcome::Ok || kind == Kind::Exists);
        self.answer(who, line, zxid);
        if leaves {
            self.clients[who].watches.entry(path).or_insert(zxid);
        }
    }

    fn sync(&mut self, who: usize) {
        let mut line = self.asks(who, Kind::Sync, "/");
        line.outcome = Outcome::Ok;
        let zxid = self.zxid;
        self.answer(who, line, zxid);
    }

    /// The session ends; its ephemerals go at one zxid.
    fn end_session(&mut self, who: usize) {
        let session = self.clients[who].session;
        self.zxid += 1;
        for path in EPHEMERALS {
            if self
                .at(path, self.zxid)
                .is_some_and(|node| node.owner == session)
            {
                self.put(path, None);
            }
        }
        if self.prng.one_in(2) {
            let mut line = self.asks(who, Kind::Close, "");
            line.outcome = Outcome::Ok;
            let zxid = self.zxid;
            self.answer(who, line, zxid);
        } else {
            let session = SessionId(session);
            let mark = MarkLine {
                client: 0,
                session,
                conn: 0,
                at: self.now,
                node: "",
            };
            self.history.push(&Line::Expired(mark)).unwrap();
        }
        let session = self.next_session();
        self.clients[who].seen = 0;
        self.clients[who].forget();
        self.clients[who].session = session;
        self.reconnect(who);
        // The answer to the new session came from a server that has it.
        let server = self.clients[who].server;
        self.servers[server] = self.zxid;
    }

    fn step(&mut self) {
        let who = self.prng.below(3) as usize;
        let all: Vec<&'static str> = REGISTERS
            .into_iter()
            .chain(PAIR)
            .chain(EPHEMERALS)
            .collect();
        match self.prng.below(18) {
            0..3 => {
                let path = *self.prng.pick(&REGISTERS);
                self.set(who, path);
            }
            3..9 => {
                let path = *self.prng.pick(&all);
                self.read(who, path);
            }
            9 => self.sequential(who),
            10 => self.multi(who),
            11 => self.sync(who),
            12 => {
                let path = *self.prng.pick(&EPHEMERALS);
                self.create(who, path, true);
            }
            13 => {
                let path = *self.prng.pick(&["/r/2", "/e/0", "/e/1"]);
                self.delete(who, path);
            }
            14 => self.create(who, "/r/2", false),
            15 => self.list(who),
            16 if who != FOREIGN => self.stay(who),
            16 => self.list(who),
            _ if self.prng.one_in(3) => self.end_session(who),
            _ => self.reconnect(who),
        }
    }

    fn finish(mut self) -> History {
        for who in 0..self.clients.len() {
            self.end_session(who);
        }
        let zxid = self.zxid;
        for (path, states) in &self.nodes {
            if let Some((_, Some(node))) = states.last() {
                let line = FinalLine {
                    path,
                    value: node.value,
                    version: node.version,
                    czxid: Zxid(node.czxid),
                    mzxid: Zxid(node.mzxid),
                    owner: SessionId(node.owner),
                    zxid: Zxid(zxid),
                };
                self.history.push(&Line::Final(line)).unwrap();
            }
        }
        self.history
            .push(&Line::End {
                zxid: Zxid(zxid),
                at: self.now,
            })
            .unwrap();
        self.history
    }
}
