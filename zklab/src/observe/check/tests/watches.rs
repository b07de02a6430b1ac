//! Watches for children, watches that stay, and watches that are left again over another connection.

use zkd::ids::{SessionId, Zxid};

use super::super::Rule;
use super::{broken, ended, history, op, register, shows};
use crate::observe::history::{EventLine, Happened, Kind, Line, OpLine, Outcome, PartLine};

/// An event that client 3 gets.
fn event(conn: u32, pos: u32, what: Happened, path: &'static str, zxid: i64) -> Line<'static> {
    Line::Event(EventLine {
        client: 3,
        session: SessionId(3),
        conn,
        pos,
        at: 70,
        what,
        path,
        zxid: Zxid(zxid),
    })
}

/// Something that client 3 asks over this connection; the answer comes in this place.
fn asks(mut line: OpLine<'static>, conn: u32, pos: u32) -> OpLine<'static> {
    (line.client, line.session) = (3, SessionId(3));
    (line.conn, line.pos) = (conn, pos);
    line
}

fn judged(ops: Vec<OpLine<'static>>, events: &[Line<'static>]) -> Vec<Rule> {
    let lines = ops.into_iter().map(Line::Op);
    let lines: Vec<Line<'static>> = lines.chain(events.iter().cloned()).collect();
    broken(&history(&lines))
}

/// Client 3 has seen `seen`, connects again and leaves these watches; the answer in place 5 is of state 3.
fn again(seen: i64, watches: &[(Kind, &'static str)]) -> OpLine<'static> {
    let mut line = op(6, 3, (81, 84), Kind::Rewatch, "", 3);
    line.rel = Zxid(seen);
    line.parts = watches
        .iter()
        .map(|(kind, path)| PartLine {
            kind: *kind,
            path,
            expected: -1,
            version: -1,
        })
        .collect();
    asks(line, 2, 5)
}

#[test]
fn what_was_missed_between_two_connections_is_told() {
    let with = |again: OpLine<'static>, events: &[Line<'static>]| {
        let mut ops = register();
        // The root is named, so that it is known whose child /r is.
        ops.push(op(9, 4, (81, 82), Kind::Sync, "/", 3));
        ops.push(again);
        judged(ops, events)
    };
    let changed = |pos, path| event(2, pos, Happened::Changed, path, -1);
    let get = [(Kind::Get, "/r")];
    assert_eq!(with(again(1, &get), &[changed(1, "/r")]), []);
    assert_eq!(with(again(1, &get), &[]), [Rule::Watches], "lost");
    assert_eq!(with(again(3, &get), &[]), [], "nothing was missed");
    assert_eq!(
        with(again(3, &get), &[changed(1, "/r")]),
        [Rule::Watches],
        "needless"
    );
    let twice = [changed(1, "/r"), changed(2, "/r")];
    assert_eq!(with(again(1, &get), &twice), [Rule::Watches], "twice");
    assert_eq!(
        with(again(1, &get), &[changed(6, "/r")]),
        [Rule::Watches],
        "late"
    );
    let other = [changed(1, "/r"), changed(2, "/q")];
    assert_eq!(with(again(1, &get), &other), [Rule::Watches], "of nothing");

    let exists = [(Kind::Exists, "/r")];
    let created = event(2, 1, Happened::Created, "/r", -1);
    assert_eq!(with(again(1, &exists), &[created]), []);
    assert_eq!(with(again(1, &exists), &[]), [Rule::Watches], "it is there");
    let child = [(Kind::Children, "/")];
    let children = event(2, 1, Happened::Children, "/", -1);
    assert_eq!(with(again(1, &child), &[]), []);
    assert_eq!(
        with(again(1, &child), std::slice::from_ref(&children)),
        [Rule::Watches]
    );
    assert_eq!(with(again(0, &child), &[children]), []);
    assert_eq!(
        with(again(0, &child), &[]),
        [Rule::Watches],
        "/r was made at 1"
    );

    let stays = [(Kind::Persistent, "/r")];
    assert_eq!(
        with(again(1, &stays), &[]),
        [],
        "it tells nothing of what it missed"
    );
    assert_eq!(with(again(1, &stays), &[changed(1, "/r")]), [Rule::Watches]);
    // The connection ended before the answer: anything may have been told, but of these watches only.
    let mut lost = ended(again(1, &get), Outcome::Unknown);
    (lost.t1, lost.pos, lost.zxid) = (u64::MAX, 0, Zxid::ZERO);
    assert_eq!(with(lost.clone(), &[]), []);
    assert_eq!(with(lost.clone(), &[changed(1, "/r")]), []);
    assert_eq!(with(lost, &[changed(1, "/q")]), [Rule::Watches]);
}

#[test]
fn watches_that_were_left_again_are_watches() {
    let with = |kind: Kind, events: &[Line<'static>]| {
        let mut ops = register();
        ops.push(again(3, &[(kind, "/r")]));
        ops.push(shows(op(7, 2, (85, 86), Kind::Set, "/r", 4), 1, 4, 3, 7));
        let later = shows(op(8, 3, (87, 88), Kind::Get, "/r", 4), 1, 4, 3, 7);
        ops.push(asks(later, 2, 9));
        judged(ops, events)
    };
    let changed = event(2, 7, Happened::Changed, "/r", 4);
    for kind in [Kind::Get, Kind::Persistent, Kind::Recursive] {
        assert_eq!(with(kind, std::slice::from_ref(&changed)), [], "{kind:?}");
        assert_eq!(with(kind, &[]), [Rule::Watches], "{kind:?}");
    }
}

/// `/n` gets `a` at 2 and `b` at 3, and loses `a` at 4.
fn directory() -> Vec<OpLine<'static>> {
    vec![
        op(1, 1, (10, 11), Kind::Create, "/n", 1),
        op(2, 1, (12, 13), Kind::Create, "/n/a", 2),
        op(3, 1, (14, 15), Kind::Create, "/n/b", 3),
        op(4, 1, (16, 17), Kind::Delete, "/n/a", 4),
    ]
}

fn list(id: u32, zxid: i64, pzxid: i64, kids: &'static str) -> OpLine<'static> {
    let mut line = op(id, 3, (20, 30), Kind::Children, "/n", zxid);
    (line.pzxid, line.kids) = (Zxid(pzxid), Some(kids));
    line
}

#[test]
fn children_are_listed_as_they_were() {
    let with = |line: OpLine<'static>| {
        let mut ops = directory();
        ops.push(line);
        judged(ops, &[])
    };
    assert_eq!(with(list(5, 3, 3, "a,b")), []);
    assert_eq!(with(list(5, 4, 4, "b")), []);
    assert_eq!(with(list(5, 1, 1, "")), []);
    assert_eq!(with(list(5, 3, 3, "b")), [Rule::Reads], "one is missing");
    assert_eq!(with(list(5, 4, 4, "a,b")), [Rule::Reads], "one is gone");
    assert_eq!(with(list(5, 3, 2, "a,b")), [Rule::Reads], "an old Stat");
    assert_eq!(with(list(5, 3, 4, "a,b")), [Rule::Reads], "a young Stat");
    // Through the crate the state is hidden, and the Stat tells it.
    let hidden = |pzxid, kids| list(5, 0, pzxid, kids);
    assert_eq!(with(hidden(3, "a,b")), [], "it may be behind");
    assert_eq!(with(hidden(3, "a")), [Rule::Reads]);
}

#[test]
fn a_watch_for_children_fires_once() {
    let with = |events: &[Line<'static>]| {
        let mut ops = directory();
        let mut left = asks(list(5, 2, 2, "a"), 1, 1);
        (left.watch, left.t0) = (true, 13);
        ops.push(left);
        ops.push(asks(list(6, 4, 4, "b"), 1, 5));
        judged(ops, events)
    };
    let children = |pos, zxid| event(1, pos, Happened::Children, "/n", zxid);
    assert_eq!(with(&[children(2, 3)]), []);
    assert_eq!(with(&[children(2, -1)]), []);
    assert_eq!(with(&[]), [Rule::Watches], "lost");
    assert_eq!(with(&[children(2, 4)]), [Rule::Watches], "not the first");
    assert_eq!(
        with(&[children(2, 3), children(3, 4)]),
        [Rule::Watches],
        "twice"
    );
    assert_eq!(with(&[children(6, 3)]), [Rule::Watches], "late");
    let data = event(1, 2, Happened::Changed, "/n", 3);
    assert_eq!(with(&[data]), [Rule::Watches], "not of the data");
}

/// A watch that stays on `/n` sees all that happens there, and a list that shows it.
fn stays(kind: Kind, events: &[Line<'static>]) -> Vec<Rule> {
    let mut ops = directory();
    let left = op(5, 3, (12, 13), kind, "/n", 1);
    ops.push(asks(left, 1, 1));
    ops.push(asks(list(6, 4, 4, "b"), 1, 9));
    judged(ops, events)
}

/// What a recursive watch on `/n` tells.
fn below(zxids: [i64; 3]) -> Vec<Line<'static>> {
    vec![
        event(1, 2, Happened::Created, "/n/a", zxids[0]),
        event(1, 3, Happened::Created, "/n/b", zxids[1]),
        event(1, 4, Happened::Deleted, "/n/a", zxids[2]),
    ]
}

#[test]
fn a_watch_that_stays_tells_of_every_change() {
    let children = |zxids: [i64; 3]| -> Vec<Line<'static>> {
        let events = [2, 3, 4].into_iter().zip(zxids);
        events
            .map(|(pos, zxid)| event(1, pos, Happened::Children, "/n", zxid))
            .collect()
    };
    for (kind, all) in [
        (
            Kind::Recursive,
            &below as &dyn Fn([i64; 3]) -> Vec<Line<'static>>,
        ),
        (Kind::Persistent, &children),
    ] {
        assert_eq!(stays(kind, &all([2, 3, 4])), [], "{kind:?}");
        assert_eq!(
            stays(kind, &all([-1; 3])),
            [],
            "{kind:?}: old servers tell no zxid"
        );
        for lost in 0..3 {
            for zxids in [[2, 3, 4], [-1; 3]] {
                let mut some = all(zxids);
                some.remove(lost);
                assert_eq!(stays(kind, &some), [Rule::Watches], "{kind:?}: lost {lost}");
            }
        }
        let mut late = all([2, 3, 4]);
        late.remove(2);
        late.push(event(1, 10, Happened::Deleted, "/n/a", 4));
        assert_eq!(stays(kind, &late), [Rule::Watches], "{kind:?}: late");
    }
}

#[test]
fn a_watch_that_stays_tells_in_order_and_nothing_else() {
    let created = Happened::Created;
    let swapped = [
        event(1, 2, created, "/n/b", 3),
        event(1, 3, created, "/n/a", 2),
        event(1, 4, Happened::Deleted, "/n/a", 4),
    ];
    assert_eq!(
        stays(Kind::Recursive, &swapped),
        [Rule::Watches],
        "out of order"
    );
    let mut more = below([2, 3, 4]);
    more.insert(1, event(1, 2, created, "/n/a", 2));
    assert_eq!(stays(Kind::Recursive, &more), [Rule::Watches], "twice");
    let mut more = below([2, 3, 4]);
    more.push(event(1, 5, Happened::Changed, "/n/b", 5));
    assert_eq!(
        stays(Kind::Recursive, &more),
        [Rule::Watches],
        "nobody did that"
    );
    more.pop();
    more.push(event(1, 5, created, "/m", 4));
    assert_eq!(
        stays(Kind::Recursive, &more),
        [Rule::Watches],
        "not below it"
    );
}
