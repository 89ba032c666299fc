//! The real binary, with a config of the test's, in a directory of its own.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    PATIENCE,
    client::{Answer, Connection, Request, get, request},
    eventually,
    process::Process,
    when,
};

/// The path of [`Gateway::turn`]: nobody else's.
const TURN: &str = "/.turn";

/// A gatepost that isn't running yet.
pub(crate) struct Build {
    text: String,
    dir: TempDir,
    workers: usize,
    env: Vec<(String, String)>,
    how: How,
}

/// How the process is started.
#[derive(Default)]
struct How {
    /// `None`: the binary under test.
    binary: Option<PathBuf>,
    /// A listening socket that it is given, as systemd gives it.
    activated: Option<OwnedFd>,
    /// What is run instead, with all of that behind it.
    wrapper: Vec<String>,
}

/// A gatepost with this config. What a test has no word to say about is filled in: a listener `in`, the admin, the
/// access log and `state_dir`, all on port 0 and in the test's own directory; `@DIR@` in the text is that directory.
pub(crate) fn gateway(config: impl Into<String>) -> Build {
    Build {
        text: config.into(),
        dir: TempDir::with_prefix("gatepost-").unwrap(),
        workers: 2,
        env: Vec::new(),
        how: How::default(),
    }
}

impl Build {
    pub(crate) fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Starts that file, a copy of the binary.
    pub(crate) fn binary(mut self, path: &Path) -> Self {
        self.how.binary = Some(path.to_owned());
        self
    }

    /// Gives it a listening socket, as a socket unit would.
    pub(crate) fn activated(mut self, socket: OwnedFd) -> Self {
        self.how.activated = Some(socket);
        self
    }

    /// Starts this with gatepost's own command line behind it; it must become gatepost by exec.
    pub(crate) fn wrapped(mut self, words: &[&str]) -> Self {
        let dir = self.dir.path().display().to_string();
        self.how.wrapper = words.iter().map(|word| word.replace("@DIR@", &dir)).collect();
        self
    }

    /// Sets a variable of the process.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file in the gateway's directory.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub(crate) async fn start(self) -> Gateway {
        let gateway = self.spawn();
        gateway.ready().await;
        gateway
    }

    /// Starts a gatepost that must not come up: its exit code and what it said.
    pub(crate) async fn fails(self) -> (Option<i32>, String) {
        let mut gateway = self.spawn();
        let status = gateway.exit().await;
        (status.code(), gateway.stderr())
    }

    fn spawn(self) -> Gateway {
        let config = self.dir.path().join("gatepost.toml");
        let text = fill_in(&self.text, self.dir.path(), self.workers);
        fs::write(&config, text).unwrap();
        launch(self.how, self.dir, config, self.env)
    }
}

fn launch(how: How, dir: TempDir, config: PathBuf, env: Vec<(String, String)>) -> Gateway {
    let mut words = how.wrapper;
    let mut stdin = Stdio::null();
    if let Some(socket) = how.activated {
        // The shell moves it to where sd_listen_fds(3) says, and knows its own number, which stays.
        let script = "LISTEN_PID=$$ LISTEN_FDS=1; export LISTEN_PID LISTEN_FDS; exec \"$@\" 3<&0 0</dev/null";
        words.extend(["sh", "-c", script, "sh"].map(str::to_owned));
        stdin = socket.into();
    }
    let binary = how.binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_gatepost").into());
    words.push(binary.display().to_string());
    let mut child = Command::new(&words[0])
        .args(&words[1..])
        .arg("run")
        .arg("--config")
        .arg(&config)
        .envs(env)
        .current_dir(dir.path())
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = gather(child.stderr.take().unwrap());
    let stdout = gather(child.stdout.take().unwrap());
    Gateway { child, config, dir, stderr, stdout, later: Mutex::default() }
}

