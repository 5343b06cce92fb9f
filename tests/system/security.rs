//! The keys of `[security]`, devices and credentials, as the box and the host see them.

use crate::guest::{define_script, inside, must, refused, sh, start, start_refused, stop};

/// What a definition asks for is what the first process has, and what enters later has the same.
#[test]
fn limits_settings_and_masks_are_the_definitions() {
    // A machine in a container may lack CAP_SYS_RESOURCE, and then cannot raise a limit.
    let capabilities = must("sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status");
    let capabilities = u64::from_str_radix(&capabilities, 16).expect("a number");
    let (locked, kibibytes) = if capabilities >> 24 & 1 == 1 {
        ("1G", "1048576")
    } else {
        ("1M", "1024")
    };
    define_script(
        "web",
        "ulimit -Sn; ulimit -Hn; ulimit -Hl; exec sleep infinity",
        &format!(
            "user = 'daemon'
[[mount]]
tmpfs = '1M'
at = '/srv/secret'
[security]
sysctls = {{ 'net.core.somaxconn' = 77, 'kernel.domainname' = 'example.org' }}
rlimits = {{ nofile = '64:128', memlock = '{locked}' }}
mask = ['/proc/uptime', '/srv/secret']
unmask = ['/proc/interrupts']
read-only-paths = ['/var/tmp']
keyring = true"
        ),
    );
    start("web");
    assert_eq!(
        crate::guest::printed("web").join(" "),
        format!("64 128 {kibibytes}"),
        "limits of the first process"
    );
    assert_eq!(
        inside("web", "sh -c 'ulimit -Sn; ulimit -Hl'"),
        format!("64\n{kibibytes}")
    );
    assert_eq!(
        inside(
            "web",
            "cat /proc/sys/net/core/somaxconn /proc/sys/kernel/domainname"
        ),
        "77\nexample.org"
    );
    assert_ne!(must("cat /proc/sys/kernel/domainname"), "example.org");
    // Nothing below 1024 is kept from a user of the box, and nothing of the host's settings changed for it.
    inside(
        "web",
        "python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 80))'",
    );
    assert_eq!(inside("web", "cat /proc/uptime"), "");
    assert_eq!(inside("web", "ls -A /srv/secret"), "");
    refused("boxctl exec -u root web -- touch /srv/secret/x");
    refused("boxctl exec -u root web -- touch /var/tmp/x");
    assert!(inside("web", "cat /proc/interrupts").contains("CPU0"));
    let keyctl = "keyctl add user name value @s >/dev/null && keyctl list @s";
    if sh("command -v keyctl").status == 0 {
        assert!(inside("web", &format!("sh -c '{keyctl}'")).contains("name"));
    }
    stop("web");

    // Root of a box that may mount cannot take away what is mounted for it.
    define_script(
        "web",
        "exec sleep infinity",
        "[security]\ncapabilities = ['+SYS_ADMIN']\nmask = ['/proc/uptime']",
    );
    start("web");
    inside("web", "mount -t tmpfs tmpfs /home");
    for command in [
        "umount /proc/uptime",
        "mount -t proc proc /home",
        "mount -o remount,bind,rw /sys",
        "mount -o remount,bind,rw /sys/fs/cgroup",
        "umount /dev/null",
    ] {
        refused(&format!("boxctl exec web -- {command}"));
    }
    stop("web");

    // A label is what the kernel says it is, or the box does not run.
    let enabled = sh("cat /sys/module/apparmor/parameters/enabled").out == "Y";
    if enabled {
        define_script(
            "web",
            "exec sleep infinity",
            "[security]\napparmor = 'unconfined'",
        );
        start("web");
        assert_eq!(inside("web", "cat /proc/self/attr/current"), "unconfined");
        stop("web");
    }
    define_script(
        "web",
        "exec sleep infinity",
        "[security]\napparmor = 'absent'",
    );
    let said = start_refused("web");
    assert!(
        said.contains("security.apparmor: this host does not run AppArmor")
            || said.contains("has no profile \"absent\"")
            || said.contains("cannot run the box under AppArmor profile \"absent\""),
        "{said}"
    );
}
