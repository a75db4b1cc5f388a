//! The engine in a virtual network: one behaviour a file, named like a bug report. Every test asserts by packets: which
//! were lost or came twice, which way they took, and that none came to a station where it had been.

/// In clear; the same in an encrypted network is in `tests/encrypted`.
const ENCRYPTED: bool = false;

mod common;

mod a_blackholed_path_that_forms_loses_nothing;
mod a_chained_hub_leads_to_a_shortcut_across_regions;
mod a_conflict_of_tunnel_addresses_is_told;
mod a_dead_direct_path_falls_back_to_the_hub;
mod a_foreign_prefix_is_not_believed;
mod a_half_open_path_carries_nothing;
mod a_hub_behind_a_translator_is_reached;
mod a_hub_restart_loses_no_shortcut;
mod a_lossy_network_still_converges;
mod a_lost_hub_is_replaced_by_the_second;
mod a_moved_spoke_is_found_again;
mod a_purge_leaves_the_shortcut_at_once;
mod a_random_network_recovers;
mod a_restarted_control_loses_no_packet;
mod a_route_to_the_underlay_is_refused;
mod a_shortcut_forms_without_loss;
mod a_shortcut_in_use_is_renewed;
mod a_spoke_joins_while_the_hub_is_untouched;
mod a_spoke_that_joins_under_load_is_direct_soon;
mod a_wrong_key_is_refused;
mod an_idle_shortcut_is_given_up_and_comes_back;
mod ipv6_carries_and_is_carried;
mod multicast_reaches_whom_the_phase_says;
mod no_packet_crosses_a_station_twice;
mod phase_one_stays_with_the_hub;
mod the_same_seed_tells_the_same_story;
mod translators_pair_by_pair;
