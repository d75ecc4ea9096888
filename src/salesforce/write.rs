//! Writes records of the org: [`Org`] changes a record, creates one, and finds one by a field.
//!
//! A record is created with an External ID, by which it is found again if the answer was lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use serde::Serializer as _;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tokio::sync::OwnedMutexGuard;

use super::Org;
use super::client::{Call, Reply, Want};
use super::fault::Fault;
use super::response::{Value, objects, records, value};
use super::soql;
use super::write_fault::Target;
use crate::config::record_id;
use crate::http::encode;

/// The API name of a field and its value in JSON.
pub(super) type Field = (String, Box<RawValue>);

/// How long Salesforce may take to create a record. Triggers and flows run within it.
const CREATE_MAX: Duration = Duration::from_mins(2);

/// What Salesforce answers to the creation of a record.
pub(super) enum Posted {
    /// It is created, with this id.
    New(String),
    /// A unique field has a value that another record has already. Salesforce does not always say which field.
    Duplicate,
}

impl Org {
    /// Changes a record, as a call of this user. `id` has 18 characters.
    pub(super) async fn change(
        &self,
        user: &str,
        target: &Target<'_>,
        id: &str,
        fields: &[Field],
    ) -> Result<(), Fault> {
        let path = self.path(&format!("{}/{id}", target.object));
        let body = json_object(fields);
        self.client
            .call(&Call {
                method: Method::PATCH,
                path: &path,
                body: Some(&body),
                want: Want::Changed,
                user: Some(user),
                target: Some(target),
            })
            .await
            .map(drop)
    }

    /// Creates a record, as a call of this user if there is one. It may take longer than other requests, and a fault says
    /// whether the outcome is in doubt.
    pub(super) async fn post(
        &self,
        user: Option<&str>,
        target: &Target<'_>,
        fields: &[Field],
    ) -> Result<Posted, Fault> {
        let path = self.path(target.object);
        let body = json_object(fields);
        let call = Call {
            method: Method::POST,
            path: &path,
            body: Some(&body),
            want: Want::Created,
            user,
            target: Some(target),
        };
        let reply = self.client.call_to_its_end(&call, CREATE_MAX).await?;
        match reply.status {
            400 => Ok(Posted::Duplicate),
            _ => id_of(&reply, "id").map(Posted::New).ok_or_else(|| unknown(target).in_doubt()),
        }
    }

    /// Returns the values that a record has in these fields, in this order. `id` has 18 characters.
    pub(super) async fn read(&self, target: &Target<'_>, id: &str) -> Result<Vec<Field>, Fault> {
        let path = format!("{}?fields={}", self.path(&format!("{}/{id}", target.object)), target.fields.join(","));
        let reply = self.client.call(&get(&path, Want::Json, target, None)).await?;
        let rows = objects(&reply.body).ok_or_else(|| unknown(target))?;
        let row = rows.first().ok_or_else(|| unknown(target))?;
        // Salesforce answers with its own spelling.
        let value = |field: &&str| row.iter().find(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, raw)| *raw);
        let found = target.fields.iter().filter_map(|field| Some(((*field).to_owned(), value(field)?.to_owned())));
        Ok(found.collect())
    }

    /// Returns the one record whose field has exactly this value, as a call of this user; `None` if there is none or there
    /// are several.
    pub(super) async fn find_by(
        &self,
        user: &str,
        target: &Target<'_>,
        field: &str,
        wanted: &str,
    ) -> Result<Option<String>, Fault> {
        let Some(literal) = soql::quote(wanted) else { return Ok(None) };
        let query =
            format!("SELECT Id, {field} FROM {} WHERE {field} = {literal} LIMIT {}", target.object, soql::ROWS_MAX);
        let path = format!("/services/data/v{}/query?q={}", self.config.api_version, encode(&query));
        let reply = self.client.call(&get(&path, Want::Json, target, Some(user))).await?;
        let rows = records(&reply.body).ok_or_else(|| unknown(target))?;
        let text = |row: &_, name: &str| match value(row, name) {
            Some(Value::Text(text)) => Some(secrecy::ExposeSecret::expose_secret(&text).to_owned()),
            _ => None,
        };
        let mut exact = rows.iter().filter(|row| text(row, field).as_deref() == Some(wanted));
        match (exact.next(), exact.next()) {
            (Some(only), None) => Ok(text(only, "Id").as_deref().and_then(record_id)),
            _ => Ok(None),
        }
    }

    /// Returns the record with an External ID, as a call of this user if there is one.
    pub(super) async fn by_external_id(
        &self,
        user: Option<&str>,
        target: &Target<'_>,
        (field, key): (&str, &str),
    ) -> Result<Option<String>, Fault> {
        let path = format!("{}?fields=Id", self.path(&format!("{}/{field}/{key}", target.object)));
        let reply = self.client.call(&get(&path, Want::Row, target, user)).await?;
        match reply.status {
            404 => Ok(None),
            300 => Err(Fault::object(
                "Salesforce has several records of this request; tell an administrator",
                format!("several records of {} have one value in {field}: make it 'Unique'", target.object),
            )),
            _ => id_of(&reply, "Id").map(Some).ok_or_else(|| unknown(target)),
        }
    }

    fn path(&self, below: &str) -> String {
        format!("/services/data/v{}/sobjects/{below}", self.config.api_version)
    }
}

