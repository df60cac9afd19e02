//! What the kernel programs and user space agree on, and the code that runs on both sides: the ABI, the stack hash and
//! the unwinding step. It has no dependencies and no kernel types, so that it is tested on the host.
#![no_std]

pub mod abi;
pub mod allowance;
pub mod call_site;
pub mod calls;
pub mod hash;
pub mod heap;
pub mod kept;
pub mod span;
pub mod table;
pub mod unwind;

#[cfg(test)]
extern crate std;
