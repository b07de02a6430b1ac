//! Random faults: which, whom, when and for how long, all of it drawn from the seed before the lab is made.

use zkd::prng::Prng;

use super::file::{FaultModel, Scenario};
use super::plan::{Plan, Step};
use super::words::Options;

/// A node that was killed or paused counts as down for this much longer, until it serves again; microseconds.
const RECOVERY_US: u64 = 100_000;

/// The random faults of a plan, in the order of their times.
pub(super) fn draw(scenario: &Scenario, plan: &Plan, prng: &mut Prng) -> Vec<Step> {
    let mut steps = Vec::new();
    let minority = usize::from(plan.nodes.saturating_sub(1) / 2);
    // When each process fault is over.
    let mut down: Vec<u64> = Vec::new();
    let mut at = scenario.pace.draw_time(prng);
    while at < plan.duration_us {
        let model = pick(&scenario.faults, prng);
        let hold = model.hold.draw_time(prng);
        let target = target(model, plan, prng);
        let style = if model.style.is_empty() {
            None
        } else {
            Some(prng.pick(&model.style).clone())
        };
        let text = match model.kind.as_str() {
            "link" => link(model, &target, prng),
            _ => compose(model, prng.pick::<String>(&model.do_), &target),
        };
        let is_process = model.kind == "process";
        down.retain(|until| *until > at);
        // All choices of this fault are made even if it is passed over, so that the next are the same.
        let is_allowed = !is_process || !model.keeps_quorum || down.len() < minority;
        if is_allowed {
            if is_process {
                down.push(at + hold + RECOVERY_US);
            }
            let is_kill = text.starts_with("kill");
            steps.push(Step {
                id: format!("x{}", steps.len() + 1),
                do_: text,
                options: Options {
                    style,
                    for_us: (!is_kill).then_some(hold),
                    restart_after_us: is_kill.then_some(hold),
                    ..Options::default()
                },
                at_us: Some(at),
                after: None,
                when: None,
                optional: true,
            });
        }
        at += scenario.pace.draw_time(prng).max(1);
    }
    steps
}

/// A fault as it would stand in a step, for a check of its words.
pub(super) fn sample(model: &FaultModel, text: &str) -> String {
    let target = if text == "one-way" { "leader>n1" } else { "n1" };
    compose(model, text, target)
}

/// Words of a fault with the node or link that it is aimed at.
fn compose(model: &FaultModel, text: &str, target: &str) -> String {
    match (model.kind.as_str(), text.split_once(' ')) {
        ("process", Some((verb, rest))) => format!("{verb} {target} {rest}"),
        ("process", None) => format!("{text} {target}"),
        ("disk" | "clock", _) => format!("{} {target} {text}", model.kind),
        ("partition", _) if text == "one-way" => {
            let link = if target.contains('>') {
                target.to_owned()
            } else {
                format!("leader>{target}")
            };
            format!("one-way {link}")
        }
        ("partition", _) if text == "isolate" => {
            let node = target.split('>').next().unwrap_or(target);
            format!("isolate {node}")
        }
        _ => text.to_owned(),
    }
}

/// One of the kinds, as likely as its weight says.
fn pick<'a>(faults: &'a [FaultModel], prng: &mut Prng) -> &'a FaultModel {
    let sum: u64 = faults.iter().map(|fault| fault.weight).sum();
    let mut place = prng.below(sum.max(1));
    for fault in faults {
        if place < fault.weight {
            return fault;
        }
        place -= fault.weight;
    }
    &faults[0]
}

/// Whom a fault hits: what the scenario says, else a node or link by its kind.
fn target(model: &FaultModel, plan: &Plan, prng: &mut Prng) -> String {
    if !model.on.is_empty() {
        return prng.pick(&model.on).clone();
    }
    let node = |prng: &mut Prng| format!("n{}", prng.between(1, u64::from(plan.total())));
    let voter = format!("n{}", prng.between(1, u64::from(plan.nodes)));
    match (model.kind.as_str(), prng.below(3)) {
        ("link", 0) => "all".to_owned(),
        ("link", 1) => node(prng),
        ("link", _) => {
            let (a, b) = two(plan.total(), prng);
            format!("n{a}:n{b}")
        }
        ("partition", 0) => {
            let (a, b) = two(plan.total(), prng);
            format!("n{a}>n{b}")
        }
        ("process", 0) => "leader".to_owned(),
        _ => voter,
    }
}

/// Two different nodes; the same one twice where there is no other.
fn two(count: u8, prng: &mut Prng) -> (u64, u64) {
    let count = u64::from(count);
    let a = prng.between(1, count);
    let step = if count > 1 {
        prng.between(1, count - 1)
    } else {
        0
    };
    (a, (a - 1 + step) % count + 1)
}

/// `link n1:n2 delay 13ms loss 2%`.
fn link(model: &FaultModel, target: &str, prng: &mut Prng) -> String {
    let mut text = format!("link {target}");
    for (key, unit, choice) in &model.settings {
        let amount = match key.as_str() {
            "delay" | "jitter" => choice.draw_time(prng),
            // Hundredths of a percent are fine enough.
            _ => choice.draw(prng) / 100 * 100,
        };
        text.push_str(&format!(" {key} {}", unit.render(amount)));
    }
    text
}
