//! The keys that Apache knows and zkd does not honour, and the guess at what a misspelt key was meant to be.
//!
//! Law kept here: a key is never dropped silently. One whose effect the owner would miss is named in a
//! warning; one that guards something (TLS, authentication, the shape of the quorum) is refused, because a
//! server that runs without its guard is worse than one that does not run. A value that asks for nothing
//! (`sslQuorum=false`) is fine.

use super::settings::SETTINGS;

/// What becomes of a key that is not a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It asks for what zkd does anyway.
    Harmless,
    /// Refused, with the reason and the way out.
    Refused(&'static str),
    /// Known, but without effect in this version.
    NotYet,
    /// It tunes a part that zkd does not have.
    Meaningless,
    /// Nobody knows it.
    Unknown,
}

/// Keys that are refused, the value that is not, and why.
const REFUSED: &[(&str, &str, &str)] = &[
    (
        "sslQuorum",
        "false",
        "TLS between servers is not implemented yet, and the quorum ports would be open in plain; \
         set it to false to accept that",
    ),
    (
        "portUnification",
        "false",
        "TLS between servers is not implemented yet; set it to false",
    ),
    (
        "client.portUnification",
        "false",
        "TLS for clients is not implemented yet; set it to false",
    ),
    (
        "secureClientPort",
        "0",
        "TLS for clients is not implemented yet, so this port would stay closed; remove the key",
    ),
    (
        "quorum.auth.enableSasl",
        "false",
        "SASL between servers is not implemented yet, and unauthenticated servers would be let in; \
         set it to false to accept that",
    ),
    (
        "quorum.auth.learnerRequireSasl",
        "false",
        "SASL between servers is not implemented yet; set it to false",
    ),
    (
        "quorum.auth.serverRequireSasl",
        "false",
        "SASL between servers is not implemented yet; set it to false",
    ),
    (
        "sessionRequireClientSASLAuth",
        "false",
        "SASL for clients is not implemented yet, and unauthenticated clients would be let in; \
         set it to false to accept that",
    ),
    (
        "DigestAuthenticationProvider.enabled",
        "true",
        "the digest scheme cannot be switched off yet; set it to true or remove the key to accept that",
    ),
    (
        "ensembleAuthName",
        "",
        "the ensemble scheme is not implemented yet, and clients of another ensemble would be let in; \
         remove the key to accept that",
    ),
    (
        "reconfigEnabled",
        "false",
        "reconfiguration is not implemented yet, and a change made by another server would be missed; \
         set it to false",
    ),
    (
        "electionAlg",
        "3",
        "the old election algorithms are gone from Apache ZooKeeper too; set it to 3 or remove the key",
    ),
    (
        "emulate353TTLNodes",
        "false",
        "the TTL format of 3.5.3 is not implemented, and its nodes would be misread; set it to false",
    ),
];

