//! The names of all transcripts. `rule_1_4_more` is the file `rule-1-4-more.txt`.
//!
//! Each macro calls a player's own macro with the names, so that every transcript is a test of its own.

use std::path::{Path, PathBuf};

/// The folder of the transcripts.
pub(crate) const FOLDER: &str = "tests/it/transcripts";

/// The file of a transcript.
pub(crate) fn file_of(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name.replace('_', "-")).with_extension("txt")
}

/// Transcripts that every player can play.
macro_rules! transcripts_for_everyone {
    ($each:ident) => {
        $each! {
            envelope_broker_in_another_case
            envelope_data_and_message
            envelope_duplicate_keys
            envelope_fields_of_the_broker
            envelope_fold_case
            envelope_keys_with_white_space
            envelope_look_alike_keys
            envelope_null_fields
            envelope_optional_fields
            envelope_other_fields
            envelope_required_fields
            envelope_retain_and_once
            envelope_source
            envelope_target
            envelope_timeout
            errors_arrive_on
            errors_malformed_in_a_row
            errors_unreadable
            explain_refused
            explain_who_gets_it
            history_logs
            history_recover
            history_recover_refused
            history_retained
            limits_json_depth
            limits_pending_bytes
            limits_pending_requests
            limits_sessions
            lists_applications
            ordered_o1_each_subscription
            ordered_o1_in_a_gather
            ordered_o1_one_request_at_a_time
            ordered_o2_reply_triples
            ordered_o3_overlapping_patterns
            ordered_o3_shared_replies
            ordered_o4_a_late_reply_is_discarded
            ordered_o4_subscribing_again
            ordered_o5_others_are_chosen
            ordered_o5_the_handler_leaves
            presence_joined_and_left
            publisher_retry
            register_comes_first
            register_exclusive_source
            register_malformed
            register_refusals
            register_several_sessions
            renew_in_open_mode
            renew_the_same_row
            resume_acknowledging
            resume_asking
            resume_off
            resume_reasons
            resume_two_connections
            retained_again
            retained_clearing
            retained_limit
            retained_owner
            retained_the_last_value
            retained_with_a_target
            rule_1_1_reply_to_the_requester
            rule_1_2_who_may_reply
            rule_1_3_the_requesters_own_id
            rule_1_4_more
            rule_1_5_a_reply_needs_in_reply_to
            rule_2_01_asking_without_a_handler
            rule_2_02_a_handler_makes_a_request
            rule_2_03_requests_only
            rule_2_04_no_handler
            rule_2_05_subscribers_never_see_requests
            rule_2_06_a_handler_names_its_channel
            rule_2_07_open_mode
            rule_2_07_part_of_a_protected_pattern
            rule_2_07_protected_triples
            rule_2_07_shared_channel
            rule_2_07_user_scoped_channel
            rule_2_09_a_protected_handler_is_logged
            rule_2_10_services_and_protected_triples
            rule_2_11_order_of_handlers
            rule_2_11_the_least_busy_handler
            rule_2_12_asleep_comes_last
            rule_2_12_never_its_own_request
            rule_2_13_what_the_handler_sees
            rule_2_15_the_handler_leaves
            rule_2_16_idempotent
            rule_2_17_cancelling_a_gather
            rule_2_17_the_requester_cancels
            rule_2_17_the_requester_leaves
            rule_2_18_gather_without_handlers
            rule_2_18_gather
            rule_2_19_reply_less_commands
            rule_3_1_protected_without_a_handler
            rule_3_2_configured_patterns
            rule_3_2_default_patterns
            rule_3_3_request_only
            rule_4_1_every_matching_subscriber
            rule_4_2_once_for_each_session
            rule_4_3_echo
            rule_4_4_receipts
            rule_4_5_receivers_without_observers
            rule_4_6_hints
            rule_4_7_other_users_subscribe
            scope_observer_permission
            scope_observer
            scope_open_mode
            scope_own_user_only
            scope_presence
            scope_publish_services
            scope_retained_values
            scope_service_subscribes_for_a_user
            scope_service
            scope_shared
            scope_target
            scope_user
            session_commands
            session_life
            session_options_of_commands
            subscribe_again
            subscribe_broker_channel
            subscribe_foreign_wildcards
            subscribe_groups
            subscribe_limit
            subscribe_patterns
            subscribe_too_many_groups
            unsubscribe_a_handler
            unsubscribe_by_id
            unsubscribe_by_pattern
            will_is_an_event
            will_order
            will_refused
        }
    };
}
pub(crate) use transcripts_for_everyone;

/// Transcripts that move the clock, for a player with its own clock.
macro_rules! transcripts_with_a_clock {
    ($each:ident) => {
        $each! {
            history_age
            ordered_o5_waiting_requests
            ordered_o6_blocked_too_long
            ordered_o6_configured
            presence_under_pressure
            pressure_lagging
            pressure_slow_consumer
            publisher_retry_time
            register_in_time
            renew_before_the_end
            resume_coming_back
            resume_exclusive_source
            resume_grace
            resume_overflow
            resume_proof
            resume_requests
            resume_two_tokens
            resume_will
            rule_1_4_more_restarts_the_clock
            rule_2_12_a_missed_time_limit
            rule_2_14_a_configured_time_limit
            rule_2_14_the_time_limit
            rule_2_16_idempotent_time_limit
            rule_2_18_gather_failures
            rule_4_8_hints_are_bounded
            session_heartbeat
        }
    };
}
pub(crate) use transcripts_with_a_clock;

/// Transcripts that need a whole broker with its default adapters.
macro_rules! transcripts_with_adapters {
    ($each:ident) => {
        $each! {
            rule_2_03_adapters_triples
            rule_2_04_the_adapters_switch
            rule_2_07_open_mode_adapter
            rule_2_08_an_adapter_comes_first
            rule_2_20_an_adapters_answers_in_order
        }
    };
}
pub(crate) use transcripts_with_adapters;
