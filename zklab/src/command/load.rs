//! `load`: clients work on the ensemble, and what they are told is recorded.

use super::Context;
use crate::cli::LoadArgs;
use crate::clock::now_us;
use crate::failure::{Context as _, Exit, Failure};
use crate::observe::load::{self, Mix, Plan, Reins};
use crate::report::history as report;
use crate::report::progress::Progress;
use crate::supervisor::protocol::{Info, Request};

pub(super) fn run(context: &mut Context, args: LoadArgs) -> Result<Exit, Failure> {
    let mix = Mix::parse(&args.mix)?;
    if let Some(name) = args.name {
        context.lab = name;
    }
    let info: Info = context.ask(&Request::Info)?;
    let addresses = info.addresses()?;
    let seed = args.seed.unwrap_or_else(now_us);
    let plan = Plan {
        lab: info.lab,
        addresses,
        clients: args.clients,
        via: args.via,
        rate: args.rate,
        mix,
        for_: args.for_,
        session_timeout: args.session_timeout,
        history: args.history,
        seed,
    };
    context.out.doing(&format!("seed {seed:#x}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .doing(|| "cannot start clients".to_owned())?;
    let summary = {
        let _progress = Progress::start(&context.out, "clients at work");
        runtime.block_on(load::run(&plan, &Reins::default()))?
    };
    report::load(
        &context.out,
        seed,
        &plan.history.display().to_string(),
        &summary,
    );
    if summary.ok == 0 {
        return Ok(Exit::Missed);
    }
    Ok(Exit::Ok)
}
