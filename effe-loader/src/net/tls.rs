//! TLS: a certificate and its key from two files, which are read again on order, and the bytes of a connection, which
//! may be encrypted.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use sha2::{Digest, Sha256};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{either::Either, io::poll_read_buf};

use crate::net::plain::Plain;

/// The name of HTTP/2 in a handshake.
const HTTP2: &[u8] = b"h2";

/// The certificate that new connections get, until the operator replaces it.
pub struct Tls {
    cert: PathBuf,
    key: PathBuf,
    current: ArcSwap<Pair>,
}

/// The content of the two files.
struct Pair {
    config: Arc<ServerConfig>,
    /// Of both files.
    digest: [[u8; 32]; 2],
}

impl Tls {
    /// Reads a certificate with its chain, and its key (PKCS #8, PKCS #1 or SEC 1), both as PEM. An error is one line:
    /// a file is not given, can't be read or doesn't hold what it should, or the key belongs to another certificate.
    pub fn read(cert: Option<&Path>, key: Option<&Path>) -> Result<Tls, String> {
        let (cert, key) = match (cert, key) {
            (Some(cert), Some(key)) => (cert, key),
            (_, None) => return Err("--tls-cert needs --tls-key FILE, which is not given".to_owned()),
            (None, _) => return Err("--tls-key needs --tls-cert FILE, which is not given".to_owned()),
        };
        let current = ArcSwap::from_pointee(Pair::of(&read(cert, key)?, cert, key)?);
        Ok(Tls { cert: cert.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files again; what they hold, if they have changed. Open connections keep their certificate; after an
    /// error new ones get it, too.
    pub fn reload(&self) -> Result<Option<[Vec<u8>; 2]>, String> {
        let files = read(&self.cert, &self.key)?;
        if digest(&files) == self.current.load().digest {
            return Ok(None);
        }
        self.current.store(Arc::new(Pair::of(&files, &self.cert, &self.key)?));
        Ok(Some(files))
    }

    /// Takes what another process has read from the files.
    pub fn take(&self, files: [Vec<u8>; 2]) -> Result<(), String> {
        self.current.store(Arc::new(Pair::of(&files, &self.cert, &self.key)?));
        Ok(())
    }

    /// Makes the handshake; fails if the client doesn't speak TLS, shares no version or cipher with us, or has left.
    pub async fn accept(&self, socket: Plain) -> io::Result<Io> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current.load().config));
        Ok(Io::Right(Box::new(acceptor.accept(socket).await?)))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tls { cert, key, .. } = self;
        f.debug_struct("Tls").field("cert", cert).field("key", key).finish_non_exhaustive()
    }
}

fn of_cert(cert: &Path, err: &dyn fmt::Display) -> String {
    format!("--tls-cert {}: {err}", cert.display())
}

fn of_key(key: &Path, err: &dyn fmt::Display) -> String {
    format!("--tls-key {}: {err}", key.display())
}

/// What the two files hold.
fn read(cert: &Path, key: &Path) -> Result<[Vec<u8>; 2], String> {
    let certs = fs::read(cert).map_err(|err| of_cert(cert, &err))?;
    Ok([certs, fs::read(key).map_err(|err| of_key(key, &err))?])
}

fn digest(files: &[Vec<u8>; 2]) -> [[u8; 32]; 2] {
    files.each_ref().map(|file| Sha256::digest(file).into())
}

impl Pair {
    /// Makes it of the content of the two files, which have these names.
    fn of(files: &[Vec<u8>; 2], cert: &Path, key: &Path) -> Result<Pair, String> {
        let (of_cert, of_key) =
            (|err: &dyn fmt::Display| of_cert(cert, err), |err: &dyn fmt::Display| of_key(key, err));
        let [certs, secret] = files;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certs).collect();
        let chain = chain.map_err(|err| of_cert(&err))?;
        if chain.is_empty() {
            return Err(of_cert(&"there is no certificate in it; it must be PEM, with the chain behind it"));
        }
        let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|err| match err {
            pem::Error::NoItemsFound => {
                of_key(&"there is no private key in it; it must be PEM, and not encrypted")
            }
            err => of_key(&err),
        })?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|err| err.to_string())?
            .with_no_client_auth()
            .with_single_cert(chain, secret);
        let mut config = config.map_err(|err| match err {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                of_key(&format!("it is not the key of the certificate in {}", cert.display()))
            }
            rustls::Error::InvalidCertificate(_) => of_cert(&err),
            err => of_key(&err),
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if cfg!(feature = "http2") {
            config.alpn_protocols.insert(0, HTTP2.to_vec());
        }
        Ok(Pair { config: Arc::new(config), digest: digest(files) })
    }
}

/// A connection's bytes, as they are or encrypted. The encrypted one is boxed: its buffers are large.
pub type Io = Either<Plain, Box<TlsStream<Plain>>>;

pub fn unencrypted(socket: Plain) -> Io {
    Io::Left(socket)
}

/// What carries the bytes.
pub fn socket(io: &Io) -> &Plain {
    match io {
        Io::Left(socket) => socket,
        Io::Right(stream) => stream.get_ref().0,
    }
}

pub fn socket_mut(io: &mut Io) -> &mut Plain {
    match io {
        Io::Left(socket) => socket,
        Io::Right(stream) => stream.get_mut().0,
    }
}

/// Reads into the room that `to` has; how many bytes.
pub fn poll_read_into(io: &mut Io, to: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    match io {
        Io::Left(socket) => socket.poll_read_into(to, cx),
        Io::Right(stream) => poll_read_buf(Pin::new(stream), cx, to),
    }
}

pub fn is_tls(io: &Io) -> bool {
    matches!(io, Io::Right(_))
}

/// Whether the client has chosen HTTP/2 in the handshake.
#[cfg(feature = "http2")]
pub fn is_http2(io: &Io) -> bool {
    matches!(io, Io::Right(stream) if stream.get_ref().1.alpn_protocol() == Some(HTTP2))
}
