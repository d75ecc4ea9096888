//! [`KeyFetch`]: the task that fetches the key set of an issuer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::auth::{FetchedKeys, KEY_SET_BYTES_MAX};
use crate::http::{Client, Failure, Options, PageUrl, SetupError, send};

/// How long a fetch may take.
const FETCH_TIME: Duration = Duration::from_secs(10);

/// Fetches the key set of one issuer.
pub(super) struct KeyFetch {
    keys: Arc<FetchedKeys>,
    client: Client,
    url: String,
}

impl KeyFetch {
    /// Sends nothing yet. Certificates of `ca_file` are trusted beside the system's roots.
    pub(super) fn new(keys: Arc<FetchedKeys>, url: &str, ca_file: Option<&Path>) -> Result<Self, SetupError> {
        let page = PageUrl::parse(url).map_err(|why| SetupError::Tls(why.to_owned()))?;
        let options = Options { server: &page.base, ca_file, insecure_http: !page.base.https };
        Ok(Self { keys, client: Client::new(options)?, url: page.to_string() })
    }

    /// Fetches whenever it is due, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let fetching = async {
            loop {
                self.keys.due().await;
                self.keys.begin();
                let fetched = timeout(FETCH_TIME, self.fetch()).await;
                let fetched = fetched.unwrap_or_else(|_| Err(format!("it took over {} s", FETCH_TIME.as_secs())));
                self.keys
                    .finish(Instant::now().into_std(), fetched.as_ref().map(|json| &***json).map_err(String::clone));
            }
        };
        tokio::select! {
            () = stop.cancelled() => self.keys.abandon(),
            () = fetching => {}
        }
    }

    async fn fetch(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let request = self.client.request(Method::GET, self.url.clone()).header("accept", "application/json");
        let answer = send(request).await.map_err(|failure| explain(&failure))?;
        match answer.status() {
            200 => answer.body(KEY_SET_BYTES_MAX).await.map_err(|failure| explain(&failure)),
            status @ 300..400 => Err(format!("the answer is {status}, and redirects are not followed")),
            status => Err(format!("the answer is {status}")),
        }
    }
}

fn explain(failure: &Failure) -> String {
    match failure {
        Failure::TooLarge => "the key set is larger than 256 KiB".to_owned(),
        Failure::Tls(why) => format!("TLS failed: {why}"),
        Failure::Unconnected(why) => format!("there is no connection: {why}"),
        Failure::Broken(why) => format!("the connection broke: {why}"),
    }
}
