//! What a call is refused with.

/// Why a call is not answered as it wishes.
#[derive(Debug)]
pub struct Refusal {
    /// The name of the error.
    pub error: &'static str,
    /// A sentence.
    pub text: String,
}

impl Refusal {
    /// With this error of D-Bus.
    pub fn new(error: &'static str, text: impl Into<String>) -> Refusal {
        Refusal {
            error,
            text: text.into(),
        }
    }

    /// The caller may not.
    pub fn denied(text: impl Into<String>) -> Refusal {
        Refusal::new("org.freedesktop.DBus.Error.AccessDenied", text)
    }

    /// The caller might, if somebody could be asked.
    pub fn interactive(text: impl Into<String>) -> Refusal {
        Refusal::new(
            "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired",
            text,
        )
    }

    /// There is a limit.
    pub fn too_much(text: impl Into<String>) -> Refusal {
        Refusal::new("org.freedesktop.DBus.Error.LimitsExceeded", text)
    }

    /// It is asked in another form than this is.
    pub fn arguments(text: impl Into<String>) -> Refusal {
        Refusal::new("org.freedesktop.DBus.Error.InvalidArgs", text)
    }

    /// It was tried.
    pub fn failed(text: impl Into<String>) -> Refusal {
        Refusal::new("org.boxd1.Error.Failed", text)
    }

    /// The box is not there.
    pub fn no_such_box(name: &str) -> Refusal {
        Refusal::new(
            "org.boxd1.Error.NoSuchBox",
            format!("there is no box {name}"),
        )
    }
}
