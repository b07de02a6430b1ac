//! `add` and `rm`: nodes that come and go.

use super::Context;
use super::up::millis;
use crate::cli::{AddArgs, RmArgs};
use crate::failure::{Exit, Failure};
use crate::node::{Membership, ServerKind};
use crate::report::ensemble;
use crate::report::progress::Progress;
use crate::supervisor::client::{Connection, Early};
use crate::supervisor::home::Root;
use crate::supervisor::protocol::{AddRequest, MemberReport, News, Request};

pub(super) fn add(context: &Context, args: &AddArgs) -> Result<Exit, Failure> {
    let server = args.server.as_deref();
    let request = Request::Add(AddRequest {
        membership: if args.observer {
            Membership::Observer
        } else {
            Membership::Voter
        },
        server: server
            .map(|wanted| ServerKind::find(Some(wanted)))
            .transpose()?,
        timeout_ms: millis(args.timeout),
    });
    change(context, &request)
}

pub(super) fn rm(context: &Context, args: RmArgs) -> Result<Exit, Failure> {
    change(context, &Request::Rm { node: args.node })
}

fn change(context: &Context, request: &Request) -> Result<Exit, Failure> {
    let out = &context.out;
    let mut connection = Connection::open(&Root::open()?, &context.lab)?;
    let report: Option<MemberReport> = {
        let progress = Progress::start(out, "working");
        connection.call(request, |early| {
            match early {
                Early::News(News::Act(act)) => {
                    let text = format!("restarted {}", ensemble::act(out, &act));
                    progress.line(out, &text);
                }
                Early::News(News::Doing(text)) => {
                    progress.say(&text);
                    out.doing(&text);
                }
                _ => {}
            }
            true
        })?
    };
    let Some(report) = report else {
        return Ok(Exit::Interrupted);
    };
    ensemble::changed(out, &report);
    Ok(report.exit)
}
