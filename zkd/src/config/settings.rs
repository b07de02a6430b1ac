//! The keys that zkd honours: each with what it expects, how it is read and how it is shown.
//!
//! Law kept here: one row per key; the key's name and the text of its error stand nowhere else. Units of
//! the file (KiB, hours) become those of [`Config`] here.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Config, LearnerType, SnapshotCompression, Whitelist};

/// One key of `zoo.cfg`.
pub(super) struct Setting {
    /// Its name, without `zookeeper.`.
    pub(super) key: &'static str,
    /// What a value has to be, for the error.
    pub(super) expected: &'static str,
    /// Puts a value in; `None` if it is not acceptable.
    pub(super) set: fn(&mut Config, &str) -> Option<()>,
    /// The value in effect; `None` when there is none.
    pub(super) show: fn(&Config) -> Option<String>,
}

/// The setting of a key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

const BOOLEAN: &str = "true or false";
const YES_NO: &str = "yes or no";
const COUNT: &str = "a whole number, 0 or more";
const COUNT_FROM_ONE: &str = "a whole number, 1 or more";
const MILLISECONDS: &str = "a whole number of milliseconds, 0 or more";
const MILLISECONDS_FROM_ONE: &str = "a whole number of milliseconds, 1 or more";
const TICKS: &str = "a whole number of ticks, 1 or more";
const SESSION_TIMEOUT: &str = "a whole number of milliseconds, 1 or more, or -1 for the default";
const DIRECTORY: &str = "the path of a directory";

const INT_MAX: u64 = i32::MAX as u64;
const KIB: u64 = 1024;
const HOUR_MS: u64 = 3_600_000;

/// A setting held in a field as it stands in the file.
macro_rules! plain {
    ($key:literal, $field:ident, $expected:expr, $read:expr) => {
        Setting {
            key: $key,
            expected: $expected,
            set: |config, value| {
                config.$field = $read(value)?;
                Some(())
            },
            show: |config| Some(config.$field.to_string()),
        }
    };
}

