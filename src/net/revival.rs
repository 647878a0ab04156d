//! Revival: an endpoint that ends by itself is bound again. A panic in the QUIC stack ends it; the stores do
//! not notice.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use iroh::endpoint::EndpointClosed;

use crate::net::net::{Net, PORT_WAIT, Running};

impl Net {
    /// Begins another run once the endpoint of `ended` is closed, unless that run was stopped.
    pub(super) async fn revive(self, ended: Arc<Running>, closed: EndpointClosed) {
        closed.await;
        if ended.stop.is_cancelled() {
            return;
        }
        let node = self.0.node.id();
        tracing::error!(%node, "the endpoint has ended by itself: it is bound again");
        self.end(PORT_WAIT).await;
        // One that ends at once each time keeps no core busy.
        tokio::select! {
            () = self.0.stopped.cancelled() => return,
            () = tokio::time::sleep(REVIVE_AFTER) => {}
        }
        let revived = {
            let running = self.0.running.lock();
            let mut running = running.unwrap_or_else(PoisonError::into_inner);
            // Stopped for good, or for another mesh, meanwhile.
            if self.0.stopped.is_cancelled() || !Arc::ptr_eq(&running, &ended) {
                return;
            }
            *running = Arc::default();
            Arc::clone(&running)
        };
        // Own writes wait again: the run may have ended before logs were compared.
        self.check_own_tip();
        // The last one that has the old endpoint has its port.
        drop(ended);
        self.supervise(revived);
    }

    /// Ends the endpoint as a fault in it would. For tests.
    #[doc(hidden)]
    pub async fn lose_endpoint(&self) {
        if let Some(mesh) = self.running().mesh.get() {
            mesh.endpoint.close().await;
        }
    }
}

// Time between the end of an endpoint and the next one.
const REVIVE_AFTER: Duration = Duration::from_millis(500);
