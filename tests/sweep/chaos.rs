//! Many clients give commands about few boxes, all at once and at random, and kill what comes into their way. Two
//! instances of a box never live at once, what `boxctl status` says is what is, no command hangs, and afterwards
//! every box can be started and stopped and nothing is left.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::guest::{self, sh};
use crate::machine::{self, State};
use crate::random::Random;

const CLIENTS: u64 = 32;
const BOXES: u64 = 8;

/// A command that takes longer hangs. Many wait for others here, and each of those may take its time to stop.
const HANGS: Duration = Duration::from_secs(90);

/// When all have gone the last stop may still be under way, and the wait for a supervisor that died often.
const SETTLE: Duration = Duration::from_secs(30);

/// A difference between what is told and what is must last so long, and be seen so often, to be one.
const LASTS: Duration = Duration::from_secs(5);
const SEEN: u32 = 5;

const ACTIONS: [&str; 9] = [
    "start",
    "stop",
    "restart",
    "exec",
    "status",
    "kill payload",
    "kill supervisor",
    "boxctl start",
    "boxctl stop",
];

fn name(number: u64) -> String {
    format!("chaos-{number}")
}

/// Each holds a lock as long as any process of it lives, and complains if another life of it does.
fn install() {
    for number in 0..BOXES {
        let name = name(number);
        let folder = format!("/srv/chaos/{name}");
        fs::create_dir_all(&folder).expect("a folder can be made");
        guest::must(&format!(
            "chmod 777 {folder}; touch {folder}/lock; chmod 666 {folder}/lock"
        ));
        let life = match number {
            // Hears, is deaf, ignores, talks a lot, ends by itself.
            0 | 1 => "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done",
            2 | 3 => "exec -a \"sleep, $0\" sleep 100000",
            4 => "trap '' TERM; while :; do sleep 1; done",
            5 => "trap 'exit 0' TERM; while :; do echo line; sleep 0.01; done",
            6 => "sleep 2; exit 1",
            _ => "sleep 1000 & sleep 1",
        };
        guest::define(
            &name,
            &format!(
                "command = ['/bin/bash', '-c', '''\nexec 9>>/lock/lock\nflock -n 9 || echo twice >>/lock/twice\n\
                 {life}\n''', '{}']\n[restart]\npolicy = '{}'\ndelay = '100ms'\nlimit-interval = 0\n\
                 [stop]\ntimeout = '2s'\n[[mount]]\nbind = '{folder}'\nat = '/lock'\n",
                machine::mark(&name),
                if number >= 6 { "always" } else { "no" },
            ),
        );
    }
    // As long as this is up systemd forgets none of them when it stops, nor when it changed last.
    guest::write(
        "/etc/systemd/system/remember.service",
        &format!(
            "[Unit]\nAfter={}\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n",
            (0..BOXES)
                .map(|number| format!("box@{}.service ", name(number)))
                .collect::<String>()
        ),
    );
    guest::must("systemctl daemon-reload; systemctl start remember");
}

pub fn run(options: &[&str]) -> ExitCode {
    let number = |index: usize| options.get(index).and_then(|text| text.parse::<u64>().ok());
    let seconds = number(0).unwrap_or(60);
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let seed = number(1).unwrap_or(now.as_nanos() as u64 | 1);
    println!("{CLIENTS} clients on {BOXES} boxes for {seconds} s, seed {seed}");
    install();
    for number in 0..BOXES {
        guest::start(&name(number));
    }
    for number in 0..BOXES {
        guest::stop(&name(number));
    }
    guest::must("systemctl reset-failed");
    let before = guest::everything();

    let over = AtomicBool::new(false);
    let wrong = Mutex::new(Vec::new());
    let counts: [AtomicU64; ACTIONS.len()] = Default::default();
    let fine: [AtomicU64; ACTIONS.len()] = Default::default();
    let checks = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (over, wrong, counts, fine) = (&over, &wrong, &counts, &fine);
            let mut random = Random::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (client + 1));
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let action = random.below(ACTIONS.len() as u64) as usize;
                    let name = name(random.below(BOXES));
                    counts[action].fetch_add(1, Ordering::Relaxed);
                    match act(ACTIONS[action], &name) {
                        Ok(true) => {
                            fine[action].fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(false) => {}
                        Err(what) => tell(wrong, format!("{name}: {what}")),
                    }
                    std::thread::sleep(Duration::from_millis(random.below(100)));
                }
            });
        }
        let (over, wrong, checks) = (&over, &wrong, &checks);
        scope.spawn(move || {
            let mut random = Random::new(seed | 1);
            while !over.load(Ordering::Relaxed) {
                let name = name(random.below(BOXES));
                if let Err(what) = told_and_true(&name) {
                    tell(wrong, format!("{name}: {what}"));
                }
                checks.fetch_add(1, Ordering::Relaxed);
            }
        });
        std::thread::sleep(Duration::from_secs(seconds));
        over.store(true, Ordering::Relaxed);
    });

    println!(
        "all clients have ended; {} looks at what is told",
        checks.load(Ordering::Relaxed)
    );
    for (index, action) in ACTIONS.iter().enumerate() {
        println!(
            "{action:16}{:7} times, {:7} with success",
            counts[index].load(Ordering::Relaxed),
            fine[index].load(Ordering::Relaxed)
        );
    }
    for number in 0..BOXES {
        let name = name(number);
        if let Err(what) = afterwards(&name, number) {
            tell(&wrong, format!("{name}: {what}"));
        }
        if fs::metadata(format!("/srv/chaos/{name}/twice")).is_ok() {
            tell(&wrong, format!("{name}: two instances lived at once"));
        }
    }
    guest::sh("systemctl reset-failed");
    if let Err(what) = machine::leaks(&before, SETTLE) {
        tell(&wrong, format!("left: {what}"));
    }
    let wrong = wrong.into_inner().unwrap_or_default();
    if wrong.is_empty() {
        println!("chaos: ok");
        return ExitCode::SUCCESS;
    }
    println!("chaos: {} findings with seed {seed}", wrong.len());
    println!("{}", machine::journal(now.as_secs_f64()));
    ExitCode::FAILURE
}

