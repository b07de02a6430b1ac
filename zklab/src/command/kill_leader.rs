//! `kill-leader`.

use super::Context;
use super::up::millis;
use crate::cli::KillLeaderArgs;
use crate::failure::{Exit, Failure};
use crate::report::election;
use crate::report::progress::Progress;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{KillLeaderRequest, KillReport, News, Request};

pub(super) fn run(context: &Context, args: &KillLeaderArgs) -> Result<Exit, Failure> {
    let out = &context.out;
    let at_once = (args.restart || args.times > 1).then_some(0);
    let request = Request::KillLeader(KillLeaderRequest {
        times: args.times,
        every_ms: millis(args.every),
        restart_after_ms: args.restart_after.map(millis).or(at_once),
        death: args.as_,
        budget_ms: args.budget.map(millis),
        timeout_ms: millis(args.timeout),
    });
    let mut connection = Connection::open(&Root::open()?, &context.lab)?;
    let mut number = 0;
    let report: Option<KillReport> = {
        let progress = Progress::start(out, "waiting for a new leader");
        connection.call(&request, |early| {
            if let Early::News(News::Reelection(one)) = early {
                number += 1;
                if args.times == 1 {
                    progress.line(out, &election::waterfall(out, &one));
                } else {
                    progress.line(out, &election::one_line(out, number, &one));
                    progress.say(&format!("{number} of {}", args.times));
                }
            }
            true
        })?
    };
    let Some(report) = report else {
        return Ok(Exit::Interrupted);
    };
    election::killed(out, &report);
    Ok(report.exit)
}
