//! One binary, a file per capability, named in users' words.
//!
//! Every module stands under `cfg(test)` so that clippy lets tests unwrap (see clippy.toml).

#[cfg(test)]
mod answers_itself;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod asks_before_a_step;
#[cfg(test)]
mod asks_versions_how_they_are;
#[cfg(test)]
mod authenticates_callers;
#[cfg(test)]
mod bounds_bodies;
#[cfg(test)]
mod calls_from_other_origins;
#[cfg(test)]
mod changes_listeners_live;
#[cfg(test)]
mod checks_its_sources;
#[cfg(test)]
mod compresses_answers;
#[cfg(test)]
mod docs_tell_the_truth;
#[cfg(test)]
mod doctor_examines;
#[cfg(test)]
mod drains_on_stop;
#[cfg(test)]
mod ends_every_request_once;
#[cfg(test)]
mod ends_loops;
#[cfg(test)]
mod every_key_acts;
#[cfg(test)]
mod explains_what_happens;
#[cfg(test)]
mod foresees_what_a_change_does;
#[cfg(test)]
mod forwards_requests;
#[cfg(test)]
mod gets_its_certificates;
#[cfg(test)]
mod goes_on_degraded;
#[cfg(test)]
mod goes_through_parents;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod harness_holds;
#[cfg(test)]
mod in_front_of_a_real_nginx;
#[cfg(test)]
mod judges_releases;
#[cfg(test)]
mod keeps_its_tunnels_under_load;
#[cfg(test)]
mod keeps_serving_when_something_breaks;
#[cfg(test)]
mod keeps_to_its_budget;
#[cfg(test)]
mod knows_its_platform;
#[cfg(test)]
mod knows_who_is_calling;
#[cfg(test)]
mod limits_each_route;
#[cfg(test)]
mod listens_where_it_is_told;
#[cfg(test)]
mod mirrors_requests;
#[cfg(test)]
mod moves_with_its_address;
#[cfg(test)]
mod opens_tunnels;
#[cfg(test)]
mod outlives_slow_callers;
#[cfg(test)]
mod parsers_keep_their_word;
#[cfg(test)]
mod passes_on_only_what_is_meant;
#[cfg(test)]
mod queues_for_a_place;
#[cfg(test)]
mod reaches_functions;
#[cfg(test)]
mod reaches_what_it_may;
#[cfg(test)]
mod refuses_a_broken_config;
#[cfg(test)]
mod refuses_bad_h2_requests;
#[cfg(test)]
mod refuses_bad_requests;
#[cfg(test)]
mod releases_versions_gradually;
#[cfg(test)]
mod reloads_without_dropping_requests;
#[cfg(test)]
mod replays_past_releases;
#[cfg(test)]
mod rests_addresses_that_fail;
#[cfg(test)]
mod rests_what_fails;
#[cfg(test)]
mod rides_a_peak;
#[cfg(test)]
mod routes_by_host_and_path;
#[cfg(test)]
mod says_why_it_does_not_start;
#[cfg(test)]
mod sends_back_bad_canaries;
#[cfg(test)]
mod serves_real_clients;
#[cfg(test)]
mod shares_answers;
#[cfg(test)]
mod shares_the_way_out;
#[cfg(test)]
mod shares_with_other_gateposts;
#[cfg(test)]
mod sheds_what_is_too_much;
#[cfg(test)]
mod shipped_configs;
#[cfg(test)]
mod shows_google_tokens;
#[cfg(test)]
mod shows_itself_in_a_demo;
#[cfg(test)]
mod shows_pages_for_errors;
#[cfg(test)]
mod signs_calls_to_functions;
#[cfg(test)]
mod speaks_tls_as_told;
#[cfg(test)]
mod splits_traffic_between_versions;
#[cfg(test)]
mod stands_in_for_failures;
#[cfg(test)]
mod streams_large_bodies;
#[cfg(test)]
mod survives_faults;
#[cfg(test)]
mod survives_hostile_h2;
#[cfg(test)]
mod takes_tunnels_back;
#[cfg(test)]
mod tells_the_service_manager;
#[cfg(test)]
mod tells_what_is_known_of_platforms;
#[cfg(test)]
mod tells_what_it_did;
#[cfg(test)]
mod tries_again;
#[cfg(test)]
mod upgrades_without_a_gap;
#[cfg(test)]
mod withstands_the_survey;
#[cfg(test)]
mod works_on_each_platform;
