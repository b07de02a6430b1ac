//! `bench`: makes ensembles, measures them in turn, compares.

mod catch_up;
mod election;
mod load;
mod processes;
mod start;
mod subject;
mod tree;

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

pub(super) use self::processes::{PART, part};
use self::subject::{Origin, Subject};
use super::Context;
use crate::bench::{Bystanders, Seen};
use crate::cli::bench::{BenchArgs, Mode};
use crate::failure::{Context as _, Exit, Failure};
use crate::report::bench::{Kind, Report, Round, Side, Unit, page, pictures};
use crate::report::progress::Progress;
use crate::report::run::write;

/// Open files that are no connections of clients: logs, ports, the lab's own.
const FILES_BESIDE: u64 = 512;

pub(super) fn run(context: &mut Context, args: &BenchArgs) -> Result<Exit, Failure> {
    let origins = Origin::all(args)?;
    if args.mode != Mode::Idle {
        make_room(u64::from(args.clients))?;
    }
    let report = match args.mode {
        Mode::Start => start::measure(context, args, &origins),
        Mode::Election => measured(context, args, &origins, election::measure),
        Mode::Tree => measured(context, args, &origins, tree::measure),
        Mode::CatchUp => measured(context, args, &origins, catch_up::measure),
        _ => measured(context, args, &origins, load::measure),
    }?;
    if let Some(file) = &args.html {
        write(file, &page(&report))?;
    }
    if let Some(dir) = &args.svg {
        draw(&report, dir)?;
    }
    report.show(&context.out);
    Ok(report.exit())
}

/// The plots, each as a file.
fn draw(report: &Report, dir: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).doing(|| format!("cannot make {}", dir.display()))?;
    for picture in pictures(report) {
        write(&dir.join(format!("{}.svg", picture.name)), &picture.svg)?;
    }
    Ok(())
}

/// Brings up everything that is compared, lets `measure` do its work, and ends it, however that came out.
fn measured(
    context: &Context,
    args: &BenchArgs,
    origins: &[Origin],
    measure: fn(&Context, &BenchArgs, &mut [Subject]) -> Result<Report, Failure>,
) -> Result<Report, Failure> {
    let mut subjects = Vec::new();
    let report = bring_up(context, args, origins, &mut subjects)
        .and_then(|()| measure(context, args, &mut subjects));
    for subject in subjects {
        // What was measured counts, even if a lab does not end well; `ls` shows it.
        let _ = subject.end();
    }
    report
}

/// Whatever is up already is in `into` even if something fails.
fn bring_up(
    context: &Context,
    args: &BenchArgs,
    origins: &[Origin],
    into: &mut Vec<Subject>,
) -> Result<(), Failure> {
    for (number, origin) in origins.iter().enumerate() {
        into.push(Subject::new(context, args, origin, args.nodes(), number)?);
    }
    if let [first, second] = into.as_mut_slice()
        && first.name == second.name
    {
        first.name.push_str(", first");
        second.name.push_str(", second");
    }
    Ok(())
}

/// All rounds, one subject after the other in each.
///
/// # Errors
/// As [`take_turns`].
fn in_turn(
    context: &Context,
    args: &BenchArgs,
    subjects: &mut [Subject],
    mut one: impl FnMut(&mut Subject, u32, &mut Round) -> Result<(), Failure>,
) -> Result<Vec<Side>, Failure> {
    let names = subjects.iter().map(|subject| subject.name.as_str());
    let mut sides: Vec<Side> = names.map(Side::new).collect();
    take_turns(
        subjects,
        &mut sides,
        args.rounds,
        |subject, round, measured| {
            let doing = format!("{}, round {} of {}", subject.name, round + 1, args.rounds);
            let _progress = Progress::start(&context.out, &doing);
            one(subject, round, measured)
        },
    )?;
    Ok(sides)
}

