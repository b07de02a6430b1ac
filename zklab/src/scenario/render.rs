//! A plan as a scenario file in which nothing is left to choose.

use std::fmt::Write;

use super::amount::{Choice, Unit};
use super::condition::Condition;
use super::expect::{Expect, rule_key};
use super::file::{Demand, Healing};
use super::plan::{Anchor, Plan, Step};
use crate::observe::check::Rule;

/// A text in quotes.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn time(us: u64) -> String {
    quoted(&Unit::Time.render(us))
}

/// The whole file.
pub(super) fn toml(plan: &Plan) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line(format!("# What seed {} makes of {}.", plan.seed, plan.file));
    line(format!("name = {}", quoted(&plan.name)));
    line(format!("duration = {}", time(plan.duration_us)));
    let profile = plan.profile.as_deref();
    let profile = profile.map_or_else(String::new, |word| format!(", profile = {}", quoted(word)));
    line(format!(
        "lab = {{ nodes = {}, observers = {}, tick = {}, net = {}, data = {}{profile} }}",
        plan.nodes,
        plan.observers,
        time(plan.tick_us),
        quoted(&plan.net),
        quoted(&plan.data),
    ));
    line(format!(
        "load = {{ clients = {}, via = {}, rate = {}, mix = {}, session_timeout = {} }}",
        plan.clients,
        quoted(plan.via.word()),
        plan.rate,
        quoted(&plan.mix),
        time(plan.session_timeout_us),
    ));
    if !plan.steps.is_empty() {
        line("step = [".to_owned());
        for one in &plan.steps {
            line(format!("  {},", step(one)));
        }
        line("]".to_owned());
    }
    line(format!("final = {}", finale(plan)));
    line(format!("expect = {}", expect(&plan.expect)));
    line(format!("check = {}", check(plan)));
    out
}

fn step(step: &Step) -> String {
    let mut text = format!("{{ id = {}", quoted(&step.id));
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, ", {key} = {value}");
        }
    };
    add("at", step.at_us.map(time));
    add("after", step.after.as_ref().map(anchor));
    add("when", step.when.as_ref().map(condition));
    add("do", Some(quoted(&step.do_)));
    add("as", step.options.as_.as_deref().map(quoted));
    add("style", step.options.style.as_deref().map(quoted));
    add("for", step.options.for_us.map(time));
    add("restart_after", step.options.restart_after_us.map(time));
    add("optional", step.optional.then(|| "true".to_owned()));
    text.push_str(" }");
    text
}

fn anchor(anchor: &Anchor) -> String {
    let (Anchor::Step(name, later) | Anchor::Event(name, later)) = anchor;
    if *later == 0 {
        quoted(name)
    } else {
        quoted(&format!("{name}+{}", Unit::Time.render(*later)))
    }
}

fn condition(condition: &Condition) -> String {
    match condition {
        Condition::Event { kind, node, nth } => {
            let node = node.map_or_else(String::new, |node| format!(", node = \"{node}\""));
            format!("{{ event = {}{node}, nth = {nth} }}", quoted(kind))
        }
        Condition::State { node, state } => {
            format!("{{ state = {}, node = \"{node}\" }}", quoted(state))
        }
        Condition::Quorum(wanted) => format!("{{ quorum = {wanted} }}"),
        Condition::Epoch(epoch) => format!("{{ epoch = {epoch} }}"),
        Condition::Writes(count) => format!("{{ writes = {count} }}"),
        Condition::Wire(wish) => {
            let node = |key: &str, node: &Option<String>| {
                node.as_deref()
                    .map_or_else(String::new, |node| format!(", {key} = {}", quoted(node)))
            };
            format!(
                "{{ wire = {}{}{}, nth = {} }}",
                quoted(&wish.message),
                node("from", &wish.from),
                node("to", &wish.to),
                wish.nth
            )
        }
    }
}

fn finale(plan: &Plan) -> String {
    let heal = match &plan.heal {
        Healing::All => "all".to_owned(),
        Healing::RandomCore => "random core quorum".to_owned(),
        Healing::Core(nodes) => format!("core {}", nodes.join(",")),
    };
    let then: Vec<String> = plan
        .then
        .iter()
        .map(|demand| {
            quoted(&match demand {
                Demand::CoreServes(us) => format!("core serves within {}", Unit::Time.render(*us)),
                Demand::AllServe(us) => format!("all serve within {}", Unit::Time.render(*us)),
                Demand::DigestEqual(us) => {
                    format!("digest equal within {}", Unit::Time.render(*us))
                }
                Demand::HealAll => "heal all".to_owned(),
            })
        })
        .collect();
    if then.is_empty() {
        format!("{{ heal = {} }}", quoted(&heal))
    } else {
        format!(
            "{{ heal = {}, then = [{}] }}",
            quoted(&heal),
            then.join(", ")
        )
    }
}

fn expect(expect: &Expect) -> String {
    let mut parts = Vec::new();
    let mut add = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            parts.push(format!("{key} = {value}"));
        }
    };
    add("no_writes_max", expect.no_writes_max.map(time));
    add("p99_max", expect.p99_max.map(time));
    add("sessions_lost", expect.sessions_lost.map(|n| n.to_string()));
    add("epoch_bumps", expect.epoch_bumps.as_ref().map(count));
    add("converge_within", expect.converge_within.map(time));
    add(
        "quorum_regained_within",
        expect.quorum_regained_within.map(time),
    );
    add("ops_min", expect.ops_min.map(|n| n.to_string()));
    add("apache", expect.apache.as_deref().map(self::expect));
    table(&parts)
}

fn count(choice: &Choice) -> String {
    match choice {
        Choice::One(amounts) if amounts.len() == 1 => amounts[0].to_string(),
        Choice::One(amounts) => format!("{amounts:?}"),
        Choice::Between(low, high) => quoted(&format!("{low}..{high}")),
    }
}

fn check(plan: &Plan) -> String {
    let rules = Rule::ALL.into_iter();
    let missing = rules.filter(|rule| !plan.check.rules.contains(rule));
    let mut parts: Vec<String> = missing
        .map(|rule| format!("{} = false", rule_key(rule)))
        .collect();
    if !plan.check.digest {
        parts.push("digest = false".to_owned());
    }
    if !plan.check.logs {
        parts.push("logs = false".to_owned());
    }
    table(&parts)
}

fn table(parts: &[String]) -> String {
    if parts.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", parts.join(", "))
    }
}
