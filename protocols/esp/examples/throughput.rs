//! Sealing and opening on one core, beside the cipher alone: what ESP costs above it.
//!
//! `cargo run --release -p dmvpn-esp --example throughput`
#![allow(clippy::disallowed_methods)] // a benchmark reads the clock

use dmvpn_esp::{Keys, Opener, Sealer, Suite};
use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Octets of payload in each packet, as they fit an underlay of 1500.
const PAYLOAD: usize = 1400;
/// Packets in a batch: they stay in the cache, as on the way to a socket.
const BATCH: usize = 40;
const BATCHES: usize = 4000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("GB/s of {PAYLOAD}-octet payloads, the median of {BATCHES} batches of {BATCH}\n");
    println!("{:<18} {:>8} {:>8}   {:>10} {:>10}", "", "seal", "open", "ring seal", "ring open");
    for suite in Suite::ALL {
        let (seal, open) = rates(esp(suite)?);
        print!("{:<18} {seal:>8.2} {open:>8.2}", suite.name());
        match algorithm(suite) {
            Some(algorithm) => {
                let (seal, open) = rates(raw(algorithm)?);
                println!("   {seal:>10.2} {open:>10.2}");
            }
            None => println!(),
        }
    }
    Ok(())
}

/// How long each batch took to be sealed, and to be opened.
type Times = Result<Vec<(Duration, Duration)>, Box<dyn std::error::Error>>;

/// Of the median batch, since others may run on this core too.
fn rates(times: Vec<(Duration, Duration)>) -> (f64, f64) {
    let (mut sealing, mut opening): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    let rate = |times: &mut Vec<Duration>| {
        times.sort();
        let median = times.get(times.len() / 2).copied().unwrap_or_default();
        (BATCH * PAYLOAD) as f64 / median.as_secs_f64() / 1e9
    };
    (rate(&mut sealing), rate(&mut opening))
}

fn esp(suite: Suite) -> Times {
    let keys = Keys { spi: 4711, suite, esn: false, material: vec![7; suite.key_len()].into() };
    let (mut sealer, mut opener) = (Sealer::new(&keys)?, Opener::new(&keys)?);
    let length = suite.sealed_len(PAYLOAD);
    let mut batch = vec![0; length * BATCH];
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        for packet in batch.chunks_exact_mut(length) {
            black_box(sealer.seal(black_box(packet), PAYLOAD, 47)?);
        }
        let middle = Instant::now();
        for packet in batch.chunks_exact_mut(length) {
            black_box(opener.open(black_box(packet))?);
        }
        times.push((middle - start, middle.elapsed()));
    }
    Ok(times)
}

fn raw(algorithm: &'static Algorithm) -> Times {
    let key = vec![7; algorithm.key_len()];
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &key).map_err(|_| "key")?);
    let body = PAYLOAD.next_multiple_of(4) + 4;
    let mut batch = vec![0; body * BATCH];
    let mut tags = [[0; 16]; BATCH];
    let mut number = 0u64;
    let nonce = |number: u64| {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&number.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    };
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let start = Instant::now();
        for (at, (body, tag)) in (1..).zip(batch.chunks_exact_mut(body).zip(&mut tags)) {
            let sealed =
                key.seal_in_place_separate_tag(nonce(number + at), Aad::from([0; 8]), black_box(body));
            *tag = sealed.map_err(|_| "seal")?.as_ref().try_into()?;
        }
        let middle = Instant::now();
        for (at, (body, tag)) in (1..).zip(batch.chunks_exact_mut(body).zip(&tags)) {
            let nonce = nonce(number + at);
            let opened =
                key.open_in_place_separate_tag(nonce, Aad::from([0; 8]), (*tag).into(), black_box(body), 0..);
            black_box(opened.map_err(|_| "open")?);
        }
        times.push((middle - start, middle.elapsed()));
        number += BATCH as u64;
    }
    Ok(times)
}

fn algorithm(suite: Suite) -> Option<&'static Algorithm> {
    match suite {
        Suite::Aes128Gcm16 => Some(&AES_128_GCM),
        Suite::Aes256Gcm16 => Some(&AES_256_GCM),
        Suite::ChaCha20Poly1305 => Some(&CHACHA20_POLY1305),
        Suite::Aes128CbcSha256 | Suite::Aes256CbcSha256 => None,
    }
}
