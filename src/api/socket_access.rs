//! The users who may use the socket: the one who runs the node, and the members of a group if one is set.

use std::{ffi::CString, io};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::unix::UCred;

use crate::{
    api::error::{ApiError, EXIT_FAILED},
    node::{FileConfig, SocketMode},
};

/// The users who may use the socket. By default, only the one who runs the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SocketAccess {
    group: Option<SocketGroup>,
}

/// A group that was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketGroupError {
    /// There is no such group.
    #[error("there is no group {group} on this machine")]
    Unknown {
        /// Name of the group.
        group: String,
    },
    /// The system could not look it up.
    #[error("cannot look up the group {group}: {source}")]
    Lookup {
        /// Name of the group.
        group: String,
        /// Error of the system.
        source: io::Error,
    },
}

/// The group whose members may use the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SocketGroup {
    /// Id of the group.
    pub(super) gid: u32,
    /// Name of the group, or its id in digits.
    pub(super) name: String,
}

impl SocketAccess {
    /// Returns the access that `config` sets. A group without a name is that of this process.
    ///
    /// # Errors
    /// Every variant of `SocketGroupError`.
    pub fn of(config: &FileConfig) -> Result<Self, SocketGroupError> {
        let group = match (config.effective_socket_mode(), &config.socket_group) {
            (SocketMode::Owner, _) => None,
            (SocketMode::Group, Some(name)) => Some(SocketGroup::find(name)?),
            (SocketMode::Group, None) => {
                let gid = rustix::process::getegid().as_raw();
                let name = gid.to_string();
                Some(SocketGroup { gid, name })
            }
        };
        Ok(Self { group })
    }

    /// Returns the group that may use the socket.
    pub(super) fn group(&self) -> Option<&SocketGroup> {
        self.group.as_ref()
    }

    /// True if a process with these ids may use the socket of the user `owner`.
    pub(super) fn admits(&self, owner: u32, peer: &UCred) -> bool {
        let in_group = |group: &SocketGroup| group.gid == peer.gid() || group.has(peer.uid());
        peer.uid() == owner || self.group.as_ref().is_some_and(in_group)
    }
}

impl SocketGroup {
    fn find(name: &str) -> Result<Self, SocketGroupError> {
        let found = Group::from_name(name).map_err(|errno| SocketGroupError::Lookup {
            group: name.to_owned(),
            source: errno.into(),
        })?;
        let group = found.ok_or_else(|| SocketGroupError::Unknown {
            group: name.to_owned(),
        })?;
        Ok(Self {
            gid: group.gid.as_raw(),
            name: name.to_owned(),
        })
    }

    // True if the group has this user now. The kernel has checked the groups that the process had when it
    // began; a user who was taken out of the group since is refused here.
    fn has(&self, uid: u32) -> bool {
        let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else {
            return false;
        };
        let Ok(name) = CString::new(user.name) else {
            return false;
        };
        getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(self.gid)))
    }
}

impl From<SocketGroupError> for ApiError {
    fn from(error: SocketGroupError) -> Self {
        let message = error.to_string();
        match error {
            SocketGroupError::Unknown { group } => {
                Self::usage("unknown_group", message).hint(format!(
                    "correct socket_group in config.toml, or make the group: `groupadd {group}`"
                ))
            }
            SocketGroupError::Lookup { .. } => Self::new("group_lookup", EXIT_FAILED, message),
        }
    }
}