/// Keys without effect, with the value that asks for nothing (if there is one).
const NOT_YET: &[(&str, Option<&str>)] = &[
    ("DigestAuthenticationProvider.digestAlg", Some("SHA1")),
    ("IPAuthenticationProvider.usexforwardedfor", Some("false")),
    ("SASLAuthenticationProvider.superPassword", None),
    ("X509AuthenticationProvider.superUser", None),
    ("admin.commandURL", None),
    ("admin.enableServer", Some("false")),
    ("admin.forceHttps", Some("false")),
    ("admin.httpVersion", None),
    ("admin.idleTimeout", None),
    ("admin.needClientAuth", Some("false")),
    ("admin.portUnification", Some("false")),
    ("admin.rateLimiterIntervalInMS", None),
    ("admin.restore.enabled", Some("false")),
    ("admin.serverAddress", None),
    ("admin.serverPort", None),
    ("admin.snapshot.enabled", Some("false")),
    ("allowSaslFailedClients", Some("false")),
    ("audit.enable", Some("false")),
    ("audit.impl.class", None),
    ("client.certReload", Some("false")),
    ("clientTcpKeepAlive", Some("false")),
    ("connectToLearnerMasterLimit", Some("0")),
    ("connection_throttle_decrease_ratio", None),
    ("connection_throttle_drop_decrease", None),
    ("connection_throttle_drop_increase", None),
    ("connection_throttle_fill_count", None),
    ("connection_throttle_fill_time", None),
    ("connection_throttle_freeze_time", None),
    ("connection_throttle_global_session_weight", None),
    ("connection_throttle_local_session_weight", None),
    ("connection_throttle_renew_session_weight", None),
    ("connection_throttle_tokens", Some("0")),
    ("connection_throttle_weight_enabled", Some("false")),
    ("enableEagerACLCheck", Some("false")),
    ("fips-mode", None),
    ("flushDelay", Some("0")),
    ("java.security.auth.login.config", None),
    ("jvm.pause.info-threshold.ms", None),
    ("jvm.pause.monitor", Some("false")),
    ("jvm.pause.sleep.time.ms", None),
    ("jvm.pause.warn-threshold.ms", None),
    ("kerberos.canonicalizeHostNames", None),
    ("kerberos.minReLoginTimeMs", None),
    ("kerberos.removeHostFromPrincipal", None),
    ("kerberos.removeRealmFromPrincipal", None),
    ("kinit", None),
    ("largeRequestMaxBytes", None),
    ("largeRequestThreshold", Some("-1")),
    ("leader.ackLoggingFrequency", None),
    ("leader.maxConcurrentDiffSyncs", None),
    ("leader.maxConcurrentSnapSyncs", None),
    ("leader.maxTimeToWaitForEpoch", Some("-1")),
    ("leaderConnectDelayDuringRetryMs", None),
    ("letAnySaslUserDoX", None),
    ("localSessionsEnabled", Some("false")),
    ("localSessionsUpgradingEnabled", Some("false")),
    ("maxBatchSize", None),
    ("maxWriteQueuePollTime", None),
    ("messageTracker.BufferSize", None),
    ("messageTracker.Enabled", Some("false")),
    (
        "metricsProvider.className",
        Some("org.apache.zookeeper.metrics.impl.DefaultMetricsProvider"),
    ),
    ("metricsProvider.exportJvmInfo", None),
    ("metricsProvider.httpHost", None),
    ("metricsProvider.httpPort", None),
    ("metricsProvider.httpsPort", None),
    ("multiAddress.reachabilityCheckEnabled", None),
    ("multiAddress.reachabilityCheckTimeoutMs", None),
    ("observer.election.DelayMs", None),
    ("observer.reconnectDelayMs", Some("0")),
    ("observer.syncEnabled", Some("true")),
    ("observerMaster.sizeLimit", None),
    ("observerMasterPort", Some("0")),
    ("oraclePath", None),
    ("pathStats.delay", None),
    ("pathStats.enabled", Some("false")),
    ("pathStats.initialDelay", None),
    ("pathStats.maxDepth", None),
    ("pathStats.sampleRate", None),
    ("pathStats.slotCapacity", None),
    ("pathStats.slotDuration", None),
    ("pathStats.topPathMax", None),
    ("quorum.auth.kerberos.servicePrincipal", None),
    ("quorum.auth.learner.saslLoginContext", None),
    ("quorum.auth.server.saslLoginContext", None),
    ("quorumCnxnTimeoutMs", Some("-1")),
    ("readonlymode.enabled", Some("false")),
    ("request_stale_connection_check", None),
    ("request_stale_latency_check", Some("false")),
    ("request_throttle_drop_stale", None),
    ("request_throttle_max_requests", Some("0")),
    ("request_throttle_stall_time", None),
    ("request_throttler.shutdownTimeout", None),
    ("requireKerberosConfig", None),
    ("sasl.serverconfig", None),
    ("secureClientPortAddress", None),
    ("security.auth_to_local", None),
    ("serializeLastProcessedZxid.enabled", Some("true")),
    ("server.realm", None),
    ("snapshotSizeFactor", None),
    ("sslQuorumReloadCertFiles", Some("false")),
    ("superUser", None),
    ("syncEnabled", Some("true")),
    ("tcpKeepAlive", Some("false")),
    ("throttled_op_wait_time", Some("0")),
    ("txnLogSizeLimitInKb", Some("-1")),
];

