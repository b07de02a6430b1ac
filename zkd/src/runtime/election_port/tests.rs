//! Tests over real loopback sockets, against other ports and against peers made by hand.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use std::collections::BTreeSet;

use super::*;
use crate::election::{Election, ElectionConfig, Input, Vote};
use crate::event::ServerState;
use crate::ids::{Epoch, Zxid};
use crate::quorum::QuorumVerifier;
use crate::time::Instant;

type Events = mpsc::Receiver<ElectionEvent>;

fn notification(round: i64) -> Notification {
    let vote = Vote {
        leader: ServerId(1),
        zxid: Zxid(7),
        election_epoch: round,
        peer_epoch: Epoch(1),
    };
    Notification::new(ServerState::Looking, vote, "version=0".into())
}

fn frame(notification: &Notification) -> Vec<u8> {
    let payload = notification.encode();
    let mut bytes = i32::try_from(payload.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(payload);
    bytes
}

async fn port(sid: i64) -> (ElectionPort, Events) {
    let here = [("127.0.0.1".to_owned(), 0)];
    ElectionPort::start(
        ServerId(sid),
        &here,
        Vec::new(),
        &here,
        ElectionPortOptions::default(),
    )
    .await
    .unwrap()
}

fn address_of(port: &ElectionPort) -> SocketAddr {
    port.local_addresses()[0]
}

fn known_at(port: &ElectionPort, sid: i64, at: SocketAddr) {
    port.set_addresses(ServerId(sid), vec![(at.ip().to_string(), at.port())]);
}

/// Fails instead of hanging when what must come does not.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, what)
        .await
        .expect("it never came")
}

async fn next(events: &mut Events) -> ElectionEvent {
    soon(events.recv()).await.expect("the port is open")
}

/// The next notification; what is told about connections before it is passed over.
async fn next_notification(events: &mut Events) -> (ServerId, Notification) {
    loop {
        if let ElectionEvent::Notification { from, notification } = next(events).await {
            return (from, notification);
        }
    }
}

/// An address nobody listens on.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Dials `port` as server `sid` that listens at `back`.
async fn dial_as(sid: i64, back: SocketAddr, port: &ElectionPort) -> TcpStream {
    let mut stream = TcpStream::connect(address_of(port)).await.unwrap();
    let opening = Opening::encode(ServerId(sid), &[(back.ip().to_string(), back.port())]);
    stream.write_all(&opening).await.unwrap();
    stream
}

async fn read_frame(stream: &mut TcpStream) -> Notification {
    let length = soon(stream.read_i32()).await.unwrap();
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    Notification::decode(&payload).unwrap()
}

/// Reads until the peer closes; a reset is a close, too.
async fn closed(mut stream: TcpStream) -> usize {
    let mut rest = Vec::new();
    match soon(stream.read_to_end(&mut rest)).await {
        Ok(count) => count,
        Err(_) => rest.len(),
    }
}

