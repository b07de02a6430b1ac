//! Clients that never stop writing, and remember exactly what was acknowledged.
//!
//! Each client owns an ephemeral znode and sets it to 1, 2, 3 … with one write outstanding. It behaves
//! as an application's client does: when its connection breaks it attaches its session to another
//! server at once, and an outcome it does not know stays unknown. So the version of its znode must lie
//! between what was acknowledged and what was tried, on every node, whatever happened to the leader; and
//! the znode must be there as long as the session is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use zkd::ids::Zxid;

use crate::clock::now_us;
use crate::ensemble::Ensemble;
use crate::event::HexZxid;
use crate::id::NodeId;
use crate::probe::session::{Session, SessionError, Ticket};

/// The sessions must outlive an election by far.
const SESSION_TIMEOUT: Duration = Duration::from_secs(40);
/// How long a client waits for an answer before it gives the connection up.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two writes of a client.
const BREATH: Duration = Duration::from_millis(4);
/// How long a client that finds no server waits for news before it tries again by itself.
const RETRY: Duration = Duration::from_millis(5);
/// More clients than this only make load.
const CLIENTS_MAX: usize = 5;

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// When the answer arrived, by the system's clock.
    pub at_us: u64,
    /// Its zxid.
    pub zxid: HexZxid,
    /// The node that answered.
    pub node: NodeId,
}

/// What the clients lived through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Clients.
    pub clients: u64,
    /// Writes acknowledged.
    pub acked: u64,
    /// Writes whose outcome the client never learnt.
    pub unknown: u64,
    /// Connections made anew.
    pub reconnects: u64,
    /// Answers that were errors.
    pub errors: u64,
    /// Sessions that ended although their client was there.
    pub sessions_lost: u64,
}

impl Tally {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            clients: self.clients,
            acked: self.acked - earlier.acked,
            unknown: self.unknown - earlier.unknown,
            reconnects: self.reconnects - earlier.reconnects,
            errors: self.errors - earlier.errors,
            sessions_lost: self.sessions_lost - earlier.sessions_lost,
        }
    }

    fn add(&mut self, other: &Self) {
        self.clients += other.clients;
        self.acked += other.acked;
        self.unknown += other.unknown;
        self.reconnects += other.reconnects;
        self.errors += other.errors;
        self.sessions_lost += other.sessions_lost;
    }
}

/// What one client knows.
#[derive(Debug, Default)]
struct Record {
    tally: Tally,
    /// Writes to the present znode: acknowledged, and tried.
    acked: i32,
    tried: i32,
    /// The first acknowledgement of each epoch, in order.
    first_acks: Vec<Ack>,
}

/// The clients of one experiment.
#[derive(Debug)]
pub struct Clients {
    lab: Arc<Ensemble>,
    clients: Vec<(String, Arc<Mutex<Record>>)>,
    tasks: Vec<JoinHandle<Option<Session>>>,
    stop: watch::Sender<bool>,
    /// Counts acknowledgements, for those who wait.
    news: watch::Sender<u64>,
    pause: Arc<Mutex<Pause>>,
}

/// The longest time without an acknowledged write of any client.
#[derive(Clone, Copy, Debug, Default)]
struct Pause {
    last_us: u64,
    longest_us: u64,
}

impl Clients {
    /// Starts one client for each serving node (at most five).
    #[must_use]
    pub fn start(lab: &Arc<Ensemble>) -> Self {
        let stop = watch::Sender::new(false);
        let news = watch::Sender::new(0);
        let pause = Arc::new(Mutex::new(Pause::default()));
        let mut clients = Vec::new();
        let mut tasks = Vec::new();
        let serving = lab.views().into_iter().filter(|(_, view)| view.serving);
        // What an earlier experiment has left lasts until its session times out, and must not be taken for our own.
        let begin_us = now_us();
        for (home, _) in serving.take(CLIENTS_MAX) {
            let path = format!("/zklab-client-{home}-{begin_us}");
            let record = Arc::new(Mutex::new(Record::default()));
            clients.push((path.clone(), Arc::clone(&record)));
            let client = Client {
                lab: Arc::clone(lab),
                home,
                path,
                record,
                stop: stop.subscribe(),
                news: news.clone(),
                pause: Arc::clone(&pause),
                ticket: None,
            };
            tasks.push(tokio::spawn(client.run()));
        }
        Self {
            lab: Arc::clone(lab),
            clients,
            tasks,
            stop,
            news,
            pause,
        }
    }

    /// Waits until every client has had a write acknowledged.
    pub async fn warm(&self, deadline: Instant) -> bool {
        self.until(deadline, |clients| {
            clients.records().all(|record| record.tally.acked > 0)
        })
        .await
    }

