//! Writes: results, the order of checks, paths, multis, quotas.

use zkd::ids::SessionId;
use zkd::jute::{Reader, Record};
use zkd::pipeline::{Delivery, PrepOptions, ServerOptions};
use zkd::record::data::{Acl, Id, Stat, perms};
use zkd::record::opcode::OpCode;
use zkd::record::txn::{SetDataTxn, Txn, TxnHeader, TxnRecord};

use crate::harness::*;

fn extended() -> TestServer {
    let prep = PrepOptions {
        extended_types_enabled: true,
        ..PrepOptions::default()
    };
    TestServer::with(ServerOptions::default(), prep)
}

fn path_and_stat(body: &[u8]) -> (String, Stat) {
    let mut from = Reader::new(body);
    let path = from.string("path").unwrap();
    let stat = Stat::decode(&mut from).unwrap();
    from.finish().unwrap();
    (path, stat)
}

#[test]
fn a_fresh_node_and_what_changes_its_stat() {
    let mut s = TestServer::new();
    let c = s.connect();
    let reply = s.ask(c, OpCode::Create2, &create("/a", b"xyz", 0));
    assert_eq!((reply.err, reply.zxid), (0, 2));
    let (path, stat) = path_and_stat(&reply.body);
    assert_eq!(path, "/a");
    assert_eq!((stat.czxid.0, stat.mzxid.0, stat.pzxid.0), (2, 2, 2));
    assert_eq!((stat.version, stat.cversion, stat.aversion), (0, 0, 0));
    assert_eq!((stat.data_length, stat.num_children), (3, 0));
    assert_eq!(stat.ctime, s.now.wall_ms);
    assert_eq!(stat, s.stat(c, "/a"));

    s.now.wall_ms += 5;
    let reply = s.ask(c, OpCode::SetData, &set_data("/a", b"", 0));
    let stat = Stat::from_slice(&reply.body).unwrap();
    assert_eq!(
        (stat.version, stat.mzxid.0, stat.mtime - stat.ctime),
        (1, 3, 5)
    );
    let reply = s.ask(c, OpCode::SetAcl, &set_acl("/a", Some(&Acl::open()), 0));
    assert_eq!(Stat::from_slice(&reply.body).unwrap().aversion, 1);
    s.create(c, "/a/b");
    s.create(c, "/a/c");
    assert_eq!(s.err(c, OpCode::Delete, &path_version("/a/b", 0)), 0);
    let stat = s.stat(c, "/a");
    assert_eq!((stat.cversion, stat.num_children, stat.pzxid.0), (3, 1, 7));
    assert_eq!((stat.version, stat.mzxid.0), (1, 3));
}

#[test]
fn null_data_is_not_empty_data() {
    let mut s = TestServer::new();
    let c = s.connect();
    let null = body(|out| {
        out.string("/n");
        out.buffer(None);
        out.vector(Some(&Acl::open()));
        out.int(0);
    });
    assert_eq!(s.err(c, OpCode::Create, &null), 0);
    s.create(c, "/e");
    let data = |s: &mut TestServer, path| {
        let reply = s.ask(c, OpCode::GetData, &path_watch(path, false));
        Reader::new(&reply.body).buffer("data").unwrap()
    };
    assert_eq!(data(&mut s, "/n"), None);
    assert_eq!(data(&mut s, "/e"), Some(bytes::Bytes::new()));
    let set_null = body(|out| {
        out.string("/e");
        out.buffer(None);
        out.int(-1);
    });
    assert_eq!(s.err(c, OpCode::SetData, &set_null), 0);
    assert_eq!(data(&mut s, "/e"), None);
}