/// Adds what the text leaves out, and puts the directory in.
pub(crate) fn fill_in(text: &str, dir: &Path, workers: usize) -> String {
    let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if !text.contains("[listener.") {
        lines.extend(["[listener.in]".to_owned(), r#"address = "127.0.0.1:0""#.to_owned()]);
    }
    for (table, key, value) in [
        ("[server]", "workers", workers.to_string()),
        ("[server]", "state_dir", r#""@DIR@/state""#.to_owned()),
        ("[server]", "drain", r#""10s""#.to_owned()),
        ("[admin]", "address", r#""127.0.0.1:0""#.to_owned()),
        ("[log]", "access", r#""@DIR@/access.log""#.to_owned()),
    ] {
        let header = lines.iter().position(|line| line == table);
        let start = header.unwrap_or_else(|| {
            lines.push(table.to_owned());
            lines.len() - 1
        });
        let says = lines[start + 1..]
            .iter()
            .take_while(|line| !line.starts_with('['))
            .any(|line| line.split('=').next().unwrap_or_default().trim() == key);
        if !says {
            lines.insert(start + 1, format!("{key} = {value}"));
        }
    }
    (lines.join("\n") + "\n").replace("@DIR@", &dir.display().to_string())
}

pub(crate) type Gathered = Arc<Mutex<Vec<String>>>;

pub(crate) fn gather(from: impl Read + Send + 'static) -> Gathered {
    let lines = Gathered::default();
    let all = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            all_of(&all).push(line);
        }
    });
    lines
}

/// Its lines so far. A test that fails while it holds them must not make the gateway's `drop` fail as well.
pub(crate) fn all_of(gathered: &Gathered) -> MutexGuard<'_, Vec<String>> {
    gathered.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running gatepost; dropped, it is killed.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) config: PathBuf,
    dir: TempDir,
    stderr: Gathered,
    stdout: Gathered,
    /// The processes that it was handed over to, one after the other.
    later: Mutex<Vec<u32>>,
}

/// What a reload said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// `applied`, `rejected` or `unchanged`.
    pub(crate) result: String,
    pub(crate) generation: u64,
    /// The line it stands on.
    pub(crate) line: String,
}

impl Gateway {
    async fn ready(&self) {
        let pid = self.process();
        eventually("gatepost is ready", async || {
            let lines = all_of(&self.stderr);
            let dead = || fs::read_to_string(format!("/proc/{}/stat", pid.0)).map_or(true, |s| s.contains(") Z "));
            assert!(!dead(), "gatepost ended:\n{}", lines.join("\n"));
            when(lines.iter().any(|line| line.contains("ready generation=")))
        })
        .await;
    }

