//! Edited definitions, applied.

use crate::guest::{
    define, define_script, journal, must, pid, property, refused, sh, start, status, stop, unit,
};

pub const RUNS: &str = "exec sleep infinity";

/// The states of all generations, the newest first.
pub fn history() -> Vec<String> {
    let json = must("boxctl history --json");
    let generations: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let of = |generation: &serde_json::Value| generation["state"].as_str().map(str::to_owned);
    let generations = generations.as_array().expect("a list");
    generations.iter().filter_map(of).collect()
}

pub fn hostname(name: &str) -> String {
    crate::guest::inside(name, "cat /etc/hostname")
}

/// New boxes start, removed ones stop, changed ones are changed while they run where that is possible, and every
/// other box is left alone; what is to be done is told before, key by key.
#[test]
fn definitions_are_applied_by_the_mildest_way() {
    define_script("web", RUNS, "after = ['db']");
    define_script("db", RUNS, "");
    define_script("other", RUNS, "");
    for name in ["web", "db", "other"] {
        start(name);
    }
    must("boxctl apply");
    define(
        "new",
        "command = ['/bin/sleep', 'infinity']\nstart-at-boot = true\n",
    );
    let before = ["web", "db", "other"].map(pid);
    let said = must("boxctl apply");
    assert!(said.contains("start new"), "{said}");
    assert_eq!(property(&unit("new"), "ActiveState"), "active");
    assert_eq!(["web", "db", "other"].map(pid), before);

    define_script(
        "web",
        RUNS,
        "after = ['db']\ndescription = 'Shop'\nrestart.policy = 'always'",
    );
    define_script("db", RUNS, "hostname = 'elsewhere'");
    must("rm /etc/boxd/new.toml");
    let plan = must("boxctl plan");
    for words in [
        "stop     new",
        "change   web: while it runs",
        "description: not written -> \"Shop\"",
        "restart  db",
        "hostname: not written -> \"elsewhere\"  needs a restart",
        "3 boxes would be touched",
    ] {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    assert!(!plan.contains("other"), "{plan}");
    assert_eq!(must("boxctl apply --dry-run"), plan);
    assert!(must("boxctl diff").contains("+ hostname = \"elsewhere\""));
    assert_eq!(["web", "db", "other"].map(pid), before);

    must("boxctl apply");
    assert_eq!(property(&unit("new"), "ActiveState"), "inactive");
    assert_eq!(property(&unit("web"), "Restart"), "always");
    for unit in [unit("web"), "box-web.scope".to_owned()] {
        assert_eq!(property(&unit, "Description"), "Shop");
    }
    assert_eq!([pid("web"), pid("other")], [before[0], before[2]]);
    assert_ne!(pid("db"), before[1]);
    assert_eq!(hostname("db"), "elsewhere");
    let said = must("boxctl apply");
    assert!(said.contains("Nothing was to be done"), "{said}");
    assert_eq!(history()[..3], ["applied"; 3]);
}

/// A definition with problems leaves its box as it runs, and startable by the last good one: without anybody's help.
#[test]
fn a_broken_definition_leaves_the_last_good_one_startable() {
    define_script("web", RUNS, "hostname = 'good'\nstart-at-boot = true");
    define_script("db", RUNS, "");
    start("web");
    start("db");
    must("boxctl apply");
    let web = pid("web");
    define_script("web", RUNS, "hostnme = 'bad'");
    define_script("db", RUNS, "hostname = 'applied'");
    let said = refused("boxctl apply");
    assert!(
        said.contains("hostnme") && said.contains("restart db"),
        "{said}"
    );
    assert_eq!(hostname("db"), "applied");
    assert_eq!(pid("web"), web);
    refused("boxctl check");
    refused("boxctl restart web");
    assert_eq!(pid("web"), web);

    stop("web");
    start("web");
    assert_eq!(hostname("web"), "good");
    let said = journal("web");
    assert!(
        said.contains("web.toml") && said.contains("generation"),
        "{said}"
    );
    let page = must("boxctl status web");
    assert!(page.contains("hostnme") && page.contains("Held"), "{page}");
    // Nor does systemd forget that it starts with the host.
    must("systemctl daemon-reload");
    assert_eq!(
        must("systemctl list-dependencies --plain multi-user.target | grep -c 'box@web'"),
        "1"
    );
    stop("web");
    must("boxctl start web");
    assert_eq!(hostname("web"), "good");

    define_script("web", RUNS, "hostname = 'better'");
    must("boxctl apply");
    assert_eq!(hostname("web"), "better");
    assert!(status("web")["definition"]["held"].is_null());
}

/// Limits hold for a running box as soon as they are applied, and end as they do.
#[test]
fn limits_are_changed_while_a_box_runs() {
    define_script("web", RUNS, "[resources]\nmemory = '64M'\ntasks = 50");
    start("web");
    must("boxctl apply");
    let before = pid("web");
    define_script("web", RUNS, "[resources]\nmemory = '96M'\ncpu = 0.5");
    must("boxctl apply");
    let scope = "/sys/fs/cgroup/box.slice/box-web.scope";
    let read = |file: &str| must(&format!("cat {scope}/{file}"));
    assert_eq!(read("memory.max"), (96 << 20).to_string());
    assert_eq!(read("pids.max"), "4096");
    assert!(read("cpu.max").starts_with("50000 "), "{}", read("cpu.max"));
    must("systemctl set-property --runtime box@web MemoryMax=80M");
    define_script("web", RUNS, "[resources]\ntasks = 60");
    must("boxctl apply");
    assert_eq!(pid("web"), before);
    assert_eq!(read("memory.max"), (80 << 20).to_string(), "the operator's");
    assert!(read("cpu.max").starts_with("max "), "{}", read("cpu.max"));
    assert_eq!(status("web")["limits"]["tasks"], 60);
    assert_eq!(sh("boxctl plan").status, 0);
}
