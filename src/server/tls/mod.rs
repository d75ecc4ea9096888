//! [`Tls`]: what the TLS listeners need for handshakes. `pair` reads the certificate and its key.
//!
//! Everything is read and checked whole ([`Material::read`]) before it is used, so that a certificate that does not fit
//! never replaces one that does.

mod pair;

use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use self::pair::{CERTIFICATE_FILE, Files, certificates, read_pem, wrong};
use super::trial::Unusable;
use crate::config::{self, TlsVersion};

const CLIENT_CA_FILE: &str = "tls.client_ca_file";

/// WebSocket begins with HTTP/1.1 (RFC 6455, section 4.1).
const ALPN: &[u8] = b"http/1.1";

/// The TLS of a broker. Its certificate can be replaced while the listeners accept.
pub(super) struct Tls {
    listen: Arc<Acceptor>,
    client_listen: Option<Arc<Acceptor>>,
}

/// What the handshakes of a listener use at the moment.
pub(super) struct Acceptor(RwLock<Arc<ServerConfig>>);

impl Acceptor {
    fn new(config: Arc<ServerConfig>) -> Arc<Self> {
        Arc::new(Self(RwLock::new(config)))
    }

    /// Returns the settings for the next handshake.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.read())
    }
}

impl Tls {
    /// Reads what `[tls]` names. `None` if there is no TLS listener. Blocks on the disk.
    pub(super) fn open(settings: &config::Tls) -> Result<Option<Self>, Unusable> {
        if !settings.listens() {
            return Ok(None);
        }
        let Material { listen, client_listen } = Material::read(settings)?;
        Ok(Some(Self { listen: Acceptor::new(listen), client_listen: client_listen.map(Acceptor::new) }))
    }

    /// Returns what listeners of `tls.listen` use.
    pub(super) fn listen(&self) -> Arc<Acceptor> {
        Arc::clone(&self.listen)
    }

    /// Returns what listeners of `tls.client_listen` use.
    pub(super) fn client_listen(&self) -> Option<Arc<Acceptor>> {
        self.client_listen.clone()
    }
}

/// Settings for handshakes, made from files that were read and checked.
pub(super) struct Material {
    listen: Arc<ServerConfig>,
    /// If there is a `client_listen`.
    client_listen: Option<Arc<ServerConfig>>,
}

impl Material {
    /// Reads and checks the files of `[tls]`. Blocks on the disk.
    ///
    /// # Errors
    /// The first file that cannot be used, by its key.
    pub(super) fn read(settings: &config::Tls) -> Result<Self, Unusable> {
        let provider = Arc::new(ring::default_provider());
        let files = Files::read(settings)?;
        let pair = Arc::new(SingleCertAndKey::from(files.pair(&provider)?));
        let unusable = |error: rustls::Error| Unusable::new(CERTIFICATE_FILE, format!("TLS cannot be used: {error}"));
        let build = |clients: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions(settings.minimum))?;
            let builder = match clients {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(Arc::clone(&pair) as _);
            config.alpn_protocols = vec![ALPN.to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok(config)
        };
        let mut listen = build(None).map_err(unusable)?;
        listen.ticketer = ring::Ticketer::new().map_err(unusable)?;
        let client_listen = match settings.client_listen.is_empty() {
            true => None,
            false => {
                let mut config = build(Some(client_verifier(settings, &provider)?)).map_err(unusable)?;
                // Each connection shows its certificate, so that one whose authority was removed does not return.
                config.send_tls13_tickets = 0;
                Some(Arc::new(config))
            }
        };
        Ok(Self { listen: Arc::new(listen), client_listen })
    }
}

fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match minimum {
        TlsVersion::Tls12 => &FROM_1_2,
        TlsVersion::Tls13 => &FROM_1_3,
    }
}

/// Returns what verifies the certificates of clients.
fn client_verifier(
    settings: &config::Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, Unusable> {
    let path = settings.client_ca_file.as_deref().unwrap_or(Path::new(""));
    let mut roots = RootCertStore::empty();
    for (at, authority) in certificates(CLIENT_CA_FILE, path, &read_pem(CLIENT_CA_FILE, path)?)?.into_iter().enumerate()
    {
        roots.add(authority).map_err(|error| {
            wrong(CLIENT_CA_FILE, path, format!("certificate {} of the file cannot be an authority: {error}", at + 1))
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !settings.client_required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map(|verifier| verifier as _).map_err(|error| wrong(CLIENT_CA_FILE, path, error))
}
