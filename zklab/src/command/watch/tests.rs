//! Pictures of a made-up lab, compared with those that were looked at; and what the keys ask for.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::draw;
use super::feed::News;
use super::record;
use super::screen::{Screen, Wish};
use crate::failure::Failure;

/// The system's clock when the lab was started.
const START_US: u64 = 1_000_000_000;

fn info() -> crate::supervisor::protocol::Info {
    let nodes: Vec<Value> = (1..=5)
        .map(|n| {
            json!({"id": format!("n{n}"), "addr": format!("127.0.1.{n}:2181"), "membership": "voter",
                "running": true, "leads": n == 5, "log": "log", "config": "zoo.cfg"})
        })
        .collect();
    serde_json::from_value(json!({"v": 1, "lab": "demo", "supervisor_pid": 1, "nodes": nodes}))
        .unwrap()
}

fn event(screen: &mut Screen, ms: u64, node: &str, src: &str, rest: Value) {
    let mut event = json!({"v": 1, "seq": 1, "t_us": ms * 1000, "lab": "demo", "src": src});
    if !node.is_empty() {
        event["node"] = node.into();
    }
    if rest["kind"].as_str().unwrap().starts_with("fault") {
        event["effective_us"] = (ms * 1000).into();
    }
    event
        .as_object_mut()
        .unwrap()
        .extend(rest.as_object().unwrap().clone());
    let event = serde_json::from_value(event).unwrap();
    screen.take(START_US + ms * 1000, News::Event(event));
}

fn status(screen: &mut Screen, ms: u64, leader: &str, zxid: u64, down: &str) {
    let nodes: Vec<Value> = (1..=5)
        .map(|n| {
            let id = format!("n{n}");
            let (state, role) = if id == down {
                ("down", Value::Null)
            } else if id == leader {
                ("serving", "leader".into())
            } else {
                ("serving", "follower".into())
            };
            json!({"id": id, "state": state, "role": role, "membership": "voter", "epoch": zxid >> 32,
                "zxid": format!("{zxid:#x}"), "lag": if n == 2 { 17 } else { 0 }, "addr": ""})
        })
        .collect();
    let status = json!({"v": 1, "cmd": "status", "lab": "demo", "net": "tun", "server": "zkd 0.1.0",
        "nodes": nodes, "quorum": true, "have": if down.is_empty() { 5 } else { 4 }, "need": 3, "voters": 5,
        "leader": leader, "epoch": zxid >> 32, "up_ms": ms});
    let status = serde_json::from_value(status).unwrap();
    screen.take(START_US + ms * 1000, News::Status(Box::new(status)));
}

/// Ten seconds: five nodes begin, the leader is killed, another is cut off.
fn lived() -> Screen {
    let mut screen = Screen::new(&info());
    begin(&mut screen);
    reelect(&mut screen);
    go_on(&mut screen);
    screen.tick(START_US + 10_000_000);
    screen
}

fn begin(screen: &mut Screen) {
    status(screen, 500, "n5", 0x1_0000_0010, "");
    for node in ["n1", "n2", "n3", "n4", "n5"] {
        event(
            screen,
            40,
            node,
            "proc",
            json!({"kind": "node.spawned", "pid": 7}),
        );
        event(
            screen,
            60,
            node,
            "zkd",
            json!({"kind": "election.started", "reason": "started"}),
        );
        let role = if node == "n5" { "leader" } else { "follower" };
        event(
            screen,
            90,
            node,
            "zkd",
            json!({"kind": "node.serving", "role": role, "epoch": 1, "zxid": "0x100000001"}),
        );
    }
    for turn in 1..40 {
        status(
            screen,
            500 + turn * 100,
            "n5",
            0x1_0000_0010 + turn * 50,
            "",
        );
        let at_us = START_US + (500 + turn * 100) * 1000;
        screen.take(
            at_us,
            News::Probe {
                at_us,
                took_us: Some(1200 + turn * 40),
            },
        );
    }
}

fn reelect(screen: &mut Screen) {
    event(
        screen,
        4500,
        "n5",
        "fault",
        json!({"kind": "fault.on", "id": "k1", "what": "kill", "fault": "SIGKILL to n5", "nodes": ["n5"]}),
    );
    event(
        screen,
        4502,
        "n5",
        "proc",
        json!({"kind": "node.exited", "code": null, "signal": 9, "expected": true}),
    );
    let at_us = START_US + 4_520_000;
    screen.take(
        at_us,
        News::Probe {
            at_us,
            took_us: None,
        },
    );
    for node in ["n1", "n2", "n3", "n4"] {
        event(
            screen,
            4505,
            node,
            "zkd",
            json!({"kind": "election.started", "reason": "leader lost"}),
        );
        let role = if node == "n4" { "leader" } else { "follower" };
        event(
            screen,
            4530,
            node,
            "zkd",
            json!({"kind": "node.serving", "role": role, "epoch": 2, "zxid": "0x200000000"}),
        );
    }
    event(
        screen,
        4528,
        "n4",
        "zkd",
        json!({"kind": "leader.elected", "epoch": 2}),
    );
}

