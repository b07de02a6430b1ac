//! Making a plan that fails small: fewest steps first, then nodes, then load.
//!
//! Real processes do not fail every time, so "still fails" is asked several times; what it means is the caller's.

use super::file::Healing;
use super::plan::{Anchor, Plan, Step};
use crate::observe::load::Via;

/// What can be made smaller, and how far it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// The smallest plan that still failed.
    pub plan: Plan,
    /// How many plans were tried.
    pub tried: u32,
}

/// Makes `plan` smaller as long as `fails` says that the smaller one fails too; `None` is no time left.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> Option<bool>) -> Shrunk {
    let mut shrunk = Shrunk {
        plan: plan.clone(),
        tried: 0,
    };
    // `Some(true)` took the smaller plan; `None` ends everything.
    let mut attempt = |shrunk: &mut Shrunk, smaller: Plan| -> Option<bool> {
        if smaller == shrunk.plan || !is_sound(&smaller) {
            return Some(false);
        }
        shrunk.tried += 1;
        let failed = fails(&smaller)?;
        if failed {
            shrunk.plan = smaller;
        }
        Some(failed)
    };
    // Giving up early leaves what was found so far.
    let _ = steps(&mut shrunk, &mut attempt)
        .and_then(|()| nodes(&mut shrunk, &mut attempt))
        .and_then(|()| load(&mut shrunk, &mut attempt));
    shrunk
}

/// Every node that a step names is there.
fn is_sound(plan: &Plan) -> bool {
    plan.steps
        .iter()
        .all(|step| step.deed(plan.total()).is_ok())
}

type Attempt<'a> = dyn FnMut(&mut Shrunk, Plan) -> Option<bool> + 'a;

/// Leaves out steps: half of them, quarters, and in the end one at a time (delta debugging).
fn steps(shrunk: &mut Shrunk, attempt: &mut Attempt<'_>) -> Option<()> {
    let mut size = shrunk.plan.steps.len().div_ceil(2);
    while size > 0 && !shrunk.plan.steps.is_empty() {
        let mut at = 0;
        let mut took = false;
        while at < shrunk.plan.steps.len() {
            let gone = at..(at + size).min(shrunk.plan.steps.len());
            let smaller = without(&shrunk.plan, gone);
            if attempt(shrunk, smaller)? {
                took = true;
            } else {
                at += size;
            }
        }
        if size == 1 && !took {
            break;
        }
        size = if size == 1 { 1 } else { size / 2 };
    }
    Some(())
}

/// The plan without these steps. Whoever waited for one of them begins when it would have begun.
fn without(plan: &Plan, gone: std::ops::Range<usize>) -> Plan {
    let mut smaller = plan.clone();
    let removed: Vec<Step> = smaller.steps.drain(gone).collect();
    for step in &mut smaller.steps {
        while let Some(Anchor::Step(id, later)) = step.after.clone() {
            let Some(missing) = removed.iter().find(|other| other.id == id) else {
                break;
            };
            step.after = match &missing.after {
                Some(Anchor::Step(id, more)) => Some(Anchor::Step(id.clone(), later + more)),
                Some(Anchor::Event(kind, more)) => Some(Anchor::Event(kind.clone(), later + more)),
                None => {
                    let at = missing.at_us.unwrap_or(0) + later;
                    step.at_us = Some(step.at_us.unwrap_or(0).max(at));
                    None
                }
            };
        }
    }
    smaller
}

/// Fewer nodes.
fn nodes(shrunk: &mut Shrunk, attempt: &mut Attempt<'_>) -> Option<()> {
    if shrunk.plan.observers > 0 {
        let mut smaller = shrunk.plan.clone();
        smaller.observers = 0;
        attempt(shrunk, smaller)?;
    }
    for count in [1, 3, 5, 7, 9] {
        if count >= shrunk.plan.nodes {
            break;
        }
        let mut smaller = shrunk.plan.clone();
        smaller.nodes = count;
        if let Healing::Core(_) = smaller.heal {
            let core = 1..=count / 2 + 1;
            smaller.heal = Healing::Core(core.map(|number| format!("n{number}")).collect());
        }
        if attempt(shrunk, smaller)? {
            break;
        }
    }
    Some(())
}

/// Fewer clients, a lower rate, a shorter time: halves, as long as it goes.
fn load(shrunk: &mut Shrunk, attempt: &mut Attempt<'_>) -> Option<()> {
    // One kind of client is easier to follow than two.
    let foreign = shrunk.plan.via.foreign(shrunk.plan.clients);
    if (1..shrunk.plan.clients).contains(&foreign) {
        for via in [Via::Own, Via::Crate] {
            let mut simpler = shrunk.plan.clone();
            simpler.via = via;
            if attempt(shrunk, simpler)? {
                break;
            }
        }
    }
    let halves: [fn(&mut Plan); 3] = [
        |plan| plan.duration_us /= 2,
        |plan| plan.clients = (plan.clients / 2).max(1),
        |plan| plan.rate = (plan.rate / 2).max(10),
    ];
    for halve in halves {
        loop {
            let mut smaller = shrunk.plan.clone();
            halve(&mut smaller);
            // A time in which nothing happens any more is not worth a try.
            if smaller == shrunk.plan || !attempt(shrunk, smaller)? {
                break;
            }
            if shrunk.plan.duration_us < 10_000 {
                shrunk.plan.duration_us = 0;
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::supervisor::protocol::HexSeed;

    fn plan() -> Plan {
        let text = r#"
name = "x"
duration = "3s"
lab = { nodes = 7, observers = 2 }
load = { clients = 16, rate = 4000 }
final = { heal = "core n3,n4,n6,n7" }
step = [
  { id = "a", at = "100ms", do = "kill leader" },
  { id = "b", after = "a+200ms", do = "start all" },
  { id = "c", after = "b+300ms", do = "isolate n3", for = "100ms" },
  { id = "d", at = "700ms", do = "pause n1", for = "100ms" },
  { id = "e", after = "c", do = "kill n2" },
  { id = "f", do = "heal" },
]
"#;
        Plan::of(&Scenario::parse("x.toml", text).unwrap(), HexSeed(1)).unwrap()
    }

    #[test]
    fn what_does_not_matter_goes_and_what_matters_stays() {
        let has = |plan: &Plan, id: &str| plan.steps.iter().any(|step| step.id == id);
        let found = shrink(&plan(), |plan| Some(has(plan, "c") && has(plan, "e")));
        let ids: Vec<&str> = found.plan.steps.iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["c", "e"]);
        // c begins when it would have begun, and n3 has to be there.
        assert_eq!(found.plan.steps[0].at_us, Some(600_000));
        assert_eq!(
            found.plan.steps[1].after,
            Some(Anchor::Step("c".to_owned(), 0))
        );
        assert_eq!((found.plan.nodes, found.plan.observers), (3, 0));
        assert_eq!((found.plan.clients, found.plan.rate), (1, 10));
        assert_eq!(found.plan.duration_us, 0);
        // What is written down can be read again.
        Scenario::parse("shrunk.toml", &found.plan.to_toml()).unwrap();
    }

    #[test]
    fn without_time_it_stays_as_it_is_and_nothing_is_lost() {
        let mut left = 3;
        let found = shrink(&plan(), |_| {
            left -= 1;
            (left > 0).then_some(false)
        });
        assert_eq!(found.plan, plan());
        assert_eq!(found.tried, 3);
    }
}
