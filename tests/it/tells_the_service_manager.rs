//! What systemd is told (sd_notify(3)), in which order, and when it hears no sign of life; and sockets that it opened.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use crate::harness::{Gateway, Origin, Reply, eventually, gateway, load::load, origin, websocket::WebSocket, when};

/// The socket that a service manager listens on.
struct Manager {
    _dir: TempDir,
    path: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let all = heard.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = socket.recv(&mut buffer) {
                all.lock().unwrap().push(String::from_utf8_lossy(&buffer[..n]).into_owned());
            }
        });
        Self { _dir: dir, path, heard }
    }

    /// All but signs of life.
    fn heard(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|message| !message.contains("WATCHDOG=1")).cloned().collect()
    }

    fn signs_of_life(&self) -> usize {
        self.heard.lock().unwrap().iter().filter(|message| message.contains("WATCHDOG=1")).count()
    }

    /// Waits for a message with these words, behind the first `after`; where it stands.
    async fn hears(&self, after: usize, words: &[&str]) -> usize {
        let what = format!("systemd hears {words:?} behind {after} of {:?}", self.heard());
        eventually(&what, async || {
            let heard = self.heard();
            let has = |message: &String| words.iter().all(|word| message.contains(word));
            heard.iter().skip(after).position(has).map(|at| at + after)
        })
        .await
    }
}

async fn managed(more: &str, env: &[(&str, &str)]) -> (Manager, Gateway, Origin) {
    let (manager, function) = (Manager::start(), origin().reply(Reply::websocket()).start().await);
    let text =
        format!("{more}\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n", function.url());
    let build = gateway(text).env("NOTIFY_SOCKET", manager.path.to_str().unwrap());
    let gateway = env.iter().fold(build, |build, (name, value)| build.env(name, value)).start().await;
    (manager, gateway, function)
}

#[tokio::test]
async fn ready_reloading_and_stopping_come_in_order_with_a_true_status() {
    let (manager, mut gateway, _function) = managed("", &[]).await;
    let ready = manager.hears(0, &["READY=1", "STATUS=generation 1: 1 listeners, 1 routes, 1 functions"]).await;
    gateway.swap("[route.f]", "[route.f]\npath = \"/f\"").await;
    let reloading = manager.hears(ready + 1, &["RELOADING=1", "MONOTONIC_USEC="]).await;
    let again = manager.hears(reloading + 1, &["READY=1", "STATUS=generation 2"]).await;
    // A file that is refused: what serves is said, and that it is not what the file says.
    let receipt = gateway.edit(|text| text.replace("[route.f]", "[rout.f]")).await;
    assert_eq!(receipt.result, "rejected");
    let refused = manager.hears(again + 1, &["STATUS=generation 2", "the newer config is refused"]).await;
    gateway.replace(&gateway.config_text().replace("[rout.f]", "[route.f]"));
    let mended = manager.hears(refused + 1, &["STATUS=generation 2"]).await;
    assert!(!manager.heard()[mended].contains("refused"), "{:?}", manager.heard());
    gateway.stop().await;
    let stopping = manager.hears(mended + 1, &["STOPPING=1", "STATUS=draining"]).await;
    assert_eq!(stopping + 1, manager.heard().len(), "{:?}", manager.heard());
}

#[tokio::test]
async fn an_upgrade_names_the_new_main_process_before_that_one_is_ready() {
    let (manager, gateway, _function) = managed("", &[]).await;
    let socket = WebSocket::open(gateway.connect().await, "/").await;
    let ready = manager.hears(0, &["READY=1"]).await;
    let old = gateway.upgrade().await;
    let main = manager.hears(ready + 1, &[&format!("MAINPID={}", gateway.process().0)]).await;
    let serving = manager.hears(main + 1, &["READY=1", "STATUS=generation 1"]).await;
    socket.close().await.unwrap();
    eventually("the old one ends", async || when(!old.lives())).await;
    // It has nothing more to say: it is not the main process any more.
    gateway.terminate();
    let stopping = manager.hears(serving + 1, &["STOPPING=1"]).await;
    assert_eq!(manager.heard().iter().filter(|message| message.contains("STOPPING")).count(), 1);
    assert!(stopping > serving);
}

