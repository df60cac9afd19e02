//! The structs of the kernel boundary as aya wants them.

use aya::Pod;
use probe_ebpf::abi::Packed;

/// One of them, as a key or a value of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct OfKernel<T>(pub T);

// SAFETY: what is packed is integers, and nothing between them.
#[expect(unsafe_code, reason = "the kernel boundary")]
unsafe impl<T: Packed> Pod for OfKernel<T> {}
