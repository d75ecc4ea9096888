//! [`DataFolder`]: the data folder of a command that works on what a broker keeps there, without calling the broker.

use std::path::PathBuf;

use crate::config::{Config, LoadOptions, Mistakes};

/// The arguments that name it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DataFolder {
    /// The data folder; default: that of the configuration, or else the platform's data folder
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The configuration file, which names the data folder and the key file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DataFolder {
    /// Loads the configuration, whose data folder is this one.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(super) fn load(self) -> Result<Config, Mistakes> {
        let Self { data_dir, config } = self;
        Config::load(LoadOptions { data_dir, ..LoadOptions::from_process(config) })
    }
}
