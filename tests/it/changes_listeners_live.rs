//! Listeners change their names, addresses and ways while they serve, and nobody is turned away.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use tokio::net::TcpStream;

use crate::harness::{
    Connection, Gateway, Origin, Reply, authority, eventually, gateway, load::load, origin, ports::free, when,
};

/// A gatepost with these listeners; who asks for `/who` at the one called `a` hears "a", everybody else "all".
async fn listening(listeners: &str) -> (Gateway, [Origin; 2]) {
    let all = origin().reply(Reply::text("all")).start().await;
    let only_a = origin().reply(Reply::text("a")).start().await;
    let gateway = gateway(format!(
        r#"
        {listeners}
        [function.f]
        versions = {{ v1 = "{}" }}
        [function.a]
        versions = {{ v1 = "{}" }}
        [route.f]
        function = "f"
        [route.a]
        listeners = ["a"]
        path = "/who"
        function = "a"
        "#,
        all.url(),
        only_a.url()
    ))
    .start()
    .await;
    (gateway, [all, only_a])
}

async fn who(address: SocketAddr) -> String {
    Connection::open(address).await.send("/who").await.text()
}

#[tokio::test]
async fn two_listeners_swap_their_names() {
    let (one, two) = (free("127.0.0.1"), free("127.0.0.1"));
    let listeners = |a, b| format!("[listener.a]\naddress = \"{a}\"\n[listener.b]\naddress = \"{b}\"");
    let (gateway, _functions) = listening(&listeners(one, two)).await;
    assert_eq!((who(one).await, who(two).await), ("a".to_owned(), "all".to_owned()));
    let (load_one, load_two) = (load(one, 100), load(two, 100));
    let mut kept = Connection::open(one).await;
    kept.send("/").await;
    gateway.swap(&listeners(one, two), &listeners(two, one)).await;
    assert_eq!((who(one).await, who(two).await), ("all".to_owned(), "a".to_owned()));
    assert!(kept.closes_within(Duration::from_secs(5)).await, "it belongs to a listener that is elsewhere");
    for load in [load_one, load_two] {
        assert_eq!(load.finish().await.failed, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_listener_is_renamed_and_another_gets_its_old_name() {
    let (one, two) = (free("127.0.0.1"), free("127.0.0.1"));
    let old = format!("[listener.a]\naddress = \"{one}\"");
    let (gateway, _functions) = listening(&old).await;
    let callers = load(one, 100);
    let new = format!("[listener.renamed]\naddress = \"{one}\"\n[listener.a]\naddress = \"{two}\"");
    gateway.swap(&old, &new).await;
    assert_eq!((who(one).await, who(two).await), ("all".to_owned(), "a".to_owned()));
    assert_eq!(callers.finish().await.failed, Vec::<String>::new());
    // Whoever watches by name finds it.
    assert_eq!(gateway.address("renamed"), one);
}

#[tokio::test]
async fn from_every_address_to_one_of_the_same_port_and_back() {
    let port = free("0.0.0.0").port();
    let every = format!("[listener.a]\naddress = \"0.0.0.0:{port}\"");
    let one = format!("[listener.a]\naddress = \"127.0.0.1:{port}\"");
    let (gateway, _functions) = listening(&every).await;
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
    assert_eq!(who(elsewhere).await, "a");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let callers = load(address, 200);
    gateway.swap(&every, &one).await;
    eventually("only one address listens", async || when(Connection::try_open(elsewhere).await.is_err())).await;
    gateway.swap(&one, &every).await;
    assert_eq!(who(elsewhere).await, "a");
    let tally = callers.finish().await;
    assert_eq!(tally.failed, Vec::<String>::new());
    // And nobody else may share the port.
    assert!(TcpListener::bind(address).is_err());
}

#[tokio::test]
async fn a_moved_listener_keeps_its_new_callers() {
    let (one, two) = (free("127.0.0.1"), free("127.0.0.1"));
    let (gateway, _functions) = listening(&format!("[listener.a]\naddress = \"{one}\"")).await;
    let mut old = Connection::open(one).await;
    old.send("/").await;
    gateway.swap(&one.to_string(), &two.to_string()).await;
    let mut new = Connection::open(two).await;
    new.send("/").await;
    assert!(old.closes_within(Duration::from_secs(5)).await);
    assert!(!new.closes_within(Duration::from_millis(300)).await, "it was taken for one of the old address");
    assert_eq!(new.send("/who").await.text(), "a");
}

#[tokio::test]
async fn from_plain_to_tls_on_the_same_port_and_back() {
    let authority = authority();
    let leaf = authority.leaf(&["one.test"]);
    let address = free("127.0.0.1");
    let plain = format!("[listener.a]\naddress = \"{address}\"");
    let secure = format!("{plain}\ntls = [{}]", leaf.toml());
    let (gateway, _functions) = listening(&plain).await;
    let mut in_the_clear = Connection::open(address).await;
    in_the_clear.send("/").await;
    gateway.swap(&plain, &secure).await;
    assert!(in_the_clear.closes_within(Duration::from_secs(5)).await, "plain text goes on where TLS is a must");
    let tcp = TcpStream::connect(address).await.unwrap();
    let (stream, _) = authority.caller(&["http/1.1"]).handshake(tcp, "one.test").await.unwrap();
    let mut secured = Connection::over(stream);
    assert_eq!(secured.send("/who").await.text(), "a");
    gateway.swap(&secure, &plain).await;
    assert_eq!(who(address).await, "a");
}

#[tokio::test]
async fn one_that_cannot_be_had_leaves_no_other_behind() {
    let (one, two) = (free("127.0.0.1"), free("127.0.0.1"));
    let (gateway, _functions) = listening(&format!("[listener.a]\naddress = \"{one}\"")).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let more =
        format!("\n[listener.b]\naddress = \"{two}\"\n[listener.c]\naddress = \"{}\"\n", taken.local_addr().unwrap());
    let receipt = gateway.edit(|text| text.replace(&one.to_string(), &free("127.0.0.1").to_string()) + &more).await;
    assert_eq!(receipt.result, "rejected");
    gateway.says(&["listener c", "in use"]).await;
    assert!(Connection::try_open(two).await.is_err(), "half of the listeners");
    assert_eq!(who(one).await, "a");
    TcpListener::bind(two).unwrap();
}

#[tokio::test]
async fn a_unix_socket_changes_its_mode_and_its_path_and_goes() {
    let (gateway, _functions) = listening(
        "[listener.a]\naddress = \"unix:@DIR@/one.sock\"\nmode = \"0600\"\n[listener.b]\naddress = \"127.0.0.1:0\"",
    )
    .await;
    let (one, two) = (gateway.dir().join("one.sock"), gateway.dir().join("two.sock"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut kept = Connection::unix(&one).await;
    kept.send("/").await;
    assert_eq!(mode(&one), 0o600);
    gateway.swap("0600", "0660").await;
    assert_eq!(mode(&one), 0o660);
    assert_eq!(kept.send("/who").await.text(), "a", "a mode is for those who come");
    gateway.swap("one.sock", "two.sock").await;
    assert_eq!(Connection::unix(&two).await.send("/who").await.text(), "a");
    assert!(!one.exists(), "the old path is left behind");
    // Away and back at once: the path is the new socket's.
    let listener = format!("[listener.a]\naddress = \"unix:{}\"\nmode = \"0660\"\n", two.display());
    gateway.edit(|text| text.replace(&listener, "").replace("listeners = [\"a\"]", "listeners = [\"b\"]")).await;
    assert!(!two.exists());
    gateway.edit(|text| format!("{text}\n{listener}")).await;
    assert_eq!(Connection::unix(&two).await.send("/").await.text(), "all");
    // The old one says so when it is gone, and its path with it.
    gateway.says(&["no longer listening", "listener=a", "two.sock"]).await;
    assert!(two.exists(), "it was taken for the old one");
}

#[tokio::test]
async fn the_admin_moves() {
    let port = free("0.0.0.0").port();
    let every = format!("[admin]\naddress = \"0.0.0.0:{port}\"");
    let one = format!("[admin]\naddress = \"127.0.0.1:{port}\"");
    let (mut gateway, _functions) = listening(&format!("{every}\n[listener.a]\naddress = \"127.0.0.1:0\"")).await;
    let ask = async |address: SocketAddr| Connection::open(address).await.send("/readyz").await.status;
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], port));
    assert_eq!(ask(elsewhere).await, 200);
    gateway.swap(&every, &one).await;
    assert_eq!(ask(SocketAddr::from(([127, 0, 0, 1], port))).await, 200);
    eventually("the old address is closed", async || when(Connection::try_open(elsewhere).await.is_err())).await;
    let path = gateway.dir().join("admin.sock");
    gateway.swap(&one, "[admin]\naddress = \"unix:@DIR@/admin.sock\"").await;
    assert_eq!(Connection::unix(&path).await.send("/readyz").await.status, 200);
    // A listener may have the port now.
    let freed = format!("\n[listener.b]\naddress = \"127.0.0.1:{port}\"\n");
    gateway.edit(|text| text.to_owned() + &freed).await;
    eventually("the listener has it", async || {
        when(Connection::open(SocketAddr::from(([127, 0, 0, 1], port))).await.send("/").await.text() == "all")
    })
    .await;
    gateway.stop().await;
    assert!(!path.exists(), "the admin's socket is left behind");
}

#[tokio::test]
async fn caps_on_connections_change_with_a_reload_and_places_come_back() {
    let (gateway, _functions) = listening("[listener.a]\naddress = \"127.0.0.1:0\"\nmax_connections = 8").await;
    let address = gateway.address("a");
    let held = async |most: usize| {
        let mut held = Vec::new();
        for _ in 0..most {
            let mut connection = Connection::open(address).await;
            match connection.try_send("/").await {
                Ok(answer) if answer.status == 200 => held.push(connection),
                Ok(answer) => assert_eq!(answer.header("x-gatepost-reason"), Some("overloaded")),
                // Turned away while it was still asking.
                Err(_) => {}
            }
        }
        held
    };
    let nobody = async || {
        gateway.counts("gatepost_connections", &[("listener", "a")], 0.0).await;
    };
    assert_eq!(held(12).await.len(), 8);
    nobody().await;
    gateway.swap("max_connections = 8", "max_connections = 3").await;
    assert_eq!(held(12).await.len(), 3);
    nobody().await;
    gateway
        .edit(|text| text.replace("max_connections = 3\n", "").replace("[server]", "[server]\nmax_connections = 5"))
        .await;
    assert_eq!(held(12).await.len(), 5);
    nobody().await;
    // However they end: without a word, in the middle of a head, or with one that is none.
    for words in ["", "GET / HT", "nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut connection = Connection::open(address).await;
        connection.write(words).await;
    }
    nobody().await;
    assert_eq!(held(12).await.len(), 5);
}
