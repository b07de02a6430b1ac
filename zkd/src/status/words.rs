//! The answer to every four-letter word but `mntr`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;

use crate::config::{Config, FourLetterWord, LearnerType, canonical_host, delimited};
use crate::ids::SessionId;
use crate::metrics::Metrics;
use crate::record::opcode::OpCode;

use super::java;
use super::{BUILT_ON, ConnectionStatus, Effect, Mode, Serving, Status, VERSION, monitor};

/// What a server says that does not answer clients.
const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";
/// Apache's trace mask as it is after a start. zkd's tracing is set by its log level.
const TRACE_MASK: &str = "306";

pub(super) fn write(
    word: FourLetterWord,
    status: &Status,
    config: &Config,
    metrics: &Metrics,
) -> (String, Effect) {
    use FourLetterWord as W;
    match word {
        W::Ruok => return ("imok".to_owned(), Effect::None),
        W::Gtmk => return (TRACE_MASK.to_owned(), Effect::None),
        W::Stmk => {
            let text = "stmk has no effect: zkd's tracing is set by --log\n";
            return (text.to_owned(), Effect::None);
        }
        W::Envi => return (environment(status), Effect::None),
        _ => {}
    }
    let Some(serving) = &status.serving else {
        let text = if word == W::Isro { "null" } else { NOT_SERVING };
        return (text.to_owned(), Effect::None);
    };
    let text = match word {
        W::Isro if serving.mode == Mode::ReadOnly => "ro".to_owned(),
        W::Isro => "rw".to_owned(),
        W::Srvr => version_line() + &server(serving),
        W::Stat => stat(serving, &status.connections),
        W::Cons => connections(&status.connections),
        W::Mntr => monitor::write(serving, status, metrics),
        W::Conf => configuration(status, config),
        W::Dirs => format!(
            "datadir_size: {}\nlogdir_size: {}\n",
            status.data_dir_bytes, status.data_log_dir_bytes
        ),
        W::Wchs => {
            let watches = serving.watches;
            format!(
                "{} connections watching {} paths\nTotal watches:{}\n",
                watches.connections, watches.paths, watches.watches
            )
        }
        W::Wchp => watches_by_path(status),
        W::Wchc => watches_by_session(status),
        W::Dump => dump(status),
        W::Hash => hash(status),
        W::Crst => return ("Connection stats reset.\n".into(), Effect::ResetConnections),
        W::Srst => return ("Server stats reset.\n".into(), Effect::ResetServer),
        W::Ruok | W::Gtmk | W::Stmk | W::Envi => unreachable!("answered above"),
    };
    (text, Effect::None)
}

/// Adds one line. A `String` takes any text, so there is no error to handle.
macro_rules! line {
    ($out:expr, $($arg:tt)*) => {
        writeln!($out, $($arg)*).expect("a String takes any text")
    };
}
pub(super) use line;

fn version_line() -> String {
    format!("Zookeeper version: {VERSION}, built on {BUILT_ON}\n")
}

/// The part that `srvr` and `stat` share.
fn server(serving: &Serving) -> String {
    let mut out = String::new();
    if serving.mode == Mode::ReadOnly {
        line!(out, "READ-ONLY mode; serving only read-only clients");
    }
    let latency = serving.latency;
    line!(
        out,
        "Latency min/avg/max: {}/{}/{}",
        latency.min_ms,
        java::mean(latency.avg_ms),
        latency.max_ms
    );
    line!(out, "Received: {}", serving.packets_received);
    line!(out, "Sent: {}", serving.packets_sent);
    line!(out, "Connections: {}", serving.connection_count);
    line!(out, "Outstanding: {}", serving.outstanding_requests);
    line!(out, "Zxid: {}", serving.zxid);
    line!(out, "Mode: {}", serving.mode.text());
    line!(out, "Node count: {}", serving.node_count);
    if let Some(leader) = &serving.leader {
        let sizes = leader
            .proposal_sizes
            .map(|sizes| sizes.map(|size| size.to_string()));
        let [last, min, max] = sizes.unwrap_or_else(|| ["-1", "-1", "-1"].map(str::to_owned));
        line!(out, "Proposal sizes last/min/max: {last}/{min}/{max}");
    }
    out
}

