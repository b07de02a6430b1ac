//! What `watch` knows and what its keys mean; no terminal, no lab, no clock.

use std::collections::VecDeque;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::feed::News;
use crate::ensemble::status::{NodeStatus, State, Status};
use crate::event::{LabEvent, Role};
use crate::node::Membership;
use crate::report::run::{Event, Fault, LaneState};
use crate::supervisor::protocol::Info;

/// Older news are forgotten.
const KEPT: usize = 4_000;
/// How long an answer to a key is shown.
const SAID_US: u64 = 6_000_000;
/// The widths that a column can have.
const WIDTHS_US: [u64; 5] = [50_000, 100_000, 250_000, 500_000, 1_000_000];

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// End.
    Quit,
    /// Do this to the lab, in the words of a scenario's step.
    Do(String),
    /// Write down what was done.
    Save,
}

/// Something that was done to the lab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deed {
    /// When, by the system's clock.
    pub(super) at_us: u64,
    /// In the words of a scenario: roles where roles were meant.
    pub(super) words: String,
    /// In the words that the lab was asked with.
    asked: String,
    /// Was it done?
    ok: bool,
}

/// A node and what it was.
#[derive(Debug)]
pub(super) struct Lane {
    /// Its name.
    pub(super) node: String,
    voter: bool,
    /// It tells of itself; others are asked.
    tells: bool,
    /// What it was from when on.
    states: VecDeque<(u64, LaneState)>,
    /// The last that was heard.
    pub(super) status: Option<NodeStatus>,
}

impl Lane {
    fn put(&mut self, at_us: u64, state: LaneState) {
        let place = self.states.partition_point(|(t, _)| *t <= at_us);
        let before = place.checked_sub(1).map(|index| self.states[index].1);
        if before != Some(state) {
            self.states.insert(place, (at_us, state));
        }
        if self.states.len() > KEPT {
            self.states.pop_front();
        }
    }

    /// What it was between two times: an election is never too short to be seen.
    pub(super) fn between(&self, from_us: u64, to_us: u64) -> Option<LaneState> {
        let end = self.states.partition_point(|(t, _)| *t < to_us);
        let begin = self.states.partition_point(|(t, _)| *t <= from_us);
        let all = self.states.range(begin.saturating_sub(1).min(end)..end);
        let mut all = all.map(|(_, state)| *state);
        let brief = |state: &LaneState| matches!(state, LaneState::Looking);
        all.clone().find(brief).or_else(|| all.next_back())
    }

    /// What it is.
    pub(super) fn now(&self) -> Option<LaneState> {
        self.states.back().map(|(_, state)| *state)
    }
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Screen {
    lab: String,
    /// By the system's clock: now, and when the events count 0.
    now_us: u64,
    start_us: Option<u64>,
    pub(super) lanes: Vec<Lane>,
    pub(super) faults: VecDeque<Fault>,
    pub(super) status: Option<Status>,
    /// What happened, the newest last.
    pub(super) events: VecDeque<LabEvent>,
    /// From, until, and writes a second between.
    pub(super) rates: VecDeque<(u64, u64, f64)>,
    last_zxid: Option<(u64, i64)>,
    /// When the probe wrote, and how long that took; nothing if it was never answered.
    pub(super) probes: VecDeque<(u64, Option<u64>)>,
    pub(super) selected: Option<usize>,
    pub(super) frozen_us: Option<u64>,
    pub(super) help: bool,
    width: usize,
    deeds: Vec<Deed>,
    said: Option<(u64, String, bool)>,
}

impl Screen {
    /// Of a lab of which nothing is known but its nodes.
    pub(super) fn new(info: &Info) -> Self {
        let lanes = info.nodes.iter().map(|node| Lane {
            node: node.id.to_string(),
            voter: node.membership == Membership::Voter,
            tells: false,
            states: VecDeque::new(),
            status: None,
        });
        Self {
            lab: info.lab.clone(),
            now_us: 0,
            start_us: None,
            lanes: lanes.collect(),
            faults: VecDeque::new(),
            status: None,
            events: VecDeque::new(),
            rates: VecDeque::new(),
            last_zxid: None,
            probes: VecDeque::new(),
            selected: None,
            frozen_us: None,
            help: false,
            width: 2,
            deeds: Vec::new(),
            said: None,
        }
    }

