//! A leader with one follower that is played by hand: what the order of its packets means.

use std::sync::Arc;

use super::leading::Leading;
use super::{Core, Input, PeerConfig, Ready, Role};
use crate::config::Membership;
use crate::error::ErrorCode;
use crate::ids::{Epoch, LinkId, ServerId, SessionId, Xid, Zxid};
use crate::jute::{Reader, Record, Writer};
use crate::pipeline::{Origin, PrepOptions, Request, ServerOptions, ZkServer};
use crate::quorum::QuorumVerifier;
use crate::record::opcode::OpCode;
use crate::record::quorum::{QuorumPacket, packet};
use crate::record::txn::{ErrorTxn, Txn, TxnRecord};
use crate::time::{Instant, Now};
use crate::zab::committed_log::CommittedLog;
use crate::zab::{History, Mark, Outgoing, wire};

const FOLLOWER: LinkId = LinkId(7);
const SESSION: SessionId = SessionId(0x100_0000);
const TIMEOUT_MS: i32 = 4000;

fn config() -> PeerConfig {
    let members: String = (1..=3)
        .map(|id| format!("server.{id}=10.0.0.{id}:2888:3888;2181\n"))
        .collect();
    PeerConfig {
        my_id: Some(ServerId(1)),
        members: Membership::parse_text(&members).unwrap(),
        verifier: QuorumVerifier::majority((1..=3).map(ServerId)),
        tick_time_ms: 2000,
        init_limit: 10,
        sync_limit: 5,
        notification_interval_min_ms: 200,
        notification_interval_max_ms: 60_000,
        commit_log_count: 20,
        container_check_interval_ms: 60_000,
        container_max_per_minute: 10_000,
        container_never_used_ms: 0,
        prep: PrepOptions::default(),
    }
}

struct Stage {
    core: Core,
    leading: Option<Box<Leading>>,
    proposed: Vec<TxnRecord>,
}

impl Stage {
    /// Server 1 leads, server 2 follows, and a client of server 1 has a session.
    fn new() -> Self {
        let mut core = Core {
            config: config(),
            server: Arc::new(ZkServer::new(ServerOptions::default(), Instant(0))),
            election: None,
            next_mark: Mark(1),
            next_link: 0,
            cannot_cut_for: None,
            now: Now::default(),
            out: Ready::default(),
        };
        let history = History {
            accepted_epoch: Epoch(0),
            current_epoch: Epoch(0),
            last_zxid: Zxid::ZERO,
            committed: CommittedLog::new(20),
        };
        let leading = Box::new(Leading::new(&mut core, history, Vec::new()));
        let mut stage = Self {
            core,
            leading: Some(leading),
            proposed: Vec::new(),
        };
        stage.step(Input::LearnerConnected(FOLLOWER));
        stage.hear(wire::learner_info(
            packet::FOLLOWERINFO,
            Epoch(0),
            ServerId(2),
            0,
        ));
        stage.settle();
        stage.hear(wire::ack_epoch(Zxid::ZERO, Epoch(0)));
        stage.settle();
        stage.hear(QuorumPacket::bare(packet::ACK, Zxid::new(Epoch(1), 0)));
        stage.settle();
        let open = TIMEOUT_MS.to_be_bytes().to_vec();
        stage.ask(OpCode::CreateSession, Xid(0), open);
        stage.settle();
        assert_eq!(stage.proposed.len(), 1, "the leader serves");
        stage
    }

    fn step(&mut self, input: Input) {
        let leading = self.leading.as_mut().unwrap();
        leading.step(&mut self.core, input);
    }

    fn hear(&mut self, packet: QuorumPacket) {
        self.step(Input::LearnerPacket(FOLLOWER, packet));
    }

    /// The follower forwards a write of the session.
    fn forward(&mut self, cxid: Xid) {
        let forwarded = wire::Forwarded {
            session: SESSION,
            cxid,
            op: OpCode::Delete.code(),
            payload: delete(),
        };
        self.hear(wire::request(&forwarded, &[]));
    }

    /// A client of the leader itself asks.
    fn ask(&mut self, op: OpCode, cxid: Xid, payload: impl Into<bytes::Bytes>) {
        self.step(Input::Request(Request {
            session: SESSION,
            cxid,
            op,
            payload: payload.into(),
            ids: [].into(),
            origin: Origin::Local,
        }));
    }

    fn move_to_follower(&mut self) {
        self.hear(wire::revalidate(SESSION, TIMEOUT_MS));
    }

    fn move_to_leader(&mut self) {
        self.step(Input::Revalidate {
            session: SESSION,
            timeout_ms: TIMEOUT_MS,
        });
    }

    /// The end of a burst: what follows is done, and every write is on disk.
    fn settle(&mut self) {
        loop {
            let leading = self.leading.take().unwrap();
            let (Role::Leading(leading), false) = leading.collect(&mut self.core) else {
                panic!("the leader gave up");
            };
            self.leading = Some(leading);
            let out = std::mem::take(&mut self.core.out);
            for envelope in out.send {
                if let super::Envelope::Learner(FOLLOWER, Outgoing::Packet(packet)) = envelope
                    && packet.kind == packet::PROPOSAL
                {
                    let txn = packet.data.unwrap();
                    self.proposed
                        .push(TxnRecord::decode(&mut Reader::shared(&txn)).unwrap());
                }
            }
            if out.batches.is_empty() {
                return;
            }
            for batch in out.batches {
                self.step(Input::Wrote(batch.mark));
            }
        }
    }

    /// What became of the session's writes, in the order of their zxids.
    fn outcomes(&self) -> Vec<(Xid, ErrorCode)> {
        let writes = self.proposed[1..].iter();
        writes
            .map(|record| match record.txn {
                Txn::Error(ErrorTxn { code }) => (record.header.cxid, code),
                _ => panic!("nothing is there to be deleted"),
            })
            .map(|(cxid, code)| (cxid, ErrorCode::from_code(code).unwrap()))
            .collect()
    }
}

/// Of a znode that is not there.
fn delete() -> bytes::Bytes {
    let mut request = Vec::new();
    let mut out = Writer::new(&mut request);
    out.string("/none");
    out.int(-1);
    request.into()
}

const MOVED: ErrorCode = ErrorCode::SessionMoved;
const DONE: ErrorCode = ErrorCode::NoNode;

/// A write that is overtaken by one of the same session on another server must not be done, even if the session is
/// back by then: the move to and fro is judged in the order in which the server that it came from told of it.
#[test]
fn a_write_from_before_a_move_away_and_back_is_refused() {
    let mut stage = Stage::new();
    stage.move_to_follower();
    stage.settle();
    stage.move_to_leader();
    stage.ask(OpCode::Delete, Xid(2), delete());
    stage.settle();
    // Sent before all that, and here only now; and in the same burst the session has moved again.
    stage.forward(Xid(1));
    stage.move_to_follower();
    stage.settle();
    stage.forward(Xid(3));
    stage.settle();
    let outcomes = [(Xid(2), DONE), (Xid(1), MOVED), (Xid(3), DONE)];
    assert_eq!(stage.outcomes(), outcomes);
}

/// The last move counts, whether it was to this server or to another.
#[test]
fn moves_in_one_burst_count_in_the_order_in_which_they_came() {
    let mut stage = Stage::new();
    stage.move_to_follower();
    stage.move_to_leader();
    stage.settle();
    stage.ask(OpCode::Delete, Xid(1), delete());
    stage.forward(Xid(2));
    stage.settle();
    assert_eq!(stage.outcomes(), [(Xid(1), DONE), (Xid(2), MOVED)]);
}
