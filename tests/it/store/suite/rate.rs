//! Rates that hold across all who send.

use std::sync::Arc;
use std::time::Duration;

use tidings::store::Store;
use tidings::store::Turns;

const GAP: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(95);

pub(crate) async fn turns_are_given_once_and_one_after_the_other(store: Arc<dyn Store>) {
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.take_turns("email", 2, GAP, WITHIN).await.unwrap() })
        })
        .collect();
    let mut all = Vec::new();
    for taker in takers {
        all.push(taker.await.unwrap());
    }
    all.sort_by_key(|turns| turns.after);
    let counts: Vec<u32> = all.iter().map(|turns| turns.count).collect();
    assert_eq!(counts, [2, 2, 2, 2, 2, 0, 0, 0], "{all:?}");
    // Nobody begins where another has a turn; the moments are the store's, a little later each.
    for (no, turns) in all.iter().take(5).enumerate() {
        let ahead = GAP * u32::try_from(no * 2).unwrap();
        assert!(
            turns.after <= ahead && ahead - GAP.min(ahead) <= turns.after,
            "{all:?}"
        );
    }
}

pub(crate) async fn each_channel_has_a_line_of_its_own(store: Arc<dyn Store>) {
    let mine = store.take_turns("email", 50, GAP, WITHIN).await.unwrap();
    let first = Turns {
        after: Duration::ZERO,
        count: 10,
    };
    assert_eq!(mine, first);
    assert_eq!(
        store.take_turns("slack", 3, GAP, WITHIN).await.unwrap(),
        Turns { count: 3, ..first }
    );
    let none = store.take_turns("email", 1, GAP, WITHIN / 2).await.unwrap();
    assert_eq!(none.count, 0);
}
