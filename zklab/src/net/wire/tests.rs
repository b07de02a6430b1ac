//! The decoder against captures of real Apache ensembles, however their bytes are cut, and the gate against
//! a receiver that keeps what it gets.

use std::fs;
use std::path::{Path, PathBuf};

use zkd::election::Notification;
use zkd::event::ServerState;
use zkd::peer::{LinkDecoder, LinkItem};
use zkd::prng::Prng;
use zkd::record::quorum::packet;

use super::decoder::{Arrival, Decoder, Key};
use super::flow::Taken;
use super::gate::Gate;
use super::segment::tests::frame;
use super::segment::{ACK, FIN, RST, SYN, Segment};
use super::{Ballot, Claim, Ending, Name, Rule, Sighting, What};
use crate::net::{ELECTION_PORT, QUORUM_PORT};

const DIALLER: u16 = 40_000;

/// Every captured direction: its file, whether it is of the election port, and whether its sender dials.
fn captures() -> Vec<(PathBuf, bool, bool)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zkd/testdata/streams");
    let mut found = Vec::new();
    let mut look = |dir: PathBuf, election: bool| {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.ends_with(".bin") {
                found.push((path, election, name.ends_with(".c2s.bin")));
            }
        }
    };
    look(root.join("election"), true);
    for entry in fs::read_dir(root.join("quorum")).unwrap() {
        look(entry.unwrap().path(), false);
    }
    found.sort();
    assert!(found.len() > 100, "the captures are gone");
    found
}

/// What zkd's own decoders find, which read whole messages only.
fn naive(bytes: &[u8], election: bool, dials: bool) -> Vec<What> {
    let mut found = Vec::new();
    if election {
        let int = |at: usize| i32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut at = 0;
        if dials && bytes.len() >= 20 {
            at = 20 + int(16) as usize;
        }
        while at + 4 <= bytes.len() {
            let end = at + 4 + int(at) as usize;
            let Some(payload) = bytes.get(at + 4..end) else {
                break;
            };
            let told = Notification::decode(payload).unwrap();
            found.push(What::Vote(Ballot {
                claim: match told.state {
                    ServerState::Looking => Claim::Looking,
                    ServerState::Following => Claim::Following,
                    ServerState::Leading => Claim::Leading,
                    _ => Claim::Observing,
                },
                leader: told.vote.leader.0,
                zxid: told.vote.zxid.0,
                round: told.vote.election_epoch,
                epoch: told.vote.peer_epoch.0,
            }));
            at = end;
        }
        return found;
    }
    let mut decoder = LinkDecoder::new(1 << 20);
    decoder.buffer().extend_from_slice(bytes);
    while let Some(item) = decoder.next_item().unwrap() {
        match item {
            LinkItem::Packet(packet) => {
                let data = packet.data.unwrap_or_default();
                let first = |count: usize| data.get(..count).map(<[u8]>::to_vec);
                let number = match packet.kind {
                    packet::ACKEPOCH => {
                        first(4).map(|b| i32::from_be_bytes(b.try_into().unwrap()).into())
                    }
                    packet::FOLLOWERINFO | packet::OBSERVERINFO => {
                        first(8).map(|b| i64::from_be_bytes(b.try_into().unwrap()))
                    }
                    _ => None,
                };
                found.push(What::Packet {
                    kind: packet.kind,
                    zxid: packet.zxid.0,
                    number,
                });
            }
            LinkItem::Snapshot(zxid, _) => {
                found.push(What::Packet {
                    kind: packet::SNAP,
                    zxid: zxid.0,
                    number: None,
                });
                found.push(What::SnapshotEnd);
            }
        }
    }
    found
}

fn key(election: bool, dials: bool) -> Key {
    let well_known = if election { ELECTION_PORT } else { QUORUM_PORT };
    let (from_port, to_port) = if dials {
        (DIALLER, well_known)
    } else {
        (well_known, DIALLER)
    };
    Key {
        from: 0,
        to: 1,
        from_port,
        to_port,
    }
}

