//! Asking the program who may do what.

use crate::Command;
use mqtt_proto::ReasonCode;
use mqtt_session::broker::{Answer, Ask, QuestionId};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// An answer, or where it comes from.
pub enum Decision {
    /// This is it. The connection goes on without waiting for anybody.
    Now(Answer),
    /// The answer is still to come.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl Decision {
    /// The answer that this future gives.
    pub fn later(answer: impl Future<Output = Answer> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl From<Answer> for Decision {
    fn from(answer: Answer) -> Self {
        Self::Now(answer)
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(answer) => f.debug_tuple("Now").field(answer).finish(),
            Self::Later(_) => f.debug_struct("Later").finish_non_exhaustive(),
        }
    }
}

/// Decides who may connect, publish and subscribe.
///
/// Which questions are asked is set by [`BrokerConfig::ask`](super::BrokerConfig::ask). A decision that
/// comes [`Later`](Decision::Later) is made on the runtime that started the broker and may take its time:
/// only the connection that is asked about waits. No answer within
/// [`BrokerConfig::answer_timeout`](super::BrokerConfig::answer_timeout) is a no, and so is a panic.
///
/// Async closures and functions from [`Ask`] to [`Answer`] are authorizers, which always decide later.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides, or says how it is going to be decided. This is called on the broker's thread, where
    /// everybody waits for it: what takes longer than a look at a table belongs into the future.
    fn decide(self: Arc<Self>, ask: Ask) -> Decision;
}

impl<F, D> Authorizer for F
where
    F: Fn(Ask) -> D + Send + Sync + 'static,
    D: Future<Output = Answer> + Send + 'static,
{
    fn decide(self: Arc<Self>, ask: Ask) -> Decision {
        // Not even the closure itself runs here.
        Decision::later(async move { self(ask).await })
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
    /// Has it decided. `None` if the answer comes later.
    pub(super) fn ask(&self, ask: Ask) -> Option<Answer> {
        let id = ask.id;
        let authorizer = Arc::clone(&self.authorizer);
        match catch_unwind(AssertUnwindSafe(|| authorizer.decide(ask))) {
            Ok(Decision::Now(answer)) => return Some(answer),
            Ok(Decision::Later(decision)) => {
                let pending = Pending { id, answers: Some(self.answers.clone()) };
                (self.spawn)(Box::pin(async move { pending.answer(decision.await) }));
            }
            Err(_) => return Some(PANICKED),
        }
        None
    }
}

/// What it means when there is no answer.
const PANICKED: Answer = Answer::Deny(ReasonCode::UnspecifiedError);

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
        self.send(PANICKED);
    }
}
