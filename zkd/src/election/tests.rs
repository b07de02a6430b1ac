//! Tests of the election: transcripts, golden bytes, and a random room.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::room::{Room, Weather};
use super::*;
use crate::prng::Prng;

fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(path)
}

// ---- transcripts ----

fn number<T: std::str::FromStr>(word: Option<&str>, what: &str) -> T {
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("expected {what}, got {word:?}"))
}

fn hex(word: &str) -> i64 {
    if word == "-1" {
        return -1;
    }
    i64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a hexadecimal number")
}

/// Carries out one command of a transcript.
fn command(room: &mut Option<Room>, line: &str) {
    let mut words = line.split_whitespace();
    let verb = words.next().expect("a command");
    if verb == "voters" {
        let verifier = QuorumVerifier::majority(words.map(|w| ServerId(number(Some(w), "an id"))));
        *room = Some(Room::new(verifier, 1));
        return;
    }
    if verb == "groups" {
        // groups 1=1:2 2=3 weights 1=2 2=1 3=0
        let (groups, weights) = line["groups".len()..]
            .split_once("weights")
            .expect("weights");
        let groups: BTreeMap<i64, BTreeSet<ServerId>> = groups
            .split_whitespace()
            .map(|word| {
                let (group, sids) = word.split_once('=').expect("group=ids");
                let sids = sids.split(':').map(|s| ServerId(s.parse().unwrap()));
                (group.parse().unwrap(), sids.collect())
            })
            .collect();
        let weights = weights
            .split_whitespace()
            .map(|word| {
                let (sid, weight) = word.split_once('=').expect("id=weight");
                (ServerId(sid.parse().unwrap()), weight.parse().unwrap())
            })
            .collect();
        let voters: Vec<ServerId> = groups.values().flatten().copied().collect();
        let verifier = QuorumVerifier::hierarchical(voters, [], &groups, &weights).unwrap();
        *room = Some(Room::new(verifier, 1));
        return;
    }
    let room = room.as_mut().expect("the first command names the voters");
    let mut sid = || ServerId(number(words.next(), "a server"));
    match verb {
        "start" => {
            let sid = sid();
            let zxid = words.next().map_or(0, hex);
            let epoch = words.next().map_or(0, hex);
            room.start(sid, Zxid(zxid), Epoch(epoch));
        }
        "kill" => room.kill(sid()),
        "pause" => room.pause(sid()),
        "resume" => room.resume(sid()),
        "cut" => room.cut(sid(), sid()),
        "heal" => room.heal(sid(), sid()),
        "zxid" => {
            let sid = sid();
            let zxid = Zxid(hex(words.next().expect("a zxid")));
            room.servers.get_mut(&sid).expect("a known server").zxid = zxid;
        }
        "messages" => room.log_messages = words.next() == Some("on"),
        "run" => room.run(number(words.next(), "milliseconds")),
        "forge" => {
            let (from, to) = (sid(), sid());
            let digits: String = words.collect();
            let bytes = (0..digits.len() / 2)
                .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hex"))
                .collect();
            room.forge(from, to, bytes);
        }
        "show" => {
            for (sid, server) in &room.servers {
                let state = match server.role {
                    _ if !server.alive => "dead".into(),
                    None => "LOOKING".into(),
                    Some((state, leader)) if server.joined => {
                        format!("{state:?} {leader}, epoch {}", server.epoch)
                    }
                    Some((state, leader)) => format!("{state:?} {leader}, not joined"),
                };
                room.log.push(format!("{sid}: {state}"));
            }
        }
        _ => panic!("unknown command {line:?}"),
    }
}

/// Renews what follows each command of a transcript.
fn replay(text: &str) -> String {
    let mut room = None;
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("  ") {
            continue;
        }
        writeln!(out, "{line}").unwrap();
        if let Some(line) = line.strip_prefix("> ") {
            command(&mut room, line);
            for line in room
                .as_mut()
                .map(|room| std::mem::take(&mut room.log))
                .unwrap_or_default()
            {
                writeln!(out, "  {line}").unwrap();
            }
        }
    }
    out
}

