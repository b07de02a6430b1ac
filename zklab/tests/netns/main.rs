//! Networks of their own for the nodes, on the real kernel: sockets inside the namespaces, real packets,
//! real faults.
//!
//! This needs root or user namespaces, and fails loudly where they are missing. Every test is run over TUN devices
//! (where `/dev/net/tun` can be opened) and over packet sockets.
//! It has its own `main` because an ordinary user can enter a user namespace only while the process has one
//! thread. Words on its command line choose tests: `cargo test -p zklab --test netns -- jam`. With
//! `--measure` it judges nothing but tells how fast the network is here.

#![expect(
    clippy::print_stdout,
    reason = "a program of its own that tells its results"
)]

mod acceptance;
mod faults;
mod lab;
mod members;
mod wire;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, SockType, SockaddrIn, bind, connect, listen};
use nix::unistd::Pid;
use serde_json::Value;
use zkd::prng::Prng;
use zklab::id::NodeId;
use zklab::net::link::LinkFaults;
use zklab::net::matrix::Matrix;
use zklab::net::{Emulated, NetKind, Network, enter_user_namespace};

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);
const N3: NodeId = NodeId(3);
const PORT: u16 = 7000;
/// Longer than any packet takes on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough that a packet which were to arrive would have, however busy the machine is.
const SILENCE: Duration = Duration::from_millis(300);

