//! The secret of a cluster: a random key for hashes that all nodes make alike, and that a new sealing key does not change.

use chacha20poly1305::aead::Generate;
use zeroize::Zeroizing;

use super::{JetStream, LEASES, Put, Read, StorageError};
use crate::cluster::StoredAt;
use crate::server::cluster::ClusterError;

const SECRET_BYTES: usize = 32;

/// How often the secret is read or made before a start gives up: each time another node was first.
const ATTEMPTS: usize = 5;

/// Reads the secret; the first node of a cluster makes it. It is sealed with the first key afterwards, unless it `is_left`.
pub(super) async fn read_or_make(
    storage: &JetStream,
    is_left: bool,
) -> Result<Zeroizing<[u8; SECRET_BYTES]>, ClusterError> {
    let (stream, keys) = storage.bucket(LEASES);
    let subject = format!("{keys}.secret");
    let at = StoredAt::subject(&subject);
    let mut last = StorageError::Conflict;
    for _ in 0..ATTEMPTS {
        let read = match storage.last(&stream, &subject).await {
            Ok(read) => read,
            Err(error) => {
                last = error;
                continue;
            }
        };
        let (secret, expected) = match &read {
            Some(read) => (open(storage, at, read)?, read.sequence),
            None => (make()?, 0),
        };
        if read.is_some_and(|read| is_left || storage.is_current(&read.sealed)) {
            return Ok(secret);
        }
        match storage.put(Put { expected: Some(expected), ..Put::new(at, &*secret) }).await {
            Ok(_) => return Ok(secret),
            Err(error) => last = error,
        }
    }
    Err(ClusterError::Refused(format!("the secret of the cluster can neither be read nor made in JetStream: {last}")))
}

fn open(storage: &JetStream, at: StoredAt<'_>, read: &Read) -> Result<Zeroizing<[u8; SECRET_BYTES]>, ClusterError> {
    let text = storage.open_stored(at, &read.sealed);
    let secret = text.and_then(|text| text.as_slice().try_into().ok()).map(Zeroizing::new);
    secret.ok_or_else(|| {
        ClusterError::Refused(
            "cluster.key_file: no key of it opens what the cluster keeps in JetStream; put the cluster's key in it"
                .into(),
        )
    })
}

fn make() -> Result<Zeroizing<[u8; SECRET_BYTES]>, ClusterError> {
    let secret = Generate::try_generate();
    secret.map(Zeroizing::new).map_err(|_| ClusterError::Refused("the system gives no random numbers".to_owned()))
}
