//! The checkers against histories that are known to be good, and the same with one thing broken.

use std::collections::BTreeMap;

use zkd::ids::{SessionId, Zxid};
use zkd::prng::Prng;

use super::{Rule, Verdict, judge};
use crate::observe::history::{
    EventLine, FinalLine, Happened, History, Kind, Line, MarkLine, OpLine, Outcome, PartLine,
};

/// An operation as a test writes it: client, times and zxid first.
fn op(id: u32, client: u32, (t0, t1): (u64, u64), kind: Kind, path: &str, zxid: i64) -> OpLine<'_> {
    let mut line = OpLine::new(kind);
    line.id = id;
    line.client = client;
    line.session = SessionId(i64::from(client));
    line.conn = 1;
    line.xid = id.cast_signed();
    line.pos = id;
    (line.t0, line.t1) = (t0, t1);
    line.path = (!path.is_empty()).then_some(path);
    line.zxid = Zxid(zxid);
    line.outcome = Outcome::Ok;
    if matches!(kind, Kind::Set | Kind::Create | Kind::Multi) {
        line.value = id;
    }
    line
}

/// What a read or set showed.
fn shows(mut line: OpLine<'_>, czxid: i64, mzxid: i64, version: i32, value: u32) -> OpLine<'_> {
    (line.czxid, line.mzxid) = (Zxid(czxid), Zxid(mzxid));
    (line.version, line.value) = (version, value);
    line
}

fn ended(mut line: OpLine<'_>, outcome: Outcome) -> OpLine<'_> {
    line.outcome = outcome;
    line
}

fn history(lines: &[Line<'_>]) -> History {
    let mut history = History::default();
    for line in lines {
        history.push(line).unwrap();
    }
    history
}

fn ops(lines: Vec<OpLine<'_>>) -> History {
    history(&lines.into_iter().map(Line::Op).collect::<Vec<_>>())
}

fn verdict(history: &History) -> Verdict {
    judge(history, &Rule::ALL)
}

/// The rules that were broken, each once.
fn broken(history: &History) -> Vec<Rule> {
    let verdict = verdict(history);
    let rules = verdict.rules.iter().filter(|judged| judged.broken > 0);
    rules.map(|judged| judged.rule).collect()
}

/// One client makes `/r`, another sets it twice and a third reads.
fn register() -> Vec<OpLine<'static>> {
    vec![
        op(1, 1, (10, 20), Kind::Create, "/r", 1),
        shows(op(2, 2, (30, 40), Kind::Set, "/r", 2), 1, 2, 1, 2),
        shows(op(3, 2, (50, 60), Kind::Set, "/r", 3), 1, 3, 2, 3),
        shows(op(4, 3, (45, 70), Kind::Get, "/r", 3), 1, 3, 2, 3),
        // Another server is behind, which is allowed.
        shows(op(5, 4, (70, 80), Kind::Get, "/r", 2), 1, 2, 1, 2),
    ]
}

#[test]
fn a_clean_register_passes_and_each_break_of_it_is_named() {
    assert_eq!(broken(&ops(register())), []);
    type Break = fn(&mut Vec<OpLine<'static>>);
    let breaks: [(Rule, Break); 11] = [
        (Rule::ZxidOrder, |ops| ops[2].zxid = Zxid(2)),
        // A write that was sent after a read of zxid 3 gets zxid 3 or less.
        (Rule::ZxidOrder, |ops| {
            ops.push(op(9, 1, (90, 95), Kind::Create, "/x", 0));
            ops[5].zxid = Zxid(3);
        }),
        (Rule::AckedWrites, |ops| ops[2].version = 3),
        (Rule::AckedWrites, |ops| ops[2].version = 1),
        (Rule::Reads, |ops| ops[3].value = 2),
        (Rule::Reads, |ops| ops[3].version = 1),
        (Rule::Reads, |ops| {
            (ops[3].mzxid, ops[3].version, ops[3].value) = (Zxid(2), 1, 2)
        }),
        (Rule::Reads, |ops| ops[4].mzxid = Zxid(3)),
        (Rule::Reads, |ops| ops[3].outcome = Outcome::Failed(-101)),
        (Rule::Reads, |ops| {
            // Refused, and its value is there.
            ops[2] = ended(ops[2].clone(), Outcome::Failed(-103));
        }),
        (Rule::SessionFifo, |ops| {
            ops.push(shows(op(9, 3, (80, 90), Kind::Get, "/r", 2), 1, 2, 1, 2));
        }),
    ];
    for (number, (rule, plant)) in breaks.into_iter().enumerate() {
        let mut lines = register();
        plant(&mut lines);
        let found = broken(&ops(lines));
        assert!(
            found.contains(&rule),
            "break {number}: {rule} is not in {found:?}"
        );
    }
}

#[test]
fn answers_in_another_order_than_the_requests_break_the_session() {
    let mut lines = register();
    (lines[1].pos, lines[2].pos) = (3, 2);
    let found = verdict(&ops(lines));
    let broken = found
        .violations
        .iter()
        .find(|v| v.rule == Rule::SessionFifo)
        .unwrap();
    assert_eq!(broken.witness, [3, 2]);
    assert!(broken.lines[0].contains("set /r"), "{broken:?}");
}

#[test]
fn a_write_that_was_never_answered_is_free_until_somebody_sees_it() {
    let mut lines = register();
    lines.push(ended(
        op(6, 5, (85, u64::MAX), Kind::Set, "/r", 0),
        Outcome::Unknown,
    ));
    assert_eq!(broken(&ops(lines.clone())), []);
    lines.push(shows(op(7, 3, (90, 95), Kind::Get, "/r", 4), 1, 4, 3, 6));
    assert_eq!(broken(&ops(lines.clone())), [], "it happened at 4");
    // Then it must stay, even for others.
    let mut stays = lines.clone();
    stays.push(shows(op(8, 1, (96, 99), Kind::Get, "/r", 5), 1, 3, 2, 3));
    assert_eq!(broken(&ops(stays)), [Rule::Reads]);
    // It cannot have happened before something that was answered before it was sent.
    let mut early = lines.clone();
    early.push(op(8, 1, (81, 84), Kind::Create, "/y", 4));
    assert!(broken(&ops(early)).contains(&Rule::ZxidOrder));
    // And it cannot happen twice.
    lines.push(shows(op(8, 1, (96, 99), Kind::Get, "/r", 5), 1, 5, 4, 6));
    assert_eq!(broken(&ops(lines)), [Rule::AckedWrites]);
}

#[test]
fn an_acknowledged_write_has_to_be_there_at_the_end() {
    let last = |mzxid: i64, version: i32, value: u32| {
        Line::Final(FinalLine {
            path: "/r",
            value,
            version,
            czxid: Zxid(1),
            mzxid: Zxid(mzxid),
            owner: SessionId::NONE,
            zxid: Zxid(9),
        })
    };
    let end = Line::End {
        zxid: Zxid(9),
        at: 100,
    };
    let with = |more: &[Line<'static>]| {
        let mut lines: Vec<Line<'static>> = register().into_iter().map(Line::Op).collect();
        lines.extend(more.iter().cloned());
        broken(&history(&lines))
    };
    assert_eq!(with(&[last(3, 2, 3), end.clone()]), []);
    assert_eq!(with(&[last(2, 1, 2), end.clone()]), [Rule::AckedWrites]);
    assert_eq!(with(&[end]), [Rule::AckedWrites]);
}

#[test]
fn a_read_after_a_sync_is_fresh() {
    let with = |zxid: i64, version: i32| {
        let mut lines = register();
        lines.push(op(6, 4, (81, 83), Kind::Sync, "/", zxid));
        lines.push(shows(
            op(7, 4, (84, 89), Kind::Get, "/r", zxid),
            1,
            zxid,
            version,
            zxid.try_into().unwrap(),
        ));
        ops(lines)
    };
    assert_eq!(broken(&with(3, 2)), []);
    assert_eq!(broken(&with(2, 1)), [Rule::Sync]);
    let found = verdict(&with(2, 1));
    assert_eq!(found.violations[0].witness, [3, 6, 7]);
}

#[test]
fn a_leader_that_was_replaced_may_answer_a_sync() {
    let next = Zxid::new(zkd::ids::Epoch(1), 1).0;
    let mut lines = register();
    lines.push(shows(
        op(6, 2, (75, 80), Kind::Set, "/r", next),
        1,
        next,
        3,
        6,
    ));
    lines.push(op(7, 4, (81, 83), Kind::Sync, "/", 3));
    lines.push(shows(op(8, 4, (84, 89), Kind::Get, "/r", 3), 1, 3, 2, 3));
    let found = verdict(&ops(lines));
    assert!(found.is_clean(), "{found:?}");
    assert_eq!(found.notes.len(), 1);
}

fn event(pos: u32, what: Happened, zxid: i64) -> Line<'static> {
    Line::Event(EventLine {
        client: 3,
        session: SessionId(3),
        conn: 1,
        pos,
        at: 70,
        what,
        path: "/r",
        zxid: Zxid(zxid),
    })
}

#[test]
fn a_watch_fires_once_and_before_any_answer_that_shows_the_change() {
    let with = |events: &[Line<'static>]| {
        let mut lines = register();
        let mut read = shows(op(6, 3, (31, 35), Kind::Get, "/r", 1), 1, 1, 0, 1);
        read.watch = true;
        (read.pos, read.xid) = (1, 1);
        lines.push(read);
        let mut lines: Vec<Line<'static>> = lines.into_iter().map(Line::Op).collect();
        lines.extend(events.iter().cloned());
        broken(&history(&lines))
    };
    let changed = Happened::Changed;
    assert_eq!(
        with(&[event(2, changed, 2)]),
        [],
        "the answer at position 4 shows it"
    );
    assert_eq!(
        with(&[event(2, changed, -1)]),
        [],
        "old servers do not tell the zxid"
    );
    assert_eq!(with(&[]), [Rule::Watches], "lost");
    assert_eq!(with(&[event(5, changed, 2)]), [Rule::Watches], "late");
    assert_eq!(
        with(&[event(2, changed, 2), event(3, changed, 3)]),
        [Rule::Watches],
        "twice"
    );
    assert_eq!(
        with(&[event(2, changed, 3)]),
        [Rule::Watches],
        "not the first"
    );
    assert_eq!(with(&[event(2, changed, 1)]), [Rule::Watches], "old");
    assert_eq!(
        with(&[event(2, Happened::Deleted, 2)]),
        [Rule::Watches],
        "wrong kind"
    );
}

/// Client 1 makes an ephemeral at 5 and closes at 7.
fn ephemeral() -> Vec<OpLine<'static>> {
    let mut create = op(6, 1, (81, 82), Kind::Create, "/e", 5);
    create.ephemeral = true;
    let mut sight = shows(op(7, 3, (83, 84), Kind::Get, "/e", 6), 5, 5, 0, 6);
    sight.owner = SessionId(1);
    let close = op(8, 1, (85, 86), Kind::Close, "", 7);
    let gone = ended(
        op(9, 3, (87, 88), Kind::Get, "/e", 7),
        Outcome::Failed(-101),
    );
    register()
        .into_iter()
        .chain([create, sight, close, gone])
        .collect()
}

#[test]
fn what_a_session_left_behind_comes_before_what_it_wrote_elsewhere() {
    let moved = |left_at: i64| {
        let left = ended(
            op(1, 1, (0, u64::MAX), Kind::Set, "/r", 0),
            Outcome::Unknown,
        );
        let mut elsewhere = shows(op(2, 1, (10, 20), Kind::Set, "/q", 5), 1, 5, 1, 2);
        elsewhere.conn = 2;
        let found = shows(op(3, 2, (30, 40), Kind::Get, "/r", 9), 1, left_at, 1, 1);
        broken(&ops(vec![left, elsewhere, found]))
    };
    assert_eq!(moved(4), []);
    assert_eq!(moved(7), [Rule::SessionFifo]);
}

#[test]
fn ephemerals_go_with_their_session_and_not_before() {
    assert_eq!(broken(&ops(ephemeral())), []);
    let mut outlives = ephemeral();
    outlives[8] = shows(op(9, 3, (87, 88), Kind::Get, "/e", 8), 5, 5, 0, 6);
    outlives[8].owner = SessionId(1);
    assert_eq!(broken(&ops(outlives)), [Rule::Ephemerals]);
    let mut early = ephemeral();
    early[8].zxid = Zxid(6);
    assert_eq!(
        broken(&ops(early)),
        [Rule::Ephemerals],
        "gone at 6, closed at 7"
    );
    let mut foreign = ephemeral();
    foreign[6].owner = SessionId(2);
    assert!(broken(&ops(foreign)).contains(&Rule::Ephemerals));

    // Nobody knows when the session ended, only that it wrote at 8 and its ephemeral was gone at 7.
    let mut expired = ephemeral();
    expired[7] = op(8, 1, (85, 86), Kind::Create, "/z", 8);
    assert_eq!(broken(&ops(expired)), [Rule::Ephemerals]);

    let told = Line::Expired(MarkLine {
        client: 1,
        session: SessionId(1),
        conn: 0,
        at: 90,
        node: "",
    });
    let left = Line::Final(FinalLine {
        path: "/e",
        value: 6,
        version: 0,
        czxid: Zxid(5),
        mzxid: Zxid(5),
        owner: SessionId(1),
        zxid: Zxid(9),
    });
    let register_stays = Line::Final(FinalLine {
        path: "/r",
        value: 3,
        version: 2,
        czxid: Zxid(1),
        mzxid: Zxid(3),
        owner: SessionId::NONE,
        zxid: Zxid(9),
    });
    let mut lines: Vec<Line<'_>> = ephemeral().into_iter().take(7).map(Line::Op).collect();
    lines.extend([
        told,
        register_stays,
        Line::End {
            zxid: Zxid(9),
            at: 99,
        },
    ]);
    assert_eq!(broken(&history(&lines)), []);
    lines.push(left);
    assert_eq!(broken(&history(&lines)), [Rule::Ephemerals]);
}

#[test]
fn sequence_numbers_rise() {
    let made = |id: u32, zxid: i64, made: &'static str| {
        let at = u64::from(id) * 10;
        let mut line = op(id, id, (at, at + 5), Kind::Create, "/s/q-", zxid);
        line.sequential = true;
        line.made = Some(made);
        line
    };
    let with = |second: &'static str| {
        broken(&ops(vec![
            made(1, 1, "/s/q-0000000004"),
            made(2, 2, second),
        ]))
    };
    assert_eq!(
        with("/s/q-0000000007"),
        [],
        "others may have made the numbers between"
    );
    assert_eq!(with("/s/q-0000000003"), [Rule::Sequences]);
    assert!(with("/s/q-0000000004").contains(&Rule::Sequences));
    assert_eq!(with("/s/q-7"), [Rule::Sequences]);
}

