//! A client of the load that goes through the `zookeeper-client` crate, as applications do.
//!
//! The crate is an implementation of the protocol that neither zkd nor the lab's own client shares a line with, so a
//! mistake that those two have in common is seen here. It tells less: no zxid beside a Stat, no connections, and of the
//! order on the wire only what was there when something else was. So this writes down what it can stand for:
//!
//! - `z` is the zxid of a Stat that a write brought back; reads, refusals, deletes, syncs and closes have none.
//! - All connections of a session are one, for the crate goes on with its watches by itself.
//! - Events that could be had when an answer was are written before it. One that came on the wire before an answer always
//!   could be: the crate works on one frame after the other. One that came behind it may stand before it, which no rule
//!   minds.
//! - `t1` is when the answer was taken from the crate, somewhat later than it came.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use zkd::error::ErrorCode;
use zkd::ids::{SessionId, Zxid};
use zkd::record::data::Stat;
use zookeeper_client::{
    Acls, Client, Connector, CreateMode, Error, EventType, MultiWriteError, MultiWriteResult,
    OneshotWatcher, SessionInfo, SessionState, StateWatcher, WatchedEvent,
};

use super::ask::{self, Ask, Told};
use super::chooser::Chooser;
use super::client::{BEAT, WINDOW};
use super::mix::{Mix, Work};
use super::recorder::Recorder;
use super::reins::Reins;
use crate::clock::now_us;
use crate::observe::history::{EventLine, Happened, Kind, Line, MarkLine, Outcome};

/// The crate's session is one connection to the history.
const CONN: u32 = 1;

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What the crate says of a request: what was told or the error number, and a watch if one was left.
type Answer = Result<(Result<Told, i32>, Option<OneshotWatcher>), Error>;

/// A request that waits for its answer.
struct Waiting {
    id: u32,
    xid: i32,
    t0: u64,
    ask: Ask,
    answer: Later<Answer>,
    done: Option<Answer>,
}

/// A session.
struct Attached {
    client: Client,
    states: StateWatcher,
    state: SessionState,
    id: SessionId,
    /// Answers and events so far.
    pos: u32,
    waiting: VecDeque<Waiting>,
    watches: Vec<(String, Later<WatchedEvent>)>,
}

/// A client through the crate.
pub(super) struct Foreign {
    number: u32,
    cluster: String,
    timeout: Duration,
    recorder: Arc<Recorder>,
    chooser: Chooser,
    session: Option<Attached>,
    /// The crate says that this one is over; it says so of itself, too, when no server took it for long.
    doubtful: Option<SessionInfo>,
    next_xid: i32,
}

impl Foreign {
    pub(super) fn new(
        number: u32,
        addresses: &[std::net::SocketAddr],
        timeout: Duration,
        recorder: Arc<Recorder>,
        mut chooser: Chooser,
    ) -> Self {
        let mut addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        // The crate tries them in this order, so each client gets one of its own.
        for last in (1..addresses.len()).rev() {
            let other = chooser.prng.below(last as u64 + 1);
            addresses.swap(last, usize::try_from(other).unwrap_or_default());
        }
        Self {
            number,
            cluster: addresses.join(","),
            timeout,
            recorder,
            chooser,
            session: None,
            doubtful: None,
            next_xid: 1,
        }
    }

    /// Works until the time is over, then ends its session; gives up when no server takes it for `grace` after that.
    pub(super) async fn work(mut self, mix: Mix, every: Duration, reins: Reins, grace: Duration) {
        let mut due = Instant::now() + every.mul_f64(f64::from(self.number % 16) / 16.0);
        while Instant::now() < reins.until() + grace {
            let is_over = Instant::now() >= reins.until();
            let Some(session) = &mut self.session else {
                if is_over {
                    return;
                }
                self.connect(reins.until() + grace).await;
                continue;
            };
            if is_over && session.waiting.is_empty() {
                return self.close(reins.until() + grace).await;
            }
            // The crate keeps what is asked between two connections for the next one; that would be no load.
            let is_connected = session.client.state() == SessionState::SyncConnected;
            let has_room = !is_over && session.waiting.len() < WINDOW && is_connected;
            tokio::select! {
                () = poll_fn(|context| session.poll(context)) => {}
                () = sleep_until(due), if has_room => {
                    due = (due + every).max(Instant::now().checked_sub(BEAT).unwrap_or(due));
                    self.next(&mix);
                }
                () = sleep(BEAT) => {}
            }
            self.take();
            self.look();
        }
        self.lost();
    }

