//! What is read off the wire becomes events here; `drop` and `hold` withhold messages; `watch` waits for one.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::heal::{self, Scope};
use super::network::emulator;
use super::protocol::{
    Catch, FlowReport, FlowRequest, MessageRequest, WithholdReport, WithholdRequest,
};
use super::{Lab, NewsSink, Talk};
use crate::clock::now_us;
use crate::ensemble::Ensemble;
use crate::ensemble::faults::Fault;
use crate::event::{FaultKind, LabEvent, LabEventKind, MessageFate, Source, WireNote};
use crate::failure::{Exit, Failure};
use crate::fault::words::{self, Names};
use crate::id::NodeId;
use crate::net::emulator::Emulator;
use crate::net::wire::{Name, Rule, Sighting, TOLD_WITHIN, What};
use crate::node::NodeSpec;
use crate::observe::flow::Flow;
use crate::observe::wire::{WireObserver, fits};
use crate::supervisor::protocol::{Frame, News};

/// More links than this are not named in the text of a fault.
const NAMED_MAX: usize = 3;

/// Who waits for messages on the wire, and which are withheld.
#[derive(Debug, Default)]
pub struct Wire {
    asked: Mutex<Vec<Asked>>,
    /// Somebody asks; looked at before anything is locked.
    is_asked: AtomicBool,
    rules: Mutex<Vec<Withheld>>,
    last_rule: AtomicU32,
    /// Counts what was caught, for those who wait.
    news: watch::Sender<u64>,
    /// What was said of the writes.
    flow: Mutex<Flow>,
}

/// A message that somebody waits for.
#[derive(Debug)]
struct Asked {
    want: Want,
    /// So many have fitted, by link.
    seen: Vec<((usize, usize), u32)>,
    nth: u32,
    left: u32,
    tell: mpsc::UnboundedSender<LabEvent>,
}

/// Which messages are meant.
#[derive(Clone, Debug)]
struct Want {
    name: Name,
    from: Vec<usize>,
    to: Vec<usize>,
    zxid: Option<i64>,
}

/// A rule in force.
#[derive(Debug)]
struct Withheld {
    rule: u32,
    fault: String,
    text: String,
    hold: bool,
    caught: Vec<Catch>,
}

impl Wire {
    fn asked(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.asked
            .lock()
            .expect("nobody panics while holding the watchers")
    }

    fn rules(&self) -> MutexGuard<'_, Vec<Withheld>> {
        self.rules
            .lock()
            .expect("nobody panics while holding the rules")
    }

    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow
            .lock()
            .expect("nobody panics while holding the messages")
    }

    /// What became of a message, and by which rule.
    fn fate(&self, seen: &Sighting) -> (MessageFate, Option<u32>) {
        let rule = seen.caught_by.and_then(|rule| {
            let rules = self.rules();
            let found = rules.iter().find(|withheld| withheld.rule == rule);
            found.map(|withheld| (rule, withheld.hold))
        });
        match rule {
            None => (MessageFate::Delivered, None),
            Some((rule, true)) => (MessageFate::Held, Some(rule)),
            Some((rule, false)) => (MessageFate::Dropped, Some(rule)),
        }
    }

    fn caught(&self, rule: u32) -> Vec<Catch> {
        let rules = self.rules();
        let found = rules.iter().find(|withheld| withheld.rule == rule);
        found.map_or_else(Vec::new, |withheld| withheld.caught.clone())
    }
}

/// From now on the journal has what is seen on the wire.
///
/// # Errors
/// If there can be no thread.
pub(super) fn listen(lab: &Arc<Ensemble>, wire: &Arc<Wire>) -> Result<(), Failure> {
    let Some(emulator) = lab.net.links() else {
        return Ok(());
    };
    let mut nodes = lab.nodes();
    let mut observer = WireObserver::new(&voters(&nodes));
    // The emulator belongs to the lab, so its reader must not keep that alive.
    let lab: Weak<Ensemble> = Arc::downgrade(lab);
    let wire = Arc::clone(wire);
    emulator.listen(move |seen| {
        let Some(lab) = lab.upgrade() else {
            return;
        };
        let now = lab.nodes();
        if !Arc::ptr_eq(&now, &nodes) {
            observer.set_nodes(&voters(&now));
            nodes = now;
        }
        // All of a batch is remembered before any of it is told.
        let mut flow = wire.flow();
        for one in seen {
            flow.see(one, wire.fate(one).0);
        }
        drop(flow);
        for one in seen {
            on_sighting(&lab, &wire, &mut observer, one);
        }
    })
}