fn arrival(key: Key, seq: u32, flags: u8) -> Arrival {
    Arrival {
        at_us: 1,
        key,
        seq,
        flags,
    }
}

fn messages(seen: Vec<Sighting>) -> Vec<What> {
    let whats = seen.into_iter().map(|sighting| sighting.what);
    whats
        .filter(|what| !matches!(what, What::Opened | What::Closed(_)))
        .collect()
}

#[test]
fn captures_of_apache_are_read_as_zkd_reads_them() {
    let mut kinds = std::collections::BTreeSet::new();
    for (path, election, dials) in captures() {
        let bytes = fs::read(&path).unwrap();
        let key = key(election, dials);
        let mut decoder = Decoder::default();
        decoder.take(arrival(key, 99, SYN), &[]);
        decoder.take(arrival(key, 100, ACK), &bytes);
        let found = messages(decoder.take_seen());
        assert_eq!(found, naive(&bytes, election, dials), "{}", path.display());
        for what in &found {
            if let What::Packet { kind, .. } = what {
                kinds.insert(*kind);
            }
        }
    }
    let unseen: Vec<i32> = (1..=19).filter(|kind| !kinds.contains(kind)).collect();
    assert!(unseen.len() <= 2, "{unseen:?}");
}

#[test]
fn the_cut_and_the_order_of_segments_do_not_matter() {
    for (number, (path, election, dials)) in (0..).zip(captures()) {
        let bytes = fs::read(&path).unwrap();
        let expected = naive(&bytes, election, dials);
        let key = key(election, dials);
        for seed in 0..4 {
            let mut chances = Prng::new(seed * 1000 + number);
            let first = u32::MAX - chances.below(bytes.len() as u64 + 10) as u32;
            let longest = [1 + chances.below(30), 2000][seed as usize % 2];
            let mut pieces = Vec::new();
            let mut at = 0;
            while at < bytes.len() {
                let end = (at + 1 + chances.below(longest) as usize).min(bytes.len());
                pieces.push((at, end));
                if chances.below(10) == 0 {
                    // Again, with a part of what was before.
                    pieces.push((at.saturating_sub(chances.below(50) as usize), end));
                }
                at = end;
            }
            for place in 1..pieces.len() {
                if chances.below(5) == 0 {
                    let other = place.saturating_sub(chances.below(8) as usize);
                    pieces.swap(place, other);
                }
            }
            let mut decoder = Decoder::default();
            decoder.take(arrival(key, first.wrapping_sub(1), SYN), &[]);
            for (at, end) in pieces {
                let seq = first.wrapping_add(at as u32);
                decoder.take(arrival(key, seq, ACK), &bytes[at..end]);
            }
            let found = messages(decoder.take_seen());
            assert_eq!(found, expected, "{} seed {seed}", path.display());
        }
    }
}

/// One message a segment, as servers write them.
fn message_starts(bytes: &[u8], key: Key) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut decoder = Decoder::default();
    decoder.take(arrival(key, u32::MAX, SYN), &[]);
    let mut at = 0;
    loop {
        let mut count = 0;
        let mut second = |_: &super::scan::Head| {
            count += 1;
            count > 1
        };
        let here = arrival(key, at as u32, ACK);
        match decoder.take_judged(here, &bytes[at..], &mut second) {
            Taken::Refused(next) => {
                starts.push(at);
                at = next as usize;
            }
            Taken::Read => {
                starts.push(at);
                return starts;
            }
        }
    }
}

