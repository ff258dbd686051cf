//! The conformance suite: one list of properties, every store. A property that only one store has is tested beside it.

pub mod cluster;
mod embedded;
mod memory;
mod place;
mod properties;
pub mod redis;
mod redis_cost;
mod redis_faults;
mod redis_memory;
mod redis_rules;
mod redis_tls;
pub mod sentinel;
pub mod server;

/// Ends the test where Valkey is left out on purpose.
macro_rules! valkey {
    () => {
        match crate::store::server::Program::valkey() {
            Some(program) => program,
            None => return eprintln!("not tested: NCHF_TEST_VALKEY=none"),
        }
    };
}
pub(crate) use valkey;

/// The list. A store joins it with one line at the end of this file; every property gets a fresh place.
macro_rules! conforms {
    ($store:ident, $place:expr) => {
        conforms! { $store, $place =>
            a_new_store_is_empty,
            what_was_committed_is_loaded,
            documents_may_hold_any_bytes,
            versions_start_at_one_and_grow_by_one,
            an_account_grows_by_the_steps_of_a_commit,
            an_account_may_be_left_as_it_is,
            accounts_of_one_partition_do_not_see_each_other,
            an_account_version_that_was_not_read_changes_nothing,
            a_session_version_that_was_not_read_changes_nothing,
            one_commit_writes_two_sessions,
            one_wrong_session_of_two_changes_nothing,
            a_conflict_carries_what_is_there_now,
            of_concurrent_commits_one_wins_each_version,
            concurrent_loads_never_see_half_a_commit,
            a_dropped_commit_happens_as_a_whole_or_not_at_all,
            journals_append_in_the_order_of_the_commits,
            a_journal_outlives_its_session,
            each_write_renews_the_life_of_a_session,
            an_expired_session_is_absent_and_may_be_created_again,
            an_index_entry_lives_as_long_as_it_was_last_told,
            index_entries_are_answered_in_the_order_they_were_asked,
            a_timer_stands_until_it_is_set_or_removed,
            due_sessions_come_earliest_first_and_limited,
            a_claim_hides_what_it_returns_until_the_lease_ends,
            concurrent_claims_share_nothing,
            a_commit_after_a_claim_has_the_last_word_on_the_timer,
            a_claimed_entry_may_be_moved_to_any_time,
            each_outbox_keeps_its_order,
            outbox_entries_stay_until_they_are_acknowledged,
            thousands_of_outbox_entries_are_acknowledged_at_once,
            an_outbox_id_is_given_once,
            a_look_finds_what_waits_and_nothing_else,
            a_lease_is_for_whoever_comes_first,
            a_retired_journal_ends_and_its_listings_with_it,
            retiring_again_renews_the_journal,
            late_usage_is_appended_to_a_retired_journal,
            pages_of_closed_sessions_are_whole_while_journals_end,
            a_scan_finds_every_session_by_its_document,
            a_scan_finds_every_account_by_its_document,
            indexes_tell_what_names_a_session,
            indexes_are_dropped_only_without_a_document,
            a_dropped_index_never_takes_away_what_a_commit_writes,
            sessions_are_read_in_the_order_they_were_asked,
            a_session_is_listed_as_open_then_as_closed,
            closed_sessions_are_listed_in_the_order_of_their_closing,
            pages_of_sessions_hold_every_item_once,
            pages_of_timers_hold_every_entry_once_in_the_order_of_time,
            a_cursor_outlives_its_item,
            a_reference_is_written_only_over_what_was_read,
            a_deleted_reference_may_be_created_again,
            a_version_read_before_a_deletion_never_fits_again,
            references_are_created_and_deleted_side_by_side,
            kinds_of_references_are_apart,
            pages_of_references_are_in_the_order_of_their_bytes,
            everyone_sees_the_same_identity,
            a_fresh_store_is_ready,
        }
    };
    ($store:ident, $place:expr => $($property:ident),+ $(,)?) => {
        mod $store {
            #[allow(unused_imports)]
            use crate::store::{server::Program, valkey};

            $(
                #[tokio::test]
                async fn $property() {
                    let place = $place;
                    super::properties::$property(&place).await;
                }
            )+
        }
    };
}

conforms!(on_memory, crate::store::memory::Place::new());
conforms!(on_embedded, crate::store::embedded::Place::new());
conforms!(on_redis, crate::store::redis::Place::single(Program::redis()));
conforms!(on_redis_cluster, crate::store::redis::Place::cluster(Program::redis()));
conforms!(on_redis_sentinel, crate::store::redis::Place::sentinel(Program::redis()));
conforms!(on_valkey, crate::store::redis::Place::single(valkey!()));
conforms!(on_valkey_cluster, crate::store::redis::Place::cluster(valkey!()));
conforms!(on_valkey_sentinel, crate::store::redis::Place::sentinel(valkey!()));
