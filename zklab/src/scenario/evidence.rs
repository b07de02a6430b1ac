//! What a run that failed keeps besides its events: the way of the writes that its verdict speaks of.

use std::collections::BTreeSet;

use serde_json::json;

use super::folder::Folder;
use super::record::Check;
use super::stage::Stage;
use crate::event::{HexZxid, LabEvent, LabEventKind};
use crate::failure::Failure;
use crate::id::NodeId;
use crate::supervisor::protocol::{FlowReport, FlowRequest, Request};

/// Writes `wire.ndjson`: what the servers said of the writes that the broken checks speak of, and how far each server was
/// whenever it ended. Where nothing is read off the wire there is none.
///
/// # Errors
/// If the disk refuses.
pub(super) async fn wire(
    stage: &Stage,
    folder: &Folder,
    checks: &[Check],
    events: &[LabEvent],
) -> Result<(), Failure> {
    let zxids = zxids(checks);
    if zxids.is_empty() {
        return Ok(());
    }
    let request = FlowRequest {
        zxids,
        marks: ends(events),
    };
    // The verdict stands without it.
    let Ok(report) = stage.lab.ask::<FlowReport>(Request::Flow(request)).await else {
        return Ok(());
    };
    let Some(scope) = report.scope else {
        return Ok(());
    };
    let marks = report.marks.iter().map(|mark| json!(mark));
    let messages = report.messages.iter().map(|message| json!(message));
    let lines = std::iter::once(json!(scope)).chain(marks).chain(messages);
    folder.lines("wire.ndjson", lines)
}

/// The zxids in what was broken: in its sentence, and in the operations that prove it.
fn zxids(checks: &[Check]) -> Vec<HexZxid> {
    let mut found: BTreeSet<HexZxid> = BTreeSet::new();
    for check in checks.iter().filter(|check| check.verdict == "fail") {
        found.extend(HexZxid::all_in(&check.message));
        let proofs = check.witness.iter();
        found.extend(proofs.filter_map(|line| HexZxid::parse(line["z"].as_str()?)));
    }
    found.retain(|zxid| zxid.0 > 0);
    found.into_iter().collect()
}

/// Who ended when.
fn ends(events: &[LabEvent]) -> Vec<(NodeId, u64)> {
    let ended = |event: &&LabEvent| matches!(event.kind, LabEventKind::NodeExited { .. });
    let exits = events.iter().filter(ended);
    exits
        .filter_map(|event| Some((event.node?, event.t_us)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_writes_that_a_verdict_speaks_of_are_asked_for() {
        let check = |verdict: &str, message: &str, witness: Vec<Value>| Check {
            rule: "acked-writes".to_owned(),
            verdict: verdict.to_owned(),
            count: 1,
            ms: 0.0,
            message: message.to_owned(),
            witness,
        };
        let checks = [
            check("pass", "equal at 0x9", Vec::new()),
            check(
                "fail",
                "/r/1 got version 5 at 0x300000013, after version 5",
                vec![json!({"k": "op", "z": "0x200000040"}), json!({"k": "op"})],
            ),
        ];
        let zxids: Vec<String> = zxids(&checks).iter().map(ToString::to_string).collect();
        assert_eq!(zxids, ["0x200000040", "0x300000013"]);
    }
}
