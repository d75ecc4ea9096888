//! [`Signed`]: JWTs that code of the org signs with a certificate of the org (the Apex class `SwitchboardToken`). They
//! need no call and no API request, and no access token leaves Salesforce.

use std::path::Path;
use std::time::Duration;

use super::{Proven, SetupError, answer};
use crate::auth::{Algorithm, AuthError, JwtRules, Keys};
use crate::config::JwtProof;
use crate::short_text::without_mark;
use crate::store::read_regular;

/// Verifies JWTs.
pub(super) struct Signed {
    rules: JwtRules,
    keys: Keys,
    username_claim: String,
    federation_id_claim: String,
}

impl Signed {
    /// Reads the certificates.
    pub(super) fn open(way: &JwtProof) -> Result<Self, SetupError> {
        const KEY: &str = "auth.salesforce_jwt.certificate_file";
        let path = way.certificate_file.as_deref().unwrap_or(Path::new(""));
        let pem = read_regular(path).map_err(|error| SetupError::file(KEY, path, error))?;
        let algorithms = vec![Algorithm::RS256];
        let keys =
            Keys::from_pem(without_mark(&pem), &algorithms).map_err(|fault| SetupError::file(KEY, path, fault))?;
        let issuers = match (&way.issuer, &way.proving.org_id) {
            (Some(issuer), _) => vec![issuer.clone()],
            // Apex has the id in both forms.
            (None, Some(id)) => [id.get(..15), Some(id.as_str())].into_iter().flatten().map(str::to_owned).collect(),
            (None, None) => Vec::new(),
        };
        let rules = JwtRules {
            algorithms,
            issuers,
            audience: way.audience.iter().cloned().collect(),
            leeway: way.clock_skew,
            lifetime: way.lifetime,
        };
        let (username_claim, federation_id_claim) = (way.username_claim.clone(), way.federation_id_claim.clone());
        Ok(Self { rules, keys, username_claim, federation_id_claim })
    }

    /// Returns whom the token proves. `now` counts from 1970.
    pub(super) fn prove(&self, now: Duration, token: &str) -> Result<Proven, AuthError> {
        let claims = self.rules.check(now, token, &self.keys)?;
        let user_id = claims.text("sub").and_then(answer::user_id).ok_or_else(|| {
            AuthError::Unauthenticated(
                "the JWT's 'sub' is not a Salesforce user id: set it to UserInfo.getUserId()".into(),
            )
        })?;
        let text = |name: &str| claims.text(name).map(str::to_owned);
        Ok(Proven {
            user_id,
            username: text(&self.username_claim),
            federation_id: text(&self.federation_id_claim),
            ends: None,
        })
    }
}
