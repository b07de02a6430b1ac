//! What is concluded from small runs, each with one thing wrong, and from the same with nothing wrong.

use serde_json::{Value, json};
use zkd::ids::{SessionId, Xid, Zxid};

use super::*;
use crate::observe::flow::FlowScope;
use crate::observe::logs::{Kept, LoggedTxn};
use crate::report::run::folder::Event;

/// A run with three voters that broke one rule.
struct Run {
    folder: Folder,
    story: Story,
    kept: Vec<Kept>,
}

fn zx(epoch: i64, counter: i64) -> String {
    Zxid(epoch << 32 | counter).to_string()
}

impl Run {
    fn new(rule: &str, message: &str, witness: Value, events: Vec<Value>) -> Self {
        let run = json!({
            "verdict": "bug", "rule": rule, "nodes": 3, "servers": {"n1": "", "n2": "", "n3": ""},
            "checks": [{"rule": rule, "verdict": "fail", "message": message, "witness": witness}],
        });
        let folder = Folder {
            run: crate::report::run::RunJson::of(&run),
            events: events.into_iter().map(Event::of).collect(),
            ..Folder::default()
        };
        Self {
            story: Story::of(&folder),
            folder,
            kept: Vec::new(),
        }
    }

    /// The log of a node: epochs and counters.
    fn with_log(mut self, name: &str, txns: &[(i64, i64)]) -> Self {
        self.kept.push(Kept {
            name: name.to_owned(),
            zxids: txns.iter().map(|(e, c)| Zxid(e << 32 | c)).collect(),
            snapshots: vec![Zxid::ZERO],
            txns: Vec::new(),
        });
        self
    }

    fn with_wire(mut self, lines: &[(u64, &str, &str, &str, &str)]) -> Self {
        self.folder.scope = Some(FlowScope::default());
        for (t_us, from, to, msg, zxid) in lines {
            let note = json!({"t_us": t_us, "from": from, "to": to, "msg": msg, "zxid": zxid,
                "fate": "delivered"});
            self.folder.flow.push(serde_json::from_value(note).unwrap());
        }
        self
    }

    fn fate(&self) -> Fate {
        let broken = self.folder.run.broken();
        let mut evidence = Evidence::of(&self.folder, &self.story, broken[0]);
        evidence.disks = Disks::of(self.kept.clone());
        Fate::conclude(&evidence)
    }

    /// What is wrong by itself.
    fn wrong(&self) -> Vec<String> {
        let findings = self.fate().findings.into_iter();
        let wrong = findings.filter(|finding| finding.is_wrong);
        wrong.map(|finding| finding.text).collect()
    }
}

fn sync(t_us: u64, leader: &str, learner: &str, mode: &str, from: &str, to: &str) -> Value {
    json!({"t_us": t_us, "node": leader, "src": "wire", "kind": "sync", "to": learner, "mode": mode,
        "from_zxid": from, "to_zxid": to, "txns": 1})
}

fn logs_differ(events: Vec<Value>) -> Run {
    let witness = json!([
        {"k": "txn", "node": "n3", "z": zx(1, 3), "txn": "delete /a", "s": "0x100", "xid": 9},
        {"k": "txn", "node": "n1", "z": zx(2, 1), "txn": "delete /b", "s": "0x100", "xid": 10},
    ]);
    Run::new("logs", "n3 has it and n1 has not", witness, events)
}

