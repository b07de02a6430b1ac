//! Every four-letter word of every kind of server against a transcript in `testdata/four_letter`.
//!
//! `ZKD_REWRITE=1 cargo test -p zkd --test four_letter` renews the transcripts: read the diff. The shapes were
//! laid beside the answers of Apache 3.8.0 and 3.9.3; only names and numbers differ.

use std::fs;
use std::path::Path;

use zkd::config::{Config, FourLetterWord, Whitelist};
use zkd::event::SyncMode;
use zkd::ids::{Epoch, ServerId, SessionId, Xid, Zxid};
use zkd::metrics::Metrics;
use zkd::record::opcode::OpCode;
use zkd::status::{
    ConnectionStatus, Effect, LatencyStatus, LeaderStatus, Mode, Needs, PeerStatus, Serving,
    SessionConnection, SessionStatus, Status, WatchStatus, ZabPhase, answer,
};

const NOON_MS: i64 = 1_795_348_800_000;

fn config(text: &str) -> Config {
    let all = format!("4lw.commands.whitelist=*\ndataDir=/var/lib/zkd\nclientPort=2181\n{text}");
    Config::parse(&all, "zoo.cfg").unwrap().0
}

fn ensemble() -> Config {
    let text = "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataLogDir=/var/log/zkd\n\
                server.1=10.0.0.1:2888:3888\nserver.2=10.0.0.2:2888:3888\n\
                server.3=10.0.0.3:2888:3888\nserver.4=10.0.0.4:2888:3888:observer";
    config(text).with_my_id("3\n", "myid").unwrap().0
}

fn connections() -> Vec<ConnectionStatus> {
    let latency = LatencyStatus {
        min_ms: 0,
        avg_ms: 1.75,
        max_ms: 20,
    };
    let with = |peer: &str, session| ConnectionStatus {
        peer: peer.parse().unwrap(),
        reading: true,
        writing: false,
        queued: 0,
        received: 17,
        sent: 18,
        expires_wall_ms: NOON_MS + 10_000,
        session,
    };
    let session = SessionConnection {
        id: SessionId(0x0300_0027_ec62_0000),
        last_op: Some(OpCode::GetData),
        established_wall_ms: NOON_MS - 60_000,
        timeout_ms: 10_000,
        last_cxid: Xid(0x21),
        last_zxid: Zxid::new(Epoch(2), 0x40),
        last_response_ms: 2_624_649,
        last_latency_ms: 5,
        latency,
    };
    let fresh = SessionConnection {
        id: SessionId(0x0300_0027_ec62_0001),
        last_op: None,
        last_cxid: Xid(-1),
        ..session.clone()
    };
    vec![
        with("127.0.0.1:40676", Some(session)),
        with("[::1]:40677", Some(fresh)),
        ConnectionStatus {
            received: 1,
            sent: 0,
            reading: false,
            writing: true,
            ..with("127.0.0.1:40714", None)
        },
    ]
}

fn serving(mode: Mode) -> Serving {
    let phase = ZabPhase::Broadcast;
    let peer = PeerStatus {
        phase,
        sync: None,
        quorum_size: 3,
        observer_master: None,
    };
    Serving {
        mode,
        zxid: Zxid::new(Epoch(2), 0x40),
        tree_digest: 0x51c6_d660,
        node_count: 6,
        approximate_data_size: 182,
        ephemerals_count: 1,
        global_sessions: 2,
        local_sessions: 0,
        watches: WatchStatus {
            connections: 2,
            paths: 1,
            watches: 2,
        },
        latency: LatencyStatus {
            min_ms: 0,
            avg_ms: 0.000_5,
            max_ms: 20,
        },
        packets_received: 35,
        packets_sent: 36,
        outstanding_requests: 0,
        connection_count: 3,
        uptime_ms: 8336,
        peer: Some(peer),
        leader: None,
    }
}

fn status(serving: Serving) -> Status {
    let expires = serving.mode == Mode::Leader || serving.mode == Mode::Standalone;
    let session = |id, ms| SessionStatus {
        id: SessionId(id),
        timeout_ms: 10_000,
        expires_wall_ms: expires.then_some(NOON_MS + ms),
    };
    Status {
        serving: Some(serving),
        connections: connections(),
        sessions: vec![
            session(0x0300_0027_ec62_0000, 10_000),
            session(0x0300_0027_ec62_0001, 8_000),
        ],
        ephemerals: vec![(
            SessionId(0x0300_0027_ec62_0000),
            vec!["/a".into(), "/e".into()],
        )],
        watched: vec![(
            "/e".into(),
            vec![
                SessionId(0x0300_0027_ec62_0000),
                SessionId(0x0300_0027_ec62_0001),
            ],
        )],
        digests: vec![
            (Zxid::new(Epoch(2), 0x3f), -7),
            (Zxid::new(Epoch(2), 0x40), 1_371_985_504),
        ],
        data_dir_bytes: 67_109_474,
        data_log_dir_bytes: 67_109_475,
        open_files: Some(23),
        open_files_max: Some(20_000),
        environment: vec![
            ("host.name".into(), "n3".into()),
            ("os.name".into(), "Linux".into()),
        ],
    }
}

