//! Invite: a role that one node gets by showing a secret before the invite expires.
//!
//! ```text
//! /invites/{hash of the secret}    {role}
//!                                  expires {ms since 1970}
//!                                  used {author}              only after it was redeemed
//! ```
//!
//! The root store keeps a BLAKE3 hash of the 32-byte secret, so a node that reads the store cannot
//! redeem the invite. The issuing node redeems it in one atomic write: the grant, and the invite
//! marked as used. An invite is good for one node, until its expiry time (exclusive) by the issuing
//! node's clock. The node that used it may show it again at any time and gets the same role,
//! because the first reply may have been lost.

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::{id::Author, protocol::membership::role::Role};

/// An invite, as the root store keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invite {
    /// Role that it grants.
    pub role: Role,
    /// Time from which on it cannot be used, inclusive, in ms since 1970.
    pub expires_ms: u64,
    /// Node that used it; `None` if it is unused.
    pub used: Option<Author>,
}

/// Why an invite is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// No invite with this secret is here: it never was, or it was taken back.
    #[error("there is no such invite, or it was taken back")]
    Unknown,
    /// The invite has expired.
    #[error(
        "the invite expired {} ago; ask the node that issued it for a new one",
        ago(*expires_ms, *now_ms)
    )]
    Expired {
        /// Time at which it expired, in ms since 1970.
        expires_ms: u64,
        /// Time on the clock of the issuing node, in ms since 1970.
        now_ms: u64,
    },
    /// Another node has used the invite.
    #[error("the invite was used by node {by}")]
    Used {
        /// Node that used it.
        by: Author,
    },
}

impl Invite {
    /// Returns the root-store key of the invite with this secret.
    ///
    /// The hash has a derive-key context of its own.
    pub fn key(secret: &[u8; 32]) -> Bytes {
        let hash = blake3::derive_key("lattice 2026 invite secret v1", secret);
        Bytes::from(format!("/invites/{}", HEXLOWER.encode(&hash)))
    }

    /// Returns the value at that key.
    pub fn encode(&self) -> Bytes {
        let used = self.used.map(|by| format!("\nused {by}"));
        Bytes::from(format!(
            "{}\nexpires {}{}",
            self.role,
            self.expires_ms,
            used.unwrap_or_default()
        ))
    }

    /// Decodes a value; `None` unless it is exactly as `encode` writes it.
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

    /// Returns the role that `joiner` gets for the secret whose key has `value`.
    ///
    /// `value` is `None` if there is none at the key; `now_ms` is the issuing node's clock, in ms
    /// since
    /// 1970. The node that used the invite gets the same role again, also after the expiry.
    ///
    /// # Errors
    /// `Unknown` if `value` is `None` or malformed; `Used` if another node used the invite;
    /// `Expired` if it is unused and `now_ms` is at or after its expiry.
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

// Returns the time between two times in ms, in the largest unit of which it has at least two.
fn ago(since_ms: u64, now_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(since_ms) / 1000;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        172_800.. => format!("{} days", seconds / 86_400),
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
    fn encoded_invite_decodes_to_itself() {
        assert_eq!(FRESH.encode(), "writer\nexpires 1000");
        let used = format!("writer\nexpires 1000\nused {}", "0a".repeat(32));
        assert_eq!(USED.encode(), used);
        assert_eq!(Invite::decode(&FRESH.encode()), Some(FRESH));
        assert_eq!(Invite::decode(&USED.encode()), Some(USED));
    }

    #[test]
    fn key_has_a_hash_of_the_secret() {
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
    fn invite_is_good_until_it_expires() {
        assert_eq!(check(&FRESH, &NODE_A, 999), Ok(Role::Writer));
        let expired = InviteError::Expired {
            expires_ms: 1000,
            now_ms: 1000,
        };
        assert_eq!(check(&FRESH, &NODE_A, 1000), Err(expired));
    }

    #[test]
    fn m8_used_invite_is_good_for_its_node_only() {
        assert_eq!(check(&USED, &NODE_A, 999), Ok(Role::Writer));
        assert_eq!(check(&USED, &NODE_A, 1001), Ok(Role::Writer));
        let used = Err(InviteError::Used { by: NODE_A });
        assert_eq!(check(&USED, &NODE_B, 999), used);
        assert_eq!(check(&USED, &NODE_B, 1001), used);
    }

    #[test]
    fn missing_or_malformed_invite_is_unknown() {
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
