//! What a seed makes of a scenario: everything chosen, nothing left to chance.
//!
//! The same file and the same seed make the same plan, byte for byte, on every machine. Every part of a scenario
//! draws from a generator of its own, so that a change in one part does not shift the choices of the others.

use zkd::prng::Prng;

use super::amount::Unit;
use super::condition::{After, Condition};
use super::expect::{Checks, Expect};
use super::file::{Demand, Healing, Scenario, StepModel};
use super::render;
use super::swarm;
use super::words::{self, Deed, Needs, Options};
use crate::disk::Watch;
use crate::failure::Failure;
use crate::observe::load::Via;
use crate::supervisor::protocol::HexSeed;

/// A scenario with everything chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What it is called in reports.
    pub name: String,
    /// The file's name without its ending.
    pub stem: String,
    /// The file as it was named.
    pub file: String,
    /// What the choices came from.
    pub seed: HexSeed,
    /// For how long things go on at least, in microseconds.
    pub duration_us: u64,
    /// Voters.
    pub nodes: u8,
    /// Observers.
    pub observers: u8,
    /// `tickTime` in microseconds.
    pub tick_us: u64,
    /// `auto` or a network.
    pub net: String,
    /// `tmpfs` or `disk`.
    pub data: String,
    /// How far apart the nodes are.
    pub profile: Option<String>,
    /// Clients of the load.
    pub clients: u32,
    /// Through which implementation of the protocol they speak.
    pub via: Via,
    /// Its operations a second.
    pub rate: u32,
    /// What it does.
    pub mix: String,
    /// The session timeout in microseconds.
    pub session_timeout_us: u64,
    /// What happens.
    pub steps: Vec<Step>,
    /// What is healed at the end.
    pub heal: Healing,
    /// What must be so then.
    pub then: Vec<Demand>,
    /// What is expected.
    pub expect: Expect,
    /// What is checked.
    pub check: Checks,
}

/// A step with everything chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub id: String,
    /// What it does.
    pub do_: String,
    /// What it says besides.
    pub options: Options,
    /// Not before this time, in microseconds.
    pub at_us: Option<u64>,
    /// Not before something else.
    pub after: Option<Anchor>,
    /// Not before this holds.
    pub when: Option<Condition>,
    /// It does not matter if it cannot be done.
    pub optional: bool,
}

/// Not before something else, and so many microseconds later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// That step is done.
    Step(String, u64),
    /// Such an event happened.
    Event(String, u64),
}

impl Step {
    /// What its words ask for.
    ///
    /// # Errors
    /// If the lab is too small for a node that it names.
    pub fn deed(&self, nodes: u8) -> Result<Deed, Failure> {
        words::parse(&self.do_, &self.options, nodes).map_err(|wrong| Failure {
            hint: wrong.hint,
            ..Failure::usage(format!("step {:?}: {}", self.id, wrong.cause))
        })
    }

    /// Its words as people would type them.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.do_.clone();
        let mut add = |word: &str, value: Option<String>| {
            if let Some(value) = value {
                text.push_str(&format!(" {word} {value}"));
            }
        };
        let time = |us: Option<u64>| us.map(|us| Unit::Time.render(us));
        add("as", self.options.as_.clone());
        add("style", self.options.style.clone());
        add("for", time(self.options.for_us));
        add("restart-after", time(self.options.restart_after_us));
        text
    }
}

impl Plan {
    /// What this seed makes of the scenario.
    ///
    /// # Errors
    /// If a step names a node that the lab of this seed has not.
    pub fn of(scenario: &Scenario, seed: HexSeed) -> Result<Self, Failure> {
        let mut root = Prng::new(seed.0);
        let [mut lab, mut load, mut steps, mut faults, mut end] = [(); 5].map(|()| root.fork());
        let small = |amount: u64| u8::try_from(amount).unwrap_or(u8::MAX);
        let whole = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
        let nodes = small(scenario.lab.nodes.draw(&mut lab));
        let mut plan = Self {
            name: scenario.name.clone(),
            stem: scenario.stem.clone(),
            file: scenario.file.clone(),
            seed,
            duration_us: scenario.duration.draw_time(&mut lab),
            nodes,
            observers: small(scenario.lab.observers.draw(&mut lab)),
            tick_us: scenario.lab.tick.draw_time(&mut lab),
            net: scenario.lab.net.clone(),
            data: lab.pick(&scenario.lab.data).clone(),
            profile: if scenario.lab.profile.is_empty() {
                None
            } else {
                Some(lab.pick(&scenario.lab.profile).clone())
            },
            clients: whole(scenario.load.clients.draw(&mut load)),
            rate: whole(scenario.load.rate.draw(&mut load)),
            via: if let [only] = scenario.load.via[..] {
                only
            } else {
                *load.pick(&scenario.load.via)
            },
            mix: scenario.load.mix.clone(),
            session_timeout_us: scenario.load.session_timeout.draw_time(&mut load),
            steps: resolve(&scenario.steps, &mut steps),
            heal: scenario.finale.heal.clone(),
            then: scenario.finale.then.clone(),
            expect: scenario.expect.clone(),
            check: scenario.check.clone(),
        };
        if !scenario.faults.is_empty() {
            let random = swarm::draw(scenario, &plan, &mut faults);
            plan.steps.extend(random);
        }
        if plan.heal == Healing::RandomCore {
            plan.heal = Healing::Core(core(nodes, &mut end));
        }
        for step in &plan.steps {
            step.deed(plan.total()).map_err(|failure| Failure {
                cause: format!(
                    "{}: with seed {seed} the lab has {} nodes, and {}",
                    plan.file,
                    plan.total(),
                    failure.cause
                ),
                ..failure
            })?;
        }
        Ok(plan)
    }

