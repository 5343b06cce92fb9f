//! Whether a definition says something else than what runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::definition::Definition;
use crate::running::Running;
use crate::{host, plan};

/// In the remark of a box whose unit has limits that count for it.
const OF_ITS_OWN: &str = "has limits of its own";

/// Whether a start now would make another box than the one that runs. Files that nobody touched since it was started are
/// not read again: a host may have hundreds of boxes.
pub fn is_newer(definition: &Definition, running: &Running) -> bool {
    let folders = definition.sources.iter().filter_map(|file| {
        Some(
            file.parent()?
                .join(format!("{}.toml.d", definition.name.base())),
        )
    });
    let touched = definition
        .sources
        .iter()
        .cloned()
        .chain(folders)
        .filter_map(|path| changed(&path))
        .any(|changed| changed > running.document.started);
    touched && differs(definition, running)
}

/// When a file was last written, moved here or given to somebody: microseconds since the epoch.
fn changed(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let rest = u64::try_from(metadata.ctime_nsec()).ok()? / 1000;
    Some(seconds * 1_000_000 + rest)
}

fn differs(definition: &Definition, running: &Running) -> bool {
    let Ok(mut plan) = plan::resolve(definition, &host::read(definition)) else {
        return true;
    };
    if running.plan.scope.before.is_none() {
        plan = plan.by_hand();
    }
    // What differs on this host is not the definition's doing; limits of the operator's stand in the place of its own.
    if running
        .plan
        .remarks
        .iter()
        .any(|remark| remark.contains(OF_ITS_OWN))
    {
        plan.scope.limits.clone_from(&running.plan.scope.limits);
    }
    plan.remarks.clone_from(&running.plan.remarks);
    plan != running.plan
}
