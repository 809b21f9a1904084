//! What the compiler says where a method is called whose feature is off: which feature it needs, and where that goes.
//!
//! Without its feature, a method is here: one that nobody can call, because it asks for a trait that nothing
//! implements. What the compiler says of such a trait is ours to write. Of a method that isn't there it says `no method
//! named form`.

#[cfg(not(feature = "json"))]
mod json {
    use crate::{error::Result, params::Params, request::Request, response::Response};

    #[diagnostic::on_unimplemented(
        message = "`json` needs the feature `json` of effe-abi, which is on by default",
        label = "its feature is off",
        note = "`cargo add effe-abi --features json` turns it on"
    )]
    pub trait Json {}

    impl Request {
        #[doc(hidden)]
        pub fn json<'s, T>(&'s self) -> Result<T>
        where
            &'s (): Json,
        {
            unreachable!("nothing implements the trait")
        }
    }

    impl Params {
        #[doc(hidden)]
        pub fn json<'s, T>(&'s self) -> Result<T>
        where
            &'s (): Json,
        {
            unreachable!("nothing implements the trait")
        }
    }

    impl Response<'_> {
        #[doc(hidden)]
        pub fn json<'s, T: ?Sized>(&'s mut self, _: &T) -> Result<&'s mut Self>
        where
            &'s (): Json,
        {
            unreachable!("nothing implements the trait")
        }
    }
}

#[cfg(not(feature = "query"))]
mod query {
    use crate::{error::Result, request::Request};

    #[diagnostic::on_unimplemented(
        message = "`Request::query` needs the feature `query` of effe-abi",
        label = "its feature is off",
        note = "`cargo add effe-abi --features query` turns it on"
    )]
    pub trait Query {}

    impl Request {
        #[doc(hidden)]
        pub fn query<'s, T>(&'s self) -> Result<T>
        where
            &'s (): Query,
        {
            unreachable!("nothing implements the trait")
        }
    }
}

#[cfg(not(feature = "form"))]
mod form {
    use crate::{error::Result, request::Request};

    #[diagnostic::on_unimplemented(
        message = "`Request::form` needs the feature `form` of effe-abi",
        label = "its feature is off",
        note = "`cargo add effe-abi --features form` turns it on"
    )]
    pub trait Form {}

    impl Request {
        #[doc(hidden)]
        pub fn form<'s, T>(&'s self) -> Result<T>
        where
            &'s (): Form,
        {
            unreachable!("nothing implements the trait")
        }
    }
}

#[cfg(not(feature = "cookies"))]
mod cookies {
    use crate::{request::Request, response::Response};

    #[diagnostic::on_unimplemented(
        message = "`cookie`, `cookies` and `set_cookie` need the feature `cookies` of effe-abi",
        label = "its feature is off",
        note = "`cargo add effe-abi --features cookies` turns it on"
    )]
    pub trait Cookies {}

    impl Request {
        #[doc(hidden)]
        pub fn cookie<'s>(&'s self, _: &str) -> Option<&'s str>
        where
            &'s (): Cookies,
        {
            unreachable!("nothing implements the trait")
        }
    }

    impl Request {
        #[doc(hidden)]
        pub fn cookies<'s>(&'s self) -> std::iter::Empty<(&'s str, &'s str)>
        where
            &'s (): Cookies,
        {
            unreachable!("nothing implements the trait")
        }
    }

    impl Response<'_> {
        #[doc(hidden)]
        pub fn set_cookie<'s, C>(&'s mut self, _: C) -> &'s mut Self
        where
            &'s (): Cookies,
        {
            unreachable!("nothing implements the trait")
        }
    }
}

#[cfg(not(feature = "async"))]
mod asynchronous {
    use crate::request::Request;

    #[diagnostic::on_unimplemented(
        message = "`Request::body` needs the feature `async` of effe-abi; without it, there are `bytes`, `text` and `reader`",
        label = "its feature is off",
        note = "`cargo add effe-abi --features async` turns it on"
    )]
    pub trait Async {}

    impl Request {
        #[doc(hidden)]
        pub fn body<'s>(&'s self) -> ()
        where
            &'s (): Async,
        {
            unreachable!("nothing implements the trait")
        }
    }
}

#[cfg(not(feature = "http"))]
mod http {
    use crate::{error::Result, request::Request};

    #[diagnostic::on_unimplemented(
        message = "`to_http` and `send_http` need the feature `http` of effe-abi",
        label = "its feature is off",
        note = "`cargo add effe-abi --features http` turns it on"
    )]
    pub trait Http {}

    impl Request {
        #[doc(hidden)]
        pub fn to_http<'s, B>(&'s self) -> Result<B>
        where
            &'s (): Http,
        {
            unreachable!("nothing implements the trait")
        }
    }

    #[cfg(feature = "async")]
    impl crate::async_response::AsyncResponse<'_> {
        #[doc(hidden)]
        #[expect(clippy::unused_async, reason = "it stands for one that is")]
        pub async fn send_http<'s, B>(&'s mut self, _: B) -> Result
        where
            &'s (): Http,
        {
            unreachable!("nothing implements the trait")
        }
    }
}

#[cfg(not(feature = "websocket"))]
mod websocket {
    use crate::{error::Result, request::Request};

    #[diagnostic::on_unimplemented(
        message = "`Request::websocket` needs the feature `websocket` of effe-abi",
        label = "its feature is off",
        note = "`cargo add effe-abi --features websocket` turns it on"
    )]
    pub trait WebSocket {}

    impl Request {
        #[doc(hidden)]
        pub fn websocket<'s, R>(&'s self, _: &mut R) -> Result
        where
            &'s (): WebSocket,
        {
            unreachable!("nothing implements the trait")
        }
    }
}
