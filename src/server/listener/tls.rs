//! [`shake_hands`]: the TLS handshake of a connection, before its HTTP.

use std::future::{Future as _, poll_fn};
use std::io;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::StatusCode;
use rustls::{AlertDescription, CertificateError, HandshakeKind};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use super::connection::with_permit;
use super::http::{self, Peer};
use crate::auth::ClientCertificate;
use crate::certificates::{Leaf, subject};
use crate::server::Broker;
use crate::server::refusal::{Reason, Refusal};
use crate::server::tls::Acceptor;
use crate::telemetry::metrics::TlsOutcome;

/// How long the handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// The first byte of TLS: the type of a record with a handshake message (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Shakes hands. `None` if that failed, which is logged.
pub(super) async fn shake_hands(
    broker: &Broker,
    acceptor: &Acceptor,
    peer: Peer<'_>,
    stream: TcpStream,
) -> Option<TlsStream<TcpStream>> {
    let handshakes = &broker.metrics.tls_handshakes;
    match timeout(HANDSHAKE_TIME, attempt(broker, acceptor, stream)).await {
        Ok(Attempt::Encrypted(stream)) => {
            handshakes.count(TlsOutcome::Ok);
            return Some(*stream);
        }
        Ok(Attempt::NotTls(stream)) => http::refuse(broker, peer, stream, &needs_tls()).await,
        // Nothing came, as from a health check that only connects.
        Ok(Attempt::Lost(stream)) => with_permit(broker, async { drop(stream) }).await,
        Ok(Attempt::Failed(error)) => {
            handshakes.count(TlsOutcome::Failed);
            http::log_tls(broker, peer, &reason(&error), "a TLS handshake failed");
        }
        Err(_) => {
            handshakes.count(TlsOutcome::Timeout);
            http::log_tls(broker, peer, "it was not complete within 10 s", "a TLS handshake took too long");
        }
    }
    None
}

enum Attempt {
    Encrypted(Box<TlsStream<TcpStream>>),
    /// The peer speaks something else.
    NotTls(TcpStream),
    /// The peer left without a byte.
    Lost(TcpStream),
    Failed(io::Error),
}

async fn attempt(broker: &Broker, acceptor: &Acceptor, stream: TcpStream) -> Attempt {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == [HANDSHAKE_RECORD] => {}
        Ok(1) => return Attempt::NotTls(stream),
        Ok(_) | Err(_) => return Attempt::Lost(stream),
    }
    // Waits for the whole first message, in however many segments it arrives.
    match LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await {
        Ok(first_message) => answer(broker, acceptor, first_message).await,
        Err(error) => Attempt::Failed(error),
    }
}

/// Answers the first message under an admission permit: only that takes much time, because the answer is signed. If the
/// client has to send its message again (RFC 8446, section 4.1.4), the answer to the second one is.
async fn answer(broker: &Broker, acceptor: &Acceptor, first_message: StartHandshake<TcpStream>) -> Attempt {
    let mut permit = broker.admission.arrival().await;
    let mut is_asked_again = false;
    let mut handshake = pin!(first_message.into_stream_with(acceptor.config(), |connection| {
        is_asked_again = connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
    }));
    loop {
        let step = poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await;
        drop(permit.take());
        if let Poll::Ready(outcome) = step {
            return outcome.map_or_else(Attempt::Failed, |stream| Attempt::Encrypted(Box::new(stream)));
        }
        woken().await;
        if is_asked_again {
            permit = broker.admission.arrival().await;
        }
    }
}

