//! TLS: a certificate for the server, and the authority of its clients' certificates. Files are read again when they
//! change, so that certificates can be renewed.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::watched::Watched;

/// The files, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then those that lead to its authority.
    pub certificates: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of clients; without one they need no certificate.
    pub client_authority: Option<PathBuf>,
}

/// What connections are secured by.
#[derive(Debug)]
pub struct Tls {
    config: Watched<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    pub fn new(files: &TlsFiles) -> Result<Self> {
        let TlsFiles { certificates, key, client_authority } = files.clone();
        let paths = [Some(certificates), Some(key), client_authority].into_iter().flatten().collect();
        let files = files.clone();
        Ok(Self { config: Watched::new(paths, move || read(&files))? })
    }

    /// For the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.get()
    }
}

fn read(files: &TlsFiles) -> Result<ServerConfig> {
    let TlsFiles { certificates, key, client_authority } = files;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("cannot use TLS")?;
    let builder = match client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in all(path)? {
                roots
                    .add(certificate)
                    .with_context(|| format!("a certificate in {} is not an authority", path.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.with_context(|| format!("cannot use {}", path.display()))?)
        }
    };
    let failed = || format!("cannot read the key in {}", key.display());
    let private = PrivateKeyDer::from_pem_file(key).with_context(failed)?;
    let mut config = builder.with_single_cert(all(certificates)?, private).with_context(|| {
        format!("the key in {} is not that of the certificate in {}", key.display(), certificates.display())
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn all(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>> {
    let failed = || format!("cannot read the certificates in {}", path.display());
    let read = CertificateDer::pem_file_iter(path).with_context(failed)?;
    let certificates = read.collect::<Result<Vec<_>, _>>().with_context(failed)?;
    ensure!(!certificates.is_empty(), "there is no certificate in {}", path.display());
    Ok(certificates)
}
