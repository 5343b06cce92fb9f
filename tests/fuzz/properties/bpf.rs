//! Classic BPF as the kernel has it for seccomp(2): what programs it takes (`bpf_check_classic()` and
//! `seccomp_check_filter()`), and what they do.

use boxd::sys::Instruction;

// linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Bytes of `struct seccomp_data`.
const DATA: usize = 64;

/// Whether the kernel would take it; why not, if not.
pub fn check(program: &[Instruction]) -> Result<(), String> {
    let length = program.len();
    if !(1..=4096).contains(&length) {
        return Err(format!("{length} instructions"));
    }
    for (at, instruction) in program.iter().enumerate() {
        let good = match instruction.code {
            LOAD_WORD => {
                instruction.operand.is_multiple_of(4) && (instruction.operand as usize) < DATA
            }
            AND | RETURN => true,
            JUMP => (instruction.operand as usize) < length - at - 1,
            JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL | JUMP_SET => {
                let furthest = instruction.jump_true.max(instruction.jump_false);
                usize::from(furthest) < length - at - 1
            }
            _ => false,
        };
        if !good {
            return Err(format!("instruction {at}: {instruction:?}"));
        }
    }
    match program[length - 1].code {
        RETURN => Ok(()),
        code => Err(format!("the last instruction is {code:#x}")),
    }
}

/// What a checked program returns for this call.
pub fn run(program: &[Instruction], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let words: Vec<u32> = [number, audit, 0, 0]
        .into_iter()
        .chain(
            arguments
                .into_iter()
                .flat_map(|argument| [argument as u32, (argument >> 32) as u32]),
        )
        .collect();
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction {
            code,
            jump_true,
            jump_false,
            operand,
        } = program[at];
        let mut jump = |holds| at += usize::from(if holds { jump_true } else { jump_false });
        match code {
            RETURN => return operand,
            LOAD_WORD => accumulator = words[operand as usize / 4],
            AND => accumulator &= operand,
            JUMP => at += operand as usize,
            JUMP_EQUAL => jump(accumulator == operand),
            JUMP_GREATER => jump(accumulator > operand),
            JUMP_GREATER_OR_EQUAL => jump(accumulator >= operand),
            JUMP_SET => jump(accumulator & operand != 0),
            _ => panic!("{code:#x}"),
        }
        at += 1;
    }
}
