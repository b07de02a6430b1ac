//! The first frame: sessions opened, taken up again, refused.

use zkd::auth::session_password;
use zkd::config::FourLetterWord;
use zkd::event::ServerState;
use zkd::ids::{ServerId, SessionId, Zxid};
use zkd::pipeline::{Flow, PrepOptions, ServerOptions};
use zkd::record::opcode::OpCode;

use crate::harness::*;

#[test]
fn a_session_is_a_txn_and_the_answer_comes_after_it() {
    let mut s = TestServer::new();
    s.hold = true;
    let c = s.accept();
    s.send(c, &connect_frame(&Connect::default()));
    assert!(s.received(c).is_empty());
    assert_eq!(s.uncommitted.len(), 1);
    // Requests that follow at once wait in the socket.
    s.send(c, &frame(1, 4, &path_watch("/", false)));
    assert!(s.received(c).is_empty());
    s.release();
    let hello = s.connected(c);
    assert_eq!(hello.session, SessionId(0x0100_0011_9138_0000));
    assert_eq!(hello.timeout_ms, 10_000);
    assert_eq!(hello.password, session_password(hello.session));
    assert_eq!(hello.read_only, Some(false));
    let replies = s.replies(c);
    assert_eq!((replies.len(), replies[0].xid, replies[0].err), (1, 1, 0));
    assert_eq!(replies[0].zxid, 1, "the session took the first zxid");
}

#[test]
fn clients_without_the_read_only_byte_get_none() {
    let mut s = TestServer::new();
    let c = s.accept();
    let connect = Connect {
        read_only: None,
        password: Some(b"password".to_vec()),
        ..Connect::default()
    };
    s.send(c, &connect_frame(&connect));
    assert_eq!(s.connected(c).read_only, None);
    for password in [None, Some(vec![]), Some(vec![1; 3]), Some(vec![1; 40])] {
        let c = s.accept();
        s.send(
            c,
            &connect_frame(&Connect {
                password,
                ..Connect::default()
            }),
        );
        assert_ne!(s.connected(c).session, SessionId::NONE);
    }
}

#[test]
fn timeouts_are_clamped() {
    let mut s = TestServer::new();
    for (asked, granted) in [
        (0, 6_000),
        (-5, 6_000),
        (5_999, 6_000),
        (10_000, 10_000),
        (60_001, 60_000),
        (i32::MAX, 60_000),
    ] {
        let c = s.accept();
        let connect = Connect {
            timeout_ms: asked,
            ..Connect::default()
        };
        s.send(c, &connect_frame(&connect));
        assert_eq!(s.connected(c).timeout_ms, granted, "{asked}");
    }
}

fn again(session: SessionId) -> Connect {
    Connect {
        session,
        password: Some(session_password(session).to_vec()),
        ..Connect::default()
    }
}

#[test]
fn a_second_connection_takes_the_session_over() {
    let mut s = TestServer::new();
    let first = s.connect();
    let session = s.session(first);
    s.ask(first, OpCode::Create, &create("/e", b"", 1));
    let second = s.accept();
    let connect = Connect {
        timeout_ms: 20_000,
        ..again(session)
    };
    s.send(second, &connect_frame(&connect));
    let hello = s.connected(second);
    assert_eq!((hello.session, hello.timeout_ms), (session, 20_000));
    assert!(s.is_closed(first));
    assert_eq!(s.stat(second, "/e").ephemeral_owner, session);
    // Closing the one that took over ends the session and its ephemerals.
    assert_eq!(s.err(second, OpCode::CloseSession, b""), 0);
    assert!(s.is_closed(second));
    let third = s.connect();
    assert_eq!(s.err(third, OpCode::Exists, &path_watch("/e", false)), -101);
}

#[test]
fn a_broken_connection_does_not_end_the_session() {
    let mut s = TestServer::new();
    let first = s.connect();
    let session = s.session(first);
    s.ask(first, OpCode::Create, &create("/e", b"", 1));
    s.disconnect(first);
    let second = s.accept();
    s.send(second, &connect_frame(&again(session)));
    assert_eq!(s.connected(second).session, session);
    assert_eq!(s.stat(second, "/e").ephemeral_owner, session);
}

#[test]
fn wrong_password_unknown_and_closed_sessions_get_the_expired_answer() {
    let mut s = TestServer::new();
    let live = s.connect();
    let session = s.session(live);
    let mut wrong = session_password(session).to_vec();
    wrong[3] ^= 1;
    let gone = {
        let c = s.connect();
        let session = s.session(c);
        s.ask(c, OpCode::CloseSession, b"");
        session
    };
    for connect in [
        Connect {
            password: Some(wrong),
            ..again(session)
        },
        Connect {
            password: None,
            ..again(session)
        },
        again(SessionId(0x1234)),
        Connect {
            password: Some(vec![7; 16]),
            ..again(SessionId(0x1234))
        },
        again(gone),
    ] {
        let c = s.accept();
        s.send(c, &connect_frame(&connect));
        let hello = s.connected(c);
        assert_eq!((hello.timeout_ms, hello.session), (0, SessionId::NONE));
        assert_eq!(hello.password, [0; 16]);
        assert!(s.is_closed(c));
    }
    assert!(s.is_closed(live), "closed first, even for a wrong password");
}

#[test]
fn a_client_from_the_future_hears_nothing() {
    let mut s = TestServer::new();
    let c = s.accept();
    let ahead = Connect {
        last_zxid: 1,
        ..Connect::default()
    };
    s.send(c, &connect_frame(&ahead));
    assert!(s.received(c).is_empty());
    assert!(s.is_closed(c));
    s.connect();
    let c = s.accept();
    s.send(c, &connect_frame(&ahead));
    assert_ne!(s.connected(c).session, SessionId::NONE, "no longer ahead");
}

