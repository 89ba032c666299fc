//! A floating address: a gatepost waits for it, tells that it has it not, and serves as soon as it comes; and with a real keepalived it comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::harness::{
    Connection, Origin, PATIENCE, eventually, full,
    gateway::Metrics,
    get,
    hosts::{Daemon, Host, Network, found, on_a_network},
    origin,
    proxy::{Client, Destination, Said, mirror},
    when,
};

/// Those of the documentation (RFC 5737), and of `conf/keepalived`.
const FLOATING: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 11);
const TWO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 12);

/// What both call: a function with two versions, and a partner that says whom it sees.
struct World {
    network: Network,
    versions: [Origin; 2],
    partner: Destination,
}

impl World {
    async fn on(network: Network) -> Self {
        let version = async |name: &'static str| origin().reply(name).at("192.0.2.1", 0).start().await;
        let versions = [version("v1").await, version("v2").await];
        Self { network, versions, partner: mirror("192.0.2.1:0").await }
    }
}

/// A machine with a gatepost, whose listener and source are on the floating address.
struct Node {
    host: Host,
    ip: Ipv4Addr,
    dir: TempDir,
    gatepost: Option<Daemon>,
    keepalived: Option<Daemon>,
}

impl Node {
    async fn on(world: &World, name: &'static str, ip: Ipv4Addr) -> Self {
        let (host, dir) = (world.network.host(name, ip), TempDir::with_prefix("gatepost-").unwrap());
        let node = Self { host, ip, dir, gatepost: None, keepalived: None };
        let [v1, v2] = world.versions.each_ref().map(Origin::url);
        let text = format!(
            r#"
            [server]
            workers = 1
            state_dir = "state"
            [admin]
            address = "{ip}:9901"
            [log]
            access = "off"
            [listener.public]
            address = "{FLOATING}:80"
            freebind = true
            [function.f]
            versions = {{ v1 = "{v1}", v2 = "{v2}" }}
            weights = {{ v1 = "rest", v2 = 50 }}
            sticky = {{ by = ["header:x-openid"] }}
            [route.f]
            function = "f"
            response_headers = {{ set = {{ x-node = "{name}" }} }}
            [client.fn]
            networks = ["192.0.2.1/32"]
            [egress.listener.inside]
            address = "{ip}:3128"
            [egress.source.floating]
            bind = "{FLOATING}"
            [egress.rule.partner]
            clients = ["fn"]
            to = ["{}"]
            private = ["192.0.2.0/24"]
            source = "floating"
            "#,
            world.partner.address
        );
        fs::write(node.config(), text).unwrap();
        node
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("gatepost.toml")
    }

    async fn starts_gatepost(&mut self) {
        let config = self.config();
        let gatepost = self.host.start(GATEPOST.as_ref(), &["run", "--config", config.to_str().unwrap()]);
        gatepost.says(&["ready generation="]).await;
        self.gatepost = Some(gatepost);
    }

