//! Bringing a server up: directories, database, ports, core. And what can go wrong there.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant as StdInstant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;

use crate::auth::AuthConfig;
use crate::config::{Config, Membership, SnapshotCompression};
use crate::event::{FeedTarget, PeerEvent};
use crate::ids::ServerId;
use crate::metrics::Metrics;
use crate::peer::{PeerConfig, QuorumPeer, RecoveredState};
use crate::pipeline::{PrepOptions, ServerOptions, ZkServer};
use crate::quorum::{QuorumError, QuorumVerifier};
use crate::storage::{Compression, RealDisk, Recovered, Storage, StorageError, StorageOptions};
use crate::time::Instant;

use super::client_port::{ClientPort, ClientThreads};
use super::clock;
use super::core::{Core, CoreSender};
use super::election_port::{ElectionEvent, ElectionPort};
use super::feed::Feed;
use super::links::Links;
use super::meter::Meter;
use super::net;
use super::status::StatusSource;
use super::storage_thread::{PurgeHandle, StorageThread};

/// Threads for clients at the most: one core feeds them all, and more threads than that cost memory.
const CLIENT_THREADS_MAX: usize = 8;
/// Pause between attempts to bind a port that is still in use.
const BIND_PAUSE: Duration = Duration::from_secs(1);
/// Listen backlog where none is configured.
const BACKLOG: i32 = 1024;

/// Notifications of the election port that may wait for the core; then the port is not read.
const HEARD_MAX: usize = 1024;

/// What the command line says beyond the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Where the event feed goes.
    pub events: Option<FeedTarget>,
}

/// Why a server ended without being told to.
#[derive(Debug)]
pub struct ServeError {
    /// The exit code it stands for.
    pub code: u8,
    /// What happened, and what to do.
    pub message: String,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServeError {}

impl From<StorageError> for ServeError {
    fn from(error: StorageError) -> Self {
        Self {
            code: 3,
            message: error.to_string(),
        }
    }
}

impl ServeError {
    fn unexpected(what: &str, error: &dyn fmt::Display) -> Self {
        Self {
            code: 1,
            message: format!("{what}: {error}"),
        }
    }

    fn bind(port: &str, address: &str, error: &std::io::Error) -> Self {
        Self {
            code: 14,
            message: format!(
                "the {port} port {address} cannot be opened: {error}; is another server running there?"
            ),
        }
    }
}

/// Serves until SIGTERM or SIGINT, or until something makes it impossible.
///
/// # Errors
/// With the exit code the failure stands for.
pub fn serve(config: &Config, options: &ServeOptions) -> Result<(), ServeError> {
    let my_id = if config.is_distributed() {
        config.my_id
    } else {
        None
    };
    let metrics = Arc::new(Metrics::default());
    let mut feed = Feed::open(
        my_id.map_or(0, |id| id.0),
        options.events.as_ref(),
        Arc::clone(&metrics),
    )
    .map_err(|error| ServeError {
        code: 2,
        message: format!(
            "--events {}: {error}",
            options
                .events
                .as_ref()
                .map_or_else(String::new, ToString::to_string)
        ),
    })?;
    let version = env!("CARGO_PKG_VERSION").to_owned();
    feed.tell(PeerEvent::Starting {
        version,
        pid: std::process::id(),
    });
    allow_many_files();
    let begin = StdInstant::now();
    let disk = RealDisk::open(
        &config.data_dir,
        &config.data_log_dir,
        config.datadir_autocreate,
    )?;
    let (storage, recovered) = Storage::open(disk.clone(), storage_options(config, &disk))?;
    disk.remove_initialize_marker()?;
    tell_recovered(&mut feed, &recovered, begin);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ServeError::unexpected("the runtime cannot be started", &error))?;
    let ended = runtime.block_on(run(config, my_id, disk, storage, recovered, feed, metrics));
    // Tasks of connections hold nothing that must be finished.
    runtime.shutdown_background();
    ended
}

