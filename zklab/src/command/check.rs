//! `check`: judge a recorded history, or compare the logs of servers that are down.

use super::Context;
use crate::cli::CheckArgs;
use crate::clock::{ms, now_us};
use crate::failure::{Exit, Failure, nearest};
use crate::observe::check::{Rule, judge};
use crate::observe::history::History;
use crate::observe::logs;
use crate::report::history as report;

pub(super) fn run(context: &Context, args: &CheckArgs) -> Result<Exit, Failure> {
    let rules = chosen(&args.only)?;
    let mut clean = true;
    if let Some(path) = &args.history {
        let begun = now_us();
        let history = History::open(path)?;
        if history.ops.is_empty() {
            let cause = format!("{} has no operations: nothing can be said", path.display());
            return Err(Failure::new(Exit::Inconclusive, cause));
        }
        let verdict = judge(&history, &rules);
        let took = ms(now_us() - begun);
        let name = path.display().to_string();
        report::judged(&context.out, &name, history.ops.len(), took, &verdict);
        clean &= verdict.is_clean();
    }
    if !args.data.is_empty() {
        let dirs = args.data.iter();
        let named: Vec<_> = dirs.map(|dir| (dir.display().to_string(), dir)).collect();
        let verdict = logs::compare(&named)?;
        report::logs(&context.out, &verdict);
        clean &= verdict.violation.is_none();
    }
    Ok(if clean { Exit::Ok } else { Exit::Bug })
}

/// The rules that are meant; the beginning of a name is enough.
fn chosen(words: &[String]) -> Result<Vec<Rule>, Failure> {
    if words.is_empty() {
        return Ok(Rule::ALL.to_vec());
    }
    let mut rules = Vec::new();
    for word in words {
        let found = Rule::ALL
            .into_iter()
            .filter(|rule| rule.name().starts_with(word.as_str()));
        let exact = Rule::ALL.into_iter().find(|rule| rule.name() == word);
        let found: Vec<Rule> = exact.map_or_else(|| found.collect(), |rule| vec![rule]);
        let [rule] = found[..] else {
            let names = Rule::ALL.map(Rule::name);
            let guess = nearest(word, names)
                .map(|name| format!("; did you mean {name}?"))
                .unwrap_or_default();
            let failure = Failure::usage(format!("{word:?} is not one rule{guess}"));
            return Err(failure.hint(format!("one of {}", names.join(" "))));
        };
        rules.push(rule);
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_the_beginning_of_their_name() {
        let of =
            |words: &[&str]| chosen(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(
            of(&["zxid", "watch"]),
            Ok(vec![Rule::ZxidOrder, Rule::Watches])
        );
        assert_eq!(of(&["sync"]), Ok(vec![Rule::Sync]));
        assert_eq!(of(&[]).unwrap().len(), Rule::ALL.len());
        assert!(of(&["s"]).is_err(), "more than one");
        assert!(
            of(&["wathces"])
                .unwrap_err()
                .cause
                .contains("did you mean watches")
        );
    }
}
