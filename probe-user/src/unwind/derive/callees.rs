//! Which registers functions leave alone that they might change: parts of hand-written code that call each other agree on it, and
//! keep the caller's stack pointer in one (x264's sums of transformed differences: `mov rcx, rsp`, `and rsp, -32`, `call`).

use std::collections::{HashMap, HashSet};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

use super::effects::Effects;
use super::image::Image;
use super::state::State;

/// A longer function is not looked through.
const MAX_INSTRUCTIONS: usize = 2000;

/// Functions that were looked through, by their entries: a bit for each register that they do not write.
#[derive(Default)]
pub(super) struct Callees(HashMap<u64, u16>);

impl Callees {
    /// The registers that are after a call what they were before it, beside those that all functions keep. Looked for only where
    /// one of them says where the frame is.
    pub fn kept(&mut self, image: &Image<'_>, effects: &mut Effects, call: &Instruction, state: &State) -> u16 {
        if call.op0_kind() != OpKind::NearBranch64 || !state.risks_frame() {
            return 0;
        }
        let callee = call.near_branch_target();
        *self.0.entry(callee).or_insert_with(|| !written(image, effects, callee).unwrap_or(u16::MAX))
    }
}

/// What a function that calls no other may write; `None` if it does, or is not all seen.
fn written(image: &Image<'_>, effects: &mut Effects, entry: u64) -> Option<u16> {
    let (mut mask, mut seen, mut paths) = (0, HashSet::new(), vec![entry]);
    let mut i = Instruction::default();
    while let Some(mut at) = paths.pop() {
        while seen.insert(at) {
            if seen.len() > MAX_INSTRUCTIONS {
                return None;
            }
            let mut decoder = Decoder::with_ip(64, image.gap(at)?.from(at), at, DecoderOptions::NONE);
            decoder.decode_out(&mut i);
            if i.is_invalid() {
                return None;
            }
            mask |= effects.written(&i);
            match i.flow_control() {
                FlowControl::Next if i.mnemonic() == Mnemonic::Hlt => break,
                FlowControl::Next => at = i.next_ip(),
                FlowControl::Return => break,
                FlowControl::UnconditionalBranch => at = i.near_branch_target(),
                FlowControl::ConditionalBranch => {
                    paths.push(i.near_branch_target());
                    at = i.next_ip();
                }
                _ => return None,
            }
        }
    }
    Some(mask)
}
