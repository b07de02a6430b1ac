//! Keys of `zoo.cfg` whose effect shows from outside.

use std::io::Write;
use std::net::TcpStream;

use crate::client::{Client, dial, hello, read_to_close};
use crate::harness::{CLIENT_PORT, ELECTION_PORT, Ensemble, Node, QUORUM_PORT};

#[test]
fn max_client_cnxns() {
    let mut node = Node::standalone("maxClientCnxns=2");
    node.start();
    let first = node.connect();
    let second = node.connect();
    assert!(Client::connect(&node.address.client()).is_err());
    node.await_log("maxClientCnxns");
    drop(first);
    drop(second);
    // The places become free when the server has seen the closing.
    while Client::connect(&node.address.client()).is_err() {}
}

#[test]
fn session_timeouts() {
    let mut node =
        Node::standalone("tickTime=1000\nminSessionTimeout=3000\nmaxSessionTimeout=9000");
    node.start();
    for (asked, granted) in [(1, 3000), (5000, 5000), (100_000, 9000)] {
        let client = Client::connect_with(&node.address.client(), asked).unwrap();
        assert_eq!(client.timeout_ms, granted);
    }
    let mut node = Node::standalone("tickTime=500");
    node.start();
    for (asked, granted) in [(1, 1000), (100_000, 10_000)] {
        let client = Client::connect_with(&node.address.client(), asked).unwrap();
        assert_eq!(client.timeout_ms, granted);
    }
}

#[test]
fn snap_count_and_autopurge() {
    let mut node = Node::standalone(
        "snapCount=10\npreAllocSize=64\nautopurge.snapRetainCount=3\nautopurge.purgeInterval=50ms",
    );
    node.start();
    let mut client = node.connect();
    client.create("/n", b"");
    // Every ten writes at the most make a snapshot; a purge leaves three of them.
    let mut n = 0_u32;
    while !node.log().contains("purged") {
        n += 1;
        assert!(n < 20_000, "{}", node.log());
        assert_eq!(client.set("/n", &n.to_be_bytes()).err, 0);
    }
    assert_eq!(node.stop(), Some(0));
    assert!(node.files("snapshot.").len() >= 3);
    node.start();
    assert_eq!(node.connect().get("/n").unwrap().0, n.to_be_bytes());
}

/// What cannot be removed stays, is told of, and harms nothing.
#[test]
fn a_purge_that_fails() {
    let mut node = Node::standalone("snapCount=10\npreAllocSize=64\nautopurge.purgeInterval=50ms");
    node.start();
    // By its name an old snapshot; but a directory cannot be removed like a file, not even by root.
    std::fs::create_dir(node.version_dir().join("snapshot.1")).unwrap();
    let mut client = node.connect();
    client.create("/n", b"");
    let mut n = 0_u32;
    while !node.log().contains("purging failed") {
        n += 1;
        assert!(n < 20_000, "{}", node.log());
        assert_eq!(client.set("/n", &n.to_be_bytes()).err, 0);
    }
    let line = node.await_log("purging failed");
    assert!(
        line.contains("WARN") && line.contains("snapshot.1"),
        "{line}"
    );
    assert_eq!(client.set("/n", b"end").err, 0);
    assert_eq!(node.stop(), Some(0));
    node.start();
    assert_eq!(node.connect().get("/n").unwrap().0, b"end");
}

