//! Instructions of x86-64: where they begin, which ones return, and which ones the kernel does not put a probe on.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

/// Of longer functions the instructions are not looked at.
pub(super) const MAX_FUNCTION: u64 = 1 << 20;

/// Where code is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exits {
    /// Addresses of its return instructions.
    pub returns: Vec<u64>,
    /// Where jumps lead out of it; `None` for one that may lead anywhere.
    pub jumps: Vec<Option<u64>>,
    /// It jumps to its own first instruction.
    pub begins_again: bool,
}

fn instructions(code: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    let mut decoder = Decoder::with_ip(64, code, address, DecoderOptions::NONE);
    std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
}

/// How far from its start code returns first; `None` if it does not.
pub fn first_return(code: &[u8]) -> Option<u64> {
    let mut instructions = instructions(code, 0).take_while(|instruction| !instruction.is_invalid());
    instructions.find(|instruction| instruction.flow_control() == FlowControl::Return).map(|found| found.ip())
}

/// Finds where code at `address` is left. It must be nothing but instructions one after the other; what is not is an error.
/// It knows the function's bounds and reads all of it, so that jumps through tables do not stop it; [`reached_returns`]
/// follows control instead, where an allocator's function goes on in others and has no bounds to speak of.
pub(super) fn exits(code: &[u8], address: u64) -> Result<Exits, &'static str> {
    let inside = address..address.saturating_add(code.len() as u64);
    let mut found = Exits::default();
    // What was decoded last, for jumps through tables.
    let mut since_table = usize::MAX;
    for instruction in instructions(code, address) {
        if instruction.is_invalid() {
            return Err("its code cannot be disassembled");
        }
        since_table = if reads_table(&instruction) { 0 } else { since_table.saturating_add(1) };
        match instruction.flow_control() {
            FlowControl::Return => found.returns.push(instruction.ip()),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                let target = instruction.near_branch_target();
                if !inside.contains(&target) {
                    found.jumps.push(Some(target));
                }
                found.begins_again |= target == address;
            }
            FlowControl::IndirectBranch if !is_switch(&instruction, since_table) => found.jumps.push(None),
            _ => {}
        }
    }
    Ok(found)
}

/// True if an instruction reads a word of a table at an index: what compilers do shortly before they jump there.
fn reads_table(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Movsxd | Mnemonic::Mov)
        && instruction.op1_kind() == OpKind::Memory
        && instruction.memory_index() != Register::None
        && matches!(instruction.memory_index_scale(), 4 | 8)
}

/// True for a jump that stays within the function: by a table of its own, which compilers mark or which was read just
/// before.
fn is_switch(jump: &Instruction, since_table: usize) -> bool {
    /// Between reading a table of offsets and the jump is the sum, and what the compiler moved there.
    const NEAR: usize = 6;
    let is_marked = jump.segment_prefix() == Register::DS;
    let is_table = jump.op0_kind() == OpKind::Memory && jump.memory_index() != Register::None;
    is_marked || is_table || jump.op0_kind() == OpKind::Register && since_table <= NEAR
}

/// Of a function that reaches more code than this, returns are not looked for.
const MAX_REACHED: usize = 1 << 14;

/// Finds the return instructions to which control can get from `entry`, also by jumps to other functions, but not within
/// what it calls, and not through `others`, of which that is known. `read` has the code from an address on.
pub(super) fn reached_returns(
    entry: u64,
    others: &BTreeSet<u64>,
    read: impl Fn(u64) -> Option<Vec<u8>>,
) -> Result<BTreeSet<u64>, &'static str> {
    let (mut found, mut seen, mut starts) = (BTreeSet::new(), BTreeSet::new(), vec![entry]);
    while let Some(mut next) = starts.pop() {
        'block: while !seen.contains(&next) {
            let (begin, bytes) = (next, read(next).ok_or("its code leads out of the file")?);
            for instruction in instructions(&bytes, begin) {
                let at = instruction.ip();
                match instruction.is_invalid() {
                    // Its bytes may go on behind those that were read.
                    true if at != begin => continue 'block,
                    true => return Err("its code cannot be disassembled"),
                    false => {}
                }
                let is_other = at != entry && others.contains(&at);
                if is_other || !seen.insert(at) {
                    break 'block;
                }
                if seen.len() > MAX_REACHED {
                    return Err("too much code");
                }
                match instruction.flow_control() {
                    FlowControl::Return => {
                        found.insert(at);
                        break 'block;
                    }
                    FlowControl::IndirectBranch => return Err("it jumps where its code does not say"),
                    FlowControl::UnconditionalBranch => {
                        starts.push(instruction.near_branch_target());
                        break 'block;
                    }
                    FlowControl::ConditionalBranch => starts.push(instruction.near_branch_target()),
                    FlowControl::Exception | FlowControl::Interrupt => break 'block,
                    _ => {}
                }
                next = instruction.next_ip();
            }
        }
    }
    Ok(found)
}

