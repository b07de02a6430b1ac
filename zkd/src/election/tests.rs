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

/// Reads `1=1:2 2=3 weights 1=2 2=1 3=0`: the members of each group, the weight of each server.
fn hierarchy(text: &str) -> QuorumVerifier {
    let (groups, weights) = text.split_once("weights").expect("weights");
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
    QuorumVerifier::hierarchical(voters, [], &groups, &weights).unwrap()
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
        let verifier = hierarchy(&line["groups".len()..]);
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

// ---- one machine, by hand ----

const T0: Instant = Instant(1_000);

fn machine(my_id: i64, voters: i64) -> Election {
    let verifier = QuorumVerifier::majority((1..=voters).map(ServerId));
    let config = ElectionConfig::new(ServerId(my_id), verifier, "version=0".into());
    let mut election = Election::new(config);
    election.look(T0, Zxid::ZERO, Epoch(0));
    let _ = election.ready();
    election
}

fn vote(leader: i64, round: i64, epoch: i64) -> Vote {
    Vote {
        leader: ServerId(leader),
        zxid: Zxid::ZERO,
        election_epoch: round,
        peer_epoch: Epoch(epoch),
    }
}

fn hear(
    election: &mut Election,
    now: Instant,
    from: i64,
    state: ServerState,
    vote: Vote,
) -> ElectionReady {
    let notification = Notification::new(state, vote, "version=0".into());
    let from = ServerId(from);
    election.step(now, Input::Notification { from, notification });
    election.ready()
}

fn unreachable(election: &mut Election, sid: i64) -> ElectionReady {
    election.step(T0, Input::Unreachable(ServerId(sid)));
    election.ready()
}

use ServerState::{Following, Leading, Looking, Observing};

#[test]
fn a_reign_is_joined_only_when_its_leader_says_that_it_leads() {
    let mut election = machine(1, 3);
    let reign = vote(3, 7, 2);
    assert_eq!(hear(&mut election, T0, 2, Following, reign).decided, None);
    let ready = hear(&mut election, T0, 3, Leading, reign);
    assert_eq!(ready.decided, Some((Following, reign)));
    assert_eq!(
        election.round(),
        7,
        "the round of the reign becomes this server's"
    );
    // One follower more would make a quorum, but no leader.
    let mut election = machine(1, 5);
    for from in 2..=4 {
        assert_eq!(
            hear(&mut election, T0, from, Following, vote(5, 7, 2)).decided,
            None
        );
    }
    assert_eq!(hear(&mut election, T0, 4, Observing, reign).decided, None);
}

#[test]
fn votes_out_of_the_election_must_agree_on_the_epoch_too() {
    let mut election = machine(1, 3);
    let _ = hear(&mut election, T0, 2, Following, vote(3, 7, 2));
    // The leader is in a later reign already: 2's word is for the one before.
    assert_eq!(
        hear(&mut election, T0, 3, Leading, vote(3, 7, 3)).decided,
        None
    );
    assert!(
        hear(&mut election, T0, 2, Following, vote(3, 8, 3))
            .decided
            .is_some()
    );
    // In the same round only the leader counts.
    let mut election = machine(1, 3);
    let _ = hear(&mut election, T0, 2, Following, vote(3, 1, 2));
    assert!(
        hear(&mut election, T0, 3, Leading, vote(3, 1, 3))
            .decided
            .is_some()
    );
}

#[test]
fn who_is_told_to_lead_believes_it_only_in_its_own_round() {
    let mut election = machine(3, 3);
    for from in [1, 2] {
        assert_eq!(
            hear(&mut election, T0, from, Following, vote(3, 7, 2)).decided,
            None
        );
    }
    let mut election = machine(3, 3);
    let ready = hear(&mut election, T0, 1, Following, vote(3, 1, 0));
    assert_eq!(ready.decided, Some((Leading, vote(3, 1, 0))));
}

#[test]
fn a_claim_is_void_once_its_sender_looks_or_dies() {
    for dies in [false, true] {
        let mut election = machine(1, 5);
        let reign = vote(3, 7, 2);
        let _ = hear(&mut election, T0, 3, Leading, reign);
        let _ = hear(&mut election, T0, 2, Following, reign);
        if dies {
            let _ = unreachable(&mut election, 3);
        } else {
            let _ = hear(&mut election, T0, 3, Looking, vote(3, 1, 0));
        }
        for from in [4, 5] {
            assert_eq!(
                hear(&mut election, T0, from, Following, reign).decided,
                None,
                "dies: {dies}"
            );
        }
        // It leads all the same, or again.
        assert!(hear(&mut election, T0, 3, Leading, reign).decided.is_some());
    }
}

#[test]
fn a_silent_voter_is_waited_for_but_not_longer_than_the_wait() {
    let mut election = machine(1, 3);
    let ready = hear(&mut election, T0, 2, Looking, vote(2, 1, 0));
    assert_eq!(
        ready.decided, None,
        "3 was not dialled yet: it may be there"
    );
    election.step(T0 + 10, Input::Reachable(ServerId(3)));
    assert_eq!(
        election.ready().decided,
        None,
        "3 is there and has not voted"
    );
    // Repeated votes do not prolong the wait.
    assert_eq!(
        hear(&mut election, T0 + 150, 2, Looking, vote(2, 1, 0)).decided,
        None
    );
    election.step(T0 + 199, Input::Timeout);
    assert_eq!(election.ready().decided, None);
    election.step(T0 + 200, Input::Timeout);
    assert_eq!(election.ready().decided, Some((Following, vote(2, 1, 0))));
}

#[test]
fn the_wait_ends_when_the_last_one_waited_for_cannot_be_reached() {
    let mut election = machine(1, 3);
    let _ = hear(&mut election, T0, 2, Looking, vote(2, 1, 0));
    let ready = unreachable(&mut election, 3);
    assert_eq!(ready.decided, Some((Following, vote(2, 1, 0))));
    // The winner itself is no such one: that election would only be repeated at once.
    let mut election = machine(1, 3);
    let _ = hear(&mut election, T0, 2, Looking, vote(3, 1, 0));
    assert_eq!(unreachable(&mut election, 3).decided, None);
}

#[test]
fn a_better_vote_during_the_wait_begins_it_anew() {
    let mut election = machine(1, 5);
    for from in [2, 3] {
        let _ = hear(&mut election, T0, from, Looking, vote(3, 1, 0));
    }
    assert_eq!(election.poll_timeout(), Some(T0 + 200));
    let ready = hear(&mut election, T0 + 50, 4, Looking, vote(4, 1, 0));
    assert!(ready.send.iter().all(|(_, n)| n.vote == vote(4, 1, 0)));
    election.step(T0 + 200, Input::Timeout);
    assert_eq!(election.ready().decided, None, "only two votes for 4");
    let _ = hear(&mut election, T0 + 210, 3, Looking, vote(4, 1, 0));
    election.step(T0 + 409, Input::Timeout);
    assert_eq!(election.ready().decided, None);
    election.step(T0 + 410, Input::Timeout);
    assert_eq!(election.ready().decided, Some((Following, vote(4, 1, 0))));
}

#[test]
fn earlier_rounds_are_answered_and_later_ones_joined() {
    let mut election = machine(2, 3);
    let ready = hear(&mut election, T0, 1, Looking, vote(1, 9, 0));
    assert_eq!(election.round(), 9);
    assert!(
        ready.send.iter().all(|(_, n)| n.vote == vote(2, 9, 0)),
        "its own vote is better"
    );
    let ready = hear(&mut election, T0, 3, Looking, vote(3, 8, 0));
    let told: Vec<_> = ready.send.iter().map(|(to, n)| (*to, n.vote)).collect();
    assert_eq!(
        told,
        [(ServerId(3), vote(2, 9, 0))],
        "a vote of an earlier round does not count"
    );
}

#[test]
fn in_a_role_those_who_look_are_told_the_reign() {
    let mut election = machine(2, 3);
    let _ = unreachable(&mut election, 3);
    assert!(
        hear(&mut election, T0, 1, Looking, vote(2, 1, 0))
            .decided
            .is_some()
    );
    election.set_peer_epoch(Epoch(4));
    let ready = hear(&mut election, T0, 3, Looking, vote(3, 1, 0));
    let expected = Notification::new(Leading, vote(2, 1, 4), "version=0".into());
    assert_eq!(ready.send, [(ServerId(3), expected)]);
    assert_eq!(ready.observed.len(), 1);
    let ready = hear(&mut election, T0, 1, Following, vote(2, 1, 0));
    assert_eq!(
        (ready.send.len(), ready.observed.len()),
        (0, 1),
        "it does not ask"
    );
}

#[test]
fn notifications_are_repeated_ever_more_rarely() {
    let mut election = machine(1, 3);
    let mut at = T0;
    for wait_ms in [
        200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000,
    ] {
        assert_eq!(election.poll_timeout(), Some(at + wait_ms));
        at = at + wait_ms;
        election.step(at, Input::Timeout);
        assert_eq!(election.ready().send.len(), 2);
    }
}

#[test]
fn a_vote_that_came_just_before_looking_counts() {
    for (age_ms, counts) in [(5, true), (5_000, false)] {
        let mut election = machine(1, 3);
        let _ = hear(&mut election, T0, 3, Looking, vote(3, 1, 0));
        assert!(unreachable(&mut election, 2).decided.is_some());
        // 2 comes back and notices first that the leader is gone.
        let _ = hear(&mut election, T0 + 10, 2, Looking, vote(2, 2, 1));
        let _ = unreachable(&mut election, 3);
        election.look(T0 + 10 + age_ms, Zxid::ZERO, Epoch(1));
        let _ = election.ready();
        assert_eq!(election.vote().leader, ServerId(if counts { 2 } else { 1 }));
    }
}

#[test]
fn a_voter_that_dropped_this_servers_vote_is_sent_it_again() {
    let mut election = machine(3, 5);
    // 1 follows still when it is told, and looks only now.
    let _ = hear(&mut election, T0, 1, Following, vote(5, 7, 2));
    let ready = hear(&mut election, T0, 1, Looking, vote(1, 1, 0));
    assert_eq!(
        ready.send.len(),
        1,
        "its vote is worse, so nothing else would tell it"
    );
    assert_eq!(hear(&mut election, T0, 1, Looking, vote(1, 1, 0)).send, []);
}

#[test]
fn a_decision_that_cannot_come_about_is_recognised() {
    // 1 follows 3, and 3 tells that it prefers 5.
    let mut election = machine(1, 5);
    for from in [2, 3] {
        let _ = hear(&mut election, T0, from, Looking, vote(3, 1, 0));
    }
    let _ = unreachable(&mut election, 4);
    assert!(unreachable(&mut election, 5).decided.is_some());
    assert!(!election.leader_is_gone());
    let _ = hear(&mut election, T0, 3, Looking, vote(3, 1, 0));
    assert!(
        !election.leader_is_gone(),
        "it has not decided yet, that is all"
    );
    let _ = hear(&mut election, T0, 3, Looking, vote(5, 1, 0));
    assert!(election.leader_is_gone());

    // 3 leads with the votes of 1 and 2; 1 tells that it prefers 5, and 2 dies.
    let mut election = machine(3, 5);
    for sid in [4, 5] {
        let _ = unreachable(&mut election, sid);
    }
    for from in [1, 2] {
        let _ = hear(&mut election, T0, from, Looking, vote(3, 1, 0));
    }
    let nobody = BTreeSet::new();
    assert!(!election.quorum_is_gone(&nobody));
    let _ = hear(&mut election, T0, 4, Looking, vote(4, 1, 0));
    assert!(!election.quorum_is_gone(&nobody), "1 and 2 still come");
    let _ = hear(&mut election, T0, 1, Looking, vote(5, 1, 0));
    assert!(election.quorum_is_gone(&nobody));
    assert!(
        !election.quorum_is_gone(&[1, 2].map(ServerId).into()),
        "they came all the same"
    );
}

#[test]
fn notifications_from_itself_are_ignored() {
    let mut election = machine(1, 3);
    let ready = hear(&mut election, T0, 1, Looking, vote(3, 9, 9));
    assert_eq!((ready.send.len(), election.round()), (0, 1));
}

#[test]
fn random_payloads_never_panic() {
    let mut prng = Prng::new(11);
    for _ in 0..20_000 {
        let length = prng.below(80) as usize;
        let mut payload: Vec<u8> = (0..length).map(|_| prng.next_u64() as u8).collect();
        if prng.one_in(2) {
            // Small numbers in the fields, so that decoding gets further.
            for byte in &mut payload {
                *byte = if prng.one_in(4) { 1 } else { 0 };
            }
        }
        if let Ok(notification) = Notification::decode(&payload) {
            let again = notification.encode();
            assert_eq!(
                Notification::decode(&again),
                Ok(Notification {
                    version: if notification.version > 1 {
                        notification.version
                    } else {
                        0
                    },
                    ..notification
                })
            );
        }
    }
}