/// Every key that is honoured, in the order in which the effective configuration is printed.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "dataDir",
        expected: DIRECTORY,
        set: |config, value| {
            config.data_dir = path(value)?;
            Some(())
        },
        show: |config| Some(config.data_dir.display().to_string()),
    },
    Setting {
        key: "dataLogDir",
        expected: DIRECTORY,
        set: |config, value| {
            config.data_log_dir = path(value)?;
            Some(())
        },
        show: |config| Some(config.data_log_dir.display().to_string()),
    },
    Setting {
        key: "clientPort",
        expected: "a port, 1 to 65535, or 0 for none",
        set: |config, value| {
            config.client_port = Some(number::<u16>(value)?).filter(|port| *port != 0);
            Some(())
        },
        show: |config| Some(config.client_port.unwrap_or(0).to_string()),
    },
    Setting {
        key: "clientPortAddress",
        expected: "a host name or an address",
        set: |config, value| {
            let host = value.trim_start_matches('[').trim_end_matches(']');
            config.client_port_address = Some(text(host)?);
            Some(())
        },
        show: |config| config.client_port_address.clone(),
    },
    Setting {
        key: "clientPortListenBacklog",
        expected: "a whole number, 1 or more, or -1 for the default",
        set: |config, value| {
            let backlog = between::<i64>(value, -1..=i64::from(i32::MAX))?;
            config.client_port_listen_backlog = u32::try_from(backlog).ok().filter(|n| *n != 0);
            Some(())
        },
        show: |config| config.client_port_listen_backlog.map(|n| n.to_string()),
    },
    plain!(
        "tickTime",
        tick_time_ms,
        MILLISECONDS_FROM_ONE,
        |v| between(v, 1..=INT_MAX)
    ),
    plain!("initLimit", init_limit, TICKS, |v| between(
        v,
        1..=1_000_000
    )),
    plain!("syncLimit", sync_limit, TICKS, |v| between(
        v,
        1..=1_000_000
    )),
    plain!("maxClientCnxns", max_client_cnxns, COUNT, number),
    plain!("maxCnxns", max_cnxns, COUNT, number),
    Setting {
        key: "nio.numSelectorThreads",
        expected: "a whole number of threads, 0 to 64",
        set: |config, value| {
            config.client_threads = Some(between(value, 0..=64)?);
            Some(())
        },
        show: |config| config.client_threads.map(|n| n.to_string()),
    },
    plain!(
        "nio.sessionlessCnxnTimeout",
        sessionless_timeout_ms,
        MILLISECONDS_FROM_ONE,
        |v| { between(v, 1..=INT_MAX) }
    ),
    plain!(
        "minSessionTimeout",
        min_session_timeout_ms,
        SESSION_TIMEOUT,
        session_timeout
    ),
    plain!(
        "maxSessionTimeout",
        max_session_timeout_ms,
        SESSION_TIMEOUT,
        session_timeout
    ),
    plain!("snapCount", snap_count, COUNT, |v| Some(
        number::<u32>(v)?.max(2)
    )),
    Setting {
        key: "snapSizeLimitInKb",
        expected: "a whole number of KiB; 0 or less for no limit",
        set: |config, value| {
            config.snap_size_limit_bytes = kib(value)?;
            Some(())
        },
        show: |config| Some((config.snap_size_limit_bytes / KIB).to_string()),
    },
    Setting {
        key: "preAllocSize",
        expected: "a whole number of KiB, 1 to 2097151",
        set: |config, value| {
            config.pre_alloc_size_bytes = between(value, 1..=INT_MAX / KIB)? * KIB;
            Some(())
        },
        show: |config| Some((config.pre_alloc_size_bytes / KIB).to_string()),
    },
    plain!("commitLogCount", commit_log_count, COUNT_FROM_ONE, |v| {
        between(v, 1..=100_000_000)
    }),
    Setting {
        key: "snapshot.compression.method",
        expected: "gz, snappy, or nothing",
        set: |config, value| {
            config.snapshot_compression = match value.to_ascii_lowercase().as_str() {
                "" => SnapshotCompression::None,
                "gz" => SnapshotCompression::Gz,
                "snappy" => SnapshotCompression::Snappy,
                _ => return None,
            };
            Some(())
        },
        show: |config| match config.snapshot_compression {
            SnapshotCompression::None => None,
            SnapshotCompression::Gz => Some("gz".to_owned()),
            SnapshotCompression::Snappy => Some("snappy".to_owned()),
        },
    },
    plain!(
        "snapshot.trust.empty",
        snapshot_trust_empty,
        BOOLEAN,
        boolean
    ),
    plain!("datadir.autocreate", datadir_autocreate, BOOLEAN, boolean),
    plain!("db.autocreate", db_autocreate, BOOLEAN, boolean),
    plain!("autopurge.snapRetainCount", snap_retain_count, COUNT, |v| {
        Some(number::<u32>(v)?.max(3))
    }),
    Setting {
        key: "autopurge.purgeInterval",
        expected: "a whole number of hours (0 for never), or with a unit: ms, s, m, h, d",
        set: |config, value| {
            config.purge_interval_ms = interval(value)?;
            Some(())
        },
        show: |config| {
            let ms = config.purge_interval_ms;
            Some(if ms % HOUR_MS == 0 {
                (ms / HOUR_MS).to_string()
            } else {
                format!("{ms}ms")
            })
        },
    },
    Setting {
        key: "forceSync",
        expected: YES_NO,
        set: |config, value| {
            config.force_sync = boolean(value)?;
            Some(())
        },
        show: |config| Some(yes_no(config.force_sync)),
    },
    plain!(
        "fsync.warningthresholdms",
        fsync_warning_threshold_ms,
        MILLISECONDS,
        |v| { between(v, 0..=INT_MAX) }
    ),
    plain!(
        "jute.maxbuffer",
        jute_max_buffer,
        "a whole number of bytes, 1024 or more",
        |v| { between(v, 1024..=i32::MAX as usize / 2) }
    ),
    plain!(
        "jute.maxbuffer.extrasize",
        jute_max_buffer_extra,
        "a whole number of bytes, 1024 or more",
        |v| between(v, 1024..=i32::MAX as usize / 2)
    ),
    plain!(
        "globalOutstandingLimit",
        global_outstanding_limit,
        COUNT_FROM_ONE,
        |v| { between(v, 1..=i32::MAX as u32) }
    ),
    plain!("standaloneEnabled", standalone_enabled, BOOLEAN, boolean),
    plain!(
        "quorumListenOnAllIPs",
        quorum_listen_on_all_ips,
        BOOLEAN,
        boolean
    ),
    plain!(
        "electionPortBindRetry",
        election_port_bind_retry,
        COUNT,
        number
    ),
    plain!("cnxTimeout", cnx_timeout_ms, MILLISECONDS_FROM_ONE, |v| {
        between(v, 1..=INT_MAX)
    }),
    plain!(
        "fastleader.minNotificationInterval",
        min_notification_interval_ms,
        MILLISECONDS_FROM_ONE,
        |v| between(v, 1..=INT_MAX)
    ),
    plain!(
        "fastleader.maxNotificationInterval",
        max_notification_interval_ms,
        MILLISECONDS_FROM_ONE,
        |v| between(v, 1..=INT_MAX)
    ),
    Setting {
        key: "leaderServes",
        expected: YES_NO,
        set: |config, value| {
            config.leader_serves = boolean(value)?;
            Some(())
        },
        show: |config| Some(yes_no(config.leader_serves)),
    },
    plain!(
        "peerType",
        peer_type,
        "participant or observer",
        LearnerType::parse
    ),
    Setting {
        key: "4lw.commands.whitelist",
        expected: "four-letter words with commas between, or *",
        set: |config, value| {
            config.four_letter_whitelist = Whitelist::parse(value).0;
            Some(())
        },
        show: |config| Some(config.four_letter_whitelist.to_string()),
    },
    plain!(
        "extendedTypesEnabled",
        extended_types_enabled,
        BOOLEAN,
        boolean
    ),
    plain!(
        "znode.container.checkIntervalMs",
        container_check_interval_ms,
        MILLISECONDS_FROM_ONE,
        |v| between(v, 1..=INT_MAX)
    ),
    plain!(
        "znode.container.maxPerMinute",
        container_max_per_minute,
        COUNT_FROM_ONE,
        |v| { between(v, 1..=i32::MAX as u32) }
    ),
    plain!(
        "znode.container.maxNeverUsedIntervalMs",
        container_max_never_used_ms,
        MILLISECONDS,
        number
    ),
    plain!("enforceQuota", enforce_quota, BOOLEAN, boolean),
    Setting {
        key: "DigestAuthenticationProvider.superDigest",
        expected: "super: and the base64 digest of \"super:<password>\"",
        set: |config, value| {
            let digest = value.strip_prefix("super:")?;
            config.super_digest = Some(format!("super:{}", text(digest)?));
            Some(())
        },
        show: |config| {
            config
                .super_digest
                .as_ref()
                .map(|_| "super:(hidden)".to_owned())
        },
    },
    plain!("enforce.auth.enabled", enforce_auth, BOOLEAN, boolean),
    Setting {
        key: "enforce.auth.schemes",
        expected: "digest and ip, with commas between",
        set: |config, value| {
            let schemes: Vec<&str> = value.split(',').map(str::trim).collect();
            if !schemes
                .iter()
                .all(|scheme| matches!(*scheme, "digest" | "ip"))
            {
                return None;
            }
            config.enforced_schemes = schemes.into_iter().map(str::to_owned).collect();
            Some(())
        },
        show: |config| {
            let schemes = &config.enforced_schemes;
            (!schemes.is_empty()).then(|| schemes.join(","))
        },
    },
    Setting {
        key: "skipACL",
        expected: YES_NO,
        set: |config, value| {
            config.skip_acl = boolean(value)?;
            Some(())
        },
        show: |config| Some(yes_no(config.skip_acl)),
    },
    plain!("digest.enabled", digest_enabled, BOOLEAN, boolean),
    plain!(
        "closeSessionTxn.enabled",
        close_session_txn_enabled,
        BOOLEAN,
        boolean
    ),
    plain!(
        "multiAddress.enabled",
        multi_address_enabled,
        BOOLEAN,
        boolean
    ),
    Setting {
        key: "dynamicConfigFile",
        expected: "the path of a file",
        set: |config, value| {
            config.dynamic_config_file = Some(path(value)?);
            Some(())
        },
        show: |config| Some(config.dynamic_config_file.as_ref()?.display().to_string()),
    },
];

fn text(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

fn path(value: &str) -> Option<PathBuf> {
    text(value).map(PathBuf::from)
}

fn number<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

fn between<T: FromStr + PartialOrd>(value: &str, range: RangeInclusive<T>) -> Option<T> {
    number(value).filter(|number| range.contains(number))
}

/// Apache reads some of its switches as `true`/`false` and others as `yes`/`no`; both are taken for all.
fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" => Some(true),
        "false" | "no" => Some(false),
        _ => None,
    }
}

fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

fn kib(value: &str) -> Option<u64> {
    let kib = between::<i64>(value, i64::MIN..=i64::MAX / 1024)?;
    Some(u64::try_from(kib).unwrap_or(0) * KIB)
}

fn session_timeout(value: &str) -> Option<i32> {
    number(value).filter(|timeout: &i32| *timeout == -1 || *timeout > 0)
}

/// Hours, as in 3.9, or a number with a unit, as from 3.10 on; in milliseconds.
fn interval(value: &str) -> Option<u64> {
    let digits = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    let (count, unit) = value.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "" | "h" => HOUR_MS,
        "d" => 24 * HOUR_MS,
        _ => return None,
    };
    number::<u64>(count)?.checked_mul(unit_ms)
}
