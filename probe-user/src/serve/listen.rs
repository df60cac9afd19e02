//! Connections: how many, how long they may take to say what they want, and how they end.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::access::Peer;
use super::peers::Peers;
use super::progress::Progress;
use super::tls::Tls;

/// How long requests may go on when the server stops.
const GRACE: Duration = Duration::from_secs(2);
/// Largest head of a request, in bytes; hyper's least.
const MAX_HEAD: usize = 16 << 10;

/// Where requests come from.
#[derive(Debug)]
pub struct Listener {
    /// Bound.
    pub socket: std::net::TcpListener,
    /// `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Connections at once; more wait. One address gets at most half of them, but at least one; more are closed.
    pub max_connections: usize,
    /// How long a client may take for a handshake, for the head of a request, which includes waiting for the next one, and to
    /// take anything of what is sent to it.
    pub patience: Duration,
}

impl Listener {
    /// What [`Self::patience`] usually is.
    pub const PATIENCE: Duration = Duration::from_secs(30);
}

/// Refuses an address that others than this host can reach, where nobody has to say who they are.
pub fn check(address: SocketAddr, is_loopback_only: bool) -> Result<()> {
    ensure!(
        !is_loopback_only || address.ip().is_loopback(),
        "{address} can be reached from elsewhere, which needs [serve] token_file or client_ca_file"
    );
    Ok(())
}

/// Serves until `stop`, then lets requests end for two seconds.
pub async fn serve(listener: Listener, router: Router, stop: impl Future<Output = ()>) -> Result<()> {
    let Listener { socket, tls, max_connections, patience } = listener;
    socket.set_nonblocking(true).context("cannot listen")?;
    let socket = TcpListener::from_std(socket).context("cannot listen")?;
    let (tls, slots) = (tls.map(Arc::new), Arc::new(Semaphore::new(max_connections)));
    let peers = Peers::new(max_connections);
    let (stopping, is_stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, socket.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                let Some(held) = peers.hold(address.ip()) else {
                    tracing::debug!("{} has half of all connections: one more is closed", address.ip());
                    continue;
                };
                let (router, tls, is_stopping) = (router.clone(), tls.clone(), is_stopping.clone());
                connections.spawn(async move {
                    let _places = (slot, held);
                    if let Err(error) = connection(stream, tls, patience, router, is_stopping).await {
                        tracing::debug!("a connection ended: {error:#}");
                    }
                });
            }
            // Of this connection, or of too many files: either passes.
            Err(error) => {
                tracing::warn!("cannot take a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(socket);
    stopping.send_replace(true);
    let _ = tokio::time::timeout(GRACE, async { while connections.join_next().await.is_some() {} }).await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<Tls>>,
    patience: Duration,
    router: Router,
    is_stopping: watch::Receiver<bool>,
) -> Result<()> {
    let _ = stream.set_nodelay(true);
    let stream = Progress::new(stream, patience);
    let Some(tls) = tls else { return http(stream, Peer::default(), patience, router, is_stopping).await };
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = tokio::time::timeout(patience, handshake).await.context("the handshake took too long")??;
    // Only verified ones are there.
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Peer { certificate: certificate.map(|certificate| Sha256::digest(certificate).into()) };
    http(stream, peer, patience, router, is_stopping).await
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    patience: Duration,
    router: Router,
    mut is_stopping: watch::Receiver<bool>,
) -> Result<()> {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer);
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        _ = is_stopping.wait_for(|stopping| *stopping) => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}
