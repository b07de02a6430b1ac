//! Nodes that come and go where each has a network of its own, and packets that are written down.

use std::collections::BTreeMap;
use std::path::Path;

use super::lab::{Lab, lines};
use super::*;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Asks for the status until so many nodes have one tree.
fn all_alike(lab: &Lab, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = lab.json("status");
        let digest = &status["digest"];
        let alike = digest["nodes"].as_array().map_or(0, Vec::len);
        if alike == count && digest["equal"] == true {
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
    }
}

pub(super) fn a_node_comes_and_has_links_and_goes() {
    come_and_go(&Lab::new());
}

pub(super) fn an_ordinary_user_can_do_it_too() {
    let lab = Lab::of_an_ordinary_user();
    if kind() == NetKind::Tun && lab.is_of_an_ordinary_user() && !is_open_to_all("/dev/net/tun") {
        println!("without a check: /dev/net/tun is closed to ordinary users");
        return;
    }
    come_and_go(&lab);
}

fn is_open_to_all(path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o006 == 0o006)
}

fn come_and_go(lab: &Lab) {
    let up = lab.up("--nodes 3 --profile wan3");
    assert!(lab.run("cli create /a hello").status.success());
    let added = lab.json("add --observer");
    assert_eq!(added["addr"], "10.77.0.4", "{added}");
    assert!(added["synced"]["mode"].is_string(), "{added}");
    assert!(added["restarted"].as_array().unwrap().is_empty());
    assert_eq!(text(&lab.run("cli n4 get /a")), "hello");
    let shown = lines(&lab.run("--json link show"));
    assert_eq!(shown.len(), 12);
    let link = |name: &str| shown.iter().find(|link| link["link"] == name).unwrap();
    let sent = |to: &str| link(&format!("n4>{to}"))["sent"].as_u64().unwrap();
    assert!(sent("n1") + sent("n2") + sent("n3") > 0);
    let delay = |to: &str| link(&format!("n4>{to}"))["delay_us"].as_u64().unwrap();
    assert!(
        delay("n1") + delay("n2") + delay("n3") > 0,
        "the profile is for it too"
    );
    assert!(lab.run("exec n4 -- true").status.success());
    let cut = lab.json("partition isolate n4");
    assert_eq!(
        (&cut["links"].as_array().unwrap().len(), &cut["of"]),
        (&6, &12.into())
    );
    lab.json("heal --wait");
    let deadline = Instant::now() + PATIENCE;
    while !lab.run("cli n4 get /a").status.success() {
        assert!(Instant::now() < deadline, "n4 never comes back");
    }
    let voter = lab.json("add");
    assert_eq!(
        (&voter["id"], &voter["voters"]),
        (&"n5".into(), &4.into()),
        "{voter}"
    );
    all_alike(lab, 5);
    lab.json("partition isolate n4");
    let gone = lab.json("rm n4");
    assert_eq!(gone["id"], "n4");
    let status = lab.json("status");
    assert_eq!(status["faults"].as_array().unwrap().len(), 0, "{status}");
    let shown = lines(&lab.run("--json link show"));
    assert_eq!(shown.len(), 12, "n1 n2 n3 n5");
    assert!(
        !shown
            .iter()
            .any(|link| link["link"].as_str().unwrap().contains("n4"))
    );
    lab.refused("exec n4 -- true", "no node");
    let halves = lab.json("partition halves");
    assert!(!halves["links"].to_string().contains("n4"), "{halves}");
    lab.json("heal --wait");
    lab.json("rm leader");
    let again = lab.json("add --observer");
    assert!(
        lab.run(&format!("cli {} get /a", again["id"].as_str().unwrap()))
            .status
            .success()
    );
    assert_ne!(again["id"], "n4", "a name means one node");
    let data = up["data_dir"].as_str().unwrap().to_owned();
    lab.json("down");
    lab.assert_empty();
    assert!(!Path::new(&data).exists());
}

