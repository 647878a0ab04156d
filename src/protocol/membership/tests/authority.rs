//! Grants that acts do not cite exactly.

use super::*;

// Such a reference does not show that the grant came first: the act counted on a node where the grant
// came first and was void where it came later, or after the next start.
#[test]
fn m6_a_grant_that_an_act_does_not_cite_exactly_is_no_authority() {
    let wrong: [fn(&mut Parent); 3] = [
        |cited| cited.hlc.wall_ms -= 1,
        |cited| cited.author = NODE_D,
        |cited| cited.seq += 1,
    ];
    for wrong in wrong {
        let mut story = Story::default();
        let a = story.found(NODE_A, Admin);
        let void = story.grant(NODE_A, a, NODE_X, Writer);
        wrong(&mut story.acts[1].cites[0]);
        assert_eq!(story.members().role(&NODE_X), None);
        // Beside a reference that does name a grant, it takes nothing away.
        let exact = story.acts[0].place;
        story.acts[1].cites.push(exact);
        let members = story.members();
        assert!(members.counts(&void, &NODE_X));
        assert_eq!(members.role(&NODE_X), Some(Writer));
    }
}