#[test]
fn after_a_loss_the_next_message_is_found_and_it_is_said() {
    for (path, election, dials) in captures() {
        let bytes = fs::read(&path).unwrap();
        let key = key(election, dials);
        let expected = naive(&bytes, election, dials);
        if expected.len() < 6 || expected.contains(&What::SnapshotEnd) {
            continue;
        }
        let mut starts = message_starts(&bytes, key);
        starts.push(bytes.len());
        let mut decoder = Decoder::default();
        decoder.take(arrival(key, u32::MAX, SYN), &[]);
        for (number, piece) in starts.windows(2).enumerate() {
            if number == 2 {
                // The copy of this one is lost.
                decoder.miss(key);
                continue;
            }
            let here = arrival(key, piece[0] as u32, ACK);
            decoder.take(here, &bytes[piece[0]..piece[1]]);
        }
        let mut wanted = expected.clone();
        wanted[2] = What::Missed;
        assert_eq!(messages(decoder.take_seen()), wanted, "{}", path.display());
    }
}

#[test]
fn what_is_no_protocol_of_ours_is_given_up_and_it_is_said() {
    let key = key(false, true);
    let mut decoder = Decoder::default();
    decoder.take(arrival(key, 0, SYN), &[]);
    decoder.take(
        arrival(key, 1, ACK),
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 9, 9, 9, 9, 9],
    );
    decoder.take(arrival(key, 17, ACK), &[0; 100]);
    assert_eq!(
        messages(decoder.take_seen()),
        [What::Unreadable("there is no packet of this type")]
    );
    // One that is joined in its middle is given up after many bytes.
    let other = Key {
        from_port: 1,
        ..key
    };
    let piece = vec![0xee; 1 << 20];
    for number in 0..10 {
        decoder.take(arrival(other, number << 20, ACK), &piece);
    }
    assert_eq!(
        messages(decoder.take_seen()),
        [What::Unreadable("it was joined in its middle")]
    );
}

#[test]
fn noise_never_panics() {
    for seed in 0..500 {
        let mut chances = Prng::new(seed);
        let mut decoder = Decoder::default();
        for _ in 0..60 {
            let key = key(chances.below(2) == 0, chances.below(2) == 0);
            let flags = [0, 0, 0, 0, SYN, FIN, RST][chances.below(7) as usize];
            let length = chances.below(80) as usize;
            let small = chances.below(2) == 0;
            let payload: Vec<u8> = (0..length)
                .map(|_| chances.below(if small { 3 } else { 256 }) as u8)
                .collect();
            decoder.take(arrival(key, chances.below(200) as u32, flags), &payload);
        }
    }
}

#[test]
fn a_direction_is_closed_when_all_before_its_end_was_read() {
    let key = key(false, false);
    let uptodate = zkd::jute::Record::to_vec(&zkd::record::quorum::QuorumPacket::bare(
        packet::UPTODATE,
        zkd::ids::Zxid(-1),
    ));
    let mut decoder = Decoder::default();
    decoder.take(arrival(key, 0, SYN | ACK), &[]);
    decoder.take(arrival(key, 21, FIN | ACK), &[]);
    assert!(decoder.take_seen().is_empty(), "its end overtook the rest");
    decoder.take(arrival(key, 1, ACK), &uptodate);
    let seen: Vec<What> = decoder.take_seen().iter().map(|s| s.what).collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1], What::Closed(Ending::Fin));
    // Sent again, after the end: nothing new.
    decoder.take(arrival(key, 1, ACK), &uptodate);
    assert!(decoder.take_seen().is_empty());
}

/// The kernel of a receiver: takes what comes next, and waits for what is missing.
#[derive(Default)]
struct Receiver {
    got: Vec<u8>,
    broken: bool,
}

impl Receiver {
    fn take(&mut self, frame: &[u8]) {
        let segment = Segment::read(frame).unwrap();
        if segment.has(RST) {
            assert_eq!(
                segment.seq as usize,
                self.got.len(),
                "nobody takes that reset"
            );
            self.broken = true;
        }
        let have = self.got.len();
        let skip = have as i64 - i64::from(segment.seq);
        assert!(skip >= 0 || segment.len() == 0, "out of order");
        let payload = segment.payload(frame);
        if let Some(new) = payload.get(skip.max(0) as usize..) {
            self.got.extend(new);
        }
    }
}

