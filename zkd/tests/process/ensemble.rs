//! Three servers: they elect, serve, lose their leader, and go on.

use std::fs;

use zkd::event::{PeerEvent, ServerState};

use crate::client::Client;
use crate::harness::{Address, CLIENT_PORT, ELECTION_PORT, Ensemble, Node, QUORUM_PORT};

#[test]
fn writes_go_on_through_every_member_after_the_leader_is_killed() {
    let mut ensemble = Ensemble::start(3, "");
    let leader = ensemble.leader();
    for (index, node) in ensemble.nodes.iter().enumerate() {
        assert_eq!(node.connect().create(&format!("/by{index}"), b"").err, 0);
    }
    ensemble.nodes[leader].kill();
    let survivors: Vec<usize> = (0..3).filter(|&index| index != leader).collect();
    for &index in &survivors {
        ensemble.nodes[index].await_serving();
        let created = ensemble.nodes[index]
            .connect()
            .create(&format!("/then{index}"), b"");
        assert_eq!(created.err, 0);
    }
    assert_eq!(ensemble.nodes[leader].start(), ServerState::Following);
    let mut client = ensemble.nodes[leader].connect();
    client.sync("/");
    let children = client.children("/");
    for name in ["by0", "by1", "by2"] {
        assert!(children.contains(&name.to_owned()), "{children:?}");
    }
    for index in survivors {
        assert!(children.contains(&format!("then{index}")), "{children:?}");
    }
    for node in &mut ensemble.nodes {
        assert_eq!(node.stop(), Some(0));
    }
}

/// Two of three gone: no client is served, and it is said; one back: it goes on.
#[test]
fn without_a_quorum_nobody_is_served_and_one_return_is_enough() {
    let mut ensemble = Ensemble::start(3, "tickTime=200\n");
    assert_eq!(ensemble.nodes[2].connect().create("/kept", b"").err, 0);
    let leader = ensemble.leader();
    let stays = (leader + 1) % 3;
    let returns = (leader + 2) % 3;
    ensemble.nodes[leader].kill();
    ensemble.nodes[returns].kill();
    ensemble.nodes[stays].await_event(|event| match event {
        PeerEvent::NotServing { .. } => Some(()),
        _ => None,
    });
    let refused = Client::connect(&ensemble.nodes[stays].address.client());
    assert!(
        refused.is_err(),
        "a server without a quorum closes the connection"
    );
    let srvr = ensemble.nodes[stays].word("srvr");
    assert!(srvr.contains("not currently serving requests"), "{srvr}");
    ensemble.nodes[returns].start();
    ensemble.nodes[stays].await_serving();
    assert!(ensemble.nodes[stays].connect().get("/kept").is_some());
}

/// A second server with an id of the ensemble: it is refused and told so; the ensemble goes on.
#[test]
fn two_servers_with_one_sid() {
    let mut ensemble = Ensemble::start(3, "");
    let leader = ensemble.leader();
    let twin_of = (leader + 1) % 3;
    // The twin has the id of a follower, and an address of its own.
    let address = Address::new();
    let members: String = ensemble
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let host = if index == twin_of {
                &address.host
            } else {
                &node.address.host
            };
            format!(
                "server.{}={host}:{QUORUM_PORT}:{ELECTION_PORT};{host}:{CLIENT_PORT}\n",
                index + 1
            )
        })
        .collect();
    let mut twin = Node::new(address, &format!("initLimit=10\nsyncLimit=5\n{members}"));
    fs::write(twin.data().join("myid"), format!("{}\n", twin_of + 1)).unwrap();
    twin.spawn();
    ensemble.nodes[leader].await_log(&format!("another server says it is server {}", twin_of + 1));
    for node in &ensemble.nodes {
        assert_eq!(
            node.connect()
                .create(&format!("/{}", node.address.host), b"")
                .err,
            0
        );
    }
    assert!(!twin.has_told(|event| matches!(event, PeerEvent::Serving { .. })));
    assert_eq!(twin.stop(), Some(0));
    for node in &mut ensemble.nodes {
        assert_eq!(node.stop(), Some(0));
    }
}

/// `/zookeeper/config` has the canonical text of the membership with its version, on every server.
#[test]
fn the_config_node_shows_the_members() {
    let ensemble = Ensemble::start(3, "");
    let hosts: Vec<&str> = ensemble
        .nodes
        .iter()
        .map(|node| node.address.host.as_str())
        .collect();
    let members: String = hosts
        .iter()
        .zip(1..)
        .map(|(host, id)| {
            format!("server.{id}={host}:{QUORUM_PORT}:{ELECTION_PORT}:participant;{host}:{CLIENT_PORT}\n")
        })
        .collect();
    for node in &ensemble.nodes {
        let (data, stat) = node.connect().get("/zookeeper/config").unwrap();
        assert_eq!(
            String::from_utf8(data).unwrap(),
            format!("{members}version=0")
        );
        assert_eq!((stat.version, stat.mzxid.0), (-1, 0));
    }
}
