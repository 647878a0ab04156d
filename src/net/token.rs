//! An invitation as a printable token, which lets its bearer in once.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use data_encoding::BASE32_NOPAD;
use prost::Message as _;

use crate::{
    id::{Author, StoreId},
    net::address::Addresses,
    wire::net,
};

/// All that a node needs to join a mesh: the node to ask, its addresses, and a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The node that made it. Only this node redeems it.
    pub node: Author,
    /// Addresses of that node when it made the invitation.
    pub addresses: Addresses,
    /// The root store that the bearer is invited to.
    pub store: StoreId,
    /// Shown to `node` once. The root store has only its hash.
    pub secret: [u8; 32],
    /// When it expires, ms since 1970.
    pub expires_ms: u64,
}

/// Why a text is not an invitation that this version reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvitationError {
    /// The text was mistyped or cut, or is something else.
    #[error("not an invitation: {what}")]
    Garbage {
        /// The first thing that is wrong, as a clause.
        what: &'static str,
    },
    /// It was made by a version with another format.
    #[error("the invitation has format {version}, this version reads {VERSION}")]
    Version {
        /// Format of the text.
        version: u8,
    },
}

// Without the secret: whoever has it can join.
impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("node", &self.node)
            .field("addresses", &self.addresses)
            .field("store", &self.store)
            .field("expires_ms", &self.expires_ms)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = net::Invitation {
            node: Bytes::copy_from_slice(&self.node.0),
            addresses: Some(self.addresses.to_wire()),
            store_id: Bytes::copy_from_slice(&self.store.0),
            secret: Bytes::copy_from_slice(&self.secret),
            expires_ms: self.expires_ms,
        };
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&message.encode_to_vec());
        let check = check(&bytes);
        bytes.extend_from_slice(&check);
        let letters = BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        write!(f, "{PREFIX}{letters}")
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        // Scanners write capital letters, and mail programs break lines.
        let text = text.chars().filter(|letter| !letter.is_whitespace());
        let text: String = text.collect::<String>().to_ascii_uppercase();
        let letters = text
            .strip_prefix(&PREFIX.to_ascii_uppercase())
            .ok_or(garbage("it does not begin with \"lattice\""))?;
        let bytes = BASE32_NOPAD
            .decode(letters.as_bytes())
            .map_err(|_letters| garbage("it has letters that no invitation has, or was cut"))?;
        let (body, sum) = bytes
            .split_last_chunk::<4>()
            .ok_or(garbage("it is too short"))?;
        let (version, message) = body.split_first().ok_or(garbage("it is too short"))?;
        if check(body) != *sum {
            return Err(garbage("its check sum is wrong: it was mistyped or cut"));
        }
        if *version != VERSION {
            return Err(InvitationError::Version { version: *version });
        }
        let message =
            net::Invitation::decode(message).map_err(|_reason| garbage("it does not decode"))?;
        Ok(Self {
            node: Author::from_slice(&message.node).ok_or(garbage("its node is malformed"))?,
            addresses: Addresses::from_wire(&message.addresses.unwrap_or_default()),
            store: StoreId::from_slice(&message.store_id)
                .ok_or(garbage("its store id is malformed"))?,
            secret: message
                .secret
                .as_ref()
                .try_into()
                .map_err(|_length| garbage("its secret is malformed"))?,
            expires_ms: message.expires_ms,
        })
    }
}

fn check(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

fn garbage(what: &'static str) -> InvitationError {
    InvitationError::Garbage { what }
}

const PREFIX: &str = "lattice";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation() -> Invitation {
        Invitation {
            node: Author([7; 32]),
            addresses: Addresses {
                direct: [
                    "127.0.0.1:4711".parse().unwrap(),
                    "[::1]:9".parse().unwrap(),
                ]
                .into(),
                relay: None,
            },
            store: StoreId([9; 16]),
            secret: [3; 32],
            expires_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn token_parses_in_any_case_and_with_line_breaks() {
        let text = invitation().to_string();
        assert!(text.len() < 260, "{} letters", text.len());
        assert_eq!(text.parse(), Ok(invitation()));
        assert_eq!(format!(" {text}\n").parse(), Ok(invitation()));
        assert_eq!(text.to_ascii_uppercase().parse(), Ok(invitation()));
        let (first, last) = text.split_at(76);
        for broken in [format!("{first}\r\n{last}"), format!("> {first}\n> {last}")] {
            let broken = broken.replace("> ", "  ");
            assert_eq!(broken.parse(), Ok(invitation()));
        }
    }

    #[test]
    fn secret_is_not_in_the_debug_text() {
        let text = format!("{:?}", invitation());
        assert!(text.contains("4711"), "{text}");
        assert!(!text.contains("secret") && !text.contains("3, 3"), "{text}");
    }

    #[test]
    fn mistyped_or_cut_token_is_refused() {
        let text = invitation().to_string();
        for index in 0..text.len() {
            assert!(
                text[..index].parse::<Invitation>().is_err(),
                "cut at {index}"
            );
            let mut typed = text.clone().into_bytes();
            typed[index] = if typed[index] == b'q' { b'r' } else { b'q' };
            let typed = String::from_utf8(typed).unwrap();
            assert!(typed.parse::<Invitation>().is_err(), "mistyped at {index}");
        }
    }
}
