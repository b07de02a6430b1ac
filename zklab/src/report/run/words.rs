//! Rules and expectations in the words of somebody who has never read their names.

/// A rule: what the server promises, and what it means that the promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The promise.
    pub(super) promise: &'static str,
    /// What breaks it, as experience has it.
    pub(super) cause: &'static str,
}

/// What a rule means; `None` for one that is not known here.
#[must_use]
pub(super) fn meaning(rule: &str) -> Option<Meaning> {
    let (promise, cause) = match rule {
        "zxid-order" => (
            "Writes have one order, the order of their zxids, and it agrees with real time: whoever asks after a write \
             was acknowledged sees it ordered before his own, and no two writes share a zxid.",
            "Usually two leaders ordered writes at once, a server served before it had caught up, or a write was \
             acknowledged without a quorum.",
        ),
        "acked-writes" => (
            "A write that a client was told is done is never lost, and is there once.",
            "Usually a server acknowledged a write before it was safe on disk, a new leader had missed it, or a log \
             was cut at the wrong place.",
        ),
        "reads" => (
            "A read shows exactly the state that its zxid stands for.",
            "Usually a server skipped or doubled a write when it caught up, or applied half of one.",
        ),
        "session-fifo" => (
            "A session gets its answers in the order of its requests, and never sees an older state after a newer one, \
             whichever server it is connected with.",
            "Usually a server let a session in although it had not yet caught up with what the session had seen.",
        ),
        "sync" => (
            "A read after a sync shows everything that anybody had been told was done before the sync.",
            "Usually a sync was answered without asking the leader, or by a leader that was none any more.",
        ),
        "watches" => (
            "A watch fires once, for the first change after it was left, and before any answer that shows the change.",
            "Usually a watch was lost when its session moved to another server, or fired too late or twice.",
        ),
        "ephemerals" => (
            "An ephemeral znode lives exactly as long as the session that made it.",
            "Usually the end of a session did not delete what it owned, or deleted what it did not own.",
        ),
        "sequences" => (
            "The numbers of sequential znodes are unique and rise.",
            "Usually a parent's counter was lost when a server restarted or caught up.",
        ),
        "multi" => (
            "The operations of a multi happen all together or not at all.",
            "Usually a server applied part of it, or rolled back less than it had done.",
        ),
        "digest" | "divergence" | "convergence" => (
            "All servers hold the same tree at the same zxid.",
            "Usually a server missed, doubled or changed a write when it caught up with the leader.",
        ),
        "logs" => (
            "Wherever two servers have a txn with the same zxid on their disks, it is the same txn.",
            "Usually a server had acknowledged what was not yet safe on its disk and lost it in a crash, or kept what it \
             should have cut off when it joined a new leader.",
        ),
        "split-brain" | "split" => (
            "There is never more than one leader that acknowledges writes.",
            "Usually an old leader went on although a quorum had left it.",
        ),
        _ => return None,
    };
    Some(Meaning { promise, cause })
}

/// An expectation's name as a sentence would say it: `no_writes_max` is `longest time without a write`.
#[must_use]
pub(super) fn expectation(name: &str) -> String {
    match name {
        "no_writes_max" => "longest time without an acknowledged write".to_owned(),
        "sessions_lost" => "sessions lost".to_owned(),
        "epoch_bumps" => "new epochs".to_owned(),
        "converge_within" => "all servers equal again within".to_owned(),
        "quorum_regained_within" => "a quorum serves again within".to_owned(),
        other => other.replace('_', " "),
    }
}

/// An amount as people read it: `1219300us` is `1.22 s`; anything else stays.
#[must_use]
pub(super) fn amount(text: &str) -> String {
    let words: Vec<String> = text
        .split(' ')
        .map(|word| {
            let us = word.strip_suffix("us").and_then(|us| us.parse().ok());
            us.map_or_else(|| word.to_owned(), length)
        })
        .collect();
    words.join(" ")
}

/// Microseconds as people read a length: `310 µs`, `16.7 ms`, `2.04 s`.
#[must_use]
pub(super) fn length(us: u64) -> String {
    let ms = us as f64 / 1e3;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..100_000 => format!("{ms:.1} ms"),
        100_000..1_000_000 => format!("{ms:.0} ms"),
        _ => format!("{:.2} s", ms / 1e3),
    }
}

/// Microseconds as people read a moment: `4.118 s`.
#[must_use]
pub(super) fn moment(us: u64) -> String {
    format!("{:.3} s", us as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::amount;

    #[test]
    fn amounts_have_units_that_people_use() {
        assert_eq!(amount("1219300us"), "1.22 s");
        assert_eq!(amount("at most 800us"), "at most 800 µs");
        assert_eq!(amount("at most 4s"), "at most 4s");
        assert_eq!(amount("focus"), "focus");
    }
}
