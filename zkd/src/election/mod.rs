//! FastLeaderElection: notifications in, votes out, in the end a leader.
//!
//! A machine without sockets and clock, bit for bit compatible with Apache's algorithm, so that zkd
//! and Apache servers elect together. Laws kept here: a vote is only ever replaced by a better one of
//! the same round or by one of a later round; nothing is decided without a quorum of equal votes.
//! What an election decides is never a matter of safety (Zab checks every promise again), only of
//! time: a premature decision costs a retry.
//!
//! Where this differs from Apache, always to be quicker and never on the wire:
//! - **The wait for better votes ends early** when nobody is left to wait for. Apache sits out
//!   200 ms after the first quorum. Here the vote is final once every voter that can be reached
//!   agrees: one whose connection was refused or closed is not waited for, nor one that said it
//!   follows a living leader. A voter of which nothing is known, or which can be reached but has not
//!   voted in this round, is waited for, 200 ms at most. See [`Election::is_final_early`].
//! - A LOOKING notification that arrives just before this server looks itself is kept and counted
//!   then (Apache drops it, and the sender would repeat it only after 200 ms); and a voter whose
//!   first vote shows that it dropped ours is sent ours again.
//! - Who decides tells those that still look, instead of waiting for them to ask again.
//! - Claims to follow or lead are forgotten when their sender looks again or dies.
//!
//! Left to others: connections (`runtime::election_port`), the roles (`peer`), adopting a newer
//! configuration out of a notification (reconfiguration is not spoken yet). Counterpart:
//! `FastLeaderElection`.

mod ballot;
mod notification;
#[cfg(test)]
mod room;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::ballot::{Ballot, Ballots, beats};
pub use self::notification::{Notification, Vote};
use crate::event::{PeerEvent, ServerState};
use crate::ids::{Epoch, ServerId, Zxid};
use crate::quorum::QuorumVerifier;
use crate::time::{Instant, TimerTable};

/// How long a quorum waits for better votes while somebody may still cast one. Fixed in Apache.
pub const FINALIZE_WAIT_MS: u64 = 200;
/// Default of `fastleader.minNotificationInterval`.
pub const NOTIFICATION_INTERVAL_MIN_MS: u64 = 200;
/// Default of `fastleader.maxNotificationInterval`.
pub const NOTIFICATION_INTERVAL_MAX_MS: u64 = 60_000;
/// A LOOKING notification that arrived this long before this server looks itself still counts.
const KEPT_VOTE_AGE_MAX_MS: u64 = 1_000;
/// Servers outside the ensemble that are remembered as waiting for an answer; more are answered, but
/// not told the result unasked.
const ASKERS_MAX: usize = 64;
/// The same answer to the same stranger is not repeated sooner: two servers whose configurations
/// each leave the other out would otherwise answer one another without end.
const SAME_ANSWER_AFTER_MS: u64 = 20;

/// What an election needs to know.
#[derive(Clone, Debug)]
pub struct ElectionConfig {
    /// This server.
    pub my_id: ServerId,
    /// Voters and the rule by which they decide.
    pub verifier: QuorumVerifier,
    /// False for an observer: it finds the leader, but its vote names nobody.
    pub is_participant: bool,
    /// See [`FINALIZE_WAIT_MS`]; milliseconds.
    pub finalize_wait_ms: u64,
    /// First interval between repeated notifications, doubled each time; milliseconds.
    pub notification_interval_min_ms: u64,
    /// Longest interval between repeated notifications; milliseconds.
    pub notification_interval_max_ms: u64,
    /// Canonical text of the committed configuration, sent in every notification.
    pub config_text: String,
}

impl ElectionConfig {
    /// The defaults of Apache for a server of this ensemble.
    #[must_use]
    pub fn new(my_id: ServerId, verifier: QuorumVerifier, config_text: String) -> Self {
        Self {
            my_id,
            is_participant: verifier.is_voter(my_id),
            verifier,
            finalize_wait_ms: FINALIZE_WAIT_MS,
            notification_interval_min_ms: NOTIFICATION_INTERVAL_MIN_MS,
            notification_interval_max_ms: NOTIFICATION_INTERVAL_MAX_MS,
            config_text,
        }
    }
}