#[tokio::test]
async fn three_ports_exchange_notifications_whoever_dials() {
    let mut ports = Vec::new();
    for sid in 1..=3 {
        ports.push(port(sid).await);
    }
    let addresses: Vec<SocketAddr> = ports.iter().map(|(port, _)| address_of(port)).collect();
    for (port, _) in &ports {
        for (sid, at) in (1..=3).zip(&addresses) {
            known_at(port, sid, *at);
        }
    }
    for round in 1..=3 {
        for (port, _) in &ports {
            for to in 1..=3 {
                port.send(ServerId(to), &notification(round));
            }
        }
        // Each hears the newest from both others; older ones may come before, or again.
        for (me, (_, events)) in (1..=3).zip(&mut ports) {
            let mut waiting: Vec<ServerId> =
                (1..=3).filter(|sid| *sid != me).map(ServerId).collect();
            while !waiting.is_empty() {
                let (from, heard) = next_notification(events).await;
                if heard == notification(round) {
                    waiting.retain(|sid| *sid != from);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_larger_id_is_only_asked_to_dial_back_and_gets_the_newest() {
    let larger = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = larger.local_addr().unwrap();
    let (port, mut events) = port(1).await;
    known_at(&port, 5, at);
    port.send(ServerId(5), &notification(1));
    let (mut asked, _) = soon(larger.accept()).await.unwrap();
    let opening = Opening::read(&mut asked).await.unwrap().unwrap();
    assert_eq!(opening.sid, ServerId(1));
    // Nothing follows: this connection is not to stay.
    asked.shutdown().await.unwrap();
    assert_eq!(closed(asked).await, 0);
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Reachable(ServerId(5))
    );

    port.send(ServerId(5), &notification(2));
    port.send(ServerId(5), &notification(3));
    let mut link = dial_as(5, at, &port).await;
    assert_eq!(read_frame(&mut link).await, notification(3));
    port.send(ServerId(5), &notification(4));
    assert_eq!(read_frame(&mut link).await, notification(4));
}

#[tokio::test]
async fn a_smaller_id_is_dialled_back_at_the_address_it_tells() {
    let smaller = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = smaller.local_addr().unwrap();
    let (port, mut events) = port(5).await;
    known_at(&port, 1, nobody().await);
    let asked = dial_as(1, at, &port).await;
    assert_eq!(closed(asked).await, 0);
    let (mut link, _) = soon(smaller.accept()).await.unwrap();
    let opening = Opening::read(&mut link).await.unwrap().unwrap();
    assert_eq!(opening.sid, ServerId(5));
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Reachable(ServerId(1))
    );
    link.write_all(&frame(&notification(9))).await.unwrap();
    let heard = next_notification(&mut events).await;
    assert_eq!(heard, (ServerId(1), notification(9)));

    // Asked once more, it dials once more; the older connection gives way without a word.
    closed(dial_as(1, at, &port).await).await;
    let (mut newer, _) = soon(smaller.accept()).await.unwrap();
    Opening::read(&mut newer).await.unwrap().unwrap();
    port.send(ServerId(1), &notification(10));
    assert_eq!(read_frame(&mut newer).await, notification(10));
    drop(link);
    newer.write_all(&frame(&notification(11))).await.unwrap();
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Reachable(ServerId(1))
    );
    let heard = next_notification(&mut events).await;
    assert_eq!(heard, (ServerId(1), notification(11)));
    drop(newer);
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Unreachable(ServerId(1))
    );
}

#[tokio::test]
async fn a_new_connection_replaces_the_old_one_and_brings_the_last_message_again() {
    let (port, mut events) = port(1).await;
    let at = nobody().await;
    known_at(&port, 5, at);
    let mut first = dial_as(5, at, &port).await;
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Reachable(ServerId(5))
    );
    port.send(ServerId(5), &notification(1));
    assert_eq!(read_frame(&mut first).await, notification(1));

    let mut second = dial_as(5, at, &port).await;
    assert_eq!(read_frame(&mut second).await, notification(1));
    assert_eq!(closed(first).await, 0);
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Reachable(ServerId(5)),
        "being replaced is not being gone"
    );

    drop(second);
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Unreachable(ServerId(5))
    );
    let mut third = dial_as(5, at, &port).await;
    assert_eq!(read_frame(&mut third).await, notification(1));
}

#[tokio::test]
async fn a_refused_dial_is_told_each_time() {
    let (port, mut events) = port(3).await;
    known_at(&port, 1, nobody().await);
    for round in 0..3 {
        port.send(ServerId(1), &notification(round));
        assert_eq!(
            next(&mut events).await,
            ElectionEvent::Unreachable(ServerId(1))
        );
    }
    port.send(ServerId(8), &notification(1));
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Unreachable(ServerId(8)),
        "a server without an address"
    );
}

#[tokio::test]
async fn a_peer_that_comes_up_later_gets_what_waited_for_it() {
    let (early, mut early_events) = port(1).await;
    let later_at = nobody().await;
    known_at(&early, 2, later_at);
    early.send(ServerId(2), &notification(1));
    assert_eq!(
        next(&mut early_events).await,
        ElectionEvent::Unreachable(ServerId(2))
    );
    let (later, mut later_events) = port(2).await;
    known_at(&later, 1, address_of(&early));
    later.send(ServerId(1), &notification(2));
    let heard = next_notification(&mut early_events).await;
    assert_eq!(heard, (ServerId(2), notification(2)));
    let heard = next_notification(&mut later_events).await;
    assert_eq!(heard, (ServerId(1), notification(1)));
}