#[test]
fn a_multi_is_whole_or_nothing() {
    let with = |outcome: Outcome, b: (i64, i32, u32)| {
        let mut multi = ended(op(3, 1, (30, 40), Kind::Multi, "", 3), outcome);
        if outcome == Outcome::Unknown {
            (multi.t1, multi.zxid) = (u64::MAX, Zxid::ZERO);
        }
        multi.parts = ["/a", "/b"]
            .map(|path| PartLine {
                kind: Kind::Set,
                path,
                expected: -1,
                version: -1,
            })
            .to_vec();
        let (mzxid, version, value) = b;
        broken(&ops(vec![
            op(1, 1, (10, 15), Kind::Create, "/a", 1),
            op(2, 1, (16, 20), Kind::Create, "/b", 2),
            multi,
            shows(op(4, 2, (50, 60), Kind::Get, "/a", 4), 1, 3, 1, 3),
            shows(
                op(5, 2, (70, 80), Kind::Get, "/b", 4),
                2,
                mzxid,
                version,
                value,
            ),
        ]))
    };
    assert_eq!(with(Outcome::Ok, (3, 1, 3)), []);
    assert_eq!(with(Outcome::Unknown, (3, 1, 3)), []);
    assert_eq!(with(Outcome::Ok, (2, 0, 2)), [Rule::Multi]);
    assert_eq!(with(Outcome::Unknown, (2, 0, 2)), [Rule::Multi]);
    assert_eq!(with(Outcome::Failed(-103), (2, 0, 2)), [Rule::Multi]);
}

