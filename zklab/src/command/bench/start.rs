//! Ensembles that are started: how long to the first acknowledged write, and how much memory they have at rest.

use std::thread;
use std::time::Duration;

use super::subject::{Origin, Subject};
use crate::bench::Usage;
use crate::cli::bench::BenchArgs;
use crate::command::Context;
use crate::failure::Failure;
use crate::report::bench::{Kind, Report, Round, Side, Unit};
use crate::report::progress::Progress;

/// Ensembles of so many servers, if none is asked for.
const USUAL: [u8; 3] = [1, 3, 5];
/// How long servers rest before their memory is read.
const REST: Duration = Duration::from_secs(1);

pub(super) fn measure(
    context: &Context,
    args: &BenchArgs,
    origins: &[Origin],
) -> Result<Report, Failure> {
    let sizes = args.nodes.map_or(USUAL.to_vec(), |nodes| vec![nodes]);
    let mut sides: Vec<Side> = origins
        .iter()
        .map(|origin| Side::new(&origin.name()))
        .collect();
    for round in 0..args.rounds {
        for (number, (origin, side)) in origins.iter().zip(&mut sides).enumerate() {
            let doing = format!("{}, round {} of {}", side.name, round + 1, args.rounds);
            let _progress = Progress::start(&context.out, &doing);
            let mut measured = Round::default();
            for nodes in &sizes {
                let subject = Subject::new(context, args, origin, *nodes, number)?;
                side.name.clone_from(&subject.name);
                measured.put(
                    &format!("first_write_{nodes}"),
                    subject.first_write_ms * 1e3,
                );
                // What a server needed to start is given back only after a while; there is no event for that.
                thread::sleep(REST);
                let memory = Usage::of(&subject.pids).resident / u64::from(*nodes);
                measured.put(&format!("memory_{nodes}"), memory as f64);
                subject.end()?;
            }
            side.rounds.push(measured);
        }
    }
    let notes = vec![
        "Time counts from the command that starts all servers at once, with empty directories, until a session at the \
         leader has a write acknowledged and every server serves clients. Memory is what one server has resident one \
         second later."
            .to_owned(),
    ];
    Ok(Report::new(args.describe(), notes, kinds(&sizes), sides))
}

fn kinds(sizes: &[u8]) -> Vec<Kind> {
    let servers = |nodes: u8| match nodes {
        1 => "1 server".to_owned(),
        nodes => format!("{nodes} servers"),
    };
    let starts = sizes.iter().map(|nodes| {
        Kind::new(
            &format!("first_write_{nodes}"),
            &servers(*nodes).to_uppercase(),
            &format!("{} to the first write", servers(*nodes)),
            Unit::Micros,
        )
    });
    let memories = sizes.iter().map(|nodes| {
        Kind::new(
            &format!("memory_{nodes}"),
            &format!("MEMORY, {nodes}"),
            &format!("resident memory of one idle server of {nodes}"),
            Unit::Bytes,
        )
    });
    starts.chain(memories).collect()
}