    /// With a file of `conf/keepalived`, which is as it is shipped but for where gatepost is and whose user asks it.
    fn starts_keepalived(&mut self, shipped: &str) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/keepalived").join(shipped);
        let shipped = fs::read_to_string(shipped).unwrap();
        let ask = format!("{GATEPOST} status --ready --config {}", self.config().display());
        let text = shipped
            .replace("/usr/bin/gatepost status --ready", &ask)
            .replace("script_user gatepost", "script_user root");
        assert!(
            text.contains(&ask) && text.contains("script_user root"),
            "another conf/keepalived than this test knows"
        );
        let path = |name: &str| self.dir.path().join(name).to_str().unwrap().to_owned();
        let file = path("keepalived.conf");
        fs::write(&file, text).unwrap();
        let keepalived = found("keepalived").unwrap();
        let (well, said) = self.host.says(&keepalived, &["--config-test", "--use-file", &file]);
        assert!(well && !said.contains("WARNING"), "keepalived does not like it:\n{said}");
        let pids = [path("keepalived.pid"), path("vrrp.pid")];
        let arguments = [
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--vrrp",
            "--use-file",
            &file,
            "--pid",
            &pids[0],
            "--vrrp_pid",
            &pids[1],
        ];
        self.keepalived = Some(self.host.start(&keepalived, &arguments));
    }

    /// Waits until its keepalived would take over once more.
    async fn stands_by_again(&self) {
        self.keepalived.as_ref().unwrap().says_again(&["Entering BACKUP STATE"], 2).await;
    }

    async fn gauge(&self, name: &str, label: (&str, &str)) -> f64 {
        let admin = SocketAddr::from((self.ip, 9901));
        let text = Connection::open(admin).await.send(get("/metrics")).await.text();
        let metrics = Metrics::parse(&text);
        assert!(metrics.names().contains(&name), "no {name}");
        metrics.sum(name, &[label])
    }

    /// Whether it says of the listener and of the source that their address is here; `None`: it says neither.
    async fn has_the_address(&self) -> Option<bool> {
        let listener = self.gauge("gatepost_listener_address_present", ("listener", "public")).await;
        let source = self.gauge("gatepost_egress_source_up", ("source", "floating")).await;
        (listener == source).then_some(listener == 1.0)
    }

    async fn comes_to_say(&self, here: bool) {
        let what = format!("{} says whether the address is here: {here}", self.host.name);
        eventually(&what, async || when(self.has_the_address().await == Some(here))).await;
    }

    /// What a function gets that calls the partner by this machine's own address.
    async fn calls_out(&self, world: &World) -> Said {
        let to = world.partner.address;
        let mut client = Client(TcpStream::connect((self.ip, 3128)).await.unwrap());
        client.ask(&format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n")).await
    }
}

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

#[test]
fn it_listens_ahead_of_its_address_and_tells_that_it_is_not_here() {
    on_a_network(&[], async |network| {
        let world = World::on(network).await;
        let mut node = Node::on(&world, "one", ONE).await;
        let config = node.config();
        let config = config.to_str().unwrap();
        // Whoever mistyped an address hears of it before it is in force,
        let (well, said) = node.host.says(GATEPOST.as_ref(), &["check", "--config", config]);
        assert!(well, "{said}");
        assert!(said.contains("note: this machine does not have 192.0.2.10, the address of listener public"), "{said}");
        // at the start, and from then on.
        node.starts_gatepost().await;
        let gatepost = node.gatepost.as_ref().unwrap();
        gatepost.says(&["standby", "listener=public", "192.0.2.10:80"]).await;
        node.comes_to_say(false).await;
        let (well, said) = node.host.says(GATEPOST.as_ref(), &["status", "--json", "--config", config]);
        assert!(well && said.contains("\"address_present\": false"), "{said}");
        // It is as ready as a standby can be.
        let (well, said) = node.host.says(GATEPOST.as_ref(), &["status", "--ready", "--config", config]);
        assert!(well, "{said}");
        node.calls_out(&world).await.is(503, "source_unavailable");
        // That an address can be bound is no proof: this lets every one be.
        let (well, said) = node.host.says("sh".as_ref(), &["-c", "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind"]);
        assert!(well, "{said}");
        node.calls_out(&world).await.is(503, "source_unavailable");
        assert_eq!(node.has_the_address().await, Some(false));

        node.host.run("ip addr add 192.0.2.10/32 dev eth0");
        let answer = Connection::open((FLOATING, 80).into()).await.send(get("/").header("x-openid", "a")).await;
        assert_eq!((answer.status, answer.header("x-node")), (200, Some("one")));
        let said = node.calls_out(&world).await;
        assert_eq!((said.status, &*said.body), (200, "192.0.2.10"));
        node.comes_to_say(true).await;
        gatepost.says(&["the listener's address is here", "listener=public"]).await;

        node.host.run("ip addr del 192.0.2.10/32 dev eth0");
        node.calls_out(&world).await.is(503, "source_unavailable");
        node.comes_to_say(false).await;
    });
}

