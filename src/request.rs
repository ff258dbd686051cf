//! A charging request on its way: what was asked, what is known of its fate, what becomes of it.

use tokio::sync::oneshot;

use crate::charging::command::Invocation;
use crate::charging::decision::{Answer, Rejection};
use crate::charging::ids::ChargingDataRef;
use crate::charging::session::{ChargingSession, Operation, Service};
use crate::charging::time::Timestamp;
use crate::store::{self, AccountKey, Applied};

/// An answer, with the session it speaks of.
#[derive(Debug)]
pub struct Done {
    pub answer: Answer,
    pub session: Box<ChargingSession>,
    /// The answer had been given before.
    pub replayed: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The request is refused, for good.
    Rejected(Rejection),
    /// The store failed; says whether the request may have been done all the same.
    Store(store::Error),
    /// Others changed the same account at each attempt. Nothing was done.
    Contended,
    /// Too many requests for the same account were there before, or it was its turn too late. Nothing was done.
    Crowded,
}

impl Failure {
    /// For whoever waits until the store lets something be done: all but a rejection passes with time.
    pub fn of_the_store(self) -> store::Error {
        match self {
            Self::Store(error) => error,
            Self::Contended | Self::Crowded => store::Error::unavailable(Applied::No, format!("{self:?}")),
            Self::Rejected(rejection) => store::Error::corrupt(format!("{rejection:?}")),
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// An Update or a Release.
pub struct Continuation {
    pub operation: Operation,
    pub service: Service,
    pub account: AccountKey,
    pub reference: ChargingDataRef,
    pub invocation: Box<Invocation>,
}

/// What is known of an operation that is submitted until it is settled.
#[derive(Clone, Copy)]
pub struct Fate {
    pub begun: Timestamp,
    /// Some attempt may have done it. Then a later one that was refused does not mean that nothing was done.
    pub is_unknown: bool,
}

impl Fate {
    pub fn begun(at: Timestamp) -> Self {
        Self { begun: at, is_unknown: false }
    }

    pub fn tell<T>(&self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        outcome.map_err(|failure| match failure {
            Failure::Store(store::Error::Unavailable { applied: Applied::No, reason }) if self.is_unknown => {
                store::Error::Unavailable { applied: Applied::Unknown, reason }.into()
            }
            Failure::Contended if self.is_unknown => {
                store::Error::unavailable(Applied::Unknown, "not settled by any attempt").into()
            }
            failure => failure,
        })
    }
}

/// One of those who stand in line at an account.
pub struct Standing {
    pub asked: Continuation,
    pub fate: Fate,
    answer: oneshot::Sender<Result<Done, Failure>>,
}

impl Standing {
    /// Also where the answer arrives; it ends without one if whoever served it died of it.
    pub fn new(asked: Continuation, fate: Fate) -> (Self, oneshot::Receiver<Result<Done, Failure>>) {
        let (answer, answered) = oneshot::channel();
        (Self { asked, fate, answer }, answered)
    }

    /// Nobody waits for the answer any more.
    pub fn has_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    pub fn answer(self, outcome: Result<Done, Failure>) {
        let _nobody_waits = self.answer.send(self.fate.tell(outcome));
    }
}
