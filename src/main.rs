//! The thin binary: argv → [`gatepost::cli`] → exit code.

use std::process::ExitCode;

/// Against the system's allocator: fewer instructions a request, and memory that goes back when connections close.
#[global_allocator]
static ALLOCATOR: gatepost_alloc::Allocator = gatepost_alloc::Allocator;

fn main() -> ExitCode {
    gatepost::cli::main(std::env::args_os())
}

#[cfg(test)]
mod tests {
    /// Blocks of a type, in many sizes: at places that suit its alignment, distinct, and with what was put there.
    fn blocks_hold<T: Clone + PartialEq>(value: &T) {
        let kept: Vec<Vec<T>> = (1..200).map(|n| vec![value.clone(); n]).collect();
        for (block, n) in kept.iter().zip(1..) {
            assert_eq!(block.as_ptr().addr() % align_of::<T>(), 0, "{n} × {} bytes", size_of::<T>());
            assert!(block.len() == n && block.iter().all(|v| v == value));
        }
        // Grown a little at a time: each move keeps the content and the alignment.
        let mut grown = Vec::new();
        for n in 1..2000 {
            grown.push(value.clone());
            grown.shrink_to_fit();
            assert_eq!(grown.as_ptr().addr() % align_of::<T>(), 0, "{n} × {} bytes", size_of::<T>());
        }
        assert!(grown.iter().all(|v| v == value));
    }

    #[test]
    fn the_allocator_aligns_as_asked() {
        macro_rules! aligned {
            ($($align:literal),*) => {$({
                #[derive(Clone, PartialEq)]
                #[repr(align($align))]
                struct Aligned([u8; 1]);
                blocks_hold(&Aligned([7]));
            })*};
        }
        aligned!(1, 2, 4, 8, 16, 32, 64, 128, 4096);
        blocks_hold(&[1u8; 3]);
        blocks_hold(&[1u64; 3]);
        blocks_hold(&1u128);
    }

    #[test]
    fn zeroed_blocks_are_zero() {
        for n in [1, 8, 24, 1000, 70_000, 5_000_000] {
            drop(vec![0xffu8; n]);
            assert!(vec![0u8; n].iter().all(|b| *b == 0));
        }
    }
}
