//! `link`, `partition`, `heal`: the network of a lab.

use super::Context;
use super::up::millis;
use crate::cli::{HealArgs, LinkCommand, LinkSetArgs, PartitionArgs};
use crate::failure::{Exit, Failure};
use crate::fault::{LinkChange, Profile, Trace};
use crate::report::network;
use crate::supervisor::protocol::{
    FaultReport, HealReport, LinksReport, NetworkRequest, PartitionRequest, Request,
};

pub(super) fn link(context: &Context, command: LinkCommand) -> Result<Exit, Failure> {
    match command {
        LinkCommand::Set(args) => set(context, *args),
        LinkCommand::Show { links } => {
            let report: LinksReport =
                context.ask(&Request::Network(NetworkRequest::LinkShow { links }))?;
            network::links(&context.out, &report);
            Ok(Exit::Ok)
        }
        LinkCommand::Reset { links } => {
            let report: FaultReport =
                context.ask(&Request::Network(NetworkRequest::LinkReset { links }))?;
            network::fault(&context.out, &report);
            Ok(report.exit)
        }
    }
}

fn set(context: &Context, args: LinkSetArgs) -> Result<Exit, Failure> {
    let us =
        |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let change = LinkChange {
        delay_us: args.delay.map(us),
        jitter_us: args.jitter.map(us),
        loss: args.loss,
        burst: args.burst,
        duplicate: args.dup,
        reorder: args.reorder,
        corrupt: args.corrupt,
        rate_bps: args.rate,
        queue_bytes: args.queue,
    };
    let profile = args.profile.as_deref().map(Profile::open).transpose()?;
    let trace = args.trace.as_deref().map(Trace::open).transpose()?;
    if change.is_empty() && profile.is_none() && trace.is_none() {
        return Err(Failure::usage("nothing is to be set").hint(
            "for example: zklab link set n1:n2 --delay 20ms --loss 1%; partitions cut links",
        ));
    }
    let report: FaultReport = context.ask(&Request::Network(NetworkRequest::LinkSet {
        links: args.links,
        change,
        profile: profile.map(Box::new),
        trace,
        for_ms: args.for_.map(millis),
        wait: args.wait,
    }))?;
    network::fault(&context.out, &report);
    Ok(report.exit)
}

pub(super) fn partition(context: &Context, args: PartitionArgs) -> Result<Exit, Failure> {
    let request = NetworkRequest::Partition(PartitionRequest {
        words: args.kind,
        style: args.style,
        clients: args.clients.unwrap_or_default(),
        period_ms: args.period.map(millis),
        for_ms: args.for_.map(millis),
        wait: args.wait,
    });
    let report: FaultReport = context.ask(&Request::Network(request))?;
    network::fault(&context.out, &report);
    Ok(report.exit)
}

pub(super) fn heal(context: &Context, args: HealArgs) -> Result<Exit, Failure> {
    let request = NetworkRequest::Heal {
        what: args.what,
        core: args.core,
        wait: args.wait,
    };
    let report: HealReport = context.ask(&Request::Network(request))?;
    network::heal(&context.out, &report);
    Ok(report.exit)
}
