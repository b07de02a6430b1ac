//! The laws of the code that a compiler does not know, checked by reading the source.
//!
//! The floors: a module imports only from floors below its own, on floors 3 and 4 also from the modules listed
//! before it. Below floor 6 nothing reads a clock, the environment, a file or a socket. ARCHITECTURE.md says
//! why. A broken law is reported with its place and with what to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first, and the modules on each in the order in which they may know each other.
const FLOORS: [&[&str]; 8] = [
    &["ids", "time", "prng", "path", "error", "event", "planted"],
    &["jute"],
    &["record", "config"],
    &["quorum", "auth", "watch", "session", "tree", "metrics"],
    &["storage", "election", "zab", "pipeline"],
    &["peer", "status"],
    &["runtime", "sim"],
    &["main", "cli"],
];

/// Floors on which a module may know those listed before it.
const ORDERED_FLOORS: [usize; 3] = [3, 4, 5];

/// The floor from which on the outside world may be touched.
const DRIVER_FLOOR: usize = 6;

/// Who must not know whom although the floors would allow it: to Zab and elections a txn is opaque bytes.
const STRANGERS: [(&str, &[&str]); 2] = [
    (
        "zab",
        &["tree", "watch", "session", "auth", "storage", "election"],
    ),
    ("election", &["tree", "watch", "session", "auth", "storage"]),
];

/// What reaches into the outside world, and what to use instead.
const WORLD: [(&str, &str); 14] = [
    ("std::time", "take crate::time::Now as an argument"),
    ("SystemTime", "take crate::time::Now as an argument"),
    ("std::env", "take the value as an argument"),
    ("std::fs", "go through storage::Disk"),
    ("std::process", "return an error that ends the server"),
    ("std::thread", "leave threads to the runtime"),
    ("thread::spawn", "leave threads to the runtime"),
    ("thread::Builder", "leave threads to the runtime"),
    ("TcpStream", "leave sockets to the runtime"),
    ("TcpListener", "leave sockets to the runtime"),
    ("UdpSocket", "leave sockets to the runtime"),
    ("ToSocketAddrs", "leave names to the runtime"),
    ("socket2::", "leave sockets to the runtime"),
    ("nix::", "leave system calls to the runtime"),
];

/// The one file below the drivers that may touch files.
const DISK: &str = "storage/disk.rs";

/// The one file below the drivers that may share its work with a second thread, which has to end before the function
/// that began it: `std::thread::scope` sees to that.
const DIVIDED: &str = "storage/snapshot/read/divided.rs";

/// The longest file, tests apart.
const LINES_MAX: usize = 800;

/// One source file, and what is known of it.
struct Source {
    /// Relative to the workspace.
    name: String,
    /// Relative to `src` of its crate.
    within: String,
    /// Every line.
    lines: Vec<String>,
    /// How many of them come before the tests at its end.
    code_lines: usize,
    /// Is all of it only compiled for tests?
    is_test: bool,
}

impl Source {
    /// The module of the crate's root that the file belongs to.
    fn module(&self) -> &str {
        let first = self.within.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many modules below the root of the crate it is.
    fn depth(&self) -> usize {
        let parts = self.within.split('/').filter(|part| *part != "mod.rs");
        parts.count()
    }

    /// Lines of code that are not tests, with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let count = if self.is_test { 0 } else { self.code_lines };
        let lines = self.lines.iter().take(count).enumerate();
        lines.map(|(index, line)| {
            let end = line.find("//").unwrap_or(line.len());
            (index + 1, &line[..end])
        })
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in a workspace")
        .to_owned()
}

fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every file under `root` of the workspace.
fn sources(root: &str) -> Vec<Source> {
    let workspace = workspace();
    let dir = workspace.join(root);
    let mut paths = Vec::new();
    rust_files(&dir, &mut paths);
    let mut sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let relative = |base: &Path| {
                let path = path.strip_prefix(base).expect("found below it");
                path.to_string_lossy().replace('\\', "/")
            };
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            Source {
                name: relative(&workspace),
                within: relative(&dir),
                code_lines: code_lines(&lines),
                lines,
                is_test: false,
            }
        })
        .collect();
    let tests = test_modules(&sources);
    for source in &mut sources {
        let path = source
            .within
            .trim_end_matches(".rs")
            .trim_end_matches("/mod");
        source.is_test = tests
            .iter()
            .any(|test| path == test || path.starts_with(&format!("{test}/")));
    }
    sources
}