fn metrics() -> Metrics {
    let metrics = Metrics::default();
    metrics.proposal_count.add(64);
    metrics.fsynctime.record_us(135);
    metrics.fsynctime.record_us(2228);
    metrics.election_time.record_us(31_400);
    metrics.sync_processor_batch_size.record(3);
    metrics
}

/// Every server there is a transcript of, by name.
fn servers() -> Vec<(&'static str, Config, Status)> {
    let mut leader = serving(Mode::Leader);
    leader.leader = Some(LeaderStatus {
        learners: 3,
        synced_followers: 2,
        synced_observers: 1,
        uptime_ms: 8325,
        proposal_sizes: Some([87, 48, 90]),
        ..LeaderStatus::default()
    });
    let mut observer = serving(Mode::Observer);
    if let Some(peer) = &mut observer.peer {
        peer.phase = ZabPhase::Synchronization;
        peer.sync = Some(SyncMode::Snap);
        peer.observer_master = Some(ServerId(2));
    }
    let mut standalone = serving(Mode::Standalone);
    standalone.peer = None;
    let mut refusing = ensemble();
    refusing.four_letter_whitelist = Whitelist::parse("srvr").0;
    vec![
        ("leader", ensemble(), status(leader)),
        ("follower", ensemble(), status(serving(Mode::Follower))),
        ("observer", ensemble(), status(observer)),
        ("standalone", config("tickTime=2000"), status(standalone)),
        ("read_only", ensemble(), status(serving(Mode::ReadOnly))),
        ("looking", ensemble(), Status::default()),
        ("refusing", refusing, status(serving(Mode::Follower))),
    ]
}

#[test]
fn every_answer_is_as_in_its_transcript() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/four_letter");
    for (name, config, status) in servers() {
        let mut transcript = String::new();
        for word in FourLetterWord::ALL {
            let (text, effect) = answer(*word, &status, &config, &metrics());
            transcript += &format!("---- {word}\n{text}");
            if !text.ends_with('\n') {
                transcript += "\\ no newline at the end\n";
            }
            if effect != Effect::None {
                transcript += &format!("---- then {effect:?}\n");
            }
        }
        let file = dir.join(format!("{name}.txt"));
        if std::env::var_os("ZKD_REWRITE").is_some() {
            fs::write(&file, &transcript).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            transcript == expected,
            "the answers of a server that is {name} are not those in {}:\n{transcript}\n\
             If they are meant: ZKD_REWRITE=1 cargo test -p zkd --test four_letter",
            file.display()
        );
    }
}

/// What old Telegraf and the OpenTelemetry receiver take: `zk_word`, one blank or tab, `[word . -]+`.
#[test]
fn strict_scrapers_take_every_line_of_mntr() {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for (name, config, status) in servers() {
        let (text, _) = answer(FourLetterWord::Mntr, &status, &config, &metrics());
        let Some(("zk_version", _)) = text.lines().next().and_then(|line| line.split_once('\t'))
        else {
            assert!(
                status.serving.is_none() || name == "refusing",
                "{name}: {text}"
            );
            continue;
        };
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines().skip(1) {
            let (key, value) = line.split_once('\t').expect("a tab in every line");
            assert!(key.starts_with("zk_") && key.chars().all(word), "{line}");
            assert!(seen.insert(key), "{key} is told twice");
            let state = key == "zk_peer_state";
            let plain = |c: char| word(c) || c == '.' || c == '-' || (state && c == ' ');
            assert!(!value.is_empty() && value.chars().all(plain), "{line}");
        }
    }
}

/// kazoo reads `[\d.]*` of `zookeeper.version`, the Go client this whole line.
#[test]
fn clients_take_the_version() {
    let (_, config, status) = servers().swap_remove(0);
    let (text, _) = answer(FourLetterWord::Srvr, &status, &config, &metrics());
    let line = text.lines().next().unwrap();
    let (version, built) = line
        .strip_prefix("Zookeeper version: ")
        .and_then(|rest| rest.split_once(", built on "))
        .expect("a version line");
    let numbers = version.split_once('-').map(|(numbers, _)| numbers).unwrap();
    assert_eq!(
        numbers
            .split('.')
            .filter_map(|n| n.parse::<u32>().ok())
            .count(),
        3
    );
    let shape: String = built
        .chars()
        .map(|c| if c.is_ascii_digit() { 'd' } else { c })
        .collect();
    assert_eq!(shape, "dd/dd/dddd dd:dd UTC");
}

#[test]
fn cheap_words_need_nothing() {
    for word in [
        FourLetterWord::Ruok,
        FourLetterWord::Srvr,
        FourLetterWord::Isro,
    ] {
        assert_eq!(Needs::of(word), Needs::default());
    }
    assert!(Needs::of(FourLetterWord::Stat).connections);
}
