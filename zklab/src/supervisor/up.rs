//! Making an ensemble and waiting until it serves.
//!
//! "Serves" means: every server told so on its feed, and a write of a real session was acknowledged. The
//! write is an ephemeral znode `/zklab-ready`, made at the leader the moment it serves, and gone with its
//! session right after: it leaves nothing in the tree.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use zkd::ids::Zxid;

use super::home::{DataPlace, Root};
use super::protocol::{HexSeed, News, Step, StepNode, UpNode, UpReport, UpRequest};
use super::{Lab, NewsSink};
use crate::clock::{ms, now_us};
use crate::disk::Watch;
use crate::ensemble::{Ensemble, LabSpec};
use crate::event::{HexZxid, LabEvent, LabEventKind, Role, Source};
use crate::failure::{Context, Exit, Failure};
use crate::id::NodeId;
use crate::net::{self, Emulated, Loopback, NetKind, Network};
use crate::node::{Membership, NodeSpec, ServerKind, tail};
use crate::probe::session::{Session, SessionError};

/// The znode of the first write.
const READY_PATH: &str = "/zklab-ready";
/// How long the first write may take once a leader serves.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// What a lab is made of.
pub type Design = (LabSpec, Vec<NodeSpec>, Box<dyn Network>);

/// The lab that was asked for, on a network of its own.
///
/// # Errors
/// If there is no network or no place for the data.
pub fn design(request: &UpRequest, root: &Root) -> Result<Design, Failure> {
    let total = usize::from(request.nodes) + usize::from(request.observers);
    if request.nodes == 0 || total > usize::from(NodeId::MAX) {
        return Err(Failure::usage(format!(
            "{} voters and {} observers are not between 1 and {} nodes",
            request.nodes,
            request.observers,
            NodeId::MAX
        )));
    }
    if let Some((stranger, _)) = request
        .version_of
        .iter()
        .find(|(node, _)| usize::from(node.0) > total)
    {
        return Err(Failure::usage(format!(
            "--version-of names {stranger}, but the nodes are n1 to n{total}"
        )));
    }
    if request.disks != Watch::No {
        crate::disk::check()?;
    }
    let data_dir = root.data_dir(&request.data, &request.name)?;
    let nodes: Vec<NodeSpec> = (1..=request.nodes + request.observers)
        .map(|number| NodeSpec {
            id: NodeId(number),
            membership: if number <= request.nodes {
                Membership::Voter
            } else {
                Membership::Observer
            },
            server: server_of(request, NodeId(number)),
            dir: data_dir.join(NodeId(number).to_string()),
        })
        .collect();
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.id).collect();
    let net = network(request, &ids)?;
    let spec = LabSpec {
        name: request.name.clone(),
        tick_ms: request.tick_ms,
        data_dir,
        keep_data: matches!(request.data, DataPlace::Dir(_)),
        disks: request.disks,
    };
    Ok((spec, nodes, net))
}

/// The best network of the kind that was asked for.
fn network(request: &UpRequest, nodes: &[NodeId]) -> Result<Box<dyn Network>, Failure> {
    let mut refused = None;
    for kind in request.net.choices() {
        if *kind == NetKind::Loopback {
            return Ok(Box::new(Loopback::claim(nodes)?));
        }
        match Emulated::create(*kind, nodes, request.seed) {
            Ok(mut net) => {
                net.publish(request.publish)?;
                return Ok(Box::new(net));
            }
            Err(failure) => refused = refused.or(Some(failure)),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::usage("no network was asked for")))
}

fn server_of(request: &UpRequest, id: NodeId) -> ServerKind {
    let own = request
        .version_of
        .iter()
        .rev()
        .find(|(node, _)| *node == id);
    own.map_or(&request.server, |(_, server)| server).clone()
}

