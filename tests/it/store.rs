//! Conformance of [`Store`]: what both back ends promise, each behaviour once.
//!
//! [`suite`] knows no back end; each has a module of its own that implements [`Harness`] and calls
//! [`conformance!`], so that `cargo test --test it store::sqlite` runs one of them.

use std::sync::Arc;

use tidings::store::Store;

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod suite;

/// A back end under test: a store that nobody else sees.
trait Harness: Send + Sized + 'static {
    /// How many random stories the property test tells it.
    const STORIES: u32;

    /// A new, empty store.
    async fn start() -> Self;

    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// Takes away what the test made.
    async fn stop(self);
}

/// Makes a test of every function of the suite, for one harness.
macro_rules! conformance {
    ($harness:ty: $($part:ident: $($fact:ident),+;)+) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $fact() {
                let harness = <$harness as $crate::store::Harness>::start().await;
                let store = $crate::store::Harness::store(&harness);
                $crate::store::suite::$part::$fact(store).await;
                $crate::store::Harness::stop(harness).await;
            }
        )+)+


        #[test]
        fn every_story_ends_as_in_the_model() {
            $crate::store::suite::story::tell::<$harness>();
        }
    };
    ($harness:ty) => {
        $crate::store::conformance!($harness:
            persist:
                a_row_is_as_its_payload_says,
                a_chunk_persisted_twice_changes_nothing,
                a_later_send_of_a_scope_updates_by_the_rules,
                an_earlier_send_of_a_scope_is_superseded,
                sends_of_one_moment_are_ordered_by_their_ids,
                a_scope_belongs_to_one_person_and_one_origin,
                an_update_is_unread_again_and_stays_saved,
                an_updated_broadcast_stays_read,
                another_body_under_a_key_is_ignored_and_counted_once,
                another_body_is_noticed_whatever_the_chunk,
                a_muted_inbox_keeps_its_deliveries,
                a_delivery_once_per_submission_needs_no_row,
                a_delivery_that_is_switched_off_is_kept_as_skipped,
                a_repeated_chunk_tells_what_is_still_pending,
                two_thousand_people_are_counted_exactly,
                sends_at_once_leave_the_latest_and_right_counts;
            deliveries:
                a_claimed_delivery_is_nobody_elses,
                a_delivery_asked_for_twice_is_claimed_once,
                many_senders_claim_each_delivery_once,
                a_vanished_holder_leaves_doubt_and_a_try,
                what_is_recorded_decides_what_comes_next,
                only_the_holder_records_releases_and_expands,
                a_late_record_counts_while_nobody_else_has_claimed,
                a_given_back_delivery_is_untried,
                a_delivery_that_is_put_off_is_untried_and_says_why,
                what_was_sent_before_for_a_scope_is_found,
                an_expanded_delivery_is_replaced_by_its_targets,
                an_unknown_delivery_is_done;
            rate:
                turns_are_given_once_and_one_after_the_other,
                each_channel_has_a_line_of_its_own;
            endpoint:
                an_endpoint_fails_until_it_is_well;
            foreign:
                what_is_reported_is_where_a_delivery_stands,
                what_is_reported_comes_with_a_message_that_carries_it,
                of_other_channels_nothing_is_believed,
                silence_makes_a_delivery_unknown_and_a_late_word_still_counts,
                a_delivery_put_off_is_not_overdue_before_its_time,
                a_secret_is_made_once_and_is_the_same_for_all;
            stranded:
                a_stranded_delivery_comes_back_as_it_was_planned,
                a_stranded_delivery_comes_back_once,
                a_stranded_delivery_of_a_submission_has_its_recipients,
                what_is_held_waits_or_is_done_is_not_stranded,
                many_stranded_deliveries_come_in_messages_of_fifty;
            inbox:
                an_inbox_holds_its_own_and_every_broadcast,
                each_filter_chooses_and_counts,
                a_search_ignores_case_and_knows_wildcards,
                pages_follow_each_other_without_gaps,
                an_inbox_can_be_ordered_by_every_field,
                topics_are_those_of_what_matches,
                one_is_found_by_its_owner_alone,
                counts_follow_the_marks,
                marks_are_cleared_and_kept_apart,
                ids_of_others_are_not_marked,
                a_hundred_thousand_are_marked_at_once,
                marking_all_reads_everything_once;
            expire:
                what_is_old_goes_oldest_first_and_what_is_saved_stays,
                a_broadcast_goes_with_its_marks_unless_somebody_saved_it,
                a_mark_on_what_is_being_deleted_is_on_nothing;
            import:
                an_imported_row_is_as_it_was_and_comes_once,
                what_was_changed_here_since_an_import_stays,
                a_mark_on_a_broadcast_that_is_not_here_is_nothing,
                imported_settings_come_beside_those_that_were_made_here,
                how_far_an_import_came_is_kept_with_its_rows,
                a_send_continues_the_imported_row_of_its_scope,
                sends_at_once_continue_one_imported_row,
                an_imported_broadcast_is_continued_with_its_marks;
            timeline:
                a_timeline_tells_the_whole_story,
                a_submission_is_found_by_its_last_digits_and_its_key,
                a_timeline_lists_what_is_not_sent_first;
            dead:
                a_dead_letter_is_filed_once,
                a_recorded_failure_files_its_letter,
                deliveries_of_a_dead_message_are_given_up_unless_held,
                dead_letters_are_filtered,
                a_reopened_letter_makes_its_failed_deliveries_pending,
                replayed_letters_are_kept_and_discarded_ones_are_not;
            operate:
                settings_are_replaced_as_a_whole,
                origins_and_topics_are_those_of_ones_own,
                a_channel_is_paused_until_it_is_resumed,
                a_token_is_kept_used_and_revoked,
                a_public_key_is_kept_until_it_ends,
                a_process_lives_from_heartbeat_to_farewell,
                a_summary_counts_everything,
                what_is_too_old_goes_and_what_is_open_stays,
                a_store_in_order_is_ready;
        );
    };
}
use conformance;
