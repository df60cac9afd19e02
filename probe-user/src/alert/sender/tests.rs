//! Deliveries to webhooks that work, fail, hang and come back.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::time::Instant;

use super::*;
use crate::alert::{Address, MAX_WAITING, Message};
use crate::snapshot::tests::sidecar;

/// A webhook that answers with each status in turn, then with the last; returns its URL and the bodies it gets.
fn webhook(statuses: &'static [u16]) -> (String, mpsc::Receiver<serde_json::Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    let (bodies, received) = mpsc::channel();
    std::thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).expect("a header");
                if let Some((name, value)) = line.split_once(':')
                    && name.eq_ignore_ascii_case("content-length")
                {
                    length = value.trim().parse().expect("a length");
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).expect("a body");
            let status = statuses[index.min(statuses.len() - 1)];
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).expect("an answer");
            if bodies.send(serde_json::from_slice(&body).expect("JSON")).is_err() {
                return;
            }
        }
    });
    (url, received)
}

fn channel(name: &str, url: &str) -> Channel {
    Channel { name: name.into(), address: Address::Url(url.into()) }
}

fn message() -> Message {
    Message::new(&sidecar(ulid::Ulid::nil()), None)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn pauses_grow_to_five_minutes() {
    let seconds: Vec<u64> = (0..10).map(|attempts| backoff(attempts).as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert_eq!(backoff(u32::MAX).as_secs(), 300);
}

#[test]
fn a_message_is_delivered_once_and_again_after_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    let (url, received) = webhook(&[500, 200]);
    let outbox = Arc::new(Outbox::open(folder.path()));
    let sender = Sender::start(Arc::clone(&outbox), &[channel("ops", &url)]).expect("starts");
    outbox.push("ops", &message());
    for _ in 0..2 {
        let body = received.recv_timeout(Duration::from_secs(10)).expect("delivered");
        assert_eq!((&body["rule"], &body["value"]), (&"checkout-cpu".into(), &97.5.into()));
    }
    wait_until("delivered", || outbox.waiting() == 0);
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
    assert_eq!(outbox.dropped(), 0);
    assert!(received.try_recv().is_err(), "once is enough");
    sender.stop(Duration::from_secs(1));
}

#[test]
fn a_channel_that_hangs_holds_up_no_other_and_its_message_outlives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hanging_url = format!("http://{}/", hanging.local_addr().expect("an address"));
    let (url, received) = webhook(&[200]);
    let outbox = Arc::new(Outbox::open(folder.path()));
    let channels = [channel("hanging", &hanging_url), channel("ops", &url)];
    let sender = Sender::start(Arc::clone(&outbox), &channels).expect("starts");
    outbox.push("hanging", &message());
    outbox.push("ops", &message());
    received.recv_timeout(Duration::from_secs(5)).expect("delivered");
    wait_until("delivered", || outbox.waiting() == 1);
    let started = Instant::now();
    sender.stop(Duration::from_millis(100));
    assert!(started.elapsed() < Duration::from_secs(1), "stopping waits for nobody");

    let (url, received) = webhook(&[200]);
    std::fs::write(folder.path().join("torn.json"), "{").expect("written");
    let outbox = Arc::new(Outbox::open(folder.path()));
    assert_eq!(outbox.waiting(), 1);
    let sender = Sender::start(Arc::clone(&outbox), &[channel("hanging", &url)]).expect("starts");
    received.recv_timeout(Duration::from_secs(5)).expect("delivered after the restart");
    wait_until("delivered", || outbox.waiting() == 0);
    sender.stop(Duration::from_secs(1));
}

#[test]
fn messages_of_channels_that_are_gone_are_dropped_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let outbox = Arc::new(Outbox::open(folder.path()));
    outbox.push("gone", &message());
    let sender = Sender::start(Arc::clone(&outbox), &[]).expect("starts");
    assert_eq!((outbox.waiting(), outbox.dropped()), (0, 1));
    sender.stop(Duration::ZERO);
}

#[test]
fn a_full_outbox_drops_the_oldest_and_an_unwritable_one_keeps_messages_in_memory() {
    let outbox = Outbox::open(std::path::Path::new("/proc/nonexistent/outbox"));
    for _ in 0..MAX_WAITING + 2 {
        outbox.push("ops", &message());
    }
    assert_eq!((outbox.waiting(), outbox.dropped()), (MAX_WAITING, 2));
}
