//! What a box is made of, one file per kernel facility; runs in the child and knows no systemd.