    async fn connect(&mut self, until: Instant) {
        if let Some(doubtful) = self.doubtful.take() {
            self.settle(doubtful, until).await;
        }
        let connecting = connector(self.timeout).connect(&self.cluster);
        match timeout_at(until, connecting).await {
            Ok(Ok(client)) => {
                let mut states = client.state_watcher();
                self.session = Some(Attached {
                    states: states.clone(),
                    state: states.state(),
                    id: SessionId(client.session_id().0),
                    client,
                    pos: 0,
                    waiting: VecDeque::new(),
                    watches: Vec::new(),
                });
                self.next_xid = 1;
                self.mark(Line::Open);
            }
            _ => sleep(Duration::from_millis(self.chooser.prng.between(5, 40))).await,
        }
    }

    /// Asks the servers whether the session is over. If it is not, it ends here: the crate has lost its watches.
    async fn settle(&mut self, session: SessionInfo, until: Instant) {
        let mark = MarkLine {
            client: self.number,
            session: SessionId(session.id().0),
            conn: 0,
            at: now_us(),
            node: "",
        };
        let again = connector(self.timeout).with_session(session);
        if let Ok(Err(Error::SessionExpired)) =
            timeout_at(until, again.connect(&self.cluster)).await
        {
            self.recorder.write(&Line::Expired(mark));
        }
    }

    fn mark<'a>(&self, line: impl FnOnce(MarkLine<'a>) -> Line<'a>) {
        if let Some(session) = &self.session {
            self.recorder.write(&line(MarkLine {
                client: self.number,
                session: session.id,
                conn: CONN,
                at: now_us(),
                node: "",
            }));
        }
    }

    /// Asks for the next thing.
    fn next(&mut self, mix: &Mix) {
        let work = mix.pick(&mut self.chooser.prng);
        let ask = self.chooser.choose(work);
        let again = (work == Work::Sync).then(|| Ask::new(Kind::Get, self.chooser.register()));
        for ask in [Some(ask), again].into_iter().flatten() {
            self.ask(ask);
        }
    }

    fn ask(&mut self, mut ask: Ask) {
        let Some(session) = &mut self.session else {
            return;
        };
        // The crate gives every read an event of its own, where the protocol has one for all.
        let is_watched = session.watches.iter().any(|(path, _)| *path == ask.path)
            || session
                .waiting
                .iter()
                .any(|other| other.ask.watch && other.ask.path == ask.path);
        ask.watch &= !is_watched;
        let (id, xid) = (self.recorder.next_id(), self.next_xid);
        self.next_xid += 1;
        session.waiting.push_back(Waiting {
            id,
            xid,
            t0: now_us(),
            answer: Box::pin(perform(session.client.clone(), ask.clone(), id)),
            ask,
            done: None,
        });
        // The crate sends when it is asked for the answer the first time, so this has to be now and in order.
        if let Some(last) = session.waiting.back_mut() {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            if let Poll::Ready(answer) = last.answer.as_mut().poll(&mut context) {
                last.done = Some(answer);
            }
        }
    }

    /// Writes down every answer that is there, and before each the events that are.
    fn take(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        while let Some(at) = session.waiting.iter().position(|one| one.done.is_some()) {
            session.events(self.number, &self.recorder);
            let Some(Waiting {
                id,
                xid,
                t0,
                ask,
                done: Some(answer),
                ..
            }) = session.waiting.remove(at)
            else {
                return;
            };
            let nothing = Told::default();
            let mut line = ask.line(id);
            (line.client, line.session, line.conn) = (self.number, session.id, CONN);
            (line.xid, line.t0) = (xid, t0);
            let mut seen = None;
            if let Ok((told, watch)) = &answer {
                session.pos += 1;
                (line.t1, line.pos) = (now_us(), session.pos);
                match told {
                    Ok(told) => {
                        told.fill(&mut line, 0);
                        line.zxid = told.zxid;
                        seen = told.version();
                    }
                    Err(code) => nothing.fill(&mut line, *code),
                }
                line.watch = watch.is_some();
            }
            self.recorder.op(&line);
            if let Some(version) = seen {
                self.chooser.saw(ask.path.clone(), version);
            }
            if let Ok((_, Some(watch))) = answer {
                session.watches.push((ask.path, Box::pin(watch.changed())));
            }
        }
        session.events(self.number, &self.recorder);
    }

    /// Sees what became of the session.
    fn look(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        let state = session.client.state();
        let before = std::mem::replace(&mut session.state, state);
        match state {
            SessionState::SyncConnected if before == SessionState::Disconnected => {
                self.mark(Line::Open);
            }
            SessionState::Disconnected if before != state => self.mark(Line::Lost),
            _ if state.is_terminated() => {
                self.doubtful = Some(session.client.session().clone());
                self.lost();
            }
            _ => {}
        }
    }

    /// The session is given up; what was not answered stays unknown.
    fn lost(&mut self) {
        self.mark(Line::Lost);
        let Some(session) = self.session.take() else {
            return;
        };
        for one in session.waiting {
            let mut line = one.ask.line(one.id);
            (line.client, line.session, line.conn) = (self.number, session.id, CONN);
            (line.xid, line.t0) = (one.xid, one.t0);
            self.recorder.op(&line);
        }
    }

    /// Ends the session. The crate closes it when the last of its handles goes, and says so by a state.
    async fn close(mut self, until: Instant) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        let ask = Ask::new(Kind::Close, "");
        let mut line = ask.line(self.recorder.next_id());
        (line.client, line.session, line.conn) = (self.number, session.id, CONN);
        (line.xid, line.t0) = (self.next_xid, now_us());
        let was_connected = session.client.state() == SessionState::SyncConnected;
        let granted = session.client.session_timeout();
        drop(session.client);
        let closed = async {
            loop {
                let state = session.states.changed().await;
                if state.is_terminated() {
                    return state;
                }
            }
        };
        // Later it could be the crate that gave up, and not a server that answered.
        let patience = (granted / 2).min(until.saturating_duration_since(Instant::now()));
        if let Ok(SessionState::Closed) = timeout(patience, closed).await
            && was_connected
        {
            session.pos += 1;
            (line.t1, line.pos, line.outcome) = (now_us(), session.pos, Outcome::Ok);
        }
        self.recorder.op(&line);
    }
}