fn stat(serving: &Serving, connections: &[ConnectionStatus]) -> String {
    let mut out = version_line();
    line!(out, "Clients:");
    for connection in connections {
        line!(out, " {})", short(connection));
    }
    line!(out, "");
    out + &server(serving)
}

fn connections(connections: &[ConnectionStatus]) -> String {
    let mut out = String::new();
    for connection in connections {
        write!(out, " {}", short(connection)).expect("a String takes any text");
        if let Some(session) = &connection.session {
            write!(
                out,
                ",sid={},lop={},est={},to={}",
                session.id,
                session.last_op.map_or("NA", operation),
                session.established_wall_ms,
                session.timeout_ms
            )
            .expect("a String takes any text");
            if session.last_cxid.0 >= 0 {
                write!(out, ",lcxid=0x{:x}", session.last_cxid.0).expect("a String takes any text");
            }
            write!(
                out,
                ",lzxid={},lresp={},llat={},minlat={},avglat={},maxlat={}",
                session.last_zxid,
                session.last_response_ms,
                session.last_latency_ms,
                session.latency.min_ms,
                whole(session.latency.avg_ms),
                session.latency.max_ms
            )
            .expect("a String takes any text");
        }
        line!(out, ")");
    }
    line!(out, "");
    out
}

/// A connection up to the bracket that closes it.
fn short(connection: &ConnectionStatus) -> String {
    let interest = u8::from(connection.reading) + 4 * u8::from(connection.writing);
    format!(
        "{}[{interest}](queued={},recved={},sent={}",
        remote(connection.peer),
        connection.queued,
        connection.received,
        connection.sent
    )
}

/// An address as Java prints one that was never a name: `/127.0.0.1:40676`, `/[0:0:0:0:0:0:0:1]:40677`.
fn remote(peer: SocketAddr) -> String {
    let host = canonical_host(&peer.ip().to_string());
    format!("/{}:{}", delimited(&host), peer.port())
}

/// A mean without its fraction, as Java's division of integers leaves it.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cutting off is what is meant, and a mean of times is not negative"
)]
fn whole(mean: f64) -> u64 {
    mean as u64
}

/// The short names of `FinalRequestProcessor`.
fn operation(op: OpCode) -> &'static str {
    match op {
        OpCode::Create | OpCode::Create2 | OpCode::CreateTtl | OpCode::CreateContainer => "CREA",
        OpCode::Delete | OpCode::DeleteContainer => "DELE",
        OpCode::Exists => "EXIS",
        OpCode::GetData => "GETD",
        OpCode::SetData => "SETD",
        OpCode::GetAcl => "GETA",
        OpCode::SetAcl => "SETA",
        OpCode::GetChildren | OpCode::GetChildren2 => "GETC",
        OpCode::Sync => "SYNC",
        OpCode::Ping => "PING",
        OpCode::Check => "CHEC",
        OpCode::Multi => "MULT",
        OpCode::MultiRead => "MLTR",
        OpCode::Reconfig => "RECO",
        OpCode::CheckWatches => "CHKW",
        OpCode::RemoveWatches => "REMW",
        OpCode::SetWatches => "SETW",
        OpCode::SetWatches2 => "STW2",
        OpCode::AddWatch => "ADDW",
        OpCode::GetEphemerals => "GETE",
        OpCode::GetAllChildrenNumber => "GETACN",
        OpCode::WhoAmI => "HOMI",
        OpCode::CreateSession => "SESS",
        OpCode::CloseSession => "CLOS",
        OpCode::Auth | OpCode::Sasl | OpCode::Error => "NA",
    }
}

fn environment(status: &Status) -> String {
    let mut out = String::new();
    line!(out, "Environment:");
    line!(out, "zookeeper.version={VERSION}, built on {BUILT_ON}");
    for (key, value) in &status.environment {
        line!(out, "{key}={value}");
    }
    out
}