/// Client 5 goes through the crate: what it is told has no zxid but in a Stat.
fn hidden(mut line: OpLine<'static>) -> OpLine<'static> {
    (line.client, line.session) = (5, SessionId(5));
    line.zxid = Zxid::ZERO;
    line
}

/// A read through the crate.
fn hidden_get(id: u32, times: (u64, u64), mzxid: i64, version: i32, value: u32) -> OpLine<'static> {
    let get = op(id, 5, times, Kind::Get, "/r", 0);
    hidden(shows(get, 1, mzxid, version, value))
}

#[test]
fn reads_through_the_crate_are_judged_by_what_they_show() {
    let with = |more: Vec<OpLine<'static>>| {
        let mut lines = register();
        lines.extend(more);
        broken(&ops(lines))
    };
    let old = hidden_get(6, (81, 83), 2, 1, 2);
    let new = hidden_get(7, (84, 86), 3, 2, 3);
    assert_eq!(with(vec![old.clone(), new.clone()]), [], "it may be behind");
    let wrong = hidden_get(6, (81, 83), 3, 2, 2);
    assert_eq!(with(vec![wrong]), [Rule::Reads], "another value");
    let unwritten = hidden_get(6, (81, 83), 4, 3, 77);
    assert_eq!(with(vec![unwritten]), [], "nobody knows before the end");
    let (mut first, mut second) = (new.clone(), old.clone());
    (first.id, first.pos, second.id, second.pos) = (6, 6, 7, 7);
    assert_eq!(with(vec![first, second]), [Rule::SessionFifo], "back");
    // Its own write at 4 stands in another znode, and the register was written at 3.
    let mut own = op(6, 5, (81, 82), Kind::Create, "/x", 4);
    own.mzxid = Zxid(4);
    let mut late = old.clone();
    (late.id, late.pos, late.xid) = (7, 7, 7);
    assert_eq!(with(vec![own.clone(), late.clone()]), [Rule::SessionFifo]);
    // Behind a sync it has to show what was acknowledged before.
    let sync = hidden(op(6, 5, (81, 83), Kind::Sync, "/", 0));
    assert_eq!(with(vec![sync.clone(), late]), [Rule::Sync]);
    assert_eq!(with(vec![sync, new]), []);
    let gone = |own_write_at: i64| {
        let mut own = own.clone();
        (own.zxid, own.mzxid) = (Zxid(own_write_at), Zxid(own_write_at));
        let get = hidden(op(7, 5, (83, 84), Kind::Get, "/r", 0));
        with(vec![own, ended(get, Outcome::Failed(-101))])
    };
    assert_eq!(gone(4), [Rule::Reads], "it was never deleted");
    let refused = hidden(op(7, 5, (83, 84), Kind::Set, "/r", 0));
    let mut refused = ended(refused, Outcome::Failed(-103));
    refused.expected = 2;
    assert_eq!(
        with(vec![own.clone(), refused.clone()]),
        [Rule::Reads],
        "it was version 2"
    );
    refused.expected = 1;
    assert_eq!(with(vec![own, refused]), []);
}

