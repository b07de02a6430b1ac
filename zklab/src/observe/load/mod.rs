//! Load: clients with real sessions that do a bit of everything and record what they did and were told.

mod ask;
mod chooser;
mod client;
mod foreign;
mod link;
mod mix;
mod recorder;
mod reins;
mod via;
mod watches;

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use zkd::ids::Zxid;
use zkd::jute::{DecodeError, Reader, Record, Writer};
use zkd::prng::Prng;
use zkd::record::opcode::OpCode;
use zkd::record::proto::{DataResponse, OptPathRequest, PathWatchRequest};

use self::ask::Ask;
use self::chooser::{Chooser, PAIRS, REGISTERS};
use self::client::Client;
use self::foreign::Foreign;
pub use self::mix::{Mix, Work};
use self::recorder::{Counts, Recorder};
pub use self::reins::Reins;
pub use self::via::Via;
use super::history::{FinalLine, Kind, Line};
use crate::clock::{ms, now_us};
use crate::failure::{Context, Exit, Failure};

/// How long the ensemble may take to serve at the beginning and at the end.
const PATIENCE: Duration = Duration::from_secs(15);
/// The servers append a number.
const ROOT: &str = "/load-";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The lab's name, for the record.
    pub lab: String,
    /// The servers' client addresses.
    pub addresses: Vec<SocketAddr>,
    /// How many clients.
    pub clients: u32,
    /// Through which implementation of the protocol they speak.
    pub via: Via,
    /// Operations a second, of all together.
    pub rate: u32,
    /// What they do.
    pub mix: Mix,
    /// For how long.
    pub for_: Duration,
    /// The session timeout they ask for.
    pub session_timeout: Duration,
    /// Where the history goes.
    pub history: PathBuf,
    /// All choices come from it.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// How many clients there were.
    pub clients: u32,
    /// So many of them spoke through the zookeeper-client crate.
    pub foreign: u32,
    /// Operations with a good answer.
    pub ok: u64,
    /// Operations that were refused, as many of the mix have to be.
    pub failed: u64,
    /// Operations that were never answered.
    pub unknown: u64,
    /// Median of the time to an answer, in milliseconds.
    pub p50_ms: f64,
    /// Its 99th percentile.
    pub p99_ms: f64,
    /// The longest time between two acknowledged writes of anybody.
    pub longest_gap_ms: f64,
    /// The znode below which everything happened.
    pub root: String,
    /// The zxid of the end state, if it could be read.
    pub end: Option<Zxid>,
}

