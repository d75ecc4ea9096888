//! SIGHUP: reads the configuration again, while the broker runs.

use super::signals::Hangups;
use crate::config::{Config, LoadOptions};
use crate::server::{How, Reloader};

/// Reloads the configuration at each SIGHUP. The layers above the file stay as they were at the start. Never ready.
pub(super) async fn at_each_hangup(mut hangups: Hangups, reloader: &Reloader, options: &LoadOptions) {
    loop {
        hangups.next().await;
        if options.file.is_none() {
            tracing::info!("SIGHUP: there is no configuration file, so nothing is reloaded");
            continue;
        }
        tracing::info!("SIGHUP: the configuration is read again");
        let options = options.clone();
        // The outcome is logged.
        drop(reloader.reload(How::default(), move || Config::load(options)).await);
    }
}
