//! Garbage on all three ports: that connection is closed, the reason is logged once, the server serves on.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use zkd::ids::{Epoch, Zxid};
use zkd::jute::{Reader, Record, Writer};
use zkd::prng::Prng;
use zkd::record::opcode::OpCode;
use zkd::record::quorum::{QuorumPacket, packet};

use crate::client::{Client, dial, frame, hello, read_to_close};
use crate::harness::{ELECTION_PORT, Ensemble, Node, QUORUM_PORT};

/// How often `text` stands in the log.
fn count(node: &Node, text: &str) -> usize {
    node.log().matches(text).count()
}

fn length_word(length: i32) -> Vec<u8> {
    length.to_be_bytes().to_vec()
}

#[test]
fn what_is_no_client_is_closed_with_the_reason() {
    let mut node = Node::standalone("jute.maxbuffer=4096");
    node.start();
    let mut good = node.connect();
    for (bytes, reason) in [
        (length_word(-1), "length -1"),
        (length_word(4097), "length 4097"),
        (length_word(i32::MAX), "length 2147483647"),
        (frame(&[1, 2, 3]), "the first frame"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "length 1195725856"),
    ] {
        let mut stream = dial(&node.address.client()).unwrap();
        let from = stream.local_addr().unwrap().to_string();
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_to_close(&mut stream), b"");
        let line = node.await_log(&from);
        assert!(line.contains("WARN") && line.contains(reason), "{line}");
        assert_eq!(count(&node, &from), 1, "{}", node.log());
    }
    assert_eq!(good.create("/still", b"").err, 0);
}

#[test]
fn a_session_that_leaves_the_protocol_is_closed_with_the_reason() {
    let mut node = Node::standalone("jute.maxbuffer=4096");
    node.start();
    for (bytes, reason) in [
        (length_word(-7), "length -7"),
        (length_word(1 << 20), "length 1048576"),
        (frame(&[0; 4]), "4 bytes"),
        (frame(&[0, 0, 0, 1, 0, 0, 3, 0xe7]), "opcode 999"),
    ] {
        let mut client = node.connect();
        let from = client.stream.local_addr().unwrap().to_string();
        client.stream.write_all(&bytes).unwrap();
        read_to_close(&mut client.stream);
        let line = node.await_log(&from);
        assert!(line.contains("WARN") && line.contains(reason), "{line}");
        assert_eq!(count(&node, &from), 1, "{}", node.log());
    }
    // A truncated record inside a whole frame is the client's error, and only that.
    let mut client = node.connect();
    let answer = client.ask(OpCode::Create, &[0, 0, 0, 9, b'/']).unwrap();
    assert_eq!(answer.err, -5, "a marshalling error");
    assert_eq!(client.create("/still", b"").err, 0);
}

/// A frame of exactly `jute.maxbuffer` bytes is served, one more closes the connection.
#[test]
fn the_largest_frame() {
    let mut node = Node::standalone("jute.maxbuffer=2000");
    node.start();
    let mut client = node.connect();
    let empty = crate::client::create_body("/big", b"", 0).len() + 8;
    assert_eq!(client.create("/big", &vec![b'x'; 2000 - empty]).err, 0);
    let body = crate::client::create_body("/big", &vec![b'x'; 2001 - empty], 0);
    client.send(OpCode::Create, &body).unwrap();
    assert!(client.receive().is_err());
    assert_eq!(node.connect().get("/big").unwrap().0.len(), 2000 - empty);
}

/// Connections that say nothing, or one byte, or half a frame, hold nobody up; a server that is told to
/// stop does not wait for them.
#[test]
fn half_open_and_slow_connections_hold_nobody_up() {
    let mut node = Node::standalone("maxClientCnxns=0\nnio.sessionlessCnxnTimeout=1000");
    node.start();
    let mut idle: Vec<TcpStream> = (0..60)
        .map(|n| {
            let mut stream = dial(&node.address.client()).unwrap();
            stream.write_all(&hello(10_000)[..n % 4]).unwrap();
            stream
        })
        .collect();
    let mut half = node.connect();
    half.stream.write_all(&length_word(100)).unwrap();
    half.stream.write_all(b"half of").unwrap();
    let mut closing = node.connect();
    closing.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_close(&mut closing.stream), b"");
    assert_eq!(node.connect().create("/a", b"").err, 0);
    // Without a session they are closed after their time; nobody is told of them at this level.
    for stream in &mut idle {
        assert_eq!(read_to_close(stream), b"");
    }
    assert_eq!(node.connect().create("/b", b"").err, 0);
    assert_eq!(node.stop(), Some(0));
}

