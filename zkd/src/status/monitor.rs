//! `mntr`: every number there is, one a line.
//!
//! Law kept here: each line is `zk_<name>`, a tab, and a value of letters, digits, dots and dashes, or old
//! scrapers drop the whole answer; the version line comes first, because some throw the first line away.

use std::fmt::Display;
use std::fmt::Write;

use crate::event::SyncMode;
use crate::metrics::{Metrics, SummaryValue, Value};

use super::java;
use super::words::line;
use super::{BUILT_ON, LeaderStatus, Mode, PeerStatus, Serving, Status, VERSION};

pub(super) fn write(serving: &Serving, status: &Status, metrics: &Metrics) -> String {
    let mut out = String::new();
    line!(out, "zk_version\t{VERSION}, built on {BUILT_ON}");
    line!(out, "zk_server_state\t{}", serving.mode.text());
    if let Some(peer) = &serving.peer {
        line!(out, "zk_peer_state\t{}", peer_state(serving.mode, peer));
        if let Some(master) = peer.observer_master {
            line!(out, "zk_observer_master_id\t{master}");
        }
    }
    let mut gauge = |name: &str, value: &dyn Display| line!(out, "zk_{name}\t{value}");
    let latency = serving.latency;
    gauge("avg_latency", &java::mean(latency.avg_ms));
    gauge("max_latency", &latency.max_ms);
    gauge("min_latency", &latency.min_ms);
    gauge("packets_received", &serving.packets_received);
    gauge("packets_sent", &serving.packets_sent);
    gauge("num_alive_connections", &serving.connection_count);
    gauge("outstanding_requests", &serving.outstanding_requests);
    gauge("znode_count", &serving.node_count);
    gauge("watch_count", &serving.watches.watches);
    gauge("ephemerals_count", &serving.ephemerals_count);
    gauge("approximate_data_size", &serving.approximate_data_size);
    gauge("global_sessions", &serving.global_sessions);
    gauge("local_sessions", &serving.local_sessions);
    gauge("uptime", &serving.uptime_ms);
    if let (Some(open), Some(max)) = (status.open_files, status.open_files_max) {
        gauge("open_file_descriptor_count", &open);
        gauge("max_file_descriptor_count", &max);
    }
    if let Some(peer) = &serving.peer {
        gauge("quorum_size", &peer.quorum_size);
    }
    if let Some(leader) = &serving.leader {
        leading(&mut gauge, leader);
    }
    metrics.visit(|name, value| metric(&mut gauge, name, value));
    // zkd's own, last: a lab compares the digests of all servers at one zxid.
    gauge("current_epoch", &serving.zxid.epoch());
    gauge("last_zxid", &serving.zxid);
    gauge("tree_digest_zxid", &serving.zxid);
    gauge(
        "tree_digest",
        &format_args!("0x{:016x}", serving.tree_digest),
    );
    out
}

/// `leading - broadcast`, and while a learner is brought up to date ` - diff` and the like behind it.
fn peer_state(mode: Mode, peer: &PeerStatus) -> String {
    let role = match mode {
        Mode::Leader => "leading",
        Mode::Follower => "following",
        Mode::Observer => "observing",
        Mode::Standalone | Mode::ReadOnly => "looking",
    };
    let sync = match peer.sync {
        None => "",
        Some(SyncMode::Diff) => " - diff",
        Some(SyncMode::Trunc) => " - trunc",
        Some(SyncMode::Snap) => " - snap",
    };
    format!("{role} - {}{sync}", peer.phase.text())
}

fn leading(gauge: &mut impl FnMut(&str, &dyn Display), leader: &LeaderStatus) {
    gauge("learners", &leader.learners);
    // The name of `learners` until 3.5, which older dashboards still ask for.
    gauge("followers", &leader.learners);
    gauge("synced_followers", &leader.synced_followers);
    gauge("synced_observers", &leader.synced_observers);
    gauge(
        "synced_non_voting_followers",
        &leader.synced_non_voting_followers,
    );
    gauge("pending_syncs", &leader.pending_syncs);
    gauge("leader_uptime", &leader.uptime_ms);
    for (index, name) in ["last", "min", "max"].into_iter().enumerate() {
        let size = leader
            .proposal_sizes
            .map_or(-1, |sizes| i128::from(sizes[index]));
        gauge(&format!("{name}_proposal_size"), &size);
    }
}

fn metric(gauge: &mut impl FnMut(&str, &dyn Display), name: &str, value: Value) {
    match value {
        Value::Counter(count) => gauge(name, &count),
        Value::Gauge(level) => gauge(name, &level),
        Value::Summary(summary) => summary_lines(gauge, name, summary),
        Value::Histogram(summary, percentiles) => {
            summary_lines(gauge, name, summary);
            gauge(&format!("p50_{name}"), &percentiles.p50);
            gauge(&format!("p95_{name}"), &percentiles.p95);
            gauge(&format!("p99_{name}"), &percentiles.p99);
            gauge(&format!("p999_{name}"), &percentiles.p999);
        }
    }
}

fn summary_lines(gauge: &mut impl FnMut(&str, &dyn Display), name: &str, value: SummaryValue) {
    gauge(&format!("avg_{name}"), &java::mean(value.avg));
    gauge(&format!("min_{name}"), &value.min);
    gauge(&format!("max_{name}"), &value.max);
    gauge(&format!("cnt_{name}"), &value.cnt);
    gauge(&format!("sum_{name}"), &value.sum);
}
