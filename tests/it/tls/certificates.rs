//! Applications that a client certificate proves.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, DistinguishedName, DnType, IsCa};
use rustls::HandshakeKind;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::tls::{Authority, Issued, TlsFiles, connect};
use crate::support::{Broker, application, token_of, within};

/// A certificate whose subject is the organisation and this name.
fn issue(authority: &Authority, name: &str) -> Issued {
    authority.issue_with(|params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, "Example, Inc.");
    })
}

fn sha256(issued: &Issued) -> String {
    hex::encode(Sha256::digest(CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()))
}

/// A broker with `client_listen` and these applications, and the URL of that listener.
async fn broker(files: &TlsFiles, more: &str, applications: &str) -> (Broker, String) {
    let ca = files.path("ca.pem").display().to_string();
    let table = files.table(&format!("client_listen = ['127.0.0.1:0']\nclient_ca_file = '{ca}'\n{more}"));
    let mut broker = Broker::with_config(&format!("{table}{applications}")).await;
    let url = broker.next_url().await;
    (broker, url)
}

/// A WebSocket over TLS.
struct Encrypted(WebSocketStream<Box<TlsStream<TcpStream>>>);

impl Encrypted {
    async fn open(url: &str, files: &TlsFiles, shows: Option<&Issued>, origin: Option<&str>) -> Self {
        let stream = connect(url, &Arc::new(files.client(shows))).await.unwrap();
        let mut request = url.replace("wss://", "ws://").into_client_request().unwrap();
        if let Some(origin) = origin {
            request.headers_mut().insert("Origin", origin.parse().unwrap());
        }
        let (socket, _) = within("a handshake", tokio_tungstenite::client_async(request, stream)).await.unwrap();
        Self(socket)
    }

    /// Registers, and returns `data` of the reply.
    async fn register(&mut self, source: &str, options: Value) -> Value {
        let register = json!({"channel": "Broker", "topic": "Application", "subtopic": "Register", "source": source, "data": options});
        within("sending", self.0.send(Message::text(register.to_string()))).await.unwrap();
        let reply = within("a reply", self.0.next()).await.unwrap().unwrap();
        serde_json::from_str::<Value>(reply.to_text().unwrap()).unwrap()["data"].take()
    }
}

#[tokio::test]
async fn a_certificate_proves_an_application_by_its_subject_or_its_hash() {
    let files = TlsFiles::new();
    let (cti, phone) = (issue(&files.authority, "cti"), issue(&files.authority, "phone"));
    let rows = format!(
        "[[applications]]\nsource = 'cti'\nservice = true\ncertificate = 'CN=cti,O=Example\\, Inc.'\n\
         [[applications]]\nsource = 'softphone'\nuser = 'alice'\ncertificate_sha256 = '{}'\n",
        sha256(&phone)
    );
    let (_broker, url) = broker(&files, "", &rows).await;
    let reply = Encrypted::open(&url, &files, Some(&cti), None).await.register("cti", json!({})).await;
    assert_eq!((&reply["Success"], &reply["User"]), (&json!(true), &Value::Null), "{reply}");
    let reply = Encrypted::open(&url, &files, Some(&phone), None).await.register("softphone", json!({})).await;
    assert_eq!((&reply["Success"], &reply["User"]), (&json!(true), &json!("alice")), "{reply}");
    // Each proves its own row only.
    let reply = Encrypted::open(&url, &files, Some(&phone), None).await.register("cti", json!({})).await;
    assert_eq!(reply["ErrorCode"], "FORBIDDEN", "{reply}");
    let other = issue(&files.authority, "other");
    let reply = Encrypted::open(&url, &files, Some(&other), None).await.register("cti", json!({})).await;
    assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED", "{reply}");
    assert!(reply["ErrorMessage"].as_str().unwrap().contains("certificate_sha256"), "{reply}");
}