type Test = (&'static str, fn());

const TESTS: [Test; 33] = [
    ("nodes_reach_each_other", nodes_reach_each_other),
    ("a_delay_is_what_was_asked", a_delay_is_what_was_asked),
    ("loss_is_what_was_asked", loss_is_what_was_asked),
    ("duplicates_come_twice", duplicates_come_twice),
    (
        "reordered_packets_are_overtaken",
        reordered_packets_are_overtaken,
    ),
    ("a_rate_holds_packets_back", a_rate_holds_packets_back),
    (
        "a_cut_is_one_way_until_healed",
        a_cut_is_one_way_until_healed,
    ),
    ("a_jam_lets_everything_go", a_jam_lets_everything_go),
    (
        "a_cut_also_ends_what_is_on_its_way",
        a_cut_also_ends_what_is_on_its_way,
    ),
    (
        "corrupt_packets_never_reach_a_reader",
        corrupt_packets_never_reach_a_reader,
    ),
    ("faults_change_under_a_stream", faults_change_under_a_stream),
    (
        "a_change_is_in_force_when_it_says_so",
        a_change_is_in_force_when_it_says_so,
    ),
    (
        "lab::an_ensemble_lives_in_namespaces",
        lab::an_ensemble_lives_in_namespaces,
    ),
    (
        "lab::links_are_set_shown_and_reset",
        lab::links_are_set_shown_and_reset,
    ),
    (
        "lab::an_isolated_leader_is_replaced_and_comes_back",
        lab::an_isolated_leader_is_replaced_and_comes_back,
    ),
    (
        "lab::faults_that_make_no_sense_are_refused",
        lab::faults_that_make_no_sense_are_refused,
    ),
    ("lab::exec_runs_inside", lab::exec_runs_inside),
    (
        "lab::kill_9_of_the_supervisor_leaves_nothing",
        lab::kill_9_of_the_supervisor_leaves_nothing,
    ),
    (
        "faults::a_reset_breaks_connections_off_at_both_ends",
        faults::a_reset_breaks_connections_off_at_both_ends,
    ),
    (
        "faults::servers_can_be_cut_alone",
        faults::servers_can_be_cut_alone,
    ),
    (
        "faults::a_host_that_is_gone_says_nothing",
        faults::a_host_that_is_gone_says_nothing,
    ),
    (
        "faults::every_fault_has_an_id_and_heals_by_it",
        faults::every_fault_has_an_id_and_heals_by_it,
    ),
    (
        "faults::clients_are_cut_off_with_their_node",
        faults::clients_are_cut_off_with_their_node,
    ),
    (
        "faults::a_flap_comes_and_goes",
        faults::a_flap_comes_and_goes,
    ),
    (
        "faults::profiles_and_traces_are_followed",
        faults::profiles_and_traces_are_followed,
    ),
    (
        "acceptance::links_and_partitions_do_what_was_asked",
        acceptance::links_and_partitions_do_what_was_asked,
    ),
    (
        "acceptance::kill_9_at_random_moments_leaves_nothing",
        acceptance::kill_9_at_random_moments_leaves_nothing,
    ),
    (
        "wire::phases_come_from_the_wire_and_add_up",
        wire::phases_come_from_the_wire_and_add_up,
    ),
    (
        "wire::one_follower_has_the_proposal_and_none_the_commit",
        wire::one_follower_has_the_proposal_and_none_the_commit,
    ),
    (
        "wire::a_message_is_held_until_it_is_healed_and_a_dropped_one_never_comes",
        wire::a_message_is_held_until_it_is_healed_and_a_dropped_one_never_comes,
    ),
    (
        "members::a_node_comes_and_has_links_and_goes",
        members::a_node_comes_and_has_links_and_goes,
    ),
    (
        "members::an_ordinary_user_can_do_it_too",
        members::an_ordinary_user_can_do_it_too,
    ),
    (
        "members::packets_are_written_down_with_what_became_of_them",
        members::packets_are_written_down_with_what_became_of_them,
    ),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    match words.first().map(String::as_str) {
        Some("--echo") => return acceptance::echo(),
        Some("--ping") => return acceptance::ping(&words[1], words[2].parse().unwrap()),
        _ => {}
    }
    if let Err(failure) = enter_user_namespace() {
        eprintln!("{failure}; {}", failure.hint.clone().unwrap_or_default());
        return ExitCode::FAILURE;
    }
    let is_measure = words.iter().any(|word| word == "--measure");
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let mut failed = Vec::new();
    for kind in ["tun", "packet"] {
        if kind == "tun" && File::options().write(true).open("/dev/net/tun").is_err() {
            println!("without tun: /dev/net/tun cannot be opened");
            continue;
        }
        IS_PACKET.store(kind == "packet", Ordering::Relaxed);
        if is_measure {
            println!("{kind}:");
            measure();
            continue;
        }
        for (name, test) in TESTS {
            let name = format!("{kind}::{name}");
            if filters.is_empty() || filters.iter().any(|filter| name.contains(*filter)) {
                run(name, test, &mut failed);
            }
        }
    }
    println!("\n{} failed {failed:?}", failed.len());
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run(name: String, test: fn(), failed: &mut Vec<String>) {
    let begin = Instant::now();
    let is_good = std::panic::catch_unwind(test).is_ok();
    let word = if is_good { "ok" } else { "FAILED" };
    println!(
        "test {name} ... {word} ({} ms)",
        begin.elapsed().as_millis()
    );
    if !is_good {
        failed.push(name);
    }
}

// What the tests stand on.

/// The network under test: every test is run with each kind.
fn kind() -> NetKind {
    if IS_PACKET.load(Ordering::Relaxed) {
        NetKind::Packet
    } else {
        NetKind::Tun
    }
}

static IS_PACKET: AtomicBool = AtomicBool::new(false);

fn three_nodes() -> Emulated {
    Emulated::create(kind(), &[N1, N2, N3], 0x8f21c0)
        .unwrap_or_else(|failure| panic!("{failure}; {}", failure.hint.clone().unwrap_or_default()))
}

fn place(node: NodeId, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, node.0), port)
}

/// A UDP socket of `node` that hears from and speaks to the other.
fn udp(net: &Emulated, node: NodeId, other: NodeId) -> UdpSocket {
    let socket = net.socket(node, SockType::Datagram).unwrap();
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&socket),
        &SockaddrIn::from(place(node, PORT)),
    )
    .unwrap();
    let socket = UdpSocket::from(socket);
    socket.connect(place(other, PORT)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A connection from n1 to n2: both ends.
fn tcp(net: &Emulated) -> (TcpStream, TcpStream) {
    let server = net.socket(N2, SockType::Stream).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&server);
    bind(fd, &SockaddrIn::from(place(N2, PORT))).unwrap();
    listen(&server, Backlog::new(1).unwrap()).unwrap();
    let client = net.socket(N1, SockType::Stream).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&client);
    connect(fd, &SockaddrIn::from(place(N2, PORT))).unwrap();
    let (server, _) = TcpListener::from(server).accept().unwrap();
    let client = TcpStream::from(client);
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    (client, server)
}

