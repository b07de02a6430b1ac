//! The four-letter words `mntr` and `srvr`, asked and understood.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zkd::ids::Zxid;

use super::{Answer, Digest};
use crate::event::{HexZxid, Role};

/// More than any server answers to `mntr`.
const ANSWER_MAX: u64 = 1 << 20;

/// Sends a word and reads the answer to its end.
///
/// # Errors
/// If the server cannot be reached or does not finish in time.
pub async fn ask(address: SocketAddr, word: &str, patience: Duration) -> io::Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut text = Vec::new();
        stream.take(ANSWER_MAX).read_to_end(&mut text).await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    match timeout(patience, talk).await {
        Ok(answer) => answer,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// What the answers to `mntr` and `srvr` say.
#[must_use]
pub fn answer(monitor: &str, server: &str) -> Answer {
    let values: BTreeMap<&str, &str> = monitor
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let number = |key: &str| values.get(key).and_then(|text| text.parse::<f64>().ok());
    let count = |key: &str| values.get(key).and_then(|text| text.parse::<u64>().ok());
    let field = |name: &str| {
        server
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let role = role(
        values
            .get("zk_server_state")
            .copied()
            .or_else(|| field("Mode")),
    );
    let serves = role != Role::Looking;
    let zxid = values
        .get("zk_last_zxid")
        .copied()
        .or_else(|| field("Zxid"));
    let zxid = zxid.and_then(HexZxid::parse).filter(|_| serves);
    let told_epoch = values
        .get("zk_current_epoch")
        .or_else(|| values.get("zk_epoch"))
        .and_then(|text| text.parse::<i64>().ok());
    let version = values
        .get("zk_version")
        .copied()
        .or_else(|| field("Zookeeper version"))
        .map(|text| {
            text.split([',', '-', ' '])
                .next()
                .unwrap_or(text)
                .to_owned()
        });
    Answer {
        role,
        zxid,
        epoch: told_epoch.or_else(|| zxid.map(|zxid| Zxid(zxid.0).epoch().0)),
        connections: count("zk_num_alive_connections").map(|open| open.saturating_sub(1)),
        synced_followers: count("zk_synced_followers"),
        digest: digest(&values),
        znodes: count("zk_znode_count"),
        version,
        fsync_p99_ms: number("zk_p99_fsynctime"),
    }
}

/// The role named by `zk_server_state` or `Mode:`; a server that says it is not serving is looking.
fn role(word: Option<&str>) -> Role {
    match word {
        Some("leader") => Role::Leader,
        Some("follower") => Role::Follower,
        Some("observer") => Role::Observer,
        Some("standalone") => Role::Standalone,
        _ => Role::Looking,
    }
}

/// zkd tells the digest of its tree and the zxid it belongs to; Apache does not.
fn digest(values: &BTreeMap<&str, &str>) -> Option<Digest> {
    let value = values.get("zk_tree_digest")?;
    let zxid = values
        .get("zk_tree_digest_zxid")
        .or_else(|| values.get("zk_last_zxid"))?;
    Some(Digest {
        zxid: HexZxid::parse(zxid)?,
        value: value.trim_start_matches("0x").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_of_3_8_is_understood() {
        let monitor = "zk_version\t3.8.0-5a02a05eddb59aee6ac762f7ea82e92a68eb9c0f, built on 2023\n\
            zk_server_state\tleader\nzk_peer_state\tleading - broadcast\nzk_num_alive_connections\t3\n\
            zk_synced_followers\t4\nzk_znode_count\t5\nzk_p99_fsynctime\t2.0\n";
        let server = "Zookeeper version: 3.8.0\nZxid: 0x200000003\nMode: leader\nNode count: 5\n";
        let answer = answer(monitor, server);
        assert_eq!(answer.role, Role::Leader);
        assert_eq!(answer.zxid, Some(HexZxid(0x2_0000_0003)));
        assert_eq!(answer.epoch, Some(2));
        assert_eq!(answer.connections, Some(2));
        assert_eq!(answer.synced_followers, Some(4));
        assert_eq!(answer.version.as_deref(), Some("3.8.0"));
        assert_eq!(answer.digest, None);
    }

    #[test]
    fn zkd_tells_the_digest_and_its_zxid() {
        let monitor = "zk_server_state\tfollower\nzk_current_epoch\t3\nzk_last_zxid\t0x200000003\n\
            zk_tree_digest_zxid\t0x200000003\nzk_tree_digest\t0x0000000151c6d660\n";
        let answer = answer(monitor, "");
        assert_eq!(answer.epoch, Some(3));
        let digest = answer.digest.unwrap();
        assert_eq!(digest.zxid, HexZxid(0x2_0000_0003));
        assert_eq!(digest.value, "0000000151c6d660");
    }

    #[test]
    fn a_server_in_an_election_serves_nothing() {
        let text = "This ZooKeeper instance is not currently serving requests\n";
        let answer = answer(text, text);
        assert_eq!(answer.role, Role::Looking);
        assert_eq!((answer.zxid, answer.epoch), (None, None));
    }
}
