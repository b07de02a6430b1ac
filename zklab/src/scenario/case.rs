//! One case: a plan on a lab of its own, from nothing to a verdict and a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::evidence;
use super::expect::{self, Expected, Measured};
use super::finale::{Ending, Trees};
use super::folder::{Folder, copy_tree};
use super::host::{HostMeter, HostReading, machine};
use super::judge::{self, Grounds};
use super::lab::Lab;
use super::plan::Plan;
use super::record::{Check, LoadRecord, RunRecord, ScheduleLine, Verdict};
use super::stage::Stage;
use super::utc;
use crate::clock::{ms, now_us};
use crate::event::{LabEvent, LabEventKind};
use crate::failure::{Context, Exit, Failure};
use crate::fault::Profile;
use crate::id::NodeId;
use crate::net::NetKind;
use crate::node::ServerKind;
use crate::observe::load::{self, Mix, Reins, Summary};
use crate::observe::logs;
use crate::supervisor::home::DataPlace;
use crate::supervisor::protocol::{Death, Info, Request, UpRequest};

/// How long zkd may take to serve; a machine that is busy takes its time.
const UP_ZKD: Duration = Duration::from_secs(30);
/// How long Apache ZooKeeper may take.
const UP_APACHE: Duration = Duration::from_secs(120);
/// How long the first writes of the load may take.
const WARM: Duration = Duration::from_secs(10);
/// Writes after which the steps begin.
const WARM_WRITES: u64 = 20;
/// No load runs longer than this.
const LOAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// How long the end of the load may take.
const LOAD_END: Duration = Duration::from_secs(90);
/// Characters of a dead node's last line that are told.
const WORDS_MAX: usize = 500;
/// How long the trees may take to stand at one zxid, where the scenario does not say it.
const TREES: Duration = Duration::from_secs(5);

/// What the nodes run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// What was asked for: `zkd`, `apache`, `mixed`, or a path.
    pub word: String,
    /// What every node runs …
    pub server: ServerKind,
    /// … but for every second one, which runs this.
    pub other: Option<ServerKind>,
}

impl Servers {
    /// Finds what is asked for; nothing is the zkd beside this program.
    ///
    /// # Errors
    /// If there is no such server.
    pub fn find(word: Option<&str>) -> Result<Self, Failure> {
        let word = word.unwrap_or("zkd");
        let (server, other) = match word {
            "zkd" => (ServerKind::find(None)?, None),
            "mixed" => (
                ServerKind::find(None)?,
                Some(ServerKind::find(Some("apache"))?),
            ),
            path => (ServerKind::find(Some(path))?, None),
        };
        Ok(Self {
            word: word.to_owned(),
            server,
            other,
        })
    }

    /// Does Apache ZooKeeper take part?
    #[must_use]
    pub fn has_apache(&self) -> bool {
        let all = [Some(&self.server), self.other.as_ref()];
        all.into_iter().flatten().any(|kind| !kind.has_feed())
    }
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What happens.
    pub plan: Plan,
    /// On what.
    pub servers: Servers,
    /// On which network.
    pub net: NetKind,
    /// Where everything is written.
    pub folder: PathBuf,
    /// A longer stall of the machine than this excuses what was missed, in microseconds.
    pub stall_limit_us: u64,
}

/// What came of the time on the stage.
struct Played {
    stage: Arc<Stage>,
    ending: Ending,
    load: Result<Summary, Failure>,
}

/// Runs a case from nothing to its folder.
///
/// # Errors
/// If the folder cannot be written. What becomes of the lab is the verdict's.
pub fn run(case: &Case) -> Result<RunRecord, Failure> {
    let folder = Folder::create(&case.folder)?;
    folder.write("scenario.toml", &case.plan.to_toml())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "cannot start clients".to_owned())?;
    let meter = HostMeter::start();
    let mark = meter.mark();
    let begun = now_us();
    let mut record = blank(case, begun);
    match Lab::up(up(case, begun)) {
        Ok(lab) => {
            record.server.clone_from(&lab.report.server);
            record.net = lab.report.net.to_string();
            runtime.block_on(live(case, lab, &folder, &mut record, || meter.since(mark)))?;
        }
        Err(failure) => {
            (record.verdict, record.message) = match failure.exit {
                Exit::NodeDied => (Verdict::Died, failure.cause),
                _ => (Verdict::Environment, failure.cause),
            };
            weigh(&mut record, meter.since(mark));
        }
    }
    record.exit = record.verdict.exit().code();
    record.ms = ms(now_us() - begun);
    folder.json("run.json", &record)?;
    Ok(record)
}

