//! The receiving end of the demonstration's webhook, on loopback.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Result;

/// Takes requests until the process ends.
pub struct Listener {
    url: String,
    bodies: mpsc::Receiver<String>,
}

impl Listener {
    /// Listens on a free port.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/alert", listener.local_addr()?);
        let (send, bodies) = mpsc::channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A request that breaks off is none; whoever sent it will try again.
                let Ok(body) = take(stream) else { continue };
                if send.send(body).is_err() {
                    break;
                }
            }
        });
        Ok(Self { url, bodies })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next body, if one comes in time.
    pub fn next(&self, limit: Duration) -> Option<String> {
        self.bodies.recv_timeout(limit).ok()
    }
}

fn take(mut stream: TcpStream) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")?;
    Ok(body)
}
