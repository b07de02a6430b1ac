//! `zoo.cfg` and what it means: text in, one typed and validated [`Config`] out.
//!
//! Law kept here: no file is read and no name resolved; whoever has the text hands it in. Every default is
//! named once, in [`Config::default`]; every key once, in the tables of `keys` and `settings`. What Apache
//! accepts is accepted, except that nothing is ignored silently: an unknown key is a warning with a guess at what was meant
//! (Apache makes a system property of it), and a known key that zkd cannot honour is named or, where
//! ignoring it would be less safe than stopping, refused. Counterpart: `QuorumPeerConfig`.

mod ensemble;
mod error;
mod four_letter;
mod keys;
mod membership;
mod properties;
mod read;
mod settings;

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::ids::ServerId;

pub use error::{ConfigError, ConfigWarning, Problem};
pub use four_letter::{FourLetterWord, Whitelist};
pub use membership::{
    LearnerType, Membership, ServerAddress, ServerSpec, canonical_host, delimited,
};

/// How a snapshot file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotCompression {
    /// Not at all.
    None,
    /// gzip; the file name ends in `.gz`.
    Gz,
    /// Snappy; the file name ends in `.snappy`.
    Snappy,
}

/// The configuration of one server, complete: nothing is left to be defaulted later.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it was read from, as the user named it; empty for the embedded default.
    pub file: String,
    /// Snapshots and `myid` (`dataDir`).
    pub data_dir: PathBuf,
    /// Txn logs and epochs' log side (`dataLogDir`); the same as `data_dir` unless given.
    pub data_log_dir: PathBuf,
    /// The plain client port (`clientPort`); `None` opens none.
    pub client_port: Option<u16>,
    /// The address of the client port (`clientPortAddress`); `None` is every address.
    pub client_port_address: Option<String>,
    /// Backlog of the client port (`clientPortListenBacklog`); `None` leaves it to the server.
    pub client_port_listen_backlog: Option<u32>,
    /// The unit of every limit in ticks, in milliseconds (`tickTime`).
    pub tick_time_ms: u64,
    /// Ticks a learner may take to connect and synchronize (`initLimit`).
    pub init_limit: u32,
    /// Ticks of silence between leader and learner (`syncLimit`).
    pub sync_limit: u32,
    /// Connections per client address (`maxClientCnxns`); 0 is no limit.
    pub max_client_cnxns: u32,
    /// Connections in all (`maxCnxns`); 0 is no limit.
    pub max_cnxns: u32,
    /// Threads that serve clients beside the core's own, which does with 0 (`nio.numSelectorThreads`); `None` leaves it
    /// to the number of processors.
    pub client_threads: Option<u32>,
    /// A connection without a session is closed after this time (`nio.sessionlessCnxnTimeout`), in ms.
    pub sessionless_timeout_ms: u64,
    /// Shortest session timeout granted, in ms (`minSessionTimeout`, else two ticks).
    pub min_session_timeout_ms: i32,
    /// Longest session timeout granted, in ms (`maxSessionTimeout`, else twenty ticks).
    pub max_session_timeout_ms: i32,
    /// Txns between snapshots (`snapCount`), at least 2.
    pub snap_count: u32,
    /// Bytes of log between snapshots (`snapSizeLimitInKb`); 0 is no limit.
    pub snap_size_limit_bytes: u64,
    /// By how much a log file grows at a time (`preAllocSize`, there in KiB).
    pub pre_alloc_size_bytes: u64,
    /// Txns kept in memory for DIFF synchronization (`commitLogCount`).
    pub commit_log_count: usize,
    /// How snapshots are written (`snapshot.compression.method`); all are read.
    pub snapshot_compression: SnapshotCompression,
    /// Start with logs but without a snapshot (`snapshot.trust.empty`).
    pub snapshot_trust_empty: bool,
    /// Create missing directories (`datadir.autocreate`).
    pub datadir_autocreate: bool,
    /// Start without any data and without an `initialize` marker (`db.autocreate`).
    pub db_autocreate: bool,
    /// Snapshots kept by a purge (`autopurge.snapRetainCount`), at least 3.
    pub snap_retain_count: u32,
    /// Time between purges in ms (`autopurge.purgeInterval`, there in hours or with a unit); 0 is never.
    pub purge_interval_ms: u64,
    /// Sync the log before acknowledging (`forceSync`). `false` can lose acknowledged writes.
    pub force_sync: bool,
    /// A sync that takes longer is logged (`fsync.warningthresholdms`), in ms.
    pub fsync_warning_threshold_ms: u64,
    /// The longest packet and znode (`jute.maxbuffer`), in bytes.
    pub jute_max_buffer: usize,
    /// What records between servers may be longer (`jute.maxbuffer.extrasize`), in bytes.
    pub jute_max_buffer_extra: usize,
    /// Requests in work before connections are no longer read (`globalOutstandingLimit`).
    pub global_outstanding_limit: u32,
    /// A single server serves alone, without an ensemble of one (`standaloneEnabled`).
    pub standalone_enabled: bool,
    /// Bind quorum and election port to every address (`quorumListenOnAllIPs`).
    pub quorum_listen_on_all_ips: bool,
    /// Tries to bind the election port (`electionPortBindRetry`); 0 is for ever.
    pub election_port_bind_retry: u32,
    /// Time to connect to an election port, in ms (`cnxTimeout`).
    pub cnx_timeout_ms: u64,
    /// First pause before votes are sent again, in ms (`fastleader.minNotificationInterval`).
    pub min_notification_interval_ms: u64,
    /// Longest such pause, in ms (`fastleader.maxNotificationInterval`).
    pub max_notification_interval_ms: u64,
    /// The leader takes clients (`leaderServes`).
    pub leader_serves: bool,
    /// What this server says it is (`peerType`); the list of servers has the last word.
    pub peer_type: LearnerType,
    /// The words that are answered (`4lw.commands.whitelist`).
    pub four_letter_whitelist: Whitelist,
    /// TTL nodes may be created (`extendedTypesEnabled`).
    pub extended_types_enabled: bool,
    /// Time between two looks for empty containers and expired nodes, in ms
    /// (`znode.container.checkIntervalMs`).
    pub container_check_interval_ms: u64,
    /// Containers removed per minute at most (`znode.container.maxPerMinute`).
    pub container_max_per_minute: u32,
    /// A container that never had a child is removed after this time, in ms
    /// (`znode.container.maxNeverUsedIntervalMs`); 0 is never.
    pub container_max_never_used_ms: u64,
    /// Writes beyond a hard quota are refused (`enforceQuota`).
    pub enforce_quota: bool,
    /// `super:<digest>` of the super user (`DigestAuthenticationProvider.superDigest`).
    pub super_digest: Option<String>,
    /// Clients must authenticate by one of `enforced_schemes` (`enforce.auth.enabled`).
    pub enforce_auth: bool,
    /// The schemes that count for it (`enforce.auth.schemes`); empty unless it is enforced.
    pub enforced_schemes: Vec<String>,
    /// No ACL is checked (`skipACL`).
    pub skip_acl: bool,
    /// Keep and compare the digest of the tree (`digest.enabled`).
    pub digest_enabled: bool,
    /// The txn that closes a session lists its ephemerals (`closeSessionTxn.enabled`).
    pub close_session_txn_enabled: bool,
    /// More than one address per server is allowed (`multiAddress.enabled`).
    pub multi_address_enabled: bool,
    /// Where the membership is (`dynamicConfigFile`), if not in the file itself.
    pub dynamic_config_file: Option<PathBuf>,
    /// Who belongs to the ensemble; empty standalone.
    pub servers: Membership,
    /// Which of them this server is.
    pub my_id: Option<ServerId>,
}

