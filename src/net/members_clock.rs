//! The members' clocks: this node compares its own with them before its first write after a start,
//! and after its clock has jumped.
//!
//! If it is far ahead of their median, own writes are refused (`WriteError::FarAhead`): the members
//! would hold them. `NetConfig::accept_clock` leaves the comparison out.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    limits::{CLOCKS_CONNECT_WAIT, CLOCKS_WAIT},
    net::mesh::Mesh,
    protocol::{membership::role::Role, peer::median_ms},
};

/// Asks the writers and admins within reach for their clocks, as far as they answer within
/// `CLOCKS_WAIT`, and notes the median. Without any answer nothing is known about this node's clock.
pub(super) async fn compare(mesh: &Mesh) {
    ask(mesh, CLOCKS_WAIT, Duration::ZERO).await;
}

// Waits for `connect` until one of them is connected, and then for `answer` until all that are
// connected have answered.
async fn ask(mesh: &Mesh, answer: Duration, connect: Duration) {
    let (node, mut began) = (&mesh.node, Instant::now());
    let members = node.members();
    let writes = |other: &_| members.role(other) >= Some(Role::Writer);
    let others: Vec<_> = members.others(node.id()).filter(writes).collect();
    let mut is_connecting = !connect.is_zero();
    let ahead_ms = loop {
        let (ahead_ms, unknown) = mesh.peers.clocks(&others);
        let is_away = ahead_ms.is_empty() && !unknown;
        if is_away && is_connecting {
            is_connecting = began.elapsed() < connect;
        } else if !unknown || began.elapsed() >= answer {
            break ahead_ms;
        } else if is_connecting {
            (is_connecting, began) = (false, Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let ahead_ms = median_ms(ahead_ms);
    node.clock().set_members_ahead(ahead_ms);
    if let Some(ahead_ms) = ahead_ms.filter(|ms| ms.unsigned_abs() > 60_000) {
        let direction = if ahead_ms < 0 { "ahead of" } else { "behind" };
        let apart = crate::clock::about(ahead_ms.unsigned_abs());
        tracing::warn!(
            "this node's clock is {apart} {direction} those of the members within reach"
        );
    }
}

/// Forgets what the members said and asks them again, because this node's clock has jumped. Nothing is
/// known if it was not compared at the start. Until they have answered, their time is taken to have
/// gone on steadily.
pub(super) async fn compare_again(mesh: &Mesh) {
    if mesh.node.clock().members_ms().is_some() {
        mesh.peers.forget_clocks();
        ask(mesh, CLOCKS_WAIT, CLOCKS_CONNECT_WAIT).await;
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(10);