/// What happens to an election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A notification arrived.
    Notification {
        /// Its sender, as the connection's opening said.
        from: ServerId,
        /// What it says.
        notification: Notification,
    },
    /// There is a connection to this server, or it accepted one.
    Reachable(ServerId),
    /// A connection was refused or the last one closed. The driver answers every notification it
    /// cannot even begin to deliver with this, each time anew: a sent notification makes an
    /// unreachable voter unknown again until the outcome of the dial arrives.
    Unreachable(ServerId),
    /// The deadline of [`Election::poll_timeout`] may have passed.
    Timeout,
}

/// What the driver must do now.
#[must_use]
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ElectionReady {
    /// Notifications to send, at most one for each server: the newest is the only one that counts.
    pub send: Vec<(ServerId, Notification)>,
    /// The election is over: the role to enter, and the vote that won.
    pub decided: Option<(ServerState, Vote)>,
    /// What to tell the world.
    pub events: Vec<PeerEvent>,
    /// Notifications of voters that arrived while this server was not LOOKING.
    pub observed: Vec<(ServerId, Notification)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// Notify everybody again.
    Resend,
    /// No better vote came: the quorum's vote is final.
    Finalize,
}

/// Where the machine stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// [`Election::look`] was never called.
    New,
    /// Electing.
    Looking,
    /// In the role that was decided.
    Settled,
}

/// Whether a voter can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Not dialled yet, or the outcome of a dial is awaited.
    Unknown,
    /// Connected.
    Yes,
    /// Refused or closed.
    No,
}

/// The last thing a voter said.
#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    notification: Notification,
    /// Whether it arrived after this server's last decision.
    since_decision: bool,
}

impl Heard {
    fn is_looking(&self) -> bool {
        self.notification.state == ServerState::Looking
    }
}

/// What is known of another voter.
#[derive(Clone, Debug)]
struct Peer {
    reach: Reach,
    /// Nothing was sent to it since it was last found unreachable: what it was told then is lost.
    untold: bool,
    heard: Option<Heard>,
}

/// The election of one server, through all its rounds.
#[derive(Debug)]
pub struct Election {
    config: ElectionConfig,
    config_text: Arc<str>,
    phase: Phase,
    state: ServerState,
    /// The logical clock.
    round: i64,
    /// What this server votes for on its own.
    initial: Vote,
    /// What it votes for now; `proposal.election_epoch == round` while LOOKING.
    proposal: Vote,
    /// The vote that won the last election.
    current: Vote,
    /// Votes of this round.
    received: Ballots,
    /// Votes of those in a role, whatever their round.
    settled: Ballots,
    /// The other voters.
    peers: BTreeMap<ServerId, Peer>,
    /// Servers outside the ensemble that asked: the last answer, and when.
    askers: BTreeMap<ServerId, (Instant, Notification)>,
    timers: TimerTable<Timer>,
    interval_ms: u64,
    /// Notifications received in this election.
    heard_count: u64,
    send: BTreeMap<ServerId, Notification>,
    ready: ElectionReady,
}

impl Election {
    /// A server that has not looked for a leader yet.
    #[must_use]
    pub fn new(config: ElectionConfig) -> Self {
        let nothing = Vote {
            leader: ServerId::NONE,
            zxid: Zxid(i64::MIN),
            election_epoch: 0,
            peer_epoch: Epoch(i64::MIN),
        };
        let unknown = Peer {
            reach: Reach::Unknown,
            untold: false,
            heard: None,
        };
        let peers = config.verifier.voters().iter();
        Self {
            config_text: config.config_text.as_str().into(),
            phase: Phase::New,
            state: ServerState::Looking,
            round: 0,
            initial: nothing,
            proposal: nothing,
            current: nothing,
            received: Ballots::default(),
            settled: Ballots::default(),
            peers: peers
                .filter(|&&sid| sid != config.my_id)
                .map(|&sid| (sid, unknown.clone()))
                .collect(),
            askers: BTreeMap::new(),
            timers: TimerTable::default(),
            interval_ms: 0,
            heard_count: 0,
            send: BTreeMap::new(),
            ready: ElectionReady::default(),
            config,
        }
    }

