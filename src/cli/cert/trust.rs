//! What makes a system and its browsers trust an authority: commands, and lines of their policies.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use humantime::format_rfc3339_seconds;

use crate::certificates::Leaf;

/// A system, as far as it matters where authorities are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Linux, with the folder of further authorities, and the command that reads it.
    Linux {
        /// The folder.
        anchors: &'static str,
        /// The command.
        update: &'static str,
    },
    MacOs,
    Windows,
}

impl System {
    const DEBIAN: Self = Self::Linux { anchors: "/usr/local/share/ca-certificates", update: "update-ca-certificates" };
    const FEDORA: Self = Self::Linux { anchors: "/etc/pki/ca-trust/source/anchors", update: "update-ca-trust" };
    const ARCH: Self = Self::Linux { anchors: "/etc/ca-certificates/trust-source/anchors", update: "update-ca-trust" };
    const SUSE: Self = Self::Linux { anchors: "/etc/pki/trust/anchors", update: "update-ca-certificates" };

    /// The one that this program runs on. A Linux without a known folder is taken for Debian.
    pub(super) fn this() -> Self {
        if cfg!(windows) {
            return Self::Windows;
        }
        if cfg!(target_os = "macos") {
            return Self::MacOs;
        }
        let has_folder = |system: &Self| match system {
            Self::Linux { anchors, .. } => Path::new(anchors).is_dir(),
            Self::MacOs | Self::Windows => false,
        };
        [Self::DEBIAN, Self::FEDORA, Self::ARCH, Self::SUSE].into_iter().find(has_folder).unwrap_or(Self::DEBIAN)
    }
}

/// Returns the text for an authority in this file.
pub(super) fn text(system: System, path: &Path, der: &[u8], authority: &Leaf) -> String {
    let head = format!(
        "Nothing was changed. These make programs trust the authority in {}, until {}.\n\
         Compare its SHA-256 where it is asked for: {}\n",
        path.display(),
        format_rfc3339_seconds(authority.not_after),
        hex::encode(authority.sha256),
    );
    let policy = format!("{{\"CACertificates\":[\"{}\"]}}", STANDARD.encode(der));
    let sections = match system {
        System::Linux { anchors, update } => linux(&quoted(path), anchors, update, &policy),
        System::MacOs => macos(&quoted(path)),
        System::Windows => windows(path),
    };
    let client = "\nThe commands of switchboard that connect need none of this: --ca-file names the authority.\n";
    [head, sections, client.to_owned()].concat()
}

fn linux(path: &str, anchors: &str, update: &str, policy: &str) -> String {
    format!(
        "\n\
         This system (curl, Python, most programs):\n  \
           sudo install -m 644 {path} {anchors}/switchboard.crt && sudo {update}\n\
         \n\
         Chrome: this line as /etc/opt/chrome/policies/managed/switchboard.json (Chromium: /etc/chromium/policies/managed)\n  \
           {policy}\n\
         \n\
         Edge: the same line as /etc/opt/edge/policies/managed/switchboard.json\n  \
           {policy}\n\
         \n\
         Firefox: this line as /etc/firefox/policies/policies.json, after the command for this system\n  \
           {{\"policies\":{{\"Certificates\":{{\"Install\":[\"{anchors}/switchboard.crt\"]}}}}}}\n\
         \n\
         Safari: on a Mac that connects to this broker, with a copy of ca.pem\n  \
           {}\n",
        keychain("ca.pem")
    )
}

fn macos(path: &str) -> String {
    format!(
        "\n\
         This system, Safari, Chrome and Edge:\n  \
           {}\n\
         \n\
         Firefox: takes authorities from this system; these two policies make sure of it\n  \
           sudo defaults write /Library/Preferences/org.mozilla.firefox EnterprisePoliciesEnabled -bool TRUE\n  \
           sudo defaults write /Library/Preferences/org.mozilla.firefox Certificates__ImportEnterpriseRoots -bool TRUE\n",
        keychain(path)
    )
}

fn windows(path: &Path) -> String {
    format!(
        "\n\
         This system, Chrome and Edge, in an administrator's prompt (for one user, without: certutil -user):\n  \
           certutil -addstore -f Root \"{}\"\n\
         \n\
         Firefox: takes authorities from this system; this policy makes sure of it\n  \
           reg add HKLM\\SOFTWARE\\Policies\\Mozilla\\Firefox\\Certificates /v ImportEnterpriseRoots /t REG_DWORD /d 1 /f\n\
         \n\
         Safari: on a Mac that connects to this broker, with a copy of ca.pem\n  \
           {}\n",
        path.display(),
        keychain("ca.pem")
    )
}

fn keychain(path: &str) -> String {
    format!("sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {path}")
}

/// Quotes a path for a shell, if it needs that.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn every_system_names_all_browsers_and_quotes_the_path() {
        let end = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
        let leaf = Leaf { names: Vec::new(), not_before: SystemTime::UNIX_EPOCH, not_after: end, sha256: [0xab; 32] };
        for system in [System::DEBIAN, System::FEDORA, System::ARCH, System::SUSE, System::MacOs, System::Windows] {
            let text = text(system, Path::new("/it's here/ca.pem"), b"\x30\x03der", &leaf);
            for word in ["This system", "Chrome", "Edge", "Firefox", "Safari", "abababab", "1970-01-02"] {
                assert!(text.contains(word), "{system:?}: {word}: {text}");
            }
            let quoted = if system == System::Windows { "\"/it's here/ca.pem\"" } else { r"'/it'\''s here/ca.pem'" };
            assert!(text.contains(quoted), "{system:?}: {text}");
            if matches!(system, System::Linux { .. }) {
                assert_eq!(text.matches("{\"CACertificates\":[\"MANkZXI=\"]}").count(), 2, "{text}");
            }
        }
    }
}
