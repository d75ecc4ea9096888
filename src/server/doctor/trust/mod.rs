//! Whether programs and browsers of this machine trust the broker's certificate. On Linux, the authorities are read: those of
//! the system, and those that policies give to browsers. What a person has added to a browser by hand is not known here.

#[cfg(any(target_os = "linux", test))]
mod linux;

use super::{Finding, Question};
#[cfg(not(target_os = "linux"))]
use super::{Level, Side, finding};
use crate::config::Config;

const WHY: &str =
    "a program refuses wss:// with a certificate that it does not trust, and a page sees only the code 1006";

/// Says which programs of this machine trust the certificate of the TLS listeners, if there are any.
#[cfg(target_os = "linux")]
pub(super) fn look(config: &Config, question: &Question) -> Vec<Finding> {
    let Some(path) = config.tls.certificate_file.as_ref().filter(|_| !config.tls.listen.is_empty()) else {
        return Vec::new();
    };
    let chain = crate::store::read_regular(path).ok().and_then(|pem| linux::Chain::read(&pem));
    chain.map_or_else(Vec::new, |chain| linux::look(&chain, &linux::Places::of_system(), question))
}

/// On other systems, authorities are where this program cannot read them: it says how to look.
#[cfg(not(target_os = "linux"))]
pub(super) fn look(config: &Config, _: &Question) -> Vec<Finding> {
    let Some(path) = config.tls.certificate_file.as_ref().filter(|_| !config.tls.listen.is_empty()) else {
        return Vec::new();
    };
    let verify = if cfg!(windows) { "certutil -verify" } else { "security verify-cert -c" };
    let what = "the authorities that this system trusts are not read";
    let cure =
        format!("look with `{verify} {}`; `switchboard cert trust` prints what makes it trusted", path.display());
    vec![finding(Side::Policy, "trust", Level::Warning, what, WHY).cure(cure)]
}
