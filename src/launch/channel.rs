//! The socket between launcher and child: typed datagrams that can carry descriptors.