    /// Voters and observers.
    #[must_use]
    pub fn total(&self) -> u8 {
        self.nodes.saturating_add(self.observers)
    }

    /// As a scenario file in which nothing is left to choose.
    #[must_use]
    pub fn to_toml(&self) -> String {
        render::toml(self)
    }

    /// Does a step need links that can be made bad?
    #[must_use]
    pub fn needs_links(&self) -> Option<&Step> {
        self.steps
            .iter()
            .find(|step| step.deed(self.total()).is_ok_and(|deed| deed.needs.links))
    }

    /// What has to be watched of the disks.
    #[must_use]
    pub fn watched(&self) -> Watch {
        let deeds = self.deeds().map(|(_, deed)| deed.needs.disks);
        deeds.max().unwrap_or_default()
    }

    /// A step that sets a clock wrong.
    #[must_use]
    pub fn needs_clocks(&self) -> Option<&Step> {
        let wrong = self.deeds().find(|(_, deed)| deed.needs.clocks);
        wrong.map(|(step, _)| step)
    }

    /// Can faults be left that stay until they are healed?
    #[must_use]
    pub fn leaves_faults(&self) -> bool {
        let mut deeds = self.deeds();
        deeds.any(|(_, Deed { needs, .. })| needs != Needs::default())
    }

    /// Steps and what they do.
    fn deeds(&self) -> impl Iterator<Item = (&Step, Deed)> {
        let steps = self.steps.iter();
        steps.filter_map(|step| Some((step, step.deed(self.total()).ok()?)))
    }

    /// A number for the load that no other part of the run uses.
    #[must_use]
    pub fn load_seed(&self) -> u64 {
        Prng::new(!self.seed.0).next_u64()
    }
}

/// A quorum of the voters, in order.
fn core(nodes: u8, prng: &mut Prng) -> Vec<String> {
    let mut left: Vec<u8> = (1..=nodes).collect();
    let mut core = Vec::new();
    for _ in 0..nodes / 2 + 1 {
        let place = prng.below(left.len() as u64);
        core.push(left.remove(usize::try_from(place).expect("below a length")));
    }
    core.sort_unstable();
    core.iter().map(|number| format!("n{number}")).collect()
}

/// Repeats are written out, and every choice is made.
fn resolve(models: &[StepModel], prng: &mut Prng) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // A name stands for the last of its repetitions.
    let mut last_of: Vec<(String, String)> = Vec::new();
    let times: Vec<u64> = models.iter().map(|model| model.repeat.draw(prng)).collect();
    for (model, count) in models.iter().zip(&times) {
        let last = match count {
            1 => model.id.clone(),
            count => format!("{}.{count}", model.id),
        };
        last_of.push((model.id.clone(), last));
    }
    let last = |id: &str| {
        let found = last_of.iter().find(|(name, _)| name == id);
        found.map_or_else(|| id.to_owned(), |(_, last)| last.clone())
    };
    for (model, count) in models.iter().zip(times) {
        for number in 1..=count {
            let mut step = one(model, prng);
            let before = steps.last().map(|step| step.id.clone());
            if count > 1 {
                step.id = format!("{}.{number}", model.id);
            }
            if number > 1 {
                step.at_us = None;
                step.when = None;
                let every = model.every.draw_time(prng);
                step.after = before.map(|id| Anchor::Step(id, every));
            } else {
                step.after = match &model.after {
                    Some(After::Step { id, later }) => {
                        Some(Anchor::Step(last(id), later.draw_time(prng)))
                    }
                    Some(After::Event { kind, later }) => {
                        Some(Anchor::Event(kind.clone(), later.draw_time(prng)))
                    }
                    // Who says nothing comes after the one before.
                    None if model.at.is_none() && model.when.is_none() => {
                        before.map(|id| Anchor::Step(id, 0))
                    }
                    None => None,
                };
            }
            steps.push(step);
        }
    }
    steps
}