#[test]
fn a_delete_through_the_crate_happens_somewhere_and_stays() {
    // Made at 4, deleted through the crate between 4 and 6, made again at 8.
    let with = |more: Vec<OpLine<'static>>| {
        let mut lines = register();
        lines.push(op(6, 1, (81, 82), Kind::Create, "/n", 4));
        lines.push(hidden(op(7, 5, (85, 86), Kind::Delete, "/n", 0)));
        lines.push(op(8, 1, (87, 88), Kind::Create, "/x", 7));
        lines.extend(more);
        broken(&ops(lines))
    };
    let seen = |id, zxid| shows(op(id, 2, (90, 95), Kind::Get, "/n", zxid), 4, 4, 0, 6);
    let gone = |id, zxid| {
        ended(
            op(id, 2, (90, 95), Kind::Get, "/n", zxid),
            Outcome::Failed(-101),
        )
    };
    assert_eq!(with(vec![seen(9, 5)]), [], "not yet");
    assert_eq!(with(vec![gone(9, 5)]), [], "already");
    assert_eq!(
        with(vec![seen(9, 7)]),
        [Rule::Reads],
        "it was sent before 7 was"
    );
    assert_eq!(
        with(vec![gone(9, 4)]),
        [Rule::Reads],
        "it was sent after 4 had been read"
    );
    let again = op(9, 1, (90, 92), Kind::Create, "/n", 8);
    assert_eq!(with(vec![again.clone()]), []);
    let twice = op(10, 1, (93, 95), Kind::Create, "/n", 9);
    assert_eq!(
        with(vec![again, twice]),
        [Rule::AckedWrites],
        "one delete, two creates"
    );
}

