//! `link` and `partition`: making the network of a lab bad. `heal` makes it good again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use zkd::prng::Prng;

use super::heal::{self, Scope};
use super::protocol::{FaultReport, LinkReport, LinksReport, NetworkRequest, PartitionRequest};
use super::{Lab, Talk};
use crate::clock::now_us;
use crate::ensemble::Ensemble;
use crate::ensemble::faults::Fault;
use crate::event::{FaultKind, LabEventKind, Source};
use crate::failure::{Exit, Failure, nearest};
use crate::fault::board::{Effect, Healed, Layer};
use crate::fault::partition::{self, KINDS, Pair, Style};
use crate::fault::words::{self, Names};
use crate::fault::{Board, Clients, LinkChange, Profile, Trace};
use crate::id::NodeId;
use crate::net::emulator::Emulator;
use crate::net::matrix::Matrix;

/// The kind of partition that comes and goes.
const FLAP: &str = "flap";
/// How long it takes from one cut to the next on average, unless another time is asked for.
const FLAP_PERIOD_MS: u64 = 1000;

/// How long a fault lasts, and whether its end is awaited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Span {
    /// Heal it after this time.
    pub for_ms: Option<u64>,
    /// Answer when it is healed and every voter that runs serves.
    pub wait: bool,
}

/// Does what was asked and answers.
pub(super) async fn answer(lab: &Arc<Lab>, request: NetworkRequest, talk: Talk) {
    match request {
        NetworkRequest::LinkSet {
            links,
            change,
            profile,
            trace,
            for_ms,
            wait,
        } => {
            let span = Span { for_ms, wait };
            let wish = Wish {
                change,
                profile,
                trace,
            };
            talk.finish_unless_gone(set(lab, &links, wish, span)).await;
        }
        NetworkRequest::LinkReset { links } => talk.finish(reset(lab, &links).await).await,
        NetworkRequest::LinkShow { links } => talk.finish(show(lab, &links).await).await,
        NetworkRequest::Partition(request) => {
            talk.finish_unless_gone(partition(lab, &request)).await;
        }
        NetworkRequest::Heal { what, core, wait } => {
            talk.finish_unless_gone(heal::heal(lab, what.as_deref(), &core, wait))
                .await;
        }
    }
}

/// The links, if this lab's network has any that can be made bad.
pub(super) fn emulator(lab: &Ensemble) -> Result<&Emulator, Failure> {
    lab.net.links().ok_or_else(|| {
        Failure::usage(format!(
            "the links of lab {} cannot be made bad: its network is {}",
            lab.spec.name,
            lab.net.kind()
        ))
        .hint("`zklab up --net auto` makes a lab whose links can")
    })
}

/// What links are to be like.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// What was said of all of them.
    pub change: LinkChange,
    /// What else each of them is like.
    pub profile: Option<Box<Profile>>,
    /// What else they are like at what time.
    pub trace: Option<Trace>,
}

impl Wish {
    fn brief(&self) -> String {
        let own = Some(self.change.brief()).filter(|text| !text.is_empty());
        let profile = self.profile.as_ref().map(|profile| profile.name.clone());
        let trace = self.trace.as_ref().map(|_| "trace".to_owned());
        let words: Vec<String> = profile.into_iter().chain(trace).chain(own).collect();
        words.join(" ")
    }

    fn of(&self, (from, to): Pair) -> LinkChange {
        let profile = self.profile.as_ref();
        let others = profile.map_or_else(LinkChange::default, |known| known.change(from, to));
        self.change.over(&others)
    }
}

/// Sets faults on single links.
///
/// # Errors
/// If a word names no link, or the network has none.
pub async fn set(
    lab: &Arc<Lab>,
    words: &[String],
    wish: Wish,
    span: Span,
) -> Result<FaultReport, Failure> {
    let ensemble = &lab.ensemble;
    emulator(ensemble)?;
    let links = Names::of(ensemble, words).await.all_links(words)?;
    let what = match (&wish.profile, &wish.trace) {
        (None, None) => format!("link set {}", words.join(" ")),
        _ => format!("link set {} ({})", words.join(" "), wish.brief()),
    };
    let fault = ensemble
        .new_fault(FaultKind::Link, what)
        .brief(wish.brief())
        .on_nodes(ends(ensemble, &links))
        .on_links(names(&links));
    let mut layer = Layer::new(fault.id.clone(), &links, Effect::Set(wish.change));
    for (pair, effect) in &mut layer.links {
        *effect = Effect::Set(wish.of(*pair));
    }
    layer.is_passing = span.for_ms.is_some();
    if let Some(trace) = wish.trace {
        tokio::spawn(play(
            Arc::clone(lab),
            fault.id.clone(),
            trace,
            layer.links.clone(),
        ));
    }
    put(lab, "link set", fault, layer, span).await
}

