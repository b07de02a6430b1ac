//! Fills in a [`Status`] for the four-letter words.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{Config, FourLetterWord};
use crate::event::ServerState;
use crate::ids::{ConnId, SessionId};
use crate::metrics::Metrics;
use crate::pipeline::{ConnectionStats, Latency, ZkServer};
use crate::record::opcode::OpCode;
use crate::status::{
    self, ConnectionStatus, Effect, LatencyStatus, LeaderStatus, Mode, Needs,
    PeerStatus as PeerSection, Serving, SessionConnection, SessionStatus, Status, WatchStatus,
    ZabPhase,
};
use crate::storage::{self, RealDisk};
use crate::zab::leader::Leader;
use crate::zab::learner::LearnerKind;

use super::clock;
use super::core::{CoreSender, PeerStatus};

/// Everything a status is read from.
pub(super) struct StatusSource {
    pub(super) server: Arc<ZkServer>,
    pub(super) config: Arc<Config>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) core: CoreSender,
    pub(super) disk: RealDisk,
    pub(super) peers: Mutex<BTreeMap<ConnId, SocketAddr>>,
}

/// What a leader counts of its learners.
pub(super) fn leader_status(leader: &Leader) -> LeaderStatus {
    let learners = leader.learners();
    let synced = |kind| {
        learners
            .iter()
            .filter(|l| l.synced && l.kind == kind)
            .count()
    };
    LeaderStatus {
        learners: learners.len(),
        synced_followers: synced(LearnerKind::Participant),
        synced_observers: synced(LearnerKind::Observer),
        pending_syncs: leader.pending_syncs(),
        ..LeaderStatus::default()
    }
}

impl StatusSource {
    pub(super) fn note_peer(&self, conn: ConnId, peer: SocketAddr) {
        self.peers.lock().insert(conn, peer);
    }

    pub(super) fn forget_peer(&self, conn: ConnId) {
        self.peers.lock().remove(&conn);
    }

    /// The answer to a four-letter word.
    pub(super) async fn answer(&self, word: FourLetterWord) -> String {
        // `ruok` only means that the process answers; it does not wait for the core.
        let peer = if word == FourLetterWord::Ruok {
            None
        } else {
            self.core.status().await
        };
        let status = self.status(Needs::of(word), peer.as_ref());
        let (text, effect) = status::answer(word, &status, &self.config, &self.metrics);
        match effect {
            Effect::None => {}
            Effect::ResetConnections => self.server.reset_connection_stats(),
            Effect::ResetServer => {
                self.server.reset_stats();
                self.metrics.reset();
            }
        }
        text
    }

    fn status(&self, needs: Needs, peer: Option<&PeerStatus>) -> Status {
        let mut status = Status {
            serving: peer.and_then(|peer| self.serving(peer)),
            ..Status::default()
        };
        if needs.connections {
            status.connections = self
                .server
                .connections()
                .iter()
                .map(|stats| self.connection(stats))
                .collect();
        }
        if needs.sessions {
            let tree = self.server.tree().read();
            status.sessions = tree
                .sessions()
                .iter()
                .map(|(&id, &timeout_ms)| SessionStatus {
                    id,
                    timeout_ms,
                    expires_wall_ms: None,
                })
                .collect();
            status.ephemerals = tree
                .sessions()
                .keys()
                .map(|&id| (id, tree.ephemerals(id).collect::<Vec<_>>()))
                .filter(|(_, paths)| !paths.is_empty())
                .collect();
        }
        if needs.watched {
            status.watched = self.watched();
        }
        if needs.digests {
            let tree = self.server.tree().read();
            status.digests = vec![(tree.last_processed_zxid(), tree.digest())];
        }
        if needs.dir_sizes {
            // A directory that cannot be read tells so where it matters: when the log is written.
            (status.data_dir_bytes, status.data_log_dir_bytes) =
                storage::disk_usage(&self.disk).unwrap_or_default();
        }
        if needs.open_files {
            status.open_files = std::fs::read_dir("/proc/self/fd")
                .ok()
                .map(|dir| dir.count() as u64);
            status.open_files_max =
                nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
                    .ok()
                    .map(|(soft, _)| soft);
        }
        if needs.environment {
            status.environment = environment();
        }
        status
    }

