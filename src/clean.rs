//! `boxd clean NAME`: what is left of a box whose supervisor could not tidy up.
