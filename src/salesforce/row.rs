//! Chooses one agent's credentials from the rows that the org returned, or says why there are none. Never returns
//! another user's row or a masked password.

use secrecy::{ExposeSecret, SecretString};

use super::fault::Fault;
use super::response::{Object, Value, value};
use crate::config::{Lookup, Mode};
use crate::credentials::Credentials;

/// Returns the credentials of the one active row with exactly this key.
pub(super) fn choose(rows: &[Object<'_>], lookup: &Lookup, key: &str) -> Result<Credentials, Fault> {
    let mut own = Vec::new();
    let mut inactive = false;
    for row in rows {
        if !is_of(row, lookup, key)? {
            continue;
        }
        if is_active(row, lookup)? { own.push(row) } else { inactive = true }
    }
    match own.as_slice() {
        [row] => read(row, lookup),
        [] if inactive => Err(Fault::not_found(
            "the CTI login of this user in Salesforce is switched off; an administrator can switch it on",
            format!("{}: the row is switched off by {}", lookup.object, lookup.active_field),
        )),
        [] => Err(not_found(lookup)),
        [_, _, ..] => Err(several(lookup)),
    }
}

/// There is no row.
pub(super) fn not_found(lookup: &Lookup) -> Fault {
    let operator = match (lookup.mode, &lookup.apex_path) {
        (Mode::Apex, Some(path)) => format!(
            "the Apex resource {path} answers that it has nothing for the user, or is not there: Setup > Apex Classes shows its \
             urlMapping, Setup > Users > Permission Sets > the broker's set > Apex Class Access lets the broker call it"
        ),
        (Mode::Query | Mode::ExternalId | Mode::Apex, _) => format!(
            "{} has no row whose {} is the user's, or sharing hides it: Setup > Users > Permission Sets > the broker's set > \
             Object Settings > the object: 'View All'",
            lookup.object, lookup.key_field
        ),
    };
    Fault::not_found("no CTI login is stored for this user in Salesforce; an administrator adds one", operator)
}

/// There are several rows.
pub(super) fn several(lookup: &Lookup) -> Fault {
    Fault::row(
        "several CTI logins are stored for this user in Salesforce, so none is used; an administrator removes all but one",
        format!(
            "{} has several rows with one {}: delete all but one, and make the field 'Unique' (Setup > Object Manager > the \
             object > Fields & Relationships)",
            lookup.object, lookup.key_field
        ),
    )
}

fn is_of(row: &Object<'_>, lookup: &Lookup, key: &str) -> Result<bool, Fault> {
    match value(row, &lookup.key_field) {
        Some(Value::Text(text)) => Ok(text.expose_secret() == key),
        Some(Value::Null | Value::Switch(_) | Value::Other) => Ok(false),
        // An Apex resource gets the user in its path, and may leave the key out of its answer.
        None if lookup.mode == Mode::Apex => Ok(true),
        None => Err(hidden(&lookup.key_field)),
    }
}

fn is_active(row: &Object<'_>, lookup: &Lookup) -> Result<bool, Fault> {
    if lookup.active_field.is_empty() {
        return Ok(true);
    }
    match value(row, &lookup.active_field) {
        Some(Value::Switch(active)) => Ok(active),
        Some(Value::Null) => Ok(false),
        Some(Value::Text(_) | Value::Other) => Err(Fault::row(
            format!("the field {} in Salesforce is not a checkbox; tell an administrator", lookup.active_field),
            format!("salesforce.credentials.active_field: {} is not a checkbox", lookup.active_field),
        )),
        None if lookup.mode == Mode::Apex => Ok(true),
        None => Err(hidden(&lookup.active_field)),
    }
}

fn read(row: &Object<'_>, lookup: &Lookup) -> Result<Credentials, Fault> {
    let fields = &lookup.fields;
    let needed = |name: &str| match text(row, name, lookup.mode)? {
        Some(text) => Ok(text),
        None => Err(Fault::row(
            format!(
                "the field {name} of the CTI login of this user in Salesforce is empty; an administrator can fill it in"
            ),
            format!("{}: {name} is empty in the user's row", lookup.object),
        )),
    };
    let plain = |name: &str| -> Result<String, Fault> {
        if name.is_empty() { Ok(String::new()) } else { Ok(needed(name)?.expose_secret().to_owned()) }
    };
    let username = plain(&fields.username)?;
    let extension = plain(&fields.extension)?;
    let adfs_username = match fields.adfs_username.as_str() {
        "" => None,
        name => text(row, name, lookup.mode)?.map(|text| text.expose_secret().to_owned()),
    };
    let password = match fields.password.as_str() {
        "" => SecretString::from(""),
        name => needed(name)?,
    };
    if !lookup.allow_mask_like && is_mask(password.expose_secret()) {
        return Err(Fault::row(
            "Salesforce shows the broker a mask in place of the CTI password; tell an administrator",
            format!(
                "{} is masked. Setup > Users > Permission Sets > the broker's set > System Permissions: 'View Encrypted \
                 Data'; if the password really looks so, set salesforce.credentials.allow_mask_like",
                fields.password
            ),
        ));
    }
    Ok(Credentials { username, password, extension, adfs_username })
}

/// Returns the text of a field; `None` if it is empty.
fn text(row: &Object<'_>, name: &str, mode: Mode) -> Result<Option<SecretString>, Fault> {
    match value(row, name) {
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(Value::Null) => Ok(None),
        Some(Value::Switch(_) | Value::Other) => Err(Fault::row(
            format!("the field {name} in Salesforce does not contain text; tell an administrator"),
            format!("{name} does not contain text: salesforce.credentials.fields names another type of field"),
        )),
        // Apex leaves out empty fields when it writes a record as JSON.
        None if mode == Mode::Apex => Ok(None),
        None => Err(hidden(name)),
    }
}

fn hidden(name: &str) -> Fault {
    Fault::rejected(
        format!("the broker may not read the field {name} in Salesforce; tell an administrator"),
        format!(
            "{name} was not in the answer: field-level security hides it. Setup > Users > Permission Sets > the broker's set \
             > Object Settings > the object > Field Permissions: 'Read Access'"
        ),
    )
}

/// Returns whether a password looks like the mask that Salesforce shows to users without permission: all `*`, all `X`,
/// or at least four of one of them followed by at most four other characters.
pub(super) fn is_mask(text: &str) -> bool {
    let Some(first) = text.chars().next().filter(|it| matches!(it, '*' | 'X')) else { return false };
    let run = text.chars().take_while(|it| *it == first).count();
    match text.chars().count() - run {
        0 => true,
        1..=4 => run >= 4,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::response::objects;

    fn row(fields: &str) -> String {
        format!(
            r#"{{"User_Id__c":"005000000000001AAA","CTI_Username__c":"1001","CTI_Password__c":"pw","CTI_Extension__c":"05051",
            "ADFS_Username__c":null,"Active__c":true{fields}}}"#
        )
    }

    /// Returns the username and password, or the code and the text for the agent.
    fn outcome(body: &str, lookup: &Lookup) -> String {
        match choose(&objects(body.as_bytes()).unwrap(), lookup, "005000000000001AAA") {
            Ok(it) => {
                format!("{} {} {} {:?}", it.username, it.password.expose_secret(), it.extension, it.adfs_username)
            }
            Err(fault) => fault.refusal().to_string(),
        }
    }

    #[test]
    fn one_active_row_of_the_very_key_serves_and_nothing_else() {
        let lookup = Lookup::default();
        let cases = [
            (format!("[{}]", row("")), "1001 pw 05051 None"),
            ("[]".to_owned(), "CREDENTIALS_NOT_FOUND: no CTI login is stored"),
            (
                format!("[{}]", row(r#","Active__c":false"#)),
                "CREDENTIALS_NOT_FOUND: the CTI login of this user in Salesforce is switched off",
            ),
            (format!("[{},{}]", row(r#","Active__c":false"#), row("")), "1001 pw"),
            (format!("[{},{}]", row(""), row("")), "UPSTREAM_REJECTED: several"),
            (format!("[{}]", row(r#","User_Id__c":"005000000000001AAa""#)), "CREDENTIALS_NOT_FOUND"),
            (format!("[{},{}]", row(r#","User_Id__c":"005000000000001aAA""#), row("")), "1001 pw"),
            (
                format!("[{}]", row(r#","CTI_Password__c":null"#)),
                "UPSTREAM_REJECTED: the field CTI_Password__c of the CTI login",
            ),
            (
                format!("[{}]", row(r#","CTI_Username__c":null"#)),
                "UPSTREAM_REJECTED: the field CTI_Username__c of the CTI login",
            ),
            (
                format!("[{}]", row(r#","CTI_Extension__c":null"#)),
                "UPSTREAM_REJECTED: the field CTI_Extension__c of the CTI login",
            ),
            (
                format!("[{}]", row(r#","CTI_Password__c":"********""#)),
                "UPSTREAM_REJECTED: Salesforce shows the broker a mask",
            ),
            (format!("[{}]", row(r#","CTI_Extension__c":["x"]"#)), "UPSTREAM_REJECTED: the field CTI_Extension__c in"),
            (
                format!("[{}]", row("").replace("CTI_Password__c", "x")),
                "UPSTREAM_REJECTED: the broker may not read the field CTI_P",
            ),
            (
                format!("[{}]", row("").replace("User_Id__c", "x")),
                "UPSTREAM_REJECTED: the broker may not read the field User_Id",
            ),
            (format!("[{}]", row(r#","ADFS_Username__c":"corp\\al""#)), "1001 pw 05051 Some(\"corp\\\\al\")"),
        ];
        for (body, expected) in cases {
            let outcome = outcome(&body, &lookup);
            assert!(outcome.starts_with(expected), "{body}\n{outcome}");
        }
    }

    #[test]
    fn what_is_not_mapped_is_not_read() {
        let mut lookup = Lookup { active_field: String::new(), allow_mask_like: true, ..Lookup::default() };
        lookup.fields.adfs_username = String::new();
        assert_eq!(outcome(&row(r#","CTI_Password__c":"XXXX""#), &lookup), "1001 XXXX 05051 None");
        lookup.fields.password = String::new();
        lookup.fields.extension = String::new();
        assert_eq!(outcome(&row(r#","CTI_Password__c":null"#), &lookup), "1001   None");
    }

    #[test]
    fn an_apex_resource_may_leave_out_the_key_but_not_name_another() {
        let lookup = Lookup { mode: Mode::Apex, ..Lookup::default() };
        let bare = r#"{"CTI_Username__c":"1001","CTI_Password__c":"pw","CTI_Extension__c":"1","ADFS_Username__c":"a"}"#;
        assert_eq!(outcome(bare, &lookup), "1001 pw 1 Some(\"a\")");
        assert!(outcome(&row(r#","User_Id__c":"005000000000002AAA""#), &lookup).starts_with("CREDENTIALS_NOT_FOUND"));
        assert_eq!(outcome(&bare.replace("ADFS_Username__c", "x"), &lookup), "1001 pw 1 None");
        let empty = outcome(&bare.replace("CTI_Extension__c", "x"), &lookup);
        assert!(empty.starts_with(
            "UPSTREAM_REJECTED: the field CTI_Extension__c of the CTI login of this user in Salesforce is empty"
        ));
        assert!(outcome("null", &lookup).starts_with("CREDENTIALS_NOT_FOUND"));
    }

    #[test]
    fn a_mask_is_not_taken_for_a_password() {
        for mask in ["*", "***", "****1234", "X", "XXXXXXXX", "XXXX1", "******-12", "XXXXXabcd"] {
            assert!(is_mask(mask), "{mask}");
        }
        for password in ["", "***1", "XXX1234", "****12345", "xxxx", "a****", "Xylophone", "*X*X*X*X*", "1234****"] {
            assert!(!is_mask(password), "{password}");
        }
    }
}
