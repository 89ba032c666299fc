//! A real Redis, in a directory of the test's own.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{eventually, ports::free};

pub(crate) struct Redis {
    child: Option<Child>,
    pub(crate) address: SocketAddr,
    config: Vec<String>,
    dir: TempDir,
}

impl Redis {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With these lines in its config.
    pub(crate) async fn with(lines: &[String]) -> Self {
        let dir = TempDir::with_prefix("redis-").unwrap();
        // It can't report a port that the kernel chose.
        let mut redis = Self { child: None, address: free("127.0.0.1"), config: lines.to_vec(), dir };
        redis.again().await;
        redis
    }

    /// With TLS alone.
    pub(crate) async fn with_tls(cert: &Path, key: &Path) -> Self {
        let lines = [
            "tls-auth-clients no".to_owned(),
            format!("tls-cert-file {}", cert.display()),
            format!("tls-key-file {}", key.display()),
        ];
        Self::with(&lines).await
    }

    fn is_tls(&self) -> bool {
        self.config.iter().any(|line| line.starts_with("tls-cert-file"))
    }

    /// Starts it at the same address, with nothing remembered.
    pub(crate) async fn again(&mut self) {
        let port = self.address.port();
        let ports = if self.is_tls() { format!("port 0\ntls-port {port}") } else { format!("port {port}") };
        let conf = format!(
            "bind 127.0.0.1\n{ports}\nsave \"\"\nappendonly no\ndir {here}\nlogfile {here}/log\n{}\n",
            self.config.join("\n"),
            here = self.dir.path().display(),
        );
        let file = self.dir.path().join("redis.conf");
        fs::write(&file, conf).unwrap();
        let child = Command::new("redis-server")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs Redis: apt-get install redis-server");
        self.child = Some(child);
        eventually("Redis listens", async || {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "Redis ended: {}", log());
            TcpStream::connect(self.address).await.ok()
        })
        .await;
    }

    /// At once, with all that it knew.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `redis://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Says this on a connection of its own; all that comes back until it is closed.
    pub(crate) async fn ask(&self, commands: &[&str]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let text: String = commands.iter().map(|command| format!("{command}\r\n")).collect();
        stream.write_all(format!("{text}QUIT\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// How often it was asked to run a script, by whomsoever.
    pub(crate) async fn scripts(&self) -> u64 {
        let stats = self.ask(&["INFO commandstats"]).await;
        let calls = |name: &str| {
            let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{name}:calls=")))?;
            line.split(['=', ',']).nth(1)?.parse::<u64>().ok()
        };
        ["evalsha", "eval"].into_iter().filter_map(calls).sum()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
