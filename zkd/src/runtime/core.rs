//! The driver of the peer: inputs in, [`Ready`] out, in field order. It holds no decision about the
//! protocol.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::event::{PeerEvent, ServerState};
use crate::peer::{Batch, Control, Envelope, Input, PeerConfig, QuorumPeer, Ready};
use crate::pipeline::{Submit, ZkServer};
use crate::status::{LeaderStatus, ZabPhase};
use crate::storage::StorageError;
use crate::time::Instant;
use crate::zab::{Mark, Outgoing};

use super::clock;
use super::election_port::ElectionPort;
use super::feed::Feed;
use super::links::Links;
use super::meter::Meter;
use super::storage_thread::{Job, StorageThread};

/// Inputs taken in one turn before the outcome is carried out.
const TURN_MAX: usize = 512;
/// A deadline seen this late means that the process itself was stalled (stopped, swapped out, starved).
/// What lies in the sockets is then read before the deadline is judged.
const STALL: Duration = Duration::from_millis(40);
/// How long the sockets get for that.
const STALL_GRACE: Duration = Duration::from_millis(10);

/// A server that is told to stop waits so long for its disk while learners keep it busy.
const STOP_WITHIN: Duration = Duration::from_secs(1);
/// How long the connections may take to send what is ready when the server ends.
const GOODBYE_WITHIN: Duration = Duration::from_millis(100);

/// What reaches the core.
pub(super) enum CoreInput {
    /// For the peer.
    Peer(Input),
    /// For the peer, from another server; the permit is the room it takes in its sender's share of the
    /// queue.
    Limited(Input, OwnedSemaphorePermit),
    /// Writes and syncs of one client connection.
    Submits(Vec<Submit>),
    /// What is the state? For the four-letter words.
    Status(oneshot::Sender<PeerStatus>),
    /// The disk failed.
    StorageFailed(StorageError),
    /// Finish what is in flight and end.
    Shutdown,
}

/// The peer's part of a status.
#[derive(Clone, Debug)]
pub(super) struct PeerStatus {
    /// In ZooKeeper's words.
    pub(super) state: ServerState,
    /// Where it is in Zab.
    pub(super) phase: ZabPhase,
    /// Since when clients are served.
    pub(super) serving_since: Instant,
    /// What only a leader knows.
    pub(super) leader: Option<LeaderStatus>,
}

/// Hands inputs to the core. The queue itself has no limit, because every sender has one: a client
/// connection its outstanding requests, the storage thread its marks in flight, a quorum link and the
/// election port the room they ask for before each input ([`CoreSender::limited`]).
#[derive(Clone)]
pub(super) struct CoreSender(mpsc::UnboundedSender<CoreInput>);

impl CoreSender {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<CoreInput>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// An input for the peer. After the core has ended nobody needs it.
    pub(super) fn peer(&self, input: Input) {
        let _ = self.0.send(CoreInput::Peer(input));
    }

    /// An input for the peer that gives its room back when the core takes it.
    pub(super) fn limited(&self, input: Input, room: OwnedSemaphorePermit) {
        let _ = self.0.send(CoreInput::Limited(input, room));
    }

    pub(super) fn storage_failed(&self, error: StorageError) {
        let _ = self.0.send(CoreInput::StorageFailed(error));
    }

    pub(super) fn shutdown(&self) {
        let _ = self.0.send(CoreInput::Shutdown);
    }

    /// Asks for the status; `None` if the core has ended.
    pub(super) async fn status(&self) -> Option<PeerStatus> {
        let (answer, asked) = oneshot::channel();
        self.0.send(CoreInput::Status(answer)).ok()?;
        asked.await.ok()
    }
}

/// What one connection asks for goes on its way as one input.
impl Extend<Submit> for &CoreSender {
    fn extend<T: IntoIterator<Item = Submit>>(&mut self, submits: T) {
        let submits = submits.into_iter().collect();
        let _ = self.0.send(CoreInput::Submits(submits));
    }
}

/// Why the core ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) reason: String,
}

