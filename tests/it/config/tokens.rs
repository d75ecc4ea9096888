//! What `[[applications]]` lets a token prove.

use secrecy::SecretString;
use switchboard::auth::{
    AuthError, Claim, Identity, Permission, Permissions, Principal, Proof, Users, Verifier, hash_token,
};

use super::{Given, load};

/// Who `source` is by `token` under a configuration of one application with these lines.
fn identity(lines: &str, source: &str, token: &str) -> Result<Identity, AuthError> {
    let hash = hex::encode(hash_token(&SecretString::from("good")));
    let file = format!("[[applications]]\nsource = 'a'\ntoken_sha256 = '{hash}'\n{lines}");
    let table = load(&Given { file: Some(&file), ..Given::default() }).unwrap().token_table();
    let claim =
        Claim { source: source.to_owned(), user: None, token: Some(SecretString::from(token)), certificate: None };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(table.verify(claim))
}

fn patterns(list: &[&str]) -> Permission {
    Permission::Patterns(list.iter().map(|it| it.parse().unwrap()).collect())
}

#[test]
fn a_users_application_requests_all_and_handles_nothing_unless_it_is_written() {
    let plain = Identity {
        proof: Proof::Token(hash_token(&SecretString::from("good"))),
        ..Identity::unproved(
            Principal::User("u".into()),
            Permissions { request: Permission::All, ..Permissions::default() },
        )
    };
    assert_eq!(identity("user = 'u'", "a", "good"), Ok(plain.clone()));
    let lines = "user = 'u'\nobserve = true\nexclusive = true\nhandle = ['a/*/c']\nrequest = []";
    let request = Permission::none();
    let permissions =
        Permissions { observe: Users::All, handle: patterns(&["a/*/c"]), request, ..Permissions::default() };
    let chosen = Identity { exclusive: true, permissions, ..plain };
    assert_eq!(identity(lines, "a", "good"), Ok(chosen));
}

#[test]
fn a_service_requests_and_handles_no_protected_triple_unless_it_is_written() {
    let request = |lines: &str| {
        identity(lines, "a", "good").map(|it| (it.principal, it.permissions.handle, it.permissions.request))
    };
    assert_eq!(request("service = true"), Ok((Principal::Service, Permission::none(), Permission::none())));
    let chosen = Ok((Principal::Service, Permission::none(), patterns(&["*/*/*"])));
    assert_eq!(request("service = true\nrequest = ['*/*/*']"), chosen);
}

#[test]
fn a_token_proves_its_own_source_only() {
    assert!(matches!(identity("user = 'u'", "b", "good"), Err(AuthError::Forbidden(_))));
    assert!(matches!(identity("user = 'u'", "a", "bad"), Err(AuthError::Unauthenticated(_))));
}