/// Starts all servers and waits until they serve.
///
/// # Errors
/// If a server dies or no quorum forms in time.
pub async fn run(lab: &Lab, request: &UpRequest, news: NewsSink) -> Result<UpReport, Failure> {
    let ensemble = &lab.ensemble;
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
    let dir = &ensemble.spec.data_dir;
    fs::create_dir_all(dir).doing(|| format!("cannot make {}", dir.display()))?;
    ensemble.write_configuration()?;
    let mut steps = Vec::new();
    if request.one_by_one {
        for id in ensemble.ids() {
            let step = one_step(ensemble, id, deadline).await?;
            news.tell(News::Step(step.clone()));
            steps.push(step);
        }
    } else {
        for id in ensemble.ids() {
            ensemble.start(id)?;
        }
    }
    news.tell(News::Doing("electing a leader".to_owned()));
    wait(ensemble, deadline, "no leader was elected", |lab| {
        lab.serving_leader().is_some()
    })
    .await?;
    news.tell(News::Doing("first write".to_owned()));
    let first_write: JoinHandle<Result<_, SessionError>> =
        tokio::spawn(first_write(Arc::clone(ensemble)));
    wait(ensemble, deadline, "not every node serves", |lab| {
        lab.views().iter().all(|(_, view)| view.serving)
    })
    .await?;
    let (zxid, acked_us) = first_write
        .await
        .doing(|| "the first write was not tried".to_owned())?
        .map_err(|error| {
            Failure::new(Exit::Missed, format!("the first write failed: {error}")).hint(
                "the servers' logs may say why; run again with --data disk to keep them on a disk",
            )
        })?;
    report(lab, request, steps, zxid, acked_us)
}

/// Waits for `condition`, but not longer than any server lives.
async fn wait(
    ensemble: &Ensemble,
    deadline: Instant,
    missing: &str,
    condition: impl Fn(&Ensemble) -> bool,
) -> Result<(), Failure> {
    let died = |lab: &Ensemble| lab.views().into_iter().find(|(_, view)| view.end.is_some());
    let settled = ensemble
        .until(deadline, |lab| condition(lab) || died(lab).is_some())
        .await;
    if let Some((id, view)) = died(ensemble) {
        let how = view.end.map(|end| end.how.to_string()).unwrap_or_default();
        let log = tail(&ensemble.node(id).log_file(), 5).join("\n  ");
        return Err(Failure::new(
            Exit::NodeDied,
            format!("{id} died while the lab was being made ({how}); its last words:\n  {log}"),
        ));
    }
    if settled {
        return Ok(());
    }
    let states: Vec<String> = ensemble
        .views()
        .into_iter()
        .map(|(id, view)| {
            let state = view
                .state
                .map_or("starting".to_owned(), |role| role.to_string());
            format!("{id} {state}")
        })
        .collect();
    Err(
        Failure::environment(format!("{missing} in time: {}", states.join(", ")))
            .hint("--timeout gives it more time; `zklab doctor` shows what the machine lacks"),
    )
}

/// A session of its own writes once, at the leader, the moment it serves.
async fn first_write(ensemble: Arc<Ensemble>) -> Result<(Zxid, u64), SessionError> {
    let leader = ensemble
        .serving_leader()
        .map_or(NodeId(1), |(leader, _)| leader);
    let address = ensemble.net.client(leader);
    let mut session = Session::open(address, WRITE_PATIENCE, None, WRITE_PATIENCE).await?;
    let zxid = session.create_ephemeral(READY_PATH, b"").await?;
    let acked_us = now_us();
    let kind = LabEventKind::WriteAcked {
        zxid: HexZxid(zxid.0),
    };
    ensemble.record(acked_us, leader, Source::Client, kind);
    session.close().await?;
    Ok((zxid, acked_us))
}

/// Starts one server and waits until everybody that runs has come to rest.
async fn one_step(
    ensemble: &Arc<Ensemble>,
    node: NodeId,
    deadline: Instant,
) -> Result<Step, Failure> {
    let begin = now_us();
    ensemble.start(node)?;
    wait(
        ensemble,
        deadline,
        &format!("{node} did not settle"),
        at_rest,
    )
    .await?;
    let running = ensemble
        .views()
        .into_iter()
        .filter(|(_, view)| view.process.is_some())
        .map(|(id, view)| StepNode {
            id,
            state: view.state.unwrap_or(Role::Looking),
            vote: view.vote,
        })
        .collect();
    let leader = ensemble.serving_leader();
    Ok(Step {
        node,
        running,
        epoch: leader.as_ref().map(|(_, view)| view.epoch),
        leader: leader.map(|(id, _)| id),
        need: ensemble.quorum_size(),
        took_us: now_us() - begin,
    })
}

/// With a quorum running: all serve. Without: all are looking and agree on whom they would elect.
fn at_rest(lab: &Ensemble) -> bool {
    let running: Vec<_> = lab
        .views()
        .into_iter()
        .filter(|(_, view)| view.process.is_some())
        .collect();
    let voters = running
        .iter()
        .filter(|(id, _)| lab.node(*id).votes())
        .count();
    if voters >= lab.quorum_size() {
        return running.iter().all(|(_, view)| view.serving);
    }
    let looking = running
        .iter()
        .all(|(_, view)| view.state == Some(Role::Looking));
    let votes: BTreeSet<_> = running
        .iter()
        .filter(|(id, _)| lab.node(*id).server.has_feed())
        .map(|(_, view)| view.vote.clone())
        .collect();
    looking && votes.len() <= 1 && !votes.contains(&None)
}