    /// The lab's name.
    pub(super) fn lab(&self) -> &str {
        &self.lab
    }

    /// How many nodes it has.
    pub(super) fn node_count(&self) -> usize {
        self.lanes.len()
    }

    /// Voters and observers.
    pub(super) fn members(&self) -> (usize, usize) {
        let voters = self.lanes.iter().filter(|lane| lane.voter).count();
        (voters, self.lanes.len() - voters)
    }

    /// What was done and worked.
    pub(super) fn deeds(&self) -> Vec<&Deed> {
        self.deeds.iter().filter(|deed| deed.ok).collect()
    }

    /// The time of the right edge, as the events count.
    pub(super) fn edge_us(&self) -> u64 {
        let edge = self.frozen_us.unwrap_or(self.now_us);
        edge.saturating_sub(self.start_us.unwrap_or(edge))
    }

    /// How much time a column stands for.
    pub(super) fn column_us(&self) -> u64 {
        WIDTHS_US[self.width]
    }

    /// What is to be said now, and whether it is good.
    pub(super) fn said(&self) -> Option<(&str, bool)> {
        let (until, text, good) = self.said.as_ref()?;
        (self.now_us < *until).then_some((text.as_str(), *good))
    }

    /// Says something for a while.
    pub(super) fn say(&mut self, now_us: u64, text: String, good: bool) {
        self.said = Some((now_us + SAID_US, text, good));
    }

    /// It is later.
    pub(super) fn tick(&mut self, now_us: u64) {
        self.now_us = now_us;
    }

    /// Takes in what is new at `now_us` of the system's clock.
    pub(super) fn take(&mut self, now_us: u64, news: News) {
        match news {
            News::Event(event) => self.take_event(event),
            News::Status(status) => self.take_status(now_us, *status),
            News::Probe { at_us, took_us } => {
                let at_us = at_us.saturating_sub(self.start_us.unwrap_or(at_us));
                keep(&mut self.probes, (at_us, took_us));
            }
            News::Done { words, result } => {
                let done = self.deeds.iter_mut().rev().find(|deed| deed.asked == words);
                let (text, ok) = match result {
                    Ok(text) => (format!("{words}: {text}"), true),
                    Err(failure) => (failure.cause, false),
                };
                if let Some(deed) = done {
                    deed.ok = ok;
                }
                self.say(now_us, text, ok);
            }
            News::Ended(_) => {}
        }
    }

    fn take_event(&mut self, event: LabEvent) {
        let Ok(value) = serde_json::to_value(&event) else {
            return;
        };
        let told = Event::of(value);
        match told.kind.as_str() {
            "fault.on" => self.fault_on(&told),
            "fault.off" => self.fault_off(&told),
            _ => {}
        }
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.node == told.node) {
            lane.tells |= told.src == "zkd" && told.kind == "node.serving";
            if let Some(state) = LaneState::of_event(&told)
                && (told.src != "wire" || !lane.tells)
            {
                lane.put(told.t_us, state);
            }
        }
        // What a server tells of itself is not told again by those who only heard it.
        let tells = |lane: &Lane| lane.tells && lane.node == told.node;
        let again = told.src == "wire" && self.lanes.iter().any(tells);
        if !again && is_worth_a_line(&told) {
            let place = self
                .events
                .iter()
                .rposition(|known| known.t_us <= event.t_us)
                .map_or(0, |index| index + 1);
            self.events.insert(place, event);
            if self.events.len() > KEPT {
                self.events.pop_front();
            }
        }
    }