/// The addresses that a function at `address` calls or jumps to, as far as its code says so and can be taken apart.
pub(super) fn callees(code: &[u8], address: u64) -> BTreeSet<u64> {
    let is_direct = |i: &Instruction| matches!(i.op0_kind(), OpKind::NearBranch64);
    let valid = instructions(code, address).take_while(|i| !i.is_invalid());
    let targets = valid.filter(is_direct).map(|i| i.near_branch_target());
    targets.filter(|target| !(address..address.saturating_add(code.len() as u64)).contains(target)).collect()
}

/// Whether an instruction begins `offset` bytes into a function.
pub(super) fn is_boundary(code: &[u8], offset: u64) -> bool {
    instructions(code, 0).take_while(|i| !i.is_invalid() && i.ip() <= offset).any(|i| i.ip() == offset)
}

/// Why the kernel would not put a probe on the first instruction (`arch/x86/kernel/uprobes.c`); `None` if it would.
pub(super) fn refused(code: &[u8]) -> Option<&'static str> {
    const SEGMENTS: [u8; 4] = [0x26, 0x2e, 0x36, 0x3e];
    const OTHER_PREFIXES: [u8; 6] = [0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3];
    for byte in code.iter().take(15) {
        match byte {
            0xf0 => return Some("it begins with a locked instruction"),
            byte if SEGMENTS.contains(byte) => return Some("it begins with an instruction with a segment prefix"),
            byte if OTHER_PREFIXES.contains(byte) => {}
            _ => break,
        }
    }
    let Some(first) = instructions(code, 0).next() else { return Some("the file has no code there") };
    if first.is_invalid() {
        return Some("there is no valid instruction");
    }
    let bad = matches!(
        first.mnemonic(),
        Mnemonic::Int
            | Mnemonic::Int1
            | Mnemonic::Int3
            | Mnemonic::Hlt
            | Mnemonic::Cli
            | Mnemonic::Sti
            | Mnemonic::In
            | Mnemonic::Out
            | Mnemonic::Insb
            | Mnemonic::Insw
            | Mnemonic::Insd
            | Mnemonic::Outsb
            | Mnemonic::Outsw
            | Mnemonic::Outsd
            | Mnemonic::Ud0
            | Mnemonic::Ud1
            | Mnemonic::Ud2
    );
    bad.then_some("it begins with an instruction that traps")
}

