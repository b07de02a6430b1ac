//! Reads: answers, errors, permissions.

use zkd::jute::{Reader, Record};
use zkd::record::data::{Acl, Id, Stat, perms};
use zkd::record::opcode::OpCode;

use crate::harness::*;

fn strings(bytes: &[u8]) -> Vec<String> {
    let mut from = Reader::new(bytes);
    let mut list = from.vector::<String>("list").unwrap().unwrap();
    list.sort();
    list
}

#[test]
fn missing_nodes_and_bad_paths_are_just_missing() {
    let mut s = TestServer::new();
    let c = s.connect();
    for path in ["/missing", "relative", "/a//b", "/a/", "/\u{10000}"] {
        for op in [
            OpCode::Exists,
            OpCode::GetData,
            OpCode::GetChildren,
            OpCode::GetChildren2,
            OpCode::GetAcl,
            OpCode::GetAllChildrenNumber,
        ] {
            let reply = s.ask(c, op, &path_watch(path, true));
            assert_eq!((reply.err, reply.body.len()), (-101, 0), "{op:?} {path:?}");
            assert_eq!(reply.zxid, 1);
        }
    }
    assert_eq!(s.err(c, OpCode::Exists, &path_watch("/\u{0}", false)), -8);
    let null = body(|out| out.opt_string(None));
    assert_eq!(s.err(c, OpCode::GetData, &null), -5);
    assert_eq!(s.err(c, OpCode::GetData, b""), -5);
    let reply = s.ask(c, OpCode::GetData, &path_watch("", false));
    assert_eq!(reply.err, 0, "the empty path is the root");
    let stat = s.stat(c, "/");
    assert_eq!((stat.cversion, stat.num_children, stat.czxid.0), (-1, 1, 0));
}

#[test]
fn children_data_and_counts() {
    let mut s = TestServer::new();
    let c = s.connect();
    for path in ["/a", "/a/x", "/a/y", "/a/y/z"] {
        s.create(c, path);
    }
    let reply = s.ask(c, OpCode::GetChildren, &path_watch("/a", false));
    assert_eq!(strings(&reply.body), ["x", "y"]);
    let reply = s.ask(c, OpCode::GetChildren2, &path_watch("/a", false));
    assert_eq!(
        Stat::from_slice(&reply.body[reply.body.len() - 68..]).unwrap(),
        s.stat(c, "/a")
    );
    let reply = s.ask(c, OpCode::GetAllChildrenNumber, &only_path("/a"));
    assert_eq!(reply.body, 3_i32.to_be_bytes());
    let reply = s.ask(c, OpCode::GetAllChildrenNumber, &only_path("/"));
    assert_eq!(
        reply.body,
        7_i32.to_be_bytes(),
        "/zookeeper and its two count too"
    );
}

#[test]
fn permissions_of_reads() {
    let mut s = TestServer::new();
    let c = s.connect();
    let acl = |perms| {
        vec![Acl {
            perms,
            id: Id::new("world", "anyone"),
        }]
    };
    for (path, perms) in [
        ("/none", 0),
        ("/admin", perms::ADMIN),
        ("/read", perms::READ),
    ] {
        s.ask(
            c,
            OpCode::Create,
            &create_acl(path, b"", Some(&acl(perms)), 0),
        );
    }
    for op in [
        OpCode::Exists,
        OpCode::GetData,
        OpCode::GetChildren,
        OpCode::GetChildren2,
        OpCode::GetAllChildrenNumber,
    ] {
        assert_eq!(s.err(c, op, &path_watch("/none", false)), -102, "{op:?}");
        assert_eq!(s.err(c, op, &path_watch("/admin", false)), -102, "{op:?}");
        assert_eq!(s.err(c, op, &path_watch("/read", false)), 0, "{op:?}");
    }
    assert_eq!(s.err(c, OpCode::GetAcl, &only_path("/none")), -102);
    assert_eq!(s.err(c, OpCode::GetAcl, &only_path("/admin")), 0);
    assert_eq!(s.err(c, OpCode::GetAcl, &only_path("/read")), 0);
}