/// Changes the links and waits until the change is in force.
fn change(net: &Emulated, change: impl FnOnce(&mut Matrix)) -> u64 {
    net.links().unwrap().change(change).blocking_recv().unwrap()
}

/// Waits until what the emulator has delivered is counted too: counts follow the packets.
fn settle(net: &Emulated) {
    change(net, |_| ());
}

/// Puts a fault on n1>n2.
fn fault(net: &Emulated, faults: LinkFaults) {
    change(net, |matrix| *matrix.link_mut(0, 1) = faults);
}

/// Sends numbered packets and returns the numbers that arrive, in order of arrival. They leave in small
/// groups, so that no buffer overflows but the emulator's.
fn send_numbers(from: &UdpSocket, to: &UdpSocket, count: u32) -> Vec<u32> {
    to.set_nonblocking(true).unwrap();
    let mut arrived = Vec::new();
    let mut take = || {
        let mut number = [0; 4];
        while let Ok(4) = to.recv(&mut number) {
            arrived.push(u32::from_be_bytes(number));
        }
    };
    for number in 0..count {
        from.send(&number.to_be_bytes()).unwrap();
        if number % 20 == 19 {
            std::thread::sleep(Duration::from_micros(500));
            take();
        }
    }
    std::thread::sleep(SILENCE);
    take();
    to.set_nonblocking(false).unwrap();
    arrived
}

/// A binomial count lies within these bounds in 99.9 % of all cases.
#[track_caller]
fn assert_binomial(count: usize, of: u32, chance: f64) {
    let mean = f64::from(of) * chance;
    let bound = 3.29 * (mean * (1.0 - chance)).sqrt();
    let count = count as f64;
    assert!(
        (count - mean).abs() <= bound,
        "{count} of {of}, {mean} ± {bound} expected"
    );
}

fn hears_nothing(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    let heard = socket.recv(&mut [0; 64]);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    matches!(heard, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

// Numbers.

fn measure() {
    let ids: Vec<NodeId> = (1..=5).map(NodeId).collect();
    let mut made_ms = samples(20, || {
        let begin = Instant::now();
        let net = Emulated::create(kind(), &ids, 1).unwrap();
        let took = begin.elapsed();
        drop(net);
        took
    });
    println!("five namespaces with links: {}", spread(&mut made_ms));
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    let echo = std::thread::spawn(move || {
        let mut byte = [1];
        while byte[0] != 0 {
            b.recv(&mut byte).unwrap();
            b.send(&byte).unwrap();
        }
    });
    let ping = |byte: u8| {
        let begin = Instant::now();
        a.send(&[byte]).unwrap();
        a.recv(&mut [0]).unwrap();
        begin.elapsed()
    };
    let mut clean = samples(2000, || ping(1));
    println!("ping over a clean link: {}", spread(&mut clean));
    fault_on_both(&net, 1000);
    let mut slow = samples(200, || ping(1));
    println!("ping with 1 ms each way: {}", spread(&mut slow));
    fault_on_both(&net, 0);
    ping(0);
    echo.join().unwrap();
    let mut changes = samples(1000, || {
        let begin = Instant::now();
        change(&net, |matrix| matrix.link_mut(0, 1).cut ^= true);
        begin.elapsed()
    });
    println!("a change of all links in force: {}", spread(&mut changes));
    println!("TCP over a clean link: {:.2} Gbit/s", blast(&net));
    let faults = LinkFaults {
        loss: 1e-9,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    println!("TCP in real packets: {:.2} Gbit/s", blast(&net));
}

fn samples(count: usize, one: impl FnMut() -> Duration) -> Vec<Duration> {
    std::iter::repeat_with(one).take(count).collect()
}

fn spread(samples: &mut [Duration]) -> String {
    samples.sort();
    let at = |part: usize| samples[(samples.len() - 1) * part / 100];
    format!("min {:?} · p50 {:?} · p99 {:?}", at(0), at(50), at(99))
}

fn fault_on_both(net: &Emulated, delay_us: u64) {
    change(net, |matrix| {
        matrix.link_mut(0, 1).delay_us = delay_us;
        matrix.link_mut(1, 0).delay_us = delay_us;
    });
}

/// What one stream carries in two seconds, in Gbit/s.
fn blast(net: &Emulated) -> f64 {
    let (mut client, mut server) = tcp(net);
    let reader = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let (begin, mut total) = (Instant::now(), 0);
        while let Ok(count @ 1..) = server.read(&mut buffer) {
            total += count;
        }
        total as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9
    });
    let block = vec![7; 1 << 20];
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        client.write_all(&block).unwrap();
    }
    drop(client);
    reader.join().unwrap()
}

