//! Finds the author that a person named by 64 hex digits, or by the first few.

use bytes::Bytes;
use lattice::{
    api::{client::Client, whole},
    id::Author,
};

use crate::cli::{
    exit::{Exit, Failure},
    output::object::hex,
};

/// Returns the author that `text` names.
///
/// The beginning of an id is looked up among the node itself and the authors whose entries it has.
pub(crate) async fn resolve(client: &mut Client, text: &str) -> Result<Bytes, Failure> {
    if let Ok(author) = text.parse::<Author>() {
        return Ok(Bytes::copy_from_slice(&author.0));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) || text.len() > 64 {
        return Err(
            Failure::usage("bad_author", format!("{text:?} is not an author"))
                .hint("an author is 64 hex digits, or the first few of them"),
        );
    }
    let text = text.to_ascii_lowercase();
    let status = whole::status(client).await?;
    let authors = status
        .stores
        .iter()
        .flat_map(|store| &store.applied)
        .map(|tip| &tip.author);
    let mut found: Vec<Bytes> = authors
        .chain([&status.node])
        .filter(|author| hex(author).starts_with(&text))
        .cloned()
        .collect();
    found.sort();
    found.dedup();
    match &found[..] {
        [author] => Ok(author.clone()),
        [] => Err(Failure::new(
            Exit::NotFound,
            "unknown_author",
            format!("no author known here starts with {text}"),
        )
        .hint("`lattice status` lists the authors")),
        several => Err(Failure::usage(
            "ambiguous",
            format!("{} authors start with {text}", several.len()),
        )
        .hint("give more digits")),
    }
}