#[tokio::test]
async fn a_subject_that_is_made_to_look_like_another_proves_nothing() {
    let files = TlsFiles::new();
    let rows = "[[applications]]\nsource = 'cti'\nservice = true\ncertificate = 'CN=cti,O=Example'\n";
    let (_broker, url) = broker(&files, "", rows).await;
    let named = |names: &'static [(DnType, &'static str)]| {
        files.authority.issue_with(move |params| {
            params.distinguished_name = DistinguishedName::new();
            for (kind, value) in names {
                params.distinguished_name.push(kind.clone(), *value);
            }
        })
    };
    for forged in [
        named(&[(DnType::CommonName, "cti,O=Example")]),
        named(&[(DnType::OrganizationName, "Example"), (DnType::CommonName, "cti")]),
        named(&[(DnType::CommonName, "CTI"), (DnType::OrganizationName, "Example")]),
        named(&[(DnType::CommonName, "cti"), (DnType::OrganizationName, "Example"), (DnType::LocalityName, "x")]),
    ] {
        let reply = Encrypted::open(&url, &files, Some(&forged), None).await.register("cti", json!({})).await;
        assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED", "{reply}");
    }
}

#[tokio::test]
async fn a_page_is_never_proved_by_a_certificate() {
    let files = TlsFiles::new();
    let cti = issue(&files.authority, "cti");
    let rows = format!("[[applications]]\nsource = 'cti'\nuser = 'alice'\ncertificate_sha256 = '{}'\n", sha256(&cti));
    let (_broker, url) = broker(&files, "", &rows).await;
    let origin = Some("https://localhost");
    let reply = Encrypted::open(&url, &files, Some(&cti), origin).await.register("cti", json!({})).await;
    assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED", "{reply}");
}

