//! The members' clocks: this node compares its own with them before its first write after a start,
//! and after its clock has jumped.
//!
//! If it is far ahead of their median, own writes are refused (`WriteError::FarAhead`): the members
//! would hold them. `NetConfig::accept_clock` leaves the comparison out.

use tokio::time::Instant;

use crate::{
    limits::CLOCKS_WAIT,
    net::mesh::Mesh,
    protocol::{membership::role::Role, peer::median_ms},
};

/// Asks the writers and admins within reach for their clocks, as far as they answer within
/// `CLOCKS_WAIT`, and notes the median. Without any answer nothing is known about this node's clock.
pub(super) async fn compare(mesh: &Mesh) {
    let (node, began) = (&mesh.node, Instant::now());
    let members = node.members();
    let writes = |other: &_| members.role(other) >= Some(Role::Writer);
    let others: Vec<_> = members.others(node.id()).filter(writes).collect();
    let ahead_ms = loop {
        let (ahead_ms, unknown) = mesh.peers.clocks(&others);
        if !unknown || began.elapsed() >= CLOCKS_WAIT {
            break ahead_ms;
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
/// known if it was not compared at the start.
pub(super) async fn compare_again(mesh: &Mesh) {
    if mesh.node.clock().members_ms().is_some() {
        mesh.peers.forget_clocks();
        compare(mesh).await;
    }
}

const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(10);
