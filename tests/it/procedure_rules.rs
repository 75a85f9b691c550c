//! What a key management daemon must enforce of the SMKI Recovery Procedure, rule by rule: where that is decided, and which tests
//! hold it there. `src/docs/procedure-rules.md` is made from the table below.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use smkid::api::client::{Client, ClientError};
use smkid::api::failure::ProblemKind;
use smkid::api::wire;
use smkid::domain::certificates::pem::certificate_to_pem;
use smkid::domain::determination::document::{Determination, Method, Payload, SymmetricKeyLine, Template};
use smkid::domain::gbcs::{
    self, CredentialsReplacementMode, GeneralizedTime, KeyUsage, RemotePartyRole, Replacement, TrustAnchorCell, Update,
};
use smkid::domain::ledger::contingency::OtherKey;
use smkid::domain::ledger::entry::Event;
use smkid::domain::ledger::steps::CompromiseClass;
use smkid::domain::names::Digest;
use smkid::exercise::people::APPROVALS;
use smkid::exercise::template::template;

use crate::support::site::{Site, device, device_list, in_ms, incident, problem, rules, template_name};

/// How strong a rule is.
#[derive(Clone, Copy)]
enum Strength {
    /// A public document says it.
    Stated,
    /// It follows from public documents.
    Derived,
    /// The text was not read: this is what we chose.
    OurPolicy,
}

