//! [`UnixSocket`]: a listener at a path. Only programs of this host can connect, and the kernel says which user each one
//! runs as.

use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustix::fs::Access;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::connection::connection;
use super::open::BACKLOG;
use super::{Descriptors, Listening, Remote, admit, spawn};
use crate::server::Broker;
use crate::telemetry::metrics::ListenerKind;

/// The permissions of a socket for the broker's user alone.
const PRIVATE: u32 = 0o600;

/// The permissions of a socket that `http.os_users` opens to other users.
const SHARED: u32 = 0o666;

/// A Unix socket that listens. Its file is removed with it.
pub(in crate::server) struct UnixSocket {
    listener: UnixListener,
    file: Arc<SocketFile>,
    /// A service manager has opened it.
    is_inherited: bool,
}

/// Why a path cannot be a socket of this broker.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum UnixError {
    #[error("another program listens on it")]
    InUse,
    #[error("there is something else at this path")]
    NotASocket,
    #[error("there is a socket of another operating-system user")]
    Foreign,
    #[error("{0}")]
    Failed(#[from] io::Error),
}

impl UnixSocket {
    /// Listens at a path, in place of a socket of this user on which no program listens.
    pub(in crate::server) fn open(path: &Path, for_others: bool) -> Result<Self, UnixError> {
        if find(path)? == Found::Dead {
            fs::remove_file(path)?;
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // On Linux, the file of a Unix socket gets the permissions of the socket, less the umask. The umask belongs to all
        // threads: changing it would change the files that other threads create at this moment.
        #[cfg(target_os = "linux")]
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(PRIVATE)).map_err(io::Error::from)?;
        socket.bind(&SockAddr::unix(path)?)?;
        let file = Arc::new(SocketFile::new(path, true)?);
        // Widens them if need be, and gives back what an unusual umask took.
        fs::set_permissions(path, permissions(for_others))?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, file, is_inherited: false })
    }

    /// Takes a socket that a service manager has opened, which decides on its mode and removes its file.
    pub(in crate::server) fn inherited(path: &Path, open: std::os::unix::net::UnixListener) -> Result<Self, UnixError> {
        let file = Arc::new(SocketFile::new(path, false)?);
        Ok(Self { listener: UnixListener::from_std(open)?, file, is_inherited: true })
    }

    /// Finds out whether [`UnixSocket::open`] would succeed. Changes nothing.
    pub(in crate::server) fn try_open(path: &Path) -> Result<(), UnixError> {
        find(path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)?)
    }

    /// The URL by which clients connect.
    pub(in crate::server) fn url(&self) -> String {
        format!("ws+unix://{}:/ws", self.file.path.display())
    }

    /// The file, while the socket is open.
    pub(in crate::server) fn file(&self) -> Weak<SocketFile> {
        Arc::downgrade(&self.file)
    }
}

fn permissions(for_others: bool) -> Permissions {
    Permissions::from_mode(if for_others { SHARED } else { PRIVATE })
}

impl Listening for UnixSocket {
    async fn accept(&self, broker: &Arc<Broker>) -> io::Result<bool> {
        let (stream, _) = self.listener.accept().await?;
        let is_last = broker.descriptors.keep(&stream);
        // The credentials that the peer had when it connected (SO_PEERCRED on Linux).
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        let from = Remote::Unix { uid };
        broker.metrics.accepted.count(ListenerKind::Unix);
        if let Some(admitted) = admit(broker, from) {
            spawn(broker, from, connection(Arc::clone(broker), stream, from, admitted, None));
        }
        Ok(is_last)
    }

    fn is_short(&self, descriptors: &Descriptors) -> bool {
        descriptors.are_short(&self.listener)
    }

    fn is_inherited(&self) -> bool {
        self.is_inherited
    }
}

/// What there is at the path of a socket.
#[derive(PartialEq, Eq)]
enum Found {
    Nothing,
    /// A socket of this user on which no program listens: a broker that was killed leaves one.
    Dead,
}

fn find(path: &Path) -> Result<Found, UnixError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error.into()),
    };
    if !metadata.file_type().is_socket() {
        return Err(UnixError::NotASocket);
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(UnixError::Foreign);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // With a full backlog, a blocking connect would wait.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Err(UnixError::InUse),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => Ok(Found::Dead),
            io::ErrorKind::WouldBlock => Err(UnixError::InUse),
            _ => Err(error.into()),
        },
    }
}

/// The file of a socket, which is removed when this is dropped if the broker has made it.
pub(in crate::server) struct SocketFile {
    path: PathBuf,
    /// The device and the inode: the socket of another broker may have taken its place.
    id: (u64, u64),
    is_ours: bool,
}

