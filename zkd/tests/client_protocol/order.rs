//! The order of a connection's answers, and reads behind its own writes.

use zkd::ids::SessionId;
use zkd::pipeline::{PrepOptions, ServerOptions};
use zkd::record::opcode::OpCode;

use crate::harness::*;

fn xids(s: &mut TestServer, c: Client) -> Vec<i32> {
    s.replies(c).iter().map(|reply| reply.xid).collect()
}

#[test]
fn a_read_waits_for_the_write_before_it_and_sees_no_later_one() {
    let mut s = TestServer::new();
    let (c, other) = (s.connect(), s.connect());
    s.hold = true;
    s.send(c, &frame(1, 1, &create("/a", b"1", 0)));
    s.send(c, &frame(2, 4, &path_watch("/a", true)));
    s.send(c, &frame(3, 5, &set_data("/a", b"22", -1)));
    s.send(c, &frame(4, 4, &path_watch("/a", false)));
    s.send(c, &frame(5, 9, &only_path("/a")));
    s.send(c, &frame(6, 8, &path_watch("/", false)));
    assert_eq!(s.uncommitted.len(), 3, "writes and syncs go on at once");
    assert!(xids(&mut s, c).is_empty());
    assert_eq!(s.server.stats().outstanding, 6);
    // Others do not wait.
    assert_eq!(s.err(other, OpCode::Exists, &path_watch("/a", false)), -101);
    s.commit(1);
    let replies = s.replies(c);
    assert_eq!(replies.len(), 2);
    assert_eq!((replies[1].xid, replies[1].err), (2, 0));
    assert_eq!(replies[1].body[..5], [0, 0, 0, 1, b'1']);
    assert_eq!(replies[1].zxid, replies[0].zxid);
    // Both at once: the read of the first must not see the second.
    s.commit(1);
    let replies = s.replies(c);
    assert_eq!(event(&replies[0]), (3, "/a".into()));
    assert_eq!((replies[1].xid, replies[2].xid), (3, 4));
    assert_eq!(replies[2].body[..4], [0, 0, 0, 2]);
    s.release();
    assert_eq!(xids(&mut s, c), [5, 6]);
    assert_eq!(s.server.stats().outstanding, 0);
}

#[test]
fn a_batch_of_commits_runs_the_reads_in_between() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.hold = true;
    s.send(c, &frame(1, 1, &create("/a", b"1", 0)));
    s.send(c, &frame(2, 3, &path_watch("/a", false)));
    s.send(c, &frame(3, 2, &path_version("/a", 0)));
    s.send(c, &frame(4, 3, &path_watch("/a", false)));
    s.commit(2);
    let replies = s.replies(c);
    let errs: Vec<_> = replies.iter().map(|reply| (reply.xid, reply.err)).collect();
    assert_eq!(errs, [(1, 0), (2, 0), (3, 0), (4, -101)]);
    assert_eq!(replies[1].zxid, replies[0].zxid);
    assert_eq!(replies[3].zxid, replies[2].zxid);
}

#[test]
fn pings_and_credentials_keep_their_place() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.hold = true;
    s.send(c, &frame(1, 1, &create("/a", b"", 0)));
    s.send(c, &frame(-2, 11, b""));
    s.send(c, &frame(-4, 100, &auth("digest", Some(b"u:p"))));
    s.send(c, &frame(9, 100, &auth("ip", Some(b"x"))));
    s.send(c, &frame(3, 107, b""));
    s.release();
    let replies = s.replies(c);
    let heads: Vec<_> = replies.iter().map(|r| (r.xid, r.zxid, r.err)).collect();
    assert_eq!(
        heads,
        [(1, 2, 0), (-2, 2, 0), (-4, 0, 0), (9, 0, 0), (3, 2, 0)]
    );
    assert!(replies[1].body.is_empty());
    assert_eq!(replies[4].body[3], 2, "known as two by then");
    s.send(c, &frame(1234, 11, b"body"));
    assert_eq!(s.replies(c)[0].xid, -2, "whatever the ping's xid was");
}

#[test]
fn refused_credentials_close_after_what_was_asked_before() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.hold = true;
    s.send(c, &frame(1, 1, &create("/a", b"", 0)));
    s.send(c, &frame(-4, 100, &auth("FOO", Some(b"u:p"))));
    s.send(c, &frame(2, 1, &create("/b", b"", 0)));
    assert!(!s.is_closed(c));
    s.release();
    let heads: Vec<_> = s.replies(c).iter().map(|r| (r.xid, r.err)).collect();
    assert_eq!(heads, [(1, 0), (-4, -115)]);
    assert!(s.is_closed(c));
}