#[test]
fn sequence_names() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.create(c, "/folder");
    let mut seq = |path: &str| {
        let reply = s.ask(c, OpCode::Create, &create(path, b"", 2));
        if reply.err == 0 {
            Ok(Reader::new(&reply.body).string("path").unwrap())
        } else {
            Err(reply.err)
        }
    };
    assert_eq!(seq("/folder/a-").unwrap(), "/folder/a-0000000000");
    assert_eq!(seq("/folder/b-").unwrap(), "/folder/b-0000000001");
    assert_eq!(seq("/folder/").unwrap(), "/folder/0000000002");
    assert_eq!(seq("/folder/.").unwrap(), "/folder/.0000000003");
    assert_eq!(seq("/folder/..").unwrap(), "/folder/..0000000004");
    assert_eq!(seq("//"), Err(-8));
    assert_eq!(
        seq("/folder/\u{1}"),
        Err(-8),
        "a failed create uses no number"
    );
    assert_eq!(seq("/folder/c").unwrap(), "/folder/c0000000005");
    assert_eq!(
        s.err(c, OpCode::Delete, &path_version("/folder/c0000000005", -1)),
        0
    );
    s.create(c, "/folder/plain");
    let reply = s.ask(c, OpCode::Create, &create("/folder/d", b"", 3));
    let path = Reader::new(&reply.body).string("path").unwrap();
    assert_eq!(
        path, "/folder/d0000000007",
        "every create counts, deletes do not"
    );
}

#[test]
fn paths_that_are_refused() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.create(c, "/p");
    for bad in [
        "",
        "a",
        "/p/",
        "/p//a",
        "//",
        "/p/.",
        "/p/..",
        "/p/\u{0}",
        "/p/\u{1f}",
        "/p/\u{7f}",
        "/p/\u{e000}",
        "/p/\u{fff0}",
        "/p/\u{10000}",
    ] {
        let err = s.err(c, OpCode::Create, &create(bad, b"", 0));
        let missing_parent = matches!(bad, "/p//a");
        assert_eq!(
            err,
            if missing_parent { -101 } else { -8 },
            "create {bad:?}"
        );
        assert_eq!(
            s.err(c, OpCode::SetData, &set_data(bad, b"", -1)),
            -8,
            "set {bad:?}"
        );
        assert_eq!(
            s.err(c, OpCode::SetAcl, &set_acl(bad, Some(&Acl::open()), -1)),
            -8,
            "setACL {bad:?}"
        );
    }
    let mut broken = create("/p/xx", b"", 0);
    broken[7] = 0xc3;
    broken[8] = 0x28;
    assert_eq!(s.err(c, OpCode::Create, &broken), -8, "not UTF-8");
    for good in ["/p/ ", "/p/\u{a0}", "/p/..f", "/p/.f.", "/p/...", "/p/é"] {
        s.create(c, good);
    }
}

#[test]
fn the_order_of_checks_of_create() {
    let mut s = TestServer::new();
    let c = s.connect();
    let locked = [Acl {
        perms: perms::READ,
        id: Id::new("world", "anyone"),
    }];
    s.ask(
        c,
        OpCode::Create,
        &create_acl("/locked", b"", Some(&locked), 0),
    );
    s.ask(c, OpCode::Create, &create("/eph", b"", 1));
    s.create(c, "/a");
    let open = Acl::open();
    for (what, path, acl, flags, err) in [
        ("flags first", "noslash", None, 9, -8),
        ("TTL without ttl", "/a/x", Some(&open), 5, -6),
        ("slash before ACL", "noslash", None, 0, -8),
        ("ACL before parent", "/no/x", None, 0, -114),
        ("parent before path", "/no/", Some(&open), 0, -101),
        ("permission before path", "/locked/", Some(&open), 0, -102),
        ("path", "/a/.", Some(&open), 0, -8),
        ("exists", "/a", Some(&open), 0, -110),
        ("root", "/", Some(&open), 0, -110),
        ("ephemeral parent", "/eph/x", Some(&open), 0, -108),
        ("ephemeral parent, any kind", "/eph/x", Some(&open), 1, -108),
        ("ephemeral parent, any kind", "/eph/x", Some(&open), 2, -108),
    ] {
        let body = create_acl(path, b"", acl.map(Vec::as_slice), flags);
        let before = s.zxid;
        assert_eq!(s.err(c, OpCode::Create, &body), err, "{what}");
        assert_eq!(
            s.zxid.0,
            before.0 + 1,
            "a refused write takes a zxid: {what}"
        );
    }
    let mut s = extended();
    let c = s.connect();
    assert_eq!(s.err(c, OpCode::Create, &create("/x", b"", 5)), -8);
}