/// Everything the driver drives.
pub(super) struct Core {
    pub(super) peer: QuorumPeer,
    pub(super) config: PeerConfig,
    pub(super) server: Arc<ZkServer>,
    pub(super) storage: StorageThread,
    pub(super) links: Arc<Links>,
    pub(super) election: Option<ElectionPort>,
    pub(super) feed: Feed,
    pub(super) meter: Meter,
    /// Batches on their way to the disk, oldest first, with what waits for them.
    pub(super) in_flight: VecDeque<(Mark, Vec<Envelope>)>,
    /// When the server began to serve in its role.
    pub(super) serving_since: Instant,
    /// `leaderServes`.
    pub(super) leader_serves: bool,
}

impl Core {
    /// Drives the peer until it ends or is told to.
    pub(super) async fn run(mut self, mut inputs: mpsc::UnboundedReceiver<CoreInput>) -> Ended {
        self.peer.start(clock::now());
        let mut ended = self.carry_out();
        let mut turn = Vec::with_capacity(TURN_MAX);
        let mut stop_by = None;
        while ended.is_none() {
            if let Some(by) = stop_by
                && (self.in_flight.is_empty() || StdInstant::now() >= by)
            {
                ended = Some(Ended {
                    code: 0,
                    reason: "told to stop".to_owned(),
                });
                break;
            }
            let deadline = self.peer.poll_timeout();
            let wake = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(clock::tokio_deadline(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                received = inputs.recv_many(&mut turn, TURN_MAX) => {
                    if received == 0 {
                        break;
                    }
                }
                () = wake => self.grant_grace(deadline, &mut inputs, &mut turn).await,
            }
            for input in turn.drain(..) {
                // Nothing new is begun by a server that was told to stop, or a busy one never would.
                if stop_by.is_some() && matches!(input, CoreInput::Submits(_)) {
                    continue;
                }
                match self.take(input) {
                    Taken::Done => {}
                    Taken::Stop => stop_by = Some(StdInstant::now() + STOP_WITHIN),
                    Taken::Ended(why) => ended = Some(why),
                }
            }
            if ended.is_none() {
                self.step_deadline();
                ended = self.carry_out();
            }
        }
        let ended = ended.unwrap_or(Ended {
            code: 1,
            reason: "the core lost its inputs".to_owned(),
        });
        self.end(&ended).await;
        ended
    }

    async fn end(self, ended: &Ended) {
        let Self {
            server,
            storage,
            mut feed,
            ..
        } = self;
        server.stop_serving(ServerState::Looking);
        // The answers that are ready leave before the process does, unless a client does not take them.
        let goodbye = async {
            while server.stats().connections > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await;
        storage.stop();
        feed.tell(PeerEvent::Stopping {
            reason: ended.reason.clone(),
            code: ended.code,
        });
    }

    /// If the deadline is seen far too late, reads what came meanwhile before it is judged.
    async fn grant_grace(
        &mut self,
        deadline: Option<Instant>,
        inputs: &mut mpsc::UnboundedReceiver<CoreInput>,
        turn: &mut Vec<CoreInput>,
    ) {
        let Some(deadline) = deadline else { return };
        let late = clock::now().instant.ms_since(deadline);
        if u128::from(late) >= STALL.as_millis() {
            tracing::warn!(
                late_ms = late,
                "this process was stalled; sockets are read before deadlines are judged"
            );
            tokio::time::sleep(STALL_GRACE).await;
            while turn.len() < TURN_MAX
                && let Ok(input) = inputs.try_recv()
            {
                turn.push(input);
            }
        }
    }

    fn step_deadline(&mut self) {
        let now = clock::now();
        if self.peer.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.peer.step(now, Input::Timeout);
        }
    }

    fn take(&mut self, input: CoreInput) -> Taken {
        match input {
            CoreInput::Peer(input) => self.step(input),
            CoreInput::Limited(input, room) => {
                drop(room);
                self.step(input);
            }
            CoreInput::Submits(submits) => {
                let now = clock::now();
                for submit in submits {
                    self.peer.step(now, submit_input(submit));
                }
            }
            CoreInput::Status(answer) => {
                let _ = answer.send(self.status());
            }
            CoreInput::StorageFailed(error) => {
                tracing::error!(%error, "the disk failed; this server stops");
                return Taken::Ended(Ended {
                    code: 3,
                    reason: error.to_string(),
                });
            }
            CoreInput::Shutdown => return Taken::Stop,
        }
        Taken::Done
    }

    fn step(&mut self, input: Input) {
        let finished = match &input {
            Input::Wrote(mark) | Input::Reloaded(mark, _) => Some(*mark),
            _ => None,
        };
        if let Some(mark) = finished {
            while let Some((batch, _)) = self.in_flight.front()
                && *batch <= mark
            {
                let (_, waiting) = self
                    .in_flight
                    .pop_front()
                    .expect("the front was just looked at");
                for envelope in waiting {
                    self.send(envelope);
                }
            }
        }
        self.meter.see_input(&input);
        self.peer.step(clock::now(), input);
    }

    /// Walks down what the peer wants done, in field order.
    fn carry_out(&mut self) -> Option<Ended> {
        let ready = self.peer.ready();
        self.meter
            .see_ready(&ready, self.peer.state(), clock::now());
        let Ready {
            control,
            send,
            batches,
            deliver,
            replay,
            serve,
            events,
            exit,
        } = ready;
        for control in control {
            self.control(control);
        }
        for envelope in send {
            self.send(envelope);
        }
        for Batch {
            write,
            mark,
            send_after_write,
        } in batches
        {
            self.in_flight.push_back((mark, send_after_write));
            self.storage.push(Job::Batch(write, mark));
        }
        for applied in [deliver, replay] {
            if !applied.is_empty() {
                self.server.apply(&applied, clock::now());
            }
        }
        if let Some(serving) = serve {
            serving.carry_out(&self.server, self.leader_serves);
            self.serving_since = clock::now().instant;
        }
        for event in events {
            self.feed.tell(event);
        }
        exit.map(|(code, reason)| Ended { code, reason })
    }

    fn control(&mut self, control: Control) {
        match control {
            Control::ConnectLeader(link, leader) => {
                let Some(spec) = self.config.members.servers.get(&leader) else {
                    tracing::warn!(%leader, "the elected leader is not a member");
                    return;
                };
                let at = spec
                    .addresses
                    .iter()
                    .map(|a| (a.host.clone(), a.quorum_port))
                    .collect();
                let budget = Duration::from_millis(
                    self.config.tick_time_ms * u64::from(self.config.init_limit),
                );
                self.links.dial(link, leader, at, budget);
            }
            Control::CloseLeader(link) | Control::CloseLearner(link) => self.links.close(link),
            Control::Reload(mark) => self.storage.push(Job::Reload(mark)),
        }
    }

    fn send(&mut self, envelope: Envelope) {
        match envelope {
            Envelope::Election(to, notification) => {
                if let Some(election) = &self.election {
                    election.send(to, &notification);
                }
            }
            Envelope::Learner(link, outgoing) => self.links.send(link, &outgoing),
            Envelope::Leader(link, packet) => self.links.send(link, &Outgoing::Packet(packet)),
        }
    }

    fn status(&self) -> PeerStatus {
        PeerStatus {
            state: self.peer.state(),
            phase: super::status::phase(self.peer.zab_state()),
            serving_since: self.serving_since,
            leader: self.peer.leading().map(|leader| LeaderStatus {
                uptime_ms: clock::now().instant.ms_since(self.serving_since),
                proposal_sizes: self.meter.proposal_sizes(),
                ..super::status::leader_status(leader)
            }),
        }
    }
}

enum Taken {
    Done,
    Stop,
    Ended(Ended),
}

fn submit_input(submit: Submit) -> Input {
    match submit {
        Submit::Request(request) => Input::Request(request),
        Submit::Revalidate {
            session,
            timeout_ms,
        } => Input::Revalidate {
            session,
            timeout_ms,
        },
    }
}
