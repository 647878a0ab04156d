//! The iroh endpoint: how it is bound.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use iroh::{
    Endpoint, RelayMode, RelayUrl, SecretKey,
    address_lookup::memory::MemoryLookup,
    endpoint::{NetReportConfig, PortmapperConfig, QuicTransportConfig, presets},
};
use iroh_mdns_address_lookup::MdnsAddressLookup;

use crate::{
    limits::{
        BIND_AGAIN_MAX, BIND_AGAIN_MIN, PEER_IDLE_MAX, PEER_KEEP_ALIVE, PEER_PATH_IDLE_MAX,
        PEER_STREAMS_MAX, PEER_WINDOW_BYTES, SYNC_WINDOW_BYTES,
    },
    net::{
        config::{NetConfig, Relay},
        error::NetError,
        gate::Gate,
    },
};

/// Binds an endpoint whose key is derived from `seed`. `gate` sees every connection in both
/// directions; `known` has the addresses for dials by id.
///
/// # Errors
/// `Bind`, `BadRelay`.
pub(super) async fn bind(
    config: &NetConfig,
    seed: &[u8; 32],
    gate: Gate,
    known: MemoryLookup,
) -> Result<Endpoint, NetError> {
    let failed = |error: String| NetError::Bind { what: error };
    let idle = PEER_IDLE_MAX
        .try_into()
        .expect("a few seconds fit QUIC's variable-length integer");
    let transport = QuicTransportConfig::builder()
        .keep_alive_interval(PEER_KEEP_ALIVE)
        .max_idle_timeout(Some(idle))
        .default_path_keep_alive_interval(PEER_KEEP_ALIVE)
        .default_path_max_idle_timeout(PEER_PATH_IDLE_MAX)
        .max_concurrent_bidi_streams(PEER_STREAMS_MAX.into())
        .max_concurrent_uni_streams(GOSSIP_STREAMS_MAX.into())
        // Without it, each stream that no task reads could hold a whole stream window of bytes.
        .receive_window(PEER_WINDOW_BYTES.into())
        .stream_receive_window(SYNC_WINDOW_BYTES.into())
        .build();
    let builder = match &config.relay {
        Relay::N0 => Endpoint::builder(presets::N0),
        Relay::Off => Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled),
        Relay::Url(url) => {
            let url: RelayUrl = url
                .parse()
                .map_err(|_error| NetError::BadRelay { relay: url.clone() })?;
            Endpoint::builder(presets::Minimal).relay_mode(RelayMode::custom([url]))
        }
    };
    let mut report = NetReportConfig::minimal();
    // A relay is chosen among those that answer. One without QUIC answers over HTTPS only.
    report.https_probes = config.relay != Relay::Off;
    let mut builder = builder
        .portmapper_config(PortmapperConfig::Disabled)
        .net_report_config(report)
        .secret_key(SecretKey::from_bytes(seed))
        .transport_config(transport)
        .address_lookup(known)
        .hooks(gate);
    if let Some(bind) = config.bind {
        builder = builder
            .clear_ip_transports()
            .bind_addr(bind)
            .map_err(|error| failed(error.to_string()))?;
    }
    let endpoint = builder.bind().await;
    let endpoint = endpoint.map_err(|error| match config.bind {
        Some(address) if is_taken(address) => NetError::PortTaken { address },
        _other => failed(error.to_string()),
    })?;
    if config.mdns {
        let mdns = MdnsAddressLookup::builder()
            .service_name(MDNS_SERVICE)
            .build(endpoint.id());
        match (mdns, endpoint.address_lookup()) {
            (Ok(mdns), Ok(lookups)) => lookups.add(mdns),
            // A machine without multicast: peers are found by the addresses that are known.
            (Err(error), _) => {
                tracing::warn!(%error, "peers on the local network are not looked for")
            }
            (_, Err(error)) => return Err(failed(error.to_string())),
        }
    }
    Ok(endpoint)
}

/// Calls `bind` again, for `BIND_AGAIN_MAX` at most, while its port is taken: an endpoint that this node
/// has closed may have the port for some time.
///
/// # Errors
/// Those of `bind`.
pub(super) async fn once_free<T, F>(mut bind: impl FnMut() -> F) -> Result<T, NetError>
where
    F: Future<Output = Result<T, NetError>>,
{
    let begun = Instant::now();
    loop {
        let bound = bind().await;
        // The port may have become free between the failure and the look at its reason.
        let may_pass = matches!(
            bound,
            Err(NetError::PortTaken { .. } | NetError::Bind { .. })
        );
        if !may_pass || begun.elapsed() >= BIND_AGAIN_MAX {
            return bound;
        }
        tokio::time::sleep(BIND_AGAIN_MIN).await;
    }
}

// The error of the endpoint does not show why it was not bound.
fn is_taken(address: SocketAddr) -> bool {
    UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// Streams that gossip may open on one connection: one for each topic and direction.
const GOSSIP_STREAMS_MAX: u32 = 256;
/// A name of its own: programs that use iroh's default see each other.
const MDNS_SERVICE: &str = "lattice";

const _: () = assert!(PEER_IDLE_MAX.as_millis() > Duration::from_secs(2).as_millis());
