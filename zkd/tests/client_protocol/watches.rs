//! Watches: what fires, in which order, for whom.

use zkd::record::data::{Acl, Id, perms};
use zkd::record::opcode::OpCode;

use crate::harness::*;

const CREATED: i32 = 1;
const DELETED: i32 = 2;
const CHANGED: i32 = 3;
const CHILDREN: i32 = 4;

fn events(s: &mut TestServer, c: Client) -> Vec<(i32, String)> {
    s.replies(c).iter().map(event).collect()
}

fn named(list: &[(i32, &str)]) -> Vec<(i32, String)> {
    list.iter()
        .map(|(kind, path)| (*kind, (*path).to_owned()))
        .collect()
}

fn add_watch(path: &str, mode: i32) -> Vec<u8> {
    path_version(path, mode)
}

#[test]
fn one_shots_fire_once() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    assert_eq!(s.err(w, OpCode::Exists, &path_watch("/a", true)), -101);
    assert_eq!(
        s.err(w, OpCode::GetData, &path_watch("/a", true)),
        -101,
        "arms nothing"
    );
    assert_eq!(s.err(w, OpCode::GetChildren, &path_watch("/", true)), 0);
    s.create(c, "/a");
    assert_eq!(
        events(&mut s, w),
        named(&[(CREATED, "/a"), (CHILDREN, "/")])
    );
    s.ask(c, OpCode::SetData, &set_data("/a", b"", -1));
    assert!(events(&mut s, w).is_empty());
    s.ask(w, OpCode::Exists, &path_watch("/a", true));
    s.ask(w, OpCode::GetData, &path_watch("/a", true));
    s.ask(w, OpCode::GetChildren, &path_watch("/a", true));
    s.ask(w, OpCode::GetChildren2, &path_watch("/", true));
    s.ask(c, OpCode::SetAcl, &set_acl("/a", Some(&Acl::open()), -1));
    s.ask(c, OpCode::SetData, &set_data("/a", b"", -1));
    assert_eq!(
        events(&mut s, w),
        named(&[(CHANGED, "/a")]),
        "two data watches, one event"
    );
    s.ask(w, OpCode::GetData, &path_watch("/a", true));
    s.ask(c, OpCode::Delete, &path_version("/a", -1));
    assert_eq!(
        events(&mut s, w),
        named(&[(DELETED, "/a"), (CHILDREN, "/")])
    );
}

#[test]
fn the_event_precedes_the_reply_and_carries_the_zxid() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.ask(c, OpCode::Exists, &path_watch("/a", true));
    s.send(c, &frame(5, 1, &create("/a", b"", 0)));
    let replies = s.replies(c);
    assert_eq!(event(&replies[0]), (CREATED, "/a".into()));
    assert_eq!((replies[1].xid, replies[1].err), (5, 0));
    assert_eq!(replies[0].zxid, replies[1].zxid);
    assert_eq!(replies[0].zxid, s.stat(c, "/a").czxid.0);
}

#[test]
fn persistent_and_recursive() {
    let mut s = TestServer::new();
    let (c, p, r) = (s.connect(), s.connect(), s.connect());
    for (client, mode) in [(p, 0), (r, 1)] {
        let reply = s.ask(client, OpCode::AddWatch, &add_watch("/a", mode));
        assert_eq!((reply.err, reply.body), (0, vec![0; 4]));
    }
    assert_eq!(s.err(p, OpCode::AddWatch, &add_watch("/a", 2)), -5);
    for _ in 0..2 {
        s.create(c, "/a");
        s.create(c, "/a/b");
        s.create(c, "/a/b/c");
        s.ask(c, OpCode::SetData, &set_data("/a/b", b"", -1));
        for path in ["/a/b/c", "/a/b", "/a"] {
            assert_eq!(s.err(c, OpCode::Delete, &path_version(path, -1)), 0);
        }
        assert_eq!(
            events(&mut s, p),
            named(&[
                (CREATED, "/a"),
                (CHILDREN, "/a"),
                (CHILDREN, "/a"),
                (DELETED, "/a")
            ])
        );
        assert_eq!(
            events(&mut s, r),
            named(&[
                (CREATED, "/a"),
                (CREATED, "/a/b"),
                (CREATED, "/a/b/c"),
                (CHANGED, "/a/b"),
                (DELETED, "/a/b/c"),
                (DELETED, "/a/b"),
                (DELETED, "/a"),
            ])
        );
    }
    // A plain child watch beside a recursive one still hears of children.
    s.create(c, "/a");
    s.replies(r);
    s.ask(r, OpCode::GetChildren, &path_watch("/a", true));
    s.create(c, "/a/b");
    assert_eq!(
        events(&mut s, r),
        named(&[(CREATED, "/a/b"), (CHILDREN, "/a")])
    );
}

