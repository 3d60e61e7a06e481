//! Sockets that are listened on: TCP and Unix, opened here or passed by a service manager.

use super::bind::Listener;
use socket2::{Domain, Protocol, Socket, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Connections that the system keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP; port 0 lets the system choose, and
    /// [`BrokerHandle::local_addrs`](super::BrokerHandle::local_addrs) tells what it chose.
    Tcp(SocketAddr),
    /// A Unix socket. A file that is left over there from a broker that is gone is replaced.
    Unix(PathBuf),
}

impl Address {
    /// The address of TCP.
    #[must_use]
    pub const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only this machine reaches it.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that is listened on.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListeningSocket {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
}

/// The socket of a connection on its way from one thread to another. It does not block.
#[derive(Debug)]
#[non_exhaustive]
pub enum MovingSocket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl ListeningSocket {
    /// Where it listens, if the system says.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Address::Tcp),
            #[cfg(unix)]
            Self::Unix(listener) => {
                let address = listener.local_addr().ok()?;
                Some(Address::Unix(address.as_pathname()?.to_owned()))
            }
        }
    }

    fn for_broker(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                Ok(Self::Unix(listener))
            }
        }
    }
}

/// A socket that somebody else has opened, as a service manager does. Clones are the same.
#[derive(Clone, Debug)]
pub struct Inherited(Arc<ListeningSocket>);

impl Inherited {
    /// This socket.
    #[must_use]
    pub fn new(socket: ListeningSocket) -> Self {
        Self(Arc::new(socket))
    }

    /// Where it listens, if the system says.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        self.0.address()
    }
}

impl PartialEq for Inherited {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Inherited {}

/// An open socket, and the file that is to go with it.
pub(super) struct Open {
    pub(super) socket: ListeningSocket,
    pub(super) file: Option<SocketFile>,
}

/// Opens the socket of a listener.
pub(super) fn open(settings: &Listener) -> io::Result<Open> {
    if let Some(Inherited(socket)) = &settings.inherited {
        return Ok(Open { socket: socket.for_broker()?, file: None });
    }
    match &settings.address {
        Address::Tcp(address) => Ok(Open { socket: ListeningSocket::Tcp(tcp(*address)?), file: None }),
        #[cfg(unix)]
        Address::Unix(path) => unix(path, settings.unix_mode),
        #[cfg(not(unix))]
        Address::Unix(_) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets"))
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that 0.0.0.0 and [::] can be had side by side, on every system.
        socket.set_only_v6(true)?;
    }
    // On Unix this allows a restart while old connections linger; elsewhere it would allow others to
    // take the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    // Linux gives it to what is accepted. Without it messages are only later, so a failure does not matter.
    let _ = socket.set_tcp_nodelay(true);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from(socket))
}

#[cfg(unix)]
fn unix(path: &Path, mode: Option<u32>) -> io::Result<Open> {
    use socket2::SockAddr;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(e) = socket.bind(&address) {
        if e.kind() != io::ErrorKind::AddrInUse || !is_left_over(path) {
            return Err(e);
        }
        fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    let file = SocketFile::of(path);
    // Nobody can connect before it listens.
    if let Some(mode) = mode {
        fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(Open {
        socket: ListeningSocket::Unix(UnixListener::from(std::os::fd::OwnedFd::from(socket))),
        file: Some(file),
    })
}

/// Whether it is a socket that nobody listens on any more.
#[cfg(unix)]
fn is_left_over(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::UnixStream;

    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// The file of a Unix socket: it goes when this is dropped, unless it is another's by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    id: Option<(u64, u64)>,
}

impl SocketFile {
    #[cfg(unix)]
    fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), id: id(path) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.id.is_some() && id(&self.path) == self.id {
            // If it cannot be removed, the next start finds that nobody listens.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(unix)]
fn id(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn id(_: &Path) -> Option<(u64, u64)> {
    None
}
