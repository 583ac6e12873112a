//! Who may join a job, and who may not.

use super::processes::{Job, SECRET, command, port};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

const WORLD: usize = 4;

fn spawn(port: u16, rank: usize, set: &[(&str, &str)]) -> Option<Child> {
    let mut c = command("meet", "tcp", port, rank, WORLD);
    set.iter().for_each(|(k, v)| {
        c.env(k, v);
    });
    Some(c.spawn().unwrap())
}

fn job(port: u16, ranks: &[usize], set: &[(&str, &str)]) -> Job {
    Job(ranks.iter().map(|&r| spawn(port, r, set)).collect())
}

#[test]
fn a_rank_that_runs_something_else_is_named_by_all() {
    let cases: [(&str, &str, &str); 3] = [
        ("TEST_CONFIG", "b", "rank 2 has config hash b, rank 0 has a"),
        ("TEST_DATASET", "b", "rank 2 has dataset hash b, rank 0 has a"),
        ("WORLD_SIZE", "5", "rank 2 has world size 5, rank 0 has 4"),
    ];
    for (name, value, words) in cases {
        let (port, same) = (port(), [("TEST_CONFIG", "a"), ("TEST_DATASET", "a")]);
        let mut all = job(port, &[0, 1], &same);
        let mut odd = same.to_vec();
        odd.push((name, value));
        all.0.push(spawn(port, 2, &odd));
        all.0.push(spawn(port, 3, &same));
        all.all_end(None, Duration::from_secs(3), 3, &[words]);
    }
}

