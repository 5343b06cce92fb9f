//! What the payload writes, relayed to journald in its native protocol.