    pub(crate) fn process(&self) -> Process {
        Process(self.later.lock().unwrap().last().copied().unwrap_or_else(|| self.child.id()))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where that listener listens: what its latest `listening` line says.
    #[track_caller]
    pub(crate) fn address(&self, listener: &str) -> SocketAddr {
        self.try_address(listener).unwrap_or_else(|| panic!("{listener} doesn't listen:\n{}", self.stderr()))
    }

    pub(crate) fn try_address(&self, listener: &str) -> Option<SocketAddr> {
        let lines = all_of(&self.stderr);
        lines
            .iter()
            .rev()
            .filter(|line| line.contains(" listening ") && !line.contains("no longer"))
            .find(|line| word(line, "listener").as_deref() == Some(listener))
            .and_then(|line| word(line, "address")?.parse().ok())
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.address("admin")
    }

    /// All it said on stderr.
    pub(crate) fn stderr(&self) -> String {
        all_of(&self.stderr).join("\n")
    }

    pub(crate) fn stdout_lines(&self) -> Vec<String> {
        all_of(&self.stdout).clone()
    }

    /// Waits until stderr has a line with all these words.
    pub(crate) async fn says(&self, words: &[&str]) -> String {
        eventually(&format!("gatepost says {words:?}"), async || {
            let lines = all_of(&self.stderr);
            lines.iter().find(|line| words.iter().all(|word| line.contains(word))).cloned()
        })
        .await
    }

    /// The same config in the same directory, started once more; this one must have ended.
    pub(crate) async fn again(self) -> Self {
        self.again_as(How::default()).await
    }

    /// The same, with a listening socket that somebody has held meanwhile.
    pub(crate) async fn again_activated(self, socket: OwnedFd) -> Self {
        self.again_as(How { activated: Some(socket), ..How::default() }).await
    }

    async fn again_as(mut self, how: How) -> Self {
        assert!(self.child.try_wait().unwrap().is_some(), "it is still running");
        let dir = std::mem::replace(&mut self.dir, TempDir::with_prefix("gatepost-").unwrap());
        let again = launch(how, dir, self.config.clone(), Vec::new());
        again.ready().await;
        again
    }

    // Callers.

    /// A fresh connection to the listener `in`.
    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address("in")).await
    }

    /// The same, as a caller at that address of loopback.
    pub(crate) async fn connect_from(&self, ip: &str) -> Connection {
        Connection::from(ip, self.address("in")).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, request: impl Into<Request>) -> Answer {
        self.connect().await.send(request).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(target).await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Answer {
        let request = super::post(target).body(body.to_owned());
        self.send(request).await
    }

    /// Bytes that no client of ours would send; everything that came back until gatepost closed.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut connection = self.connect().await;
        // It may close before it has read everything, and what it said is what counts.
        let _ = connection.wire.write(bytes.as_ref()).await;
        connection.until_closed().await
    }

    // The config.

    pub(crate) fn config_text(&self) -> String {
        fs::read_to_string(&self.config).unwrap()
    }

    /// Replaces the config by rename, and waits for nothing.
    pub(crate) fn replace(&self, text: &str) {
        let text = text.replace("@DIR@", &self.dir.path().display().to_string());
        let new = self.dir.path().join("gatepost.toml.new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.config).unwrap();
    }

    /// Changes the config's text, and waits for what comes of it: `applied` or `rejected`.
    pub(crate) async fn edit(&self, change: impl FnOnce(&str) -> String) -> Receipt {
        let before = self.receipts().len();
        let old = self.config_text();
        let new = change(&old);
        assert_ne!(old, new, "the edit changes nothing");
        self.replace(&new);
        let what = format!("a receipt of the edit, stderr:\n{}", self.stderr());
        eventually(&what, async || {
            // A change and its undoing before it may still be owed an `unchanged`.
            let receipts = self.receipts();
            let mut new = receipts.into_iter().skip(before);
            new.find(|receipt| receipt.result != "unchanged")
        })
        .await
    }

    /// `edit` for the commonest change; fails where it wasn't applied.
    pub(crate) async fn swap(&self, from: &str, to: &str) -> Receipt {
        let receipt = self.edit(|text| text.replace(from, to)).await;
        assert_eq!(receipt.result, "applied", "{}", self.stderr());
        receipt
    }

    /// SIGHUP, and the receipt.
    pub(crate) async fn hup(&self) -> Receipt {
        let before = self.receipts().len();
        self.signal(Signal::HUP);
        self.receipt(before).await
    }

    /// Every receipt so far.
    pub(crate) fn receipts(&self) -> Vec<Receipt> {
        let lines = all_of(&self.stderr);
        lines
            .iter()
            .filter(|line| line.contains("reload"))
            .filter_map(|line| {
                Some(Receipt {
                    result: word(line, "result")?,
                    generation: word(line, "generation")?.parse().ok()?,
                    line: line.clone(),
                })
            })
            .collect()
    }

    /// Waits for the receipt behind the first `before`.
    pub(crate) async fn receipt(&self, before: usize) -> Receipt {
        let what = format!("receipt {}, stderr:\n{}", before + 1, self.stderr());
        eventually(&what, async || self.receipts().get(before).cloned()).await
    }

    // What it tells.

    /// The access log in the order in which it was written (of one worker: in the order of the requests), as soon as it has that many lines; fails where it has more.
    pub(crate) async fn log(&self, lines: usize) -> Vec<Value> {
        let path = self.dir.path().join("access.log");
        let all = eventually(&format!("{lines} lines in the access log"), async || {
            let all = log_lines(&path);
            (all.len() >= lines).then_some(all)
        })
        .await;
        assert_eq!(all.len(), lines, "{all:#?}");
        all
    }

    /// What the access log has by now.
    pub(crate) fn log_lines(&self) -> Vec<Value> {
        log_lines(&self.dir.path().join("access.log"))
    }

    /// The access log's only line.
    pub(crate) async fn log_line(&self) -> Value {
        self.log(1).await.remove(0)
    }

    /// Has a request of its own answered, after which a gatepost of one worker has looked at everything that had reached it before.
    pub(crate) async fn turn(&self) {
        self.send(request("TRACE", TURN)).await.is_problem(405, "method_not_allowed");
    }

    /// The access log once nothing is under way any more, which then has exactly so many lines, those of [`turn`](Self::turn) left out.
    pub(crate) async fn all_told(&self, lines: usize) -> Vec<Value> {
        self.counts("gatepost_in_flight", &[], 0.0).await;
        let path = self.dir.path().join("access.log");
        let log = || log_lines(&path).into_iter().partition::<Vec<_>, _>(|line| line["path"] == TURN);
        eventually(&format!("{lines} lines in the access log"), async || when(log().1.len() >= lines)).await;
        let turns = log().0.len();
        // A line too many would stand before this one.
        self.turn().await;
        eventually("the turn's own line", async || when(log().0.len() > turns)).await;
        let (_, all) = log();
        assert_eq!(all.len(), lines, "{all:#?}");
        all
    }

    pub(crate) async fn ask_admin(&self, target: &str) -> Answer {
        Connection::open(self.admin()).await.send(get(target)).await
    }

    /// Waits until the series of that name with these labels total `value`.
    pub(crate) async fn counts(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut seen = f64::NAN;
        let right = async {
            // A request is counted when it is over, and that may be after its answer arrived.
            while seen != value {
                seen = self.metrics().await.sum(name, labels);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, right).await.is_ok();
        assert!(in_time, "{name} {labels:?} is {seen}, not {value}");
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        let answer = self.ask_admin("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        Metrics::parse(&answer.text())
    }

    // The process.

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process().0).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    // Upgrades.

    /// `gatepost upgrade` with these words: its exit code, and what it said.
    pub(crate) async fn ask_for_upgrade(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.arg("upgrade").arg("--config").arg(&self.config).args(words).stdin(Stdio::null());
        let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = [done.stdout, done.stderr].concat();
        (done.status.code(), String::from_utf8(said).unwrap())
    }

    /// An upgrade that must come off. What is asked of this gateway from now on is asked of the new process; the old one's number.
    pub(crate) async fn upgrade(&self) -> Process {
        let before = self.process();
        let (code, said) = self.ask_for_upgrade(&["--json", "--timeout", "60"]).await;
        assert_eq!(code, Some(0), "{said}\n{}", self.stderr());
        let receipt: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
        assert_eq!((&receipt["result"], &receipt["from"]["pid"]), (&"upgraded".into(), &before.0.into()), "{receipt}");
        self.is_now(u32::try_from(receipt["to"]["pid"].as_u64().unwrap()).unwrap());
        // Both accept for a moment.
        let upgrades = self.later.lock().unwrap().len();
        eventually("the old one accepts no more", async || {
            let lines = all_of(&self.stderr);
            when(lines.iter().filter(|line| line.contains("draining for the new process")).count() >= upgrades)
        })
        .await;
        before
    }

    /// It has become this process.
    pub(crate) fn is_now(&self, pid: u32) {
        self.later.lock().unwrap().push(pid);
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("gatepost ends", async || child.try_wait().unwrap()).await;
        // What it wrote last may still be on its way through the pipe: its reader lets go of the lines at the end.
        let (out, err) = (&self.stdout, &self.stderr);
        eventually("its last words are read", async || when(Arc::strong_count(out) + Arc::strong_count(err) == 2))
            .await;
        status
    }

    /// SIGTERM, and its end; fails unless that was an orderly one.
    pub(crate) async fn stop(&mut self) {
        self.terminate();
        let status = self.exit().await;
        assert!(status.success(), "{status}:\n{}", self.stderr());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for pid in self.later.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let process = Process(pid);
            if process.runs(&self.config)
                && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- gatepost's stderr:\n{}\n---", self.stderr());
        }
    }
}