/// What a pcapng file holds: packets by the name of their interface, and comments.
#[derive(Debug, Default)]
struct Capture {
    packets: BTreeMap<String, Vec<Vec<u8>>>,
    comments: Vec<String>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The options of a block, by code.
fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let length = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        if code == 0 {
            break;
        }
        found.push((code, bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    found
}

/// Reads a whole file; a block that is cut off fails.
fn read(mut bytes: &[u8]) -> Capture {
    let mut capture = Capture::default();
    let mut names = Vec::new();
    assert_eq!(word(bytes, 0), 0x0a0d_0d0a);
    while !bytes.is_empty() {
        let length = word(bytes, 4) as usize;
        let (block, rest) = bytes.split_at(length);
        assert_eq!(word(block, length - 4) as usize, length);
        let body = &block[8..length - 4];
        match word(block, 0) {
            1 => {
                assert_eq!(body[..2], [228, 0], "raw IPv4 packets");
                let name = options(&body[8..]).into_iter().find(|(code, _)| *code == 2);
                names.push(String::from_utf8(name.unwrap().1).unwrap());
            }
            6 => {
                let name = names[word(body, 0) as usize].clone();
                let count = word(body, 12) as usize;
                assert_eq!(word(body, 16) as usize, count);
                let packet = body[20..20 + count].to_vec();
                capture.packets.entry(name).or_default().push(packet);
                for (code, text) in options(&body[20 + count.next_multiple_of(4)..]) {
                    assert_eq!(code, 1);
                    capture.comments.push(String::from_utf8(text).unwrap());
                }
            }
            _ => {}
        }
        bytes = rest;
    }
    capture
}

/// A file on disk, so many packets.
fn so_many_packets_in_a_file(lab: &Lab) {
    let report = lab.json("pcap n1 -o some.pcapng --count 20");
    assert_eq!(
        (&report["packets"], &report["left_out"]),
        (&20.into(), &0.into())
    );
    let some = read(&std::fs::read(lab.dir.path().join("some.pcapng")).unwrap());
    assert_eq!(some.packets.values().map(Vec::len).sum::<usize>(), 20);
    for (name, packets) in &some.packets {
        assert!(name.contains("n1"), "{name}");
        let (from, to) = name.split_once('>').unwrap();
        for packet in packets {
            assert_eq!(packet[0] >> 4, 4);
            let number = |name: &str| name[1..].parse::<u8>().unwrap();
            assert_eq!(packet[12..16], [10, 77, 0, number(from)]);
            assert_eq!(packet[16..20], [10, 77, 0, number(to)]);
            let length = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            assert_eq!(length, packet.len(), "it is whole");
        }
    }
}

pub(super) fn packets_are_written_down_with_what_became_of_them() {
    let lab = Lab::new();
    lab.up("--nodes 3 --tick 200ms");
    so_many_packets_in_a_file(&lab);
    // To stdout, until Ctrl-C, over a fault and a node that is new.
    let mut child = lab
        .command("pcap -o -")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut head = vec![0; 8];
    stdout.read_exact(&mut head).unwrap();
    lab.json("add --observer");
    lab.json("partition isolate n3");
    let deadline = Instant::now() + PATIENCE;
    let dropped = || {
        let links = lines(&lab.run("--json link show n3"));
        links
            .iter()
            .map(|link| link["dropped"].as_u64().unwrap())
            .sum::<u64>()
    };
    while dropped() == 0 {
        assert!(Instant::now() < deadline, "nothing was lost");
    }
    let reader = std::thread::spawn(move || {
        stdout.read_to_end(&mut head).unwrap();
        head
    });
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    let bytes = reader.join().unwrap();
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(child.wait().unwrap().success(), "{told}");
    let all = read(&bytes);
    assert!(
        all.packets.keys().any(|name| name.starts_with("n4>")),
        "{:?}",
        all.packets.keys()
    );
    assert!(
        all.comments.iter().any(|text| text.contains("lost")),
        "{:?}",
        all.comments
    );
    assert!(told.contains("packets"), "{told}");
    lab.refused("pcap -o x.pcapng n9", "no node");
    assert!(!lab.dir.path().join("x.pcapng").exists());
    lab.json("up other --nodes 1 --net loopback");
    lab.refused("-L other pcap -o x.pcapng", "pass no emulator");
    lab.json("down other");
    lab.json("down");
    lab.assert_empty();
}
