//! Clients that go through the zookeeper-client crate.

use zkd::ids::{SessionId, Zxid};

use super::super::Rule;
use super::{broken, ended, history, op, ops, register, shows};
use crate::observe::history::{EventLine, Happened, Kind, Line, OpLine, Outcome};

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
