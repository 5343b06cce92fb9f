//! Profiles of system calls in the OCI's form: the program made of one does for every call what its JSON says, read
//! naively from the OCI runtime specification (config-linux.md, "Seccomp") and Docker's additions.

use boxd::capability::CapabilitySet;
use boxd::plan::seccomp::{Policy, Read, read_oci};
use boxd::sandbox::seccomp::compile;
use boxd::syscall::{Architecture, Syscall};
use serde_json::{Map, Value, json};

use super::bpf;
use super::input::{Choices, assert_plain};

const CAPABILITIES: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_NET_RAW"];
const KERNEL: (u32, u32) = (6, 12);

/// The text of a profile; or, after a first byte that no text has, decisions of which one is made.
pub fn seccomp(data: &[u8]) {
    let made = data.strip_prefix(&[0xFF]).map(Choices);
    let text = match made {
        Some(mut choices) => profile(&mut choices).to_string(),
        None => String::from_utf8_lossy(data).into_owned(),
    };
    let capabilities = CapabilitySet::of(["SYS_ADMIN"]).expect("a capability");
    match read_oci("/etc/profile.json", &text, capabilities, KERNEL) {
        Ok(read) => same(&text, &read),
        Err(error) => {
            // What is quoted of the file may be anything: who prints it makes it plain.
            assert!(!error.to_string().is_empty());
        }
    }
}

fn same(text: &str, read: &Read) {
    let json: Value = serde_json::from_str(text).expect("JSON, as it was read");
    let policy = &read.policy;
    let stored = serde_json::to_vec(policy).expect("JSON");
    let found: Policy = serde_json::from_slice(&stored).expect("the policy");
    assert_eq!(found, *policy);
    let filter = match compile(policy) {
        Ok(filter) => filter,
        Err(error) => return assert_plain(&error.to_string()),
    };
    let program = filter.instructions();
    bpf::check(program).expect("a program for the kernel");

    let mut arguments = vec![[0; 6], [u64::MAX; 6]];
    let entries = list(&json, "syscalls");
    for argument in entries.iter().flat_map(|entry| list(entry, "args")).take(6) {
        let index = argument["index"].as_u64().expect("was read") as usize;
        let value = argument["value"].as_u64().expect("was read");
        let second = argument["valueTwo"].as_u64().unwrap_or_default();
        for near in [
            value,
            value.wrapping_add(1),
            value.wrapping_sub(1),
            value ^ 1 << 32,
            second,
        ] {
            let mut one = *arguments.last().expect("there are two");
            one[index] = near;
            arguments.push(one);
        }
    }
    let named = entries
        .iter()
        .flat_map(|entry| {
            let names = list(entry, "names");
            names.iter().chain(entry.get("name"))
        })
        .filter_map(|name| Syscall::of(name.as_str()?));
    let some = ["read", "execve", "clone3"]
        .into_iter()
        .filter_map(Syscall::of);
    let calls: Vec<Syscall> = named.take(12).chain(some).collect();
    for architecture in Architecture::ALL {
        let bit = match architecture {
            Architecture::X32 => Architecture::X32_BIT,
            _ => 0,
        };
        let known = calls
            .iter()
            .filter_map(|call| call.number(architecture))
            .chain([0, 334, 1023, 0xF_0005, u32::MAX >> 2]);
        for number in known.map(|number| number | bit) {
            for arguments in &arguments {
                let expected = naive(&json, architecture, number, arguments);
                let met = bpf::run(program, architecture.audit(), number, *arguments);
                assert_eq!(
                    met, expected,
                    "{architecture} {number} {arguments:x?}\n{text}"
                );
                let verdict = policy.verdict(architecture.audit(), number, *arguments);
                assert_eq!(
                    verdict.code(),
                    expected,
                    "{architecture} {number} {arguments:x?}\n{text}"
                );
            }
        }
    }
    assert_eq!(bpf::run(program, 0, 0, [0; 6]), KILL_PROCESS);
}

