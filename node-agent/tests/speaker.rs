//! BGP over real TCP, on the loopback interface: its addresses stand for tunnel addresses.

use bgp::{Config, Phase, Restart, Role};
use dmvpn_agent::bgp::{Setup, start};
use dmvpn_agent::kernel::Kernel;
use dmvpn_agent::routing::{FromRouting, Routing, ToRouting};
use ipnet::IpNet;
use std::net::{IpAddr, TcpListener};
use std::time::Duration;
use tokio::time::timeout;

const LOOPBACK: u32 = 1;
const HUB: &str = "127.77.0.1";
const PATIENCE: Duration = Duration::from_secs(20);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind((HUB, 0)).unwrap().local_addr().unwrap().port()
}

fn setup(address: &str, asn: u32, role: Role, port: u16, announce: &str) -> Setup {
    let mut config = Config::new(asn, address.parse().unwrap(), role, Phase::Two);
    config.networks = vec![net("127.77.0.0/16")];
    config.local_addresses = vec![ip(address)];
    config.announce = vec![net(announce)];
    if role == Role::Hub {
        config.listen_ranges.clone_from(&config.networks);
    }
    let claims = claims::Policy::new(config.networks.clone(), Vec::new());
    Setup { interface: "lo".to_owned(), port, config, claims, hubs: Vec::new() }
}

fn spoke(last: u8, port: u16) -> Setup {
    let (address, prefix) = (format!("127.77.16.{last}"), format!("10.{last}.0.0/24"));
    setup(&address, 65000 + u32::from(last), Role::Spoke, port, &prefix)
}

fn run(setup: Setup) -> Routing {
    start(setup, Kernel::open().unwrap(), LOOPBACK)
}

fn call_hub(routing: &Routing) {
    routing.commands.send(ToRouting::HubUp { address: ip(HUB), identity: None }).unwrap();
}

/// Waits for what is wanted, and returns what else was told before.
async fn wait(routing: &mut Routing, wanted: impl Fn(&FromRouting) -> bool) -> Vec<FromRouting> {
    let mut seen = Vec::new();
    let found = timeout(PATIENCE, async {
        loop {
            let event = routing.events.recv().await.expect("the driver ended");
            if wanted(&event) {
                return;
            }
            seen.push(event);
        }
    });
    assert!(found.await.is_ok(), "not told; only {seen:?}");
    seen
}

fn installs(prefix: &'static str, next_hop: &'static str) -> impl Fn(&FromRouting) -> bool {
    move |event| matches!(event, FromRouting::Install { prefix: p, via } if *p == net(prefix) && *via == ip(next_hop))
}

fn withdraws(prefix: &'static str) -> impl Fn(&FromRouting) -> bool {
    move |event| matches!(event, FromRouting::Withdraw { prefix: p } if *p == net(prefix))
}

fn told(reason: &'static str) -> impl Fn(&FromRouting) -> bool {
    move |event| matches!(event, FromRouting::Told { reason: r, .. } if *r == reason)
}

#[tokio::test]
async fn a_hub_and_two_spokes_on_a_port_of_their_own() {
    let port = free_port();
    let mut hub = run(setup(HUB, 65000, Role::Hub, port, "10.0.0.0/24"));
    let (mut a, mut b) = (run(spoke(1, port)), run(spoke(2, port)));
    call_hub(&a);
    call_hub(&b);
    wait(&mut a, installs("10.2.0.0/24", "127.77.16.2")).await;
    wait(&mut b, installs("10.1.0.0/24", "127.77.16.1")).await;
    wait(&mut hub, |event| match event {
        FromRouting::Neighbours(list) => list.iter().filter(|n| n.state == "Established").count() == 2,
        _ => false,
    })
    .await;

    // An end in good order takes the routes along at once.
    b.commands.send(ToRouting::Shutdown { keep_routes: false }).unwrap();
    wait(&mut a, withdraws("10.2.0.0/24")).await;
}

#[tokio::test]
async fn a_process_that_dies_and_comes_back_moves_nobody() {
    let port = free_port();
    let mut hub = run(setup(HUB, 65000, Role::Hub, port, "10.0.0.0/24"));
    let (mut a, mut b) = (run(spoke(1, port)), run(spoke(2, port)));
    call_hub(&a);
    call_hub(&b);
    wait(&mut b, installs("10.1.0.0/24", "127.77.16.1")).await;
    wait(&mut a, installs("10.2.0.0/24", "127.77.16.2")).await;

    a.commands.send(ToRouting::Shutdown { keep_routes: true }).unwrap();
    wait(&mut hub, told("BgpDown")).await;
    let mut again = spoke(1, port);
    again.config.restart = Some(Restart { expected: vec![ip(HUB)], deferral: Duration::from_secs(60) });
    let mut a = run(again);
    call_hub(&a);
    let before = wait(&mut a, |event| matches!(event, FromRouting::Converged)).await;
    assert!(before.iter().any(installs("10.2.0.0/24", "127.77.16.2")), "told before it has settled");
    let seen = wait(&mut hub, told("BgpUp")).await;
    assert!(!seen.iter().any(|event| matches!(event, FromRouting::Withdraw { .. })), "{seen:?}");
    // The other spoke hears nothing of it.
    let moved = timeout(Duration::from_millis(500), wait(&mut b, withdraws("10.1.0.0/24"))).await;
    assert!(moved.is_err());
}

#[tokio::test]
async fn what_is_not_claimed_is_refused_until_it_is() {
    let port = free_port();
    let mut setup = setup(HUB, 65000, Role::Hub, port, "10.0.0.0/24");
    let class = claims::Class {
        identity: "a.example.com".to_owned(),
        tunnel_addresses: Vec::new(),
        prefixes: vec![net("10.1.0.0/16")],
    };
    setup.claims = claims::Policy::new(setup.config.networks.clone(), vec![class]);
    let mut hub = run(setup);
    let a = run(spoke(1, port));
    call_hub(&a);
    wait(&mut hub, told("BgpRouteRefused")).await;
    let identity = Some("a.example.com".to_owned());
    hub.commands.send(ToRouting::PeerUp { address: ip("127.77.16.1"), identity, proven: None }).unwrap();
    wait(&mut hub, installs("10.1.0.0/24", "127.77.16.1")).await;
    hub.commands.send(ToRouting::PeerDown { address: ip("127.77.16.1") }).unwrap();
    wait(&mut hub, withdraws("10.1.0.0/24")).await;
}

#[tokio::test]
async fn a_spoke_listens_to_nobody() {
    let port = free_port();
    let mut a = run(spoke(1, port));
    wait(&mut a, |event| matches!(event, FromRouting::Converged)).await;
    assert!(std::net::TcpStream::connect(("127.77.16.1", port)).is_err());
}
