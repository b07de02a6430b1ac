//! Streams and txn logs of real Apache ZooKeeper 3.9.3 servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use zkd::ids::{SessionId, Zxid};
use zkd::jute::{Reader, Record, Writer};
use zkd::pipeline::{Delivery, PrepOptions, ServerOptions};
use zkd::record::data::{Acl, Stat};
use zkd::record::opcode::OpCode;
use zkd::record::proto::*;
use zkd::record::txn::{Txn, TxnRecord};
use zkd::time::{Instant, Now};

use crate::harness::*;

fn testdata(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
}

const STREAMS: [&str; 8] = [
    "006-client-to-s1",
    "011-client-to-s4",
    "012-client-to-s2",
    "013-client-to-s1",
    "014-client-to-s3",
    "017-client-to-s1",
    "024-client-to-s2",
    "036-client-to-s4",
];

fn same<R: Record>(bytes: &[u8]) {
    assert_eq!(R::from_slice(bytes).unwrap().to_vec(), bytes);
}

/// Decodes and encodes the body of a request again.
fn request_again(op: OpCode, body: &[u8]) {
    match op {
        OpCode::Create | OpCode::Create2 | OpCode::CreateContainer => same::<CreateRequest>(body),
        OpCode::CreateTtl => same::<CreateTtlRequest>(body),
        OpCode::Delete => same::<PathVersionRequest>(body),
        OpCode::SetData => same::<SetDataRequest>(body),
        OpCode::SetAcl => same::<SetAclRequest>(body),
        OpCode::Exists | OpCode::GetData | OpCode::GetChildren | OpCode::GetChildren2 => {
            same::<PathWatchRequest>(body);
        }
        OpCode::Sync | OpCode::GetEphemerals => same::<OptPathRequest>(body),
        OpCode::Auth => same::<AuthPacket>(body),
        OpCode::SetWatches => same::<SetWatches>(body),
        OpCode::Ping | OpCode::WhoAmI | OpCode::CloseSession => assert!(body.is_empty()),
        OpCode::Multi | OpCode::MultiRead => {
            let mut from = Reader::new(body);
            let mut again = Vec::new();
            let mut out = Writer::new(&mut again);
            loop {
                let header = MultiHeader::decode(&mut from).unwrap();
                header.encode(&mut out);
                if header.done {
                    break;
                }
                match OpCode::from_code(header.kind).unwrap() {
                    OpCode::Delete | OpCode::Check => {
                        PathVersionRequest::decode(&mut from)
                            .unwrap()
                            .encode(&mut out);
                    }
                    OpCode::SetData => SetDataRequest::decode(&mut from).unwrap().encode(&mut out),
                    OpCode::CreateTtl => {
                        CreateTtlRequest::decode(&mut from)
                            .unwrap()
                            .encode(&mut out);
                    }
                    OpCode::GetData | OpCode::GetChildren => {
                        PathWatchRequest::decode(&mut from)
                            .unwrap()
                            .encode(&mut out);
                    }
                    _ => CreateRequest::decode(&mut from).unwrap().encode(&mut out),
                }
            }
            from.finish().unwrap();
            assert_eq!(again, body);
        }
        other => panic!("{other:?} is not in the streams"),
    }
}

/// Decodes and encodes the body of an answer again.
fn answer_again(op: OpCode, body: &[u8]) {
    match op {
        OpCode::Create | OpCode::Sync => same::<PathResponse>(body),
        OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
            same::<PathStatResponse>(body);
        }
        OpCode::SetData | OpCode::SetAcl | OpCode::Exists => same::<Stat>(body),
        OpCode::GetData => same::<DataResponse>(body),
        OpCode::GetChildren2 => same::<ChildrenStatResponse>(body),
        OpCode::GetChildren | OpCode::GetEphemerals => {
            let mut from = Reader::new(body);
            let list = from.vector::<String>("list").unwrap();
            from.finish().unwrap();
            let mut again = Vec::new();
            Writer::new(&mut again).vector(list.as_deref());
            assert_eq!(again, body);
        }
        OpCode::Multi | OpCode::MultiRead => drop(multi_results(body)),
        OpCode::WhoAmI => {
            let mut from = Reader::new(body);
            let list = from.vector::<ClientInfo>("infos").unwrap();
            from.finish().unwrap();
            let mut again = Vec::new();
            Writer::new(&mut again).vector(list.as_deref());
            assert_eq!(again, body);
        }
        _ => assert!(body.is_empty()),
    }
}

