//! Attacks that are held off by systemd as well; all others, and the table of them, are in tests/attacks.

use crate::guest::{define_script, inside, must, pid, start, stop};

/// K4: whatever nodes root of a box can make, no device of the host opens through them; also after systemd has read
/// its units anew, and after it has executed itself anew.
#[test]
fn k4_nodes_of_every_device_of_the_host_are_dead() {
    // Of each kind a few; and the memory of the host, its ports, its log, its disks and its console, whether it has
    // nodes of them or not.
    let devices = must(
        "{ find /dev \\( -type b -o -type c \\) -exec stat -c '%F %t %T' {} + | sed 's/^\\(.\\)[^0-9]* file/\\1/'
        printf '%s\\n' 'c 1 1' 'c 1 2' 'c 1 3' 'c 1 4' 'c 1 b' 'c 5 1' 'c a e5' 'b 7 0' 'b 8 0' 'b fe 0'; } | sort -u | awk '++seen[$1 $2] <= 2'",
    );
    let tries: String = devices
        .lines()
        .map(|device| {
            let fields: Vec<&str> = device.split(' ').collect();
            let [kind, major, minor] = fields[..] else {
                panic!("{device}");
            };
            format!("try {kind} 0x{major} 0x{minor}\n")
        })
        .collect();
    define_script(
        "maker",
        "exec sleep infinity",
        "[security]\nusers = 'host'\ncapabilities = ['+MKNOD']",
    );
    start("maker");
    let script = format!(
        "try() {{ rm -f /dev/node; mknod /dev/node $1 $2 $3 || return; (exec 3< /dev/node) && echo $1 $2 $3; }}
        exec 2>/dev/null
        {tries}# One that opens, so that it is seen that all were tried.
        try c 0x1 0x3
        true"
    );
    must(&format!(
        "cat > /run/tries <<'END'\n{script}\nEND\nboxctl exec -i maker -- sh -c 'cat > /tmp/tries' < /run/tries; rm /run/tries"
    ));
    for again in ["true", "systemctl daemon-reload; systemctl daemon-reexec"] {
        must(again);
        let opened = inside("maker", "sh /tmp/tries");
        // Those every box has: null, zero, full, random, urandom, tty, ptmx, and terminals of devpts.
        let others: Vec<&str> = opened
            .lines()
            .filter(|device| {
                let known = ["0x3", "0x5", "0x7", "0x8", "0x9"];
                let memory = device.strip_prefix("c 0x1 ");
                !memory.is_some_and(|minor| known.contains(&minor))
                    && !["c 0x5 0x0", "c 0x5 0x2"].contains(device)
                    && !device.starts_with("c 0x88 ")
            })
            .collect();
        assert!(others.is_empty(), "after {again}: {others:?}");
        assert!(opened.contains("c 0x1 0x3"), "nothing was tried: {opened}");
    }
    // K1: and whoever is in the box is in its group, with its limits around it.
    let group = must(&format!("tail -n 1 /proc/{}/cgroup", pid("maker")));
    assert_eq!(group, "0::/box.slice/box-maker.scope");
    stop("maker");
}
