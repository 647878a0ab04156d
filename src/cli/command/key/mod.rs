//! `key`: the secret of this node's key.

mod export;
mod key;
mod move_key;
mod show;
mod systemd_creds;

pub(crate) use key::Key;
