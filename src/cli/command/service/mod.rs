//! `service`: the node as a systemd service.

mod install;
mod installed;
mod manager;
mod service;
mod unit;

pub(crate) use service::Service;