    fn fault_on(&mut self, event: &Event) {
        let fault = Fault::of(event, u64::MAX);
        if fault.what == "pause" {
            self.on_hit(&fault, |lane| lane.put(event.t_us, LaneState::Paused));
        }
        keep(&mut self.faults, fault);
    }

    fn fault_off(&mut self, event: &Event) {
        let Some(fault) = self
            .faults
            .iter_mut()
            .rev()
            .find(|fault| fault.stands && fault.is_ended_by(event))
        else {
            return;
        };
        (fault.to_us, fault.stands) = (event.t_us, false);
        let fault = fault.clone();
        if fault.what == "pause" {
            self.on_hit(&fault, |lane| {
                let before = lane
                    .states
                    .iter()
                    .rev()
                    .map(|(_, state)| *state)
                    .find(|state| *state != LaneState::Paused);
                lane.put(event.t_us, before.unwrap_or(LaneState::Joining));
            });
        }
    }

    fn on_hit(&mut self, fault: &Fault, mut change: impl FnMut(&mut Lane)) {
        for lane in self.lanes.iter_mut().filter(|lane| fault.hits(&lane.node)) {
            change(lane);
        }
    }

    fn take_status(&mut self, now_us: u64, status: Status) {
        // The answer comes a little after the lab looked at its clock, never before.
        let start_us = now_us.saturating_sub(status.up_ms * 1000);
        let start_us = self.start_us.map_or(start_us, |known| known.min(start_us));
        self.start_us = Some(start_us);
        let at_us = status.up_ms * 1000;
        for node in &status.nodes {
            let name = node.id.to_string();
            let lane = match self.lanes.iter().position(|lane| lane.node == name) {
                Some(index) => &mut self.lanes[index],
                None => {
                    self.lanes.push(Lane {
                        node: name,
                        voter: node.membership == Membership::Voter,
                        tells: false,
                        states: VecDeque::new(),
                        status: None,
                    });
                    self.lanes.last_mut().expect("one was pushed")
                }
            };
            if let Some(state) = state_of(node)
                && (!lane.tells || matches!(state, LaneState::Down | LaneState::Paused))
            {
                lane.put(
                    at_us.max(lane.states.back().map_or(0, |last| last.0)),
                    state,
                );
            }
            lane.status = Some(node.clone());
        }
        let zxids = status.nodes.iter().filter_map(|node| node.zxid);
        if let Some(zxid) = zxids.map(|zxid| zxid.0).max() {
            self.take_zxid(at_us, zxid);
        }
        self.status = Some(status);
    }

    /// The newest zxid counts the writes of its epoch.
    fn take_zxid(&mut self, at_us: u64, zxid: i64) {
        let count = |zxid: i64| zxid & 0xffff_ffff;
        if let Some((before_us, before)) = self.last_zxid
            && before_us < at_us
        {
            let same = before >> 32 == zxid >> 32;
            let writes = count(zxid) - if same { count(before) } else { 0 };
            let rate = writes.max(0) as f64 / (at_us - before_us) as f64 * 1e6;
            keep(&mut self.rates, (before_us, at_us, rate));
        }
        self.last_zxid = Some((at_us, zxid));
    }

    /// The node that keys act on: the selected one, or the leader.
    pub(super) fn target(&self) -> Option<&Lane> {
        match self.selected {
            Some(index) => self.lanes.get(index),
            None => self.leader().and_then(|index| self.lanes.get(index)),
        }
    }

    fn leader(&self) -> Option<usize> {
        let leader = self.status.as_ref()?.leader?.to_string();
        self.lanes.iter().position(|lane| lane.node == leader)
    }