fn go_on(screen: &mut Screen) {
    event(
        screen,
        7000,
        "",
        "fault",
        json!({"kind": "fault.on", "id": "f2", "what": "partition", "fault": "isolate n1", "nodes": ["n1"]}),
    );
    event(
        screen,
        8000,
        "n2",
        "fault",
        json!({"kind": "fault.on", "id": "p3", "what": "pause", "fault": "pause n2", "nodes": ["n2"]}),
    );
    for turn in 1..55 {
        status(
            screen,
            4500 + turn * 100,
            "n4",
            0x2_0000_0000 + turn * 120,
            "n5",
        );
        let at_us = START_US + (4500 + turn * 100) * 1000;
        screen.take(
            at_us,
            News::Probe {
                at_us,
                took_us: Some(900),
            },
        );
    }
    event(
        screen,
        8900,
        "n2",
        "fault",
        json!({"kind": "fault.off", "id": "p3", "what": "pause", "fault": "pause n2", "nodes": ["n2"]}),
    );
}

fn picture(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw::screen(screen, frame.area(), frame.buffer_mut()))
        .unwrap();
    let buffer = terminal.backend().buffer().clone();
    let rows = (0..height).map(|y| {
        let row: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        row.trim_end().to_owned() + "\n"
    });
    rows.collect()
}

#[track_caller]
fn is_golden(name: &str, picture: &str) {
    let file = format!("{}/testdata/watch/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("ZKD_REWRITE").is_some() {
        std::fs::write(&file, picture).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(picture, golden, "{name} (ZKD_REWRITE=1 writes it anew)");
}

fn press(screen: &mut Screen, key: KeyCode) -> Option<Wish> {
    screen.on_key(KeyEvent::new(key, KeyModifiers::NONE))
}

fn type_(screen: &mut Screen, key: char) -> Option<Wish> {
    press(screen, KeyCode::Char(key))
}

#[test]
fn the_picture_of_a_lab() {
    let mut screen = lived();
    is_golden("80x24", &picture(&screen, 80, 24));
    is_golden("120x32", &picture(&screen, 120, 32));
    press(&mut screen, KeyCode::Down);
    type_(&mut screen, ' ');
    type_(&mut screen, '?');
    is_golden("help", &picture(&screen, 80, 24));
    assert!(picture(&screen, 50, 10).contains("the terminal is too small: at least 60 × 16"));
}

#[test]
fn a_frozen_picture_stays_while_the_lab_goes_on() {
    let mut screen = lived();
    type_(&mut screen, ' ');
    let frozen = picture(&screen, 100, 30);
    screen.tick(START_US + 15_000_000);
    event(
        &mut screen,
        14_000,
        "n1",
        "zkd",
        json!({"kind": "leader.elected", "epoch": 9}),
    );
    assert_eq!(picture(&screen, 100, 30), frozen);
    type_(&mut screen, ' ');
    assert!(picture(&screen, 100, 30).contains("epoch 9"));
}

#[test]
fn keys_act_on_the_leader_until_a_node_is_selected() {
    let mut screen = lived();
    let deed = |words: &str| Some(Wish::Do(words.to_owned()));
    assert_eq!(type_(&mut screen, 'k'), deed("kill n4"));
    assert_eq!(type_(&mut screen, 'i'), deed("isolate n4"));
    press(&mut screen, KeyCode::Up);
    assert_eq!(type_(&mut screen, 'k'), deed("start n5"), "it is down");
    press(&mut screen, KeyCode::Up);
    assert_eq!(type_(&mut screen, 'p'), deed("pause n4"));
    press(&mut screen, KeyCode::Esc);
    assert_eq!(type_(&mut screen, 'h'), deed("heal"));
    assert_eq!(type_(&mut screen, 's'), Some(Wish::Save));
    assert_eq!(type_(&mut screen, 'q'), Some(Wish::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(screen.on_key(interrupt), Some(Wish::Quit));
}

#[test]
fn without_a_leader_keys_say_so() {
    let mut screen = Screen::new(&info());
    assert_eq!(type_(&mut screen, 'k'), None);
    assert_eq!(
        screen.said(),
        Some(("there is no leader; choose a node with the arrows", false))
    );
}

#[test]
fn what_was_done_and_worked_becomes_a_scenario() {
    let mut screen = lived();
    assert!(record::scenario(&screen).is_err(), "nothing was done");
    let mut done = |key: char, words: &str, at_ms: u64, result: Result<String, Failure>| {
        screen.tick(START_US + at_ms * 1000);
        assert_eq!(type_(&mut screen, key), Some(Wish::Do(words.to_owned())));
        let words = words.to_owned();
        screen.take(START_US + at_ms * 1000, News::Done { words, result });
    };
    done('k', "kill n4", 10_000, Ok("n4 killed".to_owned()));
    done(
        'i',
        "isolate n4",
        10_700,
        Err(Failure::usage("no links here")),
    );
    done('h', "heal", 11_250, Ok("healed f2".to_owned()));
    assert_eq!(screen.said(), Some(("heal: healed f2", true)));
    let text = record::scenario(&screen).unwrap();
    assert!(text.contains(
        "{ at = \"500ms\", do = \"kill leader\" },\n  { at = \"1750ms\", do = \"heal\" },"
    ));
    let scenario = crate::scenario::file::Scenario::parse("saved.toml", &text).unwrap();
    assert_eq!(scenario.name, "done by hand to demo");
    assert_eq!(scenario.steps.len(), 2);
}
