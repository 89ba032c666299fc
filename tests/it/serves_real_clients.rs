//! Clients as they are, with a proxy in their environment or options, and credentials in its URL.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::harness::{Gateway, Origin, Reply, authority, gateway, origin, tls::Authority};

/// A destination over TLS and one without, behind a proxy.
struct Out {
    gate: Gateway,
    /// With a user and a password.
    proxy: String,
    plain: String,
    secure: String,
    ca: PathBuf,
    _far: [Origin; 2],
    _authority: Authority,
}

impl Out {
    async fn start(client: &str, listener: &str) -> Self {
        let authority = authority();
        let leaf = authority.leaf(&["localhost", "127.0.0.1"]);
        let secure = origin().tls(&leaf).answers(|seen| Reply::text(format!("secure {}", seen.target))).start().await;
        let plain = origin().answers(|seen| Reply::text(format!("plain {}", seen.target))).start().await;
        let tls = listener == "https";
        let text = format!(
            r#"
            [client.fn]
            {client}
            [egress.listener.out]
            address = "127.0.0.1:0"
            {}
            [egress.rule.r]
            clients = ["fn"]
            to = ["localhost:{}", "localhost:{}"]
            private = ["127.0.0.0/8", "::1/128"]
            "#,
            if tls { format!("tls = [{}]", leaf.toml()) } else { String::new() },
            secure.port(),
            plain.port()
        );
        // `printf secret | sha256sum`
        let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let gate = gateway(text).file("hash", hash).start().await;
        let port = gate.address("egress.out").port();
        Self {
            proxy: format!("{listener}://orders:secret@localhost:{port}"),
            plain: format!("http://localhost:{}/p", plain.port()),
            secure: format!("https://localhost:{}/s", secure.port()),
            ca: authority.ca(),
            gate,
            _far: [secure, plain],
            _authority: authority,
        }
    }

    async fn with_credentials(listener: &str) -> Self {
        Self::start("basic = { user = \"orders\", sha256 = \"file:@DIR@/hash\" }", listener).await
    }

    async fn without_credentials() -> Self {
        Self::start("networks = [\"127.0.0.1/32\"]", "http").await
    }