/// How many threads serve clients beside the core's own, if the configuration does not say. Up to two processors there
/// is nothing to gain: the core, the storage thread and the kernel fill them, and a request that changes threads is
/// slower.
fn client_threads() -> usize {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        0..=2 => 0,
        processors => (processors - 1).min(CLIENT_THREADS_MAX),
    }
}

/// Takes the limit of open files up as far as this user may: every client is one, and the low default of most
/// systems is for programs that cannot count higher than `select`.
fn allow_many_files() {
    let wanted = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = wanted {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

fn tell_recovered(feed: &mut Feed, recovered: &Recovered, begin: StdInstant) {
    for note in &recovered.notes {
        tracing::warn!("{note}");
    }
    feed.tell(PeerEvent::Recovered {
        zxid: recovered.last_zxid.0,
        znodes: recovered.tree.node_count() as u64,
        took_us: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX),
    });
}

async fn run(
    config: &Config,
    my_id: Option<ServerId>,
    disk: RealDisk,
    storage: Storage<RealDisk>,
    recovered: Recovered,
    mut feed: Feed,
    metrics: Arc<Metrics>,
) -> Result<(), ServeError> {
    let (sender, inputs) = CoreSender::new();
    let started = Instant(clock::wall_ms().cast_unsigned());
    let server = Arc::new(
        ZkServer::new(server_options(config, my_id), started).with_metrics(Arc::clone(&metrics)),
    );
    let (tree, state) = RecoveredState::split(recovered);
    server.replace_tree(tree);
    if my_id.is_some() {
        let members = &config.servers;
        server.show_members(members.canonical_text(), members.version, clock::wall_ms());
    }

    let payload_max = config.jute_max_buffer + config.jute_max_buffer_extra;
    let links = Arc::new(Links::new(sender.clone(), Arc::clone(&server), payload_max));
    let election = match my_id {
        Some(id) => Some(open_ensemble_ports(config, id, &links, &sender, &mut feed).await?),
        None => None,
    };
    let peer_config = peer_config(config, my_id)?;
    let slow_sync = Duration::from_millis(config.fsync_warning_threshold_ms);
    let storage = StorageThread::start(
        storage,
        Arc::clone(&server),
        Arc::clone(&metrics),
        sender.clone(),
        slow_sync,
    )
    .map_err(|error| ServeError::unexpected("the storage thread cannot be started", &error))?;
    let peer = QuorumPeer::new(peer_config.clone(), Arc::clone(&server), state);
    open_client_port(config, &server, &sender, &metrics, &disk, &mut feed).await?;
    autopurge(config, storage.purge_handle());
    watch_signals(sender.clone())?;
    let core = Core {
        peer,
        config: peer_config,
        server,
        storage,
        links,
        election,
        feed,
        meter: Meter::new(metrics),
        in_flight: std::collections::VecDeque::new(),
        serving_since: Instant::default(),
        leader_serves: config.leader_serves,
    };
    let ended = core.run(inputs).await;
    if ended.code == 0 {
        return Ok(());
    }
    let code = u8::try_from(ended.code).unwrap_or(1);
    Err(ServeError {
        code,
        message: ended.reason,
    })
}

async fn open_ensemble_ports(
    config: &Config,
    my_id: ServerId,
    links: &Arc<Links>,
    core: &CoreSender,
    feed: &mut Feed,
) -> Result<ElectionPort, ServeError> {
    let spec = config.my_spec().ok_or_else(|| ServeError {
        code: 2,
        message: format!(
            "myid says {my_id}, but there is no server.{my_id} in {}",
            config.file
        ),
    })?;
    let address = spec.address();
    let host = if config.quorum_listen_on_all_ips {
        "0.0.0.0"
    } else {
        address.host.as_str()
    };
    let quorum = bind(
        "quorum",
        host,
        address.quorum_port,
        BACKLOG,
        config.election_port_bind_retry,
    )
    .await?;
    feed.tell(PeerEvent::Listening {
        port: "quorum".to_owned(),
        address: format!("{host}:{}", address.quorum_port),
    });
    links.accept_from(quorum);
    let (election, mut heard) =
        ElectionPort::open(config, my_id)
            .await
            .map_err(|error| ServeError {
                code: 14,
                message: error.to_string(),
            })?;
    feed.tell(PeerEvent::Listening {
        port: "election".to_owned(),
        address: format!("{host}:{}", address.election_port),
    });
    let core = core.clone();
    let room = Arc::new(Semaphore::new(HEARD_MAX));
    tokio::spawn(async move {
        while let Some(event) = heard.recv().await {
            let room = Arc::clone(&room).acquire_owned().await;
            let room = room.expect("nobody closes this semaphore");
            let event = match event {
                ElectionEvent::Notification { from, notification } => {
                    crate::election::Input::Notification { from, notification }
                }
                ElectionEvent::Reachable(sid) => crate::election::Input::Reachable(sid),
                ElectionEvent::Unreachable(sid) => crate::election::Input::Unreachable(sid),
            };
            core.limited(crate::peer::Input::Election(event), room);
        }
    });
    Ok(election)
}

async fn open_client_port(
    config: &Config,
    server: &Arc<ZkServer>,
    core: &CoreSender,
    metrics: &Arc<Metrics>,
    disk: &RealDisk,
    feed: &mut Feed,
) -> Result<(), ServeError> {
    let Some((host, port)) = config.client_address() else {
        return Ok(());
    };
    let host = host.unwrap_or("0.0.0.0");
    let backlog = config
        .client_port_listen_backlog
        .map_or(BACKLOG, |n| i32::try_from(n).unwrap_or(BACKLOG));
    let listener = bind("client", host, port, backlog, 1).await?;
    let address = listener
        .local_addr()
        .map_or_else(|_| format!("{host}:{port}"), |address| address.to_string());
    feed.tell(PeerEvent::Listening {
        port: "client".to_owned(),
        address,
    });
    let threads = config
        .client_threads
        .map_or_else(client_threads, |count| count as usize);
    let threads = ClientThreads::start(threads).map_err(|error| {
        ServeError::unexpected("a thread for clients cannot be started", &error)
    })?;
    let status = StatusSource {
        server: Arc::clone(server),
        config: Arc::new(config.clone()),
        metrics: Arc::clone(metrics),
        core: core.clone(),
        disk: disk.clone(),
        peers: parking_lot::Mutex::default(),
    };
    let port = ClientPort {
        server: Arc::clone(server),
        core: core.clone(),
        status: Arc::new(status),
        next_conn: AtomicU64::new(1),
        threads,
    };
    Arc::new(port).serve(listener);
    Ok(())
}

/// Binds a port, trying again while it is in use; 0 attempts mean for ever, as in Apache.
async fn bind(
    what: &str,
    host: &str,
    port: u16,
    backlog: i32,
    attempts: u32,
) -> Result<tokio::net::TcpListener, ServeError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match net::listen(host, port, backlog).await {
            Ok(listener) => return Ok(listener),
            Err(error) if attempts != 0 && attempt >= attempts => {
                return Err(ServeError::bind(what, &format!("{host}:{port}"), &error));
            }
            Err(error) => {
                tracing::warn!(%error, host, port, "the {what} port cannot be opened yet; trying again");
                tokio::time::sleep(BIND_PAUSE).await;
            }
        }
    }
}

