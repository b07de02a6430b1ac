//! `link`, `partition` and `heal`: making the network of a lab bad, and good again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::protocol::{
    FaultReport, HealReport, LinkReport, LinksReport, NetworkRequest, PartitionRequest,
};
use super::{Lab, Talk};
use crate::clock::{ms, now_us};
use crate::ensemble::Ensemble;
use crate::event::{LabEventKind, Source};
use crate::failure::{Exit, Failure, nearest};
use crate::fault::board::Healed;
use crate::fault::partition::{self, KINDS, Pair, Style};
use crate::fault::words::{self, Names};
use crate::fault::{Board, LinkChange};
use crate::net::emulator::Emulator;

/// How long a heal waits for the first packet on a link that was opened.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
/// How long `--wait` waits until every voter serves again.
const SERVE_PATIENCE: Duration = Duration::from_secs(60);

/// Does what was asked and answers.
pub(super) async fn answer(lab: &Arc<Lab>, request: NetworkRequest, talk: Talk) {
    match request {
        NetworkRequest::LinkSet {
            links,
            change,
            for_ms,
        } => talk.finish(set(lab, &links, &change, for_ms).await).await,
        NetworkRequest::LinkReset { links } => talk.finish(reset(lab, &links).await).await,
        NetworkRequest::LinkShow { links } => talk.finish(show(lab, &links).await).await,
        NetworkRequest::Partition(request) => {
            talk.finish_unless_gone(partition(lab, &request)).await;
        }
        NetworkRequest::Heal { what, core, wait } => {
            talk.finish_unless_gone(heal(lab, what.as_deref(), &core, wait))
                .await;
        }
    }
}

/// The links, if this lab's network has any that can be made bad.
fn emulator(lab: &Ensemble) -> Result<&Emulator, Failure> {
    lab.net.links().ok_or_else(|| {
        Failure::usage(format!(
            "the links of lab {} cannot be made bad: its network is {}",
            lab.spec.name,
            lab.net.kind()
        ))
        .hint("`zklab up --net tun` makes a lab whose links can")
    })
}

/// Sets faults on single links.
///
/// # Errors
/// If a word names no link, or the network has none.
pub async fn set(
    lab: &Arc<Lab>,
    words: &[String],
    change: &LinkChange,
    for_ms: Option<u64>,
) -> Result<FaultReport, Failure> {
    let ensemble = &lab.ensemble;
    let emulator = emulator(ensemble)?;
    let links = Names::of(ensemble, words).await.all_links(words)?;
    let what = format!("link set {}", words.join(" "));
    let begin = now_us();
    let (before, in_force) = lab.board.set(emulator, &links, change);
    let at_us = tell(ensemble, in_force, true, &what).await?;
    if let Some(for_ms) = for_ms {
        let lab = Arc::clone(lab);
        let what = what.clone();
        tokio::spawn(async move {
            sleep(Duration::from_millis(for_ms)).await;
            if let Some(emulator) = lab.ensemble.net.links() {
                let in_force = lab.board.restore(emulator, &before);
                let _ = tell(&lab.ensemble, in_force, false, &what).await;
            }
        });
    }
    let names = names(ensemble, &links);
    Ok(fault_report(
        ensemble,
        "link set",
        what,
        names,
        at_us - begin,
    ))
}

/// Makes links clean again.
///
/// # Errors
/// If a word names no link, or the network has none.
pub async fn reset(lab: &Lab, words: &[String]) -> Result<FaultReport, Failure> {
    let ensemble = &lab.ensemble;
    let emulator = emulator(ensemble)?;
    let links = Names::of(ensemble, words).await.all_links(words)?;
    let clean: Vec<_> = links
        .iter()
        .map(|pair| (*pair, Default::default()))
        .collect();
    let what = format!("link set {}", words.join(" "));
    let begin = now_us();
    let in_force = lab.board.restore(emulator, &clean);
    let at_us = tell(ensemble, in_force, false, &what).await?;
    let names = names(ensemble, &links);
    Ok(fault_report(
        ensemble,
        "link reset",
        what,
        names,
        at_us - begin,
    ))
}

/// The links as they are.
///
/// # Errors
/// If a word names no link, or the network has none.
pub async fn show(lab: &Lab, words: &[String]) -> Result<LinksReport, Failure> {
    let ensemble = &lab.ensemble;
    let emulator = emulator(ensemble)?;
    let matrix = emulator.matrix();
    let links = if words.is_empty() {
        matrix.pairs().collect()
    } else {
        Names::of(ensemble, words).await.all_links(words)?
    };
    Ok(LinksReport {
        links: links
            .into_iter()
            .map(|(from, to)| LinkReport {
                v: 1,
                link: words::name(ensemble, (from, to)),
                faults: *matrix.link(from, to),
                traffic: emulator.traffic(from, to),
            })
            .collect(),
    })
}