#[test]
fn the_order_of_checks_of_the_others() {
    let mut s = TestServer::new();
    let c = s.connect();
    let locked = [Acl {
        perms: perms::READ,
        id: Id::new("world", "anyone"),
    }];
    s.ask(
        c,
        OpCode::Create,
        &create_acl("/locked", b"", Some(&locked), 0),
    );
    s.create(c, "/a");
    s.create(c, "/a/b");
    for (path, version, err) in [
        ("noslash", -1, -8),
        ("/", -1, -8),
        ("/zookeeper", -1, -8),
        ("/zookeeper/quota", -1, -8),
        ("/zookeeper/config", -1, -8),
        ("/a\u{0}", -1, -8),
        ("/no/x", -1, -101),
        ("/locked/missing", -1, -102),
        ("/a/missing", -1, -101),
        ("/a/b", 7, -103),
        ("/a", 0, -111),
        ("/a", 7, -103),
    ] {
        assert_eq!(
            s.err(c, OpCode::Delete, &path_version(path, version)),
            err,
            "{path:?}"
        );
    }
    for (path, version, err) in [
        ("/missing", 7, -101),
        ("/locked", 7, -102),
        ("/a", 7, -103),
        ("/", 3, -103),
    ] {
        assert_eq!(
            s.err(c, OpCode::SetData, &set_data(path, b"", version)),
            err,
            "{path:?}"
        );
        let body = set_acl(path, Some(&Acl::open()), version);
        assert_eq!(s.err(c, OpCode::SetAcl, &body), err, "{path:?}");
        assert_eq!(
            s.err(c, OpCode::SetAcl, &set_acl(path, None, version)),
            -114,
            "{path:?}"
        );
    }
    assert_eq!(s.err(c, OpCode::SetData, &set_data("/", b"root", -1)), 0);
}

#[test]
fn the_order_of_checks_of_check() {
    let mut s = TestServer::new();
    let c = s.connect();
    let unreadable = [Acl {
        perms: perms::CREATE | perms::DELETE,
        id: Id::new("world", "anyone"),
    }];
    s.ask(
        c,
        OpCode::Create,
        &create_acl("/dark", b"", Some(&unreadable), 0),
    );
    s.create(c, "/a");
    let check = |path, version| multi(&[(OpCode::Check, path_version(path, version))]);
    for (path, version, err) in [
        ("a", 0, -8),
        ("/missing", 0, -101),
        ("/dark", 0, -102),
        ("/a", 3, -103),
        ("/a", 0, 0),
        ("/a", -1, 0),
    ] {
        let reply = s.ask(c, OpCode::Multi, &check(path, version));
        let results = multi_results(&reply.body);
        assert_eq!((reply.err, results[0].1), (0, err), "check {path:?}");
    }
}

#[test]
fn acls_that_are_refused() {
    let mut s = TestServer::new();
    let c = s.connect();
    let entry = |scheme: Option<&str>, id: Option<&str>| Acl {
        perms: 31,
        id: Id {
            scheme: scheme.map(str::to_owned),
            id: id.map(str::to_owned),
        },
    };
    let open = Acl::open();
    for (acl, err) in [
        (None, -114),
        (Some(vec![]), -114),
        (Some(vec![entry(None, Some("x"))]), -114),
        (Some(vec![entry(Some("auth"), Some(""))]), -114),
        (Some(vec![entry(Some("nope"), Some("x"))]), -114),
        (Some(vec![entry(Some("world"), None)]), -5),
        (Some(vec![open[0].clone(), open[0].clone()]), 0),
    ] {
        let body = create_acl("/x", b"", acl.as_deref(), 0);
        assert_eq!(s.err(c, OpCode::Create, &body), err, "{acl:?}");
    }
    let reply = s.ask(c, OpCode::GetAcl, &only_path("/x"));
    let mut from = Reader::new(&reply.body);
    assert_eq!(
        from.vector::<Acl>("acl").unwrap().unwrap(),
        open,
        "duplicates collapse"
    );
    s.ask(c, OpCode::Auth, &auth("digest", Some(b"u:p")));
    let body = create_acl("/mine", b"", Some(&[entry(Some("auth"), None)]), 0);
    assert_eq!(s.err(c, OpCode::Create, &body), 0);
}

