//! What is right of the keys of `[serve]` on HTTP.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Result;
use toml::{Spanned, Value};

use super::raw;
use super::validate::{Check, Checked};
use crate::problem::{Exit, Problem};
use crate::serve::{self, Access, Listener, Tls, TlsFiles};

const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7117);
const MAX_CONNECTIONS: usize = 256;

/// How HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where.
    pub listen: SocketAddr,
    /// Who may do what.
    pub token_file: Option<PathBuf>,
    /// By TLS, and whose certificates clients need.
    pub tls: Option<TlsFiles>,
    /// Connections at once.
    pub max_connections: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: LISTEN, token_file: None, tls: None, max_connections: MAX_CONNECTIONS }
    }
}

impl Check<'_> {
    pub(super) fn http(&self, raw: &raw::Serve) -> Checked<Http> {
        let raw::Serve { listen, token_file, tls_cert_file, tls_key_file, client_ca_file, max_connections, .. } = raw;
        let address = match listen {
            None => LISTEN,
            Some(text) => text.get_ref().parse().map_err(|_| {
                let wrong = format!("`listen` is an address with a port like `{LISTEN}`, not `{}`", text.get_ref());
                self.error(&text.span(), wrong)
            })?,
        };
        let [certificates, key, client_authority] =
            [("tls_cert_file", tls_cert_file), ("tls_key_file", tls_key_file), ("client_ca_file", client_ca_file)]
                .map(|(key, path)| path.as_ref().map(|path| self.file(key, path)).transpose());
        let tls = match (certificates?, key?, client_authority?) {
            (Some(certificates), Some(key), client_authority) => Some(TlsFiles { certificates, key, client_authority }),
            (None, None, None) => None,
            _ => {
                let given = [tls_cert_file, tls_key_file, client_ca_file].into_iter().flatten().next();
                let span = given.map_or(0..0, Spanned::span);
                return Err(self.error(&span, "TLS needs `tls_cert_file` and `tls_key_file`"));
            }
        };
        let http = Http {
            listen: address,
            token_file: token_file.as_ref().map(|file| self.file("token_file", file)).transpose()?,
            tls,
            max_connections: self.integer(max_connections.as_ref(), "max_connections", 1..=65_536, MAX_CONNECTIONS)?,
        };
        let span = listen.as_ref().map_or(0..0, Spanned::span);
        serve::check(http.listen, http.is_loopback_only()).map_err(|error| {
            let mut problem = self.error(&span, error);
            problem.hint = "listen on 127.0.0.1; from elsewhere, `ssh -L` leads to it".into();
            problem
        })?;
        Ok(http)
    }
}

impl Http {
    /// Who may do what. Reads the token file.
    pub fn access(&self) -> Result<Access> {
        Access::new(self.token_file.as_deref(), self.has_client_certificates())
    }

    /// Reads all files, as the server would.
    pub fn check(&self) -> Result<()> {
        self.access()?;
        self.tls.as_ref().map_or(Ok(()), |tls| Tls::new(tls).map(drop))
    }

