//! HTTP over a connection, whoever answers there: the effe, or the admin listener. Both take this one way, so that
//! the protocol's code is in the program once.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use actix_http::{HttpService, KeepAlive, Protocol, Request, Response, error::DispatchError};
use actix_service::{Service, ServiceFactory, fn_factory};
use actix_utils::future::{Either, Ready, ready};

use crate::{
    body::Body,
    connection::{Connection, Patience},
    expect::{Answers, Expects},
    handler::{Guarded, HandlerService, Handling},
};

/// How long a client that was told that the connection closes may take to close it, too.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Who answers.
pub enum Site {
    /// The effe.
    Effe(HandlerService),
    /// Somebody else, in no hurry.
    Other(Rc<dyn Answer>),
}

/// Answers requests that may take their time.
pub trait Answer {
    /// The answer to one.
    fn answer(self: Rc<Self>, request: Request) -> Handling;
}

impl Service<Request> for Site {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, Guarded>;

    actix_service::always_ready!();

    fn call(&self, request: Request) -> Self::Future {
        match self {
            Site::Effe(handler) => handler.call(request),
            Site::Other(other) => Either::right(Guarded::new(Rc::clone(other).answer(request))),
        }
    }
}

/// What makes of connections what `site` answers.
pub fn http(
    patience: Patience,
    site: Rc<dyn Fn() -> Site>,
) -> impl ServiceFactory<
    (Connection, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = DispatchError,
    InitError = (),
> {
    let answers = fn_factory({
        let site = Rc::clone(&site);
        move || ready(Ok::<_, Infallible>(Answers(site())))
    });
    let expects = fn_factory(move || ready(Ok::<_, Infallible>(Expects(site()))));
    HttpService::build()
        // Connections look after that themselves.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(patience.read.unwrap_or_default())
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .on_connect_ext(|connection: &Connection, data| {
            data.insert(Rc::clone(connection.traffic()));
        })
        .expect(expects)
        .finish(answers)
}
