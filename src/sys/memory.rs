//! mallopt(3), malloc_trim(3) and madvise(2).
#![allow(
    unsafe_code,
    reason = "no library sets the allocator of libc, or knows what of a stack is used"
)]

/// Has the allocator give memory back to the kernel early: for a process that lives long, is idle most of the
/// time, and now and then needs a buffer. Where libc has no such setting, nothing happens.
pub fn give_memory_back_early() {
    /// Larger pieces are mapped on their own and unmapped when freed; so much at the heap's end is kept.
    #[cfg(target_env = "gnu")]
    const KEPT: libc::c_int = 32 * 1024;
    // SAFETY: takes numbers only. There is one thread yet, and these settings concern allocations to come.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

/// Gives back memory before a sleep: free pieces of the heap, as far as they are whole pages; what deeper calls have left
/// on the stack; and the program itself, see `give_program_back`. What the kernel does not take stays as it is.
///
/// For a process with one thread alone, whose stack is where the kernel put it, with nothing below that it could grow
/// into.
pub fn give_memory_back() {
    give_heap_back();
    give_stack_back();
    give_program_back();
}

/// Gives back the part of that which is the heap's: for any process.
pub fn give_heap_back() {
    // SAFETY: touches free memory only, under the allocator's own locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

// In a frame of its own: within a larger one, what is in use could lie below the place looked at.
#[inline(never)]
fn give_stack_back() {
    /// More than any call here needs; the gap that the kernel keeps free below a stack is larger.
    const DEEPEST: usize = 128 * 1024;
    /// The frames of this call and the one it makes, and what a function may use below its frame.
    const OWN: usize = 1024;
    let here = 0u8;
    let end = ((&raw const here).addr() - OWN) & !4095;
    // SAFETY: the range ends below the frames of all functions that run, this one's being small and the last, and the
    // kernel keeps no other mapping so close below the first thread's stack (stack_guard_gap, 1 MiB). What lies there
    // has been left by calls that have returned, and pages that are not mapped are passed over.
    unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(end - DEEPEST),
            DEEPEST,
            libc::MADV_DONTNEED,
        );
    }
}

/// Lets go of the pages of this program itself, its instructions and constants: those that are needed again come back
/// from the page cache, where they stay in any case, as long as the kernel has room. Of all it has run, a process that
/// sleeps then holds a few pages.
fn give_program_back() {
    unsafe extern "C" fn segment(
        info: *mut libc::dl_phdr_info,
        _size: libc::size_t,
        _data: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: the C library passes a description that is valid during this call.
        let info = unsafe { &*info };
        // SAFETY: so many headers stand there as long as the program is loaded.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for header in headers {
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            let begin = (info.dlpi_addr + header.p_vaddr) as usize;
            let end = begin + header.p_memsz as usize;
            let begin = begin & !4095;
            // SAFETY: these pages are mapped from a file, privately, and nothing in them was ever written: whoever
            // reads them next gets the same bytes from the file. Not even this code notices.
            unsafe {
                libc::madvise(
                    std::ptr::without_provenance_mut(begin),
                    end - begin,
                    libc::MADV_DONTNEED,
                );
            }
        }
        0
    }
    // SAFETY: the function is called for each loaded object, before this call returns.
    unsafe {
        libc::dl_iterate_phdr(Some(segment), std::ptr::null_mut());
    }
}