    /// Enters LOOKING in a new round. `last_zxid` is the last logged one ([`Zxid::NONE`] of a server
    /// that lost its database and must abstain), `current_epoch` the stored current epoch.
    pub fn look(&mut self, now: Instant, last_zxid: Zxid, current_epoch: Epoch) {
        self.phase = Phase::Looking;
        self.state = ServerState::Looking;
        self.round += 1;
        let my_id = self.config.my_id;
        let participates = self.config.is_participant;
        self.initial = Vote {
            leader: if self.config.verifier.is_voter(my_id) {
                my_id
            } else {
                ServerId::NONE
            },
            zxid: if participates {
                last_zxid
            } else {
                Zxid(i64::MIN)
            },
            election_epoch: self.round,
            peer_epoch: if participates {
                current_epoch
            } else {
                Epoch(i64::MIN)
            },
        };
        self.received.clear();
        self.settled.clear();
        self.askers.clear();
        self.timers.clear();
        self.interval_ms = self.config.notification_interval_min_ms;
        self.timers.set(Timer::Resend, now + self.interval_ms);
        self.heard_count = 0;
        self.propose(self.initial);
        let kept: Vec<_> = self
            .peers
            .iter_mut()
            .filter_map(|(&sid, peer)| {
                let heard = peer.heard.take()?;
                let fresh = now.ms_since(heard.at) <= KEPT_VOTE_AGE_MAX_MS;
                (fresh && heard.is_looking()).then_some((sid, heard.notification))
            })
            .collect();
        for (from, notification) in kept {
            // A vote of an earlier round says nothing about what its sender thinks now.
            if notification.vote.election_epoch >= self.round {
                self.on_notification(now, from, notification);
            }
        }
        self.judge(now);
    }

    /// The role has been entered; notifications say so from now on. (A decision of this machine has
    /// that effect by itself; a role that comes about without an election needs the call.)
    pub fn settle(&mut self, state: ServerState) {
        if state != ServerState::Looking {
            self.state = state;
            self.phase = Phase::Settled;
            self.timers.clear();
        }
    }

    /// The new epoch is synchronized: the vote that others are told names it from now on, so that
    /// the votes of all members of the reign are equal whenever they joined (ZOOKEEPER-1732).
    pub fn set_peer_epoch(&mut self, epoch: Epoch) {
        self.current.peer_epoch = epoch;
    }

    /// Takes one input. Call [`Self::ready`] afterwards.
    pub fn step(&mut self, now: Instant, input: Input) {
        match input {
            Input::Notification { from, notification } => {
                self.on_notification(now, from, notification);
            }
            Input::Reachable(sid) => self.on_reachable(sid),
            Input::Unreachable(sid) => self.on_unreachable(sid),
            Input::Timeout => {
                while let Some(timer) = self.timers.expired(now) {
                    match timer {
                        Timer::Resend => self.on_resend(now),
                        Timer::Finalize => self.on_finalize(),
                    }
                }
            }
        }
        self.judge(now);
    }

    /// When to call [`Self::step`] with [`Input::Timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What to do after a step.
    pub fn ready(&mut self) -> ElectionReady {
        let mut ready = std::mem::take(&mut self.ready);
        ready.send = std::mem::take(&mut self.send).into_iter().collect();
        ready
    }

    /// This server's state as notifications tell it.
    #[must_use]
    pub fn state(&self) -> ServerState {
        self.state
    }

    /// The logical clock.
    #[must_use]
    pub fn round(&self) -> i64 {
        self.round
    }

    /// The vote others are told: the proposal while LOOKING, the winning one afterwards.
    #[must_use]
    pub fn vote(&self) -> Vote {
        match self.phase {
            Phase::Settled => self.current,
            Phase::New | Phase::Looking => self.proposal,
        }
    }

    /// For a learner that has not joined its leader yet: whether that leader is known not to lead.
    /// It died, or told after the decision that it votes for somebody else, looks in another round,
    /// or follows. Looking again at once then saves the connect time-out.
    #[must_use]
    pub fn leader_is_gone(&self) -> bool {
        let leader = self.current.leader;
        let Some(peer) = self.peers.get(&leader) else {
            return false;
        };
        if self.phase != Phase::Settled || self.state == ServerState::Leading {
            return false;
        }
        let Some(heard) = &peer.heard else {
            return peer.reach == Reach::No;
        };
        let vote = heard.notification.vote;
        match heard.notification.state {
            ServerState::Looking => {
                heard.since_decision
                    && (vote.leader != leader || vote.election_epoch != self.current.election_epoch)
            }
            ServerState::Leading => false,
            _ => vote.election_epoch >= self.current.election_epoch,
        }
    }