/// A name that no other lab of this machine has.
fn lab_name(case: &Case) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("run-{}-{}-{number}", case.plan.seed, std::process::id())
}

fn up(case: &Case, begun: u64) -> UpRequest {
    let plan = &case.plan;
    let others = case.servers.other.iter().flat_map(|other| {
        let even = (2..=plan.total()).step_by(2);
        even.map(|number| (NodeId(number), other.clone()))
    });
    let patience = if case.servers.has_apache() {
        UP_APACHE
    } else {
        UP_ZKD
    };
    UpRequest {
        observers: plan.observers,
        version_of: others.collect(),
        tick_ms: (plan.tick_us / 1000).max(1),
        net: case.net,
        data: if plan.data == "disk" {
            DataPlace::Disk
        } else {
            DataPlace::Tmpfs
        },
        seed: plan.seed.0,
        timeout_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        disks: plan.watched(),
        asked_us: begun,
        lease: true,
        // It was read when the scenario was.
        profile: plan
            .profile
            .as_deref()
            .and_then(|word| Profile::open(word).ok())
            .map(Box::new),
        ..UpRequest::new(lab_name(case), plan.nodes, case.servers.server.clone())
    }
}

/// The record before anything has happened.
fn blank(case: &Case, begun: u64) -> RunRecord {
    let plan = &case.plan;
    let server = if case.servers.word == "zkd" {
        String::new()
    } else {
        format!(" --server {}", case.servers.word)
    };
    RunRecord {
        v: 1,
        name: plan.name.clone(),
        file: plan.file.clone(),
        seed: plan.seed,
        started: utc::stamp(),
        ms: 0.0,
        lab_start_us: begun,
        server: case.servers.server.name().to_owned(),
        servers: BTreeMap::new(),
        server_word: case.servers.word.clone(),
        net: case.net.to_string(),
        nodes: plan.nodes,
        observers: plan.observers,
        verdict: Verdict::Pass,
        exit: 0,
        rule: None,
        message: String::new(),
        checks: Vec::new(),
        expects: Vec::new(),
        host_stall_max_ms: 0.0,
        host_stall_limit_ms: ms(case.stall_limit_us),
        host_busy_percent: None,
        load: LoadRecord::default(),
        faults: 0,
        story: Vec::new(),
        repro: format!("zklab run {} --seed {}{server}", plan.file, plan.seed),
        shrink: format!("zklab shrink {}", case.folder.display()),
        folder: case.folder.display().to_string(),
        versions: BTreeMap::from([("zklab".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        machine: machine(),
    }
}

fn weigh(record: &mut RunRecord, host: HostReading) {
    record.host_stall_max_ms = ms(host.stall_us);
    record.host_busy_percent = host.busy_percent;
}

/// The life of a lab, from its first write to its end.
async fn live(
    case: &Case,
    lab: Lab,
    folder: &Folder,
    record: &mut RunRecord,
    host: impl Fn() -> HostReading,
) -> Result<(), Failure> {
    let nodes: Vec<NodeId> = lab.report.nodes.iter().map(|node| node.id).collect();
    record.servers = servers_of(&lab, &nodes).await;
    let played = play(case, lab, folder).await;
    let reading = host();
    let stage = &played.stage;
    // What comes now is the end, and no part of the run.
    let events: Vec<LabEvent> = stage.lab.events.with(<[LabEvent]>::to_vec);
    // Whatever the logs hold is judged when nobody writes them any more.
    let killed = stage
        .lab
        .ask::<Value>(Request::Kill {
            nodes: vec!["all".to_owned()],
            signal: nix::sys::signal::Signal::SIGKILL as i32,
            restart_after_ms: None,
            lose_unsynced: false,
            torn: false,
            death: Death::Process,
            wait: false,
        })
        .await;
    let log_check = if case.plan.check.logs {
        let found = killed
            .map_err(|failure| failure.cause)
            .and_then(|_| compare_logs(&stage.lab, &nodes));
        Some(judge::logs(found, &folder.file("history.ndjson")))
    } else {
        None
    };
    fill(case, folder, record, &played, log_check, &events, reading);
    weigh(record, reading);
    write_down(stage, folder, &events)?;
    evidence::wire(stage, folder, &record.checks, &events).await?;
    for node in &nodes {
        keep_node(stage, folder, *node, record.verdict)?;
    }
    let Some(stage) = Arc::into_inner(played.stage) else {
        return Ok(());
    };
    stage.lab.down().await
}

/// What each node runs.
async fn servers_of(lab: &Lab, nodes: &[NodeId]) -> BTreeMap<NodeId, String> {
    let Ok(status) = lab.status().await else {
        return BTreeMap::new();
    };
    let of = |id: &NodeId| {
        let node = status.nodes.iter().find(|node| node.id == *id)?;
        Some((*id, node.version.clone().unwrap_or_default()))
    };
    nodes.iter().filter_map(of).collect()
}

/// Load, steps and end.
async fn play(case: &Case, lab: Lab, folder: &Folder) -> Played {
    let reins = Reins::default();
    let load = start_load(case, &lab, folder, &reins).await;
    warm(&reins, load.as_ref()).await;
    let stage = Arc::new(Stage::new(lab, case.plan.clone(), reins));
    let looking = tokio::spawn(Arc::clone(&stage).look_on());
    stage.play().await;
    let mut ending = stage.end().await;
    stage.reins.stop();
    let load = match load {
        Ok(load) => end_load(load).await,
        Err(failure) => Err(failure),
    };
    if case.plan.check.digest && ending.trees == Trees::Unknown {
        ending.trees = stage.compare(TREES).await;
    }
    looking.abort();
    // It may hold the stage until it has noticed.
    let _ = looking.await;
    Played {
        stage,
        ending,
        load,
    }
}

type Load = JoinHandle<Result<Summary, Failure>>;

async fn start_load(
    case: &Case,
    lab: &Lab,
    folder: &Folder,
    reins: &Reins,
) -> Result<Load, Failure> {
    let info: Info = lab.ask(Request::Info).await?;
    let addresses = info.addresses()?;
    let plan = load::Plan {
        lab: info.lab,
        addresses,
        clients: case.plan.clients,
        via: case.plan.via,
        rate: case.plan.rate,
        mix: Mix::parse(&case.plan.mix)?,
        for_: LOAD_MAX,
        session_timeout: Duration::from_micros(case.plan.session_timeout_us),
        history: folder.file("history.ndjson"),
        seed: case.plan.load_seed(),
    };
    let reins = reins.clone();
    Ok(tokio::spawn(async move { load::run(&plan, &reins).await }))
}

/// Waits until the clients are at work.
async fn warm(reins: &Reins, load: Result<&Load, &Failure>) {
    let deadline = Instant::now() + WARM;
    while reins.writes() < WARM_WRITES
        && Instant::now() < deadline
        && load.is_ok_and(|load| !load.is_finished())
    {
        sleep(Duration::from_millis(2)).await;
    }
}

async fn end_load(mut load: Load) -> Result<Summary, Failure> {
    match timeout(LOAD_END, &mut load).await {
        Ok(done) => done.doing(|| "the load broke".to_owned())?,
        Err(_) => {
            load.abort();
            Err(Failure::new(Exit::Missed, "the load did not end"))
        }
    }
}

fn compare_logs(lab: &Lab, nodes: &[NodeId]) -> Result<logs::LogsVerdict, String> {
    let dirs: Vec<(String, PathBuf)> = nodes
        .iter()
        .map(|node| (node.to_string(), lab.node_dir(*node).join("data")))
        .collect();
    logs::compare(&dirs).map_err(|failure| failure.cause)
}

/// Everything that was seen becomes checks, expectations and the verdict.
fn fill(
    case: &Case,
    folder: &Folder,
    record: &mut RunRecord,
    played: &Played,
    log_check: Option<Check>,
    events: &[LabEvent],
    host: HostReading,
) {
    let stage = &played.stage;
    let file = folder.file("history.ndjson");
    record.checks = judge::history(&file, &case.plan.check);
    if case.plan.check.digest {
        record.checks.push(judge::digest(&played.ending.trees));
    }
    record.checks.extend(log_check);
    if let Ok(summary) = &played.load {
        record.load = LoadRecord {
            clients: summary.clients,
            foreign: summary.foreign,
            ops: summary.ok + summary.failed + summary.unknown,
            ok: summary.ok,
            failed: summary.failed,
            unknown: summary.unknown,
            p50_ms: summary.p50_ms,
            p99_ms: summary.p99_ms,
            longest_gap_ms: summary.longest_gap_ms,
        };
    }
    let us = |ms: f64| (ms * 1000.0).round() as u64;
    let measured = Measured {
        longest_gap: us(record.load.longest_gap_ms),
        p99: us(record.load.p99_ms),
        sessions_lost: sessions_lost(&file),
        epoch_bumps: judge::epoch_bumps(events, stage.begin_us),
        converged: played.ending.converged_us,
        quorum_regained: judge::quorum_regained(events, stage.begin_us),
        ops_ok: record.load.ok,
    };
    let expect = case.plan.expect.of(case.servers.has_apache());
    record.expects = expect::judge(&expect, &measured);
    record.expects.extend(played.ending.demands.clone());
    record.expects.extend(always(played));
    record.faults = faults(events, stage.begin_us);
    record.story = story(&stage.notes().schedule);
    let grounds = Grounds {
        checks: &record.checks,
        expects: &record.expects,
        events,
        host,
        stall_limit_us: case.stall_limit_us,
        ops_ok: record.load.ok,
        last_words: &|node| last_words(&stage.lab.node_dir(node).join("server.log")),
    };
    (record.verdict, record.rule, record.message) = judge::verdict(&grounds);
}

/// The last line of a log that is no part of a longer message.
fn last_words(log: &Path) -> Option<String> {
    let log = std::fs::read(log).ok()?;
    let log = String::from_utf8_lossy(&log);
    let mut lines = log.lines().rev();
    let last = lines.find(|line| line.starts_with(|first: char| !first.is_whitespace()))?;
    Some(last.chars().take(WORDS_MAX).collect())
}

/// What is expected of every run: the steps can be done, everything comes back, the end can be read.
fn always(played: &Played) -> Vec<Expected> {
    let missed = |what: String, wanted: &str, got: String| Expected {
        what,
        wanted: wanted.to_owned(),
        got,
        ok: false,
    };
    let mut found: Vec<Expected> = Vec::new();
    for (step, why) in &played.stage.notes().undone {
        found.push(missed(format!("step {step}"), "done", why.clone()));
    }
    if played.ending.is_whole && played.ending.converged_us.is_none() {
        found.push(missed(
            "all serve".to_owned(),
            "after the heal",
            "never".to_owned(),
        ));
    }
    match &played.load {
        Err(failure) => found.push(missed("load".to_owned(), "an end", failure.cause.clone())),
        Ok(summary) if summary.end.is_none() => {
            let got = "no server served it".to_owned();
            found.push(missed("end state".to_owned(), "readable", got));
        }
        Ok(_) => {}
    }
    found
}

/// Sessions that ended although their client was there.
fn sessions_lost(history: &Path) -> u64 {
    let text = std::fs::read_to_string(history).unwrap_or_default();
    let lost = text
        .lines()
        .filter(|line| line.starts_with("{\"k\":\"expired\""));
    lost.count() as u64
}

/// Faults that were put in.
fn faults(events: &[LabEvent], begin_us: u64) -> usize {
    let later = events.iter().filter(|event| event.t_us >= begin_us);
    later
        .filter(|event| matches!(event.kind, LabEventKind::FaultOn { .. }))
        .count()
}

/// What was done, in a few words.
fn story(schedule: &[ScheduleLine]) -> Vec<String> {
    let done = schedule.iter().filter(|line| line.ok);
    done.map(|line| line.resolved.clone()).collect()
}

fn write_down(stage: &Stage, folder: &Folder, events: &[LabEvent]) -> Result<(), Failure> {
    let mut notes = stage.notes();
    notes.schedule.sort_by_key(|line| line.t_us);
    folder.lines("schedule.ndjson", &notes.schedule)?;
    folder.lines("samples.ndjson", &notes.samples)?;
    folder.lines("events.ndjson", events)
}

/// Keeps a node's log, and its data if they are evidence.
fn keep_node(
    stage: &Stage,
    folder: &Folder,
    node: NodeId,
    verdict: Verdict,
) -> Result<(), Failure> {
    let from = stage.lab.node_dir(node);
    let to = folder.file(&node.to_string());
    std::fs::create_dir_all(&to).doing(|| format!("cannot make {}", to.display()))?;
    // A node that was never started has none.
    let _ = std::fs::copy(from.join("server.log"), to.join("log"));
    if matches!(verdict, Verdict::Bug | Verdict::Died) {
        copy_tree(&from.join("data"), &to.join("data"))?;
    }
    Ok(())
}