#[test]
fn any_bytes_on_the_client_port() {
    let seed = 0x5eed_0001;
    let mut prng = Prng::new(seed);
    let mut node = Node::standalone("maxClientCnxns=0");
    node.start();
    let mut good = node.connect();
    good.create("/f", b"");
    for round in 0..150 {
        let mut stream = dial(&node.address.client()).unwrap();
        let mut bytes = if prng.below(2) == 0 {
            hello(10_000)
        } else {
            Vec::new()
        };
        for _ in 0..prng.below(4) {
            let mut body: Vec<u8> = (0..prng.below(60)).map(|_| prng.below(256) as u8).collect();
            if prng.below(2) == 0 && body.len() >= 8 {
                let op = i32::try_from(prng.below(110)).unwrap();
                body[4..8].copy_from_slice(&op.to_be_bytes());
            }
            bytes.extend(if prng.below(5) == 0 {
                body
            } else {
                frame(&body)
            });
        }
        // The server may have closed before all is written.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        read_to_close(&mut stream);
        if round % 25 == 0 {
            let set = good.set("/f", &[round]);
            assert_eq!(set.err, 0, "seed {seed:#x}, round {round}");
        }
    }
    assert_eq!(good.set("/f", b"end").err, 0, "seed {seed:#x}");
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

#[test]
fn any_bytes_on_the_ports_of_the_ensemble() {
    let seed = 0x5eed_0002;
    let mut prng = Prng::new(seed);
    let mut ensemble = Ensemble::start(3, "maxClientCnxns=0");
    let mut silent = Vec::new();
    for round in 0..90 {
        let node = &ensemble.nodes[round % 3];
        let port = if round % 2 == 0 {
            QUORUM_PORT
        } else {
            ELECTION_PORT
        };
        let address = format!("{}:{port}", node.address.host);
        let mut stream = dial(&address).unwrap();
        let bytes: Vec<u8> = match prng.below(5) {
            0 => length_word(-1),
            1 => i32::MAX.to_be_bytes().into(),
            2 => (-65536_i64)
                .to_be_bytes()
                .into_iter()
                .chain([0xff; 12])
                .collect(),
            3 => QuorumPacket::bare(packet::ACK, Zxid(prng.next_u64().cast_signed())).to_vec(),
            _ => (0..prng.below(80)).map(|_| prng.below(256) as u8).collect(),
        };
        let _ = stream.write_all(&bytes);
        if prng.below(3) == 0 {
            silent.push(stream);
        } else {
            let _ = stream.shutdown(Shutdown::Write);
            read_to_close(&mut stream);
        }
    }
    for node in &ensemble.nodes {
        let mut client = node.connect();
        assert_eq!(
            client.create(&format!("/{}", node.address.host), b"").err,
            0,
            "seed {seed:#x}"
        );
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
    for node in &mut ensemble.nodes {
        assert!(
            !node.has_told(|event| matches!(event, zkd::event::PeerEvent::SteppedDown { .. })),
            "garbage must not end a reign: {}",
            node.log()
        );
    }
    for node in &mut ensemble.nodes {
        assert_eq!(node.stop(), Some(0));
    }
}

fn learner_info(kind: i32, sid: i64, accepted_epoch: i64) -> Vec<u8> {
    let mut info = Vec::new();
    let mut writer = Writer::new(&mut info);
    writer.long(sid);
    writer.int(0x10000);
    writer.long(0);
    QuorumPacket::with(kind, Zxid::new(Epoch(accepted_epoch), 0), info).to_vec()
}

/// A learner that says it is the leader itself, or has an impossible epoch, or starts with the wrong packet.
#[test]
fn impossible_learners_are_refused_and_told_of_once() {
    let mut ensemble = Ensemble::start(3, "");
    let leader = ensemble.leader();
    let id = i64::try_from(leader).unwrap() + 1;
    let quorum = format!("{}:{QUORUM_PORT}", ensemble.nodes[leader].address.host);
    let node = &mut ensemble.nodes[leader];
    for (bytes, reason) in [
        (
            learner_info(packet::FOLLOWERINFO, id, 1),
            format!("it says it is server {id}, which is this one"),
        ),
        (
            learner_info(packet::FOLLOWERINFO, 77, 1 << 31),
            "impossible epoch".to_owned(),
        ),
        (
            QuorumPacket::bare(packet::ACK, Zxid(5)).to_vec(),
            "ACK came in phase".to_owned(),
        ),
    ] {
        let mut stream = dial(&quorum).unwrap();
        stream.write_all(&bytes).unwrap();
        read_to_close(&mut stream);
        node.await_log(&reason);
        assert_eq!(count(node, &reason), 1, "{}", node.log());
    }
    // A server that the membership does not name may follow without a vote, as with Apache: it is told the
    // epoch, and its word counts for nothing.
    let mut stranger = dial(&quorum).unwrap();
    stranger
        .write_all(&learner_info(packet::FOLLOWERINFO, 77, 0))
        .unwrap();
    let mut head = [0; 12];
    std::io::Read::read_exact(&mut stranger, &mut head).unwrap();
    let kind = Reader::new(&head).int("type").unwrap();
    assert_eq!(kind, packet::LEADERINFO);
    assert_eq!(node.connect().create("/a", b"").err, 0);
}

/// A follower asked to lead: whoever connects to its quorum port is closed.
#[test]
fn a_follower_takes_no_learners() {
    let ensemble = Ensemble::start(3, "");
    let follower = (ensemble.leader() + 1) % 3;
    let mut stream = dial(&format!(
        "{}:{QUORUM_PORT}",
        ensemble.nodes[follower].address.host
    ))
    .unwrap();
    // It may be closed before the packet is out.
    let _ = stream.write_all(&learner_info(packet::FOLLOWERINFO, 3, 0));
    assert_eq!(read_to_close(&mut stream), b"");
    assert_eq!(
        Client::connect(&ensemble.nodes[follower].address.client())
            .unwrap()
            .create("/a", b"")
            .err,
        0
    );
}
