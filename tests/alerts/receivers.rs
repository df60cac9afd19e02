//! Receivers that do what they like: whatever they answer, or do not, other channels get their alerts in time, nothing is
//! taken for delivered that is not, nobody is sent elsewhere, and memory stays bounded.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use probe_tests::trial::unprivileged;

use crate::fake::{Reply, Server};
use crate::scene::{Bench, firing};

pub fn tests() -> Vec<Trial> {
    vec![unprivileged("receivers::none_that_misbehaves_holds_up_another", misbehaving)]
}

/// What is sent to everybody.
const ALERTS: u32 = 5;
/// How long a receiver misbehaves, if nobody ends it.
const LONG: Duration = Duration::from_secs(60);

/// What a receiver does with a connection, given the address of the one that behaves.
type Manner = fn(&mut TcpStream, SocketAddr) -> std::io::Result<()>;

/// Each says nothing that could be taken for success.
const MANNERS: [(&str, &str, Manner); 10] = [
    ("silent", "http", |_, _| {
        std::thread::sleep(LONG);
        Ok(())
    }),
    ("closes", "http", |_, _| Ok(())),
    ("endless-head", "http", |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        for_ever(stream, &format!("x-more: {}\r\n", "x".repeat(4000)).repeat(16))
    }),
    ("endless-line", "http", |stream, _| for_ever(stream, &"HTTP/1.1 200 ".repeat(4096))),
    ("endless-prelude", "http", |stream, _| for_ever(stream, &"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000))),
    ("endless-failure", "http", |stream, _| {
        stream.write_all(b"HTTP/1.1 500 X\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for_ever(stream, &format!("1000\r\n{}\r\n", "x".repeat(4096)).repeat(16))
    }),
    ("drips", "http", |stream, _| {
        for byte in b"HTTP/1.1 200 OK\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x')) {
            stream.write_all(&[*byte])?;
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }),
    ("nonsense", "http", |stream, _| stream.write_all(b"HTTP/9.9 -1 \x00\xff\r\n: \r\n\r\n\r\n\r\n")),
    ("redirects", "http", |stream, good| {
        write!(stream, "HTTP/1.1 307 X\r\nlocation: http://{good}/elsewhere\r\ncontent-length: 0\r\n\r\n")
    }),
    ("no-tls", "https", |stream, _| for_ever(stream, &"\u{16}\u{3}\u{1}garbage".repeat(1000))),
];

fn for_ever(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    let until = Instant::now() + LONG;
    while Instant::now() < until {
        stream.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// A receiver; it ends with the test's process.
fn receiver(manner: Manner, good: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // It reads something, so that a connection that it closes is no mere reset; whoever asks goes away at some time.
                let _ = stream.read(&mut [0; 512]).and_then(|_| manner(&mut stream, good));
            });
        }
    });
    Ok(address)
}

/// The most memory that this process had, in MiB.
fn most_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}

fn misbehaving() -> Result<()> {
    let good = Server::start(|_, _| Reply::status(200))?;
    let hook = |name: &str, url: &str| {
        format!("[[notify]]\nname = '{name}'\ntype = 'webhook'\nurl = '{url}'\ngroup_wait = 0\ntimeout = '2s'\n")
    };
    let at: SocketAddr = good.url("").trim_start_matches("http://").parse()?;
    let mut channels = hook("good", &good.url("/good"));
    for (name, scheme, manner) in MANNERS {
        channels += &hook(name, &format!("{scheme}://{}/hook", receiver(manner, at)?));
    }
    let mut bench = Bench::new(&channels)?;
    let before = most_memory()?;
    let names: Vec<&str> = MANNERS.iter().map(|(name, ..)| *name).chain(["good"]).collect();
    let begin = Instant::now();
    for pid in 1..=ALERTS {
        bench.journal.append(&firing(pid, &names));
    }
    bench.wait("good", "all sent", |figures| figures.sent == u64::from(ALERTS))?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "the good one waited {:?}", begin.elapsed());
    for (name, ..) in MANNERS {
        let figures = bench.wait(name, "a second failure", |figures| figures.failed >= 2 || figures.dead > 0)?;
        ensure!(figures.sent == 0, "{name}: taken for delivered: {figures:?}");
        ensure!(figures.queued as u64 + figures.dead == u64::from(ALERTS), "{name}: something is lost: {figures:?}");
    }
    // And still, while all others are tried again.
    let begin = Instant::now();
    bench.journal.append(&firing(ALERTS + 1, &names));
    bench.wait("good", "the last one sent", |figures| figures.sent == u64::from(ALERTS) + 1)?;
    ensure!(begin.elapsed() < Duration::from_secs(10), "the good one waited {:?}", begin.elapsed());
    let requests = good.requests();
    ensure!(requests.iter().all(|request| request.path == "/good"), "somebody was sent elsewhere: {requests:?}");
    let grown = most_memory()?.saturating_sub(before);
    ensure!(grown < 64, "memory has grown by {grown} MiB");
    let begin = Instant::now();
    bench.stop();
    ensure!(begin.elapsed() < Duration::from_secs(10), "it stopped after {:?}", begin.elapsed());
    Ok(())
}
