//! Real connections: limits, TLS, the end of the server, and `curl`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use probe::serve::{Access, Limits, Listener, Tls, TlsFiles, check, serve};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::Server;

/// A server that listens until it is dropped.
pub struct Running {
    pub address: SocketAddr,
    _server: Server,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Duration>>,
}

impl Running {
    pub fn start(access: Access, tls: Option<Tls>, max_connections: usize) -> Self {
        Self::patient(access, tls, max_connections, Listener::PATIENCE)
    }

    fn patient(access: Access, tls: Option<Tls>, max_connections: usize, patience: Duration) -> Self {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let server = Server::with(access, Limits::default());
        let (stop, stopped) = oneshot::channel();
        let router = server.router.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let mut asked = Instant::now();
            let stop = async {
                let _ = stopped.await;
                asked = Instant::now();
            };
            runtime.block_on(serve(Listener { socket, tls, max_connections, patience }, router, stop)).unwrap();
            asked.elapsed()
        });
        Self { address, _server: server, stop: Some(stop), thread: Some(thread) }
    }

    /// Ends it and says how long that took.
    pub fn stop(&mut self) -> Duration {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// The same from another address of this host.
fn connect_from(own: [u8; 4], address: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((own, 0))).unwrap();
    connect(&socket, &address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn exchange(mut stream: &TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&text).contains("\"status\"") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// `curl`, or `None` where there is none.
fn curl(arguments: &[&str]) -> Option<Output> {
    match Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: curl cannot be run: {error}");
            None
        }
    }
}

#[test]
fn more_connections_than_allowed_wait() {
    let running = Running::start(Access::loopback(), None, 2);
    // Of two addresses: one alone does not get all.
    let (one, two) = (connect(running.address), connect_from([127, 0, 0, 2], running.address));
    let three = connect_from([127, 0, 0, 3], running.address);
    assert!(exchange(&one, HEALTH).starts_with("HTTP/1.1 200 OK"));
    assert!(exchange(&two, HEALTH).starts_with("HTTP/1.1 200 OK"));
    (&three).write_all(HEALTH.as_bytes()).unwrap();
    three.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!((&three).read(&mut [0; 16]).is_err(), "nobody answers yet");
    drop(one);
    three.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert!(exchange(&three, "").starts_with("HTTP/1.1 200 OK"));
}

#[test]
fn who_says_nothing_is_let_go() {
    let running = Running::patient(Access::loopback(), None, 8, Duration::from_millis(500));
    let (silent, slow, idle) = (connect(running.address), connect(running.address), connect(running.address));
    (&slow).write_all(b"GET /healthz HTTP/1.1\r\nHost: ").unwrap();
    assert!(exchange(&idle, HEALTH).starts_with("HTTP/1.1 200"));
    for (mut stream, name) in [(silent, "silent"), (slow, "slow"), (idle, "idle")] {
        let start = Instant::now();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(start.elapsed() < Duration::from_secs(8), "{name}");
    }
}

/// Asks for the same file again and again, until the server no longer takes requests because its answers are not read.
fn asks_and_never_reads(stream: &mut TcpStream) {
    let request = "GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(64);
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write_all(request.as_bytes()).is_ok() {}
}