/// Plays a trace on links (put in before this task has its first turn), on top of what else they are, until the fault is healed.
async fn play(lab: Arc<Lab>, id: String, trace: Trace, own: Vec<(Pair, Effect)>) {
    let mut begin = Instant::now();
    loop {
        for (ms, now) in &trace.steps {
            sleep_until(begin + Duration::from_millis(*ms)).await;
            let altered = lab.board.alter(&*lab.ensemble.net, &id, |layer| {
                for (pair, effect) in &mut layer.links {
                    let known = own.iter().find(|(other, _)| other == pair);
                    if let Some((_, Effect::Set(change))) = known {
                        *effect = Effect::Set(change.over(now));
                    }
                }
            });
            if altered.is_none() {
                return;
            }
        }
        let Some(again_ms) = trace.again_ms else {
            return;
        };
        begin += Duration::from_millis(again_ms);
        sleep_until(begin).await;
    }
}

/// Puts a fault in, tells of it, and heals it later if that is asked.
async fn put(
    lab: &Arc<Lab>,
    cmd: &str,
    fault: Fault,
    layer: Layer,
    span: Span,
) -> Result<FaultReport, Failure> {
    let ensemble = &lab.ensemble;
    let begin = now_us();
    let (replaced, in_force) = lab.board.put(&*ensemble.net, layer);
    let at_us = in_force.await?;
    for id in replaced {
        ensemble.fault_off(at_us, &id);
    }
    let mut report = fault_report(ensemble, cmd, fault.fault.clone(), fault.links.clone());
    report.effective_us = at_us.saturating_sub(begin);
    report.id = Some(fault.id.clone());
    let id = fault.id.clone();
    ensemble.fault_on(at_us, fault);
    if let Some(for_ms) = span.for_ms {
        let lab = Arc::clone(lab);
        let healer = tokio::spawn(async move {
            sleep(Duration::from_millis(for_ms)).await;
            // Somebody may have healed it already: then there is nothing to tell.
            lab.board.has(&id).then_some(())?;
            heal::scope(&lab, &Scope::One(id), span.wait).await.ok()
        });
        if span.wait {
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

/// Makes links clean again.
///
/// # Errors
/// If a word names no link, or the network has none.
pub async fn reset(lab: &Lab, words: &[String]) -> Result<FaultReport, Failure> {
    let ensemble = &lab.ensemble;
    emulator(ensemble)?;
    let links = Names::of(ensemble, words).await.all_links(words)?;
    let begin = now_us();
    let healed = lab.board.reset(&*ensemble.net, &links);
    let (at_us, _, _) = tell_healed(ensemble, healed).await?;
    let what = format!("link reset {}", words.join(" "));
    let mut report = fault_report(ensemble, "link reset", what, names(&links));
    report.effective_us = at_us.saturating_sub(begin);
    Ok(report)
}

/// Waits until something is healed and tells of it; when that was, the ids of the faults that are gone or
/// smaller, and the links that are open again.
pub(super) async fn tell_healed(
    lab: &Ensemble,
    healed: Healed,
) -> Result<(u64, Vec<String>, Vec<Pair>), Failure> {
    let at_us = healed.in_force.await?;
    let mut ids = healed.gone;
    for id in &ids {
        lab.fault_off(at_us, id);
    }
    for (id, links) in healed.smaller {
        lab.fault_shrunk(at_us, &id, names(&links));
        ids.push(id);
    }
    Ok((at_us, ids, healed.opened))
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
        let places = ensemble.places();
        partition::between_all(&places)
    } else {
        Names::of(ensemble, words).await.all_links(words)?
    };
    Ok(LinksReport {
        links: links
            .into_iter()
            .map(|(from, to)| LinkReport {
                v: 1,
                link: words::name((from, to)),
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
    emulator(ensemble)?;
    let plan = plan(lab, &request.words).await?;
    check_clients(request, &plan)?;
    let is_flap = plan.brief == FLAP;
    if request.period_ms.is_some() && !is_flap {
        return Err(Failure::usage(format!(
            "only a flap has a period, not {:?}",
            request.words.join(" ")
        )));
    }
    let nodes: Vec<NodeId> = if plan.group.is_empty() {
        ends(ensemble, &plan.links)
    } else {
        plan.group.iter().map(|n| NodeId::at(*n)).collect()
    };
    let fault = ensemble
        .new_fault(FaultKind::Partition, plan.what)
        .brief(plan.brief)
        .on_nodes(nodes)
        .on_links(names(&plan.links));
    let effect = Effect::Block(request.style, request.clients);
    let mut layer = Layer::new(fault.id.clone(), &plan.links, effect);
    if request.clients == Clients::Include {
        let nodes = plan.group.iter().map(|n| NodeId::at(*n));
        layer.clients = nodes.map(|id| (id, request.style.gate())).collect();
    }
    if is_flap {
        let period_ms = request.period_ms.unwrap_or(FLAP_PERIOD_MS);
        let chances = lab.board.draw(Prng::fork);
        tokio::spawn(flap(Arc::clone(lab), fault.id.clone(), period_ms, chances));
    }
    let span = Span {
        for_ms: request.for_ms,
        wait: request.wait,
    };
    let mut report = put(lab, "partition", fault, layer, span).await?;
    report.done = request.style.done().to_owned();
    Ok(report)
}

/// Refuses what cannot be done to clients.
fn check_clients(request: &PartitionRequest, plan: &Plan) -> Result<(), Failure> {
    let word = match request.clients {
        Clients::Between => return Ok(()),
        Clients::Include => "include",
        Clients::Exclude => "exclude",
    };
    if request.style == Style::Slow {
        return Err(
            Failure::usage(format!("--clients {word} does not go with --style slow"))
                .hint("drop, jam and reset know clients from servers"),
        );
    }
    if request.clients == Clients::Include && plan.group.is_empty() {
        return Err(Failure::usage(format!(
            "--clients include needs nodes that are cut off, and {:?} has none",
            request.words.join(" ")
        ))
        .hint("majority, minority, halves, isolate NODE…, leader and flap NODE have"));
    }
    Ok(())
}

/// Makes a fault come and go, at times that `chances` choose, until it is healed.
async fn flap(lab: Arc<Lab>, id: String, period_ms: u64, mut chances: Prng) {
    let mut is_on = true;
    loop {
        sleep(Duration::from_millis(partition::flap_ms(
            period_ms,
            &mut chances,
        )))
        .await;
        is_on = !is_on;
        let net = &*lab.ensemble.net;
        let Some(in_force) = lab.board.alter(net, &id, |layer| layer.is_on = is_on) else {
            return;
        };
        let Ok(at_us) = in_force.await else {
            return;
        };
        let kind = LabEventKind::FaultFlipped {
            id: id.clone(),
            on: is_on,
        };
        lab.ensemble.journal.push(at_us, None, Source::Fault, kind);
    }
}

/// A partition, before it is put in.
#[derive(Debug)]
struct Plan {
    /// As people say it, with the nodes that were chosen.
    what: String,
    /// In a word or two, as its nodes are said to be.
    brief: &'static str,
    /// The nodes that are cut off from the rest; empty if there are no such sides.
    group: Vec<usize>,
    /// The links.
    links: Vec<Pair>,
}

/// What a kind of partition is called, whom it cuts off, and its links.
async fn plan(lab: &Lab, words: &[String]) -> Result<Plan, Failure> {
    let ensemble = &lab.ensemble;
    let kind = words.first().map_or("", String::as_str);
    let places = ensemble.places();
    let count = places.len();
    let asked: Vec<String> = match kind {
        "isolate" | "one-way" | FLAP => words[1..].to_vec(),
        "majority" => vec!["minority".to_owned()],
        "minority" | "leader" => vec!["leader".to_owned()],
        _ => Vec::new(),
    };
    let names = Names::of(ensemble, &asked).await;
    let what = words.join(" ");
    let without_sides = |brief, links| Plan {
        what: what.clone(),
        brief,
        group: Vec::new(),
        links,
    };
    let (brief, group) = match (kind, &words[1.min(words.len())..]) {
        ("halves", []) => (
            "cut off",
            lab.board.draw(|chances| {
                let half = partition::half(count, chances);
                half.into_iter().map(|n| places[n]).collect()
            }),
        ),
        ("bridge", []) => {
            let links = lab.board.draw(|chances| partition::bridge(count, chances));
            let links = partition::among(&places, links);
            return Ok(without_sides("bridge", links));
        }
        ("ring", []) => {
            let links = lab.board.draw(|chances| partition::ring(count, chances));
            let links = partition::among(&places, links);
            return Ok(without_sides("ring", links));
        }
        ("one-way", [link]) if link.contains('>') => {
            return Ok(without_sides("one-way", names.links(link)?));
        }
        (FLAP, [link]) if link.contains(['>', ':']) => {
            return Ok(without_sides(FLAP, names.links(link)?));
        }
        (FLAP, [node]) => (FLAP, names.nodes(node)?),
        // The leader stays with the majority, …
        ("majority", []) => ("cut off", names.nodes("minority")?),
        // … or it is cut off with as many as make no quorum.
        ("minority", []) => ("cut off", with_the_leader(ensemble, &names)?),
        ("leader", []) => ("isolated", names.nodes("leader")?),
        ("isolate", [first, more @ ..]) => {
            let mut group = names.nodes(first)?;
            for word in more {
                group.extend(names.nodes(word)?);
            }
            ("isolated", group)
        }
        _ => return Err(unknown_kind(words)),
    };
    let links = partition::between(&group, &partition::rest(&places, &group));
    let sides: Vec<String> = group.iter().map(|n| NodeId::at(*n).to_string()).collect();
    Ok(Plan {
        what: format!("{what} ({})", sides.join(" ")),
        brief,
        group,
        links,
    })
}

/// The leader and followers, one voter less than a quorum in all.
fn with_the_leader(lab: &Ensemble, names: &Names<'_>) -> Result<Vec<usize>, Failure> {
    let mut group = names.nodes("leader")?;
    let voters = lab.voters().into_iter().map(NodeId::place);
    let others: Vec<usize> = voters.filter(|n| !group.contains(n)).collect();
    let total = others.len() + group.len();
    let minority = total - lab.quorum_size();
    group.extend(others.into_iter().take(minority.saturating_sub(1)));
    Ok(group)
}

fn unknown_kind(words: &[String]) -> Failure {
    let kind = words.first().map_or("", String::as_str);
    let all = KINDS.iter().copied().chain(["one-way", FLAP]);
    let guess = nearest(kind, all)
        .filter(|word| *word != kind)
        .map(|word| format!("; did you mean {word}?"))
        .unwrap_or_default();
    Failure::usage(format!("{:?} is no partition{guess}", words.join(" ")))
        .hint("majority, minority, halves, isolate NODE…, leader, bridge, ring, one-way A>B, or flap NODE|A:B")
}

/// The nodes at the ends of these links, in order.
fn ends(lab: &Ensemble, links: &[Pair]) -> Vec<NodeId> {
    let is_end = |node: usize| links.iter().any(|(a, b)| *a == node || *b == node);
    let nodes = lab.ids().into_iter();
    nodes.filter(|id| is_end(id.place())).collect()
}

fn names(links: &[Pair]) -> Vec<String> {
    links.iter().map(|link| words::name(*link)).collect()
}

fn fault_report(lab: &Ensemble, cmd: &str, what: String, links: Vec<String>) -> FaultReport {
    let count = lab.ids().len();
    FaultReport {
        v: 1,
        cmd: cmd.to_owned(),
        lab: lab.spec.name.clone(),
        id: None,
        what,
        done: "set".to_owned(),
        links,
        of: count * (count - 1),
        effective_us: 0,
        healed: None,
        exit: Exit::Ok,
    }
}

/// The faults of a lab that is being made, whose links are as `profile` says without any.
///
/// # Errors
/// If there is a profile, and the network has no links.
pub fn board(lab: &Ensemble, seed: u64, profile: Option<&Profile>) -> Result<Board, Failure> {
    let count = lab.ids().len();
    let Some(profile) = profile else {
        // Another stream than that of any link.
        return Ok(Board::new(Matrix::clean(count), !seed));
    };
    let base = profile.matrix(count);
    let first = base.clone();
    // The servers start later than that is in force.
    drop(emulator(lab)?.change(move |matrix| *matrix = first));
    Ok(Board::new(base, !seed))
}

/// Cuts a node off from all others and from its clients, as if its host were gone.
///
/// # Errors
/// If the network has no links.
pub(super) async fn cut_host(lab: &Lab, id: NodeId, fault: &mut Fault) -> Result<(), Failure> {
    let ensemble = &lab.ensemble;
    let links = partition::between(&[id.place()], &ensemble.places());
    fault.links = names(&links);
    let effect = Effect::Block(Style::Drop, Clients::Include);
    let mut layer = Layer::new(fault.id.clone(), &links, effect);
    layer.clients = vec![(id, Style::Drop.gate())];
    let (_, in_force) = lab.board.put(&*ensemble.net, layer);
    in_force.await?;
    Ok(())
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
        "reset" => Ok(Style::Reset),
        _ => Err(format!("{word:?} is none of drop, jam, slow, reset")),
    }
}