#[test]
fn captured_streams_survive_decoding_and_encoding() {
    for name in STREAMS {
        let requests = testdata(&format!("streams/{name}.c2s.bin"));
        let replies = testdata(&format!("streams/{name}.s2c.bin"));
        let frames = split_frames(&requests);
        same::<ConnectRequest>(&frames[0][4..]);
        let mut asked = BTreeMap::new();
        for frame in &frames[1..] {
            let mut from = Reader::new(&frame[4..]);
            let header = RequestHeader::decode(&mut from).unwrap();
            let op = OpCode::from_code(header.kind).unwrap();
            request_again(op, from.rest());
            asked.insert(header.xid.0, op);
        }
        let frames = split_frames(&replies);
        same::<ConnectResponse>(&frames[0][4..]);
        for frame in &frames[1..] {
            let reply = parse_reply(frame);
            if reply.xid == -1 {
                same::<WatcherEvent>(&reply.body);
            } else if reply.err == 0 {
                answer_again(asked[&reply.xid], &reply.body);
            }
        }
    }
}

/// The records of a txn log, header and padding left out.
fn log_records(name: &str) -> Vec<TxnRecord> {
    let bytes = Bytes::from(testdata(name));
    let mut records = Vec::new();
    let mut at = 16;
    while at + 12 <= bytes.len() {
        let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        if length == 0 {
            break;
        }
        let payload = bytes.slice(at + 12..at + 12 + length);
        records.push(TxnRecord::from_bytes(&payload).unwrap());
        at += 12 + length + 1;
    }
    records
}

/// Apache lists the paths of a closed session in the order of a hash table.
fn sorted(mut record: TxnRecord) -> TxnRecord {
    if let Txn::CloseSession(close) = &mut record.txn
        && let Some(paths) = &mut close.paths
    {
        paths.sort();
    }
    record
}

/// What is left of an answer once everything that Apache leaves to hash tables is sorted.
fn comparable(op: OpCode, reply: &Reply) -> (i32, i64, i32, Vec<u8>) {
    let mut body = reply.body.clone();
    let sort_strings = |bytes: &[u8]| {
        let mut from = Reader::new(bytes);
        let mut list = from.vector::<String>("list").unwrap().unwrap();
        list.sort();
        let mut out = Vec::new();
        Writer::new(&mut out).vector(Some(&list));
        out
    };
    if reply.err == 0 {
        match op {
            OpCode::GetEphemerals | OpCode::GetChildren => body = sort_strings(&body),
            OpCode::MultiRead => {
                body.clear();
                for (kind, err, result) in multi_results(&reply.body) {
                    body.extend(kind.to_be_bytes());
                    body.extend(err.to_be_bytes());
                    body.extend(if kind == 8 {
                        sort_strings(&result)
                    } else {
                        result
                    });
                }
            }
            OpCode::WhoAmI => {
                let mut infos = Reader::new(&body)
                    .vector::<ClientInfo>("infos")
                    .unwrap()
                    .unwrap();
                infos.sort_by(|a, b| a.scheme.cmp(&b.scheme));
                body.clear();
                Writer::new(&mut body).vector(Some(&infos));
            }
            _ => {}
        }
    }
    (reply.xid, reply.zxid, reply.err, body)
}

