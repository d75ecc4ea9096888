//! What the broker does in every script: it answers commands, counts messages, sends receipts, and checks what always holds: a
//! client sends nothing that is too long, under one source, and registers once on each connection.

use serde_json::json;

use super::peer::Received;
use super::player::{Player, extend};
use super::script::{Failure, Outcome};
use wire::command::Command;
use wire::{ErrorCode, Refusal, notice};

/// How many messages of a client are taken in a session. The scripts ask for less than 200.
const MESSAGES_MAX: usize = 10_000;

impl Player {
    /// Takes a message. What a script may wait for goes into the inbox.
    pub(super) async fn take(&mut self, received: Received) -> Outcome {
        if self.session.taken >= MESSAGES_MAX {
            return Err(Failure::new(
                "the messages that the script asks for",
                format!("{MESSAGES_MAX} messages and more"),
            )
            .mend("send what Conformance/Do/* asks for, and nothing in a loop"));
        }
        if received.len > self.message_bytes_max {
            let max = self.message_bytes_max;
            return Err(Failure::new(
                format!("messages of at most {max} bytes"),
                format!("one of {} bytes", received.len),
            )
            .mend("do not send what is longer than MaxMessageBytes: a broker closes with 1009"));
        }
        if let Some(source) = received.text("source") {
            self.session.check_source(source)?;
        }
        let id = received.text("id").map(str::to_owned);
        if received.command.is_some() {
            return self.command(&received, id.as_deref()).await;
        }
        self.session.take();
        let is_ours = received.triple.channel == "Conformance";
        let is_request = received.fields.get("timeout").or_else(|| received.fields.get("gather")).is_some();
        if received.text("inReplyTo").is_some() || is_ours && received.triple.topic == "Ask" {
            self.inbox.push_back(received);
            return Ok(());
        }
        if let Some(id) = id {
            if is_request {
                let refusal = Refusal::new(ErrorCode::NoHandler, "the suite answers Conformance/Ask/* only");
                self.send(notice::failure(&received.triple, Some(&id), &[], &refusal)).await;
            } else if self.receipts {
                self.send(notice::receipt(&id, 1, None, None, None)).await;
            }
        }
        if is_ours {
            self.inbox.push_back(received);
        }
        Ok(())
    }

    /// Answers a command of a registered client.
    async fn command(&mut self, received: &Received, id: Option<&str>) -> Outcome {
        let more = match &received.command {
            Some(Command::Register(_)) => {
                return Err(Failure::new("one Register on each connection", "a second one").mend(
                    "register once for each connection; a session is changed by Unregister, Renew or a new connection",
                ));
            }
            Some(Command::Subscribe(subscribe)) => {
                let mut more = json!({ "SubscriptionId": self.session.subscribe(subscribe) });
                extend(&mut more, &self.subscribed_more);
                more
            }
            Some(Command::Acknowledge(count)) => {
                self.session.acknowledge(*count)?;
                if id.is_none() {
                    self.session.taken += 1;
                    return Ok(());
                }
                json!({})
            }
            Some(Command::ListApplications) => json!({ "Applications": [] }),
            Some(Command::ListSubscriptions) => json!({ "Subscriptions": [] }),
            Some(Command::Unregister) => {
                self.session.is_unregistered = true;
                json!({})
            }
            Some(
                Command::Renew(_)
                | Command::SetState(_)
                | Command::Unsubscribe(_)
                | Command::Explain(_)
                | Command::Cancel(_)
                | Command::Ping,
            )
            | None => json!({}),
        };
        self.session.taken += 1;
        self.send(notice::success(&received.triple, id, more)).await;
        Ok(())
    }
}