impl Default for Config {
    /// The embedded default, and the value of every key that a file does not give: standalone on
    /// 127.0.0.1:2181, data in `./zkd-data`. A file has to name `dataDir`, and its `clientPort` and
    /// `clientPortAddress` have no default.
    fn default() -> Self {
        Self {
            file: String::new(),
            data_dir: PathBuf::from("zkd-data"),
            data_log_dir: PathBuf::from("zkd-data"),
            client_port: Some(2181),
            client_port_address: Some("127.0.0.1".to_owned()),
            client_port_listen_backlog: None,
            tick_time_ms: 3000,
            init_limit: 0,
            sync_limit: 0,
            max_client_cnxns: 60,
            max_cnxns: 0,
            client_threads: None,
            sessionless_timeout_ms: 10_000,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 60_000,
            snap_count: 100_000,
            snap_size_limit_bytes: 4_194_304 * 1024,
            pre_alloc_size_bytes: 65_536 * 1024,
            commit_log_count: 500,
            snapshot_compression: SnapshotCompression::None,
            snapshot_trust_empty: false,
            datadir_autocreate: true,
            db_autocreate: true,
            snap_retain_count: 3,
            purge_interval_ms: 0,
            force_sync: true,
            fsync_warning_threshold_ms: 1000,
            jute_max_buffer: 0xf_ffff,
            jute_max_buffer_extra: 0xf_ffff,
            global_outstanding_limit: 1000,
            standalone_enabled: true,
            quorum_listen_on_all_ips: false,
            election_port_bind_retry: 3,
            cnx_timeout_ms: 5000,
            min_notification_interval_ms: 200,
            max_notification_interval_ms: 60_000,
            leader_serves: true,
            peer_type: LearnerType::Participant,
            four_letter_whitelist: Whitelist::Words(BTreeSet::from([FourLetterWord::Srvr])),
            extended_types_enabled: false,
            container_check_interval_ms: 60_000,
            container_max_per_minute: 10_000,
            container_max_never_used_ms: 0,
            enforce_quota: false,
            super_digest: None,
            enforce_auth: false,
            enforced_schemes: Vec::new(),
            skip_acl: false,
            digest_enabled: true,
            close_session_txn_enabled: true,
            multi_address_enabled: false,
            dynamic_config_file: None,
            servers: Membership::default(),
            my_id: None,
        }
    }
}