#[test]
fn watches_through_the_crate_fire_before_what_they_tell_of_is_seen() {
    let with = |is_there: bool, event: Option<(u32, Happened, i64)>| {
        let mut lines = register();
        lines.push(op(6, 1, (81, 82), Kind::Create, "/x", 4));
        let (mut read, mut later);
        if is_there {
            read = hidden_get(7, (31, 35), 1, 0, 1);
            later = hidden_get(8, (83, 84), 3, 2, 3);
        } else {
            let exists = hidden(op(7, 5, (31, 35), Kind::Exists, "/x", 0));
            read = ended(exists, Outcome::Failed(-101));
            later = hidden(shows(op(8, 5, (83, 84), Kind::Get, "/x", 0), 4, 4, 0, 6));
        }
        (read.watch, read.pos, later.pos) = (true, 1, 3);
        lines.extend([read, later]);
        let mut lines: Vec<Line<'static>> = lines.into_iter().map(Line::Op).collect();
        lines.extend(event.map(|(pos, what, zxid)| {
            Line::Event(EventLine {
                client: 5,
                session: SessionId(5),
                conn: 1,
                pos,
                at: 82,
                what,
                path: if is_there { "/r" } else { "/x" },
                zxid: Zxid(zxid),
            })
        }));
        broken(&history(&lines))
    };
    assert_eq!(with(true, Some((2, Happened::Changed, 2))), []);
    assert_eq!(
        with(true, Some((2, Happened::Changed, -1))),
        [],
        "caught up"
    );
    assert_eq!(with(true, None), [Rule::Watches], "lost");
    assert_eq!(
        with(true, Some((4, Happened::Changed, 2))),
        [Rule::Watches],
        "late"
    );
    assert_eq!(
        with(true, Some((2, Happened::Changed, 3))),
        [Rule::Watches],
        "not the first"
    );
    assert_eq!(with(false, Some((2, Happened::Created, 4))), []);
    assert_eq!(with(false, None), [Rule::Watches], "lost");
}

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
}