/// Families of keys without effect, by the beginning of the name.
const NOT_YET_FAMILIES: &[&str] = &["authProvider.", "metricsProvider.", "ssl.", "superUser."];

/// Keys that tune what only a JVM, Netty or Apache's thread pools have.
const MEANINGLESS: &[&str] = &[
    "bitHashCacheSize",
    "commitProcessor.maxCommitBatchSize",
    "commitProcessor.maxReadBatchSize",
    "commitProcessor.numWorkerThreads",
    "commitProcessor.shutdownTimeout",
    "configuration",
    "controllerPort",
    "follower.nodelay",
    "follower.skipLearnerRequestToNextProcessor",
    "forceSnapshotSync",
    "forward_learner_requests_to_commit_processor_disabled",
    "intBufferStartingSizeBytes",
    "jmx.log4j.disable",
    "jmx.log4j.mbean",
    "leader.closeSocketAsync",
    "leader.nodelay",
    "learner.asyncSending",
    "learner.closeSocketAsync",
    "maxGetChildrenResponseCacheSize",
    "maxInProcessingDeadWatchers",
    "maxResponseCacheSize",
    "netty.advancedFlowControl.enabled",
    "netty.server.earlyDropSecureConnectionHandshakes",
    "netty.server.outstandingHandshake.limit",
    "nio.directBufferBytes",
    "nio.numWorkerThreads",
    "nio.shutdownTimeout",
    "quorum.cnxn.threads.size",
    "serverCnxnFactory",
    "test.allowDiscontinuousProposals",
    "testingonly.initialZxid",
    "watchManagerName",
    "watcherCleanIntervalInSeconds",
    "watcherCleanThreadsNum",
    "watcherCleanThreshold",
];

/// Names that Apache's documentation or JMX uses for keys that are called otherwise.
const ALIASES: &[(&str, &str)] = &[
    ("connectionMaxTokens", "connection_throttle_tokens"),
    ("connectionTokenFillTime", "connection_throttle_fill_time"),
    ("connectionTokenFillCount", "connection_throttle_fill_count"),
    ("connectionFreezeTime", "connection_throttle_freeze_time"),
    (
        "connectionDropIncrease",
        "connection_throttle_drop_increase",
    ),
    (
        "connectionDropDecrease",
        "connection_throttle_drop_decrease",
    ),
    (
        "connectionDecreaseRatio",
        "connection_throttle_decrease_ratio",
    ),
    ("requestThrottleLimit", "request_throttle_max_requests"),
    ("requestThrottleStallTime", "request_throttle_stall_time"),
    ("requestThrottleDropStale", "request_throttle_drop_stale"),
    ("requestStaleLatencyCheck", "request_stale_latency_check"),
    (
        "requestStaleConnectionCheck",
        "request_stale_connection_check",
    ),
    ("throttledOpWaitTime", "throttled_op_wait_time"),
    (
        "advancedFlowControlEnabled",
        "netty.advancedFlowControl.enabled",
    ),
    (
        "outstandingHandshake.limit",
        "netty.server.outstandingHandshake.limit",
    ),
    ("maxConcurrentSnapSyncs", "leader.maxConcurrentSnapSyncs"),
    ("maxConcurrentDiffSyncs", "leader.maxConcurrentDiffSyncs"),
    ("maxTimeToWaitForEpoch", "leader.maxTimeToWaitForEpoch"),
    (
        "leader.leaderConnectDelayDuringRetryMs",
        "leaderConnectDelayDuringRetryMs",
    ),
];

/// The working name of a key: without `zookeeper.`, and not as the documentation calls it.
pub(super) fn working_name(key: &str) -> &str {
    let key = key.strip_prefix("zookeeper.").unwrap_or(key);
    let alias = ALIASES.iter().find(|(alias, _)| *alias == key);
    alias.map_or(key, |(_, name)| *name)
}

