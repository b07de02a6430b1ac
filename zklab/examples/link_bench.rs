//! Measures a link between two nodes of a lab: one end receives and echoes, the other sends. For `scripts/bench`.
//!
//! ```text
//! zklab exec n2 -- link_bench serve &
//! zklab exec n1 -- link_bench ask 10.77.0.2     prints gbit_s, ping_p50_us and ping_p99_us
//! ```

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// Ports that no server of a lab uses.
const STREAM: u16 = 5101;
const PING: u16 = 5102;
/// How long bytes are sent.
const SENDING: Duration = Duration::from_secs(2);
const PINGS: usize = 2000;
/// Between two pings, so that they find the machine as quiet as heartbeats do.
const GAP: Duration = Duration::from_millis(1);

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => serve(),
        ["ask", host] => ask(host),
        _ => {
            writeln!(
                std::io::stderr(),
                "usage: link_bench serve | link_bench ask HOST"
            )?;
            std::process::exit(2);
        }
    }
}

/// Takes one stream, and echoes until there is no ping any more.
fn serve() -> std::io::Result<()> {
    let stream = TcpListener::bind(("0.0.0.0", STREAM))?;
    let pings = UdpSocket::bind(("0.0.0.0", PING))?;
    let (mut stream, _) = stream.accept()?;
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    stream.write_all(&total.to_be_bytes())?;
    pings.set_read_timeout(Some(Duration::from_secs(5)))?;
    while let Ok((count, from)) = pings.recv_from(&mut buffer) {
        pings.send_to(&buffer[..count], from)?;
        if count == 1 {
            break;
        }
    }
    Ok(())
}

fn ask(host: &str) -> std::io::Result<()> {
    let mut stream = patiently(|| TcpStream::connect((host, STREAM)))?;
    let block = vec![7; 1 << 20];
    let begin = Instant::now();
    while begin.elapsed() < SENDING {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut total = [0; 8];
    stream.read_exact(&mut total)?;
    let bits = u64::from_be_bytes(total) as f64 * 8.0;
    let gbit_s = bits / begin.elapsed().as_secs_f64() / 1e9;

    let pings = UdpSocket::bind(("0.0.0.0", 0))?;
    pings.connect((host, PING))?;
    pings.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut took_us: Vec<f64> = Vec::with_capacity(PINGS);
    let mut buffer = [0; 64];
    for _ in 0..PINGS {
        std::thread::sleep(GAP);
        let begin = Instant::now();
        pings.send(&[0; 32])?;
        pings.recv(&mut buffer)?;
        took_us.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    pings.send(&[0])?;
    took_us.sort_by(f64::total_cmp);
    let at = |share: f64| took_us[(PINGS as f64 * share) as usize];
    writeln!(
        std::io::stdout(),
        "{{\"gbit_s\":{gbit_s:.1},\"ping_p50_us\":{:.0},\"ping_p99_us\":{:.0}}}",
        at(0.5),
        at(0.99)
    )
}

/// The other end may not listen yet.
fn patiently<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Err(error) if begin.elapsed() < Duration::from_secs(5) => {
                std::thread::sleep(Duration::from_millis(20));
                drop(error);
            }
            other => return other,
        }
    }
}
