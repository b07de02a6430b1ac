//! What a user sees: messages at the right level, nothing for a connection that behaves, JSON that parses;
//! and standard streams, feeds and readers that go away.

use zkd::event::PeerEvent;

use crate::harness::{Ensemble, Node};

#[test]
fn a_quiet_life_makes_few_lines_and_no_warning_but_the_one_about_purging() {
    let mut node = Node::standalone("autopurge.purgeInterval=24");
    node.start();
    for n in 0..20 {
        let mut client = node.connect();
        assert_eq!(client.create(&format!("/n{n}"), b"").err, 0);
    }
    assert_eq!(node.word("ruok"), "imok");
    assert_eq!(node.stop(), Some(0));
    let log = node.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(
        log.lines().count() < 12,
        "nothing is logged for a connection that behaves:\n{log}"
    );
    let mut lines: Vec<&str> = log
        .lines()
        .filter_map(|line| line.split_once("zkd").map(|(_, rest)| rest))
        .collect();
    let all = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), all, "no line comes twice:\n{log}");
    assert!(
        !log.contains('{') && !log.contains("event="),
        "plain messages, no debug forms:\n{log}"
    );
}

#[test]
fn an_ensemble_tells_its_election_plainly() {
    let ensemble = Ensemble::start(3, "autopurge.purgeInterval=24");
    for node in &ensemble.nodes {
        let log = node.log();
        assert!(!log.contains('{') && !log.contains("event="), "{log}");
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[test]
fn json_lines() {
    let mut node = Node::standalone("bogus.key=1");
    node.args = ["--log-format", "json", "--log", "debug"]
        .map(str::to_owned)
        .into();
    node.start();
    let mut client = node.connect();
    assert_eq!(client.create("/a", b"").err, 0);
    assert_eq!(node.stop(), Some(0));
    let log = node.log();
    assert!(log.lines().count() > 4, "{log}");
    for line in log.lines() {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for key in ["timestamp", "level", "message"] {
            assert!(
                value.get(key).is_some_and(serde_json::Value::is_string),
                "{key}: {line}"
            );
        }
    }
}

/// A failure is a JSON line too.
#[test]
fn json_errors() {
    let mut node = Node::standalone("");
    node.args = ["--log-format", "json"].map(str::to_owned).into();
    let _taken = std::net::TcpListener::bind(node.address.client()).unwrap();
    let (code, log) = node.run_to_end();
    assert_eq!(code, Some(14));
    for line in log.lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "{line}"
        );
    }
    assert!(log.contains("client port"), "{log}");
}

#[test]
fn standard_streams_that_are_closed() {
    for redirections in ["<&- >&- 2>&-", "2>/dev/full", "2>/dev/null"] {
        let mut node = Node::standalone("");
        node.spawn_redirected(redirections);
        node.await_serving();
        assert_eq!(node.connect().create("/a", b"").err, 0);
        node.signal(nix::sys::signal::Signal::SIGTERM);
        let code = node.await_event(|event| match event {
            PeerEvent::Stopping { code, .. } => Some(*code),
            _ => None,
        });
        assert_eq!(code, 0, "{redirections}");
    }
}

/// The reader of the feed ends (a lab that was killed): one warning, and the server serves on.
#[test]
fn a_feed_whose_reader_goes_away() {
    let mut ensemble = Ensemble::start(3, "");
    let leader = ensemble.leader();
    let survivor = (leader + 1) % 3;
    let other = (leader + 2) % 3;
    ensemble.nodes[survivor].abandon_feed();
    ensemble.nodes[leader].kill();
    ensemble.nodes[other].await_serving();
    ensemble.nodes[survivor].await_log("the event feed can no longer be written to");
    assert_eq!(ensemble.nodes[other].connect().create("/a", b"").err, 0);
    assert_eq!(ensemble.nodes[survivor].stop(), Some(0));
    assert_eq!(
        ensemble.nodes[survivor].log().matches("event feed").count(),
        1
    );
}