#[test]
fn an_ipv6_address_may_come_later_as_well() {
    on_a_network(&[], async |network| {
        let world = World::on(network).await;
        let mut node = Node::on(&world, "one", ONE).await;
        let text = fs::read_to_string(node.config()).unwrap();
        fs::write(node.config(), text.replace("\"192.0.2.10:80\"", "\"[2001:db8::10]:80\"")).unwrap();
        node.starts_gatepost().await;
        let name = "gatepost_listener_address_present";
        let says = async |here: f64| {
            let what = format!("{name} is {here}");
            eventually(&what, async || when(node.gauge(name, ("listener", "public")).await == here)).await;
        };
        says(0.0).await;
        node.host.run("ip addr add 2001:db8::10/64 dev eth0 nodad");
        let at: SocketAddr = "[2001:db8::10]:80".parse().unwrap();
        assert_eq!(Connection::open(at).await.send(get("/")).await.header("x-node"), Some("one"));
        says(1.0).await;
        node.host.run("ip addr del 2001:db8::10/64 dev eth0");
        says(0.0).await;
    });
}

/// A call to the floating address.
#[derive(Debug)]
struct Call {
    caller: usize,
    began: Instant,
    ended: Instant,
    /// Who answered, and by which version; or why nobody did.
    answered: Result<(String, String), String>,
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// How long a caller waits. One that asks when the address moves may be in its kernel's first wait for a lost packet (RFC 6298: 1 s).
const WAITS: Duration = Duration::from_millis(900);

/// Calls without end: on one connection while that lasts, or each time on another.
async fn keep_calling(caller: usize, kept: bool, waits: Duration, calls: Calls) {
    let mut connection = None;
    loop {
        let began = Instant::now();
        let call = async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => Connection::try_open((FLOATING, 80).into()).await.map_err(|e| e.to_string())?,
            };
            let answer = open.try_send(get("/").header("x-openid", &format!("caller-{caller}"))).await;
            let answer = answer.map_err(|e| e.to_string())?;
            if answer.status != 200 {
                return Err(format!("{answer:?}"));
            }
            connection = kept.then_some(open);
            Ok((answer.header("x-node").unwrap_or_default().to_owned(), answer.text()))
        };
        let answered = timeout(waits, call).await.unwrap_or_else(|_| Err(format!("no answer within {waits:?}")));
        calls.lock().unwrap().push(Call { caller, began, ended: Instant::now(), answered });
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Everybody who calls while addresses move; the last only looks who answers, with little patience.
struct Callers {
    calls: Calls,
    looks: Calls,
    tasks: Vec<JoinHandle<()>>,
}

impl Callers {
    fn start() -> Self {
        let (calls, looks) = (Calls::default(), Calls::default());
        let mut tasks: Vec<_> =
            (0..12).map(|n| tokio::spawn(keep_calling(n, n % 2 == 0, WAITS, calls.clone()))).collect();
        tasks.push(tokio::spawn(keep_calling(12, false, Duration::from_millis(200), looks.clone())));
        Self { calls, looks, tasks }
    }

    /// Waits until that machine answers calls that began after `since`, and says when it was that it first did.
    async fn answered_by(&self, node: &str, since: Instant) -> Instant {
        eventually(&format!("{node} answers"), async || {
            let looks = self.looks.lock().unwrap();
            let mut later = looks.iter().filter(|look| look.began >= since);
            later.find(|look| look.answered.as_ref().is_ok_and(|(who, _)| who == node)).map(|look| look.ended)
        })
        .await
    }