/// HMAC-SHA-256 of parts by the secret of tests, each with its length before it.
fn sign(parts: &[&[u8]]) -> [u8; 32] {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(SECRET.as_bytes()).unwrap();
    for part in parts {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Rank 2 as a program of another version would greet, by hand: its version, rank and number of ranks, then `rest`.
/// Gives what it is told.
fn of_version(version: u32, port: u16, rest: &[u8]) -> String {
    let (mut stream, challenge) = visit(port);
    let (theirs, ours) = (&challenge[8..], [7; 32]);
    let numbers = [version, 2, WORLD as u32].map(u32::to_le_bytes);
    let body = [&numbers.concat(), rest].concat();
    let signature = sign(&[b"join", theirs, &ours, &body]);
    let len = (body.len() as u16).to_le_bytes();
    stream.write_all(&[b"RINGTAPE", &ours[..], &len, &body, &signature].concat()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let (body, signature) = said[2..].split_at(said.len() - 34);
    assert_eq!(signature, sign(&[b"reply", theirs, &ours, body]));
    // Refused is reply 1; its text has its length before it.
    assert_eq!(body[..4], 1u32.to_le_bytes());
    String::from_utf8(body[12..].to_vec()).unwrap()
}

#[test]
fn a_rank_of_another_version_is_named_by_all() {
    // Hashes, host and port as in version 1; what nobody knows yet; and nothing more.
    let alike = [vec![0; 24], vec![1, 2]].concat();
    for (version, rest) in [(2, alike), (3, vec![0xff; 300]), (0, vec![])] {
        let port = port();
        let mut all = job(port, &[0, 1, 3], &[]);
        let words = format!("rank 2 has protocol version {version}, rank 0 has 1");
        let start = Instant::now();
        assert_eq!(of_version(version, port, &rest), words);
        all.all_end(None, Duration::from_secs(3), 3, &[&format!("rendezvous: {words}")]);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn missing_ranks_are_listed_when_time_is_up() {
    let start = Instant::now();
    let mut some = job(port(), &[0, 2], &[("RINGTAPE_TIMEOUT", "1.5")]);
    some.all_end(None, Duration::from_secs(4), 3, &["after 1.5 s these ranks have not come: [1, 3]"]);
    assert!(start.elapsed() > Duration::from_millis(1500));
    // Nobody listens.
    let mut some = job(port(), &[1], &[("RINGTAPE_TIMEOUT", "0.5")]);
    some.all_end(None, Duration::from_secs(3), 3, &["rank 0 was not at 127.0.0.1:"]);
    // Somebody else does.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut some = job(taken.local_addr().unwrap().port(), &[0], &[]);
    some.all_end(None, Duration::from_secs(3), 3, &["cannot listen at 127.0.0.1:"]);
}

#[test]
fn another_secret_is_refused_and_the_right_one_may_still_come() {
    let port = port();
    let mut all = job(port, &[0, 1, 2], &[]);
    let mut stranger = job(port, &[3], &[("RINGTAPE_SECRET", "another secret")]);
    stranger.all_end(None, Duration::from_secs(5), 3, &["is its secret another"]);
    all.0.push(spawn(port, 3, &[]));
    all.all_end(None, Duration::from_secs(5), 0, &["joined"]);
    let mut none = job(port, &[0], &[("RINGTAPE_SECRET", "short")]);
    none.all_end(None, Duration::from_secs(3), 2, &["at least 8"]);
}

/// Connects as soon as rank 0 listens, and gets the 40 bytes that it sends to everybody.
fn visit(port: u16) -> (TcpStream, [u8; 40]) {
    let start = Instant::now();
    loop {
        if let Ok(mut s) = TcpStream::connect(("127.0.0.1", port)) {
            let mut challenge = [0; 40];
            if s.read_exact(&mut challenge).is_ok() {
                return (s, challenge);
            }
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A greeting as it should be, but for the signature.
fn forged() -> Vec<u8> {
    let mut hello = b"RINGTAPE".to_vec();
    hello.extend([7; 32]);
    hello.extend(60u16.to_le_bytes());
    hello.extend([1, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    hello.extend([0; 48]);
    hello.extend([9; 32]);
    hello
}

#[test]
fn strangers_neither_join_nor_hold_anybody_up() {
    let port = port();
    let mut all = job(port, &[0], &[]);
    let mut guests = Vec::new();
    // Idle ones, who never say a word.
    for _ in 0..200 {
        guests.push(visit(port).0);
    }
    let say = |bytes: &[u8]| {
        let mut s = visit(port).0;
        s.write_all(bytes).unwrap();
        s
    };
    guests.push(say(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    guests.push(say(&[0xff; 4096]));
    guests.push(say(&forged()));
    // A length that nobody should believe.
    let mut long = b"RINGTAPE".to_vec();
    long.extend([7; 32]);
    long.extend([0xff; 2]);
    guests.push(say(&long));
    // One byte now and then.
    let mut slow = visit(port).0;
    let drip = std::thread::spawn(move || {
        for byte in forged() {
            if slow.write_all(&[byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let start = Instant::now();
    for rank in 1..WORLD {
        all.0.push(spawn(port, rank, &[]));
    }
    all.all_end(None, Duration::from_secs(3), 0, &["joined"]);
    assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    drop(guests);
    drip.join().unwrap();
}

/// A stranger between a rank and rank 0 writes down what the rank says, and says it again.
#[test]
fn a_recorded_greeting_is_worth_nothing_the_second_time() {
    let (port, spied) = (port(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let mut all = job(port, &[0, 1, 2], &[]);
    let (to_zero, challenge) = visit(port);
    let spied_at = spied.local_addr().unwrap().port();
    let mut victim = job(spied_at, &[], &[]);
    victim.0.push(spawn(spied_at, 3, &[("RINGTAPE_TIMEOUT", "5")]));
    let (mut from_victim, _) = spied.accept().unwrap();
    from_victim.write_all(&challenge).unwrap();
    let mut greeting = vec![0; 42];
    from_victim.read_exact(&mut greeting).unwrap();
    let mut rest = vec![0; u16::from_le_bytes([greeting[40], greeting[41]]) as usize + 32];
    from_victim.read_exact(&mut rest).unwrap();
    greeting.extend(rest);
    // The first connection is closed, as if the victim had gone; its words go over another.
    to_zero.shutdown(std::net::Shutdown::Both).unwrap();
    let mut again = visit(port).0;
    again.write_all(&greeting).unwrap();
    let mut answer = [0; 1];
    again.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(again.read(&mut answer).unwrap(), 0, "refused without a word");
    drop(from_victim);
    all.0.push(spawn(port, 3, &[]));
    all.all_end(None, Duration::from_secs(5), 0, &["joined"]);
    victim.all_end(None, Duration::from_secs(9), 3, &["rendezvous"]);
}