/// Keeps the newest snapshots and the logs they need: at the start, and then every interval.
fn autopurge(config: &Config, storage: PurgeHandle) {
    if config.purge_interval_ms == 0 {
        return; // the configuration has warned of it
    }
    let interval = Duration::from_millis(config.purge_interval_ms);
    let retain = usize::try_from(config.snap_retain_count).unwrap_or(usize::MAX);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            storage.purge(retain);
        }
    });
}

fn watch_signals(core: CoreSender) -> Result<(), ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed =
        |error: std::io::Error| ServeError::unexpected("signals cannot be watched", &error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop; what is in flight is finished");
        core.shutdown();
    });
    Ok(())
}

fn storage_options(config: &Config, disk: &RealDisk) -> StorageOptions {
    StorageOptions {
        prealloc_bytes: config.pre_alloc_size_bytes,
        force_sync: config.force_sync,
        compression: match config.snapshot_compression {
            SnapshotCompression::None => Compression::None,
            SnapshotCompression::Gz => Compression::Gzip,
            SnapshotCompression::Snappy => Compression::Snappy,
        },
        digest_enabled: config.digest_enabled,
        commit_log_count: config.commit_log_count,
        snap_count: config.snap_count,
        snap_size_limit_bytes: config.snap_size_limit_bytes,
        distributed: config.is_distributed(),
        db_autocreate: config.db_autocreate,
        initialize: disk.has_initialize_marker(),
        trust_empty_snapshot: config.snapshot_trust_empty,
        // Servers must not take their snapshots together: the id sets them apart, the clock the restarts.
        seed: clock::monotonic_us() ^ config.my_id.map_or(0, |id| id.0.cast_unsigned() << 48),
    }
}