    /// For a leader that waits for its quorum: whether the voters in `joined` (connected learners)
    /// together with all that may still come are too few. A voter is given up when it is unreachable
    /// or follows another leader, or told after the decision that it prefers one or looks in a later
    /// round. Looking again at once then saves the rest of initLimit (compare
    /// `leader.maxTimeToWaitForEpoch`, ZOOKEEPER-3109).
    #[must_use]
    pub fn quorum_is_gone(&self, joined: &BTreeSet<ServerId>) -> bool {
        self.phase == Phase::Settled
            && self.state == ServerState::Leading
            && !self.config.verifier.is_quorum(|sid| {
                sid == self.config.my_id || joined.contains(&sid) || self.may_still_come(sid)
            })
    }

    fn may_still_come(&self, sid: ServerId) -> bool {
        let Some(peer) = self.peers.get(&sid) else {
            return false;
        };
        if peer.reach == Reach::No {
            return false;
        }
        let Some(heard) = &peer.heard else {
            return true;
        };
        let vote = heard.notification.vote;
        let mine = self.current;
        if !heard.is_looking() {
            vote.leader == mine.leader || vote.election_epoch < mine.election_epoch
        } else if heard.since_decision {
            vote.election_epoch < mine.election_epoch
                || (vote.election_epoch == mine.election_epoch
                    && !beats(&self.config.verifier, &vote, &mine))
        } else {
            true
        }
    }

    // ---- inputs ----

    fn on_notification(&mut self, now: Instant, from: ServerId, notification: Notification) {
        if from == self.config.my_id {
            return;
        }
        if !self.peers.contains_key(&from) {
            self.on_stranger(now, from, &notification);
            return;
        }
        self.on_reachable(from);
        let peer = self.peers.get_mut(&from).expect("looked up above");
        let before = peer.heard.replace(Heard {
            at: now,
            notification: notification.clone(),
            since_decision: self.phase == Phase::Settled,
        });
        let sender_looks = notification.state == ServerState::Looking;
        match self.phase {
            Phase::New => {}
            Phase::Looking => {
                self.heard_count += 1;
                let answer_due = sender_looks && notification.vote.election_epoch < self.round;
                let dropped_mine = before.is_some_and(|before| !before.is_looking());
                self.on_vote(from, &notification, dropped_mine);
                if answer_due && self.phase == Phase::Looking {
                    self.tell(from);
                }
            }
            Phase::Settled => {
                if sender_looks {
                    self.tell(from);
                }
                self.ready.observed.push((from, notification));
            }
        }
    }

    /// A server that is no voter (an observer, or one not in this configuration) asks: it is told
    /// the vote, which is how it finds the leader. Apache answers every time; see
    /// [`SAME_ANSWER_AFTER_MS`]. While LOOKING the answer is the proposal (Apache tells the result of
    /// the election before, which only leads the asker to a leader that is gone).
    fn on_stranger(&mut self, now: Instant, from: ServerId, notification: &Notification) {
        if notification.state != ServerState::Looking || self.phase == Phase::New {
            return;
        }
        let mut vote = self.vote();
        vote.election_epoch = self.round;
        let answer = self.notification(vote);
        if let Some((at, last)) = self.askers.get(&from)
            && *last == answer
            && now.ms_since(*at) < SAME_ANSWER_AFTER_MS
        {
            return;
        }
        if self.askers.len() < ASKERS_MAX || self.askers.contains_key(&from) {
            self.askers.insert(from, (now, answer.clone()));
        }
        self.send.insert(from, answer);
    }

    /// A vote of a voter, counted. `dropped_mine`: the sender was in a role when it was sent this
    /// server's vote, and has only now begun to look.
    fn on_vote(&mut self, from: ServerId, notification: &Notification, dropped_mine: bool) {
        if !self.config.verifier.is_voter(notification.vote.leader) {
            return;
        }
        match notification.state {
            ServerState::Looking => self.on_looking(from, notification.vote, dropped_mine),
            ServerState::Following | ServerState::Leading => self.on_settled(from, notification),
            ServerState::Observing | ServerState::Standalone => {}
        }
    }