/// Measures round by round. One that cannot be measured further keeps the figures that it has and takes no part any more:
/// the others are measured all the same.
///
/// # Errors
/// If none is left.
fn take_turns<S>(
    subjects: &mut [S],
    sides: &mut [Side],
    rounds: u32,
    mut one: impl FnMut(&mut S, u32, &mut Round) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut first_failure = None;
    for round in 0..rounds {
        for (subject, side) in subjects.iter_mut().zip(&mut *sides) {
            if side.failed.is_some() {
                continue;
            }
            let mut measured = Round::default();
            if let Err(failure) = one(subject, round, &mut measured) {
                side.failed = Some(format!("round {}: {failure}", round + 1));
                first_failure.get_or_insert(failure);
            }
            side.rounds.push(measured);
        }
        if sides.iter().all(|side| side.failed.is_some())
            && let Some(failure) = first_failure
        {
            return Err(failure);
        }
    }
    Ok(())
}

/// Sees to it that this process, and the servers it starts, may have so many connections.
fn make_room(clients: u64) -> Result<(), Failure> {
    let cannot = || "cannot read the limit of open files".to_owned();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).doing(cannot)?;
    let needed = clients + FILES_BESIDE;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|error| {
        Failure::environment(format!(
            "{clients} clients need {needed} open files, and the limit is {hard}: {error}"
        ))
        .hint(format!(
            "as root it is raised by itself; otherwise: ulimit -n {needed}"
        ))
    })
}

/// What other clients saw meanwhile, as figures.
fn seen_kinds() -> Vec<Kind> {
    let micros = |key: &str, head: &str, name: &str| Kind::new(key, head, name, Unit::Micros);
    vec![
        micros(
            "others_p99",
            "OTHERS' P99",
            "other clients' reads and writes, 99th percentile",
        ),
        micros(
            "others_max",
            "OTHERS' MAX",
            "other clients' slowest read or write",
        ),
        Kind::new(
            "late_beats",
            "LATE BEATS",
            "other clients' heartbeats that were late",
            Unit::Count,
        )
        .aside(),
    ]
}

fn put_seen(round: &mut Round, seen: Seen) {
    let worse = |of: fn(&crate::bench::Latency) -> f64| of(&seen.reads).max(of(&seen.writes));
    round.put("others_p99", worse(|latency| latency.p99_us));
    round.put("others_max", worse(|latency| latency.max_us));
    round.put("late_beats", seen.late as f64);
    round.bystanders = Some(seen);
}

/// Does something while other clients live on the servers that stay, and adds what they saw to the round.
fn with_bystanders<T>(
    servers: &[std::net::SocketAddr],
    round: &mut Round,
    doing: impl FnOnce(&Bystanders) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let bystanders = Bystanders::start(servers)?;
    let done = doing(&bystanders);
    let seen = bystanders.finish();
    let done = done?;
    put_seen(round, seen?);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(lives: [u32; 2]) -> (Result<(), Failure>, Vec<Side>) {
        let mut sides = vec![Side::new("a"), Side::new("b")];
        let mut subjects = lives;
        let done = take_turns(&mut subjects, &mut sides, 3, |lives, round, measured| {
            measured.put("memory", f64::from(round));
            if *lives == round {
                return Err(Failure::environment("it answers no more"));
            }
            measured.put("rate", 1.0);
            Ok(())
        });
        (done, sides)
    }

    #[test]
    fn one_that_cannot_be_measured_further_does_not_end_the_others() {
        let (done, sides) = rounds([9, 1]);
        assert!(done.is_ok());
        let counts: Vec<usize> = sides.iter().map(|side| side.rounds.len()).collect();
        assert_eq!(counts, [3, 2]);
        // What was measured before it failed counts.
        assert_eq!(sides[1].rounds[1].figures.len(), 1);
        let failed = sides[1].failed.as_deref();
        assert_eq!(failed, Some("round 2: it answers no more"));
        assert!(sides[0].failed.is_none());
    }

    #[test]
    fn if_all_fail_there_is_nothing_to_tell() {
        let (done, sides) = rounds([1, 0]);
        assert!(done.is_err());
        let counts: Vec<usize> = sides.iter().map(|side| side.rounds.len()).collect();
        assert_eq!(counts, [2, 1]);
    }
}
