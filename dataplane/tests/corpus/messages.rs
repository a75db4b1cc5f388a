//! The stream between agent and datapath, of any bytes. Shared by the fuzz target and the replay of its corpus.

use dmvpn_dataplane::codec::{self, Incoming};
use dmvpn_dataplane::messages::{FromDatapath, ToDatapath};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// What can be read is written and read to the same again, however the stream is cut.
pub fn check(bytes: &[u8]) {
    let Some((first, stream)) = bytes.split_first() else { return };
    for stream in [stream.to_vec(), framed(stream)] {
        let size = usize::from(first % 64) + 1;
        read::<ToDatapath>(&stream, size);
        read::<FromDatapath>(&stream, size);
    }
}

/// The bytes as one message of their length, so that what is behind the length is reached.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), bytes].concat()
}

fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(stream: &[u8], size: usize) {
    let mut incoming = Incoming::default();
    for piece in stream.chunks(size) {
        incoming.push(piece);
        loop {
            match incoming.take::<T>() {
                Ok(Some(message)) => again(&message),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T) {
    let mut stream = Vec::new();
    codec::append(&mut stream, message).expect("it was short enough to be read");
    let mut incoming = Incoming::default();
    incoming.push(&stream);
    let read = incoming.take::<T>().expect("we write what can be read");
    assert_eq!(read.as_ref(), Some(message));
}