/// How far it is built.
#[derive(Clone, Copy)]
enum Built {
    Whole,
    /// In part: what is missing.
    Partly(&'static str),
    /// What it is about is refused until it is built.
    Refused(&'static str),
}

/// Rule, strength, in our words, how far built, `file::function` where it is decided, and tests.
type Row = (u8, Strength, &'static str, Built, &'static [&'static str], &'static [&'static str]);

const PAGE: &str = "src/docs/procedure-rules.md";
/// Rules that no test names.
const WITHOUT_A_TEST: &[u8] = &[];

use Built::{Partly, Refused, Whole};
use Strength::{Derived, OurPolicy, Stated};

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (1, Stated, "No signature without a determination in force that requires that very key", Whole,
        &["src/domain/policy/rules/determination_execute.rs::check",
          "src/domain/policy/rules/determination_in_force.rs::check_window",
          "src/domain/policy/rules/key_of_determination.rs::check"],
        &["without_an_incident_or_a_determination_nothing_is_signed", "in_every_state_but_the_good_one_nothing_is_signed",
          "every_rule_allows_up_to_its_edge_and_refuses_beyond",
          "every_row_of_the_gate_truth_table_holds_over_the_api_in_the_last_minute_before_and_the_first_after_the_edge"]),
    (2, Derived, "Recovery and Contingency are separate authorities: one never opens the other", Whole,
        &["src/domain/policy/admission.rs::key", "src/domain/policy/rules/symmetric_key_line.rs::check", "src/hsm/kinds.rs::command"],
        &["a_key_is_one_of_the_policy_with_the_use_and_mode_of_the_method", "a_command_is_signed_by_the_key_of_its_mode",
          "every_rule_allows_up_to_its_edge_and_refuses_beyond",
          "the_symmetric_key_is_released_by_a_line_of_its_own_by_the_contingency_route_and_by_no_other"]),
    (3, Derived, "A determination binds one incident, one Relevant Private Key, one method, these Devices, these certificates",
        Whole,
        &["src/domain/policy/rules/device_in_scope.rs::check", "src/domain/policy/rules/pre_command.rs::check_template",
          "src/domain/policy/rules/intents_left.rs::check"],
        &["a_command_that_departs_from_what_was_approved_in_any_octet_is_not_signed",
          "one_flipped_bit_anywhere_in_a_command_is_refused_before_the_token", "limits_count_intents_and_hold_over_requests"]),
    (4, Derived, "Every factor that must be weighed and every step of the Guidance is recorded before a determination counts",
        Whole,
        &["src/domain/policy/admission.rs::factors"],
        &["each_factor_that_must_be_considered_is", "a_step_of_the_guidance_is_taken_or_departed_from_before_the_determination"]),
    (5, Stated, "Clause (b) offers a factor while the variation is in force, and never makes it mandatory", Whole,
        &["src/domain/policy/admission.rs::factors", "src/domain/procedure/in_force.rs::optional_factors"],
        &["an_optional_factor_is_offered_by_date_and_never_mandatory",
          "the_factor_of_clause_b_is_taken_while_the_variation_is_in_force_never_asked_for_and_refused_before"]),
    (6, Stated, "\"Not to execute\" is an outcome of its own: it ends the relief of clause (a) and lets nothing be signed", Whole,
        &["src/domain/policy/rules/determination_execute.rs::check", "src/domain/procedure/in_force.rs::is_open"],
        &["every_row_of_the_gate_truth_table_holds_on_both_sides_of_every_date_edge",
          "a_step_out_of_its_place_is_refused_recorded_and_changes_nothing_and_a_negative_determination_signs_nothing",
          "every_row_of_the_gate_truth_table_holds_over_the_api_in_the_last_minute_before_and_the_first_after_the_edge",
          "after_a_determination_not_to_execute_new_facts_lead_back_to_the_pma_which_determines_anew"]),
    (7, Stated, "Who departs from the procedure has a recorded direction of the SMKI PMA that names the step", Whole,
        &["src/domain/incident/decide.rs::precedes", "src/domain/procedure/direction.rs::check",
          "src/domain/procedure/state.rs::may_be_departed_from"],
        &["a_departure_takes_one_duty_away_and_opens_no_key", "a_direction_does_only_what_the_procedure_lets_it",
          "what_goes_on_without_a_step_by_a_direction_says_so",
          "a_duty_is_owed_no_more_where_the_pma_directed_to_depart_from_its_step",
          "a_departure_is_drafted_shown_signed_recorded_explained_relied_on_and_audited_by_the_command_line"]),
    (8, OurPolicy, "Approvers, quorum and validity are configured, and without them nothing is signed", Whole,
        &["src/domain/policy/files.rs::parse", "src/domain/determination/quorum.rs::quorate"],
        &["each_file_in_refused_is_refused_for_the_reason_that_it_names",
          "a_threshold_of_0_or_1_or_above_the_roster_is_none_at_load_and_again_at_use"]),
    (9, OurPolicy, "Records stay; what corrects them supersedes; a withdrawal takes effect before the next signature", Whole,
        &["src/domain/policy/rules/determination_in_force.rs::check_withdrawal", "src/service/keys.rs::fence"],
        &["a_withdrawal_during_a_run_stands_before_the_next_signature_and_nothing_is_released_after_it",
          "in_every_state_but_the_good_one_nothing_is_signed"]),
    (10, Stated, "An incident begins with a notification: who, for which Party, which certificate, proven or feared, when, how",
        Whole,
        &["src/domain/intake/opening.rs::check_notification", "src/domain/intake/opening.rs::incident"],
        &["an_incident_begins_with_a_whole_notification_and_carries_its_profile"]),
    (11, Derived, "A permitted mechanism confirms before anything is referred", Whole,
        &["src/domain/incident/decide.rs::decide"],
        &["only_a_permitted_mechanism_confirms", "every_step_may_be_taken_from_its_states_and_from_no_other",
          "what_is_reported_is_confirmed_by_a_permitted_mechanism_or_dismissed_once_everybody_was_told"]),
    (12, Stated, "Class Organisation or Other, each with files of its own",
        Whole,
        &["src/domain/intake/files.rs::class_of", "src/domain/intake/opening.rs::check_notification", "src/domain/intake/opening.rs::meant",
          "src/domain/incident/routes.rs::of"],
        &["an_incident_about_another_key_says_which_and_has_its_certificate",
          "every_key_that_may_be_compromised_has_its_way_out_and_none_uses_the_key_itself", "the_class_of_the_key_says_which_methods_there_are", "a_progress_file_is_read_as_it_was_made_and_as_no_other_class",
          "post_recovery_begins_once_a_progress_file_says_how_it_ended",
          "a_file_is_taken_in_from_an_aro_of_the_affected_subscriber_and_from_nobody_else",
          "what_is_confirmed_is_assessed_for_relevant_devices_and_by_method_1_goes_on_without_the_pma"]),
    (13, Stated, "Duties to inform are kept as tasks, and an incident with an open one is not closed", Whole,
        &["src/domain/incident/decide.rs::decide_close"],
        &["an_incident_is_closed_with_every_duty_met_and_the_stranded_accepted",
          "a_duty_is_met_once_and_by_something_that_has_happened",
          "a_duty_arises_with_every_step_that_the_profile_has_it_arise_with",
          "a_second_determination_is_told_to_the_subscriber_too",
          "what_is_reported_is_confirmed_by_a_permitted_mechanism_or_dismissed_once_everybody_was_told"]),
    (14, OurPolicy, "Files count only with a signature of an enrolled ARO that verifies; file and digest are kept", Whole,
        &["src/domain/intake/files.rs::officer", "src/domain/intake/files.rs::check_officer"],
        &["a_file_is_taken_in_from_an_aro_of_the_affected_subscriber_and_from_nobody_else"]),
    (15, Stated, "The DCC alone records SMI Status, each with its from-date, and the history stays", Whole,
        &["src/api/authenticate.rs::covers", "src/domain/incident/decide.rs::set_status"],
        &["roles_that_do_not_run_the_procedure_can_change_nothing_and_each_attempt_is_recorded",
          "a_status_applies_from_the_beginning_of_a_day_in_london_that_has_begun", "an_extract_is_compared_line_by_line_recorded_through_the_gates_and_exported_again",
          "a_status_is_set_for_the_devices_of_the_list_or_for_all"]),
    (16, Stated, "While the variation is in force, 'recovery' is not owed before a determination; who sets it says why", Whole,
        &["src/domain/incident/decide.rs::one_way_door", "src/domain/procedure/in_force.rs::untaken"],
        &["a_status_that_was_set_early_for_one_device_makes_it_due_for_no_other",
          "the_gates_of_status_thresholds_referral_and_preparation_stand_as_the_truth_table_has_them",
          "every_row_of_the_gate_truth_table_holds_over_the_api_in_the_last_minute_before_and_the_first_after_the_edge"]),
    (17, Derived, "Who records 'recovery' acknowledges that only these keys bring the Device back", Whole,
        &["src/domain/incident/decide.rs::one_way_door"],
        &["an_extract_is_recorded_as_it_was_read_and_through_the_same_one_way_door", "recovery_is_a_one_way_door_that_is_acknowledged",
          "smi_status_and_adt_file_precede_the_referral_and_no_way_leads_back_out_of_recovery_without_proof"]),
    (18, Derived, "No way leads from 'recovery' to normal without proof, or an override with its reason", Whole,
        &["src/domain/incident/decide.rs::decide_status"],
        &["no_way_leads_out_of_recovery_without_proof_or_an_override_and_none_to_recovered_without_proof",
          "no_extract_leads_out_of_recovery_without_proof_nor_back_into_it_after",
          "smi_status_and_adt_file_precede_the_referral_and_no_way_leads_back_out_of_recovery_without_proof"]),
    (19, Derived, "Devices left in 'recovery' are stranded: reported and accepted by their number", Whole,
        &["src/domain/incident/targets.rs::left_behind", "src/domain/incident/decide.rs::decide_close"],
        &["stranded_devices_are_accepted_by_their_number", "acceptance_of_the_stranded_ends_when_others_are_stranded",
          "whom_somebodys_word_took_out_of_recovery_is_accepted_at_the_end_beside_the_stranded",
          "a_step_out_of_its_place_is_refused_recorded_and_changes_nothing_and_a_negative_determination_signs_nothing",
          "the_exercise_in_the_window_of_2017_has_its_clock_set_in_every_entry_and_leaves_whom_it_set_early_stranded"]),
    (20, Derived, "'recovered' needs a Response that proves it; by Method 2 the Device is the DCC's until it is handed over",
        Whole,
        &["src/domain/responses/mod.rs::decide", "src/domain/incident/decide.rs::decide_status"],
        &["only_an_answer_that_says_so_of_every_cell_proves_a_recovery",
          "a_device_whose_recovery_is_proven_is_recorded_so_before_the_end",
          "devices_of_method_2_are_handed_over_once_recovered_and_nothing_ends_before",
          "no_override_says_recovered_in_a_devices_place",
          "a_device_that_the_determination_followed_lists_is_outstanding_until_it_is_proven_under_that_one",
          "who_controls_a_device_follows_the_newest_recovery",
          "each_answer_proves_what_it_proves_and_no_more_over_a_restart_and_before_an_outsider",
          "what_method_2_recovered_is_under_the_dccs_control_until_it_is_handed_over_and_then_the_incident_may_end"]),
    (21, Stated, "The ADT file is due at its place in the base; with the variation only after a determination to execute", Whole,
        &["src/domain/procedure/in_force.rs::demands", "src/domain/incident/decide.rs::place"],
        &["every_row_of_the_gate_truth_table_holds_on_both_sides_of_every_date_edge",
          "referral_waits_for_status_and_adt_file_in_the_base_profile_alone",
          "smi_status_and_adt_file_precede_the_referral_and_no_way_leads_back_out_of_recovery_without_proof",
          "every_row_of_the_gate_truth_table_holds_over_the_api_in_the_last_minute_before_and_the_first_after_the_edge"]),
    (22, Stated, "An ARO of the affected Subscriber submits it; the SMSR reference and the digest are kept", Whole,
        &["src/domain/intake/files.rs::check_thresholds", "src/domain/intake/files.rs::subscriber"],
        &["a_file_is_taken_in_from_an_aro_of_the_affected_subscriber_and_from_nobody_else"]),
    (23, OurPolicy, "Layouts of files are mapped by the policy", Partly("columns are mapped; another form of signature is not"),
        &["src/domain/policy/files.rs::layouts"],
        &["a_layout_of_others_is_mapped_and_what_is_ignored_is_said"]),
    (24, Stated, "A target was commissioned at, or immediately before, the Recovery Event; the evidence is kept", Whole,
        &["src/domain/incident/targets.rs::target", "src/domain/incident/targets.rs::commissioned_after",
          "src/domain/policy/rules/procedure.rs::check_target", "src/domain/intake.rs::check_targets"],
        &["a_device_that_was_left_out_after_its_command_was_signed_is_not_given_it",
          "an_assessment_is_of_devices_commissioned_before_the_event_and_of_as_many_as_the_policy_permits",
          "only_a_device_that_was_commissioned_is_relevant",
          "the_pma_determines_on_what_was_referred_and_about_relevant_devices_alone",
          "what_is_confirmed_is_assessed_for_relevant_devices_and_by_method_1_goes_on_without_the_pma"]),
    (25, Stated, "The affected Subscriber is the Relevant Subscriber of the certificate", Whole,
        &["src/domain/intake/files.rs::subscriber", "src/domain/intake/steps.rs::check_subscriber"],
        &["a_file_is_taken_in_from_an_aro_of_the_affected_subscriber_and_from_nobody_else",
          "a_party_that_the_policy_does_not_name_is_found_before_the_devices_are_assessed",
          "an_incident_is_about_a_certificate_of_the_subscriber_that_notifies"]),
    (26, OurPolicy, "One live command a Device; no restart doubles a signature; all of them are counted", Whole,
        &["src/domain/policy/rules/already_signed.rs::check", "src/domain/policy/rules/intents_left.rs::check"],
        &["a_request_made_again_gets_the_same_octets_and_no_second_signature_and_its_id_is_for_nothing_else",
          "killed_during_the_signatures_what_was_shown_to_the_token_is_unknown_and_settled_with_the_same_octets",
          "limits_count_intents_and_hold_over_requests"]),
    (27, Derived, "Parsed before signed: the Recovery key signs CS02b mode 8, the Contingency key mode 9, and nobody a digest",
        Whole,
        &["src/hsm/kinds.rs::permitted", "src/domain/intake.rs::check_template", "src/domain/policy/rules/mode_permitted.rs::check"],
        &["each_key_signs_its_own_kinds_and_no_other", "every_rule_allows_up_to_its_edge_and_refuses_beyond", "no_digest_is_of_any_kind",
          "a_template_that_no_rule_permits_is_refused_however_many_signed_it"]),
    (28, Derived, "The Contingency Symmetric Key is in a command if, and only if, its mode is 9",
        Whole,
        &["src/domain/gbcs/command.rs::read_symmetric_key", "src/domain/policy/rules/symmetric_key_released.rs::check"],
        &["the_symmetric_key_is_present_in_mode_9_and_in_no_other",
          "a_contingency_key_is_checked_before_its_symmetric_key_is_released_and_that_before_it_signs"]),
    (29, Derived, "Method 2 puts DCC ACB certificates in, Method 3 new ones of the affected Subscriber",
        Partly("whose a certificate is, the Parties of the policy say, and that it is newly issued, its first day, which is not before \
            that of the Compromised one; cells of the DCC's own roles take the DCC's by either Method"),
        &["src/domain/intake/replacements.rs::check_party", "src/domain/intake/replacements.rs::check_new",
          "src/cli/member/warnings.rs::whose"],
        &["each_method_puts_in_the_certificates_of_its_own_party_and_no_others",
          "certificates_that_do_not_belong_there_are_warned_of"]),
    (30, Derived, "A replacement shares no key with what was Compromised or revoked, and leads to a trusted root",
        Partly("the keys of every incident that was not dismissed, and the path; no revocation list is read"),
        &["src/domain/intake/replacements.rs::check_key", "src/domain/intake.rs::check_path"],
        &["a_template_that_no_rule_permits_is_refused_however_many_signed_it",
          "a_replacement_has_no_key_that_another_incident_is_about_unless_that_was_dismissed",
          "a_path_is_valid_from_its_first_second_to_its_last_and_at_any_time_if_time_is_disapplied"]),
    (31, Derived, "The Originator Counter rises strictly for key and Device, and is durable before the HSM is asked", Whole,
        &["src/domain/policy/rules/counter.rs::check", "src/recorder.rs::commit"],
        &["every_rule_allows_up_to_its_edge_and_refuses_beyond", "a_lowered_counter_is_told_by_its_table",
          "an_older_copy_of_the_state_beside_newer_tokens_is_refused_and_the_newest_starts",
          "killed_before_any_checkpoint_of_a_run_nothing_is_signed_twice_and_the_request_goes_on"]),
    (32, Derived, "The Recovery key never replaces a root", Partly("refused unless the policy permits it in so many words"),
        &["src/domain/policy/rules/root_cell.rs::check", "src/domain/intake.rs::check_replacements"],
        &["every_rule_allows_up_to_its_edge_and_refuses_beyond",
          "a_template_that_no_rule_permits_is_refused_however_many_signed_it"]),
    (33, Derived, "Before a Contingency use the wrapped root key is unwrapped and compared", Whole,
        &["src/domain/policy/rules/preflight.rs::check", "src/domain/intake/contingency.rs::root"],
        &["every_rule_allows_up_to_its_edge_and_refuses_beyond",
          "a_contingency_key_is_checked_before_its_symmetric_key_is_released_and_that_before_it_signs"]),
    (34, Derived, "The Contingency Symmetric Key is spent by its first release, and then replaced", Whole,
        &["src/domain/policy/rules/spent_elsewhere.rs::check", "src/domain/policy/rules/next_generation.rs::next_root",
          "src/domain/incident/routes.rs::replacement_of"],
        &["every_rule_allows_up_to_its_edge_and_refuses_beyond",
          "a_spent_symmetric_key_is_of_its_incident_for_ever_and_its_replacement_is_owed_until_it_is_there"]),
    (35, OurPolicy, "A time of execution in the future only where the determination allows it",
        Refused("any time of execution; commands are executed at once"),
        &["src/domain/intake.rs::check_template"],
        &["a_template_that_no_rule_permits_is_refused_however_many_signed_it"]),
    (36, Stated, "Several Key Custodians of several Parties activate a key", Whole,
        &["src/domain/policy/custodians.rs::is_enough", "src/domain/intake/custodians.rs::presentation",
          "src/domain/intake/activation.rs::by_custodians", "src/domain/policy/files.rs::custodians"],
        &["a_key_opens_for_enough_custodians_of_enough_parties_and_for_nobody_else",
          "k_persons_of_enough_parties_are_enough_and_one_fewer_of_either_is_not",
          "custodians_at_their_consoles_open_a_key_that_signs_until_it_is_locked",
          "a_person_counts_once_however_many_shares_they_hold",
          "a_token_that_asks_by_itself_is_opened_by_statements_of_enough_custodians_and_by_no_pin_of_ours",
          "a_key_that_custodians_open_stays_locked_until_they_present",
          "each_file_in_refused_is_refused_for_the_reason_that_it_names"]),
    (37, Stated, "Custodians have records of appointment and end; a ceased one has no effect at once", Whole,
        &["src/domain/policy/files.rs::people", "src/domain/intake/custodians.rs::signer", "src/domain/policy/custodians.rs::of"],
        &["a_custodian_counts_until_the_last_moment_of_their_appointment_and_of_what_they_presented",
          "who_ceased_presents_nothing_and_what_they_presented_before_counts_no_more",
          "each_file_in_refused_is_refused_for_the_reason_that_it_names", "a_person_stands_from_the_first_moment_until_the_last"]),
    (38, Derived, "Custodians act for a named recovery, ceremony or test alone", Whole,
        &["src/domain/intake/custodians.rs::presentation", "src/domain/intake/activation.rs::standing_for"],
        &["a_key_opens_for_enough_custodians_of_enough_parties_and_for_nobody_else",
          "what_was_presented_counts_for_its_incident_determination_and_share_set_alone",
          "what_was_presented_for_one_incident_opens_nothing_in_another",
          "whose_time_is_over_presents_anew_and_once_all_are_everybody_does",
          "what_was_gathered_for_a_determination_is_gone_once_that_is_withdrawn"]),
    (39, OurPolicy, "Private keys never leave the HSM; sessions are bound to an incident, end with time, and on any error",
        Partly("keys do not leave; an activation is for one incident and for 12 hours at most, by Key Custodians or, in an exercise, by \
            a stored PIN; a pause, a lock, the end of its time and of its incident close the session; a worker that died is replaced meanwhile"),
        &["src/domain/intake/activation.rs::activation", "src/domain/policy/rules/key_active.rs::check_incident",
          "src/domain/policy/rules/procedure.rs::check_state", "src/service/engine/make.rs::look_after_key",
          "src/service/keys.rs::remove"],
        &["an_activation_is_for_one_incident_and_signs_for_no_other",
          "an_activation_ends_with_its_time_also_where_its_worker_died_and_its_incident_stands_still",
          "a_key_is_activated_where_its_incident_awaits_it_and_its_determination_is_in_force",
          "an_incident_without_a_single_recovered_device_goes_through_its_states_to_the_end_and_leaves_all_stranded",
          "no_key_of_ours_leaves_its_token_and_an_extractable_one_beside_it_does",
          "a_pause_locks_the_key_before_the_next_signature_and_the_next_activation_goes_on",
          "a_key_is_locked_at_once_where_the_determination_that_it_was_activated_for_ends",
          "an_incident_that_ends_locks_no_key_that_is_active_for_another", "a_live_recovery_token_has_no_stored_pin",
          "a_vault_that_dies_while_the_key_is_open_is_missed_only_once_a_worker_dies_too",
          "a_daemon_that_is_killed_between_two_presentations_forgets_the_first"]),
    (40, OurPolicy, "Approver, Key Custodian, operator and ARO are different people in one incident",
        Partly("an auditor may be one of them too, since auditing only reads"),
        &["src/domain/policy/separation.rs::check", "src/domain/policy/rules/asker.rs::check_separation",
          "src/domain/intake/asker.rs::operator"],
        &["who_took_another_part_in_an_incident_does_not_act_in_it_as_operator_nor_does_nobody", "a_part_may_be_taken_again_and_no_other_beside_it", "nobody_holds_two_of_the_separate_roles_and_anybody_may_audit_too",
          "an_aro_who_signed_a_file_of_an_incident_may_not_approve_its_determination",
          "a_member_who_directed_a_departure_in_an_incident_may_not_sign_a_file_of_it"]),
    (41, Stated, "An ARO's record has the state of the credential and the screening", Whole,
        &["src/domain/policy/files.rs::people", "src/domain/intake/files.rs::check_officer"],
        &["each_file_in_refused_is_refused_for_the_reason_that_it_names",
          "a_file_is_taken_in_from_an_aro_of_the_affected_subscriber_and_from_nobody_else"]),
    (42, Derived, "Who has not rehearsed for too long is reminded", Whole,
        &["src/domain/policy/reminders.rs::overdue"],
        &["the_reminder_comes_so_many_calendar_months_later",
          "the_reminder_counts_from_the_last_ceremony_or_exercise_whichever_is_later",
          "who_has_not_rehearsed_for_a_year_is_reminded_until_an_exercise_is_recorded"]),
    (43, Derived, "Exercises run the same code with keys of their own, and never mix with what is live", Whole,
        &["src/domain/policy/admission.rs::common"],
        &["live_and_exercise_ledgers_and_policies_never_mix",
          "a_fresh_ledger_beside_live_tokens_is_refused_as_are_the_tokens_of_another_ledger",
          "a_clock_that_is_set_is_refused_with_a_live_ledger_by_check_config_and_at_the_start"]),
    (44, OurPolicy, "Everything is logged with who, incident, step, profile, time and outcome: no log, no action", Whole,
        &["src/recorder.rs::commit", "src/recorder.rs::refuse"],
        &["a_refusal_that_cannot_be_recorded_is_not_answered_as_one", "it_ends_with_a_status_of_its_own_once_it_cannot_record",
          "a_full_disk_records_nothing_releases_the_reserved_space_and_lets_one_more_entry_in_after"]),
    (45, OurPolicy, "The log is ordered, tells tampering, can be taken out, and auditors read and do nothing else", Whole,
        &["src/domain/audit/mod.rs::entry", "src/api/authenticate.rs::covers"],
        &["every_flipped_octet_is_refused_at_every_position", "what_the_recorder_wrote_is_exported_and_verifies",
          "each_permission_covers_its_roles_and_no_other"]),
    (46, Derived, "What each ARO did is told on demand", Whole,
        &["src/cli/people.rs::run"],
        &["a_file_is_taken_in_from_an_aro_of_the_affected_subscriber_and_from_nobody_else"]),
    (47, OurPolicy, "The state of the clock is part of each entry, and nothing is signed by an untrusted one", Whole,
        &["src/domain/policy/rules/clock.rs::check", "src/domain/intake.rs::check_clock", "src/service/clock.rs::take"],
        &["a_jump_is_said_once_and_the_clock_stays_untrusted",
          "after_a_long_silence_nothing_is_signed_until_an_operator_accepts_the_clock_whatever_restarts",
          "a_clock_that_is_years_ahead_for_once_costs_an_acceptance_and_gets_no_time_into_the_ledger",
          "a_daemon_set_into_2017_signs_in_a_window_of_then_and_says_so_in_every_entry"]),
    (48, Stated, "A variation is data with dates and a reference; an extension is a direction recorded anew", Whole,
        &["src/domain/procedure/in_force.rs::in_force", "src/domain/procedure/variation.rs::end",
          "src/domain/procedure/direction.rs::check"],
        &["a_variation_is_in_force_from_its_first_instant_until_the_last_of_its_end_day_as_treated_and_extended",
          "an_extension_must_lengthen_a_variation_that_still_stands",
          "each_edge_of_the_variation_is_explained_from_both_sides_for_both_readings_of_its_last_day_and_extended",
          "an_extension_recorded_in_time_carries_the_relief_over_the_edge_to_its_own"]),
    (49, OurPolicy, "A step follows the profile of its own moment, and is recorded with it",
        Partly("the entries of a key's activation and of each batch name no profile; those of the steps before and after them do"),
        &["src/domain/intake/steps.rs::step", "src/domain/procedure/in_force.rs::ids"],
        &["a_relief_that_ended_before_its_gate_opened_leaves_the_base_rule",
          "an_incident_begins_with_a_whole_notification_and_carries_its_profile",
          "each_step_goes_by_the_profile_of_its_own_moment_on_both_sides_of_each_edge"]),
    (50, Stated, "What is not varied keeps its base rule", Whole,
        &["src/domain/procedure/in_force.rs::demands"],
        &["what_no_clause_names_keeps_its_base_rule_while_the_variation_is_in_force",
          "what_is_explained_as_permitted_is_permitted_and_nothing_else_in_every_state_and_profile"]),
    (51, OurPolicy, "Steps are known by what they mean; printed numbers are labels of a version", Whole,
        &["src/domain/ledger/steps.rs::meaning"],
        &["a_step_shows_its_labels_actors_and_what_varies_it", "every_step_has_one_encoding_and_a_meaning"]),
];

/// Every Rust file of a folder, by its path from the repository's root.
fn sources(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("target") {
                sources(root, &path, found);
            }
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
}

fn all_sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    for folder in ["src", "tests"] {
        sources(root, &root.join(folder), &mut found);
    }
    found
}

/// The name of the function that begins in a line.
fn function(line: &str) -> Option<&str> {
    let after = line.trim_start();
    let (before, after) = after.split_once("fn ")?;
    let plain =
        before.split_whitespace().all(|word| matches!(word, "pub" | "async" | "const") || word.starts_with("pub("));
    plain.then(|| after.split(['(', '<']).next())?
}

/// The tests of the sources, and the files that have one of that name. A test that runs with each module counts once.
fn tests(sources: &BTreeMap<String, String>) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (file, text) in sources {
        let (mut is_test, mut is_listed) = (false, false);
        for line in text.lines().map(str::trim_start) {
            if line == "with_every_module! {" {
                is_listed = true;
            } else if is_listed {
                match line.strip_suffix(';') {
                    Some(name) => found.entry(name).or_default().push(file),
                    None => is_listed = false,
                }
            } else if line == "#[test]" || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if let Some(name) = function(line).filter(|_| std::mem::take(&mut is_test)) {
                found.entry(name).or_default().push(file);
            }
        }
    }
    found
}

fn page(tests: &BTreeMap<&str, Vec<&str>>) -> String {
    let mut page = String::from(
        "# The rules of the procedure\n\n\
         What a key management daemon must enforce of the SMKI Recovery Procedure (SEC Appendix L, SEC Section L10) and of the direction of\n\
         18 July 2017 that varied it, in our words; where `smkid` decides it, and the tests that hold it there. This page is made from the\n\
         table in `tests/it/procedure_rules.rs` (`SMKID_WRITE_DOCS=1 cargo test --test it -- procedure_rules`), and a test fails where a\n\
         named test or function is gone.\n\n\
         *stated*: a public document says it. *derived*: it follows from public documents. *our policy*: the text was not read, and this is what\n\
         we chose; where there is something to choose, it is configuration.\n",
    );
    for (number, strength, rule, built, places, names) in TABLE {
        let strength = match strength {
            Stated => "stated",
            Derived => "derived",
            OurPolicy => "our policy",
        };
        let built = match built {
            Whole => String::new(),
            Partly(what) => format!("\nIn part: {what}.\n"),
            Refused(what) => format!("\n*Refused until built*: {what}.\n"),
        };
        let places: Vec<String> = places
            .iter()
            .map(|place| {
                let (file, function) = place.split_once("::").unwrap();
                format!("`{function}` in `{file}`")
            })
            .collect();
        let _ = write!(page, "\n## {number}. {rule}\n\n*{strength}*; {}\n{built}\n", places.join(", "));
        for name in *names {
            let file = tests[name][0];
            let _ = writeln!(page, "- `{name}` ({file})");
        }
    }
    page.push_str("\n## Without a test yet\n\n");
    if WITHOUT_A_TEST.is_empty() {
        page.push_str("None.\n");
    }
    for number in WITHOUT_A_TEST {
        let _ = writeln!(page, "- rule {number}");
    }
    page
}

#[test]
fn every_rule_has_its_place_and_its_tests_and_the_page_says_so() {
    let sources = all_sources();
    let tests = tests(&sources);
    assert!(TABLE.iter().map(|row| row.0).eq(1..=51), "each rule once, in order");
    let mut missing = Vec::new();
    for (number, _, rule, _, places, names) in TABLE {
        assert!(rule.len() <= 120 && !rule.ends_with('.'), "rule {number}: {rule}");
        for name in *names {
            match tests.get(name).map_or(0, Vec::len) {
                1 => {}
                count => missing.push(format!("rule {number}: {count} tests are called {name}")),
            }
        }
        assert!(!places.is_empty(), "rule {number} is decided nowhere");
        for place in *places {
            let (file, wanted) = place.split_once("::").unwrap();
            let is_there =
                sources.get(file).is_some_and(|text| text.lines().any(|line| function(line) == Some(wanted)));
            if !is_there {
                missing.push(format!("rule {number}: no {place}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    let of = |is: fn(&Row) -> bool| TABLE.iter().filter(|row| is(row)).map(|row| row.0).collect::<Vec<_>>();
    assert_eq!(of(|row| row.5.is_empty()), WITHOUT_A_TEST);
    let made = page(&tests);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    if std::env::var_os("SMKID_WRITE_DOCS").is_some() {
        fs::write(&path, &made).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == made,
        "{PAGE} is not what the table makes: SMKID_WRITE_DOCS=1 cargo test --test it -- procedure_rules"
    );
}

#[test]
fn a_function_is_found_by_its_first_line() {
    for (line, name) in [
        ("    pub(super) async fn one(a: u8) {", Some("one")),
        ("fn two<T>(a: T) {", Some("two")),
        ("pub const fn three() -> u8 {", Some("three")),
        ("// fn four() {", None),
        ("let five = |f: fn (u8)| f(1);", None),
    ] {
        assert_eq!(function(line), name, "{line}");
    }
}

#[tokio::test]
async fn an_incident_begins_with_a_whole_notification_and_carries_its_profile() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let open = async |ask: &Value| -> Result<wire::Recorded, ClientError> { client.post("/v1/incidents", ask).await };
    let good = serde_json::to_value(incident(&site.base.lab)).unwrap();
    let changed = |field: &str, value: Value| {
        let mut ask = good.clone();
        ask["notification"][field] = value;
        ask
    };
    let mut without = good.clone();
    without.as_object_mut().unwrap().remove("notification");
    let later = json!(in_ms(3_600_000).to_string());
    let other = serde_json::to_value(CompromiseClass::Other).unwrap();
    for (ask, rule) in [
        (without, "notification"),
        (changed("by", json!(" ")), "notification"),
        (changed("channel", json!("")), "notification"),
        (changed("at", later.clone()), "notification"),
        (changed("recovery_event", later), "notification"),
        (changed("class", other), "class"),
    ] {
        let problem = problem(open(&ask).await);
        assert_eq!((problem.error, rules(&problem)), (ProblemKind::Refused, vec![rule]), "{ask}: {problem:?}");
    }
    let mut bare = good.clone();
    bare.as_object_mut().unwrap().remove("notification");
    let told = problem(open(&bare).await);
    assert!(told.reasons[0].text.contains("--notified-by, --party, --certainty"), "how it is given: {told:?}");
    let mut unread = good.clone();
    unread["certificate_pem"] = json!("no certificate");
    let told = problem(open(&unread).await).message;
    assert!(told.contains("expected one certificate in PEM, found other text (PEM: expected a block"), "{told}");
    // What is missing altogether is malformed.
    let fields: Vec<String> = good["notification"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(fields.len(), 7);
    for field in fields {
        let mut ask = good.clone();
        ask["notification"].as_object_mut().unwrap().remove(&field);
        let problem = problem(open(&ask).await);
        assert_eq!(problem.error, ProblemKind::Malformed, "without {field}: {problem:?}");
    }
    let recorded = open(&good).await.unwrap();
    let ledger = site.ledger();
    let Event::IncidentOpened(opened) = &ledger.entries[usize::try_from(recorded.entry).unwrap()].event else {
        panic!("no incident was opened")
    };
    let profile = opened.profile.as_ref().unwrap();
    assert_eq!((profile.base.as_str(), profile.variations.len()), ("base", 0), "the variation of 2017 is over");
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn an_incident_about_another_key_says_which_and_has_its_certificate() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let lab = &site.base.lab;
    let ask = |certificate: &[u8], key: Option<OtherKey>, class| {
        let mut ask = incident(lab);
        (ask.certificate_pem, ask.key) = (certificate_to_pem(certificate), key);
        ask.notification.as_mut().unwrap().class = class;
        ask
    };
    let (root, issuing) = (lab.root_oca().octets().to_vec(), lab.issuing_oca().octets().to_vec());
    let supplier = lab.before()[0].octets().to_vec();
    let (other, organisation) = (CompromiseClass::Other, CompromiseClass::Organisation);
    for (certificate, key, class, rule, expected) in [
        (&root, None, other, "certificate-kind", "say which key is meant: root-oca"),
        (&issuing, None, other, "certificate-kind", "say which key is meant"),
        (&root, Some(OtherKey::IssuingOca), other, "certificate-kind", "expected an Issuing OCA Certificate"),
        (&issuing, Some(OtherKey::RootOca), other, "certificate-kind", "expected a Root OCA Certificate"),
        (
            &supplier,
            Some(OtherKey::Recovery),
            other,
            "certificate-kind",
            "expected an Organisation Certificate of role 01",
        ),
        (&root, Some(OtherKey::Contingency), other, "contingency-root", "which carries none"),
        (&root, Some(OtherKey::ContingencySymmetric), other, "contingency-root", "which carries none"),
        (&root, Some(OtherKey::RootOca), organisation, "class", "expected other"),
        (
            &lab.device_ca().octets().to_vec(),
            None,
            other,
            "certificate-kind",
            "no Relevant Private Key of the procedure",
        ),
    ] {
        let before = site.ledger().size();
        let problem = problem(client.post::<_, wire::Recorded>("/v1/incidents", &ask(certificate, key, class)).await);
        assert_eq!((problem.error, rules(&problem)), (ProblemKind::Refused, vec![rule]), "{problem:?}");
        assert_eq!(problem.entry, Some(before));
        assert!(problem.message.contains(expected), "{problem:?}");
        assert_eq!(site.ledger().refusals().pop().unwrap().reasons, problem.reasons);
    }
    for (n, (certificate, key)) in
        [(&root, OtherKey::RootOca), (&issuing, OtherKey::IssuingOca)].into_iter().enumerate()
    {
        let open = wire::IncidentOpen {
            incident: format!("INC-OCA-{n}").parse().unwrap(),
            ..ask(certificate, Some(key), other)
        };
        client.post::<_, wire::Recorded>("/v1/incidents", &open).await.unwrap();
        let path = format!("/v1/incidents/{}", open.incident);
        let found: wire::Incident = client.get(&path).await.unwrap();
        assert_eq!((found.key, found.compromised.party.to_string()), (Some(key), "0000000000000000".to_owned()));
        let next: wire::Next = client.get(&format!("{path}/next")).await.unwrap();
        let way = next.todo.iter().find(|todo| todo.what.contains("Know the way out")).unwrap();
        assert!(!way.required && way.by.as_ref().unwrap().contains("SEC Appendix L"), "{way:?}");
        let again = wire::IncidentOpen { incident: "INC-AGAIN".parse().unwrap(), ..open };
        let problem = problem(client.post::<_, wire::Recorded>("/v1/incidents", &again).await);
        assert_eq!(rules(&problem), ["compromised-known"], "{problem:?}");
    }
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_template_that_no_rule_permits_is_refused_however_many_signed_it() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    site.refer(client, "INC-1", (0..2).map(device)).await;
    let (lab, recovery) = (&site.base.lab, &site.base.recovery);
    let good = template(lab, recovery, lab.after()).unwrap();
    let changed = |change: &dyn Fn(&mut Update<'_>)| {
        let mut update = good.update();
        change(&mut update);
        gbcs::Template::from_update(&update).unwrap()
    };
    let before = lab.before()[0].octets().to_vec();
    let compromised = {
        let mut update = good.update();
        update.replacements[1].certificate = &before;
        gbcs::Template::from_update(&update).unwrap()
    };
    let dated = changed(&|update| {
        let second = smkid::domain::time::Timestamp::from_unix_ms((in_ms(3_600_000).unix_ms() / 1000) * 1000).unwrap();
        update.execution = GeneralizedTime::from_timestamp(second);
    });
    let root = lab.root_oca().octets().to_vec();
    let replaces_root = {
        let mut update = good.update();
        let cell = TrustAnchorCell::management(RemotePartyRole::Root, KeyUsage::KeyCertSign);
        update.replacements.push(Replacement { certificate: &root, cell });
        gbcs::Template::from_update(&update).unwrap()
    };
    let contingency = changed(&|update| {
        update.mode = CredentialsReplacementMode::AnyByContingency;
        update.authorising_cell = Some(TrustAnchorCell::ROOT);
    });
    let broker = template(lab, recovery, lab.broker()).unwrap();
    let no_path = changed(&|update| update.path_certificates.clear());
    let list = device_list(0..2);
    let refuse = async |change: &dyn Fn(&mut Determination), expected: &str| {
        let document = site.determination(client, 1, &list, |form| change(form)).await;
        let before = site.ledger().size();
        let problem = problem(site.deliver(client, &document, APPROVALS, Some(&list)).await);
        assert!(rules(&problem).contains(&expected), "expected {expected}, found {problem:?}");
        assert_eq!((problem.error, problem.entry), (ProblemKind::Refused, Some(before)));
    };
    for (template, rule) in [
        (&compromised, "replacement-compromised"),
        (&dated, "future-dated"),
        (&replaces_root, "root-cell"),
        (&contingency, "mode"),
        // By Method 3 the Access Control Broker's certificates in the Supplier's cells.
        (&broker, "replacement-party"),
        (&no_path, "path"),
    ] {
        let put = |form: &mut Determination| {
            let payload = Payload::new(template.octets()).unwrap();
            form.templates = Some(vec![Template { name: template_name(), payload }]);
        };
        refuse(&put, rule).await;
    }
    // By the Contingency route the Recovery key signs nothing: neither of its own mode nor of the other, and not in an incident of this class.
    for template in [&good, &contingency] {
        let by_contingency = |form: &mut Determination| {
            form.method = Some(Method::Contingency);
            let (root_sha256, next) = (Digest::of(&root), "contingency-2".parse().unwrap());
            form.symmetric_key = Some(SymmetricKeyLine { root_sha256, next, next_root_sha256: root_sha256 });
            let payload = Payload::new(template.octets()).unwrap();
            form.templates = Some(vec![Template { name: template_name(), payload }]);
        };
        refuse(&by_contingency, "admission").await;
        refuse(&by_contingency, "method").await;
        refuse(&by_contingency, "root-first").await;
    }
    assert!(site.ledger().intents().is_empty());
    site.determine(client, 1, &list, |_| {}).await;
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

/// Adopts a policy in which Key Custodians activate the Recovery key.
async fn adopt_custodians(site: &Site, client: &Client) {
    let files = site.changed_policy("keys.toml", |text| {
        let (others, recovery) = text.split_at(text.find("use = \"recovery\"").unwrap());
        format!("{others}{}", recovery.replacen("activation = \"stored\"", "activation = \"custodians\"", 1))
    });
    site.adopt(client, &files, vec![site.main()]).await;
}

#[tokio::test]
async fn a_key_that_custodians_open_stays_locked_until_they_present() {
    let site = Site::determined().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    adopt_custodians(&site, client).await;
    let before = site.ledger().size();
    let problem = problem(site.activate(client).await);
    assert_eq!(
        (problem.error, rules(&problem), problem.entry),
        (ProblemKind::Refused, vec!["custodians"], Some(before))
    );
    assert!(problem.reasons[0].text.contains("Key Custodians"), "{problem:?}");
    let status: wire::Status = client.get("/v1/status").await.unwrap();
    assert!(status.keys.iter().all(|key| key.active == (key.key.as_str() != smkid::exercise::policy::RECOVERY_KEY)));
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn each_method_puts_in_the_certificates_of_its_own_party_and_no_others() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let (lab, recovery) = (&site.base.lab, &site.base.recovery);
    let [ours, brokers] = [lab.after(), lab.broker()].map(|credentials| template(lab, recovery, credentials).unwrap());
    // The affected Supplier's certificate, in a Network Operator's cell.
    let networks = {
        let mut credentials = lab.after().clone();
        credentials[3] = lab.after()[0].clone();
        template(lab, recovery, &credentials).unwrap()
    };
    let of = |method, template: &gbcs::Template| {
        let payload = Payload::new(template.octets()).unwrap();
        move |form: &mut Determination| {
            form.method = Some(method);
            form.templates = Some(vec![Template { name: template_name(), payload }]);
        }
    };
    let list = device_list(0..2);
    site.refer(client, "INC-1", (0..2).map(device)).await;
    let refuse = async |method, template: &gbcs::Template| {
        let document = site.determination(client, 1, &list, of(method, template)).await;
        let problem = problem(site.deliver(client, &document, APPROVALS, Some(&list)).await);
        let found: std::collections::BTreeSet<&str> = rules(&problem).into_iter().collect();
        (found.into_iter().map(str::to_owned).collect::<Vec<_>>(), problem.message)
    };
    // Swapped.
    let (found, said) = refuse(Method::AcbCertificates, &ours).await;
    assert!(
        found == ["replacement-party"] && said.contains("expected a certificate of the DCC as Access Control Broker"),
        "{said}"
    );
    let (found, said) = refuse(Method::NewOrganisationCertificates, &brokers).await;
    assert_eq!(found, ["replacement-party", "replacement-role"], "{said}");
    assert!(said.contains("expected a certificate of the affected Subscriber, supplier-a"), "{said}");
    let (found, said) = refuse(Method::NewOrganisationCertificates, &networks).await;
    assert!(found == ["replacement-role"] && said.contains("expected a certificate of role 03"), "{said}");
    // As they belong.
    site.determine(client, 1, &list, of(Method::NewOrganisationCertificates, &ours)).await;
    site.determine(client, 2, &list, of(Method::AcbCertificates, &brokers)).await;
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}

#[tokio::test]
async fn a_replacement_has_no_key_that_another_incident_is_about_unless_that_was_dismissed() {
    let site = Site::founded().await;
    let daemon = site.start().await;
    let client = &daemon.client;
    let lab = &site.base.lab;
    site.refer(client, "INC-1", (0..2).map(device)).await;
    let mut other = incident(lab);
    other.incident = "INC-OTHER".parse().unwrap();
    other.certificate_pem = smkid::domain::certificates::pem::certificate_to_pem(lab.after()[1].octets());
    client.post::<_, wire::Recorded>("/v1/incidents", &other).await.unwrap();
    let list = device_list(0..2);
    let document = site.determination(client, 1, &list, |_| {}).await;
    let problem = problem(site.deliver(client, &document, APPROVALS, Some(&list)).await);
    assert!(rules(&problem).iter().all(|rule| *rule == "replacement-compromised"), "{problem:?}");
    assert!(problem.message.contains("the key that incident INC-OTHER is about"), "{}", problem.message);
    site.dismiss(client, "INC-OTHER").await;
    site.determine(client, 1, &list, |_| {}).await;
    site.verify_export("export");
    assert!(daemon.stop().await.unwrap().success());
}