/// A whole session as a Java client had it with an Apache ensemble: the same requests, at the times in the
/// log, give the same txns (digests included) and the same answers.
#[test]
fn a_session_of_an_apache_ensemble_comes_out_the_same() {
    let requests = split_frames(&testdata("streams/006-client-to-s1.c2s.bin"));
    let answers = split_frames(&testdata("streams/006-client-to-s1.s2c.bin"));
    let mut log = log_records("apache-3.9.3/s1/log.100000001")
        .into_iter()
        .peekable();
    let prep = PrepOptions {
        extended_types_enabled: true,
        ..PrepOptions::default()
    };
    let mut s = TestServer::with(ServerOptions::default(), prep);
    let session = SessionId(0x0100_0013_5726_0000);
    // The session id was made from this clock.
    s.server = zkd::pipeline::ZkServer::new(ServerOptions::default(), Instant(0x13_5726));
    s.server.start_serving(zkd::event::ServerState::Standalone);
    s.zxid = Zxid(0x1_0000_0000);

    let c = s.accept();
    let mut asked = BTreeMap::new();
    let mut replies = Vec::new();
    for (at, bytes) in requests.iter().enumerate() {
        let next = log.peek().expect("the log goes on behind the session");
        s.now = Now {
            wall_ms: next.header.time,
            ..s.now
        };
        let count = s.log.len();
        s.send(c, bytes);
        if s.log.len() > count {
            let expected = sorted(log.next().unwrap());
            let ours = sorted(s.log.last().unwrap().clone());
            assert_eq!(ours, expected, "request {at}");
            assert_eq!(ours.header.client_id, session);
        }
        if at == 0 {
            let hello = s.connected(c);
            assert_eq!(hello.session, session);
            let theirs = ConnectResponse::from_slice(&answers[0][4..]).unwrap();
            assert_eq!(hello.password, theirs.passwd.unwrap());
        } else {
            let op = OpCode::from_code(i32::from_be_bytes(bytes[8..12].try_into().unwrap()));
            asked.insert(
                i32::from_be_bytes(bytes[4..8].try_into().unwrap()),
                op.unwrap(),
            );
            replies.extend(s.replies(c));
        }
    }
    assert!(s.is_closed(c));
    let theirs = answers[1..].iter().map(|frame| parse_reply(frame));
    for (ours, theirs) in replies.iter().zip(theirs) {
        let op = asked[&ours.xid];
        assert_eq!(comparable(op, ours), comparable(op, &theirs), "{op:?}");
    }
    assert_eq!(replies.len(), answers.len() - 1);
    assert_eq!(log.next().unwrap().header.zxid.0, s.zxid.0 + 1);
}

/// Every txn of the log that came from a client's session of the captures, prepared again from its request
/// while the others (expiry, reaping, other sessions) are only applied.
#[test]
fn the_txns_of_an_observers_client_come_out_the_same() {
    let requests = split_frames(&testdata("streams/011-client-to-s4.c2s.bin"));
    let prep = PrepOptions {
        extended_types_enabled: true,
        ..PrepOptions::default()
    };
    let mut s = TestServer::with(ServerOptions::default(), prep);
    let mut by_xid = BTreeMap::new();
    let mut ids = zkd::auth::initial_ids("127.0.0.1".parse().unwrap());
    for bytes in &requests[1..] {
        let word = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let (xid, op) = (word(4), OpCode::from_code(word(8)).unwrap());
        if op == OpCode::Auth {
            let packet = AuthPacket::from_slice(&bytes[12..]).unwrap();
            let more = zkd::auth::authenticate(
                packet.scheme.as_deref(),
                packet.auth.as_deref(),
                &zkd::auth::AuthConfig::default(),
            );
            ids = zkd::auth::with_ids(&ids, more.unwrap());
        }
        by_xid.insert(xid, (op, bytes[12..].to_vec(), ids.clone()));
    }
    let mut compared = 0;
    let mut observed = None;
    for name in ["log.100000001", "log.100000031", "log.100000056"] {
        for record in log_records(&format!("apache-3.9.3/s1/{name}")) {
            s.now.wall_ms = record.header.time;
            s.zxid = record.header.zxid;
            let session = record.header.client_id;
            if record.header.kind == OpCode::CreateSession.code() {
                s.tracker.track(session, 10_000, s.now.instant);
                if session.0 >> 56 == 4 {
                    observed.get_or_insert(session);
                }
            }
            let asked = by_xid.get(&record.header.cxid.0);
            if let Some((op, payload, ids)) = asked
                && observed == Some(session)
                && record.header.cxid.0 > 0
            {
                let mut request = request(session, record.header.cxid.0, *op, payload);
                request.ids = ids.clone();
                let tree = s.server.tree().read();
                let ours =
                    s.prep
                        .prepare(&tree, &mut s.tracker, &request, record.header.zxid, s.now);
                drop(tree);
                assert_eq!(sorted(ours), sorted(record.clone()));
                compared += 1;
            }
            s.server.apply(&[Delivery::Txn(record.clone())], s.now);
            s.prep.applied(&record.header, &mut s.tracker);
        }
    }
    assert!(compared > 30, "{compared} txns compared");
    let acl = s
        .server
        .tree()
        .read()
        .node("/o/acl")
        .unwrap()
        .acl()
        .to_vec();
    assert_ne!(acl, Acl::open());
}
