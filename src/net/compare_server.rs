//! A comparison as the node does that is asked.
//!
//! A question costs this node a reading of rows. So only members ask, each in one comparison at a time
//! and `COMPARES_MAX` of them together. One question is answered at a time on this node, and after it
//! comes a pause that is as long as the answer took: whatever peers ask, half a core is left. A
//! comparison ends after `COMPARE_TIME_MAX`, since it keeps pages of the state file in use.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use iroh::endpoint::{RecvStream, SendStream};
use tokio::time::{sleep, timeout};

use crate::{
    id::Author,
    limits::{SYNC_ANSWER_TIMEOUT, SYNC_WORK_TIMEOUT},
    net::{
        compare::on_thread,
        compare_line::Line,
        error::{COMPARES_BUSY, NO_STORE, PeerError},
        mesh::Mesh,
    },
    protocol::{
        compare::{Message, PeerState, VERSION, rows_that_fit},
        frontier::Frontier,
        heads_row::encode_heads,
    },
    store::{ReadError, StateTree},
};

/// Serves a comparison that `node` has opened.
///
/// # Errors
/// `PeerError`.
pub(super) async fn accept(
    mesh: &Arc<Mesh>,
    node: &Author,
    send: SendStream,
    receive: RecvStream,
) -> Result<(), PeerError> {
    let line = Line::new(send, receive);
    let (Some(of_peer), Ok(of_all)) = (
        mesh.peers.begin_compare(node),
        mesh.compares.served.try_acquire(),
    ) else {
        line.refuse(COMPARES_BUSY);
        return Ok(());
    };
    let wait = COMPARE_TIME_MAX;
    let served = timeout(wait, serve(mesh, node, line)).await;
    let line = served.map_err(|_elapsed| PeerError::Silent { wait })??;
    // The peer may begin the next one when it sees the end of this one.
    drop((of_peer, of_all));
    if let Some(line) = line {
        line.finish();
    }
    Ok(())
}

// Returns the line at its end; `None` if it was refused.
async fn serve(mesh: &Arc<Mesh>, node: &Author, mut line: Line) -> Result<Option<Line>, PeerError> {
    let blame = |what| {
        mesh.strike(node, what);
        PeerError::Malformed { what }
    };
    let Some(Ok(Message::Begin {
        version: VERSION,
        store,
        prefix,
    })) = line.hear(SYNC_ANSWER_TIMEOUT).await?
    else {
        return Err(blame("a comparison that does not begin as one"));
    };
    let Some(store) = mesh.node.shared_store(&store) else {
        // It is not open here yet, or never will be. The peer did nothing wrong.
        line.refuse(NO_STORE);
        return Ok(None);
    };
    let mut tree = {
        let turn = mesh.compares.answering.lock().await;
        let began = Instant::now();
        let tree = store.state_tree(&prefix).await;
        sleep(began.elapsed()).await;
        drop(turn);
        tree.map_err(PeerError::own)?
    };
    let state = &tree.state;
    let state = Message::State(PeerState {
        root: state.root,
        prefix_root: tree.prefix_root,
        frontier: state.frontier.hash(),
        entries: state.frontier.entries_beyond(&Frontier::default()),
        acts: state.acts,
    });
    line.say(state, SYNC_WORK_TIMEOUT).await?;
    while let Some(question) = line.hear(SYNC_WORK_TIMEOUT).await? {
        let question = question.map_err(|_fault| blame("a malformed message of a comparison"))?;
        if !matches!(question, Message::Ask(_) | Message::WantRows(_)) {
            return Err(blame("a message of a comparison out of turn"));
        }
        let turn = mesh.compares.answering.lock().await;
        let began = Instant::now();
        let (returned, answered) = on_thread(move || {
            let answered = answer(&mut tree, question);
            (tree, answered)
        })
        .await?;
        tree = returned;
        let took = began.elapsed();
        let answer = answered.map_err(PeerError::own)?;
        // A peer that is slow to read does not keep the turn.
        let pause = async {
            sleep(took).await;
            drop(turn);
        };
        let (said, ()) = tokio::join!(line.say(answer, SYNC_WORK_TIMEOUT), pause);
        said?;
    }
    Ok(Some(line))
}

fn answer(tree: &mut StateTree, question: Message) -> Result<Message, ReadError> {
    match question {
        Message::Ask(ask) => tree.answer(&ask).map(Message::Answer),
        Message::WantRows(keys) => {
            let mut unread = None;
            let rows = keys.iter().map_while(|key| match tree.heads(key) {
                Ok(heads) if heads.winner().is_none() => Some(Bytes::new()),
                Ok(heads) => Some(encode_heads(&heads).into()),
                Err(error) => {
                    unread = Some(error);
                    None
                }
            });
            // No row is read that is not sent, but for one.
            let rows = rows_that_fit(rows);
            unread.map_or(Ok(Message::Rows(rows)), Err)
        }
        Message::Begin { .. } | Message::State(_) | Message::Answer(_) | Message::Rows(_) => {
            unreachable!("the caller has asked whether it is a question")
        }
    }
}

// Longest time of a comparison: some thousand questions. The peer may begin another one.
const COMPARE_TIME_MAX: Duration = Duration::from_secs(60);
