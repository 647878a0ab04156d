//! Draws a graph of entries, newest first, with one lane per line of descent.
//!
//! ```text
//! *      a merge of the two entries below
//! ├─┐
//! * │    one side
//! │ *    the other
//! ├─┘
//! *      their common parent
//! ```

/// Lanes from the entries drawn so far to parents that are drawn later.
#[derive(Debug)]
pub(crate) struct Graph<Id> {
    // The entry that each lane leads to; `None` for a free lane. Several lanes may lead to one
    // entry.
    lanes: Vec<Option<Id>>,
}

/// The lines that draw one entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// Lines before the entry's line, in which the lanes that lead to the entry join.
    pub(crate) joins: Vec<String>,
    /// The entry's line, with a star in its lane.
    pub(crate) node: String,
    /// Prefix of further lines of text about the entry.
    pub(crate) pad: String,
    /// Lines after the entry's line, in which lanes to its second and later parents begin.
    pub(crate) splits: Vec<String>,
}

impl<Id: PartialEq + Clone> Graph<Id> {
    /// Makes a graph without lanes.
    pub(crate) fn new() -> Self {
        Self { lanes: Vec::new() }
    }

    /// Draws the entry `id`. Every entry that has it as a parent must have been drawn before.
    pub(crate) fn draw(&mut self, id: &Id, parents: &[Id]) -> Drawn {
        let lane = self.lanes.iter().position(|to| to.as_ref() == Some(id));
        let lane = lane.unwrap_or_else(|| self.take_free());
        let mut joins = Vec::new();
        for other in (lane + 1..self.lanes.len()).rev() {
            if self.lanes[other].as_ref() == Some(id) {
                joins.push(self.bridge(lane, other, '┘'));
                self.lanes[other] = None;
            }
        }
        self.lanes[lane] = Some(id.clone());
        self.trim();
        let node = self.row(|at| (at == lane).then_some('*'));
        self.lanes[lane] = parents.first().cloned();
        let pad = self.row(|_| None);
        let mut splits = Vec::new();
        for parent in parents.iter().skip(1) {
            let other = self.take_free();
            self.lanes[other] = Some(parent.clone());
            let end = if other > lane { '┐' } else { '┌' };
            splits.push(self.bridge(lane, other, end));
        }
        self.trim();
        Drawn {
            joins,
            node,
            pad,
            splits,
        }
    }

    /// Draws the lanes that lead to entries not drawn yet.
    pub(crate) fn loose_ends(&self) -> String {
        self.row(|at| self.lanes[at].is_some().then_some('┊'))
    }

    fn take_free(&mut self) -> usize {
        self.lanes
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                self.lanes.push(None);
                self.lanes.len() - 1
            })
    }

    // Removes the free lanes at the right end.
    fn trim(&mut self) {
        while matches!(self.lanes.last(), Some(None)) {
            self.lanes.pop();
        }
    }

    fn row(&self, mark: impl Fn(usize) -> Option<char>) -> String {
        let cell = |at: usize| {
            let lane = if self.lanes[at].is_some() { '│' } else { ' ' };
            mark(at).unwrap_or(lane)
        };
        let cells = (0..self.lanes.len()).flat_map(|at| [cell(at), ' ']);
        cells.collect::<String>().trim_end().to_owned()
    }

    // Draws a row that connects `lane` with `other`; the corner `end` is in `other`.
    fn bridge(&self, lane: usize, other: usize, end: char) -> String {
        let (from, to) = (lane.min(other), lane.max(other));
        let mut row = String::new();
        for (at, leads_to) in self.lanes.iter().enumerate() {
            let is_between = from < at && at < to;
            row.push(match leads_to {
                _any if at == other => end,
                _any if at == lane && lane < other => '├',
                _any if at == lane => '┤',
                Some(_) if is_between => '┼',
                None if is_between => '─',
                Some(_) => '│',
                None => ' ',
            });
            row.push(if from <= at && at < to { '─' } else { ' ' });
        }
        row.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(entries: &[(char, &str)]) -> String {
        let mut graph = Graph::new();
        let mut lines = Vec::new();
        for (id, parents) in entries {
            let parents: Vec<char> = parents.chars().collect();
            let drawn = graph.draw(id, &parents);
            lines.extend(drawn.joins);
            lines.push(format!("{} {id}", drawn.node));
            lines.extend(drawn.splits);
        }
        lines.push(graph.loose_ends());
        lines.join("\n").trim_end().to_owned()
    }

    #[test]
    fn chain_is_one_lane() {
        insta::assert_snapshot!(picture(&[('c', "b"), ('b', "a"), ('a', "")]), @r"
        * c
        * b
        * a
        ");
    }

    #[test]
    fn two_heads_join_in_their_parent() {
        insta::assert_snapshot!(picture(&[('c', "a"), ('b', "a"), ('a', "")]), @r"
        * c
        │ * b
        ├─┘
        * a
        ");
    }

    #[test]
    fn merge_of_three_has_three_lanes() {
        let entries = [('m', "dcb"), ('d', "a"), ('c', "b"), ('b', "a"), ('a', "")];
        insta::assert_snapshot!(picture(&entries), @r"
        * m
        ├─┐
        ├─┼─┐
        * │ │ d
        │ * │ c
        │ ├─┘
        │ * b
        ├─┘
        * a
        ");
    }

    #[test]
    fn truncated_history_shows_loose_ends() {
        insta::assert_snapshot!(picture(&[('d', "cb"), ('c', "a")]), @r"
        * d
        ├─┐
        * │ c
        ┊ ┊
        ");
    }

    #[test]
    fn free_lane_is_reused() {
        let entries = [
            ('e', ""),
            ('d', "cb"),
            ('c', ""),
            ('b', "ax"),
            ('a', ""),
            ('x', ""),
        ];
        insta::assert_snapshot!(picture(&entries), @r"
        * e
        * d
        ├─┐
        * │ c
          * b
        ┌─┤
        │ * a
        * x
        ");
    }
}
