//! `bench heal`: measures the time from the end of a fault until all members are in step again.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use lattice::{
    api::{client::Client, whole},
    wire::api,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::cli::{
    bench::{
        error::failed,
        report::{Goal, Report},
        samples::Samples,
        scratch::{Daemon, Scratch},
        setup::Setup,
        sync::join,
    },
    exit::Failure,
};

/// Time from the end of a fault of one of three nodes until all are in step again
///
/// Each fault is repeated: the node is killed and started again, is started again on another port, is
/// stopped as a debugger or a full machine would do it, for less and for more time than connections
/// live, and is stopped in order. Meanwhile another node writes. All are in step once each has the
/// others' entries and shows each of them as online and in step.
#[derive(Debug, Args)]
pub(super) struct Heal {
    #[command(flatten)]
    setup: Setup,
    /// Repetitions of each fault
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// One fault.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    OtherPort,
    Stopped,
    /// It does not run for this long.
    Frozen(Duration),
}

/// One of the three nodes.
struct Member {
    dir: PathBuf,
    port: SocketAddr,
    // `None` only while it is away.
    daemon: Option<Daemon>,
}

impl Heal {
    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) async fn run(
        self,
        scratch: &Scratch,
        report: &mut Report<'_>,
    ) -> Result<(), Failure> {
        let faults = [
            ("killed, started again", Fault::Killed),
            ("killed, started on another port", Fault::OtherPort),
            ("stopped, started again", Fault::Stopped),
            ("frozen for 1 s", Fault::Frozen(Duration::from_secs(1))),
            ("frozen for 8 s", Fault::Frozen(Duration::from_secs(8))),
        ];
        let mut members = start(scratch).await?;
        let mut puts = 0;
        settle(&members, &mut puts).await?;
        for (name, fault) in faults {
            report.case(format!("3 nodes, one is {name}, {} times", self.rounds))?;
            let mut times = Samples::default();
            for _round in 0..self.rounds {
                let took = round(&mut members, fault, &mut puts).await?;
                times.push(took);
            }
            times.sort();
            for (what, per_mille) in [("p50", 500), ("p90", 900)] {
                let figure = format!("in step again, {what}");
                report.figure(&figure, times.micros(per_mille) / 1e6, "s")?;
            }
            let p99 = times.micros(990) / 1e6;
            report.against("in step again, p99", p99, "s", Goal::AtMost(HEAL_S))?;
        }
        Ok(())
    }
}

// Three nodes that know each other.
async fn start(scratch: &Scratch) -> Result<Vec<Member>, Failure> {
    let mut members = Vec::new();
    for _number in 0..3 {
        let dir = scratch.new_path();
        let port = free_port()?;
        if let Some(first) = members.first() {
            let token = invite(first).await?;
            let joiner = dir.clone();
            let joining = tokio::task::spawn_blocking(move || join(&joiner, &token)).await;
            joining.map_err(|panic| failed("the joining node panicked", &panic))??;
        }
        let daemon = Some(Daemon::start_at(&dir, port).await?);
        members.push(Member { dir, port, daemon });
    }
    Ok(members)
}

async fn invite(member: &Member) -> Result<String, Failure> {
    let request = api::InviteRequest {
        role: "writer".to_owned(),
        valid_ms: 600_000,
    };
    let mut client = member.connect().await?;
    Ok(client.invite(request).await?.into_inner().token)
}

// Returns the time from the end of the fault until all are in step.
async fn round(members: &mut [Member], fault: Fault, puts: &mut u64) -> Result<Duration, Failure> {
    let [writer, faulty, _third] = members else {
        return Err(Failure::failed("bench", "there are three nodes"));
    };
    match fault {
        Fault::Frozen(time) => {
            faulty.signal(Signal::STOP)?;
            put(writer, puts).await?;
            tokio::time::sleep(time).await;
            faulty.signal(Signal::CONT)?;
        }
        Fault::Stopped => {
            if let Some(daemon) = faulty.daemon.take() {
                daemon.stop().await?;
            }
            put(writer, puts).await?;
            tokio::time::sleep(AWAY).await;
        }
        Fault::Killed | Fault::OtherPort => {
            if let Some(daemon) = faulty.daemon.take() {
                daemon.kill()?;
            }
            put(writer, puts).await?;
            tokio::time::sleep(AWAY).await;
            if matches!(fault, Fault::OtherPort) {
                faulty.port = free_port()?;
            }
        }
    }
    let began = Instant::now();
    if faulty.daemon.is_none() {
        faulty.daemon = Some(Daemon::start_at(&faulty.dir, faulty.port).await?);
    }
    settle(members, puts).await?;
    Ok(began.elapsed())
}

// Waits until all are in step, each with an entry that another one has just written.
async fn settle(members: &[Member], puts: &mut u64) -> Result<(), Failure> {
    let Some(faulty) = members.get(1) else {
        return Ok(());
    };
    put(faulty, puts).await?;
    let mut clients = Vec::new();
    for member in members {
        clients.push(member.connect().await?);
    }
    let began = Instant::now();
    loop {
        let mut is_in_step = true;
        for client in &mut clients {
            is_in_step = is_in_step && shows_all_in_step(client, *puts).await?;
        }
        if is_in_step {
            return Ok(());
        }
        if began.elapsed() > HEAL_WAIT {
            let what = format!("the nodes were not in step after {HEAL_WAIT:?}");
            return Err(Failure::failed("bench", what));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn shows_all_in_step(client: &mut Client, puts: u64) -> Result<bool, Failure> {
    for number in [puts.saturating_sub(1), puts] {
        let request = api::GetRequest {
            key: format!("/heal/{number}").into(),
            ..api::GetRequest::default()
        };
        let got = client.get(request).await;
        if number > 0 && got.is_err() {
            return Ok(false);
        }
    }
    let mut peers = whole::peers(client).await?.peers.into_iter();
    Ok(peers.all(|peer| peer.online && peer.behind == Some(0) && peer.ahead == Some(0)))
}

async fn put(member: &Member, puts: &mut u64) -> Result<(), Failure> {
    *puts += 1;
    let request = api::PutRequest {
        key: format!("/heal/{puts}").into(),
        value: vec![0; 16].into(),
        ..api::PutRequest::default()
    };
    member.connect().await?.put(request).await?;
    Ok(())
}

impl Member {
    async fn connect(&self) -> Result<Client, Failure> {
        match &self.daemon {
            Some(daemon) => daemon.connect().await,
            None => Err(Failure::failed("bench", "the node is away")),
        }
    }

    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = self.daemon.as_ref().map(Daemon::pid);
        let pid = pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or_else(|| Failure::failed("bench", "the node is away"))?;
        kill_process(pid, signal).map_err(|error| failed("cannot signal the node", &error))
    }
}

// The port is free again on return, and hardly any other program takes it at once.
fn free_port() -> Result<SocketAddr, Failure> {
    let socket = UdpSocket::bind("127.0.0.1:0");
    let address = socket.and_then(|socket| socket.local_addr());
    address.map_err(|error| failed("cannot find a free port", &error))
}

/// Goal, in seconds: time from the end of a fault until all members are in step.
const HEAL_S: f64 = 3.0;
/// Time for which a node that was killed or stopped is away.
const AWAY: Duration = Duration::from_millis(300);
/// Longest wait until all are in step.
const HEAL_WAIT: Duration = Duration::from_secs(120);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
