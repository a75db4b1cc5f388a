//! Every scenario of `tests/behaviour` once more in an encrypted network, and those that only such a network has. They
//! lose as little there: nothing, wherever nothing is lost in clear.

const ENCRYPTED: bool = true;

mod certificates;
#[path = "../behaviour/common.rs"]
mod common;
mod sessions;

#[path = "../behaviour/a_blackholed_path_that_forms_loses_nothing.rs"]
mod a_blackholed_path_that_forms_loses_nothing;
#[path = "../behaviour/a_chained_hub_leads_to_a_shortcut_across_regions.rs"]
mod a_chained_hub_leads_to_a_shortcut_across_regions;
#[path = "../behaviour/a_conflict_of_tunnel_addresses_is_told.rs"]
mod a_conflict_of_tunnel_addresses_is_told;
#[path = "../behaviour/a_dead_direct_path_falls_back_to_the_hub.rs"]
mod a_dead_direct_path_falls_back_to_the_hub;
#[path = "../behaviour/a_foreign_prefix_is_not_believed.rs"]
mod a_foreign_prefix_is_not_believed;
#[path = "../behaviour/a_half_open_path_carries_nothing.rs"]
mod a_half_open_path_carries_nothing;
#[path = "../behaviour/a_hub_behind_a_translator_is_reached.rs"]
mod a_hub_behind_a_translator_is_reached;
#[path = "../behaviour/a_hub_restart_loses_no_shortcut.rs"]
mod a_hub_restart_loses_no_shortcut;
#[path = "../behaviour/a_lossy_network_still_converges.rs"]
mod a_lossy_network_still_converges;
#[path = "../behaviour/a_lost_hub_is_replaced_by_the_second.rs"]
mod a_lost_hub_is_replaced_by_the_second;
#[path = "../behaviour/a_moved_spoke_is_found_again.rs"]
mod a_moved_spoke_is_found_again;
#[path = "../behaviour/a_purge_leaves_the_shortcut_at_once.rs"]
mod a_purge_leaves_the_shortcut_at_once;
#[path = "../behaviour/a_random_network_recovers.rs"]
mod a_random_network_recovers;
#[path = "../behaviour/a_restarted_control_loses_no_packet.rs"]
mod a_restarted_control_loses_no_packet;
#[path = "../behaviour/a_route_to_the_underlay_is_refused.rs"]
mod a_route_to_the_underlay_is_refused;
#[path = "../behaviour/a_shortcut_forms_without_loss.rs"]
mod a_shortcut_forms_without_loss;
#[path = "../behaviour/a_shortcut_in_use_is_renewed.rs"]
mod a_shortcut_in_use_is_renewed;
#[path = "../behaviour/a_spoke_joins_while_the_hub_is_untouched.rs"]
mod a_spoke_joins_while_the_hub_is_untouched;
#[path = "../behaviour/a_spoke_that_joins_under_load_is_direct_soon.rs"]
mod a_spoke_that_joins_under_load_is_direct_soon;
#[path = "../behaviour/a_wrong_key_is_refused.rs"]
mod a_wrong_key_is_refused;
#[path = "../behaviour/an_idle_shortcut_is_given_up_and_comes_back.rs"]
mod an_idle_shortcut_is_given_up_and_comes_back;
#[path = "../behaviour/ipv6_carries_and_is_carried.rs"]
mod ipv6_carries_and_is_carried;
#[path = "../behaviour/multicast_reaches_whom_the_phase_says.rs"]
mod multicast_reaches_whom_the_phase_says;
#[path = "../behaviour/no_packet_crosses_a_station_twice.rs"]
mod no_packet_crosses_a_station_twice;
#[path = "../behaviour/phase_one_stays_with_the_hub.rs"]
mod phase_one_stays_with_the_hub;
#[path = "../behaviour/the_same_seed_tells_the_same_story.rs"]
mod the_same_seed_tells_the_same_story;
#[path = "../behaviour/translators_pair_by_pair.rs"]
mod translators_pair_by_pair;
