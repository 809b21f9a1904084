//! Who answers on a connection, whichever protocol it speaks: the effe, or the admin listener. Both take this one way,
//! so that the protocol's code is in the program once.

use std::rc::Rc;

use actix_http::Request;

use crate::{
    connection::Answering,
    handler::{Answered, Guarded, HandlerService, Handling},
    incoming::Incoming,
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
    /// The answer to one, of whose head so many bytes are.
    fn answer(
        self: Rc<Self>,
        request: Request,
        n_head: usize,
        incoming: Incoming,
        answering: Answering,
    ) -> Handling;
}

impl Site {
    /// [`Answer::answer`]
    pub fn answer(
        &self,
        request: Request,
        n_head: usize,
        incoming: Incoming,
        answering: Answering,
    ) -> Answered {
        match self {
            Site::Effe(handler) => handler.answer(request, n_head, incoming, answering),
            Site::Other(other) => {
                let answer = Rc::clone(other).answer(request, n_head, incoming, answering);
                Answered::Later(Guarded::new(answer))
            }
        }
    }
}
