//! `drop` and `hold`: withholding messages between servers.

use super::Context;
use super::up::millis;
use crate::cli::MessageArgs;
use crate::failure::{Exit, Failure};
use crate::net::wire::Name;
use crate::report::network;
use crate::report::progress::Progress;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{MessageRequest, News, Request, WithholdReport, WithholdRequest};

pub(super) fn withhold(context: &Context, args: MessageArgs, hold: bool) -> Result<Exit, Failure> {
    let out = &context.out;
    // A wrong word is refused before anybody is asked.
    let name: Name = args.message.parse().map_err(Failure::usage)?;
    let request = Request::Withhold(WithholdRequest {
        message: MessageRequest {
            message: name.to_string(),
            from: args.from,
            to: args.to,
            zxid: args.zxid,
            nth: args.nth,
            count: args.count,
        },
        hold,
        for_ms: args.for_.map(millis),
        wait: args.wait,
        timeout_ms: millis(args.timeout),
    });
    let mut connection = Connection::open(&Root::open()?, &context.lab)?;
    let report: Option<WithholdReport> = {
        let progress = Progress::start(out, "arming");
        connection.call(&request, |early| {
            if let Early::News(News::Doing(text)) = early {
                progress.say(&text);
                out.doing(&text);
            }
            true
        })?
    };
    let Some(report) = report else {
        return Ok(Exit::Interrupted);
    };
    network::withheld(out, &report, hold);
    Ok(report.exit)
}
