//! What sessions cost: many idle ones, many watchers of one znode, sessions that come and go.

use zkd::record::opcode::OpCode;

use super::engine::{Engine, Got};
use super::recorder::Recorder;
use super::run::{
    Edge, Outcome, Plan, all_lost, nanos, one_by_one, open_sessions, outcome, sync_all,
};
use super::work::{Maker, Work};
use crate::failure::{Exit, Failure};

/// How long the watchers may take to hear of one change.
const NEWS_PATIENCE_NS: u64 = 30_000_000_000;

/// Holds idle sessions that send a heartbeat every third of their timeout. An operation is a heartbeat; a session
/// that is lost, or an answer that takes longer than a third of the timeout, is one refused.
///
/// # Errors
/// If the sessions cannot be opened.
pub fn idle(plan: &Plan, at_edge: &mut dyn FnMut(Edge)) -> Result<Outcome, Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let third_ns = engine.timeout_ns(0).max(3) / 3;
    let begin_ns = engine.now_ns();
    let from_ns = begin_ns + nanos(plan.warm_up);
    let to_ns = from_ns + nanos(plan.length);
    let mut recorder = Recorder::new(from_ns, to_ns);
    let (mut lost, mut has_begun) = (0, false);
    // All heartbeats are spread over a third of the timeout, in the order of the sessions.
    let gap_ns = third_ns as f64 / plan.clients as f64;
    let mut number = 0_u64;
    loop {
        for arrival in std::mem::take(&mut engine.arrivals) {
            match arrival.got {
                Got::Pong => {
                    let is_late = arrival.at_ns - arrival.sent_ns > third_ns;
                    recorder.answer(arrival.sent_ns, arrival.at_ns, i32::from(is_late));
                }
                Got::Lost => lost += 1,
                _ => {}
            }
        }
        if lost == plan.clients as u64 {
            return Err(all_lost(&engine));
        }
        let now_ns = engine.now_ns();
        if !has_begun && now_ns >= from_ns {
            has_begun = true;
            at_edge(Edge::Begin);
        }
        if now_ns >= to_ns {
            at_edge(Edge::End);
            break;
        }
        let mut due_ns = begin_ns + (number as f64 * gap_ns) as u64;
        while due_ns <= now_ns {
            let client = (number % plan.clients as u64) as usize;
            engine.ping(client, due_ns);
            engine.flush(client);
            number += 1;
            due_ns = begin_ns + (number as f64 * gap_ns) as u64;
        }
        engine.poll(due_ns.min(to_ns))?;
    }
    end_all(&mut engine)?;
    Ok(outcome(plan, &mut recorder, lost))
}

/// One znode, watched by every client; a change is made as soon as all have heard of the last one. An operation
/// is a watch event, from the change to its arrival.
///
/// # Errors
/// If a client does not hear of a change.
pub fn watchers(plan: &Plan, at_edge: &mut dyn FnMut(Edge)) -> Result<Outcome, Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let writer = engine.connect(plan.servers[0], None, plan.session_timeout)?;
    let root = plan.root();
    let maker = Maker::new(Work::Write, &root, 1, plan.size, plan.seed);
    one_by_one(&mut engine, "make the znode", |out| maker.put_root(out))?;
    sync_all(&mut engine, &maker)?;
    let from_ns = engine.now_ns() + nanos(plan.warm_up);
    let to_ns = from_ns + nanos(plan.length);
    let mut recorder = Recorder::new(from_ns, to_ns);
    let mut has_begun = false;
    while engine.now_ns() < to_ns {
        for client in 0..plan.clients {
            engine.send(client, 0, |out| maker.put_watch(out));
            engine.flush(client);
        }
        await_all(&mut engine, plan.clients, Got::Answer(0), &mut |_| {})?;
        if !has_begun && engine.now_ns() >= from_ns {
            has_begun = true;
            at_edge(Edge::Begin);
        }
        let changed_ns = engine.now_ns();
        engine.send(writer, changed_ns, |out| maker.put_news(out));
        engine.flush(writer);
        await_all(&mut engine, plan.clients, Got::Event, &mut |at_ns| {
            recorder.answer(changed_ns, at_ns, 0);
        })?;
        // Its answer comes before or behind the events of its own server.
        while engine.waiting(writer) > 0 {
            engine.poll(changed_ns + NEWS_PATIENCE_NS)?;
        }
        engine.arrivals.clear();
    }
    at_edge(Edge::End);
    one_by_one(&mut engine, "delete the znode", |out| {
        Maker::new(Work::Write, &root, 1, 0, 0).put_delete(None, out);
    })?;
    end_all(&mut engine)?;
    Ok(outcome(plan, &mut recorder, 0))
}