/// Every whole line of an access log.
pub(crate) fn log_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

/// The value of `name=value` or `name="va lue"` in a log line.
pub(crate) fn word(line: &str, name: &str) -> Option<String> {
    let key = format!(" {name}=");
    let at = line.find(&key)? + key.len();
    let rest = &line[at..];
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split_whitespace().next(),
    };
    value.map(str::to_owned)
}

/// A scrape of the metrics.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<(String, BTreeMap<String, String>, f64)>);

impl Metrics {
    pub(crate) fn parse(text: &str) -> Self {
        let series = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels
                .strip_suffix('}')?
                .split("\",")
                .filter_map(|label| label.split_once("=\""))
                .map(|(k, v)| (k.to_owned(), v.trim_end_matches('"').to_owned()))
                .collect();
            Some((name.to_owned(), labels, value.parse().ok()?))
        };
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .map(|line| series(line).unwrap_or_else(|| panic!("not a metric: {line}")))
                .collect(),
        )
    }

    /// The sum over all series of that name with these labels; 0 where there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.0
            .iter()
            .filter(|(n, has, _)| n == name && labels.iter().all(|&(k, v)| has.get(k).is_some_and(|h| h == v)))
            .map(|(_, _, value)| value)
            .sum()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, ..)| name.as_str()).collect()
    }
}