/// By place: is there a node, and has it a vote?
fn voters(nodes: &[NodeSpec]) -> Vec<bool> {
    let count = nodes.last().map_or(0, |node| node.id.place() + 1);
    let mut voters = vec![false; count];
    for node in nodes {
        voters[node.id.place()] = node.votes();
    }
    voters
}

fn on_sighting(lab: &Ensemble, wire: &Wire, observer: &mut WireObserver, seen: &Sighting) {
    let from = NodeId::at(seen.from);
    let pid = match seen.what {
        What::Vote(_) => lab.view(from).process.map(|process| process.pid()),
        What::Missed => {
            tracing::warn!(?seen, "some messages were not seen");
            None
        }
        What::Unreadable(why) => {
            tracing::warn!(?seen, why, "a connection cannot be read");
            None
        }
        _ => None,
    };
    let (fate, rule) = wire.fate(seen);
    let waits = wire.is_asked.load(Ordering::Relaxed) && fate == MessageFate::Delivered;
    let is_told = WireObserver::is_of_election(seen) || rule.is_some();
    if (is_told || waits)
        && let Some(note) = observer.note(seen, fate)
    {
        if let Some(rule) = rule {
            on_catch(lab, wire, rule, seen, &note);
        }
        let asked = waits && on_asked(lab, wire, seen, &note);
        if is_told || asked {
            let kind = LabEventKind::WireMessage(note);
            lab.journal.push(seen.at_us, Some(from), Source::Wire, kind);
        }
    }
    for (at_us, node, kind) in observer.on_sighting(seen, pid) {
        lab.record(at_us, node, Source::Wire, kind);
    }
}

/// Tells those who wait for this message; true if somebody does.
fn on_asked(lab: &Ensemble, wire: &Wire, seen: &Sighting, note: &WireNote) -> bool {
    let mut told = false;
    let mut asked = wire.asked();
    for one in asked.iter_mut() {
        let want = &one.want;
        let is_meant = fits(seen, want.name, want.zxid)
            && want.from.contains(&seen.from)
            && want.to.contains(&seen.to);
        if !is_meant || one.left == 0 {
            continue;
        }
        let link = (seen.from, seen.to);
        let place = one.seen.iter().position(|(other, _)| *other == link);
        let place = place.unwrap_or_else(|| {
            one.seen.push((link, 0));
            one.seen.len() - 1
        });
        one.seen[place].1 += 1;
        if one.seen[place].1 < one.nth {
            continue;
        }
        one.left -= 1;
        told = true;
        // Who asked may be gone.
        let _ = one.tell.send(LabEvent {
            v: 1,
            seq: lab.journal.tip() + 1,
            t_us: lab.journal.since_start(seen.at_us),
            lab: lab.spec.name.clone(),
            node: Some(note.from),
            src: Source::Wire,
            kind: LabEventKind::WireMessage(note.clone()),
        });
    }
    told
}

/// A rule caught a message.
fn on_catch(lab: &Ensemble, wire: &Wire, rule: u32, seen: &Sighting, note: &WireNote) {
    let told = {
        let mut rules = wire.rules();
        let Some(withheld) = rules.iter_mut().find(|withheld| withheld.rule == rule) else {
            return;
        };
        let catch = Catch {
            t_us: lab.journal.since_start(seen.at_us),
            from: note.from,
            to: note.to,
            zxid: note.zxid,
            epoch: note.epoch,
        };
        withheld.caught.push(catch.clone());
        (withheld.fault.clone(), withheld.text.clone(), catch)
    };
    let (fault, text, catch) = told;
    lab.fault_reworded(seen.at_us, &fault, &format!("{text}: {catch}"));
    wire.news.send_modify(|count| *count += 1);
}