/// `ZKD_REWRITE=1` renews the files; read the diff.
#[test]
fn transcripts_of_elections_are_as_written() {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(testdata("election"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no transcripts");
    for path in paths {
        let expected = std::fs::read_to_string(&path).unwrap();
        let got = replay(&expected);
        if std::env::var_os("ZKD_REWRITE").is_some() {
            std::fs::write(&path, got).unwrap();
        } else {
            let first = expected
                .lines()
                .zip(got.lines())
                .position(|(a, b)| a != b)
                .unwrap_or_else(|| expected.lines().count().min(got.lines().count()));
            assert_eq!(
                expected,
                got,
                "{} differs at line {}",
                path.display(),
                first + 1
            );
        }
    }
}

// ---- a random room ----

fn ensemble(prng: &mut Prng, seed: u64) -> (Room, Vec<ServerId>) {
    let voters: Vec<ServerId> = (1..=prng.between(1, 7) as i64).map(ServerId).collect();
    let observers = (101..101 + prng.below(3) as i64).map(ServerId);
    let room = Room::new(QuorumVerifier::majority(voters.iter().copied()), seed);
    (room, voters.into_iter().chain(observers).collect())
}

fn start_somehow(room: &mut Room, prng: &mut Prng, sid: ServerId) {
    let epoch = Epoch(prng.below(3) as i64);
    let (zxid, epoch) = match room.servers.get(&sid) {
        Some(server) => (server.zxid, server.epoch),
        None => (Zxid::new(epoch, prng.below(4) as u32), epoch),
    };
    room.start(sid, zxid, epoch);
}

/// Whatever happened before: once the network is fair and all servers run, they agree on one leader
/// in bounded time and with a bounded number of messages.
#[test]
fn every_room_agrees_in_the_end() {
    for seed in 0..400 {
        let mut prng = Prng::new(seed);
        let (mut room, all) = ensemble(&mut prng, seed);
        room.weather = Weather {
            delay_max_ms: prng.between(1, 60),
            loss_one_in: *prng.pick(&[0, 3, 10]),
            double_one_in: *prng.pick(&[0, 2, 10]),
            overtakes: prng.one_in(2),
        };
        for _ in 0..prng.between(5, 60) {
            let sid = *prng.pick(&all);
            let other = *prng.pick(&all);
            let known = room.servers.contains_key(&sid);
            let alive = room.servers.get(&sid).is_some_and(|server| server.alive);
            match prng.below(10) {
                0..4 if !alive => start_somehow(&mut room, &mut prng, sid),
                4 if alive => room.kill(sid),
                5 if alive => room.pause(sid),
                6 if known => room.resume(sid),
                7 if sid != other => room.cut(sid, other),
                8 if sid != other => room.heal(sid, other),
                _ => {}
            }
            let ms = *prng.pick(&[0, 1, 5, 50, 500]);
            room.run(ms);
        }
        room.weather.loss_one_in = 0;
        room.weather.overtakes = false;
        for &sid in &all {
            for &other in &all {
                room.heal(sid, other);
            }
        }
        for &sid in &all {
            if room.servers.get(&sid).is_some_and(|server| server.alive) {
                room.resume(sid);
            } else {
                start_somehow(&mut room, &mut prng, sid);
            }
        }
        let (messages, elections) = (room.messages, total_elections(&room));
        room.run(60_000);
        assert!(
            room.agreed().is_some(),
            "seed {seed}: no agreement:\n{}",
            room.log.join("\n")
        );
        let (messages, elections) = (room.messages - messages, total_elections(&room) - elections);
        assert!(
            messages < 5_000 && elections < 200,
            "seed {seed}: {messages} messages, {elections} elections"
        );
    }
}

fn total_elections(room: &Room) -> u64 {
    room.servers.values().map(|server| server.elections).sum()
}

/// In fair weather neither a start of all servers within a few milliseconds nor the death of the
/// leader sits out the 200 ms, whatever the order in which it is noticed.
#[test]
fn starts_and_deaths_sit_out_no_wait() {
    let mut slow = Vec::new();
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let voters: Vec<ServerId> = (1..=*prng.pick(&[3, 5, 7])).map(ServerId).collect();
        let mut room = Room::new(QuorumVerifier::majority(voters.iter().copied()), seed);
        room.weather.delay_max_ms = prng.between(1, 4);
        let mut order = voters.clone();
        while !order.is_empty() {
            let next = order.remove(prng.below(order.len() as u64) as usize);
            room.start(next, Zxid::ZERO, Epoch(0));
            let pause = prng.below(4);
            room.run(pause);
        }
        for round in 0..4 {
            room.run(60);
            if room.agreed().is_none() {
                slow.push((seed, round));
                room.run(5_000);
            }
            let leader = room.agreed().expect("an agreement in the end");
            room.kill(leader);
            room.run(60);
            if room.agreed().is_none() {
                slow.push((seed, round));
                room.run(5_000);
            }
            room.start(leader, Zxid::ZERO, Epoch(0));
        }
    }
    assert!(
        slow.is_empty(),
        "{} of 2400 were slow: {slow:?}",
        slow.len()
    );
}