    /// Takes the address, and reads the certificates.
    pub fn bind(&self) -> Result<Listener> {
        let tls = self.tls.as_ref().map(Tls::new).transpose()?;
        let socket = TcpListener::bind(self.listen).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::AddrInUse => {
                    "another program has the port: `ss -ltnp` says which; or give [serve] listen another"
                }
                ErrorKind::AddrNotAvailable => "give [serve] listen an address of this host",
                ErrorKind::PermissionDenied => "give [serve] listen a port from 1024 on",
                _ => "",
            };
            Problem::new(Exit::Failure, format!("cannot listen on {}: {error}", self.listen), hint)
        })?;
        Ok(Listener { socket, tls, max_connections: self.max_connections, patience: Listener::PATIENCE })
    }

    /// The files that are read, also later.
    pub fn files(&self) -> Vec<&Path> {
        let tls =
            self.tls.iter().flat_map(|tls| [Some(&tls.certificates), Some(&tls.key), tls.client_authority.as_ref()]);
        tls.chain([self.token_file.as_ref()]).flatten().map(PathBuf::as_path).collect()
    }

    /// Must clients be on this host?
    pub fn is_loopback_only(&self) -> bool {
        self.token_file.is_none() && !self.has_client_certificates()
    }

    /// Do clients need certificates?
    pub fn has_client_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.client_authority.is_some())
    }

    /// As TOML.
    pub(super) fn entries(&self) -> Vec<(&'static str, Value)> {
        let Self { listen, token_file, tls, max_connections } = self;
        let path = |path: &Path| Value::from(path.display().to_string());
        let mut entries = vec![("listen", listen.to_string().into())];
        entries.extend(token_file.as_deref().map(|file| ("token_file", path(file))));
        if let Some(TlsFiles { certificates, key, client_authority }) = tls {
            entries.extend([("tls_cert_file", path(certificates)), ("tls_key_file", path(key))]);
            entries.extend(client_authority.as_deref().map(|file| ("client_ca_file", path(file))));
        }
        entries.push(("max_connections", i64::try_from(*max_connections).unwrap_or(i64::MAX).into()));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn load(serve: &str) -> Result<Config, String> {
        Config::parse("probe.toml", &format!("[serve]\n{serve}\n"), [], &[], &crate::config::Changes::default())
            .map_err(|problem| problem.message)
    }

    #[test]
    fn what_can_be_reached_from_elsewhere_needs_to_know_its_clients() {
        let default = load("").unwrap().http;
        assert_eq!((default.listen.to_string().as_str(), default.max_connections), ("127.0.0.1:7117", 256));
        let tls = "tls_cert_file = '/c'\ntls_key_file = '/k'";
        for right in [
            "listen = '[::1]:80'".to_owned(),
            "listen = '0.0.0.0:7117'\ntoken_file = '/t'".into(),
            format!("listen = '0.0.0.0:7117'\n{tls}\nclient_ca_file = '/a'"),
            tls.into(),
        ] {
            let config = load(&right).unwrap_or_else(|error| panic!("{right}: {error}"));
            let shown =
                Config::parse("shown.toml", &config.to_string(), [], &[], &crate::config::Changes::default()).unwrap();
            assert_eq!(shown.http, config.http, "{right}");
        }
        for (wrong, error) in [
            ("listen = '0.0.0.0:7117'".to_owned(), "needs [serve] token_file or client_ca_file"),
            (format!("listen = '0.0.0.0:7117'\n{tls}"), "needs [serve] token_file or client_ca_file"),
            ("listen = 'localhost'".into(), "probe.toml:2: `listen` is an address with a port"),
            ("token_file = 't'".into(), "must be an absolute path"),
            ("client_ca_file = '/a'".into(), "TLS needs"),
            ("tls_key_file = '/k'".into(), "TLS needs"),
            ("max_connections = 0".into(), "between 1 and 65536"),
        ] {
            let found = load(&wrong).expect_err(&wrong);
            assert!(found.contains(error), "{wrong}: {found}");
        }
    }

    #[test]
    fn an_address_that_is_taken_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        let http = Http { listen, ..Http::default() };
        let error = http.bind().unwrap_err().downcast::<Problem>().unwrap();
        assert!(error.message.contains(&listen.to_string()) && error.hint.contains("ss -ltnp"), "{error:?}");
        drop(taken);
        assert_eq!(http.bind().unwrap().socket.local_addr().unwrap(), listen);
        assert!(http.access().unwrap().is_loopback_only());
    }

    #[test]
    fn the_files_are_named_for_those_who_lock_all_others_away() {
        let config = "token_file = '/t/tokens'\ntls_cert_file = '/c'\ntls_key_file = '/k'\nclient_ca_file = '/a'";
        let http = load(config).unwrap().http;
        assert_eq!(http.files(), ["/c", "/k", "/a", "/t/tokens"].map(Path::new));
        let error = format!("{:#}", http.access().unwrap_err());
        assert!(error.contains("cannot read the tokens in /t/tokens"), "{error}");
        assert!(format!("{:#}", http.bind().unwrap_err()).contains("/a"), "the authority is read first");
    }
}