fn configuration(status: &Status, config: &Config) -> String {
    let mut out = String::new();
    let backlog = config.client_port_listen_backlog.map_or(-1, i64::from);
    line!(
        out,
        "clientPort={}",
        config.client_port.map_or(-1, i32::from)
    );
    line!(out, "secureClientPort=-1");
    line!(
        out,
        "dataDir={}",
        config.data_dir.join("version-2").display()
    );
    line!(out, "dataDirSize={}", status.data_dir_bytes);
    line!(
        out,
        "dataLogDir={}",
        config.data_log_dir.join("version-2").display()
    );
    line!(out, "dataLogSize={}", status.data_log_dir_bytes);
    line!(out, "tickTime={}", config.tick_time_ms);
    line!(out, "maxClientCnxns={}", config.max_client_cnxns);
    line!(out, "minSessionTimeout={}", config.min_session_timeout_ms);
    line!(out, "maxSessionTimeout={}", config.max_session_timeout_ms);
    line!(out, "clientPortListenBacklog={backlog}");
    line!(out, "serverId={}", config.my_id.map_or(0, |id| id.0));
    if let Some(me) = config.my_spec().filter(|_| config.is_distributed()) {
        line!(out, "initLimit={}", config.init_limit);
        line!(out, "syncLimit={}", config.sync_limit);
        line!(out, "electionAlg=3");
        line!(out, "electionPort={}", me.address().election_port);
        line!(out, "quorumPort={}", me.address().quorum_port);
        line!(
            out,
            "peerType={}",
            u8::from(me.role == LearnerType::Observer)
        );
        line!(out, "membership: ");
        out.push_str(&config.servers.canonical_text());
    }
    out
}

fn watches_by_path(status: &Status) -> String {
    let mut out = String::new();
    for (path, sessions) in &status.watched {
        line!(out, "{path}");
        for session in sessions {
            line!(out, "\t{session}");
        }
    }
    line!(out, "");
    out
}

fn watches_by_session(status: &Status) -> String {
    let mut by_session: BTreeMap<SessionId, Vec<&str>> = BTreeMap::new();
    for (path, sessions) in &status.watched {
        for session in sessions {
            by_session.entry(*session).or_default().push(path);
        }
    }
    let mut out = String::new();
    for (session, paths) in by_session {
        line!(out, "{session}");
        for path in paths {
            line!(out, "\t{path}");
        }
    }
    line!(out, "");
    out
}

fn dump(status: &Status) -> String {
    let mut out = String::new();
    line!(out, "SessionTracker dump:");
    let expiries: Option<Vec<(i64, String)>> = status
        .sessions
        .iter()
        .map(|session| Some((session.expires_wall_ms?, session.id.to_string())))
        .collect();
    match expiries {
        Some(expiries) => expiry_groups(&mut out, "Session", expiries),
        None => {
            line!(out, "Global Sessions({}):", status.sessions.len());
            for session in &status.sessions {
                line!(out, "{}\t{}ms", session.id, session.timeout_ms);
            }
        }
    }
    line!(out, "ephemeral nodes dump:");
    line!(
        out,
        "Sessions with Ephemerals ({}):",
        status.ephemerals.len()
    );
    for (session, paths) in &status.ephemerals {
        line!(out, "{session}:");
        for path in paths {
            line!(out, "\t{path}");
        }
    }
    line!(out, "Connections dump:");
    let connections = status.connections.iter().map(|connection| {
        let session = connection
            .session
            .as_ref()
            .map_or(SessionId::NONE, |session| session.id);
        let text = format!("ip: {} sessionId: {session}", remote(connection.peer));
        (connection.expires_wall_ms, text)
    });
    expiry_groups(&mut out, "Connections", connections.collect());
    out
}

/// Things that end, by the time at which they do.
fn expiry_groups(out: &mut String, what: &str, things: Vec<(i64, String)>) {
    let count = things.len();
    let mut groups: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for (wall_ms, text) in things {
        groups.entry(wall_ms).or_default().push(text);
    }
    line!(out, "{what} Sets ({})/({count}):", groups.len());
    for (wall_ms, texts) in groups {
        line!(out, "{} expire at {}:", texts.len(), java::date(wall_ms));
        for text in texts {
            line!(out, "\t{text}");
        }
    }
}

fn hash(status: &Status) -> String {
    let mut out = String::new();
    for (zxid, digest) in &status.digests {
        line!(out, "{:x}: {digest}", zxid.0);
    }
    out
}
