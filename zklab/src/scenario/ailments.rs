//! The words of steps that make disks bad and clocks wrong.

use super::amount::Unit;
use super::words::{Deed, Needs, Options, Wrong, checked_nodes, millis};
use crate::disk::{Flip, Watch};
use crate::supervisor::protocol::{ClockRequest, DiskRequest, Request};
use crate::wall::{self, RATE_MAX};

/// `disk n2 slow-fsync 50ms`, `disk leader fail-fsync eio every 25`, `disk n3 full`, `disk n3 bitflip log`.
pub(super) fn disk(rest: &[&str], options: &Options, count: u8) -> Result<Deed, Wrong> {
    const KEYS: [&str; 5] = ["slow-fsync", "fail-fsync", "every", "full", "bitflip"];
    let hint = "disk n2 slow-fsync 50ms, disk leader fail-fsync eio every 25, disk n3 full, disk n3 bitflip log";
    let (nodes, mut settings) = split(rest, &KEYS, count);
    let (mut slow_us, mut fails, mut every, mut full, mut bitflip) = (0, false, 1, false, None);
    while let Some((key, after)) = settings.split_first() {
        let amount = |unit: Unit, text: &str| unit.parse(text).map_err(Wrong::new);
        settings = after.get(1..).unwrap_or_default();
        match (*key, after) {
            ("full", _) => {
                full = true;
                settings = after;
            }
            ("slow-fsync", [text, ..]) => slow_us = amount(Unit::Time, text)?,
            ("fail-fsync", ["eio", ..]) => fails = true,
            ("fail-fsync", [other, ..]) => return Err(Wrong::unknown("error", other, &["eio"])),
            ("every", [text, ..]) => every = amount(Unit::Count, text)?.max(1),
            ("bitflip", [text, ..]) => {
                let known = Flip::WORDS;
                let flip = text
                    .parse()
                    .map_err(|()| Wrong::unknown("file", text, &known))?;
                bitflip = Some(flip);
            }
            (key, []) if KEYS.contains(&key) => return Err(no_value(key)),
            (other, _) => return Err(Wrong::unknown("disk fault", other, &KEYS)),
        }
    }
    let lasts = slow_us > 0 || fails || full;
    if nodes.is_empty() || lasts == bitflip.is_some() {
        let cause = "a disk fault names a node and what is wrong with its disk";
        return Err(Wrong::new(cause).hint(hint));
    }
    let request = Request::Disk(DiskRequest {
        nodes: checked_nodes(nodes, count)?,
        slow_fsync_ms: millis(slow_us),
        fail_every: if fails { every } else { 0 },
        full,
        bitflip,
        for_ms: options.for_us.map(millis),
    });
    let disks = match (full, lasts) {
        (true, _) => Watch::Writes,
        (false, true) => Watch::Syncs,
        (false, false) => Watch::No,
    };
    Ok(Deed {
        request,
        needs: Needs {
            disks,
            ..Needs::default()
        },
        lasts_us: options.for_us.unwrap_or(0),
    })
}