impl Config {
    /// Reads and checks the text of a `zoo.cfg`. `file` is only a name for messages. If
    /// [`Config::dynamic_config_file`] is then set, its text has to be handed to
    /// [`Config::with_dynamic`]; if [`Config::is_distributed`], the text of `myid` to
    /// [`Config::with_my_id`].
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn parse(text: &str, file: &str) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        read::parse(text, file)
    }

    /// Takes the membership from the text of the dynamic file, whose name may end in its version
    /// (`zoo.cfg.dynamic.100000000`).
    ///
    /// # Errors
    /// A line that cannot be read, a `version` line (the name has it), a membership that is none.
    pub fn with_dynamic(
        self,
        text: &str,
        file: &str,
    ) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        ensemble::with_dynamic(self, text, file)
    }

    /// Takes the server's own id from the text of `myid`. `file` is only a name for messages.
    ///
    /// # Errors
    /// It is no number, it is not in the list of servers, it cannot be used together with TTL nodes, or
    /// its line contradicts `clientPort`.
    pub fn with_my_id(
        self,
        text: &str,
        file: &str,
    ) -> Result<(Self, Vec<ConfigWarning>), ConfigError> {
        ensemble::with_my_id(self, text, file)
    }

    /// Whether the server is part of an ensemble: more than one voter, or a single one that is not to
    /// serve alone.
    #[must_use]
    pub fn is_distributed(&self) -> bool {
        match self.servers.voters().len() {
            0 => false,
            1 => !self.standalone_enabled,
            _ => true,
        }
    }

    /// This server's own line in the list of servers.
    #[must_use]
    pub fn my_spec(&self) -> Option<&ServerSpec> {
        self.servers.server(self.my_id?)
    }

    /// Where the server takes clients: host (`None` is every address) and port.
    #[must_use]
    pub fn client_address(&self) -> Option<(Option<&str>, u16)> {
        self.client_port
            .map(|port| (self.client_port_address.as_deref(), port))
    }

    /// `initLimit` as a time, in milliseconds.
    #[must_use]
    pub fn init_limit_ms(&self) -> u64 {
        u64::from(self.init_limit) * self.tick_time_ms
    }

    /// `syncLimit` as a time, in milliseconds.
    #[must_use]
    pub fn sync_limit_ms(&self) -> u64 {
        u64::from(self.sync_limit) * self.tick_time_ms
    }

    /// The whole configuration as it is in effect, one `key=value` a line, in the syntax of a `zoo.cfg`
    /// that means the same; the super user's digest is hidden.
    #[must_use]
    pub fn effective_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for setting in settings::SETTINGS {
            if let Some(value) = (setting.show)(self) {
                writeln!(text, "{}={value}", setting.key).expect("a String takes any text");
            }
        }
        text + &self.servers.member_lines()
    }
}