/// `preAllocSize`: log files are of a header and whole steps of it.
#[test]
fn pre_alloc_size_and_data_log_dir() {
    let mut node = Node::standalone("");
    let logs = node.dir.path().join("logs");
    node.configure(&format!(
        "clientPort={CLIENT_PORT}\nclientPortAddress={}\npreAllocSize=128\ndataLogDir={}",
        node.address.host,
        logs.display()
    ));
    node.start();
    assert_eq!(node.connect().create("/a", b"").err, 0);
    node.kill();
    let log = std::fs::read_dir(logs.join("version-2"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .find(|entry| entry.file_name().to_str().unwrap().starts_with("log."))
        .expect("txn logs are in dataLogDir");
    assert_eq!(log.metadata().unwrap().len(), 16 + 128 * 1024);
    assert!(node.files("log.").is_empty());
}

#[test]
fn force_sync() {
    for (value, synced) in [("yes", true), ("no", false)] {
        let mut node = Node::standalone(&format!("forceSync={value}"));
        node.start();
        assert_eq!(node.connect().create("/a", b"").err, 0);
        let told = node.metric("cnt_fsynctime").unwrap();
        assert_eq!(told != "0", synced, "{value}: {told}");
    }
}

#[test]
fn four_letter_whitelist() {
    let mut node = Node::standalone("");
    node.start();
    assert_eq!(node.word("ruok"), "imok");
    assert!(node.word("conf").contains("clientPort=2181"));
    let text = std::fs::read_to_string(node.config_file()).unwrap();
    std::fs::write(
        node.config_file(),
        text.replace("whitelist=*", "whitelist=srvr, isro"),
    )
    .unwrap();
    node.stop();
    node.start();
    assert_eq!(
        node.word("ruok"),
        "ruok is not executed because it is not in the whitelist.\n"
    );
    assert_eq!(node.word("isro"), "rw");
    assert!(node.word("srvr").contains("Mode: standalone"));
}

#[test]
fn leader_serves_no() {
    let ensemble = Ensemble::start(3, "leaderServes=no");
    let mut served = 0;
    for node in &ensemble.nodes {
        match Client::connect(&node.address.client()) {
            Ok(mut client) => {
                served += 1;
                assert_eq!(
                    client.create(&format!("/{}", node.address.host), b"").err,
                    0
                );
            }
            Err(_) => assert!(node.log().contains("now leading"), "{}", node.log()),
        }
    }
    assert_eq!(served, 2, "the leader takes no clients");
}

#[test]
fn quorum_listen_on_all_ips() {
    // All bind every address, so each has ports of its own here.
    let mut ensemble = Ensemble::new(3, "");
    let hosts: Vec<String> = ensemble
        .nodes
        .iter()
        .map(|node| node.address.host.clone())
        .collect();
    let reserved: Vec<[std::net::TcpListener; 2]> = hosts
        .iter()
        .map(|_| [0, 0].map(|_| std::net::TcpListener::bind("0.0.0.0:0").unwrap()))
        .collect();
    let ports: Vec<[u16; 2]> = reserved
        .iter()
        .map(|pair| [0, 1].map(|n: usize| pair[n].local_addr().unwrap().port()))
        .collect();
    let members: String = hosts
        .iter()
        .zip(&ports)
        .zip(1..)
        .map(|((host, [quorum, election]), id)| {
            format!("server.{id}={host}:{quorum}:{election};{host}:{CLIENT_PORT}\n")
        })
        .collect();
    for node in &ensemble.nodes {
        node.configure(&format!(
            "quorumListenOnAllIPs=true\ninitLimit=10\nsyncLimit=5\n{members}"
        ));
    }
    drop(reserved);
    for node in &mut ensemble.nodes {
        node.spawn();
    }
    for node in &mut ensemble.nodes {
        node.await_serving();
    }
    for [quorum, election] in ports {
        for port in [quorum, election] {
            TcpStream::connect(("127.0.0.1", port)).expect("bound to every address");
        }
    }
    // Without it only the address of the configuration is bound.
    let ensemble = Ensemble::start(3, "");
    let host = &ensemble.nodes[0].address.host;
    for port in [QUORUM_PORT, ELECTION_PORT] {
        TcpStream::connect((host.as_str(), port)).expect("bound to its own address");
    }
}

/// One server and `standaloneEnabled=false`: an ensemble of one, with an epoch.
#[test]
fn standalone_enabled() {
    let mut one = Ensemble::start(1, "standaloneEnabled=false");
    assert!(one.nodes[0].word("srvr").contains("Mode: leader"));
    assert_eq!(one.nodes[0].connect().create("/a", b"").err, 0);
    assert_eq!(one.nodes[0].stop(), Some(0));
    assert_eq!(one.nodes[0].start(), zkd::event::ServerState::Leading);
    assert!(one.nodes[0].connect().get("/a").is_some());
    let one = Ensemble::start(1, "");
    assert!(one.nodes[0].word("srvr").contains("Mode: standalone"));
}

/// A client that asks for much at once and reads nothing is not read from beyond the limit, and gets every
/// answer in order when it reads again.
#[test]
fn global_outstanding_limit() {
    let mut node = Node::standalone("globalOutstandingLimit=5");
    node.start();
    let mut client = node.connect();
    let mut xids = Vec::new();
    for n in 0..200 {
        let body = crate::client::create_body(&format!("/{n}"), b"", 0);
        xids.push(
            client
                .send(zkd::record::opcode::OpCode::Create, &body)
                .unwrap(),
        );
    }
    for xid in xids {
        let answer = client.receive().unwrap();
        assert_eq!((answer.xid, answer.err), (xid, 0));
    }
    assert_eq!(node.metric("outstanding_requests").as_deref(), Some("0"));
}

#[test]
fn connections_without_a_session_end() {
    let mut node = Node::standalone("nio.sessionlessCnxnTimeout=200");
    node.start();
    let mut stream = dial(&node.address.client()).unwrap();
    stream.write_all(&hello(10_000)[..3]).unwrap();
    assert_eq!(read_to_close(&mut stream), b"");
    assert_eq!(
        node.metric("sessionless_connections_expired").as_deref(),
        Some("1")
    );
}

/// Clients are served alike on the core's own thread and on threads beside it.
#[test]
fn client_threads() {
    for threads in 0..=2 {
        let mut node = Node::standalone(&format!("nio.numSelectorThreads={threads}"));
        node.start();
        let mut clients: Vec<_> = (0..5).map(|_| node.connect()).collect();
        clients[0].create("/n", b"");
        for (n, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.set("/n", &[u8::try_from(n).unwrap()]).err, 0);
        }
        for client in &mut clients {
            assert_eq!(client.get("/n").unwrap().0, [4]);
        }
        assert_eq!(node.threads_named("clients"), threads);
    }
}