/// The lines before a `#[cfg(test)]` that opens a module in the file itself.
fn code_lines(lines: &[String]) -> usize {
    let opens = |pair: &[String]| {
        pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{')
    };
    lines.windows(2).position(opens).unwrap_or(lines.len())
}

/// The files that are declared as modules for tests only.
fn test_modules(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let parent = source
            .within
            .trim_end_matches(".rs")
            .trim_end_matches("mod")
            .trim_end_matches('/');
        let parent = if parent == "lib" || parent == "main" {
            ""
        } else {
            parent
        };
        for pair in source
            .lines
            .windows(2)
            .filter(|pair| pair[0].trim() == "#[cfg(test)]")
        {
            let Some((_, name)) = pair[1].split_once("mod ") else {
                continue;
            };
            if let Some(name) = name.strip_suffix(';') {
                found.push(
                    format!("{parent}/{name}")
                        .trim_start_matches('/')
                        .to_owned(),
                );
            }
        }
    }
    found
}

fn floor_of(module: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, modules)| {
        let place = modules.iter().position(|name| *name == module)?;
        Some((floor, place))
    })
}

/// The modules of the crate's root that the code names: `crate::x`, `crate::{x, y::z}`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut group: Option<i32> = None;
    for (number, line) in source.code() {
        let mut rest = line;
        if let Some(depth) = &mut group {
            if group_members(rest, depth, number, &mut found) {
                group = None;
            }
            continue;
        }
        while let Some(at) = rest.find("crate::") {
            rest = &rest[at + "crate::".len()..];
            if let Some(inner) = rest.strip_prefix('{') {
                let mut depth = 0;
                if !group_members(inner, &mut depth, number, &mut found) {
                    group = Some(depth);
                }
                break;
            }
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            found.push((number, name));
        }
    }
    found
}

