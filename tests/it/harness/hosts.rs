//! Machines of a test's own: network namespaces on one bridge, each with processes of its own. A machine lives as long as the pipe to its first
//! process: when the test ends, in whatever way, the kernel ends all that runs there, and the namespace with it.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    net::Ipv4Addr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use rustix::{
    process::{Pid, Signal, geteuid, kill_process},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    eventually,
    gateway::{Gathered, all_of, gather},
    when,
};

/// What all such tests call: command, and Debian's package for it.
const NEEDED: [(&str, &str); 3] = [("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")];

/// Runs `story` on a machine of its own, with the address `192.0.2.1/24` (RFC 5737) on a bridge that [`Network::host`] puts others on. `also`: further
/// commands that it calls, and Debian's packages for them. Fails where something is missing.
pub(crate) fn on_a_network(also: &[(&str, &str)], story: impl AsyncFnOnce(Network) + Send + 'static) {
    are_there(also);
    in_a_namespace(async move |world| {
        run("ip", "link add br0 type bridge");
        run("ip", "addr add 192.0.2.1/24 dev br0");
        run("ip", "addr add 2001:db8::1/64 dev br0 nodad");
        run("ip", "link set br0 up");
        story(Network { _world: world }).await;
    });
}

/// Runs `story` on a machine that has every address there is, IPv4 and IPv6: whatever is dialled arrives there, and nothing leaves.
pub(crate) fn where_every_address_is_here(story: impl AsyncFnOnce() + Send + 'static) {
    are_there(&[]);
    in_a_namespace(async move |_world| {
        run("ip", "route add local 0.0.0.0/0 dev lo");
        run("ip", "-6 route add local ::/0 dev lo");
        story().await;
    });
}

#[track_caller]
fn are_there(also: &[(&str, &str)]) {
    let missing: Vec<_> = NEEDED
        .iter()
        .chain(also)
        .filter(|(command, _)| found(command).is_none())
        .map(|(_, package)| *package)
        .collect();
    assert!(missing.is_empty(), "this test needs Debian's packages {missing:?}: apt-get install {}", missing.join(" "));
    assert!(geteuid().is_root(), "this test makes network namespaces, and so needs root");
}

fn in_a_namespace(story: impl AsyncFnOnce(Holder) + Send + 'static) {
    let thread = thread::spawn(|| {
        let world = Holder::start(&["--net"]);
        // What this thread starts and opens from now on is of that namespace; no other thread is moved.
        let space = File::open(format!("/proc/{}/ns/net", world.first)).unwrap();
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        run("ip", "link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(story(world));
    });
    if let Err(panicked) = thread.join() {
        std::panic::resume_unwind(panicked);
    }
}

/// The path of a command; the system's own are not on everybody's `PATH`.
pub(crate) fn found(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(command)).find(|path| path.is_file())
}

/// Runs a command in this thread's namespace; fails unless it does well.
#[track_caller]
fn run(command: &str, arguments: &str) {
    ends_well(Command::new(found(command).unwrap()).args(arguments.split(' ')));
}

#[track_caller]
fn ends_well(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A process that does nothing but hold namespaces, until its stdin ends.
struct Holder {
    child: Child,
    /// Its number, seen from here.
    first: u32,
}

impl Holder {
    fn start(spaces: &[&str]) -> Self {
        let mut child = Command::new("unshare")
            .args(spaces)
            .args(["sh", "-c", "echo up; exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It grumbles when it is ended.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(
            line, "up\n",
            "no namespace by unshare {spaces:?}: this test needs root, outside of a sandbox that forbids it"
        );
        let first = only_child(child.id()).unwrap_or_else(|| child.id());
        Self { child, first }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = kill(self.first);
        let _ = self.child.wait();
    }
}

fn kill(pid: u32) -> Option<()> {
    kill_process(Pid::from_raw(pid.try_into().ok()?)?, Signal::KILL).ok()
}

fn only_child(pid: u32) -> Option<u32> {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.trim().parse().ok()
}

pub(crate) struct Network {
    _world: Holder,
}

impl Network {
    /// One more machine on the bridge, with that address on its `eth0`.
    pub(crate) fn host(&self, name: &'static str, ip: Ipv4Addr) -> Host {
        let holder = Holder::start(&["--net", "--pid", "--fork", "--kill-child=KILL"]);
        run("ip", &format!("link add {name} type veth peer name eth0 netns {}", holder.first));
        run("ip", &format!("link set {name} master br0 up"));
        let host = Host { name, holder };
        host.run("ip link set lo up");
        host.run("ip link set eth0 up");
        host.run(&format!("ip addr add {ip}/24 dev eth0"));
        host
    }
}

/// A machine; dropped, it is off.
pub(crate) struct Host {
    pub(crate) name: &'static str,
    holder: Holder,
}

impl Host {
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--pid", "--target"]).arg(self.holder.first.to_string()).arg("--").arg(program);
        command
    }

    /// Runs a command there, its words apart by spaces; fails unless it does well.
    #[track_caller]
    pub(crate) fn run(&self, words: &str) {
        let (program, arguments) = words.split_once(' ').unwrap();
        ends_well(self.command(&found(program).unwrap()).args(arguments.split(' ')));
    }

    /// What a command there printed, on both streams, and whether it did well.
    pub(crate) fn says(&self, program: &Path, arguments: &[&str]) -> (bool, String) {
        let output = self.command(program).args(arguments).stdin(Stdio::null()).output().unwrap();
        let both = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&both).into_owned())
    }

    /// Starts something there that goes on.
    pub(crate) fn start(&self, program: &Path, arguments: &[&str]) -> Daemon {
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
        let name = format!("{}: {}", self.name, program.file_name().unwrap().to_string_lossy());
        Daemon { name, child, out, err }
    }

    /// Its link to the bridge.
    pub(crate) fn link(&self, state: &str) {
        run("ip", &format!("link set {} {state}", self.name));
    }

    /// Ends all that runs there at once, as when the current fails.
    pub(crate) fn switch_off(self) {
        drop(self);
    }
}

/// A process on a [`Host`]; dropped, it is killed.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    out: Gathered,
    err: Gathered,
}

impl Daemon {
    /// All that it said.
    pub(crate) fn said(&self) -> String {
        [&self.out, &self.err].map(|lines| all_of(lines).join("\n")).join("\n")
    }

    pub(crate) async fn says(&self, words: &[&str]) {
        self.says_again(words, 1).await;
    }

    /// The same, for the `times`th time.
    pub(crate) async fn says_again(&self, words: &[&str], times: usize) {
        eventually(&format!("{} says {words:?}; it said:\n{}", self.name, self.said()), async || {
            let said = self.said();
            when(said.lines().filter(|line| words.iter().all(|word| line.contains(word))).count() >= times)
        })
        .await;
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // `nsenter` waits for it, in the namespace of processes that it was started from.
        let _ = only_child(self.child.id()).and_then(kill);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- {}:\n{}\n---", self.name, self.said());
        }
    }
}