// Links.

fn nodes_reach_each_other() {
    let net = three_nodes();
    for (from, to) in [(N1, N2), (N2, N3), (N3, N1)] {
        let (a, b) = (udp(&net, from, to), udp(&net, to, from));
        a.send(b"hello").unwrap();
        let mut text = [0; 9];
        assert_eq!(b.recv(&mut text).unwrap(), 5);
        assert_eq!(&text[..5], b"hello");
    }
    settle(&net);
    let links = net.links().unwrap();
    assert_eq!(links.traffic(0, 1).sent, 1);
    assert_eq!(links.traffic(1, 0).sent, 0);
}

fn a_delay_is_what_was_asked() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    for delay_ms in [5, 25] {
        let faults = LinkFaults {
            delay_us: delay_ms * 1000,
            ..LinkFaults::default()
        };
        fault(&net, faults);
        // A busy machine adds to some, so the best of many counts; nothing may ever come early.
        let best = (0..40)
            .map(|_| {
                let begin = Instant::now();
                a.send(b"x").unwrap();
                b.recv(&mut [0; 1]).unwrap();
                begin.elapsed()
            })
            .min()
            .unwrap();
        let asked = Duration::from_millis(delay_ms);
        assert!(best >= asked, "{best:?} is early");
        assert!(
            best < asked + Duration::from_millis(1),
            "{best:?} for {asked:?}"
        );
    }
}

fn loss_is_what_was_asked() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    for (loss, burst) in [(0.1, 0.0), (0.01, 0.0), (0.2, 4.0)] {
        let faults = LinkFaults {
            loss,
            burst,
            ..LinkFaults::default()
        };
        fault(&net, faults);
        let lost = 4000 - send_numbers(&a, &b, 4000).len();
        if burst == 0.0 {
            assert_binomial(lost, 4000, loss);
        } else {
            assert!((600..1000).contains(&lost), "{lost} of 4000, 800 expected");
        }
    }
}

fn duplicates_come_twice() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    let faults = LinkFaults {
        duplicate: 0.05,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    let arrived = send_numbers(&a, &b, 2000);
    assert_binomial(arrived.len() - 2000, 2000, 0.05);
}

fn reordered_packets_are_overtaken() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    let faults = LinkFaults {
        reorder: 0.1,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    let arrived = send_numbers(&a, &b, 2000);
    assert_eq!(arrived.len(), 2000);
    let overtaken = arrived.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > 20, "{overtaken}");
}

fn a_rate_holds_packets_back() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    let faults = LinkFaults {
        rate_bps: 10_000_000,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    let begin = Instant::now();
    for _ in 0..50 {
        a.send(&[7; 972]).unwrap();
    }
    for _ in 0..50 {
        assert_eq!(b.recv(&mut [0; 1500]).unwrap(), 972);
    }
    // 50 packets of 1000 bytes.
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(40), "{took:?}");
    assert!(took < Duration::from_millis(400), "{took:?}");
    for _ in 0..200 {
        a.send(&[7; 972]).unwrap();
    }
    let mut arrived = 0;
    while !hears_nothing(&b) {
        arrived += 1;
    }
    // 64 KiB wait, and some have left while the last were sent.
    assert!((60..=140).contains(&arrived), "{arrived}");
}

fn a_cut_is_one_way_until_healed() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    let faults = LinkFaults {
        cut: true,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    a.send(b"lost").unwrap();
    assert!(hears_nothing(&b));
    b.send(b"back").unwrap();
    assert_eq!(a.recv(&mut [0; 4]).unwrap(), 4);
    assert_eq!(net.links().unwrap().traffic(0, 1).dropped, 1);
    fault(&net, LinkFaults::default());
    assert_eq!(net.links().unwrap().traffic(0, 1).first_us, 0);
    a.send(b"arrives").unwrap();
    assert_eq!(b.recv(&mut [0; 7]).unwrap(), 7);
    settle(&net);
    assert!(net.links().unwrap().traffic(0, 1).first_us > 0);
}

