//! Where to listen, as an operator writes it, and where a socket listens, as it is shown.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    str::FromStr,
};

use socket2::Socket;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// The first of these addresses that can be bound; a name may have several.
    Tcp(Vec<SocketAddr>),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Listen {
    /// The addresses of the network that it names.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let addresses = if let Listen::Tcp(addresses) = self { &addresses[..] } else { &[] };
        addresses.iter().copied()
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Listen, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("write it as unix:/run/foo.sock".to_owned()),
                path => Ok(Listen::Unix(path.into())),
            };
        }
        let addresses = text.to_socket_addrs().map_err(|err| match text.rsplit_once(':') {
            None => "write it as 127.0.0.1:8080, [::]:8080 or unix:/run/foo.sock".to_owned(),
            Some(_) => err.to_string(),
        })?;
        Ok(Listen::Tcp(addresses.collect()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// Where a socket is bound; fails if that is neither an address nor a path.
    pub fn of(socket: &Socket) -> io::Result<Address> {
        let address = socket.local_addr()?;
        match (address.as_socket(), address.as_pathname()) {
            (Some(address), _) => Ok(Address::Tcp(address)),
            (None, Some(path)) => Ok(Address::Unix(path.to_owned())),
            (None, None) => Err(io::Error::other("it has neither an address nor a path")),
        }
    }

    /// `http://127.0.0.1:8080`, `unix:/run/foo.sock`
    pub fn url(&self, scheme: &str) -> String {
        match self {
            Address::Tcp(address) => format!("{scheme}://{address}"),
            Address::Unix(_) => self.to_string(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let tcp = |text: &str| match text.parse() {
            Ok(Listen::Tcp(addresses)) => addresses[0].to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(tcp("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(tcp("[::1]:80"), "[::1]:80");
        assert_eq!("unix:/run/a b".parse(), Ok(Listen::Unix("/run/a b".into())));
        for bad in ["", "80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "unix:", "/run/x"] {
            assert!(bad.parse::<Listen>().is_err(), "{bad}");
        }
    }

    #[test]
    fn any_address_is_read_as_it_is_written_again() {
        bolero::check!().with_type::<(u128, u16, bool, Vec<u8>)>().for_each(|(bits, port, v4, noise)| {
            let ip = if *v4 {
                IpAddr::from((*bits as u32).to_be_bytes())
            } else {
                IpAddr::from(bits.to_be_bytes())
            };
            let address = Address::Tcp((ip, *port).into());
            assert_eq!(address.to_string().parse(), Ok(Listen::Tcp(vec![(ip, *port).into()])));
            let path = String::from_utf8_lossy(noise);
            let listen = format!("unix:{path}").parse::<Listen>();
            let Ok(Listen::Unix(read)) = listen else { return assert!(path.is_empty()) };
            assert_eq!(Address::Unix(read).to_string(), format!("unix:{path}"));
            // A colon would ask for a name to be looked up.
            if !path.contains(':') {
                assert!(path.parse::<Listen>().is_err(), "{path:?}");
            }
        });
    }
}
