//! A server of HTTP that answers as the test says: with any status, late, never, or by breaking off.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

/// What was asked.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub path: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
    pub at: Instant,
}

impl Request {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// A value of the query, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let query = self.path.split_once('?')?.1;
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(decode(pair))
    }
}

/// Undoes the encoding of queries and forms.
pub fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let digits = |a: u8, b: u8| u8::from_str_radix(&format!("{}{}", char::from(a), char::from(b)), 16).ok();
        match byte {
            b'%' => bytes.extend(rest.next().zip(rest.next()).and_then(|(a, b)| digits(a, b))),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is answered.
pub enum Reply {
    /// Status, one header perhaps, body.
    Answer(u16, Option<(&'static str, String)>, String),
    /// Nothing, for so long.
    Hang(Duration),
    /// The connection breaks.
    Reset,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self::Answer(status, None, String::new())
    }

    pub fn json(value: &Value) -> Self {
        Self::Answer(200, None, value.to_string())
    }
}

/// A listening server. It ends with the test's process.
pub struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Listens; `reply` gets each request with its number, from 0.
    pub fn start(reply: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Result<Self> {
        Self::at("127.0.0.1:0".parse()?, reply)
    }

    /// Listens at an address.
    pub fn at(address: SocketAddr, reply: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (shared, reply) = (Arc::clone(&requests), Arc::new(reply));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, reply) = (Arc::clone(&shared), Arc::clone(&reply));
                std::thread::spawn(move || {
                    // A request that breaks off is none.
                    let Ok(request) = read(&stream) else { return };
                    let number = {
                        let mut requests = shared.lock().expect("no test panics with it");
                        requests.push(request.clone());
                        requests.len() - 1
                    };
                    let _ = answer(stream, reply(&request, number));
                });
            }
        });
        Ok(Self { address, requests })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test panics with it").clone()
    }
}

/// An address at which nobody listens.
pub fn nobody() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn read(stream: &TcpStream) -> Result<Request> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let method = words.next().context("a method")?.to_owned();
    let path = words.next().context("a path")?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok(Request { method, path, headers, body, at: Instant::now() })
}

fn answer(mut stream: TcpStream, reply: Reply) -> std::io::Result<()> {
    match reply {
        Reply::Answer(status, header, body) => {
            let header = header.map_or(String::new(), |(name, value)| format!("{name}: {value}\r\n"));
            let length = body.len();
            write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{header}connection: close\r\n\r\n{body}")
        }
        Reply::Hang(time) => {
            std::thread::sleep(time);
            Ok(())
        }
        // With the request read it ends without an answer.
        Reply::Reset => stream.shutdown(std::net::Shutdown::Both),
    }
}