    /// What a key asks for.
    pub(super) fn on_key(&mut self, key: KeyEvent) -> Option<Wish> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if self.help && !(control || key.code == KeyCode::Char('q')) {
            self.help = false;
            return None;
        }
        match key.code {
            KeyCode::Char('c') if control => return Some(Wish::Quit),
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Char('?') => self.help = true,
            KeyCode::Char(' ') => {
                self.frozen_us = match self.frozen_us {
                    Some(_) => None,
                    None => Some(self.now_us),
                };
            }
            KeyCode::Char('l') => self.selected = self.leader(),
            KeyCode::Esc => self.selected = None,
            KeyCode::Up => self.select(-1),
            KeyCode::Down => self.select(1),
            KeyCode::Char('+' | '=') => self.width = self.width.saturating_sub(1),
            KeyCode::Char('-') => self.width = (self.width + 1).min(WIDTHS_US.len() - 1),
            KeyCode::Char('s') => return Some(Wish::Save),
            KeyCode::Char('h') => return Some(self.deed("heal", "heal")),
            KeyCode::Char(verb @ ('k' | 'p' | 'i')) => return self.on_node(verb),
            _ => {}
        }
        None
    }

    fn select(&mut self, step: isize) {
        let last = self.lanes.len().saturating_sub(1);
        self.selected = Some(match self.selected {
            Some(index) => index.saturating_add_signed(step).min(last),
            None if step < 0 => last,
            None => 0,
        });
    }

    /// Kills and starts, pauses and resumes, or isolates the target.
    fn on_node(&mut self, verb: char) -> Option<Wish> {
        let Some(lane) = self.target() else {
            let text = "there is no leader; choose a node with the arrows".to_owned();
            self.say(self.now_us, text, false);
            return None;
        };
        let node = lane.node.clone();
        let is_leader = lane.status.as_ref().is_some_and(NodeStatus::leads);
        let (verb, back) = match (verb, lane.now()) {
            ('k', Some(LaneState::Down)) => ("start", true),
            ('p', Some(LaneState::Paused)) => ("resume", true),
            ('k', _) => ("kill", false),
            ('p', _) => ("pause", false),
            _ => ("isolate", false),
        };
        // Another run may have another leader: what was meant is its role.
        let meant = match (is_leader, back) {
            (_, true) => "all",
            (true, false) => "leader",
            (false, false) => &node,
        };
        let words = format!("{verb} {node}");
        Some(self.deed(&words, &format!("{verb} {meant}")))
    }

    fn deed(&mut self, asked: &str, words: &str) -> Wish {
        self.deeds.push(Deed {
            at_us: self.now_us,
            words: words.to_owned(),
            asked: asked.to_owned(),
            ok: false,
        });
        self.say(self.now_us, format!("{asked} …"), true);
        Wish::Do(asked.to_owned())
    }
}

fn keep<T>(queue: &mut VecDeque<T>, one: T) {
    queue.push_back(one);
    if queue.len() > KEPT {
        queue.pop_front();
    }
}

fn state_of(node: &NodeStatus) -> Option<LaneState> {
    match (node.state, node.role) {
        (State::Serving, Some(Role::Leader | Role::Standalone)) => Some(LaneState::Leader),
        (State::Serving, Some(Role::Observer)) => Some(LaneState::Observer),
        (State::Serving, _) => Some(LaneState::Follower),
        (State::Looking, _) => Some(LaneState::Looking),
        (State::Paused, _) => Some(LaneState::Paused),
        (State::Down, _) => Some(LaneState::Down),
        (State::Silent, _) => None,
    }
}

/// Votes and ports are too many for a list that people read.
fn is_worth_a_line(event: &Event) -> bool {
    let by_itself = event.kind == "sync" && event.text("to") == event.node;
    !by_itself
        && !matches!(
            event.kind.as_str(),
            "election.vote"
                | "wire.message"
                | "node.listening"
                | "node.starting"
                | "node.recovered"
                | "epoch.proposed"
                | "epoch.first_commit"
                | "client.write_acked"
        )
}