    /// The first write acknowledged in an epoch above `epoch`; waits for it.
    pub async fn first_ack_above(&self, epoch: i64, deadline: Instant) -> Option<Ack> {
        let find = |clients: &Self| {
            clients
                .records()
                .flat_map(|record| record.first_acks.clone())
                .filter(|ack| Zxid(ack.zxid.0).epoch().0 > epoch)
                .min_by_key(|ack| ack.at_us)
        };
        self.until(deadline, |clients| find(clients).is_some())
            .await;
        find(self)
    }

    /// Waits until every client has had a write acknowledged in an epoch above `epoch`.
    pub async fn all_above(&self, epoch: i64, deadline: Instant) -> bool {
        self.until(deadline, |clients| {
            clients.records().all(|record| {
                let newest = record.first_acks.last();
                newest.is_some_and(|ack| Zxid(ack.zxid.0).epoch().0 > epoch)
            })
        })
        .await
    }

    async fn until(&self, deadline: Instant, condition: impl Fn(&Self) -> bool) -> bool {
        let mut news = self.news.subscribe();
        loop {
            if condition(self) {
                return true;
            }
            if tokio::time::timeout_at(deadline, news.changed())
                .await
                .is_err()
            {
                return condition(self);
            }
        }
    }

    fn records(&self) -> impl Iterator<Item = std::sync::MutexGuard<'_, Record>> {
        self.clients.iter().map(|(_, record)| lock(record))
    }

    /// The longest time between two acknowledged writes, whoever's they were, in microseconds.
    ///
    /// # Panics
    /// Never: nobody panics while holding it.
    #[must_use]
    pub fn longest_pause_us(&self) -> u64 {
        self.pause
            .lock()
            .expect("nobody panics while holding the pause")
            .longest_us
    }

    /// The sum over all clients.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for record in self.records() {
            sum.add(&record.tally);
        }
        sum
    }

    /// Stops writing, reads every client's znode on every serving node, and ends the sessions. The
    /// findings, one line each, are what no server may do; none is the good outcome.
    pub async fn finish(mut self) -> (Tally, Vec<String>) {
        self.stop.send_replace(true);
        let lab = Arc::clone(&self.lab);
        let clients = std::mem::take(&mut self.clients);
        let tasks = std::mem::take(&mut self.tasks);
        let mut sessions = Vec::new();
        for task in tasks {
            sessions.push(task.await.ok().flatten());
        }
        let mut findings = Vec::new();
        let serving = lab.views().into_iter().filter(|(_, view)| view.serving);
        for (node, _) in serving {
            match verify(&clients, lab.net.client(node)).await {
                Ok(found) => findings.extend(found.into_iter().map(|f| format!("{node}: {f}"))),
                Err(error) => tracing::warn!(%node, %error, "could not be read at the end"),
            }
        }
        for session in sessions.into_iter().flatten() {
            // The znode ends with the session; if the server is gone, with its timeout.
            let _ = session.close().await;
        }
        let mut sum = Tally::default();
        for (_, record) in &clients {
            sum.add(&lock(record).tally);
        }
        (sum, findings)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // An experiment that was given up must not go on writing.
        self.stop.send_replace(true);
    }
}

fn lock(record: &Mutex<Record>) -> std::sync::MutexGuard<'_, Record> {
    record
        .lock()
        .expect("nobody panics while holding a client's record")
}

/// Compares what a node has with what the clients know.
async fn verify(
    clients: &[(String, Arc<Mutex<Record>>)],
    address: SocketAddr,
) -> Result<Vec<String>, SessionError> {
    let mut session = Session::open(address, SESSION_TIMEOUT, None, PATIENCE).await?;
    session.sync("/").await?;
    let mut findings = Vec::new();
    for (path, record) in clients {
        let (acked, tried) = {
            let record = lock(record);
            (record.acked, record.tried)
        };
        if tried == 0 {
            continue;
        }
        match session.get(path).await {
            Ok(found) => {
                let version = found.stat.version;
                if version < acked {
                    findings.push(format!(
                        "{path} has version {version}, but {acked} writes were acknowledged"
                    ));
                } else if version > tried {
                    findings.push(format!(
                        "{path} has version {version}, but only {tried} writes were tried"
                    ));
                }
            }
            Err(SessionError::Refused(code)) => findings.push(format!(
                "{path} is gone (error {code}) although its session lives"
            )),
            Err(error) => return Err(error),
        }
    }
    // Its session has no ephemerals; if this fails it ends with its timeout.
    let _ = session.close().await;
    Ok(findings)
}

