//! Asks another server what it knows: `GET /ada` sends it the line `ada`, and answers with its line.
//!
//! The connections are in a pool that all Contexts share. `init` makes it and tries it, a `static` holds it, `retire`
//! closes it. The parameter `server` is `HOST:PORT`, and `connections` how many there may be.
//!
//! A hot swap loads the library anew, with a `static` of its own: the new generation makes a pool of its own. The one
//! before keeps its pool, for a roll-back, until it retires at the swap after. So the server must bear as many
//! connections as two pools may have.

use std::{io, sync::OnceLock};

use deadpool::managed::{self, Metrics, RecycleError, RecycleResult};
use effe_abi::{AsyncLambda, AsyncResponse, Options, Params, Request, Result, StartError, Started, export};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpStream,
};

type Pool = managed::Pool<Server>;

/// What all Contexts of this generation share.
static POOL: OnceLock<Pool> = OnceLock::new();

struct Lookup {
    pool: Pool,
}

impl AsyncLambda for Lookup {
    const OPTIONS: Options = Options::new().keep_cancelled();

    async fn init(params: Params) -> Result {
        let server = Server { address: params.required("server")? };
        let pool = Pool::builder(server).max_size(params.parse("connections")?.unwrap_or(8)).build()?;
        // A server that isn't there is an error of Init: the effe doesn't serve, or goes on with the generation before.
        drop(pool.get().await?);
        POOL.set(pool).map_err(|_| "Init has run before".into())
    }

    async fn start(_: Params) -> Result<Self, StartError<Self>> {
        Ok(Lookup { pool: POOL.get().ok_or("Init comes first")?.clone() })
    }

    async fn run(lookup: Started<'_, Self>, request: &Request, response: &mut AsyncResponse<'_>) -> Result {
        let mut line = lookup?.pool.get().await?;
        let known = line.ask(request.path().trim_start_matches('/')).await?;
        response.text(known);
        Ok(())
    }

    async fn retire() -> Result {
        POOL.get().ok_or("Init comes first")?.close();
        Ok(())
    }
}

export!(async Lookup);

/// Where the pool's connections lead.
struct Server {
    address: &'static str,
}

/// A connection.
struct Line {
    stream: BufStream<TcpStream>,
    /// Whether no answer is outstanding. A run that is dropped while it waits leaves one.
    is_in_step: bool,
}

impl Line {
    async fn ask(&mut self, what: &str) -> io::Result<String> {
        self.is_in_step = false;
        self.stream.write_all(format!("{what}\n").as_bytes()).await?;
        self.stream.flush().await?;
        let mut answer = String::new();
        if self.stream.read_line(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.is_in_step = true;
        Ok(answer)
    }
}

impl managed::Manager for Server {
    type Type = Line;
    type Error = io::Error;

    async fn create(&self) -> io::Result<Line> {
        Ok(Line { stream: BufStream::new(TcpStream::connect(self.address).await?), is_in_step: true })
    }

    /// Called before a connection is used again; an error closes it, and another one is made.
    async fn recycle(&self, line: &mut Line, _: &Metrics) -> RecycleResult<io::Error> {
        if line.is_in_step { Ok(()) } else { Err(RecycleError::message("an answer is outstanding")) }
    }
}

#[cfg(test)]
mod tests;