/// Runs the load for the time that the plan says, or until somebody who holds the reins stops it.
///
/// # Errors
/// If no server serves, or the history cannot be written.
pub async fn run(plan: &Plan, reins: &Reins) -> Result<Summary, Failure> {
    let cannot = || format!("cannot write {}", plan.history.display());
    let mut file = File::create(&plan.history).doing(cannot)?;
    let mut prng = Prng::new(plan.seed);
    let begun = Instant::now();
    let start_us = now_us();
    let root = make_root(plan, &mut prng).await?;
    let foreign = plan.via.foreign(plan.clients);
    let header = serde_json::json!({
        "k": "history", "v": 1, "lab": plan.lab, "seed": format!("{:#x}", plan.seed), "start_us": start_us,
        "root": root, "clients": plan.clients, "own": plan.clients - foreign, "rate": plan.rate,
        "servers": plan.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    writeln!(file, "{header}").doing(cannot)?;
    let recorder = Arc::new(Recorder::new(file, reins.clone()));
    let make = |number: u32, prng: &mut Prng| {
        Client::new(
            number,
            plan.addresses.clone(),
            plan.session_timeout,
            Arc::clone(&recorder),
            Chooser::new(prng.fork(), root.clone()).with_lasting_watches(number),
        )
    };
    let mut first = make(0, &mut prng);
    prepare(&mut first, &root, begun + PATIENCE).await?;
    recorder.begin(now_us());
    reins.begin(plan.for_);
    let every = Duration::from_secs_f64(f64::from(plan.clients) / f64::from(plan.rate.max(1)));
    let mut clients = JoinSet::new();
    for number in 1..=plan.clients {
        let (mix, reins) = (plan.mix.clone(), reins.clone());
        if number <= plan.clients - foreign {
            let client = make(number, &mut prng);
            clients.spawn(client.work(mix, every, reins, PATIENCE));
        } else {
            let client = Foreign::new(
                number,
                &plan.addresses,
                plan.session_timeout,
                Arc::clone(&recorder),
                Chooser::new(prng.fork(), root.clone()),
            );
            clients.spawn(client.work(mix, every, reins, PATIENCE));
        }
    }
    let _ = clients.join_all().await;
    let counts = recorder.take_counts();
    let end = finish(&mut first, &recorder, &root).await;
    if let Some(why) = recorder.flush().or(counts.error.clone()) {
        return Err(Failure::environment(format!("{}: {why}", cannot())));
    }
    let mut summary = summary(counts, root, end);
    (summary.clients, summary.foreign) = (plan.clients, foreign);
    Ok(summary)
}

fn summary(mut counts: Counts, root: String, end: Option<Zxid>) -> Summary {
    counts.latencies_us.sort_unstable();
    let quantile = |percent: usize| {
        let last = counts.latencies_us.len().saturating_sub(1);
        let at = counts.latencies_us.get(last * percent / 100);
        ms(at.map_or(0, |us| u64::from(*us)))
    };
    Summary {
        clients: 0,
        foreign: 0,
        ok: counts.ok,
        failed: counts.failed,
        unknown: counts.unknown,
        p50_ms: quantile(50),
        p99_ms: quantile(99),
        longest_gap_ms: ms(counts.longest_gap_us),
        root,
        end,
    }
}

fn nobody() -> Failure {
    Failure::new(Exit::Missed, "no server serves a client")
        .hint("`zklab status` shows whether there is a quorum")
}

/// A directory of its own for every load: the servers give it a number.
async fn make_root(plan: &Plan, prng: &mut Prng) -> Result<String, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut ask = Ask::new(Kind::Create, ROOT);
    let nobodys = link::Ticket::default();
    ask.sequential = true;
    while Instant::now() < deadline {
        let address = *prng.pick(&plan.addresses);
        let opened = link::Link::open(
            address,
            &nobodys,
            plan.session_timeout,
            Duration::from_secs(2),
        );
        let Ok((mut link, _)) = opened.await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let sent = link
            .send(zkd::ids::Xid(1), ask.op(), |out| ask.encode(0, out))
            .await;
        let answer = tokio::time::timeout(Duration::from_secs(2), link.frames.recv()).await;
        let (Ok(()), Ok(Some((_, bytes)))) = (sent, answer) else {
            continue;
        };
        let mut reader = Reader::new(&bytes);
        let header = zkd::record::proto::ReplyHeader::decode(&mut reader);
        let _ = link
            .send(zkd::ids::Xid(2), OpCode::CloseSession, |_| ())
            .await;
        // The session is closed properly before the connection is.
        let _ = tokio::time::timeout(Duration::from_secs(1), link.frames.recv()).await;
        if header.is_ok_and(|header| header.err == 0)
            && let Ok(told) = ask.told(&mut reader)
            && let Some(made) = told.made
        {
            return Ok(made);
        }
    }
    Err(nobody())
}

/// Makes the directories, the registers and the pairs.
async fn prepare(client: &mut Client, root: &str, until: Instant) -> Result<(), Failure> {
    let dirs = ["r", "n", "s", "e", "m"].map(|dir| format!("{root}/{dir}"));
    let registers = (0..REGISTERS).map(|number| format!("{root}/r/{number}"));
    let pairs =
        (0..PAIRS).flat_map(|number| ["a", "b"].map(|half| format!("{root}/m/{number}-{half}")));
    for path in dirs.into_iter().chain(registers).chain(pairs) {
        // If nobody knows whether it was made, making it again can only be refused.
        while client
            .one(Ask::new(Kind::Create, &path), until)
            .await
            .is_none()
        {
            if Instant::now() >= until {
                return Err(nobody());
            }
        }
    }
    Ok(())
}

/// Waits until the ephemerals of all sessions are gone or have had their time.
async fn wait_for_ephemerals(client: &mut Client, root: &str) -> Option<()> {
    let patience = Instant::now() + client.granted() * 3 + Duration::from_secs(5);
    while Instant::now() < patience {
        let (_, left) = children(client, &format!("{root}/e"), patience).await?;
        if left.is_empty() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    Some(())
}

/// Reads the end state, when the ephemerals of all sessions are gone or have had their time.
async fn finish(client: &mut Client, recorder: &Recorder, root: &str) -> Option<Zxid> {
    let until = Instant::now() + PATIENCE;
    let sync = OptPathRequest {
        path: Some(root.to_owned()),
    };
    client
        .quietly(OpCode::Sync, |out| sync.encode(out), |_| Ok(()), until)
        .await?
        .ok()?;
    wait_for_ephemerals(client, root).await?;
    let until = Instant::now() + PATIENCE;
    let mut paths = vec![root.to_owned()];
    let mut end = Zxid::ZERO;
    while let Some(path) = paths.pop() {
        let get = PathWatchRequest {
            path: path.clone(),
            watch: false,
        };
        let found = client
            .quietly(
                OpCode::GetData,
                |out| get.encode(out),
                DataResponse::decode,
                until,
            )
            .await?;
        // What goes while it is looked at was not there at the end.
        let Ok((zxid, found)) = found else {
            continue;
        };
        end = end.max(zxid);
        let (owner, czxid, mzxid) = ask::owner(&found.stat);
        // The root and the directories are not values of the history's.
        recorder.write(&Line::Final(FinalLine {
            path: &path,
            value: if path == root {
                0
            } else {
                ask::value(found.data.as_deref())
            },
            version: found.stat.version,
            czxid,
            mzxid,
            owner,
            zxid,
        }));
        if found.stat.num_children > 0 {
            let (zxid, names) = children(client, &path, until).await?;
            end = end.max(zxid);
            paths.extend(names.into_iter().map(|name| format!("{path}/{name}")));
        }
    }
    recorder.write(&Line::End {
        zxid: end,
        at: now_us(),
    });
    let _ = client
        .quietly(
            OpCode::CloseSession,
            |_: &mut Writer<'_>| (),
            |_| Ok(()),
            until,
        )
        .await;
    Some(end)
}

/// The names of the children; none if the znode is gone.
async fn children(client: &mut Client, path: &str, until: Instant) -> Option<(Zxid, Vec<String>)> {
    let request = PathWatchRequest {
        path: path.to_owned(),
        watch: false,
    };
    let read = |from: &mut Reader<'_>| -> Result<Vec<String>, DecodeError> {
        let count = from.int("children")?;
        (0..count).map(|_| from.string("child")).collect()
    };
    let found = client
        .quietly(OpCode::GetChildren, |out| request.encode(out), read, until)
        .await?;
    Some(found.unwrap_or_default())
}