/// Waits until the task is woken, by whatever this task has polled before.
async fn woken() {
    let mut is_woken = false;
    poll_fn(|_| if mem::replace(&mut is_woken, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn needs_tls() -> Refusal {
    let text = "this listener speaks TLS; connect with wss://, or https:// for a request";
    Refusal::new(StatusCode::BAD_REQUEST, Reason::Tls, text)
}

/// Returns the certificate that the client showed, which the handshake has verified.
pub(super) fn certificate(stream: &TlsStream<TcpStream>) -> Option<Arc<ClientCertificate>> {
    let chain = stream.get_ref().1.peer_certificates()?;
    let shown = chain.first()?;
    let leaf = Leaf::read_der(shown).ok()?;
    Some(Arc::new(ClientCertificate {
        subject: subject(shown).map(String::into_boxed_str),
        sha256: leaf.sha256,
        not_after: leaf.not_after,
        chain: chain.iter().map(|certificate| Box::from(&**certificate)).collect(),
    }))
}

/// Says why a handshake failed, for the operator.
fn reason(error: &io::Error) -> String {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return "the client closed the connection; it may not trust the certificate".to_owned();
    };
    let advice = match error {
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => {
            "the client does not trust tls.certificate_file: it needs the certificate of the authority, or connects by a \
             name that the certificate does not have, or the certificate has expired"
        }
        rustls::Error::NoCertificatesPresented => "the client has no certificate; see tls.client_required",
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "no authority in tls.client_ca_file vouches for the client's certificate"
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "the client's certificate has expired, or is not valid yet; it needs a new one, or a clock is wrong",
        rustls::Error::InvalidCertificate(CertificateError::Other(other))
            if other.to_string().contains("CaUsedAsEndEntity") =>
        {
            "the client's certificate is that of an authority; it needs one that the authority has issued"
        }
        rustls::Error::InvalidCertificate(_) => "the client's certificate cannot be accepted",
        rustls::Error::PeerIncompatible(_) => "the client and tls.minimum have no version or cipher in common",
        rustls::Error::NoApplicationProtocol => "the client speaks another protocol than HTTP/1.1",
        _ => "the client does not follow the TLS protocol",
    };
    format!("{error}: {advice}")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, ring};
    use rustls::{ClientConfig, ClientConnection, NamedGroup, RootCertStore};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, ServerName};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::yield_now;
    use tokio::time::Instant;
    use tokio_rustls::TlsConnector;

    use super::super::Remote;
    use super::super::connection::encrypted;
    use super::*;
    use crate::config::{self, Config};
    use crate::server::Server;
    use crate::server::tls::Tls;

    /// A broker, and the certificate of a TLS listener, whose connections the test accepts.
    fn broker() -> (Server, Tls, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        std::fs::write(&certificate, issued.cert.pem()).unwrap();
        std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let tls = config::Tls {
            certificate_file: Some(certificate),
            key_file: Some(key),
            listen: vec![listen],
            ..config::Tls::default()
        };
        let tls = Tls::open(&tls).unwrap();
        let config = Config { listen: vec![listen.into()], data_dir: folder.path().to_owned(), ..Config::default() };
        (Server::bind(config, None).unwrap(), tls, folder)
    }

    /// A client, and its connection as the broker accepts it.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    /// What a client needs that trusts the certificate.
    fn client_config(folder: &tempfile::TempDir, provider: CryptoProvider) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.path().join("cert.pem")).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    fn localhost() -> ServerName<'static> {
        ServerName::try_from("localhost").unwrap()
    }

    /// A client of which each message is sent by hand.
    fn by_hand(config: Arc<ClientConfig>) -> ClientConnection {
        ClientConnection::new(config, localhost()).unwrap()
    }

    fn next_message(connection: &mut ClientConnection) -> Vec<u8> {
        let mut message = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut message).unwrap();
        }
        message
    }

    /// Lets the broker handle all that has been sent to it.
    async fn settle() {
        for _ in 0..1000 {
            yield_now().await;
        }
    }

    /// Asserts that the broker has sent nothing while there is no permit, and that it does when there is one.
    async fn assert_needs_permit(broker: &Broker, client: &mut TcpStream, message: &[u8]) {
        let permits = broker.admission.all_arrivals().await.unwrap();
        client.write_all(message).await.unwrap();
        settle().await;
        let read = client.try_read(&mut [0]);
        assert!(read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "{read:?}");
        drop(permits);
        assert_eq!(client.read_u8().await.unwrap(), HANDSHAKE_RECORD);
    }

    #[tokio::test]
    async fn a_first_message_in_two_segments_is_answered_under_a_permit() {
        let (server, tls, folder) = broker();
        let message = next_message(&mut by_hand(client_config(&folder, ring::default_provider())));
        let (start, end) = message.split_at(message.len() / 2);
        let (mut client, stream) = connected().await;
        let acceptor = tls.listen();
        let sending = async {
            client.write_all(start).await.unwrap();
            settle().await;
            assert_needs_permit(&server.broker, &mut client, end).await;
        };
        tokio::select! {
            _ = attempt(&server.broker, &acceptor, stream) => panic!("the handshake has ended"),
            () = sending => {}
        }
    }

    /// A group for key exchange that the broker does not know.
    #[derive(Debug)]
    struct UnknownGroup;

    impl SupportedKxGroup for UnknownGroup {
        fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
            Ok(Box::new(Self))
        }

        fn name(&self) -> NamedGroup {
            NamedGroup::X448
        }
    }

    impl ActiveKeyExchange for UnknownGroup {
        fn complete(self: Box<Self>, _peer: &[u8]) -> Result<SharedSecret, rustls::Error> {
            Err(rustls::Error::General("the broker has chosen an unknown group".to_owned()))
        }

        fn pub_key(&self) -> &[u8] {
            &[1; 56]
        }

        fn group(&self) -> NamedGroup {
            self.name()
        }
    }

    #[tokio::test]
    async fn a_first_message_that_has_to_be_sent_again_is_answered_under_a_permit_too() {
        let (server, tls, folder) = broker();
        let mut provider = ring::default_provider();
        provider.kx_groups.insert(0, &UnknownGroup);
        let mut connection = by_hand(client_config(&folder, provider));
        let (mut client, stream) = connected().await;
        let acceptor = tls.listen();
        let sending = async {
            client.write_all(&next_message(&mut connection)).await.unwrap();
            while !connection.wants_write() {
                let mut received = [0; 4096];
                let len = client.read(&mut received).await.unwrap();
                connection.read_tls(&mut &received[..len]).unwrap();
                connection.process_new_packets().unwrap();
            }
            let again = next_message(&mut connection);
            settle().await;
            while client.try_read(&mut [0; 64]).is_ok_and(|len| len > 0) {}
            assert_needs_permit(&server.broker, &mut client, &again).await;
        };
        tokio::select! {
            _ = attempt(&server.broker, &acceptor, stream) => panic!("the handshake has ended"),
            () = sending => {}
        }
    }

    /// The client closes its side as soon as it can. If the broker looked only then, it would find the socket of nobody.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_owner_is_looked_up_before_the_handshake() {
        let (server, tls, folder) = broker();
        let config = client_config(&folder, ring::default_provider());
        let (client, stream) = connected().await;
        let from = Remote::Tcp { peer: stream.peer_addr().unwrap(), local: stream.local_addr().unwrap() };
        let admitted = server.broker.connections.admit().unwrap();
        let asking = async {
            let mut client = TlsConnector::from(config).connect(localhost(), client).await.unwrap();
            // hyper answers nothing after the end of the stream, which it does not look for while there are more bytes.
            client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nmore").await.unwrap();
            client.shutdown().await.unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            response
        };
        let serving = encrypted(Arc::clone(&server.broker), tls.listen(), stream, from, admitted);
        let ((), response) = tokio::join!(serving, asking);
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    }

    // Nothing is sent on these sockets while the clock jumps to the deadline.
    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_10_s() {
        let (server, tls, _folder) = broker();
        for sent in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01"] {
            let (mut client, stream) = connected().await;
            client.write_all(sent).await.unwrap();
            let start = Instant::now();
            let admitted = server.broker.connections.admit().unwrap();
            let peer =
                Peer { address: Ipv4Addr::LOCALHOST.into(), slot: &admitted.slot, beyond: None, is_foreign: false };
            assert!(shake_hands(&server.broker, &tls.listen(), peer, stream).await.is_none());
            assert_eq!(start.elapsed(), HANDSHAKE_TIME, "{sent:?}");
        }
    }
}
