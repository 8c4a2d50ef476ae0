//! Conformance of [`Queue`]: what both back ends promise, each behaviour once.
//!
//! [`suite`] is written against [`Harness`]; each back end has a module of its own that implements
//! it and calls [`conformance!`], so that `cargo test --test it queue::sqlite` runs one of them.

use std::sync::Arc;
use std::time::Duration;

use tidings::queue::Consumer;
use tidings::queue::Queue;
use tidings::topology;
use tidings::topology::QueueSpec;

#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "sqlite")]
mod sqlite;
mod suite;

/// The waits of the retry schedule in these tests. The last is so long that nobody mistakes it
/// for one of the others, however slow the machine.
const STEPS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_secs(600),
];

/// A sender, so that there are queues with lanes.
const SENDER: &str = "email";

/// The queues of these tests.
fn specs() -> Vec<QueueSpec> {
    topology::queues(&[SENDER.to_owned()])
}

/// A back end under test: a queue that nobody else sees.
trait Harness: Send + Sized + 'static {
    /// A new, empty queue with [`specs`] and [`STEPS`].
    async fn start() -> Self;

    /// The queue as it stands now; a handle from before a restart is dead.
    fn queue(&self) -> Arc<dyn Queue>;

    /// What a `kill -9` does: the process dies with `consumers` and all they have in hand, without
    /// a last word to the back end, and another one starts on the same data.
    async fn restart(&mut self, consumers: Vec<Box<dyn Consumer>>);

    /// Takes away what the test made.
    async fn stop(self);
}

/// Makes a test of every function of the suite, for one harness.
macro_rules! conformance {
    ($harness:ty: $($fact:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                let mut harness = <$harness as $crate::queue::Harness>::start().await;
                $crate::queue::suite::$fact(&mut harness).await;
                $crate::queue::Harness::stop(harness).await;
            }
        )+
    };
    ($harness:ty) => {
        $crate::queue::conformance!($harness:
            a_published_message_is_received_once_as_it_was,
            a_completed_message_is_gone_after_a_restart,
            an_unfinished_message_comes_back_when_its_consumer_is_dropped,
            an_unfinished_message_comes_back_after_a_restart,
            finishing_some_of_what_is_in_hand_leaves_the_rest_in_hand,
            what_follows_is_there_when_the_message_is_gone,
            a_retry_counts_and_comes_neither_early_nor_a_step_late,
            a_wait_does_not_count_and_survives_a_restart,
            a_delayed_message_does_not_hold_up_the_others,
            a_dead_letter_tells_how_it_died,
            a_message_that_returned_too_often_is_parked_among_the_dead,
            the_first_lane_gets_four_of_five_and_none_starves,
            the_slow_lane_is_served_alone_when_the_fast_one_is_empty,
            a_lone_message_does_not_wait_for_company,
            consumers_share_a_queue_without_doubles,
            a_waiting_consumer_is_woken_by_what_another_gives_back,
            a_cancelled_take_drops_no_message,
            an_announcement_reaches_every_listener,
            an_announcement_without_listeners_fails_nothing,
            an_answer_reaches_its_reply_queue,
            an_answer_to_nobody_fails_nothing,
            depths_tell_what_waits_in_every_queue,
            a_purge_drops_what_waits,
            a_queue_that_does_not_exist_is_refused_by_name,
            a_large_message_arrives_whole,
            a_queue_in_order_is_ready,
        );
    };
}
use conformance;