impl Attached {
    /// Ready when an answer or an event is there.
    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<()> {
        let look = |waiting: &mut VecDeque<Waiting>, context: &mut std::task::Context<'_>| {
            let mut last = None;
            for (index, one) in waiting.iter_mut().enumerate() {
                if one.done.is_none()
                    && let Poll::Ready(answer) = one.answer.as_mut().poll(context)
                {
                    one.done = Some(answer);
                }
                last = one.done.is_some().then_some(index).or(last);
            }
            last
        };
        // An answer that came between the looks at two others must not seem to be missing: only what is missing at the
        // second look, too, was overtaken.
        if look(&mut self.waiting, context).is_some() {
            look(&mut self.waiting, context);
            return Poll::Ready(());
        }
        let mut any = false;
        for (_, watch) in &mut self.watches {
            if let Poll::Ready(event) = watch.as_mut().poll(context) {
                any = true;
                *watch = Box::pin(std::future::ready(event));
            }
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Writes down the events that are there.
    fn events(&mut self, client: u32, recorder: &Recorder) {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let (id, pos) = (self.id, &mut self.pos);
        self.watches.retain_mut(|(path, watch)| {
            let Poll::Ready(event) = watch.as_mut().poll(&mut context) else {
                return true;
            };
            let what = match event.event_type {
                EventType::NodeCreated => Happened::Created,
                EventType::NodeDeleted => Happened::Deleted,
                EventType::NodeDataChanged => Happened::Changed,
                EventType::NodeChildrenChanged => Happened::Children,
                // The session is over, and the watch with it.
                EventType::Session => return false,
            };
            *pos += 1;
            recorder.write(&Line::Event(EventLine {
                client,
                session: id,
                conn: CONN,
                pos: *pos,
                at: now_us(),
                what,
                path,
                zxid: Zxid(event.zxid),
            }));
            false
        });
    }
}

fn connector(timeout: Duration) -> Connector {
    Client::connector().with_session_timeout(timeout)
}

/// Carries out a request. Only errors that a server gave for this request are answers; after any other nobody knows.
async fn perform(client: Client, ask: Ask, id: u32) -> Answer {
    let data = ask::data(id);
    let expected = (ask.expected != -1).then_some(ask.expected);
    let done = match ask.kind {
        Kind::Get | Kind::Exists | Kind::Children if ask.watch => {
            look_and_watch(&client, &ask).await
        }
        _ => {
            let told = match ask.kind {
                Kind::Get | Kind::Exists | Kind::Children => look(&client, &ask).await,
                Kind::Set => {
                    let set = client.set_data(&ask.path, &data, expected).await;
                    set.map(|stat| written(&stat))
                }
                Kind::Create => create(&client, &ask, &data).await,
                Kind::Delete => {
                    let deleted = client.delete(&ask.path, expected).await;
                    deleted.map(|()| Told::default())
                }
                Kind::Multi => multi(&client, &ask, &data).await,
                Kind::Sync => client.sync(&ask.path).await.map(|()| Told::default()),
                // Never asked for in this way.
                Kind::Check | Kind::Close | Kind::Persistent | Kind::Recursive | Kind::Rewatch => {
                    Err(Error::Unimplemented)
                }
            };
            told.map(|told| (Ok(told), None))
        }
    };
    done.or_else(|error| match refusal(&error) {
        Some(code) => Ok((Err(code.code()), None)),
        None => Err(error),
    })
}

async fn look(client: &Client, ask: &Ask) -> Result<Told, Error> {
    match ask.kind {
        Kind::Get => {
            let (data, stat) = client.get_data(&ask.path).await?;
            Ok(read(&data, &stat))
        }
        Kind::Children => {
            let (names, stat) = client.get_children(&ask.path).await?;
            Ok(listed(&names, &stat))
        }
        _ => {
            let stat = client.check_stat(&ask.path).await?;
            stat.map(|stat| shown(&stat)).ok_or(Error::NoNode)
        }
    }
}

async fn look_and_watch(client: &Client, ask: &Ask) -> Answer {
    match ask.kind {
        Kind::Get => {
            let (data, stat, watcher) = client.get_and_watch_data(&ask.path).await?;
            Ok((Ok(read(&data, &stat)), Some(watcher)))
        }
        Kind::Children => {
            let (names, stat, watcher) = client.get_and_watch_children(&ask.path).await?;
            Ok((Ok(listed(&names, &stat)), Some(watcher)))
        }
        _ => {
            // A watch on a znode that is not there is left, too.
            let (stat, watcher) = client.check_and_watch_stat(&ask.path).await?;
            let told = stat.map(|stat| shown(&stat));
            Ok((told.ok_or(ErrorCode::NoNode.code()), Some(watcher)))
        }
    }
}

async fn create(client: &Client, ask: &Ask, data: &[u8]) -> Result<Told, Error> {
    let mode = match (ask.ephemeral, ask.sequential) {
        (false, false) => CreateMode::Persistent,
        (false, true) => CreateMode::PersistentSequential,
        (true, false) => CreateMode::Ephemeral,
        (true, true) => CreateMode::EphemeralSequential,
    };
    let options = mode.with_acls(Acls::anyone_all());
    let (stat, sequence) = client.create(&ask.path, data, &options).await?;
    let made = ask.sequential.then(|| format!("{}{sequence}", ask.path));
    Ok(Told {
        made,
        ..written(&stat)
    })
}

async fn multi(client: &Client, ask: &Ask, data: &[u8]) -> Result<Told, Error> {
    let mut writer = client.new_multi_writer();
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    for part in &ask.parts {
        let expected = (part.expected != -1).then_some(part.expected);
        match part.kind {
            Kind::Set => writer.add_set_data(&part.path, data, expected)?,
            Kind::Create => writer.add_create(&part.path, data, &options)?,
            Kind::Delete => writer.add_delete(&part.path, expected)?,
            _ => writer.add_check_version(&part.path, part.expected)?,
        }
    }
    let results = match writer.commit().await {
        Ok(results) => results,
        Err(
            MultiWriteError::RequestFailed { source }
            | MultiWriteError::OperationFailed { source, .. },
        ) => {
            return Err(source);
        }
    };
    let mut told = Told::default();
    for result in results {
        let stat = match result {
            MultiWriteResult::SetData { stat } | MultiWriteResult::Create { stat, .. } => {
                Some(stat)
            }
            _ => None,
        };
        told.versions.push(stat.map_or(-1, |stat| stat.version));
        // All parts have the same zxid.
        told.zxid = stat.map_or(told.zxid, |stat| Zxid(stat.mzxid));
    }
    Ok(told)
}

fn read(data: &[u8], stat: &zookeeper_client::Stat) -> Told {
    Told {
        value: ask::value(Some(data)),
        ..shown(stat)
    }
}

fn listed(names: &[String], stat: &zookeeper_client::Stat) -> Told {
    Told {
        kids: Some(names.join(",")),
        ..shown(stat)
    }
}

fn shown(stat: &zookeeper_client::Stat) -> Told {
    Told {
        stat: Some(of_stat(stat)),
        ..Told::default()
    }
}

/// The zxid of a write is in the Stat that it brought back.
fn written(stat: &zookeeper_client::Stat) -> Told {
    Told {
        zxid: Zxid(stat.mzxid),
        ..shown(stat)
    }
}

fn of_stat(stat: &zookeeper_client::Stat) -> Stat {
    Stat {
        czxid: Zxid(stat.czxid),
        mzxid: Zxid(stat.mzxid),
        ctime: stat.ctime,
        mtime: stat.mtime,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        ephemeral_owner: SessionId(stat.ephemeral_owner),
        data_length: stat.data_length,
        num_children: stat.num_children,
        pzxid: Zxid(stat.pzxid),
    }
}

/// The number of an error that only a server gives.
fn refusal(error: &Error) -> Option<ErrorCode> {
    Some(match error {
        Error::NoNode => ErrorCode::NoNode,
        Error::BadVersion => ErrorCode::BadVersion,
        Error::NoChildrenForEphemerals => ErrorCode::NoChildrenForEphemerals,
        Error::NodeExists => ErrorCode::NodeExists,
        Error::NotEmpty => ErrorCode::NotEmpty,
        _ => return None,
    })
}
