//! What boxd says about a box; the only stable serialised format.
