//! Policy to classic BPF, bpf(4) and Documentation/userspace-api/seccomp_filter.rst.
//!
//! The program is written from its end to its beginning, since its jumps go forward only: when an instruction
//! is written, what it jumps to has its place already. A place is therefore counted from the end.
//!
//! ```text
//! architecture? ── none of the list ─► kill the process
//!      │
//!   x32 bit? (x86-64 only) ─► x32's numbers, or ENOSYS
//!      │
//!   binary search over ranges of numbers that are decided alike
//!      │
//!   the action, or the comparisons of a rule's cases one after the other
//! ```

use std::collections::HashMap;

use crate::plan::seccomp::{Action, Architecture, Comparison, Condition, Policy, Rule, Syscall};
use crate::sys::Instruction;

/// The program, however long it is.
pub(super) fn compile(policy: &Policy) -> Vec<Instruction> {
    let mut program = Program::default();

    // The last instruction of a program must be a return.
    let mut entry = program.action(Action::KillProcess);
    for architecture in policy.architectures.iter().rev() {
        if *architecture == Architecture::X32
            && policy.architectures.contains(&Architecture::X86_64)
        {
            continue;
        }
        let found = section(&mut program, policy, *architecture);
        entry = program.jump(JEQ, architecture.audit(), found, entry);
    }
    program.load(ARCHITECTURE, entry);
    program.finish()
}

/// The part for the calls of one architecture; its place.
fn section(program: &mut Program, policy: &Policy, architecture: Architecture) -> Place {
    let listed = |wanted| policy.architectures.contains(&wanted);
    let entry = match architecture {
        Architecture::X86_64 | Architecture::X32 => {
            let x32 = if listed(Architecture::X32) {
                search(program, &ranges(policy, Architecture::X32))
            } else {
                program.action(Action::ABSENT)
            };
            let x86_64 = if listed(Architecture::X86_64) {
                search(program, &ranges(policy, Architecture::X86_64))
            } else {
                program.action(Action::ABSENT)
            };
            program.jump(JSET, Architecture::X32_BIT, x32, x86_64)
        }
        _ => search(program, &ranges(policy, architecture)),
    };
    program.load(NUMBER, entry)
}

/// Numbers from `start` to the next range's are decided alike.
struct Range<'a> {
    start: u32,
    decision: Decision<'a>,
}

#[derive(Clone, Copy)]
enum Decision<'a> {
    Plain(Action),
    ByArguments(&'a Rule),
}

impl PartialEq for Decision<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Decision::Plain(one), Decision::Plain(other)) => one == other,
            (Decision::ByArguments(one), Decision::ByArguments(other)) => {
                std::ptr::eq(*one, *other)
            }
            _ => false,
        }
    }
}

/// All numbers of an architecture, from 0 on.
fn ranges(policy: &Policy, architecture: Architecture) -> Vec<Range<'_>> {
    let mut decisions: Vec<Option<&Rule>> = vec![None; Syscall::all().count()];
    for rule in policy.rules.iter().rev() {
        for call in &rule.calls {
            decisions[call.index()] = Some(rule);
        }
    }
    let bit = match architecture {
        Architecture::X32 => Architecture::X32_BIT,
        _ => 0,
    };
    let mut numbered: Vec<(u32, Decision<'_>)> = Syscall::all()
        .filter_map(|call| {
            let decision = match decisions[call.index()] {
                Some(rule) if rule.cases.is_empty() => Decision::Plain(rule.otherwise),
                Some(rule) => Decision::ByArguments(rule),
                None => Decision::Plain(policy.otherwise),
            };
            call.number(architecture)
                .map(|number| (number | bit, decision))
        })
        .collect();
    numbered.sort_unstable_by_key(|(number, _)| *number);

    let unknown = Decision::Plain(policy.unknown);
    let mut ranges = vec![Range {
        start: 0,
        decision: unknown,
    }];
    let mut next = 0;
    for (number, decision) in numbered {
        if number > next {
            begin(&mut ranges, next, unknown);
        }
        begin(&mut ranges, number, decision);
        next = number + 1;
    }
    begin(&mut ranges, next, unknown);
    ranges
}

/// From `start` on the decision is another one, if it is.
fn begin<'a>(ranges: &mut Vec<Range<'a>>, start: u32, decision: Decision<'a>) {
    if ranges.last().is_some_and(|last| last.start == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.decision != decision) {
        ranges.push(Range { start, decision });
    }
}

