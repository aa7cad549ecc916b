"""Every check of the contract, and what is asked of whom.

The contract has its own MAJOR.MINOR. A check that is added, or becomes stricter, raises
MINOR; one that changes its meaning raises MAJOR. `since` is the contract that brought it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from portaflow.backend import Capability

CONTRACT = "1.0"

Area = Literal["plugin", "store", "container", "spark", "end-to-end"]
Level = Literal["L0", "L1", "L2", "L3"]

LEVELS: tuple[Level, ...] = ("L0", "L1")
"""The levels that can be run: L0 static, L1 core. L2 (full) and L3 (resilience) are planned."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check. Required, unless `needs` names the capability that makes it so.

    `laws` are those of portaflow/backend.py. `planned` says what a check that is not
    written yet waits for; it counts as nothing until then.
    """

    name: str
    area: Area
    level: Level
    laws: tuple[int, ...] = ()
    needs: Capability | None = None
    planned: str = ""
    since: str = "1.0"

    @property
    def id(self) -> str:
        return f"{self.area}.{self.name}"


def _checks(area: Area, level: Level, *rows: str | tuple[str, object]) -> list[Check]:
    """Read rows: a name, or a name with its laws (int, ints), or the capability it needs."""
    found = []
    for row in rows:
        name, extra = (row, ()) if isinstance(row, str) else row
        match extra:
            case Capability():
                found.append(Check(name, area, level, needs=extra))
            case int():
                found.append(Check(name, area, level, (extra,)))
            case tuple():
                found.append(Check(name, area, level, extra))
    return found


def _planned(area: Area, level: Level, waits_for: str, *names: str) -> list[Check]:
    return [Check(name, area, level, planned=waits_for) for name in names]


_FAULTS = "faults injected between the client and the provider"
_STATES = "a stand-in of the provider that goes through every state and error"
_RIGHTS = "a second target without rights, or without its bucket"
_CALLS = "an observer that counts the provider's calls"
_SILENT = "a call for it in the interface; 1.0 has none"
_IMAGE = "a probe image that speaks the scheme of the store"

MANIFEST: tuple[Check, ...] = (
    *_checks(
        "plugin", "L0",
        "import_without_cloud_sdk", "api_version_in_range", "config_schema_valid",
        "unknown_config_key_rejected", "config_validation_no_network",
        "capabilities_complete", "undeclared_capability_refused",
        ("request_is_pure", 1), ("request_carries_ttl_and_owner", 7), "no_field_dropped",
        ("names_within_provider_limits", 6), ("repr_and_errors_redacted", 9),
    ),
    *_planned("plugin", "L2", _STATES, "provider_states_all_mapped", "provider_errors_mapped"),
    *_checks(
        "store", "L1",
        "put_get_sizes", "empty_object", "overwrite_shorter", "overwrite_atomic",
        "concurrent_writers", "read_after_write_new_client", "list_after_write_and_delete",
        "external_write_visible", "range_read", "range_invalid_typed",
        "multipart_roundtrip", "multipart_abort_invisible", "multipart_over_existing",
        "writer_exception_publishes_nothing", "checksum_mismatch_detected",
        "gzip_encoding_bytes_identical", "threads_safe",
        ("create_if_absent_race", Capability.CREATE_IF_ABSENT),
        ("missing_key_typed", 8), "stat_size_utc_mtime",
        ("presign_expires", Capability.PRESIGN),
        "list_2500", "list_exactly_1000", "list_delimiter_paged", "list_sibling_prefix",
        "list_missing_prefix_empty", "list_during_mutation",
        "delete_idempotent", "delete_1001", "delete_prefix_scoped",
        "key_reserved_chars", "key_percent_literal", "key_unicode", "key_length_limit",
        "key_slashes_dots", "key_trailing_slash", "copy_special_key",
        ("key_and_prefix_coexist", Capability.KEY_AND_PREFIX),
        ("key_case_sensitive", Capability.CASE_SENSITIVE),
    ),
    *_planned(
        "store", "L2", _RIGHTS,
        "missing_key_vs_missing_bucket", "denied_not_missing", "bad_credentials_typed",
    ),
    *_planned(
        "store", "L2", _SILENT,
        "replace_if_match_stale", "metadata_roundtrip", "versioned_delete_cleanup",
    ),
    *_planned(
        "store", "L3", _FAULTS,
        "credentials_refresh", "hot_key_overwrite", "throttle_retried_bounded",
        "reset_mid_upload", "reset_mid_download", "fork_no_hang",
    ),
    *_checks(
        "container", "L1",
        "exit_codes", "signal_death_reported", "args_verbatim", "entrypoint_args_matrix",
        "env_verbatim", "env_no_expansion",
        ("secret_delivered_by_reference", Capability.SECRETS),
        ("secret_absent_from_logs_errors", Capability.SECRETS),
        "logs_complete_fast_exit", "logs_cursors_join", "log_odd_lines",
        ("image_missing_fast_typed", Capability.IMAGES), "unschedulable_times_out",
        ("oom_typed", Capability.LIMITS), ("resources_honoured", Capability.LIMITS),
        ("timeout_kills", 7), ("cancel_term_then_kill", 5),
        ("cancel_any_phase_idempotent", 5), ("start_returns_at_once", 2),
        ("adopt_after_crash", 3), ("adopt_ignores_old_attempts", 3),
        ("poll_never_invents", 4), ("submit_same_id_race", 6), ("start_conflict_typed", 6),
        ("ownership_visible", 7), "long_names_unique", "parallel_20_isolated",
        "finished_objects_removed", "non_root_by_default",
    ),
    *_planned(
        "container", "L2", _IMAGE, "workload_identity_reads_store", "result_roundtrip",
    ),
    *_planned("container", "L2", "a registry that asks for credentials", "image_denied_typed"),
    *_planned("container", "L2", _FAULTS, "log_loss_not_run_failure"),
    *_planned(
        "container", "L3", _FAULTS,
        "logs_resume_no_dup_no_gap", "logs_past_rotation", "silent_long_container",
        "outlives_token", "image_pull_transient_retried", "preemption_is_infra",
        "deleted_externally",
    ),
    *_checks(
        "spark", "L1",
        ("create_same_id_idempotent", 6), ("create_spec_conflict_typed", 6),
        ("create_race_one_cluster", 6), ("adopt_after_crash_mid_create", (3, 6)),
        "failed_create_leaves_nothing", ("deleted_during_create", 4),
        ("terminate_while_creating", 5), ("server_side_ttl_set", 7),
        ("ownership_tags_set", 7),
        "job_success", "job_args_verbatim", "conf_values_spaces_commas",
        "env_reaches_driver_executors", "dependencies_shipped",
        ("jar_job", Capability.JAR), "job_failure_every_deploy_mode",
        "driver_logs_on_failure", ("cancel_idempotent", 5), "cancelled_not_success",
        ("job_timeout_cancels", 7), ("reattach_running_job", 3),
        ("poll_never_invents", 4), ("concurrent_jobs", Capability.CONCURRENT_JOBS),
        ("terminate_idempotent", 5), "logs_after_terminate",
        ("job_on_dead_cluster_typed", 8),
    ),
    *_planned("spark", "L2", _STATES, "quota_error_typed"),
    *_planned("spark", "L2", _CALLS, "poll_calls_bounded"),
    *_planned(
        "spark", "L3", _FAULTS,
        "submit_response_lost_one_job", "executor_loss_recovers", "poll_throttled_continues",
    ),
    *_checks("end-to-end", "L1", ("leak_audit_zero", 7)),
    *_planned(
        "end-to-end", "L2", "a pipeline that runs on the target as a whole",
        "pipeline_same_result", "switch_by_config_only", "store_uri_readable_by_pair",
        "sigint_cleans_up", "plan_no_side_effects", "sent_equals_planned",
    ),
    *_planned(
        "end-to-end", "L3", _FAULTS, "killed_spark_write_not_complete", "resume_after_sigkill",
    ),
)  # fmt: skip
"""All checks, in the order in which they are run: the audit for leaks comes last."""