#[tokio::test]
async fn signs_of_life_come_from_whoever_is_the_main_process() {
    let own = std::process::id().to_string();
    // Of another process: systemd sets it for the one that it started.
    let (quiet, other, _f) = managed("", &[("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", &own)]).await;
    let (manager, gateway, _function) = managed("", &[("WATCHDOG_USEC", "1000000")]).await;
    eventually("signs of life", async || when(manager.signs_of_life() > 3)).await;
    eventually("the old one ends", {
        let old = gateway.upgrade().await;
        async move || when(!old.lives())
    })
    .await;
    let so_far = manager.signs_of_life();
    eventually("signs of life of the new one", async || when(manager.signs_of_life() > so_far + 3)).await;
    assert_eq!(quiet.signs_of_life(), 0);
    drop(other);
}

/// A worker is held in the middle of its work by strace (Debian's package `strace`), which makes its next wait for events last.
#[tokio::test]
async fn a_worker_that_hangs_is_no_sign_of_life() {
    let (manager, gateway, _function) = managed("", &[("WATCHDOG_USEC", "2000000")]).await;
    eventually("signs of life", async || when(manager.signs_of_life() > 2)).await;
    let tasks = format!("/proc/{}/task", gateway.process().0);
    let worker = std::fs::read_dir(tasks)
        .unwrap()
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == "worker-0")
        .unwrap();
    let tid = worker.file_name().unwrap().to_str().unwrap().to_owned();
    let mut holds = Command::new("strace")
        .args(["-qq", "-e", "trace=epoll_wait,epoll_pwait,epoll_pwait2", "-e"])
        .args(["inject=epoll_wait,epoll_pwait,epoll_pwait2:delay_enter=60000000", "-o", "/dev/null", "-p", &tid])
        .spawn()
        .expect("strace is missing: apt-get install strace");
    gateway.says(&["worker 0 does not move", "no sign of life"]).await;
    let so_far = manager.signs_of_life();
    // One that was on its way, at most, over what systemd would wait.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(manager.signs_of_life() <= so_far + 1, "{} after {so_far}", manager.signs_of_life());
    // Let go, it is well again.
    holds.kill().unwrap();
    holds.wait().unwrap();
    eventually("signs of life again", async || when(manager.signs_of_life() > so_far + 3)).await;
}

// Sockets that systemd opened.

fn activated(function: &Origin, address: &str) -> String {
    format!(
        "[server]\ndrain = \"5s\"\n[listener.in]\naddress = \"{address}\"\n[function.f]\nversions = {{ v1 = \"{}\" }}\n[route.f]\nfunction = \"f\"\n",
        function.url()
    )
}

#[tokio::test]
async fn a_restart_behind_a_socket_unit_refuses_nobody() {
    let function = origin().start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let held = || OwnedFd::from(listener.try_clone().unwrap());
    let mut gateway = gateway(activated(&function, &address.to_string())).activated(held()).start().await;
    assert_eq!(gateway.address("in"), address);
    let calling = load(address, 100);
    for _ in 0..3 {
        let answered = calling.so_far().ok();
        eventually("calls are answered", async || when(calling.so_far().ok() > answered + 20)).await;
        gateway.stop().await;
        gateway = gateway.again_activated(held()).await;
    }
    let answered = calling.so_far().ok();
    eventually("calls are answered", async || when(calling.so_far().ok() > answered + 20)).await;
    let tally = calling.finish().await;
    assert!(tally.failed.is_empty(), "{:?} of {}", tally.failed, tally.sent);
    // An upgrade takes them along as well, and a listener that goes and comes again gets its socket back.
    gateway.upgrade().await;
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.swap(&format!("address = \"{address}\"\n[function"), "address = \"127.0.0.1:0\"\n[function").await;
    gateway.swap("address = \"127.0.0.1:0\"\n[function", &format!("address = \"{address}\"\n[function")).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_socket_that_nobody_asked_for_is_told_of() {
    let function = origin().start().await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let gateway = gateway(activated(&function, "127.0.0.1:0")).activated(listener.into()).start().await;
    gateway.says(&["systemd listens there for gatepost", &address]).await;
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn a_socket_of_another_kind_is_refused_with_what_to_do() {
    let function = origin().start().await;
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (code, said) = gateway(activated(&function, "127.0.0.1:0")).activated(datagrams.into()).fails().await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("descriptor 3 from the socket unit") && said.contains("ListenStream="), "{said}");
}
