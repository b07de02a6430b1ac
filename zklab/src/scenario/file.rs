//! A scenario as it stands in its file: TOML, with everything the seed may still choose.
//!
//! Reading it touches nothing. Everything that can be wrong in a file is told here, with its line, before a lab is
//! made: unknown keys, units, nodes, roles, kinds, steps that refer to no other.

use std::path::Path;

use toml::de::DeTable;

use super::amount::{Choice, Unit};
use super::condition::{self, After, Condition};
use super::expect::{self, Checks, Expect};
use super::text::{Section, Source, Value};
use super::words::{self, Options, Wrong};
use crate::failure::Failure;
use crate::fault::Profile;
use crate::observe::load::{Mix, Via};

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What it is called in reports.
    pub name: String,
    /// The file's name without its ending.
    pub stem: String,
    /// The file as it was named.
    pub file: String,
    /// How many seeds a run takes unless it is told.
    pub seeds: Option<u64>,
    /// For how long things go on at least, in microseconds.
    pub duration: Choice,
    /// The lab.
    pub lab: LabModel,
    /// What clients do meanwhile.
    pub load: LoadModel,
    /// What happens.
    pub steps: Vec<StepModel>,
    /// What may happen besides.
    pub faults: Vec<FaultModel>,
    /// Time between the beginnings of two random faults.
    pub pace: Choice,
    /// How it ends.
    pub finale: FinalModel,
    /// What is expected.
    pub expect: Expect,
    /// What is checked.
    pub check: Checks,
}

/// The lab of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabModel {
    /// Voters.
    pub nodes: Choice,
    /// Observers.
    pub observers: Choice,
    /// `tickTime`.
    pub tick: Choice,
    /// The network: `auto` unless told.
    pub net: String,
    /// `tmpfs` or `disk`.
    pub data: Vec<String>,
    /// How far apart the nodes are; none is as near as can be.
    pub profile: Vec<String>,
}

/// The load of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadModel {
    /// Clients.
    pub clients: Choice,
    /// Through which implementation of the protocol they speak; the seed picks one.
    pub via: Vec<Via>,
    /// Operations a second, of all of them.
    pub rate: Choice,
    /// What they do, with weights.
    pub mix: String,
    /// The session timeout that they ask for.
    pub session_timeout: Choice,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepModel {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub line: usize,
    /// What it does; the seed picks one.
    pub do_: Vec<String>,
    /// `kill`: as what.
    pub as_: Vec<String>,
    /// Partitions: what happens on the links.
    pub style: Vec<String>,
    /// It undoes itself after this time.
    pub for_: Option<Choice>,
    /// `kill`: start again after this time.
    pub restart_after: Option<Choice>,
    /// Not before this time.
    pub at: Option<Choice>,
    /// Not before something else.
    pub after: Option<After>,
    /// Not before this holds.
    pub when: Option<Condition>,
    /// How often.
    pub repeat: Choice,
    /// Time between two repetitions.
    pub every: Choice,
    /// It does not matter if it cannot be done.
    pub optional: bool,
}

/// Random faults of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultModel {
    /// Where it stands.
    pub line: usize,
    /// Its kind: `partition`, `process` or `link`.
    pub kind: String,
    /// What it may do.
    pub do_: Vec<String>,
    /// Partitions: what may happen on the links.
    pub style: Vec<String>,
    /// To whom; by its kind unless told.
    pub on: Vec<String>,
    /// How likely it is among the others.
    pub weight: u64,
    /// How long it stays.
    pub hold: Choice,
    /// `process`: no more of the voters are down at a time than makes no quorum.
    pub keeps_quorum: bool,
    /// `link`: what is set, by the command's words.
    pub settings: Vec<(String, Unit, Choice)>,
}

/// How a scenario ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalModel {
    /// What is healed first.
    pub heal: Healing,
    /// What must be so then.
    pub then: Vec<Demand>,
}