fn one(model: &StepModel, prng: &mut Prng) -> Step {
    let word = |words: &[String], prng: &mut Prng| {
        if words.is_empty() {
            None
        } else {
            Some(prng.pick(words).clone())
        }
    };
    Step {
        id: model.id.clone(),
        do_: prng.pick(&model.do_).clone(),
        options: Options {
            as_: word(&model.as_, prng),
            style: word(&model.style, prng),
            for_us: model.for_.as_ref().map(|time| time.draw_time(prng)),
            restart_after_us: model.restart_after.as_ref().map(|t| t.draw_time(prng)),
        },
        at_us: model.at.as_ref().map(|at| at.draw_time(prng)),
        after: None,
        when: model.when.clone(),
        optional: model.optional,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SWARM: &str = r#"
name = "swarm"
duration = "3s"
lab = { nodes = [3, 5, 7], observers = [0, 2] }
load = { clients = [2, 16], rate = [200, 4000] }
fault = [
  { kind = "partition", do = ["halves", "isolate leader", "isolate", "one-way"], style = ["drop", "jam"], weight = 4, hold = "50ms..800ms" },
  { kind = "process", do = ["kill", "pause"], weight = 3, max_down = "minority" },
  { kind = "link", delay = "0..40ms", loss = "0..5%", weight = 2 },
]
final = { heal = "random core quorum", then = ["core serves within 2s", "heal all", "digest equal within 3s"] }
"#;

    #[test]
    fn a_seed_is_a_plan_and_the_plan_is_a_scenario_of_its_own() {
        let scenario = Scenario::parse("x/swarm.toml", SWARM).unwrap();
        let mut different = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let plan = Plan::of(&scenario, HexSeed(seed)).unwrap();
            let text = plan.to_toml();
            assert_eq!(text, Plan::of(&scenario, HexSeed(seed)).unwrap().to_toml());
            let again = Scenario::parse("x/swarm.toml", &text)
                .unwrap_or_else(|failure| panic!("{failure}\n{text}"));
            let mut again = Plan::of(&again, HexSeed(seed + 1)).unwrap();
            again.seed = HexSeed(seed);
            assert_eq!(again, plan, "{text}");
            different.insert(text);
        }
        assert_eq!(different.len(), 200);
    }

    #[test]
    fn random_faults_never_take_a_quorum_of_processes_down() {
        let scenario = Scenario::parse("swarm.toml", SWARM).unwrap();
        for seed in 0..300 {
            let plan = Plan::of(&scenario, HexSeed(seed)).unwrap();
            let windows: Vec<(u64, u64)> = plan
                .steps
                .iter()
                .filter(|step| step.do_.starts_with("kill") || step.do_.starts_with("pause"))
                .map(|step| {
                    let at = step.at_us.unwrap();
                    let options = &step.options;
                    let hold = options.for_us.or(options.restart_after_us).unwrap();
                    (at, at + hold)
                })
                .collect();
            for (at, _) in &windows {
                let open = windows.iter().filter(|(from, to)| from <= at && at < to);
                assert!(open.count() <= usize::from((plan.nodes - 1) / 2), "{seed}");
            }
        }
    }

    #[test]
    fn repeats_are_written_out_and_names_mean_the_last() {
        let text = r#"
name = "x"
lab = { nodes = 3 }
step = [
  { id = "kill", do = "kill leader", repeat = 3, every = "500ms..900ms", restart_after = "200ms" },
  { after = "kill+1s", do = "isolate leader", for = "1s", when = { writes = 10 } },
  { do = "heal" },
]
"#;
        let plan = Plan::of(&Scenario::parse("x.toml", text).unwrap(), HexSeed(1)).unwrap();
        let ids: Vec<&str> = plan.steps.iter().map(|step| step.id.as_str()).collect();
        assert_eq!(ids, ["kill.1", "kill.2", "kill.3", "s2", "s3"]);
        assert_eq!(plan.steps[0].after, None);
        assert!(
            matches!(&plan.steps[1].after, Some(Anchor::Step(id, 500_000..=900_000)) if id == "kill.1")
        );
        let anchor = |id: &str, later| Some(Anchor::Step(id.to_owned(), later));
        assert_eq!(plan.steps[3].after, anchor("kill.3", 1_000_000));
        assert_eq!(plan.steps[4].after, anchor("s2", 0));
        assert_eq!(plan.steps[0].text(), "kill leader restart-after 200ms");
    }
}
