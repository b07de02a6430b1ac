//! The load generator against a server made for it, which says what it was asked and answers what the test wants.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use zkd::ids::{SessionId, Xid, Zxid};
use zkd::jute::{Record, Writer};
use zkd::record::opcode::OpCode;
use zkd::record::proto::{ConnectResponse, ReplyHeader};

use super::engine::{Engine, Got};
use super::run::{many, run};
use super::{Plan, Work};

/// What one connection asked for, in order.
type Heard = Arc<Mutex<Vec<Vec<i32>>>>;

/// Answers every request at once with what `error_of` makes of its opcode.
fn server(error_of: fn(i32) -> i32) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let heard = Heard::default();
    let all = Arc::clone(&heard);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let number = all.lock().unwrap().len();
            all.lock().unwrap().push(Vec::new());
            let all = Arc::clone(&all);
            thread::spawn(move || talk(stream.unwrap(), &all, number, error_of));
        }
    });
    (address, heard)
}

/// One connection, until the other side ends it.
fn talk(mut stream: TcpStream, heard: &Heard, number: usize, error_of: fn(i32) -> i32) {
    let mut has_session = false;
    while let Some(frame) = frame(&mut stream) {
        let mut out = vec![0; 4];
        if has_session {
            let op = i32::from_be_bytes(frame[4..8].try_into().unwrap());
            heard.lock().unwrap()[number].push(op);
            let header = ReplyHeader {
                xid: Xid(i32::from_be_bytes(frame[..4].try_into().unwrap())),
                zxid: Zxid(1),
                err: error_of(op),
            };
            header.encode(&mut Writer::new(&mut out));
        } else {
            has_session = true;
            let answer = ConnectResponse {
                protocol_version: 0,
                timeout_ms: 30_000,
                session_id: SessionId(1),
                passwd: Some(Bytes::from_static(&[0; 16])),
                read_only: Some(false),
            };
            answer.encode(&mut Writer::new(&mut out));
        }
        let length = u32::try_from(out.len() - 4).unwrap();
        out[..4].copy_from_slice(&length.to_be_bytes());
        if stream.write_all(&out).is_err() {
            return;
        }
    }
}

fn frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn plan(server: SocketAddr, work: Work) -> Plan {
    Plan {
        servers: vec![server],
        clients: 3,
        depth: 2,
        work,
        size: 10,
        keys: 5,
        warm_up: Duration::ZERO,
        length: Duration::from_millis(20),
        rate: None,
        session_timeout: Duration::from_secs(30),
        seed: 1,
    }
}

#[test]
fn every_session_syncs_before_it_measures() {
    let (server, heard) = server(|_| 0);
    let outcome = run(&plan(server, Work::Read), &mut |_| {}).unwrap();
    assert!(outcome.ops > 0 && outcome.failed == 0, "{outcome:?}");
    let heard = heard.lock().unwrap();
    assert_eq!(heard.len(), 3);
    for ops in heard.iter() {
        let first = |wanted: OpCode| ops.iter().position(|op| *op == wanted.code());
        let sync = first(OpCode::Sync).expect("a sync");
        let read = first(OpCode::GetData).expect("a read");
        let last_key = ops.iter().rposition(|op| *op == OpCode::Create.code());
        assert!(
            sync < read && last_key.is_none_or(|key| key < sync),
            "{ops:?}"
        );
    }
}

#[test]
fn what_is_still_on_its_way_is_no_answer_to_a_chore() {
    let (server, _) = server(|op| match op {
        op if op == OpCode::SetData.code() => -101,
        _ => 0,
    });
    let mut engine = Engine::new().unwrap();
    engine
        .connect(server, None, Duration::from_secs(30))
        .unwrap();
    while !engine.is_open(0) {
        engine.poll(u64::MAX).unwrap();
    }
    engine.arrivals.clear();
    engine.send(0, 7, |out| out.extend(OpCode::SetData.code().to_be_bytes()));
    let mut asked = 0;
    many(&mut engine, "delete the keys", 3, |_, out| {
        asked += 1;
        out.extend(OpCode::Delete.code().to_be_bytes());
    })
    .unwrap();
    assert_eq!((asked, engine.waiting(0)), (3, 0));
    assert!(engine.arrivals.is_empty());
}

#[test]
fn a_refused_chore_says_which_server_refuses_what() {
    let (server, _) = server(|_| -101);
    let mut engine = Engine::new().unwrap();
    engine
        .connect(server, None, Duration::from_secs(30))
        .unwrap();
    while !engine.is_open(0) {
        engine.poll(u64::MAX).unwrap();
    }
    assert!(engine.arrivals.iter().any(|got| got.got == Got::Session));
    let failure = many(&mut engine, "delete the keys", 1, |_, out| {
        out.extend(OpCode::Delete.code().to_be_bytes());
    })
    .unwrap_err();
    let wanted = format!("cannot delete the keys: {server} answers with error -101");
    assert_eq!(failure.cause, wanted);
}
