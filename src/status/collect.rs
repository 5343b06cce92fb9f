//! Where a [`Report`](super::Report) comes from.
