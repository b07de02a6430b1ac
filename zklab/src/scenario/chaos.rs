//! Scenarios without a file: random faults of the wanted kinds, as wild as is wanted.

use super::amount::Unit;
use super::file::Scenario;
use crate::failure::{Failure, nearest};

/// What random faults there may be.
#[derive(Clone, Debug, PartialEq)]
pub struct Chaos {
    /// Voters.
    pub nodes: u8,
    /// Kinds: see [`KINDS`].
    pub faults: Vec<String>,
    /// From 0, a fault now and then, to 1, one upon the other.
    pub intensity: f64,
    /// How long one round goes on, in microseconds.
    pub round_us: u64,
}

/// Kinds of random faults.
pub const KINDS: [&str; 4] = ["net", "proc", "disk", "clock"];

impl Chaos {
    /// As a scenario.
    ///
    /// # Errors
    /// If a kind is unknown.
    pub fn scenario(&self) -> Result<Scenario, Failure> {
        Scenario::parse("chaos", &self.toml()?)
    }

    /// As the text of a scenario.
    fn toml(&self) -> Result<String, Failure> {
        let mut faults = Vec::new();
        for kind in &self.faults {
            faults.push(match kind.as_str() {
                "net" => NET,
                "proc" => PROC,
                "disk" => DISK,
                "clock" => CLOCK,
                other => {
                    let guess = nearest(other, KINDS)
                        .map(|near| format!("; did you mean {near}?"))
                        .unwrap_or_default();
                    let cause = format!("unknown kind of fault {other:?}{guess}");
                    return Err(Failure::usage(cause).hint(format!("one of {}", KINDS.join(", "))));
                }
            });
        }
        // From about one and a half seconds down to 60 ms between two faults.
        let calm = 1.0 - self.intensity.clamp(0.0, 1.0);
        let slowest = 60.0 + calm * 1_440.0;
        let pace = format!("{}ms..{}ms", (slowest / 3.0) as u64, slowest as u64);
        Ok(format!(
            "name = \"chaos\"\nduration = \"{}\"\npace = \"{pace}\"\n\
             lab = {{ nodes = {} }}\nload = {{ clients = [2, 8], rate = [200, 1000] }}\n\
             fault = [\n{}]\n\
             final = {{ heal = \"random core quorum\", then = [\"core serves within 10s\", \"heal all\", \"digest equal within 10s\"] }}\n",
            Unit::Time.render(self.round_us),
            self.nodes,
            faults.concat(),
        ))
    }
}

const NET: &str = r#"  { kind = "partition", do = ["halves", "isolate leader", "isolate", "bridge", "ring", "one-way", "majority", "minority"], style = ["drop", "jam"], weight = 4 },
  { kind = "link", delay = "0..40ms", jitter = "0..10ms", loss = "0..5%", dup = "0..2%", reorder = "0..5%", weight = 2 },
"#;
const PROC: &str = r#"  { kind = "process", do = ["kill", "pause"], weight = 3, max_down = "minority" },
"#;
/// A sync that fails ends a server, and nothing would start it again before the end: so syncs are slow only.
const DISK: &str = r#"  { kind = "disk", do = ["slow-fsync 20ms", "slow-fsync 80ms"], weight = 1 },
"#;
const CLOCK: &str = r#"  { kind = "clock", do = ["jump +1h", "jump -1h", "jump -1h rate 1.2", "rate 10", "freeze"], weight = 1 },
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Plan;
    use crate::supervisor::protocol::HexSeed;

    fn chaos(faults: &[&str], intensity: f64) -> Chaos {
        Chaos {
            nodes: 5,
            faults: faults.iter().map(|kind| (*kind).to_owned()).collect(),
            intensity,
            round_us: 4_000_000,
        }
    }

    #[test]
    fn more_intensity_is_more_faults_and_only_of_the_wanted_kinds() {
        let count = |intensity| {
            let scenario = chaos(&KINDS, intensity).scenario().unwrap();
            (0..20)
                .map(|seed| Plan::of(&scenario, HexSeed(seed)).unwrap().steps.len())
                .sum::<usize>()
        };
        assert!(count(0.0) < count(0.5) && count(0.5) < count(1.0));
        let calm = chaos(&["proc"], 0.5).scenario().unwrap();
        assert!(Plan::of(&calm, HexSeed(1)).unwrap().needs_links().is_none());
        let wrong = chaos(&["nett"], 0.5).scenario().unwrap_err();
        assert!(wrong.cause.contains("did you mean net?"), "{wrong}");
    }
}