#[test]
fn a_server_that_does_not_serve_closes() {
    let mut s = TestServer::new();
    let before = s.connect();
    s.server.stop_serving(ServerState::Looking);
    assert!(s.is_closed(before));
    let c = s.accept();
    s.send(c, &connect_frame(&Connect::default()));
    assert!(s.received(c).is_empty());
    assert!(s.is_closed(c));
    s.server.start_serving(ServerState::Standalone);
    s.connect();
}

#[test]
fn what_is_on_its_way_when_serving_stops_is_never_answered() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.hold = true;
    s.send(c, &frame(1, 1, &create("/a", b"", 0)));
    s.server.stop_serving(ServerState::Looking);
    s.release();
    assert!(s.received(c).is_empty());
    assert_eq!(s.server.stats().outstanding, 0);
    s.server.start_serving(ServerState::Standalone);
    let c = s.connect();
    s.stat(c, "/a");
}

#[test]
fn a_read_only_server() {
    let mut s = TestServer::new();
    let known = s.connect();
    let session = s.session(known);
    s.create(known, "/a");
    s.server.stop_serving(ServerState::Looking);
    s.server.start_serving_read_only();
    let refused = s.accept();
    s.send(refused, &connect_frame(&Connect::default()));
    assert!(s.received(refused).is_empty(), "not content with reads");
    assert!(s.is_closed(refused));
    let content = |connect: Connect| {
        connect_frame(&Connect {
            read_only: Some(true),
            ..connect
        })
    };
    let back = s.accept();
    s.send(back, &content(again(session)));
    assert!(
        s.received(back).is_empty(),
        "a global session has to wait for a quorum"
    );
    assert!(s.is_closed(back));
    let unknown = s.accept();
    s.send(unknown, &content(again(SessionId(99))));
    assert_eq!(s.connected(unknown).session, SessionId::NONE);

    let c = s.accept();
    s.send(c, &content(Connect::default()));
    let hello = s.connected(c);
    assert_eq!(hello.read_only, Some(true));
    assert!(s.uncommitted.is_empty() && s.zxid == Zxid(2), "no txn");
    s.stat(c, "/a");
    let zxid = 2;
    for (op, body) in [
        (OpCode::Create, create("/b", b"", 0)),
        (OpCode::Multi, multi(&[])),
        (OpCode::SetData, set_data("/a", b"", -1)),
        (OpCode::Sync, only_path("/")),
    ] {
        let reply = s.ask(c, op, &body);
        assert_eq!((reply.err, reply.zxid), (-119, zxid), "{op:?}");
    }
    assert_eq!(s.err(c, OpCode::CloseSession, b""), 0);
    assert!(s.is_closed(c));
}

#[test]
fn too_many_from_one_address() {
    let options = ServerOptions {
        max_client_cnxns: 2,
        ..ServerOptions::default()
    };
    let mut s = TestServer::with(options, PrepOptions::default());
    let first = s.connect();
    s.connect();
    assert_eq!(s.accept_from("127.0.0.1"), None);
    assert_eq!(s.accept_from("::ffff:127.0.0.1"), None);
    assert!(s.accept_from("127.0.0.2").is_some());
    s.stat(first, "/");
    s.disconnect(first);
    assert!(s.accept_from("127.0.0.1").is_some());
    let options = ServerOptions {
        max_cnxns: 1,
        ..ServerOptions::default()
    };
    let mut s = TestServer::with(options, PrepOptions::default());
    assert!(s.accept_from("127.0.0.1").is_some());
    assert_eq!(s.accept_from("127.0.0.2"), None);
}

#[test]
fn silent_connections_are_closed_and_sessions_are_not() {
    let mut s = TestServer::new();
    let with_session = s.connect();
    let silent = s.accept();
    s.pass(9_999);
    assert!(!s.is_closed(silent));
    s.ask(with_session, OpCode::Exists, &path_watch("/", false));
    s.pass(1);
    assert!(s.is_closed(silent));
    assert!(!s.is_closed(with_session));
}

#[test]
fn four_letter_words_are_seen_whole_split_and_with_a_newline() {
    let s = TestServer::new();
    let now = s.now;
    for (id, parts) in [
        (1, vec!["ruok"]),
        (2, vec!["r", "uo", "k\n"]),
        (3, vec!["ruok\n"]),
    ] {
        let cnxn = s
            .server
            .open(
                zkd::ids::ConnId(id),
                "127.0.0.1".parse().unwrap(),
                std::sync::Arc::new(Quiet),
                now.instant,
            )
            .unwrap();
        let mut input = bytes::BytesMut::new();
        let mut flow = Flow::Read;
        for part in parts {
            input.extend_from_slice(part.as_bytes());
            flow = cnxn.on_bytes(&s.server, &mut input, now, &mut Vec::new());
        }
        assert_eq!(flow, Flow::FourLetter(FourLetterWord::Ruok));
    }
    let mut s = TestServer::new();
    let c = s.connect();
    s.send(c, b"ruok");
    assert!(s.is_closed(c), "after the handshake it is a length");
}

struct Quiet;

impl zkd::pipeline::Waker for Quiet {
    fn wake(&self) {}
}

#[test]
fn session_ids_count_up_and_name_the_server() {
    let options = ServerOptions {
        server_id: ServerId(3),
        ..ServerOptions::default()
    };
    let mut s = TestServer::with(options, PrepOptions::default());
    let (a, b) = (s.connect(), s.connect());
    assert_eq!(s.session(a).0 >> 56, 3);
    assert_eq!(s.session(b).0, s.session(a).0 + 1);
}
