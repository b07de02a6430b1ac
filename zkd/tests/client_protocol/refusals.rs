//! Bytes that are not the protocol: the connection closes, nothing panics, others go on.

use zkd::pipeline::{PrepOptions, ServerOptions};
use zkd::prng::Prng;
use zkd::record::data::{Acl, Id};
use zkd::record::opcode::OpCode;

use crate::harness::*;

#[test]
fn bad_lengths_close() {
    for bytes in [
        vec![0xff; 4],
        vec![0x80, 0, 0, 0],
        0x10_0000_u32.to_be_bytes().to_vec(),
        vec![0; 4],
        vec![0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let mut s = TestServer::new();
        let before = s.accept();
        s.send(before, &bytes);
        assert!(s.received(before).is_empty(), "{bytes:?}");
        assert!(s.is_closed(before), "{bytes:?}");
        let after = s.connect();
        s.send(after, &bytes);
        assert!(s.received(after).is_empty(), "{bytes:?}");
        assert!(s.is_closed(after), "{bytes:?}");
        s.connect();
    }
}

#[test]
fn the_largest_frame_is_accepted_and_one_more_is_not() {
    let mut s = TestServer::new();
    let max = 0xf_ffff_usize;
    let head = create("/a", b"", 0).len() + 8;
    for (over, ok) in [(0, true), (1, false)] {
        let c = s.connect();
        let path = if over == 0 { "/a" } else { "/b" };
        let bytes = frame(1, 1, &create(path, &vec![7; max - head + over], 0));
        assert_eq!(bytes.len() - 4, max + over);
        // In pieces, as a socket gives it.
        for piece in bytes.chunks(65_536) {
            s.send(c, piece);
        }
        assert_eq!(s.is_closed(c), !ok);
        assert_eq!(s.replies(c).len(), usize::from(ok));
    }
}

#[test]
fn frames_may_come_byte_by_byte() {
    let mut s = TestServer::new();
    let c = s.accept();
    for byte in connect_frame(&Connect::default()) {
        s.send(c, &[byte]);
    }
    assert_eq!(s.connected(c).timeout_ms, 10_000);
    let mut bytes = frame(1, 1, &create("/a", b"x", 0));
    bytes.extend(frame(2, 4, &path_watch("/a", false)));
    for byte in bytes {
        s.send(c, &[byte]);
    }
    let errs: Vec<_> = s.replies(c).iter().map(|r| (r.xid, r.err)).collect();
    assert_eq!(errs, [(1, 0), (2, 0)]);
}

#[test]
fn undecodable_requests_are_answered() {
    let mut s = TestServer::new();
    let c = s.connect();
    for op in [
        OpCode::Create,
        OpCode::Create2,
        OpCode::CreateContainer,
        OpCode::CreateTtl,
        OpCode::Delete,
        OpCode::SetData,
        OpCode::SetAcl,
        OpCode::Multi,
        OpCode::Exists,
        OpCode::GetData,
        OpCode::GetChildren,
        OpCode::GetAcl,
        OpCode::MultiRead,
        OpCode::SetWatches,
        OpCode::SetWatches2,
        OpCode::AddWatch,
        OpCode::CheckWatches,
        OpCode::RemoveWatches,
        OpCode::GetEphemerals,
        OpCode::GetAllChildrenNumber,
    ] {
        for body in [
            b"".as_slice(),
            &[0, 0, 0],
            &[0xff; 4],
            &[0x7f, 0xff, 0xff, 0xff],
            &[0x80, 0, 0, 0, 1, 2, 3],
        ] {
            let before = s.zxid.0;
            let err = s.err(c, op, body);
            let null_prefix = op == OpCode::GetEphemerals && body == [0xff; 4];
            assert_eq!(err, if null_prefix { 0 } else { -5 }, "{op:?} {body:?}");
            // As leader one zxid each (quorum facts, trap 2).
            assert_eq!(s.zxid.0 - before, i64::from(op.is_write()), "{op:?}");
        }
    }
}

/// A request that is probably sensible.
pub(crate) fn plausible(prng: &mut Prng, xid: i32) -> Vec<u8> {
    let names = [
        "/",
        "/a",
        "/b",
        "/a/x",
        "/a/y",
        "/a/x/1",
        "/b/",
        "//",
        "",
        "/zookeeper",
        "/a/s-",
    ];
    let path = *prng.pick(&names);
    let acls = [
        Acl::open(),
        vec![],
        vec![Acl {
            perms: 31,
            id: Id::new("auth", ""),
        }],
        vec![Acl {
            perms: 9,
            id: Id::new("ip", "127.0.0.1"),
        }],
    ];
    let version = i32::try_from(prng.below(4)).unwrap() - 1;
    let flags = i32::try_from(prng.below(8)).unwrap();
    let write = |prng: &mut Prng| match prng.below(6) {
        0 => (
            OpCode::Create,
            create_acl(path, b"x", Some(prng.pick::<Vec<Acl>>(&acls)), flags),
        ),
        1 => (OpCode::Create2, create(path, b"", flags & 3)),
        2 => (
            OpCode::CreateTtl,
            create_ttl(path, flags, i64::from(version)),
        ),
        3 => (OpCode::Delete, path_version(path, version)),
        4 => (OpCode::SetData, set_data(path, b"data", version)),
        _ => (OpCode::Check, path_version(path, version)),
    };
    let (op, body) = match prng.below(16) {
        0..=5 => write(prng),
        6 => {
            let ops: Vec<_> = (0..prng.below(4)).map(|_| write(prng)).collect();
            (OpCode::Multi, multi(&ops))
        }
        7 => (
            OpCode::SetAcl,
            set_acl(path, Some(prng.pick::<Vec<Acl>>(&acls)), version),
        ),
        8 => (OpCode::Exists, path_watch(path, true)),
        9 => (OpCode::GetData, path_watch(path, true)),
        10 => (OpCode::GetChildren2, path_watch(path, true)),
        11 => (OpCode::AddWatch, path_version(path, version)),
        12 => (OpCode::RemoveWatches, path_version(path, version)),
        13 => (OpCode::Sync, only_path(path)),
        14 => (OpCode::Auth, auth("digest", Some(b"u:p"))),
        _ => (OpCode::GetEphemerals, only_path(path)),
    };
    frame(xid, op.code(), &body)
}

/// Plausible requests with bytes flipped, cut and made up, some held back: nothing panics, every predicted
/// digest is right, counts come out even, and a new client is served. Rerun one seed by editing the range.
#[test]
fn garbage_never_panics() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let prep = PrepOptions {
            extended_types_enabled: prng.one_in(2),
            enforce_quota: prng.one_in(2),
            ..PrepOptions::default()
        };
        let mut s = TestServer::with(ServerOptions::default(), prep);
        let mut clients = [s.connect(), s.connect()];
        for xid in 0..120 {
            let at = usize::try_from(prng.below(clients.len() as u64)).unwrap();
            let client = clients[at];
            if s.is_closed(client) {
                s.hold = false;
                clients[at] = s.connect();
                continue;
            }
            let mut bytes = plausible(&mut prng, xid);
            match prng.below(12) {
                0 => {
                    let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                    bytes[at] ^= 1 << prng.below(8);
                }
                1 => bytes.truncate(usize::try_from(prng.below(bytes.len() as u64)).unwrap()),
                2 => {
                    bytes = (0..prng.below(40))
                        .map(|_| prng.next_u64().to_le_bytes()[0])
                        .collect();
                }
                3 => {
                    let op = i32::try_from(prng.below(120)).unwrap() - 12;
                    let body: Vec<u8> = (0..prng.below(30))
                        .map(|_| prng.next_u64().to_le_bytes()[0] & 3)
                        .collect();
                    bytes = frame(xid, op, &body);
                }
                _ => {}
            }
            s.hold = prng.one_in(3);
            s.send(client, &bytes);
            if prng.one_in(10) {
                s.disconnect(client);
            }
            if prng.one_in(9) {
                s.pass(prng.below(4000));
            }
        }
        s.release();
        let last = s.connect();
        s.send(last, &frame(-2, 11, b""));
        assert_eq!(s.replies(last).len(), 1, "seed {seed}");
        assert_eq!(s.server.stats().outstanding, 0, "seed {seed}");
    }
}
