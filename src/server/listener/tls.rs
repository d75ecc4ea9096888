//! [`shake_hands`]: the TLS handshake of a connection, before its HTTP.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::StatusCode;
use rustls::{AlertDescription, CertificateError};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::http::{self, Peer};
use super::with_permit;
use crate::auth::ClientCertificate;
use crate::certificates::{Leaf, subject};
use crate::server::Broker;
use crate::server::refusal::{Reason, Refusal};
use crate::server::tls::Acceptor;

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
    match timeout(HANDSHAKE_TIME, attempt(broker, acceptor, stream)).await {
        Ok(Attempt::Encrypted(stream)) => return Some(*stream),
        Ok(Attempt::NotTls(stream)) => http::refuse(broker, peer, stream, &needs_tls()).await,
        // Nothing came, as from a health check that only connects.
        Ok(Attempt::Lost(stream)) => with_permit(broker, async { drop(stream) }).await,
        Ok(Attempt::Failed(error)) => {
            http::log_tls(broker, peer, &format_args!("{}", reason(&error)), "a TLS handshake failed");
        }
        Err(_) => http::log_tls(broker, peer, &"it was not complete within 10 s", "a TLS handshake took too long"),
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
    let mut handshake = pin!(TlsAcceptor::from(acceptor.config()).accept(stream));
    // Only the answer to the first message takes much time: it is signed.
    let permit = broker.admission.arrival().await;
    let answered = poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await;
    drop(permit);
    let outcome = match answered {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => handshake.await,
    };
    outcome.map_or_else(Attempt::Failed, |stream| Attempt::Encrypted(Box::new(stream)))
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

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

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
        let listen = vec![SocketAddr::from(([127, 0, 0, 1], 0))];
        let tls = config::Tls {
            certificate_file: Some(certificate),
            key_file: Some(key),
            listen: listen.clone(),
            ..config::Tls::default()
        };
        let tls = Tls::open(&tls).unwrap().unwrap();
        let config = Config { listen, data_dir: folder.path().to_owned(), ..Config::default() };
        (Server::bind(config, None).unwrap(), tls, folder)
    }

    // Nothing is sent on these sockets while the clock jumps to the deadline.
    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_10_s() {
        let (server, tls, _folder) = broker();
        for sent in [b"".as_slice(), b"\x16\x03\x01\x02\x00\x01"] {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.write_all(sent).await.unwrap();
            let (stream, address) = listener.accept().await.unwrap();
            let start = Instant::now();
            let admitted = server.broker.connections.admit().unwrap();
            let peer = Peer { address: address.ip(), slot: &admitted.slot, beyond: None };
            assert!(shake_hands(&server.broker, &tls.listen(), peer, stream).await.is_none());
            assert_eq!(start.elapsed(), HANDSHAKE_TIME, "{sent:?}");
        }
    }
}