#[test]
fn ttl_nodes() {
    let mut s = TestServer::new();
    let c = s.connect();
    assert_eq!(s.err(c, OpCode::CreateTtl, &create_ttl("/t", 5, 10)), -6);
    let mut s = extended();
    let c = s.connect();
    for (flags, ttl, err) in [
        (5, 0, -8),
        (5, -1, -8),
        (5, 1 << 40, -8),
        (0, 10, -8),
        (0, -1, -8),
        (4, -1, -8),
        (9, 10, -8),
        (5, (1 << 40) - 1, 0),
    ] {
        assert_eq!(
            s.err(c, OpCode::CreateTtl, &create_ttl("/t", flags, ttl)),
            err,
            "flags {flags} ttl {ttl}"
        );
    }
    assert_eq!(s.stat(c, "/t").ephemeral_owner, SessionId::NONE);
    let reply = s.ask(c, OpCode::CreateTtl, &create_ttl("/s-", 6, 10));
    assert_eq!(path_and_stat(&reply.body).0, "/s-0000000001");
}

#[test]
fn containers() {
    let mut s = TestServer::new();
    let c = s.connect();
    let reply = s.ask(c, OpCode::CreateContainer, &create("/c", b"", 4));
    let (path, stat) = path_and_stat(&reply.body);
    assert_eq!(
        (path.as_str(), stat.ephemeral_owner),
        ("/c", SessionId::NONE)
    );
    let reply = s.ask(c, OpCode::CreateContainer, &create("/c-", b"", 2));
    assert_eq!(path_and_stat(&reply.body).0, "/c-0000000001");
    // Flag 4 of an ordinary create makes an ordinary node.
    s.ask(c, OpCode::Create, &create("/plain", b"", 4));
    let reap = |s: &TestServer| s.server.tree().read().reap_candidates(s.now.wall_ms, 0, 10);
    assert!(reap(&s).is_empty(), "never had a child");
    for path in ["/c/x", "/plain/x"] {
        s.create(c, path);
        assert_eq!(s.err(c, OpCode::Delete, &path_version(path, -1)), 0);
    }
    assert_eq!(reap(&s), ["/c"]);
    // Not empty any more when its turn comes: it survives.
    s.create(c, "/c/y");
    s.order(&zkd::pipeline::Request::reap("/c"));
    s.stat(c, "/c");
    assert_eq!(s.err(c, OpCode::Delete, &path_version("/c/y", -1)), 0);
    s.order(&zkd::pipeline::Request::reap("/c"));
    s.order(&zkd::pipeline::Request::reap("/plain"));
    s.order(&zkd::pipeline::Request::reap("/missing"));
    assert_eq!(s.err(c, OpCode::Exists, &path_watch("/c", false)), -101);
    s.stat(c, "/plain");
}

#[test]
fn a_multi_succeeds_as_a_whole() {
    let mut s = extended();
    let c = s.connect();
    s.create(c, "/f");
    let reply = s.ask(
        c,
        OpCode::Multi,
        &multi(&[
            (OpCode::Create, create("/f/m", b"1", 0)),
            (OpCode::Create, create("/f/s-", b"", 2)),
            (OpCode::Create2, create("/f/s-", b"", 2)),
            (OpCode::SetData, set_data("/f/m", b"22", 0)),
            (OpCode::Check, path_version("/f/m", 1)),
            (OpCode::Create, create("/f/m/nested", b"", 0)),
            (OpCode::Delete, path_version("/f/m/nested", 0)),
            (OpCode::Create, create("/f/c", b"", 4)),
            (OpCode::CreateTtl, create_ttl("/f/t", 5, 1000)),
            (OpCode::CreateTtl, create_ttl("/f/p", 0, 1000)),
            (OpCode::Create, create("/f/e", b"", 1)),
            (OpCode::Delete, path_version("/f/m", 1)),
        ]),
    );
    assert_eq!((reply.err, reply.zxid), (0, s.zxid.0));
    let results = multi_results(&reply.body);
    let kinds: Vec<_> = results.iter().map(|(kind, err, _)| (*kind, *err)).collect();
    let expected = [1, 1, 15, 5, 13, 1, 2, 15, 15, 1, 1, 2].map(|kind| (kind, 0));
    assert_eq!(kinds, expected);
    assert_eq!(results[1].2, only_path("/f/s-0000000001"));
    assert_eq!(path_and_stat(&results[2].2).0, "/f/s-0000000002");
    let stat = Stat::from_slice(&results[3].2).unwrap();
    assert_eq!((stat.version, stat.data_length), (1, 2));
    assert_eq!(s.err(c, OpCode::Exists, &path_watch("/f/m", false)), -101);
    let empty = s.ask(c, OpCode::Multi, &multi(&[]));
    assert_eq!((empty.err, empty.body), (0, multi(&[])));
}

