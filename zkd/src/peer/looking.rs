//! LOOKING: an election runs, no role is held.
//!
//! A learner whose election was faster may already knock on the quorum port. Its connection is kept, with
//! what it says, until this server knows its own role: if it leads, nobody has to come twice.
//! [`Reloading`] is the short wait for a database whose memory and disk had gone different ways.

use std::collections::BTreeMap;

use super::{Control, Core, Input, Role};
use crate::election::Vote;
use crate::event::{PeerEvent, ServerState};
use crate::ids::LinkId;
use crate::record::quorum::QuorumPacket;
use crate::zab::{History, Mark};

use super::leading::Leading;
use super::learning::Learning;

/// Learners that may wait for the outcome of an election; more are closed.
const WAITING_MAX: usize = 64;
/// Packets kept for each: a learner says one thing (FOLLOWERINFO) and waits.
const WAITING_PACKETS_MAX: usize = 4;

/// In an election.
pub(super) struct Looking {
    history: History,
    waiting: BTreeMap<LinkId, Vec<QuorumPacket>>,
}

impl Looking {
    pub(super) fn new(history: History) -> Self {
        Self {
            history,
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn into_history(self) -> History {
        self.history
    }

    pub(super) fn step(&mut self, core: &mut Core, input: Input) {
        match input {
            Input::LearnerConnected(link) if self.waiting.len() < WAITING_MAX => {
                self.waiting.insert(link, Vec::new());
            }
            Input::LearnerConnected(link) => core.out.control.push(Control::CloseLearner(link)),
            Input::LearnerPacket(link, packet) => match self.waiting.get_mut(&link) {
                Some(packets) if packets.len() < WAITING_PACKETS_MAX => packets.push(packet),
                Some(_) => {
                    self.waiting.remove(&link);
                    core.out.control.push(Control::CloseLearner(link));
                }
                None => {}
            },
            Input::LearnerClosed(link) => {
                self.waiting.remove(&link);
            }
            // Finished writes of an earlier role, and requests of clients that are being closed.
            _ => {}
        }
    }

    /// The election is over: takes the role it gave this server.
    pub(super) fn decided(self, core: &mut Core, state: ServerState, vote: &Vote) -> Role {
        core.settle(state);
        if state == ServerState::Leading {
            let waiting = self.waiting.into_iter().collect();
            return Role::Leading(Box::new(Leading::new(core, self.history, waiting)));
        }
        core.out
            .control
            .extend(self.waiting.into_keys().map(Control::CloseLearner));
        Role::Learning(Box::new(Learning::new(
            core,
            self.history,
            state,
            vote.leader,
        )))
    }
}

/// Waits for the database to be loaded again.
pub(super) struct Reloading {
    mark: Mark,
    reason: String,
}

impl Reloading {
    /// Waits for the reload that `mark` names, which is already under way.
    pub(super) fn new(mark: Mark, reason: String) -> Self {
        Self { mark, reason }
    }

    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    pub(super) fn reason(&self) -> String {
        self.reason.clone()
    }

    pub(super) fn step(&mut self, core: &mut Core, input: &Input) {
        if let Input::LearnerConnected(link) = input {
            core.out.control.push(Control::CloseLearner(*link));
        }
    }
}

impl Core {
    /// Takes what the election machine has to say; gives the outcome if the election is over.
    pub(super) fn collect_election(&mut self) -> Option<(ServerState, Vote)> {
        let ready = self.election.as_mut()?.ready();
        self.out.send.extend(
            ready
                .send
                .into_iter()
                .map(|(to, n)| super::Envelope::Election(to, n)),
        );
        self.out.events.extend(ready.events);
        ready.decided
    }

    fn settle(&mut self, state: ServerState) {
        if let Some(election) = &mut self.election {
            election.settle(state);
        }
        self.out.events.push(PeerEvent::State {
            state,
            reason: "elected".to_owned(),
        });
    }

    /// Starts an election with `history`.
    pub(super) fn look(&mut self, history: History, reason: String) -> Role {
        let election = self
            .election
            .as_mut()
            .expect("only members of an ensemble look for a leader");
        election.look(self.now.instant, history.last_zxid, history.current_epoch);
        self.out.events.push(PeerEvent::State {
            state: ServerState::Looking,
            reason,
        });
        Role::Looking(Looking::new(history))
    }

    /// Leaves a role: every client connection is closed before anything else happens.
    pub(super) fn step_down(&mut self, state: ServerState, was_serving: bool, reason: &str) {
        self.out.events.push(PeerEvent::SteppedDown {
            state,
            reason: reason.to_owned(),
        });
        self.out.serve = None;
        if was_serving {
            self.server.stop_serving(ServerState::Looking);
            self.out.events.push(PeerEvent::NotServing {
                reason: reason.to_owned(),
            });
        }
    }

    /// A fresh mark for something the peer itself asks of the disk.
    pub(super) fn take_mark(&mut self) -> Mark {
        let mark = self.next_mark;
        self.next_mark = Mark(mark.0 + 1);
        mark
    }
}

impl Core {
    /// Lets answers to other electors show the epoch that is now established (`updateElectionVote`).
    pub(super) fn election_epoch(&mut self, epoch: crate::ids::Epoch) {
        if let Some(election) = &mut self.election {
            election.set_peer_epoch(epoch);
        }
    }
}
