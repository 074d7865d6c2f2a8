//! TLS by rustls: certificates, read anew while the server runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::stamp::Stamp;
use crate::telemetry::Metrics;

/// TLS at the listener of clients, and at that of those who manage where others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The server's certificate and those that lead to an authority, in PEM; empty: no TLS.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The authorities of clients' certificates, in PEM; empty: none are asked for.
    pub client_ca: PathBuf,
    /// Whether clients need one.
    pub client_certificates: ClientCertificates,
}

/// Whether clients need a certificate, where [`Config::client_ca`] says whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Without one there is no connection.
    Required,
    /// Those who have one show it.
    Optional,
}

/// What is wrong with the certificates; the text names the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

/// The certificates in force, and what they are read from.
#[derive(Debug)]
pub struct Tls {
    config: Config,
    current: ArcSwap<ServerConfig>,
    /// What the files looked like when they were last read. Held while they are read.
    seen: Mutex<[Stamp; 3]>,
    metrics: Arc<Metrics>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            client_ca: PathBuf::new(),
            client_certificates: ClientCertificates::Required,
        }
    }
}

impl Config {
    /// Checks that the files go together; the text names the key.
    pub fn check(&self) -> Result<(), String> {
        let has = |path: &Path| !path.as_os_str().is_empty();
        match (has(&self.certificate), has(&self.key), has(&self.client_ca)) {
            (true, false, _) => Err("key: a certificate needs its key".to_owned()),
            (false, true, _) => Err("certificate: a key needs its certificate".to_owned()),
            (false, false, true) => Err("client_ca: without http.tls.certificate there is no TLS".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether there is TLS.
    pub fn is_on(&self) -> bool {
        !self.certificate.as_os_str().is_empty()
    }

    fn stamps(&self) -> [Stamp; 3] {
        [&self.certificate, &self.key, &self.client_ca].map(|path| Stamp::of(path))
    }
}

impl Tls {
    /// As configured; `None` where there is no TLS.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or a key that is not the certificate's.
    pub fn load(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<Self>>, TlsError> {
        if !config.is_on() {
            return Ok(None);
        }
        // First the stamps: what comes between the two is read again.
        let stamps = config.stamps();
        let current = built(config)?;
        Ok(Some(Arc::new(Self {
            config: config.clone(),
            current: ArcSwap::from_pointee(current),
            seen: Mutex::new(stamps),
            metrics: Arc::clone(metrics),
        })))
    }

    /// Reads the files again if one of them changed since they were last read, or whatever they look like where that is
    /// `asked` for. Connections go on with what they began with. Files that are missing, wrong or do not go together leave all
    /// as it is and are told of once; half of a change is such a case, and its other half is seen at the next look.
    pub fn refresh(&self, asked: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = self.config.stamps();
        if *seen == stamps && !asked {
            return;
        }
        *seen = stamps;
        let access = &self.metrics.access;
        match built(&self.config) {
            Ok(config) => {
                self.current.store(Arc::new(config));
                access.tls_reloads.inc();
                tracing::info!("the certificates were read anew");
            }
            Err(error) => {
                access.tls_reload_failures.inc();
                tracing::warn!(%error, "the certificates could not be read anew; those before go on");
            }
        }
    }

    /// Shakes hands.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.current.load_full()).accept(stream).await
    }
}

fn built(config: &Config) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&config.certificate)?;
    let key =
        PrivateKeyDer::from_pem_file(&config.key).map_err(|error| told(&config.key, &pem_text(&error)))?;
    let verifier = match config.client_ca.as_os_str().is_empty() {
        true => WebPkiClientVerifier::no_client_auth(),
        false => {
            let roots = Arc::new(roots(&config.client_ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
            let verifier = match config.client_certificates {
                ClientCertificates::Required => verifier,
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
            };
            verifier
                .build()
                .map_err(|error| told(&config.client_ca, &error.to_string()))?
        }
    };
    let built = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| TlsError(error.to_string()))?;
    let built = built
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key);
    let mut built =
        built.map_err(|error| told(&config.key, &format!("does not go with the certificate: {error}")))?;
    // A client that speaks HTTP/2 alone learns it here.
    built.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(built)
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| told(path, &error.to_string()))?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let read: Vec<_> = read.map_err(|error: pem::Error| told(path, &pem_text(&error)))?;
    if read.is_empty() {
        return Err(told(path, "holds no certificate in PEM"));
    }
    Ok(read)
}

fn pem_text(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "holds no private key in PEM".to_owned(),
        // The others may repeat the file's bytes.
        _ => "is not PEM".to_owned(),
    }
}

fn told(path: &Path, problem: &str) -> TlsError {
    TlsError(format!("{}: {problem}", path.display()))
}

#[cfg(test)]
mod tests;
