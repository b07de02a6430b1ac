//! A server alone: it starts, serves, is told to stop, and comes back with everything.

use nix::sys::signal::Signal;
use zkd::event::{PeerEvent, ServerState};
use zkd::record::opcode::OpCode;

use crate::client::{Client, create_body};
use crate::harness::Node;

#[test]
fn what_was_acknowledged_is_there_after_a_stop() {
    let mut node = Node::standalone("");
    assert_eq!(node.start(), ServerState::Standalone);
    let mut client = node.connect();
    assert_eq!(client.create("/a", b"0").err, 0);
    for n in 1..=50 {
        assert_eq!(client.set("/a", format!("{n}").as_bytes()).err, 0);
    }
    let digest = node.metric("tree_digest");
    assert_eq!(node.stop(), Some(0));
    node.start();
    assert_eq!(node.metric("tree_digest"), digest);
    let mut client = node.connect();
    let (data, stat) = client.get("/a").expect("it was acknowledged");
    assert_eq!((data, stat.version), (b"50".to_vec(), 50));
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let mut node = Node::standalone("");
    node.start();
    for round in 0..3 {
        let mut client = node.connect();
        for n in 0..20 {
            assert_eq!(client.create(&format!("/{round}-{n}"), b"x").err, 0);
        }
        node.kill();
        node.start();
    }
    let mut client = node.connect();
    let children = client.children("/");
    for round in 0..3 {
        for n in 0..20 {
            assert!(children.contains(&format!("{round}-{n}")), "{children:?}");
        }
    }
}

/// SIGTERM while a client has a thousand writes on the way: what it got an answer for is kept.
#[test]
fn a_stop_in_the_middle_of_writes_loses_no_answer() {
    let mut node = Node::standalone("");
    node.start();
    let mut client = node.connect();
    for n in 0..1000 {
        let body = create_body(&format!("/p{n:04}"), b"data", 0);
        client.send(OpCode::Create, &body).unwrap();
    }
    let mut acknowledged = Vec::new();
    while let Ok(answer) = client.receive() {
        assert_eq!(answer.err, 0);
        acknowledged.push(answer.xid - 1);
        if acknowledged.len() == 10 {
            node.signal(Signal::SIGTERM);
        }
        if acknowledged.len() == 1000 {
            break;
        }
    }
    assert!(acknowledged.len() >= 10);
    assert_eq!(node.await_end().code(), Some(0));
    node.start();
    let children = node.connect().children("/");
    for n in &acknowledged {
        assert!(
            children.contains(&format!("p{n:04}")),
            "write {n} was acknowledged"
        );
    }
}

#[test]
fn both_signals_end_it_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut node = Node::standalone("");
        node.start();
        let idle = node.connect();
        node.signal(signal);
        let (code, reason) = node.await_event(|event| match event {
            PeerEvent::Stopping { reason, code } => Some((*code, reason.clone())),
            _ => None,
        });
        assert_eq!((code, reason.as_str()), (0, "told to stop"));
        assert_eq!(node.await_end().code(), Some(0));
        drop(idle);
    }
}

/// A session outlives its server's restart, if the client comes back in time.
#[test]
fn a_session_survives_a_restart_with_its_ephemeral() {
    let mut node = Node::standalone("");
    node.start();
    let mut client = node.connect();
    let body = create_body("/e", b"", 1);
    assert_eq!(client.ask(OpCode::Create, &body).unwrap().err, 0);
    node.kill();
    node.start();
    let owner = node
        .connect()
        .get("/e")
        .map(|(_, stat)| stat.ephemeral_owner);
    assert_eq!(owner, Some(client.session));
    let mut back = Client::reattach(&node.address.client(), &client).unwrap();
    assert_eq!(back.session, client.session);
    assert!(back.get("/e").is_some());
    assert_eq!(back.ask(OpCode::CloseSession, &[]).unwrap().err, 0);
    assert!(node.connect().get("/e").is_none());
}