#[test]
fn a_failed_multi_changes_nothing() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.create(c, "/f");
    let before = s.stat(c, "/f");
    s.hold = true;
    s.send(
        c,
        &frame(
            1,
            14,
            &multi(&[
                (OpCode::Create, create("/f/a-", b"", 2)),
                (OpCode::SetData, set_data("/f", b"x", 0)),
                (OpCode::Check, path_version("/f", 9)),
                (OpCode::Delete, path_version("/f", -1)),
                (OpCode::Create, create("/g", b"", 0)),
            ]),
        ),
    );
    // Prepared behind it, before it is applied: nothing of it may be seen.
    s.send(c, &frame(2, 1, &create("/f/a-", b"", 2)));
    s.send(c, &frame(3, 5, &set_data("/f", b"y", 0)));
    s.release();
    let replies = s.replies(c);
    assert_eq!(replies[0].err, 0);
    let errs: Vec<_> = multi_results(&replies[0].body)
        .iter()
        .map(|(kind, err, _)| (*kind, *err))
        .collect();
    assert_eq!(errs, [(-1, 0), (-1, 0), (-1, -103), (-1, -2), (-1, -2)]);
    assert_eq!(replies[1].body, only_path("/f/a-0000000000"), "no gap");
    assert_eq!(replies[2].err, 0);
    let after = s.stat(c, "/f");
    assert_eq!((after.cversion, after.version), (before.cversion + 1, 1));
}

#[test]
fn multis_that_cannot_be_read() {
    let mut s = extended();
    let c = s.connect();
    let fine = (OpCode::Create, create("/ok", b"", 0));
    for (what, ops) in [
        (
            "a read",
            vec![fine.clone(), (OpCode::GetData, path_watch("/", false))],
        ),
        (
            "setACL",
            vec![(OpCode::SetAcl, set_acl("/", Some(&Acl::open()), -1))],
        ),
        (
            "deleteContainer",
            vec![(OpCode::DeleteContainer, only_path("/x"))],
        ),
        ("TTL flags", vec![(OpCode::Create, create("/t", b"", 5))]),
        ("a nested multi", vec![(OpCode::Multi, multi(&[]))]),
        ("truncated", vec![(OpCode::Create, b"\0\0".to_vec())]),
    ] {
        let reply = s.ask(c, OpCode::Multi, &multi(&ops));
        assert_eq!((reply.err, reply.body.len()), (-5, 0), "{what}");
    }
    for (what, record, err) in [
        ("unknown flags", create("/t", b"", 9), -8),
        ("null ACL", create_acl("/t", b"", None, 0), -114),
        ("TTL out of range", create_ttl("/t", 5, 0), -8),
    ] {
        let op = if what.starts_with("TTL") {
            OpCode::CreateTtl
        } else {
            OpCode::Create
        };
        let reply = s.ask(c, OpCode::Multi, &multi(&[fine.clone(), (op, record)]));
        assert_eq!(multi_results(&reply.body)[1].1, err, "{what}");
    }
    assert_eq!(s.err(c, OpCode::Exists, &path_watch("/ok", false)), -101);
}

