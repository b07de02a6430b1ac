//! Every `testdata/config/*.cfg` against what zkd makes of it, in the `.txt` beside it.
//!
//! `ZKD_REWRITE=1 cargo test -p zkd --test config` renews them: read the diff. A first line `# myid N` hands
//! N in as the text of `myid`; `# dynamic NAME` hands in the file NAME of the same directory.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use zkd::config::{Config, ConfigError, ConfigWarning};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/config")
}

/// What a comment at the start of the file asks for.
fn asked<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    let mut comments = text.lines().take_while(|line| line.starts_with('#'));
    comments.find_map(|line| line.strip_prefix("# ")?.strip_prefix(what))
}

fn read(name: &str, text: &str) -> Result<(Config, Vec<ConfigWarning>), ConfigError> {
    let (mut config, mut warnings) = Config::parse(text, name)?;
    if let Some(dynamic) = asked(text, "dynamic ") {
        let text = fs::read_to_string(directory().join(dynamic)).expect("the dynamic file");
        let more;
        (config, more) = config.with_dynamic(&text, dynamic)?;
        warnings.extend(more);
    }
    if let Some(id) = asked(text, "myid ") {
        let more;
        (config, more) = config.with_my_id(id, "myid")?;
        warnings.extend(more);
    }
    Ok((config, warnings))
}

fn outcome(name: &str, text: &str) -> String {
    match read(name, text) {
        Err(error) => format!("error:\n{error}\n"),
        Ok((config, warnings)) => {
            let mut out = String::new();
            for warning in warnings {
                writeln!(out, "warning: {warning}").unwrap();
            }
            let client = config.client_address();
            writeln!(
                out,
                "distributed: {}; clients: {client:?}",
                config.is_distributed()
            )
            .unwrap();
            // Only what differs from the defaults, so that a file shows what it is about.
            let default = Config::default().effective_text();
            let is_new = |line: &&str| !default.lines().any(|other| other == *line);
            for line in config.effective_text().lines().filter(is_new) {
                writeln!(out, "{line}").unwrap();
            }
            out
        }
    }
}

#[test]
fn every_file_means_what_its_transcript_says() {
    let mut files: Vec<PathBuf> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cfg"))
        .collect();
    files.sort();
    assert!(files.len() > 10, "the files are not there");
    for path in files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let found = outcome(&name, &text);
        let transcript = path.with_extension("txt");
        if std::env::var_os("ZKD_REWRITE").is_some() {
            fs::write(&transcript, &found).unwrap();
        }
        let expected = fs::read_to_string(&transcript).unwrap_or_default();
        assert!(
            found == expected,
            "{name} does not mean what {} says:\n{found}\n\
             If it is meant: ZKD_REWRITE=1 cargo test -p zkd --test config",
            transcript.display()
        );
    }
}

/// The text of the effective configuration is a configuration that means the same.
#[test]
fn the_effective_text_reads_as_itself() {
    let text = "dataDir=/d\nclientPort=2182\nautopurge.purgeInterval=90m\nforceSync=no\n\
                snapshot.compression.method=snappy\n4lw.commands.whitelist=ruok, srvr\n\
                initLimit=10\nsyncLimit=5\nserver.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2\n\
                group.1=1:2\ngroup.2=3\nweight.1=2\n";
    let (config, _) = Config::parse(text, "zoo.cfg").unwrap();
    let shown = config.effective_text();
    let (again, _) = Config::parse(&shown, "zoo.cfg").unwrap();
    assert_eq!(again.effective_text(), shown);
    assert_eq!(again.purge_interval_ms, 90 * 60_000);
    assert!(!again.force_sync);
}

/// The samples in `configs/` work, and warn of nothing.
#[test]
fn the_samples_are_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    for (name, distributed) in [("standalone.cfg", false), ("ensemble.cfg", true)] {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        let (config, warnings) = Config::parse(&text, name).unwrap();
        assert_eq!(warnings, [], "{name}");
        assert_eq!(config.is_distributed(), distributed, "{name}");
        assert!(
            config.purge_interval_ms > 0,
            "{name}: samples ship with the purge on"
        );
    }
}
