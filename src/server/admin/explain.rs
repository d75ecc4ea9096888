//! `POST /v1/explain`: why did B not get it.

use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;
use utoipa::ToSchema;
use wire::{ErrorCode, check_name};

use super::Shared;
use super::problem::Problem;
use super::request::{Answer, Body};
use crate::router::explain::{self, About, Explanation, NoSender};

/// A question.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExplainQuestion)]
pub(super) struct Question {
    /// Who sends the envelope.
    #[serde(rename = "as")]
    sender: Application,
    /// The envelope, without a payload.
    #[schema(value_type = Object, example = json!({"channel": "Phone", "topic": "Call", "subtopic": "Ringing"}))]
    envelope: Box<RawValue>,
    /// Whom the question is about; absent: all sessions of the envelope's scope.
    to: Option<Application>,
}

/// An application.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ExplainApplication)]
struct Application {
    /// Its source.
    #[schema(min_length = 1, max_length = 128)]
    source: String,
    /// Its user. It can be absent if the source has sessions of one user only, or is a service.
    #[schema(min_length = 1, max_length = 128)]
    user: Option<String>,
}

impl Application {
    fn check(&self, place: &str) -> Result<(), Problem> {
        let wrong = |member, fault: &dyn std::fmt::Display| Problem::invalid(format!("{place}.{member} {fault}"));
        check_name(&self.source).map_err(|fault| wrong("source", &fault))?;
        self.user.as_deref().map_or(Ok(()), check_name).map_err(|fault| wrong("user", &fault))
    }
}

/// Explain who would get an envelope now, and why others would not
///
/// Nothing is delivered. `GET /v1/recent` is about the past.
#[utoipa::path(
    post,
    path = "/v1/explain",
    request_body = Question,
    responses((status = 200, description = "What the envelope is, who gets it, and why others do not.", body = Explanation))
)]
pub(super) async fn explain(
    State(shared): State<Shared>,
    Body(question): Body<Question>,
) -> Result<Answer<Explanation>, Problem> {
    question.sender.check("as")?;
    question.to.as_ref().map_or(Ok(()), |to| to.check("to"))?;
    let json_depth = shared.broker.settings.limits().json_depth;
    let envelope = explain::envelope(question.envelope.get(), json_depth)
        .map_err(|refusal| Problem::new(refusal.code, refusal.message))?;
    let router = &shared.broker.router;
    let Application { source, user } = &question.sender;
    let sender = router.sender(source, user.as_deref()).map_err(|why| no_sender(source, why))?;
    let about = question.to.as_ref().map(|to| About { source: &to.source, user: to.user.as_deref() });
    let (told, answer) = oneshot::channel();
    // Nobody waits any more if the caller has hung up.
    let told = |_, explanation| drop(told.send(explanation));
    router.explain_everywhere(Instant::now().into_std(), &sender, &envelope, about.as_ref(), told);
    let ended = |_| Problem::new(ErrorCode::Internal, "the broker ends");
    answer.await.map(Answer).map_err(ended)
}

fn no_sender(source: &str, why: NoSender) -> Problem {
    match why {
        NoSender::NotRegistered(nearest) => {
            let hint = nearest.map(|nearest| format!("; did you mean '{nearest}'?")).unwrap_or_default();
            let words =
                format!("no session of '{source}' of this user is registered, so nothing can be sent as it{hint}");
            Problem::new(ErrorCode::NotRegistered, words)
        }
        NoSender::Elsewhere(node) => {
            let words = format!(
                "'{source}' is connected to the node '{node}', which decides on what it sends; ask the admin API of that node"
            );
            Problem::new(ErrorCode::NotRegistered, words)
        }
        NoSender::SeveralUsers => {
            Problem::invalid(format!("sessions of several users have the source '{source}'; name the user in as.user"))
        }
    }
}