    fn on_looking(&mut self, from: ServerId, vote: Vote, dropped_mine: bool) {
        self.settled.remove(from);
        // A server that lost its database neither elects nor is elected.
        if self.initial.zxid == Zxid::NONE || vote.zxid == Zxid::NONE {
            return;
        }
        if vote.election_epoch < self.round {
            return;
        }
        if vote.election_epoch > self.round {
            self.round = vote.election_epoch;
            self.received.clear();
            let mine = self.initial;
            self.propose(if beats(&self.config.verifier, &vote, &mine) {
                vote
            } else {
                mine
            });
        } else if beats(&self.config.verifier, &vote, &self.proposal) {
            self.propose(vote);
        } else if dropped_mine {
            self.tell(from);
        }
        self.received.insert(from, Ballot::looking(vote));
    }

    fn on_settled(&mut self, from: ServerId, notification: &Notification) {
        let vote = notification.vote;
        let probe = Ballot {
            vote,
            state: notification.state,
            versioned: notification.version > 0,
        };
        let verifier = &self.config.verifier;
        if vote.election_epoch == self.round {
            // Kept without its format, as Apache does: in the same round only the leader is compared.
            let ballot = Ballot {
                versioned: false,
                ..probe
            };
            self.received.insert(from, ballot);
            if self.received.elect(verifier, &probe) && self.leader_agrees(&self.received, &vote) {
                self.decide(vote, true);
                return;
            }
        }
        self.settled.insert(from, probe);
        if self.settled.elect(verifier, &probe) && self.leader_agrees(&self.settled, &vote) {
            self.round = vote.election_epoch;
            self.decide(vote, true);
        }
    }

    /// Being told of a leader is not enough: it must say so itself; and who is told to be the leader
    /// believes it only in its own round (ZOOKEEPER-1514).
    fn leader_agrees(&self, ballots: &Ballots, vote: &Vote) -> bool {
        if vote.leader == self.config.my_id {
            vote.election_epoch == self.round
        } else {
            ballots.says_it_leads(vote.leader)
        }
    }

    /// A voter that came up learns at once what it could not be told before.
    fn on_reachable(&mut self, sid: ServerId) {
        let Some(peer) = self.peers.get_mut(&sid) else {
            return;
        };
        peer.reach = Reach::Yes;
        if peer.untold && self.phase == Phase::Looking {
            self.tell(sid);
        }
    }

    fn on_unreachable(&mut self, sid: ServerId) {
        let Some(peer) = self.peers.get_mut(&sid) else {
            self.askers.remove(&sid);
            return;
        };
        peer.reach = Reach::No;
        peer.untold = true;
        // Whoever answers there next is a new process, or one whose opinion may have changed.
        peer.heard = None;
        self.settled.remove(sid);
        let in_role = |ballot: &Ballot| ballot.state != ServerState::Looking;
        if self.received.of(sid).is_some_and(in_role) {
            self.received.remove(sid);
        }
    }

    fn on_resend(&mut self, now: Instant) {
        self.tell_all();
        // Nobody tells an observer anything unasked, so it keeps asking at the first interval.
        if self.config.is_participant {
            let longest_ms = self.config.notification_interval_max_ms;
            self.interval_ms = (self.interval_ms * 2).min(longest_ms);
        }
        self.timers.set(Timer::Resend, now + self.interval_ms);
    }

    /// The quorum's vote was not beaten in time. (The timer runs only while there is a quorum:
    /// [`Self::judge`] stops it otherwise.)
    fn on_finalize(&mut self) {
        self.decide(self.proposal, false);
    }

    // ---- deciding ----

    /// Looks whether the votes of this round make a quorum for the proposal, and whether that is
    /// final already.
    fn judge(&mut self, now: Instant) {
        if self.phase != Phase::Looking {
            return;
        }
        let probe = Ballot::looking(self.proposal);
        if !self.received.elect(&self.config.verifier, &probe) {
            self.timers.stop(Timer::Finalize);
        } else if self.is_final_early() {
            self.decide(self.proposal, true);
        } else if self.timers.deadline(Timer::Finalize).is_none() {
            self.timers
                .set(Timer::Finalize, now + self.config.finalize_wait_ms);
        }
    }

