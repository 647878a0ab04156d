//! The clock that a node compares its own with: the median of those of the members within reach.
//!
//! A node whose own clock is far ahead signs entries that other nodes hold until their clocks come
//! to them. One member that is wrong, or lies, must not stop the others, so the median counts. A
//! node asks at its start, before it has signed anything, and after its clock has jumped; not while
//! it runs, so that a liar stops nobody who is at work.

/// Returns the median of `ahead_ms`, by how many milliseconds each member's clock is ahead; of an
/// even number, the one nearer to this node's clock. `None` without any.
pub fn median_ms(mut ahead_ms: Vec<i64>) -> Option<i64> {
    ahead_ms.sort_unstable();
    let upper = ahead_ms.get(ahead_ms.len() / 2).copied()?;
    let lower = ahead_ms
        .get(ahead_ms.len().saturating_sub(1) / 2)
        .copied()?;
    Some(if lower.unsigned_abs() <= upper.unsigned_abs() {
        lower
    } else {
        upper
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_half_of_the_members_move_no_median() {
        assert_eq!(median_ms(vec![]), None);
        assert_eq!(median_ms(vec![-7]), Some(-7));
        assert_eq!(median_ms(vec![i64::MIN, 5]), Some(5));
        assert_eq!(median_ms(vec![-9, 5]), Some(5));
        assert_eq!(median_ms(vec![3, i64::MIN, 1]), Some(1));
        assert_eq!(median_ms(vec![i64::MAX, 3, 1, -2]), Some(1));
        assert_eq!(median_ms(vec![i64::MAX, i64::MIN, 3, i64::MIN, 4]), Some(3));
    }
}
