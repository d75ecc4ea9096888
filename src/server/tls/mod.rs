//! [`Tls`]: what the TLS listeners need for handshakes. `pair` reads the certificate and its key,
//! `watch` replaces them when their files change, `life` warns before the certificate expires.
//!
//! Everything is read and checked whole ([`Material::read`]) before it is used, so that a certificate that does not fit
//! never replaces one that does.

mod life;
mod pair;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::{Mutex, MutexGuard, RwLock};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

pub(super) use self::life::warnings;
use self::pair::{CERTIFICATE_FILE, Files, certificates, read_pem, wrong};
use super::trial::Unusable;
use crate::auth::ClientCertificate;
use crate::certificates::Leaf;
use crate::config::{self, TlsVersion};
use crate::telemetry::metrics::CertificateOf;

const CLIENT_CA_FILE: &str = "tls.client_ca_file";

/// WebSocket begins with HTTP/1.1 (RFC 6455, section 4.1).
const ALPN: &[u8] = b"http/1.1";

/// The TLS of a broker. Its certificate can be replaced while the listeners accept.
pub(super) struct Tls {
    listen: Arc<Acceptor>,
    client_listen: Option<Arc<Acceptor>>,
    /// Held from reading settings and files until they are in use: two that replace them take turns. Taken before `state`.
    turn: Mutex<()>,
    state: Mutex<State>,
}

/// What is in use, for the comparison with the files.
struct State {
    settings: config::Tls,
    digest: [u8; 32],
    clients: Clients,
    /// When the certificate expires.
    expires: Option<SystemTime>,
    /// Files that could not be used the last time, by their digest if they could be read, and why.
    kept_out: Option<(Option<[u8; 32]>, String)>,
}

/// What verifies the certificates of clients, if there is a `client_listen`.
type Clients = Option<Authorities>;

/// The authorities of `client_ca_file`.
#[derive(Clone)]
struct Authorities {
    verifier: Arc<dyn ClientCertVerifier>,
    /// When the first of them expires.
    expires: Option<SystemTime>,
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
    /// Reads what `[tls]` names. Blocks on the disk.
    pub(super) fn open(settings: &config::Tls) -> Result<Self, Unusable> {
        let Material { listen, client_listen, digest, clients, expires } = Material::read(settings)?;
        Ok(Self {
            listen: Acceptor::new(listen),
            client_listen: client_listen.map(Acceptor::new),
            turn: Mutex::default(),
            state: Mutex::new(State { settings: settings.clone(), digest, clients, expires, kept_out: None }),
        })
    }

    /// Reads other settings' files, for use by [`Replacement::apply`]. Blocks on the disk.
    ///
    /// # Errors
    /// The first file that cannot be used, by its key.
    pub(super) fn prepare(&self, settings: config::Tls) -> Result<Replacement<'_>, Unusable> {
        let turn = self.turn.lock();
        let material = Material::read(&settings)?;
        Ok(Replacement { tls: self, settings, material, _turn: turn })
    }

    /// Uses other settings and files for the handshakes from now on. The addresses of the listeners stay. The caller has
    /// the turn.
    fn replace(&self, settings: config::Tls, material: Material) {
        let Material { listen, client_listen, digest, clients, expires } = material;
        *self.listen.0.write() = listen;
        if let (Some(acceptor), Some(config)) = (&self.client_listen, client_listen) {
            *acceptor.0.write() = config;
        }
        *self.state.lock() = State { settings, digest, clients, expires, kept_out: None };
    }

    fn settings(&self) -> config::Tls {
        self.state.lock().settings.clone()
    }

    fn uses(&self, digest: [u8; 32]) -> bool {
        self.state.lock().digest == digest
    }

    fn clients(&self) -> Clients {
        self.state.lock().clients.clone()
    }

    /// Returns whether the certificate is neither expired nor near its end, and whether its files fit. Blocks on the disk.
    pub(super) fn is_well(&self, now: SystemTime) -> bool {
        let (settings, is_kept_out) = {
            let state = self.state.lock();
            (state.settings.clone(), state.kept_out.is_some())
        };
        !is_kept_out && warnings(now, &settings).is_empty()
    }

    /// Returns whether an authority of `client_ca_file` vouches for a certificate now.
    pub(super) fn vouches_for(&self, shown: &ClientCertificate) -> bool {
        let mut chain = shown.chain.iter().map(|der| CertificateDer::from(&**der));
        let (Some(clients), Some(own)) = (self.clients(), chain.next()) else { return false };
        clients.verifier.verify_client_cert(&own, &chain.collect::<Vec<_>>(), UnixTime::now()).is_ok()
    }

    /// Returns when the certificates in use expire.
    pub(super) fn expiries(&self) -> Vec<(CertificateOf, SystemTime)> {
        let state = self.state.lock();
        let authority = state.clients.as_ref().and_then(|clients| clients.expires);
        let expiries = [(CertificateOf::Server, state.expires), (CertificateOf::ClientCa, authority)];
        expiries.into_iter().filter_map(|(of, at)| Some((of, at?))).collect()
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

/// Other settings, whose files were read and checked. Until it is applied or dropped, nothing else replaces what is in use.
pub(super) struct Replacement<'a> {
    tls: &'a Tls,
    settings: config::Tls,
    material: Material,
    _turn: MutexGuard<'a, ()>,
}