    fn stop(self) -> Vec<Call> {
        self.tasks.iter().for_each(JoinHandle::abort);
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

/// How long an address may be nowhere. The issue's figure on a machine that has nothing else to do; else any time that shows that it moves.
fn most() -> Duration {
    if full() { Duration::from_secs(3) } else { Duration::from_secs(10) }
}

#[test]
fn the_address_moves_to_the_machine_that_serves() {
    on_a_network(&[("keepalived", "keepalived")], async |network| {
        let world = World::on(network).await;
        let mut one = Node::on(&world, "one", ONE).await;
        let mut two = Node::on(&world, "two", TWO).await;
        one.starts_gatepost().await;
        two.starts_gatepost().await;
        one.starts_keepalived("master.conf");
        two.starts_keepalived("backup.conf");
        one.comes_to_say(true).await;
        assert_eq!(two.has_the_address().await, Some(false));
        two.calls_out(&world).await.is(503, "source_unavailable");
        let mut told = Vec::new();
        let callers = Callers::start();
        callers.answered_by("one", Instant::now()).await;
        let mut outages = Vec::new();

        // Its gatepost dies.
        let began = Instant::now();
        one.gatepost.as_mut().unwrap().kill();
        outages.push(moved("gatepost killed", began, &callers, &two, &world, &mut told).await);

        // It comes back, and stays second: a move more would cost callers their connections for nothing.
        one.starts_gatepost().await;
        one.stands_by_again().await;
        one.comes_to_say(false).await;
        one.calls_out(&world).await.is(503, "source_unavailable");
        callers.answered_by("two", Instant::now()).await;

        // The other one's link is cut.
        let began = Instant::now();
        two.host.link("down");
        outages.push(moved("link cut", began, &callers, &one, &world, &mut told).await);
        two.host.link("up");
        two.stands_by_again().await;
        two.comes_to_say(false).await;
        two.calls_out(&world).await.is(503, "source_unavailable");
        callers.answered_by("one", Instant::now()).await;

        // The first one's machine is gone.
        let began = Instant::now();
        let Node { host, gatepost, keepalived, .. } = one;
        host.switch_off();
        outages.push(moved("machine off", began, &callers, &two, &world, &mut told).await);
        drop((gatepost, keepalived));

        let calls = callers.stop();
        let failed: Vec<&Call> = calls.iter().filter(|call| call.answered.is_err()).collect();
        println!("{} calls, {} failed\n{}", calls.len(), failed.len(), told.join("\n"));
        let outside: Vec<_> = failed
            .iter()
            .filter(|call| !outages.iter().any(|(from, to)| call.ended >= *from && call.began <= *to))
            .collect();
        assert!(outside.is_empty(), "failed while nothing moved: {outside:#?}");
        assert!(calls.len() > 100 && !failed.is_empty(), "{} calls, {} failed", calls.len(), failed.len());
        // Whoever calls, gets the same version from both.
        let mut versions: BTreeMap<usize, BTreeSet<(&str, &str)>> = BTreeMap::new();
        for (call, (node, version)) in calls.iter().filter_map(|call| Some((call, call.answered.as_ref().ok()?))) {
            versions.entry(call.caller).or_default().insert((node, version));
        }
        for (caller, seen) in &versions {
            let of = |node: &str| seen.iter().filter(|(n, _)| *n == node).map(|(_, v)| *v).collect::<Vec<_>>();
            assert!(of("one").len() == 1 && of("one") == of("two"), "caller {caller} changed: {seen:?}");
        }
        let all: BTreeSet<&str> = versions.values().flatten().map(|(_, version)| *version).collect();
        assert_eq!(all.len(), 2, "these callers all have one version");
    });
}

/// Waits until `to` has the address, and holds what is said of that: from when to when nobody answered.
async fn moved(
    what: &str,
    began: Instant,
    callers: &Callers,
    to: &Node,
    world: &World,
    told: &mut Vec<String>,
) -> (Instant, Instant) {
    let answered = callers.answered_by(to.host.name, began).await;
    let nobody = answered - began;
    // Calls out leave from it at once; what is said of it may be as late as the next look.
    let said = to.calls_out(world).await;
    assert_eq!((said.status, &*said.body), (200, "192.0.2.10"), "{said:?}");
    to.comes_to_say(true).await;
    let known = answered.elapsed();
    told.push(format!("{what}: the other machine answers after {nobody:.1?}, and says so {known:.1?} later"));
    assert!(nobody <= most(), "{}", told.join("\n"));
    assert!(known <= if full() { Duration::from_secs(5) } else { PATIENCE }, "{}", told.join("\n"));
    (began, answered)
}