/// What is healed when the time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healing {
    /// Everything.
    All,
    /// A quorum that the seed chooses; the rest stays broken.
    RandomCore,
    /// A quorum of these nodes.
    Core(Vec<String>),
}

/// What must be so at the end, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The core elects a leader and serves within so many microseconds.
    CoreServes(u64),
    /// Everything is healed.
    HealAll,
    /// All nodes serve within so many microseconds.
    AllServe(u64),
    /// All trees are equal within so many microseconds.
    DigestEqual(u64),
}

/// Keys of a scenario.
pub(super) const KEYS: [&str; 13] = [
    "name", "about", "seeds", "duration", "pace", "lab", "load", "step", "fault", "final",
    "expect", "check", "v",
];
const LAB_KEYS: [&str; 6] = ["nodes", "observers", "tick", "net", "data", "profile"];
/// Keys of a load.
pub(super) const LOAD_KEYS: [&str; 5] = ["clients", "via", "rate", "mix", "session_timeout"];
/// Keys of a step.
pub(super) const STEP_KEYS: [&str; 19] = [
    "id",
    "do",
    "as",
    "style",
    "for",
    "restart_after",
    "at",
    "after",
    "when",
    "repeat",
    "every",
    "optional",
    "lose_unsynced",
    "torn",
    "from",
    "to",
    "nth",
    "count",
    "zxid",
];
const FAULT_KEYS: [&str; 14] = [
    "kind", "do", "style", "on", "weight", "hold", "max_down", "delay", "jitter", "loss", "dup",
    "reorder", "corrupt", "as",
];
const NETS: [&str; 4] = ["auto", "tun", "packet", "loopback"];
/// Kinds of random faults.
pub const FAULT_KINDS: [&str; 5] = ["partition", "process", "link", "disk", "clock"];
/// The load unless told: a bit of everything.
pub const MIX: &str =
    "set=4,cas=3,get=3,watch=1,create=1,delete=1,seq=1,ephemeral=1,multi=1,sync=1,move=1";

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or anything in it is wrong.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read {name}: {error}"))
                .hint("`zklab scenario new FILE` writes one to begin with")
        })?;
        Self::parse(&name, &text)
    }

    /// Reads a text; `name` is what complaints begin with.
    ///
    /// # Errors
    /// If anything in it is wrong.
    pub fn parse(name: &str, text: &str) -> Result<Self, Failure> {
        let source = Source {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        let table = DeTable::parse(&source.text).map_err(|error| {
            let at = error.span().unwrap_or_default();
            source.wrong(&at, error.message())
        })?;
        let top = Section::new(&source, table.get_ref(), 0, "a scenario", &KEYS)?;
        let lab = lab(&top)?;
        let count = u8::try_from(lab.nodes.largest() + lab.observers.largest()).unwrap_or(u8::MAX);
        let steps = steps(&source, &top, count)?;
        let faults = faults(&source, &top, count)?;
        let duration = match top.get("duration") {
            Some(value) => value.choice(Unit::Time)?,
            None if faults.is_empty() => Choice::fixed(0),
            None => Choice::fixed(2_000_000),
        };
        let pace = match top.get("pace") {
            Some(value) => value.choice(Unit::Time)?,
            None => Choice::Between(150_000, 500_000),
        };
        if !faults.is_empty() && pace.smallest() < 1_000 {
            return Err(top
                .need("pace")?
                .wrong("pace: at least 1ms lies between two faults"));
        }
        Ok(Self {
            name: top.need("name")?.text()?,
            stem: stem(name),
            file: name.to_owned(),
            seeds: top
                .get("seeds")
                .map(|v| v.amount(Unit::Count))
                .transpose()?,
            duration,
            lab,
            load: load(&source, &top)?,
            steps,
            faults,
            pace,
            finale: finale(&top, count)?,
            expect: expect::read(top.get("expect"))?,
            check: expect::read_checks(top.get("check"))?,
        })
    }

    /// Does anything in it need links that can be made bad?
    #[must_use]
    pub fn needs_links(&self) -> bool {
        let any_step = self.steps.iter().any(|step| {
            let options = step.first_options();
            step.do_
                .iter()
                .any(|text| words::parse(text, &options, u8::MAX).is_ok_and(|d| d.needs.links))
        });
        any_step
            || !self.lab.profile.is_empty()
            || self.faults.iter().any(|fault| fault.kind != "process")
    }
}