fn rule(name: Name, nth: u32, hold: bool) -> Rule {
    Rule {
        id: 7,
        name,
        from: vec![0],
        to: vec![1],
        zxid: None,
        nth,
        count: 1,
        hold,
    }
}

/// Sends a capture through a gate in random pieces, some out of order and some twice, until the sender has
/// nothing new to send; then takes the rule out.
fn through_a_gate(
    bytes: &[u8],
    key: Key,
    rule: Rule,
    chances: &mut Prng,
) -> (Receiver, usize, Vec<Sighting>) {
    let ports = (key.from_port, key.to_port);
    let mut decoder = Decoder::default();
    let mut gate = Gate::default();
    let mut receiver = Receiver::default();
    decoder.take(arrival(key, u32::MAX, SYN), &[]);
    gate.arm(rule);
    let least = if bytes.len() < 3000 { 3 } else { 60 };
    let longest = [least, 90, 3000][chances.below(3) as usize];
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = (at + 1 + chances.below(longest) as usize).min(bytes.len());
        pieces.push((at, end));
        if chances.below(8) == 0 {
            pieces.push((at.saturating_sub(chances.below(40) as usize), end));
        }
        at = end;
    }
    for place in 1..pieces.len() {
        if chances.below(6) == 0 {
            pieces.swap(place - 1, place);
        }
    }
    let mut send = |gate: &mut Gate, receiver: &mut Receiver, seq: usize, payload: &[u8]| {
        let frame = frame(ports, seq as u32, ACK, payload);
        let segment = Segment::read(&frame).unwrap();
        let here = arrival(key, seq as u32, ACK);
        for out in gate.pass(&mut decoder, here, &segment, &frame) {
            receiver.take(&out);
        }
    };
    for (at, end) in pieces {
        send(&mut gate, &mut receiver, at, &bytes[at..end]);
    }
    let got = receiver.got.len();
    // What was not acknowledged is sent again, and changes nothing.
    send(&mut gate, &mut receiver, got, &bytes[got..]);
    assert_eq!(receiver.got.len(), got);
    for released in gate.disarm(7) {
        if released.made {
            if released.to == 1 {
                receiver.take(&released.frame);
            }
            continue;
        }
        let segment = Segment::read(&released.frame).unwrap();
        let here = arrival(key, segment.seq, segment.flags);
        for out in gate.pass(&mut decoder, here, &segment, &released.frame) {
            receiver.take(&out);
        }
    }
    assert!(gate.is_open());
    (receiver, got, decoder.take_seen())
}

