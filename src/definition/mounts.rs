//! `[root]` and `[[mount]]`: where the box's files come from, and that every mount is seen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::diagnostics::{Place, Problem};
use super::instances::Instances;
use super::section::{Problems, Section, quoted};
use super::values::{BOX_PATH, HOST_PATH, mode, size};
use super::{Mount, MountSource, Root, RootSource, Writes};

pub(super) fn root(mut section: Section<'_>, instances: &Instances) -> Root {
    let directory_at = section.place_of("directory");
    let directory = section.read("directory", |item| {
        instances.read(item, |item| item.path(HOST_PATH))
    });
    let host = section.read_placed("host", |item| item.boolean());
    let writes = section.read("writes", |item| {
        item.choice(&[
            ("discard", Writes::Discard),
            ("keep", Writes::Keep),
            ("refuse", Writes::Refuse),
        ])
    });
    let sensitive = section.read("sensitive", |item| item.boolean());
    match (&directory_at, &host) {
        (Some(directory), Some((true, host))) => section.problems().report(
            Problem::at(
                host,
                "the root is given twice",
                "expected either host or directory",
            )
            .related(directory, "given here already"),
        ),
        (None, Some((false, host))) => section.problems().report(Problem::at(
            host,
            "the box has no root",
            "expected `directory = …` beside this, or true",
        )),
        _ => {}
    }
    section.finish();
    Root {
        source: directory.map_or(RootSource::Host, RootSource::Directory),
        writes: writes.unwrap_or_default(),
        sensitive: sensitive.unwrap_or_default(),
    }
}

pub(super) fn mounts(whole: &mut Section<'_>, instances: &Instances) -> Vec<Mount> {
    let mounts = whole.read("mount", |item| {
        let expected = "expected tables, each written below a line [[mount]]";
        item.list(expected, |item| {
            let section = Section::element("mount", "[[mount]]", item.at, item.problems)?;
            mount(section, instances)
        })
        .inspect(|mounts| check_mount_points(mounts, item.problems))
    });
    let mounts = mounts.unwrap_or_default();
    mounts.into_iter().filter_map(|(mount, _)| mount).collect()
}

/// The mount, if all of it is right, and its mount point, if that is.
type ReadMount = (Option<Mount>, Option<(PathBuf, Place)>);

fn mount(mut section: Section<'_>, instances: &Instances) -> Option<ReadMount> {
    let written = |section: &Section<'_>, key| section.place_of(key);
    let (bind_at, tmpfs_at) = (written(&section, "bind"), written(&section, "tmpfs"));
    let recursive_at = written(&section, "recursive");
    let sensitive_at = written(&section, "sensitive");
    let only_tmpfs = written(&section, "mode");
    if section.place_of("at").is_none() {
        section.problems().report(Problem::absent(
            section.place(),
            "a mount without `at`",
            "say where in the box it appears, as in `at = \"/srv\"`",
        ));
    }
    let at = section.read_placed("at", |item| {
        let at = item.path(BOX_PATH)?;
        if at == Path::new("/") {
            return item.refuse("expected a path below \"/\": what is at \"/\" stands in [root]");
        }
        Some(at)
    });
    let bind = section.read("bind", |item| {
        instances.read(item, |item| item.path(HOST_PATH))
    });
    let tmpfs = section.read("tmpfs", |item| size(item, 1));
    let read_only = section.read("read-only", |item| item.boolean());
    let sensitive = section.read("sensitive", |item| item.boolean());
    let recursive = section.read("recursive", |item| item.boolean());
    let mode = section.read("mode", mode);
    let problems = section.problems();
    match (&bind_at, &tmpfs_at) {
        (None, None) => problems.report(Problem::absent(
            section.place(),
            "a mount of nothing",
            "say what is mounted: `bind = \"/path/on/the/host\"` or `tmpfs = \"64M\"`",
        )),
        (Some(bind), Some(tmpfs)) => problems.report(
            Problem::at(
                tmpfs,
                "a mount of two things",
                "expected either bind or tmpfs",
            )
            .related(bind, "given here already"),
        ),
        (Some(_), None) => {
            if let Some(place) = only_tmpfs {
                let title = "`mount.mode` does not go with `bind`";
                problems.report(Problem::at(
                    &place,
                    title,
                    "what is bound keeps the mode it has on the host",
                ));
            }
        }
        (None, Some(_)) => {
            if let Some(place) = recursive_at {
                let title = "`mount.recursive` does not go with `tmpfs`";
                problems.report(Problem::at(
                    &place,
                    title,
                    "nothing is mounted below a new tmpfs",
                ));
            }
            if let Some(place) = sensitive_at {
                let title = "`mount.sensitive` does not go with `tmpfs`";
                problems.report(Problem::at(
                    &place,
                    title,
                    "a new tmpfs gives nothing of the host away",
                ));
            }
        }
    }
    section.finish();
    let source = match (bind, tmpfs) {
        (Some(path), _) => Some(MountSource::Bind {
            path,
            recursive: recursive.unwrap_or(true),
        }),
        (None, Some(size)) => Some(MountSource::Tmpfs {
            size,
            mode: mode.unwrap_or(0o755),
        }),
        (None, None) => None,
    };
    let mount = at.as_ref().zip(source).map(|((at, _), source)| Mount {
        at: at.clone(),
        source,
        read_only: read_only.unwrap_or_default(),
        sensitive: sensitive.unwrap_or_default(),
    });
    Some((mount, at))
}

/// Every mount must be seen in the box: none at the point of an earlier one, none over an earlier one.
fn check_mount_points(mounts: &[ReadMount], problems: &Problems) {
    let mut points: BTreeMap<&Path, &Place> = BTreeMap::new();
    for (at, place) in mounts.iter().filter_map(|(_, at)| at.as_ref()) {
        if let Some(earlier) = points.get(&**at) {
            problems.report(
                Problem::at(
                    place,
                    format!("two mounts at {}", quoted(&at.to_string_lossy())),
                    "expected another path",
                )
                .related(earlier, "mounted here already"),
            );
            continue;
        }
        // Paths below `at` follow it directly: PathBuf compares by components.
        let below = points.range(&**at..).next();
        if let Some((hidden, earlier)) = below.filter(|(point, _)| point.starts_with(at)) {
            let hidden = quoted(&hidden.to_string_lossy());
            problems.report(
                Problem::at(
                    place,
                    format!("this mount hides the one at {hidden}"),
                    "expected before the mounts below it",
                )
                .related(earlier, "hidden by the later one"),
            );
        }
        points.insert(at, place);
    }
}