impl StepModel {
    /// The options with the first of everything.
    fn first_options(&self) -> Options {
        Options {
            as_: self.as_.first().cloned(),
            style: self.style.first().cloned(),
            for_us: self.for_.as_ref().map(Choice::largest),
            restart_after_us: self.restart_after.as_ref().map(Choice::largest),
        }
    }
}

/// The file's name without its directory and ending.
fn stem(name: &str) -> String {
    let path = Path::new(name);
    path.file_stem().map_or_else(
        || "scenario".to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

fn lab(top: &Section<'_>) -> Result<LabModel, Failure> {
    let mut model = LabModel {
        nodes: Choice::fixed(5),
        observers: Choice::fixed(0),
        tick: Choice::fixed(200_000),
        net: "auto".to_owned(),
        data: vec!["tmpfs".to_owned()],
        profile: Vec::new(),
    };
    let Some(value) = top.get("lab") else {
        return Ok(model);
    };
    let lab = value.section("lab", &LAB_KEYS)?;
    if let Some(nodes) = lab.get("nodes") {
        model.nodes = within(&nodes, Unit::Count, 1, 25)?;
    }
    if let Some(observers) = lab.get("observers") {
        model.observers = within(&observers, Unit::Count, 0, 25)?;
    }
    if let Some(tick) = lab.get("tick") {
        model.tick = within(&tick, Unit::Time, 1_000, 60_000_000)?;
    }
    if let Some(net) = lab.get("net") {
        model.net = net.word(&NETS)?;
    }
    if let Some(data) = lab.get("data") {
        model.data = data.words(&["tmpfs", "disk"])?;
    }
    if let Some(profile) = lab.get("profile") {
        model.profile = profile.texts()?;
        for (item, word) in profile.items().iter().zip(&model.profile) {
            Profile::open(word).map_err(|failure| Failure {
                hint: failure.hint,
                ..item.wrong(failure.cause)
            })?;
        }
    }
    Ok(model)
}

/// A choice between these bounds.
fn within(value: &Value<'_>, unit: Unit, low: u64, high: u64) -> Result<Choice, Failure> {
    let choice = value.choice(unit)?;
    if choice.smallest() < low || choice.largest() > high {
        return Err(value.wrong(format!(
            "{} has to be between {} and {}",
            value.key(),
            unit.render(low),
            unit.render(high)
        )));
    }
    Ok(choice)
}

fn load(source: &Source, top: &Section<'_>) -> Result<LoadModel, Failure> {
    let mut model = LoadModel {
        clients: Choice::fixed(4),
        via: vec![Via::default()],
        rate: Choice::fixed(400),
        mix: MIX.to_owned(),
        session_timeout: Choice::fixed(4_000_000),
    };
    let Some(value) = top.get("load") else {
        return Ok(model);
    };
    let load = value.section("load", &LOAD_KEYS)?;
    if let Some(clients) = load.get("clients") {
        model.clients = within(&clients, Unit::Count, 1, 1000)?;
    }
    if let Some(via) = load.get("via") {
        let words = via.words(&Via::words())?;
        model.via = words
            .iter()
            .map(|word| Via::parse(word))
            .collect::<Result<_, _>>()?;
    }
    if let Some(rate) = load.get("rate") {
        model.rate = within(&rate, Unit::Count, 1, 1_000_000)?;
    }
    if let Some(timeout) = load.get("session_timeout") {
        model.session_timeout = within(&timeout, Unit::Time, 10_000, 600_000_000)?;
    }
    if let Some(mix) = load.get("mix") {
        model.mix = read_mix(source, &mix)?;
    }
    Ok(model)
}

/// `"set=4,get"` or `{ set = 4, get = 1 }`.
fn read_mix(source: &Source, mix: &Value<'_>) -> Result<String, Failure> {
    let known = Mix::words();
    let text = if let Ok(text) = mix.text() {
        text
    } else {
        let parts = mix.section("mix", &known)?;
        let mut words = Vec::new();
        for part in parts.entries() {
            words.push(format!("{}={}", part.key(), part.amount(Unit::Count)?));
        }
        words.join(",")
    };
    Mix::parse(&text).map_err(|failure| Failure {
        cause: source.wrong_at(mix.line(), &failure.cause).cause,
        ..failure
    })?;
    Ok(text)
}

fn steps(source: &Source, top: &Section<'_>, count: u8) -> Result<Vec<StepModel>, Failure> {
    let Some(value) = top.get("step") else {
        return Ok(Vec::new());
    };
    let mut steps = Vec::new();
    for (index, item) in value.items().iter().enumerate() {
        let section = item.section("a step", &STEP_KEYS)?;
        let step = step(&section, index, count)?;
        if steps.iter().any(|other: &StepModel| other.id == step.id) {
            return Err(section.wrong(format!("two steps are called {:?}", step.id)));
        }
        steps.push(step);
    }
    let ids: Vec<&str> = steps.iter().map(|step| step.id.as_str()).collect();
    for step in &steps {
        if let Some(After::Step { id, .. }) = &step.after
            && (!ids.contains(&id.as_str()) || *id == step.id)
        {
            let known: Vec<&str> = ids
                .iter()
                .copied()
                .filter(|other| *other != step.id)
                .chain(condition::EVENTS)
                .collect();
            return Err(source.unknown(step.line, "step or event in after", id, &known));
        }
    }
    circle(source, &steps)?;
    Ok(steps)
}

/// Steps that wait for one another would wait for ever.
fn circle(source: &Source, steps: &[StepModel]) -> Result<(), Failure> {
    for first in steps {
        let mut at = first;
        for _ in 0..=steps.len() {
            let Some(After::Step { id, .. }) = &at.after else {
                break;
            };
            let Some(next) = steps.iter().find(|step| step.id == *id) else {
                break;
            };
            if next.id == first.id {
                let what = format!("step {:?} waits for itself", first.id);
                return Err(source.wrong_at(first.line, what));
            }
            at = next;
        }
    }
    Ok(())
}

/// Words and options of a step.
fn step(section: &Section<'_>, index: usize, count: u8) -> Result<StepModel, Failure> {
    let time = |key| section.get(key).map(|v| v.choice(Unit::Time)).transpose();
    let texts = |key| section.get(key).map_or(Ok(Vec::new()), |v| v.texts());
    let id = match section.get("id") {
        Some(id) => id.text()?,
        None => format!("s{}", index + 1),
    };
    let deeds = section.need("do")?;
    let truth = |key| section.get(key).map_or(Ok(false), |v| v.truth());
    let mut do_ = deeds.texts()?;
    for (key, word) in [("lose_unsynced", "lose-unsynced"), ("torn", "torn")] {
        if truth(key)? {
            do_.iter_mut()
                .for_each(|text| *text = format!("{text} {word}"));
        }
    }
    for key in ["from", "to", "nth", "count", "zxid"] {
        if let Some(value) = section.get(key) {
            let word = value.plain()?;
            do_.iter_mut()
                .for_each(|text| *text = format!("{text} {key} {word}"));
        }
    }
    // `when = { zxid_count = 3 }` is the third of the messages.
    let mut when = section.get("when");
    if let Some(nth) = when
        .map(|value| condition::zxid_count(&value))
        .transpose()?
        .flatten()
    {
        do_.iter_mut()
            .for_each(|text| *text = format!("{text} nth {nth}"));
        when = None;
    }
    let step = StepModel {
        id,
        line: section.line(),
        do_: do_.clone(),
        as_: texts("as")?,
        style: texts("style")?,
        for_: time("for")?,
        restart_after: time("restart_after")?,
        at: time("at")?,
        after: section
            .get("after")
            .map(|v| condition::after(&v))
            .transpose()?,
        when: when.map(|v| condition::read(&v, count)).transpose()?,
        repeat: match section.get("repeat") {
            Some(repeat) => within(&repeat, Unit::Count, 1, 10_000)?,
            None => Choice::fixed(1),
        },
        every: time("every")?.unwrap_or_else(|| Choice::fixed(500_000)),
        optional: section.get("optional").map_or(Ok(false), |v| v.truth())?,
    };
    let options = step.first_options();
    for (item, text) in deeds.items().iter().zip(&do_) {
        words::parse(text, &options, count).map_err(|wrong| said(item, wrong))?;
    }
    for (key, words) in [("as", &step.as_), ("style", &step.style)] {
        for (index, word) in words.iter().enumerate() {
            let mut options = options.clone();
            match key {
                "as" => options.as_ = Some(word.clone()),
                _ => options.style = Some(word.clone()),
            }
            let item = section.need(key)?.items()[index];
            words::parse(&step.do_[0], &options, count).map_err(|wrong| said(&item, wrong))?;
        }
    }
    Ok(step)
}

/// A complaint about words, with the place where they stand.
fn said(value: &Value<'_>, wrong: Wrong) -> Failure {
    Failure {
        hint: wrong.hint,
        ..value.wrong(wrong.cause)
    }
}

fn faults(source: &Source, top: &Section<'_>, count: u8) -> Result<Vec<FaultModel>, Failure> {
    let Some(value) = top.get("fault") else {
        return Ok(Vec::new());
    };
    let items = value.items();
    let faults: Result<Vec<_>, _> = items
        .iter()
        .map(|item| fault(source, item, count))
        .collect();
    let faults = faults?;
    if faults.iter().all(|fault| fault.weight == 0) {
        return Err(value.wrong("every fault has weight 0: none can happen"));
    }
    Ok(faults)
}

fn fault(source: &Source, item: &Value<'_>, count: u8) -> Result<FaultModel, Failure> {
    let section = item.section("a fault", &FAULT_KEYS)?;
    let kind = section.need("kind")?.word(&FAULT_KINDS)?;
    let stranger = |key: &'static str, belongs: bool| match section.get(key) {
        Some(value) if !belongs => Err(value.wrong(format!("a {kind} fault takes no {key:?}"))),
        _ => Ok(()),
    };
    stranger("do", kind != "link")?;
    stranger("style", kind == "partition")?;
    stranger("max_down", kind == "process")?;
    for key in ["delay", "jitter", "loss", "dup", "reorder", "corrupt"] {
        stranger(key, kind == "link")?;
    }
    let mut settings = Vec::new();
    for key in ["delay", "jitter", "loss", "dup", "reorder", "corrupt"] {
        let unit = if matches!(key, "delay" | "jitter") {
            Unit::Time
        } else {
            Unit::Chance
        };
        if let Some(value) = section.get(key) {
            settings.push((key.to_owned(), unit, value.choice(unit)?));
        }
    }
    if kind == "link" && settings.is_empty() {
        return Err(section
            .wrong("a link fault sets nothing: delay, jitter, loss, dup, reorder or corrupt"));
    }
    let model = FaultModel {
        line: section.line(),
        do_: section.get("do").map_or(Ok(Vec::new()), |v| v.texts())?,
        style: section.get("style").map_or(Ok(Vec::new()), |v| v.texts())?,
        on: section.get("on").map_or(Ok(Vec::new()), |v| v.texts())?,
        weight: section
            .get("weight")
            .map_or(Ok(1), |v| v.amount(Unit::Count))?,
        hold: match section.get("hold") {
            Some(hold) => within(&hold, Unit::Time, 1_000, 3_600_000_000)?,
            None => Choice::Between(50_000, 800_000),
        },
        keeps_quorum: match section.get("max_down") {
            Some(value) => value.word(&["minority", "all"])? == "minority",
            None => true,
        },
        kind,
        settings,
    };
    if model.kind != "link" && model.do_.is_empty() {
        return Err(section.wrong(format!("a {} fault has no \"do\"", model.kind)));
    }
    check_random(source, &section, &model, count)?;
    Ok(model)
}

/// Every random fault is understood before anything happens.
fn check_random(
    _source: &Source,
    section: &Section<'_>,
    model: &FaultModel,
    count: u8,
) -> Result<(), Failure> {
    for target in section.get("on").iter().flat_map(Value::items) {
        words::parse(
            &format!("pause {}", target.text()?),
            &Options::default(),
            count,
        )
        .map_err(|wrong| said(&target, wrong))?;
    }
    for item in section.get("do").iter().flat_map(Value::items) {
        let text = super::swarm::sample(model, &item.text()?);
        for style in model.style.iter().map(Some).chain([None]) {
            let options = Options {
                style: style.cloned(),
                ..Options::default()
            };
            words::parse(&text, &options, count).map_err(|wrong| said(&item, wrong))?;
        }
    }
    Ok(())
}

fn finale(top: &Section<'_>, count: u8) -> Result<FinalModel, Failure> {
    let mut model = FinalModel {
        heal: Healing::All,
        then: Vec::new(),
    };
    let Some(value) = top.get("final") else {
        return Ok(model);
    };
    let section = value.section("final", &["heal", "then"])?;
    if let Some(heal) = section.get("heal") {
        let text = heal.text()?;
        model.heal = match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["all"] => Healing::All,
            ["random", "core"] | ["random", "core", "quorum"] => Healing::RandomCore,
            ["core", nodes] => {
                words::parse(&format!("pause {nodes}"), &Options::default(), count)
                    .map_err(|wrong| said(&heal, wrong))?;
                Healing::Core(nodes.split(',').map(str::to_owned).collect())
            }
            _ => {
                return Err(heal
                    .wrong(format!("unknown heal {text:?}"))
                    .hint("one of \"all\", \"random core quorum\", \"core n1,n2,n3\""));
            }
        };
    }
    for item in section.get("then").iter().flat_map(Value::items) {
        model.then.push(demand(&item)?);
    }
    Ok(model)
}

fn demand(item: &Value<'_>) -> Result<Demand, Failure> {
    const KNOWN: [&str; 4] = [
        "core serves within",
        "all serve within",
        "digest equal within",
        "heal all",
    ];
    let text = item.text()?;
    let text = text.trim();
    if text == "heal all" {
        return Ok(Demand::HealAll);
    }
    let Some((what, within)) = text.rsplit_once(' ') else {
        return Err(item.wrong(format!("unknown demand {text:?}")));
    };
    let time = || Unit::Time.parse(within).map_err(|why| item.wrong(why));
    match what {
        "core serves within" => Ok(Demand::CoreServes(time()?)),
        "all serve within" => Ok(Demand::AllServe(time()?)),
        "digest equal within" => Ok(Demand::DigestEqual(time()?)),
        _ => {
            let guess = crate::failure::nearest(what, KNOWN)
                .map(|near| format!("; did you mean {near:?}?"))
                .unwrap_or_default();
            Err(item.wrong(format!("unknown demand {text:?}{guess}")).hint(
                "core serves within 2s, all serve within 2s, digest equal within 3s, heal all",
            ))
        }
    }
}
