//! The child's side of a launch: it makes the root, waits for `Go`, drops what it must not have and becomes the payload.