/// The nodes that words mean; all of them if there are none.
fn places(names: &Names<'_>, words: &[String]) -> Result<Vec<usize>, Failure> {
    let mut places = Vec::new();
    if words.is_empty() {
        return names.nodes("all");
    }
    for word in words {
        places.extend(names.nodes(word)?);
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

/// What a request is about, and its links.
async fn want(lab: &Ensemble, asked: &MessageRequest) -> Result<Want, Failure> {
    let name = asked.message.parse().map_err(Failure::usage)?;
    let all: Vec<String> = [&asked.from[..], &asked.to[..]].concat();
    let names = Names::of(lab, &all).await;
    let (from, to) = (places(&names, &asked.from)?, places(&names, &asked.to)?);
    if from == to && from.len() == 1 {
        let node = NodeId::at(from[0]);
        return Err(
            Failure::usage(format!("{node} sends nothing to itself over the network"))
                .hint("--from and --to name different nodes"),
        );
    }
    if asked.nth == 0 || asked.count == 0 {
        return Err(Failure::usage("--nth and --count begin at 1"));
    }
    Ok(Want {
        name,
        from,
        to,
        zxid: asked.zxid.map(|zxid| zxid.0),
    })
}

/// What was said of some writes, and how far servers were at some times.
pub(super) async fn flow(lab: &Lab, request: &FlowRequest) -> FlowReport {
    // What was delivered just before is asked for too.
    sleep(TOLD_WITHIN).await;
    let count = lab.ensemble.places().last().map_or(0, |last| last + 1);
    let nodes: Vec<NodeId> = (0..count).map(NodeId::at).collect();
    let start_us = lab.ensemble.start_us;
    let flow = lab.wire.flow();
    let marks = request.marks.iter().filter_map(|(node, until_us)| {
        let place = nodes.iter().position(|known| known == node)?;
        Some(flow.until(place, *node, *until_us, start_us))
    });
    let is_read = lab.ensemble.net.links().is_some_and(Emulator::listens);
    FlowReport {
        scope: is_read.then(|| flow.scope(start_us)),
        marks: marks.collect(),
        messages: flow.about(&request.zxids, &nodes, start_us),
    }
}

/// The emulator, if what it forwards is read.
fn reader(lab: &Ensemble) -> Result<&Emulator, Failure> {
    let emulator = emulator(lab)?;
    if emulator.listens() {
        return Ok(emulator);
    }
    Err(Failure::usage(format!(
        "lab {} was made with --no-wire, so nobody reads what its servers say",
        lab.spec.name
    ))
    .hint("make it again without that"))
}

/// Withholds messages.
///
/// # Errors
/// If a word names no message or node, or nothing is read off the wire here.
pub async fn withhold(
    lab: &Arc<Lab>,
    request: &WithholdRequest,
    news: &NewsSink,
) -> Result<WithholdReport, Failure> {
    let ensemble = &lab.ensemble;
    let asked = &request.message;
    let want = want(ensemble, asked).await?;
    let emulator = reader(ensemble)?;
    let kind = if request.hold {
        FaultKind::Hold
    } else {
        FaultKind::Drop
    };
    let text = text(request, &want);
    let pairs = want
        .from
        .iter()
        .flat_map(|from| want.to.iter().map(|to| (*from, *to)));
    let links: Vec<String> = pairs
        .filter(|(from, to)| from != to)
        .map(words::name)
        .collect();
    let nodes = meant_nodes(asked, &want);
    let verb = if request.hold { "holds" } else { "drops" };
    let fault = ensemble
        .new_fault(kind, text.clone())
        .brief(format!("{verb} {}", want.name))
        .on_nodes(nodes)
        .on_links(links.clone());
    let rule = lab.wire.last_rule.fetch_add(1, Ordering::Relaxed) + 1;
    lab.wire.rules().push(Withheld {
        rule,
        fault: fault.id.clone(),
        text: text.clone(),
        hold: request.hold,
        caught: Vec::new(),
    });
    let begin = now_us();
    let armed_us = emulator
        .withhold(Rule {
            id: rule,
            name: want.name,
            from: want.from,
            to: want.to,
            zxid: want.zxid,
            nth: asked.nth,
            count: asked.count,
            hold: request.hold,
        })
        .await?;
    let id = fault.id.clone();
    ensemble.fault_on(armed_us, fault);
    news.tell(News::Doing(format!("{id} armed")));
    let mut report = WithholdReport {
        v: 1,
        cmd: kind_word(request.hold).to_owned(),
        lab: ensemble.spec.name.clone(),
        id: id.clone(),
        what: text,
        links,
        t_us: ensemble.journal.since_start(armed_us),
        effective_us: armed_us.saturating_sub(begin),
        caught: Vec::new(),
        healed: None,
        exit: Exit::Ok,
    };
    await_end(lab, request, rule, &mut report).await?;
    Ok(report)
}

/// The nodes under which status shows the fault: those that were named.
fn meant_nodes(asked: &MessageRequest, want: &Want) -> Vec<NodeId> {
    let places = match (&asked.from[..], &asked.to[..]) {
        ([], []) => return Vec::new(),
        ([], _) => &want.to,
        _ => &want.from,
    };
    places.iter().map(|place| NodeId::at(*place)).collect()
}

/// Waits for what was asked to be waited for, and sees to it that the rule ends when it shall.
async fn await_end(
    lab: &Arc<Lab>,
    request: &WithholdRequest,
    rule: u32,
    report: &mut WithholdReport,
) -> Result<(), Failure> {
    let healer = request.for_ms.map(|for_ms| {
        let lab = Arc::clone(lab);
        let scope = Scope::One(report.id.clone());
        let wait = request.wait;
        tokio::spawn(async move {
            sleep(Duration::from_millis(for_ms)).await;
            let caught = lab.wire.caught(rule);
            (caught, heal::scope(&lab, &scope, wait).await)
        })
    });
    if !request.wait {
        return Ok(());
    }
    match healer {
        None => {
            let mut news = lab.wire.news.subscribe();
            let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
            let enough = request.message.count as usize;
            while lab.wire.caught(rule).len() < enough {
                if timeout_at(deadline, news.changed()).await.is_err() {
                    report.exit = Exit::Missed;
                    break;
                }
            }
            report.caught = lab.wire.caught(rule);
        }
        Some(healer) => {
            // The task cannot panic; if it was cancelled the process is ending.
            if let Ok((caught, healed)) = healer.await {
                let healed = healed?;
                report.exit = healed.exit;
                report.healed = Some(healed);
                if caught.is_empty() {
                    report.exit = Exit::Missed;
                }
                report.caught = caught;
            }
        }
    }
    Ok(())
}

fn kind_word(hold: bool) -> &'static str {
    if hold { "hold" } else { "drop" }
}

/// `hold ACKEPOCH n2>n4, the 3rd on its link`.
fn text(request: &WithholdRequest, want: &Want) -> String {
    let asked = &request.message;
    let mut text = format!("{} {}", kind_word(request.hold), want.name);
    let side = |word: &str, typed: &[String], places: &[usize]| {
        if typed.is_empty() {
            return String::new();
        }
        let names: Vec<String> = places
            .iter()
            .take(NAMED_MAX)
            .map(|place| NodeId::at(*place).to_string())
            .collect();
        let more = if places.len() > NAMED_MAX { " …" } else { "" };
        format!(" {word} {}{more}", names.join(" "))
    };
    text.push_str(&side("from", &asked.from, &want.from));
    text.push_str(&side("to", &asked.to, &want.to));
    if let Some(zxid) = asked.zxid {
        text.push_str(&format!(" with zxid {zxid}"));
    }
    if asked.nth > 1 {
        text.push_str(&format!(", number {}", asked.nth));
    }
    if asked.count > 1 {
        text.push_str(&format!(", {} of them", asked.count));
    }
    text
}

/// Takes a rule out again; when that was in force.
pub(super) async fn let_go(lab: &Lab, fault: &Fault) -> Result<u64, Failure> {
    let rule = {
        let mut rules = lab.wire.rules();
        let place = rules.iter().position(|one| one.fault == fault.id);
        place.map(|place| rules.remove(place).rule)
    };
    let at_us = match rule {
        Some(rule) => emulator(&lab.ensemble)?.let_go(rule).await?,
        None => now_us(),
    };
    lab.ensemble.fault_off(at_us, &fault.id);
    Ok(at_us)
}

/// Tells of each message that was asked for, as an event, until there were enough.
pub(super) async fn watch(lab: &Arc<Lab>, request: MessageRequest, talk: Talk) {
    let ready = want(&lab.ensemble, &request).await;
    let ready = ready.and_then(|want| reader(&lab.ensemble).map(|_| want));
    let want = match ready {
        Ok(want) => want,
        Err(failure) => return talk.finish(Err::<u32, _>(failure)).await,
    };
    let (tell, mut told) = mpsc::unbounded_channel();
    {
        let mut asked = lab.wire.asked();
        asked.retain(|one| one.left > 0 && !one.tell.is_closed());
        asked.push(Asked {
            want,
            seen: Vec::new(),
            nth: request.nth,
            left: request.count,
            tell,
        });
        lab.wire.is_asked.store(true, Ordering::Relaxed);
    }
    let frames = talk.frames.clone();
    let work = async {
        for _ in 0..request.count {
            let Some(event) = told.recv().await else {
                break;
            };
            // Nobody may be listening any more.
            let _ = frames.send(Frame::Event(event).into());
        }
        told.close();
        Ok(request.count)
    };
    talk.finish_unless_gone(work).await;
    drop(told);
    let mut asked = lab.wire.asked();
    asked.retain(|one| one.left > 0 && !one.tell.is_closed());
    lab.wire
        .is_asked
        .store(!asked.is_empty(), Ordering::Relaxed);
}

impl std::fmt::Display for Catch {
    /// `caught at +1.204 s (epoch 3, n2 → n4)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a lab is up for far less than 2^52 µs"
        )]
        let seconds = self.t_us as f64 / 1e6;
        write!(f, "caught at +{seconds:.3} s (")?;
        if let Some(epoch) = self.epoch {
            write!(f, "epoch {epoch}, ")?;
        }
        if let Some(zxid) = self.zxid {
            write!(f, "zxid {zxid}, ")?;
        }
        write!(f, "{} → {})", self.from, self.to)
    }
}
