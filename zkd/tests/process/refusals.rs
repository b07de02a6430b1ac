//! What zkd does not start with: a message that says why, and the documented exit code.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{CLIENT_PORT, ELECTION_PORT, Ensemble, Node, QUORUM_PORT};

#[test]
fn a_client_port_in_use() {
    let mut node = Node::standalone("");
    let _taken = TcpListener::bind(node.address.client()).unwrap();
    let (code, log) = node.run_to_end();
    assert_eq!(code, Some(14), "{log}");
    assert!(
        log.contains(&format!("client port {}", node.address.client())),
        "{log}"
    );
}

#[test]
fn a_quorum_or_election_port_in_use() {
    for port in [QUORUM_PORT, ELECTION_PORT] {
        let mut ensemble = Ensemble::new(3, "electionPortBindRetry=1");
        let node = &mut ensemble.nodes[0];
        let _taken = TcpListener::bind((node.address.host.as_str(), port)).unwrap();
        let (code, log) = node.run_to_end();
        assert_eq!(code, Some(14), "{log}");
        let what = if port == QUORUM_PORT {
            "quorum"
        } else {
            "election"
        };
        let told = format!("the {what} port {}:{port} ", node.address.host);
        assert!(log.contains(&told), "{log}");
    }
}

/// An address that is not of this machine.
#[test]
fn an_address_that_cannot_be_bound() {
    let mut node = Node::standalone("");
    node.configure(&format!(
        "clientPort={CLIENT_PORT}\nclientPortAddress=192.0.2.1"
    ));
    let (code, log) = node.run_to_end();
    assert_eq!(code, Some(14), "{log}");
    assert!(log.contains("192.0.2.1:2181"), "{log}");
}

#[test]
fn a_data_directory_that_is_none() {
    let mut node = Node::standalone("");
    fs::remove_dir(node.data()).unwrap();
    fs::write(node.data(), "a file").unwrap();
    let (code, log) = node.run_to_end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains(&node.data().display().to_string()), "{log}");
}

#[test]
fn a_data_directory_without_rights() {
    let mut node = Node::standalone("");
    fs::set_permissions(node.data(), fs::Permissions::from_mode(0o500)).unwrap();
    let allowed_anyway = fs::write(node.data().join("probe"), "").is_ok();
    let (code, log) = if allowed_anyway {
        // Root may do everything: a directory below one that is a device takes nobody's files.
        fs::set_permissions(node.data(), fs::Permissions::from_mode(0o700)).unwrap();
        node.configure("dataLogDir=/dev/null/log\nclientPort=0");
        node.run_to_end()
    } else {
        node.run_to_end()
    };
    fs::set_permissions(node.data(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(code, Some(3), "{log}");
}

#[test]
fn a_data_directory_of_a_running_server() {
    let mut first = Node::standalone("");
    first.start();
    let mut second = Node::standalone("");
    let host = &second.address.host;
    let data = first.data().display().to_string();
    second.configure(&format!(
        "clientPort={CLIENT_PORT}\nclientPortAddress={host}\ndataLogDir={data}"
    ));
    let text = fs::read_to_string(second.config_file()).unwrap();
    let text = text.replace(&second.data().display().to_string(), &data);
    fs::write(second.config_file(), text).unwrap();
    let (code, log) = second.run_to_end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains(&data) && log.contains("another"), "{log}");
    assert_eq!(first.connect().create("/still", b"").err, 0);
}

#[test]
fn a_missing_or_wrong_myid() {
    let mut ensemble = Ensemble::new(3, "");
    let node = &mut ensemble.nodes[0];
    for (myid, reason) in [
        (None, "missing"),
        (Some("7"), "id 7 is not in the list"),
        (Some("one"), "one"),
        (Some(""), "myid"),
    ] {
        let file = node.data().join("myid");
        match myid {
            None => fs::remove_file(&file).unwrap(),
            Some(text) => fs::write(&file, text).unwrap(),
        }
        let (code, log) = node.run_to_end();
        assert_eq!(code, Some(2), "{log}");
        assert!(
            log.contains("myid") && log.contains(reason),
            "{myid:?}: {log}"
        );
    }
}

#[test]
fn a_bad_value_names_file_line_key_and_what_was_expected() {
    let mut node = Node::standalone("snapCount=many\nminSessionTimeout=9\nmaxSessionTimeout=8");
    let (code, log) = node.run_to_end();
    assert_eq!(code, Some(2), "{log}");
    let file = node.config_file().display().to_string();
    assert!(
        log.contains(&format!("error: {file}:6: snapCount=many: expected")),
        "{log}"
    );
    assert!(log.contains("SessionTimeout"), "{log}");
}

#[test]
fn an_event_feed_that_cannot_be_opened() {
    let mut node = Node::standalone("");
    node.args = vec!["--log".to_owned(), "warn".to_owned()];
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_zkd"))
        .arg("serve")
        .arg(node.config_file())
        .args(["--events", "/nowhere/feed"])
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2));
    let text = String::from_utf8(out.stderr).unwrap();
    assert!(
        text.contains("--events") && text.contains("/nowhere/feed"),
        "{text}"
    );
}