fn a_jam_lets_everything_go() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    let faults = LinkFaults {
        jam: true,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    for number in 0..10_u8 {
        a.send(&[number]).unwrap();
    }
    assert!(hears_nothing(&b));
    assert_eq!(net.links().unwrap().traffic(0, 1).held, 10);
    fault(&net, LinkFaults::default());
    for number in 0..10_u8 {
        let mut byte = [0];
        b.recv(&mut byte).unwrap();
        assert_eq!(byte[0], number);
    }
    assert_eq!(net.links().unwrap().traffic(0, 1).held, 0);
}

fn a_cut_also_ends_what_is_on_its_way() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    let mut faults = LinkFaults {
        delay_us: 200_000,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    a.send(b"on its way").unwrap();
    // Another round trip: the first packet has certainly been read by now.
    b.send(b"x").unwrap();
    a.recv(&mut [0; 1]).unwrap();
    faults.cut = true;
    fault(&net, faults);
    assert!(hears_nothing(&b));
    assert_eq!(net.links().unwrap().traffic(0, 1).dropped, 1);
}

/// Sends random bytes from n1 to n2, compares them, and calls `meanwhile` in the middle.
fn stream(net: &Emulated, count: usize, meanwhile: impl FnOnce()) {
    let (mut client, mut server) = tcp(net);
    let mut prng = Prng::new(5);
    let bytes: Vec<u8> = (0..count / 8)
        .flat_map(|_| prng.next_u64().to_be_bytes())
        .collect();
    let expected = bytes.clone();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert!(
            got == expected,
            "{} of {} bytes, or others",
            got.len(),
            expected.len()
        );
    });
    let (first, second) = bytes.split_at(bytes.len() / 2);
    client.write_all(first).unwrap();
    meanwhile();
    client.write_all(second).unwrap();
    drop(client);
    reader.join().unwrap();
}

fn corrupt_packets_never_reach_a_reader() {
    let net = three_nodes();
    let faults = LinkFaults {
        corrupt: 0.05,
        ..LinkFaults::default()
    };
    fault(&net, faults);
    stream(&net, 1 << 20, || ());
    // And not because nothing was corrupted: of packets that all are, none arrives.
    let all = LinkFaults {
        corrupt: 1.0,
        ..LinkFaults::default()
    };
    fault(&net, all);
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    assert!(send_numbers(&a, &b, 100).is_empty());
}

fn faults_change_under_a_stream() {
    let net = three_nodes();
    let faults = LinkFaults {
        loss: 0.01,
        duplicate: 0.01,
        reorder: 0.01,
        ..LinkFaults::default()
    };
    stream(&net, 8 << 20, || fault(&net, faults));
    let dropped = net.links().unwrap().traffic(0, 1).dropped;
    assert!(
        dropped > 0,
        "the second half of the stream was under the fault"
    );
    stream_again(&net);
}

/// The device can also be made to send large segments again.
fn stream_again(net: &Emulated) {
    fault(net, LinkFaults::default());
    let before = net.links().unwrap().traffic(1, 2).sent;
    let (a, b) = (udp(net, N2, N3), udp(net, N3, N2));
    a.send(b"x").unwrap();
    b.recv(&mut [0; 1]).unwrap();
    settle(net);
    assert_eq!(net.links().unwrap().traffic(1, 2).sent, before + 1);
}

fn a_change_is_in_force_when_it_says_so() {
    let net = three_nodes();
    let (a, b) = (udp(&net, N1, N2), udp(&net, N2, N1));
    for round in 0..200 {
        change(&net, |matrix| {
            for (from, to) in matrix.pairs() {
                matrix.link_mut(from, to).cut = true;
            }
        });
        a.send(&[round]).unwrap();
        change(&net, |matrix| *matrix = Matrix::clean(3));
        a.send(&[round]).unwrap();
        b.recv(&mut [0; 1]).unwrap();
    }
    settle(&net);
    let traffic = net.links().unwrap().traffic(0, 1);
    // A packet sent under the cut may be read after it, when the machine is slow; none is lost without one.
    assert_eq!(traffic.sent + traffic.dropped, 400);
    assert!(traffic.dropped > 0);
}