// linux/seccomp.h.
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = 38;

/// What the kernel is to return, as it writes it.
fn naive(profile: &Value, architecture: Architecture, number: u32, arguments: &[u64; 6]) -> u32 {
    let mapped = list(profile, "archMap")
        .iter()
        .filter(|entry| entry["architecture"] == Architecture::NATIVE.oci_name())
        .flat_map(|entry| list(entry, "subArchitectures"));
    let listed: Vec<&Value> = list(profile, "architectures")
        .iter()
        .chain(mapped)
        .collect();
    let looked_at = |architecture: Architecture| {
        architecture == Architecture::NATIVE
            || architecture.runs_on(Architecture::NATIVE)
                && listed.iter().any(|name| **name == architecture.oci_name())
    };
    let default = action(&profile["defaultAction"], profile.get("defaultErrnoRet"));
    if !looked_at(architecture) {
        // Their calls have one audit architecture, and are told apart by a bit of the number.
        let sibling = match architecture {
            Architecture::X32 => looked_at(Architecture::X86_64),
            Architecture::X86_64 => looked_at(Architecture::X32),
            _ => false,
        };
        return if sibling {
            ERRNO | ENOSYS
        } else {
            KILL_PROCESS
        };
    }
    let number = match architecture {
        Architecture::X32 => number & !Architecture::X32_BIT,
        _ => number,
    };
    let Some(call) = Syscall::all().find(|call| call.number(architecture) == Some(number)) else {
        return match default & 0x7FFF_0000 == ERRNO {
            true => ERRNO | ENOSYS,
            false => default,
        };
    };
    let mut decided: Option<u32> = None;
    for entry in list(profile, "syscalls") {
        let names = list(entry, "names");
        let is_named = names
            .iter()
            .chain(entry.get("name"))
            .any(|name| *name == call.name());
        let args = list(entry, "args");
        if !is_named || !applies(entry) || !matches(args, arguments) {
            continue;
        }
        let action = action(&entry["action"], entry.get("errnoRet"));
        // The kernel's actions are the more severe the less they are, as signed numbers.
        let severe = |action: u32| (action & 0xFFFF_0000) as i32;
        if decided.is_none_or(|decided| severe(action) < severe(decided)) {
            decided = Some(action);
        }
    }
    decided.unwrap_or(default)
}

fn matches(conditions: &[Value], arguments: &[u64; 6]) -> bool {
    let index = |condition: &Value| condition["index"].as_u64().expect("was read");
    let holds = |condition: &Value| {
        let argument = arguments[index(condition) as usize];
        let value = condition["value"].as_u64().expect("was read");
        let second = condition["valueTwo"].as_u64().unwrap_or_default();
        match condition["op"].as_str().expect("was read") {
            "SCMP_CMP_NE" => argument != value,
            "SCMP_CMP_LT" => argument < value,
            "SCMP_CMP_LE" => argument <= value,
            "SCMP_CMP_EQ" => argument == value,
            "SCMP_CMP_GE" => argument >= value,
            "SCMP_CMP_GT" => argument > value,
            "SCMP_CMP_MASKED_EQ" => argument & value == second,
            other => panic!("{other}"),
        }
    };
    let mut indices: Vec<u64> = conditions.iter().map(index).collect();
    indices.sort_unstable();
    match indices.windows(2).any(|two| two[0] == two[1]) {
        true => conditions.iter().any(holds),
        false => conditions.iter().all(holds),
    }
}

