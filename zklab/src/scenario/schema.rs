//! The format of scenario files as a JSON Schema, for editors; and a file to begin with.

use serde_json::{Value, json};

use super::condition::EVENTS;
use super::expect::rule_key;
use super::file::{FAULT_KINDS, KEYS, LOAD_KEYS, STEP_KEYS};
use crate::observe::check::Rule;
use crate::observe::load::Via;

/// A scenario to begin with.
pub const TEMPLATE: &str = include_str!("template.toml");

/// The schema.
#[must_use]
pub fn schema() -> Value {
    let time = json!({ "type": ["string", "array"], "description": "\"250ms\", a range \"1s..2s\", or a list of which the seed picks one" });
    let count = json!({ "type": ["integer", "string", "array"], "description": "5, a range \"2..5\", or a list of which the seed picks one" });
    let chance = json!({ "type": ["string", "number", "array"], "description": "\"1%\" or a range \"0..5%\"" });
    let words = json!({ "type": ["string", "array"] });
    let table = |properties: Value| json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let mut step = table(json!({
        "id": { "type": "string" },
        "do": { "type": ["string", "array"], "description": "the words of the command: \"kill leader\", \"isolate n2\", \"link n1:n2 delay 20ms\"" },
        "as": words, "style": words, "for": time, "restart_after": time, "at": time,
        "after": { "type": "string", "description": "another step or an event, \"kill+500ms\"; events: ".to_owned() + &EVENTS.join(" ") },
        "when": table(json!({
            "event": { "enum": EVENTS }, "node": { "type": "string" }, "nth": { "type": "integer" },
            "state": { "type": "string" }, "quorum": { "type": "boolean" }, "epoch": { "type": "integer" },
            "writes": { "type": "integer" }, "wire": { "type": "string" }, "from": { "type": "string" },
            "to": { "type": "string" }, "zxid_count": { "type": "integer" },
        })),
        "repeat": count, "every": time, "optional": { "type": "boolean" },
        "lose_unsynced": { "type": "boolean" }, "torn": { "type": "boolean" },
        "from": words, "to": words, "nth": { "type": "integer" }, "count": { "type": "integer" }, "zxid": words,
    }));
    step["required"] = json!(["do"]);
    let mut fault = table(json!({
        "kind": { "enum": FAULT_KINDS }, "do": words, "style": words, "as": words, "on": words,
        "weight": { "type": "integer" }, "hold": time, "max_down": { "enum": ["minority", "all"] },
        "delay": time, "jitter": time, "loss": chance, "dup": chance, "reorder": chance, "corrupt": chance,
    }));
    fault["required"] = json!(["kind"]);
    let expect = json!({
        "no_writes_max": time, "p99_max": time, "sessions_lost": { "type": "integer" }, "epoch_bumps": count,
        "converge_within": time, "quorum_regained_within": time, "ops_min": { "type": "integer" },
    });
    let mut with_apache = expect.clone();
    with_apache["apache"] = table(expect);
    let mut check = json!({
        "sessions": { "type": "boolean" }, "logs": { "type": "boolean" },
        "digest": { "enum": [true, false, "every-zxid"] },
    });
    for rule in Rule::ALL {
        check[rule_key(rule)] = json!({ "type": "boolean" });
    }
    let mut top = table(json!({
        "v": { "type": "integer" },
        "name": { "type": "string", "description": "what it is called in reports" },
        "about": { "type": "string" },
        "seeds": { "type": "integer", "description": "how many seeds a run takes" },
        "duration": time, "pace": time,
        "lab": table(json!({ "nodes": count, "observers": count, "tick": time, "net": { "type": "string" }, "data": words, "profile": words })),
        "load": table(json!({ "clients": count, "via": via(), "rate": count, "mix": { "type": ["string", "object"] }, "session_timeout": time })),
        "step": { "type": "array", "items": step },
        "fault": { "type": "array", "items": fault },
        "final": table(json!({ "heal": { "type": "string" }, "then": words })),
        "expect": table(with_apache),
        "check": table(check),
    }));
    top["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    top["title"] = json!("a zklab scenario");
    top["required"] = json!(["name"]);
    debug_assert!(
        KEYS.iter().all(|key| !top["properties"][*key].is_null())
            && STEP_KEYS
                .iter()
                .all(|key| { !top["properties"]["step"]["items"]["properties"][*key].is_null() })
            && LOAD_KEYS
                .iter()
                .all(|key| !top["properties"]["load"]["properties"][*key].is_null())
    );
    top
}

fn via() -> Value {
    let word = json!({ "enum": Via::words() });
    json!({
        "anyOf": [word, { "type": "array", "items": word }],
        "description": "whose client speaks: the lab's own, the zookeeper-client crate, or both (one in four the crate)",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Plan, Scenario};
    use crate::supervisor::protocol::HexSeed;

    #[test]
    fn the_schema_knows_every_key_and_no_other() {
        let schema = schema();
        let keys = |value: &Value| -> Vec<String> {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        let sorted = |known: &[&str]| {
            let mut known: Vec<String> = known.iter().map(|key| (*key).to_owned()).collect();
            known.sort();
            known
        };
        let top = &schema["properties"];
        assert_eq!(keys(top), sorted(&KEYS));
        assert_eq!(
            keys(&top["step"]["items"]["properties"]),
            sorted(&STEP_KEYS)
        );
        assert_eq!(keys(&top["load"]["properties"]), sorted(&LOAD_KEYS));
    }

    #[test]
    fn the_template_is_a_good_scenario() {
        let scenario = Scenario::parse("new.toml", TEMPLATE).unwrap();
        assert!(Plan::of(&scenario, HexSeed(1)).is_ok());
    }
}
