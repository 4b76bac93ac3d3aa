//! Whatever bytes come: no panic, no memory for what is only claimed, and what is read is written and read as the same.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeSet,
    fs,
    path::Path,
};

use hostile::{DECODERS, seeds};
use proptest::{collection::vec, prelude::*, sample::Index};

/// Counts what a thread has allocated and not given back, and the most of it.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static MOST: Cell<usize> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "an allocator is unsafe; this one only counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends has no counters any more.
        let _ = HELD.try_with(|held| {
            held.set(held.get().saturating_add(layout.size()));
            let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
        });
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(layout.size())));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes that a decoder may hold beside a multiple of what it gets: tables that libraries make once.
const ALLOWED: usize = 1 << 20;
/// Times the input: each byte may become an element of a list.
const PER_BYTE: usize = 512;

/// Decodes, and fails where more is held at once than the input explains.
fn decode(name: &str, decoder: hostile::Decoder, bytes: &[u8]) -> bool {
    let before = HELD.get();
    MOST.set(before);
    let is_read = decoder(bytes);
    let held = MOST.get().saturating_sub(before);
    assert!(
        held <= ALLOWED + PER_BYTE * bytes.len(),
        "{name} held {held} bytes for {}",
        bytes.len()
    );
    is_read
}

/// How valid bytes are spoiled.
#[derive(Clone, Debug)]
enum Spoil {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index),
    Repeat(Index, usize),
    /// As a length somewhere in it claims much.
    Claim(Index),
}

impl Spoil {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |index: &Index| index.index(bytes.len() + 1);
        match self {
            Self::Set(index, byte) => {
                let at = place(index);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
            }
            Self::Insert(index, more) => {
                let at = place(index);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Cut(index) => bytes.truncate(place(index)),
            Self::Repeat(index, times) => {
                let part = bytes[place(index)..].repeat(*times);
                bytes.extend(part);
            }
            Self::Claim(index) => {
                let at = place(index);
                let end = (at + 4).min(bytes.len());
                bytes[at..end].fill(0xff);
            }
        }
    }
}

fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let one = prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        2 => (any::<Index>(), vec(any::<u8>(), 1..8)).prop_map(|(at, more)| Spoil::Insert(at, more)),
        1 => any::<Index>().prop_map(Spoil::Cut),
        1 => (any::<Index>(), 1..4usize).prop_map(|(at, times)| Spoil::Repeat(at, times)),
        1 => any::<Index>().prop_map(Spoil::Claim),
    ];
    vec(one, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..512)) {
        for (name, decoder) in DECODERS {
            decode(name, decoder, &bytes);
        }
    }

    #[test]
    fn spoiled_bytes_do_no_harm(seed in any::<Index>(), spoils in spoils()) {
        for (name, decoder) in DECODERS {
            let seeds = seeds(name);
            let mut bytes = seeds[seed.index(seeds.len())].clone();
            for spoil in &spoils {
                spoil.apply(&mut bytes);
            }
            decode(name, decoder, &bytes);
        }
    }
}

#[test]
fn every_beginning_of_what_is_valid_does_no_harm() {
    for (name, decoder) in DECODERS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no valid bytes");
        for seed in seeds {
            let text = String::from_utf8_lossy(&seed);
            assert!(decode(name, decoder, &seed), "{name} does not read {text}");
            for end in 0..=seed.len() {
                decode(name, decoder, &seed[..end]);
            }
        }
    }
}

#[test]
fn each_decoder_has_its_fuzz_target() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).expect("the manifest of the fuzz targets");
    let files = fs::read_dir(fuzz.join("fuzz_targets")).expect("the fuzz targets");
    let targets: BTreeSet<String> = files
        .filter_map(|file| file.ok()?.path().file_stem()?.to_str().map(str::to_string))
        .collect();
    let decoders = DECODERS.map(|(name, _)| name.to_string());
    assert_eq!(targets, BTreeSet::from(decoders.clone()));
    for name in decoders {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name}");
    }
}
