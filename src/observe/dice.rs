//! Numbers by chance, per thread: for ids, not for secrets.

use std::cell::Cell;

thread_local! {
    static DICE: Cell<u64> = const { Cell::new(0) };
}

/// What this thread's numbers begin with.
pub fn seed(seed: u64) {
    DICE.set(seed);
}

/// The next 64 bits of this thread's dice (SplitMix64).
pub fn roll() -> u64 {
    let state = DICE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    DICE.set(state);
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 128 bits of it.
pub fn roll_128() -> u128 {
    u128::from(roll()) << 64 | u128::from(roll())
}