/// Puts a partition in.
///
/// # Errors
/// If there is no such kind, a word names no node, or the network has no links.
pub async fn partition(lab: &Arc<Lab>, request: &PartitionRequest) -> Result<FaultReport, Failure> {
    let ensemble = &lab.ensemble;
    let emulator = emulator(ensemble)?;
    let (what, draw) = plan(ensemble, &request.words).await?;
    let begin = now_us();
    let (partition, in_force) = lab.board.partition(emulator, what, request.style, draw);
    let label = format!("{} {}", partition.id, partition.what);
    let at_us = tell(ensemble, in_force, true, &label).await?;
    let links = names(ensemble, &partition.links);
    let mut report = fault_report(ensemble, "partition", partition.what, links, at_us - begin);
    report.done = request.style.done().to_owned();
    report.id = Some(partition.id.clone());
    if let Some(for_ms) = request.for_ms {
        let healer = tokio::spawn(heal_later(
            Arc::clone(lab),
            partition.id,
            for_ms,
            request.wait,
        ));
        if request.wait {
            // The task cannot panic; if it was cancelled the process is ending.
            report.healed = healer.await.ok().flatten();
            report.exit = report
                .healed
                .as_ref()
                .map_or(Exit::Ok, |healed| healed.exit);
        }
    }
    Ok(report)
}

async fn heal_later(lab: Arc<Lab>, id: String, after_ms: u64, wait: bool) -> Option<HealReport> {
    sleep(Duration::from_millis(after_ms)).await;
    let emulator = lab.ensemble.net.links()?;
    // Somebody may have healed it already.
    let healed = lab.board.heal_one(emulator, &id)?;
    recover(&lab.ensemble, healed, wait).await.ok()
}

type Draw = Box<dyn FnOnce(&mut zkd::prng::Prng) -> Vec<Pair> + Send>;

/// What a kind of partition is called, and how its links are drawn.
async fn plan(lab: &Ensemble, words: &[String]) -> Result<(String, Draw), Failure> {
    let kind = words.first().map_or("", String::as_str);
    let count = lab.spec.nodes.len();
    let asked: Vec<String> = match kind {
        "isolate" | "one-way" => words[1..].to_vec(),
        "majority" => vec!["minority".to_owned()],
        "minority" | "leader" => vec!["leader".to_owned()],
        _ => Vec::new(),
    };
    let names = Names::of(lab, &asked).await;
    let what = words.join(" ");
    let group: Vec<usize> = match (kind, &words[1.min(words.len())..]) {
        ("halves", []) => {
            return Ok((
                what,
                Box::new(move |chances| partition::halves(count, chances)),
            ));
        }
        ("bridge", []) => {
            return Ok((
                what,
                Box::new(move |chances| partition::bridge(count, chances)),
            ));
        }
        ("ring", []) => {
            return Ok((
                what,
                Box::new(move |chances| partition::ring(count, chances)),
            ));
        }
        ("one-way", [link]) if link.contains('>') => {
            let links = names.links(link)?;
            return Ok((what, Box::new(move |_| links)));
        }
        // The leader stays with the majority, …
        ("majority", []) => names.nodes("minority")?,
        // … or it is cut off with as many as make no quorum.
        ("minority", []) => with_the_leader(lab, &names)?,
        ("leader", []) => names.nodes("leader")?,
        ("isolate", [first, more @ ..]) => {
            let mut group = names.nodes(first)?;
            for word in more {
                group.extend(names.nodes(word)?);
            }
            group
        }
        _ => return Err(unknown_kind(words)),
    };
    let links = partition::between(&group, &partition::rest(count, &group));
    let sides: Vec<String> = group
        .iter()
        .map(|n| lab.spec.nodes[*n].id.to_string())
        .collect();
    Ok((
        format!("{what} ({})", sides.join(" ")),
        Box::new(move |_| links),
    ))
}

/// The leader and followers, one voter less than a quorum in all.
fn with_the_leader(lab: &Ensemble, names: &Names<'_>) -> Result<Vec<usize>, Failure> {
    let mut group = names.nodes("leader")?;
    let voters = (0..lab.spec.nodes.len()).filter(|n| lab.spec.nodes[*n].votes());
    let others: Vec<usize> = voters.filter(|n| !group.contains(n)).collect();
    let total = others.len() + group.len();
    let minority = total - lab.quorum_size();
    group.extend(others.into_iter().take(minority.saturating_sub(1)));
    Ok(group)
}

fn unknown_kind(words: &[String]) -> Failure {
    let kind = words.first().map_or("", String::as_str);
    let all = KINDS.iter().copied().chain(["one-way"]);
    let guess = nearest(kind, all)
        .filter(|word| *word != kind)
        .map(|word| format!("; did you mean {word}?"))
        .unwrap_or_default();
    Failure::usage(format!("{:?} is no partition{guess}", words.join(" ")))
        .hint("majority, minority, halves, isolate NODE…, leader, bridge, ring, or one-way A>B")
}