#[test]
fn multis_fire_per_operation_and_failed_ones_not_at_all() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    s.ask(w, OpCode::AddWatch, &add_watch("/", 1));
    let ops = [
        (OpCode::Create, create("/a", b"", 0)),
        (OpCode::SetData, set_data("/a", b"", -1)),
        (OpCode::Delete, path_version("/a", -1)),
    ];
    s.ask(c, OpCode::Multi, &multi(&ops));
    let replies = s.replies(w);
    assert!(replies.iter().all(|reply| reply.zxid == s.zxid.0));
    let said: Vec<_> = replies.iter().map(event).collect();
    assert_eq!(
        said,
        named(&[(CREATED, "/a"), (CHANGED, "/a"), (DELETED, "/a")])
    );
    let mut failing = ops.to_vec();
    failing.push((OpCode::Check, path_version("/missing", 0)));
    s.ask(c, OpCode::Multi, &multi(&failing));
    assert!(events(&mut s, w).is_empty());
}

#[test]
fn who_may_not_read_hears_nothing_but_the_watch_is_used_up() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    s.ask(c, OpCode::Auth, &auth("digest", Some(b"u:p")));
    let mine = [Acl {
        perms: perms::ALL,
        id: Id {
            scheme: Some("auth".into()),
            id: None,
        },
    }];
    s.ask(w, OpCode::Exists, &path_watch("/a", true));
    s.ask(w, OpCode::AddWatch, &add_watch("/", 1));
    s.ask(w, OpCode::GetChildren, &path_watch("/", true));
    s.ask(c, OpCode::Create, &create_acl("/a", b"", Some(&mine), 0));
    assert_eq!(
        events(&mut s, w),
        named(&[(CHILDREN, "/")]),
        "the parent may be read"
    );
    s.ask(c, OpCode::SetAcl, &set_acl("/a", Some(&Acl::open()), -1));
    s.ask(c, OpCode::SetData, &set_data("/a", b"", -1));
    assert_eq!(
        events(&mut s, w),
        named(&[(CHANGED, "/a")]),
        "recursive, not the one-shot"
    );
}

#[test]
fn watches_go_with_their_connection() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    s.ask(w, OpCode::GetChildren, &path_watch("/", true));
    s.ask(w, OpCode::AddWatch, &add_watch("/", 1));
    assert_eq!(s.server.watches().lock().counts().connections, 1);
    s.disconnect(w);
    assert_eq!(s.server.watches().lock().counts().connections, 0);
    s.create(c, "/a");
}

#[test]
fn check_and_remove() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    s.create(c, "/a");
    s.ask(w, OpCode::GetData, &path_watch("/a", true));
    s.ask(w, OpCode::GetChildren, &path_watch("/a", true));
    s.ask(w, OpCode::AddWatch, &add_watch("/a", 0));
    for kind in [1, 2, 3, 4] {
        assert_eq!(
            s.err(w, OpCode::CheckWatches, &path_version("/a", kind)),
            0,
            "{kind}"
        );
    }
    assert_eq!(s.err(w, OpCode::CheckWatches, &path_version("/a", 5)), -121);
    assert_eq!(s.err(w, OpCode::CheckWatches, &path_version("/b", 3)), -121);
    assert_eq!(s.err(w, OpCode::CheckWatches, &path_version("/a", 6)), -5);
    assert_eq!(s.err(w, OpCode::RemoveWatches, &path_version("/a", 0)), -5);
    assert_eq!(
        s.err(w, OpCode::RemoveWatches, &path_version("/a", 5)),
        -121
    );
    assert_eq!(s.err(w, OpCode::RemoveWatches, &path_version("/a", 2)), 0);
    assert_eq!(
        s.err(w, OpCode::RemoveWatches, &path_version("/a", 2)),
        -121
    );
    assert_eq!(s.err(w, OpCode::RemoveWatches, &path_version("/a", 4)), 0);
    assert_eq!(s.err(w, OpCode::CheckWatches, &path_version("/a", 1)), 0);
    assert_eq!(s.err(w, OpCode::RemoveWatches, &path_version("/a", 3)), 0);
    s.create(c, "/a/b");
    assert!(events(&mut s, w).is_empty());
}