/// One client.
#[derive(Debug)]
struct Client {
    lab: Arc<Ensemble>,
    /// The node it likes best.
    home: NodeId,
    path: String,
    record: Arc<Mutex<Record>>,
    stop: watch::Receiver<bool>,
    news: watch::Sender<u64>,
    pause: Arc<Mutex<Pause>>,
    ticket: Option<Ticket>,
}

impl Client {
    /// Writes until it is told to stop; its session, if it has a connection then.
    async fn run(mut self) -> Option<Session> {
        lock(&self.record).tally.clients = 1;
        let mut connected = false;
        while !*self.stop.borrow() {
            let Some((node, mut session)) = self.connect().await else {
                continue;
            };
            if std::mem::replace(&mut connected, true) {
                lock(&self.record).tally.reconnects += 1;
            }
            let end = self.write(node, &mut session).await;
            self.ticket = Some(session.ticket());
            match end {
                None => return Some(session),
                Some(SessionError::Expired) => self.lose_session(),
                Some(SessionError::Refused(_) | SessionError::Garbled(_)) => {
                    lock(&self.record).tally.errors += 1;
                }
                Some(SessionError::Broken(_) | SessionError::Silent) => {}
            }
        }
        None
    }

    /// Sets the znode again and again; `None` when told to stop.
    async fn write(&mut self, node: NodeId, session: &mut Session) -> Option<SessionError> {
        if lock(&self.record).tried == 0 && lock(&self.record).tally.acked == 0 {
            match session.create_ephemeral(&self.path, b"0").await {
                Ok(zxid) => self.acknowledged(node, zxid, false),
                Err(SessionError::Refused(code)) if code == NODE_EXISTS => {}
                Err(error) => return Some(error),
            }
        }
        while !*self.stop.borrow() {
            let value = {
                let mut record = lock(&self.record);
                record.tried += 1;
                record.tried
            };
            match session.set(&self.path, value.to_string().as_bytes()).await {
                Ok((zxid, _)) => self.acknowledged(node, zxid, true),
                Err(error) => {
                    lock(&self.record).tally.unknown += 1;
                    return Some(error);
                }
            }
            tokio::time::sleep(BREATH).await;
        }
        None
    }

    fn acknowledged(&self, node: NodeId, zxid: Zxid, set: bool) {
        let ack = Ack {
            at_us: now_us(),
            zxid: HexZxid(zxid.0),
            node,
        };
        let mut record = lock(&self.record);
        record.tally.acked += 1;
        record.acked += i32::from(set);
        let newest = record.first_acks.last().map(|ack| Zxid(ack.zxid.0).epoch());
        if newest != Some(zxid.epoch()) {
            record.first_acks.push(ack);
        }
        drop(record);
        let mut pause = self
            .pause
            .lock()
            .expect("nobody panics while holding the pause");
        if pause.last_us > 0 {
            let length_us = ack.at_us.saturating_sub(pause.last_us);
            pause.longest_us = pause.longest_us.max(length_us);
        }
        pause.last_us = ack.at_us;
        drop(pause);
        self.news.send_modify(|count| *count += 1);
    }

    /// The session ended, and the znode with it: the count starts anew.
    fn lose_session(&mut self) {
        self.ticket = None;
        let mut record = lock(&self.record);
        record.tally.sessions_lost += 1;
        record.acked = 0;
        record.tried = 0;
        record.tally.acked = 0;
    }

    /// Attaches to a serving node: its home if that serves, else any; waits for news if none does.
    async fn connect(&mut self) -> Option<(NodeId, Session)> {
        let mut news = self.lab.journal.subscribe();
        for node in self.candidates() {
            let address = self.lab.net.client(node);
            let opened =
                Session::open(address, SESSION_TIMEOUT, self.ticket.as_ref(), PATIENCE).await;
            match opened {
                Ok(session) => return Some((node, session)),
                Err(SessionError::Expired) => self.lose_session(),
                Err(_) => {}
            }
        }
        // Whether there is news or not, the next round tries again.
        let _ = tokio::time::timeout(RETRY, news.changed()).await;
        None
    }

    fn candidates(&self) -> Vec<NodeId> {
        let mut serving: Vec<NodeId> = self
            .lab
            .views()
            .into_iter()
            .filter(|(_, view)| view.serving)
            .map(|(id, _)| id)
            .collect();
        serving.sort_by_key(|id| *id != self.home);
        serving
    }
}

/// `KeeperException.NodeExists`.
const NODE_EXISTS: i32 = -110;