/// `clock n2 jump +1h`, `clock leader rate 1.2`, `clock n2 freeze`.
pub(super) fn clock(rest: &[&str], options: &Options, count: u8) -> Result<Deed, Wrong> {
    const KEYS: [&str; 4] = ["jump", "rate", "freeze", "reset"];
    let hint = "clock n2 jump +1h, clock leader rate 1.2, clock n2 freeze";
    let (nodes, mut settings) = split(rest, &KEYS, count);
    let (mut jump_us, mut rate, mut reset) = (0, None, false);
    while let Some((key, after)) = settings.split_first() {
        settings = after.get(1..).unwrap_or_default();
        match (*key, after) {
            ("freeze", _) => (rate, settings) = (Some(0.0), after),
            ("reset", _) => (reset, settings) = (true, after),
            ("jump", [text, ..]) => jump_us = wall::jump(text).map_err(Wrong::new)?,
            ("rate", [text, ..]) => {
                let number = text
                    .parse()
                    .ok()
                    .filter(|rate| (0.0..=RATE_MAX).contains(rate));
                rate = Some(number.ok_or_else(|| {
                    Wrong::new(format!("{text:?} is not a rate between 0 and {RATE_MAX}"))
                })?);
            }
            (key, []) if KEYS.contains(&key) => return Err(no_value(key)),
            (other, _) => return Err(Wrong::unknown("clock fault", other, &KEYS)),
        }
    }
    if nodes.is_empty() || (jump_us != 0 || rate.is_some()) == reset {
        let cause = "a clock fault names a node and what its clock shows";
        return Err(Wrong::new(cause).hint(hint));
    }
    Ok(Deed {
        request: Request::Clock(ClockRequest {
            nodes: checked_nodes(nodes, count)?,
            jump_us,
            rate: rate.unwrap_or(1.0),
            reset,
            for_ms: options.for_us.map(millis),
        }),
        needs: Needs {
            clocks: true,
            ..Needs::default()
        },
        lasts_us: options.for_us.unwrap_or(0),
    })
}

/// The nodes, and what is said of them: from the first key on, or from what is behind a node and none itself.
fn split<'a, 'b>(words: &'a [&'b str], keys: &[&str], count: u8) -> (&'a [&'b str], &'a [&'b str]) {
    let mut places = words.iter().enumerate();
    let first = places.position(|(place, word)| {
        keys.contains(word) || place > 0 && checked_nodes(&[*word], count).is_err()
    });
    words.split_at(first.unwrap_or(words.len()))
}

fn no_value(key: &str) -> Wrong {
    Wrong::new(format!("{key:?} has no value"))
}

#[cfg(test)]
mod tests {
    use super::super::words::parse;
    use super::*;

    #[test]
    fn disks_and_clocks_are_understood() {
        let none = Options::default();
        let deed = parse("disk n2 slow-fsync 50ms full", &none, 3).unwrap();
        assert_eq!(deed.needs.disks, Watch::Writes);
        let Request::Disk(disk) = deed.request else {
            panic!()
        };
        assert!(disk.full && disk.slow_fsync_ms == 50 && disk.bitflip.is_none());
        let deed = parse("disk n2 bitflip snapshot", &none, 3).unwrap();
        assert_eq!(deed.needs, Needs::default());
        let deed = parse("clock leader n3 jump -1h rate 1.5 for 2s", &none, 3).unwrap();
        assert!(deed.needs.clocks && deed.lasts_us == 2_000_000);
        let Request::Clock(clock) = deed.request else {
            panic!()
        };
        let asked = ClockRequest {
            nodes: vec!["leader".to_owned(), "n3".to_owned()],
            jump_us: -3_600_000_000,
            rate: 1.5,
            reset: false,
            for_ms: Some(2000),
        };
        assert_eq!(clock, asked);
    }

    #[test]
    fn what_is_wrong_with_them_is_said() {
        let cause = |text| parse(text, &Options::default(), 3).unwrap_err().cause;
        for (text, said) in [
            ("clock n2 jum +1h", "did you mean jump?"),
            ("clock n2 jump 1h", "is not a jump such as +1h"),
            ("clock n2 jump", "\"jump\" has no value"),
            ("clock n2 rate -1", "is not a rate between 0 and 1000"),
            ("clock n9 freeze", "unknown node \"n9\""),
            ("clock n2", "names a node and what its clock shows"),
            ("clock freeze", "names a node and what its clock shows"),
            (
                "clock n2 freeze reset",
                "names a node and what its clock shows",
            ),
            ("disk n2 ful", "did you mean full?"),
            ("disk n2 bitflip logs", "did you mean log?"),
            ("disk n2 full bitflip log", "names a node and what is wrong"),
            ("disk n2 every", "\"every\" has no value"),
        ] {
            assert!(cause(text).contains(said), "{text}: {}", cause(text));
        }
    }
}