/// Reads the members of `crate::{…}` from one line; `true` when the group has ended.
fn group_members(
    line: &str,
    depth: &mut i32,
    number: usize,
    found: &mut Vec<(usize, String)>,
) -> bool {
    let mut name = String::new();
    let mut starts = true;
    for c in line.chars().chain([' ']) {
        if is_word(c) {
            name.push(c);
            continue;
        }
        if *depth == 0 && starts && !name.is_empty() {
            found.push((number, name.clone()));
        }
        starts = (starts && name.is_empty() && c != ':') || c == ',';
        name.clear();
        match c {
            '{' => *depth += 1,
            '}' if *depth == 0 => return true,
            '}' => *depth -= 1,
            _ => {}
        }
    }
    false
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Fails with every broken law, one a line.
fn report(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let mut broken = Vec::new();
    for source in sources("zkd/src") {
        let module = source.module().to_owned();
        if module != "lib" && floor_of(&module).is_none() {
            broken.push(format!(
                "{}: module {module} is on no floor: add it to FLOORS in zkd/tests/tidy.rs and to ARCHITECTURE.md",
                source.name
            ));
        }
    }
    report(&broken);
}

#[test]
fn modules_import_only_from_below() {
    let mut broken = Vec::new();
    for source in sources("zkd/src") {
        let module = source.module().to_owned();
        let Some((floor, place)) = floor_of(&module) else {
            continue;
        };
        for (number, import) in imports(&source) {
            // A macro at the root, and whatever else is no module.
            let Some((other_floor, other_place)) = floor_of(&import) else {
                continue;
            };
            let earlier =
                ORDERED_FLOORS.contains(&floor) && other_floor == floor && other_place < place;
            if import != module && other_floor >= floor && !earlier {
                broken.push(format!(
                    "{}:{number}: {module} (floor {floor}) imports {import} (floor {other_floor}): hand the \
                     value in as an argument, or move what both need to a floor below",
                    source.name
                ));
            }
            let strangers = STRANGERS.iter().find(|(name, _)| *name == module);
            if strangers.is_some_and(|(_, names)| names.contains(&import.as_str())) {
                broken.push(format!(
                    "{}:{number}: {module} must know nothing of {import}: to it a txn is opaque bytes with a zxid",
                    source.name
                ));
            }
        }
        for (number, line) in source.code() {
            let chain = "super::".repeat(source.depth());
            if line.contains(&chain) {
                broken.push(format!(
                    "{}:{number}: reaches the root of the crate by super: write crate::, so that it can be checked",
                    source.name
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn only_drivers_touch_the_world() {
    let mut broken = Vec::new();
    for source in sources("zkd/src") {
        let floor = floor_of(source.module()).map_or(0, |(floor, _)| floor);
        for (number, line) in source.code() {
            let may_use_tokio = matches!(source.module(), "runtime" | "main" | "cli");
            if line.contains("tokio::") && !may_use_tokio {
                broken.push(format!(
                    "{}:{number}: tokio is named only in runtime: make a machine of it and let runtime drive it",
                    source.name
                ));
            }
            if floor >= DRIVER_FLOOR || source.within == DISK {
                continue;
            }
            for (world, instead) in WORLD.iter().filter(|(world, _)| line.contains(world)) {
                if source.within == DIVIDED && *world == "std::thread" {
                    continue;
                }
                broken.push(format!(
                    "{}:{number}: {world} below floor {DRIVER_FLOOR}: {instead}",
                    source.name
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn what_travels_is_written_by_hand() {
    let mut broken = Vec::new();
    for source in sources("zkd/src") {
        let wire = matches!(
            source.module(),
            "jute" | "record" | "storage" | "zab" | "election"
        );
        for (number, line) in source.code() {
            if wire && line.contains("serde") {
                broken.push(format!(
                    "{}:{number}: records of the wire and the disk never derive serde: implement jute's Record",
                    source.name
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut broken = Vec::new();
    for source in ["zkd/src", "zkd/tests", "zklab/src", "zklab/tests"]
        .into_iter()
        .flat_map(sources)
    {
        if !source
            .lines
            .first()
            .is_some_and(|line| line.starts_with("//!"))
        {
            broken.push(format!(
                "{}:1: opens without //!: say what the file is, its law, and what it leaves to others",
                source.name
            ));
        }
        let count = source.code_lines;
        if count > LINES_MAX && !source.is_test {
            broken.push(format!(
                "{}: {count} lines without its tests, more than {LINES_MAX}: cut it along a seam of the protocol",
                source.name
            ));
        }
    }
    report(&broken);
}

#[test]
fn nothing_unfinished_is_left() {
    // Put together here, so that this file does not find itself.
    let marks: BTreeMap<String, &str> = BTreeMap::from([
        (
            ["TO", "DO"].concat(),
            "finish it, or write an open question into ARCHITECTURE.md",
        ),
        (
            ["FIX", "ME"].concat(),
            "mend it, or write an open question into ARCHITECTURE.md",
        ),
        (["to", "do!("].concat(), "write the code"),
        (
            ["unimple", "mented!("].concat(),
            "write the code, or return an error that says what is missing",
        ),
        (["db", "g!("].concat(), "remove it"),
        (
            ["#[al", "low("].concat(),
            "use #[expect(…, reason = \"…\")]",
        ),
        (
            ["#![al", "low("].concat(),
            "use #[expect(…, reason = \"…\")] at the place",
        ),
        (["#[ig", "nore"].concat(), "make the test run, or remove it"),
    ]);
    let mut broken = Vec::new();
    for source in ["zkd/src", "zkd/tests", "zklab/src", "zklab/tests"]
        .into_iter()
        .flat_map(sources)
    {
        for (index, line) in source.lines.iter().enumerate() {
            for (mark, advice) in marks
                .iter()
                .filter(|(mark, _)| line.contains(mark.as_str()))
            {
                broken.push(format!("{}:{}: {mark}: {advice}", source.name, index + 1));
            }
        }
        let within_tests = source.name.contains("/tests/");
        for (number, line) in source.code().filter(|_| !within_tests) {
            if line.contains(".unwrap()") {
                broken.push(format!(
                    "{}:{number}: unwrap outside a test: handle it, or expect(\"the invariant that holds\")",
                    source.name
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn the_checker_reads_imports() {
    let source = |text: &str| {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        Source {
            name: "x".into(),
            within: "zab/leader.rs".into(),
            code_lines: code_lines(&lines),
            lines,
            is_test: false,
        }
    };
    let text = "use crate::ids::Zxid; // crate::tree\n\
                use crate::{jute, record::{data, tree}, error::E};\n\
                use crate::{\n    time::Now,\n    prng::{\n        self, path,\n    },\n    event,\n};\n\
                fn f(x: crate::quorum::Q) -> crate::auth::A {}\n\
                #[cfg(test)]\nmod tests {\n    use crate::sim::World;\n}\n";
    let source = source(text);
    let names: Vec<String> = imports(&source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(
        names,
        [
            "ids", "jute", "record", "error", "time", "prng", "event", "quorum", "auth"
        ]
    );
    assert_eq!((source.module(), source.depth()), ("zab", 2));
}