fn applies(entry: &Value) -> bool {
    let has = |name: &Value| {
        let bare = name.as_str().expect("was read").to_ascii_uppercase();
        bare.strip_prefix("CAP_").unwrap_or(&bare) == "SYS_ADMIN"
    };
    let native = |name: &Value| *name == Architecture::NATIVE.go_name();
    let reached = |filter: &Value| match filter["minKernel"].as_str() {
        None | Some("") => None,
        Some(version) => {
            let mut parts = version
                .split('.')
                .map(|part| part.parse::<u32>().expect("was read"));
            let mut part = || parts.next().expect("was read");
            let wanted = (part(), part());
            Some(KERNEL >= wanted)
        }
    };
    let (includes, excludes) = (&entry["includes"], &entry["excludes"]);
    list(includes, "caps").iter().all(has)
        && !list(excludes, "caps").iter().any(has)
        && (list(includes, "arches").is_empty() || list(includes, "arches").iter().any(native))
        && !list(excludes, "arches").iter().any(native)
        && reached(includes) != Some(false)
        && reached(excludes) != Some(true)
}

fn action(name: &Value, data: Option<&Value>) -> u32 {
    let data = data.and_then(Value::as_u64).unwrap_or(1) as u32;
    match name.as_str().expect("was read") {
        "SCMP_ACT_ALLOW" => 0x7FFF_0000,
        "SCMP_ACT_LOG" => 0x7FFC_0000,
        "SCMP_ACT_TRACE" => 0x7FF0_0000 | data,
        "SCMP_ACT_ERRNO" => ERRNO | data,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        other => panic!("{other}"),
    }
}

/// The elements of a list that may be missing.
fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of.get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_LE",
    "SCMP_CMP_LT",
    "SCMP_CMP_MASKED_EQ",
    "SCMP_CMP_NE",
];

/// A profile that can be read.
fn profile(choices: &mut Choices<'_>) -> Value {
    let mut profile = decision("defaultAction", "defaultErrnoRet", choices);
    let architectures: Vec<&str> = Architecture::ALL
        .into_iter()
        .filter(|_| choices.byte() & 1 != 0)
        .map(Architecture::oci_name)
        .collect();
    profile.insert("architectures".to_owned(), json!(architectures));
    let calls: Vec<Syscall> = Syscall::all().collect();
    let mut entries = Vec::new();
    while !choices.is_over() && entries.len() < 24 {
        let mut entry = decision("action", "errnoRet", choices);
        let few = choices.byte() & 1 != 0;
        let names: Vec<&str> = (0..=choices.below(5))
            .map(
                |_| match choices.below(if few { 4 } else { calls.len() + 1 }) {
                    0 => "made_up_call",
                    index => calls[index - 1].name(),
                },
            )
            .collect();
        entry.insert("names".to_owned(), json!(names));
        let args: Vec<Value> = (0..choices.byte() % 4)
            .map(|_| {
                json!({"index": choices.byte() % 6, "value": choices.number(), "valueTwo": choices.number(),
                       "op": choices.of(&OPERATORS)})
            })
            .collect();
        entry.insert("args".to_owned(), json!(args));
        for filter in ["includes", "excludes"] {
            let mut conditions = Map::new();
            match choices.byte() % 8 {
                1 => drop(conditions.insert("caps".to_owned(), json!([choices.of(&CAPABILITIES)]))),
                2 => drop(conditions.insert(
                    "arches".to_owned(),
                    json!([choices.of(&["amd64", "arm64"])]),
                )),
                3 => drop(conditions.insert(
                    "minKernel".to_owned(),
                    json!(choices.of(&["4.8", "6.12", "6.13"])),
                )),
                _ => {}
            }
            entry.insert(filter.to_owned(), Value::Object(conditions));
        }
        entries.push(Value::Object(entry));
    }
    profile.insert("syscalls".to_owned(), json!(entries));
    Value::Object(profile)
}

fn decision(key: &str, number: &str, choices: &mut Choices<'_>) -> Map<String, Value> {
    let mut decision = Map::new();
    decision.insert(key.to_owned(), json!(choices.of(&ACTIONS)));
    if choices.byte() & 1 != 0 {
        decision.insert(number.to_owned(), json!(choices.below(4096)));
    }
    decision
}
