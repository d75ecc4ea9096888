//! The step `events` of a diagnosis: checks that each topic exists, may be read, and has the fields that the
//! configuration names. No stream is opened, so nothing counts as delivered.

use tokio::time::timeout;
use tonic::Status;

use super::failure::Failure;
use super::schema::Schema;
use super::wire::PubSub;
use crate::config::EventTopic;
use crate::salesforce::Org;
use crate::salesforce::diagnosis::{Outcome, Steps};
use crate::salesforce::oauth::Token;

impl Org {
    /// Adds one step for each table `[salesforce.events.topics.NAME]`.
    pub(in crate::salesforce) async fn topics(&self, token: &Token, steps: &mut Steps) {
        if self.config.events.topics.is_empty() {
            return;
        }
        let pubsub = match PubSub::new(&self.config) {
            Ok(pubsub) => pubsub,
            Err(error) => return steps.add("events", Outcome::Failed, error.to_string()),
        };
        for (name, topic) in &self.config.events.topics {
            let asked = timeout(self.config.timeout, ask(&pubsub, token, topic)).await.unwrap_or_else(|_| {
                Err(format!(
                    "{} does not answer within salesforce.timeout: a firewall on the way (port 7443 is the Pub/Sub API's), or a \
                     proxy that does not pass HTTP/2",
                    self.config.events.endpoint
                ))
            });
            let (outcome, told) = match asked {
                Ok(told) => (Outcome::Passed, told),
                Err(told) => (Outcome::Failed, told),
            };
            steps.add("events", outcome, format!("{name}: {told}"));
        }
    }
}

/// Returns what was found, or what to change.
async fn ask(pubsub: &PubSub, token: &Token, topic: &EventTopic) -> Result<String, String> {
    let EventTopic { topic: called, user_field, fields, .. } = topic;
    let failed = |status: Status| format!("{called}: {}", Failure::of(&status).hint);
    let info = pubsub.topic(token, called).await.map_err(failed)?;
    if !info.can_subscribe {
        return Err(failed(Status::permission_denied("")));
    }
    let schema = pubsub.schema(token, &info.schema_id).await.map_err(failed)?;
    let schema = Schema::parse(&schema).map_err(|why| format!("{called}: its schema cannot be used: {why}"))?;
    let mut absent = Vec::new();
    // The user's field must be spelt exactly. Fields inside other fields are not fully described by the schema.
    let first = user_field.as_deref().and_then(|path| path.split('.').next());
    absent.extend(first.filter(|first| schema.fields().all(|it| it != *first)));
    let has = |name: &str| schema.fields().any(|it| it.eq_ignore_ascii_case(name));
    absent.extend(fields.iter().flatten().map(String::as_str).filter(|name| !has(name)));
    absent.dedup();
    if !absent.is_empty() {
        let there: Vec<&str> = schema.fields().collect();
        return Err(format!(
            "{called} has no field {}: correct user_field, which is taken in the event's own letter case, or fields. It has {}",
            absent.join(", "),
            there.join(", ")
        ));
    }
    let to = user_field.as_ref().map_or_else(|| "for everybody".to_owned(), |field| format!("for the user in {field}"));
    Ok(format!("{called} can be subscribed to, {to}"))
}
