//! `boxd run NAME`: the service's main process until the supervisor takes its place.