    /// What a client says that is given the proxy, the authority's certificate and both URLs. `package`: Debian's, for who lacks something.
    async fn said_to(&self, mut command: Command, package: &str) -> String {
        command.arg(&self.proxy).arg(&self.ca).args([&self.plain, &self.secure]).stdin(Stdio::null());
        // Nothing of the machine's own may come between.
        for name in
            ["no_proxy", "NO_PROXY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        {
            command.env_remove(name);
        }
        let done = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let done = done.unwrap_or_else(|error| panic!("{error}: install {package}"));
        let (said, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{said}\n{error}\n(does it lack one of Debian's packages {package}?)");
        said.into_owned()
    }
}

/// A program in a folder of its own.
fn program(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(name);
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

#[tokio::test]
async fn curl_works_unchanged_also_over_tls_to_the_proxy() {
    for scheme in ["http", "https"] {
        let it = Out::with_credentials(scheme).await;
        let mut command = Command::new("sh");
        command.args(["-c", "curl -sS -x $1 --proxy-cacert $2 --cacert $2 $3 $4; curl -sS -x $1 --proxy-cacert $2 https://other.test/ 2>&1 || true", "sh"]);
        let said = it.said_to(command, "curl").await;
        assert!(said.starts_with("plain /psecure /s") && said.contains("403"), "{said}");
    }
}

#[tokio::test]
async fn pythons_clients_work_unchanged() {
    let it = Out::with_credentials("http").await;
    let (_dir, file) = program(
        "client.py",
        r#"
import asyncio, os, ssl, sys, urllib.request
proxy, ca, plain, secure = sys.argv[1:5]
os.environ.update(http_proxy=proxy, https_proxy=proxy, HTTP_PROXY=proxy, HTTPS_PROXY=proxy, no_proxy="", SSL_CERT_FILE=ca)
context = ssl.create_default_context(cafile=ca)
print("urllib", urllib.request.urlopen(plain).read().decode(), urllib.request.urlopen(secure, context=context).read().decode())
import requests
session = requests.Session()
print("requests", session.get(plain).text, session.post(secure, data=b"x", verify=ca).text, session.get("http://other.test/").status_code)
import httpx
with httpx.Client(verify=context) as client:
    print("httpx", client.get(plain).text, client.get(secure).text, client.get("http://other.test/").status_code)
try:
    httpx.get("https://other.test/", verify=context)
except httpx.ProxyError as error:
    print("httpx", error)
import aiohttp
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        texts = []
        for url in (plain, secure):
            async with session.get(url, ssl=context) as answer:
                texts.append(await answer.text())
        try:
            await session.get("https://other.test/", ssl=context)
        except aiohttp.ClientHttpProxyError as error:
            texts.append(str(error.status))
        print("aiohttp", *texts)
asyncio.run(main())
"#,
    );
    // Debian's own: another one on the way would not have Debian's packages.
    let mut command = Command::new("/usr/bin/python3");
    command.arg(&file);
    let said = it.said_to(command, "python3-requests, python3-httpx, python3-aiohttp").await;
    assert_eq!(
        said,
        "urllib plain /p secure /s\nrequests plain /p secure /s 403\nhttpx plain /p secure /s 403\nhttpx 403 Forbidden\n\
         aiohttp plain /p secure /s 403\n"
    );
    it.gate.counts("gatepost_egress_connections_total", &[("result", "destination_not_allowed")], 4.0).await;
}

/// undici of this age tunnels plain http as well; axios' own `proxy` is for plain http: it does not speak CONNECT.
#[tokio::test]
async fn nodes_clients_work_unchanged() {
    let it = Out::with_credentials("http").await;
    let (_dir, file) = program(
        "client.js",
        r#"
const fs = require("fs");
const [proxy, ca, plain, secure] = process.argv.slice(2);
const url = new URL(proxy);
const token = "Basic " + Buffer.from(url.username + ":" + url.password).toString("base64");
const { ProxyAgent, fetch, request } = require("undici");
const axios = require("axios");
(async () => {
  const agent = new ProxyAgent({ uri: url.origin, token, requestTls: { ca: fs.readFileSync(ca) } });
  const got = async (where) => (await (await fetch(where, { dispatcher: agent })).text());
  console.log("undici", await got(plain), await got(secure));
  try { await request("https://other.test/", { dispatcher: agent }); } catch (error) { console.log("undici", error.message); }
  await agent.close();
  const through = { protocol: "http", host: url.hostname, port: +url.port, auth: { username: url.username, password: url.password } };
  console.log("axios", (await axios.get(plain, { proxy: through })).data);
  const other = await axios.get("http://other.test/", { proxy: through, validateStatus: () => true });
  console.log("axios", other.status, other.data.reason);
})().catch((error) => { console.log(error); process.exit(1); });
"#,
    );
    let mut command = Command::new("node");
    command.arg(&file).env("NODE_PATH", "/usr/share/nodejs");
    let said = it.said_to(command, "nodejs, node-undici, node-axios").await;
    assert_eq!(
        said,
        "undici plain /p secure /s\nundici Proxy response !== 200 when HTTP Tunneling\naxios plain /p\naxios 403 destination_not_allowed\n"
    );
    let kinds = it.gate.log(5).await.iter().filter(|line| line["kind"] == "connect").count();
    assert_eq!(kinds, 3, "undici's three");
}

#[tokio::test]
async fn gos_client_works_unchanged() {
    let it = Out::with_credentials("http").await;
    let (dir, file) = program(
        "client.go",
        r#"
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
)

func main() {
	proxy, _ := url.Parse(os.Args[1])
	pem, _ := os.ReadFile(os.Args[2])
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client := http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}}
	for _, at := range os.Args[3:] {
		answer, err := client.Get(at)
		if err != nil {
			fmt.Println(err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		fmt.Println(answer.StatusCode, string(body))
	}
}
"#,
    );
    let mut command = Command::new("sh");
    command.args(["-c", "go run \"$0\" \"$@\" https://other.test/"]).arg(&file);
    command.env("GOCACHE", dir.path().join("cache")).env("GOFLAGS", "-mod=mod");
    let said = it.said_to(command, "golang-go").await;
    assert_eq!(said, "200 plain /p\n200 secure /s\nGet \"https://other.test/\": Forbidden\n");
}

#[tokio::test]
async fn phps_clients_work_unchanged() {
    let it = Out::with_credentials("http").await;
    let (_dir, file) = program(
        "client.php",
        r#"<?php
[, $proxy, $ca, $plain, $secure] = $argv;
foreach ([$plain, $secure, "https://other.test/"] as $url) {
    $curl = curl_init($url);
    curl_setopt_array($curl, [CURLOPT_PROXY => $proxy, CURLOPT_CAINFO => $ca, CURLOPT_RETURNTRANSFER => true]);
    $body = curl_exec($curl);
    echo "curl ", $body === false ? curl_error($curl) : $body, "\n";
}
require "GuzzleHttp/autoload.php";
$client = new GuzzleHttp\Client(["proxy" => $proxy, "verify" => $ca, "http_errors" => false]);
foreach ([$plain, $secure] as $url) {
    echo "guzzle ", $client->get($url)->getBody(), "\n";
}
echo "guzzle ", $client->get("http://other.test/")->getStatusCode(), "\n";
"#,
    );
    let mut command = Command::new("php");
    command.arg(&file);
    let said = it.said_to(command, "php-cli, php-curl, php-guzzlehttp-guzzle").await;
    let curls: Vec<_> = said.lines().take(3).collect();
    assert_eq!(curls[..2], ["curl plain /p", "curl secure /s"]);
    assert!(curls[2].contains("403"), "{said}");
    assert!(said.ends_with("guzzle plain /p\nguzzle secure /s\nguzzle 403\n"), "{said}");
}

#[tokio::test]
async fn javas_http_client_works_unchanged() {
    let it = Out::without_credentials().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Main.java");
    let source = r#"
import java.io.*; import java.net.*; import java.net.http.*; import java.nio.file.*; import java.security.*; import java.security.cert.*;
import javax.net.ssl.*;
public class Main {
    public static void main(String[] a) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream(a[3])));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        HttpClient client = HttpClient.newBuilder().proxy(ProxySelector.of(new InetSocketAddress("127.0.0.1", Integer.parseInt(a[0]))))
            .sslContext(context).build();
        for (int at = 1; at < 3; at++)
            System.out.println(client.send(HttpRequest.newBuilder(URI.create(a[at])).build(), HttpResponse.BodyHandlers.ofString()).body());
    }
}
"#;
    std::fs::write(&file, source).unwrap();
    let port = it.gate.address("egress.out").port().to_string();
    let mut command = Command::new("java");
    command.arg(&file).args([&port, &it.plain, &it.secure]).arg(&it.ca).stdin(Stdio::null());
    // A whole JDK for one test would be the largest of all packages: it runs where there is one.
    let Ok(done) = tokio::task::spawn_blocking(move || command.output()).await.unwrap() else { return };
    assert_eq!(String::from_utf8_lossy(&done.stdout), "plain /p\nsecure /s\n", "{done:?}");
}
