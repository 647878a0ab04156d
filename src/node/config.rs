//! `config.toml` in the data directory: the owner's settings for each start of the node.
//!
//! ```toml
//! name = "kitchen"               # name of the node
//! bind = "0.0.0.0:4711"          # address to listen on for peers
//! mdns = false                   # look for members on the local network, and be found there
//! relay = "https://relay.lan"    # off, n0 (public relays), or a relay's URL
//! metrics = "127.0.0.1:9464"     # address that serves metrics for Prometheus
//! socket_group = "staff"         # a group whose members may do everything that this user may
//! socket_mode = "0660"           # 0600: this user; 0660: a group, too
//! ```
//! Every setting may be left out. Flags and environment variables override it. Lattice never writes
//! this file.

use std::{
    net::SocketAddr,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Deserialize;

use crate::{
    limits::CONFIG_BYTES_MAX,
    permissions::{self, Trust, Untrusted},
};

/// The settings in `config.toml`. `None` for those that it leaves out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileConfig {
    /// Name of the node.
    pub name: Option<String>,
    /// The address to listen on for peers.
    pub bind: Option<SocketAddr>,
    /// Whether to look for members on the local network by mDNS, and to be found there.
    pub mdns: Option<bool>,
    /// The relay for peers that cannot reach each other.
    pub relay: Option<Relay>,
    /// The loopback address that serves metrics over HTTP.
    pub metrics: Option<SocketAddr>,
    /// The users who may use the socket of the API. `None`: a group if `socket_group` names one.
    pub socket_mode: Option<SocketMode>,
    /// Name of the group whose members may use the socket. `None`: with `SocketMode::Group`, the
    /// group of the process.
    pub socket_group: Option<String>,
}

/// The mode of the socket of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum SocketMode {
    /// `0600`: only the user who runs the node.
    #[default]
    Owner,
    /// `0660`: that user, and the members of a group.
    Group,
}

/// A text that is not a mode of the socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a mode of the socket: expected 0600 or 0660")]
pub struct SocketModeError {
    /// The text, shortened to 80 characters.
    pub text: String,
}

/// The relay that passes on the packets of peers that cannot reach each other directly.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Relay {
    /// No relay: no third party learns of this node.
    #[default]
    Off,
    /// The public relays and the address lookup of the company number 0.
    N0,
    /// The relay at this URL.
    Url(String),
}

/// A text that is not a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a relay: expected off, n0 or a URL such as https://relay.example")]
pub struct RelayError {
    /// The text, shortened to 80 characters.
    pub text: String,
}

/// Why `config.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It is not TOML, or has an unknown setting or an invalid value.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Line of the error, from 1.
        line: usize,
        /// Column of the error in characters, from 1.
        column: usize,
        /// The error, and the settings or values that are allowed.
        what: String,
    },
    /// It is longer than `CONFIG_BYTES_MAX`.
    #[error("{} has more than {bytes_max} bytes", path.display())]
    TooLong {
        /// Path of the file.
        path: PathBuf,
        /// `CONFIG_BYTES_MAX`.
        bytes_max: usize,
    },
    /// `socket_group` names a group, and `socket_mode` is 0600.
    #[error(
        "{}: socket_group lets a group use the socket, and socket_mode = \"0600\" lets no group",
        path.display()
    )]
    GroupWithoutMode {
        /// Path of the file.
        path: PathBuf,
    },
    /// It belongs to another user, other users could change it, or it cannot be read.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
}

impl FileConfig {
    /// Reads `config.toml` in `data_dir`. If the file is missing, no setting is set.
    ///
    /// # Errors
    /// `ConfigError`.
    pub fn read(data_dir: &Path) -> Result<Self, ConfigError> {
        let path = data_dir.join(FILE);
        let bytes = match permissions::read(&path, Trust::Obeyed, CONFIG_BYTES_MAX) {
            Err(error) if error.is_missing() => return Ok(Self::default()),
            read => read?,
        };
        if bytes.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong {
                path,
                bytes_max: CONFIG_BYTES_MAX,
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&text, path),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes());
                let (line, column) = place(&text, Some(valid..valid));
                Err(ConfigError::Invalid {
                    path,
                    line,
                    column,
                    what: "it is not UTF-8".to_owned(),
                })
            }
        }
    }

    fn parse(text: &str, path: PathBuf) -> Result<Self, ConfigError> {
        let invalid = |error: toml::de::Error| {
            let (line, column) = place(text, error.span());
            ConfigError::Invalid {
                path: path.clone(),
                line,
                column,
                what: error.message().to_owned(),
            }
        };
        let read: Self = toml::from_str(text).map_err(invalid)?;
        match (read.socket_mode, &read.socket_group) {
            (Some(SocketMode::Owner), Some(_)) => Err(ConfigError::GroupWithoutMode { path }),
            _others => Ok(read),
        }
    }

    /// Returns the mode of the socket that follows from `socket_mode` and `socket_group`.
    pub fn effective_socket_mode(&self) -> SocketMode {
        match (self.socket_mode, &self.socket_group) {
            (None, Some(_)) => SocketMode::Group,
            (mode, _) => mode.unwrap_or_default(),
        }
    }
}

