//! Reading a value of every CPU into memory that is there already: what is read hundreds of times a second.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::MapData;
use aya_obj::generated::bpf_cmd;
use probe_ebpf::abi::Packed;

use super::boundary::OfKernel;

/// The part of `union bpf_attr` that `BPF_MAP_LOOKUP_ELEM` reads (include/uapi/linux/bpf.h).
#[repr(C)]
struct Lookup {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Reads the value of a key of every possible CPU, for each of which `values` has room.
pub(super) fn of_cpus<T: Packed>(map: &MapData, key: u32, values: &mut [OfKernel<T>]) -> io::Result<()> {
    // The kernel writes values at multiples of eight bytes.
    const { assert!(size_of::<T>().is_multiple_of(8)) };
    let mut lookup = Lookup {
        map_fd: map.fd().as_fd().as_raw_fd() as u32,
        padding: 0,
        key: (&raw const key) as u64,
        value: values.as_mut_ptr() as u64,
        flags: 0,
    };
    #[expect(unsafe_code, reason = "the kernel boundary: aya allocates at each reading")]
    // SAFETY: the kernel reads a key and writes a value of every possible CPU, for which there is room.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, bpf_cmd::BPF_MAP_LOOKUP_ELEM as libc::c_long, &raw mut lookup, size_of::<Lookup>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