#[track_caller]
fn has(found: &[String], parts: &[&str]) {
    let [text] = found else { panic!("{found:?}") };
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn a_diff_from_what_the_leader_never_had_should_have_been_a_trunc() {
    let came = |t_us: u64, epoch: i64| {
        json!({"t_us": t_us, "node": "n3", "src": "wire", "kind": "wire.message", "from": "n3", "to": "n1",
            "msg": "FOLLOWERINFO", "epoch": epoch, "fate": "delivered"})
    };
    let events = |mode, to: &str| {
        let synced = sync(500, "n1", "n3", mode, &zx(1, 4), to);
        vec![came(100, 0), came(480, 1), synced, came(510, 2)]
    };
    let run = |mode, to: &str| {
        logs_differ(events(mode, to))
            .with_log("n1", &[(1, 1), (1, 2), (2, 1)])
            .with_log("n2", &[(1, 1), (1, 2), (2, 1)])
            .with_log("n3", &[(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)])
    };
    let diff = run("DIFF", &zx(2, 1));
    has(
        &diff.wrong(),
        &[
            "n1 brought n3 up to date by DIFF from 0x100000004",
            "cut its log back to 0x100000002 (TRUNC)",
            "It kept 0x100000003, 0x100000004, which no other server has",
        ],
    );
    let fate = diff.fate();
    let subject = fate.subject.as_ref().unwrap();
    assert_eq!(
        (subject.zxid.to_string(), subject.what.as_str()),
        (zx(1, 3), "delete /a")
    );
    assert!(
        fate.servers[2].syncs[0]
            .text()
            .ends_with("; it had accepted epoch 1"),
        "{}",
        fate.servers[2].syncs[0].text()
    );
    let held: Vec<Option<Held>> = fate.servers.iter().map(|server| server.held).collect();
    assert_eq!(held, [Some(Held::No), Some(Held::No), Some(Held::Yes)]);
    // Told what it should be told, it did not do it.
    has(
        &run("TRUNC", &zx(1, 2)).wrong(),
        &[
            "told n3 to cut its log back to 0x100000002",
            "still has 0x100000003, 0x100000004",
        ],
    );
    // A leader that has the zxid may begin there.
    let good = logs_differ(events("DIFF", &zx(2, 1)))
        .with_log("n1", &[(1, 2), (1, 4), (2, 1)])
        .with_log("n3", &[(1, 2), (1, 4), (2, 1)]);
    assert_eq!(good.wrong(), [""; 0]);
}

#[test]
fn a_diff_with_a_hole_is_seen_in_the_logs_and_on_the_wire() {
    let run = || {
        let events = vec![sync(500, "n1", "n3", "DIFF", &zx(1, 2), &zx(1, 4))];
        logs_differ(events)
            .with_log("n1", &[(1, 1), (1, 2), (1, 3), (1, 4)])
            .with_log("n3", &[(1, 1), (1, 2), (1, 4)])
    };
    has(
        &run().wrong(),
        &["2 txns in n1's log; 1 were sent, of which 1 are in n3's log"],
    );
    let (id, other) = (zx(1, 3), zx(1, 4));
    let silent = run().with_wire(&[(490, "n1", "n3", "PROPOSAL", &other)]);
    has(
        &silent.wrong(),
        &["no message with 0x100000003 was seen on its way to n3"],
    );
    let sent = run().with_wire(&[(490, "n1", "n3", "PROPOSAL", &id)]);
    has(&sent.wrong(), &["0x100000003 was seen on its way to n3"]);
}

/// A node is killed at 600 and comes back with less than it had.
fn death(node: &str, back: u64) -> Vec<Value> {
    vec![
        json!({"t_us": 1, "node": node, "src": "proc", "kind": "node.spawned"}),
        json!({"t_us": 600, "node": node, "src": "proc", "kind": "node.exited", "signal": 9}),
        json!({"t_us": 650, "node": node, "src": "proc", "kind": "node.spawned"}),
        json!({"t_us": back, "node": node, "src": "zkd", "kind": "node.recovered", "zxid": zx(1, 7)}),
    ]
}

/// A write that was acknowledged at 400 and is lost: n1 leads, dies at 600 and comes back with less at 700.
fn lost_write(more: Vec<Value>) -> Run {
    let op = |id: u32, z: &str, t1: u64| {
        json!({"k": "op", "id": id, "c": 1, "s": "0x100", "conn": 1, "xid": id, "op": "set", "path": "/a",
            "t0": t1 - 50, "t1": t1, "out": "ok", "z": z, "ver": 1})
    };
    let witness = json!([op(1, &zx(1, 9), 400), op(2, &zx(2, 1), 900)]);
    let mut events = vec![
        json!({"t_us": 5, "node": "n1", "src": "zkd", "kind": "leader.elected", "epoch": 1}),
        json!({"t_us": 800, "node": "n1", "src": "zkd", "kind": "leader.elected", "epoch": 2}),
    ];
    events.extend(death("n1", 700));
    events.extend(more);
    events.sort_by_key(|event| event["t_us"].as_u64());
    Run::new("acked-writes", "/a got version 1 twice", witness, events)
}

#[test]
fn a_server_that_forgets_what_it_acknowledged_is_named() {
    let id = zx(1, 9);
    let acks = [
        (390, "n2", "n1", "ACK", id.as_str()),
        (391, "n1", "n2", "COMMIT", id.as_str()),
    ];
    // A leader need not have on its own disk what a quorum of others has.
    let mut enough = vec![(389, "n3", "n1", "ACK", id.as_str())];
    enough.extend(acks);
    assert_eq!(lost_write(Vec::new()).with_wire(&enough).wrong(), [""; 0]);
    has(
        &lost_write(Vec::new()).with_wire(&acks).wrong(),
        &[
            "n1 (the leader) counted itself",
            "when it had the ACK of n2 only",
        ],
    );
    let run = lost_write(death("n2", 690)).with_wire(&acks);
    let [n2, n1] = run.wrong().try_into().unwrap();
    has(
        &[n2],
        &[
            "n2 acknowledged 0x100000009 at 0.000 s: that says it is safe on its disk",
            "came back with 0x100000007",
            "without 0x100000009",
        ],
    );
    has(&[n1], &["n1 (the leader) counted itself"]);
    let fate = run.fate();
    let elected = fate
        .findings
        .iter()
        .find(|finding| !finding.is_wrong)
        .unwrap();
    assert!(
        elected.text.contains("leader of epoch 2 with 0x100000007"),
        "{}",
        elected.text
    );
    assert_eq!(fate.lost, Some((Zxid(1 << 32 | 7), Zxid(2 << 32))));
    assert!(fate.cause().unwrap().starts_with("n2 acknowledged"));
    let [n1, n2, _] = fate.servers.as_slice() else {
        panic!()
    };
    assert_eq!(
        (n1.committed.as_slice(), n2.acked.len()),
        (&[(391, "told n2".to_owned())][..], 1)
    );
    let told: Vec<&str> = fate.steps.iter().map(|step| step.text.as_str()).collect();
    let order = [
        "asks its server",
        "acknowledges 0x100000009",
        "is told: ok",
        "is killed",
        "so without 0x100000009",
        "leads epoch 2",
    ];
    let mut rest = told.iter();
    for part in order {
        assert!(rest.any(|text| text.contains(part)), "{part} in {told:?}");
    }
}

#[test]
fn a_write_that_was_never_answered_is_not_taken_for_the_lost_one() {
    let mut run =
        lost_write(death("n2", 690)).with_wire(&[(390, "n2", "n1", "ACK", "0x200000001")]);
    let witness = &mut run.folder.run.checks[0].witness;
    witness[0]["out"] = "unknown".into();
    witness[0]["z"] = Value::Null;
    let subject = run.fate().subject.unwrap();
    assert_eq!(subject.zxid, Zxid(2 << 32 | 1));
    assert_eq!(
        subject.why,
        "the write that contradicts what was there before"
    );
    assert_eq!(run.wrong(), [""; 0]);
    // Nor is a write of which only an event was missed.
    let acks = zx(1, 9);
    let mut run = lost_write(Vec::new()).with_wire(&[(450, "n2", "n1", "ACK", &acks)]);
    run.folder.run.checks[0].rule = "watches".to_owned();
    assert!(
        run.fate()
            .findings
            .iter()
            .all(|finding| !finding.text.contains("quorum"))
    );
}

#[test]
fn what_a_server_had_before_it_died_is_not_what_it_has() {
    let run = lost_write(Vec::new());
    let evidence = Evidence::of(&run.folder, &run.story, run.folder.run.broken()[0]);
    let last = |at_us| evidence.last_zxid("n1", at_us).map(|zxid| zxid.to_string());
    assert_eq!((last(650), last(700)), (None, Some(zx(1, 7))));
    assert_eq!(evidence.last_zxid("n2", 700), None, "nobody knows");
}

#[test]
fn a_commit_without_a_quorum_is_counted() {
    let id = zx(1, 9);
    let late = lost_write(Vec::new()).with_wire(&[(450, "n2", "n1", "ACK", id.as_str())]);
    has(
        &late.wrong(),
        &[
            "at most 1 of 3 voters had it and 2 are needed",
            "(later came that of n2 at 0.000 s)",
        ],
    );
    // An ACK that may have been missed is not held against anybody.
    let mut deaf = lost_write(Vec::new()).with_wire(&[(450, "n2", "n1", "ACK", id.as_str())]);
    deaf.folder.scope = Some(FlowScope {
        since_us: 0,
        gaps_us: vec![380],
    });
    assert_eq!(deaf.wrong(), [""; 0]);
    // Where nobody read the messages, those who could not be reached did not have it.
    let cut = json!({"t_us": 100, "src": "fault", "kind": "fault.on", "id": "f1", "fault": "isolate n1", "what": "partition",
        "links": ["n1>n2", "n2>n1", "n1>n3", "n3>n1"]});
    let up = |node: &str| json!({"t_us": 6, "node": node, "src": "zkd", "kind": "node.serving", "role": "follower"});
    let alone = lost_write(vec![up("n2"), up("n3"), cut]);
    has(
        &alone.wrong(),
        &["n1 led, and it could reach no other server then"],
    );
    assert!(alone.fate().servers[0].then.contains("cut off from n2 n3"));
    assert_eq!(lost_write(vec![up("n2"), up("n3")]).wrong(), [""; 0]);
}

#[test]
fn a_refused_multi_that_did_something_is_told() {
    let op = |id: u32, z: &str, out: &str, version: Option<u32>| {
        json!({"k": "op", "id": id, "c": 3, "s": "0x100", "conn": 1, "xid": id, "op": "multi", "t0": 1, "t1": 2, "out": out,
            "code": -103, "z": z, "parts": [{"op": "set", "path": "/m", "ver": version}]})
    };
    let run = |now: u32| {
        let witness = json!([
            op(1, &zx(1, 1), "ok", Some(5)),
            op(2, &zx(1, 2), "failed", None),
            op(3, &zx(1, 3), "ok", Some(now)),
        ]);
        Run::new("multi", "/m got version 7", witness, Vec::new())
    };
    has(
        &run(7).wrong(),
        &[
            "refused (BadVersion) at 0x100000002",
            "had version 5 before it and got version 7",
        ],
    );
    assert_eq!(
        run(7).fate().subject.unwrap().why,
        "the multi that was refused"
    );
    assert_eq!(run(5).wrong(), [""; 0]);
}

#[test]
fn a_request_of_a_session_that_had_moved_is_found_in_the_logs() {
    let witness = json!([
        {"k": "op", "id": 1, "c": 3, "s": "0x100", "conn": 1, "xid": 40, "op": "create", "path": "/s/q-", "t0": 10,
            "out": "unknown"},
        {"k": "op", "id": 2, "c": 3, "s": "0x100", "conn": 2, "xid": 42, "op": "set", "path": "/r", "t0": 20, "t1": 30,
            "out": "ok", "z": zx(1, 5)},
    ]);
    let message =
        "a write that was sent later got 0x100000005, one that was sent earlier 0x100000008";
    let mut run = Run::new("session-fifo", message, witness, Vec::new()).with_log("n1", &[(1, 8)]);
    run.folder.load = crate::report::run::Load::connected(&[(0x100, 1, "n1"), (0x100, 2, "n2")]);
    assert_eq!(run.wrong(), [""; 0], "no log says so");
    run.kept[0].txns.push(LoggedTxn {
        log: "n1".to_owned(),
        zxid: Zxid(1 << 32 | 8),
        what: "create /s/q-7".to_owned(),
        session: SessionId(0x100),
        request: Xid(40),
        time_ms: 0,
        digest: None,
    });
    has(
        &run.wrong(),
        &[
            "then moved to n2",
            "(SessionMoved)",
            "became the txn 0x100000008 (create /s/q-7), behind 0x100000005",
        ],
    );
}

#[test]
fn a_missing_event_is_looked_for_everywhere() {
    let op = |id: u32, c: u32, kind: &str, path: &str, z: &str, t0: u64| {
        json!({"k": "op", "id": id, "c": c, "s": format!("0x{c}00"), "conn": 1, "xid": id, "op": kind, "path": path,
            "t0": t0, "t1": t0 + 10, "out": "ok", "z": z})
    };
    let witness = json!([
        op(1, 5, "recursive", "/e", &zx(1, 1), 10),
        op(2, 1, "create", "/e/0", &zx(1, 4), 30),
        op(3, 5, "get", "/r", &zx(1, 6), 50),
    ]);
    let event = |c: u32, path: &str, z: &str, at: u64| {
        json!({"k": "event", "c": c, "s": format!("0x{c}00"), "conn": 1, "at": at, "ev": "created", "path": path, "z": z})
            .to_string()
    };
    let before = event(5, "/e/9", &zx(1, 2), 25);
    let text = |lines: &[String]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("history.ndjson"), lines.join("\n")).unwrap();
        let message = "a watch that stays did not tell that /e/0 was created";
        let mut run = Run::new("watches", message, witness.clone(), Vec::new());
        run.folder.dir = dir.path().to_owned();
        run.wrong()
    };
    has(
        &text(std::slice::from_ref(&before)),
        &[
            "The event never came until the end of the run",
            "no event with that zxid reached any other client",
            "told of an earlier change (0x100000002 /e/9 created at 0.000 s), and told of none any more",
        ],
    );
    let all = [
        before,
        event(5, "/e/1", &zx(1, 5), 70),
        event(7, "/e/0", &zx(1, 4), 40),
        event(5, "/e/0", &zx(1, 4), 90),
    ];
    has(
        &text(&all),
        &[
            "The event came only at 0.000 s, after that answer",
            "others were told: client 7 (session 0x700) at 0.000 s",
        ],
    );
}