impl Replacement<'_> {
    /// Uses them for the handshakes from now on. The addresses of the listeners stay.
    pub(super) fn apply(self) {
        self.tls.replace(self.settings, self.material);
    }
}

/// Settings for handshakes, made from files that were read and checked.
struct Material {
    listen: Arc<ServerConfig>,
    /// If there is a `client_listen`.
    client_listen: Option<Arc<ServerConfig>>,
    digest: [u8; 32],
    clients: Clients,
    /// When the certificate expires.
    expires: Option<SystemTime>,
}

impl Material {
    /// Reads and checks the files of `[tls]`. Blocks on the disk.
    ///
    /// # Errors
    /// The first file that cannot be used, by its key.
    fn read(settings: &config::Tls) -> Result<Self, Unusable> {
        let files = Files::read(settings)?;
        let clients = match settings.client_listen.is_empty() {
            true => None,
            false => Some(client_verifier(settings)?),
        };
        Self::of(&files, settings, clients)
    }

    /// Checks a certificate and its key.
    fn of(files: &Files, settings: &config::Tls, clients: Clients) -> Result<Self, Unusable> {
        let provider = Arc::new(ring::default_provider());
        let pair = Arc::new(SingleCertAndKey::from(files.pair(&provider)?));
        let unusable = |error: rustls::Error| Unusable::new(CERTIFICATE_FILE, format!("TLS cannot be used: {error}"));
        let build = |clients: Clients| {
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(versions(settings.minimum))?;
            let builder = match clients {
                Some(clients) => builder.with_client_cert_verifier(clients.verifier),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(Arc::clone(&pair) as _);
            config.alpn_protocols = vec![ALPN.to_vec()];
            config.session_storage = Arc::new(NoServerSessionStorage {});
            Ok(config)
        };
        let mut listen = build(None).map_err(unusable)?;
        listen.ticketer = ring::Ticketer::new().map_err(unusable)?;
        let client_listen = clients.clone().map(|verifier| build(Some(verifier))).transpose().map_err(unusable)?;
        let client_listen = client_listen.map(|mut config| {
            // Each connection shows its certificate, so that one whose authority was removed does not return.
            config.send_tls13_tickets = 0;
            Arc::new(config)
        });
        Ok(Self { listen: Arc::new(listen), client_listen, digest: files.digest(), clients, expires: files.expires() })
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
fn client_verifier(settings: &config::Tls) -> Result<Authorities, Unusable> {
    let path = settings.client_ca_file.as_deref().unwrap_or(Path::new(""));
    let mut roots = RootCertStore::empty();
    let mut expires: Option<SystemTime> = None;
    for (at, authority) in certificates(CLIENT_CA_FILE, path, &read_pem(CLIENT_CA_FILE, path)?)?.into_iter().enumerate()
    {
        let end = Leaf::read_der(&authority).ok().map(|it| it.not_after);
        expires = expires.into_iter().chain(end).min();
        roots.add(authority).map_err(|error| {
            wrong(CLIENT_CA_FILE, path, format!("certificate {} of the file cannot be an authority: {error}", at + 1))
        })?;
    }
    let provider = Arc::new(ring::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if !settings.client_required {
        builder = builder.allow_unauthenticated();
    }
    builder
        .build()
        .map(|verifier| Authorities { verifier, expires })
        .map_err(|error| wrong(CLIENT_CA_FILE, path, error))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::watch::Look;
    use super::*;

    /// Writes a new certificate and its key. Returns the certificate in DER.
    fn write(settings: &config::Tls) -> Vec<u8> {
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let [certificate, key] = [&settings.certificate_file, &settings.key_file].map(|path| path.clone().unwrap());
        std::fs::write(certificate, issued.cert.pem()).unwrap();
        std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        issued.cert.der().to_vec()
    }

    fn settings_in(folder: &Path) -> config::Tls {
        config::Tls {
            certificate_file: Some(folder.join("cert.pem")),
            key_file: Some(folder.join("key.pem")),
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            ..config::Tls::default()
        }
    }

    /// What the next handshake would show: its digest stands for the pair.
    fn in_use(tls: &Tls) -> ([u8; 32], *const ServerConfig) {
        (tls.state.lock().digest, Arc::as_ptr(&tls.listen.config()))
    }

    #[test]
    fn new_files_are_used_if_they_fit_and_kept_out_if_not() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings_in(folder.path());
        write(&settings);
        let tls = Tls::open(&settings).unwrap();
        let first = in_use(&tls);
        assert_eq!(tls.look(), Look::Same);
        assert_eq!(in_use(&tls), first);

        write(&settings);
        assert_eq!(tls.look(), Look::Replaced);
        let second = in_use(&tls);
        assert!(second.0 != first.0 && second.1 != first.1);
        assert_eq!(tls.look(), Look::Same);

        // The certificate alone, as between the two writes of a renewal.
        let key = std::fs::read(settings.key_file.as_ref().unwrap()).unwrap();
        write(&settings);
        std::fs::write(settings.key_file.as_ref().unwrap(), &key).unwrap();
        let Look::KeptOut(reason) = tls.look() else { panic!("kept out") };
        assert!(reason.contains("does not belong to the certificate"), "{reason}");
        assert_eq!((tls.look(), in_use(&tls)), (Look::StillKeptOut, second));

        std::fs::remove_file(settings.key_file.as_ref().unwrap()).unwrap();
        assert!(matches!(tls.look(), Look::KeptOut(reason) if reason.contains("tls.key_file")));
        assert_eq!((tls.look(), in_use(&tls)), (Look::StillKeptOut, second));

        write(&settings);
        assert_eq!(tls.look(), Look::Replaced);
        assert_ne!(in_use(&tls).0, second.0);
    }

    /// A comparison that has read the settings before a reload replaced them must not put them back in force.
    #[test]
    fn a_comparison_beside_a_reload_leaves_the_settings_of_the_reload() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings_in(folder.path());
        write(&settings);
        let tls = Tls::open(&settings).unwrap();
        for round in 0..100 {
            write(&settings);
            settings.minimum = if round % 2 == 0 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
            let start = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    tls.look()
                });
                start.wait();
                tls.prepare(settings.clone()).unwrap().apply();
            });
            assert_eq!(tls.settings().minimum, settings.minimum, "round {round}");
            assert_eq!(tls.look(), Look::Same);
        }
    }

    // The clock jumps from one comparison to the next.
    #[tokio::test(start_paused = true)]
    async fn files_are_compared_every_30_s() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings_in(folder.path());
        write(&settings);
        let tls = Arc::new(Tls::open(&settings).unwrap());
        let first = in_use(&tls);
        let stop = tokio_util::sync::CancellationToken::new();
        let watching = Tls::watch(Arc::downgrade(&tls), stop.clone());
        let start = tokio::time::Instant::now();
        let changed = async {
            write(&settings);
            let mut often = tokio::time::interval(std::time::Duration::from_millis(100));
            while in_use(&tls) == first {
                often.tick().await;
            }
            stop.cancel();
        };
        tokio::join!(watching, changed);
        assert!(start.elapsed() <= std::time::Duration::from_secs(31), "{:?}", start.elapsed());
    }
}