#[tokio::test]
async fn a_token_decides_if_there_is_one() {
    let files = TlsFiles::new();
    let cti = issue(&files.authority, "cti");
    let rows = format!(
        "[[applications]]\nsource = 'cti'\nuser = 'alice'\ncertificate_sha256 = '{}'\n{}",
        sha256(&cti),
        application("desk", Some("bob"), "")
    );
    let (_broker, url) = broker(&files, "", &rows).await;
    let open = || Encrypted::open(&url, &files, Some(&cti), None);
    let reply = open().await.register("desk", json!({"token": token_of("desk")})).await;
    assert_eq!(reply["User"], "bob", "{reply}");
    let reply = open().await.register("cti", json!({"token": token_of("desk")})).await;
    assert_eq!(reply["ErrorCode"], "FORBIDDEN", "{reply}");
    let reply = open().await.register("cti", json!({"token": "unknown"})).await;
    assert_eq!(reply["ErrorCode"], "UNAUTHENTICATED", "{reply}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_in_the_handshake() {
    let files = TlsFiles::new();
    let foreign = issue(&Authority::new(), "cti");
    let rows = "[[applications]]\nsource = 'cti'\nservice = true\ncertificate = 'CN=cti,O=Example\\, Inc.'\n";
    let (broker, url) = broker(&files, "", rows).await;
    refused(&url, &files, Some(&foreign)).await;
    broker.log_until("the reason", |log| log.contains("no authority in tls.client_ca_file")).await;
}

#[tokio::test]
async fn the_certificate_of_an_authority_is_not_one_of_a_client() {
    let files = TlsFiles::new();
    let authority = files.authority.issue_with(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let rows =
        format!("[[applications]]\nsource = 'cti'\nservice = true\ncertificate_sha256 = '{}'\n", sha256(&authority));
    let (broker, url) = broker(&files, "", &rows).await;
    refused(&url, &files, Some(&authority)).await;
    broker.log_until("the reason", |log| log.contains("it needs one that the authority has issued")).await;
}

#[tokio::test]
async fn client_required_refuses_a_client_without_a_certificate() {
    let files = TlsFiles::new();
    let rows = "[[applications]]\nsource = 'cti'\nservice = true\ncertificate = 'CN=cti,O=Example\\, Inc.'\n";
    let (broker, url) = broker(&files, "client_required = true", rows).await;
    refused(&url, &files, None).await;
    broker.log_until("the reason", |log| log.contains("tls.client_required")).await;
    let cti = issue(&files.authority, "cti");
    let reply = Encrypted::open(&url, &files, Some(&cti), None).await.register("cti", json!({})).await;
    assert_eq!(reply["Success"], true, "{reply}");
}

#[tokio::test]
async fn no_session_is_resumed_where_certificates_are_asked_for() {
    let files = TlsFiles::new();
    let cti = issue(&files.authority, "cti");
    let rows = "[[applications]]\nsource = 'cti'\nservice = true\ncertificate = 'CN=cti,O=Example\\, Inc.'\n";
    let (_broker, url) = broker(&files, "", rows).await;
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = Arc::new(files.client_of(&[version], Some(&cti)));
        for _ in 0..2 {
            let stream = connect(&url, &config).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            let request = url.replace("wss://", "ws://").into_client_request().unwrap();
            let (socket, _) = within("a handshake", tokio_tungstenite::client_async(request, stream)).await.unwrap();
            let reply = Encrypted(socket).register("cti", json!({})).await;
            assert_eq!(reply["Success"], true, "{reply}");
        }
    }
}

/// With TLS 1.3, a client learns with its first read that its certificate was refused.
async fn refused(url: &str, files: &TlsFiles, shows: Option<&Issued>) {
    let Ok(stream) = connect(url, &Arc::new(files.client(shows))).await else { return };
    let request = url.replace("wss://", "ws://").into_client_request().unwrap();
    assert!(within("a handshake", tokio_tungstenite::client_async(request, stream)).await.is_err());
}

#[tokio::test]
async fn a_session_ends_with_a_reload_after_which_no_authority_vouches_for_its_certificate() {
    let files = TlsFiles::new();
    let other = Authority::new();
    let both = format!("{}{}", files.authority.pem(), other.pem());
    std::fs::write(files.path("ca.pem"), both).unwrap();
    let (kept, removed) = (issue(&files.authority, "kept"), issue(&other, "removed"));
    let row = |source: &str, issued: &Issued| {
        format!("[[applications]]\nsource = '{source}'\nservice = true\ncertificate_sha256 = '{}'\n", sha256(issued))
    };
    let rows = format!("{}{}", row("kept", &kept), row("removed", &removed));
    let (broker, url) = broker(&files, "", &rows).await;
    let mut staying = Encrypted::open(&url, &files, Some(&kept), None).await;
    let mut ending = Encrypted::open(&url, &files, Some(&removed), None).await;
    assert_eq!(staying.register("kept", json!({})).await["Success"], true);
    assert_eq!(ending.register("removed", json!({})).await["Success"], true);
    let mut late = Encrypted::open(&url, &files, Some(&removed), None).await;

    std::fs::write(files.path("ca.pem"), files.authority.pem()).unwrap();
    let line = broker.reload().await;
    assert!(line.contains("changed=\"tls.client_ca_file\" ended=1"), "{line}");
    let error = within("an error", ending.0.next()).await.unwrap().unwrap();
    assert!(error.to_text().unwrap().contains("UNAUTHENTICATED"), "{error}");
    let Some(Ok(Message::Close(Some(close)))) = within("a close", ending.0.next()).await else { panic!("no close") };
    assert_eq!(u16::from(close.code), 4401);
    assert_eq!(
        late.register("removed", json!({})).await["ErrorCode"],
        "UNAUTHENTICATED",
        "connected before the reload"
    );
    let again = connect(&url, &Arc::new(files.client(Some(&removed)))).await;
    let refused = match again {
        Ok(mut stream) => within("the refusal", tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1])).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "a certificate of an authority that was removed");
    assert_eq!(staying.register("kept", json!({})).await["ErrorCode"], "ALREADY_REGISTERED");
}
