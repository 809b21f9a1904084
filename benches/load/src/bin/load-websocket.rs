//! Load over WebSockets: `load-websocket ADDRESS PATH CONNECTIONS SECONDS BYTES`. Each connection has one binary
//! message of so many bytes on its way, and checks each echo. Prints what it counted as JSON; times are in
//! microseconds.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::{
    cell::RefCell,
    env, io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::{JoinSet, LocalSet},
};

/// Why there is nothing to count.
type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, path, connections, seconds, bytes] = &arguments[..] else {
        return Err("usage: load-websocket ADDRESS PATH CONNECTIONS SECONDS BYTES".into());
    };
    let (connections, seconds, bytes) = (connections.parse()?, seconds.parse()?, bytes.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, load(address, path, connections, seconds, bytes))
}

async fn load(
    address: &str,
    path: &str,
    connections: usize,
    seconds: u64,
    bytes: usize,
) -> Result<(), Failed> {
    let mut sockets = Vec::new();
    for _ in 0..connections {
        sockets.push(open(address, path).await?);
    }
    let latencies = Rc::<RefCell<Vec<u32>>>::default();
    let (begun, time) = (Instant::now(), Duration::from_secs(seconds));
    let mut tasks = JoinSet::new();
    for socket in sockets {
        let latencies = Rc::clone(&latencies);
        tasks.spawn_local(async move { ask(socket, bytes, begun + time, &latencies).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied().unwrap_or(0);
    println!(
        "{{\"requests\":{},\"seconds\":{seconds},\"p50\":{},\"p99\":{},\"p999\":{},\"failed\":0}}",
        latencies.len(),
        at(0.5),
        at(0.99),
        at(0.999)
    );
    Ok(())
}

/// A connection after its handshake.
async fn open(address: &str, path: &str) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    if head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(socket);
    }
    Err(io::Error::other(String::from_utf8_lossy(&head).into_owned()))
}

/// Sends messages until the time is over, each after the echo of the one before.
async fn ask(
    mut socket: TcpStream,
    bytes: usize,
    end: Instant,
    latencies: &RefCell<Vec<u32>>,
) -> io::Result<()> {
    let payload: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
    let head = |mask: u8| match u16::try_from(bytes) {
        Ok(short @ 0..126) => vec![0x82, mask | short as u8],
        Ok(long) => [&[0x82, mask | 126][..], &long.to_be_bytes()].concat(),
        Err(_) => [&[0x82, mask | 127][..], &(bytes as u64).to_be_bytes()].concat(),
    };
    // A client masks: here by nothing.
    let message = [head(0x80), vec![0; 4], payload.clone()].concat();
    let expected = [head(0), payload].concat();
    let mut echo = vec![0; expected.len()];
    loop {
        let sent = Instant::now();
        if sent >= end {
            return Ok(());
        }
        socket.write_all(&message).await?;
        socket.read_exact(&mut echo).await?;
        if echo != expected {
            return Err(io::Error::other("a wrong echo"));
        }
        latencies.borrow_mut().push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
}