#[tokio::test]
async fn garbage_costs_the_connection_and_nothing_else() {
    let (port, mut events) = port(3).await;
    let mut openings: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec()[..3].to_vec(),
        (-1i64).to_be_bytes().to_vec(),
        [(-65536i64).to_be_bytes(), 5i64.to_be_bytes()].concat(),
    ];
    for (length, text) in [(0, ""), (-1, ""), (2049, ""), (3, "abc"), (9, "host:port")] {
        let mut bytes = [(-65536i64).to_be_bytes(), 5i64.to_be_bytes()].concat();
        bytes.extend(i32::to_be_bytes(length));
        bytes.extend(text.as_bytes());
        openings.push(bytes);
    }
    // Another server with this server's id.
    openings.push(Opening::encode(ServerId(3), &[("127.0.0.1".into(), 1)]));
    for bytes in openings {
        let mut stream = TcpStream::connect(address_of(&port)).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(closed(stream).await, 0, "{bytes:?}");
    }
    let at = nobody().await;
    for length in [0, -1, 524_289, i32::MIN, i32::MAX] {
        let mut link = dial_as(5, at, &port).await;
        assert_eq!(
            next(&mut events).await,
            ElectionEvent::Reachable(ServerId(5))
        );
        link.write_all(&length.to_be_bytes()).await.unwrap();
        assert_eq!(closed(link).await, 0, "{length}");
        assert_eq!(
            next(&mut events).await,
            ElectionEvent::Unreachable(ServerId(5))
        );
    }
    // A notification that cannot be read is skipped; the next one counts.
    let mut link = dial_as(5, at, &port).await;
    link.write_all(&[0, 0, 0, 3, 1, 2, 3]).await.unwrap();
    link.write_all(
        &[0, 0, 0, 36]
            .into_iter()
            .chain([0; 36])
            .collect::<Vec<u8>>(),
    )
    .await
    .unwrap();
    link.write_all(&frame(&notification(1))).await.unwrap();
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Reachable(ServerId(5))
    );
    let heard = next_notification(&mut events).await;
    assert_eq!(heard, (ServerId(5), notification(1)));
}

#[tokio::test]
async fn old_and_anonymous_peers_are_let_in() {
    let (port, mut events) = port(3).await;
    // 3.4 sends nothing but its id.
    let mut legacy = TcpStream::connect(address_of(&port)).await.unwrap();
    legacy.write_all(&7i64.to_be_bytes()).await.unwrap();
    legacy.write_all(&frame(&notification(1))).await.unwrap();
    assert_eq!(next_notification(&mut events).await.0, ServerId(7));
    // An observer without an id gets a negative one, which is smaller than ours: it is dialled back.
    for expected in [-1, -2] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        closed(dial_as(i64::MAX, at, &port).await).await;
        let (mut link, _) = soon(listener.accept()).await.unwrap();
        Opening::read(&mut link).await.unwrap().unwrap();
        link.write_all(&frame(&notification(2))).await.unwrap();
        assert_eq!(next_notification(&mut events).await.0, ServerId(expected));
    }
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = taken.local_addr().unwrap();
    let here = [(at.ip().to_string(), at.port())];
    let options = ElectionPortOptions {
        bind_attempts: 1,
        ..ElectionPortOptions::default()
    };
    let error = ElectionPort::start(ServerId(1), &here, Vec::new(), &here, options)
        .await
        .unwrap_err();
    assert_eq!(error.attempts, 1);
    let text = error.to_string();
    assert!(text.contains(&at.to_string()), "{text}");
}

#[tokio::test]
async fn a_dropped_port_closes_its_connections() {
    let (port, mut events) = port(1).await;
    let link = dial_as(5, nobody().await, &port).await;
    assert_eq!(
        next(&mut events).await,
        ElectionEvent::Reachable(ServerId(5))
    );
    drop(port);
    assert_eq!(closed(link).await, 0);
}

/// Every byte that servers of Apache 3.8.0 and 3.9.3 sent one another on their election ports, with
/// observers, two addresses a server, groups and weights, read and written again.
#[tokio::test]
async fn captured_streams_are_read_and_written_to_the_same_bytes() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/streams/election");
    let mut notifications = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stream = std::fs::read(&path).unwrap();
        let mut rest = stream.as_slice();
        let mut again = Vec::new();
        if path.to_string_lossy().ends_with(".c2s.bin") {
            let opening = Opening::read(&mut rest).await.unwrap().unwrap();
            assert!(!opening.addresses.is_empty(), "{}", path.display());
            again = Opening::encode(opening.sid, &opening.addresses);
        }
        while !rest.is_empty() {
            let length = usize::try_from(rest.read_i32().await.unwrap()).unwrap();
            let (payload, after) = rest.split_at(length);
            rest = after;
            let notification = Notification::decode(payload).unwrap();
            let text = notification.config.as_deref().expect("the current format");
            let members = crate::config::Membership::parse_text(text).unwrap();
            assert_eq!(members.canonical_text(), text, "{}", path.display());
            again.extend(frame(&notification));
            notifications += 1;
        }
        assert!(again == stream, "{} differs", path.display());
    }
    assert!(notifications > 100, "only {notifications} notifications");
}

// ---- elections over real sockets ----

/// What each server has decided: its leader.
type Decisions = Arc<Mutex<BTreeMap<ServerId, ServerId>>>;

