"""Tests that take long: `make accept` runs them and `make test` does not. File to names, or their beginnings.

Each is a further case of what another test shows. A name that no test has is an error.
"""

LONG: dict[str, tuple[str, ...]] = {
    "checkpoint/test_budgets.py": tuple(
        f"test_an_inspection_as_a_whole_stays_small[_{name}]"
        for name in ("layers", "long", "half", "square", "deep", "wide", "heads", "counts")
    ),
    "checkpoint/test_deepspeed.py": ("test_whole_weights_are_read_with_their_record[2]",),
    "checkpoint/test_fuzz.py": (
        "test_a_missing_cap_is_found",
        "test_an_allowed_prefix_is_found",
        "test_a_skipped_state_is_found",
    ),
    "checkpoint/test_memory.py": ("test_memory_stays_flat[torch-legacy]",),
    "checks/test_training_steps.py": (
        "test_healthy_samples_stay_healthy_under_a_trace[healthy-256.pt]",
        "test_a_trace_shows_a_runaway_early_and_whether_training_still_helps[0.001]",
    ),
    "checks/test_vq110.py": (
        "test_models[Theirs-mean]",
        "test_models[Model-",
        "test_codebooks_that_each_add_a_part_are_no_residual[own",
    ),
    "checks/test_vq308.py": (
        "test_a_retraining_takes_the_decay_off_and_its_file_is_not_accused_of_it",
        "test_weight_decay_in_adam[0.0]",
    ),
    "checks/test_vq402.py": ("test_a_fixed_threshold_above_the_mean_count[0.2-",),
    "checks/test_vq404.py": ("test_a_bare_state_dict_beside_the_tasks_own_optimizer[False]",),
    "checks/test_vq505.py": (
        "test_a_training_loop_that_revives_the_codes_alone[False]",
        "test_the_library_revives_for_good[2]",
    ),
    "checks/test_vq509.py": (
        "test_an_encoder_through_four_directions[VectorQuantize-0",
        "test_an_encoder_through_four_directions[taming",
        "test_an_encoder_through_four_directions[rosinality",
    ),
    "checks/test_vq510.py": ("test_a_gradient_codebook_in_a_bare_file[Near",),
    "ci/test_action.py": (
        "test_no_input_is_read_as_a_command[sarif_file]",
        "test_no_input_is_read_as_a_command[data]",
    ),
    "cli/test_decide.py": ("test_probe_steps_are_the_steps_of_the_experiments",),
    "cli/test_fix_retrain.py": ("test_a_full_disk_is_one_error",),
    "cli/test_gate.py": (
        "test_no_hostile_file_passes[zip-bomb]",
        "test_no_hostile_file_passes[gzip-bomb]",
    ),
    "cli/test_hostile_files_by_command.py": (
        "test_an_unreadable_file_takes_no_longer_than_a_healthy_one",
        "test_exit_code_and_words[gzip-bomb]",
    ),
    "engine/test_layers_without_codebook.py": (
        "test_a_healthy_layer_without_a_codebook_is_found_and_passes[lfq]",
        "test_a_healthy_layer_without_a_codebook_is_found_and_passes[residual fsq]",
        "test_a_healthy_layer_without_a_codebook_is_found_and_passes[large fsq]",
        "test_a_layer_without_a_codebook_is_retrained_by_the_remedies_that_write_no_codes[lfq]",
        "test_lfq_with_too_little_of_its_entropy_loss_collapses",
        "test_the_wrong_size_of_z_e_collapses_fsq_and_a_norm_mends_it[0.001",
        "test_a_layer_without_a_codebook_is_retrained_by_the_remedies_that_write_no_codes[Rounding]",
        "test_a_healthy_layer_without_a_codebook_is_found_and_passes[fsq]",
    ),
    "engine/test_monitor.py": ("test_revival_moves_dead_codes",),
    "engine/test_on_gpu.py": (
        "test_probes[no-ste.pt-cpu]",
        "test_a_retraining_keeps_its_codes_in_float32[cpu]",
        "test_probes[healthy-256.pt-cpu]",
    ),
    "engine/test_retrain.py": (
        "test_a_layer_that_writes_wrong_codes_is_cured_and_its_source_named[sphere",
        "test_a_layer_that_writes_wrong_codes_is_cured_and_its_source_named[unnormalised",
        "test_the_clock_ends_a_run_whose_steps_were_thought_faster",
    ),
    "engine/test_samples.py": tuple(
        f"test_the_printed_plan_is_the_trained_plan[{name}.pt]"
        for name in ("healthy-512", "masked", "overweighted", "stalled-ema", "healthy-256")
    ),
    "engine/test_source.py": ("test_a_source_without_the_place_is_left_as_it_is",),
    "engine/test_user_models.py": ("test_a_task_may_refuse_stop_in_any_way[True-",),
    "probes/test_layer_probes.py": (
        "test_a_summed_vq_loss_beside_a_mean_task_loss[sum-Summed",
        "test_a_summed_vq_loss_beside_a_mean_task_loss[mean-ImageTask",
        "test_residual_levels[3-False-False",
        "test_healthy_layers_get_none_of_these_findings[residual, straight through]",
        "test_healthy_layers_get_none_of_these_findings[revival beside an optimizer]",
        "test_healthy_layers_get_none_of_these_findings[low-dimensional codes]",
        "test_healthy_layers_of_other_kinds_get_none_of_these_findings[taming]",
        "test_healthy_layers_of_other_kinds_get_none_of_these_findings[plain]",
        "test_residual_levels[12-",
        "test_the_rotation_trick_spikes_where_a_residual_is_nearly_zero[False]",
    ),
    "probes/test_train_eval_gap.py": (
        "test_stale_statistics_and_strong_noise_are_told_from_health[more3",
        "test_z_e_in_place_of_its_code_is_no_mixture_of_codes[around",
        "test_z_e_in_place_of_its_code_is_no_mixture_of_codes[bypass",
        "test_z_e_in_place_of_its_code_is_no_mixture_of_codes[near-puts out vectors-True]",
    ),
    "reference/chain/test_chain_files.py": (
        "test_a_collapsed_chain_has_frozen_codes_and_its_stage_is_not_blamed",
    ),
    "reference/test_sound_twins.py": ("test_a_sound_twin_is_healthy[unnormalised-ema",),
    "training/test_own_steps.py": ("test_a_collapsed_vq_gan_is_cured",),
    "checks/test_vq408.py": (
        "test_a_threshold_in_other_units[seldom-True",
        "test_a_threshold_in_other_units[always-True",
        "test_a_threshold_in_other_units[other units, at times-False",
    ),
    "probes/file/test_smoothing.py": ("test_a_trained_and_collapsed_layer_is_not_said_to_be_moved[450-",),
    "checks/test_vq406.py": (
        "test_a_schedule_that_torch_ran[<lambda>-False4",
        "test_a_schedule_that_torch_ran[<lambda>-False5",
        "test_a_schedule_that_torch_ran[<lambda>-False6",
    ),
    "reference/chain/test_chain.py": ("test_a_short_training_learns_and_its_checkpoint_comes_back",),
    "fault_bench/test_bench.py": ("test_models_are_called_by_what_is_wrong_with_them[five others]",),
    "benchmarks/test_sizes.py": ("test_a_gigabyte_costs_what_ten_megabytes_do",),
}
