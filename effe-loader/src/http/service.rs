//! Who answers on a connection, whichever protocol it speaks: the effe, or the admin listener. Both take this one way,
//! so that the protocol's code is in the program once.

use std::rc::Rc;

use crate::{
    handler::service::{Answered, Guarded, HandlerService, Handling},
    http::arrival::Arrival,
};

/// Who answers.
pub enum Site {
    /// The effe.
    Effe(Rc<HandlerService>),
    /// Somebody else, in no hurry.
    Other(Rc<dyn Answer>),
}

/// Answers requests that may take their time.
pub trait Answer {
    /// The answer to one.
    fn answer(self: Rc<Self>, arrival: Arrival) -> Handling;
}

impl Site {
    /// [`Answer::answer`]
    pub fn answer(&self, arrival: Arrival) -> Answered {
        match self {
            Site::Effe(handler) => handler.answer(arrival),
            Site::Other(other) => Answered::Later(Guarded::new(Rc::clone(other).answer(arrival))),
        }
    }
}