/// Judges a key that is neither a setting nor one of membership.
pub(super) fn judge(key: &str, value: &str) -> Verdict {
    let is = |harmless: &str| harmless.eq_ignore_ascii_case(value);
    if let Some((_, harmless, why)) = REFUSED.iter().find(|(name, _, _)| *name == key) {
        return if is(harmless) {
            Verdict::Harmless
        } else {
            Verdict::Refused(why)
        };
    }
    if let Some((_, harmless)) = NOT_YET.iter().find(|(name, _)| *name == key) {
        return if harmless.is_some_and(is) {
            Verdict::Harmless
        } else {
            Verdict::NotYet
        };
    }
    if NOT_YET_FAMILIES
        .iter()
        .any(|family| key.starts_with(family))
    {
        return Verdict::NotYet;
    }
    if MEANINGLESS.contains(&key) {
        return Verdict::Meaningless;
    }
    Verdict::Unknown
}

/// The known key that is most like `key`, if any is like it at all.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let lower = key.to_ascii_lowercase();
    let settings = SETTINGS.iter().map(|setting| setting.key);
    let known = settings
        .chain(["server.1", "group.1", "weight.1"])
        .chain(REFUSED.iter().map(|(name, _, _)| *name))
        .chain(NOT_YET.iter().map(|(name, _)| *name))
        .chain(MEANINGLESS.iter().copied())
        .chain(ALIASES.iter().map(|(alias, _)| *alias));
    let (distance, name) = known
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), name))
        .min_by_key(|(distance, _)| *distance)?;
    let bearable = (key.chars().count() / 3).max(1);
    (distance <= bearable).then_some(name)
}

/// How many single-character changes (insert, delete, replace, swap two neighbours) lie between two words.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let replace = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_is_in_two_tables() {
        let mut seen = BTreeSet::new();
        let all = SETTINGS
            .iter()
            .map(|setting| setting.key)
            .chain(REFUSED.iter().map(|(name, _, _)| *name))
            .chain(NOT_YET.iter().map(|(name, _)| *name))
            .chain(MEANINGLESS.iter().copied())
            .chain(ALIASES.iter().map(|(alias, _)| *alias));
        for key in all {
            assert!(seen.insert(key), "{key} is there twice");
        }
        for (alias, name) in ALIASES {
            assert!(
                seen.contains(name),
                "{alias} stands for {name}, which nobody knows"
            );
        }
    }

    #[test]
    fn guesses() {
        for (wrong, right) in [
            ("tickTIme", "tickTime"),
            ("ticktime", "tickTime"),
            ("tikcTime", "tickTime"),
            ("maxClientCnxn", "maxClientCnxns"),
            ("autopurge.snapRetain", "autopurge.snapRetainCount"),
            ("4lw.command.whitelist", "4lw.commands.whitelist"),
            ("dataLogdir", "dataLogDir"),
            ("server1", "server.1"),
            ("sslquorum", "sslQuorum"),
        ] {
            assert_eq!(nearest(wrong), Some(right), "{wrong}");
        }
        for wrong in ["x", "frobnicate", "my.own.key", ""] {
            assert_eq!(nearest(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abcd", "acbd"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ca", "abc"), 3);
    }

    #[test]
    fn verdicts() {
        assert_eq!(judge("sslQuorum", "FALSE"), Verdict::Harmless);
        assert!(matches!(judge("sslQuorum", "true"), Verdict::Refused(_)));
        assert!(matches!(judge("electionAlg", "0"), Verdict::Refused(_)));
        assert_eq!(judge("audit.enable", "true"), Verdict::NotYet);
        assert_eq!(judge("audit.enable", "false"), Verdict::Harmless);
        assert_eq!(judge("ssl.quorum.keyStore.location", "x"), Verdict::NotYet);
        assert_eq!(judge("nio.numWorkerThreads", "4"), Verdict::Meaningless);
        assert_eq!(judge("frobnicate", "1"), Verdict::Unknown);
        assert_eq!(
            working_name("zookeeper.maxConcurrentSnapSyncs"),
            "leader.maxConcurrentSnapSyncs"
        );
    }
}
