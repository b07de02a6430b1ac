//! Faults that are more than a bad link: resets, hosts that are gone, clients that are cut off too.

use super::lab::{Lab, lines};
use super::*;

pub(super) fn a_reset_breaks_connections_off_at_both_ends() {
    let net = three_nodes();
    let (mut client, mut server) = tcp(&net);
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    server.write_all(b"yes").unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    let faults = LinkFaults {
        cut: true,
        reset: true,
        ..LinkFaults::default()
    };
    change(&net, |matrix| {
        *matrix.link_mut(0, 1) = faults;
        *matrix.link_mut(1, 0) = faults;
    });
    for mut end in [client, server] {
        let error = end.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

pub(super) fn servers_can_be_cut_alone() {
    let net = three_nodes();
    let faults = LinkFaults {
        cut_servers: true,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    // Neither port of this connection is one of the servers'.
    let (mut client, mut server) = tcp(&net);
    client.write_all(b"hello").unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(net.links().unwrap().traffic(0, 1).dropped, 0);
    let quorum = net.socket(N1, SockType::Stream).unwrap();
    nix::fcntl::fcntl(
        &quorum,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )
    .unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&quorum);
    // It is under way, and its first packet is lost.
    assert!(connect(fd, &SockaddrIn::from(place(N2, 2888))).is_err());
    let deadline = Instant::now() + PATIENCE;
    while net.links().unwrap().traffic(0, 1).dropped == 0 {
        assert!(Instant::now() < deadline, "nothing was lost");
    }
}

/// A connection to the published port of a node, over which the server has answered once.
fn client_of(up: &Value, node: &str) -> TcpStream {
    let nodes = up["nodes"].as_array().unwrap();
    let addr = nodes.iter().find(|one| one["id"] == node).unwrap()["addr"].clone();
    let mut stream = TcpStream::connect(addr.as_str().unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A session is opened, and stays until the server ends it.
    let mut hello = vec![0, 0, 0, 45];
    hello.extend([0; 4 + 8]);
    hello.extend(60_000_u32.to_be_bytes());
    hello.extend([0; 8]);
    hello.extend(16_u32.to_be_bytes());
    hello.extend([0; 17]);
    stream.write_all(&hello).unwrap();
    let mut answer = [0; 41];
    stream.read_exact(&mut answer).unwrap();
    stream
}

/// Nothing comes, not even an end.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let heard = stream.read(&mut [0; 64]);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(heard, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn faults_of(status: &Value, node: &str) -> String {
    let nodes = status["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|one| one["id"] == node).unwrap();
    node["faults"].to_string()
}

pub(super) fn a_host_that_is_gone_says_nothing() {
    let lab = Lab::new();
    let up = lab.up("--nodes 3 --tick 200ms");
    let leader = up["leader"].as_str().unwrap().to_owned();
    let mut client = client_of(&up, &leader);
    lab.json("kill leader --as host");
    assert!(is_silent(&mut client), "an end reached the client");
    let status = lab.json("status");
    assert!(
        faults_of(&status, &leader).contains("host gone"),
        "{status}"
    );
    lab.json(&format!("start {leader}"));
    // It is there again, and knows nothing of that connection.
    let ended = client.read(&mut [0; 64]);
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    let shown = lines(&lab.run("--json link show"));
    assert!(shown.iter().all(|link| link["cut"] == false));
    assert_eq!(lab.json("status")["faults"], serde_json::json!([]));
    lab.refused("kill n1 --as host --signal TERM", "KILL only");
    lab.refused("kill n1 --as hots", "neither process nor host");
    let kill = lab.json("kill-leader --as host --restart");
    assert_eq!(kill["as"], "host", "{kill}");
    lab.json("down");
    lab.json("up --nodes 3");
    for words in ["kill n1 --as host", "kill-leader --as host"] {
        lab.refused(words, "cannot lose a host: its network is loopback");
    }
    assert_eq!(lab.json("status")["quorum"], true);
}

pub(super) fn every_fault_has_an_id_and_heals_by_it() {
    let lab = Lab::new();
    lab.up("--nodes 5 --tick 200ms");
    lab.json("pause n1");
    lab.json("kill n2");
    assert_eq!(lab.json("link set n3>n4 --delay 5ms --loss 1%")["id"], "l3");
    assert_eq!(lab.json("partition one-way n3>n5")["id"], "f4");
    let status = lab.json("status");
    assert_eq!(faults_of(&status, "n1"), r#"["paused p1"]"#);
    assert!(faults_of(&status, "n2").contains("killed 0 s ago k2"));
    assert_eq!(faults_of(&status, "n3"), r#"["5ms 1% l3","one-way f4"]"#);
    assert_eq!(status["faults"].as_array().unwrap().len(), 4);
    assert_eq!(lab.json("ls")["labs"][0]["faults"], 4);
    lab.refused("heal l9", "faults that stand: p1 k2 l3 f4");
    lab.refused("heal prok", "did you mean proc?");
    assert_eq!(lab.json("heal l3")["healed"], serde_json::json!(["l3"]));
    let proc = lab.json("heal proc --wait");
    assert_eq!(proc["healed"], serde_json::json!(["p1", "k2"]));
    let core = lab.json("heal --core n1,n3,n5 --wait");
    assert_eq!(core["healed"], serde_json::json!(["f4"]));
    lab.json("stop n1 --for 10ms --wait");
    let status = lab.json("status");
    assert_eq!(status["faults"], serde_json::json!([]), "{status}");
    assert_eq!(status["have"], 5, "{status}");
    let told = lines(&lab.run("--json events --kind fault"));
    let of = |kind: &str| -> Vec<String> {
        let chosen = told.iter().filter(|event| event["kind"] == kind);
        let mut ids: Vec<String> = chosen.map(|event| event["id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(of("fault.on"), of("fault.off"));
    assert_eq!(of("fault.on").len(), 5);
    let one = told.iter().find(|event| event["id"] == "f4").unwrap();
    assert_eq!(one["what"], "partition");
    assert_eq!(one["links"], serde_json::json!(["n3>n5"]));
    assert_eq!(one["effective_us"], one["t_us"]);
}

pub(super) fn clients_are_cut_off_with_their_node() {
    let lab = Lab::new();
    let up = lab.up("--nodes 3");
    let mut client = client_of(&up, "n1");
    let ping = [0, 0, 0, 8, 0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 11];
    lab.json("partition isolate n1 --clients include");
    client.write_all(&ping).unwrap();
    assert!(is_silent(&mut client));
    lab.json("heal");
    // What was sent is not lost.
    client.read_exact(&mut [0; 20]).unwrap();
    lab.json("partition isolate n1 --clients include --style reset");
    let broken = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    lab.json("heal --wait");
    let cut = lab.json("partition isolate n1 --clients exclude --style jam");
    assert_eq!(cut["links"].as_array().unwrap().len(), 4);
    let shown = lines(&lab.run("--json link show n1"));
    assert!(
        shown
            .iter()
            .all(|link| link["jam_servers"] == true && link["jam"] == false)
    );
    lab.json("heal");
    lab.refused(
        "partition ring --clients include",
        "needs nodes that are cut off",
    );
    lab.refused(
        "partition isolate n1 --clients exclude --style slow",
        "does not go with --style slow",
    );
    lab.refused(
        "partition isolate n1 --period 1s",
        "only a flap has a period",
    );
}

pub(super) fn a_flap_comes_and_goes() {
    let lab = Lab::new();
    lab.up("--nodes 3 --seed 8f21c0");
    let flap = lab.json("partition flap n1:n2 --period 20ms");
    assert_eq!(flap["links"], serde_json::json!(["n1>n2", "n2>n1"]));
    let deadline = Instant::now() + PATIENCE;
    while lines(&lab.run("--json events --kind fault.flip")).len() < 4 {
        assert!(Instant::now() < deadline, "it does not come and go");
    }
    let flips = lines(&lab.run("--json events --kind fault.flip"));
    let on: Vec<bool> = flips.iter().map(|flip| flip["on"] == true).collect();
    assert_eq!(on[..4], [false, true, false, true]);
    lab.json("heal f1");
    let shown = lines(&lab.run("--json link show"));
    assert!(shown.iter().all(|link| link["cut"] == false));
    assert_eq!(lab.run("heal f1").status.code(), Some(2));
}

pub(super) fn profiles_and_traces_are_followed() {
    let lab = Lab::new();
    lab.up("--nodes 3 --profile lan");
    let delay_us = |link: &str| {
        let shown = lines(&lab.run(&format!("--json link show {link}")));
        shown[0]["delay_us"].as_u64().unwrap()
    };
    assert_eq!(delay_us("n2>n3"), 100, "that is how its links are");
    lab.json("link set all --profile wan3 --loss 0%");
    assert_eq!(delay_us("n2>n3"), 40_000);
    assert_eq!(delay_us("n1>n2"), 10_000);
    lab.json("heal");
    assert_eq!(delay_us("n2>n3"), 100, "it is no fault");
    let trace = lab.dir.path().join("trace");
    std::fs::write(&trace, "0 10mbit 3ms\n20 2mbit 7ms\n40 again\n").unwrap();
    let words = format!("link set n1>n2 --trace {}", trace.display());
    lab.json(&words);
    let deadline = Instant::now() + PATIENCE;
    for wanted in [7000, 3000, 7000] {
        while delay_us("n1>n2") != wanted {
            assert!(Instant::now() < deadline, "never {wanted} µs");
        }
    }
    lab.json("heal");
    assert_eq!(delay_us("n1>n2"), 100);
    std::fs::write(&trace, "0 10mbit\n9 fast\n").unwrap();
    lab.refused(&words, "trace:2: \"fast\" is not a rate");
    std::fs::write(&trace, "sites = 2\nbetwen = { delay = \"1ms\" }\n").unwrap();
    let words = format!("link set all --profile {}", trace.display());
    lab.refused(&words, "trace:2: unknown field `betwen`");
    lab.refused("link set all --profile wan4", "did you mean wan3?");
    lab.refused(
        "up other --profile lan",
        "no links that a profile could be for",
    );
    assert_eq!(lab.json("status")["faults"], serde_json::json!([]));
}
