use proptest::prelude::*;

use super::*;

/// A ClientHello with these extensions.
fn message(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut listed = Vec::new();
    for (kind, data) in extensions {
        listed.extend(kind.to_be_bytes());
        listed.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        listed.extend(data);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(u16::try_from(listed.len()).expect("short").to_be_bytes());
    body.extend(listed);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).expect("short").to_be_bytes());
    message.extend(body);
    message
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    let length = u16::try_from(name.len()).expect("short");
    let mut data = Vec::from((length + 3).to_be_bytes());
    data.push(0);
    data.extend(length.to_be_bytes());
    data.extend(name);
    (0, data)
}

/// In records of at most so many bytes.
fn records(message: &[u8], most: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let mut record = vec![22, 3, 1];
        record.extend(u16::try_from(part.len()).expect("short").to_be_bytes());
        record.extend(part);
        record
    };
    message.chunks(most).flat_map(record).collect()
}

fn read(bytes: &[u8]) -> Hello {
    HelloReader::default().feed(bytes)
}

fn named(name: &str) -> Hello {
    Hello::Name(name.to_owned())
}

#[test]
fn the_name_is_found_however_the_hello_is_cut() {
    let hello = message(&[(10, vec![0, 2, 0, 29]), sni(b"Api.Example.com"), (0x4469, vec![0; 3])]);
    for most in [1, 2, 3, 7, 100, 4096] {
        let bytes = records(&hello, most);
        assert_eq!(read(&bytes), named("api.example.com"), "records of {most}");
        for step in [1, 2, 5, 64] {
            let mut reader = HelloReader::default();
            let chunks: Vec<_> = bytes.chunks(step).collect();
            for (at, chunk) in chunks.iter().enumerate() {
                let expected = if at + 1 == chunks.len() { named("api.example.com") } else { Hello::NeedMore };
                assert_eq!(reader.feed(chunk), expected, "records of {most}, reads of {step}");
            }
        }
    }
}

#[test]
fn what_comes_behind_the_hello_is_not_looked_at() {
    let mut bytes = records(&message(&[sni(b"a.example")]), 4096);
    bytes.extend([20, 3, 3, 0, 1, 1, 0xff]);
    let mut reader = HelloReader::default();
    assert_eq!(reader.feed(&bytes), named("a.example"));
    assert_eq!(reader.feed(b"anything"), named("a.example"));
}

#[test]
fn a_hello_may_ask_for_no_name() {
    assert_eq!(read(&records(&message(&[]), 4096)), Hello::NoName);
    assert_eq!(read(&records(&message(&[(43, vec![2, 3, 4])]), 4096)), Hello::NoName);
    // Without the extensions' own length.
    let mut bare = message(&[]);
    bare.truncate(bare.len() - 2);
    bare[3] -= 2;
    assert_eq!(read(&records(&bare, 4096)), Hello::NoName);
}

#[test]
fn other_protocols_are_told_by_their_first_bytes() {
    for text in
        [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", b"\x80\x2e\x01\x03\x01", b"\0", b"\x16\x02\x00", b"\x16\x03\x07"]
    {
        assert_eq!(read(text), Hello::NotTls, "{text:?}");
    }
    assert_eq!(read(b""), Hello::NeedMore);
    assert_eq!(read(b"\x16"), Hello::NeedMore);
    assert_eq!(read(b"\x16\x03"), Hello::NeedMore);
}

#[test]
fn what_two_readers_could_read_in_two_ways_is_bad() {
    let is_bad = |bytes: &[u8]| assert!(matches!(read(bytes), Hello::Bad(_)), "{:?} of {bytes:?}", read(bytes));
    let whole = |extensions: &[(u16, Vec<u8>)]| records(&message(extensions), 4096);
    // Twice, two in one list, of another kind, empty, odd.
    is_bad(&whole(&[sni(b"a.example"), sni(b"b.example")]));
    is_bad(&whole(&[(0, [&sni(b"a.example").1[..], &sni(b"b.example").1[2..]].concat())]));
    is_bad(&whole(&[(0, vec![0, 4, 1, 0, 1, b'a'])]));
    is_bad(&whole(&[(0, vec![])]));
    is_bad(&whole(&[(0, vec![0, 0])]));
    for name in
        [&b""[..], b"a..b", b"a b", b"a\0.example", b"127.0.0.1", b"[::1]", b"a.example:443", b"\xc3\xa4.example", b"-"]
    {
        is_bad(&whole(&[sni(name)]));
    }
    // Other messages, empty records, records of another kind in between, lengths that do not fit.
    is_bad(&records(&[2, 0, 0, 0], 4096));
    is_bad(&[22, 3, 1, 0, 0]);
    is_bad(&[&records(&message(&[sni(b"a.example")])[..20], 4096)[..], &[23, 3, 3, 0, 1, 0]].concat());
    is_bad(&[22, 3, 1, 0x40, 1]);
    let mut longer = message(&[sni(b"a.example")]);
    longer.push(0);
    is_bad(&records(&longer, 4096));
    longer[3] += 1;
    is_bad(&records(&longer, 4096));
    let mut other_version = message(&[]);
    other_version[4] = 2;
    is_bad(&records(&other_version, 4096));
}

#[test]
fn a_hello_that_never_ends_is_given_up() {
    // The header says more than is taken.
    assert!(matches!(read(&records(&[1, 0, 0x40, 1], 4096)), Hello::Bad(_)));
    // One byte a record: it costs six times what it says.
    let long = message(&[(21, vec![0; 15_000]), sni(b"a.example")]);
    assert!(matches!(read(&records(&long, 1)), Hello::Bad(_)));
    assert_eq!(read(&records(&long, 4096)), named("a.example"));
    let mut reader = HelloReader::default();
    for _ in 0..LONGEST_RAW {
        reader.feed(&[22, 3, 1, 0, 1, 1]);
    }
    assert!(reader.message.capacity() <= 4 * LONGEST);
}

/// The hello that a real library sends.
#[test]
fn rustls_is_understood() {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "api.example.com".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    assert_eq!(read(&bytes), named("api.example.com"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reads_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..200), start in any::<bool>(), step in 1usize..50) {
        let bytes = if start { [&[22, 3, 1, 0, 200, 1, 0, 0, 196][..], &bytes].concat() } else { bytes };
        let mut reader = HelloReader::default();
        let mut last = Hello::NeedMore;
        for chunk in bytes.chunks(step) {
            last = reader.feed(chunk);
        }
        prop_assert_eq!(last, read(&bytes));
    }
}