/// A search for the range of the number in the accumulator. There is one range at least.
fn search(program: &mut Program, ranges: &[Range<'_>]) -> Place {
    if let [only] = ranges {
        return match only.decision {
            Decision::Plain(action) => program.action(action),
            Decision::ByArguments(rule) => by_arguments(program, rule),
        };
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let border = high[0].start;
    let high = search(program, high);
    let low = search(program, low);
    program.jump(JGE, border, high, low)
}

/// The cases of a rule, one after the other.
fn by_arguments(program: &mut Program, rule: &Rule) -> Place {
    let mut next = program.action(rule.otherwise);
    for case in rule.cases.iter().rev() {
        let mut entry = program.action(case.action);
        for condition in case.conditions.iter().rev() {
            entry = comparison(program, *condition, entry, next);
        }
        next = entry;
    }
    next
}

/// A comparison of 64 bits in halves of 32.
fn comparison(program: &mut Program, condition: Condition, holds: Place, fails: Place) -> Place {
    let low_offset = ARGUMENTS + 8 * u32::from(condition.argument);
    let high_offset = low_offset + 4;
    let halves = |value: u64| ((value >> 32) as u32, value as u32);

    match condition.comparison {
        Comparison::Equal(value) => {
            let (high, low) = halves(value);
            let low = program.jump(JEQ, low, holds, fails);
            let low = program.load(low_offset, low);
            let high = program.jump(JEQ, high, low, fails);
            program.load(high_offset, high)
        }
        Comparison::Greater(value) => above(program, JGT, low_offset, value, holds, fails),
        Comparison::GreaterOrEqual(value) => above(program, JGE, low_offset, value, holds, fails),
        Comparison::NotEqual(value) => {
            let equal = Comparison::Equal(value);
            comparison(
                program,
                Condition {
                    comparison: equal,
                    ..condition
                },
                fails,
                holds,
            )
        }
        Comparison::Less(value) => above(program, JGE, low_offset, value, fails, holds),
        Comparison::LessOrEqual(value) => above(program, JGT, low_offset, value, fails, holds),
        Comparison::Masked { mask, value } => {
            let (high_mask, low_mask) = halves(mask);
            let (high, low) = halves(value);
            let low = masked(program, low_offset, low_mask, low, holds, fails);
            masked(program, high_offset, high_mask, high, low, fails)
        }
    }
}

/// Whether an argument is greater than a value; `last` says whether equal halves below count.
fn above(
    program: &mut Program,
    last: u16,
    low_offset: u32,
    value: u64,
    holds: Place,
    fails: Place,
) -> Place {
    let low = program.jump(last, value as u32, holds, fails);
    let low = program.load(low_offset, low);
    let equal = program.jump(JEQ, (value >> 32) as u32, low, fails);
    let greater = program.jump(JGT, (value >> 32) as u32, holds, equal);
    program.load(low_offset + 4, greater)
}

/// Half of a comparison under a mask; what the mask leaves out is not loaded.
fn masked(
    program: &mut Program,
    offset: u32,
    mask: u32,
    value: u32,
    holds: Place,
    fails: Place,
) -> Place {
    match mask {
        0 if value == 0 => holds,
        0 => fails,
        u32::MAX => {
            let compare = program.jump(JEQ, value, holds, fails);
            program.load(offset, compare)
        }
        _ => {
            let compare = program.jump(JEQ, value, holds, fails);
            let and = program.and(mask, compare);
            program.load(offset, and)
        }
    }
}

// Operations, linux/bpf_common.h.
pub(super) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
pub(super) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
pub(super) const JA: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
pub(super) const JEQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
pub(super) const JGT: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
pub(super) const JGE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
pub(super) const JSET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
pub(super) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

// Offsets in `struct seccomp_data`; every architecture of the table is little-endian.
pub(super) const NUMBER: u32 = 0;
pub(super) const ARCHITECTURE: u32 = 4;
pub(super) const ARGUMENTS: u32 = 16;

/// Where an instruction is, counted from the program's end.
type Place = usize;

/// A program in the making, its last instruction first.
#[derive(Default)]
struct Program {
    reversed: Vec<Instruction>,
    /// The latest place that returns this.
    returns: HashMap<Action, Place>,
}

impl Program {
    /// The most that a conditional jump can skip.
    const REACH: usize = u8::MAX as usize;

    fn push(&mut self, code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Place {
        self.reversed.push(Instruction {
            code,
            jump_true,
            jump_false,
            operand,
        });
        self.reversed.len() - 1
    }

    /// How many instructions the next one would have to skip to reach a place.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place
    }

    /// A return of this action, shared with an earlier one where that is near enough to be worth it.
    fn action(&mut self, action: Action) -> Place {
        if let Some(place) = self.returns.get(&action)
            && self.distance(*place) < Self::REACH / 2
        {
            return *place;
        }
        let place = self.push(RETURN, action.code(), 0, 0);
        self.returns.insert(action, place);
        place
    }

    /// Loads 32 bits and goes on at a place.
    fn load(&mut self, offset: u32, then: Place) -> Place {
        self.fall_into(then);
        self.push(LOAD, offset, 0, 0)
    }

    fn and(&mut self, mask: u32, then: Place) -> Place {
        self.fall_into(then);
        self.push(AND, mask, 0, 0)
    }

    /// Makes the next instruction written one that is followed by what stands at the place.
    fn fall_into(&mut self, place: Place) {
        let distance = self.distance(place);
        if distance > 0 {
            self.push(JA, distance as u32, 0, 0);
        }
    }

    /// A comparison of the accumulator, and where to go on.
    fn jump(&mut self, code: u16, operand: u32, holds: Place, fails: Place) -> Place {
        let holds = self.near(holds, 1);
        let fails = self.near(fails, 0);
        let (holds, fails) = (self.distance(holds), self.distance(fails));
        self.push(code, operand, holds as u8, fails as u8)
    }

    /// The place, or one that jumps to it, so near that a conditional jump reaches it even if some more
    /// instructions are put before that jump.
    fn near(&mut self, place: Place, before: usize) -> Place {
        let distance = self.distance(place);
        if distance + before <= Self::REACH {
            return place;
        }
        self.push(JA, distance as u32, 0, 0)
    }

    fn finish(mut self) -> Vec<Instruction> {
        self.reversed.reverse();
        self.reversed
    }
}
