//! Tests of leader and learner together, and what they share.

mod pair;
mod refusals;
mod simulation;
mod streams;
mod transcripts;

use bytes::Bytes;

use super::committed_log::CommittedLog;
use super::leader::LeaderConfig;
use super::learner::{LearnerConfig, LearnerKind};
use super::{History, Proposal};
use crate::ids::{Epoch, ServerId, Zxid};
use crate::quorum::QuorumVerifier;

pub(super) const TICK_MS: u64 = 1000;
pub(super) const CONFIG_TEXT: &[u8] = b"server.1=a\nversion=0";

/// A txn whose bytes name it.
pub(super) fn txn(zxid: Zxid) -> Proposal {
    Proposal {
        zxid,
        txn: Bytes::from(format!("txn {zxid}")),
    }
}

pub(super) fn z(epoch: i64, counter: u32) -> Zxid {
    Zxid::new(Epoch(epoch), counter)
}

/// A history that ends with these txns, all in the committed log.
pub(super) fn history(accepted: i64, current: i64, zxids: &[Zxid]) -> History {
    let mut committed = CommittedLog::new(500);
    for &zxid in zxids {
        committed.push(txn(zxid));
    }
    History {
        accepted_epoch: Epoch(accepted),
        current_epoch: Epoch(current),
        last_zxid: zxids.last().copied().unwrap_or(Zxid::ZERO),
        committed,
    }
}

pub(super) fn leader_config(my_id: i64, voters: i64) -> LeaderConfig {
    LeaderConfig {
        my_id: ServerId(my_id),
        tick_time_ms: TICK_MS,
        init_limit: 10,
        sync_limit: 5,
        verifier: QuorumVerifier::majority((1..=voters).map(ServerId)),
        config_text: Bytes::from_static(CONFIG_TEXT),
        config_version: 0,
    }
}

pub(super) fn learner_config(my_id: i64, kind: LearnerKind) -> LearnerConfig {
    LearnerConfig {
        my_id: ServerId(my_id),
        kind,
        tick_time_ms: TICK_MS,
        init_limit: 10,
        sync_limit: 5,
        config_version: 0,
    }
}