#[test]
fn quotas_are_enforced_only_where_asked() {
    let prep = PrepOptions {
        enforce_quota: true,
        ..PrepOptions::default()
    };
    for (enforced, options) in [(true, prep), (false, PrepOptions::default())] {
        let mut s = TestServer::with(ServerOptions::default(), options);
        let c = s.connect();
        s.create(c, "/q");
        s.create(c, "/zookeeper/quota/q");
        let limits = b"count=1,bytes=1=;byteHardLimit=10;countHardLimit=3";
        for (path, text) in [
            ("/zookeeper/quota/q/zookeeper_limits", limits.as_slice()),
            ("/zookeeper/quota/q/zookeeper_stats", b"count=0,bytes=0"),
        ] {
            assert_eq!(s.err(c, OpCode::Create, &create(path, text, 0)), 0);
        }
        let quota = if enforced { -125 } else { 0 };
        assert_eq!(
            s.err(c, OpCode::Create, &create("/q/a", b"12345", 0)),
            0,
            "soft limit"
        );
        assert_eq!(
            s.err(c, OpCode::SetData, &set_data("/q/a", b"0123456789x", -1)),
            quota
        );
        assert_eq!(
            s.err(c, OpCode::SetData, &set_data("/q/a", b"0123456789", 9)),
            -103
        );
        assert_eq!(s.err(c, OpCode::SetData, &set_data("/q/a", b"", -1)), 0);
        assert_eq!(
            s.err(c, OpCode::Create, &create("/q/b", b"01234567890", 0)),
            quota
        );
        s.create(c, "/q/d");
        assert_eq!(
            s.err(c, OpCode::Create, &create("/q/c", b"", 0)),
            quota,
            "count"
        );
        assert_eq!(
            s.err(c, OpCode::Create, &create("/outside", b"01234567890", 0)),
            0
        );
    }
}

#[test]
fn what_stops_an_apache_server_is_refused() {
    let mut s = TestServer::new();
    let c = s.connect();
    let limits = "/zookeeper/quota/zookeeper_limits";
    assert_eq!(s.err(c, OpCode::Create, &create(limits, b"", 0)), -8);
    let body = path_version("/zookeeper/zookeeper_limits", -1);
    assert_eq!(s.err(c, OpCode::Delete, &body), -8);
    s.create(c, "/plain");
    // A Java learner forwards deleteContainer of its clients.
    let reap = request(
        s.session(c),
        5,
        OpCode::DeleteContainer,
        &only_path("/plain"),
    );
    s.order(&reap);
    s.stat(c, "/plain");
}

#[test]
fn reconfig_is_switched_off() {
    let mut s = TestServer::new();
    let c = s.connect();
    let body = body(|out| {
        out.string("server.5=a:1:2");
        out.opt_string(None);
        out.opt_string(None);
        out.long(-1);
    });
    assert_eq!(s.err(c, OpCode::Reconfig, &body), -123);
}

/// A learner's client asked an Apache leader for it.
#[test]
fn a_reconfiguration_of_another_leader_is_answered_with_the_new_text() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.hold = true;
    s.send(c, &frame(8, OpCode::Reconfig.code(), b"whatever"));
    let Some(Delivery::Txn(refused)) = s.uncommitted.pop_front() else {
        panic!("nothing prepared");
    };
    let done = TxnRecord {
        header: TxnHeader {
            kind: OpCode::Reconfig.code(),
            ..refused.header
        },
        txn: Txn::SetData(SetDataTxn {
            path: "/zookeeper/config".into(),
            data: Some("server.1=a:1:2:participant\nversion=2".into()),
            version: -1,
        }),
        digest: None,
    };
    s.server.apply(&[Delivery::Txn(done)], s.now);
    let reply = s.replies(c).remove(0);
    assert_eq!((reply.xid, reply.err, reply.zxid), (8, 0, 2));
    let mut from = Reader::new(&reply.body);
    let text = from.buffer("config").unwrap().unwrap();
    assert!(text.ends_with(b"version=2"));
    assert_eq!(Stat::decode(&mut from).unwrap().version, -1);
    from.finish().unwrap();
}
