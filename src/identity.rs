//! Which range of ids belongs to which box: a registry under `/var/lib/boxd` that never gives a range twice.
