//! `up`.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use zkd::prng::Prng;

use super::Context;
use crate::cli::{UpArgs, data_dir};
use crate::clock::now_us;
use crate::disk::Watch;
use crate::failure::{Context as _, Exit, Failure};
use crate::fault::Profile;
use crate::net::NetKind;
use crate::node::ServerKind;
use crate::report::ensemble;
use crate::report::progress::Progress;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::{DataPlace, Root};
use crate::supervisor::protocol::{DownReport, News, Request, UpReport, UpRequest};

pub(super) fn run(context: &mut Context, args: UpArgs) -> Result<Exit, Failure> {
    if let Some(name) = args.name {
        context.lab = name;
    }
    let out = &context.out;
    Root::open()?.home(&context.lab)?;
    let server = ServerKind::find(args.server.as_deref())?;
    let version_of = args
        .version_of
        .into_iter()
        .map(|(node, wanted)| Ok((node, ServerKind::find(Some(&wanted))?)))
        .collect::<Result<Vec<_>, Failure>>()?;
    let all_zkd = server.has_feed() && version_of.iter().all(|(_, kind)| kind.has_feed());
    let timeout = args.timeout.unwrap_or(if all_zkd {
        Duration::from_secs(10)
    } else {
        Duration::from_secs(60)
    });
    let net = args.net;
    let profile = args.profile.as_deref().map(Profile::open).transpose()?;
    if profile.is_some() && net == NetKind::Loopback {
        return Err(
            Failure::usage("a loopback network has no links that a profile could be for")
                .hint("--net auto takes the best network of this machine that has"),
        );
    }
    let request = Request::Up(UpRequest {
        observers: args.observers,
        version_of,
        tick_ms: millis(args.tick).max(1),
        net,
        data: data_place(args.data.as_deref()),
        publish: args.publish,
        seed: args.seed.map_or_else(draw_seed, |seed| seed.0),
        timeout_ms: millis(timeout),
        disks: match (args.disk_writes, args.disk_faults) {
            (true, _) => Watch::Writes,
            (false, true) => Watch::Syncs,
            (false, false) => Watch::No,
        },
        one_by_one: args.one_by_one,
        asked_us: context.asked_us,
        no_wire: args.no_wire,
        profile: profile.map(Box::new),
        ..UpRequest::new(context.lab.clone(), args.nodes, server)
    });
    let report: Option<UpReport> = {
        let progress = Progress::start(out, "starting the servers");
        Connection::launch(net)?.call(&request, |early| {
            match early {
                Early::News(News::Step(step)) => {
                    progress.line(out, &ensemble::step(out, &step));
                }
                Early::News(News::Doing(text)) => {
                    progress.say(&text);
                    out.doing(&text);
                }
                Early::News(_) | Early::Event(_) | Early::Bytes(_) => {}
            }
            true
        })?
    };
    if let Some(report) = report {
        ensemble::up(out, &report);
    }
    if args.attach {
        return stay(context);
    }
    Ok(Exit::Ok)
}

/// A seed that is short enough to be typed again.
fn draw_seed() -> u64 {
    Prng::new(now_us()).below(1 << 24)
}

/// Waits for Ctrl-C, then ends the lab.
fn stay(context: &Context) -> Result<Exit, Failure> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    let cannot = || "cannot wait for Ctrl-C".to_owned();
    signals.thread_block().doing(cannot)?;
    signals.wait().doing(cannot)?;
    let report: DownReport = context.ask(&Request::Down { keep_data: false })?;
    ensemble::down(&context.out, &report);
    Ok(Exit::Ok)
}

/// Memory where the machine has a file system for it, unless the user wants something else.
pub(super) fn data_place(wanted: Option<&str>) -> DataPlace {
    match wanted {
        Some("disk") => DataPlace::Disk,
        Some("tmpfs") => DataPlace::Tmpfs,
        Some(dir) => DataPlace::Dir(data_dir(dir)),
        None if Path::new("/dev/shm").is_dir() => DataPlace::Tmpfs,
        None => DataPlace::Disk,
    }
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