/// Takes faults out: all of them, one partition, or what is between the nodes of a core.
///
/// # Errors
/// If there is no such fault, or the network has no links.
pub async fn heal(
    lab: &Lab,
    what: Option<&str>,
    core: &[String],
    wait: bool,
) -> Result<HealReport, Failure> {
    let ensemble = &lab.ensemble;
    let emulator = emulator(ensemble)?;
    let healed = if core.is_empty() {
        match what {
            None | Some("all" | "net") => lab.board.heal_all(emulator),
            Some(id) => lab.board.heal_one(emulator, id).ok_or_else(|| {
                let standing = lab.board.standing().join(" ");
                Failure::usage(format!("there is no fault {id:?}")).hint(if standing.is_empty() {
                    "no partition stands; `zklab heal` resets links too".to_owned()
                } else {
                    format!("partitions that stand: {standing}")
                })
            })?,
        }
    } else {
        let names = Names::of(ensemble, core).await;
        let mut nodes = Vec::new();
        for word in core {
            nodes.extend(names.nodes(word)?);
        }
        lab.board.heal_core(emulator, &nodes)
    };
    recover(ensemble, healed, wait).await
}

/// Tells that something was healed, and what came of it.
async fn recover(lab: &Ensemble, healed: Healed, wait: bool) -> Result<HealReport, Failure> {
    let begin = now_us();
    let what = if healed.names.is_empty() {
        "nothing".to_owned()
    } else {
        healed.names.join(" ")
    };
    let at_us = tell(lab, healed.in_force, false, &what).await?;
    let first_us = first_delivery(lab, &healed.opened).await;
    let mut exit = Exit::Ok;
    let serves = |lab: &Ensemble| {
        lab.serving_leader().is_some()
            && lab.voters().all(|node| {
                let view = lab.view(node.id);
                view.serving || view.process.is_none()
            })
    };
    let mut serving_ms = None;
    if wait {
        if lab.until(Instant::now() + SERVE_PATIENCE, serves).await {
            serving_ms = Some(ms(now_us() - at_us));
        } else {
            exit = Exit::Missed;
        }
    }
    let serving = lab
        .voters()
        .filter(|node| lab.view(node.id).serving)
        .count();
    Ok(HealReport {
        v: 1,
        cmd: "heal".to_owned(),
        lab: lab.spec.name.clone(),
        healed: healed.names,
        effective_us: at_us - begin.min(at_us),
        first_delivery_ms: first_us.map(|first| ms(first.saturating_sub(at_us))),
        serving_ms,
        serving,
        voters: lab.voters().count(),
        exit,
    })
}

/// When the first packet came over one of these links, if one does soon.
async fn first_delivery(lab: &Ensemble, opened: &[Pair]) -> Option<u64> {
    let emulator = lab.net.links()?;
    let deadline = Instant::now() + FIRST_PATIENCE;
    while !opened.is_empty() && Instant::now() < deadline {
        let firsts = opened
            .iter()
            .map(|(a, b)| emulator.traffic(*a, *b).first_us);
        if let Some(first) = firsts.filter(|first| *first > 0).min() {
            return Some(first);
        }
        sleep(Duration::from_millis(1)).await;
    }
    None
}

/// Waits until a change is in force and tells it to the journal.
async fn tell(
    lab: &Ensemble,
    in_force: oneshot::Receiver<u64>,
    on: bool,
    fault: &str,
) -> Result<u64, Failure> {
    let at_us = in_force.await?;
    let fault = fault.to_owned();
    let kind = if on {
        LabEventKind::FaultOn { fault }
    } else {
        LabEventKind::FaultOff { fault }
    };
    lab.journal.push(at_us, None, Source::Fault, kind);
    Ok(at_us)
}

fn names(lab: &Ensemble, links: &[Pair]) -> Vec<String> {
    links.iter().map(|link| words::name(lab, *link)).collect()
}

fn fault_report(
    lab: &Ensemble,
    cmd: &str,
    what: String,
    links: Vec<String>,
    effective_us: u64,
) -> FaultReport {
    let count = lab.spec.nodes.len();
    FaultReport {
        v: 1,
        cmd: cmd.to_owned(),
        lab: lab.spec.name.clone(),
        id: None,
        what,
        done: "set".to_owned(),
        links,
        of: count * (count - 1),
        effective_us,
        healed: None,
        exit: Exit::Ok,
    }
}

/// The faults of a lab that is being made.
#[must_use]
pub fn board(lab: &Ensemble, seed: u64) -> Board {
    // Another stream than that of any link.
    Board::new(lab.spec.nodes.len(), !seed)
}

/// The style named by a word.
///
/// # Errors
/// If there is none.
pub fn style(word: &str) -> Result<Style, String> {
    match word {
        "drop" => Ok(Style::Drop),
        "jam" => Ok(Style::Jam),
        "slow" => Ok(Style::Slow),
        _ => Err(format!("{word:?} is none of drop, jam, slow")),
    }
}
