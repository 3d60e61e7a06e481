//! Asking the program who may do what.

use crate::Command;
use mqtt_proto::ReasonCode;
use mqtt_session::broker::{Answer, Ask, QuestionId};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// An answer to come.
pub type Decision<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// Decides who may connect, publish and subscribe.
///
/// Which questions are asked is set by [`BrokerConfig::ask`](super::BrokerConfig::ask). Decisions
/// run on the runtime that started the broker, not on the broker's thread, and may take their time:
/// only the connection that is asked about waits. No answer within
/// [`BrokerConfig::answer_timeout`](super::BrokerConfig::answer_timeout) is a no, and so is a panic.
///
/// Async closures and functions from [`Ask`] to [`Answer`] are authorizers.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides.
    fn decide(&self, ask: Ask) -> Decision<'_>;
}

impl<F, D> Authorizer for F
where
    F: Fn(Ask) -> D + Send + Sync + 'static,
    D: Future<Output = Answer> + Send + 'static,
{
    fn decide(&self, ask: Ask) -> Decision<'_> {
        Box::pin(self(ask))
    }
}

/// Starts a task on the runtime that started the broker.
pub(super) type Spawn = Box<dyn Fn(Pin<Box<dyn Future<Output = ()> + Send>>) + Send>;

/// Whom to ask, where, and how the answers come back. There is at most one open question for each
/// connection, so the channel need not be bounded.
pub(super) struct Office {
    pub(super) authorizer: Arc<dyn Authorizer>,
    pub(super) spawn: Spawn,
    pub(super) answers: UnboundedSender<Command>,
}

impl Office {
    pub(super) fn ask(&self, ask: Ask) {
        let pending = Pending { id: ask.id, answers: Some(self.answers.clone()) };
        let authorizer = Arc::clone(&self.authorizer);
        (self.spawn)(Box::pin(async move {
            let answer = authorizer.decide(ask).await;
            pending.answer(answer);
        }));
    }
}

/// A question that is open. If it is dropped unanswered, by a panic or because the runtime ends, the
/// answer is no.
struct Pending {
    id: QuestionId,
    answers: Option<UnboundedSender<Command>>,
}

impl Pending {
    fn answer(mut self, answer: Answer) {
        self.send(answer);
    }

    fn send(&mut self, answer: Answer) {
        if let Some(answers) = self.answers.take() {
            // If the broker has ended, nobody waits for the answer.
            let _ = answers.send(Command::Answer(self.id, answer));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.send(Answer::Deny(ReasonCode::UnspecifiedError));
    }
}