    /// Whether no voter is left from whom a better vote could come: each one agrees, or need not be
    /// waited for. The winner itself must be seen to agree; if it is not (the vote was told by
    /// others, and it died or cannot be reached from here), the full wait is sat out, so that
    /// elections which cannot succeed do not follow one another at the pace of the network.
    fn is_final_early(&self) -> bool {
        let winner = self.proposal.leader;
        let winner_agrees = winner == self.config.my_id
            || self
                .peers
                .get(&winner)
                .and_then(|peer| peer.heard.as_ref())
                .is_some_and(|heard| match heard.notification.state {
                    ServerState::Looking => heard.notification.vote == self.proposal,
                    ServerState::Leading => true,
                    _ => false,
                });
        winner_agrees
            && self
                .peers
                .iter()
                .all(|(&sid, peer)| !self.is_awaited(sid, peer))
    }

    fn is_awaited(&self, sid: ServerId, peer: &Peer) -> bool {
        if peer.reach == Reach::No || self.config.verifier.weight(sid) == 0 {
            return false;
        }
        let Some(heard) = &peer.heard else {
            return true;
        };
        let vote = heard.notification.vote;
        match heard.notification.state {
            ServerState::Looking => vote != self.proposal && vote.zxid != Zxid::NONE,
            // In a role: it stays there if its leader lives; if not it will look any moment now, and
            // deciding without it would leave it behind.
            ServerState::Following | ServerState::Leading => {
                vote.leader != self.proposal.leader && !self.seems_to_lead(vote.leader)
            }
            ServerState::Observing | ServerState::Standalone => false,
        }
    }

    fn seems_to_lead(&self, sid: ServerId) -> bool {
        self.peers.get(&sid).is_some_and(|peer| {
            peer.reach == Reach::Yes && !peer.heard.as_ref().is_some_and(Heard::is_looking)
        })
    }

    fn decide(&mut self, vote: Vote, early: bool) {
        self.phase = Phase::Settled;
        self.current = vote;
        self.state = if vote.leader == self.config.my_id {
            ServerState::Leading
        } else if self.config.is_participant {
            ServerState::Following
        } else {
            ServerState::Observing
        };
        self.timers.clear();
        self.received.clear();
        self.settled.clear();
        // Votes still to be sent stay: others may need them to decide the same.
        self.tell_those_who_look();
        self.ready.decided = Some((self.state, vote));
        self.ready.events.push(PeerEvent::Elected {
            round: self.round,
            leader: vote.leader.0,
            votes: self.heard_count,
            early,
        });
    }

    /// After a decision: the leader tells every voter that looked when last heard, so that none of
    /// them need wait for more votes; the others tell those that look for somebody else. Servers
    /// outside the ensemble that asked during the election get their answer.
    fn tell_those_who_look(&mut self) {
        let leads = self.state == ServerState::Leading;
        let mut told: Vec<ServerId> = Vec::new();
        for (&sid, peer) in &mut self.peers {
            if let Some(heard) = &mut peer.heard {
                heard.since_decision = false;
                if heard.is_looking() && (leads || heard.notification.vote != self.current) {
                    told.push(sid);
                }
            }
        }
        told.extend(std::mem::take(&mut self.askers).into_keys());
        for sid in told {
            self.tell(sid);
        }
    }

    // ---- telling ----

    /// Makes `vote` this server's own in the current round, and tells every voter.
    fn propose(&mut self, vote: Vote) {
        self.proposal = Vote {
            election_epoch: self.round,
            ..vote
        };
        self.timers.stop(Timer::Finalize);
        let my_id = self.config.my_id;
        if self.config.verifier.is_voter(my_id) && self.initial.zxid != Zxid::NONE {
            self.received.insert(my_id, Ballot::looking(self.proposal));
        }
        self.tell_all();
        self.ready.events.push(PeerEvent::Vote {
            round: self.round,
            leader: self.proposal.leader.0,
            zxid: self.proposal.zxid.0,
            epoch: self.proposal.peer_epoch.0,
        });
    }

    fn tell_all(&mut self) {
        let others: Vec<ServerId> = self.peers.keys().copied().collect();
        for sid in others {
            self.tell(sid);
        }
    }

    /// Queues what this server votes for.
    fn tell(&mut self, to: ServerId) {
        let notification = self.notification(self.vote());
        self.send.insert(to, notification);
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.untold = false;
            if peer.reach == Reach::No {
                peer.reach = Reach::Unknown;
            }
        }
    }

    fn notification(&self, vote: Vote) -> Notification {
        Notification::new(self.state, vote, self.config_text.clone())
    }
}