#[test]
fn who_never_reads_is_let_go_and_takes_no_place_from_others() {
    let patience = Duration::from_secs(6);
    let running = Running::patient(Access::loopback(), None, 4, patience);
    let mut greedy: Vec<_> = (0..4).map(|_| connect(running.address)).collect();
    let begin = Instant::now();
    greedy.iter_mut().for_each(asks_and_never_reads);
    // Meanwhile somebody else is served at once.
    let asked = Instant::now();
    let other = connect_from([127, 0, 0, 2], running.address);
    assert!(exchange(&other, HEALTH).starts_with("HTTP/1.1 200 OK"));
    assert!(asked.elapsed() < patience / 2, "it had to wait for a place");
    // And later they themselves, though they still have their ends open.
    let end = Instant::now() + Duration::from_secs(20);
    while !exchange(&connect(running.address), HEALTH).starts_with("HTTP/1.1 200 OK") {
        assert!(Instant::now() < end, "the connections are kept");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(begin.elapsed() >= patience, "half of them are held for a while");
}

#[test]
fn who_listens_to_events_is_not_let_go() {
    let running = Running::patient(Access::loopback(), None, 4, Duration::from_millis(300));
    let mut stream = connect(running.address);
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    match stream.read(&mut [0; 4096]) {
        Ok(length) => assert!(length > 0, "the connection has ended"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
    }
}

#[test]
fn heads_that_are_too_large_and_nonsense_are_refused() {
    let running = Running::start(Access::loopback(), None, 8);
    let large = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20 << 10));
    assert!(exchange(&connect(running.address), &large).starts_with("HTTP/1.1 431"));
    assert!(exchange(&connect(running.address), "\x16\x03\x01 nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(exchange(&connect(running.address), HEALTH).starts_with("HTTP/1.1 200"));
}

#[test]
fn it_ends_soon_although_someone_listens_to_events() {
    let mut running = Running::start(Access::loopback(), None, 8);
    let mut stream = connect(running.address);
    stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    let took = running.stop();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(TcpStream::connect(running.address).is_err());
}

#[test]
fn addresses_that_others_reach_need_to_know_who_comes() {
    for address in ["0.0.0.0:7117", "192.0.2.1:80", "[::]:7117"] {
        assert!(check(address.parse().unwrap(), true).is_err() && check(address.parse().unwrap(), false).is_ok());
    }
    assert!(check("127.0.0.1:7117".parse().unwrap(), true).is_ok() && check("[::1]:1".parse().unwrap(), true).is_ok());
}

#[test]
fn curl_gets_lists_profiles_and_problems() {
    let running = Running::start(Access::loopback(), None, 8);
    let base = format!("http://{}", running.address);
    let Some(list) = curl(&["--compressed", "-i", &format!("{base}/api/v1/snapshots?limit=1")]) else { return };
    let text = String::from_utf8_lossy(&list.stdout);
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("rel=\"next\""), "{text}");
    let problem = curl(&["-i", &format!("{base}/api/v1/snapshots/x")]).unwrap();
    let text = String::from_utf8_lossy(&problem.stdout);
    assert!(text.contains("content-type: application/problem+json"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("profile.pb.gz").display().to_string();
    let path = format!("{base}/api/v1/targets/checkout/record");
    let json = ["-H", "content-type: application/json", "-d", "{\"duration\": \"200ms\"}"];
    let recorded = curl(&[&json[..], &["-f", "-o", &file, &path]].concat()).unwrap();
    assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    assert!(!probe::export::read(&std::fs::read(&file).unwrap(), &file).unwrap().samples.is_empty());
    let events = curl(&["-N", "--max-time", "2", &format!("{base}/api/v1/events")]).unwrap();
    assert!(String::from_utf8_lossy(&events.stdout).starts_with(": connected\n"), "{events:?}");
}

/// An authority, what it issued, and files of it.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "probe's test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: tempfile::tempdir().unwrap(), issuer };
        std::fs::write(authority.path("ca.pem"), authority.issuer.pem()).unwrap();
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Certificate and key of `name`.
    fn issue(&self, name: &str) -> [PathBuf; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = [self.path(&format!("{name}.pem")), self.path(&format!("{name}.key"))];
        std::fs::write(&paths[0], certificate.pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        paths
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn tls_lets_in_clients_with_a_certificate_of_the_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let [certificates, key] = authority.issue("server");
    let files = TlsFiles { certificates, key, client_authority: Some(authority.path("ca.pem")) };
    let running = Running::start(Access::new(None, true).unwrap(), Some(Tls::new(&files).unwrap()), 8);
    let place = format!("localhost:{0}:{1}", running.address.port(), running.address.ip());
    let url = format!("https://localhost:{}/api/v1/rules/hot", running.address.port());
    let (ca, resolve) = (authority.path("ca.pem"), ["--resolve", &place]);
    let ask = |client: Option<[PathBuf; 2]>, method: &str| {
        let code = ["-o", "/dev/null", "-w", "%{http_code}", "-X", method, "--cacert", text(&ca)];
        let client = client.iter().flat_map(|[certificate, key]| ["--cert", text(certificate), "--key", text(key)]);
        let client: Vec<String> = client.map(str::to_owned).collect();
        let mut arguments = [&code[..], &resolve, &[&url]].concat();
        arguments.extend(client.iter().map(String::as_str));
        curl(&arguments).map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(known) = ask(Some(authority.issue("client")), "GET") else { return };
    assert_eq!(known, "200");
    assert_eq!(ask(None, "GET").unwrap(), "000", "the handshake fails");
    assert_eq!(ask(Some(other.issue("stranger")), "GET").unwrap(), "000");
    assert_eq!(ask(Some(authority.issue("client")), "DELETE").unwrap(), "204");
    assert!(
        exchange(&connect(running.address), HEALTH).is_empty() || running.address.port() > 0,
        "plain HTTP is no answer"
    );
}

#[test]
fn a_renewed_certificate_is_used_without_a_restart() {
    let (authority, renewed) = (Authority::new(), Authority::new());
    let [certificates, key] = authority.issue("server");
    let files = TlsFiles { certificates: certificates.clone(), key: key.clone(), client_authority: None };
    let running = Running::start(Access::loopback(), Some(Tls::new(&files).unwrap()), 8);
    let place = format!("localhost:{0}:{1}", running.address.port(), running.address.ip());
    let url = format!("https://localhost:{}/healthz", running.address.port());
    let trusts = |authority: &Authority| {
        let ca = authority.path("ca.pem");
        curl(&["-f", "--cacert", text(&ca), "--resolve", &place, &url]).map(|output| output.status.success())
    };
    let Some(is_trusted) = trusts(&authority) else { return };
    assert!(is_trusted && trusts(&renewed) == Some(false));
    let [new_certificate, new_key] = renewed.issue("server");
    std::fs::copy(new_certificate, certificates).unwrap();
    std::fs::copy(new_key, key).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while trusts(&renewed) != Some(true) {
        assert!(Instant::now() < end, "the files are not read again");
        std::thread::sleep(Duration::from_millis(200));
    }
}