#[test]
fn exactly_the_bytes_before_the_message_get_through() {
    for (number, (path, election, dials)) in (0..).zip(captures()) {
        let bytes = fs::read(&path).unwrap();
        let key = key(election, dials);
        let all = naive(&bytes, election, dials);
        let names: Vec<Name> = all
            .iter()
            .filter_map(|what| match what {
                What::Vote(_) => Some(Name::Vote),
                What::Packet { kind, .. } => Some(Name::Packet(*kind)),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            continue;
        }
        let starts = message_starts(&bytes, key);
        // A stream of very small pieces takes long; the short ones have every kind of message.
        for seed in 0..if bytes.len() < 3000 { 4 } else { 1 } {
            let mut chances = Prng::new(seed * 7919 + number);
            let index = chances.below(names.len() as u64) as usize;
            let nth = names[..=index]
                .iter()
                .filter(|n| **n == names[index])
                .count();
            let hold = chances.below(2) == 0;
            let rule = rule(names[index], nth as u32, hold);
            let (receiver, got, seen) = through_a_gate(&bytes, key, rule, &mut chances);
            let place = format!(
                "{} {:?} number {nth} seed {seed}",
                path.display(),
                names[index]
            );
            // The first message of a dialler begins behind its greeting.
            let begin = match (index, election && dials) {
                (0, true) => 20 + bytes[19] as usize,
                _ => starts[index],
            };
            assert_eq!(got, begin, "{place}");
            assert_eq!(receiver.broken, !hold, "{place}");
            let caught: Vec<&Sighting> = seen.iter().filter(|s| s.caught_by.is_some()).collect();
            assert_eq!(caught.len(), 1, "{place}");
            assert_eq!(caught[0].name(), Some(names[index]), "{place}");
            if hold {
                assert_eq!(receiver.got, bytes, "{place}");
                let rest: Vec<What> =
                    messages(seen.into_iter().filter(|s| s.caught_by.is_none()).collect());
                assert_eq!(rest, all, "{place}");
            } else {
                assert_eq!(receiver.got, bytes[..begin], "{place}");
            }
        }
    }
}

#[test]
fn the_other_direction_and_new_connections_are_left_alone() {
    let ack = |zxid| {
        zkd::jute::Record::to_vec(&zkd::record::quorum::QuorumPacket::bare(
            packet::ACK,
            zkd::ids::Zxid(zxid),
        ))
    };
    let (there, back) = (key(false, true), key(false, false));
    let back = Key {
        from: 1,
        to: 0,
        ..back
    };
    let mut decoder = Decoder::default();
    let mut gate = Gate::default();
    gate.arm(rule(Name::Packet(packet::ACK), 1, false));
    let mut pass = |gate: &mut Gate, key: Key, seq: u32, flags: u8, payload: &[u8]| {
        let frame = frame((key.from_port, key.to_port), seq, flags, payload);
        let segment = Segment::read(&frame).unwrap();
        gate.pass(&mut decoder, arrival(key, seq, flags), &segment, &frame)
    };
    let payloads = |frames: &[Vec<u8>]| -> Vec<usize> {
        let read = |frame: &Vec<u8>| Segment::read(frame).unwrap().len();
        frames.iter().map(read).collect()
    };
    pass(&mut gate, there, 0, SYN, &[]);
    pass(&mut gate, back, 0, SYN | ACK, &[]);
    let out = pass(&mut gate, there, 1, ACK, &ack(5));
    assert!(payloads(&out).iter().all(|length| *length == 0));
    // Only its acknowledgements get through, from the place where the receiver waits; its end does not.
    let out = pass(&mut gate, there, 21, ACK | FIN, &ack(6));
    let last = Segment::read(&out[0]).unwrap();
    assert_eq!(
        (out.len(), last.len(), last.seq, last.flags),
        (1, 0, 1, ACK)
    );
    let out = pass(&mut gate, there, 41, RST, &[]);
    assert_eq!(Segment::read(&out[0]).unwrap().flags, ACK);
    assert_eq!(payloads(&pass(&mut gate, back, 1, ACK, &ack(7))), [20]);
    pass(&mut gate, there, 1000, SYN, &[]);
    assert_eq!(payloads(&pass(&mut gate, there, 1001, ACK, &ack(8))), [20]);
    let released = gate.disarm(7);
    assert_eq!(released, [], "the connection that was shut is gone");
    assert!(gate.is_open());
}

#[test]
fn names_are_read_and_the_nearest_is_offered() {
    assert_eq!("ackepoch".parse(), Ok(Name::Packet(packet::ACKEPOCH)));
    assert_eq!("VOTE".parse(), Ok(Name::Vote));
    let error = "ACKEPOHC".parse::<Name>().unwrap_err();
    assert!(
        error.starts_with(
            "there is no message \"ACKEPOHC\"; did you mean ACKEPOCH? (there are VOTE REQUEST "
        ),
        "{error}"
    );
    assert!("unknown".parse::<Name>().is_err());
    for name in Name::all() {
        assert_eq!(name.to_string().parse(), Ok(name));
    }
}
