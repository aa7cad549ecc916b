"""The manifest says what is written, and the contract's names are all in it."""

from __future__ import annotations

import inspect

import pytest
from portaflow_conformance.checks import implemented
from portaflow_conformance.manifest import LEVELS, MANIFEST, Check

CONTRACT = """
import_without_cloud_sdk api_version_in_range config_schema_valid unknown_config_key_rejected
capabilities_complete undeclared_capability_refused provider_states_all_mapped
provider_errors_mapped repr_and_errors_redacted config_validation_no_network request_is_pure
request_carries_ttl_and_owner names_within_provider_limits
put_get_sizes empty_object overwrite_shorter overwrite_atomic concurrent_writers
read_after_write_new_client list_after_write_and_delete external_write_visible list_2500
list_exactly_1000 list_delimiter_paged list_sibling_prefix list_missing_prefix_empty
list_during_mutation key_reserved_chars key_percent_literal key_unicode key_length_limit
key_slashes_dots key_trailing_slash key_and_prefix_coexist key_case_sensitive range_read
range_invalid_typed multipart_roundtrip multipart_abort_invisible multipart_over_existing
writer_exception_publishes_nothing checksum_mismatch_detected gzip_encoding_bytes_identical
create_if_absent_race replace_if_match_stale delete_idempotent delete_1001 delete_prefix_scoped
copy_special_key missing_key_vs_missing_bucket denied_not_missing bad_credentials_typed
credentials_refresh stat_size_utc_mtime metadata_roundtrip presign_expires
versioned_delete_cleanup hot_key_overwrite throttle_retried_bounded reset_mid_upload
reset_mid_download threads_safe fork_no_hang
exit_codes signal_death_reported args_verbatim entrypoint_args_matrix env_verbatim
env_no_expansion secret_delivered_by_reference secret_absent_from_logs_errors
logs_complete_fast_exit logs_resume_no_dup_no_gap logs_past_rotation log_odd_lines
log_loss_not_run_failure silent_long_container outlives_token image_missing_fast_typed
image_denied_typed image_pull_transient_retried unschedulable_times_out oom_typed timeout_kills
cancel_term_then_kill cancel_any_phase_idempotent preemption_is_infra deleted_externally
adopt_after_crash adopt_ignores_old_attempts submit_same_id_race long_names_unique
parallel_20_isolated resources_honoured workload_identity_reads_store finished_objects_removed
result_roundtrip non_root_by_default
create_same_id_idempotent create_spec_conflict_typed create_race_one_cluster
adopt_after_crash_mid_create failed_create_leaves_nothing deleted_during_create
quota_error_typed terminate_idempotent terminate_while_creating server_side_ttl_set
ownership_tags_set job_success job_failure_every_deploy_mode job_args_verbatim
conf_values_spaces_commas env_reaches_driver_executors dependencies_shipped
driver_logs_on_failure logs_after_terminate cancel_idempotent cancelled_not_success
job_timeout_cancels submit_response_lost_one_job reattach_running_job job_on_dead_cluster_typed
concurrent_jobs executor_loss_recovers poll_throttled_continues poll_calls_bounded
pipeline_same_result switch_by_config_only store_uri_readable_by_pair
killed_spark_write_not_complete resume_after_sigkill sigint_cleans_up plan_no_side_effects
sent_equals_planned leak_audit_zero
"""


def test_every_name_of_the_contract_is_in_the_manifest() -> None:
    assert set(CONTRACT.split()) <= {c.name for c in MANIFEST}


def test_every_check_of_a_level_that_runs_is_written_and_no_other_is() -> None:
    assert {c.id for c in MANIFEST if not c.planned} == set(implemented())


def test_no_check_is_named_twice() -> None:
    assert len({c.id for c in MANIFEST}) == len(MANIFEST)


def test_what_is_not_written_is_of_a_later_level_and_says_what_it_waits_for() -> None:
    for check in MANIFEST:
        assert bool(check.planned) is (check.level not in LEVELS), check.id


def test_laws_are_those_of_the_interface_and_each_has_a_check() -> None:
    assert {law for c in MANIFEST if not c.planned for law in c.laws} == set(range(1, 10))


@pytest.mark.parametrize("check", [c for c in MANIFEST if not c.planned], ids=lambda c: c.id)
def test_every_check_says_in_a_sentence_what_must_hold(check: Check) -> None:
    assert (inspect.getdoc(implemented()[check.id]) or "").endswith(".")