fn get<'a>(path: &'a str, want: Want, target: &'a Target<'a>, user: Option<&'a str>) -> Call<'a> {
    Call { target: Some(target), user, ..Call::get(path, want) }
}

/// Returns the record id in an answer.
fn id_of(reply: &Reply, key: &str) -> Option<String> {
    let rows = objects(&reply.body)?;
    let raw = rows.first()?.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, raw)| *raw)?;
    record_id(&serde_json::from_str::<String>(raw.get()).ok()?)
}

fn unknown(target: &Target<'_>) -> Fault {
    Fault::unavailable(
        "Salesforce answers something that the broker does not know; try again in a moment",
        format!("the answer about {} names no record: is salesforce.login_url another server's?", target.object),
    )
}

/// Writes a JSON object whose values are passed through unchanged.
pub(super) fn json_object<K: AsRef<str>, V: serde::Serialize>(members: &[(K, V)]) -> String {
    let mut text = Vec::new();
    // Writing strings and raw JSON into memory cannot fail.
    let written =
        serde_json::Serializer::new(&mut text).collect_map(members.iter().map(|(key, value)| (key.as_ref(), value)));
    debug_assert!(written.is_ok() && serde_json::from_slice::<IgnoredAny>(&text).is_ok(), "an object is JSON");
    String::from_utf8(text).unwrap_or_default()
}

/// Lets one write at a time change a record: Salesforce would refuse the others while the record is locked, and could
/// apply them in another order.
#[derive(Default)]
pub(super) struct Turns {
    taken: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// Permission to write a record, until it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    record: &'a str,
    own: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for the turn of a record. Turns are given in order of arrival.
    pub(super) async fn take<'a>(&'a self, record: &'a str) -> Turn<'a> {
        let mut turn = Turn { turns: self, record, own: None };
        let queue = Arc::clone(self.taken.lock().entry(record.to_owned()).or_default());
        turn.own = Some(queue.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.own = None;
        let mut taken = self.turns.taken.lock();
        if taken.get(self.record).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            taken.remove(self.record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_they_came() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let fields =
            [("A".to_owned(), raw("1.10")), ("B__c".to_owned(), raw(r#""a\"b""#)), ("C".to_owned(), raw("null"))];
        assert_eq!(json_object(&fields), r#"{"A":1.10,"B__c":"a\"b","C":null}"#);
        assert_eq!(json_object::<String, Box<RawValue>>(&[]), "{}");
    }

    #[tokio::test]
    async fn a_turn_is_given_in_order_and_forgotten_when_it_is_over() {
        let turns = Turns::default();
        let order = Mutex::new(Vec::new());
        let write = async |number: u32| {
            let _turn = turns.take("a").await;
            order.lock().push(number);
            tokio::task::yield_now().await;
            order.lock().push(number);
        };
        let other = async { drop(turns.take("b").await) };
        tokio::join!(write(1), write(2), write(3), other);
        assert_eq!(*order.lock(), [1, 1, 2, 2, 3, 3]);
        assert!(turns.taken.lock().is_empty());
    }
}
