//! [`Script`]: the JavaScript client, as files for pages of this machine. A page from elsewhere brings its own copy.

use bytes::Bytes;

/// A file of the client. They are built from `clients/js`, and committed so that the broker can be built without npm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// An ES module.
    Module,
    /// For a `<script>` element. It defines the global `switchboard`.
    Global,
}

impl Script {
    /// Returns the file at this path.
    pub(super) fn at(path: &str) -> Option<Self> {
        match path {
            "/switchboard.js" => Some(Self::Module),
            "/switchboard.global.js" => Some(Self::Global),
            _ => None,
        }
    }

    /// Returns its text.
    pub(super) fn text(self) -> Bytes {
        Bytes::from_static(match self {
            Self::Module => include_bytes!("../../clients/js/bundle/switchboard.js"),
            Self::Global => include_bytes!("../../clients/js/bundle/switchboard.global.js"),
        })
    }
}
