//! Certificates that openssl makes, and a client that believes one of them.

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{Connection, LONG, Loader, Scratch, plugins::succeed};

/// A certificate for localhost, signed by its own key, and that key.
#[derive(Clone)]
pub struct Pair {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's.
    pub key: PathBuf,
}

impl Pair {
    /// A new one, in two files whose names begin so.
    pub fn new(scratch: &Scratch, name: &str) -> Pair {
        let pair =
            Pair { cert: scratch.join(&format!("{name}.crt")), key: scratch.join(&format!("{name}.key")) };
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args([
            "-subj",
            "/CN=localhost",
            "-days",
            "2",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
        succeed(openssl.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.cert));
        pair
    }

    /// Puts another one in its place, file by file.
    pub fn replace_by(&self, other: &Pair) {
        fs::copy(&other.key, &self.key).unwrap();
        fs::copy(&other.cert, &self.cert).unwrap();
    }

    /// A loader that serves with it.
    pub fn of(&self, loader: Loader) -> Loader {
        loader.arg("--tls-cert").arg(&self.cert).arg("--tls-key").arg(&self.key)
    }

    /// A client's settings: it believes this certificate and no other.
    pub fn client(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.cert).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }
}

/// Connects over TLS.
pub fn connect(address: SocketAddr, client: &Arc<ClientConfig>) -> io::Result<Connection> {
    let name = "localhost".try_into().unwrap();
    let session = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    Connection::over(address, |stream| Box::new(StreamOwned::new(session, stream)))
}

/// A stream of bytes over TLS.
pub fn stream(
    address: SocketAddr,
    client: &Arc<ClientConfig>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = "localhost".try_into().unwrap();
    let session = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(LONG))?;
    socket.set_nodelay(true)?;
    Ok(StreamOwned::new(session, socket))
}
