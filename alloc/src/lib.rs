//! The global allocator: mimalloc, and two rules.
//!
//! **No memory ends the process.** Rust's own answer to a failed allocation is the same, but by way of a function that might unwind as far as
//! the compiler knows. So whatever is moved into a new box must survive on the stack until the box is there: pingora builds a future
//! of 15 KiB per request and copies it whole. With an allocator that can't fail the future is built in its box.
//!
//! **Ordinary alignments take mimalloc's short way.** What it returns is aligned to 16 bytes (to 8 for less than 16), so only
//! more than that has to be asked for.
//!
//! Together 19,200 of 90,700 instructions per request (`docs/performance.md`). The `unsafe` here is the interface's own: each
//! function hands its arguments on.

use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::c_void,
    process,
};

use libmimalloc_sys as mi;

/// mimalloc's `MI_MAX_ALIGN_SIZE`: any block of at least this size is aligned to it.
const NATURAL: usize = 16;

/// The allocator, for `#[global_allocator]`.
#[derive(Debug, Clone, Copy)]
pub struct Allocator;

#[inline(always)]
fn is_natural(size: usize, align: usize) -> bool {
    align <= NATURAL && align <= size
}

#[inline(always)]
fn sure(block: *mut c_void) -> *mut u8 {
    if block.is_null() {
        out_of_memory();
    }
    block.cast()
}

#[cold]
#[inline(never)]
fn out_of_memory() -> ! {
    // Without an allocation: there is nothing to allocate from.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), b"gatepost: out of memory\n");
    process::abort()
}

// SAFETY: mimalloc's functions are an allocator as `GlobalAlloc` wants it: blocks of at least `size` bytes, aligned as asked (or as `is_natural`
// argues), that stay until freed, from any thread. `mi_free` and `mi_realloc*` take any block of mimalloc's, however it was aligned.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        sure(unsafe { if is_natural(size, align) { mi::mi_malloc(size) } else { mi::mi_malloc_aligned(size, align) } })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        sure(unsafe { if is_natural(size, align) { mi::mi_zalloc(size) } else { mi::mi_zalloc_aligned(size, align) } })
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        unsafe { mi::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (block, align) = (block.cast(), layout.align());
        sure(unsafe {
            if is_natural(size, align) {
                mi::mi_realloc(block, size)
            } else {
                mi::mi_realloc_aligned(block, size, align)
            }
        })
    }
}
