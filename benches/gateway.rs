//! One request on a kept connection: straight to a function, and through gatepost, in one run. The difference is what
//! gatepost adds to a caller's wait; `../shared/bench` has the CPU beside other gateways.

#![expect(clippy::expect_used, reason = "a bench that can't be set up has nothing to say")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
};

use criterion::{Criterion, criterion_group, criterion_main};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const ASK: &[u8] = b"GET /a HTTP/1.1\r\nHost: bench.test\r\n\r\n";

/// A function that answers every head it reads, on as many connections as come.
fn function() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = stream.set_nodelay(true);
                let mut write = stream.try_clone().expect("a second handle");
                let mut lines = BufReader::new(stream);
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if line == "\r\n" && write.write_all(ANSWER).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

struct Gateway {
    process: Child,
    address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn gateway(function: SocketAddr) -> Gateway {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("gatepost.toml");
    let text = format!(
        "[server]\nworkers = 1\nstate_dir = \"{}/state\"\n[admin]\naddress = \"127.0.0.1:0\"\n[log]\naccess = \"off\"\n\
         [listener.in]\naddress = \"127.0.0.1:0\"\n[function.f]\nversions = {{ v1 = \"http://{function}\" }}\n\
         [route.f]\npath = \"/*\"\nfunction = \"f\"\n",
        dir.path().display()
    );
    fs::write(&file, text).expect("written");
    let mut process = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .arg("run")
        .arg("--config")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let said = BufReader::new(process.stderr.take().expect("piped"));
    let mut address = None;
    for line in said.lines().map_while(Result::ok) {
        if let Some((_, rest)) = line.split_once("listening listener=in address=") {
            address = rest.trim().parse().ok();
        }
        if line.contains("ready generation=") {
            break;
        }
    }
    Gateway { process, address: address.expect("it listens"), _dir: dir }
}

fn ask(stream: &mut TcpStream, buffer: &mut [u8]) -> usize {
    stream.write_all(ASK).expect("sent");
    let mut got = 0;
    while !buffer[..got].ends_with(b"hello") {
        let n = stream.read(&mut buffer[got..]).expect("answered");
        assert!(n > 0, "closed");
        got += n;
    }
    got
}

fn bench(c: &mut Criterion) {
    let function = function();
    let gateway = gateway(function);
    let mut group = c.benchmark_group("a request on a kept connection");
    for (name, address) in [("direct", function), ("through gatepost", gateway.address)] {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("set");
        let mut buffer = [0; 4096];
        group.bench_function(name, |b| b.iter(|| ask(&mut stream, &mut buffer)));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
