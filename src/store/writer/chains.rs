//! Chains: the logs, as the writer asks for what anchors make final. Damage hides an answer and is noted.

use std::cell::RefCell;

use crate::{
    id::{Author, Seq},
    log::{LogDamage, LogError, LogReader},
    protocol::{chain::Tip, finality::Chains, frontier::FrontierTip},
};

/// The logs of a store. Damage that hides an answer is added to a list, and the answer is that of a log
/// in which nothing was forked or lost.
#[derive(Debug)]
pub(in crate::store) struct NotedChains<'a> {
    log: &'a LogReader,
    unreadable: &'a RefCell<Vec<LogDamage>>,
}

impl<'a> NotedChains<'a> {
    pub(in crate::store) fn new(
        log: &'a LogReader,
        unreadable: &'a RefCell<Vec<LogDamage>>,
    ) -> Self {
        Self { log, unreadable }
    }

    fn or_note<T>(&self, answer: Result<T, LogError>, hidden: T) -> Result<T, LogError> {
        match answer {
            Err(LogError::Damaged(found)) => {
                self.unreadable.borrow_mut().push(found);
                Ok(hidden)
            }
            answer => answer,
        }
    }
}

impl Chains for NotedChains<'_> {
    type Error = LogError;

    fn has(&self, author: &Author, place: FrontierTip) -> Result<bool, LogError> {
        self.or_note(self.log.has(author, place), true)
    }

    fn is_joined(&self, author: &Author, place: FrontierTip) -> Result<bool, LogError> {
        self.or_note(self.log.is_joined(author, place), true)
    }

    fn leads(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        self.or_note(self.log.leads(author, entry, tip), None)
    }

    fn keeps(
        &self,
        author: &Author,
        entry: FrontierTip,
        tip: FrontierTip,
    ) -> Result<Option<bool>, LogError> {
        self.or_note(self.log.keeps(author, entry, tip), None)
    }

    fn meet(
        &self,
        author: &Author,
        one: FrontierTip,
        other: FrontierTip,
    ) -> Result<Option<FrontierTip>, LogError> {
        self.or_note(self.log.meet(author, one, other), None)
    }

    fn at(&self, author: &Author, tip: FrontierTip, seq: Seq) -> Result<Option<Tip>, LogError> {
        self.or_note(self.log.at(author, tip, seq), None)
    }
}
