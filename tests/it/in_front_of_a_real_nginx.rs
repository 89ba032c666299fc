//! A real nginx as the function: what scripted origins might be too polite to do.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::{Gateway, eventually, gateway, get, ports::free, reply::made};

/// nginx closes a connection that was idle for so long.
const IDLE: Duration = Duration::from_millis(100);
const LARGE: u64 = 32 * 1024 * 1024;

struct Nginx {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Nginx {
    async fn start() -> Self {
        let dir = TempDir::with_prefix("nginx-").unwrap();
        let root = dir.path().join("www");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("small.txt"), "hello from nginx\n").unwrap();
        fs::write(root.join("words.txt"), "over and over again, ".repeat(20_000)).unwrap();
        let large: Vec<u8> = (0..LARGE / 65_536).flat_map(|n| made(n * 65_536, 65_536).to_vec()).collect();
        fs::write(root.join("large.bin"), large).unwrap();
        // nginx can't report a port that the kernel chose.
        let address = free("127.0.0.1");
        let here = dir.path().display();
        let conf = format!(
            "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;
            user root;
            events {{ }}
            http {{
                access_log {here}/access.log; default_type text/plain;
                client_body_temp_path {here}/body; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f;
                uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
                keepalive_timeout {}ms; client_max_body_size 0;
                gzip on; gzip_min_length 1000; gzip_proxied any; gzip_types text/plain;
                server {{
                    listen {address}; root {here}/www;
                    location /put/ {{ dav_methods PUT; create_full_put_path on; }}
                }}
            }}",
            IDLE.as_millis()
        );
        let file = dir.path().join("nginx.conf");
        fs::write(&file, conf).unwrap();
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let child = Command::new("nginx")
            .env("PATH", path)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs nginx: apt-get install nginx");
        let mut nginx = Self { child, address, dir };
        eventually("nginx listens", async || {
            let ended = nginx.child.try_wait().unwrap();
            let log = || fs::read_to_string(nginx.dir.path().join("error.log")).unwrap_or_default();
            assert!(ended.is_none(), "nginx ended: {}", log());
            TcpStream::connect(address).await.ok()
        })
        .await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM: its worker must go with it.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

async fn in_front() -> (Gateway, Nginx) {
    let nginx = Nginx::start().await;
    let gateway = gateway(format!(
        "[function.web]\nversions = {{ v1 = \"http://{}\" }}\n[route.web]\npath = \"/*\"\nfunction = \"web\"\n",
        nginx.address
    ))
    .workers(1)
    .start()
    .await;
    (gateway, nginx)
}

/// A real client as well.
fn curl(gateway: &Gateway, path: &str, more: &[&str]) -> Output {
    let url = format!("http://{}{path}", gateway.address("in"));
    let out = Command::new("curl").args(["-sS", "--fail", "--max-time", "60"]).args(more).arg(url).output();
    let out = out.expect("this test needs curl: apt-get install curl");
    assert!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn files_small_large_and_compressed_arrive_as_they_are() {
    let (gateway, nginx) = in_front().await;
    assert_eq!(curl(&gateway, "/small.txt", &[]).stdout, b"hello from nginx\n");
    let words = fs::read(nginx.dir.path().join("www/words.txt")).unwrap();
    // Compressed on the fly, and so chunked.
    let head = curl(&gateway, "/words.txt", &["-I", "-X", "GET", "-H", "accept-encoding: gzip"]).stdout;
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.contains("content-encoding: gzip") && head.contains("transfer-encoding: chunked"), "{head}");
    assert!(curl(&gateway, "/words.txt", &["--compressed"]).stdout == words);
    assert!(curl(&gateway, "/words.txt", &[]).stdout == words);
    let large = fs::read(nginx.dir.path().join("www/large.bin")).unwrap();
    assert!(curl(&gateway, "/large.bin", &[]).stdout == large);
    assert!(curl(&gateway, "/large.bin", &["-r", "1000000-1999999"]).stdout == large[1_000_000..2_000_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_arrive_as_they_are_with_a_length_and_in_chunks() {
    let (gateway, nginx) = in_front().await;
    let large = nginx.dir.path().join("www/large.bin");
    let (name, expected) = (large.display().to_string(), fs::read(&large).unwrap());
    for (path, how) in [("/put/length", "expect: 100-continue"), ("/put/chunks", "transfer-encoding: chunked")] {
        curl(&gateway, path, &["-T", &name, "-H", how]);
        assert!(fs::read(nginx.dir.path().join("www").join(&path[1..])).unwrap() == expected, "{path}");
    }
}

#[tokio::test]
async fn a_connection_that_nginx_closes_just_now_is_nobodys_502() {
    let (gateway, _nginx) = in_front().await;
    let mut caller = gateway.connect().await;
    // Around the moment at which nginx closes, a little earlier and a little later; a busy machine may sleep past it, and tries again.
    for round in 0..20 {
        for n in 0..60 {
            assert_eq!(caller.send(get("/small.txt")).await.status, 200, "request {n} of round {round}");
            tokio::time::sleep(IDLE - Duration::from_millis(6) + Duration::from_micros(200 * n)).await;
        }
        let metrics = gateway.metrics().await;
        let kept = metrics.sum("gatepost_upstream_connections_total", &[("reused", "true")]);
        let fresh = metrics.sum("gatepost_upstream_connections_total", &[("reused", "false")]);
        if kept > 0.0 && fresh > 1.0 {
            return;
        }
    }
    panic!("the moment was missed each time");
}