fn server_options(config: &Config, my_id: Option<ServerId>) -> ServerOptions {
    let voters = config.servers.voters().len();
    let divisor = if voters > 2 { voters - 1 } else { 1 };
    ServerOptions {
        server_id: my_id.unwrap_or(ServerId(1)),
        min_session_timeout_ms: config.min_session_timeout_ms,
        max_session_timeout_ms: config.max_session_timeout_ms,
        jute_max_buffer: config.jute_max_buffer,
        max_client_cnxns: config.max_client_cnxns,
        max_cnxns: config.max_cnxns,
        global_outstanding_limit: (config.global_outstanding_limit as usize / divisor).max(1),
        sessionless_timeout_ms: config.sessionless_timeout_ms,
        auth: auth_config(config),
    }
}

fn auth_config(config: &Config) -> AuthConfig {
    AuthConfig {
        super_digest: config.super_digest.clone(),
        skip_acl: config.skip_acl,
        enforced_schemes: config.enforced_schemes.clone(),
    }
}

fn verifier(members: &Membership) -> Result<QuorumVerifier, QuorumError> {
    if members.is_hierarchical() {
        return QuorumVerifier::hierarchical(
            members.voters(),
            members.observers(),
            &members.groups,
            &members.weights,
        );
    }
    Ok(QuorumVerifier::majority(members.voters()))
}

fn peer_config(config: &Config, my_id: Option<ServerId>) -> Result<PeerConfig, ServeError> {
    let verifier = verifier(&config.servers).map_err(|error| ServeError {
        code: 2,
        message: format!("{}: {error}", config.file),
    })?;
    Ok(PeerConfig {
        my_id,
        members: config.servers.clone(),
        verifier,
        tick_time_ms: config.tick_time_ms,
        init_limit: config.init_limit,
        sync_limit: config.sync_limit,
        notification_interval_min_ms: config.min_notification_interval_ms,
        notification_interval_max_ms: config.max_notification_interval_ms,
        commit_log_count: config.commit_log_count,
        container_check_interval_ms: config.container_check_interval_ms,
        container_max_per_minute: config.container_max_per_minute as usize,
        container_never_used_ms: config.container_max_never_used_ms.cast_signed(),
        prep: PrepOptions {
            auth: auth_config(config),
            extended_types_enabled: config.extended_types_enabled,
            enforce_quota: config.enforce_quota,
            digest_enabled: config.digest_enabled,
            close_session_txn_enabled: config.close_session_txn_enabled,
        },
    })
}
