//! The checkers against histories that are known to be good, and the same with one thing broken.

mod hidden;
mod model;
mod watches;

use zkd::ids::{SessionId, Zxid};
use zkd::prng::Prng;

use self::model::{FOREIGN, Model};
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

/// The parts of a multi that does the same to `/a` and to `/b`.
fn both(kind: Kind, version: i32) -> Vec<PartLine<'static>> {
    let part = |path| PartLine {
        kind,
        path,
        expected: -1,
        version,
    };
    ["/a", "/b"].map(part).to_vec()
}

#[test]
fn a_multi_is_whole_or_nothing() {
    let with_both = |outcome: Outcome, a: (i64, i32, u32), b: (i64, i32, u32)| {
        let mut multi = ended(op(3, 1, (30, 40), Kind::Multi, "", 3), outcome);
        if outcome == Outcome::Unknown {
            (multi.t1, multi.zxid) = (u64::MAX, Zxid::ZERO);
        }
        multi.parts = both(Kind::Set, -1);
        broken(&ops(vec![
            op(1, 1, (10, 15), Kind::Create, "/a", 1),
            op(2, 1, (16, 20), Kind::Create, "/b", 2),
            multi,
            shows(op(4, 2, (50, 60), Kind::Get, "/a", 4), 1, a.0, a.1, a.2),
            shows(op(5, 2, (70, 80), Kind::Get, "/b", 4), 2, b.0, b.1, b.2),
        ]))
    };
    let with = |outcome, b| with_both(outcome, (3, 1, 3), b);
    assert_eq!(with(Outcome::Ok, (3, 1, 3)), []);
    assert_eq!(with(Outcome::Unknown, (3, 1, 3)), []);
    assert_eq!(with(Outcome::Ok, (2, 0, 2)), [Rule::Multi]);
    assert_eq!(with(Outcome::Unknown, (2, 0, 2)), [Rule::Multi]);
    assert_eq!(with(Outcome::Failed(-103), (2, 0, 2)), [Rule::Multi]);
    // Nothing of it was ever seen: it is lost, but it is whole.
    let lost = with_both(Outcome::Ok, (1, 0, 1), (2, 0, 2));
    assert_eq!(lost, [Rule::Reads]);
}

#[test]
fn a_multi_that_is_lost_with_its_epoch_is_whole() {
    let epoch = |epoch: i64, counter: i64| (epoch << 32) | counter;
    let (made, changed, state) = (epoch(1, 1), epoch(1, 2), epoch(2, 1));
    let with = |a_later: (i64, i32, u32)| {
        let mut multi = op(3, 1, (30, 40), Kind::Multi, "", changed);
        multi.parts = both(Kind::Set, 1);
        let mut create = op(1, 1, (10, 20), Kind::Multi, "", made);
        create.parts = both(Kind::Create, -1);
        let seen = op(4, 2, (50, 60), Kind::Get, "/a", changed);
        let (mzxid, version, value) = a_later;
        let again = op(5, 3, (70, 80), Kind::Get, "/a", state);
        let other = op(6, 3, (90, 95), Kind::Get, "/b", state);
        broken(&ops(vec![
            create,
            multi,
            shows(seen, made, changed, 1, 3),
            shows(again, made, mzxid, version, value),
            shows(other, made, made, 0, 1),
        ]))
    };
    assert_eq!(with((made, 0, 1)), [Rule::Reads]);
    assert_eq!(with((changed, 1, 3)), [Rule::Multi]);
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

/// Lets an event come twice. What has no zxid, or may come twice in one txn, may be meant.
fn twice(history: &mut History, prng: &mut Prng) -> Option<()> {
    let sole: Vec<usize> = (0..history.events.len())
        .filter(|at| {
            let event = &history.events[*at];
            event.zxid > Zxid::ZERO && event.what != Happened::Children
        })
        .collect();
    let at = *sole.get(prng.below(sole.len().max(1) as u64) as usize)?;
    let again = history.events[at];
    history.events.insert(at, again);
    Some(())
}

/// Lets a read come from a state older than anything, behind an answer that its session had.
fn go_back(history: &mut History, prng: &mut Prng) -> Option<()> {
    let read = pick(history, prng, |op| {
        op.kind.is_read() && op.pos > 1 && op.client as usize != FOREIGN
    })?;
    let op = history.ops[read];
    let is_older =
        |other: &super::super::history::Op| other.session == op.session && other.is_answered();
    history.ops[..read].iter().any(is_older).then_some(())?;
    history.ops[read].zxid = Zxid(1);
    Some(())
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
            twice(history, prng)?;
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
            go_back(history, prng)?;
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
