//! An invite: a role for whoever shows a secret, once and for a while.
//!
//! ```text
//! /invites/{hash of the secret}    {role}
//!                                  expires {ms since 1970}
//!                                  used {author}              once it is
//! ```
//!
//! The root store has the hash only: whoever reads it cannot redeem it. The node that wrote an
//! invite redeems it, in one atomic write: the grant, and the invite marked as used.

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::{id::Author, protocol::membership::role::Role};

/// An invite, as the root store keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invite {
    /// Role that it grants.
    pub role: Role,
    /// Milliseconds since 1970 from which on it is worth nothing.
    pub expires_ms: u64,
    /// Node that has used it; `None` while it is open.
    pub used: Option<Author>,
}

/// Why an invite is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// There is no such invite here, or it was taken back.
    #[error("there is no such invite, or it was taken back")]
    Unknown,
    /// It came too late.
    #[error("the invite expired at {expires_ms} ms since 1970; it is {now_ms} now")]
    Expired {
        /// When it expired, ms since 1970.
        expires_ms: u64,
        /// The clock of the node that issued it, ms since 1970.
        now_ms: u64,
    },
    /// Another node came first.
    #[error("the invite was used by node {by}")]
    Used {
        /// Node that has used it.
        by: Author,
    },
}

impl Invite {
    /// Returns where the root store keeps the invite with this secret.
    pub fn key(secret: &[u8; 32]) -> Bytes {
        let hash = blake3::derive_key("lattice 2026 invite secret v1", secret);
        Bytes::from(format!("/invites/{}", HEXLOWER.encode(&hash)))
    }

    /// Returns the value at its key.
    pub fn encode(&self) -> Bytes {
        let used = self.used.map(|by| format!("\nused {by}"));
        Bytes::from(format!(
            "{}\nexpires {}{}",
            self.role,
            self.expires_ms,
            used.unwrap_or_default()
        ))
    }

    /// Reads what `encode` writes; anything else is no invite.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut lines = str::from_utf8(value).ok()?.splitn(3, '\n');
        let role = lines.next()?.parse().ok()?;
        let expires_ms = lines.next()?.strip_prefix("expires ")?.parse().ok()?;
        let used = match lines.next() {
            Some(line) => Some(line.strip_prefix("used ")?.parse().ok()?),
            None => None,
        };
        let invite = Self {
            role,
            expires_ms,
            used,
        };
        (invite.encode() == value).then_some(invite)
    }

    /// Returns what `joiner` gets for the secret whose key has `value`.
    ///
    /// The node that has used it may show it again: the answer of the first time may have been lost.
    ///
    /// # Errors
    /// `Unknown`, also where `value` is no invite; `Used` by another node; `Expired`.
    pub fn check(value: Option<&[u8]>, joiner: &Author, now_ms: u64) -> Result<Role, InviteError> {
        let invite = value.and_then(Self::decode).ok_or(InviteError::Unknown)?;
        match invite.used {
            Some(by) if by == *joiner => Ok(invite.role),
            Some(by) => Err(InviteError::Used { by }),
            None if now_ms >= invite.expires_ms => Err(InviteError::Expired {
                expires_ms: invite.expires_ms,
                now_ms,
            }),
            None => Ok(invite.role),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_A: Author = Author([0xa; 32]);
    const NODE_B: Author = Author([0xb; 32]);
    const FRESH: Invite = Invite {
        role: Role::Writer,
        expires_ms: 1000,
        used: None,
    };
    const USED: Invite = Invite {
        used: Some(NODE_A),
        ..FRESH
    };

    fn check(invite: &Invite, joiner: &Author, now_ms: u64) -> Result<Role, InviteError> {
        Invite::check(Some(&invite.encode()), joiner, now_ms)
    }

    #[test]
    fn invites_are_text_and_what_is_written_is_read() {
        assert_eq!(FRESH.encode(), "writer\nexpires 1000");
        let used = format!("writer\nexpires 1000\nused {}", "0a".repeat(32));
        assert_eq!(USED.encode(), used);
        assert_eq!(Invite::decode(&FRESH.encode()), Some(FRESH));
        assert_eq!(Invite::decode(&USED.encode()), Some(USED));
    }

    #[test]
    fn key_has_the_hash_of_the_secret() {
        let key = Invite::key(&[1; 32]);
        assert_eq!(key.len(), "/invites/".len() + 64);
        assert_ne!(key, Invite::key(&[2; 32]));
        assert!(!key.ends_with(&HEXLOWER.encode(&[1; 32]).into_bytes()));
        assert!(
            !key.ends_with(blake3::hash(&[1; 32]).to_hex().as_bytes()),
            "a context of its own"
        );
    }

    #[test]
    fn an_invite_is_good_until_it_expires() {
        assert_eq!(check(&FRESH, &NODE_A, 999), Ok(Role::Writer));
        let expired = InviteError::Expired {
            expires_ms: 1000,
            now_ms: 1000,
        };
        assert_eq!(check(&FRESH, &NODE_A, 1000), Err(expired));
    }

    #[test]
    fn m8_an_invite_is_good_for_one_node_which_may_ask_again() {
        assert_eq!(check(&USED, &NODE_A, 999), Ok(Role::Writer));
        assert_eq!(check(&USED, &NODE_A, 1001), Ok(Role::Writer));
        let used = Err(InviteError::Used { by: NODE_A });
        assert_eq!(check(&USED, &NODE_B, 999), used);
        assert_eq!(check(&USED, &NODE_B, 1001), used);
    }

    #[test]
    fn what_is_not_there_or_not_as_written_is_unknown() {
        assert_eq!(Invite::check(None, &NODE_A, 0), Err(InviteError::Unknown));
        for invite in [FRESH, USED] {
            let value = invite.encode();
            for length in 0..value.len() {
                let read = Invite::decode(&value[..length]);
                assert!(read.is_none_or(|read| read.encode() == value[..length]));
            }
            for bit in 0..value.len() * 8 {
                let mut flipped = value.to_vec();
                flipped[bit / 8] ^= 1 << (bit % 8);
                let read = Invite::decode(&flipped);
                assert!(read.is_none_or(|read| read != invite && read.encode() == flipped));
            }
        }
        let hostile = [
            "writer",
            "writer\nexpires",
            "writer\nexpires 01",
            "writer\nexpires 1\n",
            "writer\nexpires -1",
            "owner\nexpires 1",
            "writer\nexpires 1\nused ab",
        ];
        for text in hostile {
            let unknown = Invite::check(Some(text.as_bytes()), &NODE_A, 0);
            assert_eq!(unknown, Err(InviteError::Unknown), "{text:?}");
        }
    }
}