/// Every client opens a session, makes an ephemeral znode and ends the session, over and over. An operation is
/// one such life, from the first packet to the last answer.
///
/// # Errors
/// If the servers take no sessions.
pub fn churn(plan: &Plan, at_edge: &mut dyn FnMut(Edge)) -> Result<Outcome, Failure> {
    let mut engine = Engine::new()?;
    open_sessions(&mut engine, plan)?;
    let root = plan.root();
    let mut maker = Maker::new(Work::Write, &root, 1, plan.size, plan.seed);
    one_by_one(&mut engine, "make the root", |out| maker.put_root(out))?;
    let from_ns = engine.now_ns() + nanos(plan.warm_up);
    let to_ns = from_ns + nanos(plan.length);
    let mut recorder = Recorder::new(from_ns, to_ns);
    let mut began_ns = vec![engine.now_ns(); plan.clients];
    let server = |client: usize| plan.servers[client % plan.servers.len()];
    let mut lost = 0;
    let mut has_begun = false;
    for client in 0..plan.clients {
        engine.connect_again(client, server(client), plan.session_timeout)?;
    }
    while engine.now_ns() < to_ns {
        if !has_begun && engine.now_ns() >= from_ns {
            has_begun = true;
            at_edge(Edge::Begin);
        }
        engine.poll(if has_begun { to_ns } else { from_ns })?;
        for arrival in std::mem::take(&mut engine.arrivals) {
            let client = arrival.client;
            match arrival.got {
                Got::Session => {
                    engine.send(client, 1, |out| maker.put_ephemeral(client as u64, out));
                    engine.send(client, 2, close);
                    engine.flush(client);
                }
                // The answer to the close; the connection ends by itself after it.
                Got::Answer(err) if arrival.sent_ns == 2 => {
                    recorder.answer(began_ns[client], arrival.at_ns, err);
                    began_ns[client] = engine.now_ns();
                    engine.connect_again(client, server(client), plan.session_timeout)?;
                }
                Got::Lost => {
                    lost += 1;
                    began_ns[client] = engine.now_ns();
                    engine.connect_again(client, server(client), plan.session_timeout)?;
                }
                _ => {}
            }
        }
    }
    at_edge(Edge::End);
    Ok(outcome(plan, &mut recorder, lost))
}

/// Waits until so many of these have come; `each` gets the time of each.
fn await_all(
    engine: &mut Engine,
    count: usize,
    wanted: Got,
    each: &mut dyn FnMut(u64),
) -> Result<(), Failure> {
    let give_up_ns = engine.now_ns() + NEWS_PATIENCE_NS;
    let mut have = 0;
    while have < count {
        engine.poll(give_up_ns)?;
        for arrival in std::mem::take(&mut engine.arrivals) {
            match arrival.got {
                Got::Lost => return Err(all_lost(engine)),
                got if got == wanted && arrival.client < count => {
                    each(arrival.at_ns);
                    have += 1;
                }
                _ => {}
            }
        }
        if engine.now_ns() >= give_up_ns {
            return Err(Failure::new(
                Exit::Missed,
                format!("only {have} of {count} clients were told ({wanted:?})"),
            ));
        }
    }
    Ok(())
}

/// Ends every session, so that none is left to expire.
fn end_all(engine: &mut Engine) -> Result<(), Failure> {
    for client in 0..engine.len() {
        if engine.is_open(client) {
            engine.send(client, 0, close);
            engine.flush(client);
        }
    }
    let give_up_ns = engine.now_ns() + NEWS_PATIENCE_NS;
    while (0..engine.len()).any(|client| engine.is_open(client)) && engine.now_ns() < give_up_ns {
        engine.poll(give_up_ns)?;
        engine.arrivals.clear();
    }
    Ok(())
}

fn close(out: &mut Vec<u8>) {
    out.extend_from_slice(&OpCode::CloseSession.code().to_be_bytes());
}
