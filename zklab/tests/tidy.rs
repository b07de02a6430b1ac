//! The floors of zklab: a module imports only from floors below its own, and on one floor only from modules
//! listed before it. ARCHITECTURE.md says what each is for.

use std::fs;
use std::path::{Path, PathBuf};

/// Lowest first; on a floor in the order in which they may know each other.
const FLOORS: [&[&str]; 8] = [
    &["clock", "id", "event", "failure"],
    &[],
    &["net", "disk", "wall", "node", "probe"],
    &["ensemble"],
    &["observe", "fault", "bench"],
    &["supervisor", "scenario"],
    &["report"],
    &["cli", "command"],
];

fn height(module: &str) -> Option<(usize, usize)> {
    FLOORS.iter().enumerate().find_map(|(floor, modules)| {
        let place = modules.iter().position(|known| *known == module)?;
        Some((floor, place))
    })
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn modules_know_only_the_floors_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut broken = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap().as_os_str();
        let module = first.to_string_lossy().trim_end_matches(".rs").to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let own = height(&module).unwrap_or_else(|| panic!("{module} is on no floor"));
        for (number, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            for part in line.split("crate::").skip(1) {
                let known: String = part
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if known != module && height(&known).is_some_and(|other| other > own) {
                    let place = format!("{}:{}", inside.display(), number + 1);
                    broken.push(format!("{place}: {module} is below {known}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
