//! The life and death of sessions.

use zkd::auth::session_password;
use zkd::ids::{LinkId, SessionId};
use zkd::pipeline::{Origin, Request};
use zkd::record::opcode::OpCode;
use zkd::record::txn::{ErrorTxn, Txn};

use crate::harness::*;

#[test]
fn a_silent_session_expires_and_its_connection_is_closed_without_a_word() {
    let mut s = TestServer::new();
    let (c, other) = (s.connect(), s.connect());
    s.ask(c, OpCode::Create, &create("/e", b"", 1));
    s.ask(other, OpCode::Exists, &path_watch("/e", true));
    for _ in 0..4 {
        s.pass(3_000);
        s.send(other, &frame(-2, 11, b""));
    }
    assert!(s.received(c).is_empty());
    assert!(s.is_closed(c));
    assert!(!s.is_closed(other));
    let replies = s.replies(other);
    let events: Vec<_> = replies
        .iter()
        .filter(|reply| reply.xid == -1)
        .map(event)
        .collect();
    assert_eq!(events, [(2, "/e".to_owned())]);
    let record = s.log.last().unwrap();
    assert_eq!((record.header.cxid.0, record.header.kind), (0, -11));
}

#[test]
fn pings_alone_keep_a_session() {
    let mut s = TestServer::new();
    let c = s.connect();
    for _ in 0..10 {
        s.pass(5_000);
        s.send(c, &frame(-2, 11, b""));
        assert_eq!(s.replies(c)[0].xid, -2);
    }
    assert!(!s.is_closed(c));
}

#[test]
fn close_session_takes_what_is_on_its_way_along() {
    let mut s = TestServer::new();
    let c = s.connect();
    for path in ["/committed", "/deleted", "/d", "/d/x"] {
        let flags = i32::from(!path.starts_with("/d") || path == "/deleted" || path == "/d/x");
        s.ask(c, OpCode::Create, &create(path, b"", flags));
    }
    s.hold = true;
    let mut bytes = frame(1, 1, &create("/pending", b"", 1));
    bytes.extend(frame(2, 2, &path_version("/deleted", -1)));
    bytes.extend(frame(3, 1, &create("/stays", b"", 0)));
    bytes.extend(frame(4, -11, b""));
    s.send(c, &bytes);
    let Txn::CloseSession(close) = &s.log.last().unwrap().txn else {
        panic!("not a close: {:?}", s.log.last());
    };
    assert_eq!(
        close.paths.as_deref().unwrap(),
        ["/committed", "/d/x", "/pending"].map(str::to_owned)
    );
    // Another session sees them gone already.
    let deleter = s.log[0].header.client_id;
    assert_ne!(deleter, SessionId::NONE);
    s.release();
    assert_eq!(s.replies(c).last().unwrap().zxid, s.zxid.0);
    let other = s.connect();
    s.stat(other, "/stays");
    for path in ["/committed", "/pending", "/deleted", "/d/x"] {
        assert_eq!(s.err(other, OpCode::Exists, &path_watch(path, false)), -101);
    }
    assert_eq!(s.stat(other, "/d").num_children, 0);
    assert_eq!(s.server.tree().read().sessions().len(), 1);
    assert_eq!(s.tracker.len(), 1);
}

#[test]
fn a_parent_may_go_right_behind_the_session_that_filled_it() {
    let mut s = TestServer::new();
    let (c, other) = (s.connect(), s.connect());
    s.create(c, "/d");
    s.ask(c, OpCode::Create, &create("/d/e", b"", 1));
    s.hold = true;
    s.send(c, &frame(1, -11, b""));
    s.send(other, &frame(1, 2, &path_version("/d", -1)));
    s.release();
    assert_eq!(s.replies(other)[0].err, 0);
}

#[test]
fn writes_of_a_closing_session_are_refused() {
    let mut s = TestServer::new();
    let c = s.connect();
    let session = s.session(c);
    s.hold = true;
    s.order(&Request::expire(session));
    s.send(c, &frame(1, 1, &create("/late", b"", 1)));
    let Txn::Error(ErrorTxn { code }) = s.log.last().unwrap().txn else {
        panic!("accepted");
    };
    assert_eq!(code, -112);
    s.release();
    assert!(s.is_closed(c));
    let c = s.connect();
    assert_eq!(s.err(c, OpCode::Exists, &path_watch("/late", false)), -101);
}

#[test]
fn a_moved_session_is_closed_without_a_word() {
    for op in [OpCode::SetData, OpCode::Multi] {
        let mut s = TestServer::new();
        let c = s.connect();
        let session = s.session(c);
        // The client has shown up at a learner.
        let link = zkd::session::Owner::Link(LinkId(5));
        assert!(s.tracker.reattach(session, 10_000, link, s.now.instant));
        assert_eq!(
            s.err(c, OpCode::Exists, &path_watch("/", false)),
            0,
            "reads go on"
        );
        let body = match op {
            OpCode::Multi => multi(&[(OpCode::SetData, set_data("/", b"", -1))]),
            _ => set_data("/", b"", -1),
        };
        let before = s.zxid.0;
        s.send(c, &frame(1, op.code(), &body));
        assert!(s.received(c).is_empty());
        assert!(s.is_closed(c));
        assert_eq!(s.zxid.0, before + 1, "the attempt takes a zxid");
        // Through the learner it goes on.
        let mut forwarded = request(session, 9, OpCode::SetData, &set_data("/", b"", -1));
        forwarded.origin = Origin::Learner(LinkId(5));
        s.order(&forwarded);
        assert_eq!(s.log.last().unwrap().header.kind, OpCode::SetData.code());
    }
}

#[test]
fn close_session_needs_no_ownership() {
    let mut s = TestServer::new();
    let c = s.connect();
    let link = zkd::session::Owner::Link(LinkId(5));
    s.tracker
        .reattach(s.session(c), 10_000, link, s.now.instant);
    assert_eq!(s.err(c, OpCode::CloseSession, b""), 0);
    assert!(s.is_closed(c));
}

#[test]
fn txns_of_other_servers_reach_only_watchers() {
    let mut s = TestServer::new();
    let w = s.connect();
    s.ask(w, OpCode::GetChildren, &path_watch("/", true));
    let foreign = SessionId(0x0500_0000_0000_0001);
    let mut open = request(foreign, 0, OpCode::CreateSession, &10_000_i32.to_be_bytes());
    open.origin = Origin::Learner(LinkId(1));
    s.order(&open);
    let mut write = request(foreign, 1, OpCode::Create, &create("/x", b"", 1));
    write.origin = Origin::Learner(LinkId(1));
    s.order(&write);
    let replies = s.replies(w);
    assert_eq!(event(&replies[0]), (4, "/".into()));
    assert_eq!(replies.len(), 1);
    // The client of the other server comes here with its session.
    let c = s.accept();
    s.send(
        c,
        &connect_frame(&Connect {
            session: foreign,
            password: Some(session_password(foreign).to_vec()),
            ..Connect::default()
        }),
    );
    assert_eq!(s.connected(c).session, foreign);
    assert_eq!(s.err(c, OpCode::Delete, &path_version("/x", 0)), 0);
}