/// Returns line and column of the beginning of `span` in `text`, both from 1.
pub(crate) fn place(text: &str, span: Option<Range<usize>>) -> (usize, usize) {
    let start = span.map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

impl FromStr for Relay {
    type Err = RelayError;

    fn from_str(text: &str) -> Result<Self, RelayError> {
        let host = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        match (text, host) {
            ("off", _) => Ok(Self::Off),
            ("n0", _) => Ok(Self::N0),
            (url, Some(host)) if !host.is_empty() => Ok(Self::Url(url.to_owned())),
            _other => Err(RelayError {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

impl TryFrom<String> for Relay {
    type Error = RelayError;

    fn try_from(text: String) -> Result<Self, RelayError> {
        text.parse()
    }
}

impl TryFrom<String> for SocketMode {
    type Error = SocketModeError;

    fn try_from(text: String) -> Result<Self, SocketModeError> {
        match text.as_str() {
            "0600" => Ok(Self::Owner),
            "0660" => Ok(Self::Group),
            _other => Err(SocketModeError {
                text: text.chars().take(80).collect(),
            }),
        }
    }
}

const FILE: &str = "config.toml";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileConfig, String> {
        FileConfig::parse(text, "config.toml".into()).map_err(|error| error.to_string())
    }

    #[test]
    fn settings_left_out_are_none() {
        assert_eq!(parse(""), Ok(FileConfig::default()));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(FileConfig::read(dir.path()).unwrap(), FileConfig::default());
        let all = "name = 'kitchen'\nbind = '[::1]:4711'\nmdns = false # a comment\nrelay = 'n0'\nmetrics = '127.0.0.1:9464'\nsocket_mode = '0660'\nsocket_group = 'staff'\n";
        std::fs::write(dir.path().join(FILE), all).unwrap();
        let expected = FileConfig {
            name: Some("kitchen".to_owned()),
            bind: Some("[::1]:4711".parse().unwrap()),
            mdns: Some(false),
            relay: Some(Relay::N0),
            metrics: Some("127.0.0.1:9464".parse().unwrap()),
            socket_mode: Some(SocketMode::Group),
            socket_group: Some("staff".to_owned()),
        };
        assert_eq!(FileConfig::read(dir.path()).unwrap(), expected);
    }

    #[test]
    fn error_names_its_place_and_the_alternatives() {
        let cases = [
            (
                "mdns = true\n  bnd = '127.0.0.1:1'\n",
                "config.toml:2:3: unknown field `bnd`, expected one of `name`, `bind`, `mdns`, `relay`, `metrics`, `socket_mode`, `socket_group`",
            ),
            (
                "# \u{e4}\nbind = \"127.0.0.1\"",
                "config.toml:2:8: invalid socket address syntax",
            ),
            (
                "mdns = 'no'",
                "config.toml:1:8: invalid type: string \"no\", expected a boolean",
            ),
            (
                "\nrelay = 'relay.example'",
                "config.toml:2:9: \"relay.example\" is not a relay: expected off, n0 or a URL such \
                 as https://relay.example",
            ),
            (
                "socket_mode = '0666'",
                "config.toml:1:15: \"0666\" is not a mode of the socket: expected 0600 or 0660",
            ),
            (
                "socket_group = 'staff'\nsocket_mode = '0600'",
                "config.toml: socket_group lets a group use the socket, and socket_mode = \"0600\" \
                 lets no group",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Err(expected.to_owned()));
        }
        let cut = parse("name = \"kitchen\nmdns = true\n").unwrap_err();
        assert!(cut.starts_with("config.toml:1:"), "{cut}");
    }

    #[test]
    fn socket_is_for_a_group_only_if_that_is_set() {
        let access = |text| parse(text).unwrap().effective_socket_mode();
        assert_eq!(access(""), SocketMode::Owner);
        assert_eq!(access("socket_mode = '0600'"), SocketMode::Owner);
        assert_eq!(access("socket_mode = '0660'"), SocketMode::Group);
        assert_eq!(access("socket_group = 'staff'"), SocketMode::Group);
    }

    #[test]
    fn endless_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "#".repeat(CONFIG_BYTES_MAX + 1)).unwrap();
        let read = FileConfig::read(dir.path());
        assert!(matches!(read, Err(ConfigError::TooLong { .. })), "{read:?}");
    }
}