/// A server that does nothing but elect, until it is dropped.
async fn elect(
    sid: ServerId,
    port: ElectionPort,
    mut events: Events,
    decisions: Decisions,
    news: Arc<Notify>,
) {
    let begin = tokio::time::Instant::now();
    let now = || Instant(u64::try_from(begin.elapsed().as_millis()).unwrap());
    let verifier = QuorumVerifier::majority((1..=5).map(ServerId));
    let mut election = Election::new(ElectionConfig::new(sid, verifier, "version=0".into()));
    election.look(now(), Zxid::ZERO, Epoch(0));
    loop {
        let ready = election.ready();
        for (to, notification) in ready.send {
            port.send(to, &notification);
        }
        if let Some((_, vote)) = ready.decided {
            decisions.lock().insert(sid, vote.leader);
            news.notify_one();
        }
        let followers: BTreeSet<ServerId> = decisions
            .lock()
            .iter()
            .filter(|(_, leader)| **leader == sid)
            .map(|(follower, _)| *follower)
            .collect();
        if election.leader_is_gone() || election.quorum_is_gone(&followers) {
            decisions.lock().remove(&sid);
            election.look(now(), Zxid::ZERO, Epoch(0));
            continue;
        }
        let deadline = election
            .poll_timeout()
            .map(|at| begin + Duration::from_millis(at.0));
        let input = tokio::select! {
            event = events.recv() => match event.expect("the port is open") {
                ElectionEvent::Notification { from, notification } => Input::Notification { from, notification },
                ElectionEvent::Reachable(sid) => Input::Reachable(sid),
                ElectionEvent::Unreachable(sid) => Input::Unreachable(sid),
            },
            () = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            } => Input::Timeout,
        };
        election.step(now(), input);
    }
}

/// Waits until `servers` all name one of themselves.
async fn agreement(servers: &BTreeSet<ServerId>, decisions: &Decisions, news: &Notify) -> ServerId {
    loop {
        {
            let decisions = decisions.lock();
            let leaders: BTreeSet<Option<ServerId>> = servers
                .iter()
                .map(|sid| decisions.get(sid).copied())
                .collect();
            if let (1, Some(Some(leader))) = (leaders.len(), leaders.first())
                && servers.contains(leader)
            {
                return *leader;
            }
        }
        soon(news.notified()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn five_servers_elect_and_the_survivors_elect_again() {
    let mut ports = Vec::new();
    for sid in 1..=5 {
        ports.push(port(sid).await);
    }
    let addresses: Vec<SocketAddr> = ports.iter().map(|(port, _)| address_of(port)).collect();
    let decisions = Decisions::default();
    let news = Arc::new(Notify::new());
    let mut tasks = BTreeMap::new();
    for (sid, (port, events)) in (1..=5).zip(ports) {
        for (peer, at) in (1..=5).zip(&addresses) {
            known_at(&port, peer, *at);
        }
        let sid = ServerId(sid);
        let task = elect(sid, port, events, Arc::clone(&decisions), Arc::clone(&news));
        tasks.insert(sid, tokio::spawn(task));
    }
    let mut servers: BTreeSet<ServerId> = tasks.keys().copied().collect();
    let leader = agreement(&servers, &decisions, &news).await;

    // Its process dies: its sockets close, and its port refuses.
    tasks.remove(&leader).expect("a server").abort();
    servers.remove(&leader);
    let next = agreement(&servers, &decisions, &news).await;
    assert_ne!(next, leader);
}

#[tokio::test]
async fn a_silent_peer_is_dialled_until_it_answers() {
    // A full queue of connections is silent like a cut link: the system throws every new one away.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let here: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&here.into()).unwrap();
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let at = listener.local_addr().unwrap();
    let _first = TcpStream::connect(at).await.unwrap();

    let options = ElectionPortOptions {
        connect_timeout: Duration::from_millis(100),
        ..ElectionPortOptions::default()
    };
    let mine = [("127.0.0.1".to_owned(), 0)];
    let (port, mut events) = ElectionPort::start(ServerId(2), &mine, Vec::new(), &mine, options)
        .await
        .unwrap();
    known_at(&port, 1, at);
    port.send(ServerId(1), &notification(7));
    for _ in 0..2 {
        let told = next(&mut events).await;
        assert_eq!(told, ElectionEvent::Unreachable(ServerId(1)));
    }
    let _first = soon(listener.accept()).await.unwrap();
    // Nothing more was handed over, and it gets what was.
    let wanted = [port.shared.opening.clone(), frame(&notification(7))].concat();
    loop {
        // Connects that were given up may lie in the queue.
        let (mut stream, _) = soon(listener.accept()).await.unwrap();
        let mut got = vec![0; wanted.len()];
        if soon(stream.read_exact(&mut got)).await.is_ok() {
            assert_eq!(got, wanted);
            return;
        }
    }
}
