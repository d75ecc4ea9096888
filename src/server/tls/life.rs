//! [`warnings`]: how much is left of the life of the broker's certificate.

use std::time::SystemTime;

use crate::certificates::Leaf;
use crate::config;
use crate::short_text::without_mark;

use super::pair::{CERTIFICATE_FILE, read_pem};

/// What an operator should know of the certificate. Nothing if it cannot be read, which is a mistake and not a warning.
/// Blocks on the disk.
pub(in crate::server) fn warnings(now: SystemTime, tls: &config::Tls) -> Vec<String> {
    let path = tls.certificate_file.as_deref();
    let pem = path.and_then(|path| read_pem(CERTIFICATE_FILE, path).ok());
    let leaf = pem.and_then(|pem| Leaf::read_pem(without_mark(&pem)).ok());
    leaf.and_then(|leaf| warning(now, &leaf)).into_iter().collect()
}

fn warning(now: SystemTime, leaf: &Leaf) -> Option<String> {
    let date = |time| humantime::format_rfc3339_seconds(time).to_string();
    let certificate = format!("{CERTIFICATE_FILE}: the certificate for {}", leaf.names.join(", "));
    if now < leaf.not_before {
        return Some(format!("{certificate} is not valid before {}; clients refuse it", date(leaf.not_before)));
    }
    if now > leaf.not_after {
        return Some(format!("{certificate} has expired on {}; clients refuse it: renew it", date(leaf.not_after)));
    }
    if !leaf.is_warning_due(now) {
        return None;
    }
    let days = leaf.not_after.duration_since(now).unwrap_or_default().as_secs() / (24 * 60 * 60);
    Some(format!("{certificate} expires in {days} days, on {}: renew it", date(leaf.not_after)))
}
