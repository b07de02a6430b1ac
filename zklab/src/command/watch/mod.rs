//! `watch`: a lab as it lives, on the terminal, and a few keys to make its life hard.
//!
//! Three threads listen (events, status, a probe of its own), one thread draws. What is shown and what keys mean is in
//! [`screen`], which knows neither terminal nor lab and is tested without them. Everything that is done to the lab is a
//! request to its supervisor, exactly as the commands do it.

mod draw;
mod feed;
mod record;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as TerminalEvent, KeyEventKind};

use self::feed::News;
use self::screen::{Screen, Wish};
use super::Context;
use crate::cli::WatchArgs;
use crate::clock::now_us;
use crate::failure::{Context as _, Exit, Failure};
use crate::supervisor::protocol::{Info, Request};

/// How often the screen moves on.
const FRAME: Duration = Duration::from_millis(100);

pub(super) fn run(context: &mut Context, args: WatchArgs) -> Result<Exit, Failure> {
    if let Some(name) = args.name {
        context.lab = name;
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(
            Failure::usage("watch needs a terminal, and standard input or output is none")
                .hint("for scripts there are `zklab events --follow` and `zklab status --json`"),
        );
    }
    let info: Info = context.ask(&Request::Info)?;
    let (sender, news) = channel();
    feed::start(&context.lab, &info, !args.no_probe, &sender)?;
    let mut screen = Screen::new(&info);
    let mut terminal = ratatui::try_init().doing(|| "cannot take over the terminal".to_owned())?;
    let ended = live(&mut terminal, context, &mut screen, &news, &sender);
    ratatui::restore();
    let ended = ended?;
    for line in &ended {
        context.out.line(line);
    }
    Ok(Exit::Ok)
}

/// Draws, listens and does what the keys say until it is over; what is worth saying afterwards.
fn live(
    terminal: &mut DefaultTerminal,
    context: &Context,
    screen: &mut Screen,
    news: &Receiver<News>,
    sender: &Sender<News>,
) -> Result<Vec<String>, Failure> {
    let cannot = || "cannot use the terminal".to_owned();
    let mut said = Vec::new();
    loop {
        screen.tick(now_us());
        terminal
            .draw(|frame| draw::screen(screen, frame.area(), frame.buffer_mut()))
            .doing(cannot)?;
        let next = Instant::now() + FRAME;
        while event::poll(next.saturating_duration_since(Instant::now())).doing(cannot)? {
            // A change of size needs no more than the next picture.
            let TerminalEvent::Key(key) = event::read().doing(cannot)? else {
                break;
            };
            if key.kind == KeyEventKind::Release {
                continue;
            }
            match screen.on_key(key) {
                Some(Wish::Quit) => return Ok(said),
                Some(Wish::Do(words)) => {
                    feed::carry_out(&context.lab, &words, screen.node_count(), sender);
                }
                Some(Wish::Save) => match save(screen) {
                    Ok(name) => {
                        let line = format!("saved as {}", name.display());
                        screen.say(now_us(), line.clone(), true);
                        said.push(line);
                    }
                    Err(failure) => screen.say(now_us(), failure.cause, false),
                },
                None => {}
            }
            break;
        }
        while let Ok(one) = news.try_recv() {
            match one {
                News::Ended(failure) => return failure.map_or(Ok(said), Err),
                other => screen.take(now_us(), other),
            }
        }
    }
}

/// Writes what was done as a scenario, under a name that nothing has yet.
fn save(screen: &Screen) -> Result<PathBuf, Failure> {
    let text = record::scenario(screen)?;
    for number in 1.. {
        let name = PathBuf::from(format!("watched-{}-{number}.toml", screen.lab()));
        let made = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&name);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(Failure::environment(format!(
                    "cannot write {}: {error}",
                    name.display()
                )));
            }
            Ok(mut file) => {
                io::Write::write_all(&mut file, text.as_bytes())
                    .doing(|| format!("cannot write {}", name.display()))?;
                return Ok(name);
            }
        }
    }
    unreachable!("a directory does not hold every number")
}