/// The addresses in code that a function takes: what a resolver of an indirect function chooses among.
pub(super) fn code_pointers(code: &[u8], address: u64, is_code: impl Fn(u64) -> bool) -> Vec<u64> {
    let inside = address..address.saturating_add(code.len() as u64);
    let pointer = |i: Instruction| match i.mnemonic() {
        Mnemonic::Lea if i.is_ip_rel_memory_operand() => Some(i.ip_rel_memory_address()),
        Mnemonic::Mov
            if matches!(i.op1_kind(), OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64) =>
        {
            Some(i.immediate(1))
        }
        _ => None,
    };
    let valid = instructions(code, address).take_while(|i| !i.is_invalid());
    let pointers: BTreeSet<u64> = valid.filter_map(pointer).collect();
    pointers.into_iter().filter(|pointer| !inside.contains(pointer) && is_code(*pointer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_and_jumps_out_are_found() {
        // test edi, edi; jz +1; ret; jmp far away
        let code = [0x85, 0xff, 0x74, 0x01, 0xc3, 0xe9, 0x00, 0x10, 0x00, 0x00];
        assert_eq!(
            exits(&code, 0x1000),
            Ok(Exits { returns: vec![0x1004], jumps: vec![Some(0x200a)], begins_again: false })
        );
        // The byte of a return within another instruction is none: mov eax, 0xc3.
        assert_eq!(exits(&[0xb8, 0xc3, 0, 0, 0, 0xc3], 0).unwrap().returns, [5]);
        assert!(exits(&[0x06], 0).is_err());
    }

    #[test]
    fn jumps_through_pointers_lead_out_and_switches_do_not() {
        let leads_out = |code: &[u8]| exits(code, 0).unwrap().jumps == [None];
        assert!(leads_out(&[0x48, 0x8b, 0x07, 0xff, 0x60, 0x18]), "mov rax, [rdi]; jmp [rax + 0x18]");
        assert!(leads_out(&[0xff, 0xe0]), "jmp rax");
        assert!(leads_out(&[0xff, 0x25, 0, 1, 0, 0]), "jmp [rip + 0x100]");
        assert!(!leads_out(&[0x3e, 0xff, 0xe0]), "notrack jmp rax");
        assert!(!leads_out(&[0xff, 0x24, 0xc5, 0, 0x20, 0x40, 0]), "jmp [rax * 8 + table]");
        assert!(!leads_out(&[0x48, 0x63, 0x04, 0x82, 0x48, 0x01, 0xd0, 0xff, 0xe0]), "movsxd rax, [rdx + rax * 4]; …");
    }

    #[test]
    fn returns_are_found_behind_jumps() {
        // 0: test edi, edi; 2: jz 8; 4: call 0x40; 9 is no instruction that is reached but by falling through
        let mut code = [0x90; 0x60];
        code[..4].copy_from_slice(&[0x85, 0xff, 0x74, 0x10]);
        // 4: call somewhere; 9: ret
        code[4..10].copy_from_slice(&[0xe8, 0, 1, 0, 0, 0xc3]);
        // 0x14: jmp 0x30; 0x30: ret; 0x31: ret, which nothing reaches
        code[0x14..0x16].copy_from_slice(&[0xeb, 0x1a]);
        code[0x30..0x32].copy_from_slice(&[0xc3, 0xc3]);
        let read = |at: u64| code.get(at as usize..).map(<[u8]>::to_vec);
        let none = BTreeSet::new();
        assert_eq!(reached_returns(0, &none, read), Ok([9, 0x30].into()));
        assert_eq!(reached_returns(0, &[0x30].into(), read), Ok([9].into()), "another function tells of its own");
        // In pieces that end within an instruction.
        let short = |at: u64| code.get(at as usize..at as usize + 7).map(<[u8]>::to_vec);
        assert_eq!(reached_returns(0, &none, short), Ok([9, 0x30].into()));
        assert!(reached_returns(0, &none, |at| (at < 0x20).then(|| code[at as usize..].to_vec())).is_err());
        // jmp rax
        assert!(reached_returns(0, &none, |_| Some(vec![0xff, 0xe0])).is_err());
    }

    #[test]
    fn what_is_called_is_found() {
        // call +0x100; jz back to the start; jmp -0x10 from behind itself; ret
        let code = [0xe8, 0x00, 0x01, 0, 0, 0x74, 0xf9, 0xe9, 0xf0, 0xff, 0xff, 0xff, 0xc3];
        assert_eq!(Vec::from_iter(callees(&code, 0x1000)), [0xffc, 0x1105]);
    }

    #[test]
    fn boundaries_are_those_of_instructions() {
        let code = [0xb8, 0xc3, 0, 0, 0, 0xc3];
        let found: Vec<u64> = (0..8).filter(|&offset| is_boundary(&code, offset)).collect();
        assert_eq!(found, [0, 5]);
    }

    #[test]
    fn what_the_kernel_refuses_is_known() {
        assert_eq!(refused(&[0xf3, 0x0f, 0x1e, 0xfa]), None, "endbr64");
        assert_eq!(refused(&[0x55]), None);
        assert_eq!(refused(&[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0]), None, "mov rax, fs:0");
        for code in [&[0xf0, 0xff, 0x07][..], &[0x3e, 0xff, 0xe0], &[0xcc], &[0xf4], &[0x0f, 0x0b], &[0x06], &[]] {
            assert!(refused(code).is_some(), "{code:x?}");
        }
    }

    #[test]
    fn a_resolver_names_what_it_chooses_among() {
        // lea rax, [rip + 0x100]; mov edx, 0x2000; ret
        let code = [0x48, 0x8d, 0x05, 0, 1, 0, 0, 0xba, 0, 0x20, 0, 0, 0xc3];
        assert_eq!(code_pointers(&code, 0x1000, |_| true), [0x1107, 0x2000]);
        assert_eq!(code_pointers(&code, 0x1000, |address| address == 0x2000), [0x2000]);
    }
}
