//! Finds the author that a person named: by its name, by 64 hex digits, or by the first few.

use std::collections::BTreeSet;

use bytes::Bytes;
use lattice::{
    api::{client::Client, whole},
    id::{Author, looks_like_id},
};

use crate::cli::{
    exit::{Exit, Failure},
    output::object::hex,
};

/// Returns the author that `text` names.
///
/// The name is looked up among the members, and the beginning of an id also among the authors whose
/// entries the node has. A member chooses its own name: it must not stand for the id of another one.
pub(crate) async fn resolve(client: &mut Client, text: &str) -> Result<Bytes, Failure> {
    if let Ok(author) = text.parse::<Author>() {
        return Ok(Bytes::copy_from_slice(&author.0));
    }
    let status = whole::status(client).await?;
    let members = whole::peers(client).await?;
    let members: Vec<_> = members.own.into_iter().chain(members.peers).collect();
    let authors = status.stores.iter().flat_map(|store| &store.applied);
    let authors = authors.map(|tip| &tip.author).chain([&status.node]);
    let authors = authors.chain(members.iter().map(|member| &member.node));
    let digits = text.to_ascii_lowercase();
    let begins = |author: &&Bytes| !digits.is_empty() && hex(author).starts_with(&digits);
    let mut found: BTreeSet<&Bytes> = authors.filter(begins).collect();
    if !text.is_empty() && !looks_like_id(text) {
        let named = members.iter().filter(|member| member.name == text);
        found.extend(named.map(|member| &member.node));
    }
    let mut found = found.into_iter();
    match (found.next(), found.count()) {
        (Some(author), 0) => Ok(author.clone()),
        (None, _) => Err(Failure::new(
            Exit::NotFound,
            "unknown_author",
            format!("no author known here has the name or the id {text:?}"),
        )
        .hint("`lattice status -v` lists the authors")),
        (Some(_), more) => Err(Failure::usage(
            "ambiguous",
            format!(
                "{} authors have the name, or the first digits of the id, {text:?}",
                more + 1
            ),
        )
        .hint("give more digits of the id: `lattice status -v` lists the authors")),
    }
}