    fn serving(&self, peer: &PeerStatus) -> Option<Serving> {
        if !self.server.is_serving() {
            return None;
        }
        let mode = match peer.state {
            ServerState::Leading => Mode::Leader,
            ServerState::Following => Mode::Follower,
            ServerState::Observing => Mode::Observer,
            ServerState::Standalone => Mode::Standalone,
            ServerState::Looking => return None,
        };
        let stats = self.server.stats();
        let watches = self.server.watches().lock().counts();
        let tree = self.server.tree().read();
        Some(Serving {
            mode,
            zxid: tree.last_processed_zxid(),
            tree_digest: tree.digest(),
            node_count: tree.node_count(),
            approximate_data_size: tree.approximate_data_size().cast_unsigned(),
            ephemerals_count: tree.ephemerals_count(),
            global_sessions: tree.sessions().len(),
            local_sessions: 0,
            watches: WatchStatus {
                connections: watches.connections,
                paths: watches.paths,
                watches: watches.total(),
            },
            latency: latency(&stats.latency),
            packets_received: stats.packets_received,
            packets_sent: stats.packets_sent,
            outstanding_requests: stats.outstanding,
            connection_count: usize::try_from(stats.connections).unwrap_or(usize::MAX),
            uptime_ms: clock::now().instant.ms_since(peer.serving_since),
            peer: (mode != Mode::Standalone).then(|| PeerSection {
                phase: peer.phase,
                sync: None,
                quorum_size: self.config.servers.voters().len(),
                observer_master: None,
            }),
            leader: peer.leader.clone(),
        })
    }

    fn connection(&self, stats: &ConnectionStats) -> ConnectionStatus {
        let now = clock::now();
        let wall = |at: crate::time::Instant| now.wall_ms - now.instant.ms_since(at).cast_signed();
        let peer = self.peers.lock().get(&stats.id).copied();
        ConnectionStatus {
            peer: peer.unwrap_or_else(|| SocketAddr::new(stats.peer, 0)),
            reading: true,
            writing: false,
            queued: stats.queued as u64,
            received: stats.received,
            sent: stats.sent,
            expires_wall_ms: wall(stats.last_touch) + i64::from(stats.timeout_ms),
            session: (stats.session != SessionId::NONE).then(|| SessionConnection {
                id: stats.session,
                last_op: stats.last_op.and_then(OpCode::from_code),
                established_wall_ms: wall(stats.established),
                timeout_ms: stats.timeout_ms,
                last_cxid: stats.last_cxid,
                last_zxid: stats.last_zxid,
                last_response_ms: stats.last_response.0,
                last_latency_ms: stats.last_latency_ms,
                latency: latency(&stats.latency),
            }),
        }
    }

    fn watched(&self) -> Vec<(String, Vec<SessionId>)> {
        let sessions: BTreeMap<_, _> = self
            .server
            .connections()
            .into_iter()
            .map(|stats| (stats.id, stats.session))
            .collect();
        self.server
            .watches()
            .lock()
            .by_path()
            .into_iter()
            .map(|(path, conns)| {
                (
                    path,
                    conns
                        .iter()
                        .filter_map(|conn| sessions.get(conn).copied())
                        .collect(),
                )
            })
            .collect()
    }
}

fn latency(counted: &Latency) -> LatencyStatus {
    LatencyStatus {
        min_ms: counted.min_ms,
        avg_ms: counted.avg_ms(),
        max_ms: counted.max_ms,
    }
}

/// The phase of Zab a peer's word for it names.
pub(super) fn phase(word: &str) -> ZabPhase {
    match word {
        "broadcast" => ZabPhase::Broadcast,
        "synchronization" => ZabPhase::Synchronization,
        "discovery" => ZabPhase::Discovery,
        _ => ZabPhase::Election,
    }
}

fn environment() -> Vec<(String, String)> {
    let uname = nix::sys::utsname::uname();
    let of = |part: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname.as_ref().map_or_else(
            |_| String::new(),
            |uname| part(uname).to_string_lossy().into_owned(),
        )
    };
    let dir = std::env::current_dir()
        .map(|dir| dir.display().to_string())
        .unwrap_or_default();
    [
        ("host.name", of(|uname| uname.nodename())),
        ("os.name", of(|uname| uname.sysname())),
        ("os.arch", of(|uname| uname.machine())),
        ("os.version", of(|uname| uname.release())),
        ("user.name", std::env::var("USER").unwrap_or_default()),
        ("user.home", std::env::var("HOME").unwrap_or_default()),
        ("user.dir", dir),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}