/// An ensemble that keeps every promise: one log, servers that lag, clients that come and go.
struct Model {
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
const FOREIGN: usize = 2;
const REGISTERS: [&str; 3] = ["/r/0", "/r/1", "/r/2"];
const PAIR: [&str; 2] = ["/m/a", "/m/b"];
const EPHEMERALS: [&str; 3] = ["/e/0", "/e/1", "/e/2"];

impl Model {
    fn run(seed: u64, steps: u32) -> History {
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

    fn fire(&mut self, who: usize, zxid: i64) {
        let due: Vec<_> = self.clients[who]
            .watches
            .iter()
            .filter_map(|(path, from)| {
                let states = &self.nodes.get(*path)?;
                let next = states.partition_point(|(at, _)| at <= from);
                let (at, node) = *states.get(next).filter(|(at, _)| *at <= zxid)?;
                let before = next.checked_sub(1).and_then(|index| states[index].1);
                let what = match (before, node) {
                    (_, None) => Happened::Deleted,
                    (None, Some(_)) => Happened::Created,
                    _ => Happened::Changed,
                };
                Some((*path, at, what))
            })
            .collect();
        for (path, at, what) in due {
            self.clients[who].watches.remove(path);
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
        let client = &mut self.clients[who];
        if who != FOREIGN {
            client.conn += 1;
            client.pos = 0;
            client.watches.clear();
        }
        client.server = server;
        client.idle_since = self.now;
        self.servers[server] = self.servers[server].max(client.seen);
        if who == FOREIGN {
            self.catch_up(who);
        }
    }

    /// The crate leaves its watches again and says what it has seen: the server tells what was missed.
    fn catch_up(&mut self, who: usize) {
        let (seen, state) = (
            self.clients[who].seen,
            self.servers[self.clients[who].server],
        );
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

    fn read(&mut self, who: usize, path: &'static str) {
        let server = self.clients[who].server;
        let behind = self.zxid - self.servers[server];
        let ahead = self
            .prng
            .below(u64::try_from(behind).unwrap() + 1)
            .cast_signed();
        let zxid = (self.servers[server] + ahead).max(self.clients[who].seen);
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
        self.clients[who].watches.clear();
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
        match self.prng.below(16) {
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

/// One of these operations, if there is any.
fn pick(
    history: &History,
    prng: &mut Prng,
    wanted: impl Fn(&super::super::history::Op) -> bool,
) -> Option<usize> {
    let found: Vec<usize> = (0..history.ops.len())
        .filter(|index| wanted(&history.ops[*index]))
        .collect();
    (!found.is_empty()).then(|| *prng.pick(&found))
}

/// Breaks something; the rules one of which has to notice, or `None` if there was nothing to break.
fn plant(history: &mut History, prng: &mut Prng, which: u64) -> Option<Vec<Rule>> {
    let is_ok = |op: &super::super::history::Op| op.outcome == Outcome::Ok;
    match which {
        0 => {
            let a = pick(history, prng, |op| op.kind == Kind::Set && is_ok(op))?;
            let b = pick(history, prng, |op| {
                op.kind.is_write() && is_ok(op) && op.zxid > Zxid::ZERO
            })?;
            if a == b {
                return None;
            }
            history.ops[a].zxid = history.ops[b].zxid;
            Some(vec![Rule::ZxidOrder])
        }
        1 => {
            let read = pick(history, prng, |op| op.kind == Kind::Get && is_ok(op))?;
            history.ops[read].value = history.ops[read].value.checked_sub(1).filter(|v| *v > 0)?;
            Some(vec![Rule::Reads, Rule::Multi])
        }
        2 => {
            let at = prng.below(history.events.len().try_into().unwrap()) as usize;
            let again = history.events[at];
            history.events.insert(at, again);
            Some(vec![Rule::Watches])
        }
        3 => {
            // Of a znode that is never deleted.
            let register = history.path_id("/r/0");
            let write = pick(history, prng, |op| {
                op.kind == Kind::Set && op.path == register && is_ok(op)
            })?;
            history.ops[write].version += 100;
            Some(vec![Rule::AckedWrites])
        }
        4 => {
            let at = history
                .finals
                .iter()
                .position(|last| history.path_text(last.path) == "/r/0")?;
            history.finals.remove(at);
            Some(vec![Rule::AckedWrites])
        }
        5 => {
            let read = pick(history, prng, |op| {
                op.kind.is_read() && op.owner.is_some() && op.zxid > Zxid::ZERO
            })?;
            let (owner, zxid) = (history.ops[read].owner, history.ops[read].zxid);
            let close = pick(history, prng, |op| {
                op.kind == Kind::Close && Some(op.session) == owner
            })?;
            history.ops[close].zxid = zxid;
            Some(vec![Rule::Ephemerals])
        }
        6 => {
            let a = pick(history, prng, |op| op.made.is_some())?;
            let b = pick(history, prng, |op| op.made.is_some())?;
            if a == b {
                return None;
            }
            history.ops[a].made = history.ops[b].made;
            Some(vec![Rule::Sequences])
        }
        _ => {
            let read = pick(history, prng, |op| {
                op.kind.is_read() && op.pos > 1 && op.client as usize != FOREIGN
            })?;
            let op = history.ops[read];
            let older = history.ops[..read]
                .iter()
                .any(|other| other.session == op.session && other.is_answered());
            if !older {
                return None;
            }
            history.ops[read].zxid = Zxid(0);
            // Older than anything: the session goes back if it had seen anything at all.
            history.ops[read].zxid = Zxid(1);
            Some(vec![Rule::SessionFifo, Rule::Reads, Rule::Sync])
        }
    }
}

#[test]
fn ten_thousand_good_histories_raise_no_alarm() {
    for seed in 0..10_000 {
        let history = Model::run(seed, 60);
        let verdict = verdict(&history);
        assert!(verdict.is_clean(), "seed {seed}: {:#?}", verdict.violations);
    }
}

#[test]
fn what_is_planted_is_found() {
    let mut planted = [0_u32; 8];
    for seed in 0..2_000 {
        let mut prng = Prng::new(seed);
        let which = seed % 8;
        let mut history = Model::run(prng.next_u64(), 80);
        if which == 2 && history.events.is_empty() {
            continue;
        }
        let Some(rules) = plant(&mut history, &mut prng, which) else {
            continue;
        };
        let found = broken(&history);
        assert!(
            rules.iter().any(|rule| found.contains(rule)),
            "seed {seed}: none of {rules:?} in {found:?}"
        );
        planted[which as usize] += 1;
    }
    assert!(planted.iter().all(|count| *count > 20), "{planted:?}");
}

#[test]
fn a_file_says_what_memory_says_and_a_torn_end_is_passed_over() {
    let mut text = String::from(
        "{\"k\":\"history\",\"v\":1,\"lab\":\"x\",\"seed\":\"0x7\",\"start_us\":5,\"root\":\"/\"}\n",
    );
    for line in ephemeral() {
        Line::Op(line).encode(&mut text);
    }
    Line::End {
        zxid: Zxid(9),
        at: 99,
    }
    .encode(&mut text);
    let whole = History::read(text.as_bytes(), "h").unwrap();
    assert_eq!((whole.ops.len(), whole.end), (9, Some(Zxid(9))));
    assert_eq!(
        (whole.lab.as_str(), whole.root.as_str(), whole.start_us),
        ("x", "/", 5)
    );
    let torn = History::read(&text.as_bytes()[..text.len() - 8], "h").unwrap();
    assert_eq!((torn.ops.len(), torn.end), (9, None));
    let lines: Vec<&str> = text.lines().collect();
    for wrong in [
        "",
        "{\"k\":\"op\"}\n",
        "{\"k\":\"history\",\"v\":2}\n",
        "history\n",
    ] {
        assert!(History::read(wrong.as_bytes(), "h").is_err(), "{wrong}");
    }
    let broken = format!("{}\n{}\nnonsense\n{}\n", lines[0], lines[1], lines[2]);
    let error = History::read(broken.as_bytes(), "h").unwrap_err();
    assert!(error.cause.starts_with("h:3: "), "{error}");
}