fn set_watches(relative_zxid: i64, lists: &[&[&str]]) -> Vec<u8> {
    body(|out| {
        out.long(relative_zxid);
        for list in lists {
            let list: Vec<String> = list.iter().map(|path| (*path).to_owned()).collect();
            out.vector(Some(&list));
        }
    })
}

#[test]
fn watches_set_again_catch_up() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    for path in ["/old", "/changed", "/parent", "/quiet"] {
        s.create(c, path);
    }
    let seen = s.zxid.0;
    s.ask(c, OpCode::SetData, &set_data("/changed", b"", -1));
    s.create(c, "/parent/x");
    s.send(
        w,
        &frame(
            -8,
            101,
            &set_watches(
                seen,
                &[
                    &["/changed", "/gone", "/old"],
                    &["/old", "/missing"],
                    &["/parent", "/gone", "/quiet"],
                ],
            ),
        ),
    );
    let mut replies = s.replies(w);
    let last = replies.pop().unwrap();
    assert_eq!(
        (last.xid, last.err, last.zxid, last.body.len()),
        (-8, 0, s.zxid.0, 0)
    );
    assert!(replies.iter().all(|reply| reply.zxid == -1));
    let said: Vec<_> = replies.iter().map(event).collect();
    assert_eq!(
        said,
        named(&[
            (CHANGED, "/changed"),
            (DELETED, "/gone"),
            (CREATED, "/old"),
            (CHILDREN, "/parent"),
            (DELETED, "/gone"),
        ])
    );
    // What did not fire is watched; several requests add up.
    s.send(
        w,
        &frame(9, 101, &set_watches(s.zxid.0, &[&["/quiet"], &[], &[]])),
    );
    assert_eq!(s.replies(w)[0].xid, 9, "any xid is echoed");
    s.create(c, "/missing");
    s.ask(c, OpCode::SetData, &set_data("/old", b"", -1));
    s.ask(c, OpCode::SetData, &set_data("/quiet", b"", -1));
    s.ask(c, OpCode::SetData, &set_data("/changed", b"", -1));
    s.create(c, "/quiet/x");
    assert_eq!(
        events(&mut s, w),
        named(&[
            (CREATED, "/missing"),
            (CHANGED, "/old"),
            (CHANGED, "/quiet"),
            (CHILDREN, "/quiet")
        ])
    );
}

#[test]
fn persistent_watches_set_again_do_not_catch_up() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    s.create(c, "/a");
    let lists: [&[&str]; 5] = [&[], &[], &[], &["/a"], &["/b"]];
    let reply = s.ask(w, OpCode::SetWatches2, &set_watches(0, &lists));
    assert_eq!(reply.err, 0);
    s.create(c, "/a/x");
    s.create(c, "/b");
    s.create(c, "/b/x");
    assert_eq!(
        events(&mut s, w),
        named(&[(CHILDREN, "/a"), (CREATED, "/b"), (CREATED, "/b/x")])
    );
    let short = set_watches(0, &[&["/a"], &[], &[]]);
    assert_eq!(s.err(w, OpCode::SetWatches2, &short), -5);
}

#[test]
fn rearming_keeps_firing() {
    let mut s = TestServer::new();
    let (c, w) = (s.connect(), s.connect());
    for _ in 0..3 {
        s.ask(w, OpCode::Exists, &path_watch("/a", true));
        s.create(c, "/a");
        assert_eq!(events(&mut s, w), named(&[(CREATED, "/a")]));
        s.ask(w, OpCode::GetData, &path_watch("/a", true));
        s.ask(c, OpCode::Delete, &path_version("/a", -1));
        assert_eq!(events(&mut s, w), named(&[(DELETED, "/a")]));
    }
}