#[test]
fn unknown_operations_are_answered_and_close() {
    for op in [0, 10, 13, 20, 23, 99, 108, 888, -1, -10, i32::MIN] {
        let mut s = TestServer::new();
        let c = s.connect();
        let zxid = s.zxid;
        s.send(c, &frame(3, op, &path_version("/", -1)));
        let replies = s.replies(c);
        assert_eq!((replies.len(), replies[0].xid), (1, 3), "op {op}");
        assert_eq!((replies[0].err, replies[0].zxid), (-6, -1), "op {op}");
        assert!(s.is_closed(c));
        assert_eq!(s.zxid, zxid, "no txn");
    }
}

#[test]
fn nothing_after_close_session_counts() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.create(c, "/a");
    let mut bytes = frame(1, 1, &create("/a/e", b"", 1));
    bytes.extend(frame(2, 4, &path_watch("/a", false)));
    bytes.extend(frame(3, -11, b""));
    bytes.extend(frame(4, 1, &create("/a/late", b"", 1)));
    bytes.extend(frame(5, 4, &path_watch("/a", false)));
    s.send(c, &bytes);
    let heads: Vec<_> = s.replies(c).iter().map(|r| (r.xid, r.err)).collect();
    assert_eq!(heads, [(1, 0), (2, 0), (3, 0)]);
    assert!(s.is_closed(c));
    let c = s.connect();
    assert_eq!(s.stat(c, "/a").num_children, 0);
}

#[test]
fn xids_are_not_judged() {
    let mut s = TestServer::new();
    let c = s.connect();
    for xid in [i32::MAX, 1, 1, 0, -77, i32::MIN] {
        s.send(c, &frame(xid, 3, &path_watch("/", false)));
        s.send(c, &frame(xid, 1, &create("/zookeeper", b"", 0)));
        assert_eq!(xids(&mut s, c), [xid, xid]);
    }
}

#[test]
fn a_connection_with_too_much_on_its_way_is_not_read_from() {
    let options = ServerOptions {
        global_outstanding_limit: 10,
        ..ServerOptions::default()
    };
    let mut s = TestServer::with(options, PrepOptions::default());
    let c = s.connect();
    s.hold = true;
    let mut bytes = Vec::new();
    for xid in 0..100 {
        bytes.extend(frame(xid, 5, &set_data("/", b"", -1)));
    }
    s.send(c, &bytes);
    assert_eq!(s.uncommitted.len(), 11);
    // One without requests of its own is served all the same.
    let other = s.accept();
    s.send(other, &connect_frame(&Connect::default()));
    s.release();
    assert_eq!(xids(&mut s, c), (0..100).collect::<Vec<_>>());
    assert_ne!(s.connected(other).session, SessionId::NONE);
}

#[test]
fn clients_that_ask_for_much_share_what_may_be_on_its_way() {
    // Of small requests each may have a group; of large ones only its share, here a half.
    for (limit, size, share) in [(10, 0, 10), (100, 0, 50), (20, 0, 16), (20, 5000, 10)] {
        let options = ServerOptions {
            global_outstanding_limit: limit,
            ..ServerOptions::default()
        };
        let mut s = TestServer::with(options, PrepOptions::default());
        let (first, second) = (s.connect(), s.connect());
        s.hold = true;
        let bytes: Vec<u8> = (0..300)
            .flat_map(|xid| frame(xid, 5, &set_data("/", &vec![0; size], -1)))
            .collect();
        s.send(first, &bytes);
        assert_eq!(s.uncommitted.len(), limit + 1, "the first may have it all");
        s.send(second, &bytes);
        assert_eq!(s.uncommitted.len(), limit + 1 + share);
        s.release();
        for client in [first, second] {
            assert_eq!(xids(&mut s, client), (0..300).collect::<Vec<_>>());
        }
    }
}

#[test]
fn many_writes_are_prepared_before_the_first_is_applied() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.create(c, "/a");
    s.hold = true;
    let mut bytes = Vec::new();
    for (xid, (op, body)) in [
        (1, create("/a/b", b"x", 0)),
        (1, create("/a/b", b"x", 0)),
        (1, create("/a/b/c", b"", 2)),
        (2, path_version("/a/b", -1)),
        (5, set_data("/a/b", b"y", 0)),
        (5, set_data("/a/b", b"y", 0)),
        (2, path_version("/a/b/c0000000000", 0)),
        (2, path_version("/a/b", 1)),
        (5, set_data("/a/b", b"", -1)),
        (1, create("/a/b", b"", 1)),
        (1, create("/a/b/c", b"", 0)),
    ]
    .into_iter()
    .enumerate()
    {
        bytes.extend(frame(i32::try_from(xid).unwrap(), op, &body));
    }
    s.send(c, &bytes);
    s.release();
    let errs: Vec<_> = s.replies(c).iter().map(|reply| reply.err).collect();
    assert_eq!(errs, [0, -110, 0, -111, 0, -103, 0, 0, -101, 0, -108]);
}