#[test]
fn the_ephemerals_of_the_session() {
    let mut s = TestServer::new();
    let c = s.connect();
    let other = s.connect();
    s.create(c, "/a");
    for path in ["/a/e1", "/a/e2", "/ab"] {
        s.ask(c, OpCode::Create, &create(path, b"", 1));
    }
    s.ask(other, OpCode::Create, &create("/other", b"", 1));
    for (prefix, expected) in [
        (Some("/"), vec!["/a/e1", "/a/e2", "/ab"]),
        (Some(""), vec!["/a/e1", "/a/e2", "/ab"]),
        (Some("  "), vec!["/a/e1", "/a/e2", "/ab"]),
        (None, vec!["/a/e1", "/a/e2", "/ab"]),
        (Some("/a/e"), vec!["/a/e1", "/a/e2"]),
        (Some("/a"), vec!["/a/e1", "/a/e2", "/ab"]),
        (Some("/x"), vec![]),
    ] {
        let reply = s.ask(
            c,
            OpCode::GetEphemerals,
            &body(|out| out.opt_string(prefix)),
        );
        assert_eq!(strings(&reply.body), expected, "{prefix:?}");
    }
}

#[test]
fn several_reads_at_once() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.create(c, "/a");
    let dark = [Acl {
        perms: 0,
        id: Id::new("world", "anyone"),
    }];
    s.ask(c, OpCode::Create, &create_acl("/dark", b"", Some(&dark), 0));
    let reply = s.ask(
        c,
        OpCode::MultiRead,
        &multi(&[
            (OpCode::GetData, path_watch("/a", true)),
            (OpCode::GetChildren, path_watch("/", true)),
            (OpCode::GetData, path_watch("/missing", false)),
            (OpCode::GetChildren, path_watch("/dark", false)),
            (OpCode::GetData, path_watch("/a", false)),
        ]),
    );
    assert_eq!((reply.err, reply.zxid), (0, s.zxid.0));
    let results: Vec<_> = multi_results(&reply.body)
        .iter()
        .map(|(kind, err, _)| (*kind, *err))
        .collect();
    assert_eq!(results, [(4, 0), (8, 0), (-1, -101), (-1, -102), (4, 0)]);
    s.ask(c, OpCode::SetData, &set_data("/a", b"", -1));
    assert!(
        s.replies(c).is_empty(),
        "the watch flags inside are ignored"
    );
    for bad in [
        (OpCode::Create, create("/x", b"", 0)),
        (OpCode::Exists, path_watch("/", false)),
    ] {
        let ops = [(OpCode::GetData, path_watch("/", false)), bad];
        assert_eq!(s.err(c, OpCode::MultiRead, &multi(&ops)), -5);
    }
    assert_eq!(s.ask(c, OpCode::MultiRead, &multi(&[])).body, multi(&[]));
}

#[test]
fn a_multi_read_cannot_blow_the_server_up() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.ask(c, OpCode::Create, &create("/big", &vec![0; 900_000], 0));
    let ops = vec![(OpCode::GetData, path_watch("/big", false)); 200];
    assert_eq!(s.err(c, OpCode::MultiRead, &multi(&ops)), -5);
    assert_eq!(
        s.ask(c, OpCode::MultiRead, &multi(&ops[..3])).body.len(),
        3 * (9 + 4 + 900_000 + 68) + 9
    );
}

#[test]
fn who_am_i() {
    let mut s = TestServer::new();
    let c = s.connect();
    s.ask(c, OpCode::Auth, &auth("digest", Some(b"u:p")));
    let reply = s.ask(c, OpCode::WhoAmI, b"");
    let mut from = Reader::new(&reply.body);
    assert_eq!(from.int("count").unwrap(), 2);
    let mut said = Vec::new();
    for _ in 0..2 {
        said.push((from.string("scheme").unwrap(), from.string("user").unwrap()));
    }
    said.sort();
    let expected = [("digest", "u"), ("ip", "127.0.0.1")];
    assert_eq!(said, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
}

#[test]
fn sync_echoes_any_path() {
    let mut s = TestServer::new();
    let c = s.connect();
    for path in [
        Some("/"),
        Some("/missing"),
        Some(""),
        Some("no slash"),
        None,
    ] {
        let body = body(|out| out.opt_string(path));
        let reply = s.ask(c, OpCode::Sync, &body);
        assert_eq!(
            (reply.err, reply.body, reply.zxid),
            (0, body, 1),
            "{path:?}"
        );
    }
    assert_eq!(s.err(c, OpCode::Sync, b"\0"), -5);
    assert_eq!(s.zxid.0, 1, "no txn");
}

#[test]
fn trailing_bytes_are_ignored() {
    let mut s = TestServer::new();
    let c = s.connect();
    let mut body = path_watch("/", false);
    body.extend_from_slice(b"more");
    assert_eq!(s.err(c, OpCode::GetData, &body), 0);
    let mut body = create("/a", b"", 0);
    body.extend_from_slice(b"more");
    assert_eq!(s.err(c, OpCode::Create, &body), 0);
}