fn tell(wrong: &Mutex<Vec<String>>, what: String) {
    println!("FAILED {what}");
    if let Ok(mut wrong) = wrong.lock() {
        wrong.push(what);
    }
}

/// Whether it succeeded, as it need not among so many; an error is what may not be in any case.
fn act(action: &str, name: &str) -> Result<bool, String> {
    let command = match action {
        "start" | "stop" | "restart" => format!("systemctl {action} box@{name}"),
        "boxctl start" | "boxctl stop" => format!("{action} {name}"),
        "exec" => format!("boxctl exec {name} -- /bin/echo inside"),
        "status" => format!("boxctl status {name}"),
        "kill supervisor" => format!("systemctl kill -s KILL --kill-whom=main box@{name}"),
        "kill payload" => {
            let document = fs::read(format!("/run/boxd/{name}/document.json")).unwrap_or_default();
            let document: serde_json::Value = serde_json::from_slice(&document).unwrap_or_default();
            match document["pid"].as_i64() {
                Some(pid) => format!("kill -KILL {pid}"),
                None => return Ok(false),
            }
        }
        other => panic!("nobody does {other}"),
    };
    let ran = sh(&format!("timeout {} {command}", HANGS.as_secs()));
    match ran.status {
        124 => Err(format!("{command} hangs")),
        0 if action == "exec" && ran.out != "inside" => {
            Err(format!("{command} prints {:?}", ran.out))
        }
        101 | 132..=139 if ran.status != 137 => {
            Err(format!("{command} ends with {}: {}", ran.status, ran.err))
        }
        status if ran.err.contains("panicked") => Err(format!("{command}: {status} {}", ran.err)),
        status => Ok(status == 0),
    }
}

/// Compares what `boxctl status` says with what is, as long as nothing changes in between.
fn told_and_true(name: &str) -> Result<(), String> {
    let begun = Instant::now();
    let mut first = None;
    let mut looks = 0;
    loop {
        looks += 1;
        let (stamp, difference) = compare(name);
        // What changes all the time is never caught in the middle: another look will do.
        let Some(difference) = difference else {
            return Ok(());
        };
        if first.get_or_insert_with(|| stamp.clone()) != &stamp {
            return Ok(());
        }
        if begun.elapsed() > LASTS && looks >= SEEN {
            return Err(format!("{difference}; {stamp}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn compare(name: &str) -> (String, Option<String>) {
    let stamp = || {
        sh(&format!(
            "systemctl show -p InvocationID -p StateChangeTimestampMonotonic -p MainPID -p NRestarts \
             -p ActiveState -p SubState -p Job box@{name}; ls -i /run/boxd/{name}"
        ))
        .out
    };
    let before = stamp();
    let told = sh(&format!("boxctl status --json {name}"));
    let is = machine::look_among_clients(name);
    if stamp() != before {
        return (String::new(), None);
    }
    let report: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&told.out).unwrap_or_default();
    let Some(told) = report.get("boxes").and_then(|boxes| boxes.get(0)) else {
        return (
            before,
            Some(format!("boxctl status says {:?} {}", told.out, told.err)),
        );
    };
    let state = told["state"].as_str().unwrap_or_default();
    let payload = told["payload"]["pid"].as_i64();
    let agree = match &is {
        State::Running { payload: pid, .. } => {
            state == "running" && payload == Some(i64::from(*pid))
        }
        State::Stopped => ["stopped", "failed"].contains(&state) && payload.is_none(),
        // On its way. What must not be said then is that it is at rest.
        State::Between(_) => !["stopped", "failed", "running"].contains(&state),
    };
    let difference = (!agree).then(|| format!("told {state} with {payload:?}, is {is:?}"));
    (before, difference)
}

/// With nobody there any more a box comes to rest, and does what it is told.
fn afterwards(name: &str, number: u64) -> Result<(), String> {
    // Two of them end and begin again by themselves.
    if number < 6 {
        machine::settle(name, SETTLE)?;
        told_and_true(name)?;
    }
    for command in ["stop", "start", "stop"] {
        let ran = sh(&format!(
            "timeout {} systemctl {command} box@{name}",
            HANGS.as_secs()
        ));
        if ran.status != 0 {
            return Err(format!("systemctl {command} fails: {}", ran.err));
        }
        let wanted_running = command == "start";
        let (state, _) = machine::settle(name, SETTLE)?;
        if number < 6 && matches!(state, State::Running { .. }) != wanted_running {
            return Err(format!("after systemctl {command} it is {state:?}"));
        }
    }
    Ok(())
}