impl SocketFile {
    fn new(path: &Path, is_ours: bool) -> io::Result<Self> {
        Ok(Self { id: id_of(&fs::symlink_metadata(path)?), path: path.to_owned(), is_ours })
    }

    /// Opens it to other users, or to the broker's alone. What else may be at its path now is left alone.
    pub(in crate::server) fn set_mode(&self, for_others: bool) -> Result<(), ModeError> {
        if !self.is_ours {
            return Ok(());
        }
        let failed = |source: io::Error| ModeError { path: self.path.clone(), source };
        self.change(permissions(for_others)).map_err(failed)
    }

    /// Changes the permissions by a descriptor of the file, so that nothing can take its place between the look and the
    /// change.
    #[cfg(target_os = "linux")]
    fn change(&self, permissions: Permissions) -> io::Result<()> {
        use std::os::fd::AsRawFd as _;

        use rustix::fs::{Mode, OFlags};
        let file = rustix::fs::open(&self.path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let file = fs::File::from(file);
        self.check(&file.metadata()?)?;
        fs::set_permissions(format!("/proc/self/fd/{}", file.as_raw_fd()), permissions)
    }

    #[cfg(not(target_os = "linux"))]
    fn change(&self, permissions: Permissions) -> io::Result<()> {
        self.check(&fs::symlink_metadata(&self.path)?)?;
        fs::set_permissions(&self.path, permissions)
    }

    fn check(&self, found: &Metadata) -> io::Result<()> {
        if id_of(found) == self.id { Ok(()) } else { Err(io::Error::other("something else is at its path")) }
    }
}

/// Why the permissions of a socket stay as they are.
#[derive(Debug, thiserror::Error)]
#[error("the mode of the Unix socket {} was not changed to fit http.os_users: {source}", path.display())]
pub(in crate::server) struct ModeError {
    path: PathBuf,
    source: io::Error,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours && fs::symlink_metadata(&self.path).is_ok_and(|metadata| id_of(&metadata) == self.id) {
            fs::remove_file(&self.path).ok();
        }
    }
}

fn id_of(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as Bound;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_private_or_shared_and_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        for (for_others, expected) in [(false, 0o600), (true, 0o666)] {
            let socket = UnixSocket::open(&path, for_others).unwrap();
            assert_eq!(mode(&path), expected);
            assert!(matches!(UnixSocket::open(&path, false), Err(UnixError::InUse)));
            assert!(matches!(UnixSocket::try_open(&path), Err(UnixError::InUse)));
            drop(socket);
            assert!(!path.exists());
        }
    }

    #[tokio::test]
    async fn its_mode_can_change_while_it_is_open_and_nothing_else_at_its_path_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.sock"), folder.path().join("other"));
        let socket = UnixSocket::open(&path, false).unwrap();
        let file = socket.file();
        let set_mode = |for_others| file.upgrade().unwrap().set_mode(for_others);
        set_mode(true).unwrap();
        assert_eq!(mode(&path), 0o666);
        set_mode(false).unwrap();
        assert_eq!(mode(&path), 0o600);

        fs::write(&other, "").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o640)).unwrap();
        // The inode of the socket must not be used again.
        fs::rename(&path, folder.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(set_mode(true).unwrap_err().to_string().contains("something else is at its path"));
        fs::remove_file(&path).unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(set_mode(true).is_err());
        assert_eq!(mode(&path), 0o640);
        fs::remove_file(&path).unwrap();
        assert!(set_mode(true).is_err());
        drop(socket);
        assert!(file.upgrade().is_none());
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_trial_leaves_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(Bound::bind(&path).unwrap());
        UnixSocket::try_open(&path).unwrap();
        assert!(path.exists());
        let socket = UnixSocket::open(&path, false).unwrap();
        assert_eq!(mode(&path), 0o600);
        // Another socket at the path is not this one's to remove.
        fs::remove_file(&path).unwrap();
        let _other = Bound::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn anything_else_at_the_path_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "kept").unwrap();
        fs::create_dir(at("folder")).unwrap();
        drop(Bound::bind(at("dead.sock")).unwrap());
        std::os::unix::fs::symlink(at("dead.sock"), at("link")).unwrap();
        for name in ["file", "folder", "link"] {
            assert!(matches!(UnixSocket::open(&at(name), false), Err(UnixError::NotASocket)), "{name}");
            assert!(matches!(UnixSocket::try_open(&at(name)), Err(UnixError::NotASocket)), "{name}");
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "kept");
        assert!(at("dead.sock").exists());
        assert!(matches!(UnixSocket::try_open(&at("missing/a.sock")), Err(UnixError::Failed(_))));
    }
}
