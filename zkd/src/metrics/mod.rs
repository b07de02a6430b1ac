//! What the server counts: plain structs of atomics, written from any thread without a lock.
//!
//! Law kept here: nothing is global; whoever counts is handed a [`Metrics`]. Names are Apache's own, so that
//! dashboards and scrapers find them. Times are recorded in microseconds and told in milliseconds, Apache's
//! unit, so that an average below a millisecond is still a number. Reads are not a snapshot: two values of
//! one reading may be a few events apart. Counterpart: `ServerMetrics` and `metrics.impl`.

mod event_meter;
mod instrument;

pub use event_meter::EventMeter;
pub use instrument::{Counter, Gauge, Histogram, Percentiles, Summary, SummaryValue, Timing};

/// The value of one metric at the moment it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A number that only grows.
    Counter(u64),
    /// A number that goes up and down.
    Gauge(i64),
    /// Many recorded numbers.
    Summary(SummaryValue),
    /// Many recorded numbers, with their distribution.
    Histogram(SummaryValue, Percentiles),
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ident = $name:literal,)+) => {
        /// Every metric of a server, shared by all its parts.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl Metrics {
            /// Shows every metric with Apache's name for it, in the order of declaration.
            pub fn visit(&self, mut see: impl FnMut(&'static str, Value)) {
                $(see($name, self.$field.value());)+
            }

            /// Starts every metric again from nothing, except gauges, which are what they are.
            pub fn reset(&self) {
                $(self.$field.reset();)+
            }
        }
    };
}

metrics! {
    /// Elections this server took part in, in ms each.
    election_time: Timing = "election_time",
    /// Times this server went looking for a leader.
    looking_count: Counter = "looking_count",
    /// Txns proposed by this server as the leader.
    proposal_count: Counter = "proposal_count",
    /// Txns committed by this server as the leader.
    commit_count: Counter = "commit_count",
    /// Proposals received by this server as a learner.
    learner_proposal_received_count: Counter = "learner_proposal_received_count",
    /// Commits received by this server as a learner.
    learner_commit_received_count: Counter = "learner_commit_received_count",
    /// Learners brought up to date by a snapshot.
    snap_count: Counter = "snap_count",
    /// Learners brought up to date by the txns they lacked.
    diff_count: Counter = "diff_count",
    /// Synchronizations of this server as a learner, in ms each.
    follower_sync_time: Timing = "follower_sync_time",
    /// From a proposal to its quorum, in ms.
    quorum_ack_latency: Histogram = "quorum_ack_latency",
    /// From the leader's clock in a txn to its application here, in ms.
    propagation_latency: Histogram = "propagation_latency",
    /// Reads, from arrival to answer, in ms.
    readlatency: Histogram = "readlatency",
    /// Writes, from arrival to answer, in ms.
    updatelatency: Histogram = "updatelatency",
    /// Syncs of the txn log, in ms each.
    fsynctime: Histogram = "fsynctime",
    /// Syncs that took longer than the threshold.
    fsync_threshold_exceed_count: Counter = "fsync_threshold_exceed_count",
    /// Txns per sync of the log.
    sync_processor_batch_size: Summary = "sync_processor_batch_size",
    /// Snapshots written, in ms each.
    snapshottime: Timing = "snapshottime",
    /// Snapshots that could not be written.
    snapshot_error_count: Counter = "snapshot_error_count",
    /// The load of the database at the start, in ms.
    dbinittime: Timing = "dbinittime",
    /// Connections that asked for a session.
    connection_request_count: Counter = "connection_request_count",
    /// Connections refused because of a limit.
    connection_rejected: Counter = "connection_rejected",
    /// Sessions that came back over a new connection.
    connection_revalidate_count: Counter = "connection_revalidate_count",
    /// Sessions that a learner asked the leader about.
    revalidate_count: Counter = "revalidate_count",
    /// Connections closed because they never opened a session.
    sessionless_connections_expired: Counter = "sessionless_connections_expired",
    /// Sessions that ran out of time.
    stale_sessions_expired: Counter = "stale_sessions_expired",
    /// Credentials that were refused.
    auth_failed_count: Counter = "auth_failed_count",
    /// Txns after which the tree's digest was not the leader's.
    digest_mismatches_count: Counter = "digest_mismatches_count",
    /// Bytes from clients.
    bytes_received_count: Counter = "bytes_received_count",
    /// Bytes of answers to clients.
    response_bytes: Counter = "response_bytes",
}