fn report(
    lab: &Lab,
    request: &UpRequest,
    steps: Vec<Step>,
    zxid: Zxid,
    acked_us: u64,
) -> Result<UpReport, Failure> {
    let ensemble = &lab.ensemble;
    let (leader, view) = ensemble.serving_leader().ok_or_else(|| {
        Failure::new(
            Exit::Missed,
            "the leader was lost right after it was elected",
        )
    })?;
    let events = ensemble.journal.after(0);
    let acked = ensemble.journal.since_start(acked_us);
    let phases = phases(&events, leader, ensemble.quorum_size(), acked);
    let total: u64 = phases.iter().map(|(_, us)| us).sum();
    Ok(UpReport {
        v: 1,
        cmd: "up".to_owned(),
        lab: ensemble.spec.name.clone(),
        server: server_name(ensemble),
        net: ensemble.net.kind(),
        rootless: net::is_in_own_user_namespace(),
        seed: HexSeed(request.seed),
        data: match &request.data {
            DataPlace::Tmpfs => "tmpfs".to_owned(),
            DataPlace::Disk => "disk".to_owned(),
            DataPlace::Dir(dir) => dir.display().to_string(),
        },
        data_dir: ensemble.spec.data_dir.clone(),
        serving_ms: ms(total),
        first_write_ms: ms(acked),
        phases: phases
            .into_iter()
            .map(|(name, us)| (name.to_owned(), ms(us)))
            .collect(),
        nodes: ensemble
            .views()
            .into_iter()
            .map(|(id, view)| UpNode {
                id,
                addr: ensemble.net.client(id).to_string(),
                role: view.state,
                pid: view.process.map(|process| process.pid()),
            })
            .collect(),
        leader,
        epoch: view.epoch,
        first_write_zxid: HexZxid(zxid.0),
        steps,
        host_stall_max_ms: ms(lab.stall.max_us(request.asked_us, now_us())),
    })
}

/// `zkd 0.1.0`; of a mixed lab each server once.
fn server_name(ensemble: &Ensemble) -> String {
    let mut names: Vec<String> = Vec::new();
    for node in ensemble.nodes().iter() {
        let name = match ensemble.view(node.id).version {
            Some(version) => format!("{} {version}", node.server.name()),
            None => node.server.name().to_owned(),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" + ")
}

/// What the time was used for, in microseconds; the phases follow one another without a gap.
fn phases(
    events: &[LabEvent],
    leader: NodeId,
    quorum: usize,
    acked: u64,
) -> Vec<(&'static str, u64)> {
    let mut looking = BTreeSet::new();
    let mut ends = [None; 5];
    // The network is made while the supervisor begins: its part of that time is told apart.
    let mut made_us = 0;
    for event in events.iter().filter(|event| event.src != Source::Wire) {
        let at_leader = event.node == Some(leader);
        let end = match &event.kind {
            LabEventKind::NetReady { took_us, .. } => {
                made_us = *took_us;
                continue;
            }
            LabEventKind::NodeSpawned { .. } => &mut ends[0],
            LabEventKind::ElectionStarted { .. } => {
                looking.insert(event.node);
                if looking.len() < quorum {
                    continue;
                }
                &mut ends[1]
            }
            LabEventKind::ElectionEnded { .. } if at_leader => &mut ends[2],
            LabEventKind::NodeServing { .. } if at_leader => &mut ends[3],
            _ => continue,
        };
        end.get_or_insert(event.t_us);
    }
    ends[4] = Some(acked);
    let all_serve = events
        .iter()
        .filter(|event| matches!(event.kind, LabEventKind::NodeServing { .. }))
        .map(|event| event.t_us)
        .max();
    let names = [
        "supervisor",
        "spawn",
        "election",
        "sync",
        "first write",
        "last node",
    ];
    let mut last = 0;
    let mut phases: Vec<(&'static str, u64)> = names
        .into_iter()
        .zip(ends.into_iter().chain([all_serve]))
        .filter_map(|(name, end)| {
            let end = end?.max(last);
            let length = end - last;
            last = end;
            (length > 0).then_some((name, length))
        })
        .collect();
    if let Some(("supervisor", length)) = phases.first_mut()
        && made_us > 0
    {
        *length = length.saturating_sub(made_us);
        phases.insert(1, ("namespaces", made_us));
    }
    phases
}
